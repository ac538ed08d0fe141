-- SPDX-License-Identifier: MIT
-- The progress line.
local describe, it, assert, teardown = describe, it, assert, teardown
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"

-- What a terminal shows of a text in the end, line by line, without blanks at
-- their ends; and all that was ever seen on each line before it was erased.
local function screen(text)
  local lines, row, col, drawn = {{}}, 1, 1, {}
  local i = 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == "\r" then
      col = 1
    elseif c == "\n" then
      row = row + 1
      lines[row], col = lines[row] or {}, 1
    elseif text:sub(i, i + 2) == "\27[K" then
      drawn[#drawn + 1] = table.concat(lines[row])
      for k = #lines[row], col, -1 do lines[row][k] = nil end
      i = i + 2
    else
      lines[row][col], col = c, col + 1
    end
    i = i + 1
  end
  for k, line in ipairs(lines) do
    lines[k] = table.concat(line):gsub(" +$", "")
  end
  if lines[#lines] == "" then lines[#lines] = nil end
  return lines, drawn
end

-- Sleeps in the job, a line each now and then.
local work = [[
  local pp = require "pp"
  local server = pp.Server(tonumber(arg[1]))
  local function f(i)
    require "pp".sleep(0.03)
    if i % 8 == 0 then print("item " .. i) end
    if i % 11 == 0 then error "eleven" end
    return i
  end
]]

local function always(text, options)
  options = options or {"--progress=always"}
  return child.run(work .. text, {options = options, args = {"2"}, env = {TERM = "xterm"}})
end

teardown(run.cleanup)

describe("--progress", function()
  it("shows nothing where stderr is no terminal", function()
    local r = always("server:map(f, {1, 2, 3}, {progress = true})", {"--progress"})
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)

  it("shows a line there with =always, and erases it", function()
    local r = always [[
      local list = server:map(f, pp.range(1, 40), {on_error = "keep"})
      print("over", #list)
    ]]
    local lines, drawn = screen(r.err)
    assert.are.same({}, lines)
    assert.is_true(#drawn >= 2)
    local last
    for _, line in ipairs(drawn) do
      if line ~= "" then
        assert.matches("^%d+ of 40 done, %d failed, %d running, %d+[.%d]*/s", line)
        last = line
      end
    end
    assert.matches(", %d+:%d%d left$", last)
    local _, items = r.out:gsub("item %d+\n", "")
    assert.are.equal(5, items)
  end)

  it("redraws ten times a second at most", function()
    local r = always [[
      local t = pp.time()
      server:map(f, pp.range(1, 60), {on_error = "keep"})
      io.stdout:write(pp.time() - t)
    ]]
    local took = tonumber(r.out:match "[^\n]*$")
    local _, draws = r.err:gsub("done", "")
    assert.is_true(draws >= 1 and draws <= took * 10 + 2)
  end)

  it("counts single jobs, failed ones too, and goes on while the script is busy", function()
    local r = always [[
      local jobs = {}
      for i = 10, 50 do jobs[#jobs + 1] = server:spawn(f, i) end
      local t = pp.time()
      while pp.time() - t < 0.5 do end
      for _, job in ipairs(jobs) do job:pcall() end
    ]]
    local _, drawn = screen(r.err)
    local seen = {}
    for _, line in ipairs(drawn) do
      local failed = line:match "of 41 done, (%d+) failed"
      if failed then seen[#seen + 1] = tonumber(failed) end
    end
    assert.is_true(#seen > 1 and seen[#seen] >= 1)
  end)

  it("knows no end of an iterator without one", function()
    local r = always [[
      local n = 0
      for i in server:imap(f, function() n = n + 1 return n end) do
        if i == 10 then break end
      end
    ]]
    local _, drawn = screen(r.err)
    assert.matches("^%d+ done, 0 failed", drawn[#drawn > 1 and 2 or 1])
    for _, line in ipairs(drawn) do assert.not_matches("left", line) end
  end)

  it("never garbles what the script and jobs write to the same terminal", function()
    local process = run.start_ppsh({"--progress", run.file(work .. [[
      local jobs = {}
      for i = 1, 24 do jobs[i] = server:spawn(f, i) end
      for i = 1, 24 do
        if i ~= 11 and i ~= 22 then jobs[i]() end
        print("script " .. i)
        io.stderr:write("error ", i, "\n")
        if i % 6 == 0 then
          os.execute "echo child"
          local t = pp.time()
          while pp.time() - t < 0.15 do end
        end
      end
      jobs[11]:pcall()
      jobs[22]:pcall()
      for i = 1, 7 do jobs[i] = server:spawn(function() require "pp".sleep(0.1) end) end
      for i = 1, 2 do
        io.write "half "
        local t = pp.time()
        while pp.time() - t < 0.15 do end
        print "line"
        server:wait(0.05)
      end
      server:wait()
      print "end"
    ]]), "2"}, {pty = true, env = {TERM = "xterm"}})
    local r = process:wait()
    local lines, drawn = screen((r.out:gsub("\r\n", "\n")))
    assert.is_true(#drawn > 2)
    local count = {}
    for _, line in ipairs(lines) do
      local kind = line:match "^(%a+) %d+$" or line
      count[kind] = (count[kind] or 0) + 1
    end
    assert.are.same({script = 24, error = 24, item = 3, child = 4, ["half line"] = 2,
      ["end"] = 1}, count)
    assert.are.equal("end", lines[#lines])
  end)

  it("needs no escapes", function()
    local process = run.start_ppsh({"--progress", run.file(work .. [[
      server:map(f, pp.range(1, 10))
      print "end"
    ]]), "2"}, {pty = true, env = {TERM = "dumb"}})
    local r = process:wait()
    assert.matches("of 10 done", r.out)
    assert.not_matches("\27", r.out)
    assert.are.same({"item 8", "end"}, (screen((r.out:gsub("\r\n", "\n")))))
  end)

  it("is gone before errors are told", function()
    local r = always [[
      server:map(f, pp.range(1, 40))
    ]]
    assert.are.equal(1, r.status)
    local lines = screen(r.err)
    assert.matches("eleven", table.concat(lines, "\n"))
    for _, line in ipairs(lines) do assert.not_matches("running", line) end
  end)

  it("shows jobs of a server of no workers", function()
    local r = child.run(work .. [[
      server:map(f, pp.range(1, 10))
    ]], {options = {"--progress=always"}, args = {"0"}})
    assert.matches("of 10 done, 0 failed, %d running", r.err)
    assert.are.same({}, (screen(r.err)))
    assert.are.equal("item 8\n", r.out)
  end)

  it("leaves the prompt alone", function()
    local p = run.start_ppsh({"--progress", "-i"}, {pty = true,
      env = {TERM = "xterm", XDG_STATE_HOME = run.directory(), INPUTRC = "/dev/null"}})
    p:expect "> "
    p:write "server = pp.Server(1) f = function() require 'pp'.sleep(0.05) end\n"
    p:expect "f = .-> "
    p:write "for i = 1, 20 do server:spawn(f) end\n"
    p:expect "end.-> "
    p:write "1 +"
    p:expect "1 %+"
    p:write " 1\n"
    p:expect "2\r\n"
    p:expect "> "
    local quiet = p:out()
    assert.not_matches("running", quiet)
    p:write "server:wait()\n"
    p:expect "of 20 done, 0 failed, 1 running"
    p:expect "true\r\n"
    p:expect "> "
    p:write "\4"
    assert.are.equal(0, p:wait().status)
  end)
end)

describe("the option progress", function()
  local function calls(of_map, of_imap)
    return run.file(work .. ([[
      server:map(f, pp.range(1, 10), {progress = %s})
      for _ in server:imap(f, pp.range(1, 10), {progress = %s}) do end
      server:map(f, pp.range(1, 7))
      for i = 1, 5 do server:spawn(f, i) end
      server:wait()
    ]]):format(of_map, of_imap))
  end

  it("shows the line for its call at a terminal", function()
    local r = run.start_ppsh({calls("true", "true"), "2"},
      {pty = true, env = {TERM = "xterm"}}):wait()
    assert.matches("of 10 done", r.out)
    assert.not_matches("of 7 done", r.out)
    assert.not_matches("of %d*[25] done", r.out)
    assert.are.same({"item 8", "item 8"}, (screen((r.out:gsub("\r\n", "\n")))))
  end)

  it("shows nothing when it is false, or where there is no terminal", function()
    local r = run.start_ppsh({calls("false", "nil"), "2"},
      {pty = true, env = {TERM = "xterm"}}):wait()
    assert.are.equal("item 8\r\nitem 8\r\n", r.out)
    r = run.ppsh {calls("true", "true"), "2"}
    assert.are.equal("", r.err)
  end)

  it("is a boolean", function()
    local pp = require "pp"
    local server <close> = pp.Server(0)
    local ok, err = pcall(server.map, server, print, {}, {progress = 1})
    assert.is_false(ok)
    assert.matches("progress must be a boolean, got number", err)
  end)
end)

describe("pp.progress", function()
  it("waits for these jobs, with the line about them alone", function()
    local r = run.start_ppsh({run.file(work .. [[
      local mine, others = {}, {}
      for i = 1, 12 do
        mine[i] = server:spawn(f, i)
        others[i] = server:spawn(f, 1)
      end
      print("ended", pp.progress(mine))
      for i = 1, 12 do assert(mine[i].finished) end
      print("again", pp.progress(mine))
      mine[11]:pcall()
      server:wait()
    ]]), "2"}, {pty = true, env = {TERM = "xterm"}}):wait()
    assert.matches("%d+ of 12 done, %d failed, 2 running, %d", r.out)
    assert.not_matches("of 24", r.out)
    local lines = screen((r.out:gsub("\r\n", "\n")))
    assert.are.same({"item 8", "ended\t11\t1", "again\t11\t1"}, lines)
  end)

  it("only waits where there is no terminal", function()
    local r = child.run(work .. [[
      print(pp.progress {server:spawn(f, 1), server:spawn(f, 11)})
      print(pp.progress {})
      local here = pp.Server(0)
      print(pp.progress {here:spawn(f, 1), here:spawn(f, 2)})
      print(server:spawn(function()
        local pp = require "pp"
        return pp.progress {pp.Server():spawn(function() return 1 end)}
      end)())
    ]], {args = {"2"}})
    assert.are.equal("1\t1\n0\t0\n2\t0\n1\t0\n", r.out)
    assert.matches("failed and nobody asked: .*eleven", r.err)
  end)

  it("has nothing to wait for where there is no server yet", function()
    local r = run.ppsh {"-e", "print(pp.progress {})"}
    assert.same({0, "0\t0\n", ""}, {r.status, r.out, r.err})
  end)

  it("runs callbacks, raises what one raises, and can be called again then", function()
    local r = child.run(work .. [[
      local jobs = {}
      for i = 1, 3 do
        jobs[i] = server:submit{f, args = {i}, callback = function(v)
          if v == 2 then error("of the callback", 0) end
        end}
      end
      local ok, err = pcall(pp.progress, jobs)
      print(ok, err)
      print(pp.progress(jobs))
    ]], {args = {"2"}})
    assert.are.equal("false\tof the callback\n3\t0\n", r.out)
  end)

  it("takes a list of jobs and nothing else", function()
    local pp = require "pp"
    for _, bad in ipairs {
      {function() pp.progress() end, "jobs must be a list of jobs, got nil"},
      {function() pp.progress {1} end, "item 1 of jobs is no job but a number"},
      {function() pp.progress {io.stdout} end, "item 1 of jobs is no job but a userdata"},
    } do
      local ok, err = pcall(bad[1])
      assert.is_false(ok)
      assert.matches("progress_spec.lua:%d+: bad argument #1 to 'progress' %(" .. bad[2], err)
    end
  end)
end)

describe("the progress line", function()
  it("says what fits into a narrow terminal", function()
    for columns, form in pairs {[20] = "^%d+ of 40, %d+ failed$", [12] = "^%d+/40$",
      [6] = "^%d+/40", [34] = "^%d+ of 40 done, %d+ failed$"} do
      local script = run.file(work .. 'server:map(f, pp.range(1, 40), {on_error = "keep"})')
      local command = ("stty cols %d; exec %s --progress %s 2"):format(columns,
        run.quote(run.ppsh_path), script)
      local process = run.start({"sh", "-c", command}, {pty = true, env = {TERM = "xterm"}})
      local _, drawn = screen((process:wait().out:gsub("\r\n", "\n")))
      local fits = false
      for _, line in ipairs(drawn) do
        if not line:find "item" then
          assert.is_true(#line < columns, line)
          fits = fits or line:find(form) ~= nil
        end
      end
      assert.is_true(fits, columns .. ": " .. table.concat(drawn, "|"))
    end
  end)
end)
