-- SPDX-License-Identifier: MIT
--- `@SET expr`: evaluate on each host of a set, and show equal answers once.
--
-- Each host has an interpreter of its own for this, whose globals stay as long as
-- it lives. It is the one worker a host has of a server that shows nowhere
-- (session.console), made when first needed.
local pp = require "pp"
local core = require "pp.core"
local answer = require "pp.shell.answer"
local diff = require "pp.shell.diff"
local fold = require "pp.shell.fold"
local portrait = require "pp.shell.portrait"
local session = require "pp.shell.session"
local show = require "pp.shell.show"

local console = {}

-- The globals here, whatever becomes of the name: it stands for those there.
local globals = _G

-- Seconds: for an answer; until what is written is shown while it runs, and
-- how often then; until hosts that are not connected are named; for an
-- interpreter to say that it has left an evaluation, by itself or by a kill.
local LIMIT, SHOWN_AFTER, SHOWN_EVERY, NAMED_AFTER, LEFT_WITHIN = 60, 1, 0.2, 2, 2.5
-- For completions: seconds, and how many.
local COMPLETE_WITHIN, COMPLETIONS = 0.3, 500

local server -- session.console's
local limit = LIMIT
local known = {} -- node -> the interpreter that answered last
local last -- groups of values of the last evaluation, for diff

local function get_server()
  if not server or core.closed(server) then
    server, known = session.console(), {}
  end
  return server
end

--- Set how long hosts may take to answer.
-- @number[opt] seconds 0: as long as they like; none changes nothing
-- @treturn number what it was; 60 at first
function console.limit(seconds)
  local was = limit
  if seconds ~= nil then
    if type(seconds) ~= "number" or seconds < 0 or seconds ~= seconds then
      error("bad argument #1 to 'limit' (seconds must be a number >= 0)", 2)
    end
    limit = seconds
  end
  return was
end

-- --- showing ----------------------------------------------------------------

--- How values are shown: limits of pp.shell.show, such as `width` and `color`.
console.look = {}
--- Whether stderr is a terminal, which shows that Ctrl-C was pressed.
console.terminal = false

local function show_value(v)
  return show.value(v, console.look)
end

-- Whole lines, each behind whose it is.
local function marked(nodes, text)
  if text:sub(-1) ~= "\n" then
    text = text .. "\n"
  end
  return (text:gsub("[^\n]*\n", function(line)
    return nodes .. ": " .. line
  end))
end

-- The values of a group of hosts: on one line behind their names, or below.
local function headed(nodes, text)
  if text:find "\n" then
    return nodes .. ":\n" .. text .. "\n"
  end
  return nodes .. ": " .. text .. "\n"
end

local function write(file, text)
  file:write(text)
  file:flush()
end

-- Groups of hosts that say the same to a stream.
local function write_said(file, list)
  for _, group in ipairs(fold.group(list)) do
    write(file, marked(group.nodes, group.key))
  end
end

local function say(list)
  write_said(io.stderr, list)
end

-- --- one evaluation ---------------------------------------------------------

local function is_interrupt(e)
  return type(e) == "string" and e:find "interrupted!$" ~= nil
end

-- A waiting call has raised this: what a callback did is told; Ctrl-C goes on.
local function told(e)
  if is_interrupt(e) then
    error(e, 0)
  end
  write(io.stderr, "callback: " .. tostring(e) .. "\n")
end

-- Wait until all jobs have ended, or at most so long: true if they have; nil and
-- "interrupted". Callbacks run; what one raises is told.
local function wait(seconds)
  local deadline = pp.time() + seconds
  while true do
    local ok, ended = pcall(server.wait, server, math.max(0, deadline - pp.time()))
    if ok then
      return ended
    elseif is_interrupt(ended) then
      core.calm()
      return nil, "interrupted"
    end
    told(ended)
  end
end

