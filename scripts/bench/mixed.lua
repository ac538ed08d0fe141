-- SPDX-License-Identifier: MIT
--- Jobs of very different length, against the best schedule there can be.
local pp = require "pp"
local tools = require "bench.tools"

local WORKERS = 4
-- Lengths are drawn from 1 us to 1 s, their logarithm evenly, and take this
-- part of that.
local PART = { quick = 0.02, usual = 0.1, full = 1 }

local function rest(seconds) pp.sleep(seconds) end

-- The same lengths every time, and the bound: no schedule ends before it.
local function draw(n, part)
  math.randomseed(4)
  local lengths, sum, longest = {}, 0, 0
  for i = 1, n do
    lengths[i] = 10 ^ (-6 * math.random()) * part
    sum = sum + lengths[i]
    longest = math.max(longest, lengths[i])
  end
  return lengths, math.max(sum / WORKERS, longest)
end

local function start_mixed(n, size)
  local server = pp.Server(WORKERS)
  local lengths, bound = draw(n, PART[size])
  server:map(rest, { 0, 0, 0, 0 })
  return function()
    return {
      bound = bound,
      submit = tools.time(function()
        for _, seconds in ipairs(lengths) do
          server:submit { rest, args = { seconds }, forget = true }
        end
        server:wait()
      end),
      map = tools.time(function() server:map(rest, lengths) end),
    }
  end
end

-- Many items that take no time and, at the end of the list, a few that take long: they
-- would all be in one chunk.
local function start_tail(n, size)
  local server = pp.Server(WORKERS)
  local lengths, long = {}, 5 * PART[size]
  for i = 1, n do lengths[i] = i > n - 3 * WORKERS and long or 0 end
  local function item(seconds)
    if seconds > 0 then pp.sleep(seconds) end
  end
  server:map(item, { 0, 0, 0, 0 })
  return function()
    return { bound = 3 * long, map = tools.time(function() server:map(item, lengths) end) }
  end
end

return {
  {
    name = "tail",
    n = { quick = 400, usual = 4000 },
    rounds = 3,
    start = start_tail,
    lines = {
      { name = "mixed.tail", of = "map", floor = "bound", unit = "s", target = "ratio <= 1.05",
        about = "`map` of many items of no length, then twelve of half a second; four workers" },
    },
  },
  {
    name = "mixed",
    n = { quick = 200, usual = 2000 },
    rounds = 1,
    start = start_mixed,
    lines = {
      { name = "mixed.submit", of = "submit", floor = "bound", unit = "s",
        target = "ratio <= 1.05",
        about = "sleeping jobs of 1 us to 1 s (a tenth of that unless --full), four workers;"
          .. " floor: sum / workers or the longest" },
      { name = "mixed.map", of = "map", floor = "bound", unit = "s", target = "ratio <= 1.05",
        about = "the same as items of `map`" },
    },
  },
}
