-- SPDX-License-Identifier: MIT
-- Hosts that answer late: what is known there and not yet here.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("a host that answers late", function()
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

  --- The agent at a host.
  local function agent(host)
    return run.poll(function() return (net:processes(host)["pp-agent"] or {})[1] end, 30)
  end

  local function finish(p)
    local r = child.finish(p)
    assert.is_nil(r.late, r.err)
    assert.are.equal(0, r.status, r.err)
    return r
  end

  it("loses no running job when one behind it is cancelled", function()
    local gate, go = child.gate(), child.gate()
    local p = net:start([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/1"}
      local function pass(gate)
        if gate then io.open(gate):close() end
        return pp.job.attempt
      end
      for i = 1, 200 do s:submit(pass) end -- it is known to take no time
      s:wait()
      local long = s:submit(pass, {arg[1]})
      local behind = {}
      for i = 1, 5 do behind[i] = s:submit(pass) end
      while long.status ~= "running" do pp.sleep(0.01) end
      print "up"
      io.stdout:flush()
      io.open(arg[2]):close()
      for i = 1, 5 do assert(behind[i]:cancel()) end
      -- A worker that has not left its job after a second is killed.
      pp.sleep(1.5)
      print "cancelled"
      io.stdout:flush()
      print(long(), long.attempts)
      for i = 1, 5 do assert(select(2, behind[i]:pcall()).kind == "cancelled") end
      print(s:submit(pass)(), s:get_stats().h1.lost)
    ]], {args = {gate.path, go.path}})
    p:expect "up\n"
    local pid = agent "h1"
    child.kill("STOP", pid)
    go:open()
    p:expect "cancelled\n"
    child.kill("CONT", pid)
    gate:open()
    assert.matches("\n1\t1\n1\t0\n$", finish(p).out)
  end)

  it("has its worker killed when a job does not leave", function()
    local p = net:start [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/1"}
      local deaf = s:submit(function()
        while true do pcall(function() while true do end end) end
      end)
      local behind = s:submit(function() return "behind" end)
      while deaf.status ~= "running" do pp.sleep(0.01) end
      print(deaf:cancel(), select(2, deaf:pcall()).kind)
      print(behind(), behind.attempts)
    ]]
    assert.are.equal("true\tcancelled\nbehind\t1\n", finish(p).out)
  end)

  it("is not listened to when it was lost: jobs end once, by their last attempt", function()
    local gate = child.gate()
    local p = net:start([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "h1/1"}
      local called = 0
      local job = s:submit{function(gate)
        if pp.job.attempt == 1 then
          io.open(gate):close()
          print "late"
        end
        return pp.job.attempt, pp.job.node
      end, args = {arg[1]}, callback = function(attempt, node)
        called = called + 1
        print("called", attempt, node)
      end}
      while job.status ~= "running" do pp.sleep(0.01) end
      print "up"
      io.stdout:flush()
      s:add_host "h2/1"
      print(job())
      io.stdout:flush()
      print(s:wait_hosts(60))
      for i = 1, 20 do assert(s:submit(function(x) return x end, {i})() == i) end
      local t = s:get_stats()
      print(called, job.attempts, t.h1.njobs + t.h2.njobs, t.h1.lost, job())
    ]], {args = {gate.path}})
    p:expect "up\n"
    local pid = agent "h1"
    child.kill("STOP", pid)
    gate:open() -- the worker goes on, and its result waits for the agent
    p:expect "2\th2\n"
    child.kill("CONT", pid)
    assert.are.equal("up\ncalled\t2\th2\n2\th2\ntrue\n1\t2\t21\t1\t2\th2\n", finish(p).out)
    for _, host in ipairs {"h1", "h2"} do assert.are.same({}, net:left(host)) end
  end)
end)
