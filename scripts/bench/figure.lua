-- SPDX-License-Identifier: MIT
--- From the samples of a measurement to the figures of a line.
local figure = {}

--- What a rate is counted in: for each unit, the rate of n operations in so
-- many seconds (or, where samples carry it, the cost itself), and how it is
-- written. `line.bytes` are the bytes one operation moves.
local units = {
  ["ns"] = function(s, n) return s / n * 1e9 end,
  ["us"] = function(s, n) return s / n * 1e6 end,
  ["ms"] = function(s, n) return s / n * 1e3 end,
  ["s"] = function(s) return s end,
  ["/s"] = function(s, n) return n / s end,
  ["M/s"] = function(s, n) return n / s / 1e6 end,
  ["GB/s"] = function(s, n, line) return n * line.bytes / s / 1e9 end,
  ["KB"] = true,
  ["B"] = true,
  ["ms/s"] = true,
  ["% busy"] = true,
  ["% more"] = true,
}

--- The rate of a sample, in the unit of its line.
function figure.rate(sample, line)
  if sample.rate then return sample.rate end
  if sample.cost then return sample.cost end
  local unit = units[line.unit]
  assert(type(unit) == "function", "a sample without its rate")
  return unit(sample.seconds, sample.n, line)
end

local function cost_of(sample)
  return sample.cost or sample.seconds / sample.n
end

--- The sample of the least cost.
function figure.best(samples)
  local least = samples[1]
  for _, s in ipairs(samples) do
    if cost_of(s) < cost_of(least) then least = s end
  end
  return least
end

local function median(list)
  table.sort(list)
  local half = (#list + 1) // 2
  return (list[half] + list[#list + 1 - half]) / 2
end

-- The median of the ratios of the rounds; nil where the floor is nothing and
-- ours is not.
local function ratio_of(ours, floors)
  local list = {}
  for i, s in ipairs(ours) do
    local a, b = cost_of(s), floors[i] and cost_of(floors[i])
    if b and b > 0 then
      list[#list + 1] = a / b
    elseif b and a <= 0 then
      list[#list + 1] = 1
    end
  end
  return #list > 0 and median(list) or nil
end

local ways = {
  ["<="] = function(a, b) return a <= b end,
  ["<"] = function(a, b) return a < b end,
  [">"] = function(a, b) return a > b end,
  [">="] = function(a, b) return a >= b end,
}

--- The figures of a line: n, seconds, rate, ratio, floor (a rate), rounds, met
-- (is the target reached? nil where there is none, or `small`: at sizes too small
-- to say); or nil and what is missing.
function figure.of(line, samples, seconds, small)
  local ours, floors = samples[line.of], line.floor and samples[line.floor] or {}
  if not ours then return nil, "it gave no figure" end
  if line.floor and #floors == 0 and not line.optional then
    return nil, "its floor gave no figure"
  end
  local s = figure.best(ours)
  local result = { n = s.n, seconds = s.seconds or seconds, rate = figure.rate(s, line),
    rounds = #ours }
  if #floors > 0 then
    result.floor = figure.rate(figure.best(floors), line)
    result.ratio = ratio_of(ours, floors)
  end
  if line.target and not small then
    local what, how, value = line.target:match "^(%a+) ([<>=]+) ([%d.e]+)"
    local reached = result[what]
    result.met = reached ~= nil and ways[how](reached, tonumber(value))
  end
  return result
end

return figure
