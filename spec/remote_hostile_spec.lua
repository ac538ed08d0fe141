-- SPDX-License-Identifier: MIT
-- A host that means harm: it costs itself and nothing else.
local describe, it, setup, teardown = describe, it, setup, teardown
local assert, pending = assert, pending
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local _ENV = _G -- luacheck: ignore

describe("a hostile agent", function()
  local missing = remote.missing()
  if missing then
    pending("needs hosts: " .. missing)
    return
  end

  local net
  local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
  setup(function()
    net = remote.new()
    net:sshd "good"
  end)
  teardown(function() net:close() end)

  --- Run jobs at a good host, here, and at one whose agent does this.
  local count = 0
  local function against(script, driver)
    count = count + 1
    local name = "bad" .. count
    local path = run.file(script, "agent.lua")
    net:sshd(name, {lines = {("ForceCommand LUA_INIT= %s %s/support/hostile.lua "
      .. "\"$SSH_ORIGINAL_COMMAND\" %s"):format(run.ppsh_path, here:match "^/" and here
      or os.getenv "PWD" .. "/" .. here, path)}})
    local r = net:run(([[
      local pp = require "pp"
      local s = pp.Server{ncpus = 1, hosts = "good/1, %s/2"}
      local bad = "%s"
      %s
      local jobs = {}
      local function square(x) return x * x end
      for i = 1, 200 do jobs[i] = s:submit{square, args = {i}, retries = 100} end
      for i = 1, 200 do assert(jobs[i]() == i * i) end
      while s:get_stats().good.state ~= "connected" do pp.sleep(0.01) end
      local t = s:get_stats()
      print("done", t[bad].state, t[bad].reason, t.good.state)
      os.exit(0, true)
    ]]):format(name, name, driver or ""), {timeout = 60})
    net.lab:kill(name)
    assert.is_nil(r.late, r.err)
    assert.matches("done\t[^\n]*\tconnected\n$", r.out, nil, r.err)
    assert.are.equal(0, r.status, r.err)
    return r
  end

  local nonsense = {
    ["sends what is no message"] = [[welcome(2) wait_start(1) raw(("\xff"):rep(100000)) serve()]],
    ["sends messages that are too long"] = [[
      welcome(2) raw(string.pack("<I4I4", 67, 1 << 31)) serve()]],
    ["sends messages nobody knows"] = [[welcome(2) wait_start(1) say(200, 0, "x") serve()]],
    ["speaks of lanes it never had"] = [[
      welcome(2) wait_start(2) say(68, 9999, ("\0"):rep(16)) serve()]],
    ["gives credit it does not have"] = [[
      welcome(2) local l = wait_start(1) say(72, l[1], "\xff\xff\xff\x7f") serve()]],
    ["floods with output"] = [[
      welcome(2) local l = wait_start(1)
      while true do say(68, l[1], "\0" .. ("x"):rep(60000)) end]],
    ["says welcome twice"] = [[welcome(2) welcome(2) serve()]],
    ["answers pings that were not sent"] = [[
      welcome(2) wait_start(1) say(73, 0, ("\xff"):rep(16)) serve()]],
    ["packs more than it says"] = [[
      welcome(2) say(32, 0, string.pack("<I4", 100) .. zstd(1, 65536, "x")) serve()]],
    ["packs more than there can be"] = [[
      welcome(2) say(32, 0, string.pack("<I4", 1 << 31) .. zstd(1, 100000, "x")) serve()]],
    ["packs what is no message"] = [[
      welcome(2) say(32, 0, string.pack("<I4", 65000) .. zstd(1, 65000, "\x44")) serve()]],
    ["packs what was packed"] = [[
      welcome(2)
      local inner = string.pack("<I4", 8) .. zstd(0, 8, string.pack("<I4I4", 74, 0))
      inner = string.pack("<I4I4", 32, #inner) .. inner
      say(32, 0, string.pack("<I4", #inner) .. zstd(0, #inner, inner)) serve()]],
    ["packs nothing but noise"] = [[
      welcome(2) say(32, 0, string.pack("<I4", 100) .. ("\x28\xb5\x2f\xfd\x99"):rep(20)) serve()]],
    ["sends echoes of nothing"] = [[welcome(2) say(34, 0, ("\1"):rep(8)) serve()]],
    ["asks for echoes and does not read them"] = [[
      welcome(2) local asked = string.pack("<I4I4I8", 33, 8, 1):rep(4096)
      while true do raw(asked) end]],
    ["ends at once"] = [[welcome(2) wait_start(1) os.exit(3)]],
    ["says twice that a worker has ended"] = [[
      welcome(2) local l = wait_start(1)
      for _ = 1, 2 do say(67, l[1], ("\0"):rep(16)) end serve()]],
    ["speaks another version"] = [[
      say(64, 0, string.pack("<I8I4I4I8s4s4", 0x0a0d1a6873707010, 99, 2, 1, "b", "m")) serve()]],
  }
  for title, script in pairs(nonsense) do
    it("is dropped when it " .. title, function()
      local r = against(script, [[
        for i = 1, 20 do s:submit{function() pp.sleep(0.05) end, retries = 100} end
        local till = pp.time() + 20
        while not s:get_stats()[bad].reason and pp.time() < till do pp.sleep(0.02) end
        print("why", s:get_stats()[bad].reason)
        s:remove_host(bad)
      ]])
      assert.matches(title:match "another (version)" or "why\ti[^\n]+\n", r.out)
    end)
  end

  local workers = {
    ["results for jobs they never had"] = [[
      welcome(2) local l, seq = wait_job()
      say(3, l, result(seq + 1000, 0, "\0")) serve()]],
    ["results twice"] = [[
      welcome(2) local l, seq = wait_job()
      for _ = 1, 2 do say(3, l, result(seq, 0, "\x50\1\x11")) end serve()]],
    ["results that are no results"] = [[
      welcome(2) local l, seq = wait_job()
      say(3, l, frame(16, "\0\1")) serve()]],
    ["frames of any length"] = [[
      welcome(2) local l, seq = wait_job()
      say(3, l, string.pack("<I8", 16 | (1 << 50) << 8)) serve()]],
    ["jobs of their own that make no sense"] = [[
      welcome(2) local l, seq = wait_job()
      say(3, l, frame(19, ("\xff"):rep(200))) serve()]],
    ["modules' names that are paths"] = [[
      welcome(2) local l, seq = wait_job()
      say(3, l, frame(23, ("\0"):rep(8) .. "../../etc/passwd")) serve()]],
  }
  for title, script in pairs(workers) do
    it("has its workers ended when they send " .. title, function()
      against(script, [[
        assert(s:wait_hosts(20))
        for i = 1, 20 do s:submit{function() pp.sleep(0.02) end, retries = 100} end
        pp.sleep(0.3)
        s:remove_host(bad)
      ]])
    end)
  end

  it("can lie about its own items only", function()
    against([[
      welcome(2)
      local l = wait_job()
      say(74, l, string.pack("<I4I4", 1, 1)) -- nobody has asked
      say(3, l, result(1, 0, "\x54\x64" .. ("\x10"):rep(100))) -- of ten items
      os.exit(3)
    ]], [[
      s:wait_hosts(20)
      local got = s:map(function(x) pp.sleep(0.01) return x end, pp.range(1, 120),
        {chunk = 10, retries = 100})
      local lies = 0
      for i = 1, 120 do lies = lies + (got[i] == i and 0 or 1) end
      assert(lies > 0 and lies <= 10, lies)
      assert(got.n == 120 and got[121] == nil)
    ]])
  end)

  it("cannot make ppsh recurse without end", function()
    -- A table in a table in a table.
    against([[
      welcome(2) local l, seq = wait_job()
      local body = ("\x11\5\0\0\0\0\0\0\0"):rep(5000000)
      local all = result(seq, 0, body)
      for at = 1, #all, 60000 do say(3, l, all:sub(at, at + 59999)) end
      serve()]], [[
      assert(s:wait_hosts(20))
      local ok, e = s:submit{function() end, on = bad, retries = 0}:pcall()
      print(ok, e)
      s:remove_host(bad)
    ]])
  end)

  it("cannot make ppsh recurse without end by a value as deep as it is long", function()
    local r = against([[
      welcome(2) local l, seq = wait_job()
      local n = 3000000
      local body = "\x50\1" .. ("\xb3\1\0"):rep(n) .. "\x11" .. ("\xb8"):rep(n)
      local all = result(seq, 0, body)
      for at = 1, #all, 60000 do say(3, l, all:sub(at, at + 59999)) end
      serve()]], [[
      assert(s:wait_hosts(20))
      local ok, e = s:submit{function() end, on = bad, retries = 0}:pcall()
      print(ok, e)
      s:remove_host(bad)
    ]])
    assert.matches("^false\t[^\n]*nested too deeply", r.out)
  end)

  it("cannot send more than there is memory for", function()
    local r = against([[
      welcome(1) local l, seq = wait_job()
      say(3, l, string.pack("<I8", 16 | (1 << 45) << 8)
        .. string.pack("<I4I4I8I8I8I8I8I8", seq, 0, 1, 0, 0, 0, 0, 0))
      for _ = 1, 1000 do say(3, l, ("x"):rep(60000)) end
      say(67, l, ("\0"):rep(16)) serve()]], [[
      assert(s:wait_hosts(20))
      local ok, e = s:submit{function() end, on = bad, retries = 0}:pcall()
      print(ok, e.kind)
      s:remove_host(bad)
    ]])
    assert.matches("^false\tlost\n", r.out)
    assert.matches("of 'bad%d+' sent nonsense %(a result larger than memory%)", r.err)
  end)

  it("is not believed when a job was cancelled that it says has ended", function()
    local r = against([[
      welcome(1) local l, seq = wait_job()
      repeat local type = hear() until type == 5 -- STOP
      say(3, l, result(seq, 0, "\x50\1\x11"))
      serve()]], [[
      assert(s:wait_hosts(20))
      local called = 0
      local job = s:submit{function() end, on = bad, callback = function(...)
        called = called + 1
        print(select("#", ...), (select(2, ...)).kind)
      end}
      pp.sleep(0.2)
      print(job:cancel())
      pp.sleep(0.3)
      print(called, select(2, job:pcall()).kind)
      s:remove_host(bad)
    ]])
    assert.matches("^true\n2\tcancelled\n1\tcancelled\n", r.out)
  end)

  it("is dropped when it does not end a worker that it is to end", function()
    local r = against([[
      welcome(1) local l, seq = wait_job()
      say(3, l, frame(16, "\0\1")) serve()]], [[
      assert(s:wait_hosts(20))
      local ok, e = s:submit{function() end, on = bad, retries = 0}:pcall()
      print(ok, e.kind)
      s:remove_host(bad)
    ]])
    assert.matches("^false\tlost\n", r.out)
    assert.matches("was lost: a worker that was killed has not ended for 8 seconds", r.err)
  end)

  it("cannot claim more CPUs than there can be", function()
    against([[welcome(0xffffffff) serve()]], [[
      s:wait_hosts(20)
      assert(s:get_stats()[bad].ncpus == 2)
      s:remove_host(bad)
    ]])
  end)

  it("is lost when it says nothing", function()
    local r = against([[while true do hear() end]], [[
      local since = pp.time()
      while s:get_stats()[bad].reason == nil do pp.sleep(0.05) end
      print(pp.time() - since < 20)
    ]])
    assert.matches("^true\n", r.out)
  end)
end)
