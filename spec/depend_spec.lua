-- SPDX-License-Identifier: MIT
-- A job handle in arguments or captures stands for the job's first result.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

local function id(...) return ... end
local function add(a, b) return a + b end
local function raise(value) error(value, 0) end
local function pass(path, ...)
  io.open(path):close()
  return ...
end

local function failure(job)
  local ok, err = job:pcall()
  assert.is_false(ok)
  assert.is_true(pp.is_error(err))
  return err
end

local function here() return debug.getinfo(2, "Sl") end
local function at(info, offset)
  return info.short_src .. ":" .. info.currentline + (offset or 1) .. ": "
end

after_each(child.clean)

describe("a job handle in arguments", function()
  it("stands for the first result", function()
    local server <close> = pp.Server(2)
    local job = server:spawn(id, 20, 22)
    assert.are.equal(21, server:submit(add, {job, 1})())
    assert.are.equal(21, server:submit{add, args = {job, 1}}())
    assert.are.equal(21, pp.Template(server, add):submit(1, job)())
    assert.are.same({20, n = 1}, table.pack(server:spawn(id, job)()))
  end)

  it("stands for nil when there is no result, or it is nil", function()
    local server <close> = pp.Server(1)
    local none = server:spawn(function() end)
    local two = server:spawn(function() return nil, 2 end)
    assert.are.same({nil, 1, nil, n = 3},
      table.pack(server:spawn(id, none, 1, two)()))
  end)

  it("is found wherever it is in tables, as a key too", function()
    local server <close> = pp.Server(2)
    local a, b = server:spawn(id, "a"), server:spawn(id, {1})
    local got = server:spawn(id, {a, {x = {y = b}}, [a] = 2, b})()
    assert.are.same({"a", {x = {y = {1}}}, {1}, a = 2}, got)
  end)

  it("is the same value wherever it is in one job", function()
    local server <close> = pp.Server(1)
    local job = server:spawn(function() return {} end)
    local function same(x, t, f) return x == t.x and x == f() and x == job end
    assert.is_true(server:spawn(same, job, {x = job}, function() return job end)())
    assert.is_true(server:spawn(same, job, {x = job}, function() return job end)())
  end)

  it("is a value of its own in each job", function()
    local server <close> = pp.Server(1)
    local job = server:spawn(function() return {n = 0} end)
    local function count(t)
      t.n = t.n + 1
      return t.n
    end
    for _ = 1, 3 do assert.are.equal(1, server:spawn(count, job)()) end
    assert.are.equal(0, job().n)
  end)

  it("takes strings of any size along", function()
    local server <close> = pp.Server(2)
    local long = server:spawn(string.rep, "x", 3000000)
    local lengths = {}
    for i = 1, 6 do lengths[i] = server:spawn(string.len, long) end
    for i = 1, 6 do assert.are.equal(3000000, lengths[i]()) end
  end)

  it("can be one of very many", function()
    local server <close> = pp.Server(2)
    local jobs = {}
    for i = 1, 20000 do jobs[i] = server:spawn(id, i) end
    local function sum(list)
      local n = 0
      for _, v in ipairs(list) do n = n + v end
      return n
    end
    assert.are.equal(200010000, server:spawn(sum, jobs)())
  end)

  it("stays a handle in the arguments of a callback", function()
    local server <close> = pp.Server(1)
    local job = server:spawn(id, 1)
    local got
    server:submit(id, {job}, nil, nil, function(...) got = {...} end, {job, "x"})
    server:wait()
    assert.are.same({job, "x", 1}, got)
  end)
end)

