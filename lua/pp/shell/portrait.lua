-- SPDX-License-Identifier: MIT
--- Values as bytes that are equal where the values are, to be compared, and shown
-- elsewhere.
--
-- A portrait of a list of values is the same on every host where they are equal,
-- through and through: tables by what is in them, in whatever order it was put
-- there. What only its host can use (functions, userdata, coroutines) and tables
-- with a __tostring are there as the text that tostring makes of them, without
-- addresses; the texts themselves come beside the portrait. It consists of
--
--     number of tables, each as its pairs in order; number of values; values
--
-- where a table is the number it has in that list. Without cycles, tables that
-- are equal are one in there, and come after those they contain; where there is
-- a cycle each is by itself, in the order in which they are met.
local portrait = {}

-- The functions of the host's side travel: what they need are upvalues, for a
-- script may have replaced globals, and its additions would travel, too.
local type, tostring, next, rawget, rawequal, pcall =
  type, tostring, next, rawget, rawequal, pcall
local math_type, lowest, sort, concat, pack, format, gsub, getmetatable = math.type,
  math.mininteger, table.sort, table.concat, string.pack, string.format, string.gsub,
  debug.getmetatable

local function text_of(v)
  local ok, text = pcall(tostring, v)
  if not ok then
    text = "<error in __tostring: " .. (type(text) == "string" and text or type(text)) .. ">"
  end
  return text
end

-- Does tostring say more of a table than its address?
local function speaks(v)
  local meta = getmetatable(v)
  return type(meta) == "table" and rawget(meta, "__tostring") ~= nil
end

-- Is there a way from a table back to itself? Only what can be entered counts.
local function has_cycle(v, open, seen)
  if type(v) ~= "table" or seen[v] or speaks(v) then
    return false
  elseif open[v] then
    return true
  end
  open[v] = true
  for k, item in next, v do
    if has_cycle(k, open, seen) or has_cycle(item, open, seen) then
      return true
    end
  end
  open[v], seen[v] = nil, true
  return false
end

-- Bytes by which a scalar is put in order.
local function scalar_order(v)
  local t = type(v)
  if t == "number" then
    -- big-endian, the sign turned over; a float that is no integer by its text
    if math_type(v) == "integer" then
      return "2" .. pack(">I8", v ~ lowest)
    end
    return "2~" .. format("%.17g", v)
  elseif t == "string" then
    return "3" .. v
  end
  return v and "1t" or "1f"
end

local scalars = { boolean = true, number = true, string = true }

-- The same of a key that is a table, by what is in it but no deeper; or that is
-- only its host's.
local function shallow_order(k)
  if type(k) ~= "table" or speaks(k) then
    return "6" .. gsub(text_of(k), "0x%x%x%x%x%x+", "0x...")
  end
  local parts, n = {}, 0
  for key, v in next, k do
    n = n + 1
    parts[n] = (scalars[type(key)] and scalar_order(key) or type(key)) .. "="
      .. (scalars[type(v)] and scalar_order(v) or type(v))
  end
  sort(parts)
  return "5" .. concat(parts, ",")
end

local encode

-- Keys that are alike so far, by all that is in them. There are few of them,
-- or their order does not count.
local TIED = 32

local function deep_order(state, k)
  local known = state.orders[k]
  if known == nil then
    state.orders[k] = "" -- where it leads back to itself
    known = encode({ k, n = 1 }, state.orders)
    state.orders[k] = known
  end
  return known
end

local put

