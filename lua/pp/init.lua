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
local iterate = require "pp.iterate"

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

--- A list of numbers that is never built.
-- @function range
-- @number first
-- @number last
-- @number[opt=1] step
-- @treturn table what `#` and indexing work on
pp.range = iterate.range

for _, name in ipairs { "map", "imap", "completed", "drain", "first" } do
  core.server_methods[name] = iterate[name]
end

local WORKERS_MAX = 16000

-- Raise a bad argument at the line that called the function that called this.
local function bad(number, name, text, ...)
  error(("bad argument #%d to '%s' (%s)"):format(number, name, text:format(...)), 3)
end

-- A number without fraction as an integer; all else as it is.
local function whole(v)
  return type(v) == "number" and math.tointeger(v) or v
end

-- `n` as a number of workers, or nil and what is wrong with it.
local function workers(n)
  if n == nil then
    return core.jobs() or core.ncpus()
  elseif n == "autodetect" then
    return core.ncpus()
  end
  local i = math.type(n) == "integer" and n or math.tointeger(n)
  if type(n) ~= "number" or not i or i < 0 then
    local got = type(n) == "string" and "'" .. n .. "'" or type(n) == "number" and n or type(n)
    return nil, ("ncpus must be an integer >= 0 or 'autodetect', got %s"):format(got)
  elseif i > WORKERS_MAX then
    return nil, ("ncpus must be at most %d, got %d"):format(WORKERS_MAX, i)
  end
  return i
end

local known = {
  ncpus = true,
  hosts = true,
  ppservers = true,
  retries = true,
  timeout = true,
  memory = true,
  restart = true,
  output = true,
  seed = true,
  name = true,
}
local outputs = { line = true, prefix = true, job = true, none = true }

--- Start a job server.
-- @tparam[opt] table|integer|string options `ncpus` (integer >= 0 or
--   "autodetect"; default from -j, else the CPUs this process may use),
--   `retries` (how often a job is run again after its worker was lost, 2),
--   `timeout` (seconds of one attempt of a job, none), `memory` (most bytes of
--   Lua heap in one worker, none), `restart` (replace a worker after so many
--   jobs, 0 never, true 1), `output` ("line", "prefix", "job" or "none"),
--   `seed` (integer: random numbers of job k depend on it and k alone), `name`;
--   or ncpus alone
-- @param[opt] hosts not supported by this version
-- @treturn Server
-- @raise on unknown options and bad values, and when no worker can be started
function pp.Server(options, hosts)
  if type(options) ~= "table" then
    options = { ncpus = options, hosts = hosts }
  elseif hosts ~= nil then
    bad(2, "Server", "hosts belong into the table of options")
  end
  for k in pairs(options) do
    if not known[k] then
      bad(1, "Server", "unknown option '%s'", tostring(k))
    end
  end
  local list = options.hosts or options.ppservers
  if list ~= nil and not (type(list) == "table" and next(list) == nil) and list ~= "" then
    bad(1, "Server", "remote hosts are not supported by this version")
  end
  local n, why = workers(options.ncpus)
  if not n then
    bad(1, "Server", "%s", why)
  elseif core.running() then
    for k in pairs(options) do
      if k ~= "ncpus" and k ~= "name" then
        bad(1, "Server", "option '%s' is for the script to set; a job has the running server", k)
      end
    end
    return core.nested()
  elseif n == 0 then
    bad(1, "Server", "ncpus = 0 is not supported by this version")
  end
  local retries = options.retries
  if retries == nil then
    retries = 2
  elseif math.type(retries) ~= "integer" or retries < 0 or retries > 0x7fffffff then
    bad(1, "Server", "retries must be an integer >= 0, got %s", tostring(retries))
  end
  local timeout = options.timeout
  if timeout ~= nil and (type(timeout) ~= "number" or timeout <= 0 or timeout ~= timeout) then
    bad(1, "Server", "timeout must be a number > 0, got %s", tostring(timeout))
  end
  local memory = options.memory
  memory = whole(memory)
  if memory ~= nil and (math.type(memory) ~= "integer" or memory < 0) then
    bad(1, "Server", "memory must be an integer >= 0, got %s", tostring(memory))
  end
  local restart = options.restart
  if restart == true or restart == false then
    restart = restart and 1 or 0
  end
  restart = whole(restart)
  if restart ~= nil
    and (math.type(restart) ~= "integer" or restart < 0 or restart > 0x7fffffff) then
    bad(1, "Server", "restart must be an integer >= 0 or a boolean, got %s", tostring(restart))
  end
  local seed = whole(options.seed)
  if seed ~= nil and math.type(seed) ~= "integer" then
    bad(1, "Server", "seed must be an integer, got %s", tostring(seed))
  end
  local output = options.output
  if output ~= nil and not outputs[output] then
    bad(1, "Server", "output must be 'line', 'prefix', 'job' or 'none', got %s", tostring(output))
  end
  if options.name ~= nil and type(options.name) ~= "string" then
    bad(1, "Server", "name must be a string, got %s", type(options.name))
  end
  local server, message = core.server {
    ncpus = n,
    retries = retries,
    timeout = timeout and timeout < 9e9 and timeout or nil,
    memory = memory,
    restart = restart,
    seed = seed,
    output = output,
  }
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
    bad(1, "set_ncpus", "%s", why)
  elseif i == 0 then
    bad(1, "set_ncpus", "ncpus = 0 is not supported by this version")
  end
  if core.closed(self) then
    error("attempt to use a closed server", 2)
  end
  core.resize(self, i)
end

--- Print parallelpython's table of statistics.
-- @function Server:print_stats
-- @tparam[opt] file file an open file; default standard output
function core.server_methods:print_stats(file)
  if file ~= nil and io.type(file) ~= "file" then
    bad(1, "print_stats", "file must be an open file, got %s", io.type(file) or type(file))
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
    bad(1, "Template", "server must be a pp.Server, got %s", type(server))
  elseif type(func) ~= "function" then
    bad(2, "Template", "func must be a function, got %s", type(func))
  end
  local rest = { depfuncs, modules, callback, callbackargs, group, globals }
  for i, place in ipairs(places) do
    local v, want = rest[i], place[2]
    local m = want == "function" and getmetatable(v)
    local callable = type(m) == "table" and m.__call
    if v ~= nil and type(v) ~= want and not callable then
      bad(i + 2, "Template", "%s must be a %s, got %s", place[1], want, type(v))
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
