-- SPDX-License-Identifier: MIT
-- The alternating harmonic series 1 - 1/2 + 1/3 - ..., which tends to log 2, in
-- 128 parts. Nobody holds the jobs: a callback adds each part as it comes. No
-- lock is needed, because callbacks run one at a time in this interpreter,
-- while it waits.
--
--   ppsh callback.lua [WORKERS [N]]    (default N: 20000000)

local pp = require "pp"

local parts = 128
local workers = arg[1] and assert(tonumber(arg[1]), "WORKERS must be a number")
local n = assert(tonumber(arg[2] or 20000000), "N must be a number")

--- The terms of the series from `first` up to but not including `last`.
local function part_sum(first, last)
  local sum = 0
  for x = first, last - 1 do
    if x % 2 == 0 then sum = sum - 1 / x else sum = sum + 1 / x end
  end
  return sum
end

local job_server = pp.Server(workers)
print("Starting pp with " .. job_server:get_ncpus() .. " workers")

local total = 0
local function add(sum) total = total + sum end

local step = (n - 1) // parts + 1
for first = 1, n - 1, step do
  local last = math.min(first + step, n)
  job_server:submit{part_sum, args = {first, last}, callback = add}
end
job_server:wait()

print(("Partial sum is %.16g | diff = %.16g")
  :format(total, math.log(2) - total))
job_server:print_stats()
