-- SPDX-License-Identifier: MIT
-- What require finds in a job.
local describe, it, assert, after_each = describe, it, assert, after_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local pp = require "pp"

after_each(child.clean)

local function prints(expected, code, options)
  local r = child.run(code, options)
  assert.are.equal(expected, r.out, r.err)
  assert.are.equal(0, r.status, r.err)
end

describe("require in a job", function()
  local preload, path = package.preload, package.path

  after_each(function()
    for name in pairs(preload) do
      if name:find("^spec_") then preload[name] = nil end
    end
    package.path = path
  end)

  it("finds modules by package.path as it was at submit, also at the first one", function()
    local dirs = {run.directory(), run.directory()}
    for i, dir in ipairs(dirs) do
      local f = io.open(dir .. "/spec_m" .. i .. ".lua", "w")
      f:write("return " .. i)
      f:close()
    end
    prints("1\t2\tfalse\ttrue\n", [[
      local pp = require "pp"
      local before, get = package.path, function(name) return (require(name)) end
      package.path = arg[1] .. "/?.lua;" .. before
      local server = pp.Server(1)
      local one = server:spawn(get, "spec_m1")
      package.path = arg[2] .. "/?.lua;" .. before
      local two = server:spawn(get, "spec_m2")
      package.path = before
      local server2 = pp.Server(1)
      print(one(), two(), (server2:spawn(get, "spec_m1"):pcall()),
        server:spawn(function() return package.path end)() == before)
    ]], {args = dirs})
  end)

  it("finds what the script has in package.preload, and keeps it loaded", function()
    local server <close> = pp.Server(1)
    preload.spec_a = function(name, how)
      return {name = name, how = how, b = require "spec_b.c", n = 0}
    end
    preload["spec_b.c"] = load("return {...}")
    local function use()
      local a = require "spec_a"
      a.n = a.n + 1
      return a.name, a.how, a.b[1], a.n
    end
    assert.are.same({"spec_a", ":preload:", "spec_b.c", 1}, {server:spawn(use)()})
    assert.are.same({"spec_a", ":preload:", "spec_b.c", 2}, {server:spawn(use)()})
    assert.are.same({"x3"}, {table.unpack(server:map(function(x)
      return x .. require "spec_a".n + 1
    end, {"x"}))})
    assert.are.equal("spec_a", server:submit{function()
      return spec_a.name -- luacheck: ignore 113
    end, modules = {"spec_a"}}())
    assert.are.equal("spec_a", server:spawn(function()
      return pp.Server():spawn(function() return require "spec_a".name end)()
    end)())
  end)

  it("does so without workers, too", function()
    prints("1\t2\t2\n", [[
      local pp = require "pp"
      local server = pp.Server(0)
      package.preload.spec_a = load("return 1")
      package.preload.spec_b = load("return 2")
      print(server:spawn(function()
        local two = pp.Server():spawn(function()
          return require "spec_b", pp.Server():spawn(function() return (require "spec_b") end)()
        end)
        return require "spec_a", two()
      end)())
    ]])
  end)

  it("loads it in the worker's base globals", function()
    local server <close> = pp.Server(1)
    preload.spec_a = load("spec_global = (spec_global or 0) + 1 return true")
    server:spawn(function()
      require "spec_a"
      spec_global = 7 -- luacheck: ignore 111
    end)()
    assert.are.same({nil, 1, n = 2}, table.pack(server:spawn(function()
      return rawget(_G, "spec_global"), spec_global -- luacheck: ignore 113
    end)()))
  end)

  it("follows what the script changes there", function()
    local server <close> = pp.Server(1)
    local function get(name) package.loaded[name] = nil return (require(name)) end
    for i = 1, 20 do
      preload.spec_a = load("return " .. i)
      assert.are.equal(i, server:spawn(get, "spec_a")())
    end
    preload.spec_a = nil
    assert.is_false(server:spawn(get, "spec_a"):pcall())
    assert.is_nil(server:spawn(function() return next(package.preload) end)())
  end)

  it("says why it does not find what cannot travel, only where it is asked for", function()
    local server <close> = pp.Server(1)
    local upvalue = io.stdout
    preload.spec_a = function() return upvalue end
    preload.spec_b = print
    assert.are.equal(1, server:spawn(function() return 1 end)())
    for name, why in pairs{spec_a = "it has the upvalue 'upvalue'",
      spec_b = "it is a C function"} do
      local ok, e = server:spawn(require, name):pcall()
      assert.is_false(ok)
      assert.is_truthy(e.message:find("module '" .. name .. "' not found", 1, true), e.message)
      assert.is_truthy(e.message:find("the script's loader in package.preload cannot travel: "
        .. why, 1, true), e.message)
    end
  end)
end)
