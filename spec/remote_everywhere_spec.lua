-- SPDX-License-Identifier: MIT
-- Calls of everywhere where workers are on other machines, which come and go.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("everywhere, with hosts,", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net
  setup(function()
    net = remote.new()
    net:sshd "h1"
    net:sshd "h2"
  end)
  teardown(function() net:close() end)

  local function finish(p)
    local r = child.finish(p)
    assert.is_nil(r.late, r.err)
    assert.are.equal(0, r.status, r.err)
    return r
  end

  it("calls workers here and there, once in each", function()
    assert.are.equal("h1/1 h1/2 h2/1 local/1\n1 1 1 1 1 1 1 1\n", finish(net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 1, hosts = "h1/2,h2/1"}
      local list = s:everywhere(function() count = (count or 0) + 1 return count end)
      local names = {}
      for i, e in ipairs(list) do
        assert(e.ok and e[1] == 1)
        names[i] = e.node .. "/" .. e.worker
      end
      table.sort(names)
      print(table.concat(names, " "))
      print(table.concat(s:map(function() return count end, pp.range(1, 8)), " "))
    ]]).out)
  end)

  it("is replayed in order, before any job, when a host is connected to again", function()
    local p = net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/2"}
      local names = {}
      s:everywhere(function() log = {"first"} end)
      s:everywhere(function(word) log[#log + 1] = word end, "second")
      local function tell() return table.concat(log, ", ") end
      print(s:submit(tell)())
      local held = {}
      for i = 1, 2 do
        held[i] = s:submit(function()
          if pp.job.attempt == 1 then pp.sleep(1000) end
          return table.concat(log, ", ")
        end)
      end
      for i = 1, 20 do held[#held + 1] = s:submit(tell) end
      while held[1].status ~= "running" or held[2].status ~= "running" do pp.sleep(0.01) end
      print "up"
      io.stdout:flush()
      for i = 1, #held do names[held[i]()] = true end
      s:everywhere(function() log[#log + 1] = "third" end)
      names[s:submit(tell)()] = true
      for name in pairs(names) do print(name) end
      print(s:get_stats().h1.lost > 0)
    ]]
    p:expect "up\n"
    net.lab:kill "h1"
    net.lab:start "h1"
    local out = finish(p).out
    assert.matches("^first, second\nup\n", out)
    assert.matches("\nfirst, second\n", out)
    assert.matches("\nfirst, second, third\n", out)
    assert.matches("\ntrue\n$", out)
    assert.are.equal(5, select(2, out:gsub("\n", "")), out)
  end)

  it("does not wait for a host that does not answer, which makes the call when it does",
    function()
      net:sshd "mute"
      local pid = run.read(net.lab:path "mute/sshd.pid"):match "%d+"
      child.kill("STOP", pid)
      local p = net:start [[
        local pp = require "pp"
        local s = pp.Server{ncpus = 1, hosts = "mute/1"}
        local list = s:everywhere(function() word = "told" end)
        print(#list, list[1].node, s:get_stats().mute.state)
        print(#s:everywhere(function() word = word .. " twice" end)) -- at once, this time
        io.stdout:flush()
        print(s:submit{function() return word, pp.job.node end, on = "mute"}())
      ]]
      p:expect "1\tlocal\tconnecting\n1\n"
      child.kill("CONT", pid)
      assert.matches("\ntold twice\tmute\n$", finish(p).out)
      net.lab:kill "mute"
    end)

  it("does not wait for a host that cannot be used", function()
    net:sshd "gone"
    net.lab:kill "gone"
    assert.are.equal("1\tlocal\n0\nconnect\n", finish(net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 1, hosts = "gone/1"}
      local list = s:everywhere(function() end)
      print(#list, list[1].node)
      local none = pp.Server{ncpus = 0, hosts = "gone/1"}
      print(#none:everywhere(function() end))
      print(select(2, none:submit(function() end):pcall()).kind)
    ]]).out)
  end)

  it("uses no worker where it fails, and says why, until the host connects anew", function()
    local flag, go = run.file("", "flag"), child.gate()
    local p = net:start([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/1"}
      local list = s:everywhere(function(flag)
        local f <close> = assert(io.open(flag), "it is not there")
      end, arg[1])
      print(list[1].ok, list[1].node, list[1].error.message)
      print(select(2, s:submit(function() end):pcall()).message)
      print(s:get_stats().h1.state, s:get_stats().h1.reason)
      do
        local t <close> = pp.Server{ncpus = 1, hosts = "h1/1"}
        t:everywhere(function() assert(pp.job.node == "local", "it is not there") end)
        print(select(2, t:submit{function() end, on = "h1"}:pcall()).message)
      end
      io.stdout:flush()
      io.open(arg[2]):close()
      s:remove_host "h1"
      while s:get_stats().h1.state ~= "removed" do pp.sleep(0.01) end
      s:add_host "h1/1"
      print(s:submit(function() return pp.job.node end)())
    ]], {args = {flag .. "2", go.path}})
    p:expect "false\th1\t[^\n]*it is not there\n"
    local why = "no worker can be used: a call of everywhere failed: [^\n]*it is not there\n"
    p:expect(why)
    p:expect("failed\t" .. why)
    p:expect("no worker is to be expected on 'h1': host 'h1': " .. why)
    os.execute(("touch %s2"):format(flag))
    go:open()
    local r = finish(p)
    assert.matches("\nh1\n$", r.out)
    assert.matches("worker 1 of 'h1' is not used: a call of everywhere failed: ", r.err, 1, true)
  end)
end)
