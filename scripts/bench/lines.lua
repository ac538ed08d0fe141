-- SPDX-License-Identifier: MIT
--- Lines of a text file, by --map and its like with two workers, beside mawk.
local tools = require "bench.tools"

local words = { "alpha", "beta", "GET", "POST", "/index.html", "error", "warning", "Mozilla" }

-- A file of n bytes of text, some sixty a line; in memory where that is to be
-- had.
local function text_file(n)
  local name = os.tmpname()
  os.remove(name)
  if os.rename("/dev/shm", "/dev/shm") then name = name:gsub("^.*/", "/dev/shm/ppsh-bench-") end
  local lines, size = {}, 0
  while size < math.min(n, 1 << 22) do
    local line = { words[math.random(#words)], math.random(0, 99999) }
    for i = 3, math.random(5, 12) do line[i] = words[math.random(#words)] end
    lines[#lines + 1] = table.concat(line, " ")
    size = size + #lines[#lines] + 1
  end
  local text = table.concat(lines, "\n") .. "\n"
  local file = assert(io.open(name, "wb"))
  for _ = 1, (n + size - 1) // size do assert(file:write(text)) end
  file:close()
  return name
end

local works = {
  map = { "{print toupper($0)}", "--map 'line:upper()'" },
  filter = { "/error/", "--filter 'line:find(\"error\", 1, true)'" },
  sum = { "{s += $2} END {print s}", "--map 'tonumber(f[2])' --reduce 'a + b'" },
}

local function start(n)
  if not tools.has "mawk" then return nil, "mawk is not installed" end
  local name = text_file(n)
  local owned <const> = setmetatable({}, { __gc = function() os.remove(name) end })
  local function run(command, ...)
    assert(os.execute(command:format(...)))
  end
  return function()
    assert(owned)
    local samples = {}
    for work, how in pairs(works) do
      samples[work .. "_awk"] = tools.time(run, "mawk '%s' %s >/dev/null", how[1], name)
      samples[work] = tools.time(run, "'%s' -j2 %s %s >/dev/null", tools.ppsh, how[2], name)
    end
    return samples
  end
end

local function line(work, about)
  return { name = "lines." .. work, of = work, floor = work .. "_awk", unit = "GB/s", bytes = 1,
    target = "ratio <= 1", about = about }
end

return {
  {
    name = "lines",
    n = { quick = 1000000, usual = 100000000, full = 1000000000 },
    start = start,
    lines = {
      line("map", "`--map 'line:upper()'` over a file with two workers; floor: mawk, one process"),
      line("filter", "`--filter 'line:find(\"error\", 1, true)'`; floor: mawk '/error/'"),
      line("sum", "`--map 'tonumber(f[2])' --reduce 'a + b'`; floor: mawk '{s += $2}'"),
    },
  },
}
