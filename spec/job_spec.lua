-- SPDX-License-Identifier: MIT
-- A job's handle: results, waiting, fields, errors.
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
local function raise(value) error(value, 0) end

local function line_here() return debug.getinfo(2, "l").currentline end
local this_file = debug.getinfo(1, "S").short_src

local function failure(job)
  local ok, err = job:pcall()
  assert.is_false(ok)
  return err
end

after_each(child.clean)

describe("job()", function()
  it("returns all results of the function", function()
    local server <close> = pp.Server(1)
    assert.are.same({1, "two", {3}, n = 3},
      table.pack(server:submit(id, {1, "two", {3}})()))
    assert.are.equal(0, select("#", server:submit(id)()))
  end)

  it("keeps embedded and trailing nils", function()
    local server <close> = pp.Server(1)
    assert.are.same({nil, 1, nil, nil, n = 4},
      table.pack(server:submit(function() return nil, 1, nil, nil end)()))
    assert.are.same({n = 1}, table.pack(server:submit(function() return nil end)()))
  end)

  it("returns the very same values again and again", function()
    local server <close> = pp.Server(1)
    local job = server:submit(function()
      return {}, function() return 1 end, nil, 0/0, "s", nil
    end)
    local first = table.pack(job())
    for _ = 1, 3 do
      local again = table.pack(job())
      assert.are.equal(6, again.n)
      assert.is_true(rawequal(first[1], again[1]))
      assert.is_true(rawequal(first[2], again[2]))
      assert.are_not.equal(again[4], again[4])
      assert.are.equal("s", again[5])
    end
    first[1].changed = true
    assert.is_true((job()).changed)
    local ok, same = job:pcall()
    assert.is_true(ok)
    assert.is_true(rawequal(first[1], same))
  end)

  it("may be asked in any order", function()
    local server <close> = pp.Server(2)
    local jobs = {}
    for i = 1, 100 do jobs[i] = server:submit(id, {i}) end
    for i = 100, 1, -1 do assert.are.equal(i, jobs[i]()) end
  end)

  it("may be asked inside a coroutine", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id, {3})
    assert.are.equal(3, coroutine.wrap(function() return job() end)())
  end)

  it("raises the job's error, the same object each time", function()
    local server <close> = pp.Server(1)
    local job = server:submit(raise, {"no"})
    local ok, first = pcall(job)
    assert.is_false(ok)
    for _ = 1, 3 do
      local _, again = pcall(job)
      assert.is_true(rawequal(first, again))
      local _, other = job:pcall()
      assert.is_true(rawequal(first, other))
    end
  end)

  it("takes no failure for a nil, and no nil for a failure", function()
    local server <close> = pp.Server(1)
    local job = server:submit(function() return nil, "message" end)
    assert.are.same({true, nil, "message", n = 3}, table.pack(job:pcall()))
    assert.are.equal("done", job.status)
    job = server:submit(error)
    assert.is_false(job:pcall())
    assert.are.equal("failed", job.status)
  end)
end)

describe("job:wait", function()
  it("is true when the job has ended", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id, {1})
    assert.is_true(job:wait())
    assert.is_true(job:wait(0))
    assert.is_true(job:wait(10))
    assert.is_true(job.finished)
  end)

  it("is false when the time ran out; 0 only looks", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local job = server:submit(pass, {gate.path, 7})
    assert.is_false(job:wait(0))
    assert.is_false(job:wait(0.01))
    assert.is_false(job.finished)
    gate:open()
    assert.is_true(job:wait(child.patience))
    assert.are.equal(7, job())
  end)

  it("never raises the job's error", function()
    local server <close> = pp.Server(1)
    local job = server:submit(raise, {"no"})
    assert.is_true(job:wait())
    assert.is_true(job:wait(0))
    job:pcall()
  end)

  it("waits for this job alone", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local slow = server:submit(pass, {gate.path})
    local quick = server:submit(id, {1})
    assert.is_true(quick:wait(child.patience))
    assert.is_false(slow.finished)
    gate:open()
  end)

  it("refuses a timeout that is no number", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id)
    assert.is_false(pcall(job.wait, job, "soon"))
    assert.is_true(job:wait())
  end)
end)

describe("job:pcall", function()
  it("returns true and the results, or false and the error", function()
    local server <close> = pp.Server(1)
    assert.are.same({true, nil, 2, nil, n = 4},
      table.pack(server:submit(id, {nil, 2, nil, n = 3}):pcall()))
    local r = table.pack(server:submit(raise, {"no"}):pcall())
    assert.are.equal(2, r.n)
    assert.is_false(r[1])
    assert.is_true(pp.is_error(r[2]))
  end)
end)

