-- SPDX-License-Identifier: MIT
-- Random numbers of jobs.

local pp = require "pp"

local function numbers()
  return math.random(1 << 40), math.random()
end

local function of_jobs(server, n)
  local jobs, list = {}, {}
  for i = 1, n do
    jobs[i] = server:submit(numbers)
  end
  for i = 1, n do
    list[i] = ("%d %a"):format(jobs[i]())
  end
  return list
end

describe("with a seed", function()
  it("the numbers of a job depend on the seed and its id alone", function()
    local a <close> = pp.Server { ncpus = 1, seed = 42 }
    local b <close> = pp.Server { ncpus = 4, seed = 42 }
    local c <close> = pp.Server { ncpus = 4, seed = 43 }
    local first = of_jobs(a, 20)
    assert.are.same(first, of_jobs(b, 20))
    assert.are_not.same(first, of_jobs(c, 20))
    assert.are_not.same(first, of_jobs(b, 20)) -- other ids
    for i = 2, 20 do
      assert.are_not.equal(first[1], first[i])
    end
  end)

  it("those of an item depend on its index, not on chunks or workers", function()
    local a <close> = pp.Server { ncpus = 1, seed = 7 }
    local b <close> = pp.Server { ncpus = 3, seed = 7 }
    local first = a:map(numbers, pp.range(1, 50), { chunk = 1 })
    for _, chunk in ipairs { 3, 50, "auto" } do
      assert.are.same(first, b:map(numbers, pp.range(1, 50), { chunk = chunk }))
    end
    for i, x in b:imap(numbers, pp.range(1, 50), { ordered = false }) do
      assert.are.equal(first[i], x)
    end
  end)

  it("those of a job after a map do not depend on how that was divided", function()
    local first, number
    for ncpus = 1, 5, 2 do
      for _, chunk in ipairs { 1, 30, "auto" } do
        local server <close> = pp.Server { ncpus = ncpus, seed = 7 }
        server:submit(numbers)
        server:map(numbers, pp.range(1, 60), { chunk = chunk })
        local job = server:submit(numbers)
        first, number = first or job(), number or job.id
        assert.are.equal(first, (job()))
        assert.are.equal(number, job.id)
      end
    end
  end)

  it("another attempt has the same", function()
    local server <close> = pp.Server { ncpus = 1, seed = 1 }
    local name = os.tmpname()
    os.remove(name)
    local function twice(path)
      local x = math.random(1 << 40)
      local f = io.open(path)
      if not f then
        f = io.open(path, "w")
        f:write(x)
        f:close()
        os.exit(1)
      end
      local before = f:read("n")
      f:close()
      return x, before
    end
    local x, before = server:spawn(twice, name)()
    os.remove(name)
    assert.are.equal(before, x)
  end)

  it("pp.job.seed tells what it is", function()
    local server <close> = pp.Server { ncpus = 1, seed = 1 }
    local function seed()
      return require("pp").job.seed
    end
    local a, b = server:spawn(seed)(), server:spawn(seed)()
    assert.are.equal("integer", math.type(a))
    assert.are_not.equal(a, b)
    local plain <close> = pp.Server(1)
    assert.is_nil(plain:spawn(seed)())
  end)

  it("must be an integer", function()
    for _, bad in ipairs { "1", 1.5, {} } do
      local ok, err = pcall(pp.Server, { ncpus = 1, seed = bad })
      assert.is_false(ok)
      assert.is_truthy(err:find("seed must be an integer", 1, true), err)
    end
  end)
end)

describe("without a seed", function()
  it("every job has its own, also after one that seeds", function()
    local server <close> = pp.Server(1)
    local seen = {}
    for _ = 1, 20 do
      server:spawn(function() math.randomseed(1) end)()
      local x = server:spawn(numbers)()
      assert.is_nil(seen[x])
      seen[x] = true
    end
    local other <close> = pp.Server(1)
    assert.is_nil(seen[other:spawn(numbers)()])
  end)
end)