describe("a job handle that is captured", function()
  it("stands for the first result as an upvalue and in globals", function()
    local server <close> = pp.Server(2)
    local job = server:spawn(id, {n = 7})
    _G.some_job = job
    local t = {job = job}
    local function f() return job.n, t.job.n, some_job.n, t.job == job end -- luacheck: ignore 113
    for _ = 1, 3 do assert.are.same({7, 7, 7, true}, {server:spawn(f)()}) end
    _G.some_job = nil
  end)

  it("can be listed in globals", function()
    local server <close> = pp.Server(1)
    local job = server:spawn(id, 5)
    local function f() return _G["na" .. "med"] + 1 end
    assert.are.equal(6, server:submit{f, globals = {named = job}}())
  end)

  it("is shown by pp.captures as what it is", function()
    local server <close> = pp.Server(1)
    local job = server:spawn(id, 5)
    local seen = pp.captures(function() return job end)
    assert.are.equal(job, seen.upvalues.job)
    assert.is_true(seen.bytes > 0)
  end)

  it("makes each item of a map wait", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local job = server:spawn(pass, gate.path, {10})
    local function f(i)
      job[1] = job[1] + i
      return job[1]
    end
    local stream = server:imap(f, {1, 2, 3})
    gate:open()
    local got = {}
    for i, v in stream do got[i] = v end
    assert.are.same({11, 12, 13}, got)
    assert.are.same({11, 12, 13, 14, n = 4}, server:map(f, {1, 2, 3, 4}))
  end)

  it("shows functions and their sharing as they came", function()
    local server <close> = pp.Server(2)
    local k = 10
    local function counter(n)
      return {up = function() n = n + 1 return n + k end, get = function() return n end}
    end
    local job = server:spawn(counter, 5)
    local function use(c) return c.up(), c.up(), c.get() end
    for _ = 1, 2 do
      assert.are.same({16, 17, 7}, {use(server:spawn(id, job)())})
      assert.are.same({16, 17, 7}, {server:spawn(use, job)()})
      assert.are.same({16, 17, 7}, {server:spawn(function() return use(job) end)()})
      assert.are.same({16, 17, 7}, {server:spawn(use, server:spawn(id, job))()})
    end
  end)
end)

describe("items of a map", function()
  it("may be job handles", function()
    local server <close> = pp.Server(2)
    local list = {}
    for i = 1, 50 do list[i] = i % 2 == 0 and server:spawn(id, i) or {server:spawn(id, i)} end
    local got = server:map(function(v) return type(v) == "table" and v[1] or v end, list)
    for i = 1, 50 do assert.are.equal(i, got[i]) end
  end)

  it("fail one by one with what they waited for", function()
    local server <close> = pp.Server(2)
    local bad = server:spawn(raise, "no")
    local list = {1, 2, bad, 4, bad, 6}
    local got = server:map(id, list, {on_error = "keep", chunk = 6})
    assert.are.same({1, 2, 4, 6}, {got[1], got[2], got[4], got[6]})
    assert.are.equal("no", got[3].message)
    assert.are.equal("no", got[5].message)
    local ok, e = pcall(server.map, server, id, list, {chunk = 6})
    assert.is_false(ok)
    assert.are.equal(failure(bad), e.cause)
    assert.are.equal(failure(bad), got[3].cause)
  end)
end)

