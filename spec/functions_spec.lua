-- SPDX-License-Identifier: MIT
-- What travels with a function, and the globals a job runs in.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function id(...) return ... end
local function pass(path) io.open(path):close() end

--- The results of f in a worker.
local function there(f, ...)
  local server <close> = pp.Server(1)
  return server:submit(f, table.pack(...))()
end

--- Run a script and compare what it prints, line by line.
local function prints(expected, script, options)
  local r = child.run(script, options)
  assert.are.equal("", r.err)
  assert.are.equal(expected, r.out)
  assert.are.equal(0, r.status)
end

after_each(child.clean)

describe("a function takes with it", function()
  it("its upvalues", function()
    local number, text, list = 7, "text", {1, {2}}
    local n, s, t = there(function() return number, text, list end)
    assert.are.equal(7, n)
    assert.are.equal("text", s)
    assert.are.same({1, {2}}, t)
  end)

  it("upvalues that two functions share, shared", function()
    local n = 10
    local function inc() n = n + 1 end
    local function get() return n end
    assert.are.equal(12, there(function()
      inc()
      inc()
      return get()
    end))
    assert.are.equal(12, there(function(a, b)
      a()
      a()
      return b()
    end, inc, get))
    assert.are.equal(10, n)
  end)

  it("upvalues apart that are not shared", function()
    local function counter()
      local n = 0
      return function()
        n = n + 1
        return n
      end
    end
    local a, b = counter(), counter()
    local x, y, z = there(function() return a(), a(), b() end)
    assert.are.same({1, 2, 1}, {x, y, z})
  end)

  it("itself, when it is recursive", function()
    local function factorial(n)
      return n < 2 and 1 or n * factorial(n - 1)
    end
    assert.are.equal(3628800, there(factorial, 10))
  end)

  it("functions that call each other", function()
    local even, odd
    function even(n)
      if n == 0 then return true end
      return odd(n - 1)
    end
    function odd(n)
      if n == 0 then return false end
      return even(n - 1)
    end
    assert.is_true(there(even, 100))
    assert.is_false(there(even, 101))
  end)

  it("two hundred upvalues", function()
    local source = {}
    for i = 1, 180 do source[i] = ("local v%d = %d"):format(i, i) end
    source[#source + 1] = "return function() return 0"
    for i = 1, 180 do source[#source + 1] = (" + v%d"):format(i) end
    source[#source + 1] = " end"
    assert.are.equal(180 * 181 // 2, there(load(table.concat(source, "\n"))()))
  end)

  it("a chain of 10,000 functions", function()
    local f = function() return 0 end
    for _ = 1, 10000 do
      local g = f
      f = function(deep) return deep and 1 + g() or g ~= nil end
    end
    assert.is_true(there(f))
  end)

  it("variable arguments, loops, goto and <close> variables", function()
    local closed = there(function(...)
      local log = {}
      do
        local _ <close> = setmetatable({}, {__close = function()
          log[#log + 1] = "closed"
        end})
        for i, v in ipairs{...} do
          if v == "skip" then goto continue end
          log[#log + 1] = i .. v
          ::continue::
        end
      end
      return table.concat(log, " ")
    end, "a", "skip", "b")
    assert.are.equal("1a 3b closed", closed)
  end)

  it("the global functions it reaches by name, and those they reach",
    function()
      prints("14\ttrue\n", [[
        local pp = require "pp"
        function square(x) return x * x end
        function sum_squares(n)
          local sum = 0
          for i = 1, n do sum = sum + square(i) end
          return sum
        end
        function ping(n) return n == 0 or pong(n - 1) end
        function pong(n) return n == 0 or ping(n - 1) end
        local server = pp.Server(1)
        print(server:submit(function() return sum_squares(3), ping(9) end)())
      ]])
    end)

  it("global functions reached only inside nested functions", function()
    prints("9\n", [[
      local pp = require "pp"
      function square(x) return x * x end
      local function job()
        return (function() return (function() return square(3) end)() end)()
      end
      print(pp.Server(1):submit(job)())
    ]])
  end)

  it("global data", function()
    prints("8080\tlocalhost\tnil\n", [[
      local pp = require "pp"
      config = {port = 8080}
      host = "localhost"
      print(pp.Server(1):submit(function()
        return config.port, host, unset
      end)())
    ]])
  end)

  it("what upvalue tables and arguments hold", function()
    prints("6\t8\n", [[
      local pp = require "pp"
      function double(x) return 2 * x end
      local ops = {twice = function(x) return double(x) end}
      local server = pp.Server(1)
      print(server:submit(function(x, f) return ops.twice(x), f(4) end,
        {3, function(x) return double(x) end})())
    ]])
  end)

  it("methods and fields the script added to standard tables", function()
    prints("[x]\t7\t3\tmine\n", [[
      local pp = require "pp"
      function string.trim(s) return (s:gsub("^%s+", ""):gsub("%s+$", "")) end
      function table.last(t) return t[#t] end
      math.three = 3
      os.getenv = function() return "mine" end
      local server = pp.Server(1)
      print(server:submit(function()
        local s = "  x "
        return "[" .. s:trim() .. "]", table.last{5, 6, 7}, math.three,
          os.getenv "HOME"
      end)())
    ]])
  end)

  it("standard globals the script replaced", function()
    prints("<7>\tnumber\n", [[
      local pp = require "pp"
      local old = tostring
      function tostring(x) return "<" .. old(x) .. ">" end
      local server = pp.Server(1)
      print(server:submit(function() return tostring(7), type(7) end)())
    ]])
  end)

  it("no patch to a job that does not reach it", function()
    prints("nil\n", [[
      local pp = require "pp"
      local server = pp.Server(1)
      function string.shout(s) return s:upper() .. "!" end
      server:submit(function() return ("x"):shout() end)()
      print(server:submit(function() return rawget(string, "sho" .. "ut") end)())
    ]])
  end)

  it("a table used as _ENV, as a table", function()
    local env = {x = 40, add = function(a, b) return a + b end}
    local f = load("return add(x, 2), y", "chunk", "t", env)
    assert.are.equal(42, there(f))
    env.x = 1
    assert.are.equal(3, there(f))
    local g
    do
      local _ENV = {value = "inner"} -- luacheck: ignore
      function g() return value end -- luacheck: ignore
    end
    assert.are.equal("inner", there(g))
  end)

  it("the chunk it is, when it is one", function()
    assert.are.same({3, "a"}, {there(load("local a, b = ... return #b, a"),
      "a", {1, 2, 3})})
  end)

  it("its names in messages and tracebacks", function()
    local server <close> = pp.Server(1)
    local function inner(value) return value.field end
    local ok, err = server:submit(function() return (inner(nil)) end):pcall()
    assert.is_false(ok)
    assert.is_truthy(err.message:find("local 'value'", 1, true), err.message)
    assert.is_truthy(err.traceback:find("inner", 1, true), err.traceback)
  end)

  it("no more than it needs: string constants are no globals", function()
    prints("ok\n", [[
      local pp = require "pp"
      handle = io.tmpfile()
      local server = pp.Server(1)
      local t = {handle = "ok"}
      print(server:submit(function() return t.handle end)())
    ]])
  end)
end)

describe("a module captured by a function", function()
  it("is the worker's own", function()
    local dir = run.directory()
    local file <close> = assert(io.open(dir .. "/greet.lua", "w"))
    file:write([[
      local greet = {state = io.tmpfile()} -- could not be sent
      function greet.hello(name) return "hello " .. name end
      return greet
    ]])
    file:flush()
    prints("hello you\nhello you\n", [[
      local pp = require "pp"
      local greet = require "greet"
      local hello = greet.hello
      local server = pp.Server(1)
      print(server:submit(function() return greet.hello("you") end)())
      print(server:submit(function() return hello("you") end)())
    ]], {env = {LUA_PATH = dir .. "/?.lua;;"}})
  end)

  it("may be a C module", function()
    if not pcall(require, "lfs") then return end -- not installed here
    prints("true\tdirectory\n", [[
      local pp = require "pp"
      local lfs = require "lfs"
      print(pp.Server(1):submit(function()
        return lfs == require "lfs", lfs.attributes("/", "mode")
      end)())
    ]])
  end)
end)

describe("depfuncs", function()
  it("are a list of functions found among the caller's globals", function()
    prints("true\tfalse\n", [[
      local pp = require "pp"
      function isprime(n)
        for d = 2, n - 1 do if n % d == 0 then return false end end
        return n > 1
      end
      local server = pp.Server(1)
      print(server:submit(function(a, b)
        local f = load("return isprime(...)")
        return f(a), f(b)
      end, {7, 8}, {isprime})())
    ]])
  end)

  it("are a list of functions found among the upvalues", function()
    local function twice(x) return 2 * x end
    local function f(x)
      return twice(x) + load("return twice(...)")(x)
    end
    local server <close> = pp.Server(1)
    assert.are.equal(12, server:submit(f, {3}, {twice})())
  end)

  it("are a map from name to function", function()
    local server <close> = pp.Server(1)
    local function f(x) return load("return twice(...) + thrice(...)")(x) end
    assert.are.equal(50, server:submit(f, {10}, {
      twice = function(x) return 2 * x end,
      thrice = function(x) return 3 * x end,
    })())
  end)

  it("take with them what they reach", function()
    prints("12\n", [[
      local pp = require "pp"
      factor = 3
      function scale(x) return factor * x end
      local server = pp.Server(1)
      print(server:submit(function(x) return load("return times(...)")(x) end,
        {4}, {times = function(x) return scale(x) end})())
    ]])
  end)
end)

describe("modules", function()
  it("are required first and set as globals", function()
    local dir = run.directory()
    local file <close> = assert(io.open(dir .. "/greet.lua", "w"))
    file:write("return {hello = function(n) return 'hello ' .. n end}\n")
    file:flush()
    prints("hello you\ttrue\nnil\n", [[
      local pp = require "pp"
      local server = pp.Server(1)
      print(server:submit(function()
        return load("return greet.hello('you')")(),
          package.loaded.greet == load("return greet")()
      end, {}, {}, {"greet"})())
      print(server:submit(function() return load("return greet")() end)())
    ]], {env = {LUA_PATH = dir .. "/?.lua;;"}})
  end)

  it("that are not found fail the job and say so", function()
    local server <close> = pp.Server(1)
    local ok, err = server:submit{id, modules = {"no_such_module_here"}}:pcall()
    assert.is_false(ok)
    assert.are.equal("error", err.kind)
    assert.is_truthy(err.message:find("no_such_module_here", 1, true))
    assert.are.equal(1, server:submit(id, {1})())
  end)
end)

describe("globals", function()
  it("as a list of names bring what no code names", function()
    prints("5\tnil\n", [[
      local pp = require "pp"
      seen, unseen = 5, 6
      local server = pp.Server(1)
      print(server:submit{function(a, b) return _G[a], _G[b] end,
        args = {"seen", "unseen"}, globals = {"seen"}}())
    ]])
  end)

  it("as a map bring values, functions with what they reach", function()
    prints("1\t20\n", [[
      local pp = require "pp"
      factor = 10
      local function scale(x) return factor * x end
      local server = pp.Server(1)
      print(server:submit{function() return load("return one, scale(2)")() end,
        globals = {one = 1, scale = scale}}())
    ]])
  end)

  it("as a map go before what is found", function()
    prints("given\n", [[
      local pp = require "pp"
      setting = "found"
      local server = pp.Server(1)
      print(server:submit{function() return setting end,
        globals = {setting = "given"}}())
    ]])
  end)

  it("that cannot travel are refused at submit", function()
    local server <close> = pp.Server(1)
    local file <close> = io.tmpfile()
    local ok, err = pcall(server.submit, server, {id, globals = {log = file}})
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("log", 1, true))
  end)
end)

describe("captures", function()
  it("are taken as they are at submit", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    server:submit(pass, {gate.path}) -- the job below starts only after it
    local n, list = 1, {1}
    local job = server:submit(function() return n, #list end)
    n = 2
    list[2] = 2
    gate:open()
    local got_n, got_length = job()
    assert.are.equal(1, got_n)
    assert.are.equal(1, got_length)
    got_n, got_length = server:submit(function() return n, #list end)()
    assert.are.equal(2, got_n)
    assert.are.equal(2, got_length)
  end)

  it("that are globals are taken at submit too", function()
    prints("1\t2\n", [[
      local pp = require "pp"
      local server = pp.Server(1)
      function get() return setting end
      setting = 1
      local a = server:submit(get)
      setting = 2
      local b = server:submit(get)
      print(a(), b())
    ]])
  end)

  it("of functions replaced between two submits are the new ones", function()
    prints("old\tnew\n", [[
      local pp = require "pp"
      local server = pp.Server(1)
      function helper() return "old" end
      local function job() return helper() end
      local a = server:submit(job)
      function helper() return "new" end
      local b = server:submit(job)
      print(a(), b())
    ]])
  end)

  it("are fresh for every job", function()
    local server <close> = pp.Server(1)
    local n, list = 0, {}
    local function bump()
      n = n + 1
      list[#list + 1] = n
      return n, #list
    end
    for _ = 1, 3 do
      local a, b = server:submit(bump)()
      assert.are.same({1, 1}, {a, b})
    end
    local jobs = {}
    for i = 1, 50 do jobs[i] = server:submit(bump) end
    for i = 1, 50 do assert.are.same({1, 1}, {jobs[i]()}) end
    assert.are.equal(0, n)
    assert.are.same({}, list)
  end)

  it("that are globals are fresh for every job", function()
    prints("1 1\n1 1\n1 1\n0 0\n", [[
      local pp = require "pp"
      local server = pp.Server(1)
      count, list = 0, {}
      function bump()
        count = count + 1
        list[#list + 1] = count
        return count .. " " .. #list
      end
      for i = 1, 3 do print(server:submit(bump)()) end
      print(count .. " " .. #list)
    ]])
  end)

  it("kept by a function in its own upvalues are fresh for every job",
    function()
      local server <close> = pp.Server(1)
      local function counter()
        local n = 0
        return function()
          n = n + 1
          return n
        end
      end
      local next_number = counter()
      local function twice() return next_number() + next_number() end
      for _ = 1, 3 do assert.are.equal(3, server:submit(twice)()) end
    end)
end)

describe("a job's globals", function()
  it("are fresh for every job", function()
    local server <close> = pp.Server(1)
    local function set()
      local before = load("return mark")()
      load("mark = 1")()
      return before, load("return mark")()
    end
    for _ = 1, 3 do
      assert.are.same({nil, 1, n = 2}, table.pack(server:submit(set)()))
    end
    local function assign()
      local before = counter -- luacheck: ignore
      counter = 1 -- luacheck: ignore
      return before
    end
    for _ = 1, 3 do assert.is_nil((server:submit(assign)())) end
    assert.is_nil(rawget(_G, "mark"))
    assert.is_nil(rawget(_G, "counter"))
  end)

  it("are fresh after a job that failed", function()
    local server <close> = pp.Server(1)
    server:submit(function()
      load("mark = 1")()
      error("no")
    end):pcall()
    assert.is_nil((server:submit(function() return load("return mark")() end)()))
  end)

  it("may replace standard names for this job alone", function()
    local server <close> = pp.Server(1)
    server:submit(function() load("print = nil; tostring = 5; _G.type = 1")() end)()
    assert.are.same({"function", "function", "function"},
      {server:submit(function()
        return type(print), type(tostring), type(type)
      end)()})
  end)

  it("are what load, dofile, require'd _G and _ENV mean", function()
    local path = run.file("from_file = 'file'\nreturn shared")
    local server <close> = pp.Server(1)
    local function look(name)
      load("shared = 'set'")()
      local G = _G
      local by_file = dofile(name)
      return by_file, load("return from_file")(), G.shared, _G.from_file,
        load("return _G == ...")(G), rawequal(_ENV, G)
    end
    for _ = 1, 2 do
      assert.are.same({"set", "file", "set", "file", true, true, n = 6},
        table.pack(server:submit(look, {path})()))
    end
    assert.is_nil((server:submit(function() return _G["from_" .. "file"] end)()))
  end)

  it("and the base ones are both in pairs(_G)", function()
    local server <close> = pp.Server(1)
    local mine, standard, loaded = server:submit(function()
      load("mine = 1")()
      local seen = {}
      for k, v in pairs(_G) do seen[k] = v end
      return seen.mine, seen.print == print, seen.string == string
    end)()
    assert.are.equal(1, mine)
    assert.is_true(standard)
    assert.is_true(loaded)
  end)

  it("hold the captured ones under their names", function()
    prints("7\t7\t49\n", [[
      local pp = require "pp"
      seven = 7
      function square(x) return x * x end
      print(pp.Server(1):submit(function()
        return seven, _G["sev" .. "en"], square and load("return square(7)")()
      end)())
    ]])
  end)
end)

describe("a job", function()
  it("runs in the directory and environment of ppsh", function()
    prints("/\tvalue\n", [[
      local pp = require "pp"
      print(pp.Server(1):submit(function()
        local pipe = io.popen("pwd")
        local where = pipe:read()
        pipe:close()
        return where, os.getenv("PP_SPEC_VARIABLE")
      end)())
    ]], {cwd = "/", env = {PP_SPEC_VARIABLE = "value"}})
  end)

  it("finds modules by package.path as it was at submit", function()
    prints("one\ntwo\ntrue\n", [[
      local pp = require "pp"
      local base, original = os.tmpname(), package.path
      os.remove(base)
      for _, name in ipairs{"one", "two"} do
        local file = assert(io.open(base .. name .. ".lua", "w"))
        file:write("return '", name, "'")
        file:close()
      end
      local server = pp.Server(1)
      package.path = base .. "?.lua" -- before the first one, too
      print((server:submit(function() return (require "one") end)()))
      package.path = base .. "tw?.lua"
      print((server:submit(function() return (require "o") end)()))
      package.path = original
      print(server:submit(function() return package.path end)() == original)
      os.remove(base .. "one.lua")
      os.remove(base .. "two.lua")
    ]])
  end)

  it("has package.cpath as it was at submit", function()
    prints("/first/?.so\n/second/?.so\n", [[
      local pp = require "pp"
      local server = pp.Server(1)
      package.cpath = "/first/?.so"
      print(server:submit(function() return package.cpath end)())
      package.cpath = "/second/?.so"
      print(server:submit(function() return package.cpath end)())
    ]])
  end)

  it("may use pp's own functions", function()
    local server <close> = pp.Server(1)
    assert.are.equal("number", server:submit(function() return type(pp.time()) end)())
    assert.are.equal("number",
      server:submit(function() return type(require "pp".time()) end)())
    assert.is_true(server:submit(function()
      local start = pp.time()
      pp.sleep(0.01)
      return pp.time() - start >= 0.01
    end)())
  end)

  it("may use coroutines, pcall and error", function()
    assert.are.same({1, 2, 3, false, "caught"}, {there(function()
      local co = coroutine.wrap(function()
        for i = 1, 3 do coroutine.yield(i) end
      end)
      local a, b, c = co(), co(), co()
      return a, b, c, pcall(error, "caught")
    end)})
  end)
end)

describe("a function as a result", function()
  it("that was sent comes back and can be called", function()
    local function twice(x) return 2 * x end
    local back = there(function() return twice end)
    assert.are.equal(14, back(7))
    assert.are.equal(14, there(id, twice)(7))
  end)

  it("made in the job by code that was sent comes back with its upvalues",
    function()
      local add = there(function(n)
        return function(x) return x + n end
      end, 5)
      assert.are.equal(12, add(7))
    end)

  it("shares its upvalues with the others that came back", function()
    local inc, get = there(function()
      local n = 0
      return function() n = n + 1 end, function() return n end
    end)
    inc()
    inc()
    assert.are.equal(2, get())
  end)

  it("uses the script's own globals", function()
    prints("script\n", [[
      local pp = require "pp"
      where = "job"
      local f = pp.Server(1):submit(function()
        return function() return where end
      end)()
      where = "script"
      print(f())
    ]])
  end)

  it("may be sent again", function()
    local server <close> = pp.Server(1)
    local add = server:submit(function(n)
      return function(x) return x + n end
    end, {5})()
    assert.are.equal(8, server:submit(add, {3})())
  end)

  it("of code the script never had comes as source text or not at all",
    function()
      local server <close> = pp.Server(1)
      local ok, f = server:submit(function()
        return load("return 'made there'")
      end):pcall()
      if ok then
        assert.are.equal("made there", f())
      else
        assert.are.equal("unsendable", f.kind)
      end
    end)
end)

describe("what is both captured and an argument", function()
  it("is one thing in the job: tables and upvalues", function()
    local server <close> = pp.Server(1)
    local none = {}
    assert.is_true(server:spawn(function(v) return v == none end, none)())
    assert.is_false(server:spawn(function(v) return v == none end, {})())
    local n = 0
    local function inc() n = n + 1 end
    assert.are.equal(2, server:spawn(function(f) f() f() return n end, inc)())
    assert.are.equal(2, server:spawn(function(f) f() f() return n end, inc)())
    assert.are.equal(0, n)
  end)
end)

describe("an _ENV that stands before the globals", function()
  it("takes along what is found through it", function()
    local code = [[
      function helper() return "h" .. factor end
      factor = 2
      local f = load("return helper(), own, math.type(1)", "=c", "t",
        setmetatable({own = "o"}, {__index = _G}))
      local pp = require "pp"
      print(pp.Server(1):spawn(f)())
    ]]
    local r = child.run(code)
    assert.are.equal("h2\to\tinteger\n", r.out, r.err)
  end)
end)

describe("pp.captures", function()
  local tables = {{1, 2, 3}, ("x"):rep(100)}
  local function inner() return tables end
  local function outer() return inner(), child.pid, tables end
  local function names(found)
    local list = {}
    for kind, of in pairs{upvalue = found.upvalues, global = found.globals} do
      for name, value in pairs(of) do
        list[#list + 1] = ("%s %s: %s"):format(kind, name, type(value))
      end
    end
    table.sort(list)
    return table.concat(list, ", ")
  end

  it("tells what would travel with a function, and its bytes", function()
    local found = pp.captures(outer)
    assert.are.equal("upvalue child: table, upvalue inner: function, upvalue tables: table",
      names(found))
    assert.is_true(found.bytes > 100)
    assert.are.equal(tables, found.upvalues.tables)
    assert.are.equal("", names(pp.captures(function() end)))
  end)

  it("tells the same in a job", function()
    local server <close> = pp.Server(1)
    local function ask() return names(pp.captures(outer)), pp.captures(outer).bytes end
    local found, bytes = server:spawn(ask)()
    assert.are.equal(names(pp.captures(outer)), found)
    assert.is_true(bytes > 100)
  end)

  it("refuses what cannot travel, in a job too", function()
    local server <close> = pp.Server(1)
    local function try()
      local co = coroutine.create(print)
      return pcall(pp.captures, function() return co end)
    end
    for _, call in ipairs{try, server:spawn(try)} do
      local ok, err = call()
      assert.is_false(ok)
      assert.is_truthy(err:find("cannot send upvalue 'co' of function", 1, true), err)
    end
    assert.is_false(pcall(pp.captures, 1))
  end)

  it("comes back by the code of its own job, wherever it was seen before", function()
    for n = 0, 1 do
      local server <close> = pp.Server(n)
      local whole = load [[return function()
        return function() return function() return 5 end end
      end]] ()
      assert.are.equal("function", type(server:spawn(whole)()))
      local part = whole()
      whole = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      server:spawn(print)()
      assert.are.equal(5, server:spawn(part)()())
    end
  end)
end)

describe("a global that a job sets to nil", function()
  it("is gone for that job, also for load and pairs, and for it alone", function()
    local server <close> = pp.Server(1)
    local function look()
      os, print = nil, nil -- luacheck: ignore 121
      local seen = 0
      for k in pairs(_G) do if k == "os" or k == "print" then seen = seen + 1 end end
      io = 5 -- luacheck: ignore 121
      return os, print, seen, load("return os, io, type")()
    end
    local t = table.pack(server:submit(look)())
    assert.are.same({nil, nil, 0, nil, 5, type, n = 6}, t)
    assert.are.equal(os, server:submit(function() return os end)())
  end)
end)

describe("the metatable of a job's globals", function()
  it("is its own, however it is come by, and leaves the base globals there", function()
    local function by_getmetatable()
      local t = getmetatable(_G)
      local same = rawequal(t, getmetatable(_G))
      t.__index = function(_, name) return "no " .. name end
      t.__newindex = function(_, name) error("new " .. name, 0) end
      return same, type(tostring), load("return some")(),
        select(2, pcall(load("other = 1")))
    end
    local function by_debug()
      debug.getmetatable(_G).__index = nil
      return true, type(tostring), "no some", "new other"
    end
    local function by_setting()
      print = nil -- luacheck: ignore 121
      setmetatable(_G, {
        __index = function(_, name) return "no " .. name end,
        __newindex = function(_, name) error("new " .. name, 0) end,
      })
      return load("return print")() == "no print", type(tostring), load("return some")(),
        select(2, pcall(load("other = 1")))
    end
    local function plain()
      shown = 1 -- luacheck: ignore 111
      return type(print), load("return some")(), load("return shown")()
    end
    for _, ncpus in ipairs({1, 0}) do
      local server <close> = pp.Server(ncpus)
      for _, f in ipairs({by_getmetatable, by_debug, by_setting}) do
        assert.are.same({true, "function", "no some", "new other", n = 4},
          table.pack(server:submit(f)()))
        assert.are.same({"function", nil, 1, n = 3}, table.pack(server:submit(plain)()))
      end
    end
  end)

  it("can be taken away", function()
    local server <close> = pp.Server(1)
    local mine, had, standard = server:submit(function()
      load("mine = 1")()
      setmetatable(_G, nil)
      return load("return mine")(), getmetatable(_G), type(print)
    end)()
    assert.are.equal(1, mine)
    assert.is_nil(had)
    assert.are.equal("function", standard)
  end)

  it("leaves what getmetatable and setmetatable are in a job as it was", function()
    local server <close> = pp.Server(1)
    assert.are.same({getmetatable, setmetatable, debug.getmetatable,
                     "locked", false, "cannot change a protected metatable", n = 6},
      table.pack(server:submit(function()
        local t = setmetatable({}, {__metatable = "locked"})
        return getmetatable, setmetatable, debug.getmetatable,
          getmetatable(t), pcall(setmetatable, t, nil)
      end)()))
  end)
end)
