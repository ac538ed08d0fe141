-- SPDX-License-Identifier: MIT
--- All measurements, in the order in which they are shown. Each is a table:
--
--   name     of the measurement
--   one_cpu  true: everything on one CPU
--   n        operations in a round: { quick =, usual =, full = (usual) }
--   rounds   at most so many (default 5)
--   start    function(n, size): prepares, and returns a function that does one
--            round and returns its samples by key, each seconds (a number) or
--            { seconds =, cost =, rate =, n = }; or nil and why it cannot be
--            taken here
--   lines    what is shown of it: { name =, about =, unit =, of = the key of
--            ppsh's samples, floor = that of what they are set against,
--            optional = true: that may be missing, bytes = of one operation,
--            target = "ratio|rate <=|<|>=|> NUMBER" }
--
-- A sample's cost, or its seconds for one operation, is what ratios are made of.
local all = {}

for _, name in ipairs { "calls", "lists", "payload", "work", "start", "rest", "lines", "commands",
  "scale", "mixed", "simulation", "remote" } do
  for _, measurement in ipairs(require("bench." .. name)) do
    for _, line in ipairs(measurement.lines) do line.of = line.of or "ours" end
    all[#all + 1] = measurement
  end
end

return all
