-- SPDX-License-Identifier: MIT
-- How ppsh ends: statuses, warnings, statistics, and nothing left behind.
local describe, it, assert, pending = describe, it, assert, pending
local after_each = after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"

--- What the kernel calls the program under test.
local program_name = run.ppsh_path:match("[^/]*$"):sub(1, 15) .. "\n"

--- A server with jobs running, waiting and with children of every kind below
-- them. Says "ready" when all are there. `ending` follows it.
local function busy(ending)
  return [[
    local pp = require "pp"
    local server = pp.Server(2)
    local function hold(dir, i)
      os.execute("sleep 1000 >/dev/null 2>&1 & setsid sleep 1001 >/dev/null 2>&1 &"
        .. "(setsid sh -c 'sleep 1002 & sleep 1003' >/dev/null 2>&1 &)")
      io.open(dir .. i, "w"):close()
      os.execute("sleep 1004")
    end
    local dir = os.tmpname()
    for i = 1, 2 do server:submit(hold, {dir, i}) end
    local later = server:submit(function() end)
    for i = 1, 2 do
      while not io.open(dir .. i) do pp.sleep(0.001) end
      os.remove(dir .. i)
    end
    os.remove(dir)
    print("ready")
    io.stdout:flush()
  ]] .. ending
end

--- Run such a script; act(process) when it is ready.
local function ending(text, options, act)
  local process = child.start(busy(text), options)
  process:expect("ready\n")
  if act then
    -- ppsh, two workers, and below each four `sleep` and a `sh` at the least
    assert.is_truthy(child.eventually(function()
      return #child.tagged(process.tag) >= 1 + 2 + 2 * 5
    end))
    act(process)
  end
  local r = child.finish(process)
  assert.is_nil(r.late)
  return r
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

