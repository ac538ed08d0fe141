-- SPDX-License-Identifier: MIT
-- ppsh --sh: commands over lines and arguments, and once on each host.
local child = require "spec.support.child"
local run = require "spec.support.run"

local function ppsh(args, options) return run.ppsh(args, options) end
local function lines_of(text)
  local lines = {}
  for line in text:gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end
local function sorted(text)
  local lines = lines_of(text)
  table.sort(lines)
  return table.concat(lines, " ")
end

teardown(run.cleanup)

describe("--sh over lines", function()
  it("runs a command for each line, which stands behind it where it has no place", function()
    local r = ppsh({"--sh", "echo got"}, {stdin = "a\nb\nc\n"})
    assert.same({0, "got a got b got c", ""}, {r.status, sorted(r.out), r.err})
    r = ppsh({"--sh", "echo {}-{#}", "--keep"}, {stdin = "a\n\nb"})
    assert.equal("a-1\n-2\nb-3\n", r.out)
  end)

  it("knows the placeholders of GNU parallel", function()
    local r = ppsh {"--sh", "echo {} {.} {/} {//} {/.} {#} {1.}", ":::", "a/b.c.d"}
    assert.equal("a/b.c.d a/b.c b.c.d a b.c 1 a/b.c\n", r.out)
    r = ppsh {"--keep", "--sh", "echo {2}{1}", ":::", "a", "b", ":::", "c", "d"}
    assert.equal("ca\nda\ncb\ndb\n", r.out)
    r = ppsh {"--keep", "--sh", "echo", ":::", "a", ":::", "c", "d"}
    assert.equal("a c\na d\n", r.out)
    local file = run.file("x y\nz\n", "list")
    r = ppsh {"--keep", "--sh", "echo {} ${HOME:+set} {}", "::::", file}
    assert.equal("x y set x y\nz set z\n", r.out)
  end)

  it("gives words to the command as they are", function()
    local words = {"it's", '"', "$HOME", "a  b", "-n", "*", "\\", "`x`", "\xff\xfe\x80", "!", ";",
      "~", "#", "{}", "a\nb"}
    local r = ppsh({"-0", "--keep", "--sh", "printf '<%s>' {}"},
      {stdin = table.concat(words, "\0") .. "\0"})
    assert.equal("<" .. table.concat(words, "><") .. ">", r.out)
    r = ppsh({"--keep", "--sh", "printf '<%s>' {}", ":::", table.unpack(words)})
    assert.equal("<" .. table.concat(words, "><") .. ">", r.out)
  end)

  it("takes the lines for commands where there is none", function()
    local r = ppsh({"--keep", "--each", "--sh", ""}, {stdin = "echo a; echo b\nexit 1\n"})
    assert.same({1, "a\nb\n"}, {r.status, r.out})
  end)

  it("keeps the output of a job together, and stdout and stderr apart", function()
    local r = ppsh {"-j", "4", "--sh", "for i in 1 2 3; do echo {}$i; echo {} >&2; done", ":::",
      "a", "b", "c", "d"}
    assert.equal(12, #lines_of(r.out))
    for first in r.out:gmatch "(%a)1\n" do
      assert.truthy(r.out:find(first .. "1\n" .. first .. "2\n" .. first .. "3\n", 1, true))
    end
    assert.equal("a a a b b b c c c d d d", sorted(r.err))
  end)

  it("passes large output on whole, and leaves no file", function()
    local dir = run.directory()
    local r = ppsh({"--keep", "--sh", "head -c 3000000 /dev/zero | tr '\\0' {}", ":::", "a", "b"},
      {env = {TMPDIR = dir}})
    assert.equal(("a"):rep(3000000) .. ("b"):rep(3000000), r.out)
    assert.equal("", child.output_of("ls -A " .. dir))
  end)

  it("passes lines on while a command runs with --line-buffer", function()
    local p = run.start_ppsh({"--line-buffer", "--sh", "echo {}; sleep 1000", ":::", "a"},
      {stdin_file = "/dev/null"})
    assert.is_true(run.poll(function() return p:out() == "a\n" end))
    p:kill "INT"
    assert.equal(130, p:wait().status)
  end)

  it("ends with the number of jobs that have failed", function()
    assert.equal(2, ppsh({"--sh", "exit {}", ":::", "0", "1", "2"}).status)
    local r = ppsh({"--sh", "exit 1"}, {stdin = ("x\n"):rep(130)})
    assert.equal(101, r.status)
  end)

  it("stops at failures, successes or shares of them as --halt says", function()
    local r = ppsh({"-j", "1", "--halt", "now,fail=1", "--sh", "echo {}; exit {}", ":::", "0", "7",
      "0", "0", "0", "0", "0", "0", "0"})
    assert.equal(7, r.status)
    assert.equal("0\n7\n", r.out)
    r = ppsh({"-j", "1", "--halt", "soon,success=1", "--sh", "exit {}", ":::", "3", "0", "0", "0",
      "0", "0"})
    assert.equal(0, r.status)
    r = ppsh({"-j", "1", "--halt", "soon,fail=50%", "--sh", "exit {}", ":::", "1", "1", "0", "0"})
    assert.equal(50, r.status)
    r = ppsh({"-j", "2", "--halt", "now,done=1", "--sh", "sleep {}; exit 4", ":::", "0", "1000"})
    assert.equal(4, r.status)
  end)

  it("prints what has run though a line before it has not ended", function()
    local r = ppsh {"-j", "2", "--keep", "--halt", "now,fail=1", "--sh", "", ":::", "sleep 1000",
      "echo b; exit 1"}
    assert.same({1, "b\n"}, {r.status, r.out})
  end)

  it("tries a failing command again, so often in all", function()
    local file = run.directory() .. "/n"
    local r = ppsh({"--retries", "3", "--sh", "echo x >>" .. file .. "; exit {}", ":::", "1"})
    assert.equal(1, r.status)
    assert.equal("x\nx\nx\n", run.read(file))
    os.remove(file)
    local command = "echo x >>%s; test $(wc -l <%s) = {}"
    r = ppsh({"--retries", "5", "--sh", command:format(file, file), ":::", "2"})
    assert.equal(0, r.status)
    assert.equal("x\nx\n", run.read(file))
  end)

  it("kills what runs too long, and what that has started", function()
    local file = run.directory() .. "/pid"
    local r = ppsh({"--timeout", "0.3", "--sh", ": {}; sleep 1000 & echo $! >" .. file .. "; wait",
      ":::", ""})
    assert.equal(1, r.status)
    assert.matches("timed out after 0.3 s", r.err, 1, true)
    local pid = tonumber(run.read(file))
    assert.is_true(child.eventually(function() return not child.alive(pid) end))
  end)

  it("logs jobs in the columns of GNU parallel", function()
    local log = run.directory() .. "/log"
    ppsh({"-j", "1", "--timeout", "0.5", "--joblog", log, "--sh", "", ":::", "exit 3",
      "kill -9 $$", "echo 'a\nb'", "sleep 1000"})
    local lines = lines_of(run.read(log))
    assert.equal("Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand",
      lines[1])
    for k, what in ipairs {"3\t0\texit 3", "0\t9\tkill -9 $$", "0\t0\techo 'a\0b'",
      "-1\t15\tsleep 1000"} do
      local seq, start, ran, rest = lines[k + 1]:match
        "^(%d+)\t:\t(%d+%.%d%d%d)\t +(%d+%.%d%d%d)\t0\t0\t(.*)$"
      assert.equal(tostring(k), seq)
      assert.equal(what, rest)
      assert.is_true(math.abs(tonumber(start) - os.time()) < 60 * run.slowness)
      assert.is_true(tonumber(ran) < 60 * run.slowness)
    end
  end)

  it("skips what the log says is done, if it is the same command", function()
    local log = run.directory() .. "/log"
    local function go(command, option, ...)
      return sorted(ppsh({"--joblog", log, "--sh", command, option, ":::", ...}).out)
    end
    assert.equal("a b", go("echo {}; test {} = a", nil or "--keep", "a", "b"))
    assert.equal("c", go("echo {}; test {} = a", "--resume", "a", "b", "c"))
    -- what has failed is run again
    assert.equal("b c", go("echo {}; test {} = a", "--resume-failed", "a", "b", "c"))
    -- another command in its place is not done
    assert.equal("B", go("echo {}; test {} = a", "--resume", "a", "B", "c"))
    -- the last line was torn when its writer was killed
    local f = io.open(log, "a")
    f:write("4\t:\t1.0\t0.1\t0\t0\t0\t0\techo")
    f:close()
    assert.equal("d", go("echo {}; test {} = a", "--resume", "a", "B", "c", "d"))
    assert.equal("", go("echo {}; test {} = a", "--resume", "a", "B", "c", "d"))
  end)

  it("refuses lines that no command can be given, and goes on", function()
    local r = ppsh({"--keep", "--each", "--sh", "echo"},
      {stdin = ("x"):rep(300000) .. "\na\0b\nc\n"})
    assert.equal(2, r.status)
    assert.equal("c\n", r.out)
    assert.matches("line 1 of the input is longer than 131071 bytes", r.err, 1, true)
    assert.matches("line 2 of the input holds a zero byte", r.err, 1, true)
  end)

  it("goes on with commands while it waits for more lines", function()
    local p = run.start_ppsh({"--sh", "echo {}"})
    p:write "a\n"
    assert.is_true(run.poll(function() return p:out() == "a\n" end))
    p:write "b"
    p:write "c\n"
    assert.is_true(run.poll(function() return p:out() == "a\nbc\n" end))
    p:close_stdin()
    assert.equal(0, p:wait().status)
  end)

  it("ends quietly with all commands when nobody reads what it writes", function()
    local tag = ("%d-%d"):format(os.time(), math.random(1 << 40))
    local r = run.program({"sh", "-c", run.quote(run.ppsh_path)
      .. " --line-buffer --sh 'yes {}' ::: a b | head -n 2"}, {env = {PP_SPEC_TAG = tag}})
    assert.equal("", r.err)
    assert.equal(2, #lines_of(r.out))
    assert.same({}, child.left(tag))
  end)

  it("ends all commands at Ctrl-C, quietly", function()
    local tag = ("%d-%d"):format(os.time(), math.random(1 << 40))
    local p = run.start({"env", "--default-signal=INT", run.ppsh_path, "--sh", "echo {}; sleep {}",
      "--line-buffer", ":::", "1001", "1002"},
      {stdin_file = "/dev/null", env = {PP_SPEC_TAG = tag}})
    assert.is_true(run.poll(function() return #lines_of(p:out()) == 2 end))
    p:kill "INT"
    local r = p:wait()
    assert.equal(130, r.status)
    assert.equal("", r.err)
    assert.same({}, child.left(tag))
  end)

  it("runs all of them where nobody keeps what they say on stderr", function()
    for _, to in ipairs {"2>/dev/full", "2>&-"} do
      local r = run.start({"sh", "-c", "exec \"$0\" \"$@\" " .. to, run.ppsh_path, "-j", "1",
        "--sh", "echo {}; echo e >&2", ":::", "1", "2", "3"}, {stdin_file = "/dev/null"}):wait()
      assert.same({0, "1 2 3"}, {r.status, sorted(r.out)})
    end
  end)

  it("does not read the log where that is a pipe", function()
    local r = run.start({"sh", "-c", "exec \"$0\" --joblog /dev/stderr --resume --sh echo ::: a "
      .. "2>&1 >/dev/null | grep -c 'echo a'", run.ppsh_path}, {stdin_file = "/dev/null"}):wait()
    assert.same({0, "1\n"}, {r.status, r.out})
  end)

  it("says what is wrong with its options", function()
    local function refused(text, ...)
      local r = ppsh {...}
      assert.equal(2, r.status)
      assert.matches(text, r.err, 1, true)
    end
    refused("bad value for --halt: 'x'", "--halt", "x", "--sh", "a")
    refused("bad value for --halt: 'now,fail=0'", "--halt", "now,fail=0", "--sh", "a")
    refused("bad value for --timeout: '-1'", "--timeout", "-1", "--sh", "a")
    refused("bad value for --retries: '0'", "--retries", "0", "--sh", "a")
    refused("--resume goes with --joblog", "--resume", "--sh", "a")
    refused("unexpected word 'b': arguments come behind :::", "--sh", "a", "b")
    refused("there is no list 2 for '{2}'", "--sh", "a {2}", ":::", "b")
    refused("cannot read '/no/such': No such file", "--sh", "a", "::::", "/no/such")
    refused("cannot open the log '/no/such/log': No such file", "--joblog", "/no/such/log", "--sh",
      "a", ":::", "b")
    refused("cannot read the log '/': Is a directory", "--joblog", "/", "--resume", "--sh", "a",
      ":::", "b")
    refused("--keep is for commands that run for each line", "--once", "--keep", "--sh", "a")
    refused("--fold is for commands that run once", "--fold", "--sh", "a", ":::", "b")
  end)
end)

describe("--sh here", function()
  it("runs once where there is neither a line nor a host", function()
    local r = ppsh {"--sh", "echo out; echo err >&2; exit 3"}
    assert.same({3, "out\n", "err\n"}, {r.status, r.out, r.err})
    assert.equal("once\n", ppsh({"--sh", "echo once"}, {stdin = ""}).out)
    assert.equal("{}\n", ppsh({"--once", "--sh", "echo {}"}).out)
  end)

  it("stops it when its time is up", function()
    local r = ppsh {"--timeout", "0.2", "--sh", "echo a; sleep 1000"}
    assert.same({124, "a\n"}, {r.status, r.out})
  end)
end)

describe("--sh with stdin", function()
  it("passes all of it to a command that runs once, as it comes", function()
    local text = ("0123456789\n"):rep(400000)
    local r = ppsh({"--once", "--sh", "cat"}, {stdin = text})
    assert.is_true(r.out == text)
    local p = run.start_ppsh {"--once", "--sh", "cat"}
    p:write "a\n"
    assert.is_true(run.poll(function() return p:out() == "a\n" end))
    p:close_stdin()
    assert.equal(0, p:wait().status)
  end)

  it("does not wait for input that the command does not read", function()
    local p = run.start_ppsh {"--once", "--sh", "echo done"}
    assert.is_true(run.poll(function() return not p:alive() end))
    assert.same({0, "done\n"}, {p:wait().status, p:out()})
  end)
end)

local remote = require "spec.support.remote"

if remote.missing() then
  describe("--sh on hosts", function()
    it("needs an sshd", function() pending(remote.missing()) end)
  end)
  return
end

describe("--sh on hosts", function()
  local net

  setup(function()
    net = remote.new()
    net:sshd "h1"
    net:sshd "h2"
    net.lab:alias("gone", "h1", {"Port 1"})
  end)
  teardown(function() net:close() end)

  local function on(args, options)
    local o = setmetatable({env = {PATH = net.path}, timeout = 60}, {__index = options})
    return ppsh(args, o)
  end

  it("runs once on each, lines behind the host's name, stdout and stderr apart", function()
    local r = on {"-H", "h1,h2", "--sh", "echo out; echo err >&2; exit 3"}
    assert.equal(3, r.status)
    assert.equal("[h1] out [h2] out", sorted(r.out))
    assert.equal("[h1] err [h2] err ppsh: h1: exit status 3 ppsh: h2: exit status 3", sorted(r.err))
  end)

  it("shows what is the same once, with --fold", function()
    local r = on {"-H", "h[1-2]", "--fold", "--sh", "echo a; echo b"}
    assert.same({0, "h[1-2]:\na\nb\n", ""}, {r.status, r.out, r.err})
    r = on {"-H", "h[1-2]", "--fold", "--sh", "echo x"}
    assert.equal("h[1-2]: x\n", r.out)
  end)

  it("folds in the order of the hosts, whichever ends first", function()
    local r = on {"-H", "h1,h2", "--fold", "--sh",
      "case $PP_SPEC_TAG in h1-*) sleep 0.3;; esac; echo ${PP_SPEC_TAG%%-*}"}
    assert.equal("h1: h1\nh2: h2\n", r.out)
  end)

  it("names hosts that are not reached, and why", function()
    local r = on {"-H", "h1,gone", "--sh", "echo here"}
    assert.equal(255, r.status)
    assert.equal("[h1] here\n", r.out)
    assert.matches("ppsh: gone: not reached: [^\n]*refused", r.err)
  end)

  it("passes stdin to each, of any length", function()
    local text = ("0123456789\n"):rep(300000)
    local r = on({"-H", "h1,h2", "--fold", "--sh", "wc -c"}, {stdin = text})
    assert.equal(("h[1-2]: %d\n"):format(#text), r.out)
    local p = run.start_ppsh({"-H", "h1,h2", "--sh", "cat"},
      {env = {PATH = net.path}, timeout = 60})
    p:write "a\n"
    assert.is_true(run.poll(function() return sorted(p:out()) == "[h1] a [h2] a" end))
    p:close_stdin()
    assert.equal(0, p:wait().status)
  end)

  it("stops a command on each host whose time is up", function()
    local r = on {"-H", "h1,h2", "--timeout", "0.5", "--fanout", "1", "--sh", "echo a; sleep 1000"}
    assert.equal(124, r.status)
    assert.equal("[h1] a [h2] a", sorted(r.out))
    assert.matches("ppsh: h1: timed out after 0.5 s", r.err, 1, true)
  end)

  it("ends everything on hosts at Ctrl-C", function()
    local p = run.start({"env", "--default-signal=INT", run.ppsh_path, "-H", "h1,h2", "--sh",
      "echo a; sleep 1003"}, {stdin_file = "/dev/null", env = {PATH = net.path}, timeout = 60})
    assert.is_true(run.poll(function() return #lines_of(p:out()) == 2 end))
    p:kill "INT"
    local r = p:wait()
    assert.same({130, ""}, {r.status, r.err})
    assert.same({}, net:left "h1")
    assert.same({}, net:left "h2")
  end)

  it("runs lines on all of them, large output too", function()
    local r = on({"-j", "0", "-H", "h1/2,h2/2", "--keep", "--sh",
      "head -c 2000000 /dev/zero | tr '\\0' {}; echo"}, {stdin = "a\nb\nc\n"})
    assert.equal("", r.err)
    assert.is_true(r.out == ("a"):rep(2000000) .. "\n" .. ("b"):rep(2000000) .. "\n"
      .. ("c"):rep(2000000) .. "\n")
  end)

  it("sends files there and brings others back, and removes them", function()
    local here, there = run.directory(), run.directory()
    local big = ("0123456789abcdef"):rep(200000)
    local names = {"a b", "it's", "-n", "big"}
    for _, name in ipairs(names) do
      local f = assert(io.open(here .. "/" .. name, "wb"))
      f:write(name == "big" and big or name .. "\n")
      f:close()
    end
    os.execute(("cd %s && chmod 750 ./-n && touch -d '2020-01-02 03:04:05' ./-n"):format(here))
    local log = run.directory() .. "/log"
    local r = on({"-j", "0", "-H", "h1/2,h2/2", "--workdir", there, "--push", "{}", "--fetch",
      "{}.out", "--cleanup", "--joblog", log, "--sh",
      "test -f ./{} && tr a-z A-Z <./{} >./{}.out; stat -c '%a %Y' -- {} >&2", ":::",
      table.unpack(names)}, {cwd = here})
    assert.equal(0, r.status, r.err)
    for _, name in ipairs(names) do
      assert.is_true(run.read(here .. "/" .. name .. ".out")
        == (name == "big" and big:upper() or name:upper() .. "\n"))
    end
    assert.matches(("750 %d"):format(child.output_of(("stat -c %%Y %s/-n"):format(here))), r.err, 1,
      true)
    assert.equal("", child.output_of("ls -A " .. there))
    assert.matches(("\t%d\t%d\t0\t0\t"):format(#big, #big), run.read(log), 1, true)
  end)

  it("sends what is the same for all lines once, and keeps it till the end", function()
    local here, there = run.directory(), run.directory()
    local f = assert(io.open(here .. "/common", "w"))
    f:write "c\n"
    f:close()
    local log = run.directory() .. "/log"
    local r = on({"-j", "0", "-H", "h1/2", "--workdir", there, "--push", "common", "--cleanup",
      "--joblog", log, "--sh", "cat common; : {}", ":::", "1", "2", "3", "4", "5", "6"},
      {cwd = here})
    assert.same({0, ("c\n"):rep(6), ""}, {r.status, r.out, r.err})
    assert.equal("", child.output_of("ls -A " .. there))
  end)

  it("names the link in a directory that cannot be sent", function()
    local here = run.directory()
    os.execute(("cd %s && mkdir d e && ln -s . d/a && ln -s . d/b && ln -s nowhere e/x")
      :format(here))
    local r = on({"-j", "0", "-H", "h1", "--keep", "--workdir", run.directory(), "--push", "{}",
      "--sh", "ls", ":::", "d", "e"}, {cwd = here})
    assert.same({2, ""}, {r.status, r.out})
    assert.matches("cannot push 'd' to 'h1': 'd/[ab]': the link leads to a directory", r.err)
    assert.matches("cannot push 'e' to 'h1': 'e/x': No such file or directory", r.err, 1, true)
  end)

  it("sends directories whole, to each host", function()
    local here, there = run.directory(), run.directory()
    os.execute(("cd %s && mkdir -p d/e/f && echo 1 >d/e/x && echo 2 >d/y && chmod 700 d/e")
      :format(here))
    local r = on({"-H", "h1", "--workdir", there, "--push", "d", "--fetch", "d/e", "--sh",
      "find d -type f | sort; stat -c %a d/e; echo 3 >d/e/z"}, {cwd = here})
    assert.same({0, "[h1] d/e/x\n[h1] d/y\n[h1] 700\n", ""}, {r.status, r.out, r.err})
    assert.equal("3\n", run.read(here .. "/h1/d/e/z"))
  end)

  it("says which file is not sent, and why", function()
    local here = run.directory()
    local r = on({"-H", "h1", "--push", "nothing", "--sh", "true"}, {cwd = here})
    assert.equal(126, r.status)
    assert.matches("cannot push 'nothing' to 'h1': No such file or directory", r.err, 1, true)
    r = on({"-H", "h1", "--push", "../x", "--sh", "true"}, {cwd = here})
    assert.matches("cannot push '../x' to 'h1': paths with '..' are not sent", r.err, 1, true)
    r = on({"-H", "h1", "--push", "/etc/passwd", "--sh", "true"}, {cwd = here})
    assert.matches("absolute paths are not sent", r.err, 1, true)
    r = on({"-H", "h1", "--fetch", "no/such", "--sh", "true"}, {cwd = here})
    assert.matches("cannot fetch 'no/such' from 'h1': No such file or directory", r.err, 1, true)
    assert.equal("", child.output_of("ls -A " .. here))
  end)
end)
