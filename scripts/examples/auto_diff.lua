-- SPDX-License-Identifier: MIT
-- Automatic differentiation: a number that carries its derivative goes through
-- an ordinary sum and comes out with the sum's derivative. Here the sum is the
-- Taylor series of the logarithm around 1. The job is a method, its arguments
-- are objects with metatables, and so is its result: all of it travels.
--
--   ppsh auto_diff.lua [WORKERS [TERMS]]    (default TERMS: 20000)

local pp = require "pp"

local workers = arg[1] and assert(tonumber(arg[1]), "WORKERS must be a number")
local terms = assert(math.tointeger(tonumber(arg[2] or 20000)), "TERMS must be an integer")

-- A value and its derivative.
local Dual = {}
Dual.__index = Dual

function Dual.new(x, dx)
  return setmetatable({x = x, dx = dx}, Dual)
end

-- A plain number is a constant: its derivative is 0.
local function dual(v)
  return getmetatable(v) == Dual and v or Dual.new(v, 0.0)
end

function Dual.__add(a, b)
  a, b = dual(a), dual(b)
  return Dual.new(a.x + b.x, a.dx + b.dx)
end

function Dual.__sub(a, b)
  a, b = dual(a), dual(b)
  return Dual.new(a.x - b.x, a.dx - b.dx)
end

function Dual.__mul(a, b)
  a, b = dual(a), dual(b)
  return Dual.new(a.x * b.x, a.x * b.dx + a.dx * b.x)
end

function Dual.__pow(a, n) -- n: a number
  return Dual.new(a.x ^ n, n * a.x ^ (n - 1) * a.dx)
end

-- Functions cut off after so many terms.
local Series = {}
Series.__index = Series

function Series.new(n)
  return setmetatable({n = n}, Series)
end

--- The logarithm of x, a number or a Dual: near it for 0 < x < 2.
function Series:t_log(x)
  local y, sum = x - 1, 0
  for i = 1, self.n - 1 do
    sum = sum + y ^ i * ((i % 2 == 1 and 1 or -1) / i)
  end
  return sum
end

local job_server = pp.Server(workers)
print("Starting pp with " .. job_server:get_ncpus() .. " workers")

local series = Series.new(terms)
local jobs = {}
for i = 0, 31 do
  local x = 1 + i / 32
  local job = job_server:submit(series.t_log, {series, Dual.new(x, 1.0)})
  jobs[#jobs + 1] = {x = x, job = job}
end

for _, each in ipairs(jobs) do
  local x, log = each.x, each.job()
  assert(getmetatable(log) == Dual)
  print(("t_log(%f) = %f, t_log'(%f) = %f"):format(x, log.x, x, log.dx))
end

job_server:print_stats()
