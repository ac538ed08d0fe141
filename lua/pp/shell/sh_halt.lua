-- SPDX-License-Identifier: MIT
--- When to stop before all is done: --halt never|soon|now,fail|success|done=N[%].
local halt = {}

local whens = { soon = true, now = true }
local whys = { fail = true, success = true, done = true }

local Halt = {}
Halt.__index = Halt

--- Read the value of --halt.
-- @string[opt] text
-- @treturn ?table what `count` is called of; nil: it makes no sense
function halt.read(text)
  local self = setmetatable({ fail = 0, success = 0, done = 0 }, Halt)
  if text == nil or text == "never" then
    return self
  end
  local when, why, n, percent = text:match "^(%a+),(%a+)=(%d+)(%%?)$"
  n = tonumber(n)
  if not whens[when] or not whys[why] or n < 1 or n > 1000000000
    or (percent == "%" and n > 100) then
    return nil
  end
  self.when, self.why, self.n, self.percent = when, why, n, percent == "%"
  return self
end

--- Count a job that has ended.
-- @int status its exit status
-- @int[opt] total how many jobs there are in all, if that is known
-- @treturn ?string "soon" or "now": no more are to be begun, those that run are
-- to end
-- @treturn ?integer the exit status that is for
function Halt:count(status, total)
  local how = status == 0 and "success" or "fail"
  self[how] = self[how] + 1
  self.done = self.done + 1
  if self.stopped or not self.when or (self.why ~= "done" and self.why ~= how) then
    return nil
  end
  local n = self.n
  if self.percent then
    if not total or self[self.why] * 100 < n * total then
      return nil
    end
  elseif self[self.why] < n then
    return nil
  end
  self.stopped = true
  return self.when, self.why == "success" and 0 or status
end

return halt
