-- SPDX-License-Identifier: MIT
--- Numbers as people read them, and text that is safe in HTML.
local text = {}

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;",
  ["'"] = "&#39;" }

--- Replace what is no UTF-8, and control characters, by U+FFFD.
-- @string s
-- @treturn string
function text.clean(s)
  local out, at = {}, 1
  while at <= #s do
    local _, bad = utf8.len(s, at)
    out[#out + 1] = s:sub(at, bad and bad - 1)
    if not bad then
      break
    end
    out[#out + 1] = "\u{FFFD}"
    at = bad + 1
  end
  return (table.concat(out):gsub("[\1-\8\11-\31\127]", "\u{FFFD}"):gsub("%z", "\u{FFFD}"))
end

--- The same, escaped for HTML, in attributes too.
function text.escape(s)
  return (text.clean(tostring(s)):gsub("[&<>\"']", entities))
end

-- With about three digits.
local function three(v)
  if v >= 99.95 then
    return ("%.0f"):format(v)
  elseif v >= 9.995 then
    return ("%.1f"):format(v)
  end
  return ("%.2f"):format(v)
end

--- A duration: "12.3 µs", "4.56 s", "2 min 3 s".
-- @number s seconds
function text.duration(s)
  if s <= 0 then
    return "0 s"
  elseif s < 0.9995e-6 then
    return ("%.0f ns"):format(s * 1e9)
  elseif s < 0.9995e-3 then
    return three(s * 1e6) .. " µs"
  elseif s < 0.9995 then
    return three(s * 1e3) .. " ms"
  elseif s < 99.95 then
    return three(s) .. " s"
  elseif s < 3600 then
    return ("%d min %d s"):format(s // 60, s % 60 // 1)
  elseif s < 86400 then
    return ("%d h %d min"):format(s // 3600, s % 3600 // 60)
  end
  return ("%d d %d h"):format(s // 86400, s % 86400 // 3600)
end

--- A count, its digits in groups of three: "1,234,567".
function text.count(n)
  local s = ("%.0f"):format(n)
  local head = #s % 3
  local groups = { head > 0 and s:sub(1, head) or nil }
  for at = head + 1, #s, 3 do
    groups[#groups + 1] = s:sub(at, at + 2)
  end
  return table.concat(groups, ",")
end

--- A count and what it counts: "1 job", "2 jobs".
function text.counted(n, noun)
  return text.count(n) .. " " .. noun .. (n == 1 and "" or "s")
end

--- A size: "12.3 kB".
function text.bytes(n)
  local units = { "B", "kB", "MB", "GB", "TB", "PB" }
  local k = 1
  while n >= 999.5 and k < #units do
    n, k = n / 1000, k + 1
  end
  return (k == 1 and "%.0f %s" or "%s %s"):format(k == 1 and n or three(n), units[k])
end

--- A share: "12 %".
function text.percent(part)
  if part > 0 and part < 0.0095 then
    return ("%.1f %%"):format(part * 100)
  end
  return ("%.0f %%"):format(part * 100)
end

--- Cut to so many characters.
function text.cut(s, most)
  s = text.clean(s)
  local n = utf8.len(s)
  if n <= most then
    return s
  end
  return s:sub(1, utf8.offset(s, most) - 1) .. "…"
end

return text