describe("a job's fields", function()
  it("tell its status: queued, running, done or failed", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local first = server:submit(pass, {gate.path})
    local second = server:submit(raise, {"no"})
    assert.is_truthy(child.eventually(function()
      return first.status == "running"
    end))
    assert.are.equal("queued", second.status)
    assert.is_false(first.finished)
    assert.is_false(second.finished)
    gate:open()
    assert.is_true(server:wait())
    assert.are.equal("done", first.status)
    assert.are.equal("failed", second.status)
    assert.is_true(first.finished)
    assert.is_true(second.finished)
    second:pcall()
  end)

  it("show what has arrived when they are read, without any waiting call",
    function()
      local server <close> = pp.Server(1)
      local job = server:submit(id)
      assert.is_truthy(child.eventually(function() return job.finished end))
      job = server:submit(id)
      assert.is_truthy(child.eventually(function()
        return job.status == "done"
      end))
    end)

  it("number the jobs of each server from 0", function()
    local one <close> = pp.Server(1)
    local two <close> = pp.Server(1)
    for i = 0, 4 do
      local job = one:submit(id)
      assert.are.equal(i, job.id)
      assert.are.equal("integer", math.type(job.id))
    end
    assert.are.equal(0, two:spawn(id).id)
    assert.are.equal(1, two:submit{id}.id)
    assert.are.equal(2, pp.Template(two, id):submit().id)
  end)

  it("say group, name, node, worker and attempts", function()
    local server <close> = pp.Server(1)
    local job = server:submit{id, group = "g", name = "n"}
    job()
    assert.are.equal("g", job.group)
    assert.are.equal("n", job.name)
    assert.are.equal("local", job.node)
    assert.are.equal("integer", math.type(job.worker))
    assert.are.equal(1, job.attempts)
  end)

  it("say how long it was queued and ran", function()
    local server <close> = pp.Server(1)
    local start = pp.time()
    local job = server:submit(function()
      local x = 0
      for i = 1, 3000000 do x = x + i % 7 end
      return x
    end)
    job()
    local whole = pp.time() - start
    for _, name in ipairs{"queued", "run", "cpu", "total"} do
      assert.are.equal("number", type(job.time[name]), name)
      assert.is_true(job.time[name] >= 0, name)
    end
    assert.is_true(job.time.run > 0)
    assert.is_true(job.time.run <= whole)
    assert.is_true(job.time.total <= whole)
    assert.is_true(job.time.run <= job.time.total + 1e-6)
  end)

  it("say how many bytes went there and came back", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id, {("x"):rep(50000)})
    job()
    assert.is_true(job.bytes.sent >= 50000)
    assert.is_true(job.bytes.received >= 50000)
    job = server:submit(string.len, {("x"):rep(50000)})
    assert.are.equal(50000, job())
    assert.is_true(job.bytes.received < 1000)
  end)

  it("say the peak of the worker's memory", function()
    local server <close> = pp.Server(1)
    local job = server:submit(function()
      local s = ("x"):rep(32 << 20)
      return #s
    end)
    job()
    assert.is_true(job.maxrss >= 32 << 20)
    assert.is_true(job.maxrss < 1 << 40)
  end)
end)

