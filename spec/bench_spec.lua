-- SPDX-License-Identifier: MIT
-- The measurements: that each is taken and shown. Never how fast anything is.
local run = require "spec.support.run"
local child = require "spec.support.child"

local directory = child.output_of "pwd":gsub("\n", "")
local bench = directory .. "/scripts/bench/run"

local function measure(args, env)
  local all = { PPSH = run.ppsh_path }
  for name, value in pairs(env or {}) do all[name] = value end
  return run.program({ bench, table.unpack(args) }, { env = all, timeout = 250 })
end

-- Of each line of JSON: the fields, and the names in their order.
local function read_json(text)
  local lines, names = {}, {}
  for line in text:gmatch "[^\n]+" do
    local fields = {}
    for key, value in line:gmatch '"(%w+)":("?[^,}]*)' do
      fields[key] = tonumber(value) or value:match '^"(.*)"$' or value
    end
    names[#names + 1] = fields.name
    lines[fields.name] = fields
  end
  return lines, names
end

describe("scripts/bench/run", function()
  teardown(run.cleanup)

  it("shows every line it lists, with its floor and ratio", function()
    -- A thousand workers are not for a sanitizer.
    local names = child.sanitized() and { "lone", "echo.1m", "busy." } or {}
    local listed = {}
    local list = measure { "--list", table.unpack(names) }
    for name in list.out:gmatch "([^\n%s]+)[^\n]*" do listed[#listed + 1] = name end
    assert.is_true(#listed >= #names + 2, list.err)

    local r = measure { "--quick", "--json", table.unpack(names) }
    assert.are.equal(0, r.status, r.out .. r.err)
    assert.are.equal("", r.err)
    local lines, shown = read_json(r.out)
    assert.are.same(listed, shown)
    for _, name in ipairs(listed) do
      local line = lines[name]
      if not line.skipped then
        assert.is_number(line.n, name)
        assert.is_number(line.seconds, name)
        assert.is_number(line.rate, name)
        assert.is_string(line.unit, name)
        assert.is_true(line.n > 0 and line.seconds >= 0, name)
        assert.is_number(line.floor, name)
        -- Nothing is so many times nothing.
        assert.is_true(type(line.ratio) == "number" or line.floor == 0, name)
      end
    end
  end)

  it("prints name, n, seconds, rate and ratio in columns", function()
    local r = measure { "--quick", "lone.pinned" }
    assert.are.equal(0, r.status, r.err)
    local head, titles, line, rest = r.out:match "^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$"
    assert.truthy(head:find "^# .*CPU")
    assert.truthy(titles:find "^name +n +seconds +rate +ratio +unit +floor")
    assert.truthy(line:find "^lone%.pinned +%d+ +[%d.]+ +[%d.]+ +[%d.]+ +us +[%d.]+$")
    assert.are.equal("", rest)
  end)

  it("makes a table in Markdown that says commit and machine", function()
    local r = measure { "--quick", "--markdown", "lone.pinned" }
    assert.are.equal(0, r.status, r.err)
    assert.truthy(r.out:find("^Taken with .* CPUs?, Linux [^\n]*\n\n| figure |"))
    assert.truthy(r.out:find("\n| `lone.pinned` |", 1, true))
  end)

  it("says which line failed, and goes on with the rest", function()
    -- A compiler that makes a floor that fails.
    local cc = run.file([[#!/bin/sh
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\nexit 3\n' >"$2"
chmod +x "$2"
]], "cc")
    os.execute("chmod +x " .. cc)
    local r = measure({ "--quick", "echo.1m", "primes" }, { CC = cc })
    assert.are.equal(1, r.status)
    assert.truthy(r.out:find "\necho%.1m +FAILED: [^\n]*'echo'[^\n]* failed\n")
    assert.truthy(r.out:find "\nprimes%.2 +8 ")
    assert.are.equal("run: failed: echo.1m\n", r.err)
  end)

  it("refuses what it does not know", function()
    local r = measure { "--fast" }
    assert.are.equal(2, r.status)
    assert.truthy(r.err:find("^run: unknown option '%-%-fast'\nusage: "))
    r = measure { "lone", "alone" }
    assert.are.equal(2, r.status)
    assert.truthy(r.err:find "^run: no line has 'alone' in its name")
    r = measure { "--cpu" }
    assert.are.equal(2, r.status)
    r = measure { "--cpu", "99999" }
    assert.are.equal(2, r.status)
    assert.truthy(r.err:find "^run: CPU 99999 is none of those this may use\n")
    r = measure({}, { PPSH = "/nowhere/ppsh" })
    assert.are.equal(1, r.status)
    assert.are.equal("run: no program at '/nowhere/ppsh': build it first\n", r.err)
    r = measure({}, { CC = "no-such-compiler" })
    assert.are.equal(1, r.status)
    assert.truthy(r.err:find "^run: no C compiler 'no%-such%-compiler'")
  end)

  it("stops when it is interrupted, and leaves nothing", function()
    local tag = "bench-" .. child.pid()
    local process = run.start({ "env", "--default-signal=INT", bench, "idle" },
      { env = { PPSH = run.ppsh_path, PP_SPEC_TAG = tag } })
    child.eventually(function() return #child.tagged(tag) > 6 end)
    process:kill("INT", true)
    local r = process:wait()
    assert.are.equal(130, r.status or r.signal)
    assert.truthy(r.err:find "run: interrupted\n")
    assert.are.same({}, child.left(tag))
  end)
end)

describe("scripts/bench/peers", function()
  teardown(run.cleanup)

  local function peers(args, env)
    local all = { PPSH = run.ppsh_path }
    for name, value in pairs(env or {}) do all[name] = value end
    return run.program({ directory .. "/scripts/bench/peers", table.unpack(args) },
      { env = all, timeout = 120 })
  end

  it("runs what is installed beside ppsh, and says what is not", function()
    local r = peers { "--quick", "doubles" }
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status, r.out)
    assert.truthy(r.out:find "\ndoubles +ppsh +%d+ +[%d.]+ +[%d.]+ +1%.00  M/s\n")
    for _, peer in ipairs { "python", "mce", "erlang", "r" } do
      assert.is_true(r.out:find("\ndoubles +" .. peer .. " +%d+ +[%d.]+ +[%d.]+ +[%d.]+  M/s\n")
        ~= nil or r.out:find("# not installed: " .. peer .. " ", 1, true) ~= nil, peer)
    end
  end)

  it("names the package of what is not installed", function()
    -- A parallel that is not GNU's.
    local other = run.file("#!/bin/sh\nexit 1\n", "parallel")
    os.execute("chmod +x " .. other)
    local r = peers({ "--quick", "--json", "gather", "parallel" },
      { PATH = other:match "^(.*)/" .. ":" .. os.getenv "PATH" })
    assert.are.equal(0, r.status, r.err)
    assert.truthy(r.out:find('{"peer":"parallel","missing":"parallel"}', 1, true))
  end)

  it("refuses what it does not know", function()
    local r = peers { "--full" }
    assert.are.equal(2, r.status)
    r = peers { "ruby" }
    assert.are.equal(2, r.status)
    assert.truthy(r.err:find "^peers: no work and no peer has 'ruby' in its name")
  end)
end)
