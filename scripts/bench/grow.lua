-- SPDX-License-Identifier: MIT
-- grow: what an operation costs while ever more jobs are queued. The workers
-- are kept busy, n jobs are submitted, then let run. One line for each:
-- name, n, nanoseconds for each of them.
--
--   ppsh -j 2 scripts/bench/grow.lua [--most N] [NAME...]

local pp = require "pp"

local most, names = 1000000, {}
do
  local i = 1
  while arg[i] do
    if arg[i] == "--most" then
      i = i + 1
      most = tonumber(arg[i])
    else
      names[#names + 1] = arg[i]
    end
    i = i + 1
  end
end

local function noop() end

local function measure(name, n, run)
  local t = pp.time()
  run()
  print(("%-24s %8d %8.0f"):format(name, n, (pp.time() - t) / n * 1e9))
  io.flush()
end

-- Submit n jobs by submit(server, i) behind workers that are busy, and let them run.
local function behind(name, n, submit)
  local server <close> = pp.Server()
  local busy = {}
  for i = 1, server:get_ncpus() do busy[i] = server:spawn(pp.sleep, 1e6) end
  for _, job in ipairs(busy) do
    while job.status == "queued" do pp.sleep(0.001) end
  end
  measure(name, n, function()
    for i = 1, n do submit(server, i) end
  end)
  measure(name .. ", run", n, function()
    for _, job in ipairs(busy) do job:cancel() end
    server:wait()
  end)
end

local cases = {
  { "plain", function(server) server:submit { noop, forget = true } end },
  { "priority", function(server)
    server:submit { noop, priority = math.random(), forget = true }
  end },
  { "ascending", function(server, i)
    server:submit { noop, priority = i, forget = true }
  end },
  { "group", function(server, i)
    server:submit { noop, group = "g" .. i, forget = true }
  end },
  { "timeout", function(server) server:submit { noop, timeout = 1e6, forget = true } end },
  { "waiting", (function() -- for one, which waits for a worker
    local first
    return function(server, i)
      if i == 1 then first = server:spawn(noop) end
      server:submit { noop, args = { first }, forget = true }
    end
  end)() },
}

local function wanted(name)
  for _, part in ipairs(names) do
    if name:find(part, 1, true) then return true end
  end
  return #names == 0
end

for _, case in ipairs(cases) do
  local n = 10000
  while n <= most and wanted(case[1]) do
    behind(case[1], n, case[2])
    n = n * 10
  end
end

local n = 10000
while n <= most and wanted("cancel") do -- ten thousand among n
  local server <close> = pp.Server()
  local jobs = {}
  for _ = 1, server:get_ncpus() do server:spawn(pp.sleep, 1e6) end
  pp.sleep(0.1)
  for i = 1, n do jobs[i] = server:spawn(noop) end
  measure("cancel among " .. n, 10000, function()
    for _ = 1, 10000 do jobs[math.random(n)]:cancel() end
  end)
  measure("cancel_all", n, function() server:cancel_all() end)
  n = n * 10
end
