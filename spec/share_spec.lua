-- SPDX-License-Identifier: MIT
-- Items of a chunk that others can run while its worker is at a long one.
local describe, it, assert, before_each, after_each = describe, it, assert, before_each, after_each
local setup, teardown, pending = setup, teardown, pending
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"
local pp = require "pp"

local PATIENCE = 30 * run.slowness

--- Wait until there is a file of that name, or it is too late.
local function await(path, patience)
  local deadline = pp.time() + patience
  while pp.time() < deadline do
    local f = io.open(path)
    if f then
      f:close()
      return true
    end
    pp.sleep(0.01)
  end
  error("no " .. path, 0)
end

--- Note that an item runs.
local function note(dir, item)
  local log <close> = io.open(dir .. "/" .. item, "a")
  log:write("x")
end

--- How often items ran: a text of digits, for 1 to n.
local function runs(dir, n)
  local counts = {}
  for i = 1, n do counts[i] = #(run.read(dir .. "/" .. i) or "") end
  return table.concat(counts)
end

describe("a chunk whose worker is at a long item", function()
  local dir, server
  before_each(function() dir = run.directory() end)
  after_each(function()
    server:destroy()
    run.cleanup()
  end)

  -- Item `long` ends when item `last` has run, which the same chunk has.
  local function held(long, last)
    return function(i)
      note(dir, i)
      if i == long then await(dir .. "/" .. last, PATIENCE) end
      return 2 * i
    end
  end

  local lists = {
    ["of a range"] = function(n) return pp.range(1, n) end,
    ["of a list"] = function(n)
      local list = {}
      for i = 1, n do list[i] = i end
      return list
    end,
  }
  for name, list in pairs(lists) do
    it("leaves the rest to others, " .. name, function()
      server = pp.Server(2)
      for _, n in ipairs {2, 100} do
        for _, long in ipairs {1, n - 1} do
          dir = run.directory()
          local got = server:map(held(long, n), list(n), {chunk = n})
          for i = 1, n do assert.are.equal(2 * i, got[i]) end
          assert.are.equal(("1"):rep(n), runs(dir, n))
        end
      end
      assert.are.equal(204, server:get_stats()["local"].njobs)
    end)
  end

  it("does so in imap, in order and not, with errors, callbacks and several results", function()
    server = pp.Server(2)
    local function f(t)
      local i = t[1]
      note(dir, i)
      if i == 2 then await(dir .. "/40", PATIENCE) end
      if i % 10 == 5 then error("no " .. i, 0) end
      return i, nil, i * i
    end
    local list = {}
    for i = 1, 40 do list[i] = {i} end
    for _, ordered in ipairs {true, false} do
      dir = run.directory()
      local seen, called, n = {}, 0, 0
      local options = {chunk = 40, ordered = ordered, on_error = "keep",
        callback = function() called = called + 1 end}
      for i, a, b, c in server:imap(f, list, options) do
        n = n + 1
        if ordered then assert.are.equal(n, i) end
        assert.is_nil(seen[i])
        seen[i] = true
        if i % 10 == 5 then
          assert.are.equal("no " .. i, a.message)
        else
          assert.are.same({i, nil, i * i}, {a, b, c})
        end
      end
      assert.are.same({40, 40}, {n, called})
      assert.are.equal(("1"):rep(40), runs(dir, 40))
    end
  end)

  it("gives up items of an endless source", function()
    server = pp.Server(2)
    local k = 0
    local n = 0
    local function next_one() k = k + 1 return k end
    for i, r in server:imap(held(3, 20), next_one, {chunk = 20, buffer = 40})
    do
      n = n + 1
      assert.are.same({n, 2 * n}, {i, r})
      if n == 60 then break end
    end
    assert.are.equal(("1"):rep(60), runs(dir, 60))
  end)

  it("has random numbers of its items, whoever runs them", function()
    local function f(i)
      if i == 1 and dir then await(dir .. "/" .. 30, PATIENCE) end
      if dir then note(dir, i) end
      return math.random(1 << 50)
    end
    server = pp.Server {ncpus = 2, seed = 7}
    local shared = server:map(f, pp.range(1, 30), {chunk = 30})
    server:destroy()
    dir = nil
    server = pp.Server {ncpus = 1, seed = 7}
    assert.are.same(server:map(f, pp.range(1, 30), {chunk = 30}), shared)
  end)

  it("raises its error, though others have had some of it", function()
    server = pp.Server(2)
    local function f(i)
      note(dir, i)
      if i == 3 then
        await(dir .. "/" .. 30, PATIENCE)
        error("three", 0)
      end
    end
    local ok, e = pcall(server.map, server, f, pp.range(1, 30), {chunk = 30})
    assert.is_false(ok)
    assert.are.equal("three", e.message)
  end)

  it("is run again without them when its worker dies", function()
    for _, retries in ipairs {2, 1} do
      dir = run.directory()
      server = pp.Server(2)
      local function f(i)
        note(dir, i)
        if i == 4 and pp.job.attempt <= retries then
          await(dir .. "/" .. 50, PATIENCE)
          local stat <close> = io.open "/proc/self/stat"
          os.execute("kill -9 " .. stat:read "n")
        end
        return i
      end
      local got = server:map(f, pp.range(1, 50), {chunk = 50, retries = retries})
      for i = 1, 50 do assert.are.equal(i, got[i]) end
      -- It may have lost some before it came to the fourth.
      local n = retries + 1
      local counts = runs(dir, 50)
      assert.matches("^[1" .. n .. "]+" .. n .. ("1"):rep(46) .. "$", counts)
      assert.are.equal(n, tonumber(counts:sub(4, 4)))
      server:destroy()
    end
  end)

  it("may lose its worker at any moment, also when it is cut", function()
    server = pp.Server(2)
    -- Whoever is at an item for long is killed about when chunks are cut.
    local function f(i)
      if i % 40 == 7 then
        if pp.job.attempt == 1 then
          local stat <close> = io.open "/proc/self/stat"
          os.execute("(sleep 0.00$(($$ % 7)); kill -9 " .. stat:read "n" .. ") &")
        end
        pp.sleep(0.012)
      end
      return i
    end
    for _ = 1, 4 do
      local got = server:map(f, pp.range(1, 400), {chunk = 80, retries = 10})
      for i = 1, 400 do assert.are.equal(i, got[i]) end
      assert.are.equal(400, got.n)
    end
  end)

  it("does so in a job", function()
    server = pp.Server(3)
    local f = held(2, 50)
    local got = server:spawn(function()
      local own = pp.Server()
      return own:map(f, pp.range(1, 50), {chunk = 50})
    end)()
    for i = 1, 50 do assert.are.equal(2 * i, got[i]) end
    assert.are.equal(("1"):rep(50), runs(dir, 50))
  end)

  it("ends with its server, and when it is left", function()
    local r = child.run [[
      local pp = require "pp"
      local s = pp.Server(2)
      for i in s:imap(function(i) if i == 2 then pp.sleep(1000) end return i end,
        pp.range(1, 60), {chunk = 60, ordered = false}) do
        if i == 60 then break end
      end
      print(s:pending())
      s:spawn(print, "on")()
    ]]
    assert.are.same({"0\non\n", ""}, {r.out, r.err})
  end)
end)

