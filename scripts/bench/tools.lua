-- SPDX-License-Identifier: MIT
--- What measurements are made with.
local pp = require "pp"

local tools = {}

--- Seconds that f takes; garbage of what was before is not its own.
function tools.time(f, ...)
  collectgarbage()
  local from = pp.time()
  f(...)
  return pp.time() - from
end

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

--- The command of a measurement of the floor.
function tools.floor_command(...)
  local words = { os.getenv "PPSH_BENCH_FLOOR" }
  for i, word in ipairs { ... } do words[i + 1] = quote(word) end
  return table.concat(words, " ")
end

--- What a command prints, a number.
function tools.number_of(command)
  local pipe = assert(io.popen(command))
  local number = pipe:read "n"
  local ok = pipe:close()
  if not ok or not number then error(("'%s' failed"):format(command), 0) end
  return number
end

--- One measurement of the floor: its seconds, or what else it gives.
function tools.floor(...)
  return tools.number_of(tools.floor_command(...))
end

--- The ppsh that is measured.
tools.ppsh = os.getenv "PPSH" or "build/ppsh"

--- Is there such a program?
function tools.has(program)
  return (os.execute("command -v " .. quote(program) .. " >/dev/null 2>&1"))
end

--- The first number behind a word at the start of a line of a file.
function tools.field(path, word)
  local file <close> = assert(io.open(path))
  for line in file:lines() do
    local value = line:match("^" .. word .. ":?%s+(%d+)")
    if value then return tonumber(value) end
  end
  error(("no %s in '%s'"):format(word, path), 0)
end

--- KB of memory of a process: its share of the pages it has.
function tools.pss(pid)
  return tools.field(("/proc/%d/smaps_rollup"):format(pid), "Pss")
end

--- KB of memory this process has in use.
function tools.rss()
  return tools.field("/proc/self/status", "VmRSS")
end

--- The process this runs in; may be called in a job.
function tools.pid()
  local file = io.open "/proc/self/stat"
  local pid = file:read "n"
  file:close()
  return pid
end

--- Processes of a server: this one, the zygote and the workers.
function tools.processes(server)
  local pids = { tools.pid() }
  for i, entry in ipairs(server:everywhere(tools.pid)) do
    if i == 1 then -- a worker's parent is the zygote
      pids[2] = tools.field(("/proc/%d/status"):format(entry[1]), "PPid")
    end
    pids[#pids + 1] = entry[1]
  end
  return pids
end

return tools
