-- SPDX-License-Identifier: MIT
--- Print lines as text, JSON or Markdown.
local report = {}

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>/dev/null"))
  local text = pipe:read "a"
  pipe:close()
  return (text:gsub("%s+$", ""))
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function first_match(path, pattern)
  local f = io.open(path)
  if not f then return nil end
  for line in f:lines() do
    local found = line:match(pattern)
    if found then
      f:close()
      return found
    end
  end
  f:close()
end

--- Where and of what the figures are: "commit ..., CPU model, N CPUs, kernel".
function report.machine(ppsh)
  local root = (arg[0]:match "^(.*)/" or ".") .. "/../.."
  local commit = output_of(("git -C %s describe --always --dirty --exclude '*'")
    :format(quote(root)))
  if commit == "" then
    commit = "build " .. (output_of(quote(ppsh) .. " --version"):match "build (%w+)" or "unknown")
  else
    commit = "commit " .. commit
  end
  local model = first_match("/proc/cpuinfo", "^model name%s*:%s*(.*)") or output_of "uname -m"
  local cpus = require("pp").ncpus()
  return ("%s, %s, %d CPU%s, Linux %s"):format(commit, model, cpus, cpus == 1 and "" or "s",
    output_of "uname -r")
end

-- Four digits that count, without an exponent.
local function digits(x)
  if x == nil then return "-" end
  if x ~= x or x == math.huge or x == -math.huge then return tostring(x) end
  local size = math.abs(x)
  if size >= 1000 then return ("%.0f"):format(x) end
  if size == 0 then return "0" end
  return (("%%.%df"):format(size >= 100 and 1 or size >= 10 and 2 or size >= 0.1 and 3 or 4)
    :format(x))
end

local function target_of(line, result)
  if result.met == nil then return "" end
  return line.target .. (result.met and ", met" or ", not met")
end

local text = {}

function text:head()
  print("# " .. report.machine(self.ppsh) .. (self.size == "quick" and
    "; --quick: these are no figures to rely on" or ""))
  print(("%-16s %9s %9s %10s %8s  %-8s %10s  %s"):format("name", "n", "seconds", "rate", "ratio",
    "unit", "floor", "target"))
end

function text.line(_, line, r)
  local s = ("%-16s %9d %9.4f %10s %8s  %-8s %10s  %s"):format(line.name, r.n, r.seconds,
    digits(r.rate), r.ratio and ("%.3f"):format(r.ratio) or "-", (line.unit:gsub(" ", "_")),
    digits(r.floor), target_of(line, r))
  print((s:gsub("%s+$", "")))
end

function text.skipped(_, line, why)
  print(("%-16s skipped: %s"):format(line.name, why))
end

function text.failed(_, line, why)
  print(("%-16s FAILED: %s"):format(line.name, why))
end

local json = {}

local function escape(s)
  return '"' .. s:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
end

-- Of pairs, in their order; those whose value is nil are left out. JSON has
-- no way to write what is not finite.
local function object(pairs_of)
  local parts = {}
  for _, pair in ipairs(pairs_of) do
    local key, v = pair[1], pair[2]
    if type(v) == "string" then
      v = escape(v)
    elseif math.type(v) == "float" then
      v = v == v and v < math.huge and v > -math.huge and ("%.6g"):format(v) or "null"
    end
    if v ~= nil then parts[#parts + 1] = escape(key) .. ":" .. tostring(v) end
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

function json.head() end

function json.line(_, line, r)
  print(object { { "name", line.name }, { "n", r.n }, { "seconds", r.seconds + 0.0 },
    { "rate", r.rate + 0.0 }, { "unit", line.unit }, { "floor", r.floor and r.floor + 0.0 },
    { "ratio", r.ratio and r.ratio + 0.0 }, { "rounds", r.rounds },
    { "target", r.met ~= nil and line.target or nil }, { "met", r.met } })
end

function json.skipped(_, line, why)
  print(object { { "name", line.name }, { "skipped", why } })
end

function json.failed(_, line, why)
  print(object { { "name", line.name }, { "error", why } })
end

local markdown = {}

function markdown:head()
  print(("Taken with %s, %s.\n"):format(report.machine(self.ppsh), os.date "!%Y-%m-%d"))
  print "| figure | what | rate | floor | ratio | target |"
  print "|---|---|--:|--:|--:|---|"
end

function markdown.line(_, line, r)
  print(("| `%s` | %s | %s %s | %s | %s | %s |"):format(line.name, line.about, digits(r.rate),
    line.unit, digits(r.floor), r.ratio and ("%.2f"):format(r.ratio) or "-", target_of(line, r)))
end

function markdown.skipped(_, line, why)
  print(("| `%s` | %s | - | - | - | not taken: %s |"):format(line.name, line.about, why))
end

function markdown.failed(_, line, why)
  print(("| `%s` | %s | - | - | - | failed: %s |"):format(line.name, line.about, why))
end

for _, form in ipairs { text, json, markdown } do
  form.__index = form
end

--- A report in that form: call head, then line, skipped or failed.
function report.new(form, size, ppsh)
  io.stdout:setvbuf "line"
  local class = ({ text = text, json = json, markdown = markdown })[form]
  return setmetatable({ size = size, ppsh = ppsh }, class)
end

--- What scripts/bench/peers prints: functions line, missing and failed.
function report.peers(as_json, ppsh)
  io.stdout:setvbuf "line"
  if as_json then
    return {
      line = function(line, peer, sample, rate, ratio)
        print(object { { "name", line.name }, { "peer", peer }, { "n", sample.n },
          { "seconds", sample.seconds + 0.0 }, { "rate", rate + 0.0 }, { "unit", line.unit },
          { "ratio", ratio and ratio + 0.0 } })
      end,
      missing = function(peer)
        print(object { { "peer", peer.name }, { "missing", peer.package } })
      end,
      failed = function(work, peer, why)
        print(object { { "name", work }, { "peer", peer }, { "error", why } })
      end,
    }
  end
  print("# " .. report.machine(ppsh))
  print(("%-11s %-9s %9s %9s %10s %9s  %s"):format("name", "peer", "n", "seconds", "rate",
    "ratio", "unit"))
  return {
    line = function(line, peer, sample, rate, ratio)
      print(("%-11s %-9s %9d %9.4f %10s %9s  %s"):format(line.name, peer, sample.n,
        sample.seconds, digits(rate), ratio and ("%.2f"):format(ratio) or "-", line.unit))
    end,
    missing = function(peer)
      print(("# not installed: %s (%s; Debian: apt-get install %s)"):format(peer.name, peer.text,
        peer.package))
    end,
    failed = function(work, peer, why)
      print(("%-11s %-9s FAILED: %s"):format(work, peer, why))
    end,
  }
end

return report
