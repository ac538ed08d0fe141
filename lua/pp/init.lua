-- SPDX-License-Identifier: MIT

--- Every core you own as one Lua machine.
-- A server has workers, processes with a Lua of their own. A function submitted
-- to it runs in one of them as a job, while the script goes on; the job is a
-- handle that can be called for its results.
--
--     local pp = require "pp"
--     local server = pp.Server(4)
--     local job = server:submit(math.sqrt, {2})
--     print(job())
--
-- The library is part of `ppsh`: there is nothing to install. Times are in
-- seconds, sizes in bytes. Mistakes in a call raise an error at the caller's
-- line, such as `bad argument #2 to 'submit' (args must be a table, got
-- string)`.
--
-- @module pp

local core = require "pp.core"
local iterate = require "pp.iterate"
require "pp.sh"

local pp = {}

--- Read the monotonic clock.
-- @function time
-- @treturn number seconds since an arbitrary start
pp.time = core.time

--- Count the CPUs this process may use, by its affinity and its control
-- group's quota.
-- @function ncpus
-- @treturn integer at least 1
pp.ncpus = core.ncpus

--- Sleep; a waiting call: jobs go on, callbacks run.
-- @function sleep
-- @number seconds fractions allowed
-- @raise what a callback raises
pp.sleep = core.sleep

--- Tell whether a value is the error of a job.
-- @function is_error
-- @param v any value
-- @treturn boolean
pp.is_error = core.is_error

--- Tell what would travel with a function, and how much that is.
-- @function captures
-- @func f
-- @raise what submit would raise about f
-- @treturn table `{bytes =, upvalues = {name -> value}, globals = {name -> value}}`
pp.captures = core.captures

--- Wait until jobs have ended, with a line of progress about them on stderr, if
-- that is a terminal; a waiting call. Their errors are counted, not raised.
-- @function progress
-- @tparam {Job,...} jobs
-- @treturn integer how many are done
-- @treturn integer how many failed
-- @raise what a callback raises
function pp.progress(jobs)
  if type(jobs) ~= "table" then
    error(("bad argument #1 to 'progress' (jobs must be a list of jobs, got %s)"):format(
      type(jobs)), 2)
  end
  if core.progress then
    local done, failed = core.progress(jobs)
    if not done then
      error(("bad argument #1 to 'progress' (item %d of jobs is no job but a %s)"):format(failed,
        type(jobs[failed])), 2)
    end
    return done, failed
  end
  local failed = 0 -- an agent has no terminal
  for i = 1, #jobs do
    jobs[i]:wait()
    failed = failed + (jobs[i].status == "failed" and 1 or 0)
  end
  return #jobs - failed, failed
end

--- Make a list of numbers that is never built: those of a numeric for.
-- @function range
-- @number first
-- @number last
-- @number[opt=1] step not 0
-- @treturn table what `#` and indexing work on, for map and imap
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

-- The hosts that `list` names, as core has them; or nil and what is wrong.
local function read_hosts(list)
  if list == nil then
    list = core.hosts_now or core.hosts_given()
  elseif type(list) == "string" then
    list = { list }
  elseif type(list) ~= "table" then
    return nil, ("hosts must be a string or a list of strings, got %s"):format(type(list))
  end
  local lists = {}
  for i = 1, #list do
    if type(list[i]) ~= "string" then
      return nil, ("hosts must be strings, item %d is a %s"):format(i, type(list[i]))
    end
    lists[i] = list[i]
  end
  return core.hosts(lists)
end

local transports = { auto = true, libssh2 = true, ssh = true }
local agents = { sent = true, installed = true }
-- Options of servers, for hosts that are added later.
local how = setmetatable({}, { __mode = "k" })

-- What the prompt needs to have a change of hosts mean all servers that were made
-- without `hosts`: the specs such a server has from now on, nil for those of -H, and
-- a set of those there are.
core.hosts_now = nil
core.followers = setmetatable({}, { __mode = "k" })

