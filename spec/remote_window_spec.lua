-- SPDX-License-Identifier: MIT
-- No more is under way to a host, or from it, than its link takes: what is small
-- need not wait behind all that is large.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local remote = require "spec.support.remote"
local _ENV = _G -- luacheck: ignore

describe("on a link of 20 Mbit a second", function()
  local why = remote.no_slowness()
  if why then
    pending("needs hosts with slow links: " .. why)
    return
  end

  local net
  setup(function()
    net = remote.new()
    net:netns "slow"
    net.lab:slow("slow", "20mbit")
  end)
  teardown(function() if net then net:close() end end)

  -- Runs small jobs one after another while a large one goes on; how many.
  local function passes(transport, large)
    local r = net:run([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "slow/2", transport = "]] .. transport .. [["}
      local function noise(n) return assert(io.open "/dev/urandom"):read(n) end
      local function length(x) return #x end
      s:submit(length, {"here"})() -- the host is there
      local size, small = 5 << 20, 0
      local job = ]] .. large .. [[

      pp.sleep(0.3) -- it is on its way
      repeat
        assert(s:submit(length, {"small"})() == 5)
        small = small + 1
      until job.finished
      local x = job()
      assert(math.type(x) and x == size or #x == size)
      print(small)
    ]])
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
    return tonumber(r.out)
  end

  for _, transport in ipairs {"libssh2", "ssh"} do
    it("small jobs pass by large arguments, by " .. transport, function()
      assert.is_true(passes(transport, "s:submit(length, {noise(size)})") > 18)
    end)

    it("small results pass by a large one, by " .. transport, function()
      assert.is_true(passes(transport, "s:submit(noise, {size})") > 18)
    end)
  end
end)
