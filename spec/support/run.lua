-- SPDX-License-Identifier: MIT
--- Running programs under test: arguments, stdin, environment, terminals,
-- deadlines.
--
-- A program is started by popen and a shell that becomes it, so that the way
-- it ends is seen exactly; its streams are files. Waiting is looking again
-- until a deadline, and what outlives its deadline is killed with its group.
local system = require "system" -- busted needs it too

local run = {}

local signals = {
  HUP = 1, INT = 2, KILL = 9, USR1 = 10, PIPE = 13, ALRM = 14, TERM = 15, CONT = 18, STOP = 19,
}

local function output_of(command)
  local f = assert(io.popen(command))
  local text = f:read "a"
  f:close()
  return (text:gsub("\n$", ""))
end

local function absolute(path)
  if path:find "/" and path:sub(1, 1) ~= "/" then
    return output_of "pwd" .. "/" .. path
  end
  return path
end

--- The program under test, and the standard interpreter it is compared with.
run.ppsh_path = absolute(os.getenv "PPSH" or "build/ppsh")
run.lua_path = os.getenv "PPSH_LUA" or "lua5.4"

--- Seconds a program may take, and what they are multiplied by for builds
-- that are slow (sanitizers).
run.timeout = 20
run.slowness = tonumber(os.getenv "PPSH_SLOWNESS" or 1)

--- Seconds on the monotonic clock.
-- @treturn number
function run.now()
  return system.monotime()
end

--- Look until it holds.
-- @tparam function holds called again and again; its first true result ends it
-- @number[opt] timeout seconds
-- @return what `holds` returned, or nil when the time is up
function run.poll(holds, timeout)
  local deadline = run.now() + (timeout or run.timeout) * run.slowness
  local pause = 0.001
  while true do
    local value = holds()
    if value then return value end
    if run.now() > deadline then return nil end
    system.sleep(pause)
    pause = math.min(pause * 1.5, 0.02)
  end
end

