-- SPDX-License-Identifier: MIT
--- The live table of hosts and workers: --top, and .top at the prompt.
--
-- core/top.c calls compose, in a Lua state of its own, with what there is at
-- that moment, and puts what it returns on the terminal.
local show = require "pp.shell.show"

local top = {}

-- --- numbers ----------------------------------------------------------------

local function count(n)
  if n < 100000 then
    return ("%.0f"):format(n)
  elseif n < 1e7 then
    return ("%.0fk"):format(n / 1e3)
  elseif n < 1e10 then
    return ("%.0fM"):format(n / 1e6)
  end
  return ("%.0fG"):format(n / 1e9)
end

local function rate(v)
  if not v then
    return ""
  end
  return (v < 99.95 and "%.1f/s" or v < 99999.5 and "%.0f/s" or "%.0fk/s"):format(
    v < 99999.5 and v or v / 1000)
end

local function bytes(n)
  if not n or n <= 0 then
    return ""
  end
  local units = { "B", "k", "M", "G", "T" }
  local k = 1
  while n >= 999.5 and k < #units do
    n, k = n / 1024, k + 1
  end
  return (n < 9.95 and k > 1 and "%.1f%s" or "%.0f%s"):format(n, units[k])
end

local function clock(s)
  if s < 60 then
    return ("%.1fs"):format(s)
  elseif s < 3600 then
    return ("%d:%02d"):format(s // 60, s % 60 // 1)
  end
  return ("%d:%02d:%02d"):format(s // 3600, s % 3600 // 60, s % 60 // 1)
end

-- Text for one line of a terminal: no control characters, no broken UTF-8.
local function plain(s)
  s = s:gsub("[%c\127]", "?")
  while true do
    local _, bad = utf8.len(s)
    if not bad then
      return s
    end
    s = s:sub(1, bad - 1) .. "?" .. s:sub(bad + 1)
  end
end

-- --- what changes over time -------------------------------------------------

-- By worker or node: two samples, of which the older is a second old or more.
local samples = {}

-- Changes a second of the numbers in `now`; nil until that can be told.
local function changes(key, time, now)
  local s = samples[key]
  if not s then
    samples[key] = { old = now, at = time, new = now, new_at = time }
    return {}
  end
  s.used = time
  if time - s.new_at >= 1 then
    s.old, s.at = s.new, s.new_at
    s.new, s.new_at = now, time
  end
  local span = time - s.at
  local got = {}
  if span > 0.05 then
    for k, v in pairs(now) do
      got[k] = s.old[k] and math.max(0, v - s.old[k]) / span
    end
  end
  return got
end

-- CPU seconds and bytes of memory of a process here; nil where there is none.
local ticks = 100
local function process(pid)
  local f = pid and pid > 0 and io.open("/proc/" .. pid .. "/stat", "r")
  if not f then
    return
  end
  local text = f:read "a"
  f:close()
  local fields, n = {}, 2
  for field in (text:match ".*%) (.*)" or ""):gmatch "%S+" do
    n = n + 1
    fields[n] = field
  end
  local user, system, pages = tonumber(fields[14]), tonumber(fields[15]), tonumber(fields[24])
  return user and system and (user + system) / ticks, pages and pages * 4096
end

-- --- rows -------------------------------------------------------------------

-- What a worker does, as a row.
local function worker_row(now, node, worker)
  local cpu, memory
  if node.here then
    cpu, memory = process(worker.pid)
  else
    cpu, memory = worker.cpu, worker.memory
  end
  local change = changes(node.name .. "\0" .. worker.number .. "\0" .. worker.pid, now,
    { jobs = worker.njobs, cpu = cpu })
  local job = worker.job
  local what = worker.state
  if job then
    local name = job.name or job.func
    what = ("#%d %s"):format(job.id, plain(name))
    if job.items > 0 then
      what = what .. (" (%d items)"):format(job.items)
    end
    if job.place ~= "" and job.place ~= name then
      what = what .. " " .. plain(job.place:match "[^/]*$")
    end
    if worker.state ~= "busy" then
      what = worker.state .. " " .. what
    end
  end
  return {
    "  " .. (worker.number > 0 and worker.number or "here"), count(worker.njobs), rate(change.jobs),
    change.cpu and ("%.0f%%"):format(change.cpu * 100) or "", bytes(memory),
    job and clock(job.since) or "", what,
    cpu = change.cpu, memory = memory, busy = job ~= nil, since = job and job.since or -1,
    dim = not job,
  }
end

local function node_row(now, node, workers)
  local change = changes(node.name, now, { jobs = node.njobs })
  local cpu, memory, busy
  for _, row in ipairs(workers) do
    cpu = row.cpu and (cpu or 0) + row.cpu or cpu
    memory = row.memory and (memory or 0) + row.memory or memory
    busy = (busy or 0) + (row.busy and 1 or 0)
  end
  local what = ("%d of %d busy"):format(busy or 0, math.max(node.ncpus, #workers))
  if node.state ~= "connected" then
    what = node.state .. (node.reason and ": " .. plain(node.reason) or "")
  end
  if node.failed > 0 then
    what = what .. (", %d failed"):format(node.failed)
  end
  return { plain(node.name), count(node.njobs), rate(change.jobs),
    cpu and ("%.0f%%"):format(cpu * 100) or "", bytes(memory), "", what, bold = true }
end

-- --- lines ------------------------------------------------------------------

local heads = { "HOST", "JOBS", "RATE", "CPU", "MEM", "FOR", "RUNNING" }
local widths = { 0, 6, 8, 5, 6, 8, 0 }
-- What goes first where it is narrow.
local least_wanted = { 5, 4, 3, 2, 6 }

local function head_line(s)
  local parts = { ("ppsh %s"):format(clock(s.elapsed)) }
  if s.total and s.total >= s.done + s.failed then
    parts[#parts + 1] = ("%s of %s done"):format(count(s.done), count(s.total))
  else
    parts[#parts + 1] = ("%s done"):format(count(s.done))
  end
  if s.failed > 0 then
    parts[#parts + 1] = ("%s failed"):format(count(s.failed))
  end
  parts[#parts + 1] = ("%s running, %s queued"):format(count(s.running), count(s.queued))
  local change = changes("", s.now, { jobs = s.done + s.failed })
  if change.jobs then
    parts[#parts + 1] = rate(change.jobs)
    local left = s.total and s.total - s.done - s.failed
    if left and left > 0 and change.jobs > 0 and left / change.jobs < 1e7 then
      parts[#parts + 1] = clock(left / change.jobs) .. " left"
    end
  end
  return table.concat(parts, ", ")
end

-- Pad or cut to so many columns.
local function fit(s, columns, right)
  s = show.cut(s, columns)
  local blanks = (" "):rep(columns - show.width(s))
  return right and blanks .. s or s .. blanks
end

-- Choose rows when there are too many: hosts first, then those that run longest.
local function choose(groups, room)
  local all = {}
  for _, group in ipairs(groups) do
    for _, row in ipairs(group.workers) do
      all[#all + 1] = row
    end
  end
  local left = room - #groups
  local hidden = 0
  if #all > left then
    table.sort(all, function(a, b) return a.since > b.since end)
    for k = math.max(left, 0), #all do -- a line says how many there are
      if k > 0 and k >= left then
        all[k].hidden = true
        hidden = hidden + 1
      end
    end
  end
  return hidden
end

--- Lay the table out.
-- @tparam table s what there is: see core/top.c
-- @int width columns
-- @int height lines
-- @bool color whether it may be bold and dim
-- @treturn {string,...} lines
-- @treturn {integer,...} how many columns each takes
function top.compose(s, width, height, color)
  local groups = {}
  for i, node in ipairs(s.nodes) do
    local workers = {}
    for k, worker in ipairs(node.workers) do
      workers[k] = worker_row(s.now, node, worker)
    end
    groups[i] = { node = node_row(s.now, node, workers), workers = workers }
  end
  for key, sample in pairs(samples) do
    if s.now - (sample.used or sample.at) > 10 then
      samples[key] = nil
    end
  end
  local lines, columns = {}, {}
  local function add(text, style)
    if #lines < height then
      text = show.cut(text:gsub(" +$", ""), width)
      columns[#lines + 1] = show.width(text)
      lines[#lines + 1] = color and style and ("\27[%dm%s\27[0m"):format(style, text) or text
    end
  end
  add(head_line(s), 1)
  if height < 3 or #groups == 0 then
    return lines, columns
  end
  local hidden = choose(groups, height - 2)
  local first = 4
  for _, group in ipairs(groups) do
    first = math.max(first, show.width(group.node[1]), 6)
  end
  first = math.min(first, math.max(6, width // 3), 30)
  local shown, used = {}, first
  for k = 2, 6 do
    shown[k] = true
    used = used + widths[k] + 1
  end
  for _, k in ipairs(least_wanted) do
    if width - used - 1 >= math.min(24, width // 2) then
      break
    end
    shown[k] = nil
    used = used - widths[k] - 1
  end
  local function line(row)
    local cells = { fit(row[1], first) }
    for k = 2, 6 do
      if shown[k] then
        cells[#cells + 1] = fit(row[k], widths[k], true)
      end
    end
    cells[#cells + 1] = row[7]
    return table.concat(cells, " ")
  end
  add(line(heads), 2)
  for _, group in ipairs(groups) do
    add(line(group.node), 1)
    for _, row in ipairs(group.workers) do
      if not row.hidden then
        add(line(row), row.dim and 2 or nil)
      end
    end
  end
  if hidden > 0 then
    add(("  and %d more workers"):format(hidden), 2)
  end
  return lines, columns
end

--- Show the table until a key is pressed; a waiting call.
function top.run()
  local ok, why = require "pp.core".top()
  if not ok then
    io.stderr:write(why, "\n")
  end
end

return top
