-- SPDX-License-Identifier: MIT
--- How the prompt shows values: tables readably, within bounds, cycles marked.
--
-- Nothing of a value is called but __tostring, and its fields are looked at
-- raw. What is shown is bounded by lines, entries and bytes, however large or
-- deep the value is; what was left out is counted.
local show = {}

local defaults = {
  width = 80, -- columns; what fits is on one line
  depth = 8, -- tables inside of tables
  entries = 100, -- of one table
  lines = 200, -- in all
  string = 1000, -- bytes of a string inside of a table
  color = false,
}

-- Entries beyond the bound are counted, but not for ever.
local COUNTED = 10000000
-- Keys are put in order when there are at most so many.
local SORTED = 20000

-- --- text -------------------------------------------------------------------

-- Ranges of characters two columns wide, and of those that take none.
local wide = {
  { 0x1100, 0x115f }, { 0x2e80, 0x303e }, { 0x3041, 0xa4cf }, { 0xac00, 0xd7a3 },
  { 0xf900, 0xfaff }, { 0xfe30, 0xfe6f }, { 0xff00, 0xff60 }, { 0xffe0, 0xffe6 },
  { 0x1f300, 0x1f64f }, { 0x1f680, 0x1f6ff }, { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd },
}
local none = {
  { 0x300, 0x36f }, { 0x200b, 0x200f }, { 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f },
  { 0xfe20, 0xfe2f },
}

local function within(ranges, c)
  for _, range in ipairs(ranges) do
    if c >= range[1] and c <= range[2] then
      return true
    end
  end
  return false
end

--- Count the columns that text takes at a terminal. Bytes that are no UTF-8
-- count one each.
-- @string s
-- @treturn integer
function show.width(s)
  if not s:find "[\x80-\xff]" then
    return #s
  end
  local columns, at = 0, 1
  while at <= #s do
    local ok, c = pcall(utf8.codepoint, s, at)
    if not ok then
      columns, at = columns + 1, at + 1
    else
      if within(wide, c) then
        columns = columns + 2
      elseif not within(none, c) then
        columns = columns + 1
      end
      at = utf8.offset(s, 2, at) or #s + 1
    end
  end
  return columns
end

--- Cut text to so many columns.
-- @string s
-- @int columns at least 1
-- @treturn string `s`, or its beginning and a mark
function show.cut(s, columns)
  if #s <= columns or show.width(s) <= columns then
    return s
  end
  local mark = columns > 3 and ".." or ""
  local room, at = columns - #mark, 1
  while at <= #s do
    local next_at = at + 1
    if pcall(utf8.codepoint, s, at) then
      next_at = utf8.offset(s, 2, at) or #s + 1
    end
    local took = show.width(s:sub(at, next_at - 1))
    if took > room then
      break
    end
    room, at = room - took, next_at
  end
  return s:sub(1, at - 1) .. mark
end

