-- SPDX-License-Identifier: MIT
--- What Tab offers at the prompt: names, fields, methods, commands, hosts,
-- files, modules. Nothing of a value is called, and fields are looked at raw.
local complete = {}

-- Enough to choose from, and what looking through a large table may take.
local MOST, LOOKED = 1000, 200000

local keywords = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
  "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
}

-- --- names ------------------------------------------------------------------

-- The tables in which a value's fields are found: itself, then by __index.
local function tables_of(v)
  local found, seen = {}, {}
  for _ = 1, 10 do
    if type(v) == "table" and not seen[v] then
      found[#found + 1], seen[v] = v, true
    end
    local meta = debug.getmetatable(v)
    local index = type(meta) == "table" and rawget(meta, "__index")
    if type(index) ~= "table" or seen[index] then
      break
    end
    v = index
  end
  return found
end

local function field(v, k)
  for _, t in ipairs(tables_of(v)) do
    local found = rawget(t, k)
    if found ~= nil then
      return found
    end
  end
end

local function callable(v)
  if type(v) == "function" then
    return true
  end
  local meta = debug.getmetatable(v)
  return type(meta) == "table" and rawget(meta, "__call") ~= nil
end

local escapes = { n = "\n", t = "\t", ["\\"] = "\\", ['"'] = '"', ["'"] = "'" }

-- The value that the end of `code` names: a.b[1].c, s:, ("x"); and whether
-- there is one.
local function resolve(code)
  local steps = {}
  while true do
    local before, name = code:match "^(.-)([%a_][%w_]*)$"
    if name then
      -- the longest name: "^(.-)" is the shortest beginning
      local sign = before:match "([.:])%s*$"
      if sign and not before:find "%.%.%s*$" then
        table.insert(steps, 1, name)
        code = before:gsub("[.:]%s*$", "")
      else
        local v = field(_G, name)
        for _, step in ipairs(steps) do
          if v == nil then
            return nil, false
          end
          v = field(v, step)
        end
        return v, v ~= nil
      end
    else
      local rest, number = code:match "^(.*)%[%s*(%-?%d+)%s*%]$"
      local other, quote, text = code:match "^(.*)%[%s*([\"'])(.-)%2%s*%]$"
      if number then
        table.insert(steps, 1, math.tointeger(tonumber(number)))
        code = rest
      elseif quote then
        table.insert(steps, 1, (text:gsub("\\(.)", escapes)))
        code = other
      elseif #steps == 0 and code:find "[\"']%s*%)?$" then
        return "", true -- a string
      else
        return nil, false
      end
    end
  end
end

local function add(found, name, tail)
  if #found < MOST and name:sub(1, #tail) == tail and (name:sub(1, 1) ~= "_" or tail ~= "") then
    found[#found + 1] = name
  end
end

-- Names of documented methods and fields of a kind of userdata that answers by a
-- function.
local function documented(v, found, tail, method)
  local meta = debug.getmetatable(v)
  local name = type(meta) == "table" and rawget(meta, "__name")
  local short = type(name) == "string" and name:match "^pp%.(%a+)$"
  if not short then
    return
  end
  local ok, doc = pcall(require, "pp.shell.doc")
  if ok then
    for _, member in ipairs(doc.members(short, method)) do
      add(found, member, tail)
    end
  end
end

-- Names behind `object.` or `object:`.
local function fields_of(v, tail, method)
  local found, looked = {}, 0
  for _, t in ipairs(tables_of(v)) do
    for k, value in next, t do
      looked = looked + 1
      if looked > LOOKED then
        break
      end
      if type(k) == "string" and k:find "^[%a_][%w_]*$" and (not method or callable(value)) then
        add(found, k, tail)
      end
    end
  end
  if type(v) == "userdata" then
    documented(v, found, tail, method)
  end
  return found
end

local function names(code)
  local tail = code:match "[%a_][%w_]*$" or ""
  local before = code:sub(1, #code - #tail)
  local sign = before:match "([.:])%s*$"
  if sign and before:find "%.%.%s*$" then
    sign = nil
  end
  if not sign then
    if tail == "" and code:find "%S" and code:find "[%w_%])\"']%s*$" then
      return {}, 0
    end
    local found = fields_of(_G, tail, false)
    for _, keyword in ipairs(keywords) do
      if tail ~= "" then
        add(found, keyword, tail)
      end
    end
    return found, #tail
  end
  local v, known = resolve((before:gsub("[.:]%s*$", "")))
  if not known then
    return {}, 0
  end
  return fields_of(v, tail, sign == ":"), #tail
end

-- --- strings ----------------------------------------------------------------

-- Is the end of the code within a string? What it has so far, what stands
-- before it, and its quote.
local function within_string(code)
  local at = 1
  while true do
    local first = code:find("[\"'%-]", at)
    if not first then
      return nil
    end
    local c = code:sub(first, first)
    if c == "-" then
      if code:sub(first, first + 1) == "--" then
        return nil
      end
      at = first + 1
    else
      local stop = first + 1
      while stop <= #code and code:sub(stop, stop) ~= c do
        stop = stop + (code:sub(stop, stop) == "\\" and 2 or 1)
      end
      if stop > #code then
        return code:sub(first + 1), code:sub(1, first - 1), c
      end
      at = stop + 1
    end
  end
end

local function modules(tail)
  local seen, found = {}, {}
  for _, t in ipairs { package.loaded, package.preload } do
    for name in next, t do
      if type(name) == "string" and not seen[name] then
        seen[name] = true
        add(found, name, tail)
      end
    end
  end
  return found
end

-- --- hosts ------------------------------------------------------------------

local function hosts(tail)
  local found = {}
  add(found, "all", tail)
  for _, name in ipairs(require("pp.shell.session").hosts()) do
    add(found, name, tail)
  end
  add(found, "local", tail)
  return found
end

local function remote(set, code)
  return require("pp.shell.console").complete(set, code)
end

-- --- all of it --------------------------------------------------------------

local function unique(found)
  table.sort(found)
  local kept = {}
  for i, name in ipairs(found) do
    if name ~= found[i - 1] then
      kept[#kept + 1] = name
    end
  end
  return kept
end

-- What may stand in place of the last `covers` bytes of the line; what goes
-- behind it.
local function find(self, line)
  local command, rest = line:match "^%s*%.(%a*)(.*)$"
  if command and rest == "" then
    local found = {}
    for _, name in ipairs(require("pp.shell.commands").order) do
      add(found, name, command)
    end
    return found, #command, " "
  elseif command then
    rest = rest:gsub("^%s+", "")
    if command == "load" then
      return self.api.files(rest), #rest
    elseif command == "on" or command == "hosts" then
      local tail = rest:match "[^,!@%s+%-]*$"
      if command == "hosts" then
        tail = rest:match "[-+](%S*)$" or ""
      end
      return hosts(tail), #tail
    elseif command == "doc" then
      return require("pp.shell.doc").complete(rest), #rest
    elseif command ~= "time" then
      return {}, 0
    end
    line = rest
  end
  local set, code
  local typed = line:match "^%s*@(.*)$"
  if typed then
    set, code = require("pp.shell.session").split(typed)
    if #set + #code == #typed then -- nothing behind it yet
      local tail = line:match "[^,!@%s]*$"
      return hosts(tail), #tail, " "
    end
  elseif self.set and not command then
    set, code = self.set, line
  end
  if set then
    return remote(set, code), -1, nil, code
  end
  local text, before, quote = within_string(line)
  if text then
    if before:find "require%s*%(?%s*$" then
      return modules(text), #text, quote
    end
    local found = self.api.files(text)
    return found, #text, #found == 1 and found[1]:sub(-1) ~= "/" and quote or nil
  end
  return names(line)
end

--- Find what may stand in place of a word.
-- @tparam table self the prompt
-- @string line up to the cursor
-- @string word the part of it that is to be replaced, as readline sees it
-- @treturn {string,...} @treturn ?string what goes behind if there is one only
function complete.complete(self, line, word)
  local found, covers, behind, code = find(self, line)
  local kept = {}
  for _, name in ipairs(unique(found)) do
    local whole
    if covers >= 0 then
      whole = line:sub(1, #line - covers) .. name
    elseif name:sub(1, #code) == code then -- the whole of the code
      whole = line:sub(1, #line - #code) .. name
    else -- of its last word or path
      local tail = code:match "[%w_.:]*$"
      if name:sub(1, #tail) ~= tail then
        tail = code:match "[%w_]*$"
      end
      whole = line:sub(1, #line - #tail) .. name
    end
    if whole:sub(1, #line) == line then
      kept[#kept + 1] = whole:sub(#line - #word + 1)
    end
  end
  return kept, behind
end

return complete
