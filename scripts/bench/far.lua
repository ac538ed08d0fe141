-- SPDX-License-Identifier: MIT
-- What remote.lua measures, in a ppsh that reaches its hosts: prints seconds.
--
--   far.lua HOSTS first            nothing: until the first result
--   far.lua HOSTS trip N           no-op jobs, one by one
--   far.lua HOSTS rate N           no-op jobs, all submitted, then all gathered
--   far.lua HOSTS echo N BYTES     strings there and back that do not shrink
--   far.lua HOSTS each             a result of each host: seconds, CPU seconds
local pp = require "pp"

local hosts, what, n, bytes = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local began = pp.time()
local server <close> = pp.Server { ncpus = 0, hosts = hosts }

local function noop() end
local function echo(s) return s end

local function seconds(f, ...)
  local from = pp.time()
  f(...)
  return pp.time() - from
end

local function trips()
  for _ = 1, n do server:submit(noop)() end
end

local function gather(count)
  local jobs = {}
  for i = 1, count do jobs[i] = server:submit(noop) end
  for i = 1, count do jobs[i]() end
end

if what == "first" then
  server:submit(noop)()
  print(0)
elseif what == "each" then
  local jobs = {}
  assert(server:wait_hosts(60))
  for name in pairs(server:get_active_nodes()) do
    if name ~= "local" then jobs[#jobs + 1] = server:submit { noop, on = name } end
  end
  for _, job in ipairs(jobs) do job() end
  print(pp.time() - began, os.clock())
else
  assert(server:wait_hosts(60))
  server:everywhere(noop)
  if what == "trip" then
    server:submit(noop)()
    print(seconds(trips))
  elseif what == "rate" then
    gather(n // 10)
    print(seconds(gather, n))
  elseif what == "echo" then
    local file <close> = assert(io.open "/dev/urandom")
    local s = file:read(bytes)
    server:submit(echo, { "warm" })()
    print(seconds(function()
      for _ = 1, n do assert(server:submit(echo, { s })() == s) end
    end))
  end
end
