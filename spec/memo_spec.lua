-- SPDX-License-Identifier: MIT
-- What is submitted again and again: each job has all that came with it as it
-- was at its submit, however little of it is packed anew.
local describe, it, assert, before_each = describe, it, assert, before_each
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

-- luacheck: globals memo_g memo_h, ignore 122 142 143

local pp = require "pp"

-- Each case makes {submit, change, undo}: what submits a job that returns 1, what
-- is done before it returns 2, what takes that back.
local cases = {}

cases["a captured table that is changed"] = function()
  local t = {1}
  return {
    submit = function(s) return s:submit(function() return t[1] end) end,
    change = function() t[1] = 2 end,
  }
end

cases["a captured table below another"] = function()
  local t = {deep = {1}}
  local function f() return t.deep[1] end
  return {submit = function(s) return s:submit(f) end, change = function() t.deep[1] = 2 end}
end

cases["a captured local that is assigned"] = function()
  local n = 1
  local function f() return n end
  return {submit = function(s) return s:submit(f) end, change = function() n = 2 end}
end

cases["a captured integer that becomes a float"] = function()
  local n = 1
  local function f() return math.type(n) == "integer" and 1 or 2 end
  return {submit = function(s) return s:submit(f) end, change = function() n = 1.0 end}
end

cases["a captured zero that changes its sign"] = function()
  local n = 0.0
  local function f() return 1 / n > 0 and 1 or 2 end
  return {submit = function(s) return s:submit(f) end, change = function() n = -0.0 end}
end

cases["a captured function replaced by debug.setupvalue"] = function()
  local function g() return 1 end
  local function f() return g() end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() debug.setupvalue(f, 1, function() return 2 end) end,
  }
end

cases["an upvalue of a captured function"] = function()
  local n = 1
  local function g() return n end
  local function f() return g() end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() debug.setupvalue(g, 1, 2) end,
  }
end

cases["an upvalue joined with another"] = function()
  local a, b = 1, 2
  local function f() return a end
  local function other() return b end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() debug.upvaluejoin(f, 1, other, 1) end,
  }
end

cases["a global function that is defined anew"] = function()
  memo_g = function() return 1 end
  local function f() return memo_g() end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() memo_g = function() return 2 end end,
  }
end

cases["a global function that others reach"] = function()
  memo_g = function() return 1 end
  memo_h = function() return memo_g() end
  local function f() return memo_h() end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() memo_g = function() return 2 end end,
  }
end

cases["a global that is set"] = function()
  memo_g = nil
  local function f() return memo_g or 1 end
  return {submit = function(s) return s:submit(f) end, change = function() memo_g = 2 end}
end

cases["a field of a standard table"] = function()
  string.memo_field = nil
  local function f() return string.memo_field or 1 end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() string.memo_field = 2 end,
    undo = function() string.memo_field = nil end,
  }
end

cases["a captured module that is loaded anew"] = function()
  package.preload.memo_module = function() return {value = 1} end
  local m = require "memo_module"
  local function f() return m.value end
  return {
    submit = function(s) return s:submit(f) end,
    change = function()
      package.loaded.memo_module = nil -- it travels by value from now on
      m.value = 2
    end,
    undo = function() package.preload.memo_module = nil end,
  }
end

cases["a list of depfuncs changed in place"] = function()
  local memo_dep = function() return 1 end
  local other = function() return 2 end
  local deps = {memo_dep = memo_dep}
  local function f() return _ENV.memo_dep() end
  return {
    submit = function(s) return s:submit(f, {}, deps) end,
    change = function() deps.memo_dep = other end,
  }
end

cases["depfuncs that get one more"] = function()
  local deps = {memo_one = function() return 1 end}
  local function f() return (_ENV.memo_two or _ENV.memo_one)() end
  return {
    submit = function(s) return s:submit(f, {}, deps) end,
    change = function() deps.memo_two = function() return 2 end end,
  }
end

cases["depfuncs that lose one"] = function()
  local deps = {memo_one = function() return 1 end, memo_two = function() return 2 end}
  local function f() return _ENV.memo_one and 1 or _ENV.memo_two() end
  return {
    submit = function(s) return s:submit(f, {}, deps) end,
    change = function() deps.memo_one = nil end,
  }
end

cases["a depfunc under another name"] = function()
  local g = function() return 1 end
  local deps = {memo_one = g}
  local function f() return _ENV.memo_one and 1 or 2 end
  return {
    submit = function(s) return s:submit(f, {}, deps) end,
    change = function() deps.memo_one, deps.memo_two = nil, g end,
  }
end

