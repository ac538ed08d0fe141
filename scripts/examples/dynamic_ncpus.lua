-- SPDX-License-Identifier: MIT
-- The same sum with 1, 2, 4, 8, 16 and again 1 workers: set_ncpus changes the
-- number of workers of a server that goes on. The sum is the alternating
-- harmonic series 1 - 1/2 + 1/3 - ..., which tends to log 2, in 64 parts.
--
--   ppsh dynamic_ncpus.lua [N [WORKERS ...]]    (default N: 20000000)

local pp = require "pp"

local parts = 64
local n = assert(tonumber(arg[1] or 20000000), "N must be a number")
local counts = {1, 2, 4, 8, 16, 1}
if arg[2] then
  counts = {}
  for i = 2, #arg do counts[i - 1] = assert(tonumber(arg[i]), "WORKERS must be numbers") end
end

--- The terms of the series from `first` up to but not including `last`.
local function part_sum(first, last)
  local sum = 0
  for x = first, last - 1 do
    if x % 2 == 0 then sum = sum - 1 / x else sum = sum + 1 / x end
  end
  return sum
end

local job_server = pp.Server(counts[1])
local step = (n - 1) // parts + 1
for _, count in ipairs(counts) do
  job_server:set_ncpus(count)
  print("Starting pp with " .. job_server:get_ncpus() .. " workers")

  local start = pp.time()
  local jobs = {}
  for i = 1, parts do
    local first = 1 + (i - 1) * step
    jobs[i] = job_server:submit(part_sum, {first, math.min(first + step, n)})
  end
  local total = 0
  for _, job in ipairs(jobs) do total = total + job() end

  print(("Partial sum is %.16g | diff = %.16g"):format(total, math.log(2) - total))
  print("Time elapsed:  " .. pp.time() - start .. " s")
  print()
end
job_server:print_stats()
