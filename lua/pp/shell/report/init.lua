-- SPDX-License-Identifier: MIT
--- The page that tells how a run went (--report): one file, no network, no
-- script. core/report.c calls it, in a Lua state of its own, when the run is over.
local charts = require "pp.shell.report.charts"
local style = require "pp.shell.report.style"
local text = require "pp.shell.report.text"
local verdict = require "pp.shell.report.verdict"

local report = {}

local escape, duration, count = text.escape, text.duration, text.count

local Page = {}
Page.__index = Page

function Page:add(format, ...)
  self[#self + 1] = select("#", ...) > 0 and format:format(...) or format
end

-- A table: heads with class "n" are numbers; cells are escaped already.
function Page:table(heads, rows)
  self:add '<div class="scroll"><table><thead><tr>'
  for _, head in ipairs(heads) do
    self:add('<th%s>%s</th>', head.n and ' class="n"' or "", escape(head[1]))
  end
  self:add "</tr></thead><tbody>"
  for _, row in ipairs(rows) do
    self:add "<tr>"
    for k, cell in ipairs(row) do
      self:add("<td%s>%s</td>", heads[k].n and ' class="n"' or "", cell)
    end
    self:add "</tr>"
  end
  self:add "</tbody></table></div>"
end

function Page:section(title, note)
  self:add("<section><h2>%s</h2>", escape(title))
  if note then
    self:add('<p class="note">%s</p>', note)
  end
end

local function quoted(words)
  local list = {}
  for i, word in ipairs(words) do
    if i == 1 then
      word = word:match "[^/]*$"
    end
    list[i] = word:find "^[%w%-%+=_./,:@%%]+$" and word or "'" .. word:gsub("'", "'\\''") .. "'"
  end
  return table.concat(list, " ")
end

local function head(page, data)
  local command = text.cut(quoted(data.command), 300)
  page:add("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")
  page:add '<meta name="viewport" content="width=device-width, initial-scale=1">'
  page:add '<meta name="color-scheme" content="light dark">'
  page:add("<title>%s · ppsh report</title>", escape(command))
  page:add("<style>%s</style>\n</head>\n<body>\n<main>", style)
  page:add('<header><p class="kicker">ppsh report</p><h1>%s</h1>', escape(command))
  page:add('<p class="note">%s · %s · ppsh %s · the program ran %s</p></header>',
    escape(os.date("%Y-%m-%d %H:%M:%S", data.ended_at)), escape(data.host), escape(data.version),
    duration(data.elapsed))
end

local function tile(page, value, name, class)
  page:add('<div class="tile%s"><b>%s</b><span>%s</span></div>', class and " " .. class or "",
    escape(value), escape(name))
end

-- A sum over all nodes.
local function total(data, field)
  local sum = 0
  for _, node in ipairs(data.nodes) do
    sum = sum + node[field]
  end
  return sum
end

local function tiles(page, data, shares, median, late)
  local failed = total(data, "failed")
  page:add '<div class="tiles">'
  tile(page, duration(data.wall), "first to last")
  tile(page, count(data.jobs), data.jobs == 1 and "job" or "jobs")
  tile(page, count(failed), "failed", failed > 0 and "bad" or nil)
  if shares.workers > 0 then
    tile(page, count(shares.workers), shares.workers == 1 and "worker" or "workers")
    tile(page, text.percent(shares.busy), "busy")
  end
  tile(page, ("%.2f×"):format(data.wall > 0 and data.run / data.wall or 0), "one worker")
  tile(page, data.wall > 0 and ("%s/s"):format(data.jobs / data.wall >= 10
    and count(data.jobs / data.wall) or ("%.2f"):format(data.jobs / data.wall)) or "–",
    "a second")
  tile(page, duration(median), "median job")
  tile(page, duration(late), "95 % ran less")
  page:add "</div>"
end

local parts = {
  { "busy", "running jobs", "p1" },
  { "script", "nothing submitted", "p2" },
  { "start", "workers starting", "p3" },
  { "driver", "queued, not sent", "p4" },
  { "way", "under way to the worker", "p5" },
  { "cost", "between two jobs", "p6" },
  { "tail", "nothing left", "p7" },
  { "never", "workers without a job", "p8" },
  { "rest", "other", "p9" },
}

local function where_time_went(page, shares)
  local share, rest = { busy = shares.busy }, 1 - shares.busy
  for name, v in pairs(shares.parts) do
    share[name] = v
    rest = rest - v
  end
  share.rest = math.max(0, rest)
  page:section("Where the workers' time went",
    "Workers times the time from the first job queued to the last result.")
  page:add '<div class="bar" role="img" aria-label="shares, listed below">'
  for _, part in ipairs(parts) do
    if (share[part[1]] or 0) >= 0.002 then
      page:add('<i class="%s" style="flex:%.4f" title="%s %s"></i>', part[3], share[part[1]],
        escape(part[2]), text.percent(share[part[1]]))
    end
  end
  page:add '</div><ul class="legend">'
  for _, part in ipairs(parts) do
    if (share[part[1]] or 0) >= 0.002 then
      page:add('<li><i class="%s"></i>%s <b>%s</b></li>', part[3], escape(part[2]),
        text.percent(share[part[1]]))
    end
  end
  page:add "</ul></section>"
end

local function timeline(page, data)
  local svg, legend, binned = charts.timeline(data)
  page:section("Timeline", binned
    and "The stronger the colour, the busier. A red mark: something failed there."
    or "Each bar is a job; point at one to see which.")
  page:add('<div class="scroll">%s</div>', svg)
  if legend then
    page:add '<ul class="legend">'
    for _, entry in ipairs(legend) do
      page:add('<li title="%s"><i class="%s"></i>%s</li>', escape(entry.place), entry.class,
        escape(text.cut(entry.name, 40)))
    end
    local seen = {}
    for _, job in ipairs(data.all) do
      seen[job.outcome] = true
    end
    for _, k in ipairs { { "failed", "bad", "failed" }, { "again", "warn", "run again" },
      { "unfinished", "open", "unfinished" } } do
      if seen[k[1]] then
        page:add('<li><i class="%s"></i>%s</li>', k[2], k[3])
      end
    end
    page:add "</ul>"
  end
  page:add "</section>"
end

local function where(data, job)
  local node = data.nodes[job.node]
  return escape(node.name) .. (job.worker > 0 and "/" .. job.worker or "")
end

local function slowest(page, data)
  local rows = {}
  for i, job in ipairs(data.slowest) do
    local name = escape(text.cut(job.name or job.func, 60))
    if job.items > 0 then
      name = name .. ' <span class="soft">' .. text.counted(job.items, "item") .. "</span>"
    end
    if job.outcome ~= "done" then
      name = name .. (' <span class="chip %s">%s</span>'):format(
        job.outcome == "failed" and "bad" or job.outcome == "again" and "warn" or "open",
        escape(job.outcome == "failed" and job.kind or job.outcome))
    end
    rows[i] = { ("%d"):format(job.id), name, "<code>" .. escape(job.place) .. "</code>",
      where(data, job), duration(job.run), duration(job.queued), duration(job.begun),
      ("%d"):format(job.attempt) }
  end
  page:section(#rows == 1 and "The job" or "Slowest jobs")
  page:table({ { "job", n = true }, { "name" }, { "function" }, { "worker" },
    { "ran", n = true }, { "queued", n = true }, { "begun at", n = true },
    { "attempt", n = true } }, rows)
  page:add "</section>"
end

local function failures(page, data)
  local rows, told = {}, 0
  for i, cause in ipairs(data.causes) do
    told = told + cause.failed
    rows[i] = { '<span class="chip bad">' .. escape(cause.kind) .. "</span>", escape(cause.why),
      count(cause.failed), count(cause.again), cause.failed + cause.again }
  end
  table.sort(rows, function(a, b) return a[5] > b[5] end)
  local items = total(data, "failed") - told
  if items > 0 then
    rows[#rows + 1] = { '<span class="chip bad">error</span>',
      "items of map, whose errors were kept", count(items), "0" }
  end
  if #rows == 0 then
    return
  end
  for _, row in ipairs(rows) do
    row[5] = nil
  end
  page:section "Failures by cause"
  page:table({ { "kind" }, { "first line" }, { "failed", n = true }, { "run again", n = true } },
    rows)
  page:add "</section>"
end

local function hosts(page, data)
  local rows = {}
  for i, node in ipairs(data.nodes) do
    local state = node.reason and ' <span class="soft">' .. escape(node.reason) .. "</span>" or ""
    local full = node.ncpus * data.wall
    rows[i] = { "<b>" .. escape(node.name) .. "</b>", count(node.ncpus), count(node.njobs),
      duration(node.time), full > 0 and text.percent(math.min(1, node.time / full)) or "–",
      text.bytes(node.sent), text.bytes(node.received), text.bytes(node.maxrss),
      count(node.failed), count(node.lost), escape(node.state) .. state }
  end
  page:section "Hosts"
  page:table({ { "host" }, { "workers", n = true }, { "jobs", n = true }, { "ran", n = true },
    { "busy", n = true }, { "sent", n = true }, { "received", n = true },
    { "most memory", n = true }, { "failed", n = true }, { "workers lost", n = true },
    { "state" } }, rows)
  page:add "</section>"
end

--- Make the page.
-- @tparam table data as core/report.c makes it
-- @treturn string HTML
function report.page(data)
  local page = setmetatable({}, Page)
  local shares = verdict.shares(data)
  local rule, sentence, hint = verdict.of(data)
  head(page, data)
  page:add('<div class="verdict" data-rule="%s"><p class="kicker">What limits this run</p><p>%s</p>'
    .. "<p class=\"note\">%s</p></div>", rule, escape(sentence), escape(hint))
  local sizes, median, late
  if #data.sizes > 0 then
    sizes, median, late = charts.sizes(data)
  end
  tiles(page, data, shares, median or 0, late or 0)
  if data.attempts > 0 and data.wall > 0 then
    if shares.workers > 0 then
      where_time_went(page, shares)
    end
    timeline(page, data)
    page:section("Load", "Workers that were busy, and jobs that waited for one.")
    page:add('<div class="scroll">%s</div></section>', charts.load(data, shares.workers))
  end
  if sizes then
    page:section("How long jobs ran", "Each item of a map counts.")
    page:add('<div class="scroll">%s</div></section>', sizes)
  end
  if #data.slowest > 0 then
    slowest(page, data)
  end
  failures(page, data)
  if #data.nodes > 0 then
    hosts(page, data)
  end
  if data.tables ~= "" then
    page:section "Statistics"
    page:add('<pre class="scroll">%s</pre></section>', escape(data.tables))
  end
  page:add "</main>\n</body>\n</html>\n"
  return table.concat(page, "\n")
end

return report
