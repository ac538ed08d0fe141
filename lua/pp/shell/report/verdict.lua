-- SPDX-License-Identifier: MIT
--- One sentence on what limits a run, from its record, by rules.
--
-- The time there was, workers times the time from the first job queued to the
-- last result, went into running jobs or was idle for one of these reasons (see
-- core/tally.h): nothing was submitted (script), the worker was not there yet
-- (start), a job was queued and not sent (driver) or under way (way), what a job
-- costs around it (cost), nothing was left (tail), a worker never had a job
-- (never). Rules are asked in this order; the first that holds has the word:
--
--   nothing     no job ran
--   serial      jobs ran in the script's own process
--   failures    more than half of the jobs failed
--   waiting     workers were busy at least 85 % of the time, and of that the CPU
--               less than half
--   workers     they were busy at least 85 %
--   cpus        jobs kept this machine's CPUs at least 85 % busy, and there were more
--               workers than these
--   fewer       fewer jobs than workers, and that is the largest part
--
-- then whatever is the largest part:
--
--   straggler   the end, and the last job ran alone for most of it
--   few         the end, or workers that had no job
--   script      nothing was submitted
--   start       workers had to start, hosts to be connected
--   link        jobs were under way to hosts
--   small       jobs run less than 10 ms on average, and cost more than a fifth of that
--   driver      else: what ppsh itself does between jobs
local text = require "pp.shell.report.text"

local verdict = {}

local duration, percent, counted = text.duration, text.percent, text.counted

local function name_of(job)
  return job.name or job.func
end

local function workers(data)
  local n = 0
  for _, node in ipairs(data.nodes) do
    n = n + math.max(node.ncpus, 0)
  end
  return n
end

--- What there was, and what it went into.
-- @tparam table data as core/report.c makes it
-- @treturn table `workers`, `capacity` (worker seconds), `busy` (their share) and
-- `parts`, shares by name
function verdict.shares(data)
  local n = workers(data)
  local capacity = math.max(n, 1) * data.wall
  local shares = { workers = n, capacity = capacity, busy = 0, parts = {} }
  if capacity > 0 then
    shares.busy = math.min(1, data.run / capacity)
    local rest = 1 - shares.busy
    local sum = 0
    for _, v in pairs(data.idle) do
      sum = sum + v / capacity
    end
    -- Workers come and go: what is idle is what is left.
    local scale = sum > rest and rest / sum or 1
    for name, v in pairs(data.idle) do
      shares.parts[name] = v / capacity * scale
    end
  end
  return shares
end

local rules = {}

function rules.nothing(data)
  if data.attempts > 0 then
    return
  end
  local why = data.causes[1]
  if data.never > 0 and why then
    return ("No job ran: %s ended before a worker had begun."):format(counted(data.never, "job")),
      why.kind .. ": " .. why.why
  end
  return "No job ran.", "There is nothing to tell."
end

function rules.serial(data, shares)
  if shares.workers > 0 then
    return
  end
  return ("This process: all jobs ran one after another in it, %s in %s.")
    :format(duration(data.run), duration(data.wall)),
    "With workers (-j N) they would run side by side."
end

function rules.failures(data)
  if data.jobs == 0 or data.failed * 2 <= data.jobs then
    return
  end
  local why = data.causes[1]
  return ("Failures: %s of %s failed."):format(text.count(data.failed), counted(data.jobs, "job")),
    why and ("Most of all: " .. why.why) or ""
end

function rules.waiting(data, shares)
  if shares.busy < 0.85 or data.run == 0 or data.cpu / data.run >= 0.5 then
    return
  end
  return ("Waiting in the jobs: workers were busy %s of the time, but used the CPU for %s of that.")
    :format(percent(shares.busy), percent(data.cpu / data.run)),
    "Jobs wait for something (a disk, a network, other programs), or for a CPU. Where it is not "
    .. "the CPU, more workers (-j) get more done."
end

function rules.workers(_, shares)
  if shares.busy < 0.85 then
    return
  end
  return ("The number of workers: %s %s busy %s of the time.")
    :format(counted(shares.workers, "worker"), shares.workers == 1 and "was" or "were",
      percent(shares.busy)),
    "More cores or hosts (-H), or less to compute, would make it faster; nothing else will."
end

function rules.cpus(data)
  local cpu, n = 0, 0
  for _, node in ipairs(data.nodes) do
    if node.here then
      cpu, n = cpu + node.cpu, n + node.ncpus
    end
  end
  if n <= data.cpus or data.wall == 0 or cpu / data.wall / data.cpus < 0.85 then
    return
  end
  local busy = math.min(1, cpu / data.wall / data.cpus)
  return ("The CPUs: %s shared %s, which jobs kept busy %s of the time.")
    :format(counted(n, "worker"), counted(data.cpus, "CPU"), percent(busy)),
    "More cores or hosts (-H), or less to compute, make it faster; more workers do not."
