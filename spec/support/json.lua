-- SPDX-License-Identifier: MIT
--- A reader of JSON that takes nothing but JSON; null is json.null.
local json = { null = setmetatable({}, { __tostring = function() return "null" end }) }

local escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ["/"] = "/", ["\\"] = "\\",
  ['"'] = '"' }
local words = { ["true"] = true, ["false"] = false, null = json.null }

--- Read a text that is one value.
-- @string text
-- @return the value; raises, with the position, on anything else
function json.read(text)
  local at = 1
  local value

  local function fail(what)
    error(("%s at byte %d: %q"):format(what, at, text:sub(at, at + 40)), 0)
  end
  local function skip() at = text:find("[^ \t\r\n]", at) or #text + 1 end
  local function take(c)
    if text:sub(at, at) ~= c then fail("expected '" .. c .. "'") end
    at = at + 1
    skip()
  end
  local function string()
    local parts = {}
    at = at + 1
    while true do
      local stop = text:find('["\\%c]', at) or fail "unfinished string"
      parts[#parts + 1] = text:sub(at, stop - 1)
      at = stop
      local c = text:sub(at, at)
      if c == '"' then break end
      if c ~= "\\" then fail "control character" end
      local e = text:sub(at + 1, at + 1)
      if e == "u" then
        local hex = text:match("^%x%x%x%x", at + 2) or fail "bad escape"
        parts[#parts + 1] = utf8.char(tonumber(hex, 16))
        at = at + 6
      else
        parts[#parts + 1] = escapes[e] or fail "bad escape"
        at = at + 2
      end
    end
    at = at + 1
    local s = table.concat(parts)
    if not utf8.len(s) then fail "no UTF-8" end
    return s
  end
  local function list()
    local t = {}
    take "["
    if text:sub(at, at) ~= "]" then
      repeat
        t[#t + 1] = value()
        local more = text:sub(at, at) == ","
        if more then take "," end
      until not more
    end
    take "]"
    return t
  end
  local function object()
    local t = {}
    take "{"
    if text:sub(at, at) ~= "}" then
      repeat
        if text:sub(at, at) ~= '"' then fail "expected a name" end
        local key = string()
        if t[key] ~= nil then fail "a name twice" end
        skip()
        take ":"
        t[key] = value()
        local more = text:sub(at, at) == ","
        if more then take "," end
      until not more
    end
    take "}"
    return t
  end
  function value()
    local c = text:sub(at, at)
    if c == "[" then return list() end
    if c == "{" then return object() end
    local v
    if c == '"' then
      v = string()
    elseif c:match "[%d-]" then
      local n = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
      v = tonumber(n) or fail "bad number"
      at = at + #n
    else
      local word = text:match("^%l+", at) or fail "no value"
      v = words[word]
      if v == nil then fail "no value" end
      at = at + #word
    end
    skip()
    return v
  end

  skip()
  local v = value()
  if at <= #text then fail "something behind the end" end
  return v
end

return json