cases["an upvalue of a depfunc"] = function()
  local n = 1
  local deps = {memo_dep = function() return n end}
  local function f() return _ENV.memo_dep() end
  return {submit = function(s) return s:submit(f, {}, deps) end, change = function() n = 2 end}
end

cases["a table that a depfunc captures"] = function()
  local t = {1}
  local deps = {memo_dep = function() return t[1] end}
  local function f() return _ENV.memo_dep() end
  return {submit = function(s) return s:submit(f, {}, deps) end, change = function() t[1] = 2 end}
end

cases["a listed global"] = function()
  memo_g = 1
  local function f() return _G["memo" .. "_g"] end
  local list = {"memo_g"}
  return {
    submit = function(s) return s:submit{f, globals = list} end,
    change = function() memo_g = 2 end,
  }
end

cases["a list of globals changed in place"] = function()
  memo_g, memo_h = nil, 2
  local function f() return _G["memo" .. "_h"] or 1 end
  local list = {}
  return {
    submit = function(s) return s:submit{f, globals = list} end,
    change = function() list[1] = "memo_h" end,
  }
end

cases["a map of globals changed in place"] = function()
  local map = {memo_x = 1}
  local function f() return _G["memo" .. "_x"] end
  return {
    submit = function(s) return s:submit{f, globals = map} end,
    change = function() map.memo_x = 2 end,
  }
end

cases["an integer in a map of globals that becomes a float"] = function()
  local map = {memo_x = 1}
  local function f() return math.type(_G["memo" .. "_x"]) == "integer" and 1 or 2 end
  return {
    submit = function(s) return s:submit{f, globals = map} end,
    change = function() map.memo_x = 1.0 end,
  }
end

cases["a table in a map of globals"] = function()
  local map = {memo_x = {1}}
  local function f() return _G["memo" .. "_x"][1] end
  return {
    submit = function(s) return s:submit{f, globals = map} end,
    change = function() map.memo_x[1] = 2 end,
  }
end

cases["a function in a map of globals"] = function()
  local n = 1
  local map = {memo_x = function() return n end}
  local function f() return _G["memo" .. "_x"]() end
  return {
    submit = function(s) return s:submit{f, globals = map} end,
    change = function() n = 2 end,
  }
end

cases["globals that are given no more"] = function()
  local map = {memo_x = 1}
  local function f() return _G["memo" .. "_x"] or 2 end
  return {
    submit = function(s) return s:submit{f, globals = map} end,
    change = function() map = nil end,
  }
end

cases["a list of modules changed in place"] = function()
  package.preload.memo_module = function() return {} end
  local modules = {"string"}
  local function f() return package.loaded["memo" .. "_module"] and 2 or 1 end
  return {
    submit = function(s) return s:submit{f, modules = modules} end,
    change = function() modules[1] = "memo_module" end,
    undo = function() package.preload.memo_module = nil end,
  }
end

cases["package.path"] = function()
  local was = package.path
  local function f() return package.path:find("memo-path", 1, true) and 2 or 1 end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() package.path = was .. ";/memo-path/?.lua" end,
    undo = function() package.path = was end,
  }
end

cases["package.preload"] = function()
  local function f() return pcall(require, "memo_preloaded") and 2 or 1 end
  return {
    submit = function(s) return s:submit(f) end,
    change = function() package.preload.memo_preloaded = function() return {} end end,
    undo = function() package.preload.memo_preloaded = nil end,
  }
end

describe("a job has it as it was at its submit:", function()
  before_each(function() memo_g, memo_h = nil, nil end)

  local names = {}
  for name in pairs(cases) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    it(name, function()
      local server <close> = pp.Server(1)
      local case = cases[name]()
      local jobs = {}
      for i = 1, 3 do jobs[i] = case.submit(server) end -- what can be kept is
      jobs[3]()
      jobs[4] = case.submit(server)
      case.change()
      for i = 5, 7 do jobs[i] = case.submit(server) end
      local got = {}
      for i, job in ipairs(jobs) do got[i] = job() end
      if case.undo then case.undo() end
      assert.are.same({1, 1, 1, 1, 2, 2, 2}, got)
    end)
  end
end)

describe("what a job changes", function()
  it("no other sees, however often the same is submitted", function()
    local server <close> = pp.Server(1)
    local n = 0
    local function f()
      n = n + 1
      memo_g = (memo_g or 0) + 1
      return n + memo_g
    end
    for _ = 1, 5 do assert.are.equal(2, server:submit(f)()) end
    for _ = 1, 5 do
      assert.are.equal(2, server:submit(f, {}, {memo_dep = function() end})())
    end
  end)
end)
