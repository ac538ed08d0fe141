-- SPDX-License-Identifier: MIT
--- Files that go to hosts before a command and come back after it.
local files = {}

function files.bring_output(_, _, r)
  return true, r
end

return files
