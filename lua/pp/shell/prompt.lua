-- SPDX-License-Identifier: MIT
--- The prompt: what lines mean, how values and errors are shown.
--
-- core/repl.c reads a line, calls what it means and prints what that returns;
-- here is what it asks. A line is an expression, statements, a command that
-- begins with a dot (pp.shell.commands), or "@SET code" for the interpreters of
-- hosts (pp.shell.console). Lines are numbered as typed: `stdin:12` in a message
-- is the twelfth.
local show = require "pp.shell.show"

-- What the prompt needs stays, whatever is typed.
local load, pcall, require, select, tostring, type = load, pcall, require, select, tostring, type
local concat, pack, unpack = table.concat, table.pack, table.unpack
local getenv = os.getenv

local prompt = {}

-- Statements of more lines are not tried after each of them.
local TRIED = 30
-- Typed lines are kept so many, to be shown again where an error names them.
local KEPT = 5000

-- --- is a statement complete? -------------------------------------------------

local opens = { ["function"] = 1, ["do"] = 1, ["then"] = 1, ["repeat"] = 1, ["end"] = -1,
  ["until"] = -1, ["elseif"] = -1 }

-- Follow the code of a line: state.depth is how many blocks and brackets are
-- open, state.long what ends a long string or comment that is.
local function follow(state, line)
  local at = 1
  while at <= #line do
    if state.long then
      local _, last = line:find(state.long, at, true)
      if not last then
        return
      end
      state.long, at = nil, last + 1
    else
      local first, last, word = line:find("([%a_][%w_]*)", at)
      local other = line:find("[%[%](){}\"'%-]", at)
      if other and (not first or other < first) then
        local c = line:sub(other, other)
        local long = line:match("^%-?%-?%[(=*)%[", other)
        if long and (c == "[" or line:sub(other, other + 1) == "--") then
          state.long = "]" .. long .. "]"
          at = line:find("[", other, true) + #long + 2
        elseif line:sub(other, other + 1) == "--" then
          return
        elseif c == '"' or c == "'" then
          local stop = other + 1
          while stop <= #line and line:sub(stop, stop) ~= c do
            stop = stop + (line:sub(stop, stop) == "\\" and 2 or 1)
          end
          at = stop + 1
        else
          if c:find "[%[({]" then
            state.depth = state.depth + 1
          elseif c ~= "-" then
            state.depth = state.depth - 1
          end
          at = other + 1
        end
      elseif first then
        state.depth = state.depth + (opens[word] or 0)
        at = last + 1
      else
        return
      end
    end
  end
end

local function incomplete(message)
  return type(message) == "string" and message:sub(-5) == "<eof>"
end

-- --- reading ------------------------------------------------------------------

local P = {}

-- A global as a prompt: text, or nil. What goes wrong there ends nothing.
local function global_prompt(name)
  local ok, text = pcall(function()
    local v = _G[name]
    if v ~= nil then
      return tostring(v)
    end
  end)
  return ok and text or nil
end

