-- SPDX-License-Identifier: MIT
--- Commands of the prompt: lines that begin with a dot.
--
-- Each is { usage, what it does, run = function(prompt, rest) }. One that takes
-- code gets it as a function, which may return what is printed.
local prompt = require "pp.shell.prompt"
local show = require "pp.shell.show"

local commands = {}
local list = {}
commands.list = list

local say = prompt.say

-- A table of columns: rows of texts, cut to the terminal's width. Numbers are
-- texts that stand on the right.
local function print_table(self, rows, right)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, text in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, show.width(text))
    end
  end
  local columns = (self.api.columns() or 10000) - 1
  local lines = {}
  for k, row in ipairs(rows) do
    local cells = {}
    for i, text in ipairs(row) do
      local pad = (" "):rep(widths[i] - show.width(text))
      cells[i] = right[i] and pad .. text or text .. pad
    end
    local line = table.concat(cells, "  "):gsub("[%s]+$", ""):gsub("%c", " ")
    lines[k] = show.cut(line, columns)
  end
  io.stdout:write(table.concat(lines, "\n"), "\n")
end

-- Seconds as a person reads them.
local function duration(s)
  if s < 1 then
    return ("%.3f s"):format(s)
  elseif s < 60 then
    return ("%.1f s"):format(s)
  elseif s < 3600 then
    return ("%d:%02d"):format(s // 60, s % 60)
  end
  return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60)
end

-- --- hosts ------------------------------------------------------------------

