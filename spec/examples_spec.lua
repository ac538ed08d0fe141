-- SPDX-License-Identifier: MIT
-- Each program in scripts/examples, with arguments that keep it short.
local describe, it, assert, after_each = describe, it, assert, after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local pp = require "pp"

--- parallelpython's table for one node, as a pattern. Jobs: a number, or the
-- pattern of one in a column of ten; active: a pattern.
local function statistics(jobs, cores, active)
  return "Job execution statistics:\n"
    .. " job count | %% of all jobs | job time sum | time per job | job server\n"
    .. (type(jobs) == "number" and ("%10d"):format(jobs) or jobs)
    .. " |        100%.00 | +%d+%.%d%d%d%d | +%d+%.%d%d%d%d%d%d"
    .. " | local\nTime elapsed since server creation %d[%d.e-]*\n"
    .. (active or "0") .. " active tasks, " .. cores .. " cores\n\n"
end

local sums = "Sum of primes below 100000 is 454396537\n"
  .. "Sum of primes below 100100 is 454996777\n"
  .. "Sum of primes below 100200 is 455898156\n"
  .. "Sum of primes below 100300 is 456700218\n"
  .. "Sum of primes below 100400 is 457603451\n"
  .. "Sum of primes below 100500 is 458407033\n"
  .. "Sum of primes below 100600 is 459412387\n"
  .. "Sum of primes below 100700 is 460217613\n"
  .. "Time elapsed:  %d[%d.e-]* s\n"

local md5_of_1829 = child.output_of("printf 1829 | md5sum"):match("^%x+")

--- The first 30 of n random numbers of a seed, by the library's sort.
local function first_sorted(n, seed)
  local r = child.run(([[
    math.randomseed(%d)
    local t = {}
    for i = 1, %d do t[i] = math.random(0, 100000) end
    table.sort(t)
    print(table.concat(t, ", ", 1, 30))
  ]]):format(seed, n))
  return (r.out:gsub("\n", ""))
end

