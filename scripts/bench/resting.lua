-- SPDX-License-Identifier: MIT
-- A ppsh with two workers, at rest: for rest.lua to look at.
--
--   ppsh resting.lua SECONDS pp|read
--
-- prints its processes, itself first, then the zygote, then the workers; then
-- it waits, in a call of pp or elsewhere.
local pp = require "pp"

package.path = (arg[0]:match "^(.*)/" or ".") .. "/../?.lua;" .. package.path

local tools = require "bench.tools"

local server = pp.Server(2)
for _ = 1, 2 do server:submit(function() return 1 end)() end
print(table.concat(tools.processes(server), " "))
io.stdout:flush()
if arg[2] == "pp" then
  pp.sleep(tonumber(arg[1]))
else
  io.popen("exec sleep " .. arg[1]):read "a"
end
