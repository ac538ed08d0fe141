-- SPDX-License-Identifier: MIT
-- everywhere: calls that every worker makes, and those that start later make.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function pass(path) io.open(path):close() end

--- Functions made from text: what they define is a global of theirs.
local function code(text) return assert(load(text, "=code")) end

--- The workers that have run one of `n` jobs each, as set and number; the jobs
-- pass a gate that is opened when all workers have one.
local function each_worker(server, n, f, ...)
  local gate, here = child.gate(), os.tmpname()
  local jobs = {}
  for i = 1, n do
    jobs[i] = server:spawn(function(g, h, call, ...)
      local file = io.open(h, "a")
      file:write("x")
      file:close()
      io.open(g):close()
      return pp.job.worker, call(...)
    end, gate.path, here, f, ...)
  end
  assert(child.eventually(function()
    pp.sleep(0)
    return #io.open(here):read("a") == n
  end))
  gate:open()
  local results = {}
  for i = 1, n do
    local r = table.pack(jobs[i]())
    results[r[1]] = r[2] == nil and "nil" or r[2]
  end
  os.remove(here)
  return results
end

after_each(child.clean)

describe("everywhere", function()
  it("runs once in every worker and lists how it went", function()
    local server <close> = pp.Server(3)
    local list = server:everywhere(function(a, b)
      return pp.job.worker, a, b, nil
    end, "x", nil)
    assert.are.equal(3, #list)
    for i, entry in ipairs(list) do
      assert.are.same({node = "local", worker = i, ok = true, n = 4, i, "x"}, entry)
    end
  end)

  it("sets globals that all later jobs of a worker see", function()
    local server <close> = pp.Server(2)
    server:everywhere(code "answer = ...; function twice(x) return 2 * x end", 21)
    local see = code "return twice(answer)"
    for _ = 1, 20 do assert.are.equal(42, server:spawn(see)()) end
    -- what a job assigns stays its own
    assert.are.equal(1, server:spawn(code "answer = 1; return answer")())
    assert.are.same({42, 42}, each_worker(server, 2, see))
    assert.is_nil(rawget(_G, "answer"))
  end)

  it("is what loops over all globals show", function()
    local server <close> = pp.Server(1)
    server:everywhere(code "shown = true")
    assert.is_true(server:spawn(function()
      for k, v in pairs(_G) do if k == "shown" then return v end end
    end)())
  end)

  it("brings the globals of its function along, to stay", function()
    local r = child.run([[
      local pp = require "pp"
      local server <close> = pp.Server(2)
      function string.shout(s) return s:upper() .. suffix end
      suffix = "!"
      function greet() return ("hello"):shout() end
      server:everywhere(function() return greet() end)
      suffix, greet, string.shout = nil
      print(server:spawn(load "return greet(), suffix, ('x'):shout()")())
    ]])
    assert.are.equal("HELLO!\t!\tX!\n", r.out)
  end)

  it("keeps what the function adds to standard tables", function()
    local server <close> = pp.Server(1)
    server:everywhere(code "function string.trim(s) return (s:gsub('^%s+', '')) end")
    assert.are.equal("a", server:spawn(code "return ('  a'):trim()")())
    assert.are.equal("b", server:spawn(code "return ('  b'):trim()")())
    assert.is_nil(rawget(string, "trim"))
  end)

  it("gives each worker a state of its own", function()
    local server <close> = pp.Server(1)
    server:everywhere(code "counts = {n = 0}")
    local count = code "counts.n = counts.n + 1; return counts.n"
    assert.are.equal(1, server:spawn(count)())
    assert.are.equal(2, server:spawn(count)())
  end)

  it("runs after the jobs that were submitted before it", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local see = code "return seen"
    local first = server:spawn(pass, gate.path)
    local before = {}
    for i = 1, 50 do before[i] = server:spawn(see) end
    local after
    server:submit{pass, args = {"/dev/null"}, callback = function()
      after = server:spawn(see) -- later: sees it
      gate:open()
    end}
    server:everywhere(code "seen = 'yes'")
    assert.is_true(first.finished)
    for i = 1, 50 do assert.is_nil((before[i]())) end
    assert.are.equal("yes", after())
    assert.are.equal("yes", server:spawn(see)())
  end)

  it("lets a priority overtake nothing", function()
    local server <close> = pp.Server(1)
    local gate, order = child.gate(), {}
    local see = code "return seen"
    local function note(name) return function(v) order[#order + 1] = name .. tostring(v) end end
    server:submit{pass, args = {gate.path}, callback = function() end}
    server:submit{see, priority = -1, callback = note "low "}
    server:submit{pass, args = {"/dev/null"}, priority = 5, callback = function()
      server:submit{see, priority = 9, callback = note "late "}
    end}
    gate:open()
    server:everywhere(code "seen = true")
    server:wait()
    assert.are.same({"low nil", "late true"}, order)
  end)

  it("can be called by a callback that runs while it waits", function()
    local server <close> = pp.Server(2)
    local inner
    server:submit{math.abs, args = {1}, callback = function()
      inner = server:everywhere(code "trace = trace .. 'b'; return trace")
    end}
    local outer = server:everywhere(code "trace = 'a'; return trace")
    assert.are.equal("a", outer[2][1])
    assert.are.equal("ab", inner[2][1])
    assert.are.equal("ab", server:spawn(code "return trace")())
  end)

  it("knows no job there", function()
    local server <close> = pp.Server{ncpus = 1}
    local info = server:everywhere(function() return pp.job end)[1][1]
    assert.are.same({node = "local", worker = 1, attempt = 1}, info)
    assert.are.equal(0, server:spawn(pass, "/dev/null").id)
  end)

  it("does not count as a job", function()
    local server <close> = pp.Server{ncpus = 1, restart = 2}
    server:everywhere(pass, "/dev/null")
    assert.are.equal(0, server:get_stats()["local"].njobs)
    assert.are.equal(0, server:pending())
    assert.is_nil(server:pop(0))
    local pid = server:spawn(child.pid)()
    assert.are.equal(pid, server:spawn(child.pid)())
    assert.are_not.equal(pid, server:spawn(child.pid)())
    assert.are.equal(3, server:get_stats()["local"].njobs)
  end)

  it("has random numbers that depend on seed and call alone", function()
    local function numbers()
      local server <close> = pp.Server{ncpus = 2, seed = 7}
      local a = server:everywhere(math.random, 1 << 40)
      local b = server:everywhere(math.random, 1 << 40)
      return {a[1][1], a[2][1], b[1][1], b[2][1], (server:spawn(math.random, 1 << 40)())}
    end
    local one, two = numbers(), numbers()
    assert.are.same(one, two)
    assert.are.equal(one[1], one[2])
    assert.are_not.equal(one[1], one[3])
    assert.are_not.equal(one[1], one[5])
  end)

  it("passes output on, and collects it where that is asked for", function()
    local r = child.run([[
      require "pp".Server(2):everywhere(print, "here")
    ]])
    assert.are.equal("here\nhere\n", r.out)
    local server <close> = pp.Server{ncpus = 2, output = "job"}
    local list = server:everywhere(function() print "out"; io.stderr:write "err" end)
    assert.are.equal("out\n", list[2].output)
    assert.are.equal("err", (list[1].errors:gsub("\n", "")))
  end)

  it("keeps a metatable that went out with it", function()
    local server <close> = pp.Server(1)
    local Account = {}
    Account.__index = Account
    local list = server:everywhere(function() return setmetatable({}, Account) end)
    assert.are.equal(Account, getmetatable(list[1][1]))
  end)

  it("refuses what is no function and what cannot be sent, at the caller's line",
    function()
      local server <close> = pp.Server(1)
      local line = debug.getinfo(1, "l").currentline
      local ok, err = pcall(function() server:everywhere("x") end)
      assert.is_false(ok)
      assert.are.equal(("spec/everywhere_spec.lua:%d: bad argument #1 to 'everywhere' "
        .. "(func must be a function, got string)"):format(line + 1),
        (err:gsub("^.*(spec/everywhere)", "%1")))
      ok, err = pcall(function() server:everywhere(print, coroutine.create(print)) end)
      assert.is_false(ok)
      assert.is_truthy(err:find(":" .. line + 6 .. ": cannot send argument 1", 1, true))
      assert.are.equal(1, server:spawn(math.abs, -1)())
    end)

  it("is not for jobs, and submits none", function()
    local server <close> = pp.Server(1)
    local _, err = server:spawn(function() pp.Server():everywhere(print) end):pcall()
    assert.is_truthy(err.message:find("everywhere cannot be called in a job", 1, true))
    local line = debug.getinfo(1, "l").currentline + 2
    local list = server:everywhere(function()
      return pcall(function() return pp.Server():spawn(math.abs, 1)() end)
    end)
    assert.is_false(list[1][1])
    assert.is_truthy(list[1][2]:find("^%S*everywhere_spec.lua:" .. line
      .. ": a call of everywhere, or @SET, cannot submit jobs$"), list[1][2])
  end)

  it("comes after jobs that jobs before it have submitted", function()
    local server <close> = pp.Server(4) -- the three below hold a place each
    local gate = child.gate()
    local job = server:spawn(function(path)
      local inner = pp.Server()
      local jobs = {}
      for i = 1, 3 do
        jobs[i] = inner:spawn(function(p)
          io.open(p):close()
          return seen -- luacheck: ignore
        end, path)
      end
      local n = 0
      for i = 1, 3 do n = n + (jobs[i]() and 1 or 0) end
      return n
    end, gate.path)
    server:submit{math.abs, args = {1}, callback = function() gate:open() end}
    server:everywhere(code "seen = true")
    assert.are.equal(0, job())
    assert.are.equal(2, server:spawn(function()
      local a, b = pp.Server():spawn(code "return seen"), pp.Server():spawn(code "return seen")
      return (a() and 1 or 0) + (b() and 1 or 0)
    end)())
  end)

  it("raises on a closed server", function()
    local server = pp.Server(1)
    server:destroy()
    local ok, err = pcall(server.everywhere, server, print)
    assert.is_false(ok)
    assert.is_truthy(err:find("closed server", 1, true))
  end)
end)

describe("a worker that starts later", function()
  local add = code "trace = (trace or '') .. ...; return trace"
  local see = code "return trace"

  it("makes all calls in order before its first job", function()
    local server <close> = pp.Server(1)
    for _, c in ipairs{"a", "b", "c"} do server:everywhere(add, c) end
    server:set_ncpus(3)
    assert.are.same({"abc", "abc", "abc"}, each_worker(server, 3, see))
  end)

  it("makes them when it replaces one that died", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    server:everywhere(add, "x")
    for i = 1, 3 do
      local ok, err = server:spawn(os.exit, i):pcall()
      assert.is_false(ok)
      assert.are.equal("lost", err.kind)
      assert.are.equal("x", server:spawn(see)())
    end
  end)

  it("makes them after each restart", function()
    local server <close> = pp.Server{ncpus = 1, restart = 1}
    server:everywhere(add, "x")
    server:everywhere(add, "y")
    local pids = {}
    for _ = 1, 5 do
      local trace, pid = server:spawn(function(f) return f(), child.pid() end, see)()
      assert.are.equal("xy", trace)
      assert.is_nil(pids[pid])
      pids[pid] = true
    end
  end)

  it("makes them when all workers were killed at once", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      server:everywhere(load "x = (x or 0) + 1")
      os.execute("kill -9 $(ps -o pid= --ppid $(ps -o ppid= -p $$) | xargs) 2>/dev/null")
      local jobs = {}
      for i = 1, 10 do jobs[i] = server:spawn(load "return x") end
      local sum = 0
      for i = 1, 10 do sum = sum + jobs[i]() end
      print(sum)
    ]])
    assert.are.equal("10\n", r.out)
  end)

  it("takes part when it starts while the others make the call", function()
    local server <close> = pp.Server(1)
    local gate = child.gate()
    server:submit{math.abs, args = {1}, callback = function()
      server:set_ncpus(2)
      gate:open()
    end}
    local list = server:everywhere(function(path)
      io.open(path):close()
      return pp.job.worker
    end, gate.path)
    assert.are.equal(2, #list)
    assert.are.equal(2, list[2][1])
  end)

  it("says what its replacement did when a worker dies in the call", function()
    local server <close> = pp.Server{ncpus = 2, retries = 0}
    server:everywhere(code "first = 'one'")
    local marks = os.tmpname()
    local list = server:everywhere(function(path, get)
      if pp.job.worker == 2 then
        local file = io.open(path, "a+")
        local n = #file:read("a")
        file:write("x")
        file:close()
        if n == 0 then os.exit(9) end
      end
      return get(), pp.job.worker
    end, marks, code "return first")
    os.remove(marks)
    assert.is_true(list[1].ok)
    assert.is_true(list[2].ok)
    assert.are.same({"one", 2}, {list[2][1], list[2][2]})
    assert.are.equal("one", server:spawn(code "return first")())
  end)
end)