-- The hosts as `server` has them; jobs are those of all servers there are.
local function hosts_table(self, server)
  local stats, jobs = server:get_stats(), {}
  for _, s in ipairs(self.api.servers()) do
    for name, counts in pairs(s:get_stats()) do
      jobs[name] = (jobs[name] or 0) + counts.njobs
    end
  end
  local names = {}
  for name, s in pairs(stats) do
    if s.state ~= "removed" then
      names[#names + 1] = name
    end
  end
  table.sort(names, function(a, b)
    if (a == "local") ~= (b == "local") then
      return a == "local"
    end
    return a < b
  end)
  local rows = { { "host", "state", "workers", "jobs", "reason" } }
  for _, name in ipairs(names) do
    local s = stats[name]
    local reason = s.reason and s.reason:match "^[^\n]*" or ""
    rows[#rows + 1] = { name, s.state, ("%d"):format(s.ncpus),
      ("%d"):format(jobs[name] or 0), reason }
  end
  print_table(self, rows, { false, false, true, true })
end

-- "+a -b" as lists of what to add and to remove; or nil and what is wrong.
local function changes(words)
  local found = {}
  for word in words:gmatch "%S+" do
    local sign, spec = word:match "^([-+])(.+)$"
    if not sign then
      return nil, (".hosts +HOST adds, .hosts -HOST lets go: what is '%s'?"):format(word)
    end
    found[#found + 1] = { sign, spec }
  end
  return found
end

list.hosts = {
  ".hosts [+HOST -HOST]", "show the hosts; add some, let some go",
  run = function(self, rest)
    local session = require "pp.shell.session"
    local what, wrong = changes(rest)
    if not what then
      return say(wrong)
    end
    for _, change in ipairs(what) do
      local sign, spec = change[1], change[2]
      local ok, result, message = pcall(sign == "+" and session.add or session.remove, spec)
      if not ok or (result == nil and message) then
        message = tostring(not ok and result or message)
        if message:find "interrupted!" then
          error(message, 0)
        end
        say(message)
      end
    end
    hosts_table(self, session.server())
  end,
}

list.on = {
  ".on SET", "lines are evaluated on these hosts from now on",
  run = function(self, rest)
    if rest == "" then
      return say(self.set and "on @" .. self.set or "here; .on SET goes to hosts, .on all to all")
    end
    local set = rest:gsub("^@", "")
    local names, message = require("pp.shell.session").nodes(set)
    if not names then
      return say(message)
    end
    self.set = set
  end,
}

list["local"] = {
  ".local", "lines are evaluated here again",
  run = function(self, rest)
    if rest ~= "" then
      return say "'.local' takes no words"
    end
    self.set = nil
  end,
}

list.sh = {
  ".sh CMD", "run a command on each host (of .on, or all)",
  run = function(self, rest)
    if rest == "" then
      return say "which command? .sh uname -r"
    end
    local sh, missing = prompt.need("sh", ".sh")
    if not sh then
      return say(missing)
    elseif not sh.on_hosts then
      return say "'.sh' cannot be done: this ppsh has no commands over hosts"
    end
    local _, message = sh.on_hosts(self.set, rest, {})
    if type(message) == "string" then
      say(message)
    end
  end,
}

list.diff = {
  ".diff", "show how the last answers of hosts differ",
  run = function(self)
    local console = require "pp.shell.console"
    console.look = self:limits()
    console.diff()
  end,
}

list.limit = {
  ".limit [SECONDS]", "how long hosts may take to answer; 0: as they like",
  run = function(_, rest)
    local console = require "pp.shell.console"
    local seconds = tonumber(rest)
    if rest ~= "" and not (seconds and seconds >= 0) then
      return say(("'%s' is no number of seconds"):format(rest))
    end
    console.limit(seconds)
    local limit = console.limit()
    io.stdout:write(limit > 0 and ("%g s\n"):format(limit) or "no limit\n")
  end,
}

-- --- jobs -------------------------------------------------------------------

list.stats = {
  ".stats", "print the statistics of each job server",
  run = function(self)
    local servers = self.api.servers()
    if #servers == 0 then
      return say "there is no job server yet: server = pp.Server()"
    end
    for i = #servers, 1, -1 do
      if #servers > 1 then
        io.stdout:write(tostring(servers[i]), "\n")
      end
      servers[i]:print_stats()
    end
  end,
}

list.jobs = {
  ".jobs", "list the jobs that have not ended",
  run = function(self)
    local jobs, all, done, failed = self.api.jobs(40)
    local rows = { { "job", "state", "at", "for", "" } }
    local running = 0
    for _, job in ipairs(jobs) do
      running = running + (job.state == "running" and 1 or 0)
      local notes = { job.name, job.group ~= "default" and job.group and "group " .. job.group,
        job.items and job.items .. " items" }
      local note = {}
      for i = 1, 3 do
        note[#note + 1] = notes[i] or nil
      end
      rows[#rows + 1] = { ("%d"):format(job.id), job.state,
        job.node and ("%s/%d"):format(job.node, job.worker) or "", duration(job.seconds),
        table.concat(note, ", ") }
    end
    if #jobs > 0 then
      print_table(self, rows, { true, false, false, true })
    end
    local told = { all == 0 and "no job is unfinished" or nil }
    if all > #jobs then
      told[#told + 1] = ("%d more are unfinished"):format(all - #jobs)
    end
    if done + failed > 0 then
      told[#told + 1] = ("%d done and %d failed were not asked for their results")
        :format(done, failed)
    end
    if #told > 0 then
      io.stdout:write(table.concat(told, "; "), "\n")
    end
  end,
}

list.top = {
  ".top", "watch hosts and workers until a key is pressed",
  run = function()
    local top, missing = prompt.need("top", ".top")
    if not top then
      return say(missing)
    end
    top.run()
  end,
}

-- --- code -------------------------------------------------------------------

list.load = {
  ".load FILE", "run a file of Lua here",
  run = function(_, rest)
    if rest == "" then
      return say "which file? .load FILE"
    end
    local name = rest:match '^"(.*)"$' or rest:match "^'(.*)'$" or rest
    local home = os.getenv "HOME"
    if name:sub(1, 2) == "~/" and home then
      name = home .. name:sub(2)
    end
    local f, message = loadfile(name)
    if not f then
      return say(message)
    end
    return f()
  end,
}

list.time = {
  ".time EXPR", "evaluate, and tell how long that took",
  takes_code = true,
  run = function(_, f)
    if f == "" then
      return say "what is to be timed? .time EXPR"
    end
    local pp = require "pp"
    local clock, start = os.clock(), pp.time()
    local function told(...)
      local took, cpu = pp.time() - start, os.clock() - clock
      io.stdout:write(("%s (%s of CPU here)\n"):format(
        took < 1e-3 and ("%.1f us"):format(took * 1e6) or ("%.4g s"):format(took),
        cpu < 1e-3 and ("%.1f us"):format(cpu * 1e6) or ("%.4g s"):format(cpu)))
      return ...
    end
    return told(f())
  end,
}

list.doc = {
  ".doc NAME", "what a function does: .doc server.submit",
  run = function(self, rest)
    local text = require("pp.shell.doc").text(rest, self:limits())
    io.stdout:write(text, "\n")
  end,
}

list.help = {
  ".help", "this list",
  run = function(self)
    local limits = self:limits()
    local wide = 0
    for _, name in ipairs(commands.order) do
      wide = math.max(wide, #list[name][1])
    end
    local lines = {}
    local function add(usage, text)
      if wide + 3 + #text < limits.width then
        lines[#lines + 1] = usage .. (" "):rep(wide + 2 - #usage) .. text
      else
        lines[#lines + 1] = usage
        for _, line in ipairs(show.wrap(text, limits.width - 2)) do
          lines[#lines + 1] = "  " .. line
        end
      end
    end
    add("EXPR", "print its values; other lines are statements")
    add("@SET EXPR", "evaluate on each host: @all, @node[1-4]!node2")
    for _, name in ipairs(commands.order) do
      add(list[name][1], list[name][2])
    end
    io.stdout:write(table.concat(lines, "\n"), "\n")
  end,
}

list.quit = {
  ".quit", "leave, as Ctrl-D does",
  run = function(self)
    self.over = true
  end,
}

--- The order they are listed in.
commands.order = { "hosts", "on", "local", "sh", "diff", "limit", "stats", "jobs", "top", "load",
  "time", "doc", "help", "quit" }

return commands
