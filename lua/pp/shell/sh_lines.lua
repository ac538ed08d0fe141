-- SPDX-License-Identifier: MIT
--- --sh over lines or arguments: a command for each, over all workers.
local core = require "pp.core"
local files = require "pp.shell.sh_files"
local session = require "pp.shell.session"
local tasks = require "pp.shell.sh_tasks"
local template = require "pp.shell.sh_template"

local lines = {}

-- What one stream of a command may keep in memory; more goes to a file.
local OUTPUT_MAX = 1 << 20
-- With --keep: results that wait for those before them, and their bytes.
local HELD_MAX, HELD_BYTES = 20000, 64 << 20
-- Exit status where more than 100 have failed.
local MANY = 101

local Run = {}
Run.__index = Run

local function warn(text, ...)
  io.stderr:write("ppsh: ", text:format(...), "\n")
end

-- Write what a command wrote. Where stdout cannot be written to, everything ends;
-- a stderr that nobody keeps is no reason to.
function Run:write(file, text)
  if text == "" or self.broken then
    return
  end
  local ok, why = file:write(text)
  if not ok and file == io.stdout then
    self:break_off(why)
  end
end

-- At its end ppsh itself says what is wrong with stdout.
function Run:break_off(why)
  if self.broken then
    return
  end
  self.broken = why
  self:stop "now"
end

-- Begin no more; "now": end what runs.
function Run:stop(when)
  self.stopping = true
  for entry in pairs(self.entries) do
    local job = entry.job
    if job and (when == "now" or job.status == "queued") then
      entry.cancelled = true
      job:cancel()
    end
  end
end

-- How many commands are to be under way: one more for each worker waits there,
-- so that none is idle while its next one is on the way.
function Run:window()
  local now = core.time()
  if not self.workers or now > self.looked + 0.05 then
    local n = 0
    for _, k in pairs(self.server:get_active_nodes()) do
      n = n + k
    end
    self.workers, self.looked = math.max(n, 1), now
  end
  return (self.halt.when and 1 or 2) * self.workers -- what --halt ends is not begun before
end

-- What a command wrote, in the order of the lines if that was asked for.
function Run:emit(seq, parts)
  if not self.keep then
    for _, part in ipairs(parts) do
      part(self)
    end
    return
  end
  self.held[seq] = parts
  self.held_n = self.held_n + 1
  self.held_bytes = self.held_bytes + (parts.bytes or 0)
  while self.held[self.next_out] do
    parts = self.held[self.next_out]
    self.held[self.next_out] = nil
    self.held_n = self.held_n - 1
    self.held_bytes = self.held_bytes - (parts.bytes or 0)
    self.next_out = self.next_out + 1
    for _, part in ipairs(parts) do
      part(self)
    end
  end
end

