-- SPDX-License-Identifier: MIT
--- Take a measurement in a ppsh of its own (probe.lua). To be called in a job:
-- then nothing of it is left, in whatever way the program ends.

-- Seconds one measurement may take before it counts as hung; PPSH_SLOWNESS: how
-- much slower than usual everything is.
local PATIENCE = { quick = 120, usual = 120, full = 900 }

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The samples of a measurement by key, and the seconds it took; or nil and why
-- it failed; or false and why it cannot be taken here.
-- @string here the directory of these scripts
-- @string name of the measurement
-- @string size "quick", "usual" or "full"
-- @int[opt] cpu the only one it may use
return function(here, name, size, cpu)
  local pp = require "pp"
  local patience = math.ceil(PATIENCE[size] * (tonumber(os.getenv "PPSH_SLOWNESS") or 1))
  local command = ("exec %s timeout --foreground -k 5 %d %s %s %s %s 2>&1"):format(
    cpu and "taskset -c " .. cpu or "", patience, quote(os.getenv "PPSH"),
    quote(here .. "/probe.lua"), quote(name), size)
  local samples, skipped, last = {}, nil, nil
  local from = pp.time()
  local probe = assert(io.popen(command))
  for text in probe:lines() do
    local key, seconds, cost, rate, n = text:match "^sample (%S+) (%S+) (%S+) (%S+) (%S+)$"
    if key then
      samples[key] = samples[key] or {}
      table.insert(samples[key], { seconds = tonumber(seconds), cost = tonumber(cost),
        rate = tonumber(rate), n = math.tointeger(tonumber(n)) })
    elseif text:find "^skip " then
      skipped = text:sub(6)
    elseif text:find "^[^%s]" and not text:find "^stack traceback" then
      last = text
    end
  end
  local ok, how, code = probe:close()
  if ok and skipped then
    return false, skipped
  elseif ok then
    return samples, pp.time() - from
  elseif how == "exit" and (code == 124 or code == 137) then
    return nil, ("no end after %d s"):format(patience)
  end
  return nil, last or ("%s %d"):format(how, code)
end
