-- SPDX-License-Identifier: MIT

--- Iterating over jobs: map, imap, completed, drain, first.
--
-- Items travel in chunks: as many as are likely to take a few milliseconds, by
-- what items took so far, and never more than leave work for every worker.
-- Where that was wrong, and others have nothing to do, what a worker has not begun
-- of its chunk is taken from it again. Each item still runs in globals and with
-- captures of its own.
--
-- @module pp.iterate

local core = require "pp.core"
local range = require "pp.range"

local iterate = { range = range.range, Range = range.Range }

-- How long a chunk should take, seconds; how many items it may have, and how
-- many bytes these or their results.
local CHUNK_TIME = 0.003
local CHUNK_MAX = 16000
local CHUNK_BYTES = 65536
-- What a chunk counts when the next is over, beside that one.
local MEMORY = 0.9
-- Bytes of items and results under way for each worker, where these are more
-- than two chunks for each; a place in a list is 16.
local AHEAD_BYTES = 2 << 20
-- Chunks under way for each worker.
local AHEAD = 3
-- And at most so many more where they are far away.
local WAY_MOST = 256
-- How long a worker may have nothing to do before chunks of others are cut short,
-- seconds: longer than a chunk takes that is as it should be.
local PATIENCE = 0.004

local function bad(level, number, name, text, ...)
  error(("bad argument #%d to '%s' (%s)"):format(number, name, text:format(...)), level + 1)
end

local passed_on = { deps = true, modules = true, globals = true, group = true }
for _, k in ipairs {
  "timeout", "retries", "retry_errors", "memory", "priority", "on", "slots", "name", "depfuncs",
  "forget", "callback", "callbackargs",
} do
  passed_on[k] = true
end
local own = {
  ordered = "boolean",
  spread = "boolean",
  chunk = true,
  buffer = true,
  on_error = true,
  progress = "boolean",
}

-- A number without fraction as an integer; all else as it is.
local function whole(v)
  return math.type(v) == "float" and math.tointeger(v) or v
end

-- Checked options of map or imap, with what submit is to know apart.
local function read_options(name, options)
  local o, spec = {}, {}
  if options ~= nil and type(options) ~= "table" then
    bad(4, 3, name, "options must be a table, got %s", type(options))
  end
  for k, v in pairs(options or {}) do
    if passed_on[k] then
      spec[k] = v
    elseif not own[k] then
      bad(4, 3, name, "unknown option '%s'", tostring(k))
    elseif own[k] ~= true and type(v) ~= own[k] then
      bad(4, 3, name, "%s must be a %s, got %s", k, own[k], type(v))
    else
      o[k] = v
    end
  end
  o.chunk, o.buffer = whole(o.chunk), whole(o.buffer)
  local c = o.chunk
  if c ~= nil and c ~= "auto" and (math.type(c) ~= "integer" or c < 1) then
    bad(4, 3, name, "chunk must be 'auto' or an integer >= 1, got %s", tostring(c))
  elseif o.buffer ~= nil and (math.type(o.buffer) ~= "integer" or o.buffer < 1) then
    bad(4, 3, name, "buffer must be an integer >= 1, got %s", tostring(o.buffer))
  elseif o.on_error ~= nil and o.on_error ~= "raise" and o.on_error ~= "keep" then
    bad(4, 3, name, "on_error must be 'raise' or 'keep', got %s", tostring(o.on_error))
  end
  o.chunk = math.type(c) == "integer" and math.min(c, CHUNK_MAX) or nil
  if spec.timeout or spec.retry_errors then
    o.chunk = 1 -- they count for each item
  end
  o.keep = o.on_error == "keep"
  return o, spec
end

-- Is it a pp.range as it was made?
local function is_range(source)
  if getmetatable(source) ~= range.Range then
    return false
  end
  for k in next, source do
    if k ~= "first" and k ~= "step" and k ~= "n" then
      return false
    end
  end
  return math.type(source.first) and math.type(source.step) and true
end

-- What a run of items is: where they come from, what is under way.
local Run = {}
Run.__index = Run

