-- SPDX-License-Identifier: MIT
-- Take one measurement in this ppsh: print its samples, round by round.
--
--   PPSH_BENCH_FLOOR=floor ppsh probe.lua NAME quick|usual|full
--
-- A round takes ppsh's samples and the floor's in turn. There are as many as fit
-- into a few seconds, at least one.

local pp = require "pp"

package.path = (arg[0]:match "^(.*)/" or ".") .. "/../?.lua;" .. package.path

local BUDGET = { quick = 0.15, usual = 1.5, full = 15 }

local name, size = arg[1], arg[2]
local measurement
for _, m in ipairs(require "bench.measurements") do
  if m.name == name then measurement = m end
end
assert(measurement, "no such measurement")
local n = measurement.n[size] or measurement.n.usual
local round, why = measurement.start(n, size)
if not round then
  print("skip " .. why)
  os.exit(0)
end
local deadline = pp.time() + BUDGET[size]
for _ = 1, measurement.rounds or 5 do
  for key, sample in pairs(round()) do
    if type(sample) == "number" then sample = { seconds = sample } end
    print(("sample %s %s %s %s %d"):format(key, sample.seconds or "-", sample.cost or "-",
      sample.rate or "-", sample.n or n))
  end
  if pp.time() > deadline then break end
end
os.exit(0, true)
