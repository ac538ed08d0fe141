-- SPDX-License-Identifier: MIT
--- Commands with placeholders, and what stands in their places.
--
-- As GNU parallel has them: {} the line, or all words of a combination; {.}
-- without extension; {/} its last part; {//} its directory; {/.} last part
-- without extension; {#} the number of the job; {2}, {2.}, ... those of the
-- second list. What stands in their place is one word to a shell, whatever its
-- bytes.
local template = {}

--- Quote a word for a POSIX shell.
-- @string s any bytes but zero
-- @treturn string
function template.quote(s)
  if s == "" then
    return "''"
  elseif not s:find "[^%w_./,:@%%+=-]" then
    return s
  end
  return "'" .. s:gsub("'", "'\\''") .. "'"
end
local quote = template.quote

local function without_extension(s)
  return (s:gsub("%.[^/.]*$", "", 1))
end

local function last_part(s)
  return s:match "[^/]*$"
end

local function directory(s)
  local dir = s:match "^(.*)/[^/]*$"
  if not dir then
    return "."
  end
  return dir == "" and "/" or dir
end

local changes = {
  [""] = function(s) return s end,
  ["."] = without_extension,
  ["/"] = last_part,
  ["//"] = directory,
  ["/."] = function(s) return without_extension(last_part(s)) end,
}

--- Read a template.
-- @string text
-- @int[opt] lists how many lists of arguments there are; 1
-- @bool[opt] append whether arguments stand behind it where it names none
-- @treturn table literal strings, and {list or "#" or nil for all, change}; its
-- `places` says how many of these there are
-- @treturn ?string what is wrong with it, then the first is nil
function template.read(text, lists, append)
  local parts, at = { places = 0 }, 1
  while true do
    local from, to, number, how = text:find("{(%d*)([./#]*)}", at)
    while from and not (changes[how] or (how == "#" and number == "")) do
      from, to, number, how = text:find("{(%d*)([./#]*)}", from + 1)
    end
    if not from then
      break
    end
    local n = tonumber(number)
    if n and (n < 1 or n > (lists or 1)) then
      return nil, ("there is no list %s for '%s'"):format(number, text:sub(from, to))
    end
    parts[#parts + 1] = text:sub(at, from - 1)
    parts[#parts + 1] = how == "#" and { "#" } or { n or false, changes[how] }
    parts.places = parts.places + 1
    at = to + 1
  end
  parts[#parts + 1] = text:sub(at)
  if parts.places == 0 and append then
    if text == "" then
      parts = { { false, changes[""], bare = true }, places = 1 } -- the line is the command
    else
      parts[#parts + 1] = " "
      parts[#parts + 1] = { false, changes[""] }
      parts.places = 1
    end
  end
  return parts
end

--- Fill in a template.
-- @tparam table parts as template.read has made it
-- @tparam {string,...} words of the combination
-- @int seq the number of the job
-- @tparam[opt] func as what a word becomes; quoted for a shell
-- @treturn string
function template.fill(parts, words, seq, as)
  local out = {}
  as = as or quote
  for i = 1, #parts do
    local part = parts[i]
    if type(part) == "string" then
      out[i] = part
    elseif part[1] == "#" then
      out[i] = tostring(seq)
    elseif part[1] then
      out[i] = as(part[2](words[part[1]]))
    elseif #words == 1 then
      out[i] = part.bare and words[1] or as(part[2](words[1]))
    else
      local all = {}
      for k = 1, #words do
        all[k] = part.bare and words[k] or as(part[2](words[k]))
      end
      out[i] = table.concat(all, " ")
    end
  end
  return table.concat(out)
end

return template
