-- SPDX-License-Identifier: MIT
-- The work of some lines of scripts/bench/run done by others, side by side.
-- scripts/bench/peers says what it prints and starts it.

local pp = require "pp"

local here = arg[0]:match "^(.*)/" or "."
package.path = here .. "/../?.lua;" .. package.path

local figure = require "bench.figure"
local measurements = require "bench.measurements"
local report = require "bench.report"
local take = require "bench.take"
local tools = require "bench.tools"

local works = { "lone.free", "gather", "map", "doubles", "echo.1m", "echo.64m", "start",
  "commands" }

-- What the peers are: `has` is a command that succeeds where it is installed,
-- `n` the operations of each work it can do.
local peers = {
  {
    name = "python",
    text = "Python's multiprocessing",
    has = "python3 -c 'import multiprocessing'",
    package = "python3",
    command = "python3 %s/peers.d/pool.py",
    n = { ["lone.free"] = 5000, gather = 30000, map = 1000000, doubles = 1000000,
      ["echo.1m"] = 100, ["echo.64m"] = 2, start = 5 },
  },
  {
    name = "mce",
    text = "Perl's MCE",
    has = "perl -MMCE::Map -MMCE::Child -e 1",
    package = "libmce-perl",
    command = "perl %s/peers.d/mce.pl",
    n = { ["lone.free"] = 5000, gather = 30000, map = 1000000, doubles = 1000000,
      ["echo.1m"] = 100, ["echo.64m"] = 2, start = 5 },
  },
  {
    name = "erlang",
    text = "Erlang processes",
    has = "escript -h 2>&1 | grep -q . && erl -noshell -eval 'halt().'",
    package = "erlang-base",
    command = "escript %s/peers.d/erlang.escript",
    n = { ["lone.free"] = 10000, gather = 100000, map = 1000000, doubles = 1000000, start = 3 },
  },
  {
    name = "parallel",
    text = "GNU parallel",
    has = "parallel --version 2>/dev/null | grep -q 'GNU parallel'",
    package = "parallel",
    command = "sh %s/peers.d/parallel.sh",
    n = { gather = 200, map = 1000000, ["echo.64m"] = 2, start = 3, commands = 300 },
  },
  {
    name = "r",
    text = "R's parallel",
    has = "Rscript -e 'library(parallel)'",
    package = "r-base-core",
    command = "Rscript --vanilla %s/peers.d/parallel.R",
    n = { ["lone.free"] = 2000, gather = 5000, map = 1000000, doubles = 1000000,
      ["echo.1m"] = 50, ["echo.64m"] = 1, start = 2 },
  },
}

local ROUNDS = { quick = 1, usual = 3 }

local function usage(...)
  io.stderr:write("peers: ", string.format(...), "\n",
    "usage: scripts/bench/peers [--quick] [--json] [NAME...]\n")
  os.exit(2)
end

local function read_options()
  local o = { size = "usual", names = {} }
  for _, a in ipairs(arg) do
    if a == "--quick" then
      o.size = "quick"
    elseif a == "--json" then
      o.json = true
    elseif a:sub(1, 1) == "-" then
      usage("unknown option '%s'", a)
    else
      o.names[#o.names + 1] = a
    end
  end
  return o
end

local function contained(name, parts)
  for _, part in ipairs(parts) do
    if #part > 1 and name:find(part, 1, true) then return true end
  end
  return false
end

-- "r" is R, and nothing else that has one in its name.
local function speaks_of(name, peer)
  return name == peer.name or contained(peer.name, { name })
end

-- Of all works and peers, those that were asked for: those of which a NAME
-- speaks, or all if none does.
local function choose(o)
  local chosen_works, chosen_peers, spoken = {}, {}, {}
  for _, name in ipairs(o.names) do
    for _, work in ipairs(works) do spoken[name] = spoken[name] or contained(work, { name }) end
    for _, peer in ipairs(peers) do
      spoken[name] = spoken[name] or speaks_of(name, peer)
    end
    if not spoken[name] then usage("no work and no peer has '%s' in its name", name) end
  end
  for _, work in ipairs(works) do
    if contained(work, o.names) then chosen_works[#chosen_works + 1] = work end
  end
  for _, peer in ipairs(peers) do
    local hit = false
    for _, name in ipairs(o.names) do hit = hit or speaks_of(name, peer) end
    if hit then chosen_peers[#chosen_peers + 1] = peer end
  end
  return #chosen_works > 0 and chosen_works or works,
    #chosen_peers > 0 and chosen_peers or peers
end

-- The line of scripts/bench/run of that work, and its measurement's name.
local function line_of(work)
  for _, m in ipairs(measurements) do
    for _, line in ipairs(m.lines) do
      if line.name == work then return line, m.name end
    end
  end
end

-- Best seconds of several rounds of a peer's work, and its n; nil and why not.
-- To be called in a job.
local function best_of(command, work, n, rounds)
  local least
  for _ = 1, rounds do
    local words = ("timeout --foreground -k 5 120 %s %s %d 2>&1"):format(command, work, n)
    if work == "start" then
      words = tools.floor_command("spawn", n, "sh", "-c", ("exec %s start 1"):format(command))
        .. " 2>&1"
    end
    local pipe = assert(io.popen(words))
    local text = pipe:read "a"
    local ok, how, code = pipe:close()
    local seconds = tonumber(text:match "([^\n]*)\n?$")
    if not ok or not seconds then
      return nil, text:match "([^\n]+)\n*$" or ("%s %d"):format(how, code)
    end
    if not least or seconds < least then least = seconds end
  end
  return least
end

local o = read_options()
local chosen_works, chosen_peers = choose(o)
local show = report.peers(o.json, tools.ppsh)
local failures = {}

local function measure_all()
  local server <close> = pp.Server(1)
  local installed = {}
  for _, peer in ipairs(chosen_peers) do
    if os.execute("(" .. peer.has .. ") >/dev/null 2>&1") then
      installed[#installed + 1] = peer
    else
      show.missing(peer)
    end
  end
  local function failed(work, peer, why)
    show.failed(work, peer, why)
    failures[#failures + 1] = work .. " " .. peer
  end
  for _, work in ipairs(chosen_works) do
    local line, name = line_of(work)
    local ok, samples, why = server:spawn(take, here, name, o.size):pcall()
    if not ok then samples, why = nil, samples.message end
    local ours
    if samples then
      ours = figure.best(samples[line.of])
      show.line(line, "ppsh", ours, figure.rate(ours, line), 1)
    else
      failed(work, "ppsh", why)
    end
    for _, peer in ipairs(installed) do
      local n = peer.n[work]
      if n then
        if o.size == "quick" then n = math.max(1, n // 50) end
        local command = peer.command:format("'" .. here .. "'")
        local fine, seconds, reason = server:spawn(best_of, command, work, n,
          ROUNDS[o.size]):pcall()
        if not fine then seconds, reason = nil, seconds.message end
        if seconds then
          local sample = { seconds = seconds, n = n }
          show.line(line, peer.name, sample, figure.rate(sample, line),
            ours and (seconds / n) / (ours.seconds / ours.n))
        else
          failed(work, peer.name, reason)
        end
      end
    end
  end
end

local ok, message = pcall(measure_all)
if not ok and tostring(message):find "interrupted!$" then
  io.stderr:write("peers: interrupted\n")
  os.exit(130)
elseif not ok then
  error(message, 0)
elseif #failures > 0 then
  io.stderr:write("peers: failed: ", table.concat(failures, ", "), "\n")
  os.exit(1)
end
