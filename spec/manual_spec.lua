-- SPDX-License-Identifier: MIT
local run = require "spec.support.run"

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
