-- SPDX-License-Identifier: MIT
-- The live table of hosts and workers, through a terminal.
local describe, it, assert, teardown = describe, it, assert, teardown
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local drawn = require "spec.support.drawn"
local show = require "pp.shell.show"
local top = require "pp.shell.top"

teardown(run.cleanup)

-- A ppsh at a terminal of that size; `after` is what sh does then.
local function at_terminal(args, options)
  local o = options or {}
  local words = {}
  for i, word in ipairs(args) do words[i] = run.quote(word) end
  local command = ("stty cols %d rows %d; %s %s %s %s"):format(o.columns or 100, o.rows or 24,
    o.after and "" or "exec", run.quote(run.ppsh_path), table.concat(words, " "),
    o.after and "; " .. o.after or "")
  local env = {TERM = "xterm", NO_COLOR = false}
  for k, v in pairs(o.env or {}) do env[k] = v end
  return run.start({"sh", "-c", command}, {pty = true, env = env})
end

local work = [[
  local pp = require "pp"
  local server = pp.Server(2)
  local function grind(s)
    local t = require "pp".time() + s
    while require "pp".time() < t do end
  end
]]

-- Jobs that run until the spec says so, and the script's wait for them.
local function held(gate, text)
  return run.file(work .. ([[
    local function hold(path) io.open(path):close() end
    for i = 1, 2 do
      server:submit{hold, args = {%q}, name = i == 1 and "first \27[31m\255 one" or nil}
    end
    for i = 1, 3 do server:spawn(grind, 0.001) end
    print "begun"
    %s
    server:wait()
    print "over"
  ]]):format(gate.path, text or ""))
end

describe("--top", function()
  it("shows hosts and workers, and what these run, while jobs run", function()
    local gate = child.gate()
    local p = at_terminal {"--top", held(gate)}
    p:expect "hold script.lua:7"
    p:expect "ppsh %d+%.%ds, 0 of 5 done, 2 running, 3 queued"
    p:expect "hold script.lua:7"
    gate:open()
    local r = p:wait()
    local lines, seen = drawn.show(r.out, 100)
    assert.are.same({"begun", "over"}, lines)
    local text = table.concat(seen, "\n")
    assert.matches("HOST +JOBS +RATE +CPU +MEM +FOR RUNNING", text)
    assert.matches("\nlocal +%d+ .-2 of 2 busy", text)
    assert.matches("\n  [12] +0 [^\n]*#0 first %?%[31m%? one script.lua:7", text)
    assert.matches("\n  [12] +0 [^\n]*%d%.%ds #1 hold script.lua:7", text)
    assert.matches("[%d.]+M ", text)
  end)

  it("makes way for what is written, and is gone at every ending", function()
    for name, ending in pairs {
      ["the end"] = "", ["os.exit"] = "os.exit(3)", ["an error"] = "error 'no'",
      SIGTERM = "io.popen('kill ' .. io.open '/proc/self/stat':read 'n'):close() pp.sleep(30)",
    } do
      local p = at_terminal {"--top", run.file(work .. [[
        for i = 1, 8 do server:spawn(function(k) print("job " .. k) end, i) end
        for i = 1, 12 do server:spawn(grind, 0.1) end
        pp.sleep(0.35)
        print "script"
        io.stderr:write "error\n"
        pp.sleep(0.3)
      ]] .. ending)}
      local lines, seen = drawn.show(p:wait().out, 100)
      assert.matches("RUNNING", table.concat(seen, "\n"), name)
      local count = {}
      for _, line in ipairs(lines) do
        local kind = line:match "^job %d$" and "job" or line
        count[kind] = (count[kind] or 0) + 1
        assert.is_nil(line:find "busy", name)
      end
      assert.are.equal(8, count.job, name)
      assert.are.equal(1, count.script, name)
      assert.are.equal(1, count.error, name)
    end
  end)

  it("is not there where stderr is no terminal", function()
    local r = child.run(work .. "server:spawn(grind, 0.3)() print 'done'", {options = {"--top"}})
    assert.are.equal("", r.err)
    assert.are.equal("done\n", r.out)
    assert.are.equal(0, r.status)
  end)

  it("fits a terminal of 20 columns and 7 lines", function()
    local gate = child.gate()
    local p = at_terminal({"--top", held(gate)}, {columns = 20, rows = 7})
    p:expect "hold"
    gate:open()
    local lines, _, widest = drawn.show(p:wait().out, 20)
    assert.are.same({"begun", "over"}, lines)
    assert.is_true(widest <= 19)
  end)

  it("goes on when the terminal changes its size", function()
    local gate = child.gate()
    local p = at_terminal({"--top", held(gate, [[
      pp.sleep(0.4)
      os.execute "stty cols 40 rows 10 </dev/tty"
      pp.sleep(0.4)
      print "resized"
      pp.sleep(0.4)
    ]])})
    p:expect "resized"
    p:expect "hold"
    local narrow = p:out():match "resized(.*)"
    gate:open()
    p:wait()
    local _, _, widest = drawn.show(narrow, 40)
    assert.is_true(widest <= 39)
  end)

  it("uses no colour with NO_COLOR, and no escapes on a dumb terminal", function()
    local gate = child.gate()
    local p = at_terminal({"--top", held(gate)}, {env = {NO_COLOR = "1"}})
    p:expect "hold script.lua:7"
    gate:open()
    assert.is_nil(p:wait().out:find "\27%[%d*m")
    gate = child.gate()
    p = at_terminal({"--top", held(gate)}, {env = {TERM = "dumb"}})
    p:expect "0 of 5 done, 0 failed, 2 running"
    gate:open()
    assert.is_nil(p:wait().out:find "\27")
  end)

  it("is drawn also while the script computes", function()
    local p = at_terminal {"--top", run.file(work .. [[
      for i = 1, 2 do server:spawn(grind, 1.2) end
      local t = pp.time()
      while pp.time() - t < 1 do for i = 1, 10000 do end end
      print "computed"
      server:wait()
    ]])}
    p:expect "computed"
    local _, seen = drawn.show(p:out(), 100)
    assert.matches("grind script.lua:3", table.concat(seen, "\n"))
    p:wait()
  end)
end)

