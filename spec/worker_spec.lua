-- SPDX-License-Identifier: MIT
-- Workers that die: what becomes of their job, of those behind it, and of them.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function id(...) return ... end
local pid_of = child.pid

local function kill_self(signal)
  os.execute(("kill -s %s %d"):format(signal, pid_of()))
  while true do end -- until it arrives
end

--- Dies on its first `times` runs; then says which run this is. The file counts.
local function die_first(path, times)
  local log <close> = io.open(path, "a+")
  log:write("x")
  log:flush()
  log:seek("set")
  local runs = #log:read("a")
  if runs <= times then os.exit(7) end
  return runs
end

local function failure(job)
  local ok, err = job:pcall()
  assert.is_false(ok)
  return err
end

after_each(child.clean)

describe("a job whose worker dies", function()
  it("fails with kind 'lost' when it may not be retried", function()
    local server <close> = pp.Server(1)
    local job = server:submit{function() os.exit(3) end, retries = 0}
    local err = failure(job)
    assert.are.equal("lost", err.kind)
    assert.is_true(pp.is_error(err))
    assert.are.equal("failed", job.status)
    assert.are.equal(1, job.attempts)
    assert.are.equal("local", err.node)
  end)

  it("says the status with which the worker ended", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local err = failure(server:submit(function() os.exit(73) end))
    assert.is_truthy(err.message:find("status 73", 1, true), err.message)
    err = failure(server:submit(function() os.exit(true) end))
    assert.are.equal("lost", err.kind)
    assert.is_truthy(err.message:find("status 0", 1, true), err.message)
    err = failure(server:submit(function() os.exit(true, true) end))
    assert.are.equal("lost", err.kind)
  end)

  it("says the signal by which the worker ended", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    for signal, number in pairs{KILL = 9, TERM = 15} do
      local err = failure(server:submit(kill_self, {signal}))
      assert.are.equal("lost", err.kind)
      assert.is_truthy(err.message:find("signal " .. number, 1, true)
        or err.message:find("SIG" .. signal, 1, true), err.message)
    end
  end)

  it("is run again up to `retries` times, then fails", function()
    for retries = 0, 2 do
      local path = run.file("")
      local server <close> = pp.Server{ncpus = 1, retries = retries}
      local job = server:submit(die_first, {path, 100})
      assert.are.equal("lost", failure(job).kind)
      assert.are.equal(retries + 1, job.attempts)
      assert.are.equal(("x"):rep(retries + 1), run.read(path))
      local stats = server:get_stats()["local"]
      assert.are.equal(retries, stats.retried)
      assert.are.equal(retries + 1, stats.lost)
    end
  end)

  it("is run again twice by default", function()
    local server <close> = pp.Server(1)
    local job = server:submit(die_first, {run.file(""), 2})
    assert.are.equal(3, job())
    assert.are.equal(3, job.attempts)
  end)

  it("may set its own retries", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local job = server:submit{die_first, args = {run.file(""), 1}, retries = 1}
    assert.are.equal(2, job())
    assert.are.equal(2, job.attempts)
  end)

  it("gives the result of the run that ended, and counts it once", function()
    local server <close> = pp.Server(1)
    local calls = 0
    local job = server:submit{die_first, args = {run.file(""), 1},
      callback = function() calls = calls + 1 end}
    assert.are.equal(2, job())
    assert.are.equal("done", job.status)
    server:wait()
    assert.are.equal(1, calls)
    local stats = server:get_stats()["local"]
    assert.are.equal(1, stats.njobs)
    assert.are.equal(0, stats.failed)
    assert.are.equal(1, stats.retried)
    assert.are.equal(1, stats.lost)
  end)

  it("sees its captures, globals and arguments fresh when it is run again",
    function()
      local server <close> = pp.Server(1)
      local captured = {n = 0}
      local job = server:submit(function(path, argument)
        captured.n = captured.n + 1
        argument.n = argument.n + 1
        load("mark = (mark or 0) + 1")()
        if die_first(path, 2) then
          return captured.n, argument.n, load("return mark")(), pp.job.attempt
        end
      end, {run.file(""), {n = 0}})
      assert.are.same({1, 1, 1, 3}, {job()})
    end)

  it("may be killed from outside", function()
    local gate = child.gate()
    local path = run.directory() .. "/pid"
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local job = server:submit(function(where, gate_path)
      local file = io.open(where .. ".new", "w")
      file:write(pid_of(), "\n")
      file:close()
      os.rename(where .. ".new", where)
      io.open(gate_path):close()
    end, {path, gate.path})
    local pid = child.eventually(function()
      return tonumber(run.read(path) or "")
    end)
    child.kill("KILL", pid)
    assert.are.equal("lost", failure(job).kind)
    assert.are_not.equal(pid, server:submit(pid_of)())
  end)

  it("is not retried for an error of its own", function()
    local path = run.file("")
    local server <close> = pp.Server{ncpus = 1, retries = 5}
    local err = failure(server:submit(function(where)
      local log <close> = io.open(where, "a")
      log:write("x")
      error("mine")
    end, {path}))
    assert.are.equal("error", err.kind)
    assert.are.equal("x", run.read(path))
  end)
end)

