-- SPDX-License-Identifier: MIT
--- The host's side of the console: functions that are sent there as jobs and run
-- in the base globals of its interpreter.
--
-- They travel: all they need are upvalues, and they name no global, so that they
-- leave nothing there and mind nothing that a script has put in its place.
local encode = require("pp.shell.portrait").encode

local type, tostring, next, rawget, select, pcall, xpcall, load, require =
  type, tostring, next, rawget, select, pcall, xpcall, load, require
local concat, sort, random, open, getenv, time = table.concat, table.sort, math.random, io.open,
  os.getenv, os.time
local find, sub, match, gmatch, format = string.find, string.sub, string.match, string.gmatch,
  string.format
local traceback, getinfo, registry, getmetatable = debug.traceback, debug.getinfo,
  debug.getregistry, debug.getmetatable

-- A completion looks at so many fields.
local LOOKED_AT = 200000

local answer = {}

-- What tells this interpreter from any other; made when first asked for.
local function identity(globals)
  local known = registry()
  local id = known["pp.console"]
  if not id then
    id = format("%d-%x-%x", time(), random(0), random(0))
    known["pp.console"] = id
    if rawget(globals, "pp") == nil then
      globals.pp = require "pp"
    end
  end
  return id
end

-- What an error here says that another host would say in its own words.
local function own_words()
  local own = {}
  local f = open "/proc/sys/kernel/hostname"
  local name = f and f:read "l"
  if f then
    f:close()
  end
  own[1] = { getenv "PWD" or "", "." }
  own[2] = { getenv "HOME" or "", "~" }
  own[3] = { name or "", "HOST" }
  return own
end

-- What lua(1) would say of an error.
local function message_of(e)
  if type(e) == "string" then
    return e
  end
  local meta = getmetatable(e)
  if type(meta) == "table" and rawget(meta, "__tostring") ~= nil then
    local ok, text = pcall(tostring, e)
    if ok then
      return text
    end
  elseif type(e) == "number" then
    return tostring(e)
  end
  return format("(error object is a %s value)", type(e))
end

-- A traceback without what is below the evaluated chunk: so many levels.
local function upper(text, below)
  local lines = {}
  for line in gmatch(text, "[^\n]+") do
    lines[#lines + 1] = line
  end
  return concat(lines, "\n", 1, #lines > below and #lines - below or #lines)
end

local function collect(ok, ...)
  return ok, { n = select("#", ...), ... }
end

--- Evaluate an expression or run a statement.
-- @string source
-- @string chunkname
-- @tparam table globals those of the interpreter
-- @treturn string which interpreter it was
-- @treturn string "values", "error"
-- @treturn string the portrait of its values, or the message
-- @treturn table texts of the portrait, or the host's own words
-- @treturn ?string the traceback
function answer.evaluate(source, chunkname, globals)
  local id = identity(globals)
  local code = load("return " .. source, chunkname, "t", globals)
  local wrong
  if not code then
    code, wrong = load(source, chunkname, "t", globals)
  end
  if not code then
    return id, "error", wrong, own_words()
  end
  local below = 1
  while getinfo(below, "l") do
    below = below + 1
  end
  local function handler(e)
    return { message_of(e), upper(traceback("", 2), below) }
  end
  local ok, values = collect(xpcall(code, handler))
  if not ok then
    local e = values[1]
    if type(e) ~= "table" then -- an error in the handler
      e = { message_of(e) }
    end
    return id, "error", e[1], own_words(), e[2]
  end
  local drawn, bytes, texts = pcall(encode, values)
  if not drawn then
    local said = {}
    for i = 1, values.n do
      local v = values[i]
      local t = type(v)
      said[i] = t == "table" and "(a table nested too deeply to be sent)" or v
    end
    said.n = values.n
    drawn, bytes, texts = pcall(encode, said)
    if not drawn then
      return id, "error", "cannot send the values: " .. tostring(bytes), own_words()
    end
  end
  return id, "values", bytes, texts
end

--- Say which interpreter it is.
function answer.which(globals)
  return identity(globals)
end

-- The field of a value that its name leads to, nothing being called.
local function field(v, name)
  for _ = 1, 10 do
    if type(v) == "table" then
      local found = rawget(v, name)
      if found ~= nil then
        return found
      end
    end
    local meta = getmetatable(v)
    v = type(meta) == "table" and rawget(meta, "__index")
    if type(v) ~= "table" then
      return nil
    end
  end
end

--- Complete a name.
-- @string text `os.ti`, `s:up`, `pri`
-- @tparam table globals those of the interpreter
-- @tparam integer most how many
-- @treturn {string,...} in order
function answer.complete(text, globals, most)
  local path, last = match(text, "^(.-)([%a_]?[%w_]*)$")
  local v, at = globals, 1
  local methods = sub(path, -1) == ":"
  while at <= #path do
    local name, mark, after = match(path, "^([%a_][%w_]*)([.:])()", at)
    if not name then
      return {}
    end
    v = field(v, name)
    if v == nil or (mark == ":" and after <= #path) then
      return {}
    end
    at = after
  end
  local found, seen, looked = {}, {}, 0
  for _ = 1, 10 do
    if type(v) == "table" then
      for k, value in next, v do
        looked = looked + 1
        if looked > LOOKED_AT then
          break
        elseif type(k) == "string" and not seen[k] and sub(k, 1, #last) == last
          and find(k, "^[%a_][%w_]*$") and (not methods or type(value) == "function") then
          seen[k] = true
          found[#found + 1] = path .. k
        end
      end
    end
    local meta = getmetatable(v)
    v = type(meta) == "table" and rawget(meta, "__index")
    if not v then
      break
    end
  end
  sort(found)
  for i = #found, most + 1, -1 do
    found[i] = nil
  end
  return found
end

return answer