describe("a job in each of its states", function()
  -- fields of a job as the contract has them, by state; * stands for any number
  local function spin() while true do end end
  local forms = {
    submit = function(server, f) return server:submit(f, nil, nil, nil, nil, nil, "g") end,
    named = function(server, f) return server:submit{f, group = "g", name = "n"} end,
    spawn = function(server, f) return server:spawn(f) end,
    Template = function(server, f)
      return pp.Template(server, f, nil, nil, nil, nil, "g"):submit()
    end,
  }

  local function check(job, want, label)
    assert.are.equal(want.status, job.status, label)
    assert.are.equal(want.finished, job.finished, label)
    assert.are.equal(want.begun and "local" or nil, job.node, label)
    assert.are.equal(want.begun and 1 or nil, job.worker, label)
    assert.are.equal(want.begun and 1 or 0, job.attempts, label)
    assert.are.equal("integer", math.type(job.id), label)
    local t = job.time
    for _, k in ipairs{"queued", "run", "cpu", "total"} do
      assert.are.equal("float", math.type(t[k]), label)
      assert.is_true(t[k] >= 0, label)
    end
    assert.is_true(t.queued + t.run <= t.total + 1e-9, label)
    assert.is_true(t.cpu <= t.run, label)
    assert.is_true(want.begun or t.run == 0, label)
    for _, k in ipairs{"sent", "received"} do
      assert.are.equal("integer", math.type(job.bytes[k]), label)
    end
    assert.is_true(want.begun == (job.bytes.sent > 0) or not want.begun, label)
    assert.are.equal(want.maxrss and "integer" or nil, math.type(job.maxrss), label)
    assert.is_nil(job.output, label)
    assert.is_nil(job.errors, label)
    assert.is_nil(job.nonsense, label)
    assert.is_false(pcall(function() job.name = "m" end), label)
    assert.are.equal(("job %d (%s)"):format(job.id, want.status), tostring(job), label)
    if want.finished then
      assert.is_true(job:wait(0), label)
      assert.is_false(job:cancel(), label)
      local ok, e = job:pcall()
      assert.are.equal(want.kind == nil, ok, label)
      if want.kind then
        assert.is_true(pp.is_error(e), label)
        assert.are.equal(want.kind, e.kind, label)
        assert.are.equal(job.id, e.job, label)
        assert.are.equal(job.node, e.node, label)
        assert.are.equal(job.worker, e.worker, label)
        assert.are.equal("string", type(e.message), label)
        assert.are.equal("string", type(e.traceback), label)
        assert.are.equal(want.value, e.value, label)
        assert.is_nil(e.cause, label)
        assert.are.equal(1, (tostring(e):find(e.message, 1, true)), label)
        assert.is_true(rawequal(e, select(2, pcall(job))), label)
      end
    else
      assert.is_false(job:wait(0), label)
    end
  end

  local states = {
    queued = {status = "queued", finished = false},
    running = {status = "running", finished = false, begun = true},
    done = {status = "done", finished = true, begun = true, maxrss = true},
    failed = {status = "failed", finished = true, begun = true, maxrss = true,
      kind = "error", value = "no"},
    ["cancelled while queued"] = {status = "failed", finished = true, kind = "cancelled"},
    ["cancelled while running"] = {status = "failed", finished = true, begun = true,
      kind = "cancelled"},
    ["queued when the server was destroyed"] = {status = "failed", finished = true,
      kind = "destroyed"},
    ["running when the server was destroyed"] = {status = "failed", finished = true,
      begun = true, kind = "destroyed"},
    ["out of time"] = {status = "failed", finished = true, begun = true, kind = "timeout"},
    lost = {status = "failed", finished = true, begun = true, maxrss = true, kind = "lost"},
    unsendable = {status = "failed", finished = true, begun = true, maxrss = true,
      kind = "unsendable"},
    ["out of memory"] = {status = "failed", finished = true, begun = true, maxrss = true,
      kind = "memory"},
  }
  local options = {["out of time"] = {timeout = 0.01}, lost = {retries = 0},
    ["out of memory"] = {memory = 32 << 20}}
  local functions = {
    done = function() return 1 end,
    failed = function() error("no", 0) end,
    lost = function() os.exit(1) end,
    unsendable = function() return coroutine.create(print) end,
    ["out of memory"] = function() return #("x"):rep(1 << 28) end,
  }

  local function begun(job) return job.status == "running" end

  for state, want in pairs(states) do
    it("has its fields when it is " .. state, function()
      local o = options[state] or {}
      o.ncpus = 1
      for form, make in pairs(forms) do
        local label = form .. ", " .. state
        local server <close> = pp.Server(o)
        local first = not want.begun and server:spawn(spin)
        local job = make(server, functions[state] or spin)
        if first or want.status == "running" or state:find("running", 1, true) then
          assert.is_truthy(child.eventually(function() return begun(first or job) end), label)
        end
        if state:find("cancelled", 1, true) then
          assert.is_true(job:cancel(), label)
        elseif state:find("destroyed", 1, true) then
          server:destroy()
        elseif want.finished then
          assert.is_true(job:wait(child.patience), label)
        end
        check(job, want, label)
        assert.are.equal(form == "spawn" and "default" or "g", job.group, label)
        assert.are.equal(form == "named" and "n" or nil, job.name, label)
        if want.finished then -- and so it stays
          server:destroy()
          check(job, want, label)
        end
      end
    end)
  end

  it("is queued while it waits for a job it was given", function()
    local server <close> = pp.Server(2)
    local given = server:spawn(spin)
    local job = server:spawn(id, given)
    assert.is_truthy(child.eventually(function() return begun(given) end))
    check(job, states.queued, "waiting")
    given:cancel()
    assert.is_true(job:wait(child.patience))
    assert.are.equal("failed", job.status)
    assert.are.equal(0, job.attempts)
    assert.is_nil(job.node)
    assert.is_nil(job.worker)
    local e = failure(job)
    assert.are.equal("cancelled", e.cause.kind)
    assert.are.equal(given.id, e.cause.job)
    assert.are.equal(job.id, e.job)
    assert.is_nil(e.worker)
  end)

  it("stays as it was when nothing else holds its server", function()
    local function make()
      local server = pp.Server(1)
      local job = server:submit{raise, args = {"no"}, group = "g", name = "n"}
      job:wait()
      server:destroy()
      return job
    end
    local job = make()
    collectgarbage()
    collectgarbage()
    check(job, states.failed, "collected")
    assert.are.equal("g", job.group)
    assert.are.equal("n", job.name)
  end)

  it("says where it runs while it does, how long, and which attempt it is", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local job = server:submit{function(path)
      if pp.job.attempt == 1 then os.exit(1) end
      io.open(path):close()
      return pp.job.worker
    end, args = {gate.path}}
    assert.is_truthy(child.eventually(function()
      return job.attempts == 2 and job.status == "running"
    end))
    local worker, run = job.worker, job.time.run
    assert.are.equal("local", job.node)
    assert.are.equal(0, job.time.cpu)
    assert.is_truthy(child.eventually(function() return job.time.run > run end))
    gate:open()
    assert.are.equal(worker, job())
    assert.are.equal(worker, job.worker)
    assert.are.equal(2, job.attempts)
  end)

  it("says so in a job that has submitted it, too", function()
    local server <close> = pp.Server(2)
    local r = table.pack(server:spawn(function()
      local own <close> = pp.Server()
      local job = own:spawn(spin)
      while job.status ~= "running" do pp.sleep(0.001) end
      local t = job.time
      return job.node, job.worker, job.attempts, t.run > 0 and t.queued + t.run <= t.total + 1e-9
    end)())
    assert.are.equal("local", r[1])
    assert.are.equal("integer", math.type(r[2]))
    assert.are.equal(1, r[3])
    assert.is_true(r[4])
  end)
end)