end

-- How many things to do workers were given, what was run again not counted.
local function pieces(data)
  return math.max(data.attempts - data.again, 1)
end

local function too_few(data, shares)
  local given = pieces(data)
  local jobs = counted(data.jobs > 0 and data.jobs or given, "job")
  if given < data.jobs then -- items of a map
    jobs = ("%s, in %s,"):format(jobs, counted(given, "chunk"))
  end
  return ("Too few jobs: %s for %s, which had none for %s of the time.")
    :format(jobs, counted(shares.workers, "worker"),
      percent(shares.parts.never + shares.parts.tail)),
    "Divide the work into more, smaller jobs: several times as many as there are workers."
end

function rules.fewer(data, shares, largest)
  if pieces(data) >= shares.workers or largest ~= "never" then
    return
  end
  return too_few(data, shares)
end

function rules.straggler(data, shares, largest)
  local last = data.last
  if largest ~= "tail" or not last then
    return
  end
  -- The end: what the others had nothing to do for, each.
  local tail = data.idle.tail / math.max(shares.workers - 1, 1)
  if last.run < tail * 0.8 or data.wall - last.ended > tail * 0.2 then
    return
  end
  return ("One straggler: %s (job %d) ran for %s of %s, and for %s other workers had nothing left.")
    :format(name_of(last), last.id, duration(last.run), duration(data.wall), duration(tail)),
    "Submit long jobs first (priority), or divide them."
end

local function most_of(shares, ...)
  local sum = 0
  for _, name in ipairs { ... } do
    sum = sum + (shares.parts[name] or 0)
  end
  return sum
end

function rules.few(data, shares, largest)
  if largest ~= "tail" and largest ~= "never" then
    return
  end
  return too_few(data, shares)
end

function rules.script(_, shares, largest)
  if largest ~= "script" then
    return
  end
  return ("The script: for %s of the time workers had nothing to do: nothing had been submitted.")
    :format(percent(shares.parts.script)),
    "Submit before you wait, and do less between; or let jobs do what the script does there."
end

function rules.start(data, shares, largest)
  if largest ~= "start" then
    return
  end
  return ("The start: for %s of the time workers were not there yet.")
    :format(percent(shares.parts.start)),
    ("The run of %s is short beside what it takes to start workers and to connect hosts.")
      :format(duration(data.wall))
end

function rules.link(data, shares, largest)
  local worst
  for _, node in ipairs(data.nodes) do
    if not node.here and (not worst or node.sent + node.received > worst.sent + worst.received) then
      worst = node
    end
  end
  if largest ~= "way" or not worst or data.far_way < data.idle.way / 2 then
    return
  end
  return ("The link: for %s of the time jobs were under way to workers that had none.")
    :format(percent(shares.parts.way)),
    ("Most went to and from %s: %s, %s. Larger jobs, or less data in each (put), would help.")
      :format(worst.name, text.bytes(worst.sent), text.bytes(worst.received))
end

function rules.small(data, shares)
  local run = data.run / data.attempts
  local around = most_of(shares, "cost", "driver", "way") * shares.capacity / data.attempts
  if run >= 0.01 or around < run / 5 then
    return
  end
  return ("Too small jobs: one runs %s on average, and %s go by around it.")
    :format(duration(run), duration(around)),
    "Give each more to do: map puts items together by itself, a number for chunk more of them."
end

function rules.driver(_, shares)
  return ("The driver: for %s of the time workers waited for jobs that were queued.")
    :format(percent(most_of(shares, "driver", "way", "cost"))),
    "The script may be slow between calls of pp, arguments and results large, or jobs wait for "
    .. "one another, for a node (on) or for several places (slots)."
end

local order = { "nothing", "serial", "failures", "waiting", "workers", "cpus", "fewer", "straggler",
  "few", "script", "start", "link", "small", "driver" }

--- What limits the run.
-- @tparam table data as core/report.c makes it
-- @treturn string the rule that held
-- @treturn string its sentence
-- @treturn string what could be done about it
function verdict.of(data)
  local shares = verdict.shares(data)
  local parts, largest = shares.parts, nil
  local names = {}
  for name in pairs(parts) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    if not largest or parts[name] > parts[largest] then
      largest = name
    end
  end
  for _, name in ipairs(order) do
    local sentence, hint = rules[name](data, shares, largest)
    if sentence then
      return name == "fewer" and "few" or name, sentence, hint
    end
  end
end

return verdict
