-- SPDX-License-Identifier: MIT

--- Lists of numbers that are never built.
--
-- @module pp.range

local function bad(number, text, ...)
  error(("bad argument #%d to 'range' (%s)"):format(number, text:format(...)), 3)
end

--- A list of numbers that is never built.
-- @field n how many
local Range = {}
local range = { Range = Range }

function Range.__len(r)
  return r.n
end

function Range.__index(r, i)
  if math.type(i) == "integer" and i >= 1 and i <= r.n then
    return r.first + (i - 1) * r.step
  end
end

-- How many numbers a numeric for passes through; nil: more than can be told.
local function steps(first, last, step)
  if math.type(first) == "integer" and math.type(step) == "integer" then
    if math.type(last) == "float" then -- as the loop does
      if last ~= last then
        return 0
      end
      last = step > 0 and math.floor(last) or math.ceil(last)
      if math.type(last) == "float" then -- beyond the integers
        return (last > 0) ~= (step > 0) and 0 or nil
      end
    end
    if (step > 0 and first > last) or (step < 0 and first < last) then
      return 0
    end
    local way = step > 0 and last - first or first - last
    local n = way // (step > 0 and step or -step) + 1
    return way >= 0 and n > 0 and n or nil
  end
  local n = (last - first) / step
  if n ~= n or n < 0 then
    return 0
  end
  return n < 2.0 ^ 53 and math.tointeger(math.floor(n)) + 1 or nil
end

--- A list from `first` to `last`, like a numeric for.
-- @number first
-- @number last
-- @number[opt=1] step not 0
-- @treturn table what `#` and indexing work on
function range.range(first, last, step)
  step = step or 1
  for i, v in ipairs { first, last, step } do
    if type(v) ~= "number" then
      bad(i, "a number expected, got %s", type(v))
    end
  end
  if type(first) ~= "number" or type(last) ~= "number" then
    bad(first == nil and 1 or 2, "a number expected, got nil")
  elseif step == 0 then
    bad(3, "step is zero")
  end
  local n = steps(first, last, step)
  if not n then
    bad(2, "it has no end")
  end
  return setmetatable({ first = first, step = step, n = n }, Range)
end

return range