describe("pp.job", function()
  it("tells a job which it is", function()
    local server <close> = pp.Server(1)
    server:submit(id)()
    local job = server:submit(function()
      local j = pp.job
      return j.id, j.node, j.worker, j.attempt
    end)
    local number, node, worker, attempt = job()
    assert.are.equal(1, number)
    assert.are.equal("local", node)
    assert.are.equal(job.worker, worker)
    assert.are.equal(1, attempt)
  end)

  it("is nil in the script", function()
    assert.is_nil(pp.job)
  end)
end)

describe("a job's error", function()
  it("has kind, message, value, node, worker and job", function()
    local server <close> = pp.Server(1)
    local job = server:submit(raise, {"no such thing"})
    local e = failure(job)
    assert.are.equal("table", type(e))
    assert.are.equal("error", e.kind)
    assert.are.equal("no such thing", e.message)
    assert.are.equal("no such thing", e.value)
    assert.are.equal("string", type(e.traceback))
    assert.are.equal("local", e.node)
    assert.are.equal(job.worker, e.worker)
    assert.is_not_nil(e.job)
    assert.is_nil(e.cause)
  end)

  it("has the script's file and line in message and traceback", function()
    local server <close> = pp.Server(1)
    local function deeper()
      error("broken") -- here
    end
    local line = line_here() - 2
    local e = failure(server:submit(function()
      deeper()
      return 1
    end))
    local where = ("%s:%d:"):format(this_file, line)
    assert.are.equal(where .. " broken", e.message)
    assert.are.equal(e.message, e.value)
    assert.is_truthy(e.traceback:find(where, 1, true), e.traceback)
    assert.is_truthy(e.traceback:find(("%s:%d:"):format(this_file, line + 4),
      1, true), e.traceback)
  end)

  it("shows message, then traceback, as a string", function()
    local server <close> = pp.Server(1)
    local e = failure(server:submit(raise, {"broken"}))
    local text = tostring(e)
    assert.are.equal("broken", text:sub(1, 6))
    local at = text:find(e.traceback, 1, true)
    assert.is_true(at ~= nil and at > 6, text)
  end)

  it("can be put together with strings, as strings can", function()
    local server <close> = pp.Server(1)
    local e = failure(server:submit(raise, {"broken"}))
    assert.are.equal("it is " .. tostring(e), "it is " .. e)
    assert.are.equal(tostring(e) .. 7, e .. 7)
    assert.are.equal(tostring(e) .. tostring(e), e .. e)
    local ok, why = pcall(function() return e .. {} end)
    assert.is_false(ok)
    assert.matches("job_spec.lua:%d+: attempt to concatenate a table value", why)
  end)

  it("of the interpreter is one too", function()
    local server <close> = pp.Server(1)
    local e = failure(server:submit(function(t)
      return t.field -- here
    end))
    local line = line_here() - 2
    assert.are.equal("error", e.kind)
    assert.are.equal(("%s:%d: attempt to index a nil value (local 't')")
      :format(this_file, line), e.message)
    local function deep(n) return 1 + deep(n + 1) end
    e = failure(server:submit(deep, {1}))
    assert.are.equal("error", e.kind)
    assert.is_truthy(e.message:find("stack overflow", 1, true))
  end)

  it("carries a value of any type", function()
    local server <close> = pp.Server(1)
    for _, value in ipairs{42, 1.5, true, false, "text"} do
      local e = failure(server:submit(raise, {value}))
      assert.are.equal(value, e.value)
      assert.are.equal(math.type(value), math.type(e.value))
      assert.are.equal("error", e.kind)
    end
    assert.is_nil(failure(server:submit(raise, {nil, n = 1})).value)
    local value = failure(server:submit(raise, {{code = 7, list = {1}}})).value
    assert.are.same({code = 7, list = {1}}, value)
    value = failure(server:submit(function()
      error(function() return "called" end)
    end)).value
    assert.are.equal("called", value())
  end)

  it("has the text of its value as message", function()
    local server <close> = pp.Server(1)
    local E = {__tostring = function(e) return "code " .. e.code end}
    local e = failure(server:submit(function()
      error(setmetatable({code = 7}, E))
    end))
    assert.are.equal("code 7", e.message)
    assert.are.equal(7, e.value.code)
    assert.is_true(rawequal(E, getmetatable(e.value)))
    e = failure(server:submit(raise, {42}))
    assert.are.equal("42", e.message)
    e = failure(server:submit(raise, {nil, n = 1}))
    assert.are.equal("string", type(e.message))
  end)

  it("has the text of a value that cannot travel", function()
    local server <close> = pp.Server(1)
    local e = failure(server:submit(function()
      error(coroutine.create(function() end))
    end))
    assert.are.equal("error", e.kind)
    assert.is_truthy(e.value:find("^thread: "), tostring(e.value))
  end)

  it("survives a value whose __tostring fails", function()
    local server <close> = pp.Server(1)
    local e = failure(server:submit(function()
      error(setmetatable({}, {__tostring = function() error("twice") end}))
    end))
    assert.are.equal("error", e.kind)
    assert.are.equal("string", type(e.message))
    assert.are.equal("string", type(tostring(e)))
    assert.are.equal(3, server:submit(id, {3})())
  end)

  it("is known to pp.is_error, and nothing else is", function()
    local server <close> = pp.Server(1)
    local e = failure(server:submit(raise, {"no"}))
    assert.is_true(pp.is_error(e))
    for _, value in ipairs{"no", 1, true, {}, print,
      {kind = "error", message = "no"}} do
      assert.is_false(pp.is_error(value))
    end
    assert.is_false(pp.is_error(nil))
  end)

  it("can be handled and raised again", function()
    local server <close> = pp.Server(1)
    local job = server:submit(raise, {"no"})
    local ok, e = pcall(function()
      local _, err = job:pcall()
      error(err)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(e, failure(job)))
  end)

  it("leaves the worker as good as it was", function()
    local server <close> = pp.Server(1)
    local before = server:submit(child.pid)()
    for _ = 1, 20 do failure(server:submit(raise, {"no"})) end
    assert.are.equal(before, server:submit(child.pid)())
  end)

  it("left uncaught also shows where job() was called", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local job = server:submit(function()
        error("broken")
      end)
      print("waiting")
      job()
    ]])
    assert.are.equal(1, r.status)
    assert.are.equal("waiting\n", r.out)
    local first = r.err:match("^[^\n]*")
    assert.is_truthy(first:find(r.script .. ":4: broken", 1, true), r.err)
    assert.is_truthy(r.err:find(r.script .. ":7:", 1, true), r.err)
  end)
end)
