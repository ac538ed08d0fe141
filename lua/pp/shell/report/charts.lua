-- SPDX-License-Identifier: MIT
--- The pictures of a report, as SVG. Colours are classes of the page's style, so
-- that they fit light and dark; sizes are bounded whatever the run was.
local text = require "pp.shell.report.text"

local charts = {}

local WIDTH = 1040 -- of all pictures, in units that are about pixels
local LEFT = 104 -- where time begins, behind labels
local ROWS = 60 -- more workers share a row
local SINGLE = 600 -- more jobs in a row are drawn by bins
local CELLS = 30000 -- of all rows
local HUES = 6 -- functions with a colour of their own

local escape = text.escape

local function number(v)
  return (("%.1f"):format(v):gsub("%.0$", ""))
end

-- Of a number that is round.
local function round_duration(s)
  return (text.duration(s):gsub("(%.%d-)0+ ", "%1 "):gsub("%. ", " "))
end

local Picture = {}
Picture.__index = Picture

local function picture(height, title, left)
  local p = setmetatable({ left = left or LEFT }, Picture)
  p:add('<svg viewBox="0 0 %d %s" role="img" aria-label="%s">', WIDTH, number(height),
    escape(title))
  return p
end

function Picture:add(format, ...)
  self[#self + 1] = select("#", ...) > 0 and format:format(...) or format
end

function Picture:text(x, y, class, s)
  self:add('<text x="%s" y="%s" class="%s">%s</text>', number(x), number(y), class, escape(s))
end

function Picture:line(x1, y1, x2, y2, class)
  self:add('<line x1="%s" y1="%s" x2="%s" y2="%s" class="%s"/>', number(x1), number(y1),
    number(x2), number(y2), class)
end

function Picture:done()
  self[#self + 1] = "</svg>"
  return table.concat(self, "\n")
end

--- Steps of an axis that are round numbers: at most n of them up to `most`.
local function step_of(most, n)
  local raw = most / n
  local power = 10 ^ math.floor(math.log(raw, 10))
  for _, k in ipairs { 1, 2, 5, 10 } do
    if power * k >= raw then
      return power * k
    end
  end
end

-- A vertical line and a time at each step of the time axis.
local function time_axis(p, wall, top, bottom)
  local step = step_of(wall, 8)
  local scale = (WIDTH - p.left - 8) / wall
  for k = 0, math.floor(wall / step + 1e-9) do
    local x = p.left + k * step * scale
    p:line(x, top, x, bottom, k == 0 and "axis" or "grid")
    p:text(x, bottom + 15, "tick mid", round_duration(k * step))
  end
  return scale
end

--- The functions that most jobs were of, each with a hue.
-- @treturn table place -> number of the hue, and their names in order
local function hues(jobs)
  local count, list = {}, {}
  for _, job in ipairs(jobs) do
    local key = job.func .. "\0" .. job.place
    if not count[key] then
      count[key] = { n = 0, key = key, name = job.func, place = job.place, order = #list }
      list[#list + 1] = count[key]
    end
    count[key].n = count[key].n + job.ended - job.begun
  end
  table.sort(list, function(a, b)
    if a.n ~= b.n then
      return a.n > b.n
    end
    return a.order < b.order
  end)
  local of, legend = {}, {}
  for k, entry in ipairs(list) do
    of[entry.key] = k <= HUES and k or 0
    if k <= HUES then
      legend[k] = { class = "f" .. k, name = entry.name, place = entry.place }
    elseif k == HUES + 1 then
      legend[k] = { class = "f0", name = "others", place = "" }
    end
  end
  return of, legend
end

-- All workers, and rows of them: {first =, last =, workers, n = }.
local function rows_of(data)
  local all = {}
  for index, node in ipairs(data.nodes) do
    for _, worker in ipairs(node.workers) do
      all[#all + 1] = { node = node, index = index, worker = worker }
    end
  end
  local per = math.max(1, math.ceil(#all / ROWS))
  local rows = {}
  for at = 1, #all, per do
    local row = {}
    for k = at, math.min(at + per - 1, #all) do
      row[#row + 1] = all[k]
    end
    rows[#rows + 1] = row
  end
  return rows, per
end

local function label_of(row, alone)
  local first, last = row[1], row[#row]
  local function name(w)
    local worker = w.worker.number == 0 and "this process" or "worker " .. w.worker.number
    return alone and worker or text.cut(w.node.name, 14) .. "/" .. w.worker.number
  end
  return first == last and name(first) or name(first) .. " – " .. last.worker.number
end

local function tooltip(job)
  local outcome = job.outcome
  if outcome == "failed" then
    outcome = "failed (" .. (job.kind or "error") .. ")"
  elseif outcome == "again" then
    outcome = "run again (" .. (job.kind or "error") .. ")"
  end
  local items = job.items > 0 and ", " .. text.counted(job.items, "item") or ""
  return ("%s · job %d%s · %s%s · at %s · %s"):format(text.cut(job.name or job.func, 60), job.id,
    job.attempt > 1 and ", attempt " .. job.attempt or "", text.duration(job.run), items,
    text.duration(job.begun), outcome)
end

local function classes_of(job, of)
  local class = "f" .. of[job.func .. "\0" .. job.place]
  if job.outcome == "failed" then
    return class .. " bad"
  elseif job.outcome == "again" then
    return class .. " warn"
  elseif job.outcome == "unfinished" then
    return class .. " open"
  end
  return class
end

-- One worker's jobs, each with its text.
local function draw_jobs(p, jobs, of, y, height, scale)
  table.sort(jobs, function(a, b) return a.begun < b.begun end)
  for _, job in ipairs(jobs) do
    local x = p.left + job.begun * scale
    local w = math.max((job.ended - job.begun) * scale, 0.8)
    p:add('<rect x="%.2f" y="%s" width="%.2f" height="%s" rx="%s" class="%s">', x, number(y),
      w > 3 and w - 0.6 or w, number(height), w > 4 and "2" or "0", classes_of(job, of))
    p:add("<title>%s</title></rect>", escape(tooltip(job)))
  end
end

-- How busy the workers of a row were, bin by bin, `fold` of these in one cell.
local function draw_bins(p, data, row, y, height, scale, fold)
  local paths = {}
  local lead = data.lead
  local from, level
  local function finish(to)
    if level and level > 0 then
      local x1 = math.max(from * data.bin - lead, 0) * scale
      local x2 = math.min(to * data.bin - lead, data.wall) * scale
      if x2 > x1 then
        paths[level] = paths[level] or {}
        table.insert(paths[level], ("M%.1f %sh%.1fv%sh%.1fz"):format(p.left + x1, number(y),
          x2 - x1, number(height), x1 - x2))
      end
    end
  end
  for at = 1, data.nbins, fold do
    local sum, n = 0, 0
    for k = at, math.min(at + fold - 1, data.nbins) do
      for _, w in ipairs(row) do
        sum, n = sum + (w.worker.bins[k] or 0), n + 1
      end
    end
    local share = math.min(1, sum / n)
    local now = share <= 0.004 and 0 or math.max(1, math.ceil(share * 8))
    if now ~= level then
      finish(at - 1)
      from, level = at - 1, now
    end
  end
  finish(data.nbins)
  for k = 1, 8 do
    if paths[k] then
      p:add('<path d="%s" class="f1 s%d"/>', table.concat(paths[k]), k)
    end
  end
  for k = 1, data.nbins do
    for _, w in ipairs(row) do
      if w.worker.trouble[k] then
        local x = p.left + math.max(0, (k - 0.5) * data.bin - lead) * scale
        p:add('<rect x="%.1f" y="%s" width="2" height="4" class="bad"/>', x - 1,
          number(y + height - 4))
        break
      end
    end
  end
end

--- What each worker did when.
-- @treturn string SVG
-- @treturn table legend of hues: class, name, place; nil if there is none
-- @treturn boolean whether some of it is drawn by bins
function charts.timeline(data)
  local rows, per = rows_of(data)
  local alone = #data.nodes == 1
  local height = #rows <= 16 and 20 or #rows <= 32 and 14 or 9
  local gap = height > 10 and 4 or 2
  local top, y = 6, 6
  local nodes_apart = per == 1 and not alone
  local jobs, of, legend = {}, nil, nil
  if data.all then
    of, legend = hues(data.all)
    for _, job in ipairs(data.all) do
      local key = job.node .. "/" .. job.worker
      jobs[key] = jobs[key] or {}
      table.insert(jobs[key], job)
    end
  end
  local total, longest = top, 0
  for k, row in ipairs(rows) do
    longest = math.max(longest, utf8.len(label_of(row, alone or nodes_apart)))
    if nodes_apart and (k == 1 or rows[k - 1][1].node ~= row[1].node) then
      total = total + 18
    end
    total = total + height + gap
  end
  local p = picture(total + 24, "What each worker did when",
    math.min(math.max(longest * (height > 10 and 6.6 or 5) + 18, 60), 220))
  local scale = time_axis(p, data.wall, top - 4, total)
  local fold = math.max(1, math.ceil(#rows * data.nbins / CELLS))
  local binned, single = false, false
  for k, row in ipairs(rows) do
    local w = row[1]
    if nodes_apart and (k == 1 or rows[k - 1][1].node ~= w.node) then
      p:text(4, y + 12, "host", text.cut(w.node.name, 60))
      y = y + 18
    end
    p:add('<rect x="%s" y="%s" width="%s" height="%d" rx="2" class="track"/>', number(p.left),
      number(y), number(WIDTH - p.left - 8), height)
    p:text(p.left - 8, y + height / 2 + 4, height > 10 and "label end" or "small end",
      label_of(row, alone or nodes_apart))
    local mine = jobs[w.index .. "/" .. w.worker.number]
    if #row == 1 and of and (not mine or #mine <= SINGLE) then
      draw_jobs(p, mine or {}, of, y, height, scale)
      single = true
    else
      draw_bins(p, data, row, y, height, scale, fold)
      binned = true
    end
    y = y + height + gap
  end
  return p:done(), single and legend or nil, binned
end

-- The largest of consecutive values in each of at most `most` groups.
local function groups(n, most, value)
  local fold = math.max(1, math.ceil(n / most))
  local list = {}
  for at = 1, n, fold do
    local v = 0
    for k = at, math.min(at + fold - 1, n) do
      v = math.max(v, value(k))
    end
    list[#list + 1] = v
  end
  return list, fold
end

--- How many workers were busy, and how many jobs waited, over time.
function charts.load(data, workers)
  local busy = {}
  for k = 1, data.nbins do
    busy[k] = 0
    for _, node in ipairs(data.nodes) do
      for _, worker in ipairs(node.workers) do
        busy[k] = busy[k] + (worker.bins[k] or 0)
      end
    end
  end
  local high = 120
  local p = picture(high + 34, "Busy workers and waiting jobs over time")
  local scale = time_axis(p, data.wall, 6, high + 8)
  local most = math.max(workers, 1)
  local function x_of(k, fold)
    local t = math.min(math.max(k * fold * data.bin - data.lead, 0), data.wall)
    return p.left + t * scale
  end
  local function curve(list, fold, peak, closed)
    local d = {}
    for k, v in ipairs(list) do
      local y = high + 8 - math.min(v / peak, 1) * high
      d[#d + 1] = ("%s%.1f %.1fH%.1f"):format(k == 1 and "M" or "L", x_of(k - 1, fold), y,
        x_of(k, fold))
    end
    if closed then
      d[#d + 1] = ("L%.1f %.1fL%.1f %.1fz"):format(x_of(#list, fold), high + 8, x_of(0, fold),
        high + 8)
    end
    return table.concat(d)
  end
  -- Means of what is busy: the largest would hide what is idle.
  local fold = math.max(1, math.ceil(data.nbins / 512))
  local means = {}
  for at = 1, data.nbins, fold do
    local sum, n = 0, 0
    for k = at, math.min(at + fold - 1, data.nbins) do
      sum, n = sum + busy[k], n + 1
    end
    means[#means + 1] = sum / n
  end
  p:add('<path d="%s" class="area"/>', curve(means, fold, most, true))
  local waiting, wide = groups(data.nbins, 512, function(k) return data.waiting[k] or 0 end)
  local peak = 0
  for _, v in ipairs(waiting) do
    peak = math.max(peak, v)
  end
  if peak > 0 then
    p:add('<path d="%s" class="queue"/>', curve(waiting, wide, peak, false))
  end
  p:line(p.left, high + 8, WIDTH - 8, high + 8, "axis")
  p:text(p.left - 8, 16, "label end", text.counted(workers, "worker"))
  if peak > 0 then
    p:text(p.left - 8, 32, "queued end", text.count(peak) .. " queued")
  end
  p:text(p.left - 8, high + 8, "label end", "0")
  return p:done()
end

--- How many jobs ran how long: bars, two for each doubling.
-- @treturn string SVG
-- @treturn number the median, seconds
-- @treturn number what 95 % of the jobs did not take longer than
function charts.sizes(data)
  local sizes = data.sizes
  local total, most = 0, 0
  for _, bar in ipairs(sizes) do
    total, most = total + bar.n, math.max(most, bar.n)
  end
  local function quantile(q)
    local want, sum = q * total, 0
    for _, bar in ipairs(sizes) do
      if sum + bar.n >= want then
        local from = math.max(bar.from, bar.to / 2)
        return from * (bar.to / from) ^ ((want - sum) / bar.n)
      end
      sum = sum + bar.n
    end
    return 0
  end
  local median, late = quantile(0.5), quantile(0.95)
  local high, bottom = 130, 150
  local p = picture(bottom + 30, "How long jobs ran")
  local low = math.log(math.max(sizes[1].from, sizes[1].to / 2), 2) - 0.5
  local up = math.log(sizes[#sizes].to, 2) + 0.5
  if up - low < 6 then
    low, up = (low + up) / 2 - 3, (low + up) / 2 + 3
  end
  local scale = (WIDTH - p.left - 8) / (up - low)
  local function x_of(s)
    return p.left + (math.log(s, 2) - low) * scale
  end
  p:line(p.left, bottom, WIDTH - 8, bottom, "axis")
  local digits = up - low > 14 and { 1 } or { 1, 2, 5 }
  for power = -9, 7 do
    for _, k in ipairs(digits) do
      local s = k * 10.0 ^ power
      local x = x_of(s)
      if x > p.left + 10 and x < WIDTH - 20 then
        p:line(x, 20, x, bottom, "grid")
        p:text(x, bottom + 16, "tick mid", round_duration(s))
      end
    end
  end
  for _, bar in ipairs(sizes) do
    local from = math.max(bar.from, bar.to / 2)
    local x, w = x_of(from), math.max(x_of(bar.to) - x_of(from) - 1.5, 1)
    local h = math.max(bar.n / most * high, 1.5)
    p:add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%s" class="f1">'
      .. "<title>%s – %s: %s</title></rect>", x, bottom - h, w, h, w > 4 and "2" or "0",
      escape(text.duration(from)), escape(text.duration(bar.to)),
      escape(text.counted(bar.n, "job")))
  end
  p:text(p.left - 8, bottom - high + 4, "label end", text.counted(most, "job"))
  p:text(p.left - 8, bottom + 4, "label end", "0")
  local x = x_of(median)
  p:line(x, 12, x, bottom, "mark")
  p:text(x + (x > WIDTH - 160 and -5 or 5), 18, x > WIDTH - 160 and "marked end" or "marked",
    "median " .. text.duration(median))
  return p:done(), median, late
end

return charts