describe("metatables", function()
  it("of what a job gave are the captured ones, or go along", function()
    local server <close> = pp.Server(2)
    local Account = {}
    Account.__index = Account
    function Account:total() return self.n * Account.factor end
    Account.factor = 3
    local function open(n) return setmetatable({n = n}, Account) end
    local function foreign(x) return x:total(), getmetatable(x).__index == getmetatable(x) end
    local function known(x) return getmetatable(x) == Account and x:total() end
    local job = server:spawn(open, 5)
    assert.are.equal(15, server:spawn(known, job)())
    assert.are.same({15, true}, {server:spawn(foreign, job)()})
    -- through others, and back
    local through = server:spawn(id, server:spawn(id, job))
    assert.are.same({15, true}, {server:spawn(foreign, through)()})
    assert.are.equal(Account, getmetatable(through()))
    -- when it has been asked before
    assert.are.same({15, true}, {server:spawn(foreign, through)()})
    local again = server:spawn(id, through)
    assert.are.equal(Account, getmetatable(again()))
    -- captured
    assert.are.same({15, true}, {server:spawn(function() return foreign(job) end)()})
  end)

  it("that went as an argument go along too", function()
    local server <close> = pp.Server(2)
    local class = {__index = {hello = function(self) return "hello " .. self.name end}}
    local function make(c, name) return setmetatable({name = name}, c) end
    local function hello(x) return x:hello() end
    local job = server:spawn(make, class, "Ann")
    assert.are.equal("hello Ann", server:spawn(hello, job)())
    assert.are.equal("hello Ann", server:spawn(hello, server:spawn(id, job))())
    assert.is_true(server:spawn(function(x, c) return getmetatable(x) == c end, job, class)())
    assert.are.equal(class, getmetatable(server:spawn(id, job)()))
  end)

  it("that are found under a name there are those", function()
    local server <close> = pp.Server(1)
    _G.Named = {__index = {v = 9}}
    local job = server:spawn(function() return setmetatable({}, Named) end) -- luacheck: ignore 113
    local function same(x) return getmetatable(x) == Named, x.v end -- luacheck: ignore 113
    assert.are.same({true, 9}, {server:spawn(same, job)()})
    _G.Named = nil
  end)

  it("hold in chains that capture one another", function()
    local server <close> = pp.Server(2)
    local Step = {__index = {}}
    local job = server:spawn(function() return setmetatable({n = 0}, Step) end)
    for _ = 1, 500 do
      local last = job
      job = server:spawn(function() return setmetatable({n = last.n + 1}, getmetatable(last)) end)
    end
    assert.are.equal(500, job().n)
    assert.are.equal(Step, getmetatable(job()))
  end)
end)

