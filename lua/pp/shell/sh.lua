-- SPDX-License-Identifier: MIT
--- --sh: a command on each host, or for each line of input.
local core = require "pp.core"
local halt = require "pp.shell.sh_halt"
local input = require "pp.shell.sh_input"
local lines = require "pp.shell.sh_lines"
local log = require "pp.shell.sh_log"
local session = require "pp.shell.session"
local shell = require "pp.shell"
local template = require "pp.shell.sh_template"

local sh = {}

local units = { [""] = 1, s = 1, m = 60, h = 3600, d = 86400 }

-- Seconds: "1.5", "10s", "2m", "1h", "1d".
local function seconds(text)
  local n, unit = text:match "^(%d*%.?%d*)([smhd]?)$"
  n = tonumber(n)
  return n and n > 0 and n * units[unit] or nil
end

local function whole(text, least)
  local n = text:match "^%d+$" and math.tointeger(tonumber(text))
  return n and n >= least and n or nil
end

-- Options that mean something for lines alone.
local of_lines = { "keep", "joblog", "resume", "resume-failed", "retries", "halt" }
-- And for hosts alone.
local of_hosts = { "fold", "fanout", "once" }

-- What the options say, as both modes have it; nil and what is wrong.
local function read(options)
  local o = { how = {}, tries = 1 }
  if options.timeout then
    o.how.timeout = seconds(options.timeout)
    if not o.how.timeout then
      return nil, ("bad value for --timeout: '%s' (seconds, or 10m, 2h, 1d)"):format(
        options.timeout)
    end
  end
  if options.retries then
    o.tries = whole(options.retries, 1)
    if not o.tries then
      return nil, ("bad value for --retries: '%s' (how often to try, at least 1)"):format(
        options.retries)
    end
  end
  o.halt = halt.read(options.halt)
  if not o.halt then
    return nil, ("bad value for --halt: '%s' (never, or soon or now,fail=N, success=N or done=N, "
      .. "N may be a percentage)"):format(options.halt)
  end
  if options.fanout then
    o.fanout = whole(options.fanout, 1)
    if not o.fanout then
      return nil, ("bad value for --fanout: '%s' (how many hosts at a time)"):format(options.fanout)
    end
  end
  if options.workdir then
    if options.workdir == "" or options.workdir:find "\0" then
      return nil, "bad value for --workdir: '' (a directory)"
    end
    o.how.cwd = options.workdir
  end
  o.keep, o.fold = options.keep, options.fold
  o.push, o.fetch, o.cleanup = options.push, options.fetch, options.cleanup
  if options["line-buffer"] then
    if options.keep then
      return nil, "--line-buffer does not go with --keep"
    end
    o.pass, o.how.pass = true, true
  end
  if (options.resume or options["resume-failed"]) and not options.joblog then
    return nil, "--resume goes with --joblog"
  elseif options.cleanup and not options.push and not options.fetch then
    return nil, "--cleanup goes with --push or --fetch"
  end
  return o
end

-- Over lines: the source and what else there is to open.
local function over_lines(o, options, parts, source)
  for _, name in ipairs(of_hosts) do
    if options[name] then
      return shell.usage("--%s is for commands that run once on each host", name)
    end
  end
  o.template, o.source = parts, source
  if options.joblog then
    local why
    o.log, why = log.open(options.joblog, options["resume-failed"] and "resume-failed"
      or options.resume and "resume")
    if not o.log then
      io.stderr:write("ppsh: ", why, "\n")
      return 2
    end
  end
  local status, n = lines.run(o)
  if n == 0 and source.or_once then
    return nil
  end
  return status
end

-- Once on each host, or here.
local function on_each(o, options, command)
  for _, name in ipairs(of_lines) do
    if options[name] then
      return shell.usage("--%s is for commands that run for each line", name)
    end
  end
  return require "pp.shell.sh_hosts".main(o, command)
end

--- Run a command on each node of a set, as .sh of the prompt does; prints what
-- they write.
-- @string[opt] set_text as session.nodes has it; "all"
-- @string command
-- @tparam[opt] table options `fold`, `timeout` (seconds), `fanout`
-- @treturn ?integer the worst exit status; nil and what is wrong with the set
function sh.on_hosts(set_text, command, options)
  local names, wrong = session.nodes(set_text or "all")
  if not names then
    return nil, wrong
  end
  local o = { how = { timeout = options and options.timeout }, fold = options and options.fold,
    fanout = options and options.fanout }
  return require "pp.shell.sh_hosts".run(o, names, command)
end

--- What ppsh --sh does.
-- @tparam table options of the command line
-- @tparam {string,...} args the words behind them
-- @treturn integer the exit status
function sh.main(options, args)
  local o, wrong = read(options)
  if not o then
    return shell.usage("%s", wrong)
  end
  local separator = options.null and "\0" or "\n"
  local lists
  lists, wrong = input.lists(args, separator)
  if not lists then
    return shell.usage("%s", wrong)
  end
  local parts
  parts, wrong = template.read(options.sh, math.max(1, #lists), true)
  if not parts then
    return shell.usage("%s", wrong)
  end
  local named = template.read(options.sh, math.max(1, #lists)).places > 0
  if options.once then
    if #lists > 0 or options.each then
      return shell.usage("--once does not go with %s", options.each and "--each" or ":::")
    end
    return on_each(o, options, options.sh)
  elseif #lists > 0 then
    return over_lines(o, options, parts, input.product(lists))
  elseif options.each or named or options.null then
    return over_lines(o, options, parts, input.lines(0, separator))
  elseif #session.hosts() > 0 then
    return on_each(o, options, options.sh)
  end
  -- Here, without any of these: for each line if there are some, else once.
  local kind = core.kind(0)
  if kind == "terminal" or kind == "none" then
    return on_each(o, options, options.sh)
  end
  local source = input.lines(0, separator)
  source.or_once = true
  return over_lines(o, options, parts, source) or on_each(o, {}, options.sh)
end

return sh
