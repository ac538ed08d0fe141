-- SPDX-License-Identifier: MIT
-- Iterating over jobs: map, imap, completed, pop, drain, first, pending, ranges.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function id(...) return ... end
local function double(x) return 2 * x end
local function fail(message) error(message, 0) end
local function pass(path, ...)
  io.open(path):close()
  return ...
end
local function spin(seconds)
  local over = pp.time() + seconds
  while pp.time() < over do end
end
local function forever() while true do end end

--- Says which run of an item this is; `path` is a directory that counts.
local function count_run(path, item)
  local log <close> = io.open(path .. "/" .. item, "a+")
  log:write("x")
  log:flush()
  log:seek("set")
  return #log:read("a")
end

--- 1, 2, ... without end, and a table whose n says how many were taken.
local function naturals()
  local pulled = {n = 0}
  return function()
    pulled.n = pulled.n + 1
    return pulled.n
  end, pulled
end

--- How many indices of a loop, and each one's first result by index.
local function gathered(...)
  local got, n = {}, 0
  for i, r in ... do
    n = n + 1
    got[i] = r
  end
  return n, got
end

--- What a loop hands out before it raises, and the error.
local function until_error(server, ...)
  local got = {}
  local args = table.pack(...)
  local ok, err = pcall(function()
    for i, r in server:imap(table.unpack(args, 1, args.n)) do got[#got + 1] = {i, r} end
  end)
  assert.is_false(ok)
  return got, err
end

local function numbers(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

local chunks = {1, 2, 3, 7, 100, "auto"}

local function ended(job) return function() return job.finished end end

--- Each call, a function on one line, raises its message at that line.
local function refuse(calls)
  for _, call in ipairs(calls) do
    local f, message = call[1], call[2]
    local info = debug.getinfo(f, "S")
    local ok, err = pcall(f)
    assert.is_false(ok, "not refused: " .. message)
    assert.are.equal(info.short_src .. ":" .. info.linedefined .. ": " .. message,
      tostring(err))
  end
end

after_each(child.clean)

describe("map", function()
  it("gives the first result for each item, in order, with their number", function()
    local server <close> = pp.Server(2)
    local r = server:map(function(x) return x * x, "more" end, numbers(500))
    assert.are.equal(500, r.n)
    for i = 1, 500 do assert.are.equal(i * i, r[i]) end
    assert.are.equal(500, #r)
  end)

  it("gives the same whatever the chunk", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local r = server:map(double, numbers(50), {chunk = chunk})
      assert.are.equal(50, r.n)
      for i = 1, 50 do assert.are.equal(2 * i, r[i]) end
    end
    assert.are.equal(200, server:map(double, numbers(100), {chunk = 1000000})[100])
  end)

  it("of nothing is nothing", function()
    local server <close> = pp.Server(1)
    assert.are.same({n = 0}, server:map(id, {}))
    assert.are.same({n = 0}, server:map(id, {n = 0}))
    assert.are.same({n = 0}, server:map(id, pp.range(1, 0)))
    assert.are.equal(0, server:get_stats()["local"].njobs)
  end)

  it("takes one item", function()
    local server <close> = pp.Server(2)
    assert.are.same({2, n = 1}, server:map(double, {1}))
  end)

  it("leaves holes for nil results", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local r = server:map(function(x) if x % 2 == 0 then return x end end, numbers(9),
        {chunk = chunk})
      assert.are.same({[2] = 2, [4] = 4, [6] = 6, [8] = 8, n = 9}, r)
    end
    assert.are.same({n = 5}, server:map(function() end, numbers(5)))
    assert.are.same({n = 5}, server:map(function() return nil, 1 end, numbers(5)))
  end)

  it("takes list.n items, nils too, else #list", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local r = server:map(function(...) return select("#", ...) .. tostring((...)) end,
        {nil, 2, nil, n = 4}, {chunk = chunk})
      assert.are.same({"1nil", "12", "1nil", "1nil", n = 4}, r)
    end
    assert.are.same({1, 2, n = 2}, server:map(id, {1, 2, 3, n = 2}))
    assert.are.same({1, 2, n = 2}, server:map(id, {1, 2, name = 3}))
  end)

  it("takes false for an item and a result like any other", function()
    local server <close> = pp.Server(1)
    assert.are.same({true, false, true, n = 3},
      server:map(function(x) return not x end, {false, true, false}, {chunk = 3}))
  end)

  it("takes a range", function()
    local server <close> = pp.Server(2)
    local r = server:map(double, pp.range(1, 1000))
    assert.are.equal(1000, r.n)
    for i = 1, 1000 do assert.are.equal(2 * i, r[i]) end
    assert.are.same({10, 8, 6, n = 3}, server:map(double, pp.range(5, 3, -1)))
    assert.are.same({1.0, 1.5, 2.0, n = 3}, server:map(double, pp.range(0.5, 1, 0.25)))
  end)

  it("takes any list that # and indexing work on", function()
    local server <close> = pp.Server(1)
    local list = setmetatable({}, {
      __len = function() return 20 end,
      __index = function(_, i) return i * 10 end,
    })
    local r = server:map(id, list)
    assert.are.equal(20, r.n)
    assert.are.equal(200, r[20])
  end)

  it("with spread calls with the values of an item", function()
    local server <close> = pp.Server(2)
    local function shown(...)
      local t = table.pack(...)
      for i = 1, t.n do t[i] = tostring(t[i]) end
      return table.concat(t, ",")
    end
    for _, chunk in ipairs(chunks) do
      assert.are.same({"1,2", "3", "", "nil,4,nil", "x", n = 5},
        server:map(shown, {{1, 2}, {3}, {}, {nil, 4, nil, n = 3}, "x"},
          {spread = true, chunk = chunk}))
    end
    local up = 100
    assert.are.same({8, 2.0, 103, n = 3}, server:map(function(f, x) return f(x) end,
      {{double, 4}, {math.sqrt, 4}, {function(x) return x + up end, 3}},
      {spread = true, chunk = 3}))
  end)

  it("runs items of mixed durations at their places", function()
    local server <close> = pp.Server(2)
    local r = server:map(function(x)
      spin(x % 10 == 1 and 0.02 or x % 3 == 0 and 0.001 or 0)
      return -x
    end, numbers(200))
    for i = 1, 200 do assert.are.equal(-i, r[i]) end
  end)

  it("takes items that are or hold functions, among others", function()
    local server <close> = pp.Server(2)
    local base = 10
    for _, chunk in ipairs(chunks) do
      local list = numbers(20)
      list[7] = function() return base + 7 end
      list[8] = {f = function() return base + 8 end}
      list[9] = math.abs
      local r = server:map(function(x)
        return type(x) == "number" and x or type(x) == "table" and x.f() or x(-9)
      end, list, {chunk = chunk})
      for i = 1, 20 do
        assert.are.equal((i == 7 or i == 8) and 10 + i or i, r[i])
      end
    end
  end)

  it("gives back functions that were sent", function()
    local server <close> = pp.Server(1)
    local r = server:map(function(x) return function() return x * 2 end end, {1, 2, 3},
      {chunk = 3})
    assert.are.equal(6, r[3]())
    assert.are.equal(2, r[1]())
  end)

  it("takes modules' tables for themselves", function()
    local server <close> = pp.Server(1)
    local r = server:map(function(m) return m == string, m end, {string, math, string},
      {chunk = 3})
    assert.are.same({true, false, true, n = 3}, r)
    r = server:map(id, {string, math, os}, {chunk = 3})
    assert.is_true(r[1] == string and r[2] == math and r[3] == os)
  end)

  it("keeps the class of an instance, there and back", function()
    local server <close> = pp.Server(2)
    local Account = {}
    Account.__index = Account
    function Account:deposit(n)
      self.balance = self.balance + n
      return self
    end
    for _, chunk in ipairs(chunks) do
      local list = {}
      for i = 1, 10 do list[i] = setmetatable({balance = i}, Account) end
      local r = server:map(function(a) return a:deposit(1) end, list, {chunk = chunk})
      for i = 1, 10 do
        assert.are.equal(i + 1, r[i].balance)
        assert.is_true(getmetatable(r[i]) == Account)
        assert.are.equal(i, list[i].balance)
      end
      r = server:map(function(a) return getmetatable(a) == Account end, list,
        {chunk = chunk})
      for i = 1, 10 do assert.is_true(r[i]) end
      r = server:map(function(x) return setmetatable({balance = x}, Account) end,
        numbers(10), {chunk = chunk})
      for i = 1, 10 do assert.is_true(getmetatable(r[i]) == Account) end
    end
  end)

  it("keeps the class of an instance also when it has no functions", function()
    local server <close> = pp.Server(2)
    local Point = {unit = "m"}
    Point.__index = Point
    local list = {}
    for i = 1, 10 do list[i] = setmetatable({x = i}, Point) end
    assert.is_true(server:submit(function(p) return getmetatable(p) == Point end,
      {list[1]})())
    for _, chunk in ipairs(chunks) do
      local r = server:map(id, list, {chunk = chunk})
      for i = 1, 10 do assert.is_true(getmetatable(r[i]) == Point) end
      r = server:map(function(p) return getmetatable(p) == Point end, list,
        {chunk = chunk})
      for i = 1, 10 do assert.is_true(r[i]) end
    end
  end)

  it("gives each item captures as they were at the call", function()
    local server <close> = pp.Server(2)
    local seen, n = {n = 0}, 0
    local function inc() n = n + 1 end
    for _, chunk in ipairs(chunks) do
      local r = server:map(function(f)
        seen.n = seen.n + 1
        inc()
        return seen.n * 1000 + n + (type(f) == "function" and f() or 0)
      end, {1, 2, 3, function() return 0 end, 5, 6, 7, 8, 9, 10}, {chunk = chunk})
      for i = 1, 10 do assert.are.equal(1001, r[i]) end
    end
    assert.are.equal(0, seen.n)
    assert.are.equal(0, n)
    local r = server:map(function() return seen end, numbers(4), {chunk = 4})
    assert.is_false(rawequal(r[1], r[2]))
  end)

  it("gives each item globals of its own", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local r = server:map(load [[
        count = (count or 0) + 1
        _G["n" .. 1] = (_G["n" .. 1] or 0) + 1
        return count * 10 + n1
      ]], numbers(10), {chunk = chunk})
      for i = 1, 10 do assert.are.equal(11, r[i]) end
    end
  end)

  it("gives each item a copy of its own of a table that several share", function()
    local server <close> = pp.Server(2)
    local shared = {n = 0}
    for _, chunk in ipairs(chunks) do
      local list = {}
      for i = 1, 10 do list[i] = {shared} end
      local r = server:map(function(x)
        x[1].n = x[1].n + 1
        return x[1].n
      end, list, {chunk = chunk})
      for i = 1, 10 do assert.are.equal(1, r[i], "chunk " .. chunk) end
    end
  end)

  it("takes submit's deps, modules, globals and group", function()
    local server <close> = pp.Server(1)
    local r = server:map(function(x) return load("return double(...) + base")(x) end,
      numbers(10), {deps = {double = double}, globals = {base = 100}, modules = {"string"},
        group = "mapped", chunk = 5})
    for i = 1, 10 do assert.are.equal(2 * i + 100, r[i]) end
  end)

  it("counts each item in the statistics", function()
    local server <close> = pp.Server(2)
    server:map(id, numbers(100), {chunk = 7})
    server:map(id, numbers(100))
    server:map(function(x) return x end, {double, 1, 2})
    assert.are.equal(203, server:get_stats()["local"].njobs)
    assert.are.equal(0, server:get_stats()["local"].failed)
    server:map(function(x) if x % 4 == 0 then fail("no") end end, numbers(20),
      {chunk = 10, on_error = "keep"})
    local stats = server:get_stats()["local"]
    assert.are.equal(223, stats.njobs)
    assert.are.equal(5, stats.failed)
    for _ in server:imap(id, pp.range(1, 77)) do end
    assert.are.equal(300, server:get_stats()["local"].njobs)
  end)

  it("is a waiting call: callbacks run", function()
    local server <close> = pp.Server(1)
    local ran = false
    local job = server:submit{id, callback = function() ran = true end}
    assert.is_truthy(child.eventually(ended(job)))
    assert.is_false(ran)
    server:map(id, {1})
    assert.is_true(ran)
  end)

  it("raises the error of a callback, and nothing is left under way", function()
    local server <close> = pp.Server(1)
    server:submit{id, callback = function() error("callback broke") end}
    local ok, err = pcall(server.map, server, id, numbers(1000), {chunk = 1})
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("callback broke", 1, true))
    assert.are.equal(0, server:pending())
  end)
end)

describe("an item that fails", function()
  it("raises its error and stops the rest", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local ok, err = pcall(server.map, server, function(x)
        if x == 4 then error{code = x} end
        if x > 4 then forever() end
        return x
      end, numbers(1000), {chunk = chunk})
      assert.is_false(ok)
      assert.is_true(pp.is_error(err))
      assert.are.equal("error", err.kind)
      assert.are.equal(4, err.value.code)
      assert.are.equal(0, server:pending())
    end
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("says where, in the script's file and line", function()
    local server <close> = pp.Server(1)
    local function broken() error("broken") end
    local info = debug.getinfo(broken, "S")
    for _, on_error in ipairs{"raise", "keep"} do
      local _, r = pcall(server.map, server, broken, {1, 2}, {on_error = on_error, chunk = 2})
      local err = on_error == "keep" and r[2] or r
      assert.are.equal(info.short_src .. ":" .. info.linedefined .. ": broken", err.message)
      assert.is_truthy(tostring(err):find("stack traceback:", 1, true))
    end
  end)

  it("with keep leaves the error in its place", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local r = server:map(function(x)
        if x % 3 == 0 then error({code = x}) end
        return x
      end, numbers(10), {on_error = "keep", chunk = chunk})
      assert.are.equal(10, r.n)
      for i = 1, 10 do
        if i % 3 == 0 then
          assert.is_true(pp.is_error(r[i]))
          assert.are.equal("error", r[i].kind)
          assert.are.equal(i, r[i].value.code)
          assert.are.equal("local", r[i].node)
          assert.are.equal("number", type(r[i].worker))
        else
          assert.are.equal(i, r[i])
        end
      end
    end
  end)

  it("with keep may be one that brings functions along", function()
    local server <close> = pp.Server(1)
    local r = server:map(function(f) return f() end,
      {function() return 1 end, function() fail("no") end, function() return 3 end},
      {on_error = "keep"})
    assert.are.equal(1, r[1])
    assert.are.equal("no", r[2].message)
    assert.are.equal(3, r[3])
  end)

  it("with keep may raise a value of any type", function()
    local server <close> = pp.Server(1)
    local values = {1, "text", true, {}, nil, n = 5}
    local r = server:map(function(x) error(x, 0) end, values, {on_error = "keep", chunk = 5})
    for i = 1, 5 do
      assert.is_true(pp.is_error(r[i]))
      assert.are.same(values[i], r[i].value)
    end
  end)

  it("because its result cannot travel raises that", function()
    local server <close> = pp.Server(1)
    for _, chunk in ipairs(chunks) do
      local ok, err = pcall(server.map, server, function(x)
        return x == 3 and coroutine.create(id) or x
      end, numbers(6), {chunk = chunk})
      assert.is_false(ok)
      assert.are.equal("unsendable", err.kind)
      assert.is_truthy(err.message:find("coroutine", 1, true), err.message)
    end
  end)

  it("because its result cannot travel is kept in its place", function()
    local server <close> = pp.Server(1)
    for _, chunk in ipairs(chunks) do
      local r = server:map(function(x)
        return x % 3 == 0 and {coroutine.create(id)} or x
      end, numbers(7), {chunk = chunk, on_error = "keep"})
      for i = 1, 7 do
        if i % 3 == 0 then
          assert.is_true(pp.is_error(r[i]))
          assert.are.equal("unsendable", r[i].kind)
        else
          assert.are.equal(i, r[i])
        end
      end
    end
  end)

  it("because its result cannot travel has no traceback of another", function()
    local server <close> = pp.Server(1)
    server:map(function() error("other error") end, {1}, {on_error = "keep"})
    local ok, err = pcall(server.map, server, function() return coroutine.create(id) end, {1})
    assert.is_false(ok)
    assert.are.equal("unsendable", err.kind)
    assert.is_falsy((err.traceback or ""):find("error", 1, true), err.traceback)
  end)

  it("leaves no failure behind that the program would report", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local function broken(x) error("broken " .. x) end
      print(pcall(server.map, server, broken, pp.range(1, 100)) == false)
      server:map(broken, pp.range(1, 100), {on_error = "keep"})
      for _ in server:imap(broken, pp.range(1, 100), {on_error = "keep"}) do break end
      for _ in server:imap(function() while true do end end, {}) do break end
      print(pcall(function() for _ in server:imap(broken, {1}) do print "no" end end) == false)
    ]])
    assert.are.equal("", r.err)
    assert.are.equal("true\ntrue\n", r.out)
    assert.are.equal(0, r.status)
  end)

  it("uncaught ends the program with its message", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      server:map(function(x) error("broken " .. x) end, {1})
    ]])
    assert.are.equal(1, r.status)
    assert.is_truthy(r.err:find("script.lua:3: broken 1", 1, true), r.err)
  end)
