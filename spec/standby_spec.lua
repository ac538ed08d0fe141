-- SPDX-License-Identifier: MIT
-- While the script is busy elsewhere, jobs go on.

local pp = require "pp"

local function lines_in(path)
  local n = 0
  for _ in io.lines(path) do
    n = n + 1
  end
  return n
end

describe("while the script is busy outside of pp calls", function()
  local path

  before_each(function()
    path = os.tmpname()
  end)

  after_each(function()
    os.remove(path)
  end)

  local function note(file, i)
    local f <close> = assert(io.open(file, "a"))
    f:write(i, "\n")
    return i
  end

  it("workers are given job after job", function()
    local server <close> = pp.Server(1)
    local jobs = {}
    for i = 1, 50 do
      jobs[i] = server:submit(note, { path, i })
    end
    local give_up = os.time() + 60
    while lines_in(path) < 50 and os.time() < give_up do -- luacheck: ignore
    end
    assert.equal(50, lines_in(path))
    for i = 1, 50 do
      assert.equal(i, jobs[i]())
    end
  end)

  it("the last of a stream of tiny jobs is run too", function()
    local server <close> = pp.Server(2)
    local function maybe(file)
      if file then
        local f <close> = assert(io.open(file, "a"))
        f:write("x\n")
      end
    end
    for _ = 1, 200 do
      server:submit(maybe)
    end
    server:wait()
    for n = 1, 20 do
      for _ = 1, 20 do
        server:submit(maybe)
      end
      server:submit(maybe, { path })
      local give_up = os.time() + 60
      while lines_in(path) < n and os.time() < give_up do -- luacheck: ignore
      end
      assert.equal(n, lines_in(path))
    end
  end)

  it("dead workers are replaced and their jobs run again", function()
    local server <close> = pp.Server(1)
    local function die_once(file)
      local n = 0
      for _ in io.lines(file) do
        n = n + 1
      end
      local f = assert(io.open(file, "a"))
      f:write("x\n")
      f:close()
      if n < 2 then
        os.exit(3)
      end
      return n
    end
    local job = server:submit(die_once, { path })
    local give_up = os.time() + 60
    while lines_in(path) < 3 and os.time() < give_up do -- luacheck: ignore
    end
    assert.equal(2, job())
    assert.equal(3, job.attempts)
  end)

  it("a job that prints more than a pipe holds is not stopped", function()
    local server <close> = pp.Server(1)
    local function talk(file)
      for _ = 1, 3000 do
        io.stderr:write(("."):rep(99), "\n")
      end
      note(file, 1)
      return "done"
    end
    local keep = io.stderr
    local job = server:submit { talk, args = { path }, globals = { note = note } }
    local give_up = os.time() + 60
    while lines_in(path) < 1 and os.time() < give_up do -- luacheck: ignore
    end
    assert.equal(1, lines_in(path))
    assert.equal("done", job())
    assert.equal(keep, io.stderr)
  end)

  it("gives the script its turn back at once, again and again", function()
    local server <close> = pp.Server(2)
    local function nothing(i)
      return i
    end
    local sum, n = 0, 300
    for i = 1, n do
      local job = server:submit(nothing, { i })
      local x = 0
      for k = 1, 100000 do
        x = x + k % 7
      end
      sum = sum + job()
    end
    assert.equal(n * (n + 1) // 2, sum)
  end)
end)
