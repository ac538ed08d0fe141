-- SPDX-License-Identifier: MIT
-- Many hosts at once.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local _ENV = _G -- luacheck: ignore

describe("many hosts", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  -- sshd drops connections when more than ten have not proved who they are.
  local net
  local servers, each = 2, 20
  setup(function()
    net = remote.new()
    for i = 1, servers do
      net:sshd("server" .. i, {lines = {"MaxStartups 10:100:100", "LogLevel VERBOSE"}})
      for k = 1, each do
        net.lab:alias(("many%d"):format(servers * (k - 1) + i), "server" .. i, {})
      end
    end
  end)
  teardown(function() net:close() end)

  for _, transport in ipairs {"libssh2", "ssh"} do
    it("are all connected, none being dropped, by " .. transport, function()
      local r = child.finish(net:start([[
        local pp = require "pp"
        local n = tonumber(arg[1])
        local s = pp.Server{ncpus = 0, hosts = ("many[1-%d]/1"):format(n), transport = arg[2]}
        local up, why = s:wait_hosts(100)
        for name, reason in pairs(why or {}) do print(name, reason) end
        local jobs = {}
        for i = 1, n do jobs[i] = s:submit{function() return pp.job.node end, on = "many" .. i} end
        for i = 1, n do assert(jobs[i]() == "many" .. i) end
        print(up, s:get_active_nodes()["many" .. n])
      ]], {args = {tostring(servers * each), transport}, timeout = 120}))
      assert.is_nil(r.late, r.err)
      assert.are.equal("true\t1\n", r.out)
      assert.are.equal("", r.err)
      for i = 1, servers do
        local log = net.lab:log("server" .. i)
        assert.is_nil(log:match "[Dd]rop[^\n]*" or log:match "[^\n]*MaxStartups[^\n]*")
        assert.are.same({}, net:left("server" .. i))
      end
    end)
  end
end)