local function new_run(server, name, f, source, options, all)
  if core.closed(server) then
    error("attempt to use a closed server", 3)
  end
  if type(f) ~= "function" then
    bad(3, 1, name, "func must be a function, got %s", type(f))
  elseif type(source) ~= "table" and (type(source) ~= "function" or not all) then
    bad(3, 2, name, "%s must be a table%s, got %s", all and "source" or "list",
      all and " or a function" or "", type(source))
  end
  local o, spec = read_options(name, options)
  spec[1] = f
  local keep = o.keep and not spec.retry_errors
  local n = whole(type(source) == "table" and rawget(source, "n"))
  if n and (math.type(n) ~= "integer" or n < 0) then
    bad(3, 2, name, "its n must be an integer >= 0, got %s", tostring(n))
  end
  local parcel, timed, retries = core.parcel(server, name, spec)
  if timed or retries == 0 then
    o.chunk = 1 -- these too are for each item
  end
  local run = setmetatable({
    server = server,
    parcel = parcel,
    group = spec.group,
    flags = (o.spread and "s" or "") .. (keep and "k" or "")
      .. ((all or spec.callback) and "a" or ""),
    callback = spec.callback,
    callbackargs = spec.callbackargs,
    keep = o.keep,
    ordered = o.ordered ~= false,
    buffer = o.buffer,
    fixed = o.chunk,
    chunk = o.chunk or 1,
    slots = math.max(1, math.tointeger(spec.slots) or 1),
    at = 0, -- items sent
    out = {}, -- chunks under way, oldest first
    low = 1, -- the first of them
    high = 0,
    waiting = 0, -- items sent and not yet handed out
    took = 0, -- the last chunks, seconds,
    taken = 0, -- and their items
    seen = 0, -- most items of a chunk that is over
  }, Run)
  if type(source) == "function" then
    run.pull = source
    run.items = {}
    run.lists = {} -- that can be filled again
  else
    run.items = source
    run.n = n or #source
    if is_range(source) then
      run.flags = run.flags .. "r"
    end
  end
  run.patience = PATIENCE
  run:count_workers()
  run.asked = o.progress == true
  run.expected_n = run.n
  run.watched = core.watch(run.asked, run.n)
  return run
end

