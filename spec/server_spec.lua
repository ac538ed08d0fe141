-- SPDX-License-Identifier: MIT
-- Making, asking, resizing and ending a server.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end
local function pass(path) io.open(path):close() end

local function here() return debug.getinfo(2, "Sl") end
local function at(info, offset)
  return info.short_src .. ":" .. info.currentline + (offset or 1) .. ": "
end

--- The lines print_stats writes.
local function table_of(server)
  local file <close> = assert(io.tmpfile())
  server:print_stats(file)
  file:seek("set")
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  return lines
end

after_each(child.clean)

describe("pp.Server", function()
  it("takes a number of workers", function()
    local server <close> = pp.Server(3)
    assert.are.equal(3, server:get_ncpus())
    assert.are.equal("ok", server:submit(id, {"ok"})())
  end)

  it("takes a table of options", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0, name = "calc"}
    assert.are.equal(1, server:get_ncpus())
  end)

  it("starts a worker for each CPU this process may use by default", function()
    local plain <close> = pp.Server()
    assert.are.equal(pp.ncpus(), plain:get_ncpus())
    local empty <close> = pp.Server{}
    assert.are.equal(pp.ncpus(), empty:get_ncpus())
    local named <close> = pp.Server("autodetect")
    assert.are.equal(pp.ncpus(), named:get_ncpus())
    local option <close> = pp.Server{ncpus = "autodetect"}
    assert.are.equal(pp.ncpus(), option:get_ncpus())
  end)

  it("counts only the CPUs of the process's affinity", function()
    local r = child.run([[
      local pp = require "pp"
      print(pp.ncpus(), pp.Server():get_ncpus())
    ]], {setup = "taskset -p -c 0 $$ >/dev/null"})
    assert.are.equal("1\t1\n", r.out)
  end)

  it("takes its default from -j", function()
    local r = child.run([[
      local pp = require "pp"
      print(pp.Server():get_ncpus(), pp.Server(1):get_ncpus())
    ]], {options = {"-j", "3"}})
    assert.are.equal("3\t1\n", r.out)
  end)

  it("refuses an option it does not know, by name, at the caller's line",
    function()
      local line = here()
      local ok, err = pcall(function() pp.Server{ncpu = 2} end)
      assert.is_false(ok)
      assert.are.equal(at(line), err:sub(1, #at(line)))
      assert.is_truthy(err:find("'ncpu'", 1, true))
    end)

  it("refuses a number of workers that is none", function()
    for _, bad in ipairs{-1, 1.5, "many", {}, true} do
      assert.is_false(pcall(pp.Server, {ncpus = bad}))
    end
    assert.is_false(pcall(pp.Server, -1))
    assert.is_false(pcall(pp.Server, "many"))
  end)

  it("refuses options of the wrong type", function()
    for name, bad in pairs{retries = "2", name = 1, output = 7} do
      local ok, err = pcall(pp.Server, {[name] = bad})
      assert.is_false(ok, name)
      assert.is_truthy(tostring(err):find(name, 1, true), err)
    end
  end)

  it("can be had several times at once, each with its own workers", function()
    local one <close> = pp.Server(1)
    local two <close> = pp.Server(1)
    local a, b = one:submit(child.pid), two:submit(child.pid)
    assert.are_not.equal(a(), b())
    one:destroy()
    assert.are.equal(7, two:submit(id, {7})())
  end)
end)

describe("a server", function()
  it("names the active nodes", function()
    local server <close> = pp.Server(2)
    assert.are.same({["local"] = 2}, server:get_active_nodes())
  end)

  it("grows while jobs are running", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local first = server:submit(pass, {gate.path})
    local second = server:submit(pass, {gate.path})
    assert.is_truthy(child.eventually(function()
      return first.status == "running"
    end))
    assert.are.equal("queued", second.status)
    server:set_ncpus(2)
    assert.are.equal(2, server:get_ncpus())
    assert.are.same({["local"] = 2}, server:get_active_nodes())
    assert.is_truthy(child.eventually(function()
      return second.status == "running"
    end))
    gate:open()
    assert.is_true(server:wait(child.patience))
  end)

  it("lets running jobs finish when it shrinks", function()
    local gate = child.gate()
    local server <close> = pp.Server(2)
    local jobs = {}
    for i = 1, 2 do
      jobs[i] = server:submit(function(path)
        io.open(path):close()
        return "done"
      end, {gate.path})
    end
    assert.is_truthy(child.eventually(function()
      return jobs[1].status == "running" and jobs[2].status == "running"
    end))
    server:set_ncpus(1)
    assert.are.equal(1, server:get_ncpus())
    gate:open()
    for i = 1, 2 do
      assert.are.equal("done", jobs[i]())
      assert.are.equal(1, jobs[i].attempts)
    end
  end)

  it("runs no more jobs at once than it has shrunk to", function()
    local server <close> = pp.Server(3)
    server:set_ncpus(1)
    local pids = {}
    for _ = 1, 30 do pids[server:submit(child.pid)()] = true end
    local jobs = {}
    for i = 1, 30 do jobs[i] = server:submit(child.pid) end
    for i = 1, 30 do pids[jobs[i]()] = true end
    assert.is_nil(next(pids, (next(pids))))
  end)

  it("takes back the number of CPUs by set_ncpus('autodetect')", function()
    local server <close> = pp.Server(pp.ncpus() + 1)
    server:set_ncpus("autodetect")
    assert.are.equal(pp.ncpus(), server:get_ncpus())
    assert.are.equal(1, server:submit(id, {1})())
  end)

  it("refuses a size that is none and keeps the one it has", function()
    local server <close> = pp.Server(2)
    for _, bad in ipairs{-1, 1.5, "many", {}} do
      assert.is_false(pcall(server.set_ncpus, server, bad))
    end
    local ok, err = pcall(server.set_ncpus, server)
    assert.is_false(ok)
    assert.is_truthy(err:find("bad argument #1 to 'set_ncpus' (ncpus must be an integer >= 0 "
      .. "or 'autodetect', got nil)", 1, true), err)
    assert.are.equal(2, server:get_ncpus())
  end)

  it("gives the next job to the worker that worked last", function()
    local server <close> = pp.Server(3)
    local function where() return pp.job.worker end
    server:everywhere(where)
    local first = server:submit(where)()
    for _ = 1, 10 do assert.are.equal(first, server:submit(where)()) end
  end)

  it("is kept alive by a live job", function()
    local job = pp.Server(1):submit(id, {"still here"})
    collectgarbage()
    collectgarbage()
    assert.are.equal("still here", job())
  end)

  it("ends its workers when it is collected", function()
    local pid = pp.Server(1):submit(child.pid)()
    assert.is_truthy(child.eventually(function()
      collectgarbage()
      return not child.alive(pid)
    end))
  end)
end)

describe("get_stats", function()
  it("has an entry for the local node from the start", function()
    local server <close> = pp.Server(2)
    local stats = server:get_stats()
    local entry = stats["local"]
    assert.is_nil(next(stats, (next(stats))))
    for _, name in ipairs{"ncpus", "njobs", "time", "failed", "retried", "lost",
      "cpu", "maxrss", "sent", "received"} do
      assert.are.equal("number", type(entry[name]), name)
    end
    assert.are.equal("string", type(entry.state))
    assert.is_nil(entry.reason)
    assert.are.equal(2, entry.ncpus)
    assert.are.equal(0, entry.njobs)
    assert.are.equal(0, entry.failed)
    assert.are.equal(0, entry.retried)
    assert.are.equal(0, entry.lost)
  end)

  it("counts each job once, and the failed ones", function()
    local server <close> = pp.Server(2)
    for i = 1, 10 do server:submit(id, {i}) end
    for _ = 1, 3 do
      local job = server:submit(function() error("no") end)
      assert.is_false((job:pcall()))
    end
    assert.is_true(server:wait())
    local entry = server:get_stats()["local"]
    assert.are.equal(13, entry.njobs)
    assert.are.equal(3, entry.failed)
  end)

  it("adds up what jobs ran, sent and received", function()
    local server <close> = pp.Server(1)
    local text = ("x"):rep(100000)
    assert.are.equal(text, server:submit(id, {text})())
    local job = server:submit(function()
      local x = 0
      for i = 1, 3000000 do x = x + i % 7 end
      return x
    end)
    job()
    local entry = server:get_stats()["local"]
    assert.is_true(entry.sent >= 100000)
    assert.is_true(entry.received >= 100000)
    assert.is_true(entry.time > 0)
    assert.is_true(entry.time >= job.time.run)
    assert.is_true(entry.cpu >= 0)
    assert.is_true(entry.maxrss > 0)
  end)

  it("counts a retried job once, with its retries and lost workers", function()
    local server <close> = pp.Server{ncpus = 1, retries = 2}
    local job = server:submit(function() os.exit(9) end)
    assert.is_false((job:pcall()))
    local entry = server:get_stats()["local"]
    assert.are.equal(1, entry.njobs)
    assert.are.equal(1, entry.failed)
    assert.are.equal(2, entry.retried)
    assert.are.equal(3, entry.lost)
  end)
end)

describe("print_stats", function()
  local header = {
    "Job execution statistics:",
    " job count | % of all jobs | job time sum | time per job | job server",
  }
  local row = "^ +(%d+) |  +(%d+%.%d%d) |  +(%d+%.%d%d%d%d) |"
    .. "  +(%d+%.%d%d%d%d%d%d) | local$"

  it("prints parallelpython's table", function()
    local server <close> = pp.Server(2)
    for i = 1, 8 do server:submit(id, {i}) end
    server:wait()
    local lines = table_of(server)
    assert.are.equal(header[1], lines[1])
    assert.are.equal(header[2], lines[2])
    local count, percent, sum, each = lines[3]:match(row)
    assert.are.equal("8", count)
    assert.are.equal("100.00", percent)
    assert.are.equal(
      ("    %6d |        %6.2f |     %8.4f |  %11.6f | %s"):format(8, 100,
        tonumber(sum), tonumber(each), "local"), lines[3])
    local time = server:get_stats()["local"].time
    assert.are.equal(("%.4f"):format(time), sum)
    assert.are.equal(("%.6f"):format(time / 8), each)
    local elapsed = lines[4]:match("^Time elapsed since server creation (%S+)$")
    assert.are.equal(elapsed, ("%.17g"):format(tonumber(elapsed)))
    assert.are.equal("0 active tasks, 2 cores", lines[5])
    assert.are.equal("", lines[6])
    assert.are.equal(6, #lines)
  end)

  it("prints a row only for nodes with jobs", function()
    local server <close> = pp.Server(1)
    local lines = table_of(server)
    assert.are.equal(header[2], lines[2])
    assert.is_truthy(lines[3]:find("^Time elapsed since server creation "))
    assert.are.equal("0 active tasks, 1 cores", lines[4])
    assert.are.equal("", lines[5])
    assert.are.equal(5, #lines)
  end)

  it("counts the tasks that are active", function()
    local gate = child.gate()
    local server <close> = pp.Server(1)
    local job = server:submit(pass, {gate.path})
    assert.is_truthy(child.eventually(function()
      return job.status == "running"
    end))
    assert.are.equal("1 active tasks, 1 cores", table_of(server)[4])
    gate:open()
    job()
    assert.are.equal("0 active tasks, 1 cores", table_of(server)[5])
  end)

  it("has a line for failed, retried and lost when one is not zero", function()
    local server <close> = pp.Server{ncpus = 1, retries = 1}
    server:submit(function() error("no") end):pcall()
    local lines = table_of(server)
    assert.are.equal("1 failed, 0 retried, 0 lost workers", lines[6])
    assert.are.equal("", lines[7])
    assert.are.equal(7, #lines)
    server:submit(function() os.exit(1) end):pcall()
    lines = table_of(server)
    assert.are.equal("2 failed, 1 retried, 2 lost workers", lines[6])
  end)

  it("prints on standard output by default", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      server:submit(function() end)()
      print("before")
      server:print_stats()
      print("after")
    ]])
    local lines = {}
    for line in r.out:gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
    assert.are.equal(8, #lines)
    assert.are.equal("before", lines[1])
    assert.are.equal(header[1], lines[2])
    assert.are.equal("", lines[7])
    assert.are.equal("after", lines[8])
    assert.are.equal("", r.err)
  end)
end)

describe("destroy", function()
  it("keeps the results of jobs that have ended", function()
    local server = pp.Server(1)
    local job = server:submit(id, {1, nil, 3})
    assert.is_true(job:wait())
    server:destroy()
    assert.are.same({1, nil, 3, n = 3}, table.pack(job()))
  end)

  it("fails unfinished jobs, running or queued, with kind 'destroyed'",
    function()
      local gate = child.gate()
      local server = pp.Server(1)
      local running = server:submit(pass, {gate.path})
      local queued = server:submit(id, {1})
      assert.is_truthy(child.eventually(function()
        return running.status == "running"
      end))
      server:destroy()
      for _, job in ipairs{running, queued} do
        assert.are.equal("failed", job.status)
        assert.is_true(job.finished)
        assert.is_true(job:wait(0))
        local ok, err = job:pcall()
        assert.is_false(ok)
        assert.are.equal("destroyed", err.kind)
        assert.is_true(pp.is_error(err))
      end
    end)

  it("makes later submits raise, in every form", function()
    local server = pp.Server(1)
    local template = pp.Template(server, id)
    server:destroy()
    assert.is_false(pcall(server.submit, server, id))
    assert.is_false(pcall(server.submit, server, {id}))
    assert.is_false(pcall(server.spawn, server, id))
    assert.is_false(pcall(template.submit, template, 1))
    local line = here()
    local ok, err = pcall(function() server:submit(id) end)
    assert.is_false(ok)
    assert.are.equal(at(line), tostring(err):sub(1, #at(line)))
  end)

  it("may be called again", function()
    local server <close> = pp.Server(1)
    server:destroy()
    server:destroy()
  end)

  it("ends the workers", function()
    local server = pp.Server(1)
    local pid = server:submit(child.pid)()
    assert.is_true(child.alive(pid))
    server:destroy()
    assert.is_truthy(child.eventually(function()
      return not child.alive(pid)
    end))
  end)

  it("happens at the end of a <close> variable's scope, by error too",
    function()
      local kept
      do
        local server <close> = pp.Server(1)
        kept = server
        server:submit(id)()
      end
      assert.is_false(pcall(kept.submit, kept, id))
      local ok, err = pcall(function()
        local server <close> = pp.Server(1)
        kept = server
        error("through")
      end)
      assert.is_false(ok)
      assert.is_truthy(err:find("through", 1, true))
      assert.is_false(pcall(kept.submit, kept, id))
    end)
end)

describe("pp", function()
  it("tells a monotonic time in seconds", function()
    local a = pp.time()
    local b = pp.time()
    assert.are.equal("float", math.type(a))
    assert.is_true(b >= a)
  end)

  it("sleeps at least as long as told", function()
    local start = pp.time()
    pp.sleep(0.02)
    assert.is_true(pp.time() - start >= 0.02)
    pp.sleep(0)
  end)

  it("wakes up in time again on a busy CPU", function()
    -- Eight programs on one CPU are often off it just when they set a timer.
    local all = {}
    for i = 1, 8 do
      all[i] = child.start([[
        local pp = require "pp"
        local server = pp.Server(1)
        for _ = 1, 1500 do
          pp.sleep(0.0001)
          for _ = 1, 20000 do end
        end
        print(server:submit(function() return "awake" end)())
      ]], {setup = "taskset -p -c 0 $$ >/dev/null"})
    end
    for i = 1, 8 do
      assert.are.equal("awake\n", child.finish(all[i]).out)
    end
  end)

  it("counts CPUs", function()
    assert.are.equal("integer", math.type(pp.ncpus()))
    assert.is_true(pp.ncpus() >= 1)
  end)
end)