describe("a worker where a call fails", function()
  it("is told of in the list, with the error", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local list = server:everywhere(function()
        if pp.job.worker == 2 then error{code = 5} end
        return "fine"
      end)
      local e = list[2]
      print(list[1].ok, list[1][1], list[1].error)
      print(e.ok, e.n, e[1] == e.error, pp.is_error(e.error), e.error.kind, e.error.value.code,
        e.error.node, e.error.worker, e.error.job, e.node, e.worker)
      local jobs, seen = {}, {}
      for i = 1, 50 do jobs[i] = server:spawn(function() return pp.job.worker end) end
      for i = 1, 50 do seen[jobs[i]()] = true end
      print(seen[1], seen[2], server:get_ncpus())
    ]])
    assert.are.equal("true\tfine\tnil\n"
      .. "false\t1\ttrue\ttrue\terror\t5\tlocal\t2\tnil\tlocal\t2\n"
      .. "true\tnil\t2\n", r.out)
    local _, lines = r.err:gsub("\n", "")
    assert.are.equal(1, lines)
    assert.is_truthy(r.err:find("warning: worker 2 of 'local' is not used", 1, true))
  end)

  it("is not used when it fails there later, and says why once", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local path = os.tmpname()
      server:everywhere(function(p) assert(io.open(p), "the file is gone"):close() end, path)
      os.remove(path)
      server:set_ncpus(3)
      local jobs = {}
      for i = 1, 30 do jobs[i] = server:spawn(function() return pp.job.worker end) end
      for i = 1, 30 do assert(jobs[i]() == 1) end
      pp.sleep(0.3)
      local ok, err = server:submit{os.exit, args = {3}, retries = 0}:pcall()
      print(err.kind)
      local t = pp.time()
      ok, err = server:spawn(function() end):pcall()
      print(err.kind, err.message)
      local queued = server:spawn(function() end)
      print((queued:pcall()), server:everywhere(math.abs, 1)[3].error.message)
      io.open(path, "w"):close()
      server:set_ncpus(1) -- tries again
      print(server:spawn(function() return "used" end)())
      os.remove(path)
    ]])
    local why = "[^\n]*the file is gone"
    assert.is_truthy(r.out:find("^lost\nconnect\tno worker can be used[^\n]*" .. why
      .. "\nfalse\t" .. why .. "\nused\n"), r.out .. r.err)
    local _, told = r.err:gsub("is not used", "")
    assert.are.equal(3, told, r.err)
  end)

  it("leaves no job hanging when it failed in all", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local called
      local list = server:everywhere(error, "no way")
      print(#list, list[1].ok, list[2].ok)
      local job = server:submit{math.abs, args = {1},
        callback = function(_, err) called = err.kind end}
      local ok, err = job:pcall()
      print(ok, err.kind, err.message, called)
      print(server:wait(), pcall(server.map, server, math.abs, {1, 2}))
    ]])
    assert.is_truthy(r.out:find("^2\tfalse\tfalse\nfalse\tconnect\tno worker can be used: "
      .. "[^\n]*no way\tconnect\ntrue\tfalse\t"), r.out .. r.err)
  end)

  it("fails jobs that wait behind the call, too", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local later
      server:submit{math.abs, args = {1}, callback = function() later = server:spawn(print) end}
      server:everywhere(error, "no way")
      local ok, err = later:pcall()
      print(ok, err.kind)
    ]])
    assert.are.equal("false\tconnect\n", r.out)
  end)

  it("says in get_stats whether it failed in some workers or in all", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      server:everywhere(function() if pp.job.worker == 1 then error("no way", 0) end end)
      local stats = server:get_stats()["local"]
      print(stats.state, stats.reason)
      server:everywhere(error, "not here", 0)
      stats = server:get_stats()["local"]
      print(stats.state, (stats.reason:gsub(": n.*", "")))
    ]])
    assert.are.equal("connected\tnot all workers can be used: a call of everywhere failed: no way\n"
      .. "failed\tno worker can be used: a call of everywhere failed\n", r.out)
  end)

  it("is stopped by the server's timeout", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server{ncpus = 2, timeout = 0.2}
      local list = server:everywhere(function()
        if pp.job.worker == 1 then while true do end end
      end)
      print(list[1].ok, list[1].error.kind, list[2].ok)
      print(server:spawn(function() return pp.job.worker end)())
    ]])
    assert.are.equal("false\ttimeout\ttrue\n2\n", r.out)
  end)

  it("is told of when its memory does not do", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server{ncpus = 1, memory = 8 << 20}
      local list = server:everywhere(function() big = ("x"):rep(64 << 20) end)
      print(list[1].ok, list[1].error.kind)
    ]])
    assert.are.equal("false\tmemory\n", r.out)
  end)

  it("is not replaced for ever when the call kills it", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local list = server:everywhere(os.exit, 3)
      print(list[1].ok, list[2].ok, list[1].error.kind, list[1].error.message)
      print(server:spawn(print):pcall())
    ]])
    assert.is_truthy(r.out:find("^false\tfalse\tlost\tworker %d %(pid %d+%) exited with status 3 "
      .. "in a call of everywhere\nfalse\tno worker can be used"), r.out .. r.err)
  end)

  it("is used if only its results cannot be sent", function()
    local server <close> = pp.Server(1)
    local list = server:everywhere(code "done = true; return coroutine.create(print)")
    assert.is_false(list[1].ok)
    assert.are.equal("unsendable", list[1].error.kind)
    assert.is_true(server:spawn(code "return done")())
    server:set_ncpus(2)
    assert.are.same({true, true}, each_worker(server, 2, code "return done"))
  end)
