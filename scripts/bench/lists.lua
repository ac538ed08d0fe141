-- SPDX-License-Identifier: MIT
--- Lists of numbers: mapped over, and as values.
local pp = require "pp"
local tools = require "bench.tools"

local function square(x) return x * x end
local function echo(value) return value end

-- What map is set against.
local function plain(list, n)
  local out = {}
  for i = 1, n do out[i] = square(list[i]) end
  return out
end

local function plain_range(n)
  local out = {}
  for i = 1, n do out[i] = square(i) end
  return out
end

local function start_map(n)
  local server = pp.Server(2)
  local list = {}
  for i = 1, n do list[i] = math.random(1, 1000000) end
  server:map(square, list) -- workers up, the length of chunks found
  return function()
    return {
      c = tools.floor("map", n),
      lua = tools.time(plain, list, n),
      ours = tools.time(function() server:map(square, list) end),
    }
  end
end

local function start_range(n)
  local server = pp.Server(2)
  server:map(square, pp.range(1, n))
  return function()
    return {
      lua = tools.time(plain_range, n),
      ours = tools.time(function() server:map(square, pp.range(1, n)) end),
    }
  end
end

local function start_doubles(n)
  local server = pp.Server(2)
  local list = {}
  for i = 1, n do list[i] = math.random() end
  server:submit(echo, { list })()
  return function()
    return {
      c = tools.floor("echo", 1, 8 * n),
      ours = tools.time(function() assert(#server:submit(echo, { list })() == n) end),
    }
  end
end

return {
  {
    name = "map",
    n = { quick = 50000, usual = 1000000 },
    start = start_map,
    lines = {
      { name = "map", floor = "c", unit = "M/s", target = "rate >= 15",
        about = "`map` of x*x over random integers; floor: two C children" },
      { name = "map.lua", floor = "lua", unit = "M/s",
        about = "the same; floor: a plain Lua loop" },
    },
  },
  {
    name = "map.range",
    n = { quick = 50000, usual = 1000000 },
    start = start_range,
    lines = {
      { name = "map.range", floor = "lua", unit = "M/s", target = "ratio < 1",
        about = "`map` of x*x over a `pp.range`; floor: a plain Lua loop" },
    },
  },
  {
    name = "doubles",
    n = { quick = 50000, usual = 1000000 },
    start = start_doubles,
    lines = {
      { name = "doubles", floor = "c", unit = "M/s", target = "rate >= 20",
        about = "a list of doubles there and back; floor: their bytes echoed" },
    },
  },
}
