-- SPDX-License-Identifier: MIT
-- Which number has this MD5 hash? 128 jobs try a range each; the script takes
-- their answers in order and stops at the first hit, while jobs behind it are
-- still at work. MD5 itself is a Lua function of this file: it is sent along.
--
--   ppsh reverse_md5.lua [WORKERS [N [NUMBER]]]    (N: 2000000, NUMBER: 1829182)

local pp = require "pp"

local parts = 128
local workers = arg[1] and assert(tonumber(arg[1]), "WORKERS must be a number")
local n = assert(math.tointeger(tonumber(arg[2] or 2000000)), "N must be an integer")
local number = assert(math.tointeger(tonumber(arg[3] or 1829182)), "NUMBER must be an integer")

-- The constants of RFC 1321: parts of sines, and how far each round rotates.
local sines = {}
for i = 1, 64 do sines[i] = math.floor(math.abs(math.sin(i)) * 2 ^ 32) end
local turns = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}}

--- The MD5 hash of a string, in hexadecimal.
local function md5(text)
  local a0, b0, c0, d0 = 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476
  text = text .. "\x80" .. ("\0"):rep((55 - #text) % 64) .. ("<I8"):pack(8 * #text)
  for at = 1, #text, 64 do
    local words = {("<I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4"):unpack(text, at)}
    local a, b, c, d = a0, b0, c0, d0
    for i = 0, 63 do
      local mixed, word
      if i < 16 then
        mixed, word = b & c | ~b & d, i
      elseif i < 32 then
        mixed, word = d & b | ~d & c, 5 * i + 1 & 15
      elseif i < 48 then
        mixed, word = b ~ c ~ d, 3 * i + 5 & 15
      else
        mixed, word = c ~ (b | ~d), 7 * i & 15
      end
      local turn = turns[(i >> 4) + 1][(i & 3) + 1]
      mixed = a + mixed + sines[i + 1] + words[word + 1] & 0xffffffff
      a, d, c = d, c, b
      b = b + (mixed << turn | mixed >> 32 - turn) & 0xffffffff
    end
    a0, b0 = a0 + a & 0xffffffff, b0 + b & 0xffffffff
    c0, d0 = c0 + c & 0xffffffff, d0 + d & 0xffffffff
  end
  local bytes = ("<I4I4I4I4"):pack(a0, b0, c0, d0)
  return ("%08x%08x%08x%08x"):format((">I4I4I4I4"):unpack(bytes))
end

--- The number from `first` up to but not including `last` whose hash it is.
local function search(hash, first, last)
  for x = first, last - 1 do
    if md5(tostring(x)) == hash then return x end
  end
end

local job_server = pp.Server(workers)
print("Starting pp with " .. job_server:get_ncpus() .. " workers")

local hash = md5(tostring(number))
print("hash = " .. hash)

local step = (n - 1) // parts + 1
local jobs = {}
for i = 1, parts do
  local first = 1 + (i - 1) * step
  jobs[i] = job_server:submit(search, {hash, first, math.min(first + step, n)})
end

local found
for _, job in ipairs(jobs) do
  found = job()
  if found then break end
end
if found then
  print("Reverse md5 for " .. hash .. " is " .. found)
else
  print("Reverse md5 for " .. hash .. " has not been found")
end

job_server:print_stats() -- what is still under way counts as active
job_server:wait()        -- not needed: the end of the script would drop it
