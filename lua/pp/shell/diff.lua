-- SPDX-License-Identifier: MIT
--- How two answers differ: path by path for tables, line by line for texts.
local portrait = require "pp.shell.portrait"

local diff = {}

-- At most so many lines are made, and so many differing lines looked for in one
-- text.
local LINES, EDITS = 200, 1000

local function lines_of(text)
  local lines = {}
  for line in (text:sub(-1) == "\n" and text or text .. "\n"):gmatch "([^\n]*)\n" do
    lines[#lines + 1] = line
  end
  return lines
end

-- The shortest way from a to b, from line `first` on up to those before the
-- last `tail` (Myers: "An O(ND) difference algorithm", 1986): list of
-- {"-" or "+", number in a, line}; nil if it is too long.
local function edits(a, b, first, tail)
  local n, m = #a - tail - first + 1, #b - tail - first + 1
  local v, trace = { [1] = 0 }, {}
  for d = 0, math.min(n + m, EDITS) do
    trace[d] = {}
    for k = -d, d, 2 do
      local x
      if k == -d or (k ~= d and v[k - 1] < v[k + 1]) then
        x = v[k + 1]
      else
        x = v[k - 1] + 1
      end
      while x < n and x - k < m and a[first + x] == b[first + x - k] do
        x = x + 1
      end
      v[k] = x
      trace[d][k] = x
      if x >= n and x - k >= m then
        local steps = {}
        for back = d, 1, -1 do
          local row = trace[back - 1]
          local down = k == -back
            or (k ~= back and (row[k - 1] or -1) < (row[k + 1] or -1))
          local from = down and k + 1 or k - 1
          local at = row[from]
          if down then
            table.insert(steps, 1, { "+", first + at, b[first + at - from] })
          else
            table.insert(steps, 1, { "-", first + at, a[first + at] })
          end
          k = from
        end
        return steps
      end
    end
  end
end

--- Compare two texts line by line.
-- @string a
-- @string b
-- @treturn {string,...} lines: `@ line 3`, `- gone`, `+ new`
function diff.text(a, b)
  local x, y = lines_of(a), lines_of(b)
  local first, tail = 1, 0
  while first <= #x and first <= #y and x[first] == y[first] do
    first = first + 1
  end
  while tail < #x - first + 1 and tail < #y - first + 1 and x[#x - tail] == y[#y - tail] do
    tail = tail + 1
  end
  local out, at = {}, nil
  local steps = edits(x, y, first, tail)
  if not steps then
    steps = {}
    for i = first, #x - tail do
      steps[#steps + 1] = { "-", i, x[i] }
    end
    for i = first, #y - tail do
      steps[#steps + 1] = { "+", #x - tail + 1, y[i] }
    end
  end
  for _, step in ipairs(steps) do
    if step[2] ~= at then
      out[#out + 1] = "@ line " .. step[2]
    end
    out[#out + 1] = step[1] .. " " .. step[3]
    at = step[1] == "-" and step[2] + 1 or step[2]
  end
  return out
end

local function same(a, b)
  if type(a) == "table" and type(b) == "table" then
    return portrait.is_opaque(a) and portrait.is_opaque(b)
      and tostring(a):gsub("0x%x+", "") == tostring(b):gsub("0x%x+", "")
  end
  return math.type(a) == math.type(b) and (a == b or (a ~= a and b ~= b))
end

local function is_table(v)
  return type(v) == "table" and not portrait.is_opaque(v)
end

-- A key as part of a path, and to find the same key of another table by.
local function step_of(k)
  if type(k) == "string" and k:find "^[%a_][%w_]*$" then
    return "." .. k, "s" .. k
  elseif type(k) == "table" then
    local text = is_table(k) and "{..}" or tostring(k)
    return "[" .. text .. "]", "t" .. portrait.encode { k, n = 1 }
  elseif type(k) == "string" then
    return (("[%q]"):format(k):gsub("\\\n", "\\n")), "s" .. k
  end
  return "[" .. tostring(k) .. "]", math.type(k) or type(k)
end

local order = { number = 1, string = 2, boolean = 3, table = 4 }

-- Keys of both tables: path, value here, value there; in order.
local function pairs_of(a, b)
  local list, by = {}, {}
  for which, t in ipairs { a, b } do
    for k, v in next, t do
      local path, name = step_of(k)
      if type(k) ~= "string" and type(k) ~= "table" then
        name = name .. path
      end
      local entry = by[name]
      if not entry then
        entry = { path = path, key = k, name = name }
        list[#list + 1], by[name] = entry, entry
      end
      entry[which] = v
      entry["has" .. which] = true
    end
  end
  table.sort(list, function(x, y)
    local tx, ty = type(x.key), type(y.key)
    if tx ~= ty then
      return order[tx] < order[ty]
    elseif tx == "number" and x.key ~= y.key then
      return x.key < y.key
    end
    return x.name < y.name
  end)
  return list
end

local function compare(state, path, a, b)
  if is_table(a) and is_table(b) then
    local seen = state.seen[a] or {}
    state.seen[a] = seen
    if seen[b] then
      return
    end
    seen[b] = true
    for _, entry in ipairs(pairs_of(a, b)) do
      local here = path .. entry.path
      if not entry.has1 then
        state.emit("+", here, entry[2])
      elseif not entry.has2 then
        state.emit("-", here, entry[1])
      else
        compare(state, here, entry[1], entry[2])
      end
    end
  elseif type(a) == "string" and type(b) == "string" and a ~= b
    and (a:find("\n", 1, true) or b:find("\n", 1, true)) then
    state.texts(path, diff.text(a, b))
  elseif not same(a, b) then
    state.emit("-", path, a)
    state.emit("+", path, b)
  end
end

--- Say how two groups of hosts differ in what they answered.
-- @tparam table a `nodes`, the set; `values`, the list with its `n`
-- @tparam table b
-- @tparam function show makes text of a value
-- @treturn string lines
function diff.groups(a, b, show)
  local out, left_out = { "--- " .. a.nodes, "+++ " .. b.nodes }, 0
  local state = { seen = {} }
  local function add(line)
    if #out >= LINES then
      left_out = left_out + 1
    else
      out[#out + 1] = line
    end
  end
  function state.emit(sign, path, v)
    local text = show(v)
    local named = path ~= "" and path:gsub("^%.", "") .. " = " or ""
    add(sign .. " " .. named .. text:gsub("\n", "\n" .. sign .. " "))
  end
  function state.texts(path, lines)
    for _, line in ipairs(lines) do
      local named = line:sub(1, 1) == "@" and path ~= "" and path:gsub("^%.", "") .. " " or ""
      add(line:sub(1, 2) .. named .. line:sub(3))
    end
  end
  local n = math.max(a.values.n, b.values.n)
  for i = 1, n do
    local path = n > 1 and "#" .. i or ""
    if i > a.values.n then
      state.emit("+", path, b.values[i])
    elseif i > b.values.n then
      state.emit("-", path, a.values[i])
    else
      compare(state, path, a.values[i], b.values[i])
    end
  end
  if left_out > 0 then
    out[#out + 1] = ("... and %d lines more"):format(left_out)
  end
  return table.concat(out, "\n") .. "\n"
end

return diff
