-- SPDX-License-Identifier: MIT
-- Who is let in with which keys, and what is said of those who are not.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("with keys of several kinds,", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net, lab, agent
  setup(function()
    net = remote.new()
    lab = net.lab
    net:sshd("h1", {lines = {"MaxAuthTries 3"}})
    -- The key that the last lines of ssh_config name would let us in, too.
    local config = run.read(lab.config):gsub("IdentityFile [^\n]*", "IdentityFile none")
    local f <close> = assert(io.open(lab.config, "w"))
    f:write(config)
    -- An agent with many keys that are of no use before the one that is.
    local keys = {}
    for i = 1, 6 do
      keys[i] = lab:path("useless" .. i)
      os.execute(("ssh-keygen -q -t ed25519 -N '' -f %s"):format(keys[i]))
    end
    keys[7] = lab:path "user_ed25519"
    agent = lab:path "agent"
    local pid = lab:path "agent.pid"
    os.execute(("ssh-agent -a %s sh -c 'ssh-add -q %s; echo $$ >%s; exec sleep 600' &"):format(
      agent, table.concat(keys, " "), pid))
    assert(child.eventually(function() return run.read(pid) end))
  end)
  teardown(function()
    child.kill("TERM", tonumber(run.read(lab:path "agent.pid")))
    net:close()
  end)

  --- Connect to each of these at once: by name, "by TRANSPORT" or why not.
  local function reach(names, transport)
    local r = child.finish(net:start([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = arg[1], transport = arg[2]}
      local _, why = s:wait_hosts(60)
      for name in pairs(s:get_stats()) do
        if name ~= "local" then print(name, why and why[name] or "in") end
      end
      local t = pp.Server{ncpus = 0, hosts = "many"}
      print("kind", select(2, t:submit(function() end):pcall()).kind)
      os.exit(0)
    ]], {options = {"--log", "info"}, args = {table.concat(names, ","), transport}}))
    assert.is_nil(r.late, r.err)
    local got = {log = r.err}
    for name, text in r.out:gmatch "([^\t\n]+)\t([^\n]*)" do got[name] = text end
    for name, how in r.err:gmatch "host '([^\n']+)' is connected by (%S+):" do
      got[name] = "by " .. how
    end
    return got
  end

  it("one is found, or the reason names what was tried", function()
    local function id(name) return "IdentityFile " .. lab:path(name) end
    local from_agent = {"IdentitiesOnly no", "IdentityAgent " .. agent}
    lab:alias("ecdsa", "h1", {id "user_ecdsa"})
    lab:alias("rsa", "h1", {id "user_rsa"})
    lab:alias("unknown", "h1", {id "user_unknown"})
    lab:alias("locked", "h1", {id "user_locked"})
    lab:alias("lockedrsa", "h1", {id "user_locked_rsa"})
    lab:alias("missing", "h1", {id "none"})
    lab:alias("many", "h1", from_agent)
    lab:alias("named", "h1",
      {"IdentitiesOnly yes", "IdentityAgent " .. agent, id "user_ed25519.pub"})
    lab:alias("second", "h1", {id "user_unknown", id "user_ecdsa"})
    lab:alias("nobody", "h1", {id "user_ecdsa", "User nobody-of-that-name"})
    local names = {"ecdsa", "rsa", "unknown", "locked", "lockedrsa", "missing", "many", "named",
      "second", "nobody"}
    local auto, ssh = reach(names, "auto"), reach(names, "ssh")
    local chosen = {ecdsa = "libssh2", rsa = "ssh", named = "libssh2", second = "libssh2"}
    for name, how in pairs(chosen) do
      assert.are.equal("by " .. how, auto[name], auto.log)
      assert.are.equal("by ssh", ssh[name], ssh.log)
    end
    assert.matches("rsa: using the ssh program: rsa key " .. lab:path "user_rsa", auto.log, 1, true)
    for _, got in ipairs {auto, ssh} do
      for _, name in ipairs {"unknown", "locked", "lockedrsa", "missing", "nobody"} do
        assert.matches("^authentication failed %(tried [^\n]*; the server allows publickey",
          got[name], 1, name .. got.log)
      end
      assert.matches("^authentication failed", got.many)
      -- The connection may be gone before that was read.
      assert.is_truthy(got.many:match "[Tt]oo many" or got.many:match "offered 3 keys", got.many)
      assert.are.equal("connect", got.kind)
      for _, name in ipairs {"unknown", "locked"} do
        assert.are.equal(1, select(2, got.log:gsub("host '" .. name .. "' cannot be used: ", "")))
      end
      assert.is_nil(got.log:find("sesame", 1, true))
    end
    assert.matches("passphrase", auto.locked, 1, true)
  end)
end)
