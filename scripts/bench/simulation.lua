-- SPDX-License-Identifier: MIT
--- The scheduler over nodes that do not exist: spec/c/sim_test.c, if it was
-- built beside ppsh. Its last world is the largest.
local tools = require "bench.tools"

local function start_simulation(n)
  local program = tools.ppsh:match "^(.*/)" .. "sim_test"
  if not os.execute(("test -x '%s'"):format(program)) then
    return nil, "no sim_test beside ppsh (cmake -DPPSH_TESTS=ON builds it)"
  end
  return function()
    local pipe = assert(io.popen(("exec '%s' %d 2>&1"):format(program, n)))
    local text = pipe:read "a"
    if not pipe:close() then error("sim_test: " .. (text:match "([^\n]*)\n*$" or ""), 0) end
    local jobs, busy, ns, first, last = text:match(
      "\nall: .-(%d+) jobs in.-\n *([%d.]+) %% busy.-, (%d+) ns %(first (%d+), last (%d+)%)")
    if not jobs then error("sim_test printed something else", 0) end
    jobs = math.tointeger(tonumber(jobs))
    local function each(cost) return { cost = tonumber(cost), n = jobs } end
    return {
      busy = { cost = 100 / tonumber(busy), rate = tonumber(busy), n = jobs },
      all = { cost = 1, rate = 100, n = jobs },
      ns = each(ns), first = each(first), last = each(last),
    }
  end
end

return {
  {
    name = "simulation",
    n = { quick = 20000, usual = 10000000 },
    rounds = 1,
    start = start_simulation,
    lines = {
      { name = "sim.busy", of = "busy", floor = "all", unit = "% busy", target = "rate > 95",
        about = "share of their time that simulated workers are busy (1,000 nodes x 32, links of"
          .. " 0.1 to 50 ms, failing nodes); floor: all of it" },
      { name = "sim.job", of = "last", floor = "first", unit = "ns", target = "ratio <= 1.5",
        about = "what the scheduler takes for one of the last jobs there; floor: for one of the"
          .. " first" },
    },
  },
}
