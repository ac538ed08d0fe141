-- SPDX-License-Identifier: MIT
-- Where jobs run when there are hosts: `on` and `slots`.
local describe, it, assert, pending = describe, it, assert, pending
local lazy_setup, lazy_teardown = lazy_setup, lazy_teardown

local child = require "spec.support.child"
local hosts = require "spec.support.hosts"

describe("with hosts", function()
  local missing = hosts.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local lab, path

  lazy_setup(function()
    lab = hosts.new()
    for _, name in ipairs {"n1", "n2"} do
      local home = lab:path(name .. "-home")
      os.execute(("mkdir %s && chmod 700 %s"):format(home, home))
      lab:sshd(name, {lines = {"SetEnv HOME=" .. home}})
    end
    local bin = lab:path "bin"
    os.execute("mkdir " .. bin)
    local f <close> = io.open(bin .. "/ssh", "w")
    f:write("#!/bin/sh\nPATH=${PATH#*:} exec ssh -F ", lab.config, ' "$@"\n')
    os.execute("chmod +x " .. bin .. "/ssh")
    path = bin .. ":" .. os.getenv "PATH"
  end)
  lazy_teardown(function()
    if lab then lab:close() end
    child.clean()
  end)

  local prologue = [[
    local pp = require "pp"
    local function node() return pp.job.node end
    local function slow() pp.sleep(0.2) return pp.job.node end
  ]]

  local function prints(expected, script)
    local r = child.run(prologue .. script, {env = {PATH = path}, timeout = 60})
    assert.are.equal(expected, r.out, r.err)
    assert.are.equal(0, r.status)
  end

  it("jobs run at the nodes of their set, which are waited for", function()
    prints("n1 n2 local n2 n2 n2\n", [[
      local s <close> = pp.Server(2, "n1/2,n2/3")
      local jobs = {}
      for i, on in ipairs {"n1", "n2", "n[1-2],local!n[1-2]", "n[1-9]!n1", {"other", "n2"}} do
        jobs[i] = s:submit{node, on = on}
      end
      for i, j in ipairs(jobs) do
        jobs[i] = j()
        assert(j.node == jobs[i])
      end
      jobs[6] = s:map(node, pp.range(1, 500), {on = "n2"})[400]
      print(table.concat(jobs, " "))
    ]])
  end)

  it("jobs for busy nodes hold back no others, and priorities count among all", function()
    prints("queued\nurgent before\n", [[
      local s <close> = pp.Server(1, "n1/1")
      assert(s:wait_hosts(30))
      local log, jobs = {}, {}
      local function note(name) log[#log + 1] = name end
      for i = 1, 4 do
        jobs[i] = s:submit{slow, on = "n1", callback = note, callbackargs = {"slow"}}
      end
      s:submit{node, on = "n1", priority = 1, callback = note, callbackargs = {"urgent"}}
      assert(s:spawn(node)() == "local" and s:submit{node, on = "local"}() == "local")
      print(jobs[4].status)
      s:wait()
      for i, name in ipairs(log) do
        if name == "urgent" then print(i < 4 and "urgent before" or "urgent behind") end
      end
    ]])
  end)

  it("a host that cannot be used fails jobs that are for it alone", function()
    prints("connect true local\nconnect\n", [[
      local s <close> = pp.Server(1, "away.invalid,n1/1")
      local alone = s:submit{node, on = "away.invalid"}
      local either = s:submit{node, on = {"away.invalid", "local"}}
      local ok, e = alone:pcall()
      local said = e.message:find("away.invalid", 1, true) ~= nil
      io.write(e.kind, " ", tostring(said), " ", either(), "\n")
      local late = {}
      s:wait_hosts(30)
      for i = 1, 3 do late[i] = s:submit{slow, on = "n1"} end
      s:remove_host "n1" -- what has not begun never will
      ok, e = late[3]:pcall()
      print(e.kind)
      s:wait()
      for i = 1, 2 do late[i]:pcall() end
    ]])
  end)

  it("jobs of jobs are sent to nodes too", function()
    prints("n1 n2 connect false\n", [[
      local s <close> = pp.Server(1, "n1/1,n2/2")
      print(table.concat({s:submit{function()
        local t = pp.Server()
        local ok, e = t:submit{node, on = "other"}:pcall()
        return t:submit{node, on = "n1"}(), t:submit{node, on = "n2", slots = 2}(), e.kind,
          tostring(pcall(t.submit, t, {node, on = "n["}))
      end, on = "local"}()}, " "))
    ]])
  end)

  it("slots are places of one node", function()
    prints("n2 n2\nslots must be at most 3, the workers of 'n2', got 4\nat most 2\n", [[
      local s <close> = pp.Server(2, "n1/2,n2/3")
      local wide = s:submit{slow, slots = 3} -- n2 is not there yet
      local jobs = {}
      for i = 1, 20 do jobs[i] = s:submit{slow, slots = 1 + i % 3} end
      print(wide() .. " " .. wide.node)
      for i = 1, 20 do assert(i % 3 < 2 or jobs[i]() == "n2") end
      print((select(2, pcall(s.submit, s, {node, slots = 4})):match "slots must[^)]*"))
      print((select(2, pcall(s.submit, s, {node, slots = 3, on = "n1"})):match "at most 2"))
      s:wait()
    ]])
  end)
end)
