-- SPDX-License-Identifier: MIT
--- Files that go to hosts before a command and come back after it.
--
-- They travel as jobs on that host, a piece each, over the connection there is.
-- A file is written beside its place, compared by a digest of its bytes and only
-- then put there. Paths are relative on both sides: to the directory ppsh was
-- started in here, to that of the command there.
local core = require "pp.core"
local tasks = require "pp.shell.sh_tasks"
local template = require "pp.shell.sh_template"

local files = {}

local PIECE = 1 << 20
-- Pieces of one file under way.
local AHEAD = 4

-- --- what runs on a host -----------------------------------------------------

local function under(root, path)
  return root and root .. "/" .. path or path
end

-- Which machine this is: a file of it is not sent onto itself.
local function machine()
  local f = io.open "/proc/sys/kernel/random/boot_id"
  local id = f and f:read "l"
  if f then
    f:close()
  end
  return id or ""
end

-- Write a piece; the first makes the file. Raises.
local function write_piece(path, at, bytes)
  local dir = path:match "^(.*)/[^/]*$"
  if at == 0 and dir and dir ~= "" then
    assert(core.files.mkdir(dir))
  end
  local f = assert(io.open(path, at == 0 and "wb" or "r+b"))
  local ok, why = f:seek("set", at)
  ok, why = ok and f:write(bytes), why
  if not f:close() or not ok then
    error(why or "cannot be written", 0)
  end
end

-- Put a file in its place if it is what was sent. Raises.
local function finish(from, to, mode, mtime, digest)
  local is, why = core.files.digest(from)
  if is ~= digest then
    core.files.remove(from)
    error(why or "what arrived is not what was sent", 0)
  end
  local ok
  ok, why = core.files.settle(from, to, mode, mtime)
  if not ok then
    core.files.remove(from)
    error(why, 0)
  end
end

local function read_piece(path, at, n)
  local f = assert(io.open(path, "rb"))
  f:seek("set", at)
  local bytes = f:read(n) or ""
  f:close()
  return bytes
end

