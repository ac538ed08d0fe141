-- SPDX-License-Identifier: MIT
-- What ppsh takes when it does little, and when it does much with many: CPU,
-- memory, descriptors.

local after_each, assert, describe, it = after_each, assert, describe, it
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local pp = require "pp"
local child = require "spec.support.child"
local run = require "spec.support.run"

after_each(child.clean)

--- Lines that a command prints.
local function lines_of(command)
  local t = {}
  for line in child.output_of(command):gmatch "[^\n]+" do t[#t + 1] = line end
  return t
end

--- How often the threads of these processes have gone to sleep or been put
-- aside, in all.
local function switches(pids)
  local n, threads = 0, 0
  for _, pid in ipairs(pids) do
    for _, path in ipairs(lines_of(("ls -d /proc/%d/task/*"):format(pid))) do
      threads = threads + 1
      local status = run.read(path .. "/status") or ""
      for count in status:gmatch "voluntary_ctxt_switches:%s*(%d+)" do
        n = n + count
      end
    end
  end
  return n, threads
end

--- Do they sleep for so long, all of them?
local function sleep_on(pids, seconds)
  local before = switches(pids)
  os.execute("sleep " .. seconds)
  return switches(pids) == before
end

describe("an idle ppsh with idle workers", function()
  local function is_quiet(wait)
    local p = child.start(([[
      local pp = require "pp"
      local server = pp.Server(2)
      for _ = 1, 100 do server:spawn(function() end)() end
      print("idle")
      io.stdout:flush()
      %s
    ]]):format(wait), {timeout = 4 * child.patience})
    p:expect "idle"
    local pids = child.tagged(p.tag)
    local _, threads = switches(pids)
    assert.is_true(threads >= 5) -- script, standby, zygote, two workers
    assert.is_true(child.eventually(function()
      -- with that sanitizer's memory a worker is one that has grown
      return sleep_on(pids, child.sanitized() and 1.2 or 0.2)
    end))
    assert.is_true(sleep_on(pids, 1.5))
    p:kill "TERM"
    child.finish(p)
  end

  -- That sanitizer has a thread of its own, which wakes up now and then.
  if not child.sanitized "tsan" then
    it("wakes nobody while the script sleeps", function()
      is_quiet "pp.sleep(1000)"
    end)

    it("wakes nobody while the script is in a program it started", function()
      is_quiet [[os.execute "exec sleep 1000"]]
    end)
  end
end)

describe("jobs that come one at a time", function()
  it("go to the worker that has worked last", function()
    local server <close> = pp.Server(3)
    server:everywhere(function() end)
    local first = server:spawn(function() end)
    first()
    for _ = 1, 20 do
      local job = server:spawn(function() end)
      job()
      assert.equal(first.worker, job.worker)
    end
  end)

  it("do not wait for each other where there are several", function()
    local server <close> = pp.Server(3)
    for _ = 1, 20 do server:spawn(function() end)() end
    local gate = child.gate()
    local function pass(path) io.open(path):close() end
    local held = {server:spawn(pass, gate.path), server:spawn(pass, gate.path)}
    for _ = 1, 20 do server:spawn(function() end)() end
    gate:open()
    for _, job in ipairs(held) do job() end
  end)
end)

if not child.sanitized() then
  describe("memory", function()
    --- Proportional set size of a process, KB.
    local function pss(pid)
      local text = run.read(("/proc/%d/smaps_rollup"):format(pid)) or ""
      return tonumber(text:match "\nPss:%s*(%d+)")
    end

    it("is a quarter of a megabyte for an idle worker", function()
      local server <close> = pp.Server(2)
      for _, call in ipairs(server:everywhere(child.pid)) do
        local kb
        local rests = child.eventually(function()
          kb = pss(call[1])
          return kb <= 250
        end)
        assert.is_true(rests, kb .. " KB")
      end
    end)

    --- KB of program and libraries, and of stack, that a process has mapped.
    local function mapped(pid)
      local code, stack, kind = 0, 0, nil
      for line in io.lines(("/proc/%d/smaps"):format(pid)) do
        if line:match "^%x+%-%x+ " then
          kind = line:match "^%S+ r.xp .*/" and "code" or line:match "%[stack%]$"
        end
        local rss = tonumber(line:match "^Rss:%s*(%d+)")
        if rss and kind == "code" then
          code = code + rss
        elseif rss and kind then
          stack = stack + rss
        end
      end
      return code, stack
    end

    it("of code and of stack is given back by a worker that rests", function()
      local server <close> = pp.Server(1)
      local pid = server:everywhere(child.pid)[1][1]
      local function deep(n) -- on the C stack
        return n == 0 and 0 or
          select(2, pcall(string.gsub, "x", "x", function() return deep(n - 1) end))
      end
      for _ = 1, 2 do
        assert.equal("0", server:spawn(deep, 60)())
        assert.is_true(child.eventually(function()
          local code, stack = mapped(pid)
          return code <= 64 and stack <= 32
        end))
      end
    end)

    it("of code is given back while a job waits for another", function()
      local server <close> = pp.Server(2)
      local pids = server:everywhere(child.pid)
      local gate = child.gate()
      local outer = server:spawn(function(path)
        return server:spawn(function() io.open(path):close() return 2 end)() + 1
      end, gate.path)
      assert.is_true(child.eventually(function()
        return mapped(pids[1][1]) <= 64 or mapped(pids[2][1]) <= 64
      end))
      gate:open()
      assert.equal(3, outer())
    end)

    it("that a large job took is given back by a worker that rests", function()
      local server <close> = pp.Server(1)
      local pid = server:everywhere(child.pid)[1][1]
      assert.equal(200000, server:spawn(function()
        local t = {}
        for i = 1, 200000 do t[i] = {i} end
        return #t
      end)())
      assert.is_true(child.eventually(function() return pss(pid) <= 2048 end))
      assert.equal(1, server:spawn(function() return 1 end)())
    end)

    it("is three megabytes for all of a ppsh with two workers", function()
      local p = child.start([[
        local pp = require "pp"
        local server = pp.Server(2)
        server:everywhere(function() end)
        print("idle")
        io.stdout:flush()
        pp.sleep(1000)
      ]])
      p:expect "idle"
      local all = 0
      for _, pid in ipairs(child.tagged(p.tag)) do all = all + pss(pid) end
      assert.is_true(all > 0 and all <= 3072, all .. " KB")
      p:kill "TERM"
      child.finish(p)
    end)
  end)
end

describe("many workers", function()
  local many = child.sanitized() and 60 or 1000

  it("all start, run jobs and are gone in the end", function()
    local r = child.run(([[
      local pp = require "pp"
      local server = pp.Server(%d)
      local up = 0
      for _, call in ipairs(server:everywhere(function() return 1 end)) do
        up = up + call[1]
      end
      local jobs, sum = {}, 0
      for i = 1, 20000 do
        jobs[i] = server:spawn(function(x) return x end, i)
      end
      for i = 1, 20000 do sum = sum + jobs[i]() end
      print(up, sum)
    ]]):format(many))
    assert.equal("", r.err)
    assert.equal(("%d\t%d\n"):format(many, 20000 * 20001 // 2), r.out)
    assert.equal(0, r.status)
    assert.same({}, child.left(r.tag))
  end)

  it("are fewer where descriptors run out, which is said", function()
    local r = child.finish(run.start({"sh", "-c",
      'ulimit -n 100 && exec "$0" "$@"', run.ppsh_path, "-e", [[
        local pp = require "pp"
        local server = pp.Server(100)
        local jobs = {}
        for i = 1, 200 do jobs[i] = server:spawn(function(x) return x end, i) end
        local sum = 0
        for i = 1, 200 do sum = sum + jobs[i]() end
        print(sum)
      ]]}, {timeout = 2 * child.patience, stdin_file = "/dev/null"}))
    assert.equal("20100\n", r.out)
    assert.truthy(r.err:find("Too many open files", 1, true))
    assert.equal(0, r.status)
  end)
end)

describe("the library", function()
  it("keeps the names of its files and the numbers of their lines", function()
    local info = debug.getinfo(pp.Template, "Sl")
    assert.equal("@pp/init.lua", info.source)
    local n, found = 0, nil
    for line in io.lines "lua/pp/init.lua" do
      n = n + 1
      if n == info.linedefined then found = line end
    end
    assert.truthy(found and found:find("Template", 1, true))
  end)
end)
