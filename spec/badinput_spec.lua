-- SPDX-License-Identifier: MIT
-- What ppsh is given that it cannot use, and what it does without: one clear
-- line, the right status, nothing lost that was done.
local describe, it, assert, pending = describe, it, assert, pending
local after_each = after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"

local function one_line(text)
  return select(2, text:gsub("\n", "")) == 1 and text:sub(-1) == "\n"
end

-- The leak sanitizer, where there is one, needs descriptors and a process for
-- itself at the end.
local poor = {ASAN_OPTIONS = (os.getenv "ASAN_OPTIONS" or "")
  .. ":detect_leaks=0"}

after_each(child.clean)

describe("a script", function()
  it("that does not parse is said in one line with file and line", function()
    local r = child.run("local x\nx = = 1\n")
    assert.are.equal(1, r.status)
    assert.are.equal("", r.out)
    assert.is_true(one_line(r.err), r.err)
    assert.is_truthy(r.err:find(run.ppsh_path .. ": " .. r.script .. ":2: ", 1, true), r.err)
    assert.is_truthy(r.err:find("near '='", 1, true), r.err)
  end)

  it("that is not there is said in one line", function()
    local r = child.run("", {path = "/no/such/script.lua"})
    assert.are.equal(1, r.status)
    assert.is_true(one_line(r.err), r.err)
    assert.is_truthy(r.err:find("/no/such/script.lua", 1, true), r.err)
  end)

  it("that is bytes of no meaning is refused", function()
    for _, text in ipairs{"\27Lua garbage", "\27", "\0\1\2", "#!only a line",
      ("("):rep(10000), "\255\254"} do
      local r = child.run(text)
      assert.is_true(r.status == 1 or text:sub(1, 2) == "#!", text:sub(1, 20))
      assert.is_nil(r.late)
    end
  end)
end)

describe("an option", function()
  it("that is wrong ends with status 2 and says which", function()
    for _, options in ipairs{{"--nosuch"}, {"-j", "many"}, {"-j", "-1"},
      {"--log", "loud"}, {"--jobs"}} do
      local r = run.ppsh(options, {})
      assert.are.equal(2, r.status, options[1])
      assert.are.equal("", r.out)
      assert.is_truthy(r.err:find(options[1]:gsub("^%-+", ""), 1, true), r.err)
    end
  end)
end)

describe("a call that is refused", function()
  it("ends the script in status 1 and says where, when it is not caught",
    function()
      for _, call in ipairs{
        "server:submit('f')", "server:submit(print, 'x')",
        "server:submit(print, {io.tmpfile()})", "pp.Server{nonsense = 1}",
        "server:submit{print, nonsense = 1}", "server:wait({})",
      } do
        local r = child.run([[
          local pp = require "pp"
          local server = pp.Server(1)
          server:submit(function() print("done before") end)()
          ]] .. call)
        assert.are.equal(1, r.status, call)
        assert.are.equal("done before\n", r.out)
        assert.is_truthy(r.err:match("^[^\n]*"):find(r.script .. ":4: ", 1, true),
          call .. ": " .. r.err)
      end
    end)
end)

local jobs_script = [[
  local pp = require "pp"
  local server = pp.Server(4)
  local jobs = {}
  for i = 1, 20 do jobs[i] = server:submit(function(x) return x * x end, {i}) end
  local sum = 0
  for i = 1, 20 do sum = sum + jobs[i]() end
  print(sum)
]]

--- Either all was done, or the first line of stderr says why not.
local function done_or_said(r, why)
  assert.is_nil(r.late)
  if r.status == 0 then
    assert.are.equal("2870\n", r.out)
  else
    assert.are.equal(1, r.status, r.err)
    assert.are.equal("", r.out)
    assert.is_truthy(r.err:find(why, 1, true), r.err)
  end
  assert.are.same({}, child.left(r.tag))
end

describe("without descriptors", function()
  it("ppsh starts, or says why not in one line", function()
    if not child.has "prlimit" then return end
    for n = 4, 20 do
      local r = run.program({"prlimit", "--nofile=" .. n, run.ppsh_path,
        "-e", "print(1)"}, {env = poor})
      if r.status == 0 then
        assert.are.equal("1\n", r.out)
      elseif r.status ~= 127 then -- 127: not even its libraries could be opened
        assert.are.equal(1, r.status)
        assert.is_true(one_line(r.err), r.err)
        assert.is_truthy(r.err:find("Too many open files", 1, true), r.err)
      end
    end
  end)

  it("a server has the workers it can have, or raises and says why", function()
    for n = 14, 40, 2 do -- sh itself wants 12
      done_or_said(child.run(jobs_script, {setup = "ulimit -n " .. n, env = poor}),
        "Too many open files")
    end
  end)

  it("a script may go on without a server", function()
    local r = child.run([[
      local pp = require "pp"
      local files = {}
      repeat
        local file = io.open("/dev/null")
        files[#files + 1] = file
      until not file
      local ok, err = pcall(pp.Server, 2)
      print(ok, (tostring(err):find("Too many open files", 1, true)) ~= nil)
      for _, file in ipairs(files) do file:close() end
      print(pp.Server(2):submit(function() return "later" end)())
    ]], {setup = "ulimit -n 60", env = poor})
    assert.are.equal("false\ttrue\nlater\n", r.out, r.err)
    assert.are.equal(0, r.status)
  end)

  it("workers that are there go on, and one that died is replaced when there"
    .. " are some again", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server{ncpus = 1, retries = 0}
      local files = {}
      repeat
        local file = io.open("/dev/null")
        files[#files + 1] = file
      until not file
      print(server:submit(function() return "here" end)())
      local ok, err = server:submit(function() os.exit(1) end):pcall()
      print(ok, err.kind)
      local job = server:submit(function() return "replaced" end)
      for _, file in ipairs(files) do file:close() end
      print(job())
    ]], {setup = "ulimit -n 40", env = poor})
    assert.are.equal("here\nfalse\tlost\nreplaced\n", r.out, r.err)
    assert.are.equal(0, r.status)
  end)
