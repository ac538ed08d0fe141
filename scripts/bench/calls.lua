-- SPDX-License-Identifier: MIT
--- Jobs that do nothing: what a call costs.
local pp = require "pp"
local tools = require "bench.tools"

local function noop() end

-- Submitted, awaited, one after another.
local function start_lone(n)
  local server = pp.Server(2)
  server:submit(noop)() -- workers up, code sent
  return function()
    return {
      pingpong = tools.floor("pingpong", n),
      spin = tools.floor("spin", n),
      ours = tools.time(function()
        for _ = 1, n do server:submit(noop)() end
      end),
    }
  end
end

-- All submitted, then all gathered.
local function start_gather(n)
  local server = pp.Server(2)
  local function gather(count)
    local jobs = {}
    for i = 1, count do jobs[i] = server:submit(noop) end
    for i = 1, count do jobs[i]() end
  end
  gather(n // 10)
  return function()
    return {
      batched = tools.floor("batch2", n),
      each = tools.floor("inflight", n),
      ours = tools.time(gather, n),
    }
  end
end

-- Run f while as many loops as there are CPUs want all of them. They end with the
-- shell that started them, and that with the pipe it reads.
local function beside_loops(f, ...)
  local _ <close> = assert(io.popen(([[
    for _ in $(seq %d); do
      sh -c 'while :; do :; done' &
      loops="$loops $!"
    done
    read _
    kill $loops
  ]]):format(pp.ncpus()), "w"))
  return f(...)
end

-- Both with nothing free to spin on.
local function start_beside(n)
  local lone, gather = start_lone(n), start_gather(10 * n)
  return function()
    return beside_loops(function()
      local one, all = lone(), gather()
      return {
        pingpong = one.pingpong,
        one = one.ours,
        batched = { seconds = all.batched, n = 10 * n },
        all = { seconds = all.ours, n = 10 * n },
      }
    end)
  end
end

return {
  {
    name = "lone.pinned",
    one_cpu = true,
    n = { quick = 500, usual = 2000 },
    rounds = 15,
    start = start_lone,
    lines = {
      { name = "lone.pinned", floor = "pingpong", unit = "us", target = "ratio <= 2",
        about = "a no-op job submitted and awaited, all on one CPU; floor: a message there"
          .. " and back" },
    },
  },
  {
    name = "lone.free",
    n = { quick = 500, usual = 2000 },
    rounds = 15,
    start = start_lone,
    lines = {
      { name = "lone.free", floor = "pingpong", unit = "us", target = "ratio <= 1",
        about = "the same on free CPUs" },
      { name = "lone.spin", floor = "spin", unit = "us",
        about = "the same; floor: two processes that spin on shared memory" },
    },
  },
  {
    name = "beside",
    n = { quick = 200, usual = 2000 },
    rounds = 5,
    start = start_beside,
    lines = {
      { name = "lone.beside", of = "one", floor = "pingpong", unit = "us", target = "ratio <= 1",
        about = "as `lone.free`, while as many loops as there are CPUs want all of them" },
      { name = "gather.beside", of = "all", floor = "batched", unit = "/s",
        about = "as `gather`, beside such loops" },
    },
  },
  {
    name = "gather",
    n = { quick = 10000, usual = 100000 },
    start = start_gather,
    lines = {
      { name = "gather", floor = "batched", unit = "/s", target = "rate >= 1000000",
        about = "no-op jobs submitted one by one, all gathered; floor: messages, many to a"
          .. " call" },
      { name = "gather.each", floor = "each", unit = "/s",
        about = "the same; floor: messages, a call for each" },
    },
  },
}
