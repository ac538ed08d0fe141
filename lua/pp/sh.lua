-- SPDX-License-Identifier: MIT

--- Commands as jobs: server:sh.
--
-- @module pp.sh

local core = require "pp.core"

local sh = {}

local function bad(number, name, text, ...)
  error(("bad argument #%d to '%s' (%s)"):format(number, name, text:format(...)), 3)
end

-- What is for the command itself; the rest is submit's.
local own = { cwd = "string", env = "table", stdin = "string", shell = "string" }
local passed_on = {}
for _, k in ipairs {
  "timeout", "retries", "retry_errors", "priority", "on", "slots", "name", "group", "callback",
  "callbackargs", "forget",
} do
  passed_on[k] = true
end

local LIMIT = 64 << 20

-- The words of a command, or its text, as they are now; or nil and what is
-- wrong with them.
local function read_command(command)
  if type(command) == "string" then
    if command:find "\0" then
      return nil, "the command holds a zero byte"
    end
    return command
  elseif type(command) ~= "table" then
    return nil, ("cmd must be a string or a list of strings, got %s"):format(type(command))
  elseif #command == 0 then
    return nil, "cmd has no words"
  end
  local words = {}
  for i = 1, #command do
    local word = command[i]
    if math.type(word) == "integer" then
      word = tostring(word)
    elseif type(word) ~= "string" then
      return nil, ("word %d of cmd must be a string, got %s"):format(i, type(word))
    end
    if word:find "\0" then
      return nil, ("word %d of cmd holds a zero byte"):format(i)
    end
    words[i] = word
  end
  return words
end

--- Run a command as a job.
-- A string goes to a shell, `/bin/sh` or what `shell`
-- says, on the host where the job runs; a list of words runs as it is, no shell
-- sees them. Its stdin is empty or what `stdin` says. It runs in a process group
-- of its own, which is killed when the job is cancelled or its time is up; what
-- it leaves running there ends with it.
-- @function Server:sh
-- @tparam string|table cmd the text of a command, or the list of its words
-- @tparam[opt] table options see below
-- @treturn Job its result is a table: `status`, the exit status, 128 + n where
--   signal n has killed it; `signal`, then n; `stdout` and `stderr`, all it has
--   written; `time`, the seconds it ran. That a command fails is no error of the
--   job; that it cannot be run is one, and that it writes more than `limit`

--- Options of sh. Those of submit that are not about a function go with it:
-- `timeout`, `retries`, `retry_errors`, `priority`, `on`, `slots`, `name`,
-- `group`, `callback`, `callbackargs`, `forget`.
-- @table Server.sh_options
-- @tfield[opt] string cwd the directory it runs in; default: that of jobs, the
--   script's here, the home directory on hosts
-- @tfield[opt] table env variables it has besides those there are: name ->
--   string, or false for none
-- @tfield[opt] string stdin what it reads; none
-- @tfield[opt] string shell the program that is given `-c` and cmd; "/bin/sh"
-- @tfield[opt] integer limit bytes it may write to stdout, and to stderr; beyond
--   that it is killed and the job fails. 64 MiB
function core.server_methods:sh(cmd, options)
  local command, wrong = read_command(cmd)
  if not command then
    bad(1, "sh", "%s", wrong)
  elseif options ~= nil and type(options) ~= "table" then
    bad(2, "sh", "options must be a table, got %s", type(options))
  end
  local spec, how = {}, { limit = LIMIT }
  for k, v in pairs(options or {}) do
    if passed_on[k] then
      spec[k] = v
    elseif own[k] then
      if type(v) ~= own[k] then
        bad(2, "sh", "%s must be a %s, got %s", k, own[k], type(v))
      end
      how[k] = v
    elseif k == "limit" then
      v = math.type(v) == "float" and math.tointeger(v) or v
      if math.type(v) ~= "integer" or v < 0 then
        bad(2, "sh", "limit must be an integer >= 0, got %s", tostring(v))
      end
      how.limit = v
    else
      bad(2, "sh", "unknown option '%s'", tostring(k))
    end
  end
  for name, value in pairs(how.env or {}) do
    if type(name) ~= "string" or name == "" or name:find "[=%z]" then
      bad(2, "sh", "'%s' is no name for a variable", tostring(name))
    elseif value and type(value) ~= "string" and type(value) ~= "number" or value == true then
      bad(2, "sh", "env.%s must be a string or false, got %s", name, type(value))
    end
  end
  if how.shell and type(command) == "table" then
    bad(2, "sh", "shell goes with a string, not with a list of words")
  end
  spec[1] = core.command
  spec.args = { command, how }
  local ok, job = pcall(self.submit, self, spec)
  if not ok then
    error(type(job) == "string" and job:gsub("#1 to 'submit'", "#2 to 'sh'") or job,
      type(job) == "string" and 2 or 0)
  end
  return job
end

return sh
