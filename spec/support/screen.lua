-- SPDX-License-Identifier: MIT
--- A terminal that is looked at: ppsh in a window of tmux, keys, and what a
-- person would see. Stands on spec.support.run.
local run = require "spec.support.run"

local screen = {}

--- Why there can be none, or nil.
function screen.missing()
  if not os.execute "command -v tmux >/dev/null" then return "there is no tmux here" end
end

local Screen = {}
Screen.__index = Screen

local function output_of(command)
  local f = assert(io.popen(command))
  local text = f:read "a"
  f:close()
  return text
end

function Screen:tmux(...)
  local words = {"env -u TMUX tmux -S", run.quote(self.dir .. "/tmux"), "-f /dev/null"}
  for _, word in ipairs {...} do words[#words + 1] = run.quote(word) end
  return output_of(table.concat(words, " ") .. " 2>&1")
end

--- Start ppsh in a window.
-- @tparam table args its arguments
-- @tparam[opt] table options `columns` (80), `rows` (24), `env`, `under` (a
-- command in place of ppsh)
function screen.open(args, options)
  options = options or {}
  local self = setmetatable({dir = run.directory()}, Screen)
  local words = {"exec env", "INPUTRC=/dev/null", "LC_ALL=C.UTF-8",
    "XDG_STATE_HOME=" .. run.quote(self.dir)}
  for name, value in pairs(options.env or {}) do
    words[#words + 1] = name .. "=" .. run.quote(value)
  end
  words[#words + 1] = options.under or run.quote(run.ppsh_path)
  if options.under then args = {} end
  for _, a in ipairs(args) do words[#words + 1] = run.quote(a) end
  self:tmux("new-session", "-d", "-x", tostring(options.columns or 80), "-y",
    tostring(options.rows or 24), table.concat(words, " "))
  self:tmux("set-option", "-g", "status", "off")
  return self
end

--- Type text as it stands.
function Screen:type(text) self:tmux("send-keys", "-l", "--", text) end

--- Press keys, as tmux names them: "Enter", "C-c", "Tab".
function Screen:press(...) self:tmux("send-keys", "--", ...) end

--- Type a line.
function Screen:enter(text)
  self:type(text)
  self:press "Enter"
end

--- Paste text, as a terminal does.
function Screen:paste(text)
  local path = self.dir .. "/pasted"
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  self:tmux("load-buffer", path)
  self:tmux("paste-buffer", "-p")
end

--- Make the window another size.
function Screen:resize(columns, rows)
  self:tmux("resize-window", "-x", tostring(columns), "-y", tostring(rows))
end

--- What is on it, without empty lines at the end.
function Screen:text()
  return (self:tmux("capture-pane", "-p"):gsub("%s+$", ""))
end

--- Wait until what is seen ends with this text (lines of it).
function Screen:ends(text)
  local seen
  if run.poll(function()
    seen = self:text()
    return seen == text or seen:sub(-#text - 1) == "\n" .. text
  end) then return end
  error(("%q is not what is seen at the end: %q"):format(text, seen), 2)
end

--- Wait until a pattern is seen; what it matches.
function Screen:sees(pattern)
  local seen
  local found = run.poll(function()
    seen = self:text()
    return seen:match(pattern)
  end)
  if found then return found end
  error(("%q is not seen: %q"):format(pattern, seen), 2)
end

--- End it.
function Screen:close() self:tmux "kill-server" end

return screen
