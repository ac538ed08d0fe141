-- SPDX-License-Identifier: MIT
--- Run scripts in a ppsh of their own and look at what they leave behind; hold
-- jobs back until a spec lets them go. Stands on spec.support.run.
--
-- Every program started here, and so all that descends from it, carries a tag
-- of its own in its environment: by that its descendants are found again
-- whatever they did to their parent, group or session.
local run = require "spec.support.run"

local child = {}

--- Seconds after which something that should have happened has not. Only a
-- failing spec ever waits that long.
child.patience = 30

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("a")
  pipe:close()
  return text
end

--- What a shell command prints.
child.output_of = output_of

--- Is the program under test built with a sanitizer ("asan", "tsan"; none: with
-- any)?
function child.sanitized(which)
  return tonumber(output_of(("grep -c -a -e __%s_init %s"):format(
    which or "[at]san", run.quote(run.ppsh_path)))) ~= 0
end

--- Can the shell find this program?
function child.has(program)
  return (os.execute("command -v " .. program .. " >/dev/null")) or false
end

--- Call f again and again until it returns something true, and return that;
-- nil when patience is over. Calls nothing of pp, so no callback runs.
function child.eventually(f)
  return run.poll(f, child.patience)
end

--- The id of the process that calls this; a job may call it too.
function child.pid()
  local f = io.open("/proc/self/stat")
  local pid = f:read("n")
  f:close()
  return pid
end

--- State letter and parent of a process; nil when there is none.
function child.process(pid)
  local stat = run.read(("/proc/%d/stat"):format(pid)) or ""
  local state, parent = stat:match(".*%) (%a) (%d+)")
  return state, tonumber(parent)
end

--- Is there a living process of that id? A zombie has died.
function child.alive(pid)
  local state = child.process(pid)
  return state ~= nil and state ~= "Z" and state ~= "X"
end

--- Ids of the living processes that carry the tag.
function child.tagged(tag)
  local pids = {}
  local found = output_of(
    ("grep -lsa 'PP_SPEC_TAG=%s' /proc/[0-9]*/environ"):format(tag))
  for pid in found:gmatch("/proc/(%d+)/") do
    pid = tonumber(pid)
    if child.alive(pid) then pids[#pids + 1] = pid end
  end
  return pids
end

--- What is still alive of the tagged ones when they have had time to go: a
-- list of "id command".
function child.left(tag)
  local pids
  child.eventually(function()
    pids = child.tagged(tag)
    return #pids == 0
  end)
  for i, pid in ipairs(pids) do
    local command = run.read(("/proc/%d/cmdline"):format(pid)) or ""
    pids[i] = pid .. " " .. command:gsub("%z", " ")
  end
  return pids
end

--- Send a signal, by name, to a process, or to a group when pid is negative.
function child.kill(signal, pid)
  return (os.execute(("kill -s %s -- %d 2>/dev/null"):format(signal, pid)))
end

--- Start a script, given as text, in a new ppsh.
-- options: `options`, a list, before the script; `args`, a list, behind it;
-- `path`, a script in place of the text; the rest is for run.start. The result
-- is its Process, with `tag` and `script` (a path).
function child.start(text, options)
  local o = setmetatable({}, {__index = options})
  local tag = ("%d-%d-%d"):format(child.pid(), os.time(),
    math.random(1 << 40))
  local script = o.path or run.file(text)
  o.env = {}
  for name, value in pairs(options and options.env or {}) do
    o.env[name] = value
  end
  o.env.PP_SPEC_TAG = tag
  if not o.stdin then o.stdin_file = "/dev/null" end
  o.timeout = o.timeout or 2 * child.patience
  -- env(1) undoes what a background job of a shell ignores
  local argv = {"env", "--default-signal=INT,TERM,HUP,PIPE", run.ppsh_path}
  for _, option in ipairs(o.options or {}) do argv[#argv + 1] = option end
  argv[#argv + 1] = script
  for _, a in ipairs(o.args or {}) do argv[#argv + 1] = a end
  local process = run.start(argv, o)
  process.tag, process.script = tag, script
  process.kill = function(self, signal, group)
    child.kill(signal, group and -self.pid or self.pid)
  end
  return process
end

--- Wait until a started script has ended: the result of run.
function child.finish(process)
  local result = process:wait()
  if result.signal then
    local number = {HUP = 1, INT = 2, KILL = 9, PIPE = 13, TERM = 15}
    result.status = 128 + (number[result.signal] or tonumber(result.signal)
      or 0)
  end
  result.tag, result.script = process.tag, process.script
  return result
end

--- Run a script to its end. The result has `status` (128 + n for signal n),
-- `out`, `err`, `script`, `tag`, `late` (it had to be killed).
function child.run(text, options)
  return child.finish(child.start(text, options))
end

local Gate = {}
Gate.__index = Gate

--- A gate, closed. A job passes it by `io.open(path):close()`, which blocks
-- until the spec opens the gate.
function child.gate()
  local path = run.directory() .. "/gate"
  assert(os.execute("mkfifo " .. path))
  return setmetatable({path = path}, Gate)
end

--- Let all jobs through, now and later.
function Gate:open()
  -- a writer that is also a reader: opening does not block
  self.writer = self.writer or assert(io.open(self.path, "r+"))
end

--- Remove what was left on the disk.
child.clean = run.cleanup

return child