--- The text of a file, or nil.
-- @string path
function run.read(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read "a"
  f:close()
  return text
end

--- The state letter of a process ("R", "S", "Z", ...), or nil if there is none.
-- @number pid
function run.state(pid)
  local stat = run.read("/proc/" .. pid .. "/stat")
  return stat and stat:match "^.*%) (%a)"
end

local directories = {}

--- A new directory that is removed by `run.cleanup`.
-- @treturn string
function run.directory()
  local path = output_of "mktemp -d -t ppsh-spec-XXXXXX"
  directories[#directories + 1] = path
  return path
end

local function write(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  return path
end

--- A new file with this text, in a directory of its own.
-- @string text
-- @string[opt] name
-- @treturn string its path
function run.file(text, name)
  return write(run.directory() .. "/" .. (name or "script.lua"), text)
end

--- Remove what `directory` and `file` have made: in a teardown.
function run.cleanup()
  if #directories > 0 then
    os.execute("rm -rf '" .. table.concat(directories, "' '") .. "'")
  end
  directories = {}
end

--- Quote for sh.
-- @string s
function run.quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

local function quoted(argv)
  local words = {}
  for i, word in ipairs(argv) do words[i] = run.quote(word) end
  return table.concat(words, " ")
end

local Process = {}
Process.__index = Process

--- Start a program in a session of its own.
-- @tparam table argv the program and its arguments
-- @tparam[opt] table opts `stdin` (a string; none: `write` and `close_stdin`),
-- `stdin_file`, `stdout_file` (a path), `env` (name -> string, or false to
-- unset), `cwd`, `redirect` (more redirections, as sh writes them), `setup` (sh
-- commands run before it), `pty` (its streams are a terminal), `timeout`
-- (seconds in all)
-- @treturn Process
function run.start(argv, opts)
  opts = opts or {}
  local dir = run.directory()
  local self = setmetatable({
    dir = dir, seen = 1, pty = opts.pty,
    -- A device is not read back: /dev/full has no end.
    out_path = not opts.stdout_file and dir .. "/out" or nil, err_path = dir .. "/err",
    deadline = run.now() + (opts.timeout or run.timeout) * run.slowness,
  }, Process)
  local script = {"echo $$ >" .. dir .. "/pid",
    "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-"}
  local function add(...) script[#script + 1] = string.format(...) end
  local input = opts.stdin_file or dir .. "/in"
  if opts.stdin then
    write(input, opts.stdin)
  elseif not opts.stdin_file then
    assert(os.execute("mkfifo " .. input))
  end
  if opts.cwd then add("cd %s", run.quote(opts.cwd)) end
  for name, value in pairs(opts.env or {}) do
    if value then
      add("export %s=%s", name, run.quote(value))
    else
      add("unset %s", name)
    end
  end
  if opts.setup then add("%s", opts.setup) end
  local command = quoted(argv)
  if opts.pty then
    command = quoted {"script", "-qefc", "exec " .. command, "/dev/null"}
  end
  add("exec setsid %s <%s >%s 2>%s %s", command, run.quote(input),
    run.quote(opts.stdout_file or self.out_path), self.err_path, opts.redirect or "")
  self.handle = assert(io.popen(table.concat(script, "\n")))
  if not opts.stdin and not opts.stdin_file then
    self.input = assert(io.open(input, "wb"))
    self.input:setvbuf "no"
  end
  self.pid = assert(run.poll(function()
    return tonumber(run.read(dir .. "/pid") or "")
  end))
  return self
end

--- Write to its stdin.
-- @string text
function Process:write(text)
  self.input:write(text)
end

--- Close its stdin.
function Process:close_stdin()
  if self.input then self.input:close() end
  self.input = nil
end

--- What it has printed so far.
function Process:out()
  return self.ended and self.ended.out or self.out_path and run.read(self.out_path) or ""
end
function Process:err()
  return self.ended and self.ended.err or run.read(self.err_path) or ""
end

--- Whether it runs.
function Process:alive()
  local state = run.state(self.pid)
  return state ~= nil and state ~= "Z"
end

--- Wait until it prints something new on stdout; what was found is not found
-- again. Raises, with what came instead, at the deadline or when it has ended.
-- @string pattern a Lua pattern, or plain text with `plain`
-- @bool[opt] plain
-- @treturn string the match
function Process:expect(pattern, plain)
  local found = run.poll(function()
    local alive = self:alive()
    local out = self:out()
    local first, last = out:find(pattern, self.seen, plain)
    if first then
      self.seen = last + 1
      return out:sub(first, last)
    end
    if not alive or run.now() > self.deadline then return "" end
  end, math.huge)
  if found ~= "" then return found end
  self:kill "KILL"
  error(("'%s' was not printed; since the last match came %q, on stderr %q")
    :format(pattern, self:out():sub(self.seen), self:err()), 2)
end

--- Send it a signal.
-- @string signal "INT"
-- @bool[opt] group to its process group
function Process:kill(signal, group)
  os.execute(("kill -s %s -- %s%d 2>/dev/null"):format(signal, group and "-" or "", self.pid))
end

--- Wait for its end, killing it and its group at the deadline.
-- @treturn table `status` or `signal` (its name), `out`, `err`, `late` (it was
-- killed)
function Process:wait()
  self:close_stdin()
  local late
  while not run.poll(function() return not self:alive() end,
    math.max(0, self.deadline - run.now()) / run.slowness) do
    late = true
    self:kill("KILL", true)
    self.deadline = run.now() + 5
  end
  local _, how, code = self.handle:close()
  local r = {out = self:out(), err = self:err(), late = late}
  self.ended = r
  for _, name in ipairs {"/pid", "/in", "/out", "/err", ""} do os.remove(self.dir .. name) end
  if how == "exit" then
    r.status = code
  else
    r.signal = code
    for name, number in pairs(signals) do
      if number == code then r.signal = name end
    end
  end
  return r
end

--- Run a program to its end.
-- @tparam table argv
-- @tparam[opt] table opts as in `start`; stdin is empty unless given
-- @treturn table as `Process:wait`
function run.program(argv, opts)
  opts = opts or {}
  if not opts.stdin and not opts.stdin_file then
    opts = setmetatable({stdin_file = "/dev/null"}, {__index = opts})
  end
  return run.start(argv, opts):wait()
end

--- Run ppsh with these arguments.
-- @tparam table args
-- @tparam[opt] table opts
-- @treturn table as `Process:wait`
function run.ppsh(args, opts)
  return run.program(table.move(args, 1, #args, 2, {run.ppsh_path}), opts)
end

--- Start ppsh with these arguments.
-- @tparam table args
-- @tparam[opt] table opts
-- @treturn Process
function run.start_ppsh(args, opts)
  return run.start(table.move(args, 1, #args, 2, {run.ppsh_path}), opts)
end

return run
