-- SPDX-License-Identifier: MIT
-- What travels: values there and back, and what is refused.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function id(...) return ... end

--- The values after a journey to a worker and back.
local function there_and_back(...)
  local server <close> = pp.Server(1)
  return server:submit(id, table.pack(...))()
end

--- What f says of the values in a worker.
local function there(f, ...)
  local server <close> = pp.Server(1)
  return server:submit(f, table.pack(...))()
end

--- The refusal of a submit, as text.
local function refused(f, args)
  local server <close> = pp.Server(1)
  local ok, err = pcall(server.submit, server, f, args)
  assert.is_false(ok)
  assert.is_true(server:wait()) -- nothing was submitted
  assert.are.equal(0, server:submit(id).id)
  return tostring(err)
end

after_each(child.clean)

describe("numbers, booleans and nil", function()
  it("arrive exactly, integers as integers and floats as floats", function()
    local values = {0, 1, -1, 127, 128, -128, 255, 256, 65536, 2^31 | 0,
      -(2^31 | 0), 2^53 | 0, (2^53 | 0) + 1, math.maxinteger, math.mininteger,
      0.0, 1.0, -1.0, 0.1, 1/3, 2^53, 2^63, -2^63, 1e308, 5e-324, -5e-324,
      1/0, -1/0, true, false}
    local back = there_and_back(values)
    assert.are.equal(#values, #back)
    for i, value in ipairs(values) do
      assert.are.equal(value, back[i])
      assert.are.equal(math.type(value), math.type(back[i]), tostring(value))
    end
  end)

  it("keep the sign of zero and not being a number", function()
    local negative, positive, nan = there_and_back(-0.0, 0.0, 0/0)
    assert.are.equal(-1/0, 1 / negative)
    assert.are.equal(1/0, 1 / positive)
    assert.are_not.equal(nan, nan)
    assert.are.equal("float", math.type(nan))
  end)

  it("keep nils where they are", function()
    assert.are.same({nil, nil, 1, nil, n = 4},
      table.pack(there_and_back(nil, nil, 1, nil)))
  end)

  it("keep every bit of many integers", function()
    local list = {}
    for i = 0, 63 do
      list[#list + 1] = 1 << i
      list[#list + 1] = (1 << i) - 1
      list[#list + 1] = -(1 << i)
    end
    assert.are.same(list, there_and_back(list))
  end)
end)

--- Are two numbers the same bits of the same subtype?
local function same_number(a, b)
  return math.type(a) == math.type(b) and type(a) == "number" and type(b) == "number"
    and string.pack(math.type(a) == "integer" and "j" or "n", a)
      == string.pack(math.type(b) == "integer" and "j" or "n", b)
end

--- Raise where two lists of numbers and other plain values differ.
local function check_list(expected, got, what)
  for i = 1, math.max(#expected, #got) do
    local a, b = expected[i], got[i]
    if not (a == b and math.type(a) == math.type(b)) and not same_number(a, b) then
      error(("%s: value %d of %d is %s, not %s"):format(what, i, #expected,
        tostring(b), tostring(a)))
    end
  end
end

local nan, minus_nan = 0/0, -(0/0)

describe("runs of numbers", function()
  local runs = {
    bytes = {}, shorts = {}, words = {}, longs = {}, floats = {}, whole_floats = {},
    edges = {127, 128, -128, -129, 32767, 32768, -32768, -32769, (1 << 31) - 1, 1 << 31,
      -(1 << 31), -(1 << 31) - 1, math.maxinteger, math.mininteger, 0, -1},
    odd_floats = {nan, minus_nan, -0.0, 0.0, 1/0, -1/0, 5e-324, 2^53, -2^63, nan, -0.0},
    least = {}, most = {}, three = {1, 2, 3}, four = {1, 2, 3, 4}, one = {1}, one_float = {0.5},
  }
  for i = 1, 3000 do
    runs.bytes[i] = i % 256 - 128
    runs.shorts[i] = (i * 37) % 65536 - 32768
    runs.words[i] = i * 700001 - (1 << 30)
    runs.longs[i] = i * 0x9e3779b97f4a7c15
    runs.floats[i] = i / 7 - 100
    runs.whole_floats[i] = i + 0.0
    runs.least[i], runs.most[i] = math.mininteger, math.maxinteger
  end
  local alternating, broken, halves, narrow_wide = {}, {}, {}, {}
  for i = 1, 2000 do
    alternating[i] = i % 2 == 0 and i or i + 0.5
    broken[i] = i % 100 == 0 and "stop" or i % 101 == 0 and (i % 2 == 0) or i
    halves[i] = i <= 1000 and i or i / 3
    narrow_wide[i] = i % 513 == 0 and math.mininteger or i % 100
  end
  runs.alternating, runs.broken, runs.halves, runs.narrow_wide =
    alternating, broken, halves, narrow_wide
  for _, n in ipairs{5, 511, 512, 513, 1023, 1024, 1025} do
    local ints, floats = {}, {}
    for i = 1, n do ints[i], floats[i] = i * i * i, i / 3 end
    runs["ints " .. n], runs["floats " .. n] = ints, floats
  end

  it("arrive exactly in a list, in its fields, and in lists in lists", function()
    local server <close> = pp.Server(1)
    for name, list in pairs(runs) do
      check_list(list, server:submit(id, {list})(), name)
      local back = server:submit(id, {{{list, n = #list, x = {y = list}}, "end", {list, list}}})()
      check_list(list, back[1][1], name)
      check_list(list, back[1].x.y, name)
      check_list(list, back[3][2], name)
      assert.are.equal(#list, back[1].n)
      assert.are.equal("end", back[2])
      assert.are.equal(back[3][1], back[3][2])
    end
  end)

  it("arrive exactly as arguments and results", function()
    local server <close> = pp.Server(1)
    for name, list in pairs(runs) do
      check_list(list, table.pack(server:submit(id, list)()), name)
      local back = table.pack(server:submit(id, {{}, table.unpack(list)})())
      table.remove(back, 1)
      check_list(list, back, name)
    end
  end)

  it("arrive exactly as items and results of map and imap", function()
    local server <close> = pp.Server(2)
    for name, list in pairs(runs) do
      check_list(list, server:map(id, list), name)
      check_list(list, server:map(function(x) return x end, list, {chunk = 64}), name)
      for i, r in server:imap(id, list) do
        if not (list[i] == r and math.type(list[i]) == math.type(r)) then
          assert.is_true(same_number(list[i], r), name)
        end
      end
    end
  end)

  it("keep holes, fields and keys beside them", function()
    local t = {1, 2, 3, 4, 5, nil, 7, 8, 9, 10, 11, 12, n = 12, [2^40] = 5, ["13"] = "text"}
    for i = 20, 40 do t[i] = i / 2 end
    t[-1], t[0], t[1.5] = "minus", "zero", "half"
    local back = there_and_back(t)
    assert.are.same(t, back)
    local hashed = {} -- all of it where Lua keeps what is no list
    for i = 600, 1, -1 do hashed[i] = i end
    hashed.name = "x"
    assert.are.same(hashed, there_and_back(hashed))
    for _, k in ipairs{"a", "b", "c", "d", "e", "f", "g"} do hashed[k] = k end
    for i = 601, 700 do hashed[i] = i + 0.5 end
    for i = 650, 700 do hashed[i] = nil end
    hashed["1"], hashed["601"] = "one", "other"
    assert.are.same(hashed, there_and_back(hashed))
    local list = {}
    for i = 1, 100 do list[i] = i end
    for i = 1, 100, 3 do list[i] = nil end
    assert.are.same(list, there_and_back(list))
  end)

  it("take about the bytes of their numbers", function()
    local server <close> = pp.Server(1)
    for name, most in pairs{bytes = 1.1, shorts = 2.1, words = 4.1, longs = 8.1, floats = 8.1} do
      local job = server:submit(id, {runs[name]})
      job()
      assert.is_true(job.bytes.received < 3000 * most + 200, name .. " " .. job.bytes.received)
      assert.is_true(job.bytes.sent < 3000 * most + 400, name .. " " .. job.bytes.sent)
    end
  end)

  it("arrive whatever the mixture", function()
    local server <close> = pp.Server(2)
    local random = 12345
    local function roll(n)
      random = (random * 6364136223846793005 + 1442695040888963407) & math.maxinteger
      return (random >> 20) % n + 1
    end
    local makers = {
      function() return roll(100) end, function() return -roll(1 << 20) end,
      function() return roll(1 << 40) << 20 end, function() return roll(1000) / 8 end,
      function() return roll(10) + 0.0 end, function() return nan end, function() return -0.0 end,
      function() return "s" .. roll(10) end, function() return roll(2) == 1 end,
      function() return ("long"):rep(20) .. roll(3) end,
    }
    for _ = 1, 60 do
      local list, make = {}, makers[1]
      for i = 1, roll(1500) do
        if roll(40) == 1 or roll(8) == 1 and roll(3) == 1 then make = makers[roll(#makers)] end
        list[i] = make()
      end
      check_list(list, server:submit(id, {list})(), "list")
      check_list(list, server:map(id, list), "map")
    end
  end)
end)

describe("strings", function()
  it("arrive with any bytes in them", function()
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    all = table.concat(all)
    assert.are.equal("", (there_and_back("")))
    assert.are.equal("\0", (there_and_back("\0")))
    assert.are.equal(all, (there_and_back(all)))
    assert.are.equal(all:rep(100), (there_and_back(all:rep(100))))
  end)

  it("arrive at any size", function()
    for _, size in ipairs{39, 40, 41, 127, 128, 255, 256, 4095, 4096, 65535,
      65536, 1 << 20, 32 << 20} do
      local text = ("0123456789abcdef"):rep(size // 16 + 1):sub(1, size)
      assert.is_true(text == there_and_back(text), size)
    end
  end)

  it("arrive by the thousand in one job", function()
    local list = {}
    for i = 1, 20000 do list[i] = ("%d-%s"):format(i, ("x"):rep(i % 50)) end
    local back = there_and_back(list)
    for i = 1, 20000 do
      if list[i] ~= back[i] then error("string " .. i .. " differs") end
    end
  end)
end)

describe("tables", function()
  it("arrive with lists, fields, holes and keys of any type", function()
    local t = {1, nil, 3, name = "x", [0] = "zero", [-1] = "minus", [1.5] = 2,
      [true] = "yes", [false] = "no", [2^53] = "big", [""] = "empty",
      [math.mininteger] = "least"}
    assert.are.same(t, there_and_back(t))
    assert.are.same({}, there_and_back({}))
    assert.are.same({{}, {{}}, {a = {b = {c = {}}}}},
      there_and_back({{}, {{}}, {a = {b = {c = {}}}}}))
  end)

  it("may be keys", function()
    local key = {"key"}
    local back_key, back = there_and_back(key, {[key] = "value"})
    assert.are.equal("value", back[back_key])
    local self = {}
    self[self] = self
    back = there_and_back(self)
    assert.is_true(rawequal(back, back[back]))
  end)

  it("of a million elements arrive", function()
    local list = {}
    for i = 1, 1000000 do list[i] = i end
    local n, sum = there(function(t)
      local s = 0
      for _, v in ipairs(t) do s = s + v end
      return #t, s
    end, list)
    assert.are.equal(1000000, n)
    assert.are.equal(1000000 * 1000001 // 2, sum)
  end)

  it("keep what they share", function()
    local shared = {"shared"}
    local a, b, c = there_and_back({shared, shared}, shared, {x = {y = shared}})
    assert.is_true(rawequal(a[1], a[2]))
    assert.is_true(rawequal(a[1], b))
    assert.is_true(rawequal(b, c.x.y))
    assert.is_true(there(function(x, y) return rawequal(x, y) end, shared, shared))
    assert.is_false(there(function(x, y) return rawequal(x, y) end, {}, {}))
  end)

  it("keep their cycles", function()
    local t = {name = "t"}
    t.self = t
    t.list = {t, {t}}
    local back = there_and_back(t)
    assert.is_true(rawequal(back, back.self))
    assert.is_true(rawequal(back, back.list[1]))
    assert.is_true(rawequal(back, back.list[2][1]))
    local a, b = {}, {}
    a.b, b.a = b, a
    local x, y = there_and_back(a, b)
    assert.is_true(rawequal(x.b, y))
    assert.is_true(rawequal(y.a, x))
  end)

  it("nested 100,000 deep arrive", function()
    local deep = {}
    for _ = 1, 100000 do deep = {deep} end
    local depth, back = there(function(t)
      local n, at = 0, t
      while at[1] do n, at = n + 1, at[1] end
      return n, t
    end, deep)
    assert.are.equal(100000, depth)
    local n = 0
    while back[1] do n, back = n + 1, back[1] end
    assert.are.equal(100000, n)
    deep = {}
    for _ = 1, 100000 do deep = {[deep] = true} end
    n, back = 0, there_and_back(deep)
    while next(back) do n, back = n + 1, (next(back)) end
    assert.are.equal(100000, n)
  end)

  it("are copies: the job's changes stay in the job", function()
    local t = {1, 2, 3}
    local n = there(function(list)
      list[4] = 4
      return #list
    end, t)
    assert.are.equal(4, n)
    assert.are.equal(3, #t)
  end)

  it("are encoded without calling their metamethods", function()
    local calls = 0
    local function note() calls = calls + 1 end
    local t = setmetatable({1, 2}, {__index = note, __newindex = note,
      __pairs = note, __len = note, __eq = note, __name = "noisy"})
    local server <close> = pp.Server(1)
    local job = server:submit(function(x) return rawlen(x), rawget(x, 1) end, {t})
    assert.are.same({2, 1}, {job()})
    assert.are.equal(0, calls)
  end)
end)

describe("a metatable", function()
  it("that is a global, or a field of one, is the very same there and back",
    function()
      local r = child.run([[
        local pp = require "pp"
        Account = {}
        Account.__index = Account
        function Account:deposit(x) self.balance = self.balance + x return self end
        Bank = {Vault = {__index = {kind = "vault"}}}
        local server = pp.Server(1)
        local a = setmetatable({balance = 1}, Account)
        local job = server:submit(function(x)
          return x:deposit(2), getmetatable(x) == Account,
            setmetatable({balance = 10}, Account)
        end, {a})
        local same, there, new = job()
        print(same.balance, getmetatable(same) == Account, there)
        print(new:deposit(5).balance, getmetatable(new) == Account)
        local v, in_job = server:submit(function(x)
          return x, getmetatable(x) == Bank.Vault
        end, {setmetatable({}, Bank.Vault)})()
        print(v.kind, getmetatable(v) == Bank.Vault, in_job)
      ]])
      assert.are.equal("", r.err)
      assert.are.equal("3\ttrue\ttrue\n15\ttrue\nvault\ttrue\ttrue\n", r.out)
    end)

  it("that is a field of a loaded module is the very same", function()
    local dir = run.directory()
    local file <close> = assert(io.open(dir .. "/shapes.lua", "w"))
    file:write([[
      local shapes = {Point = {}}
      shapes.Point.__index = shapes.Point
      function shapes.Point:sum() return self.x + self.y end
      return shapes
    ]])
    file:flush()
    local r = child.run([[
      local pp = require "pp"
      local shapes = require "shapes"
      local server = pp.Server(1)
      local p = setmetatable({x = 1, y = 2}, shapes.Point)
      local back, there, sum = server:submit(function(q)
        return q, getmetatable(q) == shapes.Point, q:sum()
      end, {p})()
      print(getmetatable(back) == shapes.Point, there, sum, back:sum())
    ]], {env = {LUA_PATH = dir .. "/?.lua;;"}})
    assert.are.equal("", r.err)
    assert.are.equal("true\ttrue\t3\t3\n", r.out)
  end)

  it("that went out with the job comes back as itself", function()
    local server <close> = pp.Server(1)
    local Point = {}
    Point.__index = Point
    function Point.new(x) return setmetatable({x = x}, Point) end
    function Point:twice() return Point.new(2 * self.x) end
    local there_same, back = server:submit(function(p)
      return getmetatable(p) == Point, p:twice()
    end, {Point.new(4)})()
    assert.is_true(there_same)
    assert.are.equal(8, back.x)
    assert.is_true(rawequal(Point, getmetatable(back)))
    local argument = {__name = "only in the arguments"}
    back = server:submit(id, {setmetatable({}, argument)})()
    assert.is_true(rawequal(argument, getmetatable(back)))
  end)

  it("unknown at the other end travels by value", function()
    local back = there(function()
      return setmetatable({}, {__index = function(_, k) return k .. "!" end,
        __name = "made there"})
    end)
    assert.are.equal("made there", getmetatable(back).__name)
  end)

  it("shared by two tables stays shared", function()
    local a, b = there(function()
      local mt = {__name = "shared"}
      return setmetatable({}, mt), setmetatable({}, mt)
    end)
    assert.is_true(rawequal(getmetatable(a), getmetatable(b)))
  end)

  it("does not hide a table by __metatable", function()
    local back = there_and_back(setmetatable({1}, {__metatable = "locked"}))
    assert.are.equal("locked", getmetatable(back))
    assert.are.equal(1, back[1])
  end)

  it("comes back without __gc and __close", function()
    local back = there(function()
      return setmetatable({1}, {__gc = function() end, __close = function() end,
        __name = "kept"})
    end)
    assert.are.equal("kept", getmetatable(back).__name)
    assert.is_nil(getmetatable(back).__gc)
    assert.is_nil(getmetatable(back).__close)
  end)

  it("received has none of its metamethods called by ppsh", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local job = server:submit(function()
        local noisy = function() print("called") return "x" end
        return setmetatable({}, {__index = noisy, __tostring = noisy,
          __len = noisy, __eq = noisy, __pairs = noisy, __call = noisy,
          __gc = noisy, __close = noisy, __name = noisy, __mode = "k"})
      end)
      job()
      local again = job()
      again = nil
      job = nil
      collectgarbage()
      server:wait()
      server:destroy()
    ]])
    assert.are.equal("", r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)
end)

describe("what travels by name", function()
  it("is the standard library, its tables and functions", function()
    local list = {print, math.sin, string, table.concat, coroutine.wrap, io,
      os.time, utf8.char, debug, require, package.loaded, load}
    local back = there_and_back(list)
    for i, value in ipairs(list) do
      assert.is_true(rawequal(value, back[i]), tostring(i))
    end
    assert.are.equal(0.0, there(function(f) return f(0) end, math.sin))
  end)

  it("is _G, the standard files and pp", function()
    local g, i, o, e, p = there_and_back(_G, io.stdin, io.stdout, io.stderr, pp)
    assert.is_true(rawequal(_G, g))
    assert.is_true(rawequal(io.stdin, i))
    assert.is_true(rawequal(io.stdout, o))
    assert.is_true(rawequal(io.stderr, e))
    assert.is_true(rawequal(pp, p))
    assert.is_true(there(function(G, out, lib)
      return rawequal(G, _G) and rawequal(out, io.stdout)
        and rawequal(lib, require "pp")
    end, _G, io.stdout, pp))
  end)

  it("is a loaded module", function()
    local dir = run.directory()
    local file <close> = assert(io.open(dir .. "/counter.lua", "w"))
    file:write("return {pid = io.open('/proc/self/stat'):read('n')}\n")
    file:flush()
    local r = child.run([[
      local pp = require "pp"
      local counter = require "counter"
      local server = pp.Server(1)
      local there, same = server:submit(function()
        return counter.pid, counter == require "counter"
      end)()
      print(there ~= counter.pid, same)
      print(server:submit(function(...) return ... end, {counter})() == counter)
    ]], {env = {LUA_PATH = dir .. "/?.lua;;"}})
    assert.are.equal("", r.err)
    assert.are.equal("true\ttrue\ntrue\n", r.out)
  end)
end)

describe("what cannot travel", function()
  it("is refused at submit with its path among the captures", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local conn = io.tmpfile()
      function fetch() return conn end
      print(pcall(server.submit, server, fetch))
      local function caller() return fetch() end
      print(pcall(server.submit, server, caller))
    ]])
    local where = "(" .. r.script .. ":4)"
    local first, second = r.out:match("^([^\n]*)\n([^\n]*)\n$")
    local refusal = "cannot send upvalue 'conn' of function 'fetch' " .. where
      .. ": userdata"
    assert.is_truthy(first:find(refusal, 1, true), r.out)
    assert.is_truthy(second:find("'conn'", 1, true), r.out)
    assert.is_truthy(second:find("fetch", 1, true), r.out)
  end)

  it("is refused with its path through tables and functions", function()
    local settings = {servers = {{name = "a"}, {socket = io.stdout}}}
    settings.servers[2].socket = io.tmpfile()
    local message = refused(function() return settings end)
    assert.is_truthy(message:find("settings", 1, true), message)
    assert.is_truthy(message:find("servers", 1, true), message)
    assert.is_truthy(message:find("socket", 1, true), message)
    assert.is_truthy(message:find("userdata", 1, true), message)
  end)

  it("is refused among the arguments with its number and path", function()
    local message = refused(id, {1, io.tmpfile()})
    assert.is_truthy(message:find("cannot send argument 2", 1, true), message)
    assert.is_truthy(message:find("userdata", 1, true), message)
    message = refused(id, {{list = {1, {sock = io.tmpfile()}}}})
    assert.is_truthy(message:find("argument 1", 1, true), message)
    assert.is_truthy(message:find("sock", 1, true), message)
  end)

  it("is a coroutine, a userdata or a C function of no known name", function()
    assert.is_truthy(refused(id, {coroutine.create(print)})
      :find("coroutine", 1, true))
    assert.is_truthy(refused(id, {io.tmpfile()}):find("userdata", 1, true))
    refused(id, {coroutine.wrap(print)})
    refused(id, {(string.gmatch("a", "a"))})
    refused(coroutine.wrap(print))
  end)

  it("is refused as key, as value and in a metatable", function()
    local file <close> = io.tmpfile()
    refused(id, {{[file] = 1}})
    refused(id, {{file}})
    refused(id, {setmetatable({}, {__index = {handle = file}})})
  end)

  it("is refused at the caller's line", function()
    local server <close> = pp.Server(1)
    local file <close> = io.tmpfile()
    local info = debug.getinfo(1, "Sl")
    local _, err = pcall(function() server:submit(id, {file}) end)
    local at = ("%s:%d: "):format(info.short_src, info.currentline + 1)
    assert.are.equal(at, tostring(err):sub(1, #at))
  end)

  it("fails as a result that job alone, with kind 'unsendable'", function()
    local server <close> = pp.Server(1)
    local pid = server:submit(child.pid)()
    local jobs = {}
    local results = {
      function() return coroutine.create(print) end,
      function() return 1, {deep = {io.tmpfile()}} end,
      function() return coroutine.wrap(print) end,
    }
    for i, f in ipairs(results) do
      jobs[2 * i - 1] = server:submit(f)
      jobs[2 * i] = server:submit(id, {i})
    end
    for i in ipairs(results) do
      local ok, err = jobs[2 * i - 1]:pcall()
      assert.is_false(ok)
      assert.are.equal("unsendable", err.kind)
      assert.is_truthy(err.message:find("cannot send", 1, true), err.message)
      assert.are.equal("failed", jobs[2 * i - 1].status)
      assert.are.equal(1, jobs[2 * i - 1].attempts)
      assert.are.equal(i, jobs[2 * i]())
    end
    assert.are.equal(pid, server:submit(child.pid)())
  end)

  it("is named with its path as a result", function()
    local server <close> = pp.Server(1)
    local _, err = server:submit(function()
      return 1, {deep = {sock = coroutine.create(print)}}
    end):pcall()
    assert.is_truthy(err.message:find("result 2", 1, true), err.message)
    assert.is_truthy(err.message:find("sock", 1, true), err.message)
    assert.is_truthy(err.message:find("coroutine", 1, true), err.message)
  end)
end)
