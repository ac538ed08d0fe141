-- SPDX-License-Identifier: MIT
-- --trace: the record of a run as a file of Chrome trace events.
local describe, it, assert, pending = describe, it, assert, pending
local setup, teardown = setup, teardown
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local json = require "spec.support.json"
local remote = require "spec.support.remote"
local run = require "spec.support.run"

teardown(run.cleanup)

local start = [[
  local pp = require "pp"
  local server = pp.Server(2)
]]

-- Run a script with --trace: how it went, and the events.
local function trace(text, options, start_with)
  local file = run.directory() .. "/trace.json"
  local list = {"--trace", file}
  for _, o in ipairs(options or {}) do list[#list + 1] = o end
  local r = (start_with or child).run((start_with and "" or start) .. text, {options = list})
  return r, json.read(run.read(file)), file
end

-- Events of a phase, those of a name alone if one is given.
local function events(list, phase, name)
  local found = {}
  for _, e in ipairs(list) do
    if e.ph == phase and (not name or e.name == name) then found[#found + 1] = e end
  end
  return found
end

describe("--trace", function()
  it("has a slice for each job, on the thread of its worker", function()
    local r, list = trace [[
      local jobs = {}
      for i = 1, 20 do
        jobs[i] = server:submit{function(n) return n end, args = {i}, name = "job " .. i}
      end
      for i = 1, 20 do jobs[i]() end
      print(jobs[7].worker, jobs[7].id)
    ]]
    assert.are.equal(0, r.status)
    assert.are.equal("", r.err)
    local slices = events(list, "X")
    assert.are.equal(20, #slices)
    local worker, id = r.out:match "(%d+)\t(%d+)"
    local seven = events(list, "X", "job 7")[1]
    assert.are.equal(tonumber(id), seven.args.job)
    assert.are.equal(tonumber(worker), seven.tid)
    local names = {}
    for _, e in ipairs(events(list, "M", "thread_name")) do
      names[e.pid .. "/" .. e.tid] = e.args.name
    end
    for _, e in ipairs(events(list, "M", "process_name")) do names[e.pid] = e.args.name end
    assert.are.equal("local", names[seven.pid])
    assert.are.equal("worker " .. worker, names[seven.pid .. "/" .. worker])
    assert.are.equal("ppsh", names[0])
  end)

  it("says of each where its time went, in order", function()
    local _, list = trace [[
      local function nap(s) require "pp".sleep(s) end
      for i = 1, 6 do server:spawn(nap, 0.02) end
      server:wait()
    ]]
    local slices = events(list, "X", "nap")
    assert.are.equal(6, #slices)
    local ends = {}
    table.sort(slices, function(a, b) return a.ts < b.ts end)
    for _, e in ipairs(slices) do
      local a = e.args
      for _, k in ipairs {"queue_us", "send_us", "run_us", "return_us"} do
        assert.is_true(a[k] >= 0, k)
      end
      assert.is_true(e.dur >= 20000 and a.run_us >= 20000)
      assert.are.equal("done", a.outcome)
      assert.are.equal(1, a.attempt)
      assert.is_true(a.sent_bytes > 0 and a.received_bytes > 0)
      assert.matches("script.lua:3$", a["function"])
      -- one at a time
      assert.is_true(e.ts >= (ends[e.tid] or 0), "slices of a worker overlap")
      ends[e.tid] = e.ts + e.dur
    end
  end)

  it("adds up to what get_stats says", function()
    local r, list = trace [[
      local function f(x)
        for _ = 1, 2000 do end
        if x == 77 then error "no" end
      end
      server:map(f, pp.range(1, 500), {on_error = "keep"})
      for i = 1, 30 do server:spawn(f, i) end
      server:wait()
      local s = server:get_stats()["local"]
      print(s.njobs, s.time, s.cpu)
    ]]
    local njobs, time, cpu = r.out:match "(%S+)\t(%S+)\t(%S+)"
    local n, run_us, cpu_us = 0, 0, 0
    for _, e in ipairs(events(list, "X")) do
      n = n + (e.args.items or 1)
      run_us, cpu_us = run_us + e.args.run_us, cpu_us + e.args.cpu_us
    end
    assert.are.equal(tonumber(njobs), n)
    assert.is_true(math.abs(run_us / 1e6 - time) < 1e-6)
    assert.is_true(math.abs(cpu_us / 1e6 - cpu) < 1e-6)
    local items = {}
    for _, e in ipairs(events(list, "X")) do
      for i = 0, (e.args.items or 0) - 1 do
        local item = e.args.first_item + i
        assert.is_nil(items[item])
        items[item] = true
      end
    end
    assert.are.equal(500, #items)
  end)

  it("has each attempt, and why it failed", function()
    local r, list = trace [[
      local j = server:submit{function() os.exit(3) end, retries = 1, name = "dies"}
      j:pcall()
      local k = server:submit{function() error "its own" end, retry_errors = 2, name = "errs"}
      k:pcall()
      local t = server:submit{function() while true do end end, timeout = 0.05, name = "late"}
      t:pcall()
    ]]
    assert.are.equal(0, r.status)
    local function told(name)
      local t = {}
      for i, e in ipairs(events(list, "X", name)) do
        t[i] = ("%s %s %d"):format(e.args.outcome, e.args.kind, e.args.attempt)
      end
      return t
    end
    assert.are.same({"run again lost 1", "failed lost 2"}, told "dies")
    assert.are.same({"run again error 1", "run again error 2", "failed error 3"}, told "errs")
    assert.are.same({"failed timeout 1"}, told "late")
    assert.matches("its own", events(list, "X", "errs")[3].args.error)
    assert.matches("exited with status 3", events(list, "X", "dies")[2].args.error)
    assert.are.equal(2, #events(list, "i", "worker lost"))
  end)

  it("has what never ran as an instant", function()
    local _, list = trace [[
      local f = function() require "pp".sleep(0.05) end
      for i = 1, 2 do server:spawn(f) end
      local jobs = {}
      for i = 1, 3 do jobs[i] = server:submit{f, name = "waits", priority = -1} end
      print(server:cancel_all())
    ]]
    local instants = events(list, "i", "waits")
    assert.is_true(#instants >= 1)
    assert.are.equal("cancelled", instants[1].args.kind)
    assert.are.equal(0, instants[1].pid)
  end)

  it("draws an arrow from a job to one it has submitted", function()
    local _, list = trace [[
      server:spawn(function()
        local inner = require "pp".Server()
        return inner:spawn(function() return 1 end)()
      end)()
    ]]
    local from, to = events(list, "s"), events(list, "f")
    assert.are.equal(1, #from)
    assert.are.equal(1, #to)
    assert.are.equal(from[1].id, to[1].id)
    assert.is_true(from[1].ts <= to[1].ts)
  end)

  it("has jobs that run in the script's own process", function()
    local _, list = trace [[
      local here = pp.Server(0)
      here:map(function(x) return x end, {1, 2, 3})
    ]]
    local slices = events(list, "X")
    assert.are.equal(3, #slices)
    assert.are.equal(0, slices[1].tid)
  end)

  it("keeps names and errors of any bytes apart from its own syntax", function()
    local name = 'a "quoted" \\ </script> \1 \255 \u{20AC} \n end'
    local r, list = trace(([[
      local j = server:submit{function() error(%q, 0) end, name = %q}
      j:pcall()
    ]]):format(name, name))
    assert.are.equal(0, r.status)
    local e = events(list, "X")[1]
    assert.are.equal((name:gsub("\255", "\u{FFFD}")), e.name)
    assert.are.equal(e.name, e.args.error)
  end)

  it("is complete at every ending", function()
    local work = [[
      local function kill(signal) -- not by os.execute: that ignores SIGINT
        local pid = io.open "/proc/self/stat":read "n"
        io.popen(("kill -%s %d"):format(signal, pid)):close()
      end
      for i = 1, 4 do server:spawn(function(n) return n end, i)() end
      local stuck = server:spawn(function() while true do end end)
      while stuck.status ~= "running" do pp.sleep(0.001) end
    ]]
    local endings = {
      ["os.exit"] = {"os.exit(7)", 7},
      ["os.exit closing the state"] = {"os.exit(7, true)", 7},
      ["an error"] = {"error 'over'", 1},
      ["the end"] = {"", 0},
      SIGINT = {"kill 'INT' stuck()", 130},
      SIGTERM = {"kill 'TERM' stuck()", 143},
      ["SIGTERM while the script spins"] = {"kill 'TERM' "
        .. "while true do string.rep('x', 100):find(('.-'):rep(20) .. 'y') end", 143},
    }
    for name, e in pairs(endings) do
      local r, list = trace(work .. e[1])
      assert.are.equal(e[2], r.status, name)
      local done, open = 0, 0
      for _, s in ipairs(events(list, "X")) do
        done = done + (s.args.outcome == "done" and 1 or 0)
        -- A server that is closed before the end ends its jobs.
        local ended = s.args.outcome == "unfinished" or s.args.kind == "destroyed"
        open = open + (ended and 1 or 0)
      end
      assert.are.same({4, 1}, {done, open}, name)
    end
  end)

  it("is on the disk as the run goes: what kill -9 leaves lacks the bracket alone", function()
    local file = run.directory() .. "/trace.json"
    local p = child.start(start .. [[
      local n = 0
      for _ in server:imap(function(x) return x end, function() n = n + 1 return n end) do end
    ]], {options = {"--trace", file}})
    assert.is_true(child.eventually(function()
      return select(2, (run.read(file) or ""):gsub("\n", "\n")) > 20
    end))
    p:kill "KILL"
    child.finish(p)
    local text = run.read(file)
    local list = json.read(text:match "^(.*)\n?" .. "\n]")
    assert.is_true(#events(list, "X") > 10)
  end)

  it("that cannot be written is an error at once", function()
    local r = child.run("print 'ran'", {options = {"--trace", "/nowhere/at/all.json"}})
    assert.are.equal(1, r.status)
    assert.are.equal("", r.out)
    assert.are.equal(
      "ppsh: cannot write the trace '/nowhere/at/all.json': No such file or directory\n", r.err)
    r = run.ppsh {"--trace="}
    assert.are.equal(2, r.status)
    assert.matches("bad value for %-%-trace: '' %(a file name%)", r.err)
    r = run.ppsh {"--trace"}
    assert.are.equal(2, r.status)
  end)

  it("that cannot be written any more is told once, and makes the status 1", function()
    local r = child.run(start .. "print(server:spawn(math.sqrt, 4)())",
      {options = {"--trace", "/dev/full"}})
    assert.are.equal("2.0\n", r.out)
    assert.are.equal(1, r.status)
    assert.are.equal(
      "ppsh: error: cannot write the trace '/dev/full': No space left on device\n", r.err)
  end)

  it("is empty but for names where no job ran", function()
    local file = run.directory() .. "/trace.json"
    local r = child.run("print 'hello'", {options = {"--trace", file}})
    assert.are.equal(0, r.status)
    local list = json.read(run.read(file))
    assert.are.same({}, events(list, "X"))
  end)
end)

describe("--trace of hosts", function()
  local net
  setup(function()
    if remote.missing() then return end
    net = remote.new()
    net:sshd "tracehost"
  end)
  teardown(function()
    if net then net:close() end
  end)

  it("has each as a process, its jobs by this machine's clock", function()
    if remote.missing() then pending(remote.missing()) return end
    local r, list = trace([[
      local pp = require "pp"
      local server = pp.Server{ncpus = 1, hosts = "tracehost/2"}
      assert(server:wait_hosts(30))
      local jobs = {}
      for i = 1, 30 do
        jobs[i] = server:submit{function() require "pp".sleep(0.01) end, on = "tracehost"}
      end
      server:wait()
    ]], nil, {run = function(...) return net:run(...) end})
    assert.are.equal(0, r.status, r.err)
    local pid
    for _, e in ipairs(events(list, "M", "process_name")) do
      if e.args.name == "tracehost" then pid = e.pid end
    end
    local slices = events(list, "X")
    assert.are.equal(30, #slices)
    local ends = {}
    table.sort(slices, function(a, b) return a.ts < b.ts end)
    for _, e in ipairs(slices) do
      assert.are.equal(pid, e.pid)
      assert.is_true(e.args.send_us >= 0 and e.args.return_us >= 0)
      assert.is_true(e.ts >= (ends[e.tid] or 0))
      ends[e.tid] = e.ts + e.dur
    end
    assert.is_true(#events(list, "i", "connected") >= 1)
  end)
end)
