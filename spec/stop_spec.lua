-- SPDX-License-Identifier: MIT
-- Jobs that are stopped: by a timeout, by cancel, by a cap on memory; and what
-- goes on as if nothing had been.
local describe, it, assert, after_each = describe, it, assert, after_each
local setup, teardown = setup, teardown
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function id(...) return ... end
local function pass(path) io.open(path):close() end
local pid_of = child.pid

--- Write text to a file, whole or not at all: a spec waits for it.
local function mark(path, text)
  local file = io.open(path .. ".new", "w")
  file:write(text, "\n")
  file:close()
  os.rename(path .. ".new", path)
end

--- Mark the file, then compute for ever.
local function spin(path)
  if path then mark(path, pid_of()) end
  while true do end
end

--- What only a kill ends: errors are caught.
local function stubborn(path)
  mark(path, pid_of())
  while true do pcall(function() while true do end end) end
end

--- Add one byte to a file.
local function count_in(path)
  local log <close> = io.open(path, "a")
  log:write("x")
end

--- More memory than anybody has.
local function grow()
  local t = {}
  for i = 1, math.huge do t[i] = {i} end
  return t
end

local function failure(job)
  local ok, err = job:pcall()
  assert.is_false(ok)
  assert.is_true(pp.is_error(err))
  return err
end

--- A path where nothing is yet.
local function new_path() return run.directory() .. "/mark" end

--- Wait until there is something at the path: the number in it, if one.
local function marked(path)
  local text = child.eventually(function() return run.read(path) end)
  assert.is_truthy(text, "nothing came")
  return tonumber(text)
end

--- Wait, with nothing but looking, until the job is running.
local function running(job)
  assert.is_truthy(child.eventually(function()
    return job.status == "running"
  end), "it does not start")
end

--- Wait, in waiting calls, until there is no such process.
local function gone(pid)
  return child.eventually(function()
    pp.sleep(0.001)
    return not child.alive(pid)
  end) ~= nil
end

