-- SPDX-License-Identifier: MIT
-- Items of a map whose function may be called in a loop in one table of globals: each is to find
-- globals of its own nevertheless, by whatever way it gets at them.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211
-- luacheck: globals seen helper bump limit long_name_of_a_global_that_is_no_short_string_for_lua
-- luacheck: ignore 112 113 121 122 142 143 212

local pp = require "pp"

local servers = {}
local function server(n)
  local s = pp.Server(n or 1)
  servers[#servers + 1] = s
  return s
end

local function strings(n)
  local list = {}
  for i = 1, n do list[i] = tostring(i) end
  return list
end

--- f gives the same in each of several jobs, of numbers and of strings.
local function same_in_jobs(s, expected, f, options)
  for _, list in ipairs {pp.range(1, 6), strings(6), {{}, {}, {}}} do
    for i = 1, #list do
      local o = {f, args = {list[i]}}
      for k, v in pairs(options or {}) do o[k] = v end
      assert.are.equal(expected, s:submit(o)(), "job " .. i)
    end
  end
end

--- f gives the same for each item, in chunks of any size, of ranges and of lists, and in jobs.
local function same_for_each(s, expected, f, options)
  same_in_jobs(s, expected, f, options)
  for _, chunk in ipairs {1, 16, 40, 100} do
    for _, list in ipairs {pp.range(1, 100), strings(100)} do
      local o = {chunk = chunk}
      for k, v in pairs(options or {}) do o[k] = v end
      local got = s:map(f, list, o)
      for i = 1, 100 do
        assert.are.equal(expected, got[i], "item " .. i .. ", chunk " .. chunk)
      end
      local n = 0
      for _, r in s:imap(f, list, o) do
        n = n + 1
        assert.are.equal(expected, r)
      end
      assert.are.equal(100, n)
    end
  end
end

local function count_in(t) t.seen = (t.seen or 0) + 1 return t.seen end

-- Each counts its own executions in a global, and so must say 1.
local counters = {
  {"by its name", function() seen = (seen or 0) + 1 return seen end},
  {"through _ENV", function() _ENV.seen = (_ENV.seen or 0) + 1 return seen end},
  {"through _G", function() _G.seen = (_G.seen or 0) + 1 return seen end},
  {"in a local _ENV", function()
    local _ENV = _ENV -- luacheck: ignore
    seen = (seen or 0) + 1
    return seen
  end},
  {"by a name made at run time", function()
    local k = "se" .. "en"
    _ENV[k] = (_ENV[k] or 0) + 1
    return seen
  end},
  {"by a long name", function()
    long_name_of_a_global_that_is_no_short_string_for_lua =
      (long_name_of_a_global_that_is_no_short_string_for_lua or 0) + 1
    return long_name_of_a_global_that_is_no_short_string_for_lua
  end},
  {"by rawset", function() rawset(_ENV, "seen", (seen or 0) + 1) return seen end},
  {"by a function that is given the globals", function() return count_in(_ENV) end},
  {"by a function that is given _G", function() return count_in(_G) end},
  {"as an upvalue of a nested function", function()
    local function inner() seen = (seen or 0) + 1 end
    inner()
    return seen
  end},
  {"in a coroutine", function()
    return coroutine.wrap(function() seen = (seen or 0) + 1 coroutine.yield(seen) end)()
  end},
  {"in pcall", function() pcall(function() seen = (seen or 0) + 1 end) return seen end},
  {"in a message handler", function()
    xpcall(error, function() seen = (seen or 0) + 1 end)
    return seen
  end},
  {"in a metamethod", function()
    local t = setmetatable({}, {__index = function() seen = (seen or 0) + 1 return seen end})
    return t.x
  end},
  {"in a finalizer", function()
    setmetatable({}, {__gc = function() seen = (seen or 0) + 1 end})
    collectgarbage()
    return seen
  end},
  {"at the end of a block", function()
    do
      local x <close> = setmetatable({}, { -- luacheck: ignore
        __close = function() seen = (seen or 0) + 1 end,
      })
    end
    return seen
  end},
  {"in a comparison of sort", function()
    local done
    table.sort({2, 1}, function(a, b)
      if not done then seen = (seen or 0) + 1 end
      done = true
      return a < b
    end)
    return seen
  end},
  {"in a replacement of gsub", function()
    string.gsub("x", "x", function() seen = (seen or 0) + 1 end)
    return seen
  end},
  {"in __tostring", function()
    tostring(setmetatable({}, {__tostring = function() seen = (seen or 0) + 1 return "" end}))
    return seen
  end},
  {"by load", function() load "seen = (seen or 0) + 1"() return seen end},
  {"by load with an environment", function()
    load("seen = (seen or 0) + 1", "=x", "t", _ENV)()
    return seen
  end},
  {"by load from another function's upvalue", function()
    local function f() return seen end
    local _, env = debug.getupvalue(f, 1)
    env.seen = (env.seen or 0) + 1
    return seen
  end},
  {"through the registry", function()
    local env = debug.getregistry()[2]
    env.seen = (env.seen or 0) + 1
    return seen
  end},
  {"through package.loaded", function()
    local env = setmetatable({}, {__index = package.loaded._G, __newindex = _ENV})
    env.seen = (seen or 0) + 1
    return seen
  end},
  {"through an iterator over its globals", function()
    for k, v in pairs(_ENV) do
      if k == "_G" then v.seen = (v.seen or 0) + 1 end
    end
    return seen
  end},
  {"in a metatable of its globals", function()
    local mt = getmetatable(_ENV)
    mt = {__index = mt.__index, seen = (mt.seen or 0) + 1}
    setmetatable(_ENV, mt)
    return getmetatable(_ENV).seen
  end},
}

describe("a global of an item", function()
  after_each(function()
    for _, s in ipairs(servers) do s:destroy() end
    servers = {}
  end)

  for _, c in ipairs(counters) do
    it("is its own, counted " .. c[1], function() same_for_each(server(), 1, c[2]) end)
  end

  it("is its own where the function has very many constants", function()
    local text = {"local t = {"}
    for i = 1, 300 do text[#text + 1] = ("'constant %d', "):format(i) end
    text[#text + 1] = "} seen = (seen or 0) + 1 return seen"
    same_for_each(server(), 1, assert(load(table.concat(text))))
  end)

  it("is its own where a helper counts", function()
    helper = function() seen = (seen or 0) + 1 return seen end
    local s = server()
    same_for_each(s, 1, function() return helper() end)
    local held = helper
    same_for_each(s, 1, function() return held() end)
    same_for_each(s, 1, function() return _G["hel" .. "per"]() end, {globals = {"helper"}})
    helper = nil
  end)

  it("is its own where what the script added to string counts", function()
    string.counted = function() seen = (seen or 0) + 1 return seen end -- luacheck: ignore
    local s = server()
    same_for_each(s, 1, function(x) return tostring(x):counted() end)
    same_for_each(s, "none 1", function(x)
      local n = tostring(x):counted()
      string.counted = function() return "none " .. n end -- luacheck: ignore
      return tostring(x):counted()
    end)
    same_for_each(s, 1, function(x)
      local n = tostring(x):counted()
      getmetatable("").__index.counted = nil
      return n
    end)
    string.counted = nil -- luacheck: ignore
  end)

  it("has the script's value each time, whatever another has made of it", function()
    limit = 1
    helper = function() return limit end
    local s = server()
    same_for_each(s, 2, function() limit = limit + 1 return limit end)
    same_for_each(s, 2, function() limit = limit + 1 return helper() end)
    same_for_each(s, 1, function()
      local was = limit
      limit = nil
      return was
    end)
    same_for_each(s, 1, function()
      local was = helper()
      helper = nil
      return was
    end)
    same_for_each(s, 1, function()
      local was = helper()
      helper = function() return -1 end
      return was
    end)
    limit, helper = nil, nil
  end)

  it("hides one of the base for that item alone", function()
    local s = server()
    same_for_each(s, "function nil", function()
      local was = type(print)
      print = nil
      return was .. " " .. type(print)
    end)
    same_for_each(s, "3 false", function(x)
      local was = math.floor(3.5)
      math = false
      return was .. " " .. tostring(math)
    end)
    same_for_each(s, "abc", function()
      local was = ("abc"):rep(1)
      string = nil
      tostring = nil
      return was
    end)
  end)

  it("does not come from another item by what it captured", function()
    local n, list, text = 0, {0}, "x"
    local function next_n() n = n + 1 return n end
    local s = server()
    same_for_each(s, 1, function() n = n + 1 return n end)
    same_for_each(s, 1, function() return next_n() end)
    same_for_each(s, 1, function() list[1] = list[1] + 1 return list[1] end)
    same_for_each(s, "xy", function() text = text .. "y" return text end)
    same_for_each(s, 1, function()
      local _, f = debug.getupvalue(next_n, 1)
      return f + 1
    end)
  end)

  it("may be nil for all of them", function()
    same_for_each(server(), "nil", function() return tostring(no_such_global) end)
  end)

  it("is its own where some fail", function()
    local s = server()
    local function f(x)
      seen = (seen or 0) + 1
      if x % 7 == 0 then error {n = seen} end
      return seen
    end
    local got = s:map(f, pp.range(1, 100), {chunk = 50, on_error = "keep"})
    for i = 1, 100 do
      assert.are.equal(1, i % 7 == 0 and got[i].value.n or got[i])
    end
    local n = 0
    for i, r in s:imap(f, pp.range(1, 100), {chunk = 50, on_error = "keep"}) do
      n = n + 1
      assert.are.equal(1, i % 7 == 0 and r.value.n or r)
    end
    assert.are.equal(100, n)
  end)
end)

describe("what an earlier job left in the worker", function()
  after_each(function()
    for _, s in ipairs(servers) do s:destroy() end
    servers = {}
  end)

  it("may count, and counts for each item", function()
    local s = server()
    s:submit(function()
      local env = _ENV
      string.left = function() -- luacheck: ignore
        bump = (bump or 0) + 1
        return bump
      end
      return env ~= nil
    end)()
    same_for_each(s, 1, function(x) return tostring(x):left() end)
    same_for_each(s, 1, function(x) local k = "left" return tostring(x)[k](x) end)
  end)

  it("may be a metatable of numbers or strings", function()
    local s = server()
    s:submit(function()
      debug.setmetatable(0, {__index = function() bump = (bump or 0) + 1 return bump end})
      getmetatable("").__call = function() bump = (bump or 0) + 1 return bump end
      debug.setmetatable(nil, {__index = function() bump = (bump or 0) + 1 return bump end})
    end)()
    same_for_each(s, 1, function(x) local n = tonumber(x) return n.any end)
    same_for_each(s, 1, function(x) return tostring(x)() end)
    same_for_each(s, 1, function() return (no_such_global).any end)
  end)

  it("may be in the base globals, by everywhere", function()
    local s = server()
    s:everywhere(function()
      function bump() seen = (seen or 0) + 1 return seen end
      limit = 7
      local real = tostring
      function tostring(x) seen = (seen or 0) + 1 return real(seen) end
    end)
    same_for_each(s, 1, function() return bump() end)
    same_for_each(s, 8, function() limit = limit + 1 return limit end)
    same_for_each(s, "1", function() return tostring(5) end)
  end)

  it("may be a metatable of the base globals", function()
    local s = server()
    s:everywhere(function()
      setmetatable(_G, {__index = function(_, k)
        if k == "counted" then bump = (bump or 0) + 1 return bump end
      end})
    end)
    same_for_each(s, 1, function() return counted end)
  end)

  it("may come between two chunks of the same function", function()
    local s = server()
    local function f(x) return tostring(x):len() end
    assert.are.equal(2, s:map(f, pp.range(10, 60), {chunk = 20})[51])
    s:submit(function()
      string.len = function() bump = (bump or 0) + 1 return bump end -- luacheck: ignore
    end)()
    same_for_each(s, 1, f)
  end)
end)

describe("a job's globals", function()
  after_each(function()
    for _, s in ipairs(servers) do s:destroy() end
    servers = {}
  end)

  it("are the standard ones, and its own, again and again", function()
    local s = server()
    local function twice(x) return x * 2 end
    local function f(x) return twice(math.floor(x)) + #tostring(x), type(print) end
    for i = 1, 20 do
      local n, t = s:submit {f, args = {i + 0.5}, globals = {twice = twice}}()
      assert.are.same({2 * i + #tostring(i + 0.5), "function"}, {n, t})
    end
  end)

  it("are what a job in between has made of the worker", function()
    local s = server()
    local function f(x) return math.floor(x + 0.5) end
    for i = 1, 4 do assert.are.equal(i, s:spawn(f, i)()) end
    s:spawn(function() math.floor = function() return "changed" end end)() -- luacheck: ignore
    for i = 1, 4 do assert.are.equal("changed", s:spawn(f, i)()) end
    s:everywhere(function() math = {floor = function() return "all" end} end)
    for i = 1, 4 do assert.are.equal("all", s:spawn(f, i)()) end
  end)

  it("are none that a job in between has made", function()
    local s = server()
    local function f() return seen, print == nil, math == nil end
    for _ = 1, 4 do
      s:spawn(f)()
      s:spawn(function()
        seen, print, math = 1, nil, nil
        return seen
      end)()
      local a, b, c = s:spawn(f)()
      assert.are.same({nil, false, false}, {a, b, c})
    end
  end)

  it("come to be there by everywhere, and go", function()
    local s = server()
    local function f() return limit end
    for _ = 1, 4 do assert.is_nil(s:spawn(f)()) end
    for n = 1, 3 do
      s:everywhere(function(x) limit = x end, n)
      for _ = 1, 4 do assert.are.equal(n, s:spawn(f)()) end
    end
    s:everywhere(function() limit = nil end)
    for _ = 1, 4 do assert.is_nil(s:spawn(f)()) end
  end)

  it("are those of the job in whose midst another runs", function()
    local s = server()
    local function f(x) return tostring(x):len() end
    local function outer()
      local own = pp.Server()
      local a = own:spawn(f, 10)() + own:spawn(f, 10)()
      local real = string.len
      string.len = function() bump = (bump or 0) + 1 return bump end -- luacheck: ignore
      local b = own:spawn(f, 10)() .. own:spawn(f, 10)()
      string.len = real -- luacheck: ignore
      return a, b, bump
    end
    for _ = 1, 3 do
      local a, b, n = pp.Server(0):spawn(outer)()
      assert.are.same({4, "11", nil}, {a, b, n})
      a = s:spawn(outer)()
      assert.are.equal(4, a)
    end
  end)

  it("stay the same for its coroutines and handlers", function()
    local s = server()
    local function f(x)
      local co = coroutine.wrap(function(y) return math.abs(y) + select("#", y, y) end)
      return co(-x) + select(2, xpcall(error, function() return math.abs(-1) end))
    end
    for i = 1, 6 do assert.are.equal(i + 3, s:spawn(f, i)()) end
  end)
end)

describe("an item's other traces", function()
  after_each(function()
    for _, s in ipairs(servers) do s:destroy() end
    servers = {}
  end)

  it("are gone: the default output, a hook", function()
    local s = server()
    same_for_each(s, "true nil", function()
      local was = io.output() == io.stdout
      local hook = debug.gethook()
      io.output(io.stderr)
      debug.sethook(function() end, "", 1000)
      return tostring(was) .. " " .. tostring(hook)
    end)
  end)

  it("do not reach its random numbers", function()
    local function f(x) return math.random(1 << 40) + 0 * x end
    local one, random = nil, math.random
    for _, g in ipairs {f, function(x) return random(1 << 40) + 0 * x end,
      function(x) local m = math return m.random(1 << 40) + 0 * x end,
      function(x) return math["ran" .. "dom"](1 << 40) + 0 * x end} do
      for _, chunk in ipairs {1, 16, 50} do
        local s = pp.Server {ncpus = 2, seed = 42}
        servers[#servers + 1] = s
        local got = s:map(g, pp.range(1, 60), {chunk = chunk})
        one = one or got
        assert.are.same(one, got)
      end
    end
  end)

  it("show where it failed, at the same place", function()
    local s = server()
    local function inner(x) return x.y.z end
    local function f(x) if x == 30 then inner({}) end return x end
    local texts = {}
    for _, chunk in ipairs {1, 50} do
      local got = s:map(f, pp.range(1, 60), {chunk = chunk, on_error = "keep"})
      assert.are.equal(29, got[29])
      assert.are.equal(31, got[31])
      texts[#texts + 1] = got[30].message .. "\n" .. got[30].traceback
    end
    assert.are.equal(texts[1], texts[2])
    assert.is_truthy(texts[1]:find("pure_spec.lua", 1, true))
  end)
end)
