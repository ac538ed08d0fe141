-- SPDX-License-Identifier: MIT
-- Servers of no workers: jobs run in the calling process when something waits.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end
local function fail(...) error(...) end
local function forever() while true do end end

after_each(child.clean)

describe("a server of no workers", function()
  it("runs jobs in the calling process", function()
    local server <close> = pp.Server(0)
    assert.are.equal(child.pid(), server:submit(child.pid)())
    assert.are.equal(0, server:get_ncpus())
    assert.are.same({["local"] = 0}, server:get_active_nodes())
  end)

  it("is what -j 0 makes", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server()
      print(server:get_ncpus(), server:spawn(function(n) return n * 2 end, 21)())
      print(pp.Server{ncpus = 0}:get_ncpus())
    ]], {options = {"-j", "0", "--stats"}})
    assert.are.equal("0\t42\n0\n", r.out)
    assert.are.equal(0, r.status)
    assert.matches("\n *1 | *100.00 |[^\n]* local\n", r.err)
    assert.matches("\n0 active tasks, 0 cores\n", r.err)
  end)

  it("runs nothing in submit, in fields or in polls", function()
    local path = os.tmpname()
    local server <close> = pp.Server(0)
    local job = server:spawn(os.remove, path)
    assert.are.equal("queued", job.status)
    assert.is_false(job.finished)
    assert.is_false(job:wait(0))
    assert.is_false(server:wait(0))
    assert.is_nil(server:pop(0))
    assert.are.equal(1, server:pending())
    assert.is_truthy(io.open(path)):close()
    assert.is_true(job:wait())
    assert.is_nil(io.open(path))
    assert.are.equal("done", job.status)
    assert.are.equal(1, job.attempts)
  end)

  it("runs jobs in submit order, those of higher priority first", function()
    local server <close> = pp.Server(0)
    local path = os.tmpname()
    local function note(name)
      local f = io.open(path, "a")
      f:write(name)
      f:close()
    end
    for i = 1, 5 do server:spawn(note, tostring(i)) end
    server:submit{note, args = {"first"}, priority = 1}
    server:wait()
    local f <close> = io.open(path)
    assert.are.equal("first12345", f:read("a"))
    os.remove(path)
  end)

  it("encodes as with workers", function()
    local server <close> = pp.Server(0)
    local t = {}
    t.self = t
    local r = server:spawn(id, t)()
    assert.are_not.equal(t, r)
    assert.are.equal(r, r.self)
    assert.has_error(function() server:spawn(id, coroutine.create(id)) end)
    local err = select(2, server:spawn(function()
      return coroutine.create(print)
    end):pcall())
    assert.are.equal("unsendable", err.kind)
    assert.are.equal(nil, (server:spawn(id, nil, nil)()))
    assert.are.equal(2, select("#", server:spawn(id, nil, nil)()))
  end)

  it("gives each job fresh globals and captures", function()
    local server <close> = pp.Server(0)
    local captured = {0}
    local function f()
      captured[1] = captured[1] + 1
      SOME_GLOBAL = (SOME_GLOBAL or 0) + 1 -- luacheck: ignore
      return captured[1], SOME_GLOBAL -- luacheck: ignore
    end
    for _ = 1, 3 do
      assert.are.same({1, 1}, {server:spawn(f)()})
    end
    assert.are.same({0}, captured)
    assert.is_nil(rawget(_G, "SOME_GLOBAL"))
  end)

  it("keeps what jobs do to their interpreter from the script", function()
    local server <close> = pp.Server(0)
    server:spawn(function() package.loaded.here = true end)()
    assert.is_nil(package.loaded.here)
    assert.is_true(server:spawn(function() return package.loaded.here end)())
  end)

  it("raises errors with the traceback of the job", function()
    local server <close> = pp.Server(0)
    local job = server:spawn(fail, {code = 3})
    local ok, err = job:pcall()
    assert.is_false(ok)
    assert.are.equal("error", err.kind)
    assert.are.equal(3, err.value.code)
    assert.are.equal(0, err.worker)
    assert.are.equal("local", err.node)
    assert.matches("serial_spec.lua:%d+: in function", err.traceback)
    assert.are.equal(0, job.worker)
    assert.are.equal("local", job.node)
    assert.are.equal("failed", job.status)
  end)

  it("tells the job where it is", function()
    local server <close> = pp.Server{ncpus = 0, seed = 7}
    local job = server:spawn(function()
      local j = require "pp".job
      return j.id, j.node, j.worker, j.attempt, j.seed ~= nil
    end)
    assert.are.same({0, "local", 0, 1, true}, {job()})
  end)

  it("has the random numbers that workers would have", function()
    local function numbers(n)
      local server <close> = pp.Server{ncpus = n, seed = 42}
      local list = server:map(function() return math.random() end, pp.range(1, 5))
      list[#list + 1] = server:spawn(math.random)()
      return list
    end
    assert.are.same(numbers(1), numbers(0))
  end)

  it("maps, iterates, drains and takes the first", function()
    local server <close> = pp.Server(0)
    local function square(i) return i * i end
    assert.are.same({n = 4, 1, 4, 9, 16}, server:map(square, {1, 2, 3, 4}))
    local seen = {}
    for i, r in server:imap(square, pp.range(1, 1000000)) do
      seen[i] = r
      if i == 100 then break end
    end
    assert.are.equal(10000, seen[100])
    for i, r in server:imap(square, {3, 4}, {ordered = false}) do seen[i] = r end
    assert.are.equal(16, seen[2])
    local jobs = {server:spawn(fail, "no"), server:spawn(id, "yes"), server:spawn(id, "late")}
    assert.are.equal("yes", server:first(jobs))
    for _ = 1, 3 do server:spawn(id) end
    assert.are.equal(3, #server:drain(10)) -- the late one has been seen to
    jobs = {server:spawn(id, 1), server:spawn(id, 2)}
    local n = 0
    for job in server:completed(jobs) do n = n + job() end
    assert.are.equal(3, n)
    local results = server:map(function(i) return i // (i - 2) end, {1, 2, 3},
      {on_error = "keep"})
    assert.are.equal(3, results[3])
    assert.is_true(pp.is_error(results[2]))
  end)

  it("runs callbacks, and what they wait for", function()
    local server <close> = pp.Server(0)
    local got = {}
    server:submit(id, {1}, nil, nil, function(a, b)
      got[#got + 1] = a + b + server:spawn(id, 100)()
    end, {10})
    server:submit{id, args = {5}, group = "other", callback = function(v)
      got[#got + 1] = v
    end}
    assert.is_true(server:wait("other"))
    server:wait()
    assert.are.same({111, 5}, got)
  end)

  it("stops a wait when the time is up between jobs", function()
    local server <close> = pp.Server(0)
    for _ = 1, 1000 do server:spawn(pp.sleep, 0.01) end
    assert.is_false(server:wait(0.05))
    local left = server:pending()
    assert.is_true(left > 0 and left < 1000)
    assert.are.equal(left, server:cancel_all())
    assert.is_true(server:wait())
  end)

  it("cancels jobs that have not begun", function()
    local server <close> = pp.Server(0)
    local job = server:spawn(forever)
    assert.is_true(job:cancel())
    assert.is_false(job:cancel())
    assert.are.equal("cancelled", select(2, job:pcall()).kind)
    assert.are.equal(0, server:get_stats()["local"].njobs)
  end)

  it("fails what is left when it is destroyed", function()
    local server = pp.Server(0)
    local done, left = server:spawn(id, 1), server:spawn(forever)
    done()
    server:destroy()
    assert.are.equal("destroyed", select(2, left:pcall()).kind)
    assert.has_error(function() server:spawn(id) end)
  end)

  it("retries a job's own errors", function()
    local server <close> = pp.Server(0)
    local job = server:submit{function()
      if require "pp".job.attempt < 3 then error "again" end
      return "at last"
    end, retry_errors = 5}
    assert.are.equal("at last", job())
    assert.are.equal(3, job.attempts)
  end)

  it("counts jobs", function()
    local server <close> = pp.Server(0)
    for _ = 1, 3 do server:spawn(id)() end
    server:spawn(fail, "x"):pcall()
    local s = server:get_stats()["local"]
    assert.are.equal(0, s.ncpus)
    assert.are.equal(4, s.njobs)
    assert.are.equal(1, s.failed)
    assert.is_true(s.sent > 0 and s.received > 0)
  end)

  it("replaces the interpreter after so many jobs", function()
    local function count()
      package.loaded.count = (package.loaded.count or 0) + 1
      return package.loaded.count
    end
    local server <close> = pp.Server{ncpus = 0, restart = 2}
    local list = {}
    for i = 1, 5 do list[i] = server:spawn(count)() end
    assert.are.same({1, 2, 1, 2, 1}, list)
  end)

  it("forgets the code of functions that are gone", function()
    local server <close> = pp.Server(0)
    for i = 1, 300 do
      local f = load("return function() return " .. i .. " end")()
      assert.are.equal(i, server:spawn(f)())
    end
  end)

  it("does not cap memory", function()
    local server <close> = pp.Server{ncpus = 0, memory = 1000000}
    assert.are.equal(1 << 23, server:spawn(function()
      return #string.rep("x", 1 << 23)
    end)())
  end)
end)

describe("a serial job", function()
  it("is stopped when its time is up", function()
    local server <close> = pp.Server(0)
    for _, f in ipairs {
      forever,
      function() require "pp".sleep(600) end,
      function() coroutine.wrap(function() while true do end end)() end,
      function() while true do pcall(function() while true do end end) end end,
      function() os.execute "sleep 600" while true do end end,
    } do
      local job = server:submit{f, timeout = 0.05}
      local ok, err = job:pcall()
      assert.is_false(ok)
      assert.are.equal("timeout", err.kind)
      assert.are.equal(1, job.attempts)
    end
    assert.are.equal("well", server:spawn(id, "well")())
  end)

  it("may close its variables when it is stopped", function()
    local server <close> = pp.Server(0)
    local path = os.tmpname()
    local job = server:submit{function()
      local t <close> = setmetatable({}, {__close = function() -- luacheck: ignore
        local f = io.open(path, "w")
        f:write "closed"
        f:close()
      end})
      while true do end
    end, timeout = 0.05}
    assert.is_false((job:pcall()))
    local f <close> = io.open(path)
    assert.are.equal("closed", f:read("a"))
    os.remove(path)
  end)

  it("is not stopped by the timeout of one before", function()
    local server <close> = pp.Server(0)
    assert.are.equal(1, server:submit{id, args = {1}, timeout = 0.1}())
    assert.are.equal("slept", server:spawn(function()
      require "pp".sleep(0.2)
      return "slept"
    end)())
  end)

  it("does not end the script by os.exit", function()
    local server <close> = pp.Server(0)
    local job = server:submit{function() pcall(os.exit, 7) return 1 end, retries = 1}
    local ok, err = job:pcall()
    assert.is_false(ok)
    assert.are.equal("lost", err.kind)
    assert.matches("status 7", err.message)
    assert.are.equal(2, job.attempts)
    job = server:submit{function()
      coroutine.wrap(function() os.exit(true, true) end)()
    end, retries = 0}
    assert.are.equal("lost", select(2, job:pcall()).kind)
    job = server:submit{function()
      if require "pp".job.attempt == 1 then os.exit(1) end
      return "second"
    end}
    assert.are.equal("second", job())
  end)

  it("writes where the script writes, in order", function()
    local r = child.run([[
      local server = require "pp".Server(0)
      io.write "script "
      server:spawn(function()
        print "job"
        os.execute "echo child"
        io.write "no newline"
        io.stderr:write "err"
      end)()
      print "script again"
    ]])
    assert.are.equal("script job\nchild\nno newline\nscript again\n", r.out)
    assert.are.equal("err\n", r.err)
  end)

  it("passes on lines while it runs", function()
    local gate = child.gate()
    local p = child.start(([[
      local server = require "pp".Server(0)
      server:spawn(function()
        print "before"
        io.open(%q):close()
        print "after"
      end)()
    ]]):format(gate.path))
    p:expect "before\n"
    gate:open()
    local r = child.finish(p)
    assert.are.equal("before\nafter\n", r.out)
  end)

  it("may write much", function()
    local r = child.run([[
      local server = require "pp".Server{ncpus = 0}
      server:spawn(function()
        for i = 1, 20000 do print(i, ("x"):rep(50)) end
        os.execute "seq 100000"
      end)()
      print "end"
    ]])
    local _, lines = r.out:gsub("\n", "")
    assert.are.equal(120001, lines)
    assert.are.equal("end\n", r.out:sub(-4))
  end)

  it("has its output as the server says", function()
    local r = child.run([[
      local pp = require "pp"
      local function f() print "a" os.execute "echo b" io.stderr:write "c" end
      pp.Server{ncpus = 0, output = "prefix"}:spawn(f)()
      pp.Server{ncpus = 0, output = "none"}:spawn(f)()
      local job = pp.Server{ncpus = 0, output = "job"}:spawn(f)
      job:wait()
      io.write("<", job.output, "|", job.errors, ">\n")
    ]])
    assert.are.equal("[local/0] a\n[local/0] b\n<a\nb\n|c>\n", r.out)
    assert.are.equal("[local/0] c\n", r.err)
  end)

  it("finds its stdin empty and leaves the script's alone", function()
    local r = child.run([[
      local server = require "pp".Server(0)
      print(io.read())
      print(server:spawn(function()
        local h = io.popen "cat"
        local text = h:read "a"
        h:close()
        return io.read(), io.stdin:read "a", text
      end)())
      print(io.read())
    ]], {stdin = "one\ntwo\n"})
    assert.are.equal("one\nnil\t\t\ntwo\n", r.out)
  end)

  it("takes along the processes it leaves, and only those", function()
    local r = child.run([[
      local server = require "pp".Server(0)
      local own = io.popen "echo $$; exec sleep 600"
      local script_s = own:read "n"
      local pid = server:spawn(function()
        local h = io.popen "sleep 600 </dev/null >/dev/null 2>&1 & echo $!"
        return h:read "n"
      end)()
      print(script_s, pid)
      local function alive(p) return (os.execute("kill -0 " .. p .. " 2>/dev/null")) end
      print(alive(script_s), alive(pid))
      os.execute("kill " .. script_s)
    ]])
    assert.matches("^%d+\t%d+\ntrue\tnil\n$", r.out)
    assert.are.same({}, child.left(r.tag))
  end)

  it("begins in the directory ppsh began in, and locale \"C\"", function()
    local ok, lfs = pcall(require, "lfs")
    if not ok then return end
    local here = lfs.currentdir()
    local server <close> = pp.Server(0)
    server:spawn(function() require "lfs".chdir "/" end)()
    assert.are.equal(here, lfs.currentdir())
    lfs.chdir "/"
    local there = server:spawn(function() return require "lfs".currentdir() end)()
    assert.are.equal("/", lfs.currentdir())
    lfs.chdir(here)
    assert.are.equal(here, there)
    assert.are.equal("C", server:spawn(os.setlocale)())
  end)

  it("is stopped by Ctrl-C, which is an error in the script", function()
    local p = child.start([[
      local server = require "pp".Server(0)
      local job = server:spawn(function() print "begun" while true do end end)
      print(pcall(job))
      print(job.status, select(2, job:pcall()).kind)
      print(server:spawn(function() return "goes on" end)())
    ]])
    p:expect "begun\n"
    p:kill "INT"
    local r = child.finish(p)
    assert.are.equal("begun\nfalse\tinterrupted!\nfailed\tcancelled\ngoes on\n",
      r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)

  it("takes its processes along when ppsh is killed, not the script's", function()
    local p = child.start([[
      local server = require "pp".Server(0)
      local own = io.popen "echo $$; exec sleep 600"
      print("own", own:read "n")
      server:spawn(function()
        os.execute "setsid sleep 600 & setsid sleep 600 >/dev/null 2>&1 </dev/null &"
        os.execute "echo begun; exec sleep 600"
      end)()
    ]])
    local own = tonumber(p:expect("own\t%d+"):match "%d+")
    p:expect "begun\n"
    p:kill "KILL"
    local r = child.finish(p)
    assert.are.equal(137, r.status)
    assert(child.eventually(function() return #child.tagged(r.tag) <= 1 end))
    assert.is_true(child.alive(own))
    child.kill("KILL", own)
  end)

  it("does not keep the script from being ended", function()
    local p = child.start([[
      require "pp".Server(0):spawn(function() print "begun" while true do end end)()
    ]])
    p:expect "begun\n"
    p:kill "TERM"
    local r = child.finish(p)
    assert.are.equal(143, r.status)
    assert.are.same({}, child.left(r.tag))
  end)
end)

describe("a serial job that submits jobs", function()
  local function fib(n)
    if n < 2 then return n end
    local server = require "pp".Server()
    local a, b = server:spawn(fib, n - 1), server:spawn(fib, n - 2)
    return a() + b()
  end

  it("runs them when it waits for them", function()
    local server <close> = pp.Server(0)
    assert.are.equal(55, server:spawn(fib, 10)())
    assert.are.equal(177, server:get_stats()["local"].njobs)
  end)

  it("may go deep", function()
    local server <close> = pp.Server(0)
    local function down(n)
      return n == 0 and 0 or 1 + require "pp".Server():spawn(down, n - 1)()
    end
    assert.are.equal(100, server:spawn(down, 100)())
  end)

  it("has what a server has", function()
    local server <close> = pp.Server{ncpus = 0, seed = 3}
    local function f()
      local inner = require "pp".Server()
      local got
      inner:submit{function() return 5 end, callback = function(v) got = v end}
      inner:wait()
      local ok, err = inner:spawn(error, {code = 1}):pcall()
      local list = inner:map(function(i) return i * i end, {1, 2, 3})
      local _, late = inner:submit{require "pp".sleep, args = {600}, timeout = 0.05}:pcall()
      local _, lost = inner:submit{os.exit, args = {1}, retries = 0}:pcall()
      return got, ok, err.value.code, list[3], late.kind, lost.kind, inner:get_ncpus(),
        inner:spawn(math.random)()
    end
    local r = {server:spawn(f)()}
    local random = table.remove(r)
    assert.are.same({5, false, 1, 9, "timeout", "lost", 0}, r)
    local workers <close> = pp.Server{ncpus = 2, seed = 3}
    assert.are.equal(random, select(8, workers:spawn(f)()))
  end)

  it("takes along what it has not waited for", function()
    local server <close> = pp.Server(0)
    local path = os.tmpname()
    server:spawn(function()
      require "pp".Server():spawn(os.remove, path)
    end)()
    assert.is_true(server:wait(0))
    assert.is_true(os.remove(path))
  end)

  it("has its own time and lines", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(0)
      local job = server:submit{function()
        local pp = require "pp"
        io.write "half a "
        pp.Server():spawn(function() print "child" require "pp".sleep(0.3) end)()
        print "line"
        return "in time"
      end, timeout = 0.25}
      print(job())
      print(job.time.run < 0.25)
      print(select(2, server:submit{function()
        require "pp".Server():spawn(require "pp".sleep, 0.1)()
        while true do end
      end, timeout = 0.15}:pcall()).kind)
    ]])
    assert.are.equal("child\nhalf a line\nin time\ntrue\ntimeout\n", r.out)
    assert.are.equal("", r.err)
  end)

  it("takes handles and references, its own too", function()
    local server <close> = pp.Server(0)
    local list = server:put {1, 2, 3}
    local first = server:spawn(function(t) return #t end, list)
    assert.are.equal(4, server:spawn(function(n) return n + 1 end, first)())
    assert.are.equal(47, server:spawn(function()
      local inner = require "pp".Server()
      local a = inner:spawn(function() return 40 end)
      return inner:spawn(function(n, t) return n + t[1] end, a, inner:put {7})()
    end)())
  end)

  it("collects what each has written", function()
    local server <close> = pp.Server{ncpus = 0, output = "job"}
    local job = server:spawn(function()
      print "before"
      local inner = require "pp".Server():spawn(print, "inner")
      inner:wait()
      print "after"
      return inner.output
    end)
    assert.are.equal("inner\n", job())
    assert.are.equal("before\nafter\n", job.output)
  end)

  it("is stopped by Ctrl-C with them", function()
    local p = child.start([[
      local server = require "pp".Server(0)
      print(pcall(server:spawn(function()
        return require "pp".Server():spawn(function() print "begun" while true do end end)()
      end)))
      print(server:spawn(function() return "goes on" end)())
    ]])
    p:expect "begun\n"
    p:kill "INT"
    local r = child.finish(p)
    assert.are.equal("begun\nfalse\tinterrupted!\ngoes on\n", r.out)
  end)
end)

describe("a number of workers that becomes 0",
 function()
  it("lets running jobs finish and runs the rest here", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local function where(path)
      if path then io.open(path):close() end
      local f = io.open "/proc/self/stat"
      local pid = f:read "n"
      f:close()
      return pid
    end
    local first = server:spawn(where, gate.path)
    local rest = {}
    for i = 1, 3 do rest[i] = server:spawn(where) end
    assert(child.eventually(function() return first.status == "running" end))
    server:set_ncpus(0)
    assert.are.equal(0, server:get_ncpus())
    for i = 1, 3 do assert.are.equal(child.pid(), rest[i]()) end
    gate:open()
    assert.are_not.equal(child.pid(), first())
    server:set_ncpus(2)
    assert.are_not.equal(child.pid(), server:spawn(where)())
    server:set_ncpus(0)
    assert.are.equal(child.pid(), server:spawn(where)())
  end)

  it("starts workers for what waits when it grows again", function()
    local server <close> = pp.Server(0)
    local job = server:spawn(child.pid)
    server:set_ncpus(2)
    assert.are_not.equal(child.pid(), job())
    assert.are.equal(1, job.worker // job.worker)
  end)
end)
