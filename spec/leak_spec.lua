-- SPDX-License-Identifier: MIT
-- Descriptors, children and memory stay flat, however much has been done.
local describe, it, assert, after_each = describe, it, assert, after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"

-- Measures the driver, its zygote and a worker. What the measuring itself adds
-- (a shell, a pipe) is the same each time.
local measuring = [[
  local pp = require "pp"
  local server = pp.Server{ncpus = 2, retries = 0}

  local function text(command)
    local pipe = io.popen(command)
    local all = pipe:read("a")
    pipe:close()
    return all
  end

  -- children of a process, zombies too, without the one that measures
  local function children(pid)
    local n = 0
    for parent in text("cat /proc/[0-9]*/stat 2>/dev/null")
      :gmatch("%) %a (%d+) ") do
      if tonumber(parent) == pid then n = n + 1 end
    end
    return n
  end

  local function descriptors(pid)
    return tonumber(text(("ls /proc/%d/fd | wc -l"):format(pid)))
  end

  local function read(path)
    local file <close> = io.open(path)
    return file:read("a")
  end

  local function kilobytes(pid)
    local all = read(("/proc/%d/status"):format(pid))
    return tonumber(all:match("VmRSS:%s*(%d+)"))
  end

  local function self_and_parent()
    local pid, parent = read("/proc/self/stat"):match("^(%d+).*%) %a (%d+) ")
    return tonumber(pid), tonumber(parent)
  end

  -- Wait until the workers that were let go are gone, with their pipes.
  local function settle()
    local _, zygote = server:submit(self_and_parent)()
    local deadline = pp.time() + 30
    repeat
      collectgarbage()
      pp.sleep(0.01)
    until children(zygote) <= 2 or pp.time() > deadline
    for _ = 1, 10 do pp.sleep(0.001) end
  end

  local function measure()
    local driver = self_and_parent()
    local worker, zygote = server:submit(self_and_parent)()
    collectgarbage()
    collectgarbage()
    return {
      {"descriptors of the driver", descriptors(driver), 3},
      {"descriptors of the zygote", descriptors(zygote), 3},
      {"descriptors of a worker", descriptors(worker), 3},
      {"children of the driver", children(driver), 1},
      {"children of the zygote", children(zygote), 1},
      {"kilobytes of Lua", collectgarbage("count") // 1 | 0, 256},
      {"kilobytes of the driver", kilobytes(driver), KILOBYTES},
      {"kilobytes of the zygote", kilobytes(zygote), KILOBYTES},
      {"kilobytes of a worker", kilobytes(worker), KILOBYTES},
    }
  end

  -- A leak for each job or death is far over these bounds; what is under way at
  -- the moment of measuring is not.
  local function compare(before, after, more)
    for i, m in ipairs(after) do
      local name, value, slack = table.unpack(m)
      if more and name:find("kilobytes") then slack = slack + more end
      if value > before[i][2] + slack then
        print(name .. ": " .. before[i][2] .. " -> " .. value)
      end
    end
    print("compared")
  end
]]

-- What a sanitizer keeps of freed memory is bounded, but not small.
local kilobytes = child.sanitized() and 65536 or 3072
measuring = measuring:gsub("KILOBYTES", tostring(kilobytes))

local function flat(script)
  local r = child.run(measuring .. script, {
    timeout = 10 * child.patience,
    env = {ASAN_OPTIONS = (os.getenv "ASAN_OPTIONS" or "")
      .. ":quarantine_size_mb=4:thread_local_quarantine_size_kb=64"},
  })
  assert.are.equal("compared\n", r.out, r.err)
  assert.are.equal("", r.err)
  assert.are.equal(0, r.status)
end

after_each(child.clean)

describe("descriptors, children and memory stay flat", function()
  it("over 10,000 jobs with code, captures, arguments, results and callbacks",
    function()
      flat [[
        -- Every job is asked or has a callback: what nobody has asked about is
        -- kept, and rightly so.
        local sum = 0
        local function add(r) sum = sum + r[1][1] end
        local function round(n)
          for i = 1, n // 4 do
            local captured = {i, tostring(i)}
            server:submit{function(t) return {t, captured} end,
              args = {{i, ("x"):rep(100)}}, group = "g", callback = add}
            local jobs = {
              server:submit(function(...) return ... end, {i}),
              server:spawn(function(x) return function() return x + i end end, i),
              server:submit(function() error({i}) end),
            }
            -- code never seen before, too, now and then
            if i % 25 == 0 then jobs[4] = server:submit(load("return " .. i)) end
            for _, job in ipairs(jobs) do job:pcall() end
          end
          server:wait()
        end
        round(10000)
        local before = measure()
        round(10000)
        compare(before, measure())
      ]]
    end)

  it("over 1,000 deaths of workers", function()
    flat [[
      local function round(n)
        for i = 1, n do
          local job = server:submit(function() os.exit(1) end)
          server:submit(function() end)()
          server:submit(function() end)()
          if job:pcall() then error("should have been lost") end
        end
      end
      round(50)
      local before = measure()
      round(1000)
      compare(before, measure())
    ]]
  end)

  it("over 100 servers", function()
    flat [[
      local function round(n)
        for i = 1, n do
          local other = pp.Server(2)
          other:submit(function() return i end)()
          if i % 2 == 0 then other:destroy() end
          other = nil
          if i % 10 == 0 then collectgarbage() end
        end
        settle()
      end
      round(20)
      local before = measure()
      round(100)
      compare(before, measure())
    ]]
  end)

  it("over 300 changes of size", function()
    flat [[
      local function round(n)
        for i = 1, n do
          server:set_ncpus(1 + i % 4)
          server:submit(function() end)()
        end
        server:set_ncpus(2)
        settle()
      end
      round(50)
      local before = measure()
      round(300)
      compare(before, measure())
    ]]
  end)

  it("over 2,000 jobs with output and child processes", function()
    flat [[
      local function round(n)
        for i = 1, n do
          local job = server:submit(function()
            io.stderr:write("")
            local pipe = io.popen("true")
            pipe:close()
            if i % 20 == 0 then os.execute("sleep 1000 >/dev/null 2>&1 &") end
          end)
          if i % 20 == 0 then job() end
        end
        server:wait()
      end
      round(200)
      local before = measure()
      round(2000)
      compare(before, measure())
    ]]
  end)

  it("over 300 megabytes there and back", function()
    flat [[
      local text = ("x"):rep(3 << 20)
      local function round(n)
        for _ = 1, n do
          if #server:submit(function(s) return s end, {text})() ~= #text then
            error("bytes were lost")
          end
        end
      end
      round(20)
      local before = measure()
      round(100)
      compare(before, measure(), 32768) -- a few texts not yet collected
    ]]
  end)

  it("over 5,000 submits that were refused", function()
    flat [[
      local file = io.tmpfile()
      local function round(n)
        for i = 1, n do
          if pcall(server.submit, server, function() return file end)
            or pcall(server.submit, server, print, {{i, {file}}})
            or pcall(server.submit, server, "x") then
            error("should have been refused")
          end
        end
      end
      round(500)
      local before = measure()
      round(5000)
      compare(before, measure())
    ]]
  end)
end)