end)

describe("the worker of an item", function()
  it("may die in the middle of a chunk: all results are right", function()
    for _, chunk in ipairs(chunks) do
      local server <close> = pp.Server(2)
      local dir = run.directory()
      local r = server:map(function(x)
        if x == 23 and count_run(dir, x) == 1 then os.exit(3) end
        return x * 3
      end, numbers(60), {chunk = chunk})
      assert.are.equal(60, r.n)
      for i = 1, 60 do assert.are.equal(3 * i, r[i]) end
      local stats = server:get_stats()["local"]
      assert.are.equal(60, stats.njobs)
      assert.are.equal(1, stats.lost)
    end
  end)

  it("may die under imap: every index is handed out once", function()
    for _, chunk in ipairs{1, 7, "auto"} do
      local server <close> = pp.Server(2)
      local dir = run.directory()
      local at = 0
      for i, r in server:imap(function(x)
        if x == 23 and count_run(dir, x) == 1 then os.exit(3) end
        return x * 3
      end, pp.range(1, 60), {chunk = chunk}) do
        at = at + 1
        assert.are.equal(at, i)
        assert.are.equal(3 * i, r)
      end
      assert.are.equal(60, at)
    end
  end)

  it("may die for each item once, whatever the chunk", function()
    for _, chunk in ipairs{1, 6} do
      local server <close> = pp.Server(1)
      local dir = run.directory()
      local r = server:map(function(x)
        if count_run(dir, x) == 1 then os.exit(3) end
        return x
      end, numbers(4), {chunk = chunk})
      assert.are.same({1, 2, 3, 4, n = 4}, r)
    end
  end)

  it("when it dies too often loses that item alone", function()
    for _, chunk in ipairs{1, 3} do
      local server <close> = pp.Server{ncpus = 1, retries = 0}
      local r = server:map(function(x)
        if x == 2 then os.exit(3) end
        return x
      end, numbers(6), {chunk = chunk, on_error = "keep"})
      assert.are.equal("lost", r[2].kind)
      r[2] = 2
      assert.are.same({1, 2, 3, 4, 5, 6, n = 6}, r)
    end
  end)

  it("dies with kind 'lost' when the option says not to retry", function()
    local server <close> = pp.Server(1)
    local ok, err = pcall(server.map, server, function() os.exit(3) end, {1}, {retries = 0})
    assert.is_false(ok)
    assert.are.equal("lost", err.kind)
  end)
end)

