-- SPDX-License-Identifier: MIT
--- --sh once on each host: commands side by side, their output told apart.
local core = require "pp.core"
local files = require "pp.shell.sh_files"
local fold = require "pp.shell.fold"
local session = require "pp.shell.session"
local tasks = require "pp.shell.sh_tasks"

local hosts = {}

-- Hosts at a time.
local FANOUT = 64
-- What one stream of a host may hold to be folded.
local FOLD_MAX = 16 << 20
-- Exit statuses where there is none: as timeout(1) and ssh(1) have them.
local TIMED_OUT, NOT_RUN, NOT_REACHED = 124, 126, 255

-- Bytes of stdin that are kept: for hosts that read slowly; for hosts that have
-- yet to begin.
local KEPT_MAX, HELD_MAX = 1 << 20, 64 << 20

local Run = {}
Run.__index = Run

local function warn(name, text, ...)
  io.stderr:write("ppsh: ", name and name .. ": " or "", text:format(...), "\n")
end

-- How it went on one host: the exit status that stands for it, and what to say.
local function judge(ok, r, timeout)
  if not ok then
    local text = tostring(type(r) == "table" and r.message or r)
    local kind = type(r) == "table" and r.kind
    if kind == "connect" or kind == "lost" then
      text = text:gsub("^no worker is to be expected on '[^']*': host '[^']*': ", "not reached: ")
      return NOT_REACHED, text
    end
    return NOT_RUN, text
  elseif r.timed_out then
    return TIMED_OUT, ("timed out after %g s"):format(timeout)
  elseif r.signal then
    return r.status, ("killed by signal %d"):format(r.signal)
  elseif r.status ~= 0 then
    return r.status, ("exit status %d"):format(r.status)
  end
  return 0
end

function Run:on_host(name, at)
  local function go()
    local job = self.server:submit {
      core.command, args = { self.command, self.how }, on = name, retries = 0, name = name,
    }
    self.jobs[job] = name
    if self.feed then
      self.feed:add(job)
    end
    local ok, r = tasks.await(job)
    self.jobs[job] = nil
    if self.feed then
      self.feed:drop(job)
      if ok and self.fold then
        r.stdout, r.stderr = job.output, job.errors
      end
    end
    return ok, r
  end
  local ok, r
  if self.files then
    ok, r = self.files:around_host(name, go)
  else
    ok, r = go()
  end
  local status, text = judge(ok, r, self.how.timeout)
  if self.fold then
    self.answers[at] = {
      node = name, stdout = ok and r.stdout or "", stderr = ok and r.stderr or "",
      key = ("%d\0%s\0%s"):format(status, ok and r.stdout or text, ok and r.stderr or ""),
      text = text,
    }
  elseif text and (self.many or not ok or r.timed_out) then
    io.stdout:flush()
    warn(self.many and name or nil, "%s", text)
  end
  self.worst = math.max(self.worst, status)
end

-- A text of several lines stands below its hosts, one line beside them.
local function show(to, nodes, text)
  if text == "" then
    return
  end
  local one = text:match "^([^\n]*)\n?$"
  if one then
    to:write(nodes, ": ", one, "\n")
    return
  end
  to:write(nodes, ":\n", text, text:sub(-1) == "\n" and "" or "\n")
end

function Run:show_folded()
  for _, group in ipairs(fold.group(self.answers)) do
    local first = group[1]
    show(io.stdout, group.nodes, first.stdout)
    io.stdout:flush()
    show(io.stderr, group.nodes, first.stderr)
    if first.text then
      warn(group.nodes, "%s", first.text)
    end
  end
end

-- May more of stdin be read?
function Run:wants_input(begun)
  if not self.feed or self.fed then
    return false
  elseif begun then
    return self.feed:kept() < KEPT_MAX
  elseif self.feed:kept() >= HELD_MAX then
    error("stdin is longer than what is kept for hosts that have yet to begin: use --fanout", 0)
  end
  return true
end

function Run:read_input()
  local text, why = core.read(0, 65536)
  if not text then
    warn(nil, "cannot read stdin: %s", why)
    self.worst = math.max(self.worst, 2)
    text = ""
  end
  self.fed = text == ""
  self.feed:put(text)
end

function Run:loop(names)
  local at, fanout = 1, self.fanout or FANOUT
  while at <= #names or self.tasks.count > 0 do
    while at <= #names and self.tasks.count < fanout do
      self.tasks:start(Run.on_host, self, names[at], at)
      at = at + 1
      if at > #names and self.feed then
        self.feed:hold(false)
      end
    end
    io.stdout:flush()
    if self.tasks.count > 0 then
      local waits = self.feed and not self.fed
      local wants = waits and self:wants_input(at > #names)
      if self.tasks:step(wants and 0 or nil, waits and not wants and KEPT_MAX or nil) then
        self:read_input()
      end
    end
  end
end

--- Run a command on each of these nodes, and print what they write.
-- @tparam table o `how` (what core.command is told), `fold`, `fanout`, `push`,
-- `fetch`, `cleanup`, `feeds` (they all read what is on stdin)
-- @tparam {string,...} names of nodes
-- @string command
-- @treturn integer the worst exit status: 128 + n for signal n, 124 where the
-- time was up, 126 where it could not be run, 255 where a host was not reached
function hosts.run(o, names, command)
  local alone = #names == 1 and names[1] == "local"
  local server <close> = session.console(o.fold and "job" or alone and "line" or "host")
  local how = { cwd = o.how.cwd, timeout = o.how.timeout }
  if o.fold and not o.feeds then
    how.limit = FOLD_MAX
  else
    how.pass = true
  end
  how.fed = o.feeds
  local run = setmetatable({
    server = server, tasks = tasks.new(server), how = how, command = command, fold = o.fold,
    fanout = o.fanout, worst = 0, answers = {}, jobs = {}, many = not alone,
  }, Run)
  if o.feeds then
    run.feed = core.feeder()
    run.feed:hold(true)
  end
  if o.push or o.fetch then
    run.files = files.new(run, o)
  end
  local ok, err = pcall(Run.loop, run, names)
  if not ok then
    for job in pairs(run.jobs) do
      job:cancel()
    end
    error(err, 0)
  end
  if run.fold then
    run:show_folded()
  end
  return run.worst
end

--- What ppsh --sh does where it runs once on each host.
-- @treturn integer the exit status
function hosts.main(o, command)
  local kind = core.kind(0)
  o.feeds = kind == "pipe" or kind == "file" or nil
  local ok, status = pcall(hosts.run, o, session.nodes "all", command)
  if not ok then
    if tostring(status):find("interrupted!", 1, true) then
      return 130
    end
    error(status, 0)
  end
  return status
end

return hosts