--- Lines of text with this in them.
local function lines_with(text, what)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    if line:find(what, 1, true) then lines[#lines + 1] = line end
  end
  return lines
end

local function is_table(text)
  return text:find("Job execution statistics:\n job count | % of all jobs | "
    .. "job time sum | time per job | job server\n", 1, true) ~= nil
    and text:find("Time elapsed since server creation %d") ~= nil
end

after_each(child.clean)

-- It holds signals back until the next system call: a loop would never end.
local computing = child.sanitized "tsan"
  and function(name) pending(name .. " (not with the thread sanitizer)") end
  or it

describe("nothing is left behind", function()
  it("when the script ends", function()
    local r = ending("")
    assert.are.equal(0, r.status)
    assert.are.same({}, child.left(r.tag))
  end)

  it("when an error ends it", function()
    local r = ending("error('over')")
    assert.are.equal(1, r.status)
    assert.is_truthy(r.err:find("over", 1, true))
    assert.are.same({}, child.left(r.tag))
  end)

  it("when os.exit ends it, with and without closing the state", function()
    local r = ending("os.exit(7)")
    assert.are.equal(7, r.status)
    assert.are.same({}, child.left(r.tag))
    r = ending("os.exit(8, true)")
    assert.are.equal(8, r.status)
    assert.are.same({}, child.left(r.tag))
    r = ending("os.exit()")
    assert.are.equal(0, r.status)
    assert.are.same({}, child.left(r.tag))
  end)

  it("when its server is destroyed and it goes on", function()
    local process = child.start(busy([[
      server:destroy()
      print("destroyed")
      io.stdout:flush()
      io.read("l")
    ]]), {stdin = "\n"})
    process:expect("destroyed\n")
    local r = child.finish(process)
    assert.are.equal(0, r.status)
    assert.are.same({}, child.left(r.tag))
  end)

  for signal, status in pairs{INT = 130, TERM = 143, HUP = 129, KILL = 137} do
    it("after SIG" .. signal .. " while it waits", function()
      local r = ending("later()", nil, function(process) process:kill(signal) end)
      assert.are.equal(status, r.status)
      assert.are.same({}, child.left(r.tag))
    end)

    computing("after SIG" .. signal .. " while it computes", function()
      local r = ending("while true do end", nil, function(process)
        process:kill(signal)
      end)
      assert.are.equal(status, r.status)
      assert.are.same({}, child.left(r.tag))
    end)
  end

  it("after SIGINT to the whole group, as a terminal sends it", function()
    local r = ending("later()", nil, function(process)
      process:kill("INT", true)
    end)
    assert.are.equal(130, r.status)
    assert.are.same({}, child.left(r.tag))
    assert.are.equal(0, count(r.err, "lost"), r.err)
  end)

  it("after SIGKILL to the whole group", function()
    local r = ending("later()", nil, function(process)
      process:kill("KILL", true)
    end)
    assert.are.equal(137, r.status)
    assert.are.same({}, child.left(r.tag))
  end)

  it("after SIGKILL of everything that has its name", function()
    local r = ending("later()", nil, function(process)
      for _, pid in ipairs(child.tagged(process.tag)) do
        local comm = child.output_of(("cat /proc/%d/comm 2>/dev/null"):format(pid))
        if comm == program_name then child.kill("KILL", pid) end
      end
    end)
    assert.are.equal(137, r.status)
    assert.are.same({}, child.left(r.tag))
  end)
end)

describe("helper processes", function()
  it("carry other names than ppsh", function()
    local names = {}
    ending("later()", nil, function(process)
      for _, pid in ipairs(child.tagged(process.tag)) do
        local comm = child.output_of(("cat /proc/%d/comm 2>/dev/null"):format(pid))
        if pid ~= process.pid then names[comm] = true end
      end
      process:kill("TERM")
    end)
    assert.is_nil(names[program_name])
    assert.is_not_nil(next(names))
  end)
end)

describe("unfinished jobs", function()
  it("are dropped with one warning that says how many", function()
    local r = ending("")
    assert.are.equal(0, r.status)
    assert.are.equal(1, count(r.err, "\n"), r.err)
    assert.is_truthy(r.err:find("%f[%d]3%f[%D]"), r.err)
    assert.is_truthy(r.err:find("unfinished", 1, true), r.err)
  end)

  it("are so at an os.exit and after an error too", function()
    local r = ending("os.exit(0)")
    assert.are.equal(1, #lines_with(r.err, "unfinished"), r.err)
    r = ending("error('over')")
    assert.are.equal(1, #lines_with(r.err, "unfinished"), r.err)
  end)

  it("bring no warning when there are none", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      for i = 1, 10 do server:submit(function() end) end
      server:wait()
    ]])
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)

  it("bring no warning at the log level 'error'", function()
    local r = ending("", {options = {"--log", "error"}})
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)
end)

describe("a failed job", function()
  local function script(text)
    return [[
      local pp = require "pp"
      local server = pp.Server(1)
      local job = server:submit(function() error("unheard") end)
      server:wait()
    ]] .. text
  end

  it("that nobody asked about is reported once, and the status is 1",
    function()
      local r = child.run(script(""))
      assert.are.equal(1, r.status)
      assert.are.equal(1, #lines_with(r.err, "unheard"), r.err)
      assert.is_truthy(r.err:find(r.script .. ":3:", 1, true), r.err)
    end)

  it("whose handle was dropped is reported all the same", function()
    local r = child.run(script("job = nil collectgarbage() collectgarbage()"))
    assert.are.equal(1, r.status)
    assert.are.equal(1, #lines_with(r.err, "unheard"), r.err)
  end)

  it("is reported when os.exit(0) ends the script", function()
    local r = child.run(script("os.exit(0)"))
    assert.are.equal(1, #lines_with(r.err, "unheard"), r.err)
  end)

  it("that was asked about is not reported", function()
    for _, ask in ipairs{"job:pcall()", "pcall(job)"} do
      local r = child.run(script(ask))
      assert.are.equal("", r.err)
      assert.are.equal(0, r.status)
    end
  end)

  it("whose callback ran is not reported", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      server:submit{function() error("heard") end,
        callback = function(result, err) print(result, err.kind) end}
      server:wait()
    ]])
    assert.are.equal("nil\terror\n", r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)

  it("that ends the script is not reported again", function()
    local r = child.run(script("job()"))
    assert.are.equal(1, r.status)
    assert.are.equal(1, #lines_with(r.err, "unheard"), r.err)
  end)

  it("is one of several, each reported", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      for i = 1, 3 do
        server:submit(function() error("unheard " .. i) end)
      end
      server:wait()
    ]])
    assert.are.equal(1, r.status)
    for i = 1, 3 do
      assert.are.equal(1, #lines_with(r.err, "unheard " .. i), r.err)
    end
  end)
end)