describe("a job that waits for another", function()
  it("is queued and pending until that has ended", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local first = server:spawn(pass, gate.path, 1)
    local job = server:submit{add, args = {first, 1}, group = "waits"}
    assert.are.equal("queued", job.status)
    assert.is_false(job.finished)
    assert.are.equal(0, job.attempts)
    assert.are.equal(2, server:pending())
    assert.is_false(server:wait("waits", 0))
    assert.is_false(job:wait(0.01))
    assert.are.equal(3, server:spawn(id, 3)()) -- others go on
    gate:open()
    assert.are.equal(2, job())
    assert.are.equal("done", job.status)
    assert.are.equal(0, server:pending())
  end)

  it("may wait for jobs of another server", function()
    local one <close> = pp.Server(1)
    local two <close> = pp.Server(1)
    local gate = child.gate()
    local first = one:spawn(pass, gate.path, 1)
    local job = two:spawn(add, first, 1)
    gate:open()
    assert.are.equal(2, job())
    one:destroy()
    assert.are.equal(3, two:spawn(add, first, 2)())
    assert.are.equal(3, two:spawn(add, job, 1)())
  end)

  it("takes what has ended long ago as it was given", function()
    local server <close> = pp.Server(1)
    local plain, t = server:spawn(id, 1), server:spawn(id, {1, {2}})
    server:wait()
    assert.are.equal(2, server:spawn(add, plain, 1)())
    assert.are.same({1, {2}}, server:spawn(id, t)())
    plain()
    t()
    assert.are.equal(2, server:spawn(add, plain, 1)())
    for _ = 1, 2 do assert.are.same({1, {2}}, server:spawn(id, t)()) end
  end)

  it("takes what was asked before anybody waited for it", function()
    local server <close> = pp.Server(1)
    local t = server:spawn(function() return {1, {2}, f = function() return 3 end}, 4 end)
    assert.are.equal(4, select(2, t()))
    for _ = 1, 2 do
      local got = server:spawn(id, t)()
      assert.are.same({1, {2}}, {got[1], got[2]})
      assert.are.equal(3, got.f())
      assert.are.equal(3, server:spawn(function(x) return x.f() end, t)())
    end
  end)

  it("may wait for one of which nothing is kept", function()
    local server <close> = pp.Server(1)
    local gate = child.gate()
    local job = server:submit{pass, args = {gate.path, {5}}, forget = true}
    local next_one = server:submit{function(t) return t[1] end, args = {job}}
    job = nil -- luacheck: ignore 311
    collectgarbage()
    gate:open()
    assert.are.equal(5, next_one())
  end)

  it("does not need the handle it was given", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local function chain()
      local job = server:spawn(pass, gate.path, 0)
      for _ = 1, 100 do
        job = server:spawn(add, job, 1)
        collectgarbage("step")
      end
      return job
    end
    local last = chain()
    collectgarbage()
    collectgarbage()
    gate:open()
    assert.are.equal(100, last())
  end)

  it("keeps its priority", function()
    local server <close> = pp.Server(1)
    local gate, path = child.gate(), os.tmpname()
    local function note(_, text)
      local f <close> = io.open(path, "a")
      f:write(text)
    end
    local first = server:spawn(pass, gate.path)
    server:submit{note, args = {first, "c"}}
    server:submit{note, args = {first, "b"}, priority = 1}
    server:submit{note, args = {first, "a"}, priority = 2}
    gate:open()
    server:wait()
    local f <close> = io.open(path)
    assert.are.equal("abc", f:read("a"))
    os.remove(path)
  end)

  it("is submitted without waiting, in chains and trees however long", function()
    local server <close> = pp.Server(2)
    local job = server:spawn(id, 0)
    for _ = 1, 10000 do job = server:spawn(add, job, 1) end
    local level = {}
    for i = 1, 50000 do level[i] = server:spawn(id, i) end
    while #level > 1 do
      local up = {}
      for i = 1, #level, 2 do
        up[#up + 1] = level[i + 1] and server:spawn(add, level[i], level[i + 1]) or level[i]
      end
      level = up
    end
    assert.are.equal(50000 * 50001 // 2, level[1]())
    assert.are.equal(10000, job())
  end)

  it("starts while the script is busy elsewhere", function()
    local server <close> = pp.Server(2)
    local path = os.tmpname()
    os.remove(path)
    local job = server:spawn(id, 0)
    for _ = 1, 200 do job = server:spawn(add, job, 1) end
    server:spawn(function(n)
      local f <close> = io.open(path, "w")
      f:write(n)
    end, job)
    assert.is_truthy(child.eventually(function()
      local f <close> = io.open(path)
      return f and f:read("a") == "200"
    end))
    os.remove(path)
  end)

  it("is there when a worker is killed on the way", function()
    local server <close> = pp.Server(2)
    local path = os.tmpname()
    os.remove(path)
    local function once(n)
      if n == 50 and not io.open(path) then
        io.open(path, "w"):close()
        os.exit(3)
      end
      return n + 1
    end
    local big = server:spawn(string.rep, "x", 100000)
    local job = server:spawn(id, 0)
    for _ = 1, 100 do job = server:spawn(function(n, s) return once(n), #s end, job, big) end
    assert.are.same({100, 100000}, {job()})
    os.remove(path)
  end)
end)

describe("the failure of a job", function()
  it("is that of all that wait for it, and their cause", function()
    local server <close> = pp.Server(2)
    local value = {code = 7}
    local bad = server:spawn(raise, value)
    local one = server:spawn(add, bad, 1)
    local two = server:spawn(function() return one end)
    local e, e1, e2 = failure(bad), failure(one), failure(two)
    for _, err in ipairs{e1, e2} do
      assert.are.equal(tostring(e), tostring(err))
      assert.are.equal(e.kind, err.kind)
      assert.are.equal(e.message, err.message)
      assert.are.equal(e.traceback, err.traceback)
      assert.are.equal(7, err.value.code)
      assert.are.equal(e, err.cause)
      assert.is_nil(err.worker)
    end
    assert.is_nil(e.cause)
    assert.are.equal(one.id, e1.job)
    assert.are.equal(e1, failure(one))
    assert.are.equal("failed", one.status)
    assert.are.equal(0, one.attempts)
    assert.has_error(function() one() end, e1)
  end)

  it("is the cause also when nobody holds that job", function()
    local server <close> = pp.Server(1)
    local bad_id
    local function make()
      local bad = server:spawn(raise, "gone")
      bad_id = bad.id
      return server:spawn(add, bad, 1)
    end
    local job = make()
    collectgarbage()
    collectgarbage()
    local e = failure(job)
    assert.are.equal("gone", e.message)
    assert.are.equal("gone", e.cause.message)
    assert.are.equal(bad_id, e.cause.job)
    assert.is_true(pp.is_error(e.cause))
  end)

  it("fails at once what is submitted later, and raises nothing there", function()
    local server <close> = pp.Server(1)
    local bad = server:spawn(raise, "no")
    bad:wait()
    local before = server:spawn(add, bad, 1)
    assert.is_true(before.finished)
    assert.are.equal("failed", before.status)
    local e = failure(bad)
    local after = server:spawn(add, bad, 1)
    assert.are.equal(e, failure(before).cause)
    assert.are.equal(e, failure(after).cause)
    local got
    server:submit(add, {bad, 1}, nil, nil, function(...) got = table.pack(...) end)
    assert.is_nil(got)
    server:wait()
    assert.are.same({nil, "no", n = 2}, {got[1], got[2].message, n = got.n})
  end)

  it("goes down long chains and to many at once", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local first = server:submit(function(path)
      io.open(path):close()
      error("first", 0)
    end, {gate.path})
    local job, wide = first, {}
    for _ = 1, 10000 do job = server:spawn(add, job, 1) end
    for i = 1, 20000 do wide[i] = server:spawn(add, first, i) end
    gate:open()
    local e = failure(job)
    assert.are.equal("first", e.message)
    assert.are.equal(first.id, e.cause.job)
    assert.is_nil(e.cause.cause)
    for i = 1, #wide, 1000 do assert.are.equal(e.cause, failure(wide[i]).cause) end
    assert.is_true(server:wait(0))
  end)

  it("comes from each kind of end", function()
    local server <close> = pp.Server{ncpus = 1, retries = 0}
    local gate = child.gate()
    local function kind_of(job) return failure(server:spawn(id, job)).kind end
    assert.are.equal("lost", kind_of(server:spawn(os.exit, 1)))
    local function thread() return coroutine.create(id) end
    assert.are.equal("unsendable", kind_of(server:spawn(thread)))
    assert.are.equal("timeout", kind_of(server:submit{pass, args = {gate.path}, timeout = 0.01}))
    local large = server:submit{string.rep, args = {"x", 1 << 27}, memory = 1 << 24}
    assert.are.equal("memory", kind_of(large))
    local job = server:spawn(pass, gate.path)
    local waits = server:spawn(id, job)
    assert.is_true(job:cancel())
    local e = failure(waits)
    assert.are.equal("cancelled", e.kind)
    assert.are.equal(failure(job), e.cause)
  end)

  it("is not there while attempts are left", function()
    local server <close> = pp.Server(1)
    local path = os.tmpname()
    local function third()
      local f <close> = io.open(path, "a+")
      f:seek("set")
      local n = #f:read("a")
      f:write("x")
      if n < 2 then error("not yet") end
      return n
    end
    local job = server:submit{third, retry_errors = 5}
    assert.are.equal(3, server:spawn(add, job, 1)())
    os.remove(path)
  end)

  it("is reported once when nobody asks", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local job = server:spawn(function() error("the one", 0) end)
      for _ = 1, 100 do job = server:spawn(math.abs, job) end
      server:wait()
    ]])
    assert.are.equal(1, r.status)
    local _, n = r.err:gsub("the one", "")
    assert.are.equal(1, n, r.err)
    assert.is_nil(r.err:find("jobs failed", 1, true))
  end)

  it("is known when the error of one that waited for it was seen", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(2)
      local job = server:spawn(function() error("the one", 0) end)
      for _ = 1, 100 do job = server:spawn(math.abs, job) end
      print(job:pcall())
    ]])
    assert.are.equal("false\tthe one\n", r.out:match("^[^\n]*\n"))
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)
end)

