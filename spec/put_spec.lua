-- SPDX-License-Identifier: MIT
-- server:put: values that travel once and are shared by the jobs of a worker.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end

local function here() return debug.getinfo(2, "Sl") end
local function at(info, offset)
  return info.short_src .. ":" .. info.currentline + (offset or 1) .. ": "
end

--- Note a value in a table of the worker's that does not keep it, and count
-- those that are still there.
local function weak()
  local registry = debug.getregistry()
  registry.of_put_spec = registry.of_put_spec or setmetatable({}, {__mode = "k"})
  return registry.of_put_spec
end
local function remember(v) weak()[v] = true end
local function remembered()
  collectgarbage()
  collectgarbage()
  local n = 0
  for _ in pairs(weak()) do n = n + 1 end
  return n
end

after_each(child.clean)

describe("server:put", function()
  it("gives a reference that stands for the value in arguments and captures", function()
    local server <close> = pp.Server(2)
    local ref = server:put{1, 2, {3}, x = "y"}
    _G.some_ref = ref
    local function captured() return ref, some_ref == ref, #ref end -- luacheck: ignore 113
    for _ = 1, 3 do
      assert.are.same({{1, 2, {3}, x = "y"}}, {server:spawn(id, ref)()})
      assert.are.same({{1, 2, {3}, x = "y"}, true, 3}, {server:spawn(captured)()})
      assert.are.same({{{1, 2, {3}, x = "y"}}}, {server:submit(id, {{ref}})()})
    end
    _G.some_ref = nil
    local function f() return _G["na" .. "med"].x end
    assert.are.equal("y", server:submit{f, globals = {named = ref}}())
  end)

  it("takes any value", function()
    local server <close> = pp.Server(1)
    for _, v in ipairs{1, -0.5, true, false, "s", ("long"):rep(100)} do
      assert.are.equal(v, server:spawn(id, server:put(v))())
    end
    assert.are.same({nil, 1, n = 2}, table.pack(server:spawn(id, server:put(nil), 1)()))
    local cycle = {}
    cycle[1] = cycle
    local got = server:spawn(id, server:put(cycle))()
    assert.are.equal(got, got[1])
    assert.are.equal(3, server:spawn(function(f) return f(1, 2) end,
      server:put(function(a, b) return a + b end))())
    assert.are.equal(2, server:spawn(function(f) return f(-2) end, server:put(math.abs))())
  end)

  it("takes values as they are then", function()
    local server <close> = pp.Server(1)
    local t = {1}
    local ref = server:put(t)
    t[1] = 2
    assert.are.equal(1, server:spawn(function(v) return v[1] end, ref)())
  end)

  it("is a handle in the script, with a name and a text", function()
    local server <close> = pp.Server(1)
    local ref = server:put("abc")
    assert.are.equal("userdata", type(ref))
    assert.is_truthy(tostring(ref):find("^pp%.Put: .*bytes"))
    assert.is_false(pcall(function() return ref.x end))
    assert.are.equal("pp.Put", getmetatable(ref))
  end)

  it("refuses what cannot be sent at the caller's line, with its path", function()
    local server <close> = pp.Server(1)
    local info = here()
    local ok, message = pcall(function()
      server:put{a = {coroutine.create(id)}}
    end)
    assert.is_false(ok)
    assert.are.equal(at(info, 2) .. "cannot send [1] of field 'a' of value: coroutine", message)
    info = here()
    ok, message = pcall(function()
      server:put(io.tmpfile())
    end)
    assert.is_false(ok)
    assert.are.equal(at(info, 2) .. "cannot send value: userdata", message)
    info = here()
    ok, message = pcall(function()
      server:put()
    end)
    assert.is_false(ok)
    assert.are.equal(at(info, 2) .. "bad argument #1 to 'put' (value expected)", message)
  end)

  it("refuses a closed server; references live on", function()
    local one, two <close> = pp.Server(1), pp.Server(1)
    local ref = one:put{5}
    assert.are.equal(5, one:spawn(id, ref)()[1])
    one:destroy()
    assert.has_error(function() one:put(1) end, "attempt to use a closed server")
    assert.are.equal(5, two:spawn(id, ref)()[1])
  end)

  it("is shown by pp.captures, and costs it nothing", function()
    local server <close> = pp.Server(1)
    local ref = server:put(("x"):rep(1000000))
    local seen = pp.captures(function() return ref end)
    assert.are.equal(ref, seen.upvalues.ref)
    assert.is_true(seen.bytes < 1000)
  end)
end)