local known = {
  transport = true,
  agent = true,
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
local outputs = { line = true, prefix = true, host = true, job = true, none = true }

--- Options of pp.Server. An unknown one is an error.
-- @table pp.Server_options
-- @tfield[opt] integer|string ncpus local workers, or "autodetect": the CPUs
--   this process may use. Default: what `-j` said, else "autodetect". With 0,
--   and no hosts, jobs run in this process, one after another, when something waits
-- @tfield[opt] string|table hosts remote hosts: `[user@]host[:port][/workers]`,
--   more of them behind commas, node sets (`node[01-16,20]/8`), `@FILE`; a list
--   of such strings. Default: what `-H` said; at the prompt such a server goes on
--   to have the hosts that `.hosts` adds, and not those that it lets go
-- @tfield[opt] string|table ppservers the same as `hosts`
-- @tfield[opt] string transport how hosts are reached: "auto", "libssh2" (the
--   client built in), "ssh" (the program)
-- @tfield[opt] string agent what runs there: "sent" (default) or "installed",
--   the host's own ppsh if it is of the same build, so that C modules there work
-- @tfield[opt] integer retries how often a job is run again when its worker
--   died under it; 2
-- @tfield[opt] number timeout seconds one attempt of a job may run; none
-- @tfield[opt] integer memory most bytes of Lua heap in one worker; none. Does
--   not count with ncpus = 0
-- @tfield[opt] integer|boolean restart replace a worker after so many jobs;
--   0, never; true is 1
-- @tfield[opt] string output what becomes of what jobs write: "line" (whole
--   lines go to the script's own stdout and stderr; default), "prefix" (the
--   same with `[node/worker] ` before each), "host" (with `[node] `), "job" (it is
--   kept in `job.output` and `job.errors`), "none" (it is dropped)
-- @tfield[opt] integer seed the random numbers of job k depend on it and k
--   alone; without it they are different each time
-- @tfield[opt] string name any text

--- Start a job server. Does not wait until its workers have started.
-- @tparam[opt] table|integer|string options a table of options (see below), or ncpus alone
-- @tparam[opt] string|table hosts after ncpus: as the option
-- @treturn Server its handle
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
  if options.hosts ~= nil and options.ppservers ~= nil then
    bad(1, "Server", "hosts and ppservers are the same: give one of them")
  end
  local list = options.hosts
  if list == nil then
    list = options.ppservers
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
    local ok, server = pcall(core.nested)
    if not ok then
      error(server, 2)
    end
    return server
  end
  local retries = whole(options.retries)
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
    bad(1, "Server", "output must be 'line', 'prefix', 'host', 'job' or 'none', got %s",
      tostring(output))
  end
  if options.name ~= nil and type(options.name) ~= "string" then
    bad(1, "Server", "name must be a string, got %s", type(options.name))
  end
  if options.transport ~= nil and not transports[options.transport] then
    bad(1, "Server", "transport must be 'auto', 'libssh2' or 'ssh', got %s",
      tostring(options.transport))
  elseif options.agent ~= nil and not agents[options.agent] then
    bad(1, "Server", "agent must be 'sent' or 'installed', got %s", tostring(options.agent))
  end
  local set, wrong = read_hosts(list)
  if not set then
    bad(1, "Server", "%s", wrong)
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
  core.attach(server, set, options.transport, options.agent == "installed")
  how[server] = options
  core.followers[server] = list == nil or nil
  return server
end

--- Add hosts, and begin to connect to them; does not wait. A host that was
-- removed or had failed is tried anew; one that is connected gets as many workers
-- as the spec says.
-- @function Server:add_host
-- @tparam string|table spec as the option `hosts`
function core.server_methods:add_host(spec)
  if spec == nil then
    bad(1, "add_host", "spec must be a string or a list of strings, got nil")
  elseif core.running() then
    error("which hosts there are is not for a job to change", 2)
  end
  local hosts, wrong = read_hosts(spec)
  if not hosts then
    bad(1, "add_host", "%s", wrong)
  end
  if core.closed(self) then
    error("attempt to use a closed server", 2)
  end
  local o = how[self] or {}
  core.attach(self, hosts, o.transport, o.agent == "installed")
end

if not core.hosts then -- on a host, where there are jobs only
  function core.server_methods.remove_host()
    error("which hosts there are is not for a job to change", 2)
  end
  function core.server_methods.wait_hosts()
    return true
  end
end

--- Change the number of local workers, at once. When it shrinks, running jobs
-- finish. With 0, the others run at the hosts, or, where there never was one, in
-- this process when something waits.
-- @function Server:set_ncpus
-- @tparam integer|string n how many, or "autodetect"
function core.server_methods:set_ncpus(n)
  if n == nil then
    bad(1, "set_ncpus", "ncpus must be an integer >= 0 or 'autodetect', got nil")
  end
  local i, why = workers(n)
  if not i then
    bad(1, "set_ncpus", "%s", why)
  end
  if core.closed(self) then
    error("attempt to use a closed server", 2)
  end
  if core.running() then
    error("how many workers there are is not for a job to change", 2)
  end
  core.resize(self, i)
end

--- Print parallelpython's table of statistics. Works on a closed server too.
-- @function Server:print_stats
-- @tparam[opt] file file an open file; default: standard output
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

--- Make a template: a function with all that submit takes but its arguments.
-- @tparam Server server
-- @func func
-- @tparam[opt] table depfuncs
-- @tparam[opt] table modules
-- @func[opt] callback
-- @tparam[opt] table callbackargs
-- @string[opt] group
-- @tparam[opt] table globals
-- @treturn Template what to call `submit` of
function pp.Template(server, func, depfuncs, modules, callback, callbackargs, group, globals, ...)
  if select("#", ...) > 0 then
    bad(9, "Template", "it takes at most eight arguments")
  end
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

--- Submit a job for the template's function.
-- @function Template:submit
-- @param ... its arguments, one by one
-- @treturn Job its handle
-- @raise as server:submit
function Template:submit(...)
  if getmetatable(self) ~= Template then
    bad(0, "submit", "self must be a pp.Template, got %s", type(self))
  end
  local submit = self.server.submit
  local ok, job = pcall(submit, self.server, self.func, table.pack(...),
    table.unpack(self.rest, 1, 6))
  if not ok then
    error(job, type(job) == "string" and 2 or 0) -- it is the caller's
  end
  return job
end

--- What runs: a table inside of a job, nil outside.
-- @table pp.job
-- @tfield integer id
-- @tfield string node
-- @tfield integer worker which worker of the node
-- @tfield integer attempt 1 for the first
-- @tfield[opt] integer seed what its random numbers depend on, where the server
--   has a seed
setmetatable(pp, {
  __index = function(_, k)
    if k == "job" then
      return core.running()
    end
  end,
})

--- What travels.
-- A function takes with it its upvalues and each global of the script that it or
-- they reach by name, functions and data, without being run for that. What the
-- script added to standard tables (`string.trim = ...`) goes along too. All of it
-- is copied as it is at submit: each job sees it as it was then, and what a job
-- changes no other sees. `pp.captures` tells what it is. A global that the code
-- names only while it runs (`_G[name]`, `load`) is not seen: list it in `globals`.
--
-- Values of every Lua type but coroutines and userdata travel, with their sharing
-- and cycles: integers and floats exactly, strings of any bytes, tables with any
-- keys, functions. By name travel loaded modules, the standard library, `_G`,
-- `io.stdin`, `io.stdout`, `io.stderr` and `pp`. A metatable that the worker finds
-- under the same name, or that went out with the job, is that very table: what a
-- job returns has the class it went out with. Other C functions, coroutines and
-- userdata are refused at submit with their path.
--
-- `require "m"` in a job finds what the worker has built in, then the script's Lua
-- module of that name: what the script has put into `package.preload`, if that is a
-- Lua function without upvalues but the globals, or a file, whose source is asked
-- for, along `package.path` as it was at submit, from the directory the script is
-- in; then C modules where the worker is. It runs in the worker's base globals and
-- stays loaded. Searchers that the script has added to `package.searchers` are not
-- asked.
--
-- A job handle in arguments or captures stands for the job's first result. The
-- job that is given it starts when the other has ended, on whatever worker, and
-- fails with its error, which is then the `cause` of its own, if it failed. What
-- `server:put` returns stands for the value that was put.
-- @section travel

--- How jobs run.
-- Each job starts in a fresh global table over the base globals of its worker:
-- what it assigns to globals no other job sees. It runs in the directory ppsh was
-- started in, with its environment; its stdin is empty. What it or its child
-- processes write comes out in whole lines, all of it before `job()` returns or
-- the callback runs. What it leaves running is killed when it ends. A worker that
-- dies is replaced, and the job it was running is run again, `retries` times.
-- @section running

--- Waiting calls.
-- Callbacks run in the script's own interpreter, only in these calls: `job()`,
-- `job:wait`, `job:pcall`, `server:wait`, `map`, a step of `imap` or `completed`,
-- `first`, `pop`, `drain`, `pp.sleep`, with a timeout of 0 too, and at the
-- prompt. They never run in submit or when a field is read, and never one inside
-- another. An error in a callback is raised from that waiting call; its job counts
-- as finished.
--
-- The server keeps a finished job until it was taken (`completed`, `pop`,
-- `drain`), its results were asked (`job()`, `job:pcall`) or its callback ran.
-- Dropping a handle cancels nothing.
-- @section waiting

return pp
