-- SPDX-License-Identifier: MIT
local run = require "spec.support.run"

-- What both interpreters do, with their names taken out of the messages.
local function both(args, opts)
  local results = {}
  for i, path in ipairs {run.ppsh_path, run.lua_path} do
    local r = run.program(table.move(args, 1, #args, 2, {path}), opts)
    local name = path:gsub("%p", "%%%0")
    results[i] = {
      out = (r.out:gsub(name, "PROGRAM")), err = (r.err:gsub(name, "PROGRAM")),
      status = r.status, signal = r.signal,
    }
  end
  return results[1], results[2]
end

local function same(args, opts)
  local ours, theirs = both(args, opts)
  assert.are.same(theirs, ours)
  return ours
end

describe("ppsh", function()
  teardown(run.cleanup)

  describe("as lua(1)", function()
    it("runs statements in order", function()
      local r = same {"-e", "x = 1", "-eprint(x)", "-e", "print(x + 1)"}
      assert.are.equal("1\n2\n", r.out)
    end)

    it("runs a script with its arguments", function()
      local script = run.file [[print(#arg, ...) for i = -4, 4 do print(i, arg[i]) end]]
      same {script}
      same {script, "a", "b c", ""}
      same {"-e", "y = 2", "-W", "--", script, "-x", "--stats"}
      same {"-W", "-l", "string", script, "1"}
    end)

    it("runs stdin when it is no terminal", function()
      assert.are.equal("2\n", same({}, {stdin = "print(1 + 1)"}).out)
      same({"-"}, {stdin = "#!/usr/bin/lua\nprint(2, ...) print(arg[0])"})
      same({"-", "a", "b"}, {stdin = "print(...) print(arg[0], arg[-1])"})
      same({"-E"}, {stdin = "print(arg[0], arg[1], arg[-1])"})
      same({"-l", "string"}, {stdin = "print(1)"})
      same({"-e", "print(1)"}, {stdin = "print(2)"})
    end)

    it("takes -- then - as the name of a file", function()
      same({"--", "-"}, {cwd = run.directory(), stdin = "print(1)"})
    end)

    it("requires modules", function()
      local dir = run.directory()
      local f = io.open(dir .. "/mine.lua", "w")
      f:write "return {name = ..., n = 7}"
      f:close()
      local opts = {cwd = dir}
      same({"-l", "mine", "-e", "print(mine.name, mine.n)"}, opts)
      same({"-lmine", "-e", "print(mine.name, mine.n)"}, opts)
      same({"-l", "m=mine", "-e", "print(m.name, m.n, mine)"}, opts)
      local ours = both({"-l", "missing"}, opts)
      assert.are.equal(1, ours.status)
      assert.matches("^PROGRAM: module 'missing' not found:\n", ours.err)
    end)

    it("prints a message and traceback for an error", function()
      local script = run.file "local function f(x) error('no ' .. x) end\nf 'way'\n"
      local r = same {script}
      assert.are.equal(1, r.status)
      assert.matches("stack traceback:\n\t", r.err, 1, true)
      same {"-e", "error({})"}
      same {"-e", "error()"}
      same {"-e", "error(nil)"}
      same {"-e", "error('plain', 0)"}
      same {"-e", "error(setmetatable({}, {__tostring = function() return 'mine' end}))"}
      same {"-e", "error(setmetatable({}, {__tostring = function() return 1 end}))"}
      same {"-e", "local x = = 1"}
      same {"-e", "coroutine.wrap(function() error 'inside' end)()"}
      same {"/no/such/file.lua"}
    end)

    it("but ends with status 1 for an error in stdin", function()
      for _, text in ipairs {"x = = 1", "error 'no'", "error {}"} do
        local ours, theirs = both({}, {stdin = text})
        assert.are.equal(theirs.err, ours.err)
        assert.are.equal(1, ours.status)
      end
    end)

    it("ends by os.exit", function()
      same {"-e", "os.exit(3)"}
      same {"-e", "os.exit(true)"}
      same {"-e", "os.exit(false)"}
      same {"-e", "local c <close> = setmetatable({}, {__close = function() print 'closed' end})"
        .. " os.exit(4, true)"}
      same {"-e", "io.write 'unflushed' os.exit(0)"}
    end)

    it("closes the state at the end", function()
      same {"-e", "setmetatable({}, {__gc = function() print 'collected' end})"}
      same {"-e", "setmetatable({}, {__gc = function() print 'collected' end}) error 'x'"}
    end)

    it("shows warnings when told to", function()
      same {"-e", "warn('a', 'b')"}
      same {"-W", "-e", "warn('a', 'b') warn '@off' warn 'c' warn '@on' warn('@', 'd')"}
      same {"-e", "warn '@on' warn 'x'", "-W", "-e", "setmetatable({}, {__gc = error})"}
      same {"-W", "-e", "setmetatable({}, {__gc = function() error 'gone' end})"}
    end)

    it("reads the environment", function()
      local file = run.file "print 'from a file'"
      for _, env in ipairs {
        {LUA_INIT = "print 'init'"},
        {LUA_INIT = "print 'init'", LUA_INIT_5_4 = "print 'init 5.4'"},
        {LUA_INIT = "@" .. file},
        {LUA_INIT = "error 'bad'"},
        {LUA_INIT_5_4 = "x = = 1"},
        {LUA_INIT = "@/no/such/file"},
        {LUA_PATH = "/here/?.lua;;"},
        {LUA_CPATH_5_4 = "/here/?.so;;"},
      } do
        same({"-e", "print(package.path, package.cpath)"}, {env = env})
        same({"-E", "-e", "print(package.path, package.cpath)"}, {env = env})
      end
    end)

    it("shows Lua's version", function()
      same {"-v"}
      same {"-v", "-e", "print(1)"}
      same {"-v", run.file "print(2)"}
    end)

    it("collects as it does", function()
      same {"-e", "print(collectgarbage 'incremental')"}
    end)

    it("has the same coroutines", function()
      same {run.file([=[
        local co = coroutine.create(function(a, ...)
          print(a, select("#", ...), type(coroutine.running()), coroutine.isyieldable())
          print(coroutine.yield(1, nil, nil))
          error {}
        end)
        print(pcall(coroutine.resume))
        print(pcall(coroutine.resume, 1))
        print(pcall(coroutine.wrap, 1))
        print(select("#", coroutine.resume(co, 1, 2, nil)))
        print((coroutine.resume(co, 3)))
        print(coroutine.resume(co))
        print(coroutine.status(co))
        local f = coroutine.wrap(function() error "inside" end)
        print(pcall(f))
        print(pcall(f))
        local g = coroutine.wrap(function()
          local c <close> = setmetatable({}, {__close = function() print "closed" end})
          error("raised", 2)
        end)
        print(pcall(g))
        print(pcall(coroutine.wrap(function() local c <close> = setmetatable({},
          {__close = function() error "in close" end}) error "first" end)))
        print(select("#", coroutine.wrap(function() return table.unpack({}, 1, 200) end)()))
        print(coroutine.resume(coroutine.create(function(...) return ... end),
          table.unpack({}, 1, 3)))
        local self self = coroutine.create(function() return coroutine.resume(self) end)
        print(coroutine.resume(self))
      ]=])}
    end)
  end)

  it("loads C modules", function()
    local r = run.ppsh {"-e", "print(require 'lfs'.attributes('/', 'mode'))"}
    assert.are.equal("directory\n", r.out)
  end)

  it("has the library in it, under its real names", function()
    local r = run.ppsh({"-e", "assert(pp == require 'pp') local list = {}"
      .. " for _, f in pairs(pp) do if type(f) == 'function' then"
      .. " list[debug.getinfo(f, 'S').source] = true end end"
      .. " print(list['@pp/init.lua'])"}, {cwd = run.directory()})
    assert.are.same({"true\n", ""}, {r.out, r.err})
  end)

  it("makes pp a global under -e only", function()
    assert.are.equal("table\n", run.ppsh({"-e", "print(type(pp))"}).out)
    assert.are.equal("nil\n", run.ppsh({run.file "print(type(pp))"}).out)
    assert.are.equal("nil\n", run.ppsh({}, {stdin = "print(type(pp))"}).out)
    assert.are.equal("5\n", run.ppsh({"-e", "print(pp)"}, {env = {LUA_INIT = "pp = 5"}}).out)
  end)

  describe("options", function()
    local function usage(args, message)
      local r = run.ppsh(args)
      assert.are.equal("ppsh: " .. message .. "\nTry 'ppsh --help'.\n", r.err)
      assert.are.same({2, ""}, {r.status, r.out})
    end

    it("are refused with status 2 when unknown", function()
      usage({"-x"}, "unrecognized option '-x'")
      usage({"--nonsense"}, "unrecognized option '--nonsense'")
      usage({"--stats=1"}, "unrecognized option '--stats=1'")
      usage({"-vv"}, "unrecognized option '-vv'")
      usage({"-e"}, "'-e' needs argument")
      usage({"-e", "-v"}, "'-e' needs argument")
      usage({"-j"}, "'-j' needs argument")
      usage({"--trace"}, "'--trace' needs argument")
      usage({"--trace", "--stats"}, "'--trace' needs argument")
    end)

    it("are refused with status 2 when their value is bad", function()
      local want = " (a number of workers >= 0)"
      usage({"-j", "x"}, "bad value for -j: 'x'" .. want)
      usage({"-j", "-1"}, "bad value for -j: '-1'" .. want)
      usage({"-j1.5"}, "bad value for -j: '1.5'" .. want)
      usage({"-j", ""}, "bad value for -j: ''" .. want)
      usage({"--jobs="}, "bad value for --jobs: ''" .. want)
      usage({"--jobs=0x10"}, "bad value for --jobs: '0x10'" .. want)
      usage({"-j", "16001"}, "bad value for -j: '16001' (at most 16000 workers)")
      usage({"-j", ("9"):rep(40)},
        "bad value for -j: '" .. ("9"):rep(40) .. "' (at most 16000 workers)")
      usage({"--log", "loud"}, "bad value for --log: 'loud' (error, warn, info or debug)")
      usage({"--progress=never"}, "bad value for --progress: 'never' (always, or nothing)")
    end)

    it("may be mixed, and end at the script", function()
      local script = run.file "print(...)"
      for _, options in ipairs {
        {"-j2"}, {"-j", "2"}, {"--jobs", "2"}, {"--jobs=2"}, {"-j0", "--log=error"},
        {"-e", "x = 1", "-j1", "-W", "--log", "warn"}, {"--log", "info"},
        {"-j1", "--"},
      } do
        local n = #options
        options[n + 1], options[n + 2], options[n + 3] = script, "-j", "x"
        local r = run.ppsh(options)
        assert.are.same({"-j\tx\n", 0}, {r.out, r.status})
      end
    end)

    it("are listed by --help", function()
      local r = run.ppsh {"--help"}
      assert.are.same({0, ""}, {r.status, r.err})
      assert.matches("^usage: ppsh %[options%] %[script %[args%]%]\n", r.out)
    end)

    it("name the versions", function()
      local r = run.ppsh {"--version"}
      assert.are.same({0, ""}, {r.status, r.err})
      assert.matches("^ppsh %d+%.%d+%.%d+, Lua 5%.4%.%d+, libssh2 %S+, libuv %d+%.%d+%.%d+, "
        .. "wire protocol %d+, build %x+\n$", r.out)
    end)

    it("do not leave -H without effect silently", function()
      local r = run.ppsh {"-H", "example.invalid", "-e", "print(1)"}
      if r.status ~= 0 then
        assert.are.same({2, ""}, {r.status, r.out})
        assert.matches("^ppsh: .* not supported", r.err)
      end
    end)
  end)

  describe("signals", function()
    local spin = "io.write 'ready\\n' io.flush() while true do end"

    local function send(signal, script, opts)
      local p = run.start_ppsh({"-e", script}, opts)
      p:expect "ready\n"
      p:kill(signal)
      return p:wait(), p
    end

    it("raise Ctrl-C in the script", function()
      local r = send("INT", spin)
      assert.are.equal(130, r.status)
      assert.matches(": interrupted!\nstack traceback:\n", r.err, 1, true)
    end)

    it("raise Ctrl-C in a coroutine", function()
      local r = send("INT", "local function f() " .. spin .. " end"
        .. " coroutine.wrap(function() coroutine.wrap(f)() end)()")
      assert.are.equal(130, r.status)
      assert.matches("interrupted!", r.err, 1, true)
      r = send("INT", "io.write 'ready\\n' io.flush() while true do"
        .. " assert(coroutine.resume(coroutine.create(function() coroutine.yield() end))) end")
      assert.are.equal(130, r.status)
    end)

    it("end a read", function()
      local p = run.start_ppsh {"-e", "io.write 'ready\\n' io.flush() print(io.read()) print 'on'"}
      p:expect "ready\n"
      assert.is_truthy(run.poll(function() return run.state(p.pid) == "S" end))
      p:kill "INT"
      local r = p:wait()
      assert.are.equal(130, r.status)
      assert.are.equal("ready\n", r.out)
    end)

    it("end the reading of a script from stdin", function()
      local p = run.start_ppsh {}
      p:write "print(1)\n"
      assert.is_truthy(run.poll(function() return run.state(p.pid) == "S" end))
      p:kill "INT"
      assert.are.equal(130, p:wait().status)
    end)

    it("let a script catch Ctrl-C and go on", function()
      local r = send("INT", "print(pcall(function() " .. spin .. " end)) os.exit(5)")
      assert.are.equal(5, r.status)
      assert.matches("false\t.*interrupted!\n", r.out)
      r = send("INT", "print(pcall(function() " .. spin .. " end)) error 'another'")
      assert.are.equal(1, r.status)
      r = send("INT", "print(pcall(function() " .. spin .. " end))")
      assert.are.equal(0, r.status)
    end)

    it("end at once at the second Ctrl-C", function()
      local p = run.start_ppsh {"-e", "pcall(function() " .. spin .. " end) print 'caught' "
        .. "io.flush() while true do pcall(string.rep) end"}
      p:expect "ready\n"
      p:kill "INT"
      p:expect "caught\n"
      p:kill "INT"
      local r = p:wait()
      assert.are.same({130, ""}, {r.status, r.err})
    end)

    it("end the program with 128 + n", function()
      for name, number in pairs {TERM = 15, HUP = 1} do
        local r = send(name, spin)
        assert.are.same({128 + number, ""}, {r.status, r.err})
        r = send(name, "coroutine.wrap(function() " .. spin .. " end)()")
        assert.are.equal(128 + number, r.status)
        r = send(name, "while true do pcall(function() " .. spin .. " end) end")
        assert.are.equal(128 + number, r.status)
      end
    end)

    it("end a program that is stuck in C", function()
      local t = run.now()
      local r = send("TERM", "io.write 'ready\\n' io.flush() "
        .. "string.find(('a'):rep(1e6), ('.-'):rep(40) .. 'b')", {timeout = 20})
      assert.are.equal(143, r.status)
      assert.is_nil(r.late)
      assert.is_true(run.now() - t < 10 * run.slowness)
    end)

    it("write out what was printed before the end", function()
      local r = send("TERM", "io.stdout:setvbuf 'full' io.write 'ready\\n' io.flush() "
        .. "io.write 'and more' while true do end")
      assert.are.equal("ready\nand more", r.out)
    end)

    it("leave SIGHUP ignored under nohup", function()
      local p = run.start_ppsh({"-e", "io.write 'ready\\n' io.flush() "
        .. "for _ = 1, 1e7 do end print 'done'"}, {setup = "trap '' HUP"})
      p:expect "ready\n"
      p:kill "HUP"
      local r = p:wait()
      assert.are.same({0, "ready\ndone\n"}, {r.status, r.out})
    end)

    it("are not ignored in a shell's background job", function()
      local r = send("INT", spin, {setup = "trap '' INT"})
      assert.are.equal(130, r.status)
    end)

    it("end quietly when nobody reads", function()
      local r = run.program {"bash", "-c",
        '"$0" -e "while true do print(1) end" | head -n 1; echo ${PIPESTATUS[0]}', run.ppsh_path}
      assert.are.same({"1\n141\n", ""}, {r.out, r.err})
      r = run.program {"bash", "-c",
        '"$0" -e "io.stdout:setvbuf \'full\' io.write(1)" | true; echo ${PIPESTATUS[0]}',
        run.ppsh_path}
      assert.are.equal("", r.err)
    end)

    it("have their defaults in programs it starts", function()
      local command = "sh -c 'kill -s %s $$; echo alive'"
      for _, name in ipairs {"PIPE", "TERM", "HUP", "INT"} do
        local r = run.ppsh {"-e", ("print(io.popen(%q):read 'a')"):format(command:format(name))}
        assert.are.equal("\n", r.out)
      end
    end)
  end)

  describe("standard descriptors", function()
    it("say when stdout cannot be written", function()
      local r = run.ppsh({"-e", "print(1)"}, {stdout_file = "/dev/full"})
      assert.are.equal(1, r.status)
      assert.are.equal("ppsh: cannot write to stdout: No space left on device\n", r.err)
      r = run.ppsh({"-e", "io.write(1) os.exit(0)"}, {stdout_file = "/dev/full"})
      assert.are.equal(1, r.status)
      assert.are.equal("ppsh: cannot write to stdout: No space left on device\n", r.err)
      r = run.ppsh({"-e", "io.write(1) os.exit(7)"}, {stdout_file = "/dev/full"})
      assert.are.equal(7, r.status)
      r = run.ppsh({"--help"}, {stdout_file = "/dev/full"})
      assert.are.equal(1, r.status)
      r = run.ppsh({"-e", "x = 1"}, {stdout_file = "/dev/full"})
      assert.are.same({0, ""}, {r.status, r.err})
    end)

    it("say when nobody reads stdout and SIGPIPE is ignored, also when the script"
      .. " has asked first", function()
      local words = {run.quote(run.ppsh_path), "-e",
        run.quote "for _ = 1, 1e5 do if not io.write(('x'):rep(100)) then break end end"}
      local error = run.directory() .. "/error"
      os.execute(("(trap '' PIPE; %s 2>%s) | true"):format(table.concat(words, " "), error))
      assert.are.equal("ppsh: cannot write to stdout: Broken pipe\n", run.read(error))
    end)

    it("may be closed", function()
      local r = run.ppsh({"-e", "print(1)"}, {redirect = ">&-"})
      assert.are.equal(1, r.status)
      assert.are.equal("ppsh: cannot write to stdout: Bad file descriptor\n", r.err)
      local file = run.directory() .. "/data"
      r = run.ppsh({"-e", ("local f = io.open(%q, 'w') print(1) io.stderr:write(2) f:write 'mine'")
        :format(file)}, {redirect = "<&- >&- 2>&-"})
      assert.are.equal(1, r.status)
      assert.are.equal("mine", run.read(file))
      r = run.ppsh({"-e", "print(io.read())"}, {redirect = "<&-"})
      assert.are.equal(0, r.status)
      assert.matches("^nil\t", r.out)
    end)
  end)

  it("shows where an uncaught job error was asked for", function()
    local script = run.file [[
      local e = setmetatable({}, {__name = "pp.error", __tostring = function() return "remote" end})
      local function job() error(e) end
      job()
    ]]
    local r = run.ppsh {script}
    assert.are.equal(1, r.status)
    assert.matches(": remote\njob() was called here:\nstack traceback:\n", r.err, 1, true)
    assert.matches("script.lua:3: in main chunk", r.err, 1, true)
  end)
end)
