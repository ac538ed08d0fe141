-- SPDX-License-Identifier: MIT
-- Servers and jobs at the edges of their lives: forgotten, destroyed, asked
-- for too late.
local child = require "spec.support.child"
local pp = require "pp"

after_each(child.clean)

local function ran(text, options)
  local r = child.run('local pp = require "pp"\n' .. text, options)
  assert.is_nil(r.late)
  return r
end

describe("a failed job nobody asked about", function()
  local fail = 'local s = pp.Server(2) s:spawn(function() error("unseen", 0) end) s:wait() '

  for name, ending in pairs {
    ["the end of the script"] = "",
    ["destroy"] = "s:destroy()",
    ["<close>"] = "do local c <close> = s end",
    ["collection"] = "s = nil collectgarbage() collectgarbage()",
    ["os.exit"] = "os.exit(0)",
    ["os.exit that closes the state"] = "os.exit(0, true)",
  } do
    it("is reported once, with status 1, at " .. name, function()
      local r = ran(fail .. ending)
      assert.are.equal(1, r.status)
      assert.are.equal(1, select(2, r.err:gsub("job 0 failed and nobody asked: unseen", "")), r.err)
    end)
  end
end)

describe("a server nobody holds any more", function()
  it("stays until its jobs have ended and their callbacks have run", function()
    local r = ran [[
      do
        local s = pp.Server(2)
        for i = 1, 10 do
          s:submit{function(k) os.execute("sleep 0.02") return k end, args = {i},
            callback = function(k) io.write("back ", k, "\n") end}
        end
      end
      collectgarbage() collectgarbage()
      pp.sleep(2)
    ]]
    assert.are.equal(0, r.status)
    assert.are.equal(10, select(2, r.out:gsub("back %d+\n", "")), r.out)
  end)

  it("has its unfinished jobs told of when the state is closed", function()
    local r = ran 'local s = pp.Server(1) s:spawn(pp.sleep, 1000) os.exit(0, true)'
    assert.are.equal(0, r.status)
    assert.is_truthy(r.err:find("1 unfinished job dropped", 1, true), r.err)
  end)
end)

describe("destroy", function()
  it("leaves callbacks to the next waiting call", function()
    local server = pp.Server(1)
    local got = {}
    local function note(i, v, err)
      got[i] = err and err.kind or v
    end
    server:submit { function() return "done" end, callback = note, callbackargs = { 1 } }
    assert.is_true(child.eventually(function() return server:pending() == 0 end))
    server:submit {
      function() while true do end end, -- luacheck: ignore
      callback = note, callbackargs = { 2 },
    }
    server:destroy()
    assert.are.same({}, got)
    pp.sleep(0)
    assert.are.same({ "done", "destroyed" }, got)
  end)

  it("gives back what its workers held, a thousand times", function()
    for _ = 1, 1000 do
      local server <close> = pp.Server(2) -- luacheck: ignore
    end
  end)
end)

describe("when the script is over", function()
  it("a finalizer that waits gets an error instead of waiting for ever", function()
    local r = ran [[
      local s = pp.Server(1)
      local job = s:spawn(function() while true do end end)
      G = setmetatable({}, {__gc = function() print(pcall(job)) print(pcall(pp.Server, 1)) end})
    ]]
    assert.are.equal(0, r.status)
    assert.is_truthy(r.out:find("false\t", 1, true), r.out)
    assert.is_truthy(r.out:find("ppsh is ending", 1, true), r.out)
  end)

  it("a stopped zygote does not keep ppsh", function()
    local r = ran [[
      local s = pp.Server(1)
      s:spawn(print, "up")()
      local me = io.open("/proc/self/stat"):read("n")
      for pid in io.popen("ls /proc"):lines() do
        local f = tonumber(pid) and io.open("/proc/" .. pid .. "/stat")
        local name, parent
        if f then name, parent = (f:read("a") or ""):match("%((.-)%) %a (%d+)") end
        if name == "pp-zygote" and tonumber(parent) == me then
          os.execute("kill -STOP " .. pid)
        end
      end
    ]]
    assert.are.equal(0, r.status)
    assert.are.same({}, child.left(r.tag))
  end)
end)

