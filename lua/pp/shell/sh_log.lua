-- SPDX-License-Identifier: MIT
--- Logs of jobs, in the columns of GNU parallel, and what they say was done.
local core = require "pp.core"

local log = {}

local NO_ENTRY = 2 -- ENOENT
local HEAD = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"

-- A newline in a command is a zero byte there: no command holds one.
local function one_line(command)
  return (command:gsub("\n", "\0"))
end

local Log = {}
Log.__index = Log

-- What was done, as the last line about each job says: number -> hash of its
-- command. failed: leave out those that have failed.
local function read(file, failed)
  local done, torn = {}, false
  for line in file:lines "L" do
    local seq, exit, signal, command =
      line:match "^(%d+)\t[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t(-?%d+)\t(%d+)\t(.*)\n$"
    torn = line:sub(-1) ~= "\n"
    if seq then
      local bad = failed and (exit ~= "0" or signal ~= "0")
      done[tonumber(seq)] = not bad and core.hash(command) or nil
    end
  end
  return done, torn
end

--- Open one.
-- @string name
-- @string[opt] resume "resume": keep what is there and skip what is done,
-- "resume-failed": but for what has failed; else it begins anew
-- @treturn ?table it; nil and why it cannot be opened
function log.open(name, resume)
  local self = setmetatable({ name = name }, Log)
  local torn = false
  local file, why
  if resume then
    local is, code = core.files.look(name), nil
    if not is or is.kind ~= "other" then -- a pipe tells nothing of what was done
      file, why, code = io.open(name, "rb")
    end
    if code and code ~= NO_ENTRY then
      return nil, ("cannot read the log '%s': %s"):format(name, why:sub(#name + 3))
    elseif file then
      local readable, wrong = file:read(0)
      if not readable and wrong then -- a directory can be opened
        file:close()
        return nil, ("cannot read the log '%s': %s"):format(name, wrong)
      end
      self.done, torn = read(file, resume == "resume-failed")
      file:close()
      file, why = io.open(name, "ab")
    else
      file, why = io.open(name, "wb")
    end
  else
    file, why = io.open(name, "wb")
  end
  if not file then
    return nil, ("cannot open the log '%s': %s"):format(name, why:sub(#name + 3))
  end
  self.file = file
  if torn then
    file:write "\n" -- the end of a line that was never finished
  end
  local fresh = not self.done or file:seek "end" == 0
  if fresh and not file:write(HEAD) or not file:flush() then
    return nil, ("cannot write to the log '%s'"):format(name)
  end
  return self
end

--- Is this job done, and the same command?
function Log:skips(seq, command)
  local done = self.done and self.done[seq]
  return done ~= nil and done == core.hash(one_line(command))
end

--- Note that a job is done.
-- @tparam table e `seq`, `host`, `began` (seconds since the epoch), `ran`
-- (seconds), `sent`, `received` (bytes of files), `exit`, `signal`, `command`
-- @treturn ?string why that cannot be noted
function Log:note(e)
  local ok, why = self.file:write(("%d\t%s\t%.3f\t%10.3f\t%d\t%d\t%d\t%d\t"):format(e.seq, e.host,
    e.began, e.ran, e.sent or 0, e.received or 0, e.exit, e.signal), one_line(e.command), "\n")
  if ok then
    ok, why = self.file:flush()
  end
  if not ok then
    return ("cannot write to the log '%s': %s"):format(self.name, why)
  end
end

return log
