-- SPDX-License-Identifier: MIT
local describe, it, assert, teardown = describe, it, assert, teardown
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local run = require "spec.support.run"
local core = require "pp.core"
local pp = require "pp"

-- The set of options that stand first in their line.
local function options_in(text)
  local found = {}
  for option in text:gmatch "%f[%S](%-%-?[%w]*)%f[^%w%-]" do
    found[option] = true
  end
  return found
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local function keys(...)
  local set = {}
  for _, t in ipairs {...} do
    for k in pairs(t) do set[k] = true end
  end
  return set
end

--- The keys that do not begin with an underscore.
local function public(t)
  local set = {}
  for k in pairs(t) do set[k] = not k:match "^_" or nil end
  return set
end

--- The value of an upvalue of a function, by name or number.
local function upvalue(f, which)
  for i = 1, 255 do
    local name, value = debug.getupvalue(f, i)
    if not name then return nil end
    if i == which or name == which then return value end
  end
end

local function words(text)
  local set = {}
  for word in text:gmatch "%S+" do set[word] = true end
  return set
end

--- What the page of the library has: functions under their prefix, and the
-- names under each heading.
local function reference()
  local page = assert(run.read "scripts/man/pp.3")
  local functions, headings, names = {}, {}, nil
  local after_tag
  for line in page:gmatch "[^\n]+" do
    local heading = line:match '^%.SS "(.*)"$'
    if heading then
      names = {}
      headings[heading] = names
    elseif line:match "^%.SH" then
      names = nil
    elseif after_tag then
      local prefix, name = line:match "^\\fB(%l+)[.:]([%w_]+)\\fP%("
      if prefix then
        functions[prefix] = functions[prefix] or {}
        functions[prefix][name] = true
      elseif line:match "^\\fBjob\\fP%(" then
        functions.job = functions.job or {}
        functions.job.__call = true
      elseif names and line:match "^\\fB" then
        names[line:match "^\\fB([%w_]+)"] = true
      end
    end
    after_tag = line == ".TP"
  end
  return functions, headings
end

describe("the manual page", function()
  teardown(run.cleanup)

  it("has the options that --help lists", function()
    local help = ""
    for line in run.ppsh({"--help"}).out:gmatch "[^\n]+" do
      local listed = line:match "^  (%-.*)"
      if listed then help = help .. (listed:match "^(.-)   " or listed):gsub(",", "") .. "\n" end
    end
    local page = assert(run.read "scripts/man/ppsh.1")
    page = page:match "\n%.SH OPTIONS\n(.-)\n%.SH"
    local manual = ""
    for line in page:gmatch "%.TP\n([^\n]+)" do
      manual = manual .. line:gsub("^%.%u+ ", ""):gsub("\\f.", ""):gsub("\\%-", "-")
        :gsub('[",]', " "):gsub("%[.*", "") .. "\n"
    end
    assert.is_truthy(help:find("--jobs", 1, true))
    assert.are.same(sorted(options_in(help)), sorted(options_in(manual)))
  end)

  it("is well formed", function()
    local r = run.program {"sh", "-c", "command -v groff >/dev/null || exit 0; "
      .. "groff -man -ww -Tutf8 scripts/man/ppsh.1 >/dev/null"}
    assert.are.same({0, ""}, {r.status, r.err})
  end)
end)

describe("the manual page of the library", function()
  local functions, headings = reference()

  it("is what scripts/reference makes of the sources", function()
    local r = run.ppsh {"scripts/reference", "-"}
    assert.are.same({0, ""}, {r.status, r.err})
    assert.is_true(r.out == run.read "scripts/man/pp.3", "run scripts/reference")
  end)

  it("is made without ppsh as well", function()
    local r = run.program {run.lua_path, "scripts/reference", "-"}
    assert.are.equal("", r.err)
    assert.is_true(r.out == run.read "scripts/man/pp.3")
  end)

  it("is well formed", function()
    local r = run.program {"sh", "-c", "command -v groff >/dev/null || exit 0; "
      .. "groff -man -ww -Tutf8 scripts/man/pp.3 >/dev/null"}
    assert.are.same({0, ""}, {r.status, r.err})
  end)

  it("has the functions of pp, and no others", function()
    assert.are.same(sorted(keys(pp)), sorted(functions.pp))
  end)

  it("has the methods of a server, and no others", function()
    assert.are.same(sorted(public(core.server_methods)), sorted(functions.server))
  end)

  it("has the methods of a job and a template, and no others", function()
    local server <close> = pp.Server(1)
    local job = server:spawn(function() end)
    local index = debug.getmetatable(job).__index
    local methods = type(index) == "table" and index or upvalue(index, 1)
    assert.is_true(functions.job.__call)
    assert.are.same(sorted(public(methods)), sorted(public(functions.job)))
    local template = getmetatable(pp.Template(server, print)).__index
    assert.are.same(sorted(public(template)), sorted(functions.template))
    job()
  end)

  it("has the options of a server, and no others", function()
    assert.are.same(sorted(assert(upvalue(pp.Server, "known"))),
      sorted(headings["Options of pp.Server"]))
  end)

  --- Of the names, those an option of which this version takes.
  local function taken(names, try)
    local set = {}
    for name in pairs(names) do
      local _, err = pcall(try, {[name] = false})
      err = tostring(err)
      if not err:find("unknown option", 1, true)
        and not err:find("not supported by this version", 1, true) then
        set[name] = true
      end
    end
    return set
  end

  it("has the options of submit, and no others", function()
    local server <close> = pp.Server(1)
    local listed = headings["Options of submit"]
    local all = words [[func args deps modules callback callbackargs group globals
      timeout retries retry_errors priority on slots name memory forget progress]]
    local options = taken(keys(all, listed), function(spec)
      if spec.func == nil then spec[1] = function() end end
      server:submit(spec)
    end)
    assert.are.same(sorted(options), sorted(listed))
    server:wait()
  end)

  it("has the options of map and imap, and no others", function()
    local server <close> = pp.Server(1)
    local listed = headings["Options of map and imap"]
    local all = words [[ordered chunk buffer timeout on_error spread progress deps
      modules globals group retries retry_errors memory priority on slots name]]
    local options = taken(keys(all, listed), function(given)
      server:map(function() end, {1}, given)
    end)
    assert.are.same(sorted(options), sorted(listed))
  end)

  it("has the fields of a job", function()
    assert.are.same(sorted(words [[finished status id group name node worker attempts
      time bytes maxrss output errors]]), sorted(headings["Fields of a job"]))
  end)

  it("has the fields of an error and of pp.job", function()
    assert.are.same(sorted(words "kind message value traceback node worker job cause"),
      sorted(headings["Fields of a job\\(aqs error"]))
    assert.are.same(sorted(words "id node worker attempt seed"),
      sorted(headings["What runs: a table inside of a job, nil outside"]))
  end)

  it("has what get_stats returns", function()
    local server <close> = pp.Server(1)
    local listed = headings["Statistics of a node, as get_stats returns them"]
    for name in pairs(server:get_stats()["local"]) do
      assert.is_true(listed[name], name)
    end
  end)
end)
