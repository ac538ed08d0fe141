-- SPDX-License-Identifier: MIT
--- What a person sees of what was written to a terminal.
local drawn = {}

--- Show a text.
-- @string text what was written: lines, carriage returns, and of the escape
-- sequences moving up, erasing to the end of a line or of the screen, and colours
-- @int[opt] columns where lines wrap; none: nowhere
-- @treturn {string,...} the lines there are in the end, without blanks at their ends
-- @treturn {string,...} what each was before it was erased or written over
-- @treturn integer columns of the longest line there ever was
function drawn.show(text, columns)
  local lines, row, col, seen, widest = { {} }, 1, 1, {}, 0
  local at = 1
  local function note(k)
    local s = table.concat(lines[k]):gsub(" +$", "")
    widest = math.max(widest, utf8.len(s) or #s)
    if s ~= "" then
      seen[#seen + 1] = s
    end
  end
  local function clear(k, from)
    note(k)
    for i = #lines[k], from, -1 do
      lines[k][i] = nil
    end
  end
  local function down()
    row = row + 1
    lines[row] = lines[row] or {}
  end
  while at <= #text do
    local c = text:match("^[%z\1-\127\194-\244][\128-\191]*", at) or text:sub(at, at)
    if c == "\r" then
      col = 1
    elseif c == "\n" then
      down()
    elseif c == "\27" then
      local n, what, to = text:match("^%[(%d*)(%a)()", at + 1)
      if not n then
        error(("an escape nobody knows: %q"):format(text:sub(at, at + 8)), 2)
      elseif what == "A" then
        row = math.max(1, row - (tonumber(n) or 1))
      elseif what == "K" then
        clear(row, col)
      elseif what == "J" then
        clear(row, col)
        for k = #lines, row + 1, -1 do
          clear(k, 1)
          lines[k] = nil
        end
      elseif what ~= "m" then
        error("an escape nobody knows: " .. what, 2)
      end
      at = to - #c
    else
      if columns and col > columns then
        col = 1
        down()
      end
      for k = #lines[row] + 1, col - 1 do
        lines[row][k] = " "
      end
      lines[row][col] = c
      col = col + 1
    end
    at = at + #c
  end
  for k, line in ipairs(lines) do
    lines[k] = table.concat(line):gsub(" +$", "")
  end
  while lines[#lines] == "" do
    lines[#lines] = nil
  end
  return lines, seen, widest
end

return drawn
