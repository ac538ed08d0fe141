-- SPDX-License-Identifier: MIT
-- Sums of the primes below eight numbers, one job each.
--
--   ppsh sum_primes.lua [WORKERS]      (default: one for each CPU)

local pp = require "pp"

--- Is n a prime number? By trial division up to the square root.
local function isprime(n)
  if n < 2 then return false end
  for d = 2, math.floor(math.sqrt(n)) do
    if n % d == 0 then return false end
  end
  return true
end

--- The sum of all primes below n.
local function sum_primes(n)
  local sum = 0
  for candidate = 2, n - 1 do
    if isprime(candidate) then sum = sum + candidate end
  end
  return sum
end

local workers = arg[1] and assert(tonumber(arg[1]), "WORKERS must be a number")
local job_server = pp.Server(workers)
print("Starting pp with " .. job_server:get_ncpus() .. " workers")

local start = pp.time()
local jobs = {}
for input = 100000, 100700, 100 do
  local job = job_server:submit(sum_primes, {input}, {isprime})
  jobs[#jobs + 1] = {input = input, job = job}
end

-- job() waits for its job; the others go on meanwhile.
for _, each in ipairs(jobs) do
  print("Sum of primes below " .. each.input .. " is " .. each.job())
end

print("Time elapsed:  " .. pp.time() - start .. " s")
job_server:print_stats()
