-- SPDX-License-Identifier: MIT
-- Ranges as items of map and imap: they give what the list they stand for would.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function id(...) return ... end

local function listed(r)
  local list = {}
  for i = 1, #r do list[i] = r[i] end
  return list
end

local function check(expected, got)
  assert.are.equal(#expected, #got)
  for i = 1, #expected do
    if expected[i] ~= got[i] or math.type(expected[i]) ~= math.type(got[i]) then
      error(("value %d is %s, not %s"):format(i, tostring(got[i]), tostring(expected[i])))
    end
  end
end

local ranges = {
  {1, 100}, {-50, 50}, {100, 1, -1}, {5, 90, 7}, {0, -99, -3}, {1, 1}, {1, 3}, {2, 40, 2.5},
  {0.5, 60}, {0.1, 9.7, 0.1}, {10, 1, -0.25}, {1.0, 50}, {1, 50, 1.0}, {-0.0, 20},
  {math.maxinteger - 30, math.maxinteger}, {math.mininteger + 30, math.mininteger, -1},
  {math.mininteger, -1, 1 << 58}, {2^53, 2^53 + 40}, {1e300, 3e301, 1e300},
  {1, 40.7}, {1 << 40, (1 << 40) + 20000, 333},
}

after_each(child.clean)

describe("a range as items", function()
  it("gives map the numbers of its list", function()
    local server <close> = pp.Server(2)
    for _, r in ipairs(ranges) do
      local range = pp.range(table.unpack(r))
      local list = listed(range)
      for _, chunk in ipairs{1, 3, 17, "auto"} do
        check(list, server:map(id, range, {chunk = chunk}))
        check(list, server:map(id, range, {chunk = chunk, spread = true}))
      end
    end
  end)

  it("gives imap the numbers of its list", function()
    local server <close> = pp.Server(2)
    for _, r in ipairs(ranges) do
      local range = pp.range(table.unpack(r))
      local list = listed(range)
      for _, chunk in ipairs{1, 3, 17, "auto"} do
        for _, ordered in ipairs{true, false} do
          local got, n = {}, 0
          for i, x, more in server:imap(function(x) return x, nil end, range,
            {chunk = chunk, ordered = ordered, spread = chunk == 3}) do
            got[i], n = x, n + 1
            assert.is_nil(more)
          end
          assert.are.equal(#list, n)
          check(list, got)
        end
      end
    end
  end)

  it("may be longer than any list", function()
    local server <close> = pp.Server(2)
    for _, last in ipairs{1 << 62, math.maxinteger} do
      local sum = 0
      for i, x in server:imap(id, pp.range(1, last)) do
        sum = sum + x
        if i == 50000 then break end
      end
      assert.are.equal(50000 * 50001 // 2, sum)
    end
  end)

  it("sends no more than its ends", function()
    local server <close> = pp.Server(1)
    server:map(id, pp.range(1, 100000), {chunk = 10000})
    assert.is_true(server:get_stats()["local"].sent < 5000)
  end)

  it("gives what was put into the list in its place", function()
    local server <close> = pp.Server(1)
    local r = pp.range(1, 40)
    rawset(r, 20, "other")
    local got = server:map(id, r)
    assert.are.equal("other", got[20])
    assert.are.equal(21, got[21])
  end)

  it("keeps errors at the places of their items", function()
    local server <close> = pp.Server(2)
    for _, chunk in ipairs{1, 25, "auto"} do
      local function f(x)
        if x % 10 == 0 then error("ten " .. x, 0) end
        return x
      end
      local got = server:map(f, pp.range(0, 198, 2), {chunk = chunk, on_error = "keep"})
      local n = 0
      for i, r in server:imap(f, pp.range(0, 198, 2), {chunk = chunk, on_error = "keep"}) do
        n = n + 1
        local x = 2 * (i - 1)
        if x % 10 == 0 then
          assert.are.equal("ten " .. x, r.message)
          assert.are.equal("ten " .. x, got[i].message)
        else
          assert.are.equal(x, r)
          assert.are.equal(x, got[i])
        end
      end
      assert.are.equal(100, n)
      local ok, err = pcall(server.map, server, f, pp.range(1, 100), {chunk = chunk})
      assert.is_false(ok)
      assert.is_truthy(err.message:find("^ten %d+$"))
    end
  end)

  it("calls callbacks with all results, in turn", function()
    local server <close> = pp.Server(2)
    for _, results in ipairs{1, 2} do
      local sum, calls = 0, 0
      local function callback(tag, a, b, ...)
        assert.are.equal("tag", tag)
        assert.are.equal(0, select("#", ...))
        assert.are.equal(results == 2 and -a or nil, b)
        sum, calls = sum + a, calls + 1
      end
      local f = results == 1 and function(x) return x * x end
        or function(x) return x * x, -x * x end
      local o = {callback = callback, callbackargs = {"tag"}, chunk = 32}
      local got = server:map(f, pp.range(1, 100), o)
      assert.are.equal(100, calls)
      assert.are.equal(338350, sum)
      assert.are.equal(10000, got[100])
      for i, r in server:imap(f, pp.range(1, 100), o) do assert.are.equal(i * i, r) end
      assert.are.equal(200, calls)
    end
  end)

  it("hands out results of every number and kind", function()
    local server <close> = pp.Server(2)
    local function f(x)
      if x % 50 == 0 then return end
      if x % 40 == 0 then return x, nil, "s" .. x end
      if x % 30 == 0 then return {x} end
      if x % 20 == 0 then return nil end
      if x % 10 == 0 then return ("long"):rep(20) .. x end
      return x
    end
    for _, chunk in ipairs{1, 16, 100, "auto"} do
      local map = server:map(f, pp.range(1, 300), {chunk = chunk})
      for i, a, b, c in server:imap(f, pp.range(1, 300), {chunk = chunk}) do
        local ea, eb, ec = f(i)
        assert.are.same({ea, eb, ec}, {a, b, c})
        assert.are.same(ea, map[i])
      end
    end
  end)

  it("goes on one by one where a worker was lost", function()
    for _, chunk in ipairs{7, 60, "auto"} do
      local server <close> = pp.Server(2)
      local dir = run.directory()
      local function f(x)
        if x == 49 then
          local file = io.open(dir .. "/died")
          if not file then
            io.open(dir .. "/died", "w"):close()
            os.exit(3)
          end
          file:close()
        end
        return x
      end
      local range = pp.range(5, 181, 4)
      check(listed(range), server:map(f, range, {chunk = chunk}))
      assert.are.equal(1, server:get_stats()["local"].lost)
      os.remove(dir .. "/died")
      local got = {}
      for i, r in server:imap(f, range, {chunk = chunk}) do got[i] = r end
      check(listed(range), got)
    end
  end)

  it("stops at its timeout, and on leaving the loop", function()
    local server <close> = pp.Server(2)
    local got = server:map(function(x) while x == 3 do end return x end, pp.range(1, 5),
      {timeout = 0.2, on_error = "keep"})
    assert.are.equal("timeout", got[3].kind)
    assert.are.equal(5, got[5])
    for i in server:imap(function(x) while x > 40 do end return x end, pp.range(1, 1000),
      {chunk = 20}) do
      if i == 3 then break end
    end
    assert.are.equal(7, server:submit(id, {7})())
  end)

  it("may be ended in the midst of a chunk", function()
    local server = pp.Server(1)
    local started = pp.time()
    local ok, err = pcall(function()
      local job = server:submit{id, callback = function() server:destroy() end}
      for _ in server:imap(function(x)
        local n = 0
        for i = 1, 1 << 40 do n = n + i * x end
        return n
      end, pp.range(1, 64), {chunk = 32}) do
        job:cancel()
      end
    end)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("closed", 1, true)
      or tostring(err):find("destroyed", 1, true), err)
    assert.is_true(pp.time() - started < 30)
  end)

  it("serves jobs that map, and servers without workers", function()
    local server <close> = pp.Server(2)
    assert.are.equal(5050, server:submit(function()
      local sum = 0
      for _, r in ipairs(pp.Server():map(function(x) return x end, pp.range(1, 100))) do
        sum = sum + r
      end
      return sum
    end)())
    local serial <close> = pp.Server(0)
    check(listed(pp.range(1, 50)), serial:map(id, pp.range(1, 50)))
    check({2.5, 3.0, 3.5}, serial:map(id, pp.range(2.5, 3.5, 0.5)))
  end)
end)

describe("lists as items", function()
  it("are read as tables with metamethods are", function()
    local server <close> = pp.Server(1)
    local proxy = setmetatable({n = 30}, {__index = function(_, i) return 2 * i end})
    local got = server:map(id, proxy)
    for i = 1, 30 do assert.are.equal(2 * i, got[i]) end
    local bad = setmetatable({n = 30}, {__index = function(_, i)
      if i == 20 then error("no twenty", 0) end
      return i
    end})
    local ok, err = pcall(server.map, server, id, bad)
    assert.is_false(ok)
    assert.are.equal("no twenty", err)
    assert.are.equal(7, server:submit(id, {7})())
  end)

  it("may have nils in them", function()
    local server <close> = pp.Server(1)
    local list = {n = 100}
    for i = 1, 100, 3 do list[i] = i end
    local got = server:map(function(x) return x or "none" end, list)
    for i = 1, 100 do assert.are.equal(list[i] or "none", got[i]) end
    got = server:map(id, list)
    assert.are.equal(100, got.n)
    for i = 1, 100 do assert.are.equal(list[i], got[i]) end
  end)
end)

describe("a step of imap", function()
  it("runs callbacks that are due", function()
    local server <close> = pp.Server(2)
    local ran = 0
    for i in server:imap(id, pp.range(1, 3000)) do
      if i == 100 then
        local job = server:submit{id, callback = function() ran = i end}
        local over = pp.time() + 10
        while not job.finished and pp.time() < over do end
      elseif i == 102 then
        assert.are.equal(100, ran)
      end
    end
    assert.are.equal(100, ran)
  end)

  it("raises where the server was closed", function()
    local server = pp.Server(1)
    local ok, err = pcall(function()
      for i in server:imap(id, pp.range(1, 3000)) do
        if i == 100 then server:destroy() end
        assert(i <= 100)
      end
    end)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("attempt to use a closed server", 1, true))
  end)

  it("may be taken in a coroutine whose source yields", function()
    local server <close> = pp.Server(1)
    local co = coroutine.wrap(function()
      local got = {}
      for _, r in server:imap(id, function() return (coroutine.yield("next")) end, {buffer = 2}) do
        got[#got + 1] = r
      end
      return got
    end)
    assert.are.equal("next", co())
    for i = 1, 5 do assert.are.equal("next", co(i)) end
    local got = co(nil)
    while got == "next" do got = co(nil) end
    assert.are.same({1, 2, 3, 4, 5}, got)
  end)

  it("hands out millions in memory that does not grow", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local function rss()
        for line in io.lines "/proc/self/statm" do return 4 * line:match "^%d+ (%d+)" end
      end
      local i, most, early = 0, 0
      local function source()
        i = i + 1
        return i <= 600000 and i or nil
      end
      local sum = 0
      for k, r in server:imap(function(x) return x * 1.5 end, source) do
        sum = sum + r
        if k == 200000 then early = rss() end
        if k % 50000 == 0 then most = math.max(most, rss()) end
      end
      print(sum == 1.5 * 600000 * 600001 / 2, most - early)
    ]])
    local right, grown = r.out:match("^(%a+)\t(%-?%d+)\n$")
    assert.are.equal("true", right, r.err)
    assert.is_true(tonumber(grown) < (child.sanitized() and 1 << 20 or 16384), grown)
  end)
end)