describe("jobs behind one whose worker dies #tsan", function()
  it("lose no attempt and no result", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local killer = server:submit(function() os.exit(1) end)
    local jobs = {}
    for i = 1, 500 do jobs[i] = server:submit(id, {i}) end
    assert.are.equal("lost", failure(killer).kind)
    for i = 1, 500 do
      assert.are.equal(i, jobs[i]())
      assert.are.equal(1, jobs[i].attempts)
    end
  end)

  it("are run once each, whatever dies among them", function()
    local path = run.file("")
    local server <close> = pp.Server{ncpus = 2, retries = 0}
    local function note(where, i)
      if i % 100 == 50 then os.exit(1) end
      local log <close> = io.open(where, "a")
      log:setvbuf("full")
      log:write(i, "\n")
      return i
    end
    local jobs = {}
    for i = 1, 1000 do jobs[i] = server:submit(note, {path, i}) end
    for i = 1, 1000 do
      if i % 100 == 50 then
        assert.are.equal("lost", failure(jobs[i]).kind)
      else
        assert.are.equal(i, jobs[i]())
        assert.are.equal(1, jobs[i].attempts)
      end
    end
    local runs = {}
    for line in run.read(path):gmatch("%d+") do
      line = math.tointeger(line)
      assert.is_nil(runs[line])
      runs[line] = true
    end
    for i = 1, 1000 do assert.are.equal(i % 100 ~= 50 or nil, runs[i]) end
    assert.are.equal(10, server:get_stats()["local"].lost)
  end)

  it("give their results when one of thousands dies and is retried", function()
    local path = run.file("")
    local server <close> = pp.Server(2)
    local jobs = {}
    for i = 1, 5000 do
      jobs[i] = i == 2500 and server:submit(die_first, {path, 1})
        or server:submit(id, {i})
    end
    for i = 1, 5000 do
      local result = jobs[i]()
      if result ~= (i == 2500 and 2 or i) then error("job " .. i) end
    end
    assert.are.equal(1, server:get_stats()["local"].lost)
    assert.are.equal(5000, server:get_stats()["local"].njobs)
  end)
end)

describe("a worker that died", function()
  it("is replaced", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local before = server:submit(pid_of)()
    failure(server:submit(function() os.exit(1) end))
    local after = server:submit(pid_of)()
    assert.are_not.equal(before, after)
    assert.are.equal(1, server:get_ncpus())
    assert.are.same({["local"] = 1}, server:get_active_nodes())
    assert.is_false(child.alive(before))
  end)

  it("is replaced also when it was idle", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    for _ = 1, 3 do
      local pid = server:submit(pid_of)()
      child.kill("KILL", pid)
      assert.is_truthy(child.eventually(function()
        return not child.alive(pid)
      end))
      -- either the death is known by now, or a job that never began is not lost
      local job = server:submit(pid_of)
      assert.are_not.equal(pid, job())
      assert.are.equal(1, job.attempts)
    end
  end)

  it("is replaced so that all places are taken again", function()
    local gate = child.gate()
    local server <close> = pp.Server{ncpus = 3, retries = 0}
    local killers = {}
    for i = 1, 3 do killers[i] = server:submit(function() os.exit(1) end) end
    for i = 1, 3 do failure(killers[i]) end
    local jobs = {}
    for i = 1, 3 do
      jobs[i] = server:submit(function(path)
        io.open(path):close()
        return pid_of()
      end, {gate.path})
    end
    assert.is_truthy(child.eventually(function()
      return jobs[1].status == "running" and jobs[2].status == "running"
        and jobs[3].status == "running"
    end))
    gate:open()
    local pids = {}
    for i = 1, 3 do pids[jobs[i]()] = true end
    local n = 0
    for _ in pairs(pids) do n = n + 1 end
    assert.are.equal(3, n)
  end)

  it("knows the code that was sent before", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local function twice(x) return 2 * x end
    assert.are.equal(2, server:submit(twice, {1})())
    failure(server:submit(function() os.exit(1) end))
    assert.are.equal(4, server:submit(twice, {2})())
  end)
end)

describe("what a job started and left running", function()
  it("is killed when the job ends", function()
    local server <close> = pp.Server(1)
    local function leave(command)
      local pipe = io.popen(command .. " >/dev/null 2>&1 & echo $!")
      local pid = pipe:read("n")
      pipe:close()
      return pid
    end
    for _, command in ipairs{"sleep 1000", "setsid sleep 1000",
      "nohup sh -c 'sleep 1000; true'"} do
      local pid = server:submit(leave, {command})()
      assert.is_truthy(child.eventually(function()
        return not child.alive(pid)
      end), command)
    end
  end)

  it("is killed when its worker dies", function()
    local path = run.directory() .. "/pid"
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local err = failure(server:submit(function(where)
      os.execute("sleep 1000 >/dev/null 2>&1 & echo $! >" .. where)
      os.exit(1)
    end, {path}))
    assert.are.equal("lost", err.kind)
    local pid = tonumber(run.read(path))
    assert.is_truthy(child.eventually(function() return not child.alive(pid) end))
  end)

  it("holds up neither the job nor its output", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      server:submit(function()
        os.execute("sleep 1000 &") -- keeps standard output open
        print("done")
      end)()
      print("returned")
    ]])
    assert.are.equal("done\nreturned\n", r.out)
    assert.is_nil(r.late)
  end)
end)
