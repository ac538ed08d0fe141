-- SPDX-License-Identifier: MIT
--- `@SET expr`: what is evaluated on the hosts of a set, and what is seen of it.
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"

local prelude = [[
  local console, session = require "pp.shell.console", require "pp.shell.session"
  local function at(set, source)
    local ok, wrong = console.eval(set, source)
    if ok == nil then io.stderr:write(wrong, "\n") end
    return ok
  end
  local function mark(text) io.stdout:write(text, "\n") io.stdout:flush() end
]]

describe("@local", function()
  teardown(child.clean)

  -- What a script says to stdout and to stderr, run where there are no hosts.
  local function said(text, options)
    local r = child.run(prelude .. text, options)
    assert.are.equal(0, r.status, r.err)
    return r.out, r.err
  end

  it("evaluates expressions and statements in an interpreter whose globals stay", function()
    local out, err = said [[
      at("all", "x = 41")
      at("local", "x + 1, nil, 'text', 1.0")
      at("all", "function f(a) return a, a + x end")
      at("all", "f(1)")
      at("all", "for i = 1, 2 do y = i end")
      at("all", "y")
      at("all", "pp.job.node, pp.job.id")
      print(x, f, y)
    ]]
    assert.are.equal("", err)
    assert.are.equal(
      "local: 42\tnil\ttext\t1.0\nlocal: 1\t42\nlocal: 2\nlocal: local\tnil\nnil\tnil\tnil\n", out)
  end)

  it("has globals that jobs do not see, and sees none of theirs", function()
    local out = said [[
      local s = session.server()
      at("all", "secret = 1")
      s:everywhere(function() base = 2 end)
      print(s:submit(function() return secret end)())
      at("all", "base")
    ]]
    assert.are.equal("nil\nlocal: nil\n", out)
  end)

  it("marks what is written with the host, line by line", function()
    local out, err = said [[
      at("all", "print 'one\\ntwo' io.write 'end' io.stderr:write 'oops'")
      at("all", "os.execute 'echo from a child'")
    ]]
    assert.are.equal("local: one\nlocal: two\nlocal: end\nlocal: from a child\n"
      .. "local: true\texit\t0\n", out)
    assert.are.equal("local: oops\n", err)
  end)

  it("shows errors with their traceback, and no more of it than the user's part", function()
    local out, err = said [[
      print(at("all", "error 'boom'"))
      at("all", "\nlocal function f() error({}) end f()")
      at("all", "error(setmetatable({}, {__tostring = function() return 'spoke' end}))")
      at("all", "x x")
      at("all", "local function f(n) return n == 0 and error 'low' or 1 + f(n - 1) end f(90)")
    ]]
    assert.are.equal("false\n", out)
    assert.are.equal([[
local: stdin:1: boom
stack traceback:
	[C]: in function 'error'
	stdin:1: in main chunk
local: (error object is a table value)
stack traceback:
	[C]: in function 'error'
	stdin:2: in local 'f'
	stdin:2: in main chunk
local: spoke
stack traceback:
	[C]: in function 'error'
	stdin:1: in main chunk
stdin:1: syntax error near 'x'
]], err:match "^(.*)local: stdin:1: low")
    assert.matches("%.%.%.\t%(skipping", err)
    assert.matches("in main chunk\n$", err)
  end)

  it("shows what cannot travel as its own side does, without an error", function()
    local out, err = said [[
      at("all", "print, io.stdout, coroutine.create(print), {f = print, io.stdout}")
      at("all", "setmetatable({}, {__tostring = function() return 'T' end})")
      at("all", "setmetatable({}, {__tostring = function() error 'no' end})")
    ]]
    assert.are.equal("", err)
    assert.matches("^local: function: builtin: 0x%x+\tfile %(0x%x+%)\tthread: 0x%x+\t"
      .. "{file %(0x%x+%), f = function: builtin: 0x%x+}\nlocal: T\nlocal: <error in __tostring:",
      (out:gsub("function: 0x", "function: builtin: 0x")))
  end)

  it("shows tables with cycles, and what is nested as deep as memory goes", function()
    local out = said [[
      at("all", "(function() local t = {1} t.t = t return t end)()")
      at("all", "local t = {} for i = 1, 1000000 do t = {t} end return t")
    ]]
    assert.are.equal("local: {1, t = <this table>}\n"
      .. "local: (a table nested too deeply to be sent)\n", out)
  end)

  it("goes on when the host's own functions are taken away there, or replaced here", function()
    local out, err = said [[
      string.here = print
      at("all", "tostring, print, error, type, string, table, debug, load, next = nil")
      at("all", "{1, 'x'}")
      at("all", "a.b.c")
      _G = {}
      at("all", "string, pp ~= nil, _G ~= nil")
    ]]
    assert.are.equal("local: {1, \"x\"}\nlocal: nil\ttrue\ttrue\n", out)
    assert.matches("attempt to index a nil value %(global 'a'%)", err)
  end)

  it("finds modules as the script does", function()
    local dir = run.directory()
    local f = assert(io.open(dir .. "/ours.lua", "w"))
    f:write "return {name = 'ours'}"
    f:close()
    assert.are.equal("local: ours\n", (said(([[
      package.path = %q .. "/?.lua"
      at("all", "require 'ours'.name")
    ]]):format(dir))))
  end)

  it("loses its globals, and no more, when its interpreter ends", function()
    local out, err = said [[
      at("all", "x = 1")
      print(at("all", "os.exit(3)"))
      at("all", "x")
      at("all", "x = 2")
      at("all", "os.execute('kill -9 ' .. io.open '/proc/self/stat':read 'n')")
      at("all", "x")
    ]]
    assert.are.equal("false\nlocal: nil\nlocal: nil\n", out)
    assert.are.equal("local: its interpreter exited with status 3: its globals are gone\n"
      .. "local: its interpreter was killed by signal 9 (Killed): its globals are gone\n", err)
  end)

  it("says so when the interpreter was lost in between", function()
    local path = run.directory() .. "/pid"
    local out, err = said(([[
      at("all", "x = 1 io.open('%s', 'w'):write(io.open '/proc/self/stat':read 'n'):close()")
      os.execute "kill -9 $(cat %s)"
      at("all", "x")
    ]]):format(path, path))
    assert.are.equal("local: nil\n", out)
    assert.are.equal("local: a new interpreter: the globals it had are gone\n", err)
  end)

  it("stops what takes longer than the time set, and keeps the globals if it can", function()
    local out, err = said [[
      print(console.limit(), console.limit(0.3), console.limit())
      at("all", "x = 1")
      print(at("all", "while true do end"))
      at("all", "x")
      at("all", "os.execute 'sleep 60'")
      at("all", "x")
      print(pcall(console.limit, -1))
    ]]
    assert.are.equal("60\t60\t0.3\nfalse\nlocal: 1\nlocal: nil\n", (out:gsub("false\tbad.*", "")))
    assert.are.equal("local: no answer within 0.3 s (stopped)\n"
      .. "local: no answer within 0.3 s (had to be killed: its globals are gone)\n", err)
  end)

  it("shows what is written while it runs, and ends with Ctrl-C", function()
    local p = child.start(prelude .. [[
      at("all", "x = 1")
      print(at("all", "print 'begun' while true do end"))
      at("all", "x")
      at("all", "print 'again' os.execute 'sleep 60'")
      at("all", "x")
      mark "done"
    ]])
    p:expect "local: begun\n"
    p:kill "INT"
    p:expect "false\nlocal: 1\n"
    p:expect "local: again\n"
    p:kill "INT"
    p:expect "local: nil\ndone\n"
    local r = child.finish(p)
    assert.are.equal(0, r.status)
    assert.are.equal("local: did not finish (stopped)\n"
      .. "local: did not finish (had to be killed: its globals are gone)\n", r.err)
    assert.are.same({}, child.left(r.tag))
  end)

  it("shows in no statistics, warning or exit status, and costs nothing before", function()
    local r = child.run(prelude .. [[
      local function children()
        local f = io.popen "ps -o pid= --ppid $PPID"
        local n = select(2, f:read "a":gsub("\n", "\n"))
        f:close()
        return n
      end
      local before = children()
      require "pp.shell.session".nodes "all"
      print(children() - before)
      at("all", "error 'x'")
      at("all", "os.exit(1)")
      local s = pp.Server(1)
      s:submit(function() end)()
      print(s:get_stats()["local"].njobs, s:pending())
    ]], {options = {"--stats", "-e", "pp = require 'pp'"}})
    assert.are.equal(0, r.status)
    assert.are.equal("0\n1\t0\n", r.out)
    local _, tables = r.err:gsub("Job execution statistics", "")
    assert.are.equal(1, tables)
    assert.is_nil(r.err:find("nobody asked", 1, true))
    assert.is_nil(r.err:find("unfinished", 1, true))
  end)

  it("runs callbacks of jobs meanwhile, whatever they raise", function()
    local out, err = said [[
      local s = session.server()
      s:submit{function() return 7 end, callback = function(v) print("called", v) end}
      s:submit{function() return 7 end, callback = function(v) error "bad call" end}
      while s:pending() > 0 do end
      at("all", "1")
    ]]
    assert.are.equal("called\t7\nlocal: 1\n", out)
    assert.matches("^callback: .*bad call\n$", err)
  end)

  it("completes names of the interpreter, calling nothing of it", function()
    local out = said [[
      at("all", "here_only = {inner = {deep = 1, deeper = 2}, [1] = 2}")
      at("all", "trap = setmetatable({}, {__index = function() while true do end end})")
      local function show(text) print(table.concat(console.complete("all", text), " ")) end
      show "print(here_o"
      show "here_only.inner.d"
      show "io.stdout:se"
      show "trap.x"
      show "trap.x.y"
      show "nothing."
      show "os.tm"
      print(#console.complete("all", ""), #console.complete("nowhere", "x"))
    ]]
    assert.are.equal("here_only\nhere_only.inner.deep here_only.inner.deeper\n"
      .. "io.stdout:seek io.stdout:setvbuf\n\n\n\nos.tmpname\n", out:match "^(.*\n)%d+\t0\n$")
  end)
end)

describe("@SET", function()
  if remote.missing() then
    pending(remote.missing(), function() end)
    return
  end
  local net

  setup(function()
    net = remote.new()
    for i = 1, 3 do net:sshd("node" .. i, {env = {WHICH = "w" .. i}}) end
  end)
  teardown(function() net:close() end)

  local function start(text, options)
    return net:start(prelude .. text, options or {options = {"-j1", "-H", "node[1-3]/2"}})
  end
  local function said(text, options)
    local r = child.finish(start(text, options))
    assert.are.equal(0, r.status, r.err)
    return r.out, r.err
  end

  it("folds what is the same and shows the rest apart", function()
    local out, err = said [[
      at("all", "_VERSION")
      at("all", "n = tonumber(pp.job.node:match '%d')")
      at("all", "n < 3")
      at("node[1-3]!node2", "n")
      at("node2,local", "n")
      at("all", "{n = n > 1, list = {1, 2, {x = 'y'}}}")
      at("all", "(function() local t = {} t.t = t t[1] = {up = t} return t end)()")
      at("all", "print, {print}")
      at("all", "os.getenv 'WHICH'")
      at("all", "n, 'x'")
    ]]
    assert.are.equal("", err)
    assert.matches("^" .. [[
node%[1%-3%]: Lua 5%.4
node%[1%-2%]: true
node3: false
node1: 1
node3: 3
node2: 2
local: nil
node%[2%-3%]: {list = {1, 2, {x = "y"}}, n = true}
node1: {list = {1, 2, {x = "y"}}, n = false}
node%[1%-3%]: {{up = <cycle: 2 up>}, t = <this table>}
node%[1%-3%]: function: [^\n]*0x[^\n]*	{function: [^\n]*}
node1: w1
node2: w2
node3: w3
node1: 1	x
node2: 2	x
node3: 3	x
$]], out)
  end)

  it("folds what is written, and errors that mean the same", function()
    local out, err = said [[
      at("all", "n = pp.job.node:match '%d' print('hello', n < '3') io.stderr:write 'careful'")
      at("all", "error('no table: 0x' .. ('5'):rep(11) .. n)")
      at("all", "local f = assert(io.open(os.getenv 'XDG_CACHE_HOME' .. '/nothing'))")
      at("all", "error('on ' .. pp.job.node, 0)")
    ]]
    assert.are.equal("node[1-2]: hello\ttrue\nnode3: hello\tfalse\n", out)
    local lines = {}
    for line in err:gmatch "[^\n]+" do
      if line:find "^node" then lines[#lines + 1] = line end
    end
    assert.are.equal("node[1-3]: careful", lines[1])
    assert.are.equal("node[1-3]: stdin:1: no table: 0x...", lines[2])
    assert.are.equal("node[1-3]: on HOST", lines[#lines])
  end)

  it("says how answers differ", function()
    local out, err = said [[
      console.diff()
      at("all", "1")
      console.diff()
      at("all", "n = tonumber(pp.job.node:match '%d')")
      at("all", "{a = {b = n // 3, c = 1}, list = {1, n == 3 and 5 or 2, 3}," ..
        "[n == 3 and 'more'] = 1}")
      console.diff()
      at("all", "('line\\n'):rep(5) .. (n == 3 and 'other' or 'last') .. '\\nend'")
      console.diff()
    ]]
    assert.are.equal("there are no answers to compare\n", err)
    assert.matches("all the same", out)
    assert.matches([[
%-%-%- node%[1%-2%]
%+%+%+ node3
%- a%.b = 0
%+ a%.b = 1
%- list%[2%] = 2
%+ list%[2%] = 5
%+ more = 1
%- %[false%] = 1
]], out)
    assert.matches([[
%-%-%- node%[1%-2%]
%+%+%+ node3
@ line 6
%- last
%+ other
$]], out)
  end)

  it("has one interpreter on each host, on the connection there is", function()
    local out = said [[
      local s = session.server()
      s:wait_hosts()
      at("all", "x = (x or 0) + 1")
      at("all", "x = (x or 0) + 1 return x")
      print(s:get_stats().node1.ncpus, s:get_stats().node1.njobs)
      print(s:submit{function() return x end, on = "node1"}())
    ]]
    assert.are.equal("node[1-3]: 2\n2\t0\nnil\n", out)
    assert.are.equal(3, select(2, (net.lab:log "node1" .. net.lab:log "node2"
      .. net.lab:log "node3"):gsub("Accepted publickey", "")) // 4)
  end)

  it("names those that do not answer in time, and keeps what can be kept", function()
    local out, err = said [[
      at("all", "n = pp.job.node:match '%d'")
      console.limit(0.5)
      at("all", "if n == '1' then while true do end end " ..
        "if n == '2' then os.execute 'sleep 99' end return 'ok'")
      console.limit(0)
      at("all", "n")
    ]]
    assert.are.equal("node3: ok\nnode1: 1\nnode2: nil\nnode3: 3\n", out)
    assert.are.equal("node1: no answer within 0.5 s (stopped)\n"
      .. "node2: no answer within 0.5 s (had to be killed: its globals are gone)\n", err)
  end)

  it("ends with Ctrl-C everywhere, and says who did not finish", function()
    local p = start [[
      at("all", "n = pp.job.node:match '%d'")
      at("all", "if n ~= '3' then print('busy') while true do end end return 'early'")
      at("all", "n")
      mark "done"
    ]]
    p:expect("node[1-2]: busy\n", true)
    p:kill "INT"
    p:expect("node3: early\nnode1: 1\nnode2: 2\nnode3: 3\ndone\n", true)
    local r = child.finish(p)
    assert.are.equal(0, r.status)
    assert.are.equal("node[1-2]: did not finish (stopped)\n", r.err)
    assert.are.same({}, net:left "node1")
  end)

  it("names a host that dies meanwhile, and says that its globals are gone", function()
    local p = start [[
      at("all", "n = pp.job.node:match '%d'")
      mark "go"
      at("all", "if n == '2' then print 'here' while true do end end return n")
      mark "back"
      session.server():wait_hosts()
      console.limit(20)
      at("all", "n")
    ]]
    p:expect "go\n"
    p:expect "node2: here\n"
    net.lab:drop "node2"
    p:expect "node1: 1\nnode3: 3\n"
    p:expect "back\n"
    p:expect "node1: 1\nnode2: nil\nnode3: 3\n"
    local r = child.finish(p)
    assert.are.equal(0, r.status)
    assert.matches("node2: host 'node2' was lost %(.-%): its globals are gone\n", r.err)
  end)

  it("says why a host cannot be asked, and goes on with the others", function()
    local out, err = said([[
      print(at("node[1,9]", "1"))
      session.remove "node1"
      at("all", "2")
      print(at("node1", "3"))
      session.add "node1"
      at("all", "4")
    ]], {options = {"-j0", "--log", "error", "-H", "node[1-2],node9:1"}})
    assert.matches("nil\n", out)
    assert.matches("node2: 2\n", out, 1, true)
    assert.matches("node[1-2]: 4\n", out, 1, true)
    assert.matches("there is no host 'node9' here", err, 1, true)
    assert.matches("node9:1: ", err, 1, true)
    assert.matches("there is no host 'node1' here", err, 1, true)
  end)

  it("completes as a host has it", function()
    local out = said [[
      at("node2", "only_there = {}")
      print(table.concat(console.complete("node2", "x = only_t"), " "))
      print(#console.complete("node9", "only_t"))
    ]]
    assert.are.equal("only_there\n0\n", out)
  end)
end)