describe("a chunk at a host", function()
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

  local text = [[
    local pp = require "pp"
    local dir, die = arg[1], arg[2] == "die"
    local s = pp.Server{ncpus = 0, hosts = "h1/2"}
    assert(s:wait_hosts(30))
    local function f(i)
      local log <close> = io.open(dir .. "/" .. i, "a")
      log:write "x"
      log:flush()
      if i == 3 and pp.job.attempt == 1 then
        local deadline = pp.time() + 30
        while not io.open(dir .. "/40") do
          assert(pp.time() < deadline, "nobody runs 40")
          pp.sleep(0.01)
        end
        if die then os.execute("kill -9 $PPID") end
      end
      return 2 * i
    end
    local got = s:map(f, pp.range(1, 40), {chunk = 40})
    for i = 1, 40 do assert(got[i] == 2 * i, i) end
    print "all"
  ]]

  for _, how in ipairs {"live", "die"} do
    it("is shared like one here, its worker may " .. how, function()
      local dir = run.directory()
      local r = net:run(text, {args = {dir, how}})
      assert.are.same({"all\n", ""}, {r.out, r.err})
      assert.matches("^[12]+" .. (how == "die" and 2 or 1) .. ("1"):rep(37) .. "$", runs(dir, 40))
    end)
  end
end)
