-- SPDX-License-Identifier: MIT
--- Many jobs: that memory and the cost of each do not grow with their number.
local pp = require "pp"
local tools = require "bench.tools"

local FEW = 10000 -- what cost at large numbers is set against

local function noop() end
local function increment(x) return x + 1 end

-- An endless generator's first n numbers.
local function numbers(n)
  local i = 0
  return function()
    if i < n then
      i = i + 1
      return i
    end
  end
end

-- KB of all these processes.
local function memory_of(pids)
  local sum = 0
  for _, pid in ipairs(pids) do sum = sum + tools.pss(pid) end
  return sum
end

-- Calls step() for each of n results of a loop; what memory grew by from the
-- first fifth to its highest.
local function watch_growth(n, pids)
  local seen, base, most = 0, nil, 0
  return function()
    seen = seen + 1
    if seen % (n // 20) == 0 and seen >= n // 5 then
      local kb = memory_of(pids)
      base = base or kb
      most = math.max(most, kb)
    end
  end, function() return most - base end
end

-- Jobs from a generator, so many that their list would not fit.
local function start_imap(n)
  local server = pp.Server(2)
  local pids = tools.processes(server)
  return function()
    local samples = {}
    local step, growth = watch_growth(n, { pids[1] })
    samples.lua = tools.time(function()
      for x in numbers(n) do
        assert(increment(x) > x)
        step()
      end
    end)
    samples.lua_growth = { cost = growth() }
    step, growth = watch_growth(n, pids)
    samples.ours = tools.time(function()
      for i, r in server:imap(increment, numbers(n)) do
        assert(r == i + 1)
        step()
      end
    end)
    samples.growth = { cost = growth() }
    return samples
  end
end

-- Holds its worker until it is cancelled.
local function hold() pp.sleep(3600) end

-- Microseconds each, of n jobs: to submit the last of them, and to run them all
-- when nothing holds them back any more. And KB in use while all wait.
local function queue(n)
  local server = pp.Server(1)
  local gate = server:submit(hold)
  while gate.status ~= "running" do pp.sleep(0.001) end
  for _ = 1, n - FEW // 2 do server:submit(noop) end
  local submitting = tools.time(function()
    for _ = 1, FEW // 2 do server:submit(noop) end
  end)
  collectgarbage()
  local kb = tools.rss()
  gate:cancel()
  local running = tools.time(function() server:wait() end)
  server:destroy()
  return submitting / (FEW // 2) * 1e6, running / n * 1e6, kb
end

-- Microseconds of each of the last of n finished jobs that nobody has asked
-- for, and KB in use when all have finished. Few wait at a time.
local function unread(n)
  local server = pp.Server(1)
  local function lot()
    for _ = 1, FEW do server:submit(noop) end
    server:wait()
  end
  local seconds
  for _ = FEW, n, FEW do seconds = tools.time(lot) end
  local kb = tools.rss()
  server:destroy()
  return seconds / FEW * 1e6, kb
end

local function each(us) return { cost = us } end

-- What memory is set against is taken before the first job: what earlier ones
-- leave to those that come is theirs.
local function start_queue(n)
  local before = tools.rss()
  return function()
    local few_submit, few_run = queue(FEW)
    local submit, run, kb = queue(n)
    return {
      submit_few = each(few_submit), submit = each(submit),
      run_few = each(few_run), run = each(run),
      bytes = { cost = (kb - before) * 1024 / n }, record = { cost = tools.floor("queue", n) },
    }
  end
end

local function start_unread(n)
  local before = tools.rss()
  return function()
    local few = unread(FEW)
    local many, kb = unread(n)
    return {
      few = each(few), many = each(many),
      bytes = { cost = (kb - before) * 1024 / n }, record = { cost = tools.floor("queue", n) },
    }
  end
end

return {
  {
    name = "imap",
    n = { quick = 20000, usual = 1000000, full = 10000000 },
    rounds = 2,
    start = start_imap,
    lines = {
      { name = "imap", floor = "lua", unit = "M/s",
        about = "`imap` over a generator; floor: a plain Lua loop over it" },
      { name = "imap.growth", of = "growth", floor = "lua_growth", unit = "KB",
        target = "rate <= 2048",
        about = "what the memory of all processes grows by from its first fifth on" },
    },
  },
  {
    name = "queue",
    n = { quick = 20000, usual = 300000, full = 1000000 },
    rounds = 1,
    start = start_queue,
    lines = {
      { name = "queued.bytes", of = "bytes", floor = "record", unit = "B",
        target = "rate < 500",
        about = "memory of a queued job; floor: a 64-byte message in a C list" },
      { name = "submit.flat", of = "submit", floor = "submit_few", unit = "us",
        target = "ratio <= 1.5",
        about = "`submit` behind as many queued jobs; floor: behind 10,000" },
      { name = "run.flat", of = "run", floor = "run_few", unit = "us", target = "ratio <= 1.5",
        about = "a job of a queue as long; floor: of one of 10,000" },
    },
  },
  {
    name = "unread",
    n = { quick = 20000, usual = 300000, full = 1000000 },
    rounds = 1,
    start = start_unread,
    lines = {
      { name = "unread.bytes", of = "bytes", floor = "record", unit = "B",
        target = "rate < 300",
        about = "memory of a finished job that nobody asked; floor: as above" },
      { name = "complete.flat", of = "many", floor = "few", unit = "us",
        target = "ratio <= 1.5",
        about = "a job beside as many finished and unread ones; floor: beside 10,000" },
    },
  },
}
