-- SPDX-License-Identifier: MIT
--- The input of --map and its like, as blocks of lines for jobs.
--
-- A block is a table: `list`, what pp.lines is to be given (segments of four:
-- name, text, false, false, or name, path, where, how many bytes); `files`, a
-- record for each segment; `bytes`; `reader` and `at`, if it is part of a file
-- that somebody else reads. Or it has `fail`, and is the end: what is wrong.
--
-- Plain files are cut without a look at them: a worker reads its part itself.
-- Small blocks, and all of what is no plain file, are read here.
local lines = require("pp.core").lines

local input = {}

-- From here on a part of a file is worth opening it in a worker.
local RANGE_LEAST = 65536

local Input = {}
Input.__index = Input

--- Begin.
-- @tparam {string,...} names of files; "-" is stdin
-- @tparam table options `max` (bytes of a line), `count` (lines are to be
-- numbered), `fixed` (bytes of all blocks are given), `warn` (called with a
-- message for each file that cannot be read)
function input.open(names, options)
  return setmetatable({ names = names, at = 1, before = 0, options = options }, Input)
end

-- The name of a file in messages.
local function shown(name)
  return name == "-" and "(standard input)" or name
end
input.shown = shown

function Input:warn(name, why)
  self.options.warn(("cannot read '%s': %s"):format(shown(name), why))
end

-- Open the next file there is; false: there is none.
function Input:open_next()
  while self.at <= #self.names do
    local name = self.names[self.at]
    self.at = self.at + 1
    local reader, size
    if name ~= "-" or not self.stdin_over then
      reader, size = lines.open(name ~= "-" and name or nil)
    end
    if reader then
      -- A plain file there is given out before its offset says so.
      self.stdin_over = self.stdin_over or name == "-" and size
      self.file = {
        name = name, reader = reader, size = size, lines = 0, given = 0, pending = 0,
        start = size and reader:tell(), where = size and reader:tell(),
        path = size and reader:path(),
      }
      return true
    end
    if size then
      self:warn(name, size)
    end
  end
  return false
end

-- A file has been given out; it stays open while workers read it.
local function leave(file)
  file.over = true
  if file.pending == 0 and file.reader then
    file.reader:close()
    file.reader = nil
  end
end

--- A block is done with.
function Input.done(_, block)
  for _, file in ipairs(block.files) do
    file.pending = file.pending - 1
    if file.over then
      leave(file)
    end
  end
end

function Input:block(file, bytes, ...)
  file.pending = file.pending + 1
  return { list = { before = self.before, file.name, ... }, files = { file }, bytes = bytes }
end

-- The next part of the plain file at hand; nil at its end.
function Input:part(size)
  local file = self.file
  local left = file.size - file.where
  if left <= 0 then
    file.size = file.reader:size() -- it may have grown
    left = file.size - file.where
    if left <= 0 then
      return nil
    end
  end
  local n = math.min(left, size)
  local block = self:block(file, n, file.path, file.where, n)
  block.reader, block.at = file.reader, file.where
  if self.options.count then
    local count, why = file.reader:count(file.where, n)
    if not count then
      self:warn(file.name, why)
      file.pending = file.pending - 1
      return nil
    end
    self.before = self.before + count
  end
  file.where = file.where + n
  return block
end

-- The next lines of the file at hand, read here; nil and "wait", or nil at its
-- end.
function Input:text(size, how)
  local file = self.file
  local text, n, why = file.reader:read(size, self.options.max, how)
  if text then
    local block = self:block(file, #text, text, false, false)
    self.before = self.before + n
    file.given = file.given + n
    if file.size then
      file.where = file.reader:tell()
    end
    return block
  elseif n == "wait" then
    return nil, n
  elseif n == "long" then
    return { files = {}, fail = {
      file = file, line = file.given + 1,
      message = ("the line is longer than %d bytes (--max-line)"):format(self.options.max),
    } }
  elseif n == "error" then
    self:warn(file.name, why)
  end
  return nil
end

-- Several small files at once, as long as they follow; nil if the next is none.
function Input:small(size)
  local block
  while self.at <= #self.names do
    local name = self.names[self.at]
    local n = name ~= "-" and lines.size(name)
    if not n or n == 0 or n > RANGE_LEAST or (block and block.bytes or 0) + n > size then
      break
    end
    local file = { name = name, lines = 0, given = 0, pending = 1, over = true }
    local count = 0
    if self.options.count then
      local reader, why = lines.open(name)
      count = reader and reader:count(0, n)
      if reader then
        reader:close()
      else
        self:warn(name, why)
      end
    end
    self.at = self.at + 1
    if count then
      block = block or { list = { before = self.before }, files = {}, bytes = 0 }
      local list, k = block.list, #block.list
      list[k + 1], list[k + 2], list[k + 3], list[k + 4] = name, name, 0, n
      block.files[#block.files + 1] = file
      block.bytes = block.bytes + n
      self.before = self.before + count
    end
  end
  return block
end

--- The next block.
-- @number size bytes it is to have
-- @string how of what is no plain file: "full": that many; "some": what is there
-- at once; "block": the same, and sit until there is some
-- @bool here workers of this machine take it, and can read files
-- @treturn ?table the block; nil at the end, or where there is none yet
-- @treturn ?string "wait"
function Input:take(size, how, here)
  local ranges = self.options.fixed or size >= RANGE_LEAST
  while true do
    if not self.file then
      local block = ranges and here and self:small(size)
      if block then
        return block
      elseif not self:open_next() then
        return nil
      end
    end
    local file = self.file
    local block, why
    -- What comes before the beginning of stdin is not looked at.
    if file.ranged or (file.path and ranges and (file.where > file.start or file.start == 0)) then
      file.ranged = true
      block = self:part(math.max(size, 1))
    else
      block, why = self:text(size, how)
    end
    if block or why then
      return block, why
    end
    leave(file)
    self.file = nil
  end
end

--- How many bytes are left of the plain files that are open, at least.
function Input:left()
  local file = self.file
  return file and file.size and file.size - file.where or nil
end

--- What is waited for where there is no block yet.
function Input:waits_for()
  return self.file and self.file.reader
end

--- Read a block that is part of a file, for who cannot.
-- @treturn ?table another block; nil and why that cannot be done
function Input:read_here(block)
  local text, why = block.reader:lines(block.at, block.bytes, self.options.max)
  if not text then
    return nil, why
  end
  local list = { before = block.list.before, block.list[1], text, false, false }
  return { list = list, files = block.files, bytes = block.bytes }
end

return input
