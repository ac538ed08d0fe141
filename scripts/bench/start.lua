-- SPDX-License-Identifier: MIT
--- From nothing to work: one ppsh, and a thousand workers.
local pp = require "pp"
local tools = require "bench.tools"

local FIRST_RESULT = [[
  io.write(require "pp".Server(2):spawn(function() return 1 end)())
  io.stdout:flush()
]]

local function start_exec(n)
  local lua = os.getenv "PPSH_LUA" or "lua5.4"
  local has_lua = tools.has(lua)
  return function()
    return {
      c = tools.floor("spawn", n),
      lua = has_lua and tools.floor("spawn", n, lua, "-e", "io.write(1)") or nil,
      ours = tools.floor("spawn", n, tools.ppsh, "-e", FIRST_RESULT),
    }
  end
end

local function noop() end

-- So many workers answer, run jobs, and end.
local function start_swarm(n)
  local jobs = n * 100
  return function()
    local samples = {}
    samples.up_c = { seconds = tools.floor("up", n) }
    samples.swarm_c = { seconds = tools.floor("swarm", jobs, n), n = jobs }
    collectgarbage()
    local from = pp.time()
    local server = pp.Server(n)
    server:everywhere(noop)
    samples.up = { seconds = pp.time() - from, n = n }
    for _ = 1, jobs do server:submit { noop, forget = true } end
    server:wait()
    server:destroy()
    samples.swarm = { seconds = pp.time() - from, n = jobs }
    return samples
  end
end

return {
  {
    name = "start",
    n = { quick = 2, usual = 20 },
    start = start_exec,
    lines = {
      { name = "start", floor = "c", unit = "ms", target = "rate <= 5",
        about = "from exec to the first result with two workers; floor: to the first byte of a"
          .. " C program" },
      { name = "start.lua", floor = "lua", unit = "ms", optional = true,
        about = "the same; floor: `lua5.4` (where it is installed)" },
    },
  },
  {
    name = "swarm",
    n = { quick = 30, usual = 1000 },
    rounds = 2,
    start = start_swarm,
    lines = {
      { name = "up.1000", of = "up", floor = "up_c", unit = "s", target = "rate < 0.5",
        about = "a thousand workers up and answering; floor: a thousand forked children" },
      { name = "swarm.1000", of = "swarm", floor = "swarm_c", unit = "/s",
        about = "a thousand workers start, run 100,000 jobs and end; floor: children, messages" },
    },
  },
}
