-- SPDX-License-Identifier: MIT

--- Every core you own as one Lua machine.
--
--     local pp = require "pp"
--     local server = pp.Server(4)
--     local job = server:submit(math.sqrt, {2})
--     print(job())
--
-- @module pp

local core = require "pp.core"

local pp = {}

--- Monotonic clock.
-- @function time
-- @treturn number seconds since an arbitrary start
pp.time = core.time

--- CPUs this process may use: its affinity and its cgroup's quota.
-- @function ncpus
-- @treturn integer at least 1
pp.ncpus = core.ncpus

--- Sleep; a waiting call: jobs go on, callbacks run.
-- @function sleep
-- @number seconds
pp.sleep = core.sleep

--- Whether a value is the error of a job.
-- @function is_error
-- @param v any value
-- @treturn boolean
pp.is_error = core.is_error

--- What would travel with a function, and its bytes.
-- @function captures
-- @func f
-- @treturn table `{bytes =, upvalues = {name -> value}, globals = {name -> value}}`
pp.captures = core.captures

local WORKERS_MAX = 16000

-- `n` as a number of workers, or nil and what is wrong with it.
local function workers(n)
  if n == nil then
    return core.jobs() or core.ncpus()
  elseif n == "autodetect" then
    return core.ncpus()
  end
  local i = math.type(n) == "integer" and n or math.tointeger(n)
  if type(n) ~= "number" or not i or i < 0 then
    return nil, ("ncpus must be an integer >= 0 or 'autodetect', got %s"):format(
      type(n) == "number" and tostring(n) or type(n) == "string" and "'" .. n .. "'" or type(n))
  elseif i > WORKERS_MAX then
    return nil, ("ncpus must be at most %d, got %d"):format(WORKERS_MAX, i)
  end
  return i
end

local known = { ncpus = true, hosts = true, ppservers = true, retries = true, name = true }
local later = { timeout = true, memory = true, restart = true, output = true, seed = true }

--- Start a job server.
-- @tparam[opt] table|integer|string options `ncpus` (integer >= 0 or
--   "autodetect"; default from -j, else the CPUs this process may use),
--   `retries` (how often a job is run again after its worker was lost, 2),
--   `name`; or ncpus alone
-- @param[opt] hosts not supported by this version
-- @treturn Server
-- @raise on unknown options and bad values, and when no worker can be started
function pp.Server(options, hosts)
  if type(options) ~= "table" then
    options = { ncpus = options, hosts = hosts }
  elseif hosts ~= nil then
    error("bad argument #2 to 'Server' (hosts belong into the table of options)", 2)
  end
  for k in pairs(options) do
    if later[k] then
      error(("bad argument #1 to 'Server' (option '%s' is not supported by this version)"):format(k), 2)
    elseif not known[k] then
      error(("bad argument #1 to 'Server' (unknown option '%s')"):format(tostring(k)), 2)
    end
  end
  local list = options.hosts or options.ppservers
  if list ~= nil and not (type(list) == "table" and next(list) == nil) and list ~= "" then
    error("bad argument #1 to 'Server' (remote hosts are not supported by this version)", 2)
  end
  local n, why = workers(options.ncpus)
  if not n then
    error(("bad argument #1 to 'Server' (%s)"):format(why), 2)
  elseif n == 0 then
    error("bad argument #1 to 'Server' (ncpus = 0 is not supported by this version)", 2)
  end
  local retries = options.retries
  if retries == nil then
    retries = 2
  elseif math.type(retries) ~= "integer" or retries < 0 or retries > 0x7fffffff then
    error("bad argument #1 to 'Server' (retries must be an integer >= 0)", 2)
  end
  if options.name ~= nil and type(options.name) ~= "string" then
    error(("bad argument #1 to 'Server' (name must be a string, got %s)"):format(type(options.name)), 2)
  end
  local server, message = core.server(n, retries)
  if not server then
    error(message, 2)
  end
  return server
end

--- Change the number of local workers while they run; when it shrinks, running
-- jobs finish.
-- @function Server:set_ncpus
-- @tparam integer|string n or "autodetect"
function core.server_methods:set_ncpus(n)
  local i, why = workers(n == nil and false or n)
  if not i then
    error(("bad argument #1 to 'set_ncpus' (%s)"):format(why), 2)
  end
  core.resize(self, i)
end

--- Print parallelpython's table of statistics.
-- @function Server:print_stats
-- @tparam[opt] file file an open file; default standard output
function core.server_methods:print_stats(file)
  if file ~= nil and io.type(file) ~= "file" then
    error(("bad argument #1 to 'print_stats' (file must be an open file, got %s)"):format(
      io.type(file) or type(file)), 2)
  end
  (file or io.stdout):write(core.table(self))
end

local places = {
  { "depfuncs", "table" },
  { "modules", "table" },
  { "callback", "function" },
  { "callbackargs", "table" },
  { "group", "string" },
  { "globals", "table" },
}

local Template = {}
Template.__index = Template
Template.__name = "pp.Template"

--- A function with everything but its arguments.
-- @tparam Server server
-- @func func
-- @tparam[opt] table depfuncs
-- @tparam[opt] table modules
-- @func[opt] callback
-- @tparam[opt] table callbackargs
-- @string[opt] group
-- @tparam[opt] table globals
-- @treturn Template its `submit(...)` takes the arguments of func one by one
function pp.Template(server, func, depfuncs, modules, callback, callbackargs, group, globals)
  local meta = type(server) == "userdata" and getmetatable(server)
  if not meta or meta.__index ~= core.server_methods then
    error(("bad argument #1 to 'Template' (server must be a pp.Server, got %s)"):format(type(server)), 2)
  elseif type(func) ~= "function" then
    error(("bad argument #2 to 'Template' (func must be a function, got %s)"):format(type(func)), 2)
  end
  local rest = { depfuncs, modules, callback, callbackargs, group, globals }
  for i, place in ipairs(places) do
    local v, want = rest[i], place[2]
    local callable = want == "function" and type(getmetatable(v)) == "table" and getmetatable(v).__call
    if v ~= nil and type(v) ~= want and not callable then
      error(("bad argument #%d to 'Template' (%s must be a %s, got %s)"):format(i + 2, place[1], want, type(v)), 2)
    end
  end
  return setmetatable({
    server = server,
    func = func,
    rest = rest,
  }, Template)
end

--- Submit a job for func(...).
-- @function Template:submit
-- @param ... arguments
-- @treturn Job
function Template:submit(...)
  return self.server:submit(self.func, table.pack(...), table.unpack(self.rest, 1, 6))
end

-- pp.job: what runs, inside a job.
setmetatable(pp, {
  __index = function(_, k)
    if k == "job" then
      return core.running()
    end
  end,
})

return pp
