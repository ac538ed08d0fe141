-- SPDX-License-Identifier: MIT
-- Large strings that go to hosts from where they are.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

-- What the scripts begin with: strings that tell where they were torn, and what
-- is left of one that has gone somewhere.
local prelude = [[
  local pp = require "pp"
  local MB = 1 << 20
  local function text(size, seed)
    local words = {}
    for i = 1, 4096 do words[i] = ("%07x%08x\n"):format(i, (seed or 1) * i * 7919 % (1 << 32)) end
    return (table.concat(words)):rep(size // 65536 + 1):sub(1, size)
  end
  local function sum(s)
    local a = #s
    for i = 1, #s, 4093 do a = (a * 31 + s:byte(i)) % (1 << 40) end
    return a
  end
  local function memory(what)
    return tonumber(io.open "/proc/self/status":read "a":match(what .. ":%s*(%d+) kB")) * 1024
  end
  local function wait_for(path)
    while not io.open(path) do pp.sleep(0.01) end
  end
  local s = pp.Server{ncpus = 0, hosts = "h1/1"}
]]

describe("a large string for a host", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net
  setup(function()
    net = remote.new()
    net:sshd "h1"
  end)
  teardown(function() net:close() end)

  local function start(script, options) return net:start(prelude .. script, options) end

  local function finish(p)
    local r = child.finish(p)
    assert.is_nil(r.late, r.err)
    return r
  end

  --- What a script prints that ends well and says nothing else.
  local function out(script)
    local r = finish(start(script))
    assert.are.same({"", 0}, {r.err, r.status}, r.out)
    return r.out
  end

  --- The agent at the host.
  local function agent()
    return run.poll(function() return net:processes "h1"["pp-agent"] end, 30)[1]
  end

  --- Start a script that says that it is up, and suspend the agent: of what it
  -- sends once the file arg[1] is there only a part goes.
  local function start_stuck(script)
    local go = net.lab:path("go" .. math.random(1 << 40))
    -- Handles made as the state closes are not finalized: they leak.
    local late = child.sanitized "asan" and "0" or "3"
    local p = start(script, {args = {go, late}})
    p:expect "up\n"
    p.agent = agent()
    child.kill("STOP", p.agent)
    assert(io.open(go, "w")):close()
    return p
  end

  it("is not copied", function()
    local why = child.sanitized "asan"
    if why then return pending "memory is the sanitizer's" end
    assert.are.equal("true\ttrue\ttrue\n", out [[
      s:wait_hosts()
      local big = text(64 * MB)
      local peak, shared = memory "VmHWM", memory "RssShmem"
      local job = s:submit(sum, {big})
      print(job() == sum(big), memory "RssShmem" - shared < 16 * MB,
        memory "VmHWM" - peak < 32 * MB)
    ]])
  end)

  it("is there as long as it is needed, and no longer", function()
    assert.are.equal("true\ttrue\ntrue\ntrue\n", out [[
      s:wait_hosts()
      local want, got, before = {}, {}, collectgarbage "count"
      local first = s:submit(function() pp.sleep(1000) end)
      for i = 1, 4 do
        local big = text(16 * MB, i)
        want[i] = sum(big)
        s:submit{sum, args = {big}, callback = function(n) got[i] = n end}
      end
      collectgarbage()
      collectgarbage()
      local held = collectgarbage "count" - before
      first:cancel()
      for i = 1, 20 do text(MB, i + 100) end
      s:wait()
      collectgarbage()
      collectgarbage()
      print(held > 64 * 1024 - 1, collectgarbage "count" - before < 16 * 1024)
      print(table.concat(got, " ") == table.concat(want, " "))
      s:submit{sum, args = {text(16 * MB)}, forget = true}
      s:wait()
      collectgarbage()
      collectgarbage()
      print(collectgarbage "count" - before < 16 * 1024)
    ]])
  end)

  it("may come after other arguments, and be one of several", function()
    assert.are.equal("true\n", out [[
      local function all(...)
        local t = {...}
        for i = 1, select("#", ...) do
          t[i] = type(t[i]) == "string" and #t[i] > 99 and sum(t[i]) or tostring(t[i])
        end
        return table.concat(t, " ")
      end
      local a, b = text(3 * MB, 5), text(2 * MB, 6)
      local long = ("long"):rep(100)
      local lists = {
        {a}, {1, a}, {"x", true, 2.5, -7, a}, {nil, a, n = 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, a},
        {a, a}, {a, b}, {long, a}, {a, 1}, {b, long}, {a, nil, n = 2},
      }
      local jobs = {}
      for i, list in ipairs(lists) do
        jobs[i] = s:submit{all, args = list, modules = i % 2 == 0 and {"string"} or nil}
      end
      for i, list in ipairs(lists) do
        local want, got = all(table.unpack(list, 1, list.n)), jobs[i]()
        if want ~= got then print(i, want, got) end
      end
      print(s:spawn(all, 1, a)() == all(1, a))
    ]])
  end)

  it("counts in the bytes of its job", function()
    assert.are.equal("1000000\n", out [[
      s:submit(sum, {"warm"})()
      local function sent(n)
        local big, had = text(n), s:get_stats().h1.sent
        s:submit(sum, {big})()
        return s:get_stats().h1.sent - had
      end
      print(sent(4000000) - sent(3000000))
    ]])
  end)

  it("goes with what other jobs give, and with what was captured", function()
    assert.are.equal("true\ttrue\ttrue\ttrue\n", out [[
      local big, other = text(3 * MB, 2), text(3 * MB, 3)
      local first = s:submit(function(x) return x end, {big})
      local second = s:submit(function(x, y) return sum(x) + sum(y) end, {first, other})
      local third = s:submit(function(x) return sum(x) + sum(other) end, {big})
      local both = sum(big) + sum(other)
      print(second() == both, third() == both, first() == big,
        s:everywhere(sum, big)["h1/1"] == nil or true)
    ]])
  end)

  it("is the same at every attempt", function()
    local p = start [[
      local function work(x)
        print("at", pp.job.attempt)
        io.stdout:flush()
        if pp.job.attempt == 1 then pp.sleep(1000) end
        if pp.job.attempt == 2 then error "again" end
        return sum(x)
      end
      local want = sum(text(16 * MB, 9))
      local job = s:submit{work, args = {text(16 * MB, 9)}, retry_errors = 1}
      collectgarbage()
      collectgarbage()
      print(job() == want, job.attempts)
      print(select(2, s:submit{error, args = {text(3 * MB)}}:pcall()).message == text(3 * MB))
    ]]
    p:expect "at\t1\n"
    child.kill("KILL", agent())
    local r = finish(p)
    assert.matches("at\t2\n.*at\t3\n.*true\t3\ntrue\n$", r.out)
  end)

  it("goes again from the beginning when its host is lost on the way", function()
    local p = start_stuck [[
      s:submit(sum, {"warm"})()
      print "up"
      io.stdout:flush()
      wait_for(arg[1])
      local want = sum(text(32 * MB, 4))
      local job = s:submit(sum, {text(32 * MB, 4)})
      collectgarbage()
      collectgarbage()
      pp.sleep(0.2)
      print "sent"
      io.stdout:flush()
      print(job() == want)
    ]]
    p:expect "sent\n"
    child.kill("KILL", p.agent)
    assert.matches("\ntrue\n$", finish(p).out)
  end)

  it("goes to workers here when those have come meanwhile", function()
    assert.are.equal("true\tlocal\n", out [[
      s:submit(sum, {"warm"})()
      local held = s:submit(function() pp.sleep(1000) end)
      local job = s:submit(sum, {text(16 * MB, 4)})
      local more = {}
      for i = 1, 4 do more[i] = s:submit(sum, {text(16 * MB, i)}) end
      s:set_ncpus(1)
      held:cancel()
      s:remove_host "h1"
      local ok = job() == sum(text(16 * MB, 4))
      for i = 1, 4 do ok = ok and more[i]() == sum(text(16 * MB, i)) end
      print(ok, more[4].node)
    ]])
  end)

  it("is let go by jobs that are cancelled, late or destroyed", function()
    assert.are.equal("cancelled\ntimeout\ncancelled\ndestroyed\ndestroyed\ntrue\n", out [[
      local before = collectgarbage "count"
      local function held(x)
        pp.sleep(1000)
        return x
      end
      local function kind(job) print(select(2, job:pcall()).kind) end
      local running = s:submit(held, {text(8 * MB)})
      while running.status ~= "running" do pp.sleep(0.01) end
      running:cancel()
      kind(running)
      kind(s:submit{held, args = {text(8 * MB)}, timeout = 0.5})
      local at = s:submit(held, {text(8 * MB)})
      local waiting = s:submit(held, {text(8 * MB)})
      local last = s:submit(held, {text(8 * MB)})
      waiting:cancel()
      kind(waiting)
      s:destroy()
      kind(at)
      kind(last)
      repeat
        pp.sleep(0.01) -- until its workers are gone
        collectgarbage()
        collectgarbage()
      until collectgarbage "count" - before < 8 * 1024
      print(true)
    ]])
  end)

  -- However it ends, what is half sent is not looked at any more.
  local ends = {
    ["by its end"] = {"", 0},
    ["by os.exit"] = {"os.exit(3)", 3},
    ["by os.exit, the state closed"] = {"os.exit(3, true)", 3},
    ["by os.exit in a finalizer"] = {"setmetatable({}, {__gc = function() "
      .. "s:submit(sum, {text(8 * MB)}) os.exit(3, true) end}) collectgarbage()", 3},
    ["by an error"] = {"error 'no more'", 1},
    ["once its server is destroyed"] = {"s:destroy() pp.sleep(0.2) os.exit(3, true)", 3},
  }
  for how, what in pairs(ends) do
    it("is on its way as the script ends " .. how, function()
      local p = start_stuck([[
        s:submit(sum, {"warm"})()
        print "up"
        io.stdout:flush()
        wait_for(arg[1])
        local late = setmetatable({}, {__gc = function()
          for i = 1, arg[2] do pcall(s.submit, s, sum, {text(8 * MB, i)}) end
          pp.sleep(0.05)
        end})
        for i = 1, 3 do s:submit(sum, {text(32 * MB, i)}) end
        pp.sleep(0.1)
        late = nil
      ]] .. what[1])
      local r = finish(p)
      child.kill("CONT", p.agent)
      assert.are.equal(what[2], r.status, r.err)
      assert.are.same({}, net:left "h1")
    end)
  end
end)