describe("--stats", function()
  local options = {options = {"--stats"}}
  local endings = {
    ["the end of the script"] = {"", 0},
    ["an error"] = {"error('over')", 1},
    ["os.exit"] = {"os.exit(7)", 7},
    ["SIGINT"] = {"later()", 130, "INT"},
    ["SIGTERM"] = {"later()", 143, "TERM"},
    ["SIGHUP"] = {"later()", 129, "HUP"},
    ["SIGTERM in a loop"] = {"while true do end", 143, "TERM"},
  }
  for name, case in pairs(endings) do
    local when = name:find("loop") and computing or it
    when("prints the table on standard error at " .. name, function()
      local r = ending(case[1], options, case[3] and function(process)
        process:kill(case[3])
      end)
      assert.are.equal(case[2], r.status)
      assert.is_true(is_table(r.err), r.err)
      assert.are.equal(1, count(r.err, "Job execution statistics"))
      assert.are.equal("ready\n", r.out)
    end)
  end

  it("counts the jobs that were done", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      for i = 1, 12 do server:submit(function() end) end
      server:wait()
    ]], options)
    assert.is_truthy(r.err:find("\n        12 |        100.00 | ", 1, true), r.err)
    assert.is_truthy(r.err:find("\n0 active tasks, 2 cores\n", 1, true), r.err)
    assert.are.equal("", r.out)
  end)

  it("prints what a server that was destroyed had done", function()
    local r = child.run([[
      local pp = require "pp"
      do
        local server <close> = pp.Server(1)
        server:submit(function() end)()
      end
    ]], options)
    assert.is_truthy(r.err:find("\n         1 |        100.00 | ", 1, true), r.err)
  end)
end)

describe("Ctrl-C", function()
  it("is an error that the script may catch", function()
    local r = ending([[
      local ok, err = pcall(later)
      print(ok, tostring(err):match("interrupt") ~= nil)
      os.exit(5)
    ]], nil, function(process) process:kill("INT") end)
    assert.are.equal("ready\nfalse\ttrue\n", r.out)
    assert.are.equal(5, r.status)
  end)

  it("reaches every waiting call", function()
    for _, call in ipairs{"later()", "later:wait()", "later:pcall()",
      "server:wait()", "server:wait('none', 5)  pp.sleep(1000)"} do
      local r = ending(call .. " print('went on')", nil, function(process)
        process:kill("INT")
      end)
      assert.are.equal(130, r.status, call)
      assert.are.equal("ready\n", r.out, call)
      assert.are.same({}, child.left(r.tag))
    end
  end)

  it("leaves the server as it was", function()
    local r = ending([[
      pcall(later)
      server:set_ncpus(3)
      print(server:submit(function() return "still works" end)())
      os.exit(0)
    ]], nil, function(process) process:kill("INT") end)
    assert.are.equal("ready\nstill works\n", r.out)
    assert.are.equal(0, r.status)
  end)

  computing("a second time ends at once a script that goes on", function()
    local process = child.start(busy([[
      pcall(later)
      print("caught")
      io.stdout:flush()
      while true do pcall(function() while true do end end) end
    ]]), {options = {"--stats"}})
    process:expect("ready\n")
    process:kill("INT")
    process:expect("caught\n")
    process:kill("INT")
    local r = child.finish(process)
    assert.is_nil(r.late)
    assert.are.equal(130, r.status)
    assert.are.same({}, child.left(r.tag))
    assert.is_true(is_table(r.err), r.err)
  end)
end)

