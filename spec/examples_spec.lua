-- SPDX-License-Identifier: MIT
-- Each program in scripts/examples, with arguments that keep it short.
local describe, it, assert, after_each = describe, it, assert, after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"

--- parallelpython's table for one node, as a pattern.
local function statistics(jobs, cores)
  return "Job execution statistics:\n"
    .. " job count | %% of all jobs | job time sum | time per job | job server\n"
    .. ("%10d"):format(jobs) .. " |        100%.00 | +%d+%.%d%d%d%d | +%d+%.%d%d%d%d%d%d"
    .. " | local\nTime elapsed since server creation %d[%d.e-]*\n"
    .. "0 active tasks, " .. cores .. " cores\n\n"
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

--- For each file: arguments, and the whole output as a pattern.
local examples = {
  ["sum_primes.lua"] = {{"2"}, "Starting pp with 2 workers\n" .. sums
    .. statistics(8, 2)},
  ["sum_primes_functor.lua"] = {{"3"}, "Starting pp with 3 workers\n" .. sums
    .. statistics(8, 3)},
  ["callback.lua"] = {{"2", "100000"}, "Starting pp with 2 workers\n"
    .. "Partial sum is 0%.69315218%d+ | diff = %-5%.0000%d+e%-06\n"
    .. statistics(128, 2)},
}

after_each(child.clean)

describe("the example", function()
  for name, case in pairs(examples) do
    it(name .. " gives the output it is known for", function()
      local r = child.run("", {path = "scripts/examples/" .. name, args = case[1]})
      assert.are.equal("", r.err)
      assert.are.equal(0, r.status)
      assert.is_truthy(r.out:find("^" .. case[2] .. "$"), r.out)
    end)
  end

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
