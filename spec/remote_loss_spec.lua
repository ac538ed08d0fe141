-- SPDX-License-Identifier: MIT
-- Streams to hosts whose network fails, as spec/c/stream_driver.c sees them.
local run = require "spec.support.run"
local hosts = require "spec.support.hosts"

local missing = hosts.no_namespaces()

describe("a stream over a network", function()
  if missing then
    pending("needs hosts in namespaces: " .. missing)
    return
  end

  local lab
  local driver = hosts.built "stream_driver"

  local function start(...)
    local argv = {driver, "-b", "-F", lab.config}
    for _, word in ipairs {...} do argv[#argv + 1] = tostring(word) end
    return run.start(argv, {timeout = 60})
  end

  setup(function()
    lab = hosts.new()
    lab:netns "n1"
    lab:alias("alive", "n1", {"ServerAliveInterval 1", "ServerAliveCountMax 2"})
    lab:alias("soon", "n1", {"ConnectTimeout 1"})
  end)
  teardown(function()
    lab:close()
    run.cleanup()
  end)

  for _, transport in ipairs {"libssh2", "ssh"} do
    local t = "-t" .. transport

    it("notices that a host is gone that is being written to, by " .. transport, function()
      -- The ssh program has ServerAliveInterval for that.
      local host = transport == "ssh" and "alive" or "n1"
      local p = start(t, host, "type", "while read x; do echo $x; done")
      p:write "one\n"
      p:expect "one\n"
      lab:cut "n1"
      local cut = run.now()
      p:write "two\n"
      run.poll(function() return not p:alive() end, 30)
      lab:join "n1"
      assert.matches("closed %S+ lost 0 [^\n]*", p:wait().err)
      assert.is_true(run.now() - cut < 20 * run.slowness)
    end)

    it("notices that a quiet host is gone, by " .. transport, function()
      local p = start(t, "alive", "type", "echo here; cat")
      p:expect "here\n"
      lab:cut "n1"
      run.poll(function() return not p:alive() end, 30)
      lab:join "n1"
      assert.matches("closed alive lost 0 [^\n]*", p:wait().err)
    end)

    it("notices that a server was suspended, by " .. transport, function()
      local p = start(t, "alive", "type", "echo here; cat")
      p:expect "here\n"
      local pids = io.popen(("ip netns pids %s"):format(run.read(lab:path "n1/netns")))
        :read "a":gsub("\n", " ")
      os.execute("kill -STOP " .. pids)
      run.poll(function() return not p:alive() end, 30)
      os.execute("kill -CONT " .. pids)
      assert.matches("closed alive lost 0 [^\n]*", p:wait().err)
    end)

    it("survives a short break, by " .. transport, function()
      local p = start(t, "n1", "type", "while read x; do echo $x; done")
      p:write "one\n"
      p:expect "one\n"
      lab:cut "n1"
      p:write "two\n"
      lab:join "n1"
      p:expect "two\n"
      p:close_stdin()
      assert.are.equal(0, p:wait().status)
    end)

    it("gives up connecting when nothing answers, by " .. transport, function()
      lab:cut "n1"
      local r = start(t, "soon", "run", "true"):wait()
      lab:join "n1"
      -- Without an answer to ARP it is "no route" after a while.
      assert.matches("closed soon timeout 0 timed out after 1 s", r.err)
    end)

    it("notices that a host has died, by " .. transport, function()
      local p = start(t, "n1", "type", "echo here; cat")
      p:expect "here\n"
      lab:kill "n1"
      run.poll(function() return not p:alive() end, 30)
      assert.matches("closed n1 lost 0 ", p:wait().err)
      lab:start "n1"
      assert.matches("closed n1 exit 0 ", start(t, "n1", "run", "true"):wait().err)
    end)
  end

  it("loses no time on a long way", function()
    local no = hosts.no_delay()
    if no then
      pending(no)
      return
    end
    lab:netns("far", 10000)
    -- 20 ms there and back: 4 MB in one window, not in 200 turns of 20 ms each
    for _, transport in ipairs {"libssh2", "ssh"} do
      local r = start("-t" .. transport, "far", "echo", 8000000):wait()
      assert.matches("closed far exit 0", r.err)
      assert.are.equal(0, r.status)
    end
  end)
end)