--- Break text into lines at blanks.
-- @string s
-- @int columns
-- @treturn {string,...}
function show.wrap(s, columns)
  local lines, line = {}, nil
  for word in s:gmatch "%S+" do
    if line and show.width(line) + show.width(word) < columns then
      line = line .. " " .. word
    else
      lines[#lines + 1] = line
      line = word
    end
  end
  lines[#lines + 1] = line
  return lines
end

local escapes = {
  ["\a"] = "\\a", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
  ["\t"] = "\\t", ["\v"] = "\\v", ["\\"] = "\\\\", ['"'] = '\\"',
}

local function byte_escape(c)
  return escapes[c] or ("\\x%02x"):format(c:byte())
end

-- A string as a literal that Lua reads as the same string: control characters
-- and bytes that are no UTF-8 are escaped.
local function literal(s, most)
  local rest = ""
  if #s > most then
    local last = most
    while last > 0 and s:byte(last + 1) and s:byte(last + 1) & 0xc0 == 0x80 do
      last = last - 1
    end
    rest = (" .. %d bytes more"):format(#s - last)
    s = s:sub(1, last)
  end
  if not s:find "[%c\\\"\x7f-\xff]" then
    return '"' .. s .. '"' .. rest
  end
  s = s:gsub('[%c\\"\x7f]', byte_escape)
  if s:find "[\x80-\xff]" and not utf8.len(s) then
    local parts, at = {}, 1
    while at <= #s do
      local _, bad = utf8.len(s, at)
      if not bad then
        parts[#parts + 1] = s:sub(at)
        break
      end
      parts[#parts + 1] = s:sub(at, bad - 1)
      parts[#parts + 1] = byte_escape(s:sub(bad, bad))
      at = bad + 1
    end
    s = table.concat(parts)
  end
  -- C1 controls, which some terminals obey
  s = s:gsub("\xc2[\x80-\x9f]", function(c)
    return ("\\u{%x}"):format(utf8.codepoint(c))
  end)
  return '"' .. s .. '"' .. rest
end

local keywords = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or
  repeat return then true until while]]):gmatch "%a+" do
  keywords[word] = true
end

-- --- values -----------------------------------------------------------------

-- The first line of a text, without what would disturb a terminal.
local function one_line(s, most)
  local line, rest = s:match "^([^\n]*)(.*)$"
  if #line > most or rest ~= "" then
    line = line:sub(1, most) .. " .."
  end
  return (line:gsub("[%c\x7f]", byte_escape))
end

local function rawtostring(v)
  local meta = debug.getmetatable(v)
  if meta == nil then
    return tostring(v)
  end
  return ("%s: %p"):format(type(v), v)
end

-- What __tostring or __name make of a value: text, or nil.
local function named(v)
  local meta = debug.getmetatable(v)
  if type(meta) ~= "table" then
    return nil
  end
  local f = rawget(meta, "__tostring")
  if f ~= nil then
    local ok, text = pcall(tostring, v)
    if not ok then
      text = ("<error in __tostring: %s>"):format(
        type(text) == "string" and text or "a " .. type(text))
    end
    return text
  end
  return nil
end

local colors = {
  string = "32", number = "36", boolean = "35", ["nil"] = "35", mark = "2",
}

local function paint(state, kind, text)
  local code = state.color and colors[kind]
  if not code then
    return text
  end
  return "\27[" .. code .. "m" .. text .. "\27[0m"
end

-- A piece of output: text without and with colors.
local function piece(state, kind, text)
  return { plain = show.width(text), text = paint(state, kind, text) }
end

local function scalar(state, v)
  local t = type(v)
  if t == "string" then
    return piece(state, "string", literal(v, state.string))
  elseif t == "number" or t == "boolean" or t == "nil" then
    return piece(state, t, tostring(v))
  end
  local text = named(v)
  if text then
    return piece(state, "mark", one_line(text, state.string))
  elseif t == "function" then
    local info = debug.getinfo(v, "S")
    if info.what ~= "C" then
      text = ("function <%s:%d>"):format(info.short_src, info.linedefined)
      return piece(state, "mark", one_line(text, state.string))
    end
  end
  local meta = debug.getmetatable(v)
  local name = type(meta) == "table" and rawget(meta, "__name")
  text = rawtostring(v)
  if type(name) == "string" then
    text = text:gsub("^[^:]*", function() return one_line(name, 80) end)
  end
  return piece(state, "mark", text)
end

local order = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local ta, tb = type(a), type(b)
  if ta ~= tb then
    return (order[ta] or 9) < (order[tb] or 9)
  elseif ta == "number" or ta == "string" then
    return a < b
  elseif ta == "boolean" then
    return a and not b
  end
  return false
end

-- The keys of t that are shown behind its n first items, and how many there
-- are beyond these (text).
local function keys_of(t, n, most)
  local keys, count = {}, 0
  for k in next, t do
    local item = math.type(k) == "integer" and k >= 1 and k <= n
    if not item then
      count = count + 1
      if count <= SORTED then
        keys[count] = k
      elseif count > COUNTED then
        break
      end
    end
  end
  if count <= SORTED then
    table.sort(keys, before)
  end
  for i = #keys, most + 1, -1 do
    keys[i] = nil
  end
  return keys, count - #keys, count > COUNTED
end

local compose

-- key = value, as a piece: the value's, with the key in front.
local function entry(state, t, k, depth)
  local key
  if type(k) == "string" and k:find "^[%a_][%w_]*$" and not keywords[k] and #k <= 200 then
    key = k
  elseif type(k) == "string" then
    key = "[" .. literal(k, 200) .. "]"
  elseif type(k) == "table" then
    key = "[" .. one_line(named(k) or rawtostring(k), 200) .. "]"
  else
    key = "[" .. scalar({ string = 200 }, k).text .. "]"
  end
  local columns = show.width(key) + 3
  local value = compose(state, rawget(t, k), depth, columns)
  local found = { plain = value.plain + columns, lines = value.lines }
  if value.lines then
    found.lines[1] = key .. " = " .. value.lines[1]
  else
    found.text = key .. " = " .. value.text
  end
  return found
end

local function counted(n, more_than)
  local digits = tostring(n)
  local grouped = digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
  return (more_than and "more than " or "") .. grouped
end

-- Lines of the pieces, indented by two: items that are short share lines.
local function lay_out(state, pieces, items, depth)
  local room = state.width - 2 * depth - 1
  local lines, line, used = {}, nil, 0
  local function flush()
    if line then
      lines[#lines + 1] = "  " .. line
      line = nil
    end
  end
  for i, p in ipairs(pieces) do
    local comma = i < #pieces and "," or ""
    if p.lines then
      flush()
      for k, text in ipairs(p.lines) do
        lines[#lines + 1] = "  " .. text .. (k == #p.lines and comma or "")
      end
    elseif i > items or p.mark then
      flush()
      lines[#lines + 1] = "  " .. p.text .. (p.mark and "" or comma)
    elseif line and used + p.plain + 2 <= room then
      line, used = line .. " " .. p.text .. comma, used + p.plain + 2
    else
      flush()
      line, used = p.text .. comma, p.plain + 1
    end
  end
  flush()
  return lines
end

-- taken: columns of the line that are not the value's.
local function compose_table(state, t, depth, taken)
  local meta = debug.getmetatable(t)
  local name = type(meta) == "table" and rawget(meta, "__name")
  local prefix = type(name) == "string" and one_line(name, 80) .. " " or ""
  if state.open[t] then
    local path = state.open[t]
    local up = depth - path
    return piece(state, "mark", up == 1 and "<this table>" or "<cycle: " .. up .. " up>")
  elseif next(t) == nil then
    return { plain = #prefix + 2, text = prefix .. "{}" }
  elseif depth >= state.depth or state.left <= 0 then
    return piece(state, "mark", prefix .. "{..}")
  end
  state.open[t] = depth
  local n = rawlen(t)
  while n > 0 and rawget(t, n) == nil do
    n = n - 1
  end
  local pieces, at, most = {}, 0, state.entries
  while at < n and at < most and state.left > 0 do
    at = at + 1
    state.left = state.left - 1
    pieces[at] = compose(state, rawget(t, at), depth + 1)
  end
  local items, hidden = at, n - at
  local keys, more, endless = keys_of(t, n, most)
  for i, k in ipairs(keys) do
    if state.left <= 0 then
      more = more + #keys - i + 1
      break
    end
    state.left = state.left - 1
    pieces[#pieces + 1] = entry(state, t, k, depth + 1)
  end
  state.open[t] = nil
  if hidden > 0 then
    local mark = piece(state, "mark", ("-- %s more items"):format(counted(hidden)))
    mark.mark = true
    table.insert(pieces, items + 1, mark)
    items = items + 1
  end
  if more > 0 then
    local mark = piece(state, "mark", ("-- %s more fields"):format(counted(more, endless)))
    mark.mark = true
    pieces[#pieces + 1] = mark
  end
  local total, flat = #prefix + 2, true
  for i, p in ipairs(pieces) do
    total = total + p.plain + (i > 1 and 2 or 0)
    flat = flat and not p.lines and not p.mark
  end
  if flat and total + taken + 2 * depth <= state.width then
    local texts = {}
    for i, p in ipairs(pieces) do
      texts[i] = p.text
    end
    return { plain = total, text = prefix .. "{" .. table.concat(texts, ", ") .. "}" }
  end
  local lines = lay_out(state, pieces, items, depth + 1)
  table.insert(lines, 1, prefix .. "{")
  lines[#lines + 1] = "}"
  return { plain = total, lines = lines }
end

function compose(state, v, depth, taken)
  if type(v) ~= "table" then
    return scalar(state, v)
  end
  local text = named(v)
  if text then
    return piece(state, "mark", one_line(text, state.string))
  end
  return compose_table(state, v, depth, (taken or 0) + 1) -- a comma
end

local function state_of(limits)
  local state = { open = {} }
  for k, v in pairs(defaults) do
    state[k] = limits and limits[k] or v
  end
  state.width = math.max(state.width, 10)
  state.left = math.max(state.lines, 1) * 20 -- entries in all
  return state
end

local function bounded(lines, most, width)
  if #lines <= most then
    return table.concat(lines, "\n")
  end
  local tail = lines[#lines - 1]:find "^  [^ ]*%-%- " and 2 or 1 -- with what it counts
  local kept = math.max(most - tail - 1, 1)
  local left = ("-- %s more lines"):format(counted(#lines - kept - tail))
  left = "  " .. show.cut(left, math.max(width - 2, 4))
  table.move(lines, #lines - tail + 1, #lines, kept + 2)
  lines[kept + 1] = left
  for i = #lines, kept + tail + 2, -1 do
    lines[i] = nil
  end
  return table.concat(lines, "\n")
end

--- Show a value the way the prompt prints it: as print does, but for tables
-- without __tostring, whose fields are shown.
-- @param v
-- @tparam[opt] table limits `width` (columns, 80), `depth` (8), `entries` (of
-- one table, 100), `lines` (in all, 200), `string` (bytes of a string in a
-- table, 1000), `color` (false)
-- @treturn string without newline at its end
function show.value(v, limits)
  if type(v) ~= "table" or named(v) then
    local ok, text = pcall(tostring, v)
    return ok and text or named(v) or rawtostring(v)
  end
  local state = state_of(limits)
  local found = compose_table(state, v, 0, 0)
  if found.text then
    return found.text
  end
  return bounded(found.lines, state.lines, state.width)
end

--- Show a value as it stands in a table: strings as literals, in quotes.
-- @param v
-- @tparam[opt] table limits as for value
-- @treturn string
function show.literal(v, limits)
  if type(v) == "table" and not named(v) then
    return show.value(v, limits)
  end
  return scalar(state_of(limits), v).text
end

return show
