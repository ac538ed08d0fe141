-- SPDX-License-Identifier: MIT
-- Getting an agent to run on a host, as spec/c/boot_driver.c does it with
-- spec/c/tiny_agent.c.
local run = require "spec.support.run"
local hosts = require "spec.support.hosts"

local missing = hosts.missing()

local function output_of(command)
  local f = assert(io.popen(command))
  local text = f:read "a"
  f:close()
  return (text:gsub("\n$", ""))
end

describe("a bootstrap", function()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local lab, machine, made
  local driver, agent = hosts.built "boot_driver", hosts.built "tiny_agent"

  --- A host with a home directory of its own. lines: of sshd_config.
  local function host(options)
    options = options or {}
    made = made + 1
    local name = "h" .. made
    local home = lab:path(name .. "-home")
    os.execute(("mkdir %s && chmod 700 %s"):format(home, home))
    -- One SetEnv line: only the first counts.
    local environment = "SetEnv HOME=" .. home .. " " .. (options.environment or "")
    local lines = {environment, table.unpack(options.lines or {})}
    lab:sshd(name, {lines = lines, setup = options.setup and options.setup:gsub("HOME", home)})
    return name, home
  end

  --- Run the driver; the agent is sent for this machine unless images are given.
  local function boot(name, options)
    options = options or {}
    local argv = {driver, "-F", lab.config, table.unpack(options)}
    argv[#argv + 1] = name
    for _, image in ipairs(options.images or {machine .. "=" .. agent}) do
      argv[#argv + 1] = image
    end
    local r = run.program(argv, {timeout = 60})
    assert(not r.late, "the driver did not end: " .. r.err)
    r.log = ""
    for line in r.err:gmatch "[^\n]+" do
      local word, rest = line:match "^(%S+) ?(.*)$"
      if word == "log" then r.log = r.log .. rest .. "\n" else r[word] = rest end
    end
    if r.ready then
      r.sent, r.system, r.place = r.ready:match "^%S+ (%S*)%. (%S+ %S+) (.*)$"
    end
    return r
  end

  --- It runs, having been sent in this form, from below this directory.
  local function runs(r, sent, place)
    assert.are.equal(0, r.status, r.err)
    assert.are.equal(sent, r.sent)
    assert.are.equal(place, r.place:sub(1, #place))
  end

  setup(function()
    lab, made = hosts.new(), 0
    machine = output_of "uname -m"
  end)
  teardown(function()
    lab:close()
    run.cleanup()
  end)

  for _, transport in ipairs {"libssh2", "ssh"} do
    it("sends the agent once, by " .. transport, function()
      local name, home = host()
      local t = "-t" .. transport
      runs(boot(name, {t}), "gz", home .. "/.cache/ppsh/agent-")
      runs(boot(name, {t}), "", home .. "/.cache/ppsh/agent-")
      assert.are.equal("drwx------", output_of("ls -ld " .. home .. "/.cache/ppsh"):sub(1, 10))
      assert.are.equal("1", output_of("ls -A " .. home .. "/.cache/ppsh | wc -l"))
    end)
  end

  it("does without compression", function()
    local name, home = host()
    runs(boot(name, {"-r"}), "raw", home)
  end)

  it("uses XDG_CACHE_HOME", function()
    local cache = run.directory()
    local name = host{environment = "XDG_CACHE_HOME=" .. cache}
    runs(boot(name), "gz", cache .. "/ppsh/agent-")
  end)

  for _, shell in ipairs {"bash", "dash", "busybox sh", "zsh", "fish", "tcsh", "csh", "ksh"} do
    local there = os.execute("command -v " .. shell:match "%S+" .. " >/dev/null 2>&1")
    it("works with " .. shell .. " as login shell", function()
      if not there then pending(shell .. " is not here") return end
      -- What sshd does, with another shell: SHELL -c COMMAND.
      local name, home = host{lines = {("ForceCommand exec %s -c \"$SSH_ORIGINAL_COMMAND\""):format(
        shell)}}
      runs(boot(name), "gz", home)
      runs(boot(name), "", home)
    end)
  end

  for _, shell in ipairs {"busybox sh", "dash", "bash --posix"} do
    local there = os.execute("command -v " .. shell:match "%S+" .. " >/dev/null 2>&1")
    it("works with " .. shell .. " as /bin/sh", function()
      if not there then pending(shell .. " is not here") return end
      local no = hosts.no_mounts()
      if no then pending(no) return end
      local sh = run.file(("#!/bin/bash\nexec %s \"$@\"\n"):format(shell), "sh")
      local real = output_of "readlink -f /bin/sh"
      os.execute("chmod 755 " .. sh)
      if shell:match "^bash" then
        sh = output_of "readlink -f /bin/bash"
      elseif shell == "busybox sh" then
        sh = output_of "command -v busybox"
      else
        sh = output_of("readlink -f $(command -v " .. shell .. ")")
      end
      local name, home = host{setup = ("mount --bind %s %s"):format(sh, real)}
      runs(boot(name), "gz", home)
      runs(boot(name), "", home)
    end)
  end

  it("works with the tools of busybox alone", function()
    if not os.execute "command -v busybox >/dev/null" then
      pending "busybox is not here"
      return
    end
    local bin = run.directory()
    os.execute(("cd %s && for a in $(busybox --list); do ln -s $(command -v busybox) $a; done")
      :format(bin))
    local name, home = host{environment = "PATH=" .. bin}
    runs(boot(name), "gz", home)
    runs(boot(name), "", home)
  end)

  it("does not mind login files that print", function()
    local name, home = host{lines = {
      "ForceCommand echo Welcome; echo 'ppsh000 hello'; printf 'no end'; echo hm >&2;"
        .. " exec sh -c \"$SSH_ORIGINAL_COMMAND\""}}
    runs(boot(name), "gz", home)
    local real, root = host()
    local f = assert(io.open(root .. "/.bashrc", "w"))
    f:write "echo in .bashrc; head -c 300000 /dev/zero | tr '\\0' x\n"
    f:close()
    runs(boot(real), "gz", root)
  end)

  it("tells what a shell says that runs nothing", function()
    local name = host{lines = {
      "ForceCommand echo This account is currently not available.; exit 1"}}
    local r = boot(name)
    assert.are.equal("the login shell runs no commands: the command ended with status 1: "
      .. "This account is currently not available.", r.failed)
  end)

  it("does not wait for ever", function()
    local name = host{lines = {"ForceCommand echo Password expired; sleep 30"}}
    local r = boot(name, {"-T", "2"})
    assert.are.equal("timed out: the login shell starts nothing (Password expired)", r.failed)
  end)

  it("says which architecture is wrong", function()
    local name = host()
    local r = boot(name, {images = {"vax=" .. agent, "pdp11=" .. agent}})
    assert.are.equal(("wrong architecture: the host is %s, and there are agents for vax, pdp11")
      :format(machine), r.failed)
  end)

  it("says that a host is no Linux", function()
    local bin = run.directory()
    os.execute(("printf '#!/bin/sh\\necho Darwin arm64\\n' >%s/uname && chmod 755 %s/uname"):format(
      bin, bin))
    local name = host{environment = "PATH=" .. bin .. ":/usr/bin:/bin"}
    assert.are.equal("the host runs Darwin arm64, and the agent needs Linux", boot(name).failed)
  end)

  it("replaces a copy that is not what its name says", function()
    local name, home = host()
    local r = boot(name)
    os.execute("head -c 1000 /dev/zero >" .. r.place)
    runs(boot(name), "gz", home)
    runs(boot(name), "", home)
  end)

  it("removes copies that nobody has used for long", function()
    local name, home = host()
    local cache = home .. "/.cache/ppsh"
    os.execute(("mkdir -p -m 700 %s && touch -d '40 days ago' %s/agent-old %s/.new-old && "
      .. "touch -d '10 days ago' %s/agent-young && chmod 700 %s"):format(cache, cache, cache,
      cache, cache))
    local r = boot(name)
    runs(r, "gz", home)
    assert.are.equal("agent-young", output_of(("ls -A %s | grep -v %s"):format(cache,
      r.place:match "[^/]*$")))
    -- and running it makes it young
    os.execute("touch -d '40 days ago' " .. r.place)
    runs(boot(name), "", home)
    assert.are.equal(r.place, output_of(("find %s -name 'agent-*' -mtime -1"):format(cache)))
  end)

  it("uses an installed one of the same build, and only that", function()
    local bin = run.directory()
    os.execute(("ln -s %s %s/ppsh"):format(agent, bin))
    local name, home = host{environment = "PATH=" .. bin .. ":/usr/bin:/bin"}
    runs(boot(name, {"-i", "tiny-1"}), "", bin .. "/ppsh")
    runs(boot(name, {"-i", "tiny-2"}), "gz", home)
    runs(boot(name), "", home)
  end)

  it("says why an agent does not start", function()
    local name = host{environment = "TINY_AGENT_DIES=1"}
    assert.are.equal("the agent does not start: the command ended with status 9: no, not today",
      boot(name).failed)
  end)

  it("does not use a directory of somebody else's making", function()
    local elsewhere = run.directory()
    local name, home = host()
    os.execute(("mkdir %s/.cache && ln -s %s %s/.cache/ppsh"):format(home, elsewhere, home))
    local r = boot(name)
    assert.are.equal(0, r.status, r.err)
    assert.are.equal("", output_of("ls -A " .. elsewhere))
    assert.is_nil(r.place:find(home, 1, true))
    os.remove(r.place)
  end)

  describe("on a host with mounts of its own", function()
    local no = hosts.no_mounts()
    if no then
      pending(no)
      return
    end

    local elsewhere = "mount -t tmpfs none /dev/shm; mount -t tmpfs none /var/tmp; "
    local nothing = "mount -t tmpfs -o noexec none /dev/shm; mount --bind /tmp /tmp; "
      .. "mount -o remount,bind,noexec /tmp; "

    it("goes elsewhere when nothing can be executed at home", function()
      local name = host{setup = elsewhere .. "mount -t tmpfs -o noexec,mode=700 none HOME"}
      local r = boot(name)
      runs(r, "gz", "/dev/shm/ppsh-")
      assert.matches("cannot execute there", r.log)
      runs(boot(name), "", "/dev/shm/ppsh-")
    end)

    it("goes elsewhere when the disk is full, and says so", function()
      local name = host{setup = elsewhere .. "mount -t tmpfs -o size=100k,mode=700 none HOME"}
      local r = boot(name)
      runs(r, "gz", "/dev/shm/ppsh-")
      assert.matches("No space left on device", r.log)
    end)

    it("goes elsewhere when nothing can be written at home", function()
      local name = host{setup = elsewhere .. "mount -t tmpfs -o ro none HOME"}
      runs(boot(name), "gz", "/dev/shm/ppsh-")
    end)

    it("does not trust a directory that others made", function()
      local name = host{setup = elsewhere .. "mount -t tmpfs -o ro none HOME; "
        .. "mkdir -m 777 /dev/shm/ppsh-$(id -u)"}
      local r = boot(name)
      runs(r, "gz", "/dev/shm/ppsh-")
      assert.is_nil(r.place:match "^/dev/shm/ppsh%-%d+/")
    end)

    for _, program in ipairs {"perl", "python3"} do
      it("runs from memory by " .. program .. " when nothing else is left", function()
        if not os.execute("command -v " .. program .. " >/dev/null") then
          pending(program .. " is not here")
          return
        end
        local bin = run.directory()
        for _, tool in ipairs {"uname", "id", "ls", "head", "gzip", "cat", "wc", "mkdir", "chmod",
          "rm", "cp", "mv", "find", "dd", program} do
          os.execute(("ln -s $(command -v %s) %s/%s"):format(tool, bin, tool))
        end
        if program == "python3" then
          -- A shim would look for its own helpers.
          os.execute(("ln -sf $(python3 -c 'import sys; print(sys.executable)') %s/python3"):format(
            bin))
        end
        local name = host{environment = "PATH=" .. bin,
          setup = nothing .. "mount -t tmpfs -o noexec,mode=700 none HOME"}
        local r = boot(name)
        runs(r, "gz", "")
        assert.are.equal("", r.place)
        -- and when nothing can be stored either
        os.remove(bin .. "/mkdir")
        name = host{environment = "PATH=" .. bin,
          setup = nothing .. "mount -t tmpfs -o ro none HOME"}
        runs(boot(name), "gz", "")
      end)
    end

    it("says that the agent can be put nowhere", function()
      local bin = run.directory()
      for _, tool in ipairs {"uname", "id", "ls", "head", "gzip", "cat", "wc", "mkdir", "chmod",
        "rm", "cp", "mv", "find", "dd"} do
        os.execute(("ln -s $(command -v %s) %s/%s"):format(tool, bin, tool))
      end
      local name = host{environment = "PATH=" .. bin,
        setup = nothing .. "mount -t tmpfs -o size=100k,mode=700 none HOME"}
      local r = boot(name)
      assert.matches("^the agent cannot be stored and run there %(", r.failed)
      assert.matches("No space left on device", r.failed)
      assert.matches("/dev/shm/ppsh%-%d+: cannot execute there", r.failed)
      assert.matches("no perl or python3", r.failed)
    end)
  end)
end)
