-- SPDX-License-Identifier: MIT
-- The measurements one after another, each in a ppsh of its own (probe.lua), and
-- a line for each of their figures. scripts/bench/run says what it prints and
-- starts it.

local pp = require "pp"

local here = arg[0]:match "^(.*)/" or "."
package.path = here .. "/../?.lua;" .. package.path

local figure = require "bench.figure"
local measurements = require "bench.measurements"
local take = require "bench.take"

local function usage(...)
  io.stderr:write("run: ", string.format(...), "\n",
    "usage: scripts/bench/run [--quick | --full] [--json | --markdown] [--cpu N] [--list]",
    " [NAME...]\n")
  os.exit(2)
end

local function read_options()
  local o = { size = "usual", form = "text", names = {} }
  local i = 1
  while arg[i] do
    local a = arg[i]
    if a == "--quick" or a == "--full" then
      o.size = a:sub(3)
    elseif a == "--json" or a == "--markdown" then
      o.form = a:sub(3)
    elseif a == "--list" then
      o.list = true
    elseif a == "--cpu" then
      i = i + 1
      o.cpu = (arg[i] or ""):match "^%d+$" or usage("--cpu needs the number of a CPU")
    elseif a:sub(1, 1) == "-" then
      usage("unknown option '%s'", a)
    else
      o.names[#o.names + 1] = a
    end
    i = i + 1
  end
  return o
end

-- The lines of a measurement that were asked for.
local function wanted(measurement, names)
  local lines = {}
  for _, line in ipairs(measurement.lines) do
    local hit = #names == 0
    for _, name in ipairs(names) do
      hit = hit or line.name:find(name, 1, true) ~= nil
    end
    if hit then lines[#lines + 1] = line end
  end
  return lines
end

local function check_names(names)
  for _, name in ipairs(names) do
    local found = false
    for _, m in ipairs(measurements) do
      found = found or #wanted(m, { name }) > 0
    end
    if not found then
      usage("no line has '%s' in its name (--list shows them)", name)
    end
  end
end

-- The CPUs this may run on, as numbers.
local function allowed_cpus()
  local list = {}
  for line in io.lines "/proc/self/status" do
    local text = line:match "^Cpus_allowed_list:%s*(.*)"
    for a, b in (text or ""):gmatch "(%d+)%-?(%d*)" do
      for cpu = tonumber(a), tonumber(b) or tonumber(a) do list[#list + 1] = cpu end
    end
  end
  return list
end

local o = read_options()
check_names(o.names)
if o.list then
  for _, m in ipairs(measurements) do
    for _, line in ipairs(wanted(m, o.names)) do
      print(("%-16s %s"):format(line.name, line.about))
    end
  end
  os.exit(0)
end

local cpus = allowed_cpus()
if o.cpu then
  local allowed = false
  for _, cpu in ipairs(cpus) do allowed = allowed or cpu == tonumber(o.cpu) end
  if not allowed then usage("CPU %s is none of those this may use", o.cpu) end
end

local report = require("bench.report").new(o.form, o.size, os.getenv "PPSH")

-- Measure and report; the names of lines that failed.
local function measure_all()
  local server <close> = pp.Server(1)
  local failed = {}
  for _, m in ipairs(measurements) do
    local lines = wanted(m, o.names)
    local ok, samples, more
    if #lines > 0 then
      local cpu = o.cpu or m.one_cpu and cpus[1] or nil
      ok, samples, more = server:spawn(take, here, m.name, o.size, cpu):pcall()
      if not ok then samples, more = nil, samples.message end
    end
    for _, line in ipairs(lines) do
      local result, why = nil, more
      if samples then
        result, why = figure.of(line, samples, more, o.size == "quick")
      end
      if result then
        report:line(line, result)
      elseif samples == false then
        report:skipped(line, why)
      else
        report:failed(line, why)
        failed[#failed + 1] = line.name
      end
    end
  end
  return failed
end

report:head()
local ok, failed = pcall(measure_all)
if not ok and tostring(failed):find "interrupted!$" then
  io.stderr:write("run: interrupted\n")
  os.exit(130)
elseif not ok then
  error(failed, 0)
elseif #failed > 0 then
  io.stderr:write("run: failed: ", table.concat(failed, ", "), "\n")
  os.exit(1)
end
