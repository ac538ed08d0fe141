-- SPDX-License-Identifier: MIT
--- What `.doc NAME` tells: the docstrings of the library, which the build
-- gathers in pp.shell.reference; where a function of the script's own was
-- defined; where the manual of Lua tells of one of Lua's.
local show = require "pp.shell.show"

local doc = {}

-- name -> { kind, how it is written, text }
local function reference()
  return require "pp.shell.reference"
end

-- "server:submit()", "Server.submit" and the like as one name.
local function plain(name)
  return (name:gsub("%s*%(.*$", ""):gsub(":", "."):gsub("^%s+", ""):gsub("%s+$", ""):lower())
end

local function sorted(found)
  table.sort(found)
  return found
end

-- What a name stands for: list of names in the reference. A last part alone
-- will do, as will the beginning of one of the library without "pp.".
local function look_up(name)
  local wanted, exact, tails = plain(name), {}, {}
  for full in pairs(reference()) do
    local key = plain(full)
    if key == wanted then
      exact[#exact + 1] = full
    elseif key:match "[^.]*$" == wanted or key == "pp." .. wanted then
      tails[#tails + 1] = full
    end
  end
  return #exact > 0 and sorted(exact) or sorted(tails)
end

local function item_lines(name, width)
  local item = reference()[name]
  local lines = show.wrap(item[2], width)
  for i = 2, #lines do
    lines[i] = "    " .. lines[i]
  end
  local coded
  for line in (item[3] .. "\n"):gmatch "(.-)\n" do
    local level, text = line:sub(1, 1), line:sub(2)
    if level == "=" then
      if not coded then
        lines[#lines + 1] = ""
      end
      lines[#lines + 1] = "      " .. text
    else
      if coded then
        lines[#lines + 1] = ""
      end
      local indent = level == "1" and "    " or "  "
      for i, part in ipairs(show.wrap(text, width - #indent - 2)) do
        lines[#lines + 1] = indent .. (i > 1 and level == "1" and "  " or "") .. part
      end
    end
    coded = level == "="
  end
  return lines
end

-- The value of a dotted name, looked at raw.
local function value_of(name)
  local v = _G
  for part in name:gsub(":", "."):gmatch "[^.]+" do
    if type(v) ~= "table" then
      return nil
    end
    v = rawget(v, part)
  end
  return v
end

local function of_value(name)
  local v = value_of(name)
  if type(v) ~= "function" then
    return nil
  end
  local info = debug.getinfo(v, "Su")
  if info.what == "C" then
    if name:find "^%a+$" or name:find "^[sticmoud]%a+%.%a+$" then
      return ("%s is Lua's own: https://www.lua.org/manual/5.4/manual.html#pdf-%s")
        :format(name, name)
    end
    return ("%s is a function in C"):format(name)
  end
  local names = {}
  for i = 1, info.nparams do
    names[i] = debug.getlocal(v, i)
  end
  if info.isvararg then
    names[#names + 1] = "..."
  end
  return ("%s(%s)\n  defined at %s:%d"):format(name, table.concat(names, ", "), info.short_src,
    info.linedefined)
end

--- Tell about a name.
-- @string name
-- @tparam table limits `width`
-- @treturn string
function doc.text(name, limits)
  local width = math.min(limits.width, 100)
  name = name:gsub("%s*%(.*$", "")
  if name == "" then
    local all = {}
    for _, item in pairs(reference()) do
      if item[1] == "function" then
        all[#all + 1] = item[2]:match "^[^(]*"
      end
    end
    local lines = show.wrap(table.concat(sorted(all), "  "), width)
    table.insert(lines, 1, "There is something to tell about:")
    return table.concat(lines, "\n")
  end
  local found = look_up(name)
  if #found == 0 then
    local own = of_value(name)
    if own then
      return own
    end
    local near = {}
    local wanted = plain(name):match "[^.]*$"
    for full, item in pairs(reference()) do
      if wanted ~= "" and plain(full):find(wanted, 1, true) then
        near[#near + 1] = item[2]:match "^[^(]*"
      end
    end
    return ("nothing is known of '%s'%s"):format(name,
      #near > 0 and #near < 20 and "; perhaps " .. table.concat(sorted(near), ", ") or "")
  end
  local parts = {}
  for i, full in ipairs(found) do
    parts[i] = table.concat(item_lines(full, width), "\n")
  end
  return table.concat(parts, "\n\n")
end

--- Names that begin so, as .doc takes them.
-- @string tail
-- @treturn {string,...}
function doc.complete(tail)
  local found, wanted = {}, plain(tail)
  for _, item in pairs(reference()) do
    local name = item[2]:match "^[^(]*"
    local key = plain(name)
    if item[1] ~= "section" and key:sub(1, #wanted) == wanted then
      found[#found + 1] = tail .. name:sub(#tail + 1)
    end
  end
  return found
end

--- Methods, or else fields too, of a kind of handle ("Job").
function doc.members(kind, method)
  local found = {}
  for full, item in pairs(reference()) do
    local name = full:match("^" .. kind .. ":([%a_][%w_]*)$")
    if name and name:sub(1, 2) ~= "__" then
      found[#found + 1] = name
    end
    if not method and full == kind .. ".fields" then
      for line in item[3]:gmatch "[^\n]+" do
        for field in (line:match "^1([%w_, ]+)" or ""):gmatch "[%w_]+" do
          found[#found + 1] = field
        end
      end
    end
  end
  return found
end

return doc