-- What is at a path, all below a directory too: a list of {path, what
-- core.files.look says, digest}; nil and why not.
local function survey(root, path)
  local found, above = {}, {}
  local function add(name)
    local is, why = core.files.look(under(root, name))
    if is and is.kind == "other" then
      is, why = nil, "neither a file nor a directory"
    elseif is and above[is.id] then
      is, why = nil, "the link leads to a directory that it is in"
    end
    if not is then
      return nil, name == path and why or ("'%s': %s"):format(name, why)
    end
    is.path = name
    found[#found + 1] = is
    if is.kind == "file" then
      is.digest, why = core.files.digest(under(root, name))
      return is.digest, why
    end
    above[is.id] = true
    local names
    names, why = core.files.list(under(root, name))
    for _, inner in ipairs(names or {}) do
      local ok
      ok, why = add(name .. "/" .. inner)
      if not ok then
        return nil, why
      end
    end
    above[is.id] = nil
    return names, why
  end
  local ok, why = add(path)
  if not ok then
    return nil, why
  end
  found.machine = machine()
  return found
end

-- Remove files, and directories that are empty then, in this order.
local function remove_all(root, paths)
  for _, path in ipairs(paths) do
    core.files.remove(under(root, path))
  end
end

local function prepare(root, path, mtime)
  if mtime then
    return assert(core.files.settle(under(root, path), nil, path and mtime.mode, mtime.mtime))
  end
  return assert(core.files.mkdir(under(root, path)))
end

-- Is there, at this path, the very file that is to be sent?
local function same(root, path, id, where)
  local is = core.files.look(under(root, path))
  return is and is.id == id and machine() == where
end

-- --- here --------------------------------------------------------------------

local Files = {}
Files.__index = Files

local function text_of(err)
  local text = tostring(type(err) == "table" and err.message or err)
  return (text:gsub("^[^:\n]*%.lua:%d+: ", ""))
end

-- A job on a host; its results, or raises {kind=, message=}.
function Files:call(node, f, ...)
  local job = self.server:submit { f, args = table.pack(...), on = node, priority = 100,
    retries = 0 }
  return job
end

local function result(job)
  local r = table.pack(tasks.await(job))
  if not r[1] then
    error(r[2], 0)
  end
  return table.unpack(r, 2, r.n)
end

local function unique()
  return (".ppsh-%x%x"):format(math.random(0), math.random(0)):sub(1, 24)
end

-- Paths that a host may be given: relative, without going up.
local function check(path)
  if path == "" then
    return nil, "the name is empty"
  elseif path:sub(1, 1) == "/" then
    return nil, "absolute paths are not sent: run ppsh where they are relative"
  end
  for part in path:gmatch "[^/]+" do
    if part == ".." then
      return nil, "paths with '..' are not sent"
    end
  end
  return (path:gsub("/+$", ""):gsub("^%./+", ""))
end

-- Send a path to a node: bytes sent. Raises.
function Files:push(node, path, entry)
  local all, why = survey(nil, path)
  if not all then
    error(why, 0)
  end
  local root, dirs = self.root, {}
  for _, is in ipairs(all) do
    if is.kind == "directory" then
      result(self:call(node, prepare, root, is.path))
      table.insert(dirs, 1, is)
    elseif not result(self:call(node, same, root, is.path, is.id, all.machine)) then
      local to = under(root, is.path)
      local temp, f = to .. unique(), assert(io.open(is.path, "rb"))
      local under_way, at = {}, 0
      repeat
        local bytes = f:read(PIECE) or ""
        table.insert(under_way, self:call(node, write_piece, temp, at, bytes))
        at = at + #bytes
        if at == #bytes or #under_way >= AHEAD then
          result(table.remove(under_way, 1))
        end
      until #bytes < PIECE
      f:close()
      for _, job in ipairs(under_way) do
        result(job)
      end
      result(self:call(node, finish, temp, to, is.mode, is.mtime, is.digest))
      entry.sent = (entry.sent or 0) + at
      table.insert(entry.there, 1, is.path)
    end
  end
  for _, is in ipairs(dirs) do
    result(self:call(node, prepare, root, is.path, is))
    entry.there[#entry.there + 1] = is.path
  end
end

-- Bring a path back from a node. Raises.
function Files:fetch(node, path, entry)
  local root = self.root
  local all, why = result(self:call(node, survey, root, path))
  if not all then
    error(why, 0)
  end
  local dirs, to_dir = {}, self.many and node .. "/" or ""
  for _, is in ipairs(all) do
    -- What a host says is a path: it may not lead elsewhere.
    if type(is.path) ~= "string" or check(is.path) ~= is.path
      or (is.path ~= path and is.path:sub(1, #path + 1) ~= path .. "/") then
      error("the host sent a path that was not asked for", 0)
    end
    local to = to_dir .. is.path
    local here = core.files.look(to)
    if is.kind == "directory" then
      assert(core.files.mkdir(to))
      table.insert(dirs, 1, is)
    elseif not here or here.id ~= is.id or machine() ~= all.machine then
      local temp = to .. unique()
      local ok, err = pcall(function()
        local under_way, ask, at = {}, 0, 0
        write_piece(temp, 0, "")
        local f <close> = assert(io.open(temp, "r+b"))
        while at < is.size do
          while ask < is.size and #under_way < AHEAD do
            under_way[#under_way + 1] = self:call(node, read_piece, under(root, is.path), ask,
              PIECE)
            ask = ask + PIECE
          end
          local bytes = result(table.remove(under_way, 1))
          if type(bytes) ~= "string" or bytes == "" then
            error("it changed while it was read", 0)
          end
          assert(f:write(bytes))
          at = at + #bytes
        end
        assert(f:close())
        finish(temp, to, is.mode, is.mtime, is.digest)
        entry.received = (entry.received or 0) + at
      end)
      if not ok then
        os.remove(temp)
        error(err, 0)
      end
      table.insert(entry.there, 1, is.path)
    end
  end
  for _, is in ipairs(dirs) do
    core.files.settle(to_dir .. is.path, nil, is.mode, is.mtime)
    entry.there[#entry.there + 1] = is.path
  end
end

-- Raise with what was to be done.
local function told(what, path, node, f, ...)
  local ok, err = pcall(f, ...)
  if not ok then
    local kind = type(err) == "table" and err.kind or "error"
    if kind == "connect" or kind == "lost" or kind == "cancelled" or kind == "destroyed" then
      error(err, 0)
    end
    error({ kind = "error", message = ("cannot %s '%s' %s '%s': %s"):format(what, path,
      what == "push" and "to" or "from", node, text_of(err)) }, 0)
  end
end

-- Paths of patterns for an entry; raises for those that are not sent.
local function paths(patterns, entry, what, node)
  local list = {}
  for i, pattern in ipairs(patterns or {}) do
    local path = template.fill(pattern, entry.words or {}, entry.seq or 1, function(s)
      return s
    end)
    local clean, why = check(path)
    if not clean then
      told(what, path, node, error, why, 0)
    end
    list[i] = clean
  end
  return list
end

-- What `go` gives, on a node, with files sent before and brought back after.
function Files:with(node, entry, go)
  entry.there = {}
  local ok, r, done, why
  done, why = pcall(function()
    for _, path in ipairs(paths(self.pushes, entry, "push", node)) do
      told("push", path, node, self.push, self, node, path, entry)
    end
    local wanted = paths(self.fetches, entry, "fetch", node)
    ok, r = go()
    if ok and r.status == 0 then
      for _, path in ipairs(wanted) do
        told("fetch", path, node, self.fetch, self, node, path, entry)
      end
    end
  end)
  if self.cleanup and #entry.there > 0 then
    pcall(function()
      result(self:call(node, remove_all, self.root, entry.there))
    end)
  end
  if not done then
    return false, why
  end
  return ok, r
end

-- The node that has most room for one more.
function Files:pick()
  local best, least
  for node, n in pairs(self.server:get_active_nodes()) do
    local load = n > 0 and (self.load[node] or 0) / n
    if load and (not least or load < least) then
      best, least = node, load
    end
  end
  return best
end

local function pause()
  core.sleep(0.01)
end

-- What is the same for all lines goes to a node once, before its first command.
-- Raises.
function Files:supply(node)
  local at = self.common[node]
  while at and at.under_way do -- another line sends it
    result(self:call(node, pause))
  end
  if at and at.done then
    return
  end
  at = { under_way = true, there = {} }
  self.common[node] = at
  local ok, err = pcall(function()
    for _, path in ipairs(paths(self.commons, at, "push", node)) do
      told("push", path, node, self.push, self, node, path, at)
    end
  end)
  at.under_way, at.done = false, ok
  if not ok then
    error(err, 0)
  end
end

--- All commands are over: remove what was the same for all.
-- @tparam table run the tasks (see sh_tasks)
function Files:clean(run)
  for node, at in pairs(self.cleanup and self.common or {}) do
    if #at.there > 0 then
      run:start(function()
        pcall(function()
          result(self:call(node, remove_all, self.root, at.there))
        end)
      end)
    end
  end
  while run.count > 0 do
    run:step()
  end
end

--- A command of a line: on a node of its own choice.
function Files:around(run, entry)
  local node = self:pick()
  while not node do
    -- No host is connected yet: wait until a job could run.
    local ok, err = tasks.await(self.server:submit { core.time, retries = 0 })
    if not ok then
      return false, err
    end
    node = self:pick()
  end
  self.load[node] = (self.load[node] or 0) + 1
  entry.node = node
  local ok, r
  local function go()
    local fine, got = run:attempt(entry)
    if fine and node ~= "local" then
      return files.bring_output(run, entry, got)
    end
    return fine, got
  end
  if node == "local" then
    ok, r = go() -- they are here
  else
    local supplied, why = pcall(self.supply, self, node)
    if supplied then
      ok, r = self:with(node, entry, go)
    else
      ok, r = false, why
    end
  end
  self.load[node] = self.load[node] - 1
  return ok, r
end

--- A command that runs once on each host.
function Files:around_host(node, go)
  if node == "local" then
    return go()
  end
  return self:with(node, {}, go)
end

local function read_patterns(list)
  local patterns = {}
  for i, text in ipairs(list or {}) do
    patterns[i] = assert(template.read(text, 1 << 20))
  end
  return patterns
end

--- Files that go along with commands.
-- @tparam table run `server`
-- @tparam table o `push`, `fetch` (lists of templates), `cleanup`, `how`
function files.new(run, o)
  local pushes, commons = {}, {}
  for _, pattern in ipairs(read_patterns(o.push)) do
    local to = run.many == nil and pattern.places == 0 and commons or pushes
    to[#to + 1] = pattern
  end
  return setmetatable({
    server = run.server, pushes = pushes, commons = commons, fetches = read_patterns(o.fetch),
    cleanup = o.cleanup, root = o.how.cwd, load = {}, common = {}, many = run.many,
  }, Files)
end

--- Bring large output, which lies in files on the host, here.
-- @tparam table run with `server`
-- @tparam table entry with `host`
-- @tparam table r what core.command gave; names of files are of this machine then
-- @treturn boolean whether that went well, then r or the error
function files.bring_output(run, entry, r)
  local self = setmetatable({ server = run.server }, Files)
  for _, name in ipairs { "stdout", "stderr" } do
    local path, size = r[name .. "_file"], r[name .. "_size"]
    if path then
      local temp = os.tmpname()
      local ok, err = pcall(function()
        local f <close> = assert(io.open(temp, "wb"))
        local at = 0
        while at < size do
          local bytes = result(self:call(entry.host, read_piece, path, at, PIECE))
          if type(bytes) ~= "string" or bytes == "" then
            error("what it wrote is gone", 0)
          end
          assert(f:write(bytes))
          at = at + #bytes
        end
        result(self:call(entry.host, remove_all, nil, { path }))
      end)
      r[name .. "_file"] = temp
      if not ok then
        os.remove(temp)
        return false, err
      end
    end
  end
  return true, r
end

return files
