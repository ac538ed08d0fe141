-- SPDX-License-Identifier: MIT
--- `@local expr`: the console of this machine, where there are no hosts.
local child = require "spec.support.child"
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

  it("takes lines that begin with =, nothing at all, and no jobs", function()
    local out, err = said [[
      at("all", "= 1, 2")
      at("all", " ")
      at("all", "pp.Server():submit(print)")
    ]]
    assert.are.equal("local: 1\t2\n", out)
    assert.matches("@SET, cannot submit jobs\nstack", err)
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
      at("all", "x = 1")
      print(console.limit(), console.limit(0.3), console.limit())
      print(at("all", "while true do end"))
      console.limit(0)
      at("all", "x")
      console.limit(0.3)
      at("all", "os.execute 'sleep 60'")
      console.limit(0)
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
    local trace = run.directory() .. "/trace.json"
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
    ]], {options = {"--stats", "--trace", trace, "-e", "pp = require 'pp'"}})
    assert.are.equal(0, r.status)
    assert.are.equal(1, select(2, run.read(trace):gsub('"cat":"job"', "")))
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