describe("the options of map and imap", function()
  it("time each item", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs{1, 8, "auto"} do
      local r = server:map(function(x)
        if x == 3 then forever() end
        spin(0.04)
        return x
      end, numbers(12), {timeout = 0.4, on_error = "keep", chunk = chunk})
      assert.are.equal("timeout", r[3].kind)
      r[3] = 3
      assert.are.same(numbers(12), table.move(r, 1, 12, 1, {}))
    end
  end)

  it("raise a timeout, and stop the rest", function()
    local server <close> = pp.Server(2)
    local ok, err = pcall(server.map, server, forever, numbers(10), {timeout = 0.05})
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    assert.are.equal(0, server:pending())
  end)

  it("time each item also by the server's timeout", function()
    local server <close> = pp.Server{ncpus = 1, timeout = 0.5}
    local r = server:map(function(x)
      spin(0.1)
      return x
    end, numbers(8), {chunk = 8})
    assert.are.same(numbers(8), table.move(r, 1, 8, 1, {}))
  end)

  it("retry the errors of each item", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs{1, 10, "auto"} do
      local dir = run.directory()
      local function sometimes(x)
        local runs = count_run(dir, x)
        if x % 3 == 0 and runs < 3 or x == 7 then fail("no " .. runs) end
        return runs
      end
      local r = server:map(sometimes, numbers(10),
        {retry_errors = 2, on_error = "keep", chunk = chunk})
      for i = 1, 10 do
        if i == 7 then
          assert.are.equal("no 3", r[i].message)
        else
          assert.are.equal(i % 3 == 0 and 3 or 1, r[i])
        end
      end
      assert.are.equal("xxx", run.read(dir .. "/7"))
    end
  end)

  it("see captures fresh when an item is retried", function()
    local server <close> = pp.Server(1)
    local dir = run.directory()
    local seen = {n = 0}
    assert.are.same({1, 1, n = 2}, server:map(function(x)
      seen.n = seen.n + 1
      if count_run(dir, x) == 1 then fail("no") end
      return seen.n
    end, {1, 2}, {retry_errors = 1}))
  end)

  it("bound the memory of an item", function()
    local server <close> = pp.Server(1)
    local r = server:map(function(x)
      return #string.rep("x", x == 2 and 1 << 28 or 10)
    end, {1, 2, 3}, {memory = 64 << 20, on_error = "keep", chunk = 3})
    assert.are.equal(10, r[1])
    assert.are.equal("memory", r[2].kind)
    assert.are.equal(10, r[3])
  end)

  it("give names, functions and what is to be forgotten as submit does", function()
    local server <close> = pp.Server(1)
    local function f(x) return twice(x) end -- luacheck: ignore 113
    for _, key in ipairs{"deps", "depfuncs"} do
      assert.are.same({2, 4, n = 2}, server:map(f, {1, 2},
        {[key] = {twice = double}, name = "n", forget = true}))
    end
    assert.is_nil(server:pop(0))
  end)

  it("call back once for each item, its arguments first, in waiting calls alone", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local seen, calls = {}, 0
      local r = server:map(function(x) return x, nil, -x, nil end, numbers(20), {chunk = chunk,
        callback = function(...)
          local a = table.pack(...)
          calls = calls + 1
          assert(a.n == 6 and a[1] == "a" and a[2] == nil and a[4] == nil and a[6] == nil)
          assert(a[5] == -a[3] and not seen[a[3]])
          seen[a[3]] = true
        end, callbackargs = {"a", nil, n = 2}})
      assert.are.equal(20, calls)
      assert.are.same(numbers(20), {table.unpack(r)})
      assert.are.equal(20, r.n)
    end
  end)

  it("call back before imap hands the item out, and for no other", function()
    local server <close> = pp.Server(2)
    local last
    for i, x in server:imap(double, numbers(50), {callback = function(x) last = x end}) do
      assert.are.equal(x, last)
      assert.are.equal(2 * i, x)
      if i == 10 then break end
    end
    server:wait()
    assert.are.equal(20, last)
  end)

  it("call back with nil and the error for an item that failed", function()
    local server <close> = pp.Server(1)
    local function f(x)
      if x == 2 then error("no", 0) end
      return x
    end
    for _, chunk in ipairs(chunks) do
      local seen = {}
      local function note(x, err) seen[#seen + 1] = x or err.message end
      local options = {chunk = chunk, callback = note, on_error = "keep"}
      local r = server:map(f, numbers(3), options)
      assert.are.equal("no", r[2].message)
      assert.are.same({1, 3}, {r[1], r[3]})
      for _ in server:imap(f, numbers(3), options) do end -- luacheck: ignore 542
      assert.are.same({1, "no", 3, 1, "no", 3}, seen)
      seen = {}
      options.on_error = nil
      local ok, err = pcall(server.map, server, f, numbers(3), options)
      assert.is_false(ok)
      assert.are.equal("no", err.message)
      assert.are.equal("no", seen[#seen])
    end
  end)

  it("call back when the callback that is running has returned", function()
    local server <close> = pp.Server(1)
    local order = {}
    server:submit{id, callback = function()
      server:map(id, {1, 2}, {callback = function(x) order[#order + 1] = x end})
      order[#order + 1] = "outer"
    end}
    server:wait()
    assert.are.same({"outer", 1, 2}, order)
  end)

  it("raise what a callback raises", function()
    local server <close> = pp.Server(1)
    local options = {callback = function(x) if x == 2 then error("mine", 0) end end}
    local ok, err = pcall(server.map, server, id, numbers(5), options)
    assert.is_false(ok)
    assert.are.equal("mine", err)
    local step = server:imap(id, numbers(3), options)
    assert.are.equal(1, step())
    assert.are.same({false, "mine"}, {pcall(step)})
    assert.are.equal(3, step())
    assert.is_nil(step())
  end)

  it("are refused by name and type, at the caller's line", function()
    local server <close> = pp.Server(1)
    refuse{
      {function() server:map(id, {}, {chunks = 1}) end,
        "bad argument #3 to 'map' (unknown option 'chunks')"},
      {function() server:imap(id, {}, {chunks = 1}) end,
        "bad argument #3 to 'imap' (unknown option 'chunks')"},
      {function() server:map(id, {}, {[1] = 1}) end,
        "bad argument #3 to 'map' (unknown option '1')"},
      {function() server:map(id, {}, 5) end,
        "bad argument #3 to 'map' (options must be a table, got number)"},
      {function() server:imap(id, {}, "x") end,
        "bad argument #3 to 'imap' (options must be a table, got string)"},
      {function() server:map(id, {}, {ordered = 1}) end,
        "bad argument #3 to 'map' (ordered must be a boolean, got number)"},
      {function() server:map(id, {}, {spread = "x"}) end,
        "bad argument #3 to 'map' (spread must be a boolean, got string)"},
      {function() server:map(id, {}, {chunk = 0}) end,
        "bad argument #3 to 'map' (chunk must be 'auto' or an integer >= 1, got 0)"},
      {function() server:map(id, {}, {chunk = 1.5}) end,
        "bad argument #3 to 'map' (chunk must be 'auto' or an integer >= 1, got 1.5)"},
      {function() server:imap(id, {}, {buffer = 0}) end,
        "bad argument #3 to 'imap' (buffer must be an integer >= 1, got 0)"},
      {function() server:imap(id, {}, {on_error = "skip"}) end,
        "bad argument #3 to 'imap' (on_error must be 'raise' or 'keep', got skip)"},
    }
  end)

  it("may be floats where they are whole", function()
    local server <close> = pp.Server{ncpus = 1, retries = 1.0}
    assert.are.same({2, 3, n = 2},
      server:map(function(x) return x + 1 end, {1, 2, 9, n = 4 / 2}, {chunk = 4 / 2}))
    local sum = 0
    for _, x in server:imap(id, pp.range(1, 9), {buffer = 9 / 3, chunk = 1.0}) do
      sum = sum + x
    end
    assert.are.equal(45, sum)
    assert.are.equal("a\n", server:sh("echo a", {limit = 1e3})().stdout)
  end)

  it("that are submit's are refused likewise", function()
    local server <close> = pp.Server(1)
    refuse{
      {function() server:map(id, {}, {timeout = "x"}) end,
        "bad argument #3 to 'map' (timeout must be a number > 0, got string)"},
      {function() server:imap(id, {}, {retries = "x"}) end,
        "bad argument #3 to 'imap' (retries must be an integer >= 0, got string)"},
      {function() server:map(id, {}, {retry_errors = {}}) end,
        "bad argument #3 to 'map' (retry_errors must be an integer >= 0, got table)"},
      {function() server:map(id, {}, {group = {}}) end,
        "bad argument #3 to 'map' (group must be a string, got table)"},
      {function() server:map(id, {}, {globals = 1}) end,
        "bad argument #3 to 'map' (globals must be a table, got number)"},
      {function() server:map(id, {}, {deps = 1}) end,
        "bad argument #3 to 'map' (deps must be a table, got number)"},
      {function() server:map(id, {}, {timeout = -1}) end,
        "bad argument #3 to 'map' (timeout must be a number > 0, got -1)"},
      {function() server:map(id, {}, {callback = 1}) end,
        "bad argument #3 to 'map' (callback must be a function, got number)"},
      {function() server:imap(id, {}, {callbackargs = 1}) end,
        "bad argument #3 to 'imap' (callbackargs must be a table, got number)"},
      {function() server:imap(id, {}, {callbackargs = {n = -1}}) end,
        "bad argument #3 to 'imap' (callbackargs.n must be an integer >= 0)"},
      {function() server:map(id, {}, {name = 1}) end,
        "bad argument #3 to 'map' (name must be a string, got number)"},
      {function() server:map(id, {}, {forget = "x"}) end,
        "bad argument #3 to 'map' (forget must be a boolean, got string)"},
    }
  end)

  it("come after the function and the list, which are refused likewise", function()
    local server <close> = pp.Server(1)
    refuse{
      {function() server:map() end,
        "bad argument #1 to 'map' (func must be a function, got nil)"},
      {function() server:imap("f", {}) end,
        "bad argument #1 to 'imap' (func must be a function, got string)"},
      {function() server:map(id) end,
        "bad argument #2 to 'map' (list must be a table, got nil)"},
      {function() server:map(id, id) end,
        "bad argument #2 to 'map' (list must be a table, got function)"},
      {function() server:imap(id, "x") end,
        "bad argument #2 to 'imap' (source must be a table or a function, got string)"},
    }
    assert.are.equal(0, server:submit(id).id)
  end)

  it("and what cannot be captured are refused at the caller's line", function()
    local server <close> = pp.Server(1)
    local co = coroutine.create(id)
    local function f() return co end
    local line = debug.getinfo(1, "l").currentline + 1
    local ok, err = pcall(function() server:map(f, {1}) end)
    assert.is_false(ok)
    local info = debug.getinfo(f, "S")
    assert.are.equal(("%s:%d: "):format(info.short_src, line), err:match("^.-:%d+: "))
    assert.is_truthy(err:find("cannot send upvalue 'co' of function", 1, true), err)
    assert.is_truthy(err:find("coroutine", 1, true), err)
  end)

  it("and a closed server are refused at the caller's line", function()
    local server = pp.Server(1)
    server:destroy()
    refuse{
      {function() server:map(id, {1}) end, "attempt to use a closed server"},
      {function() server:imap(id, {1}) end, "attempt to use a closed server"},
      {function() server:pop() end, "attempt to use a closed server"},
      {function() server:drain() end, "attempt to use a closed server"},
      {function() server:pending() end, "attempt to use a closed server"},
    }
  end)

  it("and an item that cannot travel are refused by its place, at the caller's line",
    function()
      local server <close> = pp.Server(1)
      local list = numbers(100)
      list[57] = {conn = coroutine.create(id)}
      for _, chunk in ipairs{1, 10, "auto"} do
        local line = debug.getinfo(1, "l").currentline + 1
        local ok, err = pcall(function() server:map(id, list, {chunk = chunk}) end)
        assert.is_false(ok)
        err = tostring(err)
        assert.is_truthy(err:find("of item 57", 1, true), err)
        assert.is_truthy(err:find("coroutine", 1, true), err)
        assert.is_truthy(err:find("iterate_spec.lua:" .. line .. ": ", 1, true), err)
        assert.are.equal(0, server:pending())
      end
    end)
end)

describe("an item that fails", function()
  local function all_fields(e, server)
    assert.is_true(pp.is_error(e))
    assert.are.equal("error", e.kind)
    assert.are.equal("no", e.message)
    assert.are.equal("no", e.value)
    assert.are.equal("local", e.node)
    assert.are.equal("integer", math.type(e.worker))
    assert.are.equal("integer", math.type(e.job))
    assert.is_truthy(e.traceback:find("iterate_spec.lua", 1, true))
    assert.are.equal(1, (tostring(e):find("no\nstack traceback", 1, true)))
    assert.are.equal(0, server:pending())
  end

  it("has all fields of a job's error, raised or kept", function()
    local server <close> = pp.Server(1)
    local function f() fail("no") end
    for _, chunk in ipairs{1, 3} do
      local options = {chunk = chunk}
      all_fields(select(2, pcall(server.map, server, f, numbers(3), options)), server)
      local step = server:imap(f, numbers(3), options)
      all_fields(select(2, pcall(step)), server)
      options.on_error = "keep"
      all_fields(server:map(f, numbers(3), options)[3], server)
      options.callback = function() end
      all_fields(server:map(f, numbers(3), options)[2], server)
    end
  end)

  it("has the error of a job it waited for as its cause", function()
    local server <close> = pp.Server(2)
    local function f() return pp.Server():spawn(fail, "no")() end
    for _, on_error in ipairs{"raise", "keep"} do
      local ok, r = pcall(server.map, server, f, {1}, {on_error = on_error})
      local e = ok and r[1] or r
      assert.are.equal("no", e.cause.message)
      assert.are.equal("error", e.cause.kind)
    end
  end)

  it("counts the time it ran, and its children end with it", function()
    local server <close> = pp.Server(1)
    local dir = run.directory()
    local ok = pcall(server.map, server, function(path)
      os.execute("sleep 1000 & echo $! >" .. path .. "/pid")
      local stop = os.clock() + 0.02
      repeat until os.clock() > stop
      error("no")
    end, {dir})
    assert.is_false(ok)
    assert.is_true(server:get_stats()["local"].time >= 0.02)
    local pid = tonumber(run.read(dir .. "/pid"))
    assert.is_truthy(child.eventually(function() return not child.alive(pid) end))
  end)
end)

describe("imap", function()
  it("takes chunks for quick only where there is proof", function()
    -- One in 37 takes thousands of times as long as the others.
    local server <close> = pp.Server(2)
    local pulled = 0
    for x in server:imap(function(x)
      if x % 37 == 0 then pp.sleep(0.005) end
      return x
    end, function()
      pulled = pulled + 1
      return pulled
    end) do
      if x == 300 then break end
    end
    assert.is_true(pulled < 20000, pulled .. " items are under way")
  end)

  it("hands out index and result in order, from lists, ranges and functions", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local at = 0
      local function source()
        at = at + 1
        if at <= 50 then return at, "ignored" end
      end
      for _, s in ipairs{numbers(50), pp.range(1, 50), source} do
        local i = 0
        for k, r in server:imap(double, s, {chunk = chunk}) do
          i = i + 1
          assert.are.equal(i, k)
          assert.are.equal(2 * i, r)
        end
        assert.are.equal(50, i)
      end
    end
  end)

  it("of nothing is nothing", function()
    local server <close> = pp.Server(1)
    assert.are.equal(0, (gathered(server:imap(id, {}))))
    assert.are.equal(0, (gathered(server:imap(id, pp.range(2, 1)))))
    assert.are.equal(0, (gathered(server:imap(id, function() end))))
  end)

  it("gives all results after the index, nils too", function()
    local server <close> = pp.Server(2)
    local function some(x)
      if x == 1 then return end
      if x == 2 then return nil end
      if x == 3 then return nil, "b", nil end
      return table.unpack({}, 1, x)
    end
    for _, chunk in ipairs(chunks) do
      local step = server:imap(some, numbers(6), {chunk = chunk})
      assert.are.same({1, n = 1}, table.pack(step()))
      assert.are.same({2, nil, n = 2}, table.pack(step()))
      assert.are.same({3, nil, "b", nil, n = 4}, table.pack(step()))
      assert.are.same({4, n = 5}, table.pack(step()))
      assert.are.same({5, n = 6}, table.pack(step()))
      assert.are.same({6, n = 7}, table.pack(step()))
      assert.is_nil((step()))
      assert.is_nil((step()))
    end
  end)

  it("gives all results of items that bring functions along", function()
    local server <close> = pp.Server(1)
    local step = server:imap(function(f) return f() end,
      {function() return nil, 2, nil end, function() end})
    assert.are.same({1, nil, 2, nil, n = 4}, table.pack(step()))
    assert.are.same({2, n = 1}, table.pack(step()))
    assert.is_nil((step()))
  end)

  it("gives many results of many items", function()
    local server <close> = pp.Server(1)
    local n = 0
    for _, a, b in server:imap(function() return table.unpack(numbers(300)) end,
      pp.range(1, 500), {chunk = 500}) do
      n = n + a + b
    end
    assert.are.equal(1500, n)
  end)

  it("takes list.n items and nil items of a list", function()
    local server <close> = pp.Server(1)
    local n, got = gathered(server:imap(function(x) return tostring(x) end,
      {nil, false, nil, n = 3}))
    assert.are.equal(3, n)
    assert.are.same({"nil", "false", "nil"}, got)
  end)

  it("takes false from a function for an item", function()
    local server <close> = pp.Server(1)
    local items = {false, true, false}
    local at = 0
    local n, got = gathered(server:imap(id, function()
      at = at + 1
      return items[at]
    end))
    assert.are.equal(3, n)
    assert.are.same(items, got)
  end)

  it("does not ask a function again that has ended", function()
    local server <close> = pp.Server(2)
    local path = run.file("a\nb\nc\n")
    local n, got = gathered(server:imap(string.upper, io.lines(path)))
    assert.are.equal(3, n)
    assert.are.same({"A", "B", "C"}, got)
    n, got = gathered(server:imap(string.byte, ("x y z"):gmatch("%a")))
    assert.are.equal(3, n)
    assert.are.same({120, 121, 122}, got)
  end)

  it("spreads the items of a function", function()
    local server <close> = pp.Server(1)
    local at = 0
    local n, got = gathered(server:imap(function(a, b) return a - b end, function()
      at = at + 1
      if at <= 20 then return {at * 10, at} end
    end, {spread = true}))
    assert.are.equal(20, n)
    for i = 1, 20 do assert.are.equal(9 * i, got[i]) end
  end)

  it("keeps the order of items of mixed durations", function()
    local server <close> = pp.Server(2)
    local at = 0
    for i, r in server:imap(function(x)
      spin(x % 10 == 1 and 0.02 or x % 3 == 0 and 0.001 or 0)
      return -x
    end, pp.range(1, 200)) do
      at = at + 1
      assert.are.equal(at, i)
      assert.are.equal(-at, r)
    end
    assert.are.equal(200, at)
  end)

  it("unordered hands out each index once, as they end", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local path = gate.path
    local first, got, n = nil, {}, 0
    for i, r in server:imap(function(x)
      if x == 1 then io.open(path):close() end
      return x * 10
    end, numbers(100), {ordered = false}) do
      first = first or i
      gate:open()
      n = n + 1
      assert.is_nil(got[i])
      got[i] = r
    end
    assert.are_not.equal(1, first)
    assert.are.equal(100, n)
    for i = 1, 100 do assert.are.equal(10 * i, got[i]) end
  end)

  it("sees captures as they were at the call, whatever becomes of them", function()
    local server <close> = pp.Server(2)
    local seen = {n = 0}
    for _, chunk in ipairs(chunks) do
      local step = server:imap(function()
        seen.n = seen.n + 1
        return seen.n
      end, pp.range(1, 500), {chunk = chunk})
      seen.n = 100
      for _ = 1, 500 do
        local _, r = step()
        assert.are.equal(1, r)
      end
      seen.n = 0
    end
  end)

  it("left by break cancels what is under way", function()
    local server <close> = pp.Server(2)
    local source, pulled = naturals()
    for i, r in server:imap(function(x)
      if x > 3 then forever() end
      return x
    end, source) do
      assert.are.equal(i, r)
      if i == 3 then
        assert.is_true(server:pending() > 0)
        break
      end
    end
    assert.are.equal(0, server:pending())
    assert.is_true(pulled.n < 1000, "pulled " .. pulled.n)
    assert.are.equal("ok", server:submit(id, {"ok"})())
    local n = pulled.n
    server:wait()
    assert.are.equal(n, pulled.n)
  end)

  it("left by an error or a return cancels what is under way", function()
    local server <close> = pp.Server(2)
    local function late(x)
      if x > 1 then forever() end
      return x
    end
    local ok, err = pcall(function()
      for i in server:imap(late, (naturals())) do
        if i == 1 then error("enough", 0) end
      end
    end)
    assert.is_false(ok)
    assert.are.equal("enough", err)
    assert.are.equal(0, server:pending())
    local function leave()
      for i in server:imap(late, (naturals())) do
        if i == 1 then return i end
      end
    end
    assert.are.equal(1, leave())
    assert.are.equal(0, server:pending())
  end)

  it("closed by hand cancels what is under way", function()
    local server <close> = pp.Server(1)
    local step, state, control, closing = server:imap(function(x)
      if x > 1 then forever() end
      return x
    end, (naturals()))
    assert.is_nil(state)
    assert.is_nil(control)
    assert.are.equal(1, (step()))
    assert.is_true(server:pending() > 0)
    do
      local _ <close> = closing
    end
    assert.are.equal(0, server:pending())
    assert.is_nil((step()))
  end)

  it("has no more than `buffer` items taken and not handed out", function()
    local server <close> = pp.Server(2)
    for _, buffer in ipairs{1, 2, 5, 16, 100} do
      for _, chunk in ipairs{1, 3, 1000, "auto"} do
        local source, pulled = naturals()
        local most = 0
        for i in server:imap(id, source, {buffer = buffer, chunk = chunk}) do
          most = math.max(most, pulled.n - (i - 1))
          if i == 120 then break end
        end
        assert.is_true(most <= buffer, ("%d in flight, buffer %d"):format(most, buffer))
      end
    end
  end)

  it("has no more than `buffer` items taken while the first is not over", function()
    local server <close> = pp.Server(2)
    for _, ordered in ipairs{true, false} do
      local gate = child.gate()
      local path = gate.path
      local source, pulled = naturals()
      local seen = 0
      for i in server:imap(function(x)
        if x == 40 then io.open(path):close() end
        return x
      end, source, {buffer = 8, chunk = 1, ordered = ordered}) do
        seen = seen + 1
        assert.is_true(pulled.n - (seen - 1) <= 8)
        if seen == 39 then gate:open() end
        if i == 60 then break end
      end
      assert.are.equal(0, server:pending())
    end
  end)

  it("takes nothing from its source before the first step asks", function()
    local server <close> = pp.Server(1)
    local source, pulled = naturals()
    local step = server:imap(id, source, {buffer = 4})
    assert.is_true(pulled.n <= 4)
    assert.are.same({1, 1}, {step()})
    assert.is_true(pulled.n <= 4)
  end)

  it("raises an error at its turn, after what came before it", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local got, err = until_error(server, function(x)
        if x == 5 then error{code = x} end
        return x
      end, numbers(100), {chunk = chunk})
      assert.are.same({{1, 1}, {2, 2}, {3, 3}, {4, 4}}, got)
      assert.is_true(pp.is_error(err))
      assert.are.equal(5, err.value.code)
      assert.are.equal(0, server:pending())
    end
  end)

  it("raises that a result cannot travel at its turn", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local got, err = until_error(server, function(x)
        return x == 3 and coroutine.create(id) or x
      end, numbers(20), {chunk = chunk})
      assert.are.equal("unsendable", err.kind)
      assert.are.same({{1, 1}, {2, 2}}, got, "chunk " .. chunk)
    end
  end)

  it("raises that a worker was lost at its turn", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    for _, chunk in ipairs{1, 4} do
      local got, err = until_error(server, function(x)
        if x == 3 then os.exit(3) end
        return x
      end, numbers(20), {chunk = chunk})
      assert.are.equal("lost", err.kind)
      assert.are.same({{1, 1}, {2, 2}}, got, "chunk " .. chunk)
    end
  end)

  it("is over when it has raised", function()
    local server <close> = pp.Server(1)
    local step = server:imap(fail, {"no", "nor this"})
    assert.is_false(pcall(step))
    assert.is_nil((step()))
  end)

  it("with keep hands out errors in their places and goes on", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs(chunks) do
      local n, got = gathered(server:imap(function(x)
        if x % 3 == 0 then error({code = x}) end
        if x % 5 == 0 then return coroutine.create(id) end
        return x
      end, numbers(20), {on_error = "keep", chunk = chunk}))
      assert.are.equal(20, n)
      for i = 1, 20 do
        if i % 3 == 0 then
          assert.are.equal(i, got[i].value.code)
        elseif i % 5 == 0 then
          assert.are.equal("unsendable", got[i].kind)
        else
          assert.are.equal(i, got[i])
        end
      end
    end
  end)

  it("with keep hands out an error in place of all results of its item", function()
    local server <close> = pp.Server(1)
    local step = server:imap(function(x)
      if x == 1 then return 1, coroutine.create(id), 3 end
      return 1, 2, 3
    end, {1, 2}, {on_error = "keep", chunk = 2})
    local got = table.pack(step())
    assert.are.equal(2, got.n)
    assert.are.equal("unsendable", pp.is_error(got[2]) and got[2].kind)
    assert.are.same({2, 1, 2, 3}, {step()})
  end)

  it("raises an error of its source, and nothing is left under way", function()
    local server <close> = pp.Server(2)
    local at = 0
    local ok, err = pcall(function()
      for _ in server:imap(id, function()
        at = at + 1
        if at == 50 then error("source broke", 0) end
        return at
      end) do assert.is_true(at <= 50) end
    end)
    assert.is_false(ok)
    assert.are.equal("source broke", err)
    assert.are.equal(0, server:pending())
    assert.are.equal(50, at)
  end)

  it("takes a source that itself waits for jobs", function()
    local server <close> = pp.Server(2)
    local at = 0
    local n, got = gathered(server:imap(double, function()
      at = at + 1
      if at <= 20 then return server:submit(double, {at})() end
    end))
    assert.are.equal(20, n)
    for i = 1, 20 do assert.are.equal(4 * i, got[i]) end
  end)

  it("takes another imap for its source", function()
    local server <close> = pp.Server(2)
    local inner = server:imap(double, pp.range(1, 100))
    local n, got = gathered(server:imap(double, function()
      local _, r = inner()
      return r
    end))
    assert.are.equal(100, n)
    for i = 1, 100 do assert.are.equal(4 * i, got[i]) end
  end)

  it("may run inside another on the same server", function()
    local server <close> = pp.Server(2)
    local sum = 0
    for i, a in server:imap(double, pp.range(1, 12)) do
      for k, b in server:imap(function(x) return x + a end, pp.range(1, i)) do
        assert.are.equal(k + 2 * i, b)
        sum = sum + 1
      end
      assert.are.equal(3, server:map(id, {1, 2, 3})[3])
    end
    assert.are.equal(78, sum)
    assert.are.equal(0, server:pending())
  end)

  it("may be interleaved with another", function()
    local server <close> = pp.Server(2)
    local a = server:imap(double, pp.range(1, 100))
    local b = server:imap(function(x) return -x end, (naturals()), {buffer = 10})
    for k = 1, 100 do
      local i, r = a()
      local j, s = b()
      assert.are.same({k, 2 * k, k, -k}, {i, r, j, s})
    end
    assert.is_nil((a()))
  end)

  it("abandoned and collected does no harm", function()
    local server <close> = pp.Server(2)
    for _ = 1, 20 do
      local step = server:imap(double, (naturals()))
      for i = 1, 3 do assert.are.same({i, 2 * i}, {step()}) end
    end
    collectgarbage()
    collectgarbage()
    assert.are.equal("ok", server:submit(id, {"ok"})())
    assert.is_true(server:wait(child.patience))
    assert.are.equal(0, server:pending())
    assert.is_nil(server:pop(0))
    assert.are.equal(100, server:map(id, pp.range(1, 100))[100])
  end)

  it("raises in its turn when the server is destroyed in the loop", function()
    local server = pp.Server(1)
    local ok, err = pcall(function()
      for i in server:imap(id, (naturals())) do
        if i == 3 then server:destroy() end
        assert.is_true(i < 10000)
      end
    end)
    assert.is_false(ok)
    assert.is_truthy(pp.is_error(err) and err.kind == "destroyed"
      or tostring(err):find("closed server", 1, true), tostring(err))
  end)

  it("is a waiting call at each step: callbacks run", function()
    local server <close> = pp.Server(1)
    for _, chunk in ipairs{1, 3} do
      local ran = 0
      local function submit()
        local job = server:submit{id, callback = function() ran = ran + 1 end}
        assert.is_truthy(child.eventually(ended(job)))
      end
      submit()
      for i in server:imap(id, numbers(3), {chunk = chunk}) do
        assert.are.equal(i, ran, "chunk " .. chunk)
        submit()
        assert.are.equal(i, ran)
      end
    end
  end)

  it("passes 400,000 items of a function in flat memory", function()
    local server <close> = pp.Server(2)
    local at, sum, base, most = 0, 0, nil, 0
    for i, r in server:imap(function(s) return s .. "!", #s end, function()
      at = at + 1
      if at <= 400000 then return ("%09d"):format(at) end
    end) do
      sum = sum + #r
      if i % 40000 == 0 then
        collectgarbage()
        collectgarbage()
        base = base or collectgarbage("count")
        most = math.max(most, collectgarbage("count") - base)
      end
    end
    assert.are.equal(4000000, sum)
    assert.are.equal(400000, server:get_stats()["local"].njobs)
    -- Kept, items and results would be some 35 MiB; how much is on its way at a
    -- look depends on how fast they go.
    assert.is_true(most < 8192, ("%.0f KiB more"):format(most))
  end)
end)

describe("completed", function()
  it("takes jobs of other servers", function()
    local server <close> = pp.Server(1)
    local other <close> = pp.Server(1)
    local gate = child.gate()
    local list = {other:submit(pass, {gate.path, "theirs"}), server:submit(id, {"ours"})}
    local got = {}
    for job in server:completed(list, child.patience) do
      got[#got + 1] = job()
      gate:open()
    end
    assert.are.same({"ours", "theirs"}, got)
  end)

  it("hands out the very handles of a list as they end", function()
    local slow, slower = child.gate(), child.gate()
    local server <close> = pp.Server(3)
    local a = server:submit(pass, {slower.path, "a"})
    local b = server:submit(pass, {slow.path, "b"})
    local c = server:submit(id, {"c"})
    local order = {}
    for job in server:completed{a, b, c} do
      assert.is_true(job.finished)
      order[#order + 1] = job
      if #order == 1 then slow:open() else slower:open() end
    end
    assert.are.equal(3, #order)
    assert.is_true(rawequal(order[1], c) and rawequal(order[2], b)
      and rawequal(order[3], a))
  end)

  it("hands out each job of a list once, asked or not, and changes no list", function()
    local server <close> = pp.Server(2)
    local jobs, seen = {}, {}
    for i = 1, 200 do jobs[i] = server:submit(id, {i}) end
    assert.are.equal(7, jobs[7]())
    local n = 0
    for job in server:completed(jobs) do
      assert.is_nil(seen[job])
      seen[job] = job()
      n = n + 1
    end
    assert.are.equal(200, n)
    assert.are.equal(200, #jobs)
    for i = 1, 200 do assert.are.equal(i, seen[jobs[i]]) end
  end)

  it("hands out failed and cancelled jobs and does not raise", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local held = server:submit(pass, {gate.path})
    local jobs = {server:submit(fail, {"no"}), server:submit(id)}
    jobs[2]:cancel()
    gate:open()
    local kinds = {}
    for job in server:completed(jobs) do
      local ok, err = job:pcall()
      assert.is_false(ok)
      kinds[#kinds + 1] = err.kind
    end
    assert.are.same({"cancelled", "error"}, kinds)
    held()
  end)

  it("counts what it hands out as taken", function()
    local server <close> = pp.Server(1)
    local a, b = server:submit(id), server:submit(id)
    for job in server:completed{a} do assert.are.equal(a, job) end
    assert.is_true(rawequal(b, server:pop()))
    assert.is_nil(server:pop())
  end)

  it("of an empty list, or with nothing pending, is nothing", function()
    local server <close> = pp.Server(1)
    for _ in server:completed{} do error("no") end
    for _ in server:completed() do error("no") end
    for _ in server:completed(0) do error("no") end
    server:submit(id)()
    for _ in server:completed() do error("no") end
  end)

  it("without a list hands out all not yet taken or asked", function()
    local server <close> = pp.Server(2)
    local jobs, mine = {}, {}
    for i = 1, 50 do
      jobs[i] = server:submit(id, {i})
      mine[jobs[i]] = i
    end
    assert.are.equal(1, jobs[1]())
    server:submit{id, callback = id}
    local n = 0
    for job in server:completed() do
      assert.are.equal(mine[job], job())
      mine[job] = nil
      n = n + 1
    end
    assert.are.equal(49, n)
    assert.are.equal(1, mine[jobs[1]])
  end)

  it("without a list hands out jobs submitted in the loop too", function()
    local server <close> = pp.Server(1)
    server:submit(id, {5})
    local sum = 0
    for job in server:completed() do
      local x = job()
      sum = sum + x
      if x > 1 then server:submit(id, {x - 1}) end
    end
    assert.are.equal(15, sum)
  end)

  it("ends when a step's time is up", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local held = server:submit(pass, {gate.path})
    local quick = server:submit(id)
    assert.is_truthy(child.eventually(ended(quick)))
    for _, timeout in ipairs{0, 0.02} do
      local n = 0
      for job in server:completed({held, quick}, timeout) do
        assert.is_true(rawequal(quick, job))
        n = n + 1
      end
      assert.are.equal(1, n)
    end
    local other = server:submit(id)
    assert.is_truthy(child.eventually(ended(other)))
    local got = {}
    for job in server:completed(0) do got[#got + 1] = job end
    assert.is_true(#got == 1 and rawequal(other, got[1]))
    for _ in server:completed(nil, 0.01) do error("no") end
    gate:open()
    for job in server:completed({held}, child.patience) do
      assert.is_true(rawequal(held, job))
    end
  end)

  it("is a waiting call at each step: callbacks run", function()
    local server <close> = pp.Server(1)
    local ran = false
    local job = server:submit{id, callback = function() ran = true end}
    local plain = server:submit(id)
    assert.is_truthy(child.eventually(ended(plain)))
    assert.is_true(job.finished)
    for _ in server:completed{plain} do assert.is_true(ran) end
    assert.is_true(ran)
  end)

  it("refuses what is no list of jobs and no time, at the caller's line", function()
    local server <close> = pp.Server(1)
    refuse{
      {function() server:completed("x") end,
        "bad argument #1 to 'completed' (jobs must be a table, got string)"},
      {function() server:completed({}, "x") end,
        "bad argument #2 to 'completed' (timeout must be a number >= 0, got x)"},
      {function() server:completed(-1) end,
        "bad argument #1 to 'completed' (timeout must be a number >= 0, got -1)"},
    }
    local ok, err = pcall(function()
      for _ in server:completed{1} do error("no") end
    end)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("iterate_spec.lua", 1, true), tostring(err))
    assert.is_truthy(tostring(err):find("'completed'", 1, true), tostring(err))
  end)
end)

describe("pop", function()
  it("takes the very handles in the order in which jobs ended", function()
    local server <close> = pp.Server(1)
    local jobs = {}
    for i = 1, 20 do jobs[i] = server:submit(id, {i}) end
    for i = 1, 20 do assert.is_true(rawequal(jobs[i], server:pop())) end
    assert.is_nil(server:pop())
  end)

  it("is nil when nothing is pending", function()
    local server <close> = pp.Server(1)
    assert.is_nil(server:pop())
    assert.is_nil(server:pop(0))
    assert.is_nil(server:pop(child.patience))
  end)

  it("only looks, or waits so long, while jobs run", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local job = server:submit(pass, {gate.path})
    assert.is_nil(server:pop(0))
    assert.is_nil(server:pop(0.02))
    gate:open()
    assert.is_true(rawequal(job, server:pop(child.patience)))
    assert.is_nil(server:pop(0))
  end)

  it("leaves out jobs that were asked or had a callback", function()
    local server <close> = pp.Server(1)
    server:submit(id)()
    server:submit(fail, {"no"}):pcall()
    server:submit{id, callback = id}
    local job = server:submit(id)
    assert.is_true(rawequal(job, server:pop()))
    assert.is_nil(server:pop())
  end)

  it("takes failed jobs too", function()
    local server <close> = pp.Server(1)
    local job = server:submit(fail, {"no"})
    assert.is_true(rawequal(job, server:pop()))
    assert.are.equal("failed", job.status)
    local ok, err = job:pcall()
    assert.is_false(ok)
    assert.are.equal("no", err.message)
  end)

  it("takes jobs whose handles were dropped", function()
    local server <close> = pp.Server(1)
    local Point = {unit = "m"}
    Point.__index = Point
    for i = 1, 10 do
      server:submit(function(x) return setmetatable({x = x}, Point) end, {i})
    end
    server:wait()
    collectgarbage()
    collectgarbage()
    for i = 1, 10 do
      local job = server:pop()
      assert.are.equal(i - 1, job.id)
      assert.are.equal(i, job().x)
      assert.is_true(getmetatable(job()) == Point)
    end
    assert.is_nil(server:pop())
  end)

  it("leaves the items of a map alone", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id)
    server:map(id, numbers(100))
    for i in server:imap(id, numbers(100)) do
      if i == 1 then break end
    end
    assert.is_true(rawequal(job, server:pop()))
    assert.is_nil(server:pop())
  end)

  it("refuses what is no time, at the caller's line", function()
    local server <close> = pp.Server(1)
    refuse{
      {function() server:pop(-1) end,
        "bad argument #1 to 'pop' (seconds must not be negative)"},
      {function() server:pop("x") end,
        "bad argument #1 to 'pop' (number expected, got string)"},
    }
  end)
end)

describe("drain", function()
  it("lists all jobs as they ended when there is no deadline", function()
    local server <close> = pp.Server(1)
    local jobs = {}
    for i = 1, 100 do jobs[i] = server:submit(id, {i}) end
    assert.are.equal(3, jobs[3]())
    local list = server:drain()
    assert.are.equal(99, #list)
    table.remove(jobs, 3)
    for i = 1, 99 do assert.is_true(rawequal(jobs[i], list[i])) end
    assert.are.same({}, server:drain())
  end)

  it("lists those that end before one overall deadline", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local held = server:submit(pass, {gate.path})
    for _, timeout in ipairs{0, 0.03} do
      local quick = {}
      for i = 1, 10 do quick[i] = server:submit(id, {i}) end
      for i = 1, 10 do assert.is_truthy(child.eventually(ended(quick[i]))) end
      local list = server:drain(timeout)
      assert.are.equal(10, #list)
      local values = {}
      for _, job in ipairs(list) do values[job()] = job end
      for i = 1, 10 do assert.is_true(rawequal(quick[i], values[i])) end
    end
    assert.are.same({}, server:drain(0.01))
    gate:open()
    local list = server:drain(child.patience)
    assert.is_true(#list == 1 and rawequal(held, list[1]))
  end)

  it("refuses what is no time, at the caller's line", function()
    local server <close> = pp.Server(1)
    for _, bad in ipairs{"x", -1, {}} do
      local line = debug.getinfo(1, "l").currentline + 1
      local ok, err = pcall(function() server:drain(bad) end)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("iterate_spec.lua:" .. line
        .. ": bad argument #1 to 'drain' (", 1, true), tostring(err))
    end
  end)
end)

describe("first", function()
  it("says nothing of losers that had failed by then", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local good = server:spawn(type, 1)
      local bad = server:spawn(error, "too late")
      bad:wait()
      print(server:first{good, bad})
    ]])
    assert.are.same({0, "number\n", ""}, {r.status, r.out, r.err})
  end)

  it("gives all results of the first to succeed and cancels the others", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local held = server:submit(pass, {gate.path})
    local queued = {}
    local win = server:submit(id, {nil, "won", nil, n = 3})
    for i = 1, 5 do queued[i] = server:submit(pass, {gate.path}) end
    local jobs = {held, win, table.unpack(queued)}
    assert.are.same({nil, "won", nil, n = 3}, table.pack(server:first(jobs)))
    assert.are.equal(0, server:pending())
    assert.are.equal("done", win.status)
    for _, job in ipairs{held, table.unpack(queued)} do
      local ok, err = job:pcall()
      assert.is_false(ok)
      assert.are.equal("cancelled", err.kind)
    end
    assert.are.equal("ok", server:submit(id, {"ok"})())
  end)

  it("passes over those that fail", function()
    local server <close> = pp.Server(1)
    local jobs = {server:submit(fail, {"no"}), server:submit(fail, {"nor"}),
      server:submit(id, {"yes"})}
    assert.are.equal("yes", server:first(jobs))
  end)

  it("raises the last error when all fail", function()
    local server <close> = pp.Server(1)
    local jobs = {server:submit(fail, {"one"}), server:submit(fail, {"two"})}
    local ok, err = pcall(server.first, server, jobs)
    assert.is_false(ok)
    assert.is_true(pp.is_error(err))
    assert.are.equal("two", err.message)
    assert.are.equal(err, select(2, jobs[2]:pcall()))
  end)

  it("takes a job that ended long ago", function()
    local server <close> = pp.Server(1)
    local job = server:submit(id, {"old"})
    job()
    assert.are.equal("old", server:first{job})
  end)

  it("leaves nothing that the program would report", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      print(server:first{
        server:submit(function() while true do end end),
        server:submit(function() error "no" end),
        server:submit(function() return "yes" end),
        server:submit(function() while true do end end),
      })
    ]])
    assert.are.equal("", r.err)
    assert.are.equal("yes\n", r.out)
    assert.are.equal(0, r.status)
  end)

  it("refuses what is no list of jobs, at the caller's line", function()
    local server <close> = pp.Server(1)
    refuse{
      {function() server:first() end,
        "bad argument #1 to 'first' (jobs must be a list of jobs)"},
      {function() server:first{} end,
        "bad argument #1 to 'first' (jobs must be a list of jobs)"},
      {function() server:first("x") end,
        "bad argument #1 to 'first' (jobs must be a list of jobs)"},
      {function() server:first{1} end,
        "bad argument #1 to 'first' (jobs must be a list of jobs)"},
    }
  end)
end)

describe("pending", function()
  it("counts the jobs that have not ended", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    assert.are.equal(0, server:pending())
    local jobs = {}
    for i = 1, 10 do jobs[i] = server:submit(pass, {gate.path}) end
    assert.are.equal(10, server:pending())
    jobs[10]:cancel()
    assert.are.equal(9, server:pending())
    gate:open()
    assert.is_truthy(child.eventually(function() return server:pending() == 0 end))
    for i = 1, 9 do assert.is_true(jobs[i].finished) end
  end)

  it("counts failed jobs as ended, taken or not", function()
    local server <close> = pp.Server(1)
    local job = server:submit(fail, {"no"})
    server:wait()
    assert.are.equal(0, server:pending())
    assert.is_false(job:pcall())
  end)
end)

describe("Ctrl-C while the library waits", function()
  for name, call in pairs {
    map = "server:map(job, {1, 2})",
    imap = "for _ in server:imap(job, {1, 2}) do end",
    completed = "server:submit(job) for _ in server:completed() do end",
    drain = "server:submit(job) server:drain(1000)",
    first = "server:first{server:submit(job)}",
    ["pp.progress"] = "pp.progress{server:submit(job)}",
  } do
    it("is an error at the line that called " .. name, function()
      local p = child.start(([[
        local pp = require "pp"
        local server = pp.Server(1)
        local function job() print "begun" pp.sleep(1000) end
        print(pcall(function()
          %s
        end))
      ]]):format(call))
      p:expect "begun\n"
      assert.is_truthy(child.eventually(function() return run.state(p.pid) == "S" end))
      p:kill "INT"
      local r = child.finish(p)
      assert.are.equal("begun\nfalse\t" .. r.script .. ":5: interrupted!\n", r.out, r.err)
    end)
  end
end)

describe("pp.range", function()
  it("is what a numeric for passes through", function()
    local ranges = {
      {1, 10}, {1, 10, 3}, {1, 9, 4}, {3, 1}, {3, 1, -1}, {10, 1, -4}, {-3, 3}, {5, 5},
      {1, 3.5}, {1.5, 4}, {0, 1, 0.25}, {1, 0, -0.5}, {-1, 1, 0.5}, {2.0, 4.0},
      {1, 2, 5}, {1, 0, 5}, {1 << 60, (1 << 60) + 2}, {-5, -10, -2},
      {math.maxinteger - 2, math.maxinteger}, {math.mininteger + 2, math.mininteger, -1},
    }
    for _, r in ipairs(ranges) do
      local name = table.concat(r, ", ")
      local list, n = pp.range(r[1], r[2], r[3]), 0
      for v in coroutine.wrap(function()
        for v = r[1], r[2], r[3] or 1 do coroutine.yield(v) end
      end) do
        n = n + 1
        assert.are.equal(v, list[n], name)
        assert.are.equal(math.type(v), math.type(list[n]), name)
      end
      assert.are.equal(n, #list, name)
      assert.is_nil(list[n + 1], name)
    end
  end)

  it("is nil out of range and for what is no index", function()
    local r = pp.range(5, 8)
    assert.are.equal(4, #r)
    assert.are.equal(5, r[1])
    assert.are.equal(8, r[4])
    for _, k in ipairs{0, -1, 5, 1.5, "1", "x", true, math.mininteger, math.maxinteger} do
      assert.is_nil(r[k])
    end
    assert.is_nil(pp.range(2, 1)[1])
  end)

  it("may be left while results are arriving", function()
    for _ = 1, 40 do
      local server <close> = pp.Server(1)
      for i in server:imap(double, pp.range(1, 1 << 62)) do
        if i == 100 then break end
      end
      assert.are.equal(0, server:pending())
    end
  end)

  it("is never built", function()
    local r = pp.range(1, 1 << 62)
    assert.are.equal(1 << 62, #r)
    assert.are.equal(1 << 61, r[1 << 61])
    local server <close> = pp.Server(1)
    for i, x in server:imap(double, r) do
      assert.are.equal(2 * i, x)
      if i == 100 then break end
    end
    assert.are.equal(0, server:pending())
  end)

  it("works with ipairs", function()
    local sum = 0
    for i, v in ipairs(pp.range(10, 30, 10)) do sum = sum + i * v end
    assert.are.equal(140, sum)
  end)

  it("refuses what is no number and a step of 0, at the caller's line", function()
    refuse{
      {function() local _ = pp.range() end,
        "bad argument #1 to 'range' (a number expected, got nil)"},
      {function() local _ = pp.range(1) end,
        "bad argument #2 to 'range' (a number expected, got nil)"},
      {function() local _ = pp.range("1", 2) end,
        "bad argument #1 to 'range' (a number expected, got string)"},
      {function() local _ = pp.range(1, {}) end,
        "bad argument #2 to 'range' (a number expected, got table)"},
      {function() local _ = pp.range(nil, 2) end,
        "bad argument #1 to 'range' (a number expected, got nil)"},
      {function() local _ = pp.range(1, 2, "x") end,
        "bad argument #3 to 'range' (a number expected, got string)"},
      {function() local _ = pp.range(1, 2, 0) end,
        "bad argument #3 to 'range' (step is zero)"},
      {function() local _ = pp.range(1, 2, 0.0) end,
        "bad argument #3 to 'range' (step is zero)"},
    }
  end)
end)
