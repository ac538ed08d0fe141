-- SPDX-License-Identifier: MIT
-- Where jobs run: `on`, and how many places they take: `slots`.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end
local function pass(path, ...)
  io.open(path):close()
  return ...
end
local function forever() while true do end end
local function running(job)
  return child.eventually(function() return job.status == "running" end)
end

after_each(child.clean)

describe("on", function()
  it("may name this machine", function()
    local server <close> = pp.Server(1)
    for _, on in ipairs {"local", "host1,local", {"local"}, {"host1", "local"}} do
      local job = server:submit{id, args = {1}, on = on}
      assert.are.equal(1, job())
      assert.are.equal("local", job.node)
    end
    assert.are.same({n = 2, 1, 2}, server:map(id, {1, 2}, {on = "local"}))
  end)

  it("makes jobs fail that are for nodes there will never be", function()
    local server <close> = pp.Server(1)
    for on, text in pairs {
      ["host1"] = "'host1'",
      ["node[1-3],localhost"] = "'node[1-3],localhost'",
      [{"host1", "host2:22"}] = "'host1, host2:22'",
    } do
      local got
      local job = server:submit{id, on = on, callback = function(v, err) got = {v, err} end}
      assert.is_nil(got) -- not in submit
      local ok, err = job:pcall()
      assert.is_false(ok)
      assert.are.equal("connect", err.kind)
      assert.matches(text, err.message, 1, true)
      assert.are.equal(err, got[2])
      assert.is_nil(err.node)
      assert.are.equal("failed", job.status)
      assert.are.equal(0, job.attempts)
    end
    local ok, err = pcall(server.map, server, id, {1}, {on = "host1"})
    assert.is_false(ok)
    assert.are.equal("connect", err.kind)
    assert.are.equal(0, server:pending())
    assert.are.equal(0, server:get_stats()["local"].njobs)
  end)

  it("counts in a server of no workers too", function()
    local server <close> = pp.Server(0)
    assert.are.equal(1, server:submit{id, args = {1}, on = "local"}())
    assert.are.equal("connect", select(2, server:submit{id, on = "far"}:pcall()).kind)
  end)

  it("is refused when it names nothing", function()
    local server <close> = pp.Server(1)
    for _, on in ipairs {5, true, {}, {1}, "", " , ", {"a", ""}, print} do
      local ok, err = pcall(function() server:submit{id, on = on} end)
      assert.is_false(ok)
      assert.matches("place_spec.lua:%d+: bad argument #1 to 'submit' %(on ", err)
    end
  end)
end)

describe("slots", function()
  it("is how many workers a job keeps from others", function()
    local server <close> = pp.Server(3)
    local gate, other = child.gate(), child.gate()
    local wide = server:submit{pass, args = {gate.path, "wide"}, slots = 2}
    local small = {}
    for i = 1, 3 do small[i] = server:spawn(pass, other.path, i) end
    assert(running(wide))
    assert(running(small[1]))
    assert.are.equal("queued", small[2].status)
    assert.are.equal("queued", small[3].status)
    gate:open()
    assert.are.equal("wide", wide())
    assert(running(small[2]))
    assert(running(small[3]))
    other:open()
    for i = 1, 3 do assert.are.equal(i, small[i]()) end
  end)

  it("is not starved by smaller jobs", function()
    local server <close> = pp.Server(2)
    local first, second = child.gate(), child.gate()
    local a = server:spawn(pass, first.path)
    local b = server:spawn(pass, second.path)
    assert(running(a) and running(b))
    local wide = server:submit{pp.time, slots = 2}
    local small = server:spawn(pp.time)
    first:open()
    a()
    assert.are.equal("queued", small.status) -- though a worker is idle
    assert.are.equal("queued", wide.status)
    local urgent = server:submit{pp.time, priority = 1}
    assert.is_true(urgent:wait(child.patience))
    assert.are.equal("queued", small.status)
    second:open()
    assert.is_true(wide() <= small())
  end)

  it("may be all workers, again and again", function()
    local server <close> = pp.Server(3)
    local jobs = {}
    for i = 1, 60 do
      jobs[i] = server:submit{id, args = {i}, slots = 1 + i % 3}
    end
    for i = 1, 60 do assert.are.equal(i, jobs[i]()) end
    local list = server:map(id, pp.range(1, 50), {slots = 2, chunk = 5})
    assert.are.equal(50, list[50])
  end)

  it("is given back when the job fails, is stopped or its worker dies", function()
    local server <close> = pp.Server(2)
    assert.is_false((server:submit{error, args = {"x"}, slots = 2}:pcall()))
    local job = server:submit{forever, slots = 2, timeout = 0.1}
    assert.are.equal("timeout", select(2, job:pcall()).kind)
    job = server:submit{forever, slots = 2}
    assert(running(job))
    assert.is_true(job:cancel())
    job = server:submit{function()
      if require "pp".job.attempt == 1 then os.exit(1) end
      return "second"
    end, slots = 2}
    assert.are.equal("second", job())
    job = server:submit{id, slots = 2}
    local left = server:submit{id, slots = 2}
    left:cancel()
    job()
    local gate = child.gate()
    local a, b = server:spawn(pass, gate.path), server:spawn(pass, gate.path)
    assert(running(a) and running(b)) -- both places are there
    gate:open()
    a() b()
  end)

  it("is all there are when the pool has shrunk", function()
    local server <close> = pp.Server(3)
    local gate = child.gate()
    local busy = server:spawn(pass, gate.path)
    assert(running(busy))
    local wide = server:submit{id, args = {"ran"}, slots = 3}
    server:set_ncpus(1)
    gate:open()
    assert.are.equal("ran", wide())
    server:set_ncpus(3)
    assert.are.equal("ran", server:submit{id, args = {"ran"}, slots = 3}())
    wide = server:submit{id, args = {"here"}, slots = 3}
    server:set_ncpus(0)
    assert.are.equal("here", wide())
  end)

  it("counts as one in a server of no workers", function()
    local server <close> = pp.Server(0)
    assert.are.equal(7, server:submit{id, args = {7}, slots = 4}())
  end)

  it("is refused when it is no number of workers", function()
    local server <close> = pp.Server(2)
    for slots, text in pairs {
      [0] = ">= 1, got 0", [-1] = ">= 1, got -1", [1.5] = ">= 1, got 1.5", ["2"] = ">= 1, got 2",
      [3] = "at most 2, the workers of 'local', got 3",
    } do
      local ok, err = pcall(function() server:submit{id, slots = slots} end)
      assert.is_false(ok)
      assert.matches("place_spec.lua:%d+: bad argument #1 to 'submit' %(slots must be ", err)
      assert.matches(text, err, 1, true)
      ok, err = pcall(function() server:map(id, {}, {slots = slots}) end)
      assert.is_false(ok)
      assert.matches("bad argument #3 to 'map' %(slots must be ", err)
    end
  end)
end)
