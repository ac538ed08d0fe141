-- SPDX-License-Identifier: MIT
--- Commands: --sh over lines with two workers, beside xargs.
local tools = require "bench.tools"

local function start(n)
  if not tools.has "xargs" then return nil, "xargs is not installed" end
  local function run(command, ...)
    assert(os.execute(command:format(...)))
  end
  return function()
    return {
      xargs = tools.time(run, "seq %d | xargs -P2 -I{} sh -c 'true {}'", n),
      ours = tools.time(run, "seq %d | '%s' -j2 --sh 'true {}'", n, tools.ppsh),
    }
  end
end

return {
  {
    name = "commands",
    n = { quick = 50, usual = 2000 },
    rounds = 3,
    start = start,
    lines = {
      { name = "commands", floor = "xargs", unit = "/s", target = "ratio <= 1.2",
        about = "`--sh 'true {}'` over lines; floor: `xargs -P2 -I{} sh -c 'true {}'`" },
    },
  },
}
