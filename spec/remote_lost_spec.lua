-- SPDX-License-Identifier: MIT
-- Hosts that are lost: every kind of loss is provoked for real.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("a host that is lost", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net
  setup(function()
    net = remote.new()
    net:sshd "h1"
    net:sshd "h2"
  end)
  teardown(function() net:close() end)

  --- The only process of a name in sessions of a host.
  local function the(host, name)
    local found = run.poll(function() return net:processes(host)[name] end, 30)
    assert.are.equal(1, #found)
    return found[1]
  end

  local function finish(p)
    local r = child.finish(p)
    assert.is_nil(r.late, r.err)
    return r
  end

  -- Two jobs are at the host: one may be run again, one must not.
  local two_jobs = [[
    local pp = require "pp"
    local s = pp.Server{ncpus = 0, hosts = "h1/2", transport = arg[1]}
    local function held()
      print "up"
      io.stdout:flush()
      os.execute("setsid sleep 1000 &")
      if pp.job.attempt == 1 then pp.sleep(1000) end
      return pp.job.attempt
    end
    local once = s:submit{held, retries = 0}
    local again = s:submit(held)
    local ok, e = once:pcall()
    print(e.kind, e.node, e.message)
    print(again(), again.attempts, again.node)
    print(s:wait_hosts(60), s:get_active_nodes().h1)
    local list = s:map(function(x) return x * 2 end, pp.range(1, 100))
    print(list[100])
    os.exit(0)
  ]]

  local victims = {
    ["its agent is killed"] = {
      "libssh2", "its agent was ended by signal KILL",
      function() child.kill("KILL", the("h1", "pp-agent")) end},
    ["its agent is killed, by the ssh program"] = {
      "ssh", "its agent was ended by a signal",
      function() child.kill("KILL", the("h1", "pp-agent")) end},
    ["its session is killed"] = {"libssh2", "closed by the other side", function()
      child.kill("KILL", select(2, child.process(the("h1", "pp-agent"))))
    end},
    ["its session is killed, by the ssh program"] = {"ssh", "closed by remote host", function()
      child.kill("KILL", select(2, child.process(the("h1", "pp-agent"))))
    end},
    ["what its workers are forked from is killed"] = {
      "libssh2", "its agent said: the process that workers are forked from was killed",
      function() child.kill("KILL", the("h1", "pp-zygote")) end},
    ["all of it dies and comes back"] = {"libssh2", "closed by the other side", function()
      net.lab:kill "h1"
      net.lab:start "h1"
    end},
  }
  for title, victim in pairs(victims) do
    it("is reached again, and its jobs run again, when " .. title, function()
      local p = net:start(two_jobs, {args = {victim[1]}})
      p:expect "up\n"
      p:expect "up\n"
      victim[3]()
      local r = finish(p)
      if title:find "all of it" then -- its worker's death may be heard of first
        assert.matches("lost\th1\t[^\n]* while it ran this job\n", r.out)
      else
        assert.matches("lost\th1\thost 'h1' was lost %([^\n]*" .. victim[2]
          .. "[^\n]*%) while it ran this job\n", r.out)
      end
      assert.matches("\n2\t2\th1\ntrue\t2\n200\n$", r.out)
      assert.matches("^ppsh: warning: host 'h1' was lost: [^\n]+; trying to reach it again\n",
        r.err)
      assert.are.same({}, net:left "h1")
    end)
  end

  it("is said to be so once, however many workers it had", function()
    local p = net:start([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/4"}
      s:wait_hosts()
      local jobs = {}
      for i = 1, 4 do
        jobs[i] = s:submit(function()
          print "up"
          while pp.job.attempt == 1 do pp.sleep(1000) end
        end)
      end
      for i = 1, 4 do jobs[i]() end
    ]], {options = {"--log", "info"}})
    for _ = 1, 4 do p:expect "up\n" end
    child.kill("KILL", the("h1", "pp-agent"))
    local r = finish(p)
    local _, times = r.err:gsub("was lost", "")
    assert.are.equal(1, times, r.err)
  end)

  it("costs only a worker when a worker is killed", function()
    local p = net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/2"}
      local function held()
        print("up", (io.open "/proc/self/stat":read "n"))
        io.stdout:flush()
        if pp.job.attempt == 1 then pp.sleep(1000) end
        return pp.job.attempt
      end
      local once = s:submit{held, retries = 0}
      local ok, e = once:pcall()
      print(e.kind, e.node, e.message)
      local again = s:submit(held)
      print(again(), again.attempts, again.node)
      print(s:get_stats().h1.state, s:get_stats().h1.lost)
    ]]
    for _ = 1, 2 do
      p:expect "up\t"
      child.kill("KILL", tonumber(p:expect "%d+"))
    end
    local r = finish(p)
    assert.matches("lost\th1\t[^\n]*was killed by signal 9", r.out)
    assert.matches("\n2\t2\th1\nconnected\t%d\n$", r.out)
  end)

  it("leaves its jobs to others", function()
    local p = net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/2, h2/1"}
      assert(s:wait_hosts(30))
      -- What runs at h1 first never ends there.
      local function work()
        if pp.job.node == "h1" and pp.job.attempt == 1 then
          print "up"
          io.stdout:flush()
          pp.sleep(1000)
        end
        pp.sleep(0.02)
        return pp.job.node
      end
      local jobs = {}
      for i = 1, 30 do jobs[i] = s:submit(work) end
      local at, again = {h1 = 0, h2 = 0}, 0
      for i = 1, 30 do
        local node = jobs[i]()
        at[node] = at[node] + 1
        assert(jobs[i].attempts <= 2)
        again = again + jobs[i].attempts - 1
      end
      print(at.h1 + at.h2, at.h2 > 0, again, s:get_stats().h1.retried + s:get_stats().h2.retried)
    ]]
    p:expect "up\n"
    p:expect "up\n"
    net.lab:kill "h1"
    local r = finish(p)
    net.lab:start "h1"
    local again, counted = r.out:match "30\ttrue\t(%d+)\t(%d+)\n$"
    assert.is_truthy(again, r.out .. r.err)
    assert.are.equal(again, counted)
    assert.is_true(tonumber(again) >= 2)
  end)

  it("while it lets one in is tried again", function()
    -- sshd asks for the keys; the first time who asks dies.
    local keys = net.lab:path "keys"
    local f = assert(io.open(keys, "w"))
    f:write(([[[ -e %s.asked ] || { : >%s.asked; kill -9 $PPID; }; cat %s]]):format(keys, keys,
      net.lab:path "authorized_keys"))
    f:close()
    net:sshd("asks", {lines = {"AuthorizedKeysFile none", "AuthorizedKeysCommand /bin/sh " .. keys,
      "AuthorizedKeysCommandUser " .. io.popen "id -un":read()}})
    for _, transport in ipairs {"libssh2", "ssh"} do
      os.remove(keys .. ".asked")
      local r = net:run(([[
        local s = require "pp".Server{ncpus = 0, hosts = "asks/1", transport = "%s"}
        print(s:submit(function() return "let in" end)())
      ]]):format(transport))
      assert.are.same({"let in\n", ""}, {r.out, r.err})
      assert.is_true(os.remove(keys .. ".asked"))
    end
  end)

  it("is set aside when that happens again and again", function()
    local p = net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/1"}
      for i = 1, 5 do
        print(s:wait_hosts(60))
        io.stdout:flush()
        while s:get_stats().h1.state == "connected" do pp.sleep(0.01) end
      end
      print(s:wait_hosts(60))
      print(s:get_stats().h1.state, s:get_stats().h1.reason)
      print(select(2, s:submit(function() end):pcall()).kind)
      s:add_host "h1/1"
      print(s:submit(function() return "used again" end)())
    ]]
    for _ = 1, 5 do
      p:expect "true\n"
      child.kill("KILL", the("h1", "pp-agent"))
      child.eventually(function() return next(net:processes "h1") == nil end)
    end
    local r = finish(p)
    assert.matches("false\ttable: [^\n]*\nfailed\tset aside after 5 losses[^\n]*\nconnect\n"
      .. "used again\n$", r.out)
  end)

  for _, signal in ipairs {"KILL", "TERM"} do
    it("keeps nothing when ppsh is gone (" .. signal .. ")", function()
      local p = net:start [[
        local pp = require "pp"
        local s = pp.Server{ncpus = 0, hosts = "h1/2, h2/1"}
        assert(s:wait_hosts(30))
        for i = 1, 3 do
          s:submit(function()
            os.execute("setsid sh -c 'trap \"\" HUP TERM; sleep 1000' & sleep 0.2")
            print "up"
            io.stdout:flush()
            pp.sleep(1000)
          end)
        end
        pp.sleep(1000)
      ]]
      for _ = 1, 3 do p:expect "up\n" end
      assert.are.equal(2, #net:processes "h1".sleep)
      p:kill(signal)
      for _, host in ipairs {"h1", "h2"} do assert.are.same({}, net:left(host)) end
      assert.are.same({}, child.left(p.tag))
      finish(p)
    end)
  end

  it("is noticed when it is suspended or its cable is cut", function()
    local why = remote.no_namespaces()
    if why then return pending("needs a host with a cable: " .. why) end
    net:netns "n1"
    local p = net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/1, n1/1, h2/1"}
      assert(s:wait_hosts(30))
      local jobs = {}
      for i = 1, 3 do
        jobs[i] = s:submit(function()
          if pp.job.node ~= "h2" and pp.job.attempt == 1 then
            print "up"
            io.stdout:flush()
            pp.sleep(1000)
          end
          return pp.job.node
        end)
      end
      for i = 1, 3 do jobs[i] = jobs[i]() end
      print("at", table.concat(jobs, " "))
      io.stdout:flush()
      print(s:wait_hosts(60))
    ]]
    p:expect "up\n"
    p:expect "up\n"
    local agent = the("h1", "pp-agent")
    child.kill("STOP", agent)
    net.lab:cut "n1"
    local since = run.now()
    p:expect "at\th[12] h[12] h[12]\n"
    assert.is_true(run.now() - since < remote.notices * run.slowness)
    -- The other side notices by itself.
    assert.are.same({}, net:left "n1")
    assert.is_true(child.alive(agent))
    child.kill("CONT", agent)
    net.lab:join "n1"
    p:expect "true\n"
    local r = finish(p)
    assert.are.equal(0, r.status)
    for _, host in ipairs {"h1", "h2", "n1"} do assert.are.same({}, net:left(host)) end
  end)
end)