end)

describe("with a limit on the size of files", function()
  it("ppsh works, or says why not in one line, but is not killed", function()
    for _, blocks in ipairs{1, 10, 100, 400, 1000} do
      done_or_said(child.run(jobs_script, {setup = "ulimit -f " .. blocks, env = poor}),
        "the limit on the size of files (ulimit -f) is too low")
    end
  end)
end)

describe("without processes", function()
  -- The limit is per user and does not hold for root: another user is needed.
  local other = {"setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"}
  local function limited(n)
    local path = run.file(jobs_script)
    os.execute("chmod -R a+rX " .. run.quote(path:match("^(.*)/")))
    local argv = {"prlimit", "--nproc=" .. n}
    table.move(other, 1, #other, #argv + 1, argv)
    argv[#argv + 1] = run.ppsh_path
    argv[#argv + 1] = path
    return run.program(argv, {timeout = 2 * child.patience, env = poor})
  end
  local possible = child.output_of("id -u") == "0\n" and child.has "setpriv"
    and child.has "prlimit"
    and run.program{other[1], other[2], other[3], other[4], run.ppsh_path,
      "-e", "print(1)"}.status == 0
  child.clean()
  if not possible then
    pending("nothing is looked at: that needs root, setpriv, prlimit, and a "
      .. "ppsh that other users may run")
    return
  end

  it("ppsh says in one line that it cannot start", function()
    local r = limited(1)
    assert.are.equal(1, r.status)
    assert.is_true(one_line(r.err), r.err)
    assert.is_truthy(r.err:find("^ppsh: cannot start"), r.err)
    assert.is_truthy(r.err:find("Resource temporarily unavailable", 1, true), r.err)
  end)

  it("a server raises and says why", function()
    local r = limited(2)
    assert.are.equal(1, r.status)
    assert.are.equal("", r.out)
    assert.is_truthy(r.err:match("^[^\n]*")
      :find("Resource temporarily unavailable", 1, true), r.err)
  end)

  it("a server does with the workers it could start", function()
    for n = 4, 7 do
      local r = limited(n)
      assert.are.equal("2870\n", r.out, r.err)
      assert.are.equal(0, r.status)
    end
  end)
end)

describe("standard output that is", function()
  local printing = [[
    local pp = require "pp"
    local server = pp.Server(2)
    local jobs = {}
    for i = 1, 10 do
      jobs[i] = server:submit(function()
        for _ = 1, 100 do print("from a job") end
        return i
      end)
    end
    local sum = 0
    for i = 1, 10 do sum = sum + jobs[i]() end
    print("from the script")
    io.stderr:write("sum ", sum, "\n")
  ]]

  it("full is said in one line; the script goes on, and ends in status 1",
    function()
      local r = child.run(printing, {redirect = ">/dev/full"})
      assert.are.equal(1, r.status)
      assert.is_truthy(r.err:find("sum 55\n", 1, true), r.err)
      assert.is_truthy(r.err:find("No space left on device", 1, true), r.err)
      assert.are.equal(2, select(2, r.err:gsub("\n", "")), r.err)
    end)

  it("closed is said in one line; the script goes on, and ends in status 1",
    function()
      local r = child.run(printing, {redirect = ">&-"})
      assert.are.equal(1, r.status)
      assert.is_truthy(r.err:find("sum 55\n", 1, true), r.err)
      assert.is_truthy(r.err:find("stdout", 1, true), r.err)
      assert.are.equal(2, select(2, r.err:gsub("\n", "")), r.err)
    end)

  it("closed matters to nobody who prints nothing", function()
    local r = child.run([[
      local pp = require "pp"
      io.stderr:write(pp.Server(1):submit(function() return "quiet" end)(), "\n")
    ]], {redirect = ">&-"})
    assert.are.equal("quiet\n", r.err)
    assert.are.equal(0, r.status)
  end)

  it("read no more ends nothing but the printing", function()
    local done = run.directory() .. "/done"
    local script = run.file(printing
      .. ("io.open(%q, 'w'):close()"):format(done))
    -- head goes after one line; ppsh may end by SIGPIPE as any program, or go
    -- on, but must not hang nor leave anything
    local text = child.output_of(("PP_SPEC_TAG=%s timeout 60 %s %s 2>/dev/null"
      .. " | head -n 1"):format("reader-" .. child.pid(),
      run.quote(run.ppsh_path), run.quote(script)))
    assert.are.equal("from a job\n", text)
    assert.are.same({}, child.left("reader-" .. child.pid()))
  end)
end)

describe("standard input and standard error that are closed", function()
  it("do no harm to jobs and results", function()
    for _, redirect in ipairs{"<&-", "2>&-", "<&- 2>&-"} do
      local r = child.run([[
        local pp = require "pp"
        local server = pp.Server(2)
        local job = server:submit(function()
          io.stderr:write("unseen\n")
          print("seen")
          return io.read("l")
        end)
        print(job())
        server:submit(function() os.exit(1) end):pcall()
        print(server:submit(function() return "after" end)())
      ]], {redirect = redirect})
      assert.are.equal("seen\nnil\nafter\n", r.out, redirect)
      assert.are.equal(0, r.status, redirect)
      assert.are.same({}, child.left(r.tag))
    end
  end)
end)
