-- SPDX-License-Identifier: MIT
--- --map, --filter and --reduce: Lua over lines.
--
-- Input is cut into blocks of lines; a job in a worker runs the expressions
-- over the lines of one (pp.lines), and what they gave is written here, in
-- order. Blocks begin small and grow until one takes a few milliseconds.
local core = require "pp.core"
local input = require "pp.shell.map_input"
local lines = require "pp.lines"
local pp = require "pp"
local usage = require("pp.shell").usage

local map = {}

local BLOCK_MOST = 1 << 19
local BLOCK_TIME = 0.004 -- seconds in a worker
local LINE_MOST = 64 << 20
local LOOK_AGAIN = 0.2 -- seconds: hosts may have come

local shown = input.shown

-- Say something on stderr.
local function complain(text)
  io.stderr:write("ppsh: ", text, "\n")
end

-- "64K" as a number of bytes, or nil.
local function size_of(text)
  local n, unit = text:match "^(%d+)([KMGkmg]?)$"
  n = math.tointeger(tonumber(n))
  local shift = ({ [""] = 0, k = 10, m = 20, g = 30 })[(unit or ""):lower()]
  return n and n > 0 and n < 1 << 33 and n << shift or nil
end

-- What an expression may name, and the letter that pp.lines knows it by.
local variables = { { "line", "l" }, { "i", "i" }, { "file", "n" }, { "f", "f" } }

-- Compile an expression, or statements with return, to be called with what has
-- these names: a function and the globals it would use without. Or nil and why
-- it cannot be compiled.
local function compile(name, text, parameters)
  local chunk = "=--" .. name
  local f, message = load("return " .. text, chunk, "t")
  local prefix = "return "
  if not f then
    local g, other = load(text, chunk, "t")
    if not g then
      return nil, text:find "%f[%w_]return%f[^%w_]" and other or message
    end
    f, prefix = g, ""
  end
  local used = core.lines.names(f)
  local names = table.concat(parameters, ",")
  -- A function of fixed arguments is called faster than a chunk.
  local made = load(("return function(%s)%s%s\nend"):format(names, " " .. prefix, text), chunk, "t")
  if made then
    return made(), used
  end
  if #parameters > 0 then -- it names its arguments as `...`
    prefix = "local " .. names .. "=...;" .. prefix
  end
  return assert(load(prefix .. text, chunk, "t")), used
end

-- The text that lines are to have in them, if that is all a filter says; it is
-- then looked for in whole blocks. Nil: it says something else.
local function needle_of(text)
  local open, quote, needle, rest =
    text:match "^%s*line%s*:%s*find%s*(%(?)%s*([\"'])([^\"'\\\n]+)%2%s*(.-)%s*$"
  if not quote or debug.getinfo(string.find, "S").what ~= "C" then
    return nil
  elseif open == "(" and rest:find "^,%s*1%s*,%s*true%s*%)$" then
    return needle
  elseif (open == "(" and rest == ")" or open == "" and rest == "") and
    not needle:find "[%^%$%(%)%%%.%[%]%*%+%-%?]" then
    return needle
  end
end

-- The separator that -F gives; nil: blanks. Or false and what is wrong.
local function separator(text)
  if not text then
    return nil
  elseif text == "\\t" then
    return "\t"
  elseif text == "" then
    return false, "is empty"
  elseif #text > 1 then
    local ok, first = pcall(string.find, "", text)
    if not ok then
      return false, (first:gsub("^.-:%d+: ", ""))
    elseif text:sub(1, 1) == "^" then
      return false, "a pattern that is anchored separates nothing"
    elseif first then
      return false, "the pattern matches nothing at all"
    end
  end
  return text
end

