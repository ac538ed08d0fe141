-- SPDX-License-Identifier: MIT
--- Jobs that compute: what is gained, and how busy the workers are.
local pp = require "pp"
local tools = require "bench.tools"

local function isprime(n)
  if n < 2 then return false end
  for d = 2, math.floor(math.sqrt(n)) do
    if n % d == 0 then return false end
  end
  return true
end

local function sum_primes(n)
  local sum = 0
  for candidate = 2, n - 1 do
    if isprime(candidate) then sum = sum + candidate end
  end
  return sum
end

-- Eight sums, as scripts/examples/sum_primes.lua has them.
local function start_primes(_, size)
  local from = size == "quick" and 3000 or 100000
  local two, one = pp.Server(2), pp.Server(1)
  local function by(server)
    return function()
      local jobs = {}
      for limit = from, from + 700, 100 do
        jobs[#jobs + 1] = server:submit(sum_primes, { limit }, { isprime })
      end
      for _, job in ipairs(jobs) do job() end
    end
  end
  two:spawn(tools.pid)()
  one:spawn(tools.pid)()
  return function()
    return {
      lua = tools.time(function()
        for limit = from, from + 700, 100 do sum_primes(limit) end
      end),
      two = tools.time(by(two)),
      one = tools.time(by(one)),
    }
  end
end

local JOB = 0.01

local function job_of_10_ms()
  local until_then = pp.time() + 0.01
  while pp.time() < until_then do end
end

-- Pure Lua: nothing of pp, no C function.
local function spin(turns)
  local x = 0
  for i = 1, turns do x = x + i % 7 end
  return x
end

-- Turns that take so many seconds.
local function turns_in(seconds)
  local turns = 100000
  while true do
    local t = tools.time(spin, turns)
    if t > 0.02 then return (turns * seconds / t) // 1 | 0 end
    turns = turns * 2
  end
end

-- Jobs of 10 ms on all CPUs but one, while the script waits, and while it spins
-- between submits and wait. What the script loses by that, beside what it
-- loses when a C program keeps the same CPUs busy.
local function start_busy(n)
  local workers = math.max(1, pp.ncpus() - 1)
  local server = pp.Server(workers)
  local total = n * workers
  local turns = turns_in(n * JOB * 0.8)
  local function sample(seconds)
    return { seconds = seconds, rate = total * JOB / (seconds * workers) * 100, n = total }
  end
  local function loss(seconds, alone)
    return { seconds = seconds, cost = seconds / alone, rate = (seconds / alone - 1) * 100 }
  end
  local function submit_all()
    for _ = 1, total do server:submit { job_of_10_ms, forget = true } end
  end
  for _ = 1, workers do server:spawn(job_of_10_ms) end
  server:wait()
  return function()
    local samples = {}
    samples.c = sample(tools.floor("busy", total, workers))
    samples.waiting = sample(tools.time(function()
      submit_all()
      server:wait()
    end))
    local alone = tools.time(spin, turns)
    local beside_c
    local other <close> = assert(io.popen(tools.floor_command("busy", total, workers)))
    beside_c = tools.time(spin, turns)
    other:read "a"
    local beside_jobs
    samples.spinning = sample(tools.time(function()
      submit_all()
      local from = pp.time()
      spin(turns)
      beside_jobs = pp.time() - from
      server:wait()
    end))
    samples.alone = loss(beside_c, alone)
    samples.script = loss(beside_jobs, alone)
    return samples
  end
end

return {
  {
    name = "primes",
    n = { quick = 8, usual = 8 },
    rounds = 3,
    start = start_primes,
    lines = {
      { name = "primes.2", of = "two", floor = "lua", unit = "ms", target = "ratio <= 0.526",
        about = "the sums of sum_primes.lua with two workers; floor: plain Lua, one process" },
      { name = "primes.1", of = "one", floor = "lua", unit = "ms", target = "ratio <= 1",
        about = "the same with one worker" },
    },
  },
  {
    name = "busy",
    n = { quick = 5, usual = 40 },
    start = start_busy,
    lines = {
      { name = "busy.wait", of = "waiting", floor = "c", unit = "% busy", target = "rate >= 95",
        about = "share of their time that workers are busy with jobs of 10 ms (one worker fewer"
          .. " than CPUs) while the script waits; floor: C children" },
      { name = "busy.spin", of = "spinning", floor = "c", unit = "% busy",
        target = "rate >= 95", about = "the same while the script spins in Lua" },
      { name = "busy.script", of = "script", floor = "alone", unit = "% more",
        target = "ratio <= 1.02", about = "time that the spinning script takes more than alone;"
          .. " floor: beside C children as busy" },
    },
  },
}
