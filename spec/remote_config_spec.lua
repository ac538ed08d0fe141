-- SPDX-License-Identifier: MIT
-- What the user's OpenSSH configuration says of a host holds, and does no harm.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local hosts = require "spec.support.hosts"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("the configuration", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net, lab
  setup(function()
    net = remote.new()
    lab = net.lab
    net:sshd("h1", {lines = {"AcceptEnv PP_SENT PP_SET"}})
    net:sshd "h2"
  end)
  teardown(function() net:close() end)

  --- Connect to these hosts at once and run a job on each: by name, what it
  -- returned or why not, and how it was carried; the whole log.
  local function reach(names, options)
    options = options or {}
    local p = net:start([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = arg[1], transport = arg[2]}
      local _, why = s:wait_hosts(60)
      for name in pairs(s:get_stats()) do
        if name ~= "local" then
          local ok, r = s:submit{function()
            return (os.getenv "PP_SENT" or "") .. (os.getenv "PP_SET" or "")
          end, on = name}:pcall()
          print(name, ok, ok and r or r.kind .. ": " .. why[name])
        end
      end
    ]], {options = {"--log", "info"}, env = options.env,
      args = {table.concat(names, ","), options.transport or "auto"}})
    local r = child.finish(p)
    assert.is_nil(r.late, r.err)
    local got = {log = r.err, carried = {}}
    for name, ok, text in r.out:gmatch "([^\t\n]+)\t(%l+)\t([^\n]*)" do
      got[name] = (ok == "true" and "ok " or "not ") .. text
    end
    for name, how in r.err:gmatch "host '([^\n']+)' is connected by (%S+):" do
      got.carried[name] = how
    end
    return got
  end

  for _, transport in ipairs {"libssh2", "ssh"} do
    it("is honoured, or of no harm, by " .. transport, function()
      local hashed = run.file(run.read(lab:path "known_hosts"), "hashed")
      os.execute(("ssh-keygen -q -H -f %s >/dev/null 2>&1; rm -f %s.old"):format(hashed, hashed))
      assert.matches("|1|", run.read(hashed), 1, true)
      local master = run.directory() .. "/%h-%p"
      local files = {
        tty = {"RequestTTY force"},
        command = {"RemoteCommand echo no agent"},
        sends = {"SendEnv PP_SE*", "SetEnv PP_SET=-set"},
        forwards = {"LocalForward 127.0.0.1:" .. lab:port "h2" .. " 127.0.0.1:1",
          "RemoteForward 1 127.0.0.1:1", "DynamicForward " .. lab:port "h2",
          "ExitOnForwardFailure yes"},
        master = {"ControlMaster auto", "ControlPath " .. master, "ControlPersist 30"},
        nosession = {"SessionType none"},
        nostdin = {"StdinNull yes"},
        background = {"ForkAfterAuthentication yes"},
        quiet = {"LogLevel QUIET", "EscapeChar ~", "Compression yes"},
        hashed = {"UserKnownHostsFile " .. hashed},
        known = {"HostKeyAlias [127.0.0.1]:" .. lab:port "h1"},
        hop2 = {"ProxyJump tty,h2"},
        through = {("ProxyCommand ssh -F %s -W %%h:%%p h2"):format(lab.config)},
        family = {"AddressFamily inet", "BindAddress 127.0.0.1"},
      }
      local names = {}
      for name, lines in pairs(files) do
        names[#names + 1] = name .. "-" .. transport
        lab:alias(name, "h1", lines)
        lab:alias(names[#names], "h1", lines)
      end
      local got = reach(names, {transport = transport, env = {PP_SENT = "sent"}})
      for _, name in ipairs(names) do
        assert.are.equal(name:match "^sends" and "ok sent-set" or "ok ", got[name], got.log)
        assert.are.equal(transport, got.carried[name])
      end
      -- and no ssh stays behind, nor a socket of one
      assert.are.equal("", child.output_of("ls " .. master:match "^(.*)/"))
      assert.are.same({}, net:left "h1")
    end)
  end

  it("has the ssh program chosen where only that can do it, and the log says why", function()
    local touched = run.directory() .. "/touched"
    local wanted = {
      forwardsagent = {"ForwardAgent yes", why = "ForwardAgent is on"},
      command = {"PermitLocalCommand yes", "LocalCommand touch " .. touched,
        why = "LocalCommand is set"},
      cipher = {"Ciphers chacha20-poly1305@openssh.com",
        why = "Ciphers allows nothing that the built-in client has"},
      gcm = {"Ciphers aes256-gcm@openssh.com", why = "Ciphers allows nothing"},
      script = {"KnownHostsCommand /bin/cat " .. lab:path "known_hosts",
        why = "KnownHostsCommand is set"},
    }
    local names = {}
    for name, lines in pairs(wanted) do
      names[#names + 1] = "only" .. name
      lab:alias("only" .. name, "h1", lines)
    end
    local got = reach(names)
    for name, lines in pairs(wanted) do
      assert.are.equal("ok ", got["only" .. name], got.log)
      assert.are.equal("ssh", got.carried["only" .. name])
      assert.matches(("only%s: using the ssh program: %s"):format(name, lines.why), got.log, 1,
        true)
    end
    assert.is_truthy(run.read(touched))
  end)

  it("is not needed for a host that is written out", function()
    lab:alias("::1", "h1", {"Port 1"}) -- overridden
    local key = run.read(lab:path "h1/host_ed25519.pub")
    local f <close> = assert(io.open(lab:path "known_hosts", "a"))
    f:write(("[::1]:%d %s"):format(lab:port "h1", key))
    f:flush()
    net:sshd("six", {lines = {"ListenAddress ::1"}})
    local port, user = lab:port "six", child.output_of "id -un":match "%S+"
    f:write(("[::1]:%d %s"):format(port, run.read(lab:path "six/host_ed25519.pub")))
    f:flush()
    local names = {("127.0.0.1:%d"):format(port), ("[::1]:%d"):format(port)}
    for _, transport in ipairs {"libssh2", "ssh"} do
      local got = reach({("ssh://%s@%s/1"):format(user, names[1]), names[2] .. "/1"},
        {transport = transport})
      if not io.open "/proc/net/if_inet6" then names[2] = nil end
      for _, name in ipairs(names) do assert.are.equal("ok ", got[name], got.log) end
    end
    net.lab:kill "six"
  end)

  describe("where there is none,", function()
    local no = hosts.no_mounts()
    if no then
      pending(no)
      return
    end

    --- Run a script in a ppsh that sees another home directory: `home`, sh
    -- commands in it; `without`, has no ssh program; `env`. This checkout is where it
    -- was, though it may be below that home.
    local function elsewhere(text, options)
      local bin, kept = run.directory(), run.directory()
      local script = run.file(text)
      if options.without then
        for _, tool in ipairs {"sh", "cat", "ls"} do
          os.execute(("ln -s $(command -v %s) %s/%s"):format(tool, bin, tool))
        end
      end
      return run.program({"unshare", "-m", "--propagation", "private", "sh", "-ec", ([[
        home=$(getent passwd $(id -u) | cut -d: -f6) here=$PWD
        mount --bind "$here" %s
        mount -t tmpfs -o mode=700 none $home
        case $here/ in "$home"/*) mkdir -p "$here"; mount --bind %s "$here" ;; esac
        cd $home
        %s
        exec env %s %s %s %s]]):format(kept, kept, (options.home or ""):gsub("LAB", lab.dir),
          options.env or "", options.without and "PATH=" .. bin or "", run.ppsh_path, script)},
        {timeout = 60})
    end

    local script = ([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 0, hosts = "127.0.0.1:PORT/1"}
      local up, why = s:wait_hosts(30)
      print(up, up and s:submit(function() return "ran" end)() or why["127.0.0.1:PORT"])
      os.exit(0)
    ]])
    local function with_port(text) return (text:gsub("PORT", lab:port "h1")) end
    local keys = "mkdir -m 700 .ssh; cp LAB/user_ed25519 .ssh/id_ed25519; cp LAB/known_hosts .ssh;"

    it("and no ssh program, the usual files are taken", function()
      local r = elsewhere(with_port(script), {home = keys, without = true})
      assert.are.equal("true\tran\n", r.out, r.err)
    end)

    it("HOME need not be set", function()
      for _, without in ipairs {true, false} do
        local r = elsewhere(with_port(script), {home = keys, without = without, env = "-u HOME"})
        assert.are.equal("true\tran\n", r.out, r.err)
      end
    end)

    it("and no ~/.ssh, the host is not known, and one line says so", function()
      for _, without in ipairs {true, false} do
        local r = elsewhere(with_port(script), {without = without})
        assert.matches("^false\thost key unknown %(%S+ SHA256:[^\n]*\n$", r.out, 1, r.err)
        assert.matches("^ppsh: warning: host '127.0.0.1:%d+' cannot be used: host key unknown"
          .. "[^\n]*\n$", r.err)
      end
    end)

    it("what only the ssh program could do is said to need it", function()
      local r = elsewhere(with_port(script), {without = true,
        home = "mkdir -m 700 .ssh; cp LAB/user_rsa .ssh/id_rsa; cp LAB/known_hosts .ssh;"})
      assert.matches("^false\tauthentication failed [^\n]*\n$", r.out)
      assert.matches("rsa key [^\n]*id_rsa, which is for the ssh program, and there is none", r.err)
    end)
  end)
end)
