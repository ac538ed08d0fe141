-- SPDX-License-Identifier: MIT
--- Servers with hosts: sshd's of spec.support.hosts, and scripts in a ppsh of
-- their own that reaches these.
--
-- ssh(1) reads the configuration of the user it runs as, whatever HOME says. So
-- the ppsh of a spec finds, first on its PATH, an ssh that is told which file to
-- read; all else is as ever.
local child = require "spec.support.child"
local hosts = require "spec.support.hosts"
local run = require "spec.support.run"

local remote = {}

--- Why there can be no hosts here, or nil.
remote.missing = hosts.missing
--- Why there can be none in namespaces of their own, or nil.
remote.no_namespaces = hosts.no_namespaces
--- Why there can be none far away, or nil.
remote.no_delay = hosts.no_delay
--- Why there can be none with a slow link, or nil.
remote.no_slowness = hosts.no_slowness

--- How long the remote side may take to end everything, and ppsh to notice that
-- a host is lost: the contract's own limits, in seconds.
remote.ends, remote.notices = 15, 10

local Net = {}
Net.__index = Net

--- No hosts yet.
function remote.new()
  local net = setmetatable({lab = hosts.new(), tags = {}}, Net)
  local bin = net.lab:path "bin"
  os.execute("mkdir " .. bin)
  local f = assert(io.open(bin .. "/ssh", "w"))
  f:write("#!/bin/sh\nPATH=${PATH#*:}\nexec ssh -F ", run.quote(net.lab.config), ' "$@"\n')
  f:close()
  os.execute("chmod +x " .. bin .. "/ssh")
  net.path = bin .. ":" .. os.getenv "PATH"
  return net
end

-- Lines of sshd_config: what its sessions are found by, where agents are cached,
-- and an empty home: what the user has the shell do at each login is not ours.
function Net:lines(name, more)
  local tag = ("%s-%d-%d"):format(name, os.time(), math.random(1 << 40))
  self.tags[name] = tag
  local env = {PP_SPEC_TAG = tag, HOME = self.lab:path(name .. "/home"),
    XDG_CACHE_HOME = self.lab:path(name .. "/cache")}
  for k, v in pairs(more and more.env or {}) do env[k] = v end
  local set = {}
  for k, v in pairs(env) do set[#set + 1] = k .. "=" .. v end
  local lines = {"SetEnv " .. table.concat(set, " ")}
  for _, line in ipairs(more and more.lines or {}) do lines[#lines + 1] = line end
  return lines
end

--- A host on loopback. options: `env` of its sessions, the rest is for
-- spec.support.hosts.
function Net:sshd(name, options)
  local o = setmetatable({}, {__index = options})
  o.lines = self:lines(name, options)
  o.hostkeys = o.hostkeys or "ed25519" -- making an RSA key takes a second
  self.lab:sshd(name, o)
end

--- A host in a network namespace of its own, so many microseconds away (0).
function Net:netns(name, delay)
  self.lab:netns(name, delay)
  -- Its sessions are told apart as those of the others are.
  local f = assert(io.open(self.lab:path(name .. "/sshd_config"), "a"))
  for _, line in ipairs(self:lines(name)) do f:write(line, "\n") end
  f:close()
  self.lab:kill(name)
  self.lab:start(name)
end

--- Start a script in a ppsh that reaches the hosts; options as for child.start.
function Net:start(text, options)
  local o = setmetatable({env = {PATH = self.path}}, {__index = options})
  for k, v in pairs(options and options.env or {}) do o.env[k] = v end
  return child.start(text, o)
end

--- Run one to its end.
function Net:run(text, options)
  return child.finish(self:start(text, options))
end

--- Ids of the processes that live in sessions of a host, by the name of their
-- program as ps(1) shows it.
function Net:processes(name)
  local found = {}
  for _, pid in ipairs(child.tagged(self.tags[name])) do
    local comm = (run.read(("/proc/%d/comm"):format(pid)) or ""):gsub("\n", "")
    found[comm] = found[comm] or {}
    table.insert(found[comm], pid)
  end
  return found
end

--- What is left in sessions of a host when it has had the time it may take.
function Net:left(name)
  local left
  run.poll(function()
    left = child.tagged(self.tags[name])
    return #left == 0
  end, remote.ends)
  for i, pid in ipairs(left) do
    left[i] = pid .. " " .. (run.read(("/proc/%d/cmdline"):format(pid)) or ""):gsub("%z", " ")
  end
  return left
end

--- End everything, also what a spec that failed has left suspended.
function Net:close()
  self.lab:close()
  for _, tag in pairs(self.tags) do
    for _, pid in ipairs(child.tagged(tag)) do child.kill("KILL", pid) end
  end
  child.clean()
end

return remote
