-- SPDX-License-Identifier: MIT
-- What parallelpython and its like get wrong or cannot do, as their users have
-- found: each of it as it is here.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end
local function boom(text) error(text, 0) end
local function die() os.exit(7) end
local function spin() while true do end end

after_each(child.clean)

describe("where parallelpython gives None", function()
  it("an error of a job is raised, with its value and place, and can be caught", function()
    local server <close> = pp.Server(1)
    local job = server:submit(function() error{code = 5} end)
    local ok, e = pcall(job)
    assert.is_false(ok)
    assert.is_true(pp.is_error(e))
    assert.are.equal(5, e.value.code)
    assert.is_truthy(e.traceback:find("parallelpython_spec.lua", 1, true), e.traceback)
  end)

  it("a nil result is no failure, a failure no nil result", function()
    local server <close> = pp.Server(1)
    assert.are.same({true, nil, nil}, {server:submit(id, {nil}):pcall()})
    assert.are.equal(1, select("#", server:submit(id, {n = 1})()))
    assert.is_false((server:submit(boom, {"no"}):pcall()))
  end)

  it("a job that used what was not sent does not exist: globals and upvalues go along", function()
    local server <close> = pp.Server(1)
    local rate = 3
    function scale(x) return x * rate end -- luacheck: ignore 111
    local function both(x) return scale(x) + rate end -- luacheck: ignore 113
    local ok, v = server:submit(both, {4}):pcall()
    scale = nil -- luacheck: ignore 111
    assert.are.same({true, 15}, {ok, v})
  end)

  it("a module that cannot be had fails its job and says what was looked for", function()
    local server <close> = pp.Server(1)
    local ok, e = server:submit(id, {1}, nil, {"no.such.module"}):pcall()
    assert.is_false(ok)
    assert.is_truthy(e.message:find("no.such.module", 1, true), e.message)
    assert.are.equal(2, server:submit(id, {2})())
  end)
end)

describe("where parallelpython waits for ever", function()
  it("a job whose worker dies fails, says how it ended, and is counted as failed", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local ok, e = server:submit(die):pcall()
    assert.is_false(ok)
    assert.are.equal("lost", e.kind)
    assert.is_truthy(e.message:find("exited with status 7", 1, true), e.message)
    assert.are.equal(1, server:get_stats()["local"].failed)
  end)

  it("the jobs behind it run", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local first = server:submit(die)
    local jobs = {}
    for i = 1, 50 do jobs[i] = server:submit(id, {i}) end
    for i = 1, 50 do assert.are.equal(i, jobs[i]()) end
    assert.is_false((first:pcall()))
  end)

  it("a result that cannot be sent fails that job alone", function()
    local server <close> = pp.Server(1)
    local bad = server:submit(function() return coroutine.create(print) end)
    local good = server:submit(id, {"good"})
    local ok, e = bad:pcall()
    assert.are.same({false, "unsendable"}, {ok, e.kind})
    assert.are.equal("good", good())
  end)

  it("a callback that fails does not keep its job from being finished", function()
    local server <close> = pp.Server(1)
    local job = server:submit{id, args = {1}, callback = function() error("of the callback", 0) end}
    local ok, e = pcall(job.wait, job)
    assert.are.same({false, "of the callback"}, {ok, e})
    assert.is_true(job.finished)
    assert.are.equal(1, job())
  end)

  it("destroy ends what runs, and whoever asks for it is told", function()
    local server = pp.Server(1)
    local job = server:submit(spin)
    assert.is_truthy(child.eventually(function() return job.status == "running" end))
    server:destroy()
    local ok, e = job:pcall()
    assert.are.same({false, "destroyed"}, {ok, e.kind})
    assert.is_false(pcall(server.submit, server, id))
  end)

  it("every wait takes a time", function()
    local server <close> = pp.Server(1)
    local job = server:submit(spin)
    assert.is_false(job:wait(0.01))
    assert.is_false(server:wait(0.01))
    assert.is_nil(server:pop(0.01))
    assert.are.same({}, server:drain(0.01))
    assert.is_true(job:cancel())
  end)
end)

