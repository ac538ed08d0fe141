-- SPDX-License-Identifier: MIT
--- Answers of many hosts: which are the same, and who gave them.
local core = require "pp.core"

local fold = {}

--- Say which hosts these are, as short as brackets make it.
-- @tparam {string,...} names
-- @treturn string "node[1-14,16]"
function fold.set(names)
  return core.fold(names)
end

--- Put together what has the same key.
-- @tparam table list entries with `node`, a name, and `key`, a string
-- @treturn table groups, the biggest first, else in the order of the list: each
-- the list of its entries, with their `key` and their set of hosts as `nodes`
function fold.group(list)
  local groups, by_key = {}, {}
  for _, entry in ipairs(list) do
    local group = by_key[entry.key]
    if not group then
      group = { key = entry.key, at = #groups + 1 }
      groups[group.at], by_key[entry.key] = group, group
    end
    group[#group + 1] = entry
  end
  for _, group in ipairs(groups) do
    local names = {}
    for i, entry in ipairs(group) do
      names[i] = entry.node
    end
    group.nodes = core.fold(names)
  end
  table.sort(groups, function(a, b)
    if #a ~= #b then
      return #a > #b
    end
    return a.at < b.at
  end)
  for _, group in ipairs(groups) do
    group.at = nil
  end
  return groups
end

-- What stands for what differs from host to host and says nothing.
local replaced = {
  { "0x%x%x%x%x%x+", "0x..." }, -- addresses
  { "(%f[%a][Pp][Ii][Dd][ :=]*)%d+", "%1..." }, -- pid 4711
  { "(%f[%a][Pp]rocess[ :=]*)%d+", "%1..." },
  { "(%f[%w][%w_.-]+%[)%d%d%d+%]", "%1...]" }, -- sshd[4711], as in logs
  { "/proc/%d+", "/proc/..." },
}

local function plain(text)
  return (text:gsub("%p", "%%%0"))
end

--- Take out of a text what differs from host to host though it means the same:
-- addresses, ids of processes, the host's own names for itself and its
-- directories.
-- @string text
-- @tparam[opt] table own what the host has of its own: `{name, stands for it}`,
-- in the order in which they are looked for
-- @treturn string what to compare
function fold.normalise(text, own)
  for _, pair in ipairs(own or {}) do
    if #pair[1] > 1 then
      text = text:gsub("%f[%w/]" .. plain(pair[1]) .. "%f[^%w_-]", (pair[2]:gsub("%%", "%%%%")))
    end
  end
  for _, pair in ipairs(replaced) do
    text = text:gsub(pair[1], pair[2])
  end
  return text
end

return fold