describe("what was put", function()
  it("is one value in a worker, shared by its jobs", function()
    local server <close> = pp.Server(1)
    local ref = server:put{n = 0}
    local function count() -- against the rule, to see it
      ref.n = ref.n + 1
      return ref.n
    end
    for i = 1, 3 do assert.are.equal(i, server:spawn(count)()) end
    assert.are.equal(4, server:spawn(function(t)
      t.n = t.n + 1
      return t.n
    end, ref)())
    local t = {} -- a function that is opened afresh for each job
    assert.are.equal(5, server:spawn(function() return t and count() end)())
    local function same(a, b, f) return a == b.x and a == f() and a == ref end
    assert.is_true(server:spawn(same, ref, {x = ref}, function() return ref end)())
  end)

  it("is another value than what was put a second time", function()
    local server <close> = pp.Server(1)
    local a, b = server:put{}, server:put{}
    assert.is_false(server:spawn(function(x, y) return x == y end, a, b)())
    local function which() return a == b, a ~= nil, b ~= nil end
    assert.are.same({false, true, true}, {server:spawn(which)()})
  end)

  it("takes its room in a worker once", function()
    local server <close> = pp.Server(1)
    local ref = server:put(("x"):rep(2000000))
    local function f() return #ref end
    for _ = 1, 20 do
      assert.are.equal(2000000, server:spawn(f)())
      assert.are.equal(2000000, server:spawn(string.len, ref)())
    end
    assert.is_true(server:get_stats()["local"].sent < 100000)
    local worker_has = server:spawn(function() return ref and collectgarbage("count") end)()
    assert.is_true(worker_has < 3 * 2000)
  end)

  it("brings functions with the globals they need, for each job", function()
    local server <close> = pp.Server(1)
    function _G.put_helper(x) return x * factor_of_helper end -- luacheck: ignore 113
    _G.factor_of_helper = 10
    local ref = server:put{f = function(x) return put_helper(x) end} -- luacheck: ignore 113
    local outer = server:put{inner = ref}
    local function captured() return ref.f(2), outer.inner.f(3) end
    local function given(r) return r.f(4) end
    local function nested(r) return r.inner.f(5) end
    for _ = 1, 3 do
      assert.are.same({20, 30}, {server:spawn(captured)()})
      assert.are.equal(40, server:spawn(given, ref)())
      assert.are.equal(50, server:spawn(nested, outer)())
      assert.is_nil(server:spawn(function() return rawget(_G, "put_helper") end)())
    end
    _G.put_helper, _G.factor_of_helper = nil, nil
  end)

  it("keeps metatables", function()
    local server <close> = pp.Server(1)
    local Class = {__index = {hi = function(self) return "hi " .. self.n end}}
    local ref = server:put(setmetatable({n = 1}, Class))
    assert.are.equal("hi 1", server:spawn(function(o) return o:hi() end, ref)())
    local back = server:spawn(id, ref)
    assert.are.equal(Class, getmetatable(back()))
    assert.are.equal(Class, getmetatable(server:spawn(function() return ref end)()))
    assert.are.equal("hi 1", server:spawn(function(o) return o:hi() end, server:spawn(id, ref))())
    assert.are.equal(Class, getmetatable(server:spawn(id, server:spawn(id, ref))()))
  end)

  it("may hold references and job handles, and nest deeply", function()
    local server <close> = pp.Server(2)
    local inner = server:put{1}
    local outer = server:put{a = inner, b = {inner}}
    local function look(o) return o.a == o.b[1], o.a == inner, o.a[1] end
    assert.are.same({true, true, 1}, {server:spawn(look, outer)()})
    local gate = child.gate()
    local job = server:spawn(function(path)
      io.open(path):close()
      return {7}
    end, gate.path)
    local later = server:put{job}
    local got = server:spawn(function(t) return t[1][1] end, later)
    gate:open()
    assert.are.equal(7, got())
    local bad = server:put{server:spawn(error, "no")}
    local ok, e = server:spawn(id, bad):pcall()
    assert.is_false(ok)
    assert.are.equal("no", e.message)
    local deep = inner
    for _ = 1, 10000 do deep = server:put{deep} end
    local function depth(t)
      local n = 0
      while type(t[1]) == "table" do t, n = t[1], n + 1 end
      return n
    end
    assert.are.equal(10000, server:spawn(depth, deep)())
  end)

  it("serves map and imap", function()
    local server <close> = pp.Server(2)
    local ref = server:put{10, 20, 30}
    assert.are.same({10, 20, 30, n = 3}, server:map(function(i) return ref[i] end, {1, 2, 3}))
    assert.are.same({3, 3, n = 2}, server:map(function(t) return #t end, {ref, ref}))
    local sum = 0
    for _, v in server:imap(function(i) return ref[i % 3 + 1] end, pp.range(1, 3000)) do
      sum = sum + v
    end
    assert.are.equal(60000, sum)
  end)

  it("is there in a worker that replaces another", function()
    local server <close> = pp.Server(1)
    local ref = server:put{5}
    local path = os.tmpname()
    os.remove(path)
    local function once()
      if not io.open(path) then
        io.open(path, "w"):close()
        os.exit(1)
      end
      return ref[1]
    end
    assert.are.equal(5, server:spawn(once)())
    local one <close> = pp.Server{ncpus = 1, restart = 1}
    for _ = 1, 5 do assert.are.equal(5, one:spawn(id, ref)()[1]) end
    os.remove(path)
  end)

  it("can be too large for a job's memory", function()
    local server <close> = pp.Server(1)
    local ref = server:put(("x"):rep(20000000))
    local ok, e = server:submit{string.len, args = {ref}, memory = 8000000}:pcall()
    assert.is_false(ok)
    assert.are.equal("memory", e.kind)
    local function captured() return #ref end
    ok, e = server:submit{captured, memory = 8000000}:pcall()
    assert.is_false(ok)
    assert.are.equal("memory", e.kind)
    local job = server:spawn(string.rep, "x", 20000000)
    ok, e = server:submit{function() return #job end, memory = 8000000}:pcall()
    assert.is_false(ok)
    assert.are.equal("memory", e.kind)
    assert.are.equal(20000000, server:spawn(string.len, ref)())
    assert.are.equal(20000000, server:spawn(captured)())
  end)
end)

describe("a job", function()
  it("may put values for the jobs it submits", function()
    local server <close> = pp.Server(2)
    local function parent()
      local inner = require "pp".Server()
      local factor = 2
      local ref = inner:put{10, 20, f = function(x) return x * factor end}
      local outer = inner:put{ref}
      local function captured() return ref.f(ref[2]), outer[1][1], outer[1] == ref end
      local job = inner:spawn(captured)
      local other = inner:spawn(function(o) return o[1][1] end, outer)
      return other(), job()
    end
    for _ = 1, 3 do assert.are.same({10, 40, 10, true}, {server:spawn(parent)()}) end
  end)
end)

describe("what nobody refers to any more", function()
  -- Ask until it is gone: word of it travels with the next job.
  local function gone(server)
    return child.eventually(function()
      collectgarbage()
      collectgarbage()
      return server:spawn(remembered)() == 0
    end)
  end

  it("is gone from workers once no job needs it", function()
    local server <close> = pp.Server(1)
    local ref = server:put{1}
    server:spawn(remember, ref)()
    local function f() return remember(ref) end
    server:spawn(f)()
    assert.are.equal(1, server:spawn(remembered)())
    ref = nil -- luacheck: ignore 311
    -- f is still there, with its upvalue
    assert.is_true(gone(server))
    assert.is_function(f)
  end)

  it("is gone with the function that captured it", function()
    local server <close> = pp.Server(1)
    local function make()
      local ref = server:put{1}
      return function() return remember(ref) end
    end
    server:spawn(make())()
    assert.is_true(gone(server))
  end)

  it("stays while jobs that need it are queued, and goes when they are cancelled", function()
    local server <close> = pp.Server(1)
    local gate = child.gate()
    local ref = server:put{7}
    server:spawn(remember, ref)()
    server:spawn(function(path) io.open(path):close() end, gate.path)
    local job = server:spawn(function(t) return t[1] end, ref)
    local other = server:spawn(id, ref)
    ref = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    other:cancel()
    gate:open()
    assert.are.equal(7, job())
    assert.is_true(gone(server))
    assert.are.equal("done", job.status)
  end)

  it("a result is gone from workers when no job is to be given it", function()
    local server <close> = pp.Server(1)
    local first = server:spawn(function() return {1} end)
    local function f() return remember(first) end
    server:spawn(remember, first)()
    server:spawn(f)()
    assert.is_true(gone(server))
    assert.are.same({1}, first())
  end)

  it("leaves memory as it was", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local function kilobytes(pid)
        local file <close> = io.open("/proc/" .. pid .. "/status")
        return tonumber(file:read("a"):match("VmRSS:%s*(%d+)"))
      end
      local function pid()
        local file <close> = io.open("/proc/self/stat")
        return file:read("n")
      end
      local worker = server:spawn(pid)()
      local function round(n)
        for i = 1, n do
          local ref = server:put{("x"):rep(200000) .. i, {i}}
          local function f() return #ref[1] end
          local job = server:spawn(f)
          local first = server:submit{function() return ref end, forget = true}
          local later = server:spawn(function(t) return #t[1] end, first)
          job()
          later()
          if i % 10 == 0 then collectgarbage() end
        end
        collectgarbage()
        collectgarbage()
        server:spawn(collectgarbage)()
      end
      round(50)
      local driver, there = kilobytes("self"), kilobytes(worker)
      round(1000)
      local limit = 20000
      local more, more_there = kilobytes("self") - driver, kilobytes(worker) - there
      print(more < limit or more, more_there < limit or more_there)
    ]], {timeout = 4 * child.patience, env = {ASAN_OPTIONS = (os.getenv "ASAN_OPTIONS" or "")
      .. ":quarantine_size_mb=4:thread_local_quarantine_size_kb=64"}})
    assert.are.equal("true\ttrue\n", r.out, r.err)
    assert.are.equal(0, r.status)
  end)

  it("is collected without being asked to, however little Lua sees of it", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local large = ("x"):rep(1000000)
      for _ = 1, 2000 do server:put(large) end
      local file <close> = io.open("/proc/self/status")
      print(tonumber(file:read("a"):match("VmRSS:%s*(%d+)")) < 500000)
    ]], {env = {ASAN_OPTIONS = (os.getenv "ASAN_OPTIONS" or "")
      .. ":quarantine_size_mb=4:thread_local_quarantine_size_kb=64"}})
    assert.are.equal("true\n", r.out, r.err)
  end)

  it("makes jobs no larger that refer to it", function()
    local server <close> = pp.Server(1)
    local big = {}
    for i = 1, 100000 do big[i] = i end
    local ref = server:put(big)
    local function f() return #ref end
    server:spawn(f)()
    for _ = 1, 100 do
      local job = server:spawn(f)
      assert.are.equal(100000, job())
      assert.is_true(job.bytes.sent < 200)
    end
  end)

  it("gives its functions back when the reference is gone", function()
    for n = 0, 1 do
      local server <close> = pp.Server(n)
      local job
      do
        local five = 5
        local ref = server:put{function() return five end}
        job = server:spawn(function() return ref[1], {ref} end)
      end
      server:wait()
      collectgarbage()
      collectgarbage()
      server:spawn(id)()
      local f, list = job()
      assert.are.equal(5, f())
      assert.are.equal(5, list[1][1]())
    end
  end)
end)
