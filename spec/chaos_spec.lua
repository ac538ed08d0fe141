-- SPDX-License-Identifier: MIT
-- Thousands of jobs of all kinds while their workers are killed, stopped and
-- continued at random, and while no worker can be started for a time: every job
-- ends exactly once, with the right result or the right kind of failure.
local describe, it, assert, after_each = describe, it, assert, after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"

after_each(child.clean)

-- Arguments: seed, number of jobs, seconds for which workers are harmed.
local program = [=[
local pp = require "pp"
local seed, count, seconds = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
math.randomseed(seed)
server = pp.Server{ncpus = 3, retries = 1000}
local calls, checks, jobs = {}, {}, {}

-- The workers of this program, by the parent they have in common.
local function siblings()
  local function stat(path)
    local f = io.open(path)
    local text = f and f:read "a" or ""
    if f then f:close() end
    return text:match "^(%d+) .*%) %a (%d+)"
  end
  local me, zygote = stat "/proc/self/stat"
  local list = {}
  local p = io.popen "ls /proc"
  for name in p:lines() do
    local pid, parent = stat("/proc/" .. name .. "/stat")
    if pid and parent == zygote and pid ~= me then list[#list + 1] = pid end
  end
  p:close()
  return list
end

-- Harm other workers for some seconds.
local function harm(duration)
  local clock = require "pp".time
  local deadline = clock() + duration
  local n = 0
  while clock() < deadline do
    local list = siblings()
    if #list > 0 then
      local victim = list[math.random(#list)]
      local how = math.random(4)
      if how <= 2 then
        os.execute("kill -s KILL " .. victim .. " 2>/dev/null")
      elseif how == 3 then
        os.execute("kill -s SEGV " .. victim .. " 2>/dev/null")
      else
        os.execute(("kill -s STOP %s; sleep 0.05; kill -s CONT %s"):format(victim, victim)
          .. " 2>/dev/null")
      end
      n = n + 1
    end
    os.execute "sleep 0.02"
  end
  for _, pid in ipairs(siblings()) do os.execute("kill -s CONT " .. pid .. " 2>/dev/null") end
  return n
end

local function check(i, want, kind)
  return function(ok, v)
    if kind then
      assert(not ok, i .. " has not failed")
      assert(v.kind == kind, i .. " is " .. v.kind .. ", not " .. kind .. ": " .. tostring(v))
    else
      assert(ok, i .. ": " .. tostring(v))
      assert(v == want, i .. " is not what it should be")
    end
  end
end

local function fib(n)
  if n < 2 then return n end
  local s = pp.Server()
  local a, b = s:submit(fib, {n - 1}), s:submit(fib, {n - 2})
  return a() + b()
end

local numbers = {}
for i = 1, 1000 do numbers[i] = i end
local kept = server:put(numbers)
server:everywhere(function() set_up = (set_up or 0) + 1 end)

local makers = {
  function(i)
    local one = server:submit(function() return i, "more" end)
    local two = server:submit(function() return {one, i} end)
    return {function(a, b) return a + b[1] + b[2] end, args = {one, two}}, check(i, 3 * i)
  end,
  function(i)
    local bad = server:submit{function() error("bad " .. i) end, forget = true}
    return {function() return bad end}, check(i, nil, "error")
  end,
  function(i) return {function() return kept[i % 1000 + 1] end}, check(i, i % 1000 + 1) end,
  function(i) return {function() return set_up end}, check(i, 1) end,
  function(i)
    return {function() return server:submit(math.max, {i, server:submit(math.abs, {-i})})() end},
      check(i, i)
  end,
  function(i) return {function() return i * i end}, check(i, i * i) end,
  function(i) return {function() return ("x"):rep(200000) .. i end},
    check(i, ("x"):rep(200000) .. i) end,
  function(i) return {function(s) return #s end, args = {("y"):rep(300000 + i)}},
    check(i, 300000 + i) end,
  function(i) return {function() error("no " .. i) end}, check(i, nil, "error") end,
  function(i) return {function() os.exit(3) end, retries = 1}, check(i, nil, "lost") end,
  function(i)
    return {function() while true do end end, timeout = 0.05}, check(i, nil, "timeout")
  end,
  function(i) return {function() pcall(function() while true do end end) return i end,
    timeout = 0.05}, check(i, nil, "timeout") end,
  function(i)
    return {function() local t = {} for k = 1, 1e9 do t[k] = {k} end end, memory = 20000000},
      check(i, nil, "memory")
  end,
  function(i) return {function() os.execute "sleep 100 &" return i end}, check(i, i) end,
  function(i) return {function() return io.popen("echo " .. i):read "n" end}, check(i, i) end,
  function(i) return {function() print("line " .. i) return i end}, check(i, i) end,
  function(i)
    local x = 0
    return {function() x = x + 1 for _ = 1, 30000 do x = x + 1 end return x end}, check(i, 30001)
  end,
  function(i)
    return {function() return coroutine.wrap(function() coroutine.yield(i) end)() end}, check(i, i)
  end,
  function(i) return {fib, args = {5}}, check(i, 5) end,
  function(i)
    return {function() return pp.Server():map(math.abs, {-i, i})[1] end}, check(i, i)
  end,
  function(i) return {pp.sleep, args = {0.01}}, check(i, nil) end,
}

local harming = server:submit{harm, args = {seconds}, retries = 0, priority = 1}
for i = 1, count do
  local spec, verify = makers[math.random(#makers)](i)
  spec.callback = function() calls[i] = (calls[i] or 0) + 1 end
  jobs[i], checks[i] = server:submit(spec), verify
  if math.random(20) == 1 then
    local victim = math.random(i)
    if jobs[victim]:cancel() then checks[victim] = check(victim, nil, "cancelled") end
  end
  if math.random(50) == 1 then pp.sleep(0.01) end
end
local refusals = {os.getenv "PPSH_REFUSE_FORK", os.getenv "PPSH_REFUSE_PIPE"}
for _, path in ipairs(refusals) do
  io.open(path, "w"):close()
  pp.sleep(0.6)
  os.remove(path)
  pp.sleep(0.2)
end
local harmed = harming()
assert(harmed > 5, "nobody was harmed")
for i = 1, count do checks[i](jobs[i]:pcall()) end
for i = 1, count do assert(calls[i] == 1, i .. " ended " .. (calls[i] or 0) .. " times") end
local stats = server:get_stats()["local"]
assert(server:pending() == 0)
assert(stats.lost > 0 and stats.retried > 0)
assert(server:submit(math.abs, {-1})() == 1)
io.stderr:write "all is well\n"
]=]

local function chaos(seed, jobs, seconds, env)
  local args = {tostring(seed), tostring(jobs), tostring(seconds)}
  local r = child.run(program, {args = args, env = env, timeout = 240})
  assert.are.equal(0, r.status, r.err)
  assert.is_truthy(r.err:find("all is well", 1, true), r.err)
  for line in r.out:gmatch "[^\n]+" do assert.is_truthy(line:match "^line %d+$", line) end
  assert.are.same({}, child.left(r.tag))
end

local jobs = run.slowness > 1 and 400 or 1500

describe("chaos", function()
  it("loses nothing while workers are killed and stopped", function()
    chaos(1, jobs, 3)
  end)

  it("loses nothing while fork fails and descriptors run out for a while", function()
    local library = run.ppsh_path:gsub("[^/]*$", "librefuse.so")
    if child.sanitized() then return end -- its library must be the first
    assert(io.open(library), library .. " is not there"):close()
    local directory = run.directory()
    chaos(2, jobs // 2, 3, {
      LD_PRELOAD = library,
      PPSH_REFUSE_FORK = directory .. "/fork",
      PPSH_REFUSE_PIPE = directory .. "/pipe",
    })
  end)
end)
