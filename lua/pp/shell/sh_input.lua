-- SPDX-License-Identifier: MIT
--- Where the arguments of commands come from: lines of stdin, lists behind :::,
-- files behind ::::.
--
-- A source is a function: it returns the next combination, a list of words; or
-- nil and "wait" when more has yet to come (the descriptor is `fd`), nil and
-- "end", or nil and a text that says why the next one cannot be had.
local core = require "pp.core"

local input = {}

-- The kernel takes no longer word.
local WORD_MAX = 131071
local CHUNK = 65536

--- Read lines, or what ends in zero bytes.
-- @int fd
-- @string separator "\n" or "\0"
-- @treturn table `next`, a source; `fd`; `fill`, to be called when fd can be read
function input.lines(fd, separator)
  local self = { fd = fd, number = 0 }
  local buffer, at, over, skipping = "", 1, false, false

  function self.fill()
    local more, why = core.read(fd, CHUNK)
    if not more then
      self.failed = why
      over = true
    elseif more == "" then
      over = true
    elseif at > #buffer then
      buffer, at = more, 1
    else
      buffer, at = buffer:sub(at) .. more, 1
    end
  end

  function self.next()
    local stop = buffer:find(separator, at, true)
    local line
    if stop then
      line = buffer:sub(at, stop - 1)
      at = stop + 1
    elseif not over then
      if skipping or #buffer - at + 1 > WORD_MAX then
        skipping, buffer, at = true, "", 1
      end
      return nil, "wait"
    elseif skipping or at <= #buffer then
      line = buffer:sub(at)
      buffer, at = "", 1
    else
      return nil, "end"
    end
    self.number = self.number + 1
    if skipping or #line > WORD_MAX then
      skipping = false
      return nil, ("line %d of the input is longer than %d bytes"):format(self.number, WORD_MAX)
    elseif line:find("\0", 1, true) then
      return nil, ("line %d of the input holds a zero byte, which no command can be given")
        :format(self.number)
    end
    return { line }
  end
  return self
end

-- The words of a file behind ::::.
local function words_of(name, separator)
  local file, reason = io.stdin
  if name ~= "-" then
    file, reason = io.open(name, "rb")
    if not file then
      return nil, ("cannot read '%s': %s"):format(name, reason:sub(#name + 3))
    end
  end
  local text, failed = file:read "a"
  if file ~= io.stdin then
    file:close()
  end
  if not text then
    return nil, ("cannot read '%s': %s"):format(name, failed)
  end
  local words, at = {}, 1
  while at <= #text do
    local stop = text:find(separator, at, true) or #text + 1
    words[#words + 1] = text:sub(at, stop - 1)
    at = stop + 1
  end
  return words
end

--- Read the words behind the options: lists behind ::: and ::::.
-- @tparam {string,...} args
-- @string separator in files
-- @treturn ?table lists; nil and what is wrong with them
function input.lists(args, separator)
  local lists, kind = {}, nil
  for _, word in ipairs(args) do
    if word == ":::" or word == "::::" then
      kind = word
      lists[#lists + 1] = {}
    elseif not kind then
      return nil, ("unexpected word '%s': arguments come behind :::"):format(word)
    elseif kind == "::::" then
      local words, why = words_of(word, separator)
      if not words then
        return nil, why
      end
      local list = lists[#lists]
      table.move(words, 1, #words, #list + 1, list)
    else
      local list = lists[#lists]
      list[#list + 1] = word
    end
  end
  return lists
end

--- All combinations of lists, the last one changing fastest.
-- @tparam {table,...} lists
-- @treturn table `next`, a source; `total`, how many
function input.product(lists)
  local at, total = {}, 1
  for k, list in ipairs(lists) do
    at[k] = 1
    total = total * #list
  end
  local left = total
  return {
    total = total,
    next = function()
      if left == 0 then
        return nil, "end"
      end
      left = left - 1
      local words, wrong = {}, nil
      for k, list in ipairs(lists) do
        words[k] = list[at[k]]
        if #words[k] > WORD_MAX then
          wrong = ("an argument is longer than %d bytes"):format(WORD_MAX)
        elseif words[k]:find("\0", 1, true) then
          wrong = "an argument holds a zero byte, which no command can be given"
        end
      end
      for k = #lists, 1, -1 do
        at[k] = at[k] + 1
        if at[k] <= #lists[k] then
          break
        end
        at[k] = 1
      end
      if wrong then
        return nil, wrong
      end
      return words
    end,
  }
end

return input
