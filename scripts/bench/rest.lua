-- SPDX-License-Identifier: MIT
--- ppsh at rest: the memory it has and the CPU time it takes.
local pp = require "pp"
local tools = require "bench.tools"

local script = (arg[0]:match "^(.*)/" or ".") .. "/resting.lua"

-- Start a ppsh that rests for so many seconds: the pipe to it, its processes.
local function start_resting(command, seconds, where)
  local pipe = assert(io.popen(("%s '%s' %g %s"):format(command, script, seconds, where)))
  local pids = {}
  for pid in (pipe:read() or ""):gmatch "%d+" do pids[#pids + 1] = tonumber(pid) end
  assert(#pids == 4, "not two workers and two more")
  return pipe, pids
end

-- A shell command that runs a copy of ppsh and of the libraries which it alone
-- uses here: the processes of this measurement, which are ppsh as well, are not
-- to share their pages with those that are measured. And what removes it.
local function copy()
  local pipe <close> = assert(io.popen(([[
    dir=$(mktemp -d) || exit
    ppsh='%s'
    libraries=$(ldd "$ppsh" | sed -n 's/.*=> \(.*\) (.*/\1/p' | grep -v '/lib[cm][.]')
    cp "$ppsh" $libraries "$dir"
    echo "$dir"
  ]]):format(tools.ppsh)))
  local dir = assert(pipe:read(), "no copy")
  return ("LD_LIBRARY_PATH='%s' exec '%s/%s'"):format(dir, dir, tools.ppsh:match "[^/]*$"),
    ("rm -rf '%s'"):format(dir)
end

-- Seconds of CPU time of all threads of these processes so far.
local function cpu_time(pids)
  local paths = {}
  for i, pid in ipairs(pids) do paths[i] = ("/proc/%d/task/*/schedstat"):format(pid) end
  local times <close> = assert(io.popen("cat " .. table.concat(paths, " ")))
  local sum = 0
  for line in times:lines() do sum = sum + tonumber(line:match "^%d+") end
  return sum / 1e9
end

-- n is in milliseconds: the time it is looked at. Two rest side by side.
local function start_rest(n)
  local seconds = n / 1000
  return function()
    local command, remove = copy()
    local pipe <close>, pids = start_resting(command, seconds + 0.5, "pp")
    os.execute(remove) -- it runs; whatever happens now, nothing is left
    command = ("exec '%s'"):format(tools.ppsh)
    local other <close>, others = start_resting(command, seconds + 0.5, "read")
    pp.sleep(0.3) -- what they do to come to rest
    local worker, all = 0, 0
    for i, pid in ipairs(pids) do
      local kb = tools.pss(pid)
      all = all + kb
      if i > 2 then worker = math.max(worker, kb) end
    end
    table.move(pids, 1, #pids, #others + 1, others)
    local used = cpu_time(others)
    pp.sleep(seconds)
    used = cpu_time(others) - used
    assert(pipe:read "a" == "" and other:read "a" == "")
    local function kb(value, processes) return { cost = value, n = processes } end
    return {
      worker = kb(worker, 1),
      all = kb(all, #pids),
      child = kb(tools.floor("memory", 2), 1),
      children = kb(tools.floor("memory", 2, "all"), 3),
      cpu = { cost = used / 2 * 1000 / seconds, seconds = seconds },
      waiting = { cost = tools.floor("idle", n), seconds = seconds },
    }
  end
end

return {
  {
    name = "rest",
    n = { quick = 300, usual = 2000 },
    rounds = 2,
    start = start_rest,
    lines = {
      { name = "memory.worker", of = "worker", floor = "child", unit = "KB",
        target = "rate <= 250",
        about = "memory (PSS) of an idle worker that has run a job; floor: a forked C child" },
      { name = "memory.all", of = "all", floor = "children", unit = "KB",
        target = "rate <= 3072",
        about = "memory (PSS) of ppsh with two workers, all its processes; floor: a C program"
          .. " with two children" },
      { name = "idle", of = "cpu", floor = "waiting", unit = "ms/s", target = "rate <= 0",
        about = "CPU time that idle ppsh with idle workers takes, waiting in pp and elsewhere;"
          .. " floor: C processes that wait" },
    },
  },
}
