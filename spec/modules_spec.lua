-- SPDX-License-Identifier: MIT
-- require in jobs: modules of the submitting side, asked for on demand.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

--- A new directory with these modules: name -> source.
local function modules(sources)
  local directory = run.directory()
  for name, text in pairs(sources) do
    local sub = name:match "(.*)/"
    if sub then os.execute(("mkdir -p %s/%s"):format(directory, sub)) end
    write(directory .. "/" .. name .. ".lua", text)
  end
  return directory
end

local path

--- Search in this directory only while f runs.
local function within(directory, f, ...)
  path = package.path
  package.path = directory .. "/?.lua"
  local results = table.pack(pcall(f, ...))
  package.path = path
  return table.unpack(assert(results[1], results[2]) and results, 2, results.n)
end

after_each(function()
  package.path = path or package.path
  child.clean()
end)

describe("require in a job", function()
  it("finds the Lua modules of the submitting side", function()
    local server <close> = pp.Server(2)
    local where = modules{mine = "return {name = ..., file = select(2, ...)}"}
    local m = within(where, function()
      return server:spawn(function()
        local mine = require "mine"
        return {name = mine.name, file = mine.file}
      end)()
    end)
    assert.are.same({name = "mine", file = where .. "/mine.lua"}, m)
  end)

  it("runs them once in a worker, in its base globals", function()
    local server <close> = pp.Server(1)
    local where = modules{state = "loads = (loads or 0) + 1; return {n = 0}"}
    local function count()
      local state = require "state"
      state.n = state.n + 1
      return loads, state.n -- luacheck: ignore
    end
    within(where, function()
      assert.are.same({1, 1}, {server:spawn(count)()})
      assert.are.same({1, 2}, {server:spawn(count)()})
    end)
  end)

  it("loads modules that need others", function()
    local server <close> = pp.Server(1)
    local where = modules{
      outer = "return 'outer ' .. require 'inner'",
      inner = "return 'inner ' .. require 'inmost'",
      inmost = "return 'inmost'",
    }
    assert.are.equal("outer inner inmost", within(where, function()
      return (server:spawn(function() return (require "outer") end)())
    end))
  end)

  it("works for modules = {...} too, which sets the global", function()
    local server <close> = pp.Server(1)
    local where = modules{given = "return {value = 5}"}
    assert.are.equal(5, within(where, function()
      local get = load "return given.value"
      return server:submit{get, modules = {"given"}}()
    end))
  end)

  it("reaches a module of a dotted name by its name", function()
    local where = modules{
      pk = "return {name = 'pk'}", ["pk/sub"] = "return {name = 'pk.sub'}",
      ["pk/sub/low"] = "return {name = 'pk.sub.low'}", ["string/more"] = "return {}",
    }
    within(where, function()
      for _, ncpus in ipairs {0, 1} do
        local server <close> = pp.Server(ncpus)
        local function get(code, ...)
          return server:submit{load("return " .. code), modules = {...}}()
        end
        assert.are.equal("pk.sub", get("pk.sub.name", "pk.sub"))
        assert.is_nil(get("pk"))
        assert.are.equal("pk.sub.low", get("pk.sub.low.name", "pk.sub.low"))
        for _, names in ipairs {{"pk", "pk.sub", "pk.sub.low"}, {"pk.sub.low", "pk.sub", "pk"}} do
          assert.are.equal("pk pk.sub pk.sub.low", get(
            "pk.name .. ' ' .. pk.sub.name .. ' ' .. pk.sub.low.name", table.unpack(names)))
        end
        assert.is_true(get("pk.sub == require 'pk.sub' and pk == require 'pk'", "pk.sub", "pk"))
        -- what stands there
        local own, names = load "return pk", {"pk.sub"}
        for _, pk in ipairs {"mine", {mine = 1}} do
          assert.are.same(pk, server:submit{own, modules = names, globals = {pk = pk}}())
        end
        assert.is_nil(get("string.more", "string.more"))
        assert.are.equal("table", get("type(_G['string.more'])", "string.more"))
      end
    end)
  end)

  it("works when the jobs behind it are on their way already", function()
    local server <close> = pp.Server(1)
    local where = modules{late = "return 'late'"}
    within(where, function()
      local big, jobs = ("x"):rep(300000), {}
      for i = 1, 60 do
        jobs[i] = server:spawn(function(k, s)
          if k % 20 == 10 then return k, (pcall(require, "none" .. k)) end
          return k, k % 7 == 3 and require "late" or #s
        end, i, i % 3 == 0 and big or "")
      end
      for i = 1, 60 do
        local k, v = jobs[i]()
        assert.are.equal(i, k)
        if i % 20 == 10 then
          assert.is_false(v)
        else
          assert.are.equal(i % 7 == 3 and "late" or i % 3 == 0 and #big or 0, v)
        end
      end
    end)
  end)

  it("names the real file in errors", function()
    local server <close> = pp.Server(1)
    local where = modules{
      fails = "local function f() error 'no' end\nf()",
      wrong = "x = = 1",
      later = "return {f = function()\nerror 'in f' end}",
    }
    within(where, function()
      local _, err = server:spawn(function() return require "fails" end):pcall()
      assert.are.equal(where .. "/fails.lua:1: no", err.message)
      _, err = server:spawn(function() return require "wrong" end):pcall()
      assert.is_truthy(err.message:find("error loading module 'wrong' from file '"
        .. where .. "/wrong.lua':\n\t" .. where .. "/wrong.lua:1: ", 1, true))
      _, err = server:spawn(function() return require "later".f() end):pcall()
      assert.are.equal(where .. "/later.lua:2: in f", err.message)
      assert.is_truthy(err.traceback:find(where .. "/later.lua:2:", 1, true))
    end)
  end)

  it("passes over a first line that begins with #", function()
    local server <close> = pp.Server(1)
    local where = modules{script = "#!/usr/bin/ppsh\nreturn debug.getinfo(1, 'l').currentline"}
    assert.are.equal(2, within(where, function()
      return (server:spawn(function() return (require "script") end)())
    end))
  end)

  it("says what was tried, and on which side", function()
    local server <close> = pp.Server(1)
    local where = modules{}
    local _, err = within(where, function()
      return server:spawn(function() return require "no.such" end):pcall()
    end)
    assert.are.equal("error", err.kind)
    assert.is_truthy(err.message:find("module 'no.such' not found:", 1, true))
    assert.is_truthy(err.message:find("\n\tno file '" .. where
      .. "/no/such.lua' (submitting side)\n", 1, true), err.message)
    assert.is_truthy(err.message:find("\n\tno file '[^\n]*/no/such%.so' %(worker%)\n"), err.message)
  end)

  it("looks from the directory the script is in", function()
    local r = child.run([[
      local lfs = require "lfs"
      local pp = require "pp"
      local server = pp.Server(1)
      package.path = "./?.lua"
      print(server:spawn(function() require "lfs".chdir "/" return require "near" end):pcall())
      lfs.chdir "below"
      print(server:spawn(function() return (require "far") end)())
    ]], {cwd = (function()
      local where = modules{near = "return 'near'"}
      os.execute("mkdir " .. where .. "/below")
      write(where .. "/below/far.lua", "return 'far'")
      return where
    end)()})
    assert.are.equal("true\tnear\t./near.lua\nfar\n", r.out, r.err)
  end)

  it("reads a file that has changed anew in a new worker", function()
    local server <close> = pp.Server{ncpus = 1, restart = 1}
    local where = modules{edited = "return 'old'"}
    within(where, function()
      local get = function() return (require "edited") end
      assert.are.equal("old", server:spawn(get)())
      assert.are.equal("old", server:spawn(get)())
      write(where .. "/edited.lua", "return 'a new one'")
      assert.are.equal("a new one", server:spawn(get)())
    end)
  end)

  it("follows a package.path that the job has set", function()
    local server <close> = pp.Server(1)
    local where = modules{own = "return 'own'"}
    assert.are.equal("own", server:spawn(function(directory)
      package.path = directory .. "/?.lua"
      return (require "own")
    end, where)())
  end)

  it("works in everywhere", function()
    local server <close> = pp.Server(2)
    local where = modules{setup = "return {ready = true}"}
    within(where, function()
      local list = server:everywhere(load "setup = require 'setup'; return setup.ready")
      assert.is_true(list[1][1] and list[2][1])
    end)
    assert.is_true(server:spawn(load "return setup.ready")())
  end)

  it("finds no file whose name has a zero byte, and no directory", function()
    local server <close> = pp.Server(1)
    local where = modules{}
    os.execute("mkdir " .. where .. "/dir.lua")
    within(where, function()
      assert.is_false((server:spawn(function() return require "dir" end):pcall()))
      assert.is_false((server:spawn(function() return require "a\0b" end):pcall()))
      assert.is_false((server:spawn(function() return require(("x"):rep(5000)) end):pcall()))
      assert.are.equal(1, server:spawn(math.abs, -1)())
    end)
  end)
end)

describe("require in a job that runs in the script's process", function()
  it("finds what it finds in a worker, and fails as there", function()
    local where = modules{
      mine = "return {name = ..., file = select(2, ...)}",
      state = "loads = (loads or 0) + 1; return {n = 0}",
      outer = "return 'outer ' .. require 'inner'",
      inner = "return 'inner'",
      fails = "local function f() error 'no' end\nf()",
      wrong = "x = = 1",
      script = "#!/usr/bin/ppsh\nreturn debug.getinfo(1, 'l').currentline",
    }
    local function results(n)
      local server <close> = pp.Server(n)
      return within(where, function()
        local list = {}
        for _, name in ipairs{"mine", "mine", "outer", "fails", "wrong", "script", "no.such",
          "a\0b", "string"} do
          local ok, r = server:spawn(function(m)
            local t = require(m)
            return type(t) == "table" and (t.file or t == string) or t
          end, name):pcall()
          list[#list + 1] = {ok, ok and r or r.message}
        end
        for _ = 1, 2 do
          list[#list + 1] = {server:spawn(function()
            local state = require "state"
            state.n = state.n + 1
            return loads, state.n -- luacheck: ignore
          end)()}
        end
        list[#list + 1] = server:submit{load "return mine.name", modules = {"mine"}}()
        list[#list + 1] = server:everywhere(load "mine = require 'mine'; return mine.file")[1][1]
        return list
      end)
    end
    local here = results(0)
    assert.are.same({true, where .. "/mine.lua"}, here[1])
    assert.are.same(results(1), here)
    assert.is_nil(package.loaded.mine)
  end)

  it("looks along package.path as it was at submit, also in jobs within", function()
    local a, b = modules{which = "return 'a'"}, modules{which = "return 'b'"}
    local function which() return (require "which") end
    local function nested(f)
      package.path = "" -- the job's own
      return (pp.Server():spawn(f)())
    end
    for n = 0, 1 do
      local server <close> = pp.Server{ncpus = n, restart = 1}
      local one = within(a, server.spawn, server, which)
      local two = within(b, server.spawn, server, nested, which)
      assert.are.same({"a", "b"}, {one(), two()})
    end
  end)

  it("looks from the directory the script is in", function()
    local r = child.run([[
      local lfs = require "lfs"
      local pp = require "pp"
      local server = pp.Server(0)
      package.path = "./?.lua"
      print(server:spawn(function() require "lfs".chdir "/" return require "near" end):pcall())
      lfs.chdir "below"
      print(server:spawn(function() return (require "far") end)(), lfs.currentdir():sub(-6))
    ]], {cwd = (function()
      local where = modules{near = "return 'near'"}
      os.execute("mkdir " .. where .. "/below")
      write(where .. "/below/far.lua", "return 'far'")
      return where
    end)()})
    assert.are.equal("true\tnear\t./near.lua\nfar\t/below\n", r.out, r.err)
  end)
end)

describe("a function of a module that a job returns", function()
  it("is the script's own where the script has that module", function()
    local directory = modules{made_here = "local M = {} function M.one() return 1 end return M"}
    local server <close> = pp.Server(2)
    within(directory, function()
      local made = require "made_here"
      for _ = 1, 4 do
        local f = server:spawn(function() return require "made_here".one end)()
        assert.are.equal(made.one, f)
      end
    end)
    package.loaded.made_here = nil
  end)
end)
