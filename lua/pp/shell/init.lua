-- SPDX-License-Identifier: MIT
--- What ppsh runs in place of a script: --sh, --map, --filter, --reduce.
--
-- Each mode is a module of its own, pp.shell.sh and pp.shell.map, whose main is
-- called with the options of the command line and the words behind them.
-- Nothing below pp.shell is in the agent that hosts are sent.
local core = require "pp.core"

local shell = {}

local modules = { sh = "sh", map = "map", filter = "map", reduce = "map" }

-- What goes with what: an option that the mode does not know is a mistake.
local known = {
  sh = {
    sh = true, fold = true, keep = true, each = true, joblog = true, resume = true, retries = true,
    timeout = true, halt = true, push = true, fetch = true, cleanup = true, null = true,
    once = true, fanout = true, workdir = true, ["resume-failed"] = true, ["line-buffer"] = true,
  },
  map = {
    map = true, filter = true, reduce = true, fields = true, block = true, ["max-line"] = true,
  },
}

--- Say what is wrong with the command line.
-- @treturn integer the exit status for that
function shell.usage(text, ...)
  io.stderr:write("ppsh: ", text:format(...), "\nTry 'ppsh --help'.\n")
  return 2
end

--- Run a mode.
-- @string mode "sh", "map", "filter" or "reduce"
-- @tparam {string,...} args the words behind the options
-- @treturn integer the exit status
function shell.main(mode, args)
  local options = core.shell_options()
  local name = modules[mode]
  for option in pairs(options) do
    if not known[name][option] then
      return shell.usage("--%s does not go with --%s", option, mode)
    end
  end
  return require("pp.shell." .. name).main(options, args)
end

return shell
