-- SPDX-License-Identifier: MIT
-- What a stream asks at the terminal, as spec/c/stream_driver.c shows it.
local run = require "spec.support.run"
local hosts = require "spec.support.hosts"

local missing = hosts.missing()

describe("at a terminal, a stream", function()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local lab
  local driver = hosts.built "stream_driver"

  local function open(...)
    local argv = {driver, "-F", lab.config}
    for _, word in ipairs {...} do argv[#argv + 1] = word end
    return run.start(argv, {pty = true, timeout = 60})
  end

  --- Its end: what it printed, without what was typed.
  local function finish(p)
    -- Closed by hand, script(1) would type end of file.
    local text = run.poll(function() return not p:alive() and p:out() end, 60)
    p:wait()
    return (text or p:out()):gsub("\r", "")
  end

  setup(function()
    lab = hosts.new()
    -- Other users' sessions look for authorized_keys here.
    os.execute("chmod 711 " .. lab.dir:match "^(.*)/")
    lab:sshd "h1"
    lab:alias("locked", "h1", {"IdentityFile " .. lab:path "user_locked"})
    lab:alias("locked2", "h1", {"IdentityFile " .. lab:path "user_locked"})
    lab:alias("lockedrsa", "h1", {"IdentityFile " .. lab:path "user_locked_rsa"})
    lab:alias("lockedrsa2", "h1", {"IdentityFile " .. lab:path "user_locked_rsa"})
  end)
  teardown(function()
    lab:close()
    run.cleanup()
  end)

  -- The key that the last lines of ssh_config name would let us in, too.
  local function without_default_key(f)
    local config = lab.config
    lab.config = run.file(run.read(config):gsub("IdentityFile [^\n]*/user_ed25519", ""), "config")
    f()
    lab.config = config
  end

  it("asks for a passphrase once, however many hosts need the key", function()
    without_default_key(function()
      local p = open("-tlibssh2", "-n3", "locked,locked2", "run", "echo in")
      p:expect("Enter passphrase for key '" .. lab:path "user_locked" .. "': ", true)
      p:write "open sesame\n"
      local out = finish(p)
      assert.are.equal(6, select(2, out:gsub("closed %S+ exit 0 ", "")))
      assert.are.equal(1, select(2, out:gsub("Enter passphrase", "")))
      assert.is_nil(out:find("open sesame", 1, true))
    end)
  end)

  it("asks again when a passphrase is wrong, three times in all", function()
    without_default_key(function()
      local p = open("-tlibssh2", "locked", "run", "echo in")
      for i = 1, 3 do
        p:expect(i == 1 and "Enter passphrase" or "Bad passphrase, try again")
        p:expect "': "
        p:write "open\n"
      end
      assert.matches("closed locked auth 0 authentication failed .*no passphrase given was the"
        .. " right one", finish(p))
    end)
  end)

  it("lets what was typed be mended", function()
    without_default_key(function()
      local p = open("-tlibssh2", "locked", "run", "echo in")
      p:expect "': "
      p:write "all wrong\21opem\127n sesamee\8\n"
      assert.matches("closed locked exit 0", finish(p))
    end)
  end)

  it("gives up all questions when Ctrl-C is typed", function()
    without_default_key(function()
      local p = open("-tlibssh2", "locked,locked2", "run", "echo in")
      p:expect "': "
      p:write "\3"
      -- and is itself interrupted, as by any Ctrl-C
      assert.is_nil(finish(p):find "exit 0")
    end)
  end)

  it("asks for a passphrase on behalf of the ssh program", function()
    without_default_key(function()
      local p = open("-tssh", "lockedrsa,lockedrsa2", "run", "echo in")
      p:expect("Enter passphrase for key '" .. lab:path "user_locked_rsa" .. "': ", true)
      p:write "open sesame\n"
      -- Both may have asked before the first was answered.
      local asked = 1
      run.poll(function()
        local n = select(2, p:out():gsub("Enter passphrase", ""))
        if n > asked then
          asked = n
          p:write "open sesame\n"
        end
        return not p:alive()
      end, 60)
      local out = finish(p)
      assert.are.equal(2, select(2, out:gsub("closed %S+ exit 0 ", "")))
      assert.is_nil(out:find("open sesame", 1, true))
    end)
  end)

  for _, transport in ipairs {"libssh2", "ssh"} do
    it("asks whether a host key is right, by " .. transport, function()
      for _, answer in ipairs {"yes", "no"} do
        local known = run.file("", "known_hosts")
        local name = "asked-" .. answer .. transport
        lab:alias(name, "h1", {"UserKnownHostsFile " .. known, "StrictHostKeyChecking ask"})
        local p = open("-t" .. transport, name, "run", "echo in")
        p:expect "yes/no"
        p:expect "%? "
        p:write(answer .. "\n")
        local out = finish(p)
        assert.matches("SHA256:", out)
        if answer == "yes" then
          assert.matches("closed %S+ exit 0 ", out)
          assert.matches("^%[127", run.read(known))
        else
          assert.matches("closed %S+ hostkey 0 ", out)
          assert.are.equal("", run.read(known))
        end
      end
    end)
  end

  it("asks nothing when it may not", function()
    lab:alias("batch", "h1", {"IdentityFile " .. lab:path "user_locked", "BatchMode yes"})
    without_default_key(function()
      assert.matches("closed batch auth 0 .*there is no terminal", finish(
        open("-tlibssh2", "batch", "run", "true")))
      assert.matches("closed locked auth 0 .*there is no terminal", finish(
        open("-b", "-tlibssh2", "locked", "run", "true")))
    end)
  end)

  describe("to hosts with users of their own", function()
    local no = hosts.no_mounts()
    if no then
      pending(no)
      return
    end

    -- A user who has a password, known on that host only.
    local function users(name, lines)
      local hash = io.popen "openssl passwd -6 'let me in'":read "l"
      if not table.concat(lines):find "publickey" then
        lines = {"PubkeyAuthentication no", table.unpack(lines)}
      end
      lab:sshd(name, {lines = lines, setup = ([[
        cp /etc/passwd DIR/passwd; cp /etc/shadow DIR/shadow
        echo 'ppuser:x:54321:54321::/tmp:/bin/sh' >>DIR/passwd
        echo 'ppuser:HASH:19000:0:99999:7:::' >>DIR/shadow
        chmod 644 DIR/passwd; chmod 600 DIR/shadow
        mount --bind DIR/passwd /etc/passwd; mount --bind DIR/shadow /etc/shadow
      ]]):gsub("DIR", lab:path(name)):gsub("HASH", (hash:gsub("%%", "%%%%")))})
      lab:alias(name, name, {"User ppuser", "IdentityFile " .. lab:path "none"})
    end

    local ways = {
      password = {lines = {"PasswordAuthentication yes"}, prompt = "ppuser@127.0.0.1's password: "},
      ["keyboard-interactive"] = {lines = {"KbdInteractiveAuthentication yes", "UsePAM yes"},
        prompt = "(ppuser@127.0.0.1) Password: "},
      ["publickey, then password"] = {lines = {"PasswordAuthentication yes",
        "AuthenticationMethods publickey,password"}, prompt = "ppuser@127.0.0.1's password: "},
    }
    local n = 0
    for way, o in pairs(ways) do
      for _, transport in ipairs {"libssh2", "ssh"} do
        n = n + 1
        local name = "pw" .. n
        it("is let in by " .. way .. ", by " .. transport, function()
          users(name, o.lines)
          local p = open("-t" .. transport, name, "run", "echo in; id -u")
          p:expect(o.prompt, true)
          p:write "not this\n"
          p:expect "assword: "
          p:write "let me in\n"
          local out = finish(p)
          assert.matches("\n54321\n", out)
          assert.matches("closed %S+ exit 0 ", out)
          assert.is_nil(out:find("let me in", 1, true))
        end)
      end
    end

    it("can be closed while it asks", function()
      for _, transport in ipairs {"libssh2", "ssh"} do
        for _, way in ipairs {"PasswordAuthentication yes", "KbdInteractiveAuthentication yes"} do
          n = n + 1
          users("pw" .. n, {way, "UsePAM yes"})
          local out = finish(open("-t" .. transport, "-c1500", "-n2", "pw" .. n, "run", "true"))
          assert.matches("assword: ", out)
          assert.are.equal(2, select(2, out:gsub("closed %S+ closed 0 closed", "")))
        end
      end
    end)

    it("says what was tried when nothing typed was right", function()
      users("pwbad", {"PasswordAuthentication yes"})
      local p = open("-tlibssh2", "pwbad", "run", "true")
      for _ = 1, 3 do
        p:expect "assword: "
        p:write "wrong\n"
      end
      assert.matches("closed pwbad auth 0 authentication failed %(tried password; the server"
        .. " allows password", finish(p))
    end)
  end)
end)
