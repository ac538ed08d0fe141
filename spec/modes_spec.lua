-- SPDX-License-Identifier: MIT
-- What becomes of jobs' output, as `output` says; workers that are replaced
-- after so many jobs, as `restart` says.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function id(...) return ... end
local pid_of = child.pid

--- Run a script of this mode; its result.
local function output(mode, script, options)
  local r = child.run(([[
    local pp = require "pp"
    local function new(ncpus, more)
      local o = more or {}
      o.ncpus, o.output = ncpus, %q
      return pp.Server(o)
    end
  ]]):format(mode) .. script, options)
  assert.is_nil(r.late)
  return r
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

local function failure(job)
  local ok, err = job:pcall()
  assert.is_false(ok)
  return err
end

-- Says something on both streams, itself and by a child.
local say = [[
  local function say()
    print("printed")
    io.stderr:write("trouble\n")
    os.execute("echo child; echo child trouble >&2")
    io.write("half")
  end
]]

local all_bytes = {}
for byte = 0, 255 do all_bytes[#all_bytes + 1] = string.char(byte) end
all_bytes = table.concat(all_bytes)

after_each(child.clean)

describe("output = 'line'", function()
  it("passes whole lines on, as without the option", function()
    local script = say .. [[
      local server = pp.Server{ncpus = 1, output = OUTPUT}
      local job = server:submit(say)
      job()
      print(job.output, job.errors)
    ]]
    for _, mode in ipairs{"'line'", "nil"} do
      local r = child.run("local pp = require 'pp' local OUTPUT = " .. mode
        .. "\n" .. script)
      assert.are.equal("printed\nchild\nhalf\nnil\tnil\n", r.out)
      assert.are.equal("trouble\nchild trouble\n", r.err)
      assert.are.equal(0, r.status)
    end
  end)

  it("passes what a job wrote before its time ran out on before job() returns",
    function()
      local r = output("line", [[
        local server = new(1, {timeout = 0.5})
        for _ = 1, 2 do
          print(server:submit(function()
            io.write("line\n", "half")
            io.stdout:flush()
            while true do end
          end):pcall() == false)
        end
      ]])
      assert.are.equal("line\nhalf\ntrue\n"
        .. "line\nhalf\ntrue\n", r.out)
    end)
end)

describe("output = 'prefix'", function()
  it("puts node and worker before each line, of both streams", function()
    local r = output("prefix", say .. [[
      local server = new(1)
      print("mine")
      server:submit(say)()
      print("mine too")
    ]])
    assert.are.equal("mine\n[local/1] printed\n[local/1] child\n"
      .. "[local/1] half\nmine too\n", r.out)
    assert.are.equal("[local/1] trouble\n[local/1] child trouble\n", r.err)
    assert.are.equal(0, r.status)
  end)

  it("puts it before empty lines too, and adds nothing else", function()
    local r = output("prefix", [[
      local server = new(1)
      server:submit(function() io.write("\n\na\n\n") end)()
      server:submit(function() end)()
      server:submit(function() io.write("") end)()
      server:submit(function() io.write("last") end)()
    ]])
    assert.are.equal("[local/1] \n[local/1] \n[local/1] a\n[local/1] \n"
      .. "[local/1] last\n", r.out)
    assert.are.equal("", r.err)
  end)

  it("puts it once before a line that is written bit by bit", function()
    local r = output("prefix", [[
      local server = new(1)
      server:submit(function()
        io.stdout:setvbuf("no")
        for _ = 1, 3 do
          for letter in ("letters"):gmatch(".") do
            io.write(letter)
            for _ = 1, 20000 do end
          end
          os.execute("printf ' and child'")
          io.write("\n")
        end
      end)()
    ]])
    assert.are.equal(("[local/1] letters and child\n"):rep(3), r.out)
  end)

  it("names the worker that ran the job", function()
    local r = output("prefix", [[
      local server = new(3)
      local jobs = {}
      for i = 1, 300 do
        jobs[i] = server:submit(function()
          print(i .. " by " .. pp.job.worker)
          return pp.job.worker
        end)
      end
      for i = 1, 300 do
        if jobs[i]() ~= jobs[i].worker then io.stderr:write("not so\n") end
      end
    ]])
    assert.are.equal("", r.err)
    local lines = lines_of(r.out)
    assert.are.equal(300, #lines)
    local seen = {}
    for _, line in ipairs(lines) do
      local before, i, worker = line:match("^%[local/(%d+)%] (%d+) by (%d+)$")
      assert.is_truthy(before, line)
      assert.are.equal(worker, before)
      assert.is_nil(seen[i])
      seen[i] = true
    end
  end)

  it("leaves lines whole, with many workers", function()
    local r = output("prefix", [[
      local server = new(4)
      local function shout(i)
        local line = ("%03d"):format(i):rep(300)
        for _ = 1, 10 do print(line) end
      end
      for i = 1, 200 do server:submit(shout, {i}) end
      server:wait()
    ]])
    local lines = lines_of(r.out)
    assert.are.equal(2000, #lines)
    for _, line in ipairs(lines) do
      local text = line:match("^%[local/[1-4]%] (%d+)$")
      if not text or text ~= text:sub(1, 3):rep(300) then
        error("torn: " .. line)
      end
    end
  end)

  it("passes any bytes, and long lines in pieces", function()
    local r = output("prefix", [[
      local server = new(1)
      local all = {}
      for byte = 0, 255 do all[#all + 1] = string.char(byte) end
      server:submit(function(s) io.write(s, "\n") end, {table.concat(all)})()
    ]])
    assert.are.equal("[local/1] " .. all_bytes:gsub("\n", "\n[local/1] ")
      .. "\n", r.out)
    r = output("prefix", [[
      new(1):submit(function()
        for _ = 1, 300 do io.write(("0123456789"):rep(100)) end
      end)()
    ]])
    local text = r.out:gsub("%[local/1%] ", ""):gsub("\n", "")
    assert.is_true(text == ("0123456789"):rep(30000))
    assert.are.equal("[local/1] 0", r.out:sub(1, 11))
  end)

  it("shows the last words of a worker that dies", function()
    local r = output("prefix", [[
      local server = new(1, {retries = 0})
      server:submit(function()
        print("last words")
        io.write("half")
        io.stdout:flush()
        os.exit(3)
      end):pcall()
      server:submit(function() print("next") end)()
    ]])
    local lines = lines_of(r.out)
    assert.are.equal(3, #lines)
    assert.are.equal("[local/1] last words", lines[1])
    assert.are.equal("[local/1] half", lines[2])
    assert.is_truthy(lines[3]:find("^%[local/%d+%] next$"))
  end)
end)

describe("output = 'job'", function()
  it("collects what a job writes, and prints nothing", function()
    local r = output("job", say .. [[
      local server = new(1)
      local job = server:submit(say)
      job()
      local errors = job.errors
      print(("%q %q"):format(job.output, errors))
    ]])
    assert.are.equal(('"printed\\\nchild\\\nhalf" '
      .. '"trouble\\\nchild trouble\\\n"\n'), r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)

  it("gives empty strings when nothing was written", function()
    local server <close> = pp.Server{ncpus = 1, output = "job"}
    local job = server:submit(id)
    job()
    assert.are.equal("", job.output)
    assert.are.equal("", job.errors)
    job = server:submit(function() io.write("out") end)
    job()
    assert.are.equal("out", job.output)
    assert.are.equal("", job.errors)
    job = server:submit(function() io.stderr:write("err") end)
    job()
    assert.are.equal("", job.output)
    assert.are.equal("err", job.errors)
  end)

  it("gives each job its own, exactly, however many there are", function()
    local server <close> = pp.Server{ncpus = 3, output = "job"}
    local function write(i)
      if i % 3 ~= 0 then io.write("out ", i) end
      if i % 5 == 0 then io.stderr:write("err ", i, "\n") end
      if i % 50 == 0 then os.execute("printf ' child'") end
    end
    local jobs = {}
    for i = 1, 600 do jobs[i] = server:submit(write, {i}) end
    for i = 600, 1, -1 do
      jobs[i]:wait()
      assert.are.equal((i % 3 ~= 0 and "out " .. i or "")
        .. (i % 50 == 0 and " child" or ""), jobs[i].output)
      assert.are.equal(i % 5 == 0 and "err " .. i .. "\n" or "", jobs[i].errors)
    end
  end)

  it("adds and loses no byte", function()
    local server <close> = pp.Server{ncpus = 1, output = "job"}
    local path = run.file(all_bytes)
    local job = server:submit(function(s)
      io.write(s)
      os.execute("cat " .. path .. "; cat " .. path .. " >&2")
      io.write("\0")
    end, {all_bytes})
    job()
    assert.are.equal(all_bytes .. all_bytes .. "\0", job.output)
    assert.are.equal(all_bytes, job.errors)
  end)

  it("collects far more than a pipe holds", function()
    local server <close> = pp.Server{ncpus = 2, output = "job"}
    local function pour(n)
      local piece = ("0123456789"):rep(1000)
      for _ = 1, n do
        io.write(piece)
        io.stderr:write(piece)
      end
    end
    local small = server:submit(pour, {1})
    local large = server:submit(pour, {500})
    large()
    small()
    assert.is_true(large.output == ("0123456789"):rep(500000))
    assert.is_true(large.errors == ("0123456789"):rep(500000))
    assert.are.equal(10000, #small.output)
  end)

  it("is there when a callback runs, and stays", function()
    local server <close> = pp.Server{ncpus = 1, output = "job"}
    local seen
    local job
    job = server:submit{function() io.write("written") end,
      callback = function() seen = job.output end}
    server:wait()
    assert.are.equal("written", seen)
    for _ = 1, 3 do assert.are.equal("written", job.output) end
    job()
    assert.are.equal("written", job.output)
  end)

  it("is there after the server was destroyed", function()
    local server = pp.Server{ncpus = 1, output = "job"}
    local one = server:submit(function() io.write("one") end)
    local two = server:submit(id)
    one()
    two()
    server:destroy()
    assert.are.equal("one", one.output)
    assert.are.equal("", two.output)
    assert.are.equal("", two.errors)
  end)

  it("is there for failed jobs: errors, lost ones, those stopped", function()
    local server <close> = pp.Server{ncpus = 1, output = "job", retries = 0}
    local job = server:submit(function()
      io.write("before")
      io.stderr:write("trouble")
      error("own")
    end)
    failure(job)
    assert.are.equal("before", job.output)
    assert.are.equal("trouble", job.errors)
    job = server:submit(function()
      io.write("last words")
      io.stdout:flush()
      os.exit(3)
    end)
    assert.are.equal("lost", failure(job).kind)
    assert.are.equal("last words", job.output)
    assert.are.equal("", job.errors)
    local gate = child.gate()
    server:submit(function(path) io.open(path):close() end, {gate.path})
    job = server:submit(id)
    assert.is_true(job:cancel())
    gate:open()
    assert.are.equal("", job.output)
    assert.are.equal("", job.errors)
  end)

  it("is there for jobs whose time ran out, and not the next one's", function()
    local server <close> = pp.Server{ncpus = 1, output = "job"}
    local job = server:submit{function()
      io.write("before")
      io.stdout:flush()
      io.stderr:write("trouble")
      while true do end
    end, timeout = 0.5}
    local following = server:submit(function() io.write("next") end)
    assert.are.equal("timeout", failure(job).kind)
    following()
    assert.are.equal("next", following.output)
    assert.are.equal("", following.errors)
    assert.are.equal("before", job.output)
    assert.are.equal("trouble", job.errors)
  end)

  it("gives nothing of a stopped job to the next", function()
    local server <close> = pp.Server{ncpus = 1, output = "job"}
    for _ = 1, 20 do
      local path = run.directory() .. "/mark"
      local job = server:submit(function()
        io.write("mine")
        io.open(path, "w"):close()
        while true do end
      end)
      local following = server:submit(function() io.write("next") end)
      assert.is_truthy(child.eventually(function() return run.read(path) end))
      assert.is_true(job:cancel())
      following()
      assert.are.equal("next", following.output)
    end
  end)
end)

describe("output = 'none'", function()
  it("drops what jobs and their children write", function()
    local r = output("none", say .. [[
      local server = new(2)
      local jobs = {}
      for i = 1, 50 do jobs[i] = server:submit(say) end
      for i = 1, 50 do jobs[i]() end
      print("mine", jobs[1].output, jobs[1].errors)
    ]])
    assert.are.equal("mine\tnil\tnil\n", r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)

  it("holds nobody up who writes much", function()
    local r = output("none", [[
      local server = new(2)
      local function pour()
        local piece = ("0123456789"):rep(1000)
        for _ = 1, 500 do
          io.write(piece)
          io.stderr:write(piece)
        end
        return #piece
      end
      local one, two = server:submit(pour), server:submit(pour)
      print(one() + two())
    ]])
    assert.are.equal("20000\n", r.out)
    assert.are.equal("", r.err)
  end)
end)

describe("output", function()
  it("that is none of the four is refused", function()
    for _, bad in ipairs{"lines", "", "Line", "LINE", "jobs", 1, true, {}} do
      local ok, err = pcall(pp.Server, {ncpus = 1, output = bad})
      assert.is_false(ok)
      assert.is_truthy(err:find("output", 1, true), err)
    end
  end)

  it("is each server's own", function()
    local r = child.run([[
      local pp = require "pp"
      local function speak(x) print(x) end
      local jobs = {}
      for _, mode in ipairs{"line", "prefix", "job", "none"} do
        local server = pp.Server{ncpus = 1, output = mode}
        jobs[#jobs + 1] = server:submit(speak, {mode})
        jobs[#jobs]()
      end
      io.write(jobs[3].output)
    ]])
    assert.are.equal("line\n[local/1] prefix\njob\n", r.out)
  end)

  it("of a job comes before what a program it starts writes", function()
    for _, mode in ipairs{"line", "job"} do
      local r = output(mode, [[
        local server = new(1)
        local job = server:submit(function()
          io.write("one ")
          os.execute("printf 'two '")
          io.write("three ")
          io.popen("printf 'four '", "w"):close()
          io.write("five\n")
          print("six")
          os.execute("echo seven")
        end)
        job()
        io.write(job.output or "")
      ]])
      assert.are.equal("one two three four five\nsix\nseven\n", r.out)
    end
  end)
end)

describe("os.execute and io.popen in a job", function()
  it("take and give what they do in a script", function()
    local server <close> = pp.Server(1)
    assert.are.same({true, "exit", 0}, {server:submit(os.execute, {"true"})()})
    assert.are.same({n = 3, nil, "exit", 3},
      table.pack(server:submit(os.execute, {"exit 3"})()))
    assert.are.same({true}, {server:submit(os.execute)()})
    assert.are.same({"read", true, "exit", 0}, {server:submit(function()
      local pipe = io.popen("echo read", "r")
      local line = pipe:read("l")
      return line, pipe:close()
    end)()})
  end)

  it("travel by name, there and back", function()
    local server <close> = pp.Server(1)
    local execute, popen = server:submit(function()
      return os.execute, io.popen
    end)()
    assert.is_true(rawequal(os.execute, execute))
    assert.is_true(rawequal(io.popen, popen))
  end)

  it("name themselves in their errors, and the line", function()
    local server <close> = pp.Server(1)
    for name, f in pairs{
      execute = function() os.execute({}) end,
      popen = function() io.popen({}) end,
    } do
      local _, here = pcall(f)
      assert.is_truthy(here:find(name, 1, true), here)
      assert.are.equal(here, failure(server:submit(f)).message)
    end
  end)
end)

--- How many jobs each process ran, and how many processes there were.
local function by_pid(pids)
  local count, n = {}, 0
  for _, pid in ipairs(pids) do
    if not count[pid] then n = n + 1 end
    count[pid] = (count[pid] or 0) + 1
  end
  return count, n
end

describe("restart", function()
  for _, one in ipairs{true, 1} do
    it("= " .. tostring(one) .. " runs every job in a new worker", function()
      local server <close> = pp.Server{ncpus = 2, restart = one}
      local jobs, pids = {}, {}
      for i = 1, 40 do jobs[i] = server:submit(pid_of) end
      for i = 1, 40 do pids[i] = jobs[i]() end
      assert.are.equal(40, select(2, by_pid(pids)))
      for i = 41, 50 do pids[i] = server:submit(pid_of)() end
      assert.are.equal(50, select(2, by_pid(pids)))
      for i = 1, 50 do assert.are_not.equal(pid_of(), pids[i]) end
      assert.are.equal(2, server:get_ncpus())
      assert.are.same({["local"] = 2}, server:get_active_nodes())
      local stats = server:get_stats()["local"]
      assert.are.equal(50, stats.njobs)
      assert.are.equal(0, stats.lost)
      assert.are.equal(0, stats.retried)
    end)
  end

  it("= n replaces a worker after n jobs", function()
    for _, n in ipairs{2, 3, 7} do
      local server <close> = pp.Server{ncpus = 1, restart = n}
      local jobs, pids = {}, {}
      for i = 1, 21 do jobs[i] = server:submit(pid_of) end
      for i = 1, 21 do pids[i] = jobs[i]() end
      local count, workers = by_pid(pids)
      for _, times in pairs(count) do assert.is_true(times <= n) end
      assert.are.equal((21 + n - 1) // n, workers)
      local two <close> = pp.Server{ncpus = 2, restart = n}
      for i = 1, 40 do jobs[i] = two:submit(pid_of) end
      for i = 1, 40 do pids[i] = jobs[i]() end
      count = by_pid(pids)
      for _, times in pairs(count) do assert.is_true(times <= n) end
    end
  end)

  it("= 0 or false, as by default, replaces none", function()
    for _, none in ipairs{0, false, "nothing"} do
      local server <close> = pp.Server{ncpus = 1,
        restart = none ~= "nothing" and none or nil}
      local pids = {}
      for i = 1, 100 do pids[i] = server:submit(pid_of)() end
      assert.are.equal(1, select(2, by_pid(pids)))
    end
    local server <close> = pp.Server{ncpus = 1, restart = false}
    assert.are.equal(server:submit(pid_of)(), server:submit(pid_of)())
  end)

  it("loses no job and no result under load", function()
    for _, n in ipairs{1, 10} do
      local server <close> = pp.Server{ncpus = 4, restart = n, retries = 0}
      local jobs, pids, calls = {}, {}, 0
      local captured = {"captured"}
      for i = 1, 500 do
        jobs[i] = server:submit{function(x)
          return x, captured[1], pid_of()
        end, args = {i}, callback = function() calls = calls + 1 end}
      end
      for i = 1, 500 do
        local x, what
        x, what, pids[i] = jobs[i]()
        assert.are.equal(i, x)
        assert.are.equal("captured", what)
        assert.are.equal(1, jobs[i].attempts)
      end
      server:wait()
      assert.are.equal(500, calls)
      for _, times in pairs((by_pid(pids))) do assert.is_true(times <= n) end
      local stats = server:get_stats()["local"]
      assert.are.equal(500, stats.njobs)
      assert.are.equal(0, stats.lost)
      assert.are.equal(4, server:get_ncpus())
    end
  end)

  it("passes on what every job prints", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server{ncpus = 3, restart = 1}
      local jobs = {}
      for i = 1, 60 do
        jobs[i] = server:submit(function() io.write("job ", i) end)
      end
      for i = 1, 60 do
        jobs[i]()
        print("returned " .. i)
      end
    ]])
    local seen = {}
    for _, line in ipairs(lines_of(r.out)) do
      local what, i = line:match("^(%a+) (%d+)$")
      assert.is_truthy(what, line)
      if what == "returned" then assert.is_true(seen[i]) end
      seen[i] = true
    end
    assert.are.equal(120, #lines_of(r.out))
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
    assert.are.same({}, child.left(r.tag))
  end)

  it("= 1 shows a job's own peak of memory", function()
    local server <close> = pp.Server{ncpus = 1, restart = 1}
    local big = server:submit(function() return #("x"):rep(64 << 20) end)
    assert.are.equal(64 << 20, big())
    local small = server:submit(id)
    small()
    assert.is_true(big.maxrss >= 64 << 20)
    assert.is_true(small.maxrss < 48 << 20)
  end)

  it("lets workers that are let go end", function()
    local server <close> = pp.Server{ncpus = 2, restart = 1}
    local jobs = {}
    for i = 1, 20 do jobs[i] = server:submit(pid_of) end
    for i = 1, 20 do
      local pid = jobs[i]()
      assert.is_truthy(child.eventually(function()
        return not child.alive(pid)
      end))
    end
  end)

  it("counts failed jobs, and replaces after lost ones", function()
    local server <close> = pp.Server{ncpus = 1, restart = 2, retries = 0}
    local function fail()
      error(pid_of())
    end
    local pids = {}
    for i = 1, 6 do pids[i] = failure(server:submit(fail)).value end
    local count, n = by_pid(pids)
    assert.are.equal(3, n)
    for _, times in pairs(count) do assert.are.equal(2, times) end
    for _ = 1, 3 do
      assert.are.equal("lost",
        failure(server:submit(function() os.exit(1) end)).kind)
    end
    assert.are.equal("well", server:submit(id, {"well"})())
  end)

  it("counts jobs that were stopped", function()
    local server <close> = pp.Server{ncpus = 1, restart = 1}
    local path = run.directory() .. "/mark"
    local job = server:submit(function()
      local file = io.open(path .. ".new", "w")
      file:write(pid_of(), "\n")
      file:close()
      os.rename(path .. ".new", path)
      while true do end
    end)
    local pid = tonumber(child.eventually(function() return run.read(path) end))
    assert.is_true(job:cancel())
    assert.are_not.equal(pid, server:submit(pid_of)())
  end)

  it("goes together with set_ncpus", function()
    local server <close> = pp.Server{ncpus = 1, restart = 1}
    local jobs, pids = {}, {}
    for i = 1, 60 do
      jobs[i] = server:submit(pid_of)
      if i % 10 == 0 then server:set_ncpus(1 + i // 10 % 4) end
    end
    for i = 1, 60 do pids[i] = jobs[i]() end
    assert.are.equal(60, select(2, by_pid(pids)))
  end)

  it("that is no number of jobs is refused", function()
    for _, bad in ipairs{-1, 1.5, 0/0, "1", "true", {}} do
      local ok, err = pcall(pp.Server, {ncpus = 1, restart = bad})
      assert.is_false(ok)
      assert.is_truthy(err:find("restart", 1, true), err)
    end
  end)
end)