--- The text in front of a line.
function P:text(first)
  local text = global_prompt(first and "_PROMPT" or "_PROMPT2")
  if not text then
    text = first and "> " or ">> "
  end
  if self.set then
    local columns = self.api.columns() or 80
    local set = "@" .. show.cut(self.set, math.max(columns // 2 - 4, 4))
    text = (first and set or (" "):rep(show.width(set))) .. text
  end
  if self.edit then -- readline counts columns
    text = text:gsub("\27%[[%d;]*m", "\1%0\2")
  end
  return (text:gsub("%z", ""))
end

-- The next line: text, or nil and why. Of a pasted text also whether its lines
-- are not to be taken one by one.
function P:line(first)
  local queue = self.queue
  if queue.at <= #queue then
    queue.at = queue.at + 1
    return queue[queue.at - 1]
  end
  local text, why = self.api.read(self:text(first))
  return text, why, text ~= nil and text:find("\n", 1, true) ~= nil
end

-- Number the lines of a text, and keep them.
function P:count(text)
  for line in (text .. "\n"):gmatch "(.-)\n" do
    self.number = self.number + 1
    self.typed[self.number] = #line > 500 and line:sub(1, 500) .. ".." or line
    self.typed[self.number - KEPT] = nil
  end
end

-- Take the lines of a text one by one from now on.
function P:unravel(text)
  local rest = { at = 1, unpack(self.queue, self.queue.at) }
  local queue = { at = 1 }
  for line in (text .. "\n"):gmatch "(.-)\n" do
    queue[#queue + 1] = line
  end
  for i = 1, #rest do
    queue[#queue + 1] = rest[i]
  end
  self.queue = queue
end

-- Compile what was typed from line `first` on, expression or statements.
-- Returns the function, or nil and the message; and the source that was it.
local function compile(source, first)
  local lines = ("\n"):rep(first - 1)
  local code = lines .. "return " .. source
  local f = load(code, "=stdin", "t")
  if f then
    return f, nil, code
  end
  local message
  f, message = load(lines .. source, "=stdin", "t")
  return f, message, lines .. source
end

-- Have source, typed from line `first` on, be completed by further lines.
-- Returns the function, or nil and the message; nil and nil when the line was
-- given up; and the source.
function P:complete_source(source, first)
  local f, message, code = compile(source, first)
  if f or not incomplete(message) then
    return f, message, code
  end
  local state = { depth = 0 }
  local parts, at = {}, 0
  for line in (source .. "\n"):gmatch "(.-)\n" do
    at = at + 1
    parts[at] = line
    follow(state, line)
  end
  while true do
    local line, why = self:line(false)
    if not line then
      if why == "eof" then
        return nil, message
      end
      return nil, nil
    end
    self:count(line)
    for each in (line .. "\n"):gmatch "(.-)\n" do
      at = at + 1
      parts[at] = each
      follow(state, each)
    end
    local more = self.queue.at <= #self.queue or self.api.pending()
    if at < TRIED or not more or state.depth <= 0 and not state.long then
      source = concat(parts, "\n")
      local lines = ("\n"):rep(first - 1)
      f, message = load(lines .. source, "=stdin", "t")
      if not f and incomplete(message) then
        -- an expression over several lines
        local again, other = load(lines .. "return " .. source, "=stdin", "t")
        if again then
          return again, nil, lines .. "return " .. source
        end
        message = incomplete(other) and message or message
      else
        return f, message, lines .. source
      end
    end
  end
end

-- What a line is, if it is no Lua: "command", its name and the rest; "set", the
-- set and the rest; "unknown", a name.
local function special(line)
  local name, rest = line:match "^%s*%.(%a[%w_]*)%s*(.*)$"
  if name then
    if require("pp.shell.commands").list[name] then
      return "command", name, (rest:gsub("%s+$", ""))
    end
    return "unknown", name
  end
  local from = line:match "^%s*@()"
  if from then
    local set, code = require("pp.shell.session").split(line:sub(from))
    return "set", set, (code:gsub("%s+$", ""))
  end
end

--- The module pp.shell.<name>, or nil and that it is missing.
function prompt.need(name, what)
  local ok, module = pcall(require, "pp.shell." .. name)
  if ok then
    return module
  elseif type(module) == "string" and module:find "interrupted!" then
    error(module, 0)
  end
  return nil, ("'%s' cannot be done: %s"):format(what, (tostring(module):match "^[^\n]*"))
end

--- Print a line that is no value: what a command cannot do.
function prompt.say(text)
  io.stdout:flush()
  io.stderr:write(text, "\n")
end

-- A function that evaluates source on the hosts of a set.
function P:remote(set, source)
  return function()
    local console = require "pp.shell.console"
    console.look, console.terminal = self:limits(), self.edit
    local ok, message = console.eval(set, source, "=stdin")
    if ok == nil then
      prompt.say(message)
    end
  end
end

--- Read on: nil at the end of input; false if there is nothing to be done; a
-- message; or the function that is to be called.
function P:next()
  if self.over then
    return nil
  end
  local text, why, pasted = self:line(true)
  if not text then
    if why == "eof" then
      return nil
    end
    self.queue = { at = 1 }
    return false
  end
  local first = self.number + 1
  self.began = first
  if pasted then
    local any = special(text)
    for line in text:gmatch "\n([^\n]*)" do
      any = any or special(line)
    end
    local f, message
    if not any and not self.set then
      f, message = compile(text, first)
    end
    if not f and not incomplete(message) then
      self:unravel(text)
      return self:next()
    end
  end
  self:count(text)
  if not text:find "%S" then
    return false
  end
  local kind, name, rest = special(text)
  if kind == "unknown" then
    return ("unknown command '.%s'; .help lists what there is"):format(name)
  elseif kind == "command" then
    local command = require("pp.shell.commands").list[name]
    if command.takes_code and rest ~= "" then
      local f, message = self:complete_source(rest, first)
      if not f then
        return message or false
      end
      rest = f
    end
    if command.takes_code or name == "load" then -- errors are of that code
      return function()
        return command.run(self, rest)
      end
    end
    return function()
      local ok, message = pcall(command.run, self, rest)
      if not ok and type(message) == "string" and message:find "interrupted!$" then
        prompt.say "interrupted!" -- where is of no use
      elseif not ok then
        error(message, 0)
      end
    end
  end
  local source, set = text, self.set
  if kind == "set" then
    set, source = name, rest
    if set == "" then
      return "a set of hosts belongs behind the '@': @node[1-4] EXPR, or @all EXPR"
    elseif source == "" then
      return ("what is to be evaluated there? @%s EXPR (.on %s stays there)"):format(set, set)
    end
  end
  source = source:gsub("^%s*=", "return ", 1)
  local f, message, code = self:complete_source(source, first)
  if not f then
    return message or false
  elseif set then
    return self:remote(set, code)
  end
  return f
end

-- --- printing -----------------------------------------------------------------

--- How wide and colorful values may be shown.
function P:limits()
  local columns = self.api.columns()
  local term, plain = getenv "TERM", getenv "NO_COLOR"
  return {
    lines = 100,
    width = columns and math.max(columns - 1, 10) or 80,
    color = columns ~= nil and not (plain and plain ~= "") and term ~= nil and term ~= ""
      and term ~= "dumb",
  }
end

--- Print what a line returned.
function P:print(...)
  local n = select("#", ...)
  local now = _G.print
  if now ~= self.original_print then
    return now(...)
  end
  local values, limits, tall = pack(...), nil, false
  for i = 1, n do
    local v = values[i]
    if type(v) == "table" then
      limits = limits or self:limits()
      local text = show.value(v, limits)
      tall = tall or text:find("\n", 1, true) ~= nil
      values[i] = text
    end
  end
  if tall then -- a line for each
    for i = 1, n do
      now(values[i])
    end
  else
    now(unpack(values, 1, n))
  end
end

--- A message with the lines it names, if these were typed before.
function P:explain(message)
  local told, lines = {}, {}
  for number in message:gmatch "%f[%w]stdin:(%d+):" do
    number = math.tointeger(tonumber(number))
    local line = number and self.typed[number]
    if line and number < self.began and not told[number] and #lines < 10 then
      told[number] = true
      lines[#lines + 1] = { number, line }
    end
  end
  if #lines == 0 then
    return message
  end
  table.sort(lines, function(a, b) return a[1] < b[1] end)
  local out = { message, "typed before:" }
  for _, each in ipairs(lines) do
    out[#out + 1] = ("\tstdin:%d: %s"):format(each[1], (each[2]:gsub("%c", " ")))
  end
  return concat(out, "\n")
end

--- Fill in the prompt.
-- @tparam table api what core/repl.c gives
-- @tparam table to becomes what it calls: next, print, explain, complete
function prompt.new(api, to)
  local self = setmetatable({
    api = api, number = 0, began = 1, typed = {}, queue = { at = 1 },
    original_print = print,
  }, { __index = P })
  function to.next()
    self.edit = to.edit
    local result = self:next()
    return result
  end
  function to.print(...)
    return self:print(...)
  end
  function to.explain(message)
    return self:explain(message)
  end
  function to.complete(line, word)
    return require("pp.shell.complete").complete(self, line, word)
  end
end

return prompt
