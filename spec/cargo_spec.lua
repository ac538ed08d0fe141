-- SPDX-License-Identifier: MIT
-- Payloads of any size arrive as they are, whichever way they go.
local describe, it, assert, before_each, after_each =
  describe, it, assert, before_each, after_each
local _ENV = _G -- luacheck: ignore 211

local pp = require "pp"
local child = require "spec.support.child"
local run = require "spec.support.run"

-- From here on a payload is cargo; around it is what goes with it: the heads of
-- frames and the varint lengths of strings.
local least = 65536
local sizes = {}
for _, near in ipairs{least, 131072, 2 << 20, 8 << 20} do
  for d = -100, 100, 25 do sizes[#sizes + 1] = near + d end
  sizes[#sizes + 1] = near - 1
  sizes[#sizes + 1] = near + 1
end

-- Text that tells where it was torn.
local function text(size, seed)
  local words = {}
  for i = 1, 64 do words[i] = ("%07x%08x\n"):format(i, (seed or 1) * i * 7919) end
  return (table.concat(words)):rep(size // 1024 + 1):sub(1, size)
end

local function same(a, b) return a == b end

describe("a payload #tsan", function()
  local server

  before_each(function() server = pp.Server(2) end)
  after_each(function() server:destroy() end)

  it("of every size around the thresholds goes there and back", function()
    local function echo(s) return s end
    for _, size in ipairs(sizes) do
      local s = text(size, size)
      local there = server:submit(function(a, b) return a == b end, {s, s})
      assert.is_true(same(server:submit(echo, {s})(), s), size)
      assert.is_true(there(), size)
    end
  end)

  it("comes back as each of many that are kept", function()
    local jobs = {}
    for i = 1, 40 do
      jobs[i] = server:spawn(function(k, f) return f(100000 + k, k) end, i, text)
    end
    server:wait()
    for i = 40, 1, -1 do
      assert.is_true(same(jobs[i](), text(100000 + i, i)), i)
    end
    assert.is_true(same(jobs[7](), text(100007, 7)))
  end)

  it("is a table or several values as well", function()
    local list = {}
    for i = 1, 50000 do list[i] = i * 1.5 end
    list.more = {text(90000), {deep = list}}
    local a, b, c, d = server:submit(function(t, s, n)
      return t, s, n, t.more[2].deep == t
    end, {list, text(70000), nil, n = 3})()
    assert.equal(50000, #a)
    assert.equal(75000, a[50000])
    assert.is_true(same(a.more[1], text(90000)))
    assert.equal(a, a.more[2].deep)
    assert.is_true(same(b, text(70000)))
    assert.is_nil(c)
    assert.is_true(d)
  end)

  it("counts in the bytes of its job", function()
    local s = text(300000)
    local job = server:submit(function(x) return x .. "!" end, {s})
    job()
    assert.is_true(job.bytes.sent > 300000 and job.bytes.sent < 301000)
    assert.is_true(job.bytes.received > 300000 and job.bytes.received < 301000)
    local stats = server:get_stats()["local"]
    assert.is_true(stats.sent > 300000 and stats.received > 300000)
  end)

  it("is the value of an error too", function()
    local ok, err = server:submit(function(s) error({s, n = #s}) end,
      {text(200000)}):pcall()
    assert.is_false(ok)
    assert.equal(200000, err.value.n)
    assert.is_true(same(err.value[1], text(200000)))
    assert.is_true(#tostring(server:submit(function(s) error(s, 0) end,
      {text(100000)}):pcall() and "" or "x") == 1)
  end)

  it("that was put is one for all jobs, and goes with the last of them", function()
    local big = {text(400000), list = {1, 2, 3}}
    local ref = server:put(big)
    local jobs = {}
    for i = 1, 20 do
      jobs[i] = server:spawn(function(v, k) return #v[1] + v.list[k % 3 + 1] end,
        ref, i)
    end
    ref = nil -- luacheck: ignore 311
    collectgarbage()
    for i = 1, 20 do assert.equal(400000 + i % 3 + 1, jobs[i]()) end
    for round = 1, 30 do
      local again = server:put(text(200000, round))
      local s = server:spawn(function(v) return v end, again)()
      assert.is_true(same(s, text(200000, round)))
    end
  end)

  it("that is a result goes on to other jobs", function()
    local first = server:spawn(function(f) return f(500000, 3), "second" end, text)
    local lengths, chain = {}, first
    for i = 1, 8 do
      lengths[i] = server:spawn(function(s) return #s, s:sub(-20) end, first)
      chain = server:spawn(function(s) return s .. "x" end, chain)
    end
    for i = 1, 8 do
      local n, tail = lengths[i]()
      assert.equal(500000, n)
      assert.equal(text(500000, 3):sub(-20), tail)
    end
    assert.is_true(same(chain(), text(500000, 3) .. ("x"):rep(8)))
    assert.is_true(same((first()), text(500000, 3)))
  end)

  it("is captured by a function, and sent with a call of everywhere", function()
    local s, t = text(150000, 5), {text(250000, 6)}
    assert.is_true(server:spawn(function() return #s == 150000 end)())
    assert.equal(250000, #server:spawn(function() return t[1] end)())
    for _, r in ipairs(server:everywhere(function(x) KEPT = x end, t)) do -- luacheck: ignore
      assert.is_true(r.ok)
    end
    assert.equal(250000, server:spawn(function() return #KEPT[1] end)()) -- luacheck: ignore
  end)

  it("passes through map and imap, item by item", function()
    local items = {}
    for i = 1, 30 do items[i] = text(80000 + i, i) end
    local back = server:map(function(s) return s .. "." end, items)
    for i = 1, 30 do assert.is_true(same(back[i], items[i] .. "."), i) end
    local n = 0
    for i, r in server:imap(function(s) return s end, items, {chunk = 7}) do
      assert.is_true(same(r, items[i]), i)
      n = n + 1
    end
    assert.equal(30, n)
  end)

  it("goes to and from the jobs of jobs", function()
    local function inner(s) return s .. "i" end
    local function outer(s, f)
      local server = require("pp").Server() -- luacheck: ignore 431
      local jobs = {}
      for i = 1, 4 do jobs[i] = server:spawn(f, s .. i) end
      local passed = server:spawn(function(r) return #r, r:sub(-2) end, jobs[1])
      local n, tail = passed()
      local all = {}
      for i = 1, 4 do all[i] = jobs[i]() end
      return table.concat(all), n, tail
    end
    local s = text(130000, 9)
    for _ = 1, 3 do
      local all, n, tail = server:spawn(outer, s, inner)()
      assert.is_true(same(all, s .. "1i" .. s .. "2i" .. s .. "3i" .. s .. "4i"))
      assert.equal(130002, n)
      assert.equal("1i", tail)
    end
  end)

  it("keeps the metatables of results that go on", function()
    local Big = {__index = {size = function(self) return #self.s end}}
    local function make(b) return setmetatable({s = b.s .. "m", of = b}, getmetatable(b)) end
    local b = setmetatable({s = text(100000)}, Big)
    local function outer(x, f)
      local server = require("pp").Server() -- luacheck: ignore 431
      local one = server:spawn(f, x)
      local two = server:spawn(f, one)
      return two()
    end
    local r = server:spawn(outer, b, make)()
    assert.equal(100002, r:size())
    assert.equal(Big, getmetatable(r))
    assert.equal(Big, getmetatable(r.of))
  end)

  it("is there for each attempt of a job whose worker dies", function()
    local name = os.tmpname()
    local job = server:submit{function(s, path)
      local f = io.open(path, "a")
      f:write("x")
      f:close()
      f = io.open(path)
      local n = #f:read("a")
      f:close()
      if n < 3 then os.exit(9) end
      return #s, s:sub(-30)
    end, args = {text(700000), name}, retries = 2}
    local n, tail = job()
    os.remove(name)
    assert.equal(700000, n)
    assert.equal(text(700000):sub(-30), tail)
    assert.equal(3, job.attempts)
  end)

  it("of a worker that has died since can be read", function()
    local one = pp.Server{ncpus = 1, retries = 0}
    local kept = one:spawn(function(f) return f(900000, 2) end, text)
    kept:wait()
    assert.is_false((one:spawn(function() os.exit(3) end):pcall()))
    for i = 1, 10 do -- others take its place
      assert.is_true(same(one:spawn(function(f, k) return f(900000, k) end, text,
        i)(), text(900000, i)))
    end
    assert.is_true(same(kept(), text(900000, 2)))
    one:destroy()
  end)

  it("can be read when its server is gone", function()
    local one = pp.Server(1)
    local kept = one:spawn(function(f) return f(300000, 2), {f(90000, 1)} end, text)
    kept:wait()
    one:destroy()
    local s, t = kept()
    assert.is_true(same(s, text(300000, 2)))
    assert.is_true(same(t[1], text(90000, 1)))
  end)

  it("of a job that is cancelled or out of time harms no other", function()
    local s = text(3000000)
    local jobs = {}
    for i = 1, 24 do
      jobs[i] = server:submit{function(x, k)
        local n = 0
        for _ = 1, k % 4 * 300 do n = n + #x:sub(1, 5000):upper() end
        return x, n
      end, args = {s, i}, timeout = i % 5 == 0 and 0.002 or nil}
      if i % 3 == 0 then jobs[i - 1]:cancel() end
    end
    for i = 1, 24 do
      local ok, r = jobs[i]:pcall()
      if ok then
        assert.is_true(same(r, s), i)
      else
        assert.is_true(r.kind == "cancelled" or r.kind == "timeout", r.kind)
      end
    end
  end)

  it("counts in the memory a job may have", function()
    local job = server:submit{function(s) return s .. s end,
      args = {text(8 << 20)}, memory = 20 << 20}
    local ok, err = job:pcall()
    assert.is_false(ok)
    assert.equal("memory", err.kind)
    assert.equal(8 << 20, server:submit{function(s) return #s end,
      args = {text(8 << 20)}, memory = 30 << 20}())
  end)

  it("runs in this process as well", function()
    local serial = pp.Server(0)
    local s = text(200000)
    assert.is_true(same(serial:spawn(function(x) return x end, s)(), s))
    assert.equal(200000, #serial:spawn(function(v) return v end, serial:put(s))())
    serial:destroy()
  end)
end)

-- Large payloads both ways, in a ppsh of its own.
local work = [[
  local pp = require "pp"
  local server <close> = pp.Server(2)
  local s = ("0123456789abcde\n"):rep(40000)
  local big = {s, s .. "!"}
  local ref = server:put(big)
  for i = 1, 10 do
    assert(server:spawn(function(x) return x .. "y" end, s)() == s .. "y")
    assert(server:spawn(function(x) return x[2] end, ref)() == s .. "!")
    local one = server:spawn(function(x) return {x} end, s)
    assert(server:spawn(function(t) return #t[1] end, one)() == #s)
  end
  print "all there"
]]

describe("the memory of large payloads", function()
  after_each(child.clean)

  -- Bytes of the shared file that have memory, and what is open here.
  local looking = [[
    local pp = require "pp"
    local function output_of(command)
      local pipe <close> = io.popen(command)
      return pipe:read("a")
    end
    local stat <close> = io.open("/proc/self/stat")
    local me = stat:read("n")
    local shared = output_of(("ls -l /proc/%d/fd"):format(me)):match(
      "(%d+) %-> /memfd:pp%-lanes")
    local path = ("/proc/%d/fd/%s"):format(me, shared)
    local function filled()
      return tonumber(output_of("stat -L -c '%b' " .. path)) * 512
    end
    local function descriptors()
      return select(2, output_of(("ls /proc/%d/fd"):format(me)):gsub("\n", ""))
    end
  ]]

  it("is given back, and no descriptor is left", function()
    local r = child.run(looking .. [[
      local server <close> = pp.Server{ncpus = 2, retries = 0}
      local function echo(s) return s, {s} end
      server:spawn(echo, "x")()
      local before, open = filled(), descriptors()
      local kept = {}
      for i = 1, 60 do
        local s = ("x"):rep(60000 + 37000 * i)
        local job = server:spawn(echo, s)
        if i % 7 == 0 then job:cancel() end
        if i % 5 == 0 then server:spawn(function() os.exit(1) end):pcall() end
        if i % 3 == 0 then job:pcall() else kept[#kept + 1] = job end
        local ref = server:put(s)
        server:spawn(function(v) return #v end, ref):pcall()
      end
      server:wait()
      assert(filled() > before)
      for _, job in ipairs(kept) do job:pcall() end
      kept = nil
      local left
      for _ = 1, 300 do
        collectgarbage()
        pp.sleep(0.1)
        left = filled() - before
        if left < 1 << 20 and descriptors() <= open then break end
      end
      assert(left < 1 << 20, left .. " bytes are left")
      assert(descriptors() <= open, descriptors() .. " descriptors, not " .. open)
      print "given back"
    ]], {timeout = 120})
    assert.equal("given back\n", r.out, r.err)
    assert.equal(0, r.status, r.err)
  end)

  it("cannot be cut short by anybody", function()
    local r = child.run(looking .. [[
      local server <close> = pp.Server(1)
      local job = server:spawn(function() return ("x"):rep(1000000) end)
      job:wait()
      local cut = server:spawn(function(p)
        return (os.execute("truncate -s 4096 " .. p .. " 2>/dev/null"))
      end, path)
      assert(not cut())
      assert(#job() == 1000000)
      print "whole"
    ]])
    assert.equal("whole\n", r.out, r.err)
    assert.equal(0, r.status, r.err)
  end)
end)

describe("where large payloads cannot be shared", function()
  after_each(child.clean)

  local function works(r)
    assert.equal("all there\n", r.out, r.err)
    assert.equal(0, r.status, r.err)
    assert.equal("", r.err)
  end

  it("as files may not be large, they go through the rings", function()
    local script = run.file(work)
    local process = run.start({"sh", "-c", "ulimit -f 1000000; exec \"$@\"", "sh",
      run.ppsh_path, script}, {stdin_file = "/dev/null"})
    works(process:wait())
  end)

  it("as there is no memory for it, they go through the rings", function()
    local library = run.ppsh_path:gsub("[^/]*$", "librefuse.so")
    if child.sanitized() then return end -- its library must be the first
    assert(io.open(library), library .. " is not there"):close()
    for _, what in ipairs{"SHARE", "VIEW", "FILL", "SIZE"} do
      local env = {LD_PRELOAD = library}
      env["PPSH_REFUSE_" .. what] = "/dev/null"
      works(child.run(work, {env = env}))
    end
  end)
end)
