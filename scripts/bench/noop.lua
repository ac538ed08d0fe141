-- SPDX-License-Identifier: MIT
-- noop: what ppsh adds to a job that does nothing. One line for each
-- measurement: name, operations, seconds of the best round. scripts/bench/run
-- sets them against the floor.
--
--   ppsh [-j N] scripts/bench/noop.lua [--quick] [NAME...]

local pp = require "pp"

local quick = false
local names = {}
for _, a in ipairs(arg) do
  if a == "--quick" then quick = true else names[#names + 1] = a end
end

local function noop() end
local function echo(s) return s end

--- Best seconds of several rounds of run(n).
local function best(run, n)
  local least = math.huge
  for _ = 1, quick and 2 or 5 do
    local t = pp.time()
    run(n)
    least = math.min(least, pp.time() - t)
  end
  return least
end

local function wanted(name)
  for _, part in ipairs(names) do
    if name:find(part, 1, true) then return true end
  end
  return #names == 0
end

local function measure(name, n, quick_n, run)
  if not wanted(name) then return end
  n = quick and quick_n or n
  run(1) -- workers up, code sent
  print(("%s %d %.6f"):format(name, n, best(run, n)))
end

local server <close> = pp.Server()

-- One job at a time: submit, wait, take.
measure("trip", 20000, 2000, function(n)
  for _ = 1, n do server:submit(noop)() end
end)

-- All submitted, then all gathered.
measure("jobs", 100000, 20000, function(n)
  local jobs = {}
  for i = 1, n do jobs[i] = server:submit(noop) end
  for i = 1, n do jobs[i]() end
end)

local function echoing(size)
  local s = ("x"):rep(size)
  return function(n)
    for _ = 1, n do assert(#server:submit(echo, {s})() == size) end
  end
end
measure("echo1m", 200, 20, echoing(1 << 20))
measure("echo64m", 10, 2, echoing(64 << 20))

-- From exec of a ppsh to the result of its first job.
measure("start", 50, 10, function(n)
  local pipe = assert(io.popen("readlink /proc/$PPID/exe"))
  local ppsh = assert(pipe:read())
  pipe:close()
  local command = ([['%s' -e 'print(pp.Server(1):spawn(function() end)())']])
    :format(ppsh:gsub("'", [['\'']]))
  for _ = 1, n do
    local child = assert(io.popen(command))
    assert(child:read())
    child:close()
  end
end)