-- Options as they are meant, or nil after a message.
local function settle(options)
  local s = { max = LINE_MOST }
  for option, field in pairs { block = "block", ["max-line"] = "max" } do
    if options[option] then
      s[field] = size_of(options[option])
      if not s[field] then
        return nil, usage("bad value for --%s: '%s' (bytes, or with K, M or G)", option,
          options[option])
      end
    end
  end
  local sep, why = separator(options.fields)
  if sep == false then
    return nil, usage("bad value for --fields: '%s' (%s)", options.fields, why)
  end
  s.separator = sep
  local named = {}
  local needle = options.filter and needle_of(options.filter)
  for _, name in ipairs { "filter", "map" } do
    if options[name] then
      local f, used = compile(name, options[name], {})
      if not f then
        return nil, usage("%s", used)
      end
      for global in pairs(name == "filter" and needle and {} or used) do
        named[global] = true
      end
    end
  end
  local parameters, letters = {}, ""
  for _, v in ipairs(variables) do
    -- A pattern is looked for in the line.
    if named[v[1]] or (v[1] == "line" and named.f and sep and #sep > 1) then
      parameters[#parameters + 1] = v[1]
      letters = letters .. v[2]
    end
  end
  s.letters, s.count = letters, named.i
  for _, name in ipairs { "filter", "map", "reduce" } do
    if options[name] then
      local names = name == "reduce" and { "a", "b" } or parameters
      local f, message = compile(name, options[name], names)
      if not f then
        return nil, usage("%s", message)
      end
      s[name] = f
    end
  end
  s.filter = needle or s.filter
  return s
end

-- The function of the jobs.
local function work(s)
  local max, sep, letters, filter, mapping, reduce =
    s.max, s.separator, s.letters, s.filter, s.map, s.reduce
  return function(list)
    return lines.run(list, max, sep, letters, filter, mapping, reduce)
  end
end

-- A line of the input as a message shows it.
local function quoted(text, cut)
  if cut then -- not in the midst of a character
    text = text:gsub("[\xC0-\xFF][\x80-\xBF]*$", "")
  end
  local odd = utf8.len(text) and "[%c\"\\]" or "[%c\"\\\x80-\xFF]"
  text = text:gsub(odd, function(c)
    return (c == '"' or c == "\\") and "\\" .. c or ("\\x%02X"):format(c:byte())
  end)
  return '"' .. text .. '"' .. (cut and "..." or "")
end

-- --- the run ----------------------------------------------------------------

local Run = {}
Run.__index = Run

local function new_run(s, files)
  local server = pp.Server { output = "job", name = "map" }
  local self = setmetatable({
    s = s, server = server, func = work(s), status = 0,
    queue = {}, first = 1, last = 0, -- blocks under way, in order
    size = s.block or 1,
  }, Run)
  self.remote = #core.hosts_given() > 0
  self:count_workers()
  self.input = input.open(files, {
    max = s.max, count = s.count, fixed = s.block ~= nil,
    warn = function(text)
      self.status = 1
      complain(text)
    end,
  })
  return self
end

-- How many workers there are, here and elsewhere.
function Run:count_workers()
  local here, there = 0, 0
  for name, n in pairs(self.server:get_active_nodes()) do
    if name == "local" then
      here = n
    else
      there = there + n
    end
  end
  if here == 0 and not self.remote then
    here = 1 -- jobs run in this process
  end
  self.here, self.there = here, there
end

-- How many blocks are not done, of those for workers here, and of the others.
function Run:unfinished()
  if not self.remote then
    return self.server:pending(), 0
  end
  local here, there = 0, 0
  for k = self.first, self.last do
    local block = self.queue[k]
    if block.job and not core.over(block.job) then
      if block.far then
        there = there + 1
      else
        here = here + 1
      end
    end
  end
  return here, there
end

-- Give a block to a job, or the end. far: it is meant for other machines, though
-- any worker may take it, for these may be lost.
function Run:submit(block, far)
  local on
  if block.at and (far or self.here == 0) then
    local why
    block, why = self.input:read_here(block)
    if not block then
      error({ message = why }, 0)
    end
  elseif block.at and self.remote then
    on = "local"
  end
  self.last = self.last + 1
  self.queue[self.last] = block
  if block.fail then
    self.ended = true
  else
    block.far = far
    block.job = self.server:submit { func = self.func, args = { block.list }, on = on }
  end
end

-- Keep the workers supplied. Whether that waits for input.
function Run:fill()
  local workers = self.here + self.there
  local most = 8 * math.max(workers, 2)
  while not self.ended and self.last - self.first < most do
    local here, there = self:unfinished()
    local wanted = here < 2 * self.here
    local far = not wanted and there < 4 * self.there
    if self.remote and workers == 0 then -- hosts have yet to connect
      wanted = here + there < 4
    end
    if not wanted and not far then
      return false
    end
    local block, why = self.input:take(self:next_size(workers),
      self.wait_for_input and "block" or here + there < workers and "some" or "full",
      self.here > 0)
    self.wait_for_input = false
    if why == "wait" then
      return true
    elseif not block then
      self.ended = true
    else
      self:submit(block, far)
    end
  end
  return false
end

-- Bytes of the next block.
function Run:next_size(workers)
  local left = not self.s.block and self.input:left()
  if not left then
    return self.size
  end
  return math.min(self.size, math.max(left // (2 * math.max(workers, 1)), 65536))
end

-- A block is done: learn from it how long they are to be.
function Run:learn(block, job)
  if self.s.block or block.bytes == 0 then
    return
  end
  local each = job.time.run / block.bytes
  self.each = self.each and (self.each * 3 + each) / 4 or each
  local size = math.min(8 * block.bytes, BLOCK_TIME / self.each, BLOCK_MOST)
  if size > self.size or self.size > BLOCK_TIME / self.each then
    self.size = math.max(1, math.floor(size))
  end
end

-- Write to stdout; raises what cannot be written.
local function written(ok, why)
  if not ok then
    error({ message = "cannot write to stdout: " .. why }, 0)
  end
end

-- A block has failed: raise how.
local function fail(block, e)
  local file = block.files[e.segment or 1] or e.file
  local where = ("%s:%d: "):format(shown(file.name), file.lines + (e.line or 0))
  error({ message = where .. e.message .. (e.text and " in " .. quoted(e.text, e.cut) or "") }, 0)
end

-- Another value of the reduction.
function Run:fold(value)
  if value == nil then
    return
  elseif self.value == nil then
    self.value = value
    return
  end
  local ok, result = pcall(self.s.reduce, self.value, value)
  if not ok then
    error({ message = tostring(result) }, 0)
  end
  self.value = result
end

-- What the code printed by itself comes before what it gave.
local function pass_on(job)
  local output, errors = job.output, job.errors
  if output and output ~= "" then
    written(core.lines.write(output:sub(-1) == "\n" and output or output .. "\n"))
  end
  if errors and errors ~= "" then
    io.stderr:write(errors, errors:sub(-1) == "\n" and "" or "\n")
  end
end

-- The oldest block is done: write what it gave.
function Run:emit(block)
  local job = block.job
  if not job then
    local e = block.fail
    error({ message = ("%s:%d: %s"):format(shown(e.file.name), e.line, e.message) }, 0)
  end
  self:learn(block, job)
  pass_on(job)
  local ok, n, bytes = core.lines.put(job)
  if bytes then
    block.files[1].lines = block.files[1].lines + n
    return
  elseif n then
    written(ok, n)
  end
  local text, e, value
  ok, text, n, e, value = job:pcall()
  if not ok then
    fail(block, { message = text.message, line = 1 })
  end
  if text ~= "" then
    written(core.lines.write(text))
  end
  for _, f in ipairs(e and e.failed or {}) do
    self.status = 1
    complain(("cannot read '%s': %s"):format(shown(block.files[f.segment].name), f.message))
  end
  if e and e.message then
    fail(block, e)
  end
  block.files[1].lines = block.files[1].lines + n
  self:fold(value)
end

function Run:loop()
  while true do
    local waits = self:fill()
    local block = self.queue[self.first]
    if not block then
      if self.ended then
        return
      end
      self.wait_for_input = waits
    elseif not block.job or core.over(block.job) then
      self:emit(block)
      self.input:done(block)
      self.queue[self.first] = nil
      self.first = self.first + 1
      if self.remote then
        self:count_workers()
      end
    else
      core.lines.wait(block.job, waits and self.input:waits_for() or nil,
        self.remote and LOOK_AGAIN or nil)
      if self.remote then
        self:count_workers()
      end
    end
  end
end

-- Print a value as a result of --map is.
local function print_value(value)
  if value ~= nil then
    written(core.lines.write(tostring(value) .. "\n"))
  end
end

--- Run --map, --filter or --reduce.
-- @tparam table options of the command line
-- @tparam {string,...} args files; none: stdin
-- @treturn integer the exit status
function map.main(options, args)
  local s, status = settle(options)
  if not s then
    return status
  end
  local run = new_run(s, #args > 0 and args or { "-" })
  local ok, e = pcall(function()
    run:loop()
    print_value(run.value)
  end)
  if not ok then
    if type(e) == "table" and e.message then
      run.status = 1
      complain(e.message)
    elseif type(e) == "string" and e:find("interrupted!", 1, true) then
      run.status = 130 -- as a filter does, without a word
    else
      error(e, 0)
    end
    for k = run.first, run.last do
      local job = run.queue[k] and run.queue[k].job
      if job then
        job:cancel()
        core.take(job)
      end
    end
  end
  return run.status
end

return map
