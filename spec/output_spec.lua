-- SPDX-License-Identifier: MIT
-- What jobs and their children print, and what they can read.
local describe, it, assert, after_each = describe, it, assert, after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"

--- Run a script; its result, with nothing on stderr unless told.
local function output(script, options)
  local r = child.run("local pp = require 'pp'\n" .. script, options)
  assert.is_nil(r.late)
  return r
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

after_each(child.clean)

describe("what a job prints #tsan", function()
  it("comes out on standard output and standard error, before job() returns",
    function()
      local r = output([[
        local server = pp.Server(1)
        print("before")
        local job = server:submit(function()
          print("printed", 1, nil)
          io.write("written ", 2, "\n")
          io.stdout:write("by handle\n")
          io.stderr:write("error\n")
        end)
        job()
        print("after")
      ]])
      assert.are.equal("before\nprinted\t1\tnil\nwritten 2\nby handle\nafter\n",
        r.out)
      assert.are.equal("error\n", r.err)
      assert.are.equal(0, r.status)
    end)

  it("is out before wait, pcall and the error of a failed job return",
    function()
      local r = output([[
        local server = pp.Server(1)
        local function say(x) print(x) end
        server:submit(say, {"one"}):wait()
        print("1")
        server:submit(say, {"two"}):pcall()
        print("2")
        server:submit(say, {"three"})
        server:wait()
        print("3")
        server:submit(function() print("four") error("no") end):pcall()
        print("4")
      ]])
      assert.are.equal("one\n1\ntwo\n2\nthree\n3\nfour\n4\n", r.out)
    end)

  it("is out before job() returns, with many jobs under way", function()
    local r = output([[
      local server = pp.Server(2)
      local jobs = {}
      for i = 1, 1000 do
        jobs[i] = server:submit(function(x) print("job " .. x) end, {i})
      end
      for i = 1, 1000 do
        jobs[i]()
        print("returned " .. i)
      end
    ]])
    local seen = {}
    for _, line in ipairs(lines_of(r.out)) do
      local what, i = line:match("^(%a+) (%d+)$")
      if what == "returned" and not seen[i] then error("too late: " .. i) end
      seen[i] = true
    end
    assert.are.equal(2000, #lines_of(r.out))
  end)

  it("is out before its callback runs", function()
    local r = output([[
      local server = pp.Server(1)
      for i = 1, 1000 do
        server:submit{function(x) print("job " .. x) end, args = {i},
          callback = function() print("callback " .. i) end}
      end
      server:wait()
    ]])
    local seen = {}
    for _, line in ipairs(lines_of(r.out)) do
      local what, i = line:match("^(%a+) (%d+)$")
      if what == "callback" and not seen[i] then error("too late: " .. i) end
      seen[i] = true
    end
    assert.are.equal(2000, #lines_of(r.out))
  end)

  it("gets its last line ended, on both streams", function()
    local r = output([[
      local server = pp.Server(1)
      server:submit(function() io.write("no end") io.stderr:write("here too") end)()
      server:submit(function() io.write("nor here") end)()
      print("after")
    ]])
    assert.are.equal("no end\nnor here\nafter\n", r.out)
    assert.are.equal("here too\n", r.err)
  end)

  it("adds nothing when a job prints nothing, or ends its line", function()
    local r = output([[
      local server = pp.Server(1)
      server:submit(function() end)()
      server:submit(function() io.write("") end)()
      server:submit(function() io.write("\n\n") end)()
    ]])
    assert.are.equal("\n\n", r.out)
  end)

  it("is joined to whole lines however it is written", function()
    local r = output([[
      local server = pp.Server(4)
      local function spell(word)
        io.stdout:setvbuf("no")
        for _ = 1, 50 do
          for letter in word:gmatch(".") do io.write(letter) end
          io.write("\n")
        end
      end
      local jobs = {}
      for i = 1, 8 do
        jobs[i] = server:submit(spell, {("abcdefgh"):sub(i, i):rep(20)})
      end
      for i = 1, 8 do jobs[i]() end
    ]])
    local lines = lines_of(r.out)
    assert.are.equal(400, #lines)
    for _, line in ipairs(lines) do
      assert.are.equal(line:sub(1, 1):rep(20), line)
    end
  end)

  it("by many workers at once is never torn, and complete", function()
    local r = output([[
      local server = pp.Server(4)
      local function shout(i)
        local line = ("%03d"):format(i):rep(300)
        for _ = 1, 20 do print(line) end
      end
      for i = 1, 200 do server:submit(shout, {i}) end
      server:wait()
      print("all")
    ]])
    local lines, count = lines_of(r.out), {}
    assert.are.equal("all", table.remove(lines))
    assert.are.equal(4000, #lines)
    for _, line in ipairs(lines) do
      local i = line:sub(1, 3)
      if line ~= i:rep(300) then error("torn: " .. line) end
      count[i] = (count[i] or 0) + 1
    end
    for i = 1, 200 do assert.are.equal(20, count[("%03d"):format(i)]) end
  end)

  it("keeps its order within a job", function()
    local r = output([[
      local server = pp.Server(1)
      server:submit(function() for i = 1, 10000 do print(i) end end)()
    ]])
    local lines = lines_of(r.out)
    assert.are.equal(10000, #lines)
    for i, line in ipairs(lines) do
      if line ~= tostring(i) then error("line " .. i .. " is " .. line) end
    end
  end)

  it("may hold any bytes", function()
    local r = output([[
      local all = {}
      for byte = 0, 255 do all[#all + 1] = string.char(byte) end
      pp.Server(1):submit(function(s) io.write(s, "\n") end,
        {table.concat(all)})()
    ]])
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    assert.are.equal(table.concat(all) .. "\n", r.out)
  end)

  it("in one endless line comes in pieces, and complete", function()
    local r = output([[
      pp.Server(1):submit(function()
        for _ = 1, 1000 do io.write(("0123456789"):rep(100)) end
      end)()
      print("after")
    ]])
    assert.are.equal("after\n", r.out:sub(-6))
    local text = r.out:sub(1, -7):gsub("\n", "")
    assert.are.equal(1000000, #text)
    assert.is_true(text == ("0123456789"):rep(100000))
    local short = ("x"):rep(60000)
    r = output([[
      pp.Server(1):submit(function() print(("x"):rep(60000)) end)()
    ]])
    assert.is_true(r.out == short .. "\n")
  end)

  it("comes out while the job runs", function()
    local gate = child.gate()
    local process = child.start([[
      local pp = require "pp"
      local job = pp.Server(1):submit(function(path)
        print("running")
        io.open(path):close()
        print("released")
      end, {arg[1]})
      job()
    ]], {args = {gate.path}})
    process:expect("running\n")
    gate:open()
    local r = child.finish(process)
    assert.are.equal("running\nreleased\n", r.out)
    assert.are.equal(0, r.status)
  end)

  it("comes out while the script is busy elsewhere", function()
    local done = run.directory() .. "/done"
    local r = output(([[
      local done = %q
      local server = pp.Server(1)
      local job = server:submit(function()
        for i = 1, 20000 do print(("%%06d"):format(i):rep(10)) end
        io.open(done, "w"):close()
        return "printed"
      end)
      -- far more than pipes hold: somebody must take it
      repeat
        local file = io.open(done)
      until file
      io.stderr:write(job(), "\n")
    ]]):format(done))
    assert.are.equal("printed\n", r.err)
    local lines = lines_of(r.out)
    assert.are.equal(20000, #lines)
    for i, line in ipairs(lines) do
      if line ~= ("%06d"):format(i):rep(10) then error("line " .. i) end
    end
  end)

  it("comes out although nobody asks for the job", function()
    local r = output([[
      local server = pp.Server(1)
      server:submit(function() print("unasked") end)
      server:wait()
    ]])
    assert.are.equal("unasked\n", r.out)
  end)

  it("before its worker dies comes out", function()
    local r = output([[
      local server = pp.Server{ncpus = 1, retries = 0}
      print(server:submit(function()
        print("last words")
        io.write("unended")
        io.stdout:flush()
        os.exit(3)
      end):pcall() == false)
    ]])
    assert.are.equal("last words\nunended\ntrue\n", r.out)
  end)

  it("is not mixed with the results", function()
    local r = output([[
      local server = pp.Server(2)
      local jobs = {}
      for i = 1, 100 do
        jobs[i] = server:submit(function(x) print("\1\2\3\0noise") return x end, {i})
      end
      local sum = 0
      for i = 1, 100 do sum = sum + jobs[i]() end
      io.stderr:write(sum, "\n")
    ]])
    assert.are.equal("5050\n", r.err)
    assert.are.equal(("\1\2\3\0noise\n"):rep(100), r.out)
  end)
end)

describe("what a job's child processes print", function()
  it("comes out too, on both streams, before job() returns", function()
    local r = output([[
      local server = pp.Server(1)
      server:submit(function()
        io.write("before\n")
        io.stdout:flush()
        os.execute("echo from a child; echo trouble >&2")
        print("after")
      end)()
      print("end")
    ]])
    assert.are.equal("before\nfrom a child\nafter\nend\n", r.out)
    assert.are.equal("trouble\n", r.err)
  end)

  it("without newline gets one", function()
    local r = output([[
      local server = pp.Server(1)
      server:submit(function() os.execute("printf half") end)()
      print("end")
    ]])
    assert.are.equal("half\nend\n", r.out)
  end)

  it("is read by io.popen and not printed", function()
    local r = output([[
      local server = pp.Server(1)
      print(server:submit(function()
        local pipe = io.popen("echo caught")
        local text = pipe:read("a")
        pipe:close()
        return text
      end)())
    ]])
    assert.are.equal("caught\n\n", r.out)
  end)
end)

describe("standard input of a job", function()
  it("is empty, for its children too", function()
    local r = output([[
      local server = pp.Server(1)
      for _ = 1, 2 do
        print(server:submit(function()
          local pipe = io.popen("cat")
          local text = pipe:read("a")
          pipe:close()
          return io.read("l"), io.stdin:read("a"), text
        end)())
      end
      print(io.read("l"))
    ]], {stdin = "for the script\n"})
    assert.are.equal("nil\t\t\nnil\t\t\nfor the script\n", r.out)
  end)
end)

describe("a last line without newline", function()
  it("gets one however long it is", function()
    for _, ncpus in ipairs{0, 1} do
      for _, n in ipairs{65535, 65536, 131072, 200000} do
        local r = child.run([[
          local pp = require "pp"
          local server, n = pp.Server(tonumber(arg[1])), tonumber(arg[2])
          server:submit(function() io.write(("z"):rep(n)) end)()
          server:submit(print, {"next"})()
        ]], {args = {tostring(ncpus), tostring(n)}})
        assert.are.equal(("z"):rep(n) .. "\nnext\n", r.out, n .. " bytes")
      end
    end
  end)
end)
