-- SPDX-License-Identifier: MIT
-- Servers with hosts: what holds of jobs here holds of jobs there.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("a server with hosts", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net
  setup(function()
    net = remote.new()
    net:sshd "h1"
    if not remote.no_delay() then net:netns("far", 15000) end
    net:sshd("h2", {env = {TZ = "ABC-5:30DEF,M3.2.0/2,M11.1.0/4:20:10"}})
  end)
  teardown(function() net:close() end)

  --- Run a script with a server `s` of host h1 by this transport; options as of
  -- Net:run, and `server`, options of pp.Server as text.
  local function with(transport, text, options)
    local head = ("local pp = require 'pp'\nlocal s = pp.Server{ncpus = 0, hosts = 'h1/2', "
      .. "transport = '%s', %s}\n"):format(transport, options and options.server or "")
    local r = net:run(head .. text, options)
    assert.is_nil(r.late, r.err)
    return r
  end

  --- The same, of a script that leaves nothing on stderr and succeeds: what it
  -- printed.
  local function prints(transport, text, options)
    local r = with(transport, text, options)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
    return r.out
  end

  for _, transport in ipairs {"libssh2", "ssh"} do
    describe("by " .. transport, function()
      it("runs jobs there, and says where", function()
        assert.are.equal("42\th1\ttrue\nh1\tdone\t1\ttrue\n", prints(transport, [[
          local function double(x) return 2 * x end
          local j = s:submit(function(x)
            return double(x), pp.job.node, pp.job.worker == 1 or pp.job.worker == 2
          end, {21})
          print(j())
          print(j.node, j.status, j.attempts, j.worker == 1 or j.worker == 2)
        ]]))
      end)

      it("brings errors with the submitter's lines", function()
        local r = with(transport, [[
          local function inner() error({code = 7}) end
          local ok, e = s:submit(function() inner() end):pcall()
          print(ok, e.kind, e.value.code, e.node, e.worker >= 1)
          ok, e = s:submit(function() error "no" end):pcall()
          print(e.message)
          print(e.traceback)
        ]])
        assert.matches("^false\terror\t7\th1\ttrue\n", r.out)
        assert.matches(r.script:gsub("%p", "%%%0") .. ":6: no\n", r.out)
        assert.matches("stack traceback:\n.*" .. r.script:gsub("%p", "%%%0") .. ":6:", r.out)
      end)

      it("passes output on, whole and in order, before a job returns", function()
        local r = with(transport, [[
          local jobs = {}
          for i = 1, 40 do
            jobs[i] = s:submit(function(k)
              for n = 1, 50 do print(k, n, ("x"):rep(k * 10)) end
              io.stderr:write("err ", k, "\n")
              os.execute("echo child " .. k)
              io.write("last ", k)
            end, {i})
          end
          for i = 1, 40 do jobs[i]() print("returned", i) end
        ]])
        local next_line, children, last = {}, {}, {}
        for line in r.out:gmatch "[^\n]*\n" do
          local k, n, x = line:match "^(%d+)\t(%d+)\t(x+)\n$"
          local child = tonumber(line:match "^child (%d+)\n$")
          local final = tonumber(line:match "^last (%d+)\n$")
          local returned = tonumber(line:match "^returned\t(%d+)\n$")
          if k then
            k, n = tonumber(k), tonumber(n)
            assert.are.equal((next_line[k] or 0) + 1, n)
            assert.are.equal(k * 10, #x)
            next_line[k] = n
          elseif child then
            assert.are.equal(50, next_line[child])
            children[child] = true
          elseif final then
            assert.is_true(children[final])
            last[final] = true
          else
            assert.is_true(last[returned], line)
          end
        end
        local errors = {}
        for k in r.err:gmatch "err (%d+)\n" do errors[#errors + 1] = tonumber(k) end
        table.sort(errors)
        assert.are.equal(40, #errors)
        assert.are.equal(40, errors[40])
      end)

      it("collects, marks or drops output", function()
        assert.are.equal("out\n\terr\n\n", prints(transport, [[
          local j = s:submit(function() print "out" io.stderr:write "err\n" end)
          j()
          print(j.output .. "\t" .. j.errors)
        ]], {server = "output = 'job'"}))
        assert.are.equal("", prints(transport, [[
          s:submit(function() print "out" io.stderr:write "err\n" end)()
        ]], {server = "output = 'none'"}))
        assert.matches("^%[h1/[12]%] out\n$", prints(transport, [[
          s:submit(function() print "out" end)()
        ]], {server = "output = 'prefix'"}))
      end)

      it("has nested jobs, dependencies, callbacks, map and imap", function()
        assert.are.equal("21\n3\n\tcall\t9\tnil\n338350\n1:1 2:4 3:9 \nh1\n", prints(transport, [[
          local function fib(n)
            if n < 3 then return 1 end
            local here = require "pp".Server()
            local a, b = here:submit(fib, {n - 1}), here:submit(fib, {n - 2})
            return a() + b()
          end
          print(s:submit(fib, {8})())
          local a = s:submit(function() return 1 end)
          local b = s:submit(function(x) return x + 1 end, {a})
          print(s:submit(function(x, y) return x + y end, {a, b})())
          local j = s:submit(function() return 9 end, {}, nil, nil,
            function(word, r, e) print("", word, r, e) end, {"call"})
          s:wait()
          local list = s:map(function(x) return x * x end, pp.range(1, 100))
          local sum = 0
          for i = 1, list.n do sum = sum + list[i] end
          print(sum)
          for i, r in s:imap(function(x) return x * x end, pp.range(1, 3)) do
            io.write(i, ":", r, " ")
          end
          print()
          print(s:submit(function()
            local k = require "pp".Server():submit(function() return 1 end)
            k()
            return k.node
          end)())
        ]]))
      end)

      it("sends modules on demand, and what is put once", function()
        local dir = run.directory()
        local f = io.open(dir .. "/spec_faraway.lua", "w")
        f:write "return {answer = function() return 42 end}\n"
        f:close()
        assert.are.equal("42\n42\nfalse\n2097152\t2097152\t2097152\ntrue\n", prints(transport, ([[
          package.path = "%s/?.lua;" .. package.path
          print(s:submit(function() return require "spec_faraway".answer() end)())
          local m = require "spec_faraway"
          print(s:submit(function() return m.answer() end)())
          print((s:submit(function() return require "spec_nowhere" end):pcall()))
          local before = s:get_stats().h1.sent
          local p = s:put(("x"):rep(2 << 20))
          local a, b, c = s:submit(function(v) pp.sleep(0.1) return #v end, {p}),
            s:submit(function(v) pp.sleep(0.1) return #v end, {p}),
            s:submit(function(v) return #v end, {p})
          print(a(), b(), c())
          print(true)
        ]]):format(dir)))
      end)

      it("tells jobs that hosts are not theirs to change", function()
        local no = ":4: which hosts there are is not for a job to change\n"
        assert.are.equal("true\n" .. no .. no, (prints(transport, [[
          local function change(name)
            require "pp".Server()[name](require "pp".Server(), "h2")
          end
          print(s:submit(function() return require "pp".Server():wait_hosts() end)())
          for _, name in ipairs {"add_host", "remove_host"} do
            print(select(2, s:submit(change, {name}):pcall()).message)
          end
        ]]):gsub("[^\n]*(:%d+: which)", "%1")))
      end)

      it("sends modules, not files by their paths", function()
        local dir = run.directory()
        os.execute("mkdir " .. dir .. "/sub")
        local f = io.open(dir .. "/sub/spec_own.lua", "w")
        f:write "return 'own'\n"
        f:close()
        assert.are.equal("own\tfalse\tfalse\tfalse\n", prints(transport, ([[
          package.path = "?;?.lua;%s/?.lua"
          local function has(name)
            return s:submit(function() return (pcall(require, name)) end)()
          end
          print(s:submit(function() return (require "sub.spec_own") end)(), has "%s/sub/spec_own",
            has "sub/spec_own", has(("%s/sub/spec_own"):gsub("/", ".")))
        ]]):format(dir, dir, dir)))
      end)

      it("sends a module once to a host, and anew when its file has changed", function()
        local dir = run.directory()
        local random = {}
        for i = 1, 300000 do random[i] = string.char(math.random(128, 255)) end
        random = table.concat(random)
        local f = io.open(dir .. "/spec_large.lua", "w")
        f:write("local m = {version = 1}\n--[==[", random, "]==]\nreturn m\n")
        f:close()
        local r = with(transport, ([[
          package.path = "%s/?.lua;" .. package.path
          local function version()
            local v, key = require "spec_large".version, pp.job.worker
            pp.sleep(0.1)
            return v, key
          end
          local function kill() os.execute "kill -9 $PPID" end
          s:everywhere(function() end)
          -- Both at once, then workers that come later.
          local a, b = s:submit(version), s:submit(version)
          print(a(), b(), select(2, a()) ~= select(2, b()))
          for i = 1, 4 do s:submit{kill, retries = 0}:pcall() end
          a, b = s:submit(version), s:submit(version)
          print(a(), (b()))
          os.remove "%s/spec_large.lua"
          local f = io.open("%s/spec_large.lua", "w")
          f:write "local m = {version = 2}\nreturn m -- as large as need be to be worth keeping"
          f:close()
          for i = 1, 4 do s:submit{kill, retries = 0}:pcall() end
          a, b = s:submit(version), s:submit(version)
          print(a(), (b()))
        ]]):format(dir, dir, dir), {options = {"--log", "debug"}})
        assert.are.equal("1\t1\ttrue\n1\t1\n2\t2\n", r.out)
        local sent = tonumber(r.err:match "host 'h1': (%d+) bytes went there")
        assert.is_true(sent > 262500 and sent < 500000, sent)
      end)

      it("ends jobs when told to, and by timeout", function()
        local expected = "timeout\ntrue\tcancelled\ntrue\tcancelled\n8\ntrue\n"
        assert.are.equal(expected, prints(transport, [[
          local ok, e = s:submit{function() while true do end end, timeout = 0.2}:pcall()
          print(e.kind)
          local jobs = {}
          local function nap(k) pp.sleep(k < 3 and 1000 or 0) end
          for i = 1, 10 do jobs[i] = s:submit(nap, {i}) end
          while jobs[1].status ~= "running" or jobs[2].status ~= "running" do pp.sleep(0.01) end
          print(jobs[1]:cancel(), select(2, jobs[1]:pcall()).kind)
          print(jobs[2]:cancel(), select(2, jobs[2]:pcall()).kind)
          local done = 0
          for i = 3, 10 do jobs[i]() done = done + 1 end
          print(done)
          local block = {}
          for i = 1, 12 do block[i] = s:submit(function() pp.sleep(1000) end) end
          while block[1].status ~= "running" do pp.sleep(0.01) end
          local n = s:cancel_all()
          print(n >= 8 and n <= 11)
          for i = 1, 12 do block[i]:cancel() end
        ]]))
      end)

      it("calls everywhere, also in workers that come later", function()
        assert.are.equal("h1/1 h1/2 \n42\nlost\n42\n", prints(transport, [[
          local list = s:everywhere(function() X = 42 end)
          table.sort(list, function(a, b) return a.worker < b.worker end)
          for _, e in ipairs(list) do io.write(e.node, "/", e.worker, " ") end
          print()
          print(s:submit(function() return X end)())
          local ok, e = s:submit{function() os.execute "kill -9 $PPID" end, retries = 0}:pcall()
          print(e.kind)
          for i = 1, 4 do assert(s:submit(function() return X end)() == 42) end
          print(s:submit(function() return X end)())
        ]]))
      end)

      it("gives jobs their seeds wherever they run", function()
        assert.are.equal("true\n", prints(transport, [[
          local function draw() return math.random(1 << 40) end
          local here = pp.Server{ncpus = 1, hosts = {}, seed = 5}
          local same = true
          for i = 1, 5 do same = same and here:submit(draw)() == s:submit(draw)() end
          print(same)
        ]], {server = "seed = 5"}))
      end)

      it("brings values back exactly, large and small", function()
        assert.are.equal("true\ttrue\ttrue\ttrue\n", prints(transport, [[
          local function id(...) return ... end
          local cycle = {} cycle[1] = cycle
          local c = s:submit(id, {cycle})()
          local big = ("0123456789abcdef"):rep(1 << 19)
          local small = s:submit(id, {{1, nil, 2.5, -0.0, math.mininteger}})()
          print(c[1] == c, s:submit(id, {big})() == big, small[5] == math.mininteger,
            1 / small[4] < 0)
        ]]))
      end)
    end)
  end

  it("gives large results of hosts to jobs here and there, and errors", function()
    local r = net:run([=[
      local pp = require "pp"
      local s = pp.Server(1, "h1/2")
      assert(s:wait_hosts(20))
      local function make(n)
        local t = {}
        for i = 1, n do t[i] = i * 1.5 end
        return {t, ("0123456789"):rep(n)}
      end
      local function look(m) return #m[1], m[1][#m[1]], #m[2], m[2]:sub(-3) end
      local made = s:submit{function(n) return make(n) end, args = {600000}, on = "h1"}
      local jobs = {}
      for i, where in ipairs{"local", "h1", "local", "h1"} do
        jobs[i] = s:submit{look, args = {made}, on = where}
      end
      for _, j in ipairs(jobs) do j:wait() print(j.node, j()) end
      print(look(made()))
      -- Several at once, of sizes on both sides of what goes in one piece.
      for i = 1, 24 do
        jobs[i] = s:submit{function(n) return ("x"):rep(n), n end, args = {i * 300001}, on = "h1"}
      end
      local all = 0
      for i = 1, 24 do
        local got, n = jobs[i]()
        assert(#got == n and got == ("x"):rep(n))
        all = all + n
      end
      print(all)
      local ok, e = s:submit{function() error(("y"):rep(5 << 20), 0) end, on = "h1"}:pcall()
      print(ok, #e.message)
    ]=])
    assert.are.equal("", r.err)
    local line = "600000\t900000.0\t6000000\t789\n"
    assert.are.equal("local\t" .. line .. "h1\t" .. line .. "local\t" .. line .. "h1\t" .. line
      .. line .. "90000300\nfalse\t5242880\n", r.out)
  end)

  it("gives large strings to hosts and takes them back, as often as they are asked for", function()
    local r = net:run([[
      local pp = require "pp"
      local s = pp.Server(0, "h1/2")
      assert(s:wait_hosts(20))
      local function echo(x) return x end
      local function swap(x, y) return y, x end
      for _, n in ipairs{(1 << 21) - 71, (1 << 21) - 1, 1 << 21, (1 << 21) + 25, 5000001} do
        local x = ("abcdefg"):rep(n // 7 + 1):sub(1, n)
        local first, both = s:submit(echo, {x}), s:submit(swap, {x, n})
        local given, alone = s:submit(echo, {first}), s:submit(echo, {x})
        assert(first() == x and first() == x and given() == x)
        local a, b = both()
        assert(a == n and b == x)
        assert(alone() == x and s:submit(echo, {alone})() == x and alone() == x)
        local ok, e = s:submit(function(what) error(what, 0) end, {x}):pcall()
        assert(not ok and e.message == x)
        for i = 1, 3 do
          local job = s:submit(echo, {x})
          pp.sleep(0.003 * i)
          job:cancel()
        end
        collectgarbage()
      end
      print "same"
    ]])
    assert.are.equal("", r.err)
    assert.are.equal("same\n", r.out)
  end)

  it("takes large results side by side, and lets go what is lost on the way #tsan", function()
    local r = net:run([[
      local pp = require "pp"
      local n = 24 << 20
      local function fill(c) return c:rep(n) end
      local function lose(s, how)
        local jobs = {}
        for i = 1, 2 do jobs[i] = s:submit{fill, args = {tostring(i)}, retries = 0} end
        while jobs[1].status == "queued" do pp.sleep(0.001) end
        pp.sleep(0.02) -- some of it is here, or not yet: anything goes
        how(jobs)
        for i = 1, 2 do
          local ok, e = jobs[i]:pcall()
          assert(ok and #e == n or not ok)
        end
      end
      for round = 1, 3 do
        local s = pp.Server(0, "h1/2")
        assert(s:wait_hosts(20))
        local a, b = s:submit(fill, {"a"}), s:submit(fill, {"b"})
        assert(a() == ("a"):rep(n) and b() == ("b"):rep(n))
        lose(s, function(jobs) jobs[1]:cancel() end)
        lose(s, function() s:destroy() end)
      end
      local s = pp.Server(0, "h1/2")
      local jobs = {s:submit(fill, {"a"}), s:submit(fill, {"b"})}
      while jobs[1].status == "queued" do pp.sleep(0.001) end
      pp.sleep(0.02)
      print "same"
      os.exit(0)
    ]], {options = {"--log", "error"}})
    assert.are.equal("", r.err)
    assert.are.equal("same\n", r.out)
    assert.are.equal(0, r.status)
  end)

  describe("and its hosts", function()
    it("are nodes by the names they were given", function()
      local r = net:run([[
        local pp = require "pp"
        local s = pp.Server(1, "h1/2, h2/3")
        print(pp.time() and s:wait_hosts(20))
        local n = s:get_active_nodes()
        print(n["local"], n.h1, n.h2)
        local where = {}
        local jobs = {}
        for i = 1, 30 do jobs[i] = s:submit(function() pp.sleep(0.05) end) end
        s:wait()
        for _, j in ipairs(jobs) do where[j.node] = true end
        print(where["local"], where.h1, where.h2)
        local t = s:get_stats()
        print(t.h1.state, t.h2.state, t.h1.ncpus, t.h2.ncpus, t.h1.njobs + t.h2.njobs +
          t["local"].njobs)
        s:print_stats()
      ]])
      assert.are.equal("", r.err)
      assert.matches("^true\n1\t2\t3\ntrue\ttrue\ttrue\nconnected\tconnected\t2\t3\t30\n", r.out)
      assert.matches(" | h1\n", r.out, 1, true)
      assert.matches(" | h2\n", r.out, 1, true)
      assert.matches("0 active tasks, 6 cores\n", r.out, 1, true)
    end)

    it("count and tell the time as this machine does", function()
      local r = net:run([[
        local pp = require "pp"
        local function figures()
          local list = {}
          for i = 1, 200 do
            local x = i / 201
            for _, v in ipairs {math.sin(x), math.cos(x * 1000), math.tan(x), math.asin(x),
              math.acos(x), math.atan(x, 2), math.exp(x * 10), math.log(x), math.log(x, 10),
              math.sqrt(x), x ^ 1.7, math.fmod(i, x), tonumber(tostring(x)),
              tonumber("0x1.8p" .. i), #("%.14g"):format(x)} do
              list[#list + 1] = v
            end
          end
          return list
        end
        local function clock()
          return os.date("%c %z %Z", 1700000000), os.date("%c %z %Z", 1690000000),
            os.time{year = 2023, month = 11, day = 5, hour = 4, min = 20, sec = 9},
            ("abc"):upper(), (os.setlocale()), os.rename("/nowhere/a", "/nowhere/b")
        end
        local s = pp.Server{ncpus = 0, hosts = "h2/1"}
        local here, there = figures(), s:submit(figures)()
        for i = 1, #here do
          assert(math.abs(here[i] - there[i]) <= 1e-14 * math.abs(here[i]), i)
        end
        local a, b = table.pack(clock()), table.pack(s:submit(clock)())
        for i = 1, math.max(a.n, b.n) do
          assert(a[i] == b[i], tostring(a[i]) .. " " .. tostring(b[i]))
        end
        print(#here, a[1]:match "ABC$", a[2]:match "DEF$", a.n)
      ]], {env = {TZ = "ABC-5:30DEF,M3.2.0/2,M11.1.0/4:20:10"}})
      assert.are.equal("", r.err)
      assert.are.equal("3000\tABC\tDEF\t8\n", r.out)
    end)

    it("make files as who logs in there does", function()
      net:sshd("masked", {lines = {
        "ForceCommand umask 027; exec sh -c \"$SSH_ORIGINAL_COMMAND\""}})
      for _ = 1, 2 do -- the agent is sent, then it is there
        local r = net:run [[
          local pp = require "pp"
          local s = pp.Server{ncpus = 0, hosts = "masked/1"}
          print(s:submit(function()
            return io.popen "umask":read()
          end)())
        ]]
        assert.are.equal("", r.err)
        assert.are.equal("0027\n", r.out)
      end
    end)

    it("says that C modules need an installed agent", function()
      local dir = run.directory()
      os.execute("touch " .. dir .. "/spec_native.so")
      local r = net:run(([[
        local pp = require "pp"
        local s = pp.Server{ncpus = 0, hosts = "h2/1"}
        print(select(2, s:submit(function()
          package.cpath = "%s/?.so"
          require "spec_native"
        end):pcall()).message)
      ]]):format(dir))
      assert.matches("cannot load C modules %(agent = \"installed\" can%)", r.out)
    end)

    it("have as many items of a map as end while word of one travels there", function()
      local why = remote.no_delay()
      if why then return pending("needs a host far away: " .. why) end
      local r = net:run [[
        local pp = require "pp"
        local s = pp.Server{ncpus = 0, hosts = "far/1, h1/1"}
        local function same(x) return x end
        -- How many items were taken when the first result is there.
        local function ahead(where)
          local taken, first = 0, nil
          local function source()
            taken = taken + 1
            return taken <= 1000 and taken or nil
          end
          for _ in s:imap(same, source, {chunk = 1, ordered = false, on = where}) do
            first = first or taken
          end
          return first, taken
        end
        s:wait_hosts(20)
        local first, all = ahead "far"
        print(first > 50, first < 1000, all)
      ]]
      assert.are.equal("true\ttrue\t1001\n", r.out, r.err)
    end)

    it("are sent less when the way is long, and what is not made smaller as it is, and wait"
      .. " for no heartbeat then", function()
      local why = remote.no_delay()
      if why then return pending("needs a host far away: " .. why) end
      local r = net:run([[
        local pp = require "pp"
        local s = pp.Server{ncpus = 0, hosts = "far/2"}
        local function echo(...) return ... end
        local random, text = {}, {}
        for i = 1, 1 << 17 do random[i] = string.pack("I8", math.random(0)) end
        for i = 1, 200000 do text[i] = ("%d: as a text goes\n"):format(i) end
        random, text = table.concat(random), table.concat(text)
        for _ = 1, 25 do
          local small = {}
          for k = 1, 200 do small[k] = s:submit(echo, {k}) end
          local a, b, c = s:submit(echo, {text, random, text})()
          assert(a == text and b == random and c == text)
          for k = 1, 200 do assert(small[k]() == k) end
        end
        print(25 * 2 * #text, 25 * #random)
      ]], {options = {"--log", "debug"}, timeout = 20})
      local text, random = r.out:match "^(%d+)\t(%d+)\n$"
      assert.is_truthy(text, r.err)
      text, random = tonumber(text), tonumber(random)
      local sent, came = r.err:match "host 'far': (%d+) bytes went there, (%d+) came"
      for _, n in ipairs {tonumber(sent), tonumber(came)} do
        assert.is_true(n > random and n < random + text / 2 + 1000000, r.err)
      end
    end)

    it("are given on the command line, too", function()
      local r = net:run([[
        local pp = require "pp"
        local s = pp.Server()
        print(s:submit(function() return pp.job.node end)())
      ]], {options = {"-j", "0", "-H", "h1/1", "-H", "h2/1", "--stats"}})
      assert.matches("^h[12]\n$", r.out)
      assert.matches("1 |        100.00 | .* | h[12]\n", r.err)
      assert.matches("0 active tasks, [012] cores\n", r.err)
      assert.are.equal(0, r.status)
    end)

    it("take turns, and the worker that worked last has the next job", function()
      local r = net:run([[
        local pp = require "pp"
        local s = pp.Server{ncpus = 0, hosts = "h1/3,h2/3"}
        local function where() return pp.job.node .. "/" .. pp.job.worker end
        assert(s:wait_hosts(20))
        s:everywhere(where)
        local last, count, same = {}, {h1 = 0, h2 = 0}, true
        for i = 1, 24 do
          local at = s:submit(where)()
          local node = at:match "^%w+"
          same = same and (last[node] or at) == at
          last[node], count[node] = at, count[node] + 1
        end
        print(same, count.h1, count.h2)
      ]])
      assert.are.equal("true\t12\t12\n", r.out)
      assert.are.equal("", r.err)
    end)

    it("are shared by servers", function()
      local r = net:run([[
        local pp = require "pp"
        local a = pp.Server{ncpus = 0, hosts = "h1/2"}
        local b <close> = pp.Server{ncpus = 0, hosts = "h1/2"}
        local function node() return pp.job.node end
        print(a:submit(node)(), b:submit(node)())
        a:destroy()
        print(b:submit(node)())
      ]], {options = {"--log", "info"}})
      assert.are.equal("h1\th1\nh1\n", r.out)
      assert.are.equal(1, select(2, r.err:gsub("is connected by", "")))
    end)

    it("come and go while it runs", function()
      local r = net:run([[
        local pp = require "pp"
        local s = pp.Server(0, "h1/2")
        local function node() pp.sleep(0.2) return pp.job.node end
        print(s:submit(node)())
        s:add_host "h2/2"
        print(s:wait_hosts(20))
        local jobs = {}
        for i = 1, 12 do jobs[i] = s:submit(node) end
        while jobs[1].status ~= "running" do pp.sleep(0.01) end
        s:remove_host "h1"
        local count = {h1 = 0, h2 = 0}
        for i = 1, 12 do
          local at = jobs[i]()
          count[at] = count[at] + 1
          assert(jobs[i].attempts == 1)
        end
        print(count.h1 >= 1 and count.h1 <= 4, count.h1 + count.h2)
        pp.sleep(0.2)
        print(s:get_active_nodes().h1, s:get_stats().h1.state)
        print(s:submit(node)())
        s:remove_host "h2"
        print(select(2, s:submit(node):pcall()).kind)
        s:add_host "h1/1"
        print(s:submit(node)())
        print(pcall(function() s:remove_host "h9" end))
      ]])
      assert.are.equal("", r.err)
      assert.are.equal("h1\ntrue\ntrue\t12\nnil\tremoved\nh2\nconnect\nh1\n"
        .. "false\t" .. r.script
        .. ":25: bad argument #1 to 'remove_host' (the server has no host 'h9')\n", r.out)
    end)

    it("leave nobody to run jobs when all were removed and there are no workers here", function()
      local r = net:run [[
        local pp = require "pp"
        local s = pp.Server(1, "h1/1")
        local function node() return pp.job.node end
        s:wait_hosts(20)
        s:remove_host "h1"
        s:set_ncpus(0)
        print(select(2, s:submit(node):pcall()).kind)
        s:set_ncpus(1)
        print(s:submit(node)())
        s:set_ncpus(0)
        s:add_host "h1/1"
        print(s:submit(node)())
      ]]
      assert.are.equal("", r.err)
      assert.are.equal("connect\nlocal\nh1\n", r.out)
    end)

    it("are what they were named last", function()
      net.lab:alias("h3", "h1", {})
      local r = net:run [[
        local pp = require "pp"
        local s = pp.Server(0, "h1/2,nobody-here@h3/1")
        print(s:wait_hosts(20))
        s:add_host "h1/4"
        print(s:get_active_nodes().h1)
        s:add_host "h1"
        print(s:get_active_nodes().h1)
        s:add_host "h1/1"
        print(s:get_active_nodes().h1, s:submit{function() return pp.job.node end, on = "h1"}())
        local job = s:submit{pp.sleep, args = {0.3}, on = "h1"}
        while job.status ~= "running" do pp.sleep(0.01) end
        s:remove_host "h1"
        s:add_host "h1/3"
        print(s:get_active_nodes().h1, job())
        s:add_host(io.popen "id -un":read() .. "@h3/2")
        print(s:wait_hosts(20))
        print(s:get_active_nodes().h3)
      ]]
      assert.matches("^false\ttable: %S+\n4\n4\n1\th1\n3\ntrue\n2\n$", r.out)
      assert.matches("^[^\n]*'h3' cannot be used: authentication failed[^\n]*\n$", r.err)
    end)

    it("leave nothing there", function()
      for _, name in ipairs {"h1", "h2"} do assert.are.same({}, net:left(name)) end
    end)
  end)

  describe("that cannot be used", function()
    local reasons = {}
    setup(function()
      net.lab:alias("unresolved", "h1", {"HostName no-such-host.invalid"})
      net:sshd "deaf"
      net.lab:kill "deaf"
      net:sshd("stranger", {known = "no"})
      net.lab:alias("locked", "h1", {"IdentityFile " .. net.lab:path "user_unknown"})
      net:sshd("noexec", {lines = {"ForceCommand echo go away; exit 1"}})
      reasons = {
        unresolved = "resolve", deaf = "[Rr]efused", stranger = "[Hh]ost key",
        noexec = "go away",
      }
    end)

    for _, transport in ipairs {"libssh2", "ssh"} do
      it("says why, in one line, by " .. transport, function()
        local r = net:run(([[
          local pp = require "pp"
          local names = {"unresolved", "deaf", "stranger", "noexec"}
          local servers, jobs = {}, {}
          for _, name in ipairs(names) do
            servers[name] = pp.Server{ncpus = 0, hosts = name .. "/2", transport = "%s"}
            jobs[name] = servers[name]:submit(function() end)
          end
          for _, name in ipairs(names) do
            local s = servers[name]
            local ok, e = jobs[name]:pcall()
            print(name .. " job", ok, e.kind, e.message)
            local up, why = s:wait_hosts(30)
            print(name .. " wait", up, why[name])
            print(name .. " stats", s:get_stats()[name].state, s:get_stats()[name].reason)
            print(name .. " next", select(2, s:submit(function() end):pcall()).kind)
          end
        ]]):format(transport))
        local lines = {}
        for word, rest in r.out:gmatch "([^\t\n]+)\t([^\n]*)" do lines[word] = rest end
        for name, reason in pairs(reasons) do
          assert.matches("^false\tconnect\t.*" .. reason, lines[name .. " job"])
          assert.matches("^false\t.*" .. reason, lines[name .. " wait"])
          assert.matches("^%l+\t.*" .. reason, lines[name .. " stats"])
          assert.are.equal("connect", lines[name .. " next"])
          assert.matches("ppsh: warn[^\n]*: host '" .. name .. "' cannot be used: [^\n]*" .. reason
            .. "[^\n]*\n", r.err)
        end
        assert.are.equal(4, select(2, r.err:gsub("\n", "")), r.err)
      end)
    end

    it("leaves jobs to others", function()
      local r = net:run([[
        local pp = require "pp"
        local s = pp.Server{ncpus = 1, hosts = "stranger/2"}
        local n = 0
        for i, r in s:imap(function(x) return pp.job.node end, pp.range(1, 20)) do
          assert(r == "local")
          n = n + 1
        end
        print(n, s:wait_hosts(20))
      ]])
      assert.matches("^20\tfalse\t", r.out)
      assert.are.equal(0, r.status)
    end)

    it("names each when there are several", function()
      local r = net:run([[
        local pp = require "pp"
        local s = pp.Server{ncpus = 0, hosts = {"stranger", "noexec"}}
        local ok, e = s:submit(function() end):pcall()
        print(e.kind, e.message)
      ]])
      assert.matches("^connect\t[^\n]*'stranger': [^\n]*'noexec': [^\n]*\n$", r.out)
    end)
  end)
end)