-- Jobs that do not end by themselves. Each writes the id of a process that must
-- not outlive it: the deepest that it starts.
local endless = {
  ["a loop"] = spin,
  ["a loop that catches errors"] = stubborn,
  ["a C function that does not return"] = function(path)
    mark(path, pid_of())
    return (("a"):rep(60)):find((".-"):rep(30) .. "b")
  end,
  ["a loop in a coroutine"] = function(path)
    return coroutine.wrap(function() spin(path) end)()
  end,
  ["loops in coroutines that are resumed again"] = function(path)
    mark(path, pid_of())
    while true do
      coroutine.resume(coroutine.create(function()
        coroutine.wrap(function() while true do end end)()
      end))
    end
  end,
  ["coroutines that yield for ever"] = function(path)
    mark(path, pid_of())
    local next_of = coroutine.wrap(function()
      while true do coroutine.yield() end
    end)
    while true do next_of() end
  end,
  ["a child process"] = function(path)
    os.execute("echo $$ >" .. path .. ".new; mv " .. path .. ".new " .. path
      .. "; exec sleep 1000")
  end,
  ["a child process that ignores signals"] = function(path)
    os.execute("trap '' TERM INT HUP QUIT; echo $$ >" .. path .. ".new; mv "
      .. path .. ".new " .. path .. "; sleep 1000; sleep 1000")
  end,
  ["a child process in a session of its own"] = function(path)
    os.execute("setsid sh -c 'echo $$ >" .. path .. ".new; mv " .. path
      .. ".new " .. path .. "; exec sleep 1000' & sleep 1000")
  end,
  ["a child process that is read from"] = function(path)
    local pipe = io.popen("echo $$ >" .. path .. ".new; mv " .. path
      .. ".new " .. path .. "; exec sleep 1000")
    return pipe:read("a")
  end,
  ["a file that does not come"] = function(path)
    os.execute("mkfifo " .. path .. ".fifo")
    mark(path, pid_of())
    while not io.open(path .. ".fifo") do end
  end,
  ["a __close that hangs"] = function(path)
    local _ <close> = setmetatable({}, {__close = function()
      while true do end
    end})
    spin(path)
  end,
  ["a __close that starts a child and waits"] = function(path)
    local _ <close> = setmetatable({}, {__close = function()
      os.execute("sleep 1000")
    end})
    spin(path)
  end,
  ["a __gc that hangs"] = function(path)
    setmetatable({}, {__gc = function() spin(path) end})
    collectgarbage()
  end,
  ["a message handler that hangs"] = function(path)
    xpcall(spin, function() while true do end end, path)
  end,
  ["a hook of its own"] = function(path)
    mark(path, pid_of())
    while true do
      pcall(function()
        for _ = 1, 1000 do debug.sethook(function() end, "crl", 1) end
      end)
    end
  end,
  ["a worker that is stopped"] = function(path)
    mark(path, pid_of())
    os.execute("kill -s STOP " .. pid_of())
    while true do end
  end,
}
-- What ends when the error is raised in it; its worker stays.
local obedient = {
  ["a loop"] = true,
  ["a loop in a coroutine"] = true,
  ["coroutines that yield for ever"] = true,
  ["a file that does not come"] = true,
}
local names = {}
for name in pairs(endless) do names[#names + 1] = name end
table.sort(names)

after_each(child.clean)

describe("a timeout ends", function()
  local server
  local found, after = {}, nil

  -- All at once: some take the second that a job has to leave.
  setup(function()
    server = pp.Server{ncpus = #names, timeout = 1, retries = 3}
    local jobs, paths = {}, {}
    for _, name in ipairs(names) do
      paths[name] = new_path()
      jobs[name] = server:submit(endless[name], {paths[name]})
    end
    for _, name in ipairs(names) do
      local job = jobs[name]
      local ok, err = job:pcall()
      found[name] = {ok = ok, err = err, status = job.status,
        attempts = job.attempts, cancelled = job:cancel(),
        pid = tonumber(run.read(paths[name]) or "")}
    end
    after = server:submit(id, {"goes on"})()
  end)
  teardown(function() server:destroy() end)

  for _, name in ipairs(names) do
    it(name, function()
      local f = found[name]
      assert.is_false(f.ok)
      assert.is_true(pp.is_error(f.err))
      assert.are.equal("timeout", f.err.kind)
      assert.are.equal("string", type(f.err.message))
      assert.are.equal("failed", f.status)
      assert.are.equal(1, f.attempts) -- never retried
      assert.is_false(f.cancelled)
      -- a machine may be so slow that the job had not come that far
      assert.is_true(f.pid == nil or obedient[name] or gone(f.pid))
    end)
  end

  it("none of those for the jobs that come later", function()
    assert.are.equal("goes on", after)
    assert.are.equal(#names, server:get_ncpus())
    assert.are.equal(0, server:pending())
  end)

  it("none without counting it as failed, and none as lost", function()
    local stats = server:get_stats()["local"]
    assert.are.equal(#names, stats.failed)
    assert.are.equal(0, stats.lost)
    assert.are.equal(0, stats.retried)
  end)
end)

describe("cancel ends", function()
  local server
  local found, after = {}, nil

  setup(function()
    server = pp.Server{ncpus = #names, retries = 3}
    local jobs, pids = {}, {}
    for _, name in ipairs(names) do
      local path = new_path()
      jobs[name] = {server:submit(endless[name], {path}), path}
    end
    for _, name in ipairs(names) do pids[name] = marked(jobs[name][2]) end
    for _, name in ipairs(names) do
      local job = jobs[name][1]
      local f = {pid = pids[name], first = job:cancel(), finished = job.finished,
        status = job.status, second = job:cancel(), attempts = job.attempts}
      f.ok, f.err = job:pcall()
      f.third = job:cancel()
      found[name] = f
    end
    after = server:submit(id, {"goes on"})()
  end)
  teardown(function() server:destroy() end)

  for _, name in ipairs(names) do
    it(name, function()
      local f = found[name]
      assert.is_true(f.first)
      assert.is_true(f.finished)
      assert.are.equal("failed", f.status)
      assert.is_false(f.second)
      assert.is_false(f.third)
      assert.is_false(f.ok)
      assert.is_true(pp.is_error(f.err))
      assert.are.equal("cancelled", f.err.kind)
      assert.are.equal("string", type(f.err.message))
      assert.are.equal(1, f.attempts)
      assert.is_true(obedient[name] or gone(f.pid))
    end)
  end

  it("none of the jobs that come later", function()
    assert.are.equal("goes on", after)
    assert.are.equal(#names, server:get_ncpus())
    assert.are.equal(0, server:pending())
    local jobs = {}
    for i = 1, 200 do jobs[i] = server:submit(id, {i}) end
    for i = 1, 200 do assert.are.equal(i, jobs[i]()) end
  end)

  it("none as failed or lost, in the statistics", function()
    local stats = server:get_stats()["local"]
    assert.are.equal(0, stats.failed)
    assert.are.equal(0, stats.lost)
    assert.are.equal(0, stats.retried)
  end)
end)

describe("timeout", function()
  it("of a job takes the place of the server's", function()
    local path = new_path()
    local server <close> = pp.Server{ncpus = 2, timeout = 1e6}
    local err = failure(server:submit{spin, args = {path}, timeout = 0.05})
    assert.are.equal("timeout", err.kind)
    assert.are.equal("local", err.node)
    assert.are.equal("integer", math.type(err.worker))
    local patient <close> = pp.Server{ncpus = 1, timeout = 0.05}
    local gate = child.gate()
    local job = patient:submit{pass, args = {gate.path}, timeout = 1e6}
    running(job)
    assert.are.equal("timeout", failure(server:submit{spin, timeout = 0.2}).kind)
    assert.is_false(job.finished)
    gate:open()
    assert.is_true((job:pcall()))
  end)

  it("says in the message what the job took too long for", function()
    local server <close> = pp.Server(1)
    local err = failure(server:submit{spin, timeout = 0.05})
    assert.is_truthy(err.message:find("timeout", 1, true), err.message)
    assert.are.equal(err.message, tostring(err):sub(1, #err.message))
  end)

  it("ends no job that is quicker", function()
    local server <close> = pp.Server{ncpus = 2, timeout = child.patience}
    local jobs = {}
    for i = 1, 300 do jobs[i] = server:submit(id, {i}) end
    for i = 1, 300 do assert.are.equal(i, jobs[i]()) end
  end)

  it("counts only from the start of the job in its worker", function()
    local server <close> = pp.Server{ncpus = 1, timeout = 0.8}
    local jobs = {}
    for i = 1, 4 do
      jobs[i] = server:submit(function()
        os.execute("sleep 0.3")
        return i
      end)
    end
    for i = 1, 4 do assert.are.equal(i, jobs[i]()) end
  end)

  it("does not hit what was done in time while the script was busy", function()
    local server <close> = pp.Server{ncpus = 1, timeout = 0.3}
    local job = server:submit(id, {"in time"})
    local from = pp.time()
    while pp.time() - from < 0.5 do end
    assert.are.equal("in time", job())
  end)

  it("is kept while the script is busy elsewhere", function()
    local path = new_path()
    local server <close> = pp.Server{ncpus = 1, timeout = 0.1}
    local job = server:submit(function()
      local _ <close> = setmetatable({}, {__close = function()
        mark(path, "closed")
      end})
      while true do end
    end)
    marked(path) -- no call of pp
    assert.are.equal("timeout", failure(job).kind)
  end)

  it("gives each run after a lost worker its own", function()
    local path = new_path()
    local server <close> = pp.Server{ncpus = 1, timeout = 0.8}
    local job = server:submit(function()
      count_in(path)
      os.execute("sleep 0.4")
      local file <close> = io.open(path)
      if #file:read("a") < 3 then os.exit(1) end
      return "at last"
    end)
    assert.are.equal("at last", job())
    assert.are.equal(3, job.attempts)
  end)

  it("is not retried, whatever may be", function()
    local path = new_path()
    local server <close> = pp.Server{ncpus = 1, retries = 5}
    local job = server:submit{function()
      count_in(path)
      while true do end
    end, timeout = 0.2, retry_errors = 5}
    assert.are.equal("timeout", failure(job).kind)
    assert.are.equal(1, job.attempts)
    assert.are.equal("done", server:submit(id, {"done"})())
    assert.are.equal("x", run.read(path))
  end)

  it("is raised by job() and shown to a callback", function()
    local server <close> = pp.Server(1)
    local job = server:submit{spin, timeout = 0.05}
    local ok, err = pcall(job)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    local got
    server:submit{spin, timeout = 0.05, callbackargs = {"mine"},
      callback = function(...) got = table.pack(...) end}
    assert.is_true(server:wait(child.patience))
    assert.are.equal(3, got.n)
    assert.are.equal("mine", got[1])
    assert.is_nil(got[2])
    assert.are.equal("timeout", got[3].kind)
  end)

  it("leaves the worker of a job that ends when told", function()
    local path = new_path()
    local server <close> = pp.Server{ncpus = 1}
    assert.are.equal("timeout",
      failure(server:submit{spin, args = {path}, timeout = 0.5}).kind)
    assert.are.equal(tonumber(run.read(path)), server:submit(pid_of)())
  end)

  it("that is no number of seconds is refused", function()
    for _, bad in ipairs{0, -1, 0/0, "1", true, {}} do
      local ok, err = pcall(pp.Server, {ncpus = 1, timeout = bad})
      assert.is_false(ok)
      assert.is_truthy(err:find("timeout", 1, true), err)
      local server <close> = pp.Server(1)
      ok, err = pcall(server.submit, server, {id, timeout = bad})
      assert.is_false(ok)
      assert.is_truthy(err:find("timeout", 1, true), err)
    end
  end)

  it("may be very long", function()
    for _, long in ipairs{1e9, 1e300, math.huge, math.maxinteger} do
      local server <close> = pp.Server{ncpus = 1, timeout = long}
      assert.are.equal(1, server:submit(id, {1})())
      assert.are.equal(2, server:submit{id, args = {2}, timeout = long}())
    end
  end)
end)

describe("job:cancel", function()
  it("ends a job that waits for a worker, which never runs", function()
    local gate, path = child.gate(), new_path()
    local server <close> = pp.Server(1)
    local first = server:submit(pass, {gate.path})
    running(first)
    local job = server:submit(count_in, {path})
    local last = server:submit(id, {"last"})
    assert.is_true(job:cancel())
    assert.is_true(job.finished)
    assert.are.equal("failed", job.status)
    assert.is_true(job:wait(0))
    assert.is_false(job:cancel())
    local err = failure(job)
    assert.are.equal("cancelled", err.kind)
    assert.is_true(rawequal(err, failure(job)))
    gate:open()
    assert.are.equal("last", last())
    assert.is_true((first:pcall()))
    assert.is_nil(run.read(path))
    assert.are.equal(2, server:get_stats()["local"].njobs)
    assert.are.equal(0, server:get_stats()["local"].failed)
  end)

  it("counts once how long a stopped job ran", function()
    local server <close> = pp.Server(1)
    local job = server:submit(pp.sleep, {60})
    running(job)
    pp.sleep(0.01)
    assert.is_true(job:cancel())
    local last = server:submit(id, {1})
    last()
    assert.is_near(job.time.run + last.time.run,
                   server:get_stats()["local"].time, 1e-6)
  end)

  it("ends jobs that lie ready in a worker, and no others", function()
    local server <close> = pp.Server(2)
    -- short jobs of the same function make the window wide
    for i = 1, 2000 do server:submit(id, {i}) end
    server:wait()
    local gate, path = child.gate(), new_path()
    local function work(gate_path, i)
      if gate_path then
        io.open(gate_path):close()
      else
        local log <close> = io.open(path, "a")
        log:write(i, "\n")
      end
      return i
    end
    local jobs = {}
    for i = 1, 2 do jobs[i] = server:submit(work, {gate.path, i}) end
    running(jobs[1])
    running(jobs[2])
    for i = 3, 400 do jobs[i] = server:submit(work, {nil, i, n = 2}) end
    for i = 3, 400, 2 do assert.is_true(jobs[i]:cancel()) end
    gate:open()
    for i = 1, 400 do
      if i > 2 and i % 2 == 1 then
        assert.are.equal("cancelled", failure(jobs[i]).kind)
      else
        assert.are.equal(i, jobs[i]())
      end
    end
    local ran = 0
    for i in run.read(path):gmatch("%d+") do
      assert.are.equal(0, tonumber(i) % 2)
      ran = ran + 1
    end
    assert.are.equal(199, ran)
  end)

  it("ends jobs that are half way to their worker", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local first = server:submit(pass, {gate.path})
    running(first)
    local text = ("x"):rep(4 << 20)
    local jobs = {}
    for i = 1, 6 do
      jobs[i] = server:submit(function(s, n) return #s + n end, {text, i})
    end
    for i = 1, 6, 2 do assert.is_true(jobs[i]:cancel()) end
    gate:open()
    for i = 1, 6 do
      if i % 2 == 1 then
        assert.are.equal("cancelled", failure(jobs[i]).kind)
      else
        assert.are.equal(#text + i, jobs[i]())
      end
    end
  end)

  it("is false when the job has ended, whose results stay", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id, {1, 2})
    job:wait()
    assert.is_false(job:cancel())
    assert.are.same({1, 2}, {job()})
    assert.are.equal("done", job.status)
    job = server:submit(error, {"own", 0})
    job:wait()
    assert.is_false(job:cancel())
    assert.are.equal("own", failure(job).message)
  end)

  it("is false when the result has arrived unseen", function()
    local path = new_path()
    local server <close> = pp.Server(1)
    local job = server:submit(id, {7})
    server:submit(mark, {path, "later"})
    marked(path) -- by the same worker, after the job
    assert.is_false(job:cancel())
    assert.are.equal(7, job())
  end)

  it("is false when the server was destroyed", function()
    local server = pp.Server(1)
    local job = server:submit(spin)
    running(job)
    server:destroy()
    assert.is_false(job:cancel())
    assert.are.equal("destroyed", failure(job).kind)
  end)

  it("never waits: the job has ended then and there", function()
    local path = new_path()
    local server <close> = pp.Server(1)
    local job = server:submit(stubborn, {path})
    local pid = marked(path)
    assert.is_true(job:cancel())
    assert.is_true(child.alive(pid)) -- it has a second yet
    assert.is_true(job.finished)
    assert.is_true(job:wait(0))
    assert.is_true(server:wait(0))
    assert.are.equal(0, server:pending())
    assert.are.equal("cancelled", failure(job).kind)
    pp.sleep(0)
    assert.are.equal(1, server:submit(id, {1})())
    assert.is_true(gone(pid))
  end)

  it("drops what arrives later", function()
    local path = new_path()
    local server <close> = pp.Server(1)
    local calls = 0
    local job = server:submit{function()
      pcall(spin, path)
      return "too late"
    end, callback = function() calls = calls + 1 end}
    local pid = marked(path)
    assert.is_true(job:cancel())
    assert.are.equal(pid, server:submit(pid_of)())
    assert.are.equal("cancelled", failure(job).kind)
    assert.are.equal("failed", job.status)
    assert.are.equal(1, calls)
  end)

  it("gives the callback nil and the error, in a waiting call", function()
    local gate, path = child.gate(), new_path()
    local server <close> = pp.Server(1)
    local got = {}
    local function callback(name, ...) got[name] = table.pack(...) end
    local first = server:submit{spin, args = {path}, callback = callback,
      callbackargs = {"running"}}
    local second = server:submit{pass, args = {gate.path}, callback = callback,
      callbackargs = {"queued"}}
    marked(path)
    assert.is_true(second:cancel())
    assert.is_true(first:cancel())
    assert.is_nil(next(got))
    assert.is_true(server:wait(child.patience))
    for _, name in ipairs{"running", "queued"} do
      assert.are.equal(2, got[name].n)
      assert.is_nil(got[name][1])
      assert.are.equal("cancelled", got[name][2].kind)
    end
    gate:open()
  end)

  it("may be called in a callback, for itself and for others", function()
    local server <close> = pp.Server(2)
    local path = new_path()
    local other = server:submit(spin, {path})
    marked(path)
    local own, others, job
    job = server:submit{id, callback = function()
      own, others = job:cancel(), other:cancel()
    end}
    assert.is_true(server:wait(child.patience))
    assert.is_false(own)
    assert.is_true(others)
    assert.are.equal("cancelled", failure(other).kind)
  end)

  it("wakes job() and wait in a callback's stead: the group has ended",
    function()
      local server <close> = pp.Server(2)
      local path = new_path()
      local job = server:submit{spin, args = {path}, group = "g"}
      marked(path)
      server:submit{id, callback = function() job:cancel() end}
      assert.is_true(server:wait("g", child.patience))
      assert.are.equal("cancelled", failure(job).kind)
    end)

  it("raises an error in the job that it may catch, once", function()
    local path = new_path()
    local server <close> = pp.Server(1)
    local job = server:submit(function()
      local ok, err = pcall(spin, path .. ".begun")
      local sum = 0
      for i = 1, 1e5 do sum = sum + i end -- and is left in peace
      mark(path, tostring(ok) .. " " .. tostring(err) .. " " .. sum)
    end)
    marked(path .. ".begun")
    assert.is_true(job:cancel())
    marked(path)
    local text = run.read(path)
    assert.are.equal("false", text:match("^%a+"))
    assert.is_truthy(text:find("cancelled", 1, true), text)
    assert.is_truthy(text:find("5000050000", 1, true), text)
  end)

  it("raises it in the coroutine that runs", function()
    local path = new_path()
    local server <close> = pp.Server(1)
    local job = server:submit(function()
      local inner = coroutine.create(function() spin(path .. ".begun") end)
      local ok, err = coroutine.resume(inner)
      mark(path, tostring(ok) .. " " .. coroutine.status(inner) .. " "
        .. tostring(err))
    end)
    marked(path .. ".begun")
    assert.is_true(job:cancel())
    marked(path)
    assert.is_truthy(run.read(path):find("^false dead .*cancelled"),
      run.read(path))
  end)

  it("lets <close> variables run, innermost first", function()
    local path = new_path()
    local server <close> = pp.Server(1)
    local job = server:submit(function()
      local seen = {}
      local function closing(name, last)
        return setmetatable({}, {__close = function(_, err)
          seen[#seen + 1] = name .. ":" .. type(err)
          if last then mark(path, table.concat(seen, " ")) end
        end})
      end
      local _ <close> = closing("outer", true)
      local function deeper()
        local _ <close> = closing("inner")
        spin(path .. ".begun")
      end
      deeper()
    end)
    local pid = marked(path .. ".begun")
    assert.is_true(job:cancel())
    marked(path)
    assert.are.equal("inner:string outer:string\n", run.read(path))
    assert.are.equal(pid, server:submit(pid_of)())
  end)

  it("does not reach the job that comes next", function()
    local server <close> = pp.Server(1)
    for i = 1, 50 do
      local path = new_path()
      local job = server:submit(spin, {path})
      local following = server:submit(function()
        local sum = 0
        for k = 1, 20000 do sum = sum + k end
        return sum, i
      end)
      marked(path)
      assert.is_true(job:cancel())
      assert.are.same({200010000, i}, {following()})
    end
  end)

  it("at the very moment of the end is either true or false", function()
    local server <close> = pp.Server(1)
    for i = 1, 300 do
      local job = server:submit(function()
        local sum = 0
        for k = 1, i * 30 do sum = sum + k end
        return i
      end)
      while job.status == "queued" do end
      local cancelled = job:cancel()
      local ok, result = job:pcall()
      assert.are.equal(cancelled, not ok)
      if ok then
        assert.are.equal(i, result)
      else
        assert.are.equal("cancelled", result.kind)
      end
      assert.are.equal(-i, server:submit(id, {-i})())
    end
  end)

  it("lets the pool go on at once", function()
    local server <close> = pp.Server(2)
    local path = new_path()
    local job = server:submit(stubborn, {path})
    local pid = marked(path)
    local jobs = {}
    for i = 1, 300 do jobs[i] = server:submit(id, {i}) end
    assert.is_true(job:cancel())
    for i = 1, 300 do assert.are.equal(i, jobs[i]()) end
    -- by the other worker: this one has a second
    assert.is_true(child.alive(pid))
    assert.is_true(gone(pid))
  end)

  it("kills what does not end also while the script is busy elsewhere",
    function()
      local server <close> = pp.Server(1)
      local path = new_path()
      local job = server:submit(stubborn, {path})
      local pid = marked(path)
      assert.is_true(job:cancel())
      assert.is_truthy(child.eventually(function() -- no call of pp
        return not child.alive(pid)
      end))
      assert.are.equal(1, server:submit(id, {1})())
    end)

  it("ends one of many jobs while the others give their results", function()
    local server <close> = pp.Server(3)
    local gate, jobs = child.gate(), {}
    for i = 1, 30 do
      jobs[i] = server:submit(function(path)
        io.open(path):close()
        return i
      end, {gate.path})
    end
    running(jobs[1])
    for i = 1, 30, 3 do assert.is_true(jobs[i]:cancel()) end
    gate:open()
    for i = 1, 30 do
      if i % 3 == 1 then
        assert.are.equal("cancelled", failure(jobs[i]).kind)
      else
        assert.are.equal(i, jobs[i]())
        assert.are.equal(1, jobs[i].attempts)
      end
    end
  end)

  it("takes no argument that is no job", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id)
    assert.is_false(pcall(job.cancel))
    assert.is_false(pcall(job.cancel, server))
    job()
  end)
end)

describe("a script that cancels", function()
  local script = [[
    local pp = require "pp"
    local server = pp.Server(2)
    local function hold(path)
      os.execute("setsid sleep 1000 >/dev/null 2>&1 &")
      io.open(path, "w"):close()
      local _ <close> = setmetatable({}, {__close = function()
        while true do pcall(function() while true do end end) end
      end})
      os.execute("sleep 1001")
    end
    local path = os.tmpname()
    os.remove(path)
    local job = server:submit(hold, {path})
    while not io.open(path) do pp.sleep(0.001) end
    os.remove(path)
    local queued = server:submit(hold, {path})
    queued:cancel()
    print(job:cancel())
  ]]

  it("and ends leaves nothing behind, and nothing to warn of", function()
    local r = child.run(script)
    assert.are.equal("true\n", r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
    assert.are.same({}, child.left(r.tag))
  end)

  it("and goes on has no process of the job's any more", function()
    local process = child.start(script .. [[
      print(server:submit(function() return "next" end)())
      io.stdout:flush()
      pp.sleep(60)
    ]])
    process:expect("next\n")
    -- comm as the kernel knows it: the job's children
    local left
    child.eventually(function()
      left = {}
      for _, pid in ipairs(child.tagged(process.tag)) do
        local comm = run.read(("/proc/%d/comm"):format(pid)) or ""
        if comm:find("^sleep") or comm:find("^sh\n") then
          left[#left + 1] = pid .. " " .. comm
        end
      end
      return #left == 0
    end)
    assert.are.same({}, left)
    process:kill("TERM")
    local r = child.finish(process)
    assert.are.same({}, child.left(r.tag))
  end)

  it("and waits elsewhere has none either", function()
    local gate = child.gate()
    local process = child.start(script .. [[
      io.stdout:flush()
      io.open(arg[1]):close()
    ]], {args = {gate.path}})
    process:expect("true\n")
    local sleeping = child.eventually(function()
      for _, pid in ipairs(child.tagged(process.tag)) do
        local comm = run.read(("/proc/%d/comm"):format(pid)) or ""
        if comm:find("^sleep") then return nil end
      end
      return true
    end)
    process:kill("KILL")
    child.finish(process)
    assert.is_true(sleeping)
  end)
end)

describe("memory", function()
  local cap = 16 << 20

  it("ends a job that wants more, with kind 'memory', without retry", function()
    local path = new_path()
    local server <close> = pp.Server{ncpus = 1, memory = cap, retries = 5}
    local job = server:submit{function()
      count_in(path)
      grow()
    end, retry_errors = 5}
    local err = failure(job)
    assert.are.equal("memory", err.kind)
    assert.are.equal("string", type(err.message))
    assert.are.equal("local", err.node)
    assert.are.equal("failed", job.status)
    assert.are.equal(1, job.attempts)
    assert.are.equal("x", run.read(path))
    assert.are.equal(0, server:get_stats()["local"].lost)
    assert.are.equal(1, server:get_stats()["local"].failed)
  end)

  it("ends it whatever takes it: strings, coroutines, closures", function()
    local server <close> = pp.Server{ncpus = 2, memory = cap}
    for _, f in ipairs{
      function() return ("x"):rep(64 << 20) end,
      function()
        local s = "x"
        while true do s = s .. s end
      end,
      function()
        local t
        while true do t = {t, coroutine.create(print)} end
      end,
      function()
        local f
        while true do
          local g = f
          f = function() return g end
        end
      end,
      function() return coroutine.wrap(grow)() end,
      function() return table.pack(("x"):rep(1 << 24, "y"):byte(1, -1)) end,
    } do
      local ok, err = server:submit(f):pcall()
      assert.is_false(ok)
      -- the interpreter's own limits come first in the last of them
      assert.is_true(err.kind == "memory"
        or err.message:find("too many", 1, true) ~= nil
        or err.message:find("too long", 1, true) ~= nil, err.message)
    end
  end)

  it("can be caught in the job, which goes on", function()
    local server <close> = pp.Server{ncpus = 1, memory = cap}
    local job = server:submit(function()
      local ok, err = pcall(grow)
      local small = {}
      for i = 1, 1000 do small[i] = {i} end
      return ok, tostring(err), #small
    end)
    local ok, message, n = job()
    assert.is_false(ok)
    assert.is_truthy(message:find("memory", 1, true), message)
    assert.are.equal(1000, n)
    assert.are.equal("done", job.status)
  end)

  it("lets <close> variables run", function()
    local path = new_path()
    local server <close> = pp.Server{ncpus = 1, memory = cap}
    local err = failure(server:submit(function()
      local _ <close> = setmetatable({}, {__close = function()
        mark(path, "closed")
      end})
      grow()
    end))
    assert.are.equal("memory", err.kind)
    assert.are.equal("closed\n", run.read(path))
  end)

  it("does not count garbage", function()
    local server <close> = pp.Server{ncpus = 1, memory = cap}
    assert.are.equal(200 << 20, server:submit(function()
      local n = 0
      for _ = 1, 200 do n = n + #("x"):rep(1 << 20) end
      return n
    end)())
  end)

  it("leaves the worker, and what it had taken, to the next job", function()
    local server <close> = pp.Server{ncpus = 1, memory = cap}
    local pid = server:submit(pid_of)()
    for _ = 1, 5 do
      assert.are.equal("memory", failure(server:submit(grow)).kind)
      local free = server:submit(function()
        return #("x"):rep(4 << 20), pid_of()
      end)
      assert.are.same({4 << 20, pid}, {free()})
    end
  end)

  it("of a job takes the place of the server's", function()
    local server <close> = pp.Server{ncpus = 1, memory = cap}
    local function want(n) return #("x"):rep(n) end
    assert.are.equal(64 << 20,
      server:submit{want, args = {64 << 20}, memory = 256 << 20}())
    assert.are.equal("memory",
      failure(server:submit(want, {64 << 20})).kind)
    assert.are.equal("memory",
      failure(server:submit{want, args = {8 << 20}, memory = 4 << 20}).kind)
    local free <close> = pp.Server(1)
    assert.are.equal("memory",
      failure(free:submit{want, args = {64 << 20}, memory = cap}).kind)
    assert.are.equal(64 << 20, free:submit(want, {64 << 20})())
  end)

  it("may be less than nothing needs", function()
    local server <close> = pp.Server{ncpus = 1, memory = 1}
    assert.are.equal("memory", failure(server:submit(grow)).kind)
    assert.are.equal("memory", failure(server:submit(grow)).kind)
    assert.are.equal(3, server:submit{id, args = {3}, memory = cap}())
  end)

  it("holds for the arguments too", function()
    local server <close> = pp.Server{ncpus = 1, memory = cap}
    local text = ("x"):rep(64 << 20)
    assert.are.equal("memory",
      failure(server:submit(function(s) return #s end, {text})).kind)
    assert.are.equal(3, server:submit(id, {3})())
  end)

  it("is no kind of another error", function()
    local server <close> = pp.Server{ncpus = 1, memory = cap}
    assert.are.equal("error", failure(server:submit(error, {"own", 0})).kind)
  end)

  it("that is no number of bytes is refused", function()
    for _, bad in ipairs{-1, 1.5, 0/0, "1", true, {}} do
      local ok, err = pcall(pp.Server, {ncpus = 1, memory = bad})
      assert.is_false(ok)
      assert.is_truthy(err:find("memory", 1, true), err)
      local server <close> = pp.Server(1)
      ok, err = pcall(server.submit, server, {id, memory = bad})
      assert.is_false(ok)
      assert.is_truthy(err:find("memory", 1, true), err)
    end
  end)
end)

describe("retry_errors", function()
  --- Fails on its first `times` runs. The file counts.
  local function fail_first(path, times)
    count_in(path)
    local file <close> = io.open(path)
    local runs = #file:read("a")
    if runs <= times then error("run " .. runs, 0) end
    return runs, pp.job.attempt
  end

  it("is how often the job's own error is retried", function()
    local server <close> = pp.Server(1)
    local path = new_path()
    local job = server:submit{fail_first, args = {path, 2}, retry_errors = 2}
    assert.are.same({3, 3}, {job()})
    assert.are.equal(3, job.attempts)
    assert.are.equal("done", job.status)
    assert.are.equal("xxx", run.read(path))
    local stats = server:get_stats()["local"]
    assert.are.equal(1, stats.njobs)
    assert.are.equal(2, stats.retried)
    assert.are.equal(0, stats.failed)
    assert.are.equal(0, stats.lost)
  end)

  it("is 0 unless given", function()
    local server <close> = pp.Server{ncpus = 1, retries = 5}
    local path = new_path()
    local job = server:submit(fail_first, {path, 1})
    assert.are.equal("run 1", failure(job).message)
    assert.are.equal(1, job.attempts)
    assert.are.equal("x", run.read(path))
  end)

  it("gives up with the last error", function()
    local server <close> = pp.Server(2)
    local path = new_path()
    local calls = 0
    local job = server:submit{fail_first, args = {path, 100}, retry_errors = 3,
      callback = function(_, err)
        calls = calls + 1
        assert.are.equal("run 4", err.message)
      end}
    local err = failure(job)
    assert.are.equal("error", err.kind)
    assert.are.equal("run 4", err.message)
    assert.are.equal(4, job.attempts)
    assert.are.equal("xxxx", run.read(path))
    server:wait()
    assert.are.equal(1, calls)
    assert.are.equal(1, server:get_stats()["local"].failed)
  end)

  it("shows captures, arguments and globals fresh each time", function()
    local server <close> = pp.Server(1)
    local path = new_path()
    local captured = {n = 0}
    local job = server:submit{function(argument)
      captured.n = captured.n + 1
      argument.n = argument.n + 1
      load("seen = (seen or 0) + 1")()
      local _ = fail_first(path, 2)
      return captured.n, argument.n, load("return seen")()
    end, args = {{n = 0}}, retry_errors = 2}
    assert.are.same({1, 1, 1}, {job()})
  end)

  it("has nothing to do with lost workers", function()
    local server <close> = pp.Server{ncpus = 1, retries = 1}
    local path = new_path()
    local job = server:submit{function()
      count_in(path)
      os.exit(1)
    end, retry_errors = 5}
    assert.are.equal("lost", failure(job).kind)
    assert.are.equal("xx", run.read(path))
  end)

  it("lets a job be cancelled between its runs", function()
    local server <close> = pp.Server(1)
    local path = new_path()
    local job = server:submit{function()
      mark(path, "begun")
      error("again")
    end, retry_errors = 1000000000}
    marked(path)
    assert.is_true(job:cancel())
    assert.are.equal("cancelled", failure(job).kind)
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("that is no number of times is refused", function()
    local server <close> = pp.Server(1)
    for _, bad in ipairs{-1, 1.5, "1", true, {}} do
      local ok, err = pcall(server.submit, server, {id, retry_errors = bad})
      assert.is_false(ok)
      assert.is_truthy(err:find("retry_errors", 1, true), err)
    end
  end)
end)

describe("forget", function()
  it("keeps nothing of a job when it ends", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local function round()
        for _ = 1, 200 do
          server:submit{function() return ("x"):rep(100000) end, forget = true}
        end
        server:wait()
      end
      local function kilobytes()
        for line in io.lines("/proc/self/status") do
          local n = line:match("^VmRSS:%s*(%d+)")
          if n then return tonumber(n) end
        end
      end
      round()
      collectgarbage()
      local before = kilobytes()
      for _ = 1, 10 do round() end
      collectgarbage()
      -- 200,000 kilobytes if they were kept
      print(kilobytes() - before < 100000, server:pending())
    ]])
    assert.are.equal("", r.err)
    -- a sanitizer holds on to what was freed
    assert.are.equal(child.sanitized() and r.out or "true\t0\n", r.out)
  end)

  it("runs the job as any other, its callback too", function()
    local server <close> = pp.Server(1)
    local path = new_path()
    local got
    server:submit{count_in, args = {path}, forget = true}
    server:submit{id, args = {1, 2}, forget = true,
      callback = function(...) got = {...} end}
    assert.is_true(server:wait(child.patience))
    assert.are.equal("x", run.read(path))
    assert.are.same({1, 2}, got)
  end)

  it("reports no failed job at the end", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      server:submit{function() error("unheard") end, forget = true}
      server:submit{function() os.exit(3) end, forget = true, retries = 0}
      server:submit{function() while true do end end, forget = true,
        timeout = 0.05}
      server:wait()
      print("end")
    ]])
    assert.are.equal("end\n", r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)
end)

describe("at the end of the script", function()
  it("a job that ran out of time is reported, one that was cancelled is not",
    function()
      local r = child.run([[
        local pp = require "pp"
        local server = pp.Server(1)
        local function spin() while true do end end
        local job = server:submit(spin)
        while job.status ~= "running" do end
        job:cancel()
        server:wait()
        server:submit{spin, timeout = 0.05}
        server:wait()
      ]])
      assert.are.equal(1, r.status)
      assert.is_truthy(r.err:find("timeout", 1, true), r.err)
      assert.is_nil(r.err:find("cancelled", 1, true))
    end)
end)

describe("server:cancel_all", function()
  it("cancels what has not started, says how many, lets the rest run on",
    function()
      local server <close> = pp.Server(2)
      local gate = child.gate()
      local path = new_path()
      local jobs, calls = {}, 0
      for i = 1, 2 do
        jobs[i] = server:submit(function(p)
          io.open(p):close()
          return i
        end, {gate.path})
        running(jobs[i])
      end
      for i = 3, 50 do
        jobs[i] = server:submit{count_in, args = {path},
          callback = function(result, err)
            assert.is_nil(result)
            assert.are.equal("cancelled", err.kind)
            calls = calls + 1
          end}
      end
      assert.are.equal(50, server:pending())
      local n = server:cancel_all()
      assert.are.equal(48, n)
      assert.are.equal("integer", math.type(n))
      assert.are.equal(2, server:pending())
      assert.are.equal(0, server:cancel_all())
      assert.are.equal("running", jobs[1].status)
      gate:open()
      assert.are.equal(1, jobs[1]())
      assert.are.equal(2, jobs[2]())
      server:wait()
      assert.are.equal(48, calls)
      for i = 3, 50 do
        assert.are.equal("failed", jobs[i].status)
        assert.are.equal("cancelled", failure(jobs[i]).kind)
        assert.is_false(jobs[i]:cancel())
      end
      assert.is_nil(run.read(path))
      assert.are.equal(2, server:get_stats()["local"].njobs)
      assert.are.equal(0, server:get_stats()["local"].failed)
    end)

  it("takes back what lies ready in the workers", function()
    local server <close> = pp.Server(2)
    for i = 1, 2000 do server:submit(id, {i}) end
    server:wait()
    local gate, jobs = child.gate(), {}
    local function work(path, i)
      if path then io.open(path):close() end
      return i
    end
    for i = 1, 2 do
      jobs[i] = server:submit(work, {gate.path, i})
      running(jobs[i])
    end
    for i = 3, 1000 do jobs[i] = server:submit(work, {nil, i, n = 2}) end
    assert.are.equal(998, server:cancel_all())
    gate:open()
    for i = 1, 1000 do
      local ok, result = jobs[i]:pcall()
      assert.are.equal(i <= 2, ok)
      if ok then assert.are.equal(i, result) end
    end
    for i = 1, 100 do assert.are.equal(i, server:submit(work, {nil, i, n = 2})()) end
  end)

  it("counts each job once while they are being done", function()
    local server <close> = pp.Server(2)
    for _ = 1, 20 do
      local jobs = {}
      for i = 1, 200 do jobs[i] = server:submit(id, {i}) end
      local n = server:cancel_all()
      local cancelled = 0
      for i = 1, 200 do
        local ok, result = jobs[i]:pcall()
        if ok then
          assert.are.equal(i, result)
        else
          assert.are.equal("cancelled", result.kind)
          cancelled = cancelled + 1
        end
      end
      assert.are.equal(n, cancelled)
      assert.are.equal(0, server:pending())
    end
  end)

  it("is 0 when there is nothing", function()
    local server <close> = pp.Server(1)
    assert.are.equal(0, server:cancel_all())
    server:submit(id)()
    assert.are.equal(0, server:cancel_all())
    assert.are.equal(1, server:submit(id, {1})())
  end)
end)

describe("server:pending", function()
  it("counts the jobs that have not ended", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    assert.are.equal(0, server:pending())
    local first = server:submit(pass, {gate.path})
    local second = server:submit(id)
    local third = server:submit(id)
    assert.are.equal(3, server:pending())
    assert.are.equal("integer", math.type(server:pending()))
    running(first)
    assert.are.equal(3, server:pending())
    second:cancel()
    assert.are.equal(2, server:pending())
    gate:open()
    assert.is_true((third:pcall()))
    assert.are.equal(0, server:pending())
  end)

  it("looks at what has arrived, without any waiting call", function()
    local server <close> = pp.Server(1)
    for _ = 1, 10 do server:submit(id) end
    assert.is_truthy(child.eventually(function()
      return server:pending() == 0
    end))
  end)
end)

describe("200 cancels in a row", function()
  it("leave descriptors and children as they were", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local function text(command)
        local pipe <close> = io.popen(command)
        return pipe:read("a")
      end
      local function pids()
        local file <close> = io.open("/proc/self/stat")
        local pid, parent = file:read("a"):match("^(%d+).*%) %a (%d+) ")
        return tonumber(pid), tonumber(parent)
      end
      local function children(pid)
        local n = 0
        for parent in text("cat /proc/[0-9]*/stat 2>/dev/null")
          :gmatch("%) %a (%d+) ") do
          if tonumber(parent) == pid then n = n + 1 end
        end
        return n
      end
      local function descriptors(pid)
        return tonumber(text(("ls /proc/%d/fd | wc -l"):format(pid)))
      end
      local function measure()
        local driver = pids()
        local worker, zygote = server:submit(pids)()
        -- a worker that was replaced is still on its way out
        local deadline = pp.time() + 30
        while children(zygote) > 2 and pp.time() < deadline do pp.sleep(0.01) end
        return {
          {"descriptors of the driver", descriptors(driver)},
          {"descriptors of the zygote", descriptors(zygote)},
          {"descriptors of a worker", descriptors(worker)},
          {"children of the driver", children(driver)},
          {"children of the zygote", children(zygote)},
        }
      end
      local function spin() while true do end end
      local function round(n)
        for i = 1, n do
          -- running, queued behind it, and one that starts a process
          local job = server:submit(spin)
          local queued = server:submit(spin)
          while job.status ~= "running" do end
          if not job:cancel() then error("first " .. i) end
          if not queued:cancel() then error("second " .. i) end
          if job:pcall() or queued:pcall() then error("no end " .. i) end
          if i % 20 == 0 then
            server:submit(function()
              os.execute("sleep 1000 >/dev/null 2>&1 &")
            end)()
          end
        end
        server:wait()
      end
      round(20)
      local before = measure()
      round(200)
      for i, m in ipairs(measure()) do
        if m[2] > before[i][2] + 3 then
          print(m[1] .. ": " .. before[i][2] .. " -> " .. m[2])
        end
      end
      print(server:pending(), server:get_stats()["local"].lost)
    ]])
    assert.are.equal("0\t0\n", r.out, r.err)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
    assert.are.same({}, child.left(r.tag))
  end)
end)
