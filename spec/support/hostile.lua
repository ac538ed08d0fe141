-- SPDX-License-Identifier: MIT
--- An agent that means harm: a host runs this in place of what it is sent. It
-- speaks the bootstrap's mark, takes the driver's greeting and says what a
-- script of the spec tells it to.
--
-- The script is Lua with these: `say(type, lane, bytes)`, `raw(bytes)`,
-- `welcome(cpus)`, `hear()` (the next message: type, lane, bytes), `frame(type,
-- bytes)`, `result(seq, status, body)`, `zstd(type, n, bytes)` (packed bytes),
-- `wait_start(n)` (until n workers are to begin, which it says they have),
-- `wait_job()` (until a job has come: its lane), `serve()` (answer pings until
-- the end).
local command, script = arg[1], assert(io.open(arg[2])):read "a"
local mark = command:match "m=([%w-]+);"

io.stdout:setvbuf "full"
local function raw(bytes)
  if not io.stdout:write(bytes) or not io.stdout:flush() then os.exit(0) end
end
local function say(type, lane, bytes)
  bytes = bytes or ""
  raw(string.pack("<I4I4", type | lane << 8, #bytes) .. bytes)
end
local function welcome(cpus)
  say(64, 0, string.pack("<I8I4I4I8I4s4s4", 0x0a0d1a6873707010, 2, cpus, 1, 1, "build", "x86_64"))
end
local function hear()
  local head = io.stdin:read(8)
  if not head then os.exit(0) end
  local word, len = string.unpack("<I4I4", head)
  local bytes = len > 0 and io.stdin:read(len) or ""
  if word & 0xff == 8 then say(73, 0, bytes .. string.pack("<I8", 1)) end
  return word & 0xff, word >> 8, bytes
end
local function frame(type, bytes) return string.pack("<I8", type | #bytes << 8) .. bytes end
local function result(seq, status, body)
  return frame(16, string.pack("<I4I4I8I8I8I8I8I8", seq, status, 1, 0, 0, 0, 0, 0) .. body)
end
-- A frame of zstd's with one block: type 0, these bytes; 1, so many of this one.
local function zstd(type, n, bytes)
  return "\x28\xb5\x2f\xfd\0\x58" .. string.pack("<I3", 1 | type << 1 | n << 3) .. bytes
end
local function wait_start(n)
  local lanes = {}
  while #lanes < n do
    local type, lane = hear()
    if type == 2 then
      lanes[#lanes + 1] = lane
      say(65, lane, string.pack("<I4", 4242))
    end
  end
  return lanes
end
local function wait_job()
  local lanes = {}
  while true do
    local type, lane, bytes = hear()
    if type == 2 then
      say(65, lane, string.pack("<I4", 4242))
    elseif type == 3 then
      lanes[lane] = (lanes[lane] or "") .. bytes
      local at, all = 1, lanes[lane]
      while #all - at + 1 >= 8 do
        local head = string.unpack("<I8", all, at)
        local len = head >> 8
        if #all - at + 1 < 8 + len then break end
        if head & 0xff == 3 then return lane, string.unpack("<I4", all, at + 8) end
        at = at + 8 + len
      end
      lanes[lane] = all:sub(at)
    end
  end
end
local function serve() while true do hear() end end

raw(("%s hello Linux x86_64\n%s at there\n%s run %s\n"):format(mark, mark, mark,
  command:match "x86_64:(%x+):"))
hear()
assert(load(script, "=script", "t", setmetatable({say = say, raw = raw, welcome = welcome,
  hear = hear, frame = frame, zstd = zstd, result = result, wait_start = wait_start,
  wait_job = wait_job, serve = serve}, {__index = _G})))()