describe("a killed zygote", function()
  it("is replaced, its jobs run again, and nothing of the old ones is left", function()
    local r = ran [[
      local s = pp.Server(2)
      local function first(file)
        local seen = io.open(file, "r")
        if seen then seen:close() return "again" end
        io.open(file, "w"):close()
        os.execute("setsid sleep 1000 & (setsid sh -c 'sleep 1001 & sleep 1002' &) ; sleep 1003")
      end
      local names = {os.tmpname(), os.tmpname()}
      for i = 1, 2 do os.remove(names[i]) end
      local jobs = {s:spawn(first, names[1]), s:spawn(first, names[2])}
      for i = 1, 2 do
        local f
        repeat pp.sleep(0.001) f = io.open(names[i]) until f
        f:close()
      end
      local me = io.open("/proc/self/stat"):read("n")
      for pid in io.popen("ls /proc"):lines() do
        local f = tonumber(pid) and io.open("/proc/" .. pid .. "/stat")
        local name, parent
        if f then name, parent = (f:read("a") or ""):match("%((.-)%) %a (%d+)") end
        if name == "pp-zygote" and tonumber(parent) == me then
          os.execute("kill -KILL " .. pid)
        end
      end
      print(jobs[1](), jobs[2]())
      for i = 1, 2 do os.remove(names[i]) end
    ]]
    assert.are.equal("again\tagain\n", r.out, r.err)
    assert.are.equal(0, r.status)
    assert.is_true(child.eventually(function() return #child.left(r.tag) == 0 end))
  end)
end)

describe("what a job sets that is no global", function()
  it("does not reach the next: default files, hooks", function()
    local server <close> = pp.Server(1)
    local name = os.tmpname()
    server:spawn(function(file)
      io.output(file)
      io.input("/proc/self/stat")
      debug.sethook(function() error("hook") end, "", 100)
    end, name)()
    local ok, out, input = server:spawn(function()
      for _ = 1, 1000 do end -- luacheck: ignore
      return io.output() == io.stdout, io.read("a")
    end):pcall()
    os.remove(name)
    assert.is_true(ok, tostring(out))
    assert.is_true(out)
    assert.are.equal("", input)
  end)

  it("does not reach the next: that nothing is collected", function()
    local server <close> = pp.Server(1)
    local function running() return collectgarbage "isrunning" end
    assert.is_false(server:spawn(function()
      collectgarbage "stop"
      return collectgarbage "isrunning"
    end)())
    assert.is_true(server:spawn(running)())
    assert.has_error(function()
      server:spawn(function()
        collectgarbage "stop"
        error "left so"
      end)()
    end)
    assert.is_true(server:spawn(running)())
  end)
end)

describe("modules without a file", function()
  it("travel by value", function()
    package.preload.from_preload = function()
      return { name = function() return "preloaded" end }
    end
    package.loaded.by_hand = { name = function() return "by hand" end }
    local a, b = require "from_preload", require "by_hand"
    local server <close> = pp.Server(1)
    local ok, x, y = server:spawn(function() return a.name(), b.name() end):pcall()
    package.preload.from_preload = nil
    package.loaded.from_preload, package.loaded.by_hand = nil, nil
    assert.is_true(ok, tostring(x))
    assert.are.equal("preloaded", x)
    assert.are.equal("by hand", y)
  end)
end)

describe("the arguments of a script", function()
  it("are what -e made of the table arg", function()
    local run = require "spec.support.run"
    local file = os.tmpname()
    local f <close> = io.open(file, "w")
    f:write("print(...)")
    f:flush()
    local pipe <close> = io.popen(("%s -e 'arg[1] = \"Z\"' %s q"):format(
      run.quote(run.ppsh_path), file))
    assert.are.equal("Z\n", pipe:read("a"))
    os.remove(file)
  end)
end)
