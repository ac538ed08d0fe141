-- SPDX-License-Identifier: MIT
local child = require "spec.support.child"
local run = require "spec.support.run"
local screen = require "spec.support.screen"

describe("the prompt of the shell", function()
  local s

  after_each(function()
    if s then s:close() end
    s = nil
  end)
  teardown(run.cleanup)

  local function open(options)
    s = screen.open((options or {}).args or {"-j", "2"}, options)
    s:ends ">"
    return s
  end

  if screen.missing() then
    pending("is looked at: " .. screen.missing())
    return
  end

  it("shows tables, and says which line an error is of", function()
    open()
    s:enter "{1, 'two', x = {y = 2.0}}"
    s:ends "{1, \"two\", x = {y = 2.0}}\n>"
    s:enter "'a', {}, nil"
    s:ends "a       {}      nil\n>"
    s:enter "function f() error 'no' end"
    s:enter "f()"
    s:sees "stdin:3: no\nstack traceback:"
    s:ends "typed before:\n        stdin:3: function f() error 'no' end\n>"
    s:enter "for i = 1, 2 do"
    s:enter "  error 'here'"
    s:enter "end"
    s:sees "stdin:6: here"
    s:enter "(1 +"
    s:enter "2)"
    s:ends "3\n>"
  end)

  it("has output, notices and callbacks above the line being typed", function()
    open()
    local gates = {child.gate(), child.gate(), child.gate()}
    s:enter "server = pp.Server()"
    for i, gate in ipairs(gates) do
      s:enter(("_ = server:submit{function(p) io.open(p):close() print('job %d says') return 1 end,"
        .. " args = {'%s'}, name = 'n%d'%s}"):format(i, gate.path, i,
        i == 2 and ", callback = function(v) print('called', v) end" or ""))
    end
    s:ends ">"
    s:press "C-l"
    s:ends ">"
    s:type "some_text("
    s:ends "> some_text("
    gates[1]:open()
    s:sees "^job 1 says\n%-%- job 0 n1 done, %d+%.%d+ s\n> some_text%($"
    gates[2]:open()
    s:sees "\njob 2 says\ncalled%s+1\n> some_text%($"
    s:type "1)"
    s:ends "> some_text(1)"
    gates[3]:open()
    s:sees "\njob 3 says\n%-%- job 2 n3 done, %d+%.%d+ s\n> some_text%(1%)$"
    s:press "C-c"
    s:enter "server:submit(error, {'oh', 0})"
    s:sees "%-%- job 3 failed: oh, "
    s:enter "server:submit(error, {'a\\27[2Jé\\nb', 0})"
    s:sees "%-%- job 4 failed: a %[2Jé, "
    s:enter "for i = 1, 50 do server:submit(type, {i}) end"
    s:sees "%-%- %d+ more jobs done, 0 failed"
  end)

  it("takes keys while a job writes without end, and leaves the terminal to wait", function()
    open()
    s:enter "s = pp.Server(1)"
    s:enter "a = s:submit(function() while true do print(('x'):rep(70)) end end)"
    s:sees "xxxxx"
    s:enter "a:cancel()"
    s:ends ">"
    s:enter "tonumber(io.open('/proc/self/fdinfo/1'):read('a'):match('flags:%s*(%d+)'), 8) & 2048"
    s:ends "0\n>"
  end)

  it("stops at Ctrl-Z and goes on", function()
    s = screen.open({"-j", "1"}, {under = "bash --norc -i"})
    s:sees "[$#]$"
    s:enter(run.quote(run.ppsh_path))
    s:ends ">"
    s:type "12"
    s:press "C-z"
    s:sees "Stopped.*[$#]$"
    s:enter "fg"
    s:ends "> 12"
    s:enter "34"
    s:ends "1234\n>"
  end)

  it("tells nothing of jobs that the line has waited for", function()
    open()
    s:enter "server = pp.Server()"
    s:enter "server:submit(type, {1})(), #server:map(type, {1, 2, 3})"
    s:ends "number  3\n>"
    s:enter "server:submit(type, {2}):wait()"
    s:sees "\ntrue\n"
    s:sees "%-%- job 2 done"
    assert.is_nil(s:text():find("job 0", 1, true))
    assert.is_nil(s:text():find("job 1", 1, true))
  end)

  it("stops at Ctrl-C what the line has submitted, and nothing else", function()
    open()
    local gate = child.gate()
    s:enter "server = pp.Server()"
    s:enter(("a = server:submit(function(p) io.open(p):close() return 'went on' end, {'%s'})")
      :format(gate.path))
    s:enter "b = server:submit(function() print 'in b' while true do end end) b()"
    s:sees "\nin b$"
    s:press "C-c"
    s:sees "%^Cstdin:3: interrupted!"
    s:ends ">"
    s:enter "a.status, b.status, select(2, b:pcall()).kind"
    s:ends "running failed  cancelled\n>"
    s:enter "server:map(function() print 'in map' while true do end end, {1, 2, 3})"
    s:sees "\nin map$"
    s:press "C-c"
    s:ends ">"
    s:enter "c = {} for i = 1, 100 do c[i] = server:submit(os.time) end"
    s:enter "a()"
    gate:open()
    s:ends "went on\n>"
    s:enter "c[100]() > 0, server:wait()"
    s:ends "true    true\n>"
  end)

  it("is got back from a line that catches Ctrl-C", function()
    open()
    s:enter "while true do pcall(function() print 'in it' while true do end end) end"
    s:sees "\nin it$"
    s:press "C-c"
    s:sees "\nin it\n.*in it$"
    s:press "C-c"
    s:sees "stdin:1: interrupted!"
    s:ends ">"
    s:enter "1"
    s:ends "1\n>"
  end)

  it("takes what is pasted as a whole", function()
    open()
    s:paste "local a = 1\nlocal b = a + 1\nprint(a + b)\n"
    s:sees "print%(a %+ b%)"
    s:press "Enter"
    s:sees "\n3\n>$"
    s:paste "x = 4\nx\n.jobs\nfor i = 1, 2 do\nprint('i', i)\nend\n"
    s:press "Enter"
    s:sees "\n4\n.*\ni%s+1\ni%s+2\n>$"
    local lines = {"t = {"}
    for i = 1, 3000 do lines[#lines + 1] = ("  {%d, 'x'},"):format(i) end
    lines[#lines + 1] = "}\n#t, t[3000][1]"
    s:paste(table.concat(lines, "\n"))
    s:press "Enter"
    s:sees "\n3000%s+3000\n>$"
  end)

  it("takes thousands of lines where the terminal does not tell that they are pasted", function()
    open {env = {TERM = "dumb"}}
    local lines = {"t = {"}
    for i = 1, 3000 do lines[#lines + 1] = ("{%d, [[x"):format(i) .. "]]}," end
    lines[#lines + 1] = "}\n#t, t[3000][1]\n"
    s:paste(table.concat(lines, "\n"))
    s:sees "\n3000%s+3000\n>$"
  end)

  it("fits a narrow terminal, also one that changes", function()
    open {columns = 20}
    s:enter "{'some words', 'some more', key = 1}"
    s:ends '{\n  "some words",\n  "some more",\n  key = 1\n}\n>'
    s:enter ".help"
    s:sees "\n.quit\n  leave, as Ctrl%-D\n  does\n>$"
    s:press "C-l"
    s:type "abcdefghijklmnopqrstuvwxyz0123456789"
    s:ends "> abcdefghijklmnopqr\nstuvwxyz0123456789"
    s:resize(60, 24)
    s:ends "> abcdefghijklmnopqrstuvwxyz0123456789"
    s:resize(24, 24)
    s:sees "> abcdefghijklmnopqrstuv\nwxyz0123456789$"
    s:type " end"
    s:ends "> abcdefghijklmnopqrstuv\nwxyz0123456789 end"
    s:press "C-c"
    s:enter "s = pp.Server(1) s:submit(print, {'0123456789 0123456789 0123456789'})"
    s:type "abcdefghijklmnopqrstuvwxyz0123456789"
    s:sees "\n0123456789 0123456789 01\n23456789\n.*> abcdefghijklmnopqrstuv\nwxyz0123456789$"
  end)

  it("does without escapes at a terminal that has none", function()
    open {env = {TERM = "dumb"}}
    local gate = child.gate()
    s:enter "s = pp.Server(1)"
    s:enter(("_ = s:submit(function(p) io.open(p):close() print 'out' .. 'put' end, {'%s'})")
      :format(gate.path):gsub("print 'out' .. 'put'", "print('out' .. 'put')"))
    s:type "typed"
    s:sees "> typed$"
    gate:open()
    s:sees "> typed\noutput\n.*%-%- job 0 done.-\n> typed$"
    s:enter " = 1"
    s:enter "typed, {1}"
    s:ends "1       {1}\n>"
  end)

  it("has colors, unless there is NO_COLOR", function()
    open()
    s:enter "{1}"
    s:ends "{1}\n>"
    assert.is_truthy(s:tmux("capture-pane", "-p", "-e"):find("\27[36m1", 1, true))
    s:close()
    open {env = {NO_COLOR = "1"}}
    s:enter "{1}"
    s:ends "{1}\n>"
    assert.is_nil(s:tmux("capture-pane", "-p", "-e"):find("\27[3", 1, true))
  end)

  it("completes what Tab is pressed behind", function()
    open()
    os.execute(("mkdir %s/sub && echo 'return 41 + 1' > %s/sub/my-file.lua"):format(s.dir, s.dir))
    local function completes(text, to)
      s:type(text)
      s:press "Tab"
      s:ends("> " .. to)
      s:press("C-e", "C-u")
      s:ends ">"
    end
    s:enter "server = pp.Server() obj = {list = {{name = 'x', names = 1}}, f = print, field = 1}"
    s:ends ">"
    completes("string.form", "string.format")
    completes("print(colle", "print(collectgarbage")
    completes("server:print_", "server:print_stats")
    completes("io.stdout:fl", "io.stdout:flush")
    completes("obj.list[1].nam", "obj.list[1].name")
    completes("obj:f", "obj:f")
    completes("x = 1 .. obj.fi", "x = 1 .. obj.field")
    completes("('x'):up", "('x'):upper")
    completes(".sta", ".stats")
    completes(".doc server.subm", ".doc server.submit")
    completes(".load " .. s.dir .. "/sub/my", ".load " .. s.dir .. "/sub/my-file.lua")
    completes("dofile('" .. s.dir .. "/sub/m", "dofile('" .. s.dir .. "/sub/my-file.lua'")
    completes("dofile('" .. s.dir .. "/su", "dofile('" .. s.dir .. "/sub/")
    completes("require 'pp.ite", "require 'pp.iterate'")
    completes("f().x.na", "f().x.na")
    completes("whi", "while")
    s:enter "job = server:submit(type, {1})"
    completes("job:wa", "job:wait")
    completes("job.fini", "job.finished")
    s:enter(".load " .. s.dir .. "/sub/my-file.lua")
    s:ends "42\n>"
    s:type "obj.list[1].n"
    s:press("Tab", "Tab", "Tab")
    s:ends "name   names\n> obj.list[1].name"
  end)

  it("has commands", function()
    open {rows = 60, columns = 100}
    s:enter ".nonsense"
    s:ends "unknown command '.nonsense'; .help lists what there is\n>"
    s:enter ".help"
    for _, name in ipairs {"hosts", "on SET", "local", "sh CMD", "stats", "jobs", "top",
      "load FILE", "time EXPR", "doc NAME", "diff", "quit"} do
      s:sees("%." .. name)
    end
    s:press "C-l"
    s:enter ".time (function() return 1, {2} end)()"
    s:sees "%d%.?%d* us %(.- of CPU here%)\n1%s+{2}\n>$"
    s:enter ".doc server.submit"
    s:sees "\n  Submit a job: a call of a function in a worker"
    s:enter ".doc string.rep"
    s:ends "string.rep is Lua's own: https://www.lua.org/manual/5.4/manual.html#pdf-string.rep\n>"
    s:enter ".doc no_such_thing"
    s:ends "nothing is known of 'no_such_thing'\n>"
    s:enter ".jobs"
    s:ends "no job is unfinished\n>"
    s:enter ".sh echo started; sleep 100"
    s:sees "\nstarted$"
    s:press "C-c"
    s:ends "^Cinterrupted!\n>"
    local gate = child.gate()
    s:enter "server = pp.Server(1)"
    s:enter(("a = server:submit{function(p) io.open(p):close() end, args = {'%s'}, name = 'one'}")
      :format(gate.path))
    s:enter "b = server:submit{type, args = {1}, group = 'g'}"
    assert.is_truthy(run.poll(function()
      s:press "C-l"
      s:enter ".jobs"
      return s:text():find("job  state    at%s+for\n  0  running  local/1 .- s  one\n"
        .. "  1  queued .- s  group g\n>")
    end))
    gate:open()
    s:enter "server:wait()"
    s:enter ".stats"
    s:sees "Job execution statistics:"
    s:enter ".load /nonexistent"
    s:sees "\ncannot open /nonexistent"
    s:enter ".quit"
    assert.is_truthy(run.poll(function() return s:text():find "no server running" end))
  end)

  it("stands bytes that are no UTF-8", function()
    open()
    s:tmux("send-keys", "-H", "78", "ff", "fe", "27", "c3")
    s:press "Enter"
    s:sees "stdin:1: "
    s:enter "{'\\xff\\xfe', '\\u{e9}'}"
    s:ends '{"\\xff\\xfe", "é"}\n>'
  end)

  it("does without readline, and without a terminal", function()
    local r = run.ppsh({"-i"}, {stdin = ".help\n{1, x = 2}\n.time 1\nerror 'no'\nx = {\n1}\n#x\n"})
    assert.are.equal(0, r.status)
    assert.matches("\n%.quit .-\n> {1, x = 2}\n> .- CPU here%)\n1\n> > >> > 1\n> \n$", r.out)
    assert.matches("^stdin:4: no\n", r.err)
    if child.sanitized() then return end -- its library must be the first
    local hidden = run.file ""
    open {env = {LD_PRELOAD = run.ppsh_path:match "^(.*)/" .. "/librefuse.so",
      PPSH_REFUSE_READLINE = hidden}}
    s:enter "1, {2}"
    s:ends "1       {2}\n>"
    s:enter "s = pp.Server(1) s:submit(print, {'out'})"
    s:sees "\nout\n.*%-%- job 0 done.-\n>$"
    s:type "while"
    s:press "C-c"
    s:enter "3"
    s:ends "3\n>"
    s:press "C-d"
    assert.is_truthy(run.poll(function() return s:text():find "no server running" end))
  end)
end)
