-- SPDX-License-Identifier: MIT
--- Hosts to connect to: sshd's of our own on loopback, and, as root, hosts in
-- network namespaces. All of it is done by hosts.sh beside this file.
local run = require "spec.support.run"

local hosts = {}

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"

local function succeeds(command)
  return (os.execute(command .. " >/dev/null 2>&1"))
end

--- A program that was built beside ppsh.
-- @string name
function hosts.built(name)
  return run.ppsh_path:match "^(.*)/[^/]*$" .. "/" .. name
end

--- Why there can be no hosts here, or nil.
function hosts.missing()
  if not succeeds "PATH=$PATH:/usr/sbin:/sbin command -v sshd" then
    return "there is no sshd here (openssh-server)"
  elseif not succeeds "command -v ssh-keygen" then
    return "there is no ssh-keygen here (openssh-client)"
  end
end

--- Why there can be no hosts in namespaces here, or nil.
function hosts.no_namespaces()
  if hosts.missing() then return hosts.missing() end
  if not succeeds "[ $(id -u) = 0 ]" then return "namespaces need root" end
  if not succeeds "command -v ip" then return "there is no ip(8) here (iproute2)" end
  local name = "pptry" .. math.random(10000)
  -- In a chroot that is no mount they can be made, but nothing runs in them.
  if not succeeds(("ip netns add %s && "
      .. "{ ip netns exec %s true; ok=$?; ip netns del %s && exit $ok; }")
    :format(name, name, name)) then
    return "no network namespace can be made here"
  end
end

--- Why there can be no mounts of a host's own here, or nil.
function hosts.no_mounts()
  if hosts.missing() then return hosts.missing() end
  if not succeeds "[ $(id -u) = 0 ]" then return "mounting needs root" end
  if not succeeds "unshare -m --propagation private mount -t tmpfs none /mnt" then
    return "nothing can be mounted here"
  end
end

--- Why there can be no delay on the way to a namespace, or nil.
function hosts.no_delay()
  if hosts.no_namespaces() then return hosts.no_namespaces() end
  if not succeeds "[ -w /dev/net/tun ]" then return "there is no /dev/net/tun here" end
end

--- Why there can be no slow way to a namespace, or nil.
function hosts.no_slowness()
  if hosts.no_namespaces() then return hosts.no_namespaces() end
  local name = "pptry" .. math.random(10000)
  if not succeeds(("PATH=$PATH:/usr/sbin:/sbin; ip netns add %s && { ip netns exec %s tc qdisc "
      .. "replace dev lo root tbf rate 10mbit burst 32k latency 400ms; ok=$?; "
      .. "ip netns del %s && exit $ok; }"):format(name, name, name)) then
    return "tc(8) cannot limit rates here"
  end
end

local Lab = {}
Lab.__index = Lab

--- A directory with keys, and no hosts yet.
-- @treturn Lab
function hosts.new()
  local lab = setmetatable({dir = run.directory() .. "/lab"}, Lab)
  lab.config = lab.dir .. "/ssh_config"
  lab:sh("new")
  return lab
end

--- Run a command of hosts.sh.
function Lab:sh(command, ...)
  local words = {}
  for i, word in ipairs {...} do words[i] = run.quote(tostring(word)) end
  local f = assert(io.popen(("TAPDELAY=%s %s %s/hosts.sh %s %s %s 2>&1 >/dev/null"):format(
    run.quote(hosts.built "tapdelay"), self.variables or "", here, run.quote(self.dir), command,
    table.concat(words, " "))))
  local said = f:read "a"
  if not f:close() then error(("hosts.sh %s: %s"):format(command, said), 2) end
end

--- A host on loopback.
-- @string name
-- @tparam[opt] table options `lines` of sshd_config, `hostkeys` ("rsa"), `known`
-- ("no" or which), `setup` (sh commands in a mount namespace; root)
function Lab:sshd(name, options)
  options = options or {}
  self.variables = ("HOSTKEYS=%s KNOWN=%s SETUP=%s"):format(run.quote(options.hostkeys or ""),
    run.quote(options.known or ""), run.quote(options.setup or ""))
  self:sh("sshd", name, table.unpack(options.lines or {}))
  self.variables = nil
end

--- A host in a namespace, so many microseconds away.
function Lab:netns(name, delay) self:sh("netns", name, delay or 0) end

--- Bytes to and from a host in a namespace go no faster, as tc(8) says it.
function Lab:slow(name, rate) self:sh("slow", name, rate) end

--- Another name for a host, with lines of ssh_config of its own.
function Lab:alias(name, host, lines) self:sh("alias", name, host, table.unpack(lines)) end

for _, command in ipairs {"stop", "kill", "drop", "start", "cut", "join"} do
  Lab[command] = function(self, name) self:sh(command, name) end
end

--- The path of a file of it.
function Lab:path(name) return self.dir .. "/" .. name end

--- The port of a host.
function Lab:port(name)
  return tonumber(run.read(self:path(name .. "/port")))
end

--- What the sshd of a host has written to its log.
function Lab:log(name) return run.read(self:path(name .. "/log")) or "" end

--- End everything.
function Lab:close() self:sh "down" end

return hosts
