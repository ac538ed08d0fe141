-- SPDX-License-Identifier: MIT
--- Strings: how fast bytes go, and whether small ones wait for large ones.
local pp = require "pp"
local tools = require "bench.tools"

local MB = 1 << 20
local SMALL, TIMES = 10240, 100 -- bytes of a small payload; large / small

local function echo(s) return s end

local function start_echo(size)
  return function(n)
    local server = pp.Server(2)
    local s = ("x"):rep(size)
    server:submit(echo, { s })()
    return function()
      return {
        c = tools.floor("echo", n, size),
        ours = tools.time(function()
          for _ = 1, n do assert(#server:submit(echo, { s })() == size) end
        end),
      }
    end
  end
end

-- Small calls one by one, while a large one is always under way to the other
-- worker.
local function start_big(n)
  local server = pp.Server(2)
  local small, large = ("x"):rep(SMALL), ("x"):rep(SMALL * TIMES)
  local other
  local function calls()
    for _ = 1, n do
      if not other or other.finished then other = server:submit(echo, { large }) end
      server:submit(echo, { small })()
    end
  end
  calls()
  return function()
    return { c = tools.floor("big", n, SMALL, TIMES), ours = tools.time(calls) }
  end
end

return {
  {
    name = "echo.1m",
    n = { quick = 10, usual = 200 },
    start = start_echo(MB),
    lines = {
      { name = "echo.1m", floor = "c", unit = "GB/s", bytes = 2 * MB, target = "ratio <= 2",
        about = "a string of 1 MB there and back; floor: the same by socket" },
    },
  },
  {
    name = "echo.64m",
    n = { quick = 1, usual = 4 },
    rounds = 3,
    start = start_echo(64 * MB),
    lines = {
      { name = "echo.64m", floor = "c", unit = "GB/s", bytes = 128 * MB,
        target = "ratio <= 1.67", about = "a string of 64 MB there and back; floor: as above" },
    },
  },
  {
    name = "small.large",
    n = { quick = 50, usual = 2000 },
    start = start_big,
    lines = {
      { name = "small.large", floor = "c", unit = "us",
        about = "a call with 10 KB while one with 1 MB is always under way to the other worker;"
          .. " floor: the same by sockets" },
    },
  },
}
