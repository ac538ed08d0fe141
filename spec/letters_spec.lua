-- SPDX-License-Identifier: MIT
--- string.upper and string.lower, which are ppsh's own.
local every = {}
for c = 0, 255 do every[#every + 1] = string.char(c) end
local all = table.concat(every)

-- One at a time, by the codes of ASCII.
local function changed(text, first, by)
  return (text:gsub(".", function(c)
    local code = c:byte()
    if code >= first and code < first + 26 then return string.char(code + by) end
  end))
end

describe("letters", function()
  it("become upper and lower case, others stay", function()
    assert.are.equal(changed(all, 97, -32), all:upper())
    assert.are.equal(changed(all, 65, 32), all:lower())
  end)

  it("do wherever they stand and however long the text is", function()
    local text = all:rep(5)
    for n = 0, 100 do
      for from = 60, 130, 7 do
        local part = text:sub(from, from + n - 1)
        assert.are.equal(changed(part, 97, -32), part:upper())
        assert.are.equal(changed(part, 65, 32), part:lower())
      end
    end
    for n = 500, 530 do
      local part = text:sub(1, n)
      assert.are.equal(changed(part, 97, -32), part:upper())
      assert.are.equal(changed(part, 65, 32), part:lower())
    end
  end)

  it("take numbers, and say what else they were given", function()
    assert.are.equal("1E+20", string.upper(1e20))
    assert.has_error(function() string.upper() end,
      "bad argument #1 to 'upper' (string expected, got no value)")
    assert.has_error(function() string.lower {} end,
      "bad argument #1 to 'lower' (string expected, got table)")
  end)

  it("follow the locale", function()
    local name = os.setlocale("C.UTF-8", "ctype")
    if not name then return pending "no locale but C" end
    local text = "abc\u{e9}XYZ"
    assert.are.equal("ABC\u{e9}XYZ", text:upper())
    assert.are.equal("abc\u{e9}xyz", text:lower())
    os.setlocale("C", "ctype")
  end)

  it("travel by name", function()
    local s = require "pp".Server(1)
    assert.are.equal("AB CD", table.concat(s:map(string.upper, {"ab", "cd"}), " "))
    assert.is_true(s:submit(function(f) return f == string.lower end, {string.lower})())
    s:destroy()
  end)
end)