--- The logarithm's series and its derivative with so many terms less one.
local function log_lines(terms)
  local lines = {}
  for i = 0, 31 do
    local x, log, slope = 1 + i / 32, 0.0, 0.0
    for k = terms - 1, 1, -1 do
      local sign = k % 2 == 1 and 1 or -1
      log = log + sign * (i / 32) ^ k / k
      slope = slope + sign * (i / 32) ^ (k - 1)
    end
    lines[#lines + 1] = {x, log, slope}
  end
  return lines
end

--- For each file: arguments, and the whole output as a pattern; what is
-- captured goes to `check`.
local examples = {
  ["sum_primes.lua"] = {{"2"}, "Starting pp with 2 workers\n" .. sums
    .. statistics(8, 2)},
  ["sum_primes_functor.lua"] = {{"3"}, "Starting pp with 3 workers\n" .. sums
    .. statistics(8, 3)},
  ["callback.lua"] = {{"2", "100000"}, "Starting pp with 2 workers\n"
    .. "Partial sum is 0%.69315218%d+ | diff = %-5%.0000%d+e%-06\n"
    .. statistics(128, 2)},
  ["reverse_md5.lua"] = {{"2", "2000", "1829"}, "Starting pp with 2 workers\n"
    .. "hash = " .. md5_of_1829 .. "\n"
    .. "Reverse md5 for " .. md5_of_1829 .. " is 1829\n"
    .. statistics(" +(%d+)", 2, "(%d+)"),
    check = function(ended, active)
      -- 1829 is in the 115th range; what is left over is under way
      assert.is_true(tonumber(ended) >= 115)
      assert.is_true(ended + active <= 128)
    end},
  ["quicksort.lua"] = {{"2", "20000", "3"}, "Starting pp with 2 workers\n"
    .. "first 30 numbers in increasing order: %[([%d, ]+)%]\n"
    .. statistics(32, 2),
    check = function(list)
      assert.are.equal(first_sorted(20000, 3), list)
    end},
  ["auto_diff.lua"] = {{"2", "400"}, "Starting pp with 2 workers\n"
    .. "(t_log.*\n)" .. statistics(32, 2),
    check = function(lines)
      local expected = log_lines(400)
      local n = 0
      for x, log, x2, slope in lines:gmatch(
        "t_log%((%d%.%d+)%) = (%d%.%d+), t_log'%((%d%.%d+)%) = (%d%.%d+)\n") do
        n = n + 1
        assert.are.equal(("%f"):format(expected[n][1]), x)
        assert.are.equal(x, x2)
        assert.is_true(math.abs(expected[n][2] - log) < 1e-6)
        assert.is_true(math.abs(expected[n][3] - slope) < 1e-6)
      end
      assert.are.equal(32, n)
      assert.is_truthy(lines:find(
        "t_log(1.031250) = 0.030772, t_log'(1.031250) = 0.969697", 1, true))
    end},
  ["hosts.lua"] = {{}, "9592 primes below 100000\n"
    .. "local: (%d+) workers, 100 jobs\n(.*)\n",
    check = function(workers)
      assert.are.equal(pp.ncpus(), tonumber(workers))
    end},
  ["dynamic_ncpus.lua"] = {{"20000"}, "(Starting.*)" .. statistics(384, 1),
    check = function(rounds)
      local sum, workers = 0.0, {}
      for x = 19999, 1, -1 do sum = sum + (x % 2 == 0 and -1 or 1) / x end
      rounds = rounds:gsub("Starting pp with (%d+) workers\n"
        .. "Partial sum is (%d[%d.e-]*) | diff = (%-?%d[%d.e-]*)\n"
        .. "Time elapsed:  %d[%d.e-]* s\n\n", function(w, s, d)
          workers[#workers + 1] = w
          assert.is_true(math.abs(sum - s) < 1e-12)
          assert.is_true(math.abs(math.log(2) - sum - d) < 1e-12)
          return ""
        end)
      assert.are.equal("", rounds)
      assert.are.equal("1 2 4 8 16 1", table.concat(workers, " "))
    end},
}

after_each(child.clean)

describe("the example", function()
  for name, case in pairs(examples) do
    it(name .. " gives the output it is known for", function()
      local r = child.run("", {path = "scripts/examples/" .. name, args = case[1]})
      assert.are.equal("", r.err)
      assert.are.equal(0, r.status)
      local found = table.pack(r.out:find("^" .. case[2] .. "$"))
      assert.is_truthy(found[1], r.out)
      if case.check then case.check(table.unpack(found, 3, found.n)) end
    end)
  end

  it("reverse_md5.lua says when there is no such number", function()
    local r = child.run("", {path = "scripts/examples/reverse_md5.lua",
      args = {"2", "1829", "1829"}}) -- one too few
    assert.is_truthy(r.out:find("Reverse md5 for " .. md5_of_1829
      .. " has not been found\n" .. statistics(128, 2) .. "$"), r.out)
    assert.are.same({0, ""}, {r.status, r.err})
  end)

  it("dynamic_ncpus.lua takes other numbers of workers", function()
    local r = child.run("", {path = "scripts/examples/dynamic_ncpus.lua",
      args = {"1000", "3", "2"}})
    assert.is_truthy(r.out:find("^Starting pp with 3 workers\n.*\n\n"
      .. "Starting pp with 2 workers\n.*\n\n" .. statistics(128, 2) .. "$"), r.out)
  end)

  it("sum_primes.lua takes a worker for each CPU without arguments", function()
    local r = child.run("", {path = "scripts/examples/sum_primes.lua",
      options = {"-j", "1"}})
    assert.is_truthy(r.out:find("^Starting pp with 1 workers\n" .. sums), r.out)
    assert.are.equal(0, r.status)
  end)

  it("is never one that nothing is known of", function()
    for name in child.output_of("ls scripts/examples"):gmatch("[^\n]+") do
      assert.is_not_nil(examples[name], name .. " has no expectation here")
    end
  end)
end)