-- What still waits for those before it, which were never begun.
function Run:emit_rest()
  local numbers = {}
  for seq in pairs(self.held) do
    numbers[#numbers + 1] = seq
  end
  table.sort(numbers)
  for _, seq in ipairs(numbers) do
    for _, part in ipairs(self.held[seq]) do
      part(self)
    end
  end
end

-- A job has ended for good.
function Run:finish(entry, exit, signal)
  local status = signal and 128 + signal or exit
  if self.log then
    local why = self.log:note {
      seq = entry.seq, host = entry.host == "local" and ":" or entry.host or ":",
      began = entry.began, ran = entry.ran or 0, sent = entry.sent, received = entry.received,
      exit = entry.timed_out and -1 or signal and 0 or exit,
      signal = entry.timed_out and 15 or signal or 0, command = entry.command,
    }
    if why then
      warn("%s", why)
      self.status = 2
      self:stop "soon"
    end
  end
  if status ~= 0 then
    self.failed = self.failed + 1
  end
  local when, as = self.halt:count(status, self.total)
  if when then
    self.status = self.halt.percent and self.halt.why == "fail"
      and math.min(100, self.failed * 100 // self.total) or as
    self:stop(when)
  end
end

-- Run a command once: whether it ran, and its result, or the error.
function Run:attempt(entry)
  if self.stopping then
    return false, { kind = "cancelled" }
  end
  local spec = {
    core.command, args = { entry.command, self.how }, on = entry.node or nil,
    retries = entry.node and 0 or nil,
  }
  entry.job = self.server:submit(spec)
  local submitted = core.wall()
  local job = entry.job
  local ok, r = tasks.await(job)
  entry.job = nil
  entry.host = job.node or "local"
  entry.began = submitted + ((job.time or {}).queued or 0)
  entry.ran = ok and r.time or 0
  return ok, r
end

-- Parts of an entry's output: functions that write them.
function Run:parts_of(entry, r)
  local parts = { bytes = #r.stdout + #r.stderr }
  for k, name in ipairs { "stdout", "stderr" } do
    local to = k == 1 and io.stdout or io.stderr
    local text = r[name]
    if r[name .. "_file"] then
      -- It is here, or was brought here, as a file of its own.
      local path = r[name .. "_file"]
      parts[#parts + 1] = function(run)
        local f = io.open(path, "rb")
        os.remove(path)
        while f do
          local piece = f:read(1 << 18)
          if not piece then
            f:close()
            break
          end
          run:write(to, piece)
        end
      end
    elseif text ~= "" then
      parts[#parts + 1] = function(run)
        run:write(to, text)
      end
    end
  end
  if entry.timed_out then
    parts[#parts + 1] = function()
      warn("timed out after %g s: %s", self.how.timeout, entry.command)
    end
  end
  return parts
end

-- All that belongs to one line.
function Run:process(entry)
  local tries = 0
  self.entries[entry] = true
  repeat
    local exit, signal
    local parts = {}
    tries = tries + 1
    local ok, r = self:go(entry)
    if ok then
      entry.timed_out = r.timed_out
      exit, signal = r.status, r.signal
      parts = self.pass and {} or self:parts_of(entry, r)
      if self.pass and entry.timed_out then
        warn("timed out after %g s: %s", self.how.timeout, entry.command)
      end
    elseif entry.cancelled or r.kind == "cancelled" or r.kind == "destroyed" then
      self.entries[entry] = nil
      return
    else
      local text = tostring(r.message or r)
      exit = r.kind == "connect" and 255 or 126
      parts[1] = function()
        warn("%s: %s", entry.command, text)
      end
      if r.kind == "connect" and not entry.node then
        self.status = 255
        self:stop "soon"
      end
    end
    local again = exit ~= 0 and tries < self.tries and not self.stopping
    if not ok and entry.node and not self.stopping and (entry.losses or 0) < 2
      and (r.kind == "lost" or r.kind == "connect") then
      entry.losses = (entry.losses or 0) + 1 -- on another host
      again, tries = true, tries - 1
    end
    if not again then
      self:emit(entry.seq, parts)
      self.entries[entry] = nil
      self:finish(entry, exit, signal)
    else
      for _, path in ipairs { ok and r.stdout_file, ok and r.stderr_file } do
        if path then
          os.remove(path)
        end
      end
    end
  until not again
end

-- Run it, with what goes there before and comes back afterwards.
function Run:go(entry)
  if self.files then
    return self.files:around(self, entry)
  end
  local ok, r = self:attempt(entry)
  if ok and entry.host ~= "local" then
    ok, r = files.bring_output(self, entry, r)
  end
  return ok, r
end

-- Something that cannot be run: it counts as failed.
function Run:refuse(seq, why)
  self:emit(seq, { function()
    warn("%s", why)
  end })
  self.failed = self.failed + 1
  local when, as = self.halt:count(126, self.total)
  if when then
    self.status = as
    self:stop(when)
  end
end

-- Begin commands while there is room: true when that is for want of input.
function Run:fill()
  while not self.stopping and self.tasks.count < self:window()
    and self.held_n < HELD_MAX and self.held_bytes < HELD_BYTES do
    local words, why = self.source.next()
    if not words and why == "wait" then
      return true
    elseif not words and why == "end" then
      self.total = self.seq
      self.ended = true
      return false
    end
    self.seq = self.seq + 1
    if not words then
      self:refuse(self.seq, why)
    else
      local command = template.fill(self.template, words, self.seq)
      if self.log and self.log:skips(self.seq, command) then
        self:emit(self.seq, {})
      else
        self.tasks:start(Run.process, self, {
          seq = self.seq, words = words, command = command,
        })
      end
    end
  end
  return false
end

function Run:loop()
  while true do
    local waits = self:fill()
    if (self.ended or self.stopping) and self.tasks.count == 0 then
      self:emit_rest()
      return
    end
    local ok, why = io.stdout:flush()
    if not ok then
      self:break_off(why)
    end
    if self.tasks.count > 0 or waits then
      local ready = self.tasks:step(waits and self.source.fd or nil)
      if ready then
        self.source.fill()
        if self.source.failed then
          warn("cannot read the input: %s", self.source.failed)
          self.status = 2
        end
      end
    end
  end
end

--- Run a command for each combination of a source.
-- @tparam table o `template`, `source` (see sh_input), `how` (what core.command
-- is told), `keep`, `pass`, `tries`, `halt`, `log`, `files`
-- @treturn integer the exit status: how many have failed, 101 for more than 100;
-- after --halt that of the job that was the reason
-- @treturn integer how many combinations there were
function lines.run(o)
  local server = session.server()
  o.how.limit, o.how.spill = OUTPUT_MAX, true
  local run = setmetatable({
    server = server, source = o.source, template = o.template, how = o.how, keep = o.keep,
    pass = o.pass, tries = o.tries, halt = o.halt, log = o.log, total = o.source.total,
    tasks = tasks.new(server), entries = {}, held = {}, held_n = 0, held_bytes = 0, next_out = 1,
    seq = 0, failed = 0,
  }, Run)
  if o.push or o.fetch then
    run.files = files.new(run, o)
  end
  local ok, err = pcall(function()
    run:loop()
    if run.files then
      run.files:clean(run.tasks)
    end
  end)
  if not ok then
    run:stop "now"
    if tostring(err) == "interrupted!" or tostring(err):find("interrupted!", 1, true) then
      return 130
    end
    error(err, 0)
  end
  if run.broken then
    return 1
  end
  return run.status or math.min(run.failed, MANY), run.seq
end

return lines