-- How many chunks can run at a time, and how far away: hosts come and go.
function Run:count_workers()
  local n, way = core.workers(self.server)
  self.workers = math.max(1, n // self.slots)
  self.way = way
end

-- So many more chunks for each worker as end while word of one is on its way.
function Run:on_the_way()
  local time = math.max((self.each or 0) * self.chunk, self.fixed and 1e-5 or CHUNK_TIME)
  return math.min(math.ceil(2 * self.way / time), WAY_MOST)
end

-- The progress line is not to expect more items.
function Run:unwatch()
  if self.watched then
    self.watched = false
    core.unwatch(self.asked, self.expected_n and self.expected_n - self.at)
  end
end

-- Items ready to be sent, at most `want`: their first index in self.items and
-- their number.
function Run:take(want)
  if not self.pull then
    local left = self.n - self.at
    if not self.fixed then
      want = math.min(want, (left - 1) // (2 * self.workers) + 1)
    end
    return self.at + 1, math.min(want, left)
  end
  local items, n, pull = table.remove(self.lists) or core.list(want), 0, self.pull
  while n < want do
    local item = pull()
    if item == nil then
      self.pull, self.n = function() end, self.at + n
      break
    end
    n = n + 1
    items[n] = item
  end
  self.items = items
  return 1, n
end

function Run:chunk_of(items, first, n, index)
  return core.chunk(self.server, self.parcel, items, first, n, self.flags, self.group, index)
end

-- The average of something per item, after one more.
local function averaged(was, is)
  return was and was + (is - was) / 2 or is
end

-- Send items; false when one of them cannot travel.
function Run:send(first, n)
  local job, why = self:chunk_of(self.items, first, n, self.at + 1)
  if job then
    self.sent = averaged(self.sent, why / n) -- its bytes
  else
    local k, text = why:match("^(%d+):(.*)$")
    local place = self.at + (k and k + 1 or 1)
    self.refusal = (text or why):gsub("item 1", function()
      return "item " .. math.tointeger(place)
    end, 1)
    if not k then -- its number counts within the chunk
      self.refusal = why:gsub("item (%d+)", function(i)
        return "item " .. math.tointeger(self.at + i)
      end, 1)
    end
    return false
  end
  self.high = self.high + 1
  self.out[self.high] = {
    job = job, at = self.at, n = n, items = self.items, first = first,
    time = n * (self.each or 0), -- it is likely to take, seconds
    again = self.pull and why <= CHUNK_BYTES, -- a list of ours that is not worth letting go
  }
  self.at = self.at + n
  if self.watched and self.expected_n then
    core.watched(n)
  end
  self.waiting = self.waiting + n
  return true
end

-- Is it no item's own error? The worker was lost, or there was none yet: what
-- the chunk waited for has failed.
local function may_split(err)
  return err.kind == "lost" or (err.cause ~= nil and err.worker == nil)
end

-- The worker of a chunk was lost, or something an item waited for has failed:
-- its items go on one by one, in its place.
function Run:split(c)
  local out, new = self.out, {}
  for i = self.low, self.high do
    if out[i] ~= c then
      new[#new + 1] = out[i]
    end
  end
  local place = 1
  while new[place] and new[place].at < c.at do
    place = place + 1
  end
  for k = 0, c.n - 1 do
    local job = self:chunk_of(c.items, c.first + k, 1, c.at + k + 1)
    local one = { job = job, at = c.at + k, n = 1, items = c.items, first = c.first + k }
    table.insert(new, place + k, one)
  end
  self.out, self.low, self.high = new, 1, #new
end

-- Items of a chunk from the k-th on, counted from 0, go out anew, in smaller ones.
function Run:share(c, k)
  local out, place = self.out, self.low
  while out[place] ~= c do
    place = place + 1
  end
  local n = c.n
  c.n, c.again = k, false
  while k < n do
    local some = (n - k + 2 * self.workers - 1) // (2 * self.workers)
    local job, why = self:chunk_of(c.items, c.first + k, some, c.at + k + 1)
    if not job then -- the script has changed the list meanwhile
      self.refusal = self.refusal or why
      return
    end
    place = place + 1
    table.move(out, place, self.high, place + 1)
    self.high = self.high + 1
    out[place] = {
      job = job, at = c.at + k, n = some, items = c.items, first = c.first + k,
      time = some * (self.each or 0),
    }
    k = k + some
  end
end

-- How many results are in values[1 .. n], as give_out has them. An error that is
-- the last of them stands for all that would follow.
local function results_in(values, n, most, keep)
  if values[1] == -2 then
    return n - 1
  end
  local pos, count = 1, 0
  while pos <= n do
    local some = values[pos]
    if math.type(some) ~= "integer" or some < -1 then
      return 0
    end
    count = count + 1
    if some == -1 and not keep then
      return most
    end
    pos = pos + 1 + (some == -1 and 1 or some)
  end
  return count
end

-- The chunk has given n results: those it owes, having been cut short, go out anew.
function Run:settle(c, n)
  if n >= c.n then
    return
  elseif n < 1 then
    error("malformed results of a chunk", 0)
  end
  self:share(c, n)
end

-- Take from chunks what they have not begun.
function Run:relieve()
  local i = self.low
  while i <= self.high do
    local c = self.out[i]
    if c.n > 1 and not c.cut then
      -- Not one that takes the time it was expected to take, on a busy machine.
      local kept = core.cut(c.job, c.n, 2 * c.time)
      c.cut = kept ~= nil
      if kept and kept < c.n then
        self:share(c, kept)
      end
    end
    i = i + 1
  end
end

-- What is to be done after a look at all chunks that are not over: `busy` of them,
-- some of which can be cut short. How long to wait until the next look, if none
-- ends before: nil for ever.
function Run:even_out(busy, cuttable, waited)
  if not cuttable then
    return nil
  elseif busy < self.workers and waited then
    self:relieve()
  end
  -- Ever longer, where it is to no avail.
  self.patience = waited and math.min(self.patience * 2, 16 * PATIENCE) or PATIENCE
  return self.patience
end

-- Keep the workers supplied.
function Run:fill()
  self:count_workers()
  local most = ((self.ordered and 8 or 1) * AHEAD + self:on_the_way()) * self.workers
  while self.high - self.low + 1 < most and not self.refusal do
    local want = self.chunk
    local bytes = self.waiting * (16 + (self.sent or 0) + (self.received or 0))
    if bytes > AHEAD_BYTES * self.workers and self.high - self.low + 1 >= 2 * self.workers then
      return
    end
    if self.buffer then
      local share = math.max(1, self.buffer // (2 * self.workers))
      want = math.min(want, self.buffer - self.waiting, share)
    elseif self.waiting >= most * self.chunk + 64 then
      want = 0
    end
    if want < 1 then
      return
    end
    local first, n = self:take(want)
    if n < 1 then
      return
    end
    self:send(first, n)
  end
end

-- A chunk is over: learn from it how long items take and how large they are. A few
-- slow ones among many are what makes time, so it is summed up over some chunks; and
-- that there are none is known only of as many items as were seen together.
function Run:learn(c, bytes)
  self.received = averaged(self.received, bytes / c.n)
  self.took = self.took * MEMORY + c.job.time.run
  self.taken = self.taken * MEMORY + c.n
  self.each = self.took / self.taken
  self.seen = math.max(self.seen, c.n)
  if self.fixed then
    return
  end
  local n = math.min(self.seen * 8, CHUNK_MAX, CHUNK_TIME / self.each,
    CHUNK_BYTES / math.max(self.sent, self.received))
  self.chunk = math.max(1, math.floor(n))
end

-- The place in self.out of a chunk that is over: the oldest if they are to be
-- in order, else any. Waits; nil when none is under way.
function Run:next_over()
  local out = self.out
  if self.low > self.high then
    return nil
  end
  if self.ordered and core.over(out[self.low].job) then
    return self.low
  end
  local seen, waited = 0, false
  while true do
    local busy, cuttable = 0, false
    for i = self.low, self.high do
      local c = out[i]
      if not core.over(c.job) then
        busy = busy + 1
        cuttable = cuttable or (c.n > 1 and not c.cut)
      elseif not self.ordered or i == self.low then
        return i
      end
    end
    local time = self:even_out(busy, cuttable, waited)
    if self.ordered then
      waited = not out[self.low].job:wait(time)
    else
      if busy >= self.workers then
        time = nil -- until one ends nobody has time
      end
      local now = core.ended(self.server, seen, time)
      waited, seen = not now, now or seen
    end
  end
end

function Run:remove(i)
  local c = self.out[i]
  for k = i, self.low + 1, -1 do
    self.out[k] = self.out[k - 1]
  end
  self.out[self.low] = nil
  self.low = self.low + 1
  if c.again then
    self.lists[#self.lists + 1] = c.items
  end
  return c
end

function Run:stop()
  self:unwatch()
  for i = self.low, self.high do
    self.out[i].job:cancel()
  end
  self.low, self.high = 1, 0
  self.pull, self.n = nil, self.at
end

-- Run the callback for an item, if there is one: with its results, or nil and
-- its error.
function Run:call_back(...)
  if self.callback then
    core.call_back(self.callback, self.callbackargs, ...)
  end
end

-- Give out a chunk of map's: all results of each item stand in values, behind
-- their number; -1 is an error. Or each has one, behind the number -2 for all.
function Run:give_out(c, values, results)
  local pos = 1
  if values[1] == -2 then
    for k = 1, c.n do
      local value = values[k + 1]
      results[c.at + k] = value
      self:call_back(value)
    end
    return
  end
  for k = c.at + 1, c.at + c.n do
    local count, from = values[pos], pos + 1
    if count == -1 then
      pos = from + 1
      local err = values[from]
      self:call_back(nil, err)
      if not self.keep then
        error(err, 0)
      end
      results[k] = err
    else
      pos = from + count
      results[k] = count > 0 and values[from] or nil
      self:call_back(table.unpack(values, from, pos - 1))
    end
  end
end

--- Apply a function to each item of a list in the workers, and wait for all.
-- @function Server:map
-- @func f called with an item; its first result counts
-- @tparam table list a list or a `pp.range`; `list.n`, else `#list` items
-- @tparam[opt] table options see below
-- @treturn table results in the order of the items, `n` of them
-- @raise the first error, unless `on_error` is "keep"

--- Options of map and imap.
-- @table Server.map_options
-- @tfield[opt] boolean ordered whether imap hands out results in the order of
--   the items; true. map always does
-- @tfield[opt] integer|string chunk items that travel together, or "auto": by
--   the time items take. 1 where `timeout`, `retry_errors` or `retries = 0` are
--   to hold for each
-- @tfield[opt] integer buffer most items imap has taken from the source and not
--   yet handed out. Default: as many as keep the workers busy, which is up to
--   24 chunks for each worker (3 when not `ordered`) and 64 items; when items
--   take microseconds a chunk has up to 16,000, of up to 64 KB in all (or one
--   item). Items and results of more than 2 MB for each worker are not under
--   way, unless two chunks for each are that large. Set it where the source
--   has side effects
-- @tfield[opt] string on_error "raise": the first failure is raised and stops
--   the rest; "keep": the error stands in the item's place
-- @tfield[opt] boolean spread items are lists of arguments
-- @tfield[opt] number timeout seconds for each item
-- @tfield[opt] function callback called for each item when its results have come, in map
--   as they come, in imap before they are handed out:
--   `callback(a1, ..., an, results...)`, or `callback(a1, ..., an, nil, err)`
-- @tfield[opt] table callbackargs as in submit
-- @tfield[opt] table deps as in submit; `depfuncs` is the same
-- @tfield[opt] table modules as in submit
-- @tfield[opt] table globals as in submit
-- @tfield[opt] string group as in submit
-- @tfield[opt] integer retries as in submit
-- @tfield[opt] integer retry_errors as in submit, for each item
-- @tfield[opt] integer memory as in submit
-- @tfield[opt] number priority as in submit
-- @tfield[opt] string|table on as in submit
-- @tfield[opt] integer slots as in submit
-- @tfield[opt] boolean progress show a line of progress on stderr for this call,
--   if stderr is a terminal; `--progress` does for all
-- @tfield[opt] string name as in submit, of all items
-- @tfield[opt] boolean forget nothing is kept of items in any case
function iterate.map(server, f, list, options)
  local run = new_run(server, "map", f, list, options, false)
  local results = core.list(run.n) -- they come in any order
  results.n = run.n
  local guard <close> = setmetatable({}, { -- luacheck: ignore
    __close = function()
      run:stop()
    end,
  })
  run.ordered = false
  while true do
    run:fill()
    if run.refusal then
      error(run.refusal, 2)
    end
    local i = run:next_over()
    if not i then
      return results
    end
    local c = run.out[i]
    local values = run.callback and {} or results
    local n, bytes = core.collect(c.job, values, run.callback and 1 or c.at + 1,
      not run.callback and c.n or nil)
    local err = not n and bytes
    if err and c.n > 1 and may_split(err) then
      run:split(c)
      goto continue
    end
    if n then
      run:settle(c, run.callback and results_in(values, n, c.n, run.keep) or n)
    end
    run:remove(i)
    run.waiting = run.waiting - c.n
    if n then
      run:learn(c, bytes)
      if run.callback then
        run:give_out(c, values, results)
      end
    else
      for k = c.at + 1, c.at + c.n do
        run:call_back(nil, err)
        if not run.keep then
          error(err, 0)
        end
        results[k] = err
      end
    end
    ::continue::
  end
end

-- Hand out what imap has: the state of one loop.
local Stream = {}
Stream.__index = Stream

-- The next chunk's values are here.
function Stream:begin(c, values)
  self.values, self.pos, self.index, self.left = values, 1, c.at, c.n
  self.one_each = values[1] == -2
  if not self.one_each then
    return
  end
  self.pos = 2
  if not self.run.callback then
    core.feed(self.steps, values, 2, c.n, c.at)
    self.fed, self.left = c.n, 0
  end
end

-- The next item's index and its results, or nil.
function Stream:step()
  local run = self.run
  core.callbacks()
  if core.closed(run.server) then
    error("attempt to use a closed server", 3)
  end
  while self.left == 0 do
    local i, value = core.fed(self.steps)
    if i then
      return i, value
    end
    run.waiting = run.waiting - self.fed
    self.fed = 0
    run:fill()
    if run.refusal and run.low > run.high then
      error(run.refusal, 3)
    end
    i = run:next_over()
    if not i then
      run:unwatch()
      return nil
    end
    local c = run.out[i]
    -- A table of one each can serve again: nobody else has it.
    local values = self.one_each and self.values or core.list(c.n + 1)
    local n, bytes = core.collect(c.job, values, 1)
    local err = not n and bytes
    if err and c.n > 1 and may_split(err) then
      run:split(c)
      goto continue
    end
    if n then
      run:settle(c, results_in(values, n, c.n, run.keep))
    end
    run:remove(i)
    if n then
      run:learn(c, bytes)
    else
      for k = 1, c.n do -- all of them
        values[2 * k - 1], values[2 * k] = -1, err
      end
    end
    self:begin(c, values)
    ::continue::
  end
  run.waiting = run.waiting - 1
  self.left = self.left - 1
  self.index = self.index + 1
  if self.one_each then
    local value = self.values[self.pos]
    self.pos = self.pos + 1
    run:call_back(value)
    return self.index, value
  end
  local count = self.values[self.pos]
  local from = self.pos + 1
  if count == -1 then
    self.pos = from + 1
    local err = self.values[from]
    if not run.keep then
      run:stop()
      self.left = 0
    end
    run:call_back(nil, err)
    if not run.keep then
      error(err, 0)
    end
    return self.index, err
  end
  self.pos = from + count
  run:call_back(table.unpack(self.values, from, from + count - 1))
  return self.index, table.unpack(self.values, from, from + count - 1)
end

--- Apply a function lazily: `for i, r in server:imap(f, source) do`.
-- Leaving the loop cancels what is under way. Each step is a waiting call.
-- @function Server:imap
-- @func f called with an item; all its results come after `i`
-- @tparam table|func source a list, a `pp.range`, or an iterator function whose
--   first value is the item, possibly endless
-- @tparam[opt] table options see below
-- @return what a generic for takes: an iterator and a value to be closed
function iterate.imap(server, f, source, options)
  local run = new_run(server, "imap", f, source, options, true)
  local stream = setmetatable({ run = run, left = 0, fed = 0, steps = core.steps() }, Stream)
  local closing = setmetatable({}, {
    __close = function()
      run:stop()
    end,
    __gc = function()
      run:unwatch()
    end,
  })
  return core.stepper(stream.steps, server, Stream.step, stream), nil, nil, closing
end

-- Raise unless jobs is a list of jobs, at the caller of the caller.
local function check_jobs(name, jobs)
  for i = 1, #jobs do
    if not core.is_job(jobs[i]) then
      bad(3, 1, name, "jobs must be a list of jobs")
    end
  end
end

local function check_open(server)
  if core.closed(server) then
    error("attempt to use a closed server", 3)
  end
end

--- Iterate over jobs as they finish: `for job in server:completed() do`.
-- @function Server:completed
-- @tparam[opt] table jobs a list; without it, all jobs not yet taken or asked
-- @number[opt] timeout seconds to wait for each; the loop ends when they pass
-- @return an iterator over jobs
function iterate.completed(server, jobs, timeout)
  check_open(server)
  if type(jobs) == "number" and timeout == nil then
    jobs, timeout = nil, jobs
  end
  if timeout ~= nil and (type(timeout) ~= "number" or timeout < 0 or timeout ~= timeout) then
    bad(2, jobs and 2 or 1, "completed", "timeout must be a number >= 0, got %s", tostring(timeout))
  end
  if jobs == nil then
    return function()
      if core.closed(server) then
        error("attempt to use a closed server", 2)
      end
      return server:pop(timeout)
    end
  end
  if type(jobs) ~= "table" then
    bad(2, 1, "completed", "jobs must be a table, got %s", type(jobs))
  end
  check_jobs("completed", jobs)
  local left = table.move(jobs, 1, #jobs, 1, {})
  local ready, at = {}, 0
  local seen = 0
  return function()
    local deadline = timeout and core.time() + timeout
    core.callbacks()
    if core.closed(server) then
      error("attempt to use a closed server", 2)
    end
    while at >= #ready do
      if #left == 0 then
        return nil
      end
      local rest
      ready, at, rest = {}, 0, {}
      for _, job in ipairs(left) do
        local to = core.over(job) and ready or rest
        to[#to + 1] = job
      end
      left = rest
      if #ready == 0 then
        local now = core.ended(server, seen, deadline and math.max(0, deadline - core.time()))
        if not now then
          return nil
        end
        seen = now
      end
    end
    at = at + 1
    core.take(ready[at])
    return ready[at]
  end
end

--- Take the jobs that finish within a time.
-- @function Server:drain
-- @number[opt] timeout seconds in all; none: until nothing is pending
-- @treturn table a list of jobs
function iterate.drain(server, timeout)
  check_open(server)
  if timeout ~= nil and (type(timeout) ~= "number" or timeout < 0 or timeout ~= timeout) then
    bad(2, 1, "drain", "timeout must be a number >= 0, got %s", tostring(timeout))
  end
  local deadline = timeout and core.time() + timeout
  local list = {}
  while true do
    local job = server:pop(deadline and math.max(0, deadline - core.time()))
    if not job then
      return list
    end
    list[#list + 1] = job
  end
end

--- Wait for the first job to succeed, and cancel the others.
-- @function Server:first
-- @tparam table jobs a list of jobs
-- @return its results
-- @raise the last error, when all fail
function iterate.first(server, jobs)
  if type(jobs) ~= "table" or #jobs == 0 then
    bad(2, 1, "first", "jobs must be a list of jobs")
  end
  check_jobs("first", jobs)
  local last
  for job in iterate.completed(server, jobs) do
    local r = table.pack(job:pcall())
    if r[1] then
      for _, other in ipairs(jobs) do
        if other ~= job then
          other:cancel()
          core.take(other) -- nobody will ask how it went
        end
      end
      return table.unpack(r, 2, r.n)
    end
    last = r[2]
  end
  error(last, 0)
end

return iterate
