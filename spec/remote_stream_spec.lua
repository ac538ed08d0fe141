-- SPDX-License-Identifier: MIT
-- Streams to commands on other machines, as spec/c/stream_driver.c sees them.
local run = require "spec.support.run"
local hosts = require "spec.support.hosts"

local missing = hosts.missing()

describe("a stream", function()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local lab
  local driver = hosts.built "stream_driver"

  --- Run the driver: options, hosts, mode, its arguments; options of run last.
  local function start(...)
    local argv, opts = {driver, "-F", lab.config}, {timeout = 60}
    for _, word in ipairs {...} do
      if type(word) == "table" then
        for name, value in pairs(word) do opts[name] = value end
      else
        argv[#argv + 1] = tostring(word)
      end
    end
    return run.start(argv, opts)
  end

  local function drive(...)
    local words = {...}
    words[#words + 1] = {stdin_file = "/dev/null"}
    local r = start("-b", table.unpack(words)):wait()
    assert(not r.late, "the driver did not end: " .. r.err)
    -- Lines by their first word: closed, opened, log, rate.
    for line in r.err:gmatch "[^\n]+" do
      local word, rest = line:match "^(%S+) ?(.*)$"
      r[word] = rest
    end
    return r
  end

  setup(function()
    lab = hosts.new()
    lab:sshd("h1")
    lab:sshd("h2", {lines = {"RekeyLimit 1M"}})
    lab:alias("b1", "h1", {})
    lab:alias("b2", "h2", {})
  end)
  teardown(function()
    lab:close()
    run.cleanup()
  end)

  for _, transport in ipairs {"libssh2", "ssh"} do
    local t = "-t" .. transport
    --- A name for a host that only this transport's sentences use.
    local function n(name) return name .. "-" .. transport end

    describe("by " .. transport, function()
      it("is a command's stdin, stdout, stderr and status", function()
        local r = drive(t, "h1", "run", "cat; echo oops >&2; exit 3", "hello\n")
        assert.are.equal("hello\n", r.out)
        assert.matches("^h1 " .. transport .. " ", r.opened)
        assert.are.equal("h1 oops", r.errors)
        assert.are.equal("h1 exit 3 the command ended with status 3", r.closed)
      end)

      it("passes on what is written after it is open", function()
        local p = start("-b", t, "h1", "type", "while read l; do echo got $l; done; echo end")
        p:write "one\n"
        p:expect "got one\n"
        p:write "two\n"
        p:expect "got two\n"
        p:close_stdin()
        p:expect "end\n"
        assert.are.equal(0, p:wait().status)
      end)

      it("says that a signal ended the command", function()
        local r = drive(t, "h1", "run", "kill -TERM $$")
        if transport == "libssh2" then
          assert.are.equal("h1 signal 15 the command was ended by signal TERM", r.closed)
        else
          assert.are.equal("h1 signal 0 the command was ended by a signal", r.closed)
        end
      end)

      it("carries 64 MB both ways at once", function()
        local r = drive(t, "h1", "echo", 64000000)
        assert.matches("^h1 exit 0 ", r.closed)
        assert.is_truthy(r.rate)
      end)

      it("carries data while keys are exchanged anew", function()
        local r = drive(t, "h2", "echo", 16000000)
        assert.matches("^h2 exit 0 ", r.closed)
        assert.is_truthy(r.rate)
      end)

      it("is held back by who does not read", function()
        for _, host in ipairs {"h1", "h2"} do
          local r = drive(t, host, "slow", 12000000)
          assert.matches(" exit 0 ", r.closed)
          assert.are.equal(0, r.status)
        end
      end)

      it("can be closed at any moment", function()
        for _ = 1, 12 do
          local r = drive(t, "-q", "-n3", "-cr300", "h1", "echo", 3000000)
          assert.are.equal(0, r.status)
          assert.are.equal("", r.err)
        end
      end)

      it("says that a name does not resolve", function()
        local r = drive(t, "no-such-host.invalid", "run", "true")
        assert.matches("resolve 0 the name 'no%-such%-host.invalid' does not resolve", r.closed)
      end)

      it("says that a connection is refused", function()
        lab:sshd(n "gone")
        lab:kill(n "gone")
        local r = drive(t, n "gone", "run", "true")
        assert.are.equal(n "gone" .. " refused 0 connection refused by port " .. lab:port(n "gone"),
          r.closed)
      end)

      it("says that a server is silent", function()
        -- One that takes connections and says nothing: a stopped sshd.
        lab:sshd(n "silent")
        lab:alias(n "quiet", n "silent", {"ConnectTimeout 1"})
        local pid = run.read(lab:path(n "silent" .. "/sshd.pid")):match "%d+"
        os.execute("kill -STOP " .. pid)
        local r = drive(t, n "quiet", "run", "true")
        os.execute("kill -CONT " .. pid)
        lab:kill(n "silent")
        assert.matches("^%S+ timeout 0 timed out after %d+ s", r.closed)
      end)

      it("says that a server speaks no SSH", function()
        lab:alias(n "web", "h1", {"ProxyCommand echo HTTP/1.0 400 Bad Request; sleep 3"})
        local r = drive(t, n "web", "run", "true")
        assert.matches("^%S+ %S+ 0 .", r.closed)
        if transport == "libssh2" then
          assert.matches("this is no SSH server: it says 'HTTP/1.0 400 Bad Request'", r.closed,
            1, true)
        end
      end)

      it("says that a host key is unknown", function()
        lab:alias(n "unknown", "h1", {"UserKnownHostsFile /dev/null"})
        local r = drive(t, n "unknown", "run", "true")
        assert.matches("^%S+ hostkey 0 ", r.closed)
        assert.matches(transport == "ssh" and "is known for"
          or "host key unknown %(ed25519 SHA256:", r.closed)
      end)

      it("says that a host key has changed, and where it stands", function()
        local known = run.file(("[127.0.0.1]:%d %s"):format(lab:port "h1",
          run.read(lab:path "user_unknown.pub")), "known_hosts")
        lab:alias(n "changed", "h1", {"UserKnownHostsFile " .. known})
        local r = drive(t, n "changed", "run", "true")
        assert.matches("^%S+ hostkey 0 host key changed: .* in " .. known:gsub("%p", "%%%0")
          .. ":1$", r.closed)
      end)

      it("refuses a revoked host key", function()
        local key = run.read(lab:path "h1/host_ed25519.pub")
        local known = run.file(("[127.0.0.1]:%d %s@revoked * %s"):format(lab:port "h1", key, key),
          "known_hosts")
        lab:alias(n "revoked", "h1", {"UserKnownHostsFile " .. known})
        local r = drive(t, n "revoked", "run", "true")
        assert.matches("^%S+ hostkey 0 .*revoked", r.closed)
      end)

      it("adds new host keys when it is to", function()
        local known = run.file("", "known_hosts")
        lab:alias(n "new", "h1", {"UserKnownHostsFile " .. known,
          "StrictHostKeyChecking accept-new"})
        local r = drive(t, n "new", "run", "true")
        assert.matches("^%S+ exit 0 ", r.closed)
        assert.matches("^%[127.0.0.1%]:" .. lab:port "h1" .. " ", run.read(known))
        assert.matches("^%S+ exit 0 ", drive(t, n "new", "run", "true").closed)
        assert.are.equal(1, select(2, run.read(known):gsub("\n", "")))
      end)

      it("says which authentication failed", function()
        lab:alias(n "stranger", "h1", {"IdentityFile " .. lab:path "user_unknown",
          "IdentityFile " .. lab:path "none"})
        local config = run.read(lab.config):gsub("IdentityFile [^\n]*", "")
        local path = run.file(config, "ssh_config")
        local r = run.program({driver, "-b", "-F", path, t, n "stranger", "run", "true"},
          {timeout = 60})
        local closed = r.err:match "closed ([^\n]*)"
        assert.matches("^%S+ auth 0 authentication failed %(tried publickey", closed)
        assert.matches("1 key", closed, 1, true)
        assert.matches("the server allows publickey", closed, 1, true)
      end)

      it("says that the server opens no session", function()
        lab:sshd(n "closed", {lines = {"MaxSessions 0"}})
        local r = drive(t, n "closed", "run", "true")
        lab:kill(n "closed")
        assert.matches("^%S+ exec 0 ", r.closed)
      end)

      it("says that the connection was lost", function()
        lab:sshd(n "mortal")
        local p = start("-b", t, n "mortal", "type", "echo here; exec sleep 1000")
        p:expect "here\n"
        lab:kill(n "mortal")
        local r = p:wait()
        assert.matches("closed %S+ lost 0 [^\n]*connection", r.err)
      end)

      it("goes through jump hosts", function()
        lab:alias(n "far", "h2", {"ProxyJump b1"})
        lab:alias(n "farther", "h1", {"ProxyJump b1,b2"})
        for _, host in ipairs {n "far", n "farther"} do
          local r = drive(t, host, "echo", 1000000)
          assert.matches("^%S+ exit 0 ", r.closed)
          assert.are.equal(0, r.status)
        end
      end)

      it("says that a jump host reaches nothing", function()
        lab:sshd(n "beyond")
        lab:alias(n "nowhere", n "beyond", {"ProxyJump b1"})
        lab:kill(n "beyond")
        local r = drive(t, n "nowhere", "run", "true")
        assert.matches("^%S+ unreachable 0 ", r.closed)
      end)

      it("goes through a ProxyCommand", function()
        lab:alias(n "proxied", "h2", {("ProxyCommand ssh -F %s -W %%h:%%p b1"):format(lab.config)})
        local r = drive(t, n "proxied", "echo", 1000000)
        assert.matches("^%S+ exit 0 ", r.closed)
        lab:alias(n "noproxy", "h2", {"ProxyCommand sh -c 'echo no way >&2; exit 7'"})
        r = drive(t, n "noproxy", "run", "true")
        assert.matches("^%S+ %S+ 0 .*no way", r.closed)
      end)

      it("is one of many, and no server drops any", function()
        lab:sshd(n "busy", {lines = {"LogLevel VERBOSE"}})
        local r = drive(t, "-n50", n "busy", "run", "echo .")
        assert.are.equal(("."):rep(50), (r.out:gsub("\n", "")))
        assert.is_nil(lab:log(n "busy"):match "[Dd]rop")
        lab:kill(n "busy")
      end)

      it("comes through when a server drops many", function()
        lab:sshd(n "choosy", {lines = {"MaxStartups 2:70:6"}})
        local r = drive(t, "-n16", n "choosy", "run", "echo .")
        lab:kill(n "choosy")
        assert.are.equal(("."):rep(16), (r.out:gsub("\n", "")))
      end)
    end)
  end

  describe("chooses how it is carried:", function()
    -- The key that the last lines of ssh_config name would let us in, too.
    local function drive_without_default_key(...)
      local config = lab.config
      lab.config = run.file(run.read(config):gsub("IdentityFile [^\n]*/user_ed25519", ""),
        "config")
      local r = drive(...)
      lab.config = config
      return r
    end

    it("by libssh2, if nothing speaks against it", function()
      for _, key in ipairs {"ed25519", "ecdsa"} do
        lab:alias("plain-" .. key, "h1", {"IdentityFile " .. lab:path("user_" .. key)})
        local r = drive_without_default_key("plain-" .. key, "run", "true")
        assert.matches("^plain%-" .. key .. " libssh2 ", r.opened)
      end
    end)

    it("by ssh, with an RSA key", function()
      lab:alias("rsakey", "h1", {"IdentityFile " .. lab:path "user_rsa"})
      local r = drive_without_default_key("rsakey", "run", "true")
      assert.are.equal("info rsakey: using the ssh program: rsa key " .. lab:path "user_rsa", r.log)
      assert.matches("^rsakey ssh ", r.opened)
    end)

    it("by ssh, with an RSA key of the agent", function()
      lab:alias("rsaagent", "h1", {"IdentitiesOnly no",
        "IdentityFile " .. lab:path "none", "IdentityAgent " .. lab:path "agent"})
      local command = ("ssh-agent -a %s sh -c 'ssh-add -q %s && exec sleep 60' & echo $!"):format(
        lab:path "agent", lab:path "user_rsa")
      local f = io.popen(command)
      local pid = f:read "l"
      assert.is_truthy(run.poll(function()
        return os.execute(("SSH_AUTH_SOCK=%s ssh-add -l >/dev/null 2>&1"):format(lab:path "agent"))
      end))
      local r = drive_without_default_key("rsaagent", "run", "true")
      os.execute("kill " .. pid)
      f:close()
      assert.matches("^info rsaagent: using the ssh program: .*rsa key 'user_rsa' of the agent",
        r.log)
      assert.matches("^rsaagent ssh ", r.opened)
    end)

    it("by libssh2, with an ed25519 key of the agent", function()
      lab:alias("edagent", "h1", {"IdentitiesOnly no",
        "IdentityFile " .. lab:path "none", "IdentityAgent " .. lab:path "agent2"})
      local f = io.popen(("ssh-agent -a %s sh -c 'ssh-add -q %s %s && exec sleep 60' & echo $!")
        :format(lab:path "agent2", lab:path "user_rsa", lab:path "user_ed25519"))
      local pid = f:read "l"
      assert.is_truthy(run.poll(function()
        return os.execute(("SSH_AUTH_SOCK=%s ssh-add -l >/dev/null 2>&1"):format(lab:path "agent2"))
      end))
      local r = drive_without_default_key("edagent", "run", "true")
      os.execute("kill " .. pid)
      f:close()
      assert.matches("^edagent libssh2 ", r.opened)
    end)

    it("by ssh, to a host of which only an RSA key is known", function()
      lab:sshd("rsahost", {hostkeys = "rsa"})
      local r = drive("rsahost", "run", "true")
      assert.are.equal("info rsahost: using the ssh program: the host key known is of type rsa",
        r.log)
      assert.matches("^rsahost ssh ", r.opened)
      lab:sshd("rsaknown", {known = "rsa"})
      assert.matches("^rsaknown ssh ", drive("rsaknown", "run", "true").opened)
    end)

    it("by ssh, to a host that a certificate authority vouches for", function()
      local ca = lab:path "ca"
      os.execute(("ssh-keygen -q -t ed25519 -N '' -f %s"):format(ca))
      lab:sshd("vouched", {known = "no", lines = {
        "HostCertificate " .. lab:path "vouched/host_ed25519-cert.pub"}})
      os.execute(("ssh-keygen -q -s %s -I x -h -n '127.0.0.1' %s"):format(ca,
        lab:path "vouched/host_ed25519.pub"))
      lab:kill("vouched")
      lab:start("vouched")
      local known = run.file("@cert-authority * " .. run.read(ca .. ".pub"), "known_hosts")
      lab:alias("vouchsafed", "vouched", {"UserKnownHostsFile " .. known})
      local r = drive("vouchsafed", "run", "true")
      assert.matches("certificate authority", r.log)
      assert.matches("^vouchsafed ssh ", r.opened)
    end)

    it("by ssh, with a user's certificate", function()
      local ca = lab:path "user_ca"
      os.execute(("ssh-keygen -q -t ed25519 -N '' -f %s"):format(ca))
      local from, to = lab:path "user_unknown", lab:path "certified"
      os.execute(("cp %s %s; cp %s.pub %s.pub"):format(from, to, from, to))
      os.execute(("ssh-keygen -q -s %s -I x -n $(id -un) %s"):format(ca, lab:path "certified.pub"))
      lab:sshd("certain", {lines = {"TrustedUserCAKeys " .. ca .. ".pub"}})
      lab:alias("certified", "certain", {"IdentityFile " .. lab:path "certified"})
      local r = drive_without_default_key("certified", "run", "true")
      assert.matches("^certified ssh ", r.opened)
      assert.matches("certificate", r.log)
    end)

    it("by ssh, through a jump host that needs it", function()
      lab:alias("rsajump", "h1", {"IdentityFile " .. lab:path "user_rsa"})
      lab:alias("beyondrsa", "h2", {"ProxyJump rsajump",
        "IdentityFile " .. lab:path "user_ed25519"})
      local r = drive_without_default_key("beyondrsa", "run", "true")
      assert.matches("^beyondrsa ssh ", r.opened)
    end)

    it("as it is told to", function()
      lab:alias("rsatold", "h1", {"IdentityFile " .. lab:path "user_rsa"})
      local r = drive_without_default_key("-tlibssh2", "rsatold", "run", "true")
      assert.matches("^rsatold auth 0 ", r.closed)
      assert.matches("^h1 ssh ", drive("-tssh", "h1", "run", "true").opened)
    end)
  end)
end)
