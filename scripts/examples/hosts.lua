-- SPDX-License-Identifier: MIT
-- Where jobs run: here, and on the hosts that are named.
--
--   ppsh hosts.lua [HOSTS]      hosts.lua node1,node2/4     (default: -H)

local pp = require "pp"

--- Count the primes between two numbers, and say where.
local function primes(from, to)
  local n = 0
  for candidate = math.max(from, 2), to do
    local prime = true
    for d = 2, math.floor(math.sqrt(candidate)) do
      if candidate % d == 0 then prime = false break end
    end
    if prime then n = n + 1 end
  end
  return n, pp.job.node
end

local server <close> = pp.Server{hosts = arg[1]}
local ok, why = server:wait_hosts(20)
if not ok then
  for host, reason in pairs(why) do print(host .. " is not used: " .. reason) end
end

local jobs, where, total = {}, {}, 0
for k = 0, 99 do jobs[#jobs + 1] = server:spawn(primes, k * 1000, k * 1000 + 999) end
for _, job in ipairs(jobs) do
  local n, node = job()
  total = total + n
  where[node] = (where[node] or 0) + 1
end

print(total .. " primes below 100000")
for node, workers in pairs(server:get_active_nodes()) do
  print(("%s: %d workers, %d jobs"):format(node, workers, where[node] or 0))
end
server:print_stats()
