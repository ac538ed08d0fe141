-- SPDX-License-Identifier: MIT
--- What one run of the shell works with: its hosts and its job server.
local pp = require "pp"
local core = require "pp.core"

local session = {}

local hosts -- those there are: list of {name, spec}
local server -- pp.Server, once there is one
local followers = {} -- the shell's own servers that have the same hosts

-- The hosts that a list of specs names; nil and what is wrong.
local function read(list)
  local set, wrong = core.hosts(list)
  if not set then
    return nil, wrong
  end
  return core.host_specs(set)
end

local function get_hosts()
  hosts = hosts or assert(read(core.hosts_given()))
  return hosts
end

local function column(list, which)
  local found = {}
  for i, host in ipairs(list) do
    found[i] = host[which]
  end
  return found
end

--- Name the hosts there are.
-- @treturn {string,...} in the order in which they were named first
function session.hosts()
  return column(get_hosts(), 1)
end

-- Servers made from now on have these.
local function set_hosts(list)
  hosts = list
  core.hosts_now = column(list, 2)
end

-- Hosts that are added or let go are so for this server, too.
local function follow(s)
  followers[#followers + 1] = s
  return s
end

--- The shell's own job server, as -j and -H say; made when first asked for.
-- @treturn Server
-- @raise when no worker can be started
function session.server()
  if not server or core.closed(server) then
    server = follow(pp.Server { hosts = column(get_hosts(), 2) })
  end
  return server
end

--- A server for what the user types with @: one worker on each host, and one
-- here, whose jobs run in its base globals. It shows nowhere; but for traces and
-- reports, where `output` is given.
-- @string[opt] output what becomes of what is written there; "job"
-- @treturn Server
-- @raise when no worker can be started
function session.console(output)
  local s = pp.Server {
    ncpus = 1, hosts = {}, retries = 0, output = output or "job", name = "console",
  }
  core.hide(s, output == nil)
  s:add_host(column(get_hosts(), 2))
  return follow(s)
end

-- Those of the shell, and those that were made without `hosts`.
local function each_server(f)
  for i = #followers, 1, -1 do
    if core.closed(followers[i]) then
      table.remove(followers, i)
    else
      f(followers[i])
    end
  end
  for s in pairs(core.followers) do
    if not core.closed(s) then
      f(s)
    end
  end
end

--- Add hosts, also to the servers that were made without `hosts`; does not wait
-- until they are connected.
-- @string spec as pp.Server's `hosts`
-- @treturn ?{string,...} their names; or nil and what is wrong
function session.add(spec)
  local more, wrong = read { spec }
  if not more then
    return nil, wrong
  end
  local specs = column(get_hosts(), 2)
  specs[#specs + 1] = spec
  local all, clash = read(specs)
  if not all then
    return nil, clash
  end
  set_hosts(all)
  each_server(function(s)
    s:add_host(column(more, 2))
  end)
  return column(more, 1)
end

--- Let hosts go, as add takes them in: what runs there goes on to its end.
-- @string set_text a set of them, as session.nodes has it
-- @treturn ?{string,...} their names; or nil and what is wrong
function session.remove(set_text)
  local names, wrong = session.nodes(set_text)
  if not names then
    return nil, wrong
  elseif names[1] == "local" or names[#names] == "local" then
    return nil, "'local' is this machine and stays"
  end
  local gone, kept = {}, {}
  for _, name in ipairs(names) do
    gone[name] = true
    each_server(function(s)
      pcall(s.remove_host, s, name)
    end)
  end
  for _, host in ipairs(get_hosts()) do
    if not gone[host[1]] then
      kept[#kept + 1] = host
    end
  end
  set_hosts(kept)
  return names
end

--- Tell which nodes a set is.
-- @string set_text "all", "local", "node[1-4]!node2", ...; "all" is every host,
-- or this machine where there are none
-- @treturn ?{string,...} their names, in the order of session.hosts, "local" last;
-- or nil and what is wrong, the character pointed at
function session.nodes(set_text)
  local names = session.hosts()
  names[#names + 1] = "local"
  return core.pick(set_text, names)
end

--- Cut the set off the front of a line: `node[1-4], node7 !node2 os.time()`.
-- After a comma or a `!` the set goes on, blanks or not.
-- @string text what follows the @
-- @treturn string the set
-- @treturn string the rest, without blanks in front
function session.split(text)
  local at, depth, goes_on = 1, 0, true
  while at <= #text do
    local c = text:sub(at, at)
    if c:find "%s" and depth == 0 then
      local next_at = text:find("%S", at)
      local c2 = next_at and text:sub(next_at, next_at) or ""
      if not next_at then
        break
      elseif c2 == "," or (c2 == "!" and not goes_on) then
        at = next_at - 1
      elseif not goes_on then
        break
      end
    elseif c == "[" then
      depth, goes_on = depth + 1, false
    elseif c == "]" then
      depth, goes_on = depth - 1, false
    elseif c == "," or c == "!" then
      goes_on = depth == 0
    elseif not c:find "%s" then
      goes_on = false
    end
    at = at + 1
  end
  return text:sub(1, at - 1), (text:sub(at):gsub("^%s+", ""))
end

return session
