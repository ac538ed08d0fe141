-- SPDX-License-Identifier: MIT
-- The page for those who come from parallelpython: its programs are run.
local describe, it, assert, after_each = describe, it, assert, after_each
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"

local path = "scripts/man/coming-from-parallelpython.md"

--- The blocks of a page: language, text, and the line they begin in.
local function blocks_of(page)
  local blocks, block, n = {}, nil, 0
  for line in page:gmatch "(.-)\n" do
    n = n + 1
    local fence = line:match "^```(.*)$"
    if block and fence then
      block.text = table.concat(block, "\n") .. "\n"
      blocks[#blocks + 1], block = block, nil
    elseif fence then
      block = {language = fence, line = n}
    elseif block then
      block[#block + 1] = line
    end
  end
  return blocks
end

--- A pattern for an output: seconds, that is numbers with a fraction, may be
-- others; all else is as it stands.
local function pattern_of(text)
  text = text:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0")
  text = text:gsub(" *%d+%%%.%d+", function(number)
    return number:find "100%%%.00" and number or " *[%d.e-]+"
  end)
  return "^" .. text .. "$"
end

after_each(child.clean)

describe("the page for those who come from parallelpython", function()
  local blocks = blocks_of(assert(run.read(path)))

  for i, block in ipairs(blocks) do
    if block.language == "lua" then
      it("has a program in line " .. block.line .. " that prints what it says", function()
        local r = child.run(block.text, {args = {"2"}})
        assert.are.same({0, ""}, {r.status, r.err})
        assert.is_truthy(r.out:find(pattern_of(blocks[i + 1].text)), r.out)
      end)
    end
  end

  it("has no other blocks than programs and what they print", function()
    assert.is_true(#blocks > 10)
    for i, block in ipairs(blocks) do
      assert.are.equal(i % 2 == 1 and "lua" or "text", block.language)
    end
  end)

  it("names nothing that is not there", function()
    local manual = run.read "scripts/man/pp.3"
    for name in run.read(path):gmatch "server:([%w_]+)" do
      assert.is_truthy(manual:find("\\fBserver:" .. name .. "\\fP", 1, true), name)
    end
  end)
end)