describe("ending jobs that wait", function()
  it("cancel ends one, and what waits for it", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local first = server:spawn(pass, gate.path, 1)
    local second = server:spawn(add, first, 1)
    local third = server:spawn(add, second, 1)
    local other = server:spawn(add, first, 5)
    assert.is_true(second:cancel())
    assert.is_false(second:cancel())
    local e = failure(third)
    assert.are.equal("cancelled", e.kind)
    assert.are.equal(failure(second), e.cause)
    gate:open()
    assert.are.equal(6, other())
    assert.are.equal(1, first())
  end)

  it("cancel_all counts them, and leaves what runs", function()
    local server <close> = pp.Server(1)
    local gate = child.gate()
    local path = os.tmpname()
    local function begin(p, mark)
      io.open(mark, "w"):write("x"):close()
      io.open(p):close()
      return 1
    end
    local first = server:spawn(begin, gate.path, path)
    child.eventually(function()
      local f <close> = io.open(path)
      return f and f:read("a") == "x"
    end)
    local jobs = {}
    for i = 1, 10 do jobs[i] = server:spawn(add, jobs[i - 1] or first, 1) end
    for i = 11, 20 do jobs[i] = server:spawn(id, i) end
    assert.are.equal(20, server:cancel_all())
    for i = 1, 20 do
      assert.are.equal("cancelled", failure(jobs[i]).kind)
      assert.is_nil(failure(jobs[i]).cause)
    end
    gate:open()
    assert.are.equal(1, first())
    assert.are.equal(2, server:spawn(add, first, 1)())
    os.remove(path)
  end)

  it("destroy fails them, also those of other servers", function()
    local one, two <close> = pp.Server(1), pp.Server(1)
    local gate = child.gate()
    local first = one:spawn(pass, gate.path, 1)
    local second, far = one:spawn(add, first, 1), two:spawn(add, first, 1)
    local further = two:spawn(add, far, 1)
    one:destroy()
    assert.are.equal("destroyed", failure(second).kind)
    for _, job in ipairs{far, further} do
      local e = failure(job)
      assert.are.equal("destroyed", e.kind)
      assert.are.equal(failure(first), e.cause)
    end
    assert.are.equal("destroyed", failure(two:spawn(id, first)).kind)
    assert.are.equal(0, two:pending())
  end)

  it("a server of which others wait may be dropped", function()
    local server <close> = pp.Server(1)
    local gate = child.gate()
    local function elsewhere()
      local other = pp.Server(1)
      return server:spawn(add, other:spawn(pass, gate.path, 1), 1)
    end
    local job = elsewhere()
    collectgarbage()
    collectgarbage()
    gate:open()
    assert.are.equal(2, job())
  end)

  it("the end of the script drops them and says how many", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local job = server:spawn(pp.sleep, 1000)
      for _ = 1, 1000 do job = server:spawn(math.abs, job) end
    ]])
    assert.are.equal(0, r.status)
    assert.is_truthy(r.err:find("1001 unfinished jobs dropped", 1, true), r.err)
  end)

  it("chains that were dropped unfinished are freed without recursion", function()
    local r = child.run([[
      local pp = require "pp"
      local server = pp.Server(1)
      local job = server:spawn(pp.sleep, 1000)
      for _ = 1, 100000 do job = server:spawn(math.abs, job) end
      job = nil
      server:destroy()
      server = nil
      collectgarbage()
      collectgarbage()
      print "freed"
    ]])
    assert.are.equal("freed\n", r.out, r.err)
    assert.are.equal(0, r.status)
  end)
