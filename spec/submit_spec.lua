-- SPDX-License-Identifier: MIT
-- Submitting jobs: the forms, their arguments and mistakes, callbacks, groups.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end
local function count(...) return select("#", ...) end
local function pass(path, ...)
  io.open(path):close()
  return ...
end
local function fail(message) error(message, 0) end

local function here() return debug.getinfo(2, "Sl") end
local function at(info, offset)
  return info.short_src .. ":" .. info.currentline + (offset or 1) .. ": "
end

--- The error of a call, as text.
local function raised(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  return tostring(err)
end

local function ended(job) return function() return job.finished end end

after_each(child.clean)

describe("submit", function()
  it("takes a function and a list of its arguments", function()
    local server <close> = pp.Server(1)
    assert.are.equal(42, server:submit(function(a, b) return a * b end, {6, 7})())
  end)

  it("takes a function alone", function()
    local server <close> = pp.Server(1)
    assert.are.equal(0, server:submit(count)())
    assert.are.equal(0, server:submit(count, nil)())
  end)

  it("takes everything by parallelpython's positions", function()
    local server <close> = pp.Server(1)
    local got
    local job = server:submit(function(x) return load("return double(...) + base")(x) end,
      {4}, {double = function(x) return 2 * x end}, {"string"},
      function(...) got = table.pack(...) end, {"first", nil, n = 2}, "odd ones",
      {base = 100})
    assert.is_true(server:wait("odd ones"))
    assert.are.equal(108, job())
    assert.are.equal("odd ones", job.group)
    assert.are.same({"first", nil, 108, n = 3}, got)
  end)

  it("takes the same by names in one table", function()
    local server <close> = pp.Server(1)
    local got
    local job = server:submit{
      function(x) return load("return double(...) + base")(x) end,
      args = {4}, deps = {double = function(x) return 2 * x end},
      modules = {"string"}, callback = function(...) got = table.pack(...) end,
      callbackargs = {"first"}, group = "odd ones", globals = {base = 100},
      retries = 0, name = "doubling",
    }
    assert.is_true(server:wait("odd ones"))
    assert.are.equal(108, job())
    assert.are.equal("odd ones", job.group)
    assert.are.equal("doubling", job.name)
    assert.are.same({"first", 108, n = 2}, got)
  end)

  it("passes as many arguments as args.n says, nils too", function()
    local server <close> = pp.Server(1)
    assert.are.equal(3, server:submit(count, {nil, 2, nil, n = 3})())
    assert.are.equal(2, server:submit{count, args = {n = 2}}())
    assert.are.equal(1, server:submit(count, {1, 2, 3, n = 1})())
    assert.are.same({nil, 2, nil, n = 3},
      table.pack(server:submit(id, {nil, 2, nil, n = 3})()))
  end)

  it("passes #args arguments when there is no n", function()
    local server <close> = pp.Server(1)
    assert.are.equal(3, server:submit(count, {1, 2, 3})())
    assert.are.equal(0, server:submit(count, {})())
    assert.are.equal(0, server:submit(count, {name = 1})())
  end)

  it("takes thousands of arguments and results", function()
    local server <close> = pp.Server(1)
    local args = {}
    for i = 1, 5000 do args[i] = i end
    local back = table.pack(server:submit(id, args)())
    assert.are.equal(5000, back.n)
    assert.are.equal(5000, back[5000])
  end)

  it("does not wait for a worker to be free", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local jobs = {}
    for i = 1, 1000 do jobs[i] = server:submit(pass, {gate.path, i}) end
    assert.is_false(jobs[1].finished)
    gate:open()
    for i = 1, 1000 do assert.are.equal(i, jobs[i]()) end
  end)

  it("takes a copy of the arguments", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local first = server:submit(pass, {gate.path})
    local list = {1, 2, 3}
    local job = server:submit(function(t) return #t end, {list})
    list[4] = 4
    gate:open()
    first()
    assert.are.equal(3, job())
  end)
end)

describe("spawn", function()
  it("runs a function on the arguments that follow it", function()
    local server <close> = pp.Server(1)
    assert.are.equal(42, server:spawn(function(a, b) return a * b end, 6, 7)())
    assert.are.equal(4, server:spawn(count, nil, 2, nil, nil)())
    assert.are.equal(0, server:spawn(count)())
  end)
end)

describe("pp.Template", function()
  it("submits with the arguments one by one", function()
    local server <close> = pp.Server(1)
    local template = pp.Template(server, function(a, b) return a - b end)
    assert.are.equal(3, template:submit(5, 2)())
    assert.are.equal(-1, template:submit(1, 2)())
    assert.are.equal(3, pp.Template(server, count):submit(nil, 1, nil)())
  end)

  it("keeps what submit takes behind the arguments", function()
    local server <close> = pp.Server(1)
    local got = {}
    local template = pp.Template(server,
      function(x) return load("return double(...) + base")(x) end,
      {double = function(x) return 2 * x end}, {"string"},
      function(tag, r) got[#got + 1] = tag .. r end, {"r"}, "templated",
      {base = 1})
    local a, b = template:submit(1), template:submit(2)
    assert.is_true(server:wait("templated"))
    assert.are.equal("templated", a.group)
    assert.are.same({3, 5}, {a(), b()})
    assert.are.same({"r3", "r5"}, got)
  end)
end)

describe("a mistake in a call", function()
  local server
  local function refused(n, what, ...)
    local message = raised(server.submit, server, ...)
    local expected = ("bad argument #%d to 'submit' (%s)"):format(n, what)
    assert.are.equal(expected, message:sub(-#expected))
  end

  it("names the argument, what it must be and what it is", function()
    server = pp.Server(1)
    refused(1, "func must be a function, got nil")
    refused(1, "func must be a function, got string", "sum", {1})
    refused(2, "args must be a table, got string", id, "1")
    refused(2, "args must be a table, got number", id, 1)
    refused(3, "depfuncs must be a table, got function", id, {}, id)
    refused(4, "modules must be a table, got string", id, {}, {}, "math")
    refused(5, "callback must be a function, got string", id, {}, {}, {}, "f")
    refused(6, "callbackargs must be a table, got number", id, {}, {}, {}, id, 1)
    refused(7, "group must be a string, got table", id, {}, {}, {}, id, {}, {})
    refused(8, "globals must be a table, got string", id, {}, {}, {}, id, {},
      "g", "x")
    server:destroy()
  end)

  it("is raised at the caller's line", function()
    server = pp.Server(1)
    local line = here()
    local message = raised(function() server:submit(id, "1") end)
    assert.are.equal(at(line)
      .. "bad argument #2 to 'submit' (args must be a table, got string)",
      message)
    line = here()
    message = raised(function() server:submit{id, args = "1"} end)
    assert.are.equal(at(line), message:sub(1, #at(line)))
    line = here()
    message = raised(function() server:spawn("f", 1) end)
    assert.are.equal(at(line)
      .. "bad argument #1 to 'spawn' (func must be a function, got string)",
      message)
    server:destroy()
  end)

  it("in the table form names the field", function()
    server = pp.Server(1)
    for name, bad in pairs{args = "1", deps = 1, modules = "math",
      callback = "f", callbackargs = 1, group = {}, globals = 1, name = {}} do
      local message = raised(server.submit, server, {id, [name] = bad})
      assert.is_truthy(message:find(name .. " must be ", 1, true), message)
      assert.is_truthy(message:find("got " .. type(bad), 1, true), message)
    end
    assert.is_truthy(raised(server.submit, server, {id, retries = "many"})
      :find("retries must be ", 1, true))
    assert.is_truthy(raised(server.submit, server, {})
      :find("func must be a function, got nil", 1, true))
    server:destroy()
  end)

  it("in the table form may be a name it does not know", function()
    server = pp.Server(1)
    local line = here()
    local message = raised(function() server:submit{id, arguments = {1}} end)
    assert.are.equal(at(line), message:sub(1, #at(line)))
    assert.is_truthy(message:find("'arguments'", 1, true))
    raised(server.submit, server, {id, {1}})
    server:destroy()
  end)

  it("refuses elements of lists that are of the wrong type", function()
    server = pp.Server(1)
    raised(server.submit, server, id, {}, {1})
    raised(server.submit, server, id, {}, {}, {1})
    raised(server.submit, server, id, {}, {double = "no function"})
    raised(server.submit, server, id, {n = -1})
    raised(server.submit, server, id, {n = "two"})
    server:destroy()
  end)

  it("of Template is raised by Template", function()
    server = pp.Server(1)
    local line = here()
    local message = raised(function() pp.Template(server, "f") end)
    assert.are.equal(at(line)
      .. "bad argument #2 to 'Template' (func must be a function, got string)",
      message)
    assert.is_false(pcall(pp.Template, {}, id))
    server:destroy()
  end)

  it("submits nothing", function()
    server = pp.Server(1)
    for _ = 1, 3 do pcall(server.submit, server, id, "1") end
    assert.are.equal(0, server:submit(id).id)
    assert.is_true(server:wait())
    assert.are.equal(1, server:get_stats()["local"].njobs)
    server:destroy()
  end)
end)

describe("a callback #tsan", function()
  it("gets the callbackargs, then the results", function()
    local server <close> = pp.Server(1)
    local got
    local function take(...) got = table.pack(...) end
    server:submit{id, args = {1, nil, 3, nil, n = 4}, callback = take,
      callbackargs = {"a", nil, n = 2}}
    server:wait()
    assert.are.same({"a", nil, 1, nil, 3, nil, n = 6}, got)
    server:submit{id, callback = take}
    server:wait()
    assert.are.equal(0, got.n)
  end)

  it("gets nil and the error of a job that failed", function()
    local server <close> = pp.Server(1)
    local got
    local job = server:submit{fail, args = {"no"}, callbackargs = {"a"},
      callback = function(...) got = table.pack(...) end}
    server:wait()
    assert.are.equal(3, got.n)
    assert.are.equal("a", got[1])
    assert.is_nil(got[2])
    assert.is_true(pp.is_error(got[3]))
    local _, err = job:pcall()
    assert.are.equal(err, got[3])
  end)

  it("has had its turn when wait returns true", function()
    local server <close> = pp.Server(2)
    local sum = 0
    for i = 1, 500 do
      server:submit{id, args = {i}, callback = function(r) sum = sum + r end}
    end
    assert.is_true(server:wait())
    assert.are.equal(500 * 501 // 2, sum)
  end)

  it("runs in the order in which the jobs end", function()
    local order = {}
    local function note(r) order[#order + 1] = r end
    do
      local server <close> = pp.Server(1)
      for i = 1, 20 do server:submit{id, args = {i}, callback = note} end
      assert.is_true(server:wait())
      for i = 1, 20 do assert.are.equal(i, order[i]) end
    end
    local gate = child.gate()
    local server <close> = pp.Server(2)
    order = {}
    local slow = server:submit{pass, args = {gate.path, "slow"}, callback = note}
    for i = 1, 20 do
      server:submit{id, args = {i}, callback = note, group = "quick"}
    end
    assert.is_true(server:wait("quick"))
    assert.are.equal(20, #order)
    gate:open()
    assert.are.equal("slow", slow())
    assert.is_true(server:wait())
    assert.are.equal("slow", order[21])
  end)

  it("runs in the script's own interpreter", function()
    local server <close> = pp.Server(1)
    local seen
    local token = {}
    server:submit{id, callbackargs = {token, child.pid()},
      callback = function(t, pid) seen = t == token and pid == child.pid() end}
    server:wait()
    assert.is_true(seen)
  end)

  it("runs only in waiting calls: not in submit, not in reads of fields",
    function()
      local server <close> = pp.Server(1)
      local ran = 0
      local job = server:submit{id, callback = function() ran = ran + 1 end}
      assert.is_truthy(child.eventually(ended(job)))
      assert.are.equal("done", job.status)
      for _ = 1, 100 do server:submit(id) end
      server:get_stats()
      server:get_ncpus()
      assert.are.equal(0, ran)
      server:wait(0)
      assert.are.equal(1, ran)
    end)

  it("runs in each kind of waiting call, timeouts of 0 included", function()
    local server <close> = pp.Server(1)
    local plain = server:submit(id)
    local waits = {
      function() plain() end,
      function() plain:wait() end,
      function() plain:wait(0) end,
      function() plain:pcall() end,
      function() server:wait(0) end,
      function() server:wait("nothing") end,
      function() pp.sleep(0) end,
    }
    plain()
    for i, wait in ipairs(waits) do
      local ran = 0
      local job = server:submit{id, callback = function() ran = ran + 1 end}
      assert.is_truthy(child.eventually(ended(job)))
      assert.are.equal(0, ran)
      wait()
      assert.are.equal(1, ran, "waiting call " .. i)
    end
  end)

  it("is never run inside another", function()
    local server <close> = pp.Server(1)
    local order = {}
    local plain = server:submit(id)
    local second
    server:submit{id, callback = function()
      order[#order + 1] = "first begins"
      child.eventually(ended(second))
      pp.sleep(0)
      plain()
      server:wait(0)
      order[#order + 1] = "first ends"
    end}
    second = server:submit{id, callback = function()
      order[#order + 1] = "second"
    end}
    assert.is_true(server:wait())
    assert.are.same({"first begins", "first ends", "second"}, order)
  end)

  it("may submit jobs and take results", function()
    local server <close> = pp.Server(1)
    local got
    server:submit{id, args = {20}, callback = function(r)
      got = server:submit(function(x) return x + 1 end, {r})()
    end}
    assert.is_true(server:wait())
    assert.are.equal(21, got)
  end)

  it("that raises, raises from the waiting call; the job has still ended",
    function()
      local server <close> = pp.Server(1)
      local job = server:submit{id, args = {5},
        callback = function() error("callback broke") end}
      assert.is_truthy(child.eventually(ended(job)))
      local ok, err = pcall(pp.sleep, 0)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("callback broke", 1, true))
      assert.is_true(job.finished)
      assert.are.equal("done", job.status)
      assert.are.equal(5, job())
      assert.is_true(server:wait())
    end)

  it("that raises keeps no other from its turn", function()
    local server <close> = pp.Server(1)
    local ran = 0
    local jobs = {}
    for i = 1, 10 do
      jobs[i] = server:submit{id, args = {i}, callback = function(r)
        ran = ran + 1
        if r == 5 then error({}) end
      end}
    end
    for i = 1, 10 do assert.is_truthy(child.eventually(ended(jobs[i]))) end
    local errors = 0
    for _ = 1, 10 do
      if not pcall(server.wait, server) then errors = errors + 1 end
    end
    assert.are.equal(10, ran)
    assert.are.equal(1, errors)
  end)

  it("runs once, however often the job is asked", function()
    local server <close> = pp.Server(1)
    local ran = 0
    local job = server:submit{id, callback = function() ran = ran + 1 end}
    job()
    job()
    job:pcall()
    job:wait()
    server:wait()
    assert.are.equal(1, ran)
  end)

  it("runs also when nobody holds the job", function()
    local server <close> = pp.Server(1)
    local ran = false
    server:submit{id, callback = function() ran = true end}
    collectgarbage()
    collectgarbage()
    server:wait()
    assert.is_true(ran)
  end)
end)

describe("wait", function()
  it("is true when all jobs have ended, failed ones too", function()
    local server <close> = pp.Server(2)
    local jobs = {}
    for i = 1, 20 do jobs[i] = server:submit(id, {i}) end
    jobs[21] = server:submit(fail, {"no"})
    assert.is_true(server:wait())
    for i = 1, 21 do assert.is_true(jobs[i].finished) end
    jobs[21]:pcall()
  end)

  it("is true at once when there is nothing to wait for", function()
    local server <close> = pp.Server(1)
    assert.is_true(server:wait())
    assert.is_true(server:wait(0))
    assert.is_true(server:wait("nobody"))
    assert.is_true(server:wait("nobody", 0))
  end)

  it("is false when the time is up", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local job = server:submit(pass, {gate.path})
    assert.is_false(server:wait(0))
    assert.is_false(server:wait(0.01))
    assert.is_false(job.finished)
    gate:open()
    assert.is_true(server:wait())
    assert.is_true(job.finished)
  end)

  it("of a group waits for that group alone", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local slow = server:submit{pass, args = {gate.path}, group = "slow"}
    local quick = {}
    for i = 1, 20 do quick[i] = server:submit{id, args = {i}, group = "quick"} end
    assert.is_true(server:wait("quick"))
    for i = 1, 20 do assert.is_true(quick[i].finished) end
    assert.is_false(slow.finished)
    assert.is_false(server:wait("slow", 0))
    assert.is_false(server:wait("slow", 0.01))
    gate:open()
    assert.is_true(server:wait("slow", child.patience))
    assert.is_true(slow.finished)
  end)
end)

describe("priority", function()
  it("puts higher ones first, equals as they came, also before what waits at a worker", function()
    local server <close> = pp.Server(1)
    local gate, order = child.gate(), {}
    local function note(v) order[#order + 1] = v end
    for _ = 1, 50 do server:submit(id) end
    server:wait()
    server:submit{function(path) io.open(path):close() return "first" end,
      args = {gate.path}, callback = note}
    local function add(prefix, n, priority)
      for i = 1, n do
        server:submit{id, args = {prefix .. i}, priority = priority, callback = note}
      end
    end
    add("l", 3)
    add("h", 3, 5)
    add("z", 2, -1.5)
    add("t", 2, 7)
    gate:open()
    server:wait()
    assert.are.equal("first t1 t2 h1 h2 h3 l1 l2 l3 z1 z2", table.concat(order, " "))
  end)

  it("may change with every job, thousands of times", function()
    for _, workers in ipairs{1, 2} do
      local server <close> = pp.Server(workers)
      for i = 1, 20000 do
        server:submit{id, args = {i}, priority = workers == 1 and i or i % 2, forget = true}
      end
      assert.is_true(server:wait(child.patience))
      assert.are.equal(1, server:submit(id, {1})())
    end
  end)

  it("is a number", function()
    local server <close> = pp.Server(1)
    for _, bad in ipairs{"1", {}, 0 / 0} do
      local ok, err = pcall(server.submit, server, {id, priority = bad})
      assert.is_false(ok)
      local got = type(bad) == "number" and "nan" or type(bad)
      assert.is_truthy(err:find("priority must be a number, got " .. got, 1, true), err)
    end
  end)
end)

describe("a number that submit cannot use", function()
  it("is named in the message", function()
    local server <close> = pp.Server(1)
    for _, case in ipairs{
      {"timeout", 0, "a number > 0, got 0"},
      {"timeout", -1.5, "a number > 0, got -1.5"},
      {"retries", -1, "an integer >= 0, got -1"},
      {"retries", 1.5, "an integer >= 0, got 1.5"},
      {"retry_errors", -2, "an integer >= 0, got -2"},
      {"memory", -3, "an integer >= 0, got -3"},
      {"forget", 5, "a boolean, got 5"},
      {"forget", "yes", "a boolean, got string"},
    } do
      local ok, err = pcall(server.submit, server, {id, [case[1]] = case[2]})
      assert.is_false(ok)
      assert.is_truthy(err:find(("bad argument #1 to 'submit' (%s must be %s)")
        :format(case[1], case[3]), 1, true), err)
    end
    assert.are.equal(0, server:pending())
  end)
end)

describe("args that are a list by their metatable", function()
  it("are taken by their length and index", function()
    local server <close> = pp.Server(1)
    local odd = setmetatable({}, {
      __len = function() return 2 end,
      __index = function(_, i) return i * 10 end,
    })
    local function numbered(...) return select("#", ...), ... end
    assert.are.same({2, 10, 20}, {server:submit(numbered, odd)()})
    assert.are.same({3, 5, 6, 7}, {server:submit(numbered, pp.range(5, 7))()})
    local got
    server:submit{numbered, callback = function(...) got = {...} end, callbackargs = odd}:wait()
    assert.are.same({10, 20, 0}, got)
  end)
end)

describe("callbackargs", function()
  it("are taken as they are at submit", function()
    local server <close> = pp.Server(1)
    local list, got = {}, {}
    for i = 1, 3 do
      list[1] = i
      server:submit{math.abs, args = {-i}, callbackargs = list,
        callback = function(i_then, r) got[#got + 1] = i_then * 10 + r end}
    end
    assert.is_true(server:wait(child.patience))
    assert.are.same({11, 22, 33}, got)
  end)
end)

describe("mistakes in a template's submit", function()
  it("are reported where it was called", function()
    local server = pp.Server(1)
    local template = pp.Template(server, type)
    local line = debug.getinfo(1, "l").currentline
    local ok, e = pcall(function() template:submit(coroutine.create(print)) end)
    assert.is_false(ok)
    assert.is_truthy(e:find("submit_spec.lua:" .. line + 1 .. ": cannot send", 1, true), e)
    server:destroy()
    ok, e = pcall(function() template:submit(1) end)
    assert.is_false(ok)
    assert.is_truthy(e:find("submit_spec.lua:" .. line + 5 .. ": attempt to use", 1, true), e)
  end)
end)