describe(".top", function()
  local script = work .. [[
    for i = 1, 2 do server:spawn(require "pp".sleep, 0.6) end
    print(select("#", require "pp.shell.top".run()))
    print "left"
  ]]

  -- The terminal's modes, before and after.
  local function modes(out)
    local list = {}
    for s in out:gmatch "modes ([^\r\n]*)" do list[#list + 1] = s end
    return list
  end

  it("shows the table until a key is pressed, also when nothing runs any more", function()
    local p = at_terminal({run.file(script)}, {after = "echo modes $(stty -g)"})
    p:expect "2 of 2 busy"
    p:expect "0 of 2 busy"
    p:write "q"
    p:expect "left"
    local lines = drawn.show((p:wait().out:gsub("modes.*", "")), 100)
    assert.are.same({"0", "left"}, lines)
  end)

  it("is left by Ctrl-C, which does no more than that", function()
    local p = at_terminal {run.file(script)}
    p:expect "2 of 2 busy"
    p:write "\3"
    p:expect "left"
    assert.are.equal(0, p:wait().status)
  end)

  it("leaves the terminal as it was, however it ends", function()
    for _, how in ipairs {"key", "TERM"} do
      local file = run.file([[
        io.open(arg[1], 'w'):write(io.open '/proc/self/stat':read 'n'):close()
      ]] .. script)
      local pid_file = run.directory() .. "/pid"
      local p = run.start({"sh", "-c", ("stty cols 100 rows 24; echo modes $(stty -g); %s %s %s; "
        .. "echo modes $(stty -g)"):format(run.quote(run.ppsh_path), file, pid_file)},
        {pty = true, env = {TERM = "xterm"}})
      p:expect "of 2 busy"
      if how == "key" then
        p:write "x"
      else
        child.kill(how, tonumber(run.read(pid_file)))
      end
      p:expect "modes [^\r\n]*\r\n"
      local list = modes(p:wait().out)
      assert.are.equal(2, #list)
      assert.are.equal(list[1], list[2], how)
    end
  end)

  it("says so where there is no terminal", function()
    local r = child.run("require 'pp.shell.top'.run() print 'on'")
    assert.are.equal("the table needs a terminal that it can draw on\n", r.err)
    assert.are.equal("on\n", r.out)
  end)
end)

describe("the table's layout", function()
  local function snapshot(nodes, workers)
    local s = {now = 10, elapsed = 5, done = 3, failed = 1, total = 100, queued = 90,
      running = 6, nodes = {}}
    for n = 1, nodes do
      local node = {name = "node" .. n .. "\255\27[1m€", ncpus = workers, njobs = 123456789,
        failed = n % 2, state = n == 2 and "lost" or "connected", reason = n == 2 and "why\nnot",
        here = false, workers = {}}
      for w = 1, workers do
        node.workers[w] = {number = w, pid = 0, njobs = 12, cpu = 3, memory = 123456789,
          state = w % 3 == 0 and "idle" or "busy",
          job = w % 3 ~= 0 and {id = 7, name = "\0name \xff 漢字 " .. ("x"):rep(100), func = "f",
            place = "/a/b.lua:1", items = w, since = w * 1000} or nil}
      end
      s.nodes[n] = node
    end
    return s
  end

  it("fits whatever size the terminal has", function()
    for _, nodes in ipairs {0, 1, 3, 20} do
      for _, width in ipairs {1, 2, 5, 10, 19, 20, 33, 50, 79, 120, 300} do
        for _, height in ipairs {1, 2, 3, 4, 7, 23, 60} do
          local lines, columns = top.compose(snapshot(nodes, 5), width, height, false)
          assert.is_true(#lines <= height and #lines == #columns)
          for i, line in ipairs(lines) do
            assert.is_true(show.width(line) <= width, line)
            assert.are.equal(show.width(line), columns[i])
            assert.is_nil(line:find "[%c\127]")
            assert.is_truthy(utf8.len(line))
          end
        end
      end
    end
  end)

  it("shows hosts first, then what runs longest, and counts the rest", function()
    local lines = top.compose(snapshot(2, 8), 100, 10, false)
    assert.are.equal(10, #lines)
    assert.matches("^ppsh 5.0s, 3 of 100 done, 1 failed, 6 running, 90 queued", lines[1])
    local text = table.concat(lines, "\n")
    assert.matches("node1", text)
    assert.matches("lost: why%?not", text)
    assert.matches("  8 ", text)
    assert.not_matches("\n  1 ", text)
    assert.matches("and 11 more workers$", text)
  end)
end)
