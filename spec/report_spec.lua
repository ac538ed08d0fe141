-- SPDX-License-Identifier: MIT
-- --report: the page that tells how a run went.
local describe, it, assert, teardown = describe, it, assert, teardown
-- Functions of this file are jobs: their globals are the real ones.
local _ENV = _G -- luacheck: ignore 211

local child = require "spec.support.child"
local run = require "spec.support.run"
local text = require "pp.shell.report.text"
local verdict = require "pp.shell.report.verdict"

teardown(run.cleanup)

local start = [[
  local pp = require "pp"
  local server = pp.Server(2)
]]

-- Elements that have no end.
local void = { meta = true, ["!doctype"] = true }
-- Those that belong in SVG or HTML as we write it.
local known = {}
for name in ([[html head title style body main header p h1 h2 div span section ul li i b svg text
  line rect path table thead tbody tr th td code pre meta !doctype]]):gmatch "%S+" do
  known[name] = true
end

-- Is the page well-formed, by a strict reading: every tag known, closed in
-- order, attributes quoted, text without "<" and "&" but as entities?
local function check(page)
  local stack, at = {}, 1
  page = page:gsub("<style>.-</style>", "")
  while true do
    local from, to, close, name, attributes, own = page:find("<(/?)([!%w]+)([^<>]*)(/?)>", at)
    local between = page:sub(at, (from or #page + 1) - 1)
    assert.is_nil(between:find "[<>]", between)
    for entity in between:gmatch "&[^;]*;?" do
      assert.matches("^&[#%w]+;$", entity)
    end
    if not from then break end
    own = own == "/" or attributes:sub(-1) == "/"
    assert.is_true(known[name] or false, "unknown element " .. name)
    if close == "/" then
      assert.are.equal(name, table.remove(stack))
    else
      local rest = attributes:gsub('[%w%-:]+="[^"]*"', ""):gsub("[%s/]", "")
      if name ~= "!doctype" then assert.are.equal("", rest) end
      if not void[name] and not own then stack[#stack + 1] = name end
    end
    at = to + 1
  end
  assert.are.same({}, stack)
  assert.is_nil(page:find "script src")
  assert.is_nil(page:lower():find "https?:")
  assert.is_nil(page:find "<script")
end

local function report(script, options)
  local file = run.directory() .. "/report.html"
  local list = {"--report", file}
  for _, o in ipairs(options or {}) do list[#list + 1] = o end
  local r = child.run(script, {options = list})
  local page = run.read(file)
  return r, page, file
end

-- The rows of the table under a heading: lists of cells, as text.
local function rows(page, heading)
  local part = page:match("<h2>" .. heading .. "</h2>(.-)</section>") or ""
  local list = {}
  for row in (part:match "<tbody>(.*)</tbody>" or ""):gmatch "<tr>(.-)</tr>" do
    local cells = {}
    for cell in row:gmatch "<td[^>]*>(.-)</td>" do
      cells[#cells + 1] = cell:gsub("<[^>]*>", "")
    end
    list[#list + 1] = cells
  end
  return list
end

local function rule(page) return page:match 'data%-rule="(%l+)"' end

describe("--report", function()
  it("tells of a run with no jobs", function()
    local r, page = report "print 'hello'"
    assert.are.equal(0, r.status)
    assert.are.equal("hello\n", r.out)
    check(page)
    assert.are.equal("nothing", rule(page))
    assert.matches("No job ran%.", page)
  end)

  it("tells of a run with one job", function()
    local _, page = report(start .. "server:spawn(function() end)()")
    check(page)
    assert.are.equal(1, #rows(page, "The job"))
    assert.matches("<svg", page)
  end)

  it("adds up to what get_stats says", function()
    local r, page = report(start .. [[
      server:map(function(x) if x == 7 then error "seven" end return x end, pp.range(1, 300),
        {on_error = "keep"})
      for i = 1, 20 do server:spawn(function() return ("x"):rep(1000) end) end
      server:wait()
      local s = server:get_stats()["local"]
      print(s.njobs, s.sent, s.received)
      server:print_stats(io.stderr)
    ]])
    check(page)
    local njobs, sent, received = r.out:match "(%d+)\t(%d+)\t(%d+)"
    local host = rows(page, "Hosts")[1]
    assert.are.equal("local", host[1])
    assert.are.equal("2", host[2])
    assert.are.equal(njobs, host[3])
    assert.are.equal(text.bytes(tonumber(sent)), host[6])
    assert.are.equal(text.bytes(tonumber(received)), host[7])
    assert.are.equal("1", host[9])
    local function lines(s)
      return (s:gsub("Time elapsed[^\n]*", ""):gsub("&[^;]*;", ""))
    end
    assert.are.equal(lines(r.err), lines(page:match "<pre[^>]*>(.-)</pre>"))
    assert.are.same({{"error", "items of map, whose errors were kept", "1", "0"}},
      rows(page, "Failures by cause"))
  end)

  it("names the slowest jobs, their function and its file and line", function()
    local _, page = report(start .. [[
      local function nap(s) require "pp".sleep(s) end
      for i = 1, 30 do server:spawn(nap, i == 11 and 0.1 or 0.001) end
      server:submit{nap, args = {0.2}, name = "the longest"}
      server:wait()
    ]])
    local list = rows(page, "Slowest jobs")
    assert.are.equal(20, #list)
    assert.are.equal("the longest", list[1][2])
    assert.are.equal("nap", list[2][2])
    assert.are.equal("10", list[2][1])
    assert.matches("script.lua:3$", list[2][3])
  end)

  it("counts failures by their cause", function()
    local _, page = report(start .. [[
      local jobs = {}
      for i = 1, 6 do
        jobs[i] = server:spawn(function() error(i % 3 == 0 and "three\nmore" or "other", 0) end)
      end
      jobs[7] = server:submit{function() os.exit(2) end, retries = 1}
      for _, j in ipairs(jobs) do j:pcall() end
    ]])
    check(page)
    local list = rows(page, "Failures by cause")
    assert.are.equal(4, #list)
    assert.are.same({"error", "other", "4", "0"}, list[1])
    local seen = {}
    for _, row in ipairs(list) do seen[row[1] .. " " .. row[3] .. " " .. row[4]] = row[2] end
    assert.are.equal("three", seen["error 2 0"])
    assert.matches("exited with status 2$", seen["lost 0 1"])
  end)

  it("escapes whatever a job is called and whatever it says", function()
    local bad = "</script></svg><b a='\"'>&amp; \255\1 \u{20AC}"
    local _, page = report(start .. ([[
      local j = server:submit{function() error(%q, 0) end, name = %q}
      j:pcall()
    ]]):format(bad, bad))
    check(page)
    assert.is_truthy(page:find(text.escape(bad), 1, true))
    assert.is_nil(page:find(bad, 1, true))
    assert.is_truthy(utf8.len(page))
  end)

  it("stays small however many jobs and workers there are", function()
    local _, page = report [[
      local pp = require "pp"
      local server = pp.Server(70)
      server:map(function(x) return x end, pp.range(1, 25000), {chunk = 1})
    ]]
    check(page)
    assert.is_true(#page < 1500000)
    assert.are.equal("25,000", rows(page, "Hosts")[1][3])
  end)

  it("is written at every ending", function()
    local work = start .. [[
      local function kill(signal) -- not by os.execute: that ignores SIGINT
        local pid = io.open "/proc/self/stat":read "n"
        io.popen(("kill -%s %d"):format(signal, pid)):close()
      end
      server:spawn(function() return 1 end)()
    ]]
    for name, e in pairs {
      ["os.exit"] = {"os.exit(3)", 3}, ["an error"] = {"error 'over'", 1},
      SIGTERM = {"kill 'TERM' pp.sleep(30)", 143},
      SIGINT = {"kill 'INT' pp.sleep(30)", 130},
      destroyed = {"server:destroy()", 0},
    } do
      local r, page = report(work .. e[1])
      assert.are.equal(e[2], r.status, name)
      check(page)
      assert.are.equal(1, #rows(page, "The job"), name)
      assert.matches("job execution statistics", page:lower(), name)
    end
  end)

  it("goes with --trace, but not to the same file", function()
    local directory = run.directory()
    local r = child.run("", {options = {"--trace", directory .. "/x", "--report",
      directory .. "/x"}})
    assert.are.equal(2, r.status)
    assert.matches("%-%-trace and %-%-report name the same file, '.*/x'", r.err)
  end)

  it("that cannot be written is an error at once", function()
    local r = child.run("print 'ran'", {options = {"--report", "/nowhere/r.html"}})
    assert.are.equal(1, r.status)
    assert.are.equal("", r.out)
    assert.are.equal(
      "ppsh: cannot write the report '/nowhere/r.html': No such file or directory\n", r.err)
    r = child.run(start .. "server:spawn(math.sqrt, 4)()", {options = {"--report", "/dev/full"}})
    assert.are.equal(1, r.status)
    assert.matches("cannot write the report '/dev/full': No space left on device", r.err)
  end)

  it("shows what ran here where there are no workers", function()
    local _, page = report [[
      local pp = require "pp"
      local server = pp.Server(0)
      server:map(function(x) return x end, {1, 2, 3})
    ]]
    check(page)
    assert.are.equal("serial", rule(page))
  end)
end)

describe("the sentence of a report", function()
  -- A run of so many seconds with two workers, changed by `with`.
  local function data(with)
    local d = {
      wall = 10, attempts = 100, again = 0, jobs = 100, failed = 0, never = 0, run = 10, cpu = 10,
      cpus = 4, far_way = 0, causes = {}, slowest = {},
      idle = { script = 0, start = 0, driver = 0, way = 0, cost = 0, tail = 0, never = 0 },
      nodes = { { name = "local", here = true, ncpus = 2, cpu = 10, sent = 0, received = 0 } },
      last = { func = "f", id = 99, run = 0.1, begun = 9.9, ended = 10 },
    }
    for k, v in pairs(with) do
      if k == "idle" then
        for name, s in pairs(v) do d.idle[name] = s end
      else
        d[k] = v
      end
    end
    return d
  end
  local far = { name = "node5", here = false, ncpus = 2, cpu = 1, sent = 5e9, received = 1e6 }

  for expected, with in pairs {
    nothing = { attempts = 0, jobs = 0, wall = 0, run = 0 },
    serial = { nodes = { { name = "local", here = true, ncpus = 0, cpu = 1 } } },
    failures = { failed = 60, causes = { { kind = "error", why = "no", failed = 60, again = 0 } } },
    waiting = { run = 19, cpu = 2 },
    workers = { run = 19, cpu = 18, idle = { tail = 1 } },
    cpus = { cpus = 1, idle = { cost = 10 } },
    few = { attempts = 1, jobs = 1, idle = { never = 10 } },
    straggler = { idle = { tail = 8 },
      last = { func = "f", id = 7, run = 9, begun = 1, ended = 10 } },
    script = { idle = { script = 9 } },
    start = { idle = { start = 9 } },
    link = { idle = { way = 9 }, far_way = 8, nodes = { far } },
    small = { attempts = 5000, idle = { cost = 9 } },
    driver = { attempts = 2, run = 18, cpu = 17, wall = 12, idle = { driver = 3 } },
  } do
    it("names " .. expected, function()
      local which, sentence, hint = verdict.of(data(with))
      assert.are.equal(expected, which)
      assert.matches("%.$", sentence)
      assert.are.equal("string", type(hint))
    end)
  end

  it("counts jobs where there are too few, not attempts at them", function()
    local function said(with)
      with.idle = { tail = 9 }
      return (select(2, verdict.of(data(with))):match "^Too few jobs: (.*), which")
    end
    assert.are.equal("60 jobs for 2 workers", said { attempts = 64, again = 4, jobs = 60 })
    assert.are.equal("1,000 jobs, in 3 chunks, for 2 workers",
      said { attempts = 4, again = 1, jobs = 1000 })
    assert.are.equal("1 job for 2 workers", said { attempts = 1, jobs = 0 })
  end)

  it("never divides by nothing", function()
    for _, run_time in ipairs {0, 1e-9} do
      for _, attempts in ipairs {0, 1} do
        local which = verdict.of(data { wall = 0, run = run_time, attempts = attempts,
          cpu = 0 })
        assert.are.equal("string", type(which))
      end
    end
  end)
end)

describe("text of a report", function()
  it("has numbers as people read them", function()
    local got = {}
    for i, s in ipairs {0, 3.2e-9, 1.234e-5, 0.4567, 59.96, 61, 3700, 90000} do
      got[i] = text.duration(s)
    end
    assert.are.same({"0 s", "3 ns", "12.3 µs", "457 ms", "60.0 s", "61.0 s", "1 h 1 min",
      "1 d 1 h"}, got)
    assert.are.equal("1,234,567", text.count(1234567))
    assert.are.equal("123", text.count(123))
    assert.are.equal("1.23 MB", text.bytes(1234567))
    assert.are.equal("999 B", text.bytes(999))
    assert.are.equal("1 job", text.counted(1, "job"))
    assert.are.equal("€€…", text.cut("€€€€", 3))
  end)
end)
