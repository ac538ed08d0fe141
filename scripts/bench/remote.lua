-- SPDX-License-Identifier: MIT
--- Hosts over SSH: sshd's of our own on loopback (spec/support/hosts.sh), beside
-- what ssh(1) does with the same.
local tools = require "bench.tools"

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local MB = 1 << 20

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local Lab = {}
Lab.__index = Lab

function Lab:sh(...)
  local words = {}
  for i, word in ipairs { ... } do words[i] = quote(word) end
  assert(os.execute(("HOSTKEYS=ed25519 bash %s/../../spec/support/hosts.sh %s %s >/dev/null 2>&1")
    :format(quote(here), quote(self.dir), table.concat(words, " "))), "hosts.sh failed")
end

function Lab.__gc(lab)
  pcall(lab.sh, lab, "down")
  os.execute("rm -rf " .. quote(lab.dir))
end

--- So many hosts: a lab; or nil and why there can be none here.
local function hosts(count)
  if not tools.has "bash" or not tools.has "ssh" or not tools.has "ssh-keygen"
    or not (tools.has "sshd" or tools.has "/usr/sbin/sshd") then
    return nil, "it needs bash, ssh, ssh-keygen and sshd"
  end
  local pipe = assert(io.popen "mktemp -d")
  local lab = setmetatable({ dir = pipe:read "l", names = {} }, Lab)
  pipe:close()
  lab:sh "new"
  -- An empty home: what the user's login files take is neither ssh's nor ours.
  os.execute("mkdir " .. lab.dir .. "/home")
  for i = 1, count do
    lab.names[i] = "h" .. i
    lab:sh("sshd", lab.names[i],
      ("SetEnv HOME=%s/home XDG_CACHE_HOME=%s/cache"):format(lab.dir, lab.dir))
  end
  -- ssh(1) reads the user's own configuration whatever HOME says.
  os.execute("mkdir " .. lab.dir .. "/bin")
  local f <close> = assert(io.open(lab.dir .. "/bin/ssh", "w"))
  f:write("#!/bin/sh\nPATH=${PATH#*:}\nexec ssh -F ", quote(lab.dir .. "/ssh_config"), ' "$@"\n')
  os.execute("chmod +x " .. lab.dir .. "/bin/ssh")
  return lab
end

--- The words of a command of ours, with `set` as its hosts.
function Lab:far(set, ...)
  return "env", "PATH=" .. self.dir .. "/bin:" .. os.getenv "PATH", tools.ppsh,
    here .. "/far.lua", set, ...
end

--- What such a command prints, a number.
function Lab:number(...)
  local words = { self:far(...) }
  for i, word in ipairs(words) do words[i] = quote(word) end
  return tools.number_of(table.concat(words, " "))
end

local function start_far(n)
  local lab, why = hosts(1)
  if not lab then return nil, why end
  local config = lab.dir .. "/ssh_config"
  local connects, size, jobs = n > 500 and 5 or 1, n > 500 and 64 * MB or MB, n * 100

  lab:number("h1/1", "trip", 1) -- the agent is there
  return function()
    return {
      ssh_first = { n = connects,
        seconds = tools.floor("spawn", connects, "ssh", "-F", config, "h1", "echo") },
      first = { n = connects, seconds = tools.floor("spawn", connects, lab:far("h1/2", "first")) },
      ssh_trip = { n = n, seconds = tools.floor("pipe", n, 64, "ssh", "-F", config, "h1", "cat") },
      trip = { n = n, seconds = lab:number("h1/2", "trip", n) },
      ssh_rate = { n = jobs,
        seconds = tools.floor("pipe", 1, 64 * jobs, "ssh", "-F", config, "h1", "cat") },
      rate = { n = jobs, seconds = lab:number("h1/2", "rate", jobs) },
      ssh_echo = { n = 2, seconds = tools.floor("pipe", 2, size, "ssh", "-c", "aes128-ctr", "-F",
        config, "h1", "cat") },
      echo = { n = 2, seconds = lab:number("h1/2", "echo", 2, size) },
    }
  end
end

local function start_many(n)
  local lab, why = hosts(n)
  if not lab then return nil, why end
  local config = lab.dir .. "/ssh_config"
  local set = table.concat(lab.names, "/1,") .. "/1"
  local words = { lab:far(set, "each") }
  for i, word in ipairs(words) do words[i] = quote(word) end
  lab:number("h1/1", "trip", 1)
  return function()
    local ssh = tools.floor("spawn", 1, "ssh", "-F", config, "h1", "echo")
    local pipe = assert(io.popen(table.concat(words, " ")))
    local seconds, cpu = pipe:read("n", "n")
    if not pipe:close() or not cpu then error("far.lua failed", 0) end
    return {
      ssh = { n = 1, seconds = ssh },
      hosts = { n = n, seconds = seconds },
      cpu = { n = n, seconds = cpu },
    }
  end
end

return {
  {
    name = "far",
    n = { quick = 100, usual = 2000 },
    rounds = 3,
    start = start_far,
    lines = {
      { name = "far.first", of = "first", floor = "ssh_first", unit = "ms", target = "ratio <= 0.6",
        about = "from exec to the first result of a host over SSH; floor: `ssh host echo`" },
      { name = "far.trip", of = "trip", floor = "ssh_trip", unit = "us", target = "ratio <= 1.2",
        about = "a no-op job there, submitted and awaited; floor: 64 bytes by `ssh host cat`" },
      { name = "far.rate", of = "rate", floor = "ssh_rate", unit = "/s", target = "rate >= 300000",
        about = "no-op jobs to two workers there; floor: 64 bytes for each, all at once" },
      { name = "far.echo", of = "echo", floor = "ssh_echo", unit = "GB/s", bytes = 128 * MB,
        target = "ratio <= 1.25",
        about = "64 MB of noise there and back; floor: `ssh -c aes128-ctr host cat`" },
    },
  },
  {
    name = "far.50",
    n = { quick = 3, usual = 50 },
    rounds = 2,
    start = start_many,
    lines = {
      { name = "far.50", of = "hosts", floor = "ssh", unit = "s", target = "rate < 3",
        about = "fifty hosts connected, a result of each; floor: one `ssh host echo`" },
      { name = "far.50.cpu", of = "cpu", floor = "ssh", unit = "s", target = "rate < 0.5",
        about = "the CPU time of ppsh in that; floor: the same" },
    },
  },
}
