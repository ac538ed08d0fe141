-- SPDX-License-Identifier: MIT
--- What is under way: coroutines that wait for jobs.
--
-- Each command with all that belongs to it (files that go there, what it wrote,
-- files that come back) is one function that runs from top to bottom and calls
-- `await` where it waits for a job. Between two steps nothing is lost: who is
-- waited for is found by the job's number.
local core = require "pp.core"

local tasks = {}

local Tasks = {}
Tasks.__index = Tasks

--- None yet.
-- @tparam Server server whose jobs are waited for
function tasks.new(server)
  return setmetatable({ server = server, waiting = {}, count = 0, seen = 0 }, Tasks)
end

-- Go on with one until it waits again or is over.
function Tasks:resume(co, ...)
  local ok, job = coroutine.resume(co, ...)
  if not ok then
    error(debug.traceback(co, tostring(job)), 0)
  elseif job then
    self.waiting[job.id] = co
  else
    self.count = self.count - 1
  end
end

--- Begin one.
-- @func f runs in a coroutine of its own
-- @param ... its arguments
function Tasks:start(f, ...)
  self.count = self.count + 1
  self:resume(coroutine.create(function(...)
    f(...)
  end), ...)
end

--- Wait for a job, in one of them.
-- @tparam Job job
-- @treturn boolean whether it succeeded, then its results or its error
function tasks.await(job)
  if not job.finished then
    coroutine.yield(job)
  end
  return job:pcall()
end

--- Wait until something happens, and see to it.
-- @int[opt] fd may be read: that is something, too
-- @int[opt] low so is that less bytes than this are kept to be fed
-- @treturn boolean can fd be read?
function Tasks:step(fd, low)
  local seen, ready = core.await(fd, self.seen, nil, low)
  self.seen = seen
  while true do
    local job = self.server:pop(0)
    if not job then
      return ready
    end
    local co = self.waiting[job.id]
    if co then
      self.waiting[job.id] = nil
      self:resume(co, job)
    end
  end
end

return tasks