-- Show the whole lines that came since the last time.
local function hear(asked)
  local lists = { {}, {} }
  for _, a in ipairs(asked) do
    if not a.job.finished then
      local texts = { core.hear(a.job) }
      for i = 1, 2 do
        local text = a.said[i] .. texts[i]
        local whole = text:match "^.*\n" or #text > 65536 and text or ""
        a.said[i] = text:sub(#whole + 1)
        if whole ~= "" then
          table.insert(lists[i], { node = a.node, key = whole })
        end
      end
    end
  end
  write_said(io.stdout, lists[1])
  write_said(io.stderr, lists[2])
end

-- Hosts that are not connected, and why: entries to say.
local function absent(asked)
  local list, stats = {}, server:get_stats()
  for _, a in ipairs(asked) do
    local s = stats[a.node]
    if not a.job.finished and a.node ~= "local" and s and s.state ~= "connected" then
      local state = s.state == "lost" and "lost, trying to reach it again"
        or s.state == "connecting" and "not connected yet" or s.state
      list[#list + 1] = { node = a.node, key = state .. (s.reason and ": " .. s.reason or "") }
    end
  end
  return list
end

-- Wait for the answers, within the limit. Returns why it was given up; nil:
-- all are here.
local function await(asked)
  local begun = pp.time()
  local deadline = limit > 0 and begun + limit or math.huge
  local named = false
  while true do
    local now = pp.time()
    local step = now - begun < SHOWN_AFTER and begun + SHOWN_AFTER - now or SHOWN_EVERY
    local ended, why = wait(math.max(0, math.min(step, deadline - now)))
    if ended then
      return nil
    elseif why then
      return why
    elseif pp.time() >= deadline then
      return "time"
    end
    hear(asked)
    if not named and pp.time() - begun >= NAMED_AFTER then
      named = true
      for _, group in ipairs(fold.group(absent(asked))) do
        write(io.stderr, ("waiting for %s (%s); Ctrl-C goes on without\n"):format(group.nodes,
          group.key))
      end
    end
  end
end

-- What an ended job gave, as its pcall has it. That is a waiting call, too.
local function results(job)
  local r
  repeat
    r = table.pack(pcall(job.pcall, job))
    if not r[1] then
      told(r[2])
    end
  until r[1]
  return table.unpack(r, 2, r.n)
end

-- End the evaluations that have not ended, and see what became of their
-- interpreters: a.fate.
local function stop(asked, why)
  local late, away = {}, {}
  for _, entry in ipairs(absent(asked)) do
    away[entry.node] = entry.key
  end
  for _, a in ipairs(asked) do
    if not a.job.finished then
      late[#late + 1] = a
      a.late = why
    end
  end
  for _, a in ipairs(late) do
    a.job:cancel()
  end
  for _, a in ipairs(late) do
    if away[a.node] then
      a.fate = away[a.node]
    else
      a.check = server:submit { answer.which, args = { globals }, on = a.node, retries = 0 }
    end
  end
  wait(LEFT_WITHIN)
  for _, a in ipairs(late) do
    if a.check then
      local done, id
      if a.check.finished then
        done, id = results(a.check)
      else
        a.check:cancel()
      end
      if not done then
        a.fate = "stopped; whether its globals are still there will show"
      elseif known[a.node] == nil or known[a.node] == id then
        a.fate = "stopped"
        known[a.node] = id
      else
        known[a.node] = id
        a.fate = "had to be killed: its globals are gone"
      end
    end
  end
end

-- Submit it to each host: into asked, the handles, with what is noted of each.
local function ask(asked, nodes, source, chunkname)
  for i, node in ipairs(nodes) do
    asked[i] = {
      node = node,
      said = { "", "" },
      job = server:submit { answer.evaluate, args = { source, chunkname, globals }, on = node },
    }
  end
end

-- What came from a host, if it is a list of strings.
local function strings(v)
  local list = {}
  for i = 1, type(v) == "table" and rawlen(v) or 0 do
    local text = rawget(v, i)
    if type(text) ~= "string" then
      return {}
    end
    list[i] = text
  end
  return list
end

-- The words of its own that an error of a host may have, and its name.
local function own_words(v, node)
  local own = {}
  for i = 1, type(v) == "table" and rawlen(v) or 0 do
    local pair = strings(rawget(v, i))
    if #pair == 2 then
      own[#own + 1] = pair
    end
  end
  own[#own + 1] = { node, "HOST" }
  return own
end

-- Take the answer of one host into the lists it belongs to.
local function take(a, lists)
  local job = a.job
  local outputs = { a.said[1] .. (job.output or ""), a.said[2] .. (job.errors or "") }
  for i, list in ipairs { lists.out, lists.err } do
    if outputs[i] ~= "" then
      list[#list + 1] = { node = a.node, key = outputs[i] }
    end
  end
  local ok, id, kind, first, second, trace = results(job)
  if a.late then
    local text = a.late == "time" and ("no answer within %g s"):format(limit) or "did not finish"
    lists.late[#lists.late + 1] = {
      node = a.node, key = text .. (a.fate and " (" .. a.fate .. ")" or ""),
    }
    return
  elseif not ok then
    local e = id -- a job's error
    local text = e.message
    if e.kind == "lost" then
      text = text:gsub("^worker %d+ %(pid %d+%) ", "its interpreter ")
        :gsub(" while it ran this job.*$", "") .. ": its globals are gone"
    elseif e.kind == "connect" then
      text = text:gsub("^no worker .- on '[^']*': host '[^']*': ", "cannot be used: ")
    end
    known[a.node] = nil
    lists.failed[#lists.failed + 1] = {
      node = a.node, key = fold.normalise(text, { { a.node, "HOST" } }), text = text,
    }
    return
  end
  if known[a.node] ~= nil and known[a.node] ~= id then
    lists.anew[#lists.anew + 1] = {
      node = a.node, key = "a new interpreter: the globals it had are gone",
    }
  end
  known[a.node] = id
  if kind == "values" then
    lists.values[#lists.values + 1] = {
      node = a.node, key = type(first) == "string" and first or "", texts = strings(second),
    }
    return
  end
  local text = type(first) == "string" and first or "what it answered is no answer"
  if type(trace) == "string" then
    text = text .. "\n" .. trace
  end
  lists.failed[#lists.failed + 1] = {
    node = a.node, key = fold.normalise(text, own_words(second, a.node)), text = text,
  }
end

-- The text of a group: as they all said it, or what it has in common.
local function common(group)
  for i = 2, #group do
    if group[i].text ~= group[1].text then
      return group.key
    end
  end
  return group[1].text
end

-- The values of a group; texts of what only its hosts can use if all say the
-- same.
local function values_of(group)
  local texts = group[1].texts
  for i = 2, #group do
    for k = 1, #texts do
      if group[i].texts[k] ~= texts[k] then
        return portrait.decode(group.key)
      end
    end
  end
  return portrait.decode(group.key, texts)
end

local function show_values(group)
  local list = group.values
  local parts, lines = {}, false
  for i = 1, list.n do
    parts[i] = show_value(list[i])
    lines = lines or parts[i]:find("\n", 1, true) ~= nil
  end
  return table.concat(parts, lines and "\n" or "\t")
end

local function report(lists)
  write_said(io.stdout, lists.out)
  write_said(io.stderr, lists.err)
  say(lists.anew)
  last = fold.group(lists.values)
  for i = #last, 1, -1 do
    local group = last[i]
    group.values = values_of(group)
    if not group.values then
      table.remove(last, i)
      say { { node = group.nodes, key = "what it answered is no answer" } }
    end
  end
  for _, group in ipairs(last) do
    if group.values.n > 0 then
      write(io.stdout, headed(group.nodes, show_values(group)))
    end
  end
  for _, group in ipairs(fold.group(lists.failed)) do
    write(io.stderr, group.nodes .. ": " .. common(group) .. "\n")
  end
  say(lists.late)
end

--- Evaluate an expression, or run a statement, on each host of a set, and print
-- what they answer: what was written, values, errors, and who did not answer.
-- What is equal is printed once. Ctrl-C ends it on all of them.
-- @string set_text as session.nodes has it
-- @string source
-- @string[opt="=stdin"] chunkname
-- @treturn ?boolean whether all have answered without an error; nil if there is
-- no such set
-- @treturn ?string then what is wrong with it
function console.eval(set_text, source, chunkname)
  local nodes, wrong = session.nodes(set_text)
  if not nodes then
    return nil, wrong
  end
  get_server()
  chunkname = chunkname or "=stdin"
  source = source:gsub("^(%s*)=", "%1return ")
  local code, message = load("return " .. source, chunkname)
  if not code then
    code, message = load(source, chunkname)
  end
  if not code then
    write(io.stderr, message .. "\n") -- once: they would all say so
    return false
  end
  local asked = {}
  local ok, why = pcall(function()
    ask(asked, nodes, source, chunkname)
    return await(asked)
  end)
  if not ok and is_interrupt(why) then
    core.calm()
    why = "interrupted"
  end
  if why == "interrupted" and console.terminal then
    write(io.stderr, "\n")
  end
  if why then
    stop(asked, why)
  end
  if not ok and why ~= "interrupted" then
    error(why, 0)
  end
  local lists = { out = {}, err = {}, values = {}, failed = {}, late = {}, anew = {} }
  for _, a in ipairs(asked) do
    take(a, lists)
  end
  report(lists)
  return #lists.failed + #lists.late == 0
end

--- Print how the answers of the last evaluation differ: the most common one
-- beside each of the others.
-- @treturn boolean whether they do
function console.diff()
  if not last or #last == 0 then
    write(io.stderr, "there are no answers to compare\n")
    return false
  elseif #last == 1 then
    write(io.stdout, ("%s: all the same\n"):format(last[1].nodes))
    return false
  end
  for i = 2, #last do
    write(io.stdout, diff.groups(last[1], last[i], function(v)
      return show.literal(v, console.look)
    end))
  end
  return true
end

--- Complete a name as the interpreter of some host of a set has it; nothing if
-- none can say so within 0.3 s.
-- @string set_text
-- @string text what is before the cursor
-- @treturn {string,...} what the last word of it may become
function console.complete(set_text, text)
  local nodes = session.nodes(set_text)
  local word = text:match "[%a_][%w_.:]*$" or ""
  if not nodes then
    return {}
  end
  get_server()
  local deadline = pp.time() + COMPLETE_WITHIN
  local active = server:get_active_nodes()
  local node = nodes[1]
  for _, name in ipairs(nodes) do
    if active[name] and (known[name] or not active[node] or not known[node]) then
      node = name
      if known[name] then
        break
      end
    end
  end
  local ok, job = pcall(server.submit, server, {
    answer.complete, args = { word, globals, COMPLETIONS }, on = node, retries = 0,
  })
  if not ok then
    return {}
  end
  local ended
  ok, ended = pcall(job.wait, job, math.max(0, deadline - pp.time()))
  if not ok or not ended then
    job:cancel()
    job:pcall()
    return {}
  end
  local done, found = job:pcall()
  local list = {}
  for _, name in ipairs(strings(done and found)) do
    if name:find "^[%w_.:]+$" then
      list[#list + 1] = name
    end
  end
  return list
end

return console
