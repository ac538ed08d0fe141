-- SPDX-License-Identifier: MIT
-- --map where there are hosts: they are sent lines, and give them back in order.
local describe, it, assert, pending = describe, it, assert, pending
local lazy_setup, lazy_teardown = lazy_setup, lazy_teardown

local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"

describe("--map with hosts", function()
  if remote.missing() then
    pending("needs hosts: " .. remote.missing())
    return
  end

  local net, file, n

  lazy_setup(function()
    net = remote.new()
    net:sshd "n1"
    net:sshd "n2"
    local lines = {}
    n = 30000
    for i = 1, n do lines[i] = i .. " " .. ("x"):rep(i * 7 % 31) end
    file = run.file(table.concat(lines, "\n") .. "\n", "text")
  end)
  lazy_teardown(function() net:close() end)

  local function start(args, options)
    local o = setmetatable({env = {PATH = net.path}, timeout = 60}, {__index = options})
    return run.start_ppsh(args, o)
  end

  -- Are all lines there, in order? And who did how many.
  local function check(r)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
    local nodes, i = {}, 0
    for node, number, first in r.out:gmatch "(%S+)\t(%d+)\t(%d+)\n" do
      i = i + 1
      assert.are.equal(i, tonumber(number))
      assert.are.equal(i, tonumber(first))
      nodes[node] = (nodes[node] or 0) + 1
    end
    assert.are.equal(n, i)
    return nodes
  end

  local code = "require 'pp'.job.node, i, f[1]"

  it("gives lines to them alone with -j 0", function()
    for _, input in ipairs {file, "-"} do
      local r = start({"-j0", "-H", "n1/2,n2", "--block", "5000", "--map", code, input},
        {stdin_file = file}):wait()
      assert.is_nil(check(r)["local"])
    end
  end)

  it("shares lines out among them and workers here", function()
    -- Each waits for the other's first line.
    local met = run.directory()
    local meet = ([[local node = require "pp".job.node
      local kind = node == "local" and "here" or "there"
      local other = node == "local" and "there" or "here"
      if kind ~= seen then io.open(%q .. "/" .. kind, "w"):close() seen = kind end
      while i > 100 and not io.open(%q .. "/" .. other) do end
      return node, i, f[1] ]]):format(met, met)
    local nodes = check(start({"-j1", "-H", "n1/1", "--block", "2000", "--map", meet, file},
      {stdin_file = "/dev/null"}):wait())
    assert.is_true(nodes["local"] > 0 and nodes.n1 > 0)
  end)

  it("does its lines here when a host is lost", function()
    local gate, there = child.gate(), run.directory() .. "/there"
    local p = start({"-j1", "-H", "n2/2", "--block", "2000", "--map", ([[
      if require "pp".job.node ~= "local" then
        io.open(%q, "w"):close()
        io.open(%q):close()
      end
      while i > 100 and not io.open(%q) do end
      return "any", i, f[1] ]]):format(there, gate.path, there), file}, {stdin_file = "/dev/null"})
    assert.is_true(child.eventually(function() return io.open(there) ~= nil end))
    net.lab:kill "n2"
    net.lab:drop "n2"
    for _, pid in ipairs(child.tagged(net.tags.n2)) do child.kill("KILL", pid) end
    gate:open()
    local r = p:wait()
    r.err = r.err:gsub("ppsh: warning:[^\n]*\n", "")
    check(r)
  end)

  it("says why when no host can be had", function()
    local r = start({"-j0", "-H", "nowhere.invalid", "--map", "line", file},
      {stdin_file = "/dev/null"}):wait()
    assert.are.equal("", r.out)
    assert.are.equal(1, r.status)
    assert.matches("text:1: ", r.err, 1, true)
    assert.matches("nowhere.invalid", r.err, 1, true)
  end)
end)
