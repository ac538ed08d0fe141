-- SPDX-License-Identifier: MIT
-- Agents for other machines than this. A host that says it is one runs what it
-- is sent by an emulator: its cache has a script there that does.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local hosts = require "spec.support.hosts"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

local MACHINES = {"x86_64", "aarch64"}

local function agent(machine)
  local file = hosts.built("ppsh-agent-" .. machine)
  local f = io.open(file)
  if f then f:close() end
  return f and file
end

local function size(file)
  local f <close> = assert(io.open(file))
  return f:seek "end"
end

local function program(...)
  for _, name in ipairs {...} do
    local f <close> = assert(io.popen("command -v " .. name))
    local path = f:read "l"
    if path then return path end
  end
end

local function write(name, text)
  local f <close> = assert(io.open(name, "w"))
  f:write(text)
  f:close()
  assert(os.execute("chmod 700 " .. run.quote(name)))
end

describe("an agent", function()
  for _, machine in ipairs(MACHINES) do
    it("is smaller than 1.5 MB, for " .. machine, function()
      local file = agent(machine)
      if not file then return pending("no agent for " .. machine .. " was built") end
      assert.is_true(size(file) < 1500000, size(file))
    end)
  end

  local why = remote.missing()
  local emulator = program("qemu-aarch64", "qemu-aarch64-static")
  if not why and not agent "aarch64" then
    why = "no agent for aarch64 was built (README.md says what that needs)"
  elseif not why and not emulator then
    why = "there is no qemu-aarch64 here (qemu-user)"
  elseif not why and program "uname" and child.output_of "uname -m" == "aarch64\n" then
    why = "this is an aarch64 machine"
  end
  if why then
    pending("needs an emulated host: " .. why)
    return
  end

  local net
  setup(function()
    net = remote.new()
    local file, dir = agent "aarch64", run.directory()
    local hash = child.output_of(hosts.built "pphash" .. " " .. run.quote(file)):match "%x+"
    local cache = net.lab:path "arm/cache/ppsh"
    assert(os.execute(("mkdir -p %s && chmod 700 %s"):format(cache, cache)))
    write(cache .. "/agent-" .. hash, ("#!/bin/sh\nexec %s %s \"$@\"\n"):format(emulator, file))
    write(dir .. "/uname", '#!/bin/sh\nif [ "$*" = -sm ]; then echo Linux aarch64; else\n'
      .. 'PATH=${PATH#*:} exec uname "$@"; fi\n')
    net:sshd("arm", {env = {PATH = dir .. ":" .. os.getenv "PATH"}})
  end)
  teardown(function() net:close() end)

  it("for aarch64 runs jobs as the one for this machine does", function()
    local r = net:run([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "arm/2"}
      assert(s:wait_hosts(60))
      local function isprime(n)
        for i = 2, math.floor(math.sqrt(n)) do if n % i == 0 then return false end end
        return n > 1
      end
      local sum = 0
      for _, r in s:imap(function(i) return isprime(i) and i or 0 end, pp.range(1, 3000)) do
        sum = sum + r
      end
      print(sum, pp.job)
      print(s:submit(function()
        print "out"
        return 1 << 62, ("%.17g"):format(0.1), math.sin(1) - 0.8414709848079 < 1e-12,
          os.date("!%c", 0), -7 // 2, string.pack("<I4", 1), pp.job.node
      end)())
      local big = ("text "):rep(1 << 18)
      print(s:submit(function(x) return x .. x end, {big})() == big .. big)
      print(select(2, s:submit{function() while true do end end, timeout = 0.3}:pcall()).kind)
      print(select(2, s:submit(function() error "no" end):pcall()).message:match "no$")
      local function die() os.execute "kill -9 $PPID" end
      print(select(2, s:submit{die, retries = 0}:pcall()).kind)
      print(s:submit(function()
        local here = require "pp".Server()
        return here:submit(function(x) return x + 1 end, {41})()
      end)())
    ]], {timeout = 100})
    assert.are.equal("593823\tnil\nout\n4611686018427387904\t0.10000000000000001\ttrue\t"
      .. "Thu Jan  1 00:00:00 1970\t-4\t\1\0\0\0\tarm\ntrue\ntimeout\nno\nlost\n42\n", r.out, r.err)
    assert.are.equal(0, r.status, r.err)
    assert.are.same({}, net:left "arm")
  end)
end)
