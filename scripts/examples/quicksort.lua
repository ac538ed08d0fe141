-- SPDX-License-Identifier: MIT
-- Quicksort of random numbers. The first five levels of the recursion split the
-- list here; below them each part is a job, which sorts it with the same
-- function. So the list that comes back mixes numbers and jobs, and the jobs
-- are asked in their places.
--
--   ppsh quicksort.lua [WORKERS [N [SEED]]]    (default N: 1000000)

local pp = require "pp"

local depth = 5 -- 2^5 jobs, fewer if a part has nothing to sort
local workers = arg[1] and assert(tonumber(arg[1]), "WORKERS must be a number")
local n = assert(math.tointeger(tonumber(arg[2] or 1000000)), "N must be an integer")
local seed = arg[3] and assert(math.tointeger(tonumber(arg[3])), "SEED must be an integer")
if seed then math.randomseed(seed) end

--- The numbers of a list in increasing order. With a server, what is left after
-- `levels` levels becomes jobs.
local function quicksort(list, levels, server)
  if #list <= 1 then return list end
  if levels == 0 then return {server:submit(quicksort, {list, -1})} end
  local pivot, below, rest = list[1], {}, {}
  for i = 2, #list do
    local part = list[i] < pivot and below or rest
    part[#part + 1] = list[i]
  end
  local sorted = quicksort(below, levels - 1, server)
  sorted[#sorted + 1] = pivot
  rest = quicksort(rest, levels - 1, server)
  return table.move(rest, 1, #rest, #sorted + 1, sorted)
end

local job_server = pp.Server(workers)
print("Starting pp with " .. job_server:get_ncpus() .. " workers")

local input = {}
for i = 1, n do input[i] = math.random(0, 100000) end

local output = {}
for _, x in ipairs(quicksort(input, depth, job_server)) do
  if type(x) == "number" then
    output[#output + 1] = x
  else -- a job
    local part = x()
    table.move(part, 1, #part, #output + 1, output)
  end
end

print("first 30 numbers in increasing order: ["
  .. table.concat(output, ", ", 1, math.min(30, #output)) .. "]")
job_server:print_stats()
