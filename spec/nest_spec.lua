-- SPDX-License-Identifier: MIT
-- Jobs that submit jobs.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end
local function boom(v) error(v, 0) end
local function pid() return child.pid() end

--- Append a line to a file.
local function note(path, text)
  local f <close> = io.open(path, "a")
  f:write(text, "\n")
end

--- The lines of a file, in order; none: an empty list.
local function lines(path)
  local list, f = {}, io.open(path)
  if f then
    for line in f:lines() do list[#list + 1] = line end
    f:close()
  end
  return list
end

--- The name of a file that does not exist yet.
local function name()
  local gate = child.gate()
  return gate.path .. ".notes"
end

--- Wait until a file has n lines; pp's work goes on meanwhile.
local function wait_for(path, n)
  local deadline = pp.time() + child.patience
  while #lines(path) < n and pp.time() < deadline do pp.sleep(0.01) end
  return #lines(path)
end

--- Notes when it is closed.
local function guard(path, text)
  return setmetatable({}, {__close = function() note(path, text) end})
end

--- What f returns as a job of a server of its own.
local function inside(f, ...)
  local server <close> = pp.Server(2)
  return server:submit(f, table.pack(...))()
end

local function fib(n)
  if n < 2 then return n end
  local server = pp.Server()
  local a, b = server:submit(fib, {n - 1}), server:submit(fib, {n - 2})
  return a() + b()
end

local function chain(n)
  if n == 0 then return 0 end
  return 1 + pp.Server():submit(chain, {n - 1})()
end

after_each(child.clean)

describe("pp.Server in a job", function()
  it("is the running server, the same each time", function()
    assert.is_true(inside(function()
      return pp.Server() == pp.Server(7)
        and pp.Server() == pp.Server{ncpus = 3, name = "x"}
    end))
    assert.are.equal(2, inside(function() return pp.Server(7):get_ncpus() end))
  end)

  it("takes no other option than ncpus and name", function()
    for _, option in ipairs{"retries", "timeout", "memory", "restart", "seed"} do
      local ok, message = inside(function(o)
        return pcall(pp.Server, {[o] = 1})
      end, option)
      assert.is_false(ok)
      assert.is_truthy(message:find(
        "bad argument #1 to 'Server' (option '" .. option .. "'", 1, true),
        message)
    end
    local ok, message = inside(function() return pcall(pp.Server, {odd = 1}) end)
    assert.is_false(ok)
    assert.is_truthy(message:find("unknown option 'odd'", 1, true))
  end)

  it("belongs to the job: it cannot be a result, nor can a job of it", function()
    local server <close> = pp.Server(1)
    for _, f in ipairs{
      function() return pp.Server() end,
      function() return pp.Server():submit(id) end,
    } do
      local ok, err = server:submit(f):pcall()
      assert.is_false(ok)
      assert.are.equal("unsendable", err.kind)
      assert.is_truthy(err.message:find("userdata"))
    end
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("has no say in how many workers there are", function()
    local ok, message = inside(function()
      local server = pp.Server()
      return pcall(function() server:set_ncpus(3) end)
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("^spec/nest_spec.lua:%d+: "), message)
  end)

  it("closed, ends only what this job has submitted", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local sibling = server:submit(function(path)
      io.open(path):close()
      return "sibling"
    end, {gate.path})
    local kind, again, submitted = server:submit(function()
      local job
      do
        local mine <close> = pp.Server()
        job = mine:submit(pp.sleep, {600})
      end
      local _, err = job:pcall()
      return err.kind, pp.Server():submit(id, {9})(), job.id
    end)()
    assert.are.equal("destroyed", kind)
    assert.are.equal(9, again)
    assert.are.equal(0, submitted)
    assert.is_false(sibling.finished)
    gate:open()
    assert.are.equal("sibling", sibling())
  end)

  it("takes no jobs once it was closed", function()
    local ok, message = inside(function()
      local server = pp.Server()
      server:destroy()
      return pcall(function() server:submit(id) end)
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("attempt to use a closed server"), message)
  end)
end)

describe("a job in a job", function()
  it("is submitted in each way there is", function()
    local list = inside(function()
      local server = pp.Server()
      local called
      local jobs = {
        server:submit(id, {"a", nil, "c", n = 3}),
        server:submit{id, args = {"named"}, name = "n", group = "g",
          callback = function(x, r) called = x .. r end, callbackargs = {"x"}},
        server:spawn(id, "spawned"),
        pp.Template(server, id):submit("made"),
      }
      server:wait()
      return {select("#", jobs[1]()), select(3, jobs[1]()), jobs[2](),
        jobs[2].name, jobs[2].group, called, jobs[3](), jobs[4](), jobs[4].id,
        jobs[4].status, jobs[4].node, server:pending()}
    end)
    assert.are.same({3, "c", "named", "n", "g", "xnamed", "spawned", "made", 3,
      "done", "local", 0}, list)
  end)

  it("is iterated over as in the script", function()
    local list = inside(function()
      local server = pp.Server()
      local double = function(x) return x * 2 end
      local list = {table.unpack(server:map(double, {1, 2, 3}))}
      local sum = 0
      for _, x in server:imap(double, pp.range(1, 1000)) do sum = sum + x end
      list[#list + 1] = sum
      local count = 0
      for i = 1, 5 do server:submit(id, {i}) end
      for job in server:completed() do count = count + job() end
      list[#list + 1] = count
      for i = 1, 5 do server:submit(id, {i}) end
      server:pop()
      list[#list + 1] = #server:drain(600)
      list[#list + 1] = server:first{server:submit(id, {42}),
        server:submit(pp.sleep, {600})}
      return list
    end)
    assert.are.same({2, 4, 6, 1001000, 15, 4, 42}, list)
  end)

  it("calls back in the job's waiting calls", function()
    local before, after = inside(function()
      local server, n = pp.Server(), 0
      local job = server:submit{id, callback = function() n = n + 1 end}
      while not job.finished do end -- luacheck: ignore 542
      local before = n
      pp.sleep(0)
      return before, n
    end)
    assert.are.equal(0, before)
    assert.are.equal(1, after)
  end)

  it("whose callback fails raises that from the waiting call", function()
    local server <close> = pp.Server(2)
    local ok, message, result = server:submit(function()
      local job = pp.Server():submit{id, args = {3},
        callback = function() error("no!", 0) end}
      local ok, message = pcall(job)
      return ok, message, job()
    end)()
    assert.is_false(ok)
    assert.are.equal("no!", message)
    assert.are.equal(3, result)
    local fine, err = server:submit(function()
      local mine = pp.Server()
      mine:submit{id, callback = function() error("no!", 0) end}
      mine:wait()
    end):pcall()
    assert.is_false(fine)
    assert.are.equal("no!", err.message)
  end)

  it("is waited for by group and with a timeout", function()
    local gate = child.gate()
    assert.are.same({true, false, false, true, true}, inside(function(path)
      local server = pp.Server()
      server:submit{function(p) io.open(p):close() end, args = {path},
        group = "slow"}
      server:submit{id, group = "quick"}
      local list = {server:wait("quick"), server:wait("slow", 0.01),
        server:wait(0)}
      local open <close> = io.open(path, "r+") -- luacheck: ignore 211
      list[4], list[5] = server:wait("slow"), server:wait()
      return list
    end, gate.path))
  end)

  it("can be asked what has become of it, and cancelled", function()
    local server <close> = pp.Server(1)
    local list = server:submit(function()
      local mine = pp.Server()
      local a, b = mine:submit(pp.sleep, {600}), mine:submit(pp.sleep, {600})
      while a.status ~= "running" do mine:wait(0.01) end
      local list = {a.status, b.status, mine:pending(), a:cancel(), b:cancel(),
        a:cancel(), mine:pending()}
      for _, job in ipairs{a, b} do
        local _, err = job:pcall()
        list[#list + 1] = err.kind
      end
      return list
    end)()
    assert.are.same({"running", "queued", 2, true, true, false, 0, "cancelled",
      "cancelled"}, list)
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("is spared by cancel_all if it has begun; so are other jobs'", function()
    local server <close> = pp.Server(1)
    local began, gate = name(), child.gate()
    local job = server:submit(function(notes, path)
      local mine = pp.Server()
      local function pass(n, p)
        note(n, "begun")
        io.open(p):close()
        return true
      end
      local list = {}
      for i = 1, 10 do list[i] = mine:submit(pass, {notes, path}) end
      while #lines(notes) == 0 do mine:wait(0.01) end
      local cancelled = mine:cancel_all()
      local open <close> = io.open(path, "r+") -- luacheck: ignore 211
      local left = 0
      for i = 1, 10 do
        if list[i]:pcall() then left = left + 1 end
      end
      return cancelled, left
    end, {began, gate.path})
    local cancelled, left = job()
    assert.are.equal(9, cancelled)
    assert.are.equal(1, left)
  end)

  it("is no concern of the script's cancel_all or pending", function()
    local server <close> = pp.Server(1)
    local began, gate = name(), child.gate()
    local job = server:submit(function(notes, path)
      local mine = pp.Server()
      local list = {}
      for i = 1, 5 do
        list[i] = mine:submit(function(n, p, x)
          note(n, x)
          io.open(p):close()
          return x
        end, {notes, path, i})
      end
      local sum = 0
      for i = 1, 5 do sum = sum + list[i]() end
      return sum
    end, {began, gate.path})
    assert.are.equal(1, wait_for(began, 1))
    assert.are.equal(1, server:pending())
    local other = server:submit(id)
    assert.are.equal(2, server:pending())
    assert.are.equal(1, server:cancel_all())
    gate:open()
    assert.are.equal(15, job())
    assert.is_false((other:pcall()))
    assert.are.equal(0, server:pending())
  end)

  it("goes by priority", function()
    local server <close> = pp.Server(1)
    local path = name()
    server:submit(function(p)
      local mine = pp.Server()
      for i = 1, 5 do mine:submit{note, args = {p, i}, priority = i} end
      mine:wait()
    end, {path})()
    assert.are.same({"5", "4", "3", "2", "1"}, lines(path))
  end)

  it("is numbered by the job that submits it, from 0", function()
    assert.are.same({0, 1, 0}, inside(function()
      local server = pp.Server()
      local function number() return pp.job.id end
      return {server:spawn(number)(), server:spawn(number)(),
        server:spawn(function() return pp.Server():spawn(number)() end)()}
    end))
  end)

  it("may be kept in the job's globals, and is gone with it", function()
    local server <close> = pp.Server(1)
    assert.are.equal(6, server:submit(function()
      kids = {} -- luacheck: ignore 111 112
      for i = 1, 3 do
        kids[i] = pp.Server():submit(id, {i}) -- luacheck: ignore 112 113
      end
      collectgarbage()
      return kids[1]() + kids[2]() + kids[3]() -- luacheck: ignore 113
    end)())
    assert.is_nil(server:submit(function()
      return _G["kids"]
    end)())
  end)

  it("can be submitted and waited for in a coroutine", function()
    assert.are.equal(3, inside(function()
      local step = coroutine.wrap(function()
        local server = pp.Server()
        coroutine.yield(server:submit(id, {1})())
        return server:submit(id, {2})()
      end)
      return step() + step()
    end))
  end)

  it("carries large arguments and results", function()
    assert.are.equal((64 << 20) + 1, inside(function()
      local text = ("x"):rep(64 << 20)
      return #pp.Server():submit(function(t) return t .. "y" end, {text})()
    end))
    assert.are.equal(16 << 20, #inside(function()
      return pp.Server():submit(function()
        return pp.Server():submit(function() return ("x"):rep(16 << 20) end)()
      end)()
    end))
  end)

  it("is one of many", function()
    assert.are.equal(200010000, inside(function()
      local server, jobs, sum = pp.Server(), {}, 0
      for i = 1, 20000 do jobs[i] = server:submit(id, {i}) end
      for i = 1, #jobs do sum = sum + jobs[i]() end
      return sum
    end))
    assert.are.equal(5000050000, inside(function()
      local sum = 0
      for _, x in ipairs(pp.Server():map(id, pp.range(1, 100000))) do
        sum = sum + x
      end
      return sum
    end))
  end)

  it("runs among the random numbers of its parent's seed", function()
    local function numbers(depth)
      local list = {math.random(1 << 40)}
      if depth > 0 then
        local server = pp.Server()
        local a, b = server:submit(numbers, {depth - 1}),
          server:submit(numbers, {depth - 1})
        local function add(t) table.move(t, 1, #t, #list + 1, list) end
        add(a())
        add(b())
        add(server:map(function() return math.random(1 << 40) end,
          pp.range(1, 20)))
        add{server:submit(function() return math.random(1 << 40) end)()}
        list[#list + 1] = math.random(1 << 40)
      end
      return list
    end
    local all = {}
    for i, ncpus in ipairs{1, 2, 5} do
      local server <close> = pp.Server{ncpus = ncpus, seed = 11}
      all[i] = server:submit(numbers, {5})()
    end
    assert.are.same(all[1], all[2])
    assert.are.same(all[1], all[3])
    local seen = {}
    for _, x in ipairs(all[1]) do
      assert.is_nil(seen[x])
      seen[x] = true
    end
  end)

  it("has other numbers than one submitted before the handle was closed",
    function()
    local server <close> = pp.Server{ncpus = 1, seed = 5}
    local a, b = server:submit(function()
      local function number() return math.random(1 << 40) end
      local first
      do
        local mine <close> = pp.Server()
        first = mine:submit(number)()
      end
      return first, pp.Server():submit(number)()
    end)()
    assert.are_not.equal(a, b)
  end)

  it("writes for itself", function()
    local server <close> = pp.Server{ncpus = 1, output = "job"}
    local job = server:submit(function()
      print("before")
      local mine = pp.Server():submit(function()
        print("child")
        io.stderr:write("error\n")
      end)
      mine()
      print("after")
      return mine.output, mine.errors
    end)
    local output, errors = job()
    assert.are.equal("child\n", output)
    assert.are.equal("error\n", errors)
    assert.are.equal("before\nafter\n", job.output)
    assert.are.equal("", job.errors)
  end)

  it("writes lines that are there when its parent goes on", function()
    for mode, mark in pairs{line = "", prefix = "%[local/%d+%] "} do
      local r = child.run([[
        local pp = require "pp"
        local server = pp.Server{ncpus = 2, output = "]] .. mode .. [["}
        server:submit(function()
          print("one")
          pp.Server():submit(function() io.write("two") end)()
          print("three")
        end)()
        io.write("four\n")
      ]])
      local plain, n = r.out:gsub("[^\n]+", function(line)
        local text = line:gsub("^" .. mark, "")
        return text
      end)
      assert.are.equal(4, n)
      assert.is_truthy(plain:find("two\n.*three\nfour\n$"), r.out)
      assert.is_truthy(plain:find("one\n.*three\n"), r.out)
      assert.is_truthy(r.out:find(mark .. "two\n"), r.out)
      assert.are.equal("", r.err)
    end
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server{ncpus = 2, output = "none"}
      server:submit(function()
        pp.Server():submit(function() print("two") end)()
      end)()
    ]])
    assert.are.equal("", r.out)
  end)

  it("counts in the statistics, those of the job too", function()
    local server <close> = pp.Server(2)
    local own = server:submit(function()
      local mine = pp.Server()
      for i = 1, 9 do mine:submit(id, {i}) end
      mine:wait()
      return mine:get_stats()["local"].njobs
    end)()
    assert.are.equal(9, own)
    assert.are.equal(10, server:get_stats()["local"].njobs)
    local file <close> = assert(io.tmpfile())
    server:print_stats(file)
    file:seek("set")
    assert.is_truthy(file:read("a"):find("\n *10 |"))
  end)
end)

describe("waiting in a job", function()
  it("does not hold the job's place", function()
    local server <close> = pp.Server(1)
    assert.are.equal(5, server:submit(function()
      return pp.Server():submit(id, {5})()
    end)())
    -- nor does that of one job hold up another
    local gate = child.gate()
    local job = server:submit(function(path)
      return pp.Server():submit(function(p)
        for i = 1, 3 do pp.Server():submit(id, {i}) end
        pp.Server():wait()
        return p
      end, {path})()
    end, {gate.path})
    local other = server:submit(function() return "other" end)
    assert.are.equal("other", other())
    assert.are.equal(gate.path, job())
  end)

  it("for time alone holds it", function()
    local server <close> = pp.Server(1)
    local slept, child_at = server:submit(function()
      local job = pp.Server():submit(pp.time)
      pp.sleep(0.1)
      return pp.time(), job()
    end)()
    assert.is_true(slept <= child_at)
  end)

  it("never deadlocks in a recursion on few workers", function()
    for ncpus = 1, 3 do
      local server <close> = pp.Server(ncpus)
      assert.are.equal(610, server:submit(fib, {15})())
    end
  end)

  it("takes a recursion by submit as far as fib(22)", function()
    if child.sanitized() then return end
    local server <close> = pp.Server(2)
    assert.are.equal(17711, server:submit(fib, {22})())
  end)

  it("never deadlocks in a chain of 3000 on one worker", function()
    local server <close> = pp.Server(1)
    local n = child.sanitized() and 300 or 3000
    assert.are.equal(n, server:submit(chain, {n})())
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("never deadlocks where workers are replaced after each job", function()
    for ncpus = 1, 2 do
      local server <close> = pp.Server{ncpus = ncpus, restart = 1}
      assert.are.equal(34, server:submit(fib, {9})())
      assert.are.equal(60, server:submit(chain, {60})())
    end
  end)

  it("never deadlocks when the number of workers changes", function()
    local server <close> = pp.Server(2)
    local job, n = server:submit(fib, {15}), 0
    while not job.finished do
      n = n + 1
      server:set_ncpus(1 + n % 4)
      pp.sleep(0.003)
    end
    assert.are.equal(610, job())
    server:set_ncpus(1)
    assert.are.equal(55, server:submit(fib, {10})())
  end)

  it("never deadlocks when arguments are still on their way", function()
    local function length(x) return #x end
    local function lengths(x)
      local server, jobs, sum = pp.Server(), {}, 0
      for i = 1, 8 do jobs[i] = server:submit(length, {x}) end
      for i = 1, 8 do sum = sum + jobs[i]() end
      return sum
    end
    local text = ("x"):rep(300000)
    for ncpus = 1, 2 do
      local server <close> = pp.Server(ncpus)
      for _ = 1, child.sanitized() and 5 or 30 do
        local jobs = {}
        for i = 1, 8 do jobs[i] = server:submit(lengths, {text}) end
        for i = 1, 8 do assert.are.equal(2400000, jobs[i]()) end
      end
    end
  end)

  it("takes a bounded number of workers, which end when not needed", function()
    local path = name()
    local function tree(depth)
      note(path, pid())
      if depth == 0 then return 1 end
      local server = pp.Server()
      local a, b = server:submit(tree, {depth - 1}),
        server:submit(tree, {depth - 1})
      return a() + b()
    end
    for ncpus = 1, 2 do
      local server <close> = pp.Server(ncpus)
      os.remove(path)
      assert.are.equal(256, server:submit(tree, {8})())
      local seen, n = {}, 0
      for _, p in ipairs(lines(path)) do
        if not seen[p] then n = n + 1 end
        seen[p] = true
      end
      assert.is_true(n <= ncpus + 4 * ncpus + 16, n)
      local function alive()
        local count = 0
        for p in pairs(seen) do
          if child.alive(tonumber(p)) then count = count + 1 end
        end
        return count
      end
      local deadline = pp.time() + child.patience
      while alive() > ncpus and pp.time() < deadline do pp.sleep(0.05) end
      assert.is_true(alive() <= ncpus, alive())
      assert.are.equal(1, server:submit(id, {1})())
    end
  end)

  it("runs jobs in the midst of others without their noticing", function()
    local server <close> = pp.Server{ncpus = 1, seed = 3, output = "none"}
    local function deep(n)
      local a = math.random(1 << 40)
      mark = n -- luacheck: ignore 111
      io.output(io.stderr)
      package.loaded["mark" .. n] = n
      local sum = n > 0 and pp.Server():submit(deep, {n - 1})() or 0
      if mark ~= n or io.output() ~= io.stderr or pp.job.id ~= 0 then -- luacheck: ignore 113
        error("level " .. n .. " was disturbed")
      end
      if math.random(1 << 40) == a then error("the same number again") end
      return sum + 1
    end
    assert.are.equal(81, server:submit(deep, {80})())
  end)
end)

describe("the time of a job", function()
  it("does not count while it waits for others", function()
    local server <close> = pp.Server(2)
    local job = server:submit{function()
      local mine = pp.Server()
      mine:submit(pp.sleep, {0.8})()
      mine:submit(pp.sleep, {0.8})()
      return "in time"
    end, timeout = 0.5}
    assert.are.equal("in time", job())
    assert.is_true(job.time.run < 0.8, job.time.run)
  end)

  it("counts before and after that", function()
    local server <close> = pp.Server(2)
    local ok, err = server:submit{function()
      pp.Server():submit(pp.sleep, {0.2})()
      while true do end
    end, timeout = 0.3}:pcall()
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
  end)

  it("is limited by the server's timeout too, and by its own", function()
    local server <close> = pp.Server{ncpus = 2, timeout = 0.2}
    local kind, long = server:submit(function()
      local mine = pp.Server()
      local _, err = mine:submit(function() while true do end end):pcall()
      return err.kind, mine:submit{pp.sleep, args = {0.4}, timeout = 60}:wait()
    end)()
    assert.are.equal("timeout", kind)
    assert.is_true(long)
  end)
end)

describe("children end with their parent", function()
  local function endless(path)
    local closing <close> = guard(path, "closed") -- luacheck: ignore 211
    note(path, "in")
    pp.sleep(600)
  end

  it("that returns", function()
    local server <close> = pp.Server(2)
    local path = name()
    assert.are.equal("done", server:submit(function()
      local mine = pp.Server()
      mine:submit(endless, {path})
      for _ = 1, 5 do mine:submit(note, {path, "never"}) end
      while #lines(path) == 0 do mine:wait(0.01) end
      mine:cancel_all()
      for _ = 1, 5 do mine:submit{endless, args = {path}, priority = -1} end
      return "done"
    end)())
    server:wait()
    assert.is_true(wait_for(path, 2) >= 2)
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("that fails", function()
    local server <close> = pp.Server(2)
    local path = name()
    local ok, err = server:submit(function()
      local mine = pp.Server()
      mine:submit(endless, {path})
      while #lines(path) == 0 do mine:wait(0.01) end
      error("so it is", 0)
    end):pcall()
    assert.is_false(ok)
    assert.are.equal("so it is", err.message)
    assert.are.equal(2, wait_for(path, 2))
  end)

  it("that is cancelled", function()
    local server <close> = pp.Server(2)
    local path = name()
    local job = server:submit(function()
      local closing <close> = guard(path, "parent") -- luacheck: ignore 211
      pp.Server():submit(endless, {path})()
    end)
    assert.are.equal(1, wait_for(path, 1))
    assert.is_true(job:cancel())
    assert.are.equal(3, wait_for(path, 3))
    local _, err = job:pcall()
    assert.are.equal("cancelled", err.kind)
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("that runs out of time", function()
    local server <close> = pp.Server(2)
    local path = name()
    local ok, err = server:submit{function()
      pp.Server():submit(endless, {path})
      pp.sleep(600)
    end, timeout = 0.5}:pcall()
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    assert.are.equal(2, wait_for(path, 2))
  end)

  it("however deep, also where they run in the midst of others", function()
    for _, depth in ipairs{5, 60} do
      local server <close> = pp.Server(1)
      local path = name()
      local function down(n)
        local closing <close> = guard(path, "closed " .. n) -- luacheck: ignore 211
        if n == 0 then
          note(path, "bottom")
          pp.sleep(600)
        end
        return pp.Server():submit(down, {n - 1})()
      end
      local job = server:submit(down, {depth})
      assert.are.equal(1, wait_for(path, 1))
      assert.is_true(job:cancel())
      local _, err = job:pcall()
      assert.are.equal("cancelled", err.kind)
      assert.are.equal(depth + 2, wait_for(path, depth + 2))
      assert.are.equal(1, server:submit(id, {1})())
    end
  end)

  it("whose worker is killed; it runs again, with its children", function()
    local server <close> = pp.Server(2)
    local path, gate = name(), child.gate()
    local job = server:submit(function()
      note(path, "parent " .. pid())
      local mine, jobs, sum = pp.Server(), {}, 0
      for i = 1, 3 do
        jobs[i] = mine:submit(function(attempt)
          note(path, ("child %d %d"):format(attempt, i))
          if attempt == 1 then pp.sleep(600) end
          io.open(gate.path):close()
          return i
        end, {pp.job.attempt})
      end
      for i = 1, 3 do sum = sum + jobs[i]() end
      return sum
    end)
    assert.is_true(wait_for(path, 3) >= 3)
    child.kill("KILL", tonumber(lines(path)[1]:match("parent (%d+)")))
    gate:open()
    assert.are.equal(6, job())
    assert.are.equal(2, job.attempts)
    local again = {}
    for _, line in ipairs(lines(path)) do
      if line:find("^child 2") then again[#again + 1] = line end
    end
    table.sort(again)
    assert.are.same({"child 2 1", "child 2 2", "child 2 3"}, again)
  end)

  it("and with the script, whatever ends that", function()
    local text = [[
      local pp = require "pp"
      local server = pp.Server(2)
      local path = arg[1]
      local function fork(n)
        if n == 0 then
          local f = io.open(path, "a")
          f:write("x\n")
          f:close()
          os.execute("setsid sleep 600 & exec sleep 600")
        end
        local mine = pp.Server()
        local a, b = mine:submit(fork, {n - 1}), mine:submit(fork, {n - 1})
        a() b()
      end
      local job = server:submit(fork, {3})
      if arg[2] == "end" then
        local f
        repeat
          pp.sleep(0.01)
          f = io.open(path)
        until f
        return
      end
      job()
    ]]
    for _, how in ipairs{"end", "INT", "TERM", "KILL"} do
      local path = name()
      local process = child.start(text, {args = {path, how}})
      assert.is_truthy(child.eventually(function() return #lines(path) > 0 end))
      if how ~= "end" then process:kill(how) end
      local r = child.finish(process)
      assert.are.same({}, child.left(r.tag))
      if how == "end" then
        assert.is_truthy(r.err:find("1 unfinished job dropped", 1, true), r.err)
        assert.are.equal(0, r.status)
      end
    end
  end)
end)

describe("a job in a job that fails", function()
  it("raises its error, which says where it came from, over all levels",
    function()
    local server <close> = pp.Server(2)
    local ok, err = server:submit(function()
      return pp.Server():submit(function()
        return pp.Server():submit(boom, {{code = 5}})()
      end)()
    end):pcall()
    assert.is_false(ok)
    for _ = 1, 2 do
      assert.are.equal("error", err.kind)
      assert.is_true(pp.is_error(err.cause))
      assert.are.equal(err.cause, err.value)
      assert.are.equal("local", err.node)
      assert.are.equal("integer", math.type(err.worker))
      assert.are.equal(0, err.job)
      err = err.cause
    end
    assert.are.equal("error", err.kind)
    assert.is_nil(err.cause)
    assert.are.same({code = 5}, err.value)
  end)

  it("is told of with file and line, by tostring too", function()
    local server <close> = pp.Server(2)
    local line = debug.getinfo(1, "l").currentline + 2
    local function deepest()
      error("no luck")
    end
    local _, err = server:submit(function()
      return pp.Server():submit(function()
        return pp.Server():submit(deepest)()
      end)()
    end):pcall()
    local where = "spec/nest_spec.lua:" .. line .. ": "
    assert.are.equal(where .. "no luck", err.message)
    assert.are.equal(where .. "no luck", err.cause.cause.value)
    local text = tostring(err)
    assert.are.equal(1, text:find(where .. "no luck", 1, true))
    assert.is_truthy(text:find(where .. "in ", 1, true), text)
    assert.is_truthy(text:find("spec/nest_spec.lua:" .. line + 3 .. ": in ", 1,
      true), text)
  end)

  it("can be caught; the job goes on", function()
    local server <close> = pp.Server(1)
    local caught, message, after = server:submit(function()
      local mine = pp.Server()
      local job = mine:submit(boom, {"bang"})
      local ok, err = pcall(job)
      local same = select(2, job:pcall()) == err
      return not ok and same, err.message, mine:submit(id, {"went on"})()
    end)()
    assert.is_true(caught)
    assert.are.equal("bang", message)
    assert.are.equal("went on", after)
  end)

  it("has an error that can be a result", function()
    local server <close> = pp.Server(1)
    local err = server:submit(function()
      return select(2, pp.Server():submit(boom, {"bang"}):pcall())
    end)()
    assert.is_true(pp.is_error(err))
    assert.are.equal("bang", err.message)
  end)

  it("is run again as retries and retry_errors say", function()
    local server <close> = pp.Server(2)
    local path, lost = name(), name()
    local got, attempts, kind, message = server:submit(function()
      local mine = pp.Server()
      local job = mine:submit{function()
        note(path, "x")
        if #lines(path) < 3 then error("again") end
        return #lines(path)
      end, retry_errors = 5}
      local gone = mine:submit{function()
        note(lost, "x")
        os.exit(3)
      end, retries = 1}
      local _, err = gone:pcall()
      return job(), job.attempts, err.kind, err.message
    end)()
    assert.are.equal(3, got)
    assert.are.equal(3, attempts)
    assert.are.equal("lost", kind)
    assert.is_truthy(message:find("exited with status 3", 1, true), message)
    assert.are.equal(2, #lines(lost))
  end)

  it("is run again when its worker is killed, and its parent not", function()
    local server <close> = pp.Server(2)
    local sum, attempt = server:submit(function()
      local mine, jobs, sum = pp.Server(), {}, 0
      for i = 1, 20 do
        jobs[i] = mine:submit(function()
          if pp.job.attempt == 1 then child.kill("KILL", pid()) end
          return i
        end)
      end
      for i = 1, 20 do sum = sum + jobs[i]() end
      return sum, pp.job.attempt
    end)()
    assert.are.equal(210, sum)
    assert.are.equal(1, attempt)
  end)

  it("over its memory does so alone", function()
    local server <close> = pp.Server{ncpus = 2, memory = 20 << 20}
    local kind, fits = server:submit(function()
      local mine = pp.Server()
      local function fill(n)
        local list = {}
        for i = 1, n do list[i] = i end
        return #list
      end
      local _, err = mine:submit(fill, {1e8}):pcall()
      return err.kind, mine:submit{fill, args = {4e6}, memory = 1 << 30}()
    end)()
    assert.are.equal("memory", kind)
    assert.are.equal(4000000, fits)
  end)

  it("and that nobody asked is reported by its job, unless forgotten", function()
    local r = child.run([[
      local pp = require "pp"
      pp.Server(1):submit(function()
        local mine = pp.Server()
        mine:submit(function() error("unseen", 0) end)
        mine:submit{function() error("gone", 0) end, forget = true}
        mine:wait()
      end)()
    ]])
    assert.are.equal(1, r.status)
    assert.is_truthy(r.err:find("nobody asked: unseen", 1, true), r.err)
    assert.is_nil(r.err:find("gone", 1, true))
  end)
end)

describe("chaos", function()
  it("loses no job of a recursion whose workers are killed and stopped",
    function()
    local directory = child.gate().path .. ".pids"
    assert(os.execute("mkdir " .. directory))
    local function tree(n)
      io.open(directory .. "/" .. pid(), "w"):close()
      if n < 2 then
        pp.sleep(0.002)
        return n
      end
      local mine = pp.Server()
      local a = mine:submit{tree, args = {n - 1}, retries = 1000}
      local b = mine:submit{tree, args = {n - 2}, retries = 1000}
      return a() + b()
    end
    for round = 1, 2 do
      local server <close> = pp.Server{ncpus = round, retries = 1000}
      local job, until_ = server:submit(tree, {11}), pp.time() + 1
      while not job:wait(0.02) do
        local pids = {}
        for p in child.output_of("ls " .. directory):gmatch("%d+") do
          pids[#pids + 1] = tonumber(p)
        end
        if #pids > 0 and pp.time() < until_ then
          local p = pids[math.random(#pids)]
          if math.random(2) == 1 then
            child.kill("STOP", p)
            pp.sleep(0.01)
            child.kill("CONT", p)
          else
            child.kill("KILL", p)
            os.remove(directory .. "/" .. p)
          end
        end
      end
      assert.are.equal(89, job())
      os.execute("rm -f " .. directory .. "/*")
    end
  end)

  it("loses none of a deep one either, with cancels and changes of size",
    function()
    local directory = child.gate().path .. ".pids"
    assert(os.execute("mkdir " .. directory))
    local function down(n, x)
      io.open(directory .. "/" .. pid(), "w"):close()
      if n == 0 then return 1 end
      local mine, sum, kind = pp.Server(), 1, math.random(3)
      local function deeper()
        return mine:submit{down, args = {n - 1, x}, retries = 1000}
      end
      if kind == 1 then
        local a, b = deeper(), deeper()
        if math.random(2) == 1 then b:cancel() end
        sum = sum + a()
      elseif kind == 2 then
        local list = mine:map(function(i)
          if i > 1 then return 1 end
          return pp.Server():submit{down, args = {math.max(n - 2, 0), x},
            retries = 1000}()
        end, {1, 2, 3}, {retries = 1000})
        for i = 1, 3 do sum = sum + list[i] end
      else
        for i in mine:imap(id, pp.range(1, 100), {retries = 1000}) do
          if i > 5 then break end
        end
        sum = sum + deeper()()
      end
      return sum
    end
    for round = 1, 3 do
      local server <close> = pp.Server{ncpus = round, retries = 1000}
      local jobs, until_ = {}, pp.time() + 1
      local text = ("x"):rep(round == 2 and 200000 or 10)
      for i = 1, 5 do jobs[i] = server:submit(down, {30, text}) end
      local deadline = pp.time() + 4 * child.patience
      while not server:wait(0.01) and pp.time() < deadline do
        local pids = {}
        for p in child.output_of("ls " .. directory):gmatch("%d+") do
          pids[#pids + 1] = tonumber(p)
        end
        if #pids > 0 and pp.time() < until_ then
          local p, what = pids[math.random(#pids)], math.random(3)
          if what == 1 then
            child.kill("KILL", p)
            os.remove(directory .. "/" .. p)
          elseif what == 2 then
            server:set_ncpus(math.random(4))
          elseif math.random(5) == 1 then
            jobs[math.random(5)]:cancel()
          end
        end
      end
      assert.are.equal(0, server:pending())
      for i = 1, 5 do
        local ok, err = jobs[i]:pcall()
        assert.is_true(ok or err.kind == "cancelled", tostring(err))
      end
      os.execute("rm -f " .. directory .. "/*")
    end
  end)
end)

describe("a server handle in a job", function()
  local function square(x) return x * x end

  it("is the running server, as capture, argument and global", function()
    local server <close> = pp.Server(1)
    local function sum(n)
      local total = 0
      for i = 1, n do total = total + server:submit(square, {i})() end
      return total
    end
    assert.are.equal(30, server:submit(sum, {4})())
    local function third(s) return s:map(square, {1, 2, 3})[3] end
    assert.are.equal(9, server:submit(third, {server})())
    assert.are.equal(25, server:submit{function() return there:spawn(square, 5)() end, -- luacheck: ignore
      globals = {there = server}}())
    assert.are.equal("pp.Server (running)", server:submit(tostring, {server})())
  end)

  it("is that of the job at work, whatever server it was and however deep", function()
    local other <close> = pp.Server(2)
    local server <close> = pp.Server(2)
    local function count(n)
      if n < 2 then return n end
      local a, b = other:submit(count, {n - 1}), other:submit(count, {n - 2})
      return a() + b()
    end
    assert.are.equal(55, server:submit(count, {10})())
    assert.are.equal(177, server:get_stats()["local"].njobs)
    assert.are.equal(0, other:get_stats()["local"].njobs)
  end)

  it("has callbacks, groups and closing of its own in each job", function()
    local server <close> = pp.Server(2)
    local function work(n)
      local got = {}
      for i = 1, n do
        server:submit{square, args = {i}, group = "g", callback = function(v) got[#got + 1] = v end}
      end
      if not server:wait("g", 30) then error "not over" end
      local left = server:pending()
      server:destroy()
      table.sort(got)
      return left, table.concat(got, " "), server:submit(square, {7})()
    end
    for _ = 1, 3 do
      assert.are.same({0, "1 4 9", 49}, {server:submit(work, {3})()})
    end
    assert.are.equal(4, server:submit(square, {2})())
  end)
end)

describe("a job of a job that fails and nobody asks", function()
  it("is reported once, as that job's, and makes the exit status 1", function()
    for _, ncpus in ipairs{0, 1} do
      local r = child.run([[
        local pp = require "pp"
        local server = pp.Server(tonumber(arg[1]))
        server:spawn(type, 1)()
        server:spawn(function()
          local s = pp.Server()
          s:spawn(error, "not looked at")
          s:wait()
        end)()
      ]], {args = {tostring(ncpus)}})
      assert.are.equal(1, r.status)
      local _, n = r.err:gsub("job 0 of job 1 failed and nobody asked: not looked at", "")
      assert.are.equal(1, n, r.err)
    end
  end)
end)

describe("where no further worker can be started", function()
  it("waiting jobs run what they wait for", function()
    for _, limit in ipairs{24, 40, 60} do
      local r = child.run([[
        local pp = require "pp"
        local server = pp.Server(2)
        local function down(n)
          if n == 0 then return 0 end
          return pp.Server():spawn(down, n - 1)() + 1
        end
        local function fib(n)
          if n < 2 then return n end
          local a, b = pp.Server():spawn(fib, n - 1), pp.Server():spawn(fib, n - 2)
          return a() + b()
        end
        local a, b = server:spawn(down, 60), server:spawn(fib, 9)
        print(a(), b())
      ]], {setup = "ulimit -n " .. limit})
      assert.are.equal("60\t34\n", r.out, limit .. ": " .. r.err)
    end
  end)
end)
