-- SPDX-License-Identifier: MIT
-- Endings while hosts are being connected to, and hosts that nobody can use.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("while hosts are being connected to", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net, mute
  setup(function()
    net = remote.new()
    net:sshd "h1"
    net:sshd "mute" -- it takes connections and says nothing
    mute = run.read(net.lab:path "mute/sshd.pid"):match "%d+"
    child.kill("STOP", mute)
    net.lab:alias("proxied", "h1", {"ProxyCommand sleep 1000"})
    net.lab:alias("slow", "h1", {"ProxyCommand none"})
  end)
  teardown(function()
    child.kill("CONT", mute)
    net:close()
  end)

  local endings = {
    ["returns"] = {"return", status = 0},
    ["raises an error"] = {"error 'no more'", status = 1},
    ["calls os.exit"] = {"os.exit(3)", status = 3},
    ["is stopped by SIGTERM"] = {"pp.sleep(1000)", signal = "TERM", status = 143},
    ["is stopped by Ctrl-C"] = {"s:wait_hosts()", signal = "INT", status = 130},
    ["is killed"] = {"s:submit(function() end)()", signal = "KILL", status = 137},
  }
  for title, ending in pairs(endings) do
    it("a script that " .. title .. " leaves nothing running", function()
      local servers = {}
      for _, transport in ipairs {"libssh2", "ssh"} do
        servers[#servers + 1] = ("pp.Server{ncpus = 0, hosts = 'mute,proxied', transport = '%s'}")
          :format(transport)
      end
      local p = net:start(([[
        local pp = require "pp"
        local s, other = %s
        pp.sleep(0.5)
        print "connecting"
        io.stdout:flush()
        %s
      ]]):format(table.concat(servers, ", "), ending[1]))
      p:expect "connecting\n"
      if ending.signal then p:kill(ending.signal) end
      local r = child.finish(p)
      assert.is_nil(r.late, r.err)
      assert.are.equal(ending.status, r.status, r.err)
      assert.are.same({}, child.left(p.tag))
    end)
  end

  for title, call in pairs {
    ["wait_hosts"] = "s:wait_hosts()",
    ["a job"] = "s:submit(function() end)()",
    ["everywhere"] = "s:everywhere(function() end)",
  } do
    it("Ctrl-C ends " .. title .. " that waits for one, as an error, and all else goes on",
      function()
        local p = net:start(([[
          local pp = require "pp"
          local s = pp.Server{ncpus = 0, hosts = "mute"}
          pp.sleep(0.1)
          print "waiting"
          io.stdout:flush()
          print(pcall(function() %s end))
          s:add_host "h1/1"
          print(s:submit(function() return pp.job.node end)())
          os.exit(0)
        ]]):format(call))
        p:expect "waiting\n"
        p:kill "INT"
        local r = child.finish(p)
        assert.matches("^waiting\nfalse\t[^\n]*interrupted!\nh1\n$", r.out, 1, r.err)
        assert.are.same({}, child.left(p.tag))
      end)
  end

  it("jobs wait for none of them when there is another, and are not lost with them", function()
    local r = net:run [[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "mute,h1/1"}
      local list = s:map(function(x) return x + 1 end, pp.range(1, 100))
      print(list[100], s:wait_hosts(0))
      print(s:get_active_nodes().mute, s:get_stats().mute.state)
      s:remove_host "mute"
      print(s:wait_hosts(0))
    ]]
    assert.matches("^101\tfalse\ttable: [^\n]*\nnil\tconnecting\ntrue\n$", r.out, 1, r.err)
    assert.are.equal("", r.err)
  end)
end)

describe("a list of hosts that is wrong", function()
  local said = {
    ["h1/0"] = "a host with 0 workers is of no use",
    ["node[1-"] = "",
    ["h1,,h2"] = "",
    ["@/nowhere/hosts"] = "cannot read '/nowhere/hosts': No such file or directory",
    ["h1:0"] = "ports are 1 to 65535",
    ["local"] = "'local' is this machine's own name here, no host's",
    ["a b"] = "",
    [""] = "",
  }
  for list, why in pairs(said) do
    it(("is refused, pointing at the place: %q"):format(list), function()
      local r = run.program({run.ppsh_path, "-H", list, "-e", "print 'ran'"})
      assert.are.equal(2, r.status, r.err)
      assert.are.equal("", r.out)
      assert.matches(why, r.err, 1, true)
      if list ~= "" then assert.matches("\n *%^\n", r.err) end
      r = run.program({run.ppsh_path, "-e", ("print(pcall(pp.Server, {hosts = %q}))"):format(list)})
      assert.matches("^false\t", r.out)
      assert.matches(why, r.out, 1, true)
    end)
  end
end)