end)

describe("while everywhere waits", function()
  it("a callback's error is raised from it, and the call is taken back", function()
    local server <close> = pp.Server(2)
    server:everywhere(code "x = 'old'")
    server:submit{math.abs, args = {1}, callback = function() error "in the callback" end}
    local ok, err = pcall(server.everywhere, server, code "x = 'new'")
    assert.is_false(ok)
    assert.is_truthy(err:find("in the callback", 1, true))
    assert.are.same({"old", "old"}, each_worker(server, 2, code "return x"))
  end)

  it("Ctrl-C takes it back, and the workers that began it are replaced", function()
    local process = child.start([[
      local pp = require "pp"
      local server = pp.Server(2)
      server:everywhere(load "x = 'old'")
      local ok, err = pcall(server.everywhere, server, function()
        x = "new"
        if pp.job.worker == 1 then
          io.stdout:write "ready\n"
          while true do end
        end
      end)
      print(ok, err)
      local jobs = {}
      for i = 1, 20 do jobs[i] = server:spawn(function() return x end) end
      for i = 1, 20 do assert(jobs[i]() == "old") end
      server:set_ncpus(3)
      print(#server:everywhere(print, "end"))
    ]])
    process:expect("ready", true)
    process:kill("INT")
    local r = child.finish(process)
    assert.is_truthy(r.out:find("false\t[^\n]*interrupted!\nend\nend\nend\n3\n"), r.out .. r.err)
  end)

  it("the server may be destroyed", function()
    local server = pp.Server(2)
    local gate = child.gate()
    server:submit{math.abs, args = {1}, callback = function() server:destroy() end}
    local list = server:everywhere(pass, gate.path)
    assert.are.equal(2, #list)
    assert.is_false(list[1].ok)
    assert.are.equal("destroyed", list[2].error.kind)
  end)

  it("jobs may be cancelled", function()
    local server <close> = pp.Server(1)
    local gate = child.gate()
    local later, n
    server:submit{math.abs, args = {1}, callback = function()
      later = server:spawn(math.abs, 1)
      n = server:cancel_all()
      gate:open()
    end}
    assert.is_true(server:everywhere(pass, gate.path)[1].ok)
    assert.are.equal(1, n)
    assert.are.equal("cancelled", select(2, later:pcall()).kind)
    assert.are.equal(2, server:spawn(math.abs, -2)())
  end)

  it("workers may go", function()
    local server <close> = pp.Server(3)
    local gate = child.gate()
    server:submit{math.abs, args = {1}, callback = function()
      server:set_ncpus(1)
      gate:open()
    end}
    assert.are.equal(1, #server:everywhere(pass, gate.path))
    assert.are.equal(2, server:spawn(math.abs, -2)())
  end)
end)

describe("everywhere with job handles", function()
  it("waits for them and gives their first results, to later workers too", function()
    local server <close> = pp.Server(2)
    local slow = server:spawn(function() pp.sleep(0.05) return 42, 43 end)
    local list = server:spawn(function() return {7} end)
    local function set(x) given, listed = x, list[1] return x end -- luacheck: ignore 111
    local r = server:everywhere(set, slow)
    assert.are.same({42, 42}, {r[1][1], r[2][1]})
    server:set_ncpus(3)
    local function look() return given, listed end -- luacheck: ignore 113
    for _ = 1, 9 do assert.are.same({42, 7}, {server:submit(look)()}) end
  end)

  it("raises the error of one that has failed, and no worker is lost", function()
    local server <close> = pp.Server(2)
    local bad = server:spawn(error, "no good")
    local ok, e = pcall(server.everywhere, server, function() end, bad)
    assert.is_false(ok)
    assert.are.same({"error", "no good"}, {e.kind, e.message})
    assert.are.equal(1, server:submit(math.abs, {-1})())
    assert.are.equal(2, #server:everywhere(function() end))
  end)
end)

describe("everywhere on a server of no workers", function()
  local add = code "trace = (trace or '') .. ...; return trace"
  local see = code "return trace"

  it("runs once, after the jobs before it, and lists how it went", function()
    local server <close> = pp.Server(0)
    local before = server:spawn(see)
    local list = server:everywhere(function(...)
      trace = "a" -- luacheck: ignore
      return pp.job.worker, ...
    end, nil, "b", nil)
    assert.are.same({{node = "local", worker = 0, ok = true, n = 4, 0, nil, "b"}}, list)
    assert.are.equal("done", before.status)
    assert.is_nil((before()))
    assert.are.equal("a", server:spawn(see)())
    assert.is_nil(rawget(_G, "trace"))
    assert.are.equal(2, server:get_stats()["local"].njobs)
  end)

  it("lets in jobs of later calls only after them", function()
    local server <close> = pp.Server(0)
    local order = {}
    server:submit{see, callback = function(v)
      order[1] = v or "none"
      server:submit{see, callback = function(t) order[#order + 1] = t end}
      order[2] = server:everywhere(add, "b")[1][1]
    end}
    assert.are.equal("a", server:everywhere(add, "a")[1][1])
    server:wait()
    assert.are.same({"none", "ab", "a"}, order)
  end)

  it("is made again by each interpreter that takes the place of one", function()
    local server <close> = pp.Server{ncpus = 0, retries = 0}
    for _, c in ipairs{"a", "b"} do server:everywhere(add, c) end
    assert.are.equal("lost", select(2, server:spawn(os.exit, 1):pcall()).kind)
    assert.are.equal("ab", server:spawn(see)())
    local stuck = server:submit{function()
      while true do pcall(function() while true do end end) end
    end, timeout = 0.05}
    assert.are.equal("timeout", select(2, stuck:pcall()).kind)
    server:everywhere(add, "c")
    assert.are.equal("abc", server:spawn(see)())
    local often <close> = pp.Server{ncpus = 0, restart = 1}
    often:everywhere(add, "x")
    often:everywhere(add, "y")
    for _ = 1, 3 do assert.are.equal("xy", often:spawn(see)()) end
  end)

  it("holds in jobs within jobs, at each depth", function()
    local server <close> = pp.Server(0)
    local function down(n, f)
      if n == 0 then return f() end
      return f(), pp.Server():spawn(down, n - 1, f)()
    end
    local shared = server:put {"c"}
    server:everywhere(add, "a")
    assert.are.same({"a", "a", "a", "a"}, {server:spawn(down, 3, see)()})
    server:everywhere(add, "b")
    server:everywhere(function(t) trace = trace .. t[1] end, shared) -- luacheck: ignore
    assert.are.same({"abc", "abc", "abc", "abc"}, {server:spawn(down, 3, see)()})
    assert.are.same({"abc", "abc"}, {server:spawn(down, 1, see)()})
  end)

  it("goes along when the number of workers changes", function()
    local server <close> = pp.Server(0)
    local function seen() return trace, pp.job.worker > 0 end -- luacheck: ignore
    server:everywhere(add, "a")
    server:set_ncpus(2)
    assert.are.same({"a", true}, {server:spawn(seen)()})
    server:everywhere(add, "b")
    server:set_ncpus(0)
    assert.are.same({"ab", false}, {server:spawn(seen)()})
    assert.are.equal("abc", server:everywhere(add, "c")[1][1])
    server:set_ncpus(1)
    assert.are.same({"abc", true}, {server:spawn(seen)()})
  end)

  it("fails as with workers", function()
    local function outcome(n, options, f)
      local r = child.run(([[
        local pp = require "pp"
        local server = pp.Server{ncpus = %d, %s}
        local function clean(text) -- what names the worker differs
          return (text:gsub("worker %%d %%(pid %%d+%%) exited", "it exited")
            :gsub("worker 0 called os.exit", "it exited"))
        end
        local called
        local list = server:everywhere(%s)
        local e = list[1].error
        print(#list, list[1].ok, list[1].n, list[1][1] == e, e.kind, clean(e.message))
        local job = server:submit{math.abs, args = {1},
          callback = function(_, err) called = err.kind end}
        local ok, err = job:pcall()
        print(ok, err.kind, clean(err.message), called)
        print(server:wait(), clean(select(2, pcall(server.map, server, math.abs, {1, 2})).message))
        print(server:everywhere(math.abs, 1)[1].ok)
        server:set_ncpus(%d)
        print(select(2, server:spawn(math.abs, 1):pcall()).kind)
      ]]):format(n, options, f, n))
      assert.are.equal(0, r.status, r.err)
      local _, told = r.err:gsub("warning: worker %d of 'local' is not used", "")
      assert.are.equal(2, told, r.err)
      return r.out
    end
    for _, how in ipairs{
      {"", "error, 'no way'"},
      {"", "error, {code = 1}"},
      {"", "function() return os.exit(7) end"},
      {"timeout = 0.1", "function() while true do end end"},
    } do
      local workers = outcome(1, table.unpack(how))
      assert.are.equal(workers, outcome(0, table.unpack(how)))
      assert.is_truthy(workers:find("connect\tno worker can be used: ", 1, true), workers)
    end
    local server <close> = pp.Server(0)
    local list = server:everywhere(function() return coroutine.create(print) end)
    assert.are.equal("unsendable", list[1].error.kind)
    assert.are.equal(1, server:spawn(math.abs, -1)())
  end)

  it("is tried three times when it ends the interpreter", function()
    local server <close> = pp.Server(0)
    local path = os.tmpname()
    local list = server:everywhere(function(p)
      local file = io.open(p, "a+")
      local n = #file:read("a")
      file:write("x")
      file:close()
      if n < 2 then os.exit(9) end
      return n
    end, path)
    os.remove(path)
    assert.are.same({node = "local", worker = 0, ok = true, n = 1, 2}, list[1])
  end)

  it("is not for jobs, and submits none", function()
    local server <close> = pp.Server(0)
    local _, err = server:spawn(function() pp.Server():everywhere(print) end):pcall()
    assert.is_truthy(err.message:find("everywhere cannot be called in a job", 1, true))
    local line = debug.getinfo(1, "l").currentline + 2
    local list = server:everywhere(function()
      return pcall(function() return pp.Server():spawn(math.abs, 1)() end)
    end)
    assert.is_false(list[1][1])
    assert.is_truthy(list[1][2]:find("^%S*everywhere_spec.lua:" .. line
      .. ": a call of everywhere, or @SET, cannot submit jobs$"), list[1][2])
  end)

  it("is taken back when a callback fails, and by Ctrl-C", function()
    local server <close> = pp.Server(0)
    server:everywhere(add, "a")
    server:submit{math.abs, args = {1}, callback = function() error "stop" end}
    assert.has_error(function() server:everywhere(add, "b") end)
    assert.are.equal("a", server:spawn(see)())
    local p = child.start([[
      local server = require "pp".Server(0)
      local see = load "return x"
      server:everywhere(load "x = 1")
      print(pcall(server.everywhere, server, function()
        x = 2
        print "begun"
        while true do end
      end))
      print(server:spawn(see)())
      print(server:everywhere(load "x = x + 10; return x")[1][1], server:spawn(see)())
    ]])
    p:expect "begun\n"
    p:kill "INT"
    local r = child.finish(p)
    assert.are.equal("begun\nfalse\tinterrupted!\n1\n11\t11\n", r.out, r.err)
  end)

  it("has the random numbers and the output of a worker's", function()
    local function numbers(n)
      local server <close> = pp.Server{ncpus = n, seed = 7}
      return {server:everywhere(math.random, 1 << 40)[1][1],
        server:everywhere(math.random, 1 << 40)[1][1], (server:spawn(math.random, 1 << 40)())}
    end
    assert.are.same(numbers(1), numbers(0))
    local server <close> = pp.Server{ncpus = 0, output = "job"}
    local list = server:everywhere(function() print "out"; io.stderr:write "err\n" end)
    assert.are.equal("out\n", list[1].output)
    assert.are.equal("err\n", list[1].errors)
    local r = child.run [[require "pp".Server(0):everywhere(print, "here")]]
    assert.are.equal("here\n", r.out)
  end)
end)
