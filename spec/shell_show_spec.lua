-- SPDX-License-Identifier: MIT
local show = require "pp.shell.show"

describe("what the prompt shows of a value", function()
  it("is what print prints, but for tables", function()
    for _, v in ipairs {1, 2.0, -0.0, "text\n", true, print, io.stdout} do
      assert.are.equal(tostring(v), show.value(v))
    end
    assert.are.equal("nil", show.value(nil))
    local v = setmetatable({1}, {__tostring = function() return "itself" end})
    assert.are.equal("itself", show.value(v))
  end)

  it("are the items of a table, then its fields in order", function()
    assert.are.equal("{}", show.value {})
    assert.are.equal('{1, "two", nil, 4}', show.value {1, "two", nil, 4})
    assert.are.equal('{1, [0] = 0, [2.5] = 1, a = 1, ["a b"] = 2, b = {c = 3}, ["end"] = 4, '
      .. "[true] = 5}",
      show.value({1, b = {c = 3}, [0] = 0, a = 1, ["a b"] = 2, ["end"] = 4, [true] = 5,
        [2.5] = 1}, {width = 100}))
    assert.are.equal("Account {owner = 1}",
      show.value(setmetatable({owner = 1}, {__name = "Account"})))
  end)

  it("has a line for each field when it does not fit on one", function()
    assert.are.equal('{\n  "one", "two",\n  "three",\n  name = {\n    first = "anna",\n'
      .. '    last = "b"\n  }\n}',
      show.value({"one", "two", "three", name = {first = "anna", last = "b"}}, {width = 20}))
  end)

  it("never is wider than the terminal, as long as each value fits", function()
    local t = {}
    for i = 1, 90 do t[i] = i * 7919 end
    t.list = {"日本語日本語", "é", {deep = {er = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}}}
    for width = 20, 100, 7 do
      for line in (show.value(t, {width = width}) .. "\n"):gmatch "(.-)\n" do
        assert.is_true(show.width(line) <= width, line)
      end
    end
  end)

  it("marks cycles", function()
    local t = {name = "t"}
    t.self, t.down = t, {up = t}
    assert.are.equal('{down = {up = <cycle: 2 up>}, name = "t", self = <this table>}',
      show.value(t))
    local shared = {1}
    assert.are.equal("{{1}, {1}}", show.value {shared, shared})
  end)

  it("is bounded, and says what is left out", function()
    local t = {}
    for i = 1, 123456 do t[i] = i end
    local text = show.value(t)
    assert.is_true(#text < 1000)
    assert.is_truthy(text:find("-- 123,356 more items", 1, true))
    t = {}
    for i = 1, 30000 do t["k" .. i] = {{}, {}} end
    text = show.value(t, {lines = 10})
    local _, lines = text:gsub("\n", "")
    assert.are.equal(9, lines)
    assert.is_truthy(text:find("more lines", 1, true))
    assert.is_truthy(text:find "%-%- 29,%d+ more fields\n}$")
    local deep = {}
    local at = deep
    for _ = 1, 1000 do at[1] = {}; at = at[1] end
    assert.are.equal("{{{{{{{{{..}}}}}}}}}", show.value(deep))
    local twice = {}
    for _ = 1, 60 do twice = {twice, twice} end
    assert.is_true(#show.value(twice, {depth = 60}) < 500000)
    assert.are.equal('{"xxxxx" .. 95 bytes more}', show.value({("x"):rep(100)}, {string = 5}))
  end)

  it("cannot disturb the terminal", function()
    assert.are.equal([[{"\x1b[2J\r\x00\xff\xc3é\\\"\u{9b}"}]],
      show.value {"\27[2J\r\0\xff\xc3é\\\"\u{9b}"})
    assert.are.equal([[{["\x1b"] = 1}]], show.value {["\27"] = 1})
    local v = setmetatable({}, {__tostring = function() return "\27]0;x\7\nmore" end})
    assert.are.equal([[{\x1b]0;x\a ..}]], show.value {v})
  end)

  it("stands what metatables do", function()
    local v = setmetatable({}, {__tostring = function() error "no" end, __index = error,
      __pairs = error, __len = error})
    assert.matches("<error in __tostring: .*: no>", show.value(v))
    assert.matches("^{<error in __tostring: .*: no>}$", show.value {v})
    assert.are.equal("{1}", show.value(setmetatable({1}, {__index = error, __pairs = error,
      __len = error, __name = 7})))
    assert.are.equal("{<error in __tostring: '__tostring' must return a string>}",
      show.value {setmetatable({}, {__tostring = function() return {} end})})
  end)

  it("has colors when asked", function()
    assert.are.equal('{\27[36m1\27[0m, \27[32m"a"\27[0m}', show.value({1, "a"}, {color = true}))
  end)
end)