describe("what parallelpython has not", function()
  it("a job's timeout ends that job, the pool goes on", function()
    local server <close> = pp.Server(1)
    local slow = server:submit{spin, timeout = 0.05}
    local next = server:submit(id, {"next"})
    assert.are.equal("next", next())
    assert.are.equal("timeout", select(2, slow:pcall()).kind)
  end)

  it("a running job can be cancelled, also in a program it has started", function()
    local server <close> = pp.Server(2)
    local spinning, sleeping = server:submit(spin), server:submit(os.execute, {"sleep 1000"})
    assert.is_truthy(child.eventually(function()
      return spinning.status == "running" and sleeping.status == "running"
    end))
    assert.is_true(spinning:cancel())
    assert.is_true(sleeping:cancel())
    assert.are.equal("after", server:submit(id, {"after"})())
  end)

  it("a job may submit jobs, and cancelling one child leaves its parent alone", function()
    local server <close> = pp.Server(2)
    local function parent()
      local s = pp.Server()
      local bad, good = s:submit(spin), s:submit(id, {"good"})
      local v = good()
      bad:cancel()
      return v, bad.status
    end
    assert.are.same({"good", "failed"}, {server:submit(parent)()})
  end)

  it("a list whose items fail in part gives the rest, errors in their places", function()
    local server <close> = pp.Server(2)
    local function odd(x) if x % 2 == 0 then boom("even") end return x end
    local r = server:map(odd, {1, 2, 3, 4, 5}, {on_error = "keep"})
    assert.are.same({1, 3, 5}, {r[1], r[3], r[5]})
    assert.is_true(pp.is_error(r[2]) and pp.is_error(r[4]))
  end)

  it("a refusal says which value cannot be sent, and where it is", function()
    local server <close> = pp.Server(1)
    local file <close> = io.tmpfile()
    local settings = {log = {file}}
    local function use() return settings end
    local ok, e = pcall(server.submit, server, use)
    assert.is_false(ok)
    assert.is_truthy(e:find("upvalue 'settings' of function 'use'", 1, true)
      or e:find("settings", 1, true), e)
    assert.is_truthy(e:find("userdata", 1, true), e)
  end)

  it("a job that takes too much memory can catch that, and the next one runs", function()
    local server <close> = pp.Server{ncpus = 1, memory = 20 << 20}
    local function hungry()
      local ok = pcall(function() local t = {} for i = 1, 1e9 do t[i] = {i} end return #t end)
      return ok, "still here"
    end
    assert.are.same({false, "still here"}, {server:submit(hungry)()})
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("random numbers do not depend on workers or order", function()
    local function roll() return math.random(1 << 40) end
    local function rolls(ncpus)
      local server <close> = pp.Server{ncpus = ncpus, seed = 7}
      local jobs, list = {}, {}
      for i = 1, 20 do jobs[i] = server:submit(roll) end
      for i = 20, 1, -1 do list[i] = jobs[i]() end
      return list
    end
    local want = rolls(1)
    assert.are.same(want, rolls(3))
    assert.are.same(want, rolls(0))
  end)
end)

describe("the output parallelpython holds back", function()
  it("comes while the job runs, though nobody asks for its result", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local job = server:submit(function()
        print "at once"
        while true do pp.sleep(1) end
      end)
      while job.status ~= "running" do pp.sleep(0.01) end
      server:wait(0.3)
      io.write "the script\n"
      job:cancel()
      job:pcall()
    ]])
    assert.are.equal("at once\nthe script\n", r.out)
  end)

  it("has all bytes, also zero bytes, and nothing of the job before", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      for i = 1, 3 do server:submit(io.write, {("%d\0\n"):format(i)}):wait() end
    ]])
    assert.are.equal("1\0\n2\0\n3\0\n", r.out)
  end)
end)

describe("where parallelpython cannot be started", function()
  it("stdin, stdout and stderr may be closed", function()
    local gate = child.gate()
    local r = child.run([[
      local pp = require "pp"
      local f = io.open(arg[1], "w")
      f:write(tostring(pp.Server(2):submit(math.abs, {-4})()))
      f:close()
    ]], {args = {gate.path .. ".out"}, setup = "exec <&- >&- 2>&-"})
    local f <close> = io.open(gate.path .. ".out")
    assert.are.equal("4", f:read "a")
    assert.are.equal(0, r.status)
  end)

  it("no local workers means none", function()
    local server <close> = pp.Server(0)
    assert.are.same({["local"] = 0}, server:get_active_nodes())
    assert.are.equal(3, server:submit(id, {3})())
  end)
end)

describe("what parallelpython's table gets wrong", function()
  it("a job that was run again counts once", function()
    local server <close> = pp.Server{ncpus = 1, retries = 1}
    local gate = child.gate()
    local path = gate.path .. ".once"
    local function once(name)
      local f = io.open(name)
      if f then
        f:close()
        return "second"
      end
      io.open(name, "w"):close()
      os.exit(1)
    end
    assert.are.equal("second", server:submit(once, {path})())
    local t = server:get_stats()["local"]
    assert.are.same({1, 1, 1, 0}, {t.njobs, t.retried, t.lost, t.failed})
  end)
end)