end)

describe("in a job", function()
  it("handles of the jobs it submits work the same way", function()
    local server <close> = pp.Server(2)
    local class = {__index = {hi = function(self) return "hi " .. self.n end}}
    local function parent()
      local inner = require "pp".Server()
      local job = inner:spawn(add, 1, 2)
      for _ = 1, 50 do job = inner:spawn(add, job, 1) end
      local object = inner:spawn(function(n) return setmetatable({n = n}, class) end, 7)
      local hi = inner:spawn(function(o) return o:hi() end, object)
      local bad = inner:spawn(raise, "bad")
      local ok, e = inner:spawn(function() return bad end):pcall()
      return job(), hi(), ok, e.message, e.cause == select(2, bad:pcall()), object()
    end
    for _ = 1, 3 do
      local r = {server:spawn(parent)()}
      assert.are.equal(class, getmetatable(r[6]))
      assert.are.same({53, "hi 7", false, "bad", true}, {table.unpack(r, 1, 5)})
    end
  end)

  it("what it waits for while jobs run in its midst is its own", function()
    local server <close> = pp.Server(1)
    local shared = server:put{1}
    local first = server:spawn(function() return {0} end)
    local function count(n)
      first[1] = first[1] + n -- goes down, and is changed by nobody else here
      if n > 0 then
        local inner = require "pp".Server()
        local below = inner:spawn(count, n - 1)
        local t, m = inner:spawn(function(x) return x, shared[1] end, below)()
        return first[1] + t + m - 1
      end
      return first[1]
    end
    -- 30, 30 + 29, ..., 30 + 29 + ... + 1, and that again
    assert.are.equal(30 * 31 * 61 // 6 + 30 * 31 // 2, server:spawn(count, 30)())
  end)

  it("it is given results and values like any other", function()
    local server <close> = pp.Server(2)
    local job, ref = server:spawn(id, {3}), server:put{4}
    local function parent(a, b)
      local inner = require "pp".Server()
      local x, y = inner:spawn(function() return job[1], ref[1] end)()
      return x + a[1], y + b[1]
    end
    assert.are.same({6, 8}, {server:spawn(parent, job, ref)()})
  end)

  it("cancel_all ends those that wait", function()
    local server <close> = pp.Server(2)
    local gate = child.gate()
    local function parent(path)
      local inner = require "pp".Server()
      local first = inner:spawn(pass, path, 1)
      while first.status ~= "running" do first:wait(0.001) end
      local jobs = {}
      for i = 1, 5 do jobs[i] = inner:spawn(add, jobs[i - 1] or first, 1) end
      local n = inner:cancel_all()
      return n, select(2, jobs[5]:pcall()).kind, first.status
    end
    local job = server:spawn(parent, gate.path)
    assert.are.same({5, "cancelled", "running"}, {job()})
  end)
end)

describe("what cannot be a job's value", function()
  it("is refused at submit when the script made it so", function()
    local server <close> = pp.Server(1)
    local job = server:spawn(function() return {} end)
    local t = job()
    t.co = coroutine.create(id)
    local info = here()
    local ok, message = pcall(function()
      server:spawn(id, job)
    end)
    assert.is_false(ok)
    assert.are.equal(at(info, 2) ..
      "cannot send argument 1: job whose result cannot be sent any more", message)
  end)

  it("gives a function back when the job it came from is forgotten", function()
    for n = 0, 1 do
      local server <close> = pp.Server(n)
      local last
      do
        local five = 5
        local first = server:spawn(function() return function() return five end end)
        last = server:spawn(id, first)
        server:wait()
        first()
      end
      collectgarbage()
      collectgarbage()
      server:spawn(id)()
      assert.are.equal(5, last()())
    end
  end)
end)