-- The pairs of a table, in order.
local function body(state, t)
  local keys, by, n, deep = {}, {}, 0, 0
  for k in next, t do
    n = n + 1
    keys[n] = k
    if scalars[type(k)] then
      by[k] = scalar_order(k)
    else
      deep = deep + 1
      by[k] = shallow_order(k)
    end
  end
  sort(keys, function(a, b)
    if by[a] == by[b] and deep <= TIED and a ~= b then
      return deep_order(state, a) < deep_order(state, b)
    end
    return by[a] < by[b]
  end)
  local parts = {}
  local meta = getmetatable(t)
  local name = type(meta) == "table" and rawget(meta, "__name")
  if type(name) == "string" then
    parts[1] = pack("<c1s8", "n", name)
  end
  for i = 1, n do
    put(state, parts, keys[i])
    put(state, parts, rawget(t, keys[i]))
  end
  parts[#parts + 1] = "e"
  return concat(parts)
end

local function table_number(state, t)
  local number = state.numbers[t]
  if number then
    return number
  end
  local outer = state.texts
  state.texts = {}
  if state.cyclic then
    number = #state.bodies + 1
    state.numbers[t] = number
    state.bodies[number] = "" -- its place
  end
  local text = body(state, t)
  number = number or state.equal[text]
  if not number then
    number = #state.bodies + 1
    state.equal[text] = number
  end
  if not state.said[number] then
    state.bodies[number], state.said[number] = text, state.texts
  end
  state.numbers[t], state.texts = number, outer
  return number
end

function put(state, parts, v)
  local t = type(v)
  local text
  if t == "string" then
    text = pack("<c1s8", "s", v)
  elseif t == "number" then
    if math_type(v) == "integer" then
      text = pack("<c1i8", "i", v)
    elseif v ~= v then
      text = "N"
    else
      text = pack("<c1d", "d", v)
    end
  elseif t == "boolean" then
    text = v and "t" or "f"
  elseif t == "nil" then
    text = "z"
  elseif t == "table" and not speaks(v) then
    text = pack("<c1I4", "r", table_number(state, v))
  else
    local said = text_of(v)
    state.texts[#state.texts + 1] = said
    text = pack("<c1s8", "o", (gsub(said, "0x%x%x%x%x+", "0x...")))
  end
  parts[#parts + 1] = text
end

-- Of a list with n: its portrait, and the texts of what only its host can use.
function encode(list, orders)
  local state = {
    numbers = {}, bodies = {}, equal = {}, texts = {}, said = {}, orders = orders or {},
  }
  state.cyclic = has_cycle(list, {}, {})
  local roots = {}
  for i = 1, list.n do
    put(state, roots, list[i])
  end
  local texts = {}
  state.said[#state.bodies + 1] = state.texts
  for i = 1, #state.bodies + 1 do
    local said = state.said[i]
    for k = 1, #said do
      texts[#texts + 1] = said[k]
    end
  end
  return pack("<I4", #state.bodies) .. concat(state.bodies) .. pack("<I4", list.n)
    .. concat(roots), texts
end

--- Make a portrait.
-- @tparam table list the values, with their number as `n`
-- @treturn string the portrait
-- @treturn {string,...} texts of what only its host can use, in order
function portrait.encode(list)
  return encode(list)
end

-- What stands for a value that only its host can use.
local Opaque = {}

function Opaque:__tostring()
  return self[1]
end

--- Is this what stands for a value that only its host can use?
function portrait.is_opaque(v)
  return rawequal(debug.getmetatable(v), Opaque)
end

-- Read one value; more of them are behind it. Raises on what is no portrait.
local function read(state, at)
  local bytes = state.bytes
  local tag = bytes:sub(at, at)
  at = at + 1
  if tag == "s" then
    return string.unpack("<s8", bytes, at)
  elseif tag == "i" then
    return string.unpack("<i8", bytes, at)
  elseif tag == "d" then
    return string.unpack("<d", bytes, at)
  elseif tag == "N" then
    return 0 / 0, at
  elseif tag == "t" or tag == "f" then
    return tag == "t", at
  elseif tag == "z" then
    return nil, at
  elseif tag == "r" then
    local number, after = string.unpack("<I4", bytes, at)
    return assert(state.tables[number], "no such table"), after
  elseif tag == "o" then
    local text, after = string.unpack("<s8", bytes, at)
    state.opaque = state.opaque + 1
    return setmetatable({ state.texts and state.texts[state.opaque] or text }, Opaque), after
  end
  error("no such tag")
end

local function decode(bytes, texts)
  local state = { bytes = bytes, texts = texts, tables = {}, opaque = 0 }
  local ntables, at = string.unpack("<I4", bytes)
  assert(ntables <= #bytes, "too many tables")
  for i = 1, ntables do
    state.tables[i] = {}
  end
  for i = 1, ntables do
    local t, k = state.tables[i]
    if bytes:sub(at, at) == "n" then
      local name
      name, at = string.unpack("<s8", bytes, at + 1)
      setmetatable(t, { __name = name })
    end
    while bytes:sub(at, at) ~= "e" do
      k, at = read(state, at)
      t[k], at = read(state, at)
    end
    at = at + 1
  end
  local list = {}
  list.n, at = string.unpack("<I4", bytes, at)
  assert(list.n <= #bytes, "too many values")
  for i = 1, list.n do
    list[i], at = read(state, at)
  end
  return list
end

--- Make the values of a portrait, which may have come from anywhere.
-- @string bytes
-- @tparam[opt] {string,...} texts of what only its host can use; without them it
-- is shown without addresses
-- @treturn ?table the values, with their number as `n`; nil if it is none
function portrait.decode(bytes, texts)
  if type(bytes) ~= "string" then
    return nil
  end
  local ok, list = pcall(decode, bytes, texts)
  return ok and list or nil
end

return portrait