describe("what was printed", function()
  it("before the end is out, whatever the end", function()
    for _, case in ipairs{{"os.exit(0)", 0}, {"error('over')", 1}, {"", 0}} do
      local r = child.run([[
        local pp = require "pp"
        print("by the script")
        local server = pp.Server(1)
        server:submit(function() print("by the job") end)()
        io.write("unended")
      ]] .. case[1])
      assert.are.equal(case[2], r.status)
      assert.are.equal("by the script\nby the job\nunended", r.out)
    end
  end)
end)

-- Every ending with jobs in every state.
describe("with", function()
  local preamble = [[
    local pp = require "pp"
    local dir = arg[1]
    local server
    local function begin(i, f)
      print("begun")
      os.execute("sleep 1000 >/dev/null 2>&1 &")
      io.open(dir .. "/" .. i, "w"):close()
      return f(i)
    end
    local function spin() while true do end end
    local function done(i) return i end
    local function fail(i) error("unheard " .. i) end
    local function submit(f, from, to)
      for i = from, to do server:spawn(begin, i, f) end
    end
    local function begun(from, to)
      for i = from, to do
        while not io.open(dir .. "/" .. i) do pp.sleep(0.001) end
      end
    end
    local function ready()
      print("ready")
      io.stdout:flush()
    end
  ]]
  -- how many jobs are done (failed ones too), unfinished, begun by then
  local states = {
    ["running jobs"] = {"server = pp.Server(2) submit(spin, 1, 2) begun(1, 2)",
      done = 0, unfinished = 2, active = 2},
    ["queued jobs"] = {"server = pp.Server(1) submit(spin, 1, 4) begun(1, 1)",
      done = 0, unfinished = 4, active = 1},
    ["finished jobs nobody asked about"] = {
      "server = pp.Server(2) submit(done, 1, 3) server:wait()",
      done = 3, unfinished = 0, active = 0},
    ["failed jobs nobody asked about"] = {
      "server = pp.Server(2) submit(fail, 1, 2) server:wait()",
      done = 2, failed = 2, unfinished = 0, active = 0},
    ["jobs of all kinds"] = {
      "server = pp.Server(2) submit(fail, 1, 2) submit(done, 3, 5) server:wait()"
        .. "submit(spin, 6, 9) begun(6, 7)",
      done = 5, failed = 2, unfinished = 4, active = 2},
    ["failed jobs of a server that was destroyed"] = {
      "server = pp.Server(2) submit(fail, 1, 2) server:wait() server:destroy()",
      done = 2, failed = 2, unfinished = 0, active = 0},
  }
  -- what the script does when it is ready; its status; signals it gets then;
  -- what it says itself
  local endings = {
    ["the end of the script"] = {"", 0},
    ["an error"] = {"error('over')", 1, err = "^[^\n]*: over\nstack traceback:\n.*$"},
    ["an error in a coroutine"] = {"coroutine.wrap(function() error('over') end)()", 1,
      err = "^[^\n]*: over\nstack traceback:\n.*$"},
    ["os.exit(true)"] = {"os.exit(true)", 0},
    ["os.exit(7)"] = {"os.exit(7)", 7},
    ["os.exit(7, true)"] = {"os.exit(7, true)", 7},
    ["os.exit(false)"] = {"os.exit(false)", 1},
    ["os.exit in a coroutine"] = {"coroutine.wrap(function() os.exit(7) end)()", 7},
    ["os.exit in a callback"] = {"local other = pp.Server(1) other:submit{pp.time, "
      .. "callback = function() os.exit(7) end} other:wait()", 7, more = 1},
    ["SIGINT"] = {"pp.sleep(1000)", 130, {"INT"},
      err = "^[^\n]*: interrupted!\nstack traceback:\n.*$"},
    ["SIGINT in a loop"] = {"while true do end", 130, {"INT"}, loop = true,
      err = "^[^\n]*: interrupted!\nstack traceback:\n.*$"},
    ["two SIGINTs"] = {"pcall(pp.sleep, 1000) ready() pp.sleep(1000)", 130, {"INT", "INT"}},
    ["two SIGINTs in a loop"] = {"pcall(pp.sleep, 1000) ready() "
      .. "while true do pcall(function() while true do end end) end", 130, {"INT", "INT"},
      loop = true},
    ["SIGTERM"] = {"pp.sleep(1000)", 143, {"TERM"}},
    ["SIGTERM in a loop"] = {"while true do end", 143, {"TERM"}, loop = true},
    ["SIGHUP"] = {"pp.sleep(1000)", 129, {"HUP"}},
    ["SIGKILL"] = {"pp.sleep(1000)", 137, {"KILL"}},
    ["stdout closed"] = {"", 1, redirect = ">&-",
      err = "^ppsh: cannot write to stdout: [^\n]*\n$"},
    ["stdout closed by the script"] = {"io.stdout:close()", 0},
    ["stdout that nobody reads"] = {"for i = 1, 1e6 do print(i) end", 141, nobody = true},
  }

  --- Take the lines that begin with a pattern out of a text: it, how many.
  local function without(text, pattern)
    local n
    text, n = ("\n" .. text):gsub("\n" .. pattern .. "[^\n]*", "")
    return text:sub(2), n
  end

  local function started(state, how, dir)
    local text = preamble .. state[1] .. " ready() " .. how[1]
    local options = {options = {"--stats"}, args = {dir}, redirect = how.redirect}
    if not how.nobody then return child.start(text, options) end
    options.stdout_file = dir .. "/reader"
    assert(os.execute("mkfifo " .. options.stdout_file))
    local process = child.start(text, options)
    local reader <close> = io.open(options.stdout_file)
    repeat local line = reader:read("l") until line == "ready" or not line
    return process
  end

  local function check(state, how, r)
    local err, n = r.err
    assert.is_nil(r.late)
    local status = how[2]
    if status == 0 and state.failed then status = 1 end
    assert.are.equal(status, r.status, err)
    assert.are.same({}, child.left(r.tag))
    if how[3] and how[3][1] == "KILL" then
      assert.are.equal("", err)
      return
    end
    -- what jobs wrote
    local wrote = state.done + state.active
    if not how.redirect and not how.nobody then
      assert.are.equal(wrote, select(2, r.out:gsub("begun\n", "")), r.out)
    end
    -- one warning
    err, n = without(err, "ppsh: warning: " .. state.unfinished .. " unfinished jobs? dropped")
    assert.are.equal(state.unfinished > 0 and 1 or 0, n, r.err)
    -- each failure once
    local failed = state.failed or 0
    for i = 1, failed do
      assert.are.equal(1, count(err, "nobody asked: [^\n]*: unheard " .. i .. "\n"), r.err)
    end
    err = err:gsub("\t[^\n]*\n", "") -- lines of tracebacks
    err, n = err:gsub("ppsh: job %d+ failed and nobody asked: [^\n]*\nstack traceback:\n", "")
    assert.are.equal(failed, n, r.err)
    err, n = without(err, "ppsh: " .. failed .. " jobs failed and nobody asked")
    assert.are.equal(failed > 1 and 1 or 0, n, r.err)
    -- the table
    err, n = err:gsub("Job execution statistics:\n job count | %% of all jobs | job time sum | "
      .. "time per job | job server\n(.-)Time elapsed since server creation [%d.e-]+\n"
      .. "(%d+) active tasks, %d cores\n([^\n]*\n?)\n", function(rows, active, more)
        local jobs = tonumber(rows:match("^ *(%d+) ") or 0)
        if how.more and jobs == how.more and active == "0" then return "" end
        assert.are.equal(state.done, jobs)
        assert.are.equal(state.active, tonumber(active))
        assert.are.equal(failed > 0 and failed .. " failed, 0 retried, 0 lost workers\n" or "",
          more)
        return ""
      end)
    assert.are.equal(1 + (how.more or 0), n, r.err)
    -- and nothing else
    if how.err then
      assert.is_truthy(err:find(how.err), r.err)
    else
      assert.are.equal("", err, r.err)
    end
  end

  for kind, state in pairs(states) do
    for name, how in pairs(endings) do
      local when = how.loop and computing or it
      when(("%s, %s"):format(kind, name), function()
        local process = started(state, how, run.directory())
        for _, signal in ipairs(how[3] or {}) do
          process:expect("ready\n")
          process:kill(signal)
        end
        check(state, how, child.finish(process))
      end)
    end
  end
end)
