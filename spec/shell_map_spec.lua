-- SPDX-License-Identifier: MIT
local describe, it, assert, teardown = describe, it, assert, teardown

local child = require "spec.support.child"
local run = require "spec.support.run"

-- Run ppsh over this input: what it printed, and the whole result.
local function over(input, ...)
  local r = run.ppsh({...}, {stdin = input})
  return r.out, r
end

-- A file of numbered lines of different lengths.
local function numbered(n, last)
  local lines = {}
  for i = 1, n do lines[i] = i .. " " .. ("x"):rep(i * 7 % 31) end
  return table.concat(lines, "\n") .. (last or "\n")
end

local function grown(text, f)
  local out, i = {}, 0
  for line in (text:gsub("\n$", "") .. "\n"):gmatch "(.-)\n" do
    i = i + 1
    out[i] = f(line, i)
  end
  return table.concat(out, "\n") .. "\n"
end

describe("--map, --filter and --reduce", function()
  teardown(run.cleanup)

  it("map, filter and reduce lines of stdin", function()
    assert.are.equal("A\nBC\n", over("a\nbc\n", "--map", "line:upper()"))
    assert.are.equal("bc\n", over("a\nbc\n", "--filter", "#line > 1"))
    assert.are.equal("5050\n", over(numbered(100), "--map", "tonumber(f[1])", "--reduce", "a + b"))
    assert.are.equal("4\n8\n", over("1\n2\n3\n4\n", "--filter", "line % 2 == 0", "--map",
      "line * 2"))
    assert.are.equal("30\n", over("5\n10\n15\n", "--reduce", "a + b"))
  end)

  it("keep the order and the numbers of lines, however input is cut", function()
    local text = numbered(700, "\nthe last has no end")
    local file = run.file(text, "text")
    local want = grown(text, function(line, i) return i .. ":" .. line end)
    local twice = grown(text .. "\n" .. text, function(line, i) return i .. ":" .. line end)
    for _, block in ipairs {"1", "7", "100", "4096", "1M"} do
      local args = {"-j2", "--block", block, "--map", "i .. ':' .. line"}
      assert.are.equal(want, run.ppsh(args, {stdin = text}).out, block)
      assert.are.equal(want, run.ppsh(args, {stdin_file = file}).out, block)
      args[#args + 1], args[#args + 2] = file, file
      assert.are.equal(twice, run.ppsh(args).out, block)
    end
    assert.are.equal(want, over(text, "-j2", "--map", "i .. ':' .. line"))
    assert.are.equal(want, over(text, "-j0", "--map", "i .. ':' .. line"))
  end)

  it("look for a text as they do for all else", function()
    local text = numbered(400) .. "\n\nxx.y\na-b" -- the last has no end
    local file = run.file(text, "text")
    for _, what in ipairs {"('xx', 1, true)", " 'xx'", "('9 x')", "('.', 1, true)",
      "('a-b', 1, true)", " 'no such text'", "'x.y'"} do
      for _, size in ipairs {"9 1M", "700 100", "1M 1M"} do
        local block, max = size:match "(%S+) (%S+)"
        local function lines(filter)
          return run.ppsh({"-j2", "--block", block, "--max-line", max, "--filter", filter,
            "--map", "i, line", file}).out
        end
        assert.are.equal(lines("(line:find" .. what .. ")"), lines("line:find" .. what))
      end
    end
    assert.are.equal("xx.y\n", over(text, "--filter", "line:find('.', 1, true)"))
    assert.are.equal("b\n", over("a\nb\n", "-e", "function string.find(s) return s == 'b' end",
      "--filter", "line:find 'a'"))
  end)

  it("use all workers", function()
    local out = over(numbered(200), "-j3", "--map", "io.open('/proc/self/stat'):read 'n'")
    local pids, n = {}, 0
    for pid in out:gmatch "%d+" do
      if not pids[pid] then n = n + 1 end
      pids[pid] = true
    end
    assert.is_true(n > 1)
  end)

  it("show values as tostring does, drop nil, separate several by tabs", function()
    assert.are.equal("1\tfalse\t1.5\t\tx\n", over("1\n", "--map", "1, false, 1.5, nil, 'x'"))
    assert.are.equal("-9223372036854775808\t0\n", over("1\n", "--map", "math.mininteger, 0"))
    assert.are.equal("k\tv\n", over("k=v\nnothing\n", "--map", "line:match '(%w+)=(%w+)'"))
    assert.are.equal("2\n6\n", over("1\n2\n3\n", "--map",
      "local x = line * 2 if x ~= 4 then return x end"))
    assert.are.equal("", over("1\n2\n", "--map", ""))
  end)

  it("split fields", function()
    assert.are.equal("b\t3\n\t0\n", over("  a b\tc \n\n", "--map", "f[2], #f"))
    assert.are.equal("\tb\t3\n", over(":b:\n", "-F:", "--map", "f[1], f[2], #f"))
    assert.are.equal("a\tb\tc\n", over("a, b,c\n", "--fields", ", *", "--map",
      "f[1], f[2], f[3]"))
    assert.are.equal("b\n", over("a b\tb\n", "-F", "\\t", "--map", "f[2]"))
    assert.are.equal("a b\t\t\n", over("a b\n", "--map", "f[0], f[3], f.x"))
    assert.are.equal("a|b|c\n", over("a b c\n", "--map", "table.concat(f, '|')"))
    assert.are.equal("a X c d\n", over("a b c\n", "--map",
      "f[2] = 'X' f[#f + 1] = 'd' return table.concat(f, ' ')"))
    assert.are.equal("1a2b\n1c\n", over("a b\nc\n", "--map",
      "local s = '' for k, v in pairs(f) do s = s .. k .. v end return s"))
    assert.are.equal("a b\nc\n", over("a b\nc\nd\n", "--filter", "f[1] < 'd'"))
  end)

  it("see globals of -e and modules of -l, as they were", function()
    local dir = run.directory()
    local f = assert(io.open(dir .. "/shout.lua", "w"))
    f:write "return {up = function(s) return s:upper() .. '!' end}"
    f:close()
    local r = run.ppsh({"-e", "suffix = '?' n = 0 function count() n = n + 1 return n end",
      "-l", "shout", "--block", "1", "--map", "shout.up(line) .. suffix, count()"},
      {stdin = "a\nb\n", env = {LUA_PATH = dir .. "/?.lua"}})
    assert.are.equal("A!?\t1\nB!?\t1\n", r.out)
  end)

  it("take any bytes", function()
    assert.are.equal("3\n2\n1\n2\n", over("a\0b\n\xff\xfe\n\r\nx\r\n", "--map", "#line"))
    assert.are.equal("a\0b\n\xff\r\n", over("a\0b\n\xff\r", "--filter", "true"))
    assert.are.equal("", over("", "--map", "line"))
    assert.are.equal("", over("", "--reduce", "a + b"))
    assert.are.equal("\n\n", over("\n\n", "--map", "line"))
  end)

  it("print what one value or none is reduced to", function()
    assert.are.equal("x\n", over("x\n", "--reduce", "error 'never'"))
    assert.are.equal("", over("x\n", "--map", "nil", "--reduce", "a"))
    assert.are.equal("abcdefgh\n", over("a\nb\nc\nd\ne\nf\ng\nh\n", "-j2", "--block", "3",
      "--reduce", "a .. b"))
    local _, r = over("1\n2\n", "--reduce", "a.b.c")
    assert.are.equal(1, r.status)
    assert.matches("%-%-reduce:1: attempt to index", r.err)
  end)

  it("name files, and pass over those that cannot be read", function()
    local file = run.file("a\nb\n", "text")
    local r = run.ppsh({"--map", "file == arg or file:match '[^/]*$', i", "/nonexistent", file,
      "/", "-", file}, {stdin = "c\n"})
    assert.are.equal("text\t1\ntext\t2\n-\t3\ntext\t4\ntext\t5\n", r.out)
    assert.are.equal(1, r.status)
    assert.matches("ppsh: cannot read '/nonexistent': No such file or directory\n", r.err, 1, true)
    assert.matches("ppsh: cannot read '/': Is a directory\n", r.err, 1, true)
  end)

  it("read stdin once, however often it is named", function()
    local file = run.file("a\nb\n", "stdin")
    assert.are.equal("a\nb\n", run.ppsh({"--map", "line", "-", "-"}, {stdin_file = file}).out)
    assert.are.equal("1\n2\n", run.ppsh({"--map", "i", "-", "-"}, {stdin_file = file}).out)
  end)

  it("read many small files at once, in order", function()
    local dir = run.directory()
    local args, want = {"-j2", "--block", "64K", "--map", "file:match '%d+$', i, line"}, {}
    for k = 1, 300 do
      local f = assert(io.open(dir .. "/f" .. k, "w"))
      f:write(k, "\n", k * k, k % 2 == 0 and "\n" or "")
      f:close()
      args[#args + 1] = dir .. "/f" .. k
      want[#want + 1] = ("%d\t%d\t%d\n%d\t%d\t%d\n"):format(k, 2 * k - 1, k, k, 2 * k, k * k)
    end
    table.insert(args, 20, dir .. "/gone")
    local r = run.ppsh(args)
    assert.are.equal(table.concat(want), r.out)
    assert.are.equal(1, r.status)
    assert.are.equal("ppsh: cannot read '" .. dir .. "/gone': No such file or directory\n", r.err)
  end)

  it("read what is no plain file, and files that have no size", function()
    assert.are.equal(run.read "/proc/version", run.ppsh({"--map", "line", "/proc/version"}).out)
    local gate = child.gate()
    local p = run.start_ppsh({"--map", "line:upper()", gate.path}, {stdin = ""})
    gate:open()
    gate.writer:write("from a pipe\n")
    gate.writer:flush()
    p:expect "FROM A PIPE\n"
    gate.writer:close()
    assert.are.equal(0, p:wait().status)
  end)

  it("go on with a file that grows while it is read, and end with it", function()
    local file = run.file(numbered(3), "text")
    local r = run.ppsh({"-j1", "--block", "4", "-e",
      ("path = %q"):format(file), "--map",
      "if i == 1 then local f = io.open(path, 'a') f:write 'more\\n' f:close() end return f[1]",
      file})
    assert.are.equal("1\n2\n3\nmore\n", r.out)
  end)

  it("give out lines as they come", function()
    for _, jobs in ipairs {"-j2", "-j0"} do
      local p = run.start_ppsh {jobs, "--map", "line * 2"}
      p:write "1\n2\n"
      p:expect "2\n4\n"
      p:write "3\n4"
      p:expect "6\n"
      p:close_stdin()
      p:expect "8\n"
      assert.are.equal(0, p:wait().status)
    end
  end)

  it("stop at the first error, behind what came before", function()
    local text = numbered(50)
    local file = run.file(text, "text")
    local code = "if f[1] == '40' then error 'no more' end return f[1]"
    local before = {}
    for k = 1, 39 do before[k] = k .. "\n" end
    for _, block in ipairs {"1", "100", "1M"} do
      local r = run.ppsh {"-j2", "--block", block, "--map", code, file}
      assert.are.equal(table.concat(before), r.out)
      assert.are.equal(("ppsh: %s:40: --map:1: no more in \"40 %s\"\n"):format(file,
        ("x"):rep(40 * 7 % 31)), r.err)
      assert.are.equal(1, r.status)
    end
    local _, r = over(text, "--map", code)
    assert.matches("ppsh: (standard input):40: --map:1: no more", r.err, 1, true)
    r = run.ppsh {"--map", code, "/proc/version", file}
    assert.matches(file .. ":40:", r.err, 1, true)
  end)

  it("show the text of a line within bounds", function()
    local _, r = over(("\x1b[31m\xff\"" .. ("é"):rep(500)) .. "\n", "--map", "error 'x'")
    assert.is_true(#r.err < 1400)
    assert.is_nil(r.err:find "\x1b")
    assert.matches([[in "\x1B[31m\xFF\"]], r.err, 1, true)
    _, r = over(("é"):rep(500) .. "\n", "--map", "error 'x'")
    assert.matches('é"...\n', r.err, 1, true)
  end)

  it("hold no line that is too long", function()
    local file = run.file("short\n" .. ("x"):rep(300000) .. "\nafter\n", "text")
    local message = ":2: the line is longer than 102400 bytes (--max-line)\n"
    for _, block in ipairs {"100", "64K", "1M"} do
      local args = {"--block", block, "--max-line", "100K", "--map", "#line", file}
      local r = run.ppsh(args)
      assert.are.equal("5\n", r.out)
      assert.are.equal("ppsh: " .. file .. message, r.err)
      assert.are.equal(1, r.status)
      args[#args] = "-"
      r = run.ppsh(args, {stdin_file = file})
      assert.are.equal("5\n", r.out)
      assert.are.equal("ppsh: (standard input)" .. message, r.err)
      r = run.ppsh {"--block", block, "--map", "#line", file}
      assert.are.equal("5\n300000\n5\n", r.out)
    end
    local r = run.program {"sh", "-c", -- without end
      ("yes | tr -d '\\n' | %s --max-line 1M --map '#line'"):format(run.quote(run.ppsh_path))}
    assert.are.equal(1, r.status)
    assert.matches("(standard input):1: the line is longer than 1048576", r.err, 1, true)
  end)

  it("pass on what the code prints, before what it gives", function()
    local out = over("a\nb\n", "-j2", "--block", "1", "--map",
      "print('<' .. line .. '>') return line")
    assert.are.equal("<a>\na\n<b>\nb\n", out)
    local _, r = over("a\n", "--map", "io.stderr:write 'said'")
    assert.are.equal("said\n", r.err)
  end)

  it("do a block again when its worker is killed, and write it once", function()
    local file = run.file(numbered(2000), "text")
    local flag = run.directory() .. "/flag"
    local r = run.ppsh({"-j2", "--block", "1K", "-e", ("flag = %q"):format(flag), "--map", [[
      if i == 1000 and not io.open(flag) then
        io.open(flag, 'w'):close()
        os.execute 'kill -9 $PPID'
      end
      return f[1] ]], file})
    local want = {}
    for k = 1, 2000 do want[k] = k .. "\n" end
    assert.are.equal(table.concat(want), r.out)
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
    r = run.ppsh({"--map", "os.exit(3)"}, {stdin = "a\n"})
    assert.are.equal(1, r.status)
    assert.matches("%(standard input%):1: worker %d+ %(pid %d+%) exited with status 3", r.err)
  end)

  it("end by Ctrl-C at once, without a word", function()
    local begun = run.directory() .. "/begun"
    local p = run.start_ppsh {"-j2", "-e", ("begun = %q"):format(begun), "--map",
      "io.open(begun, 'w'):close() while true do end"}
    p:write "a\n"
    assert.is_true(child.eventually(function() return io.open(begun) ~= nil end))
    p:kill "INT"
    local r = p:wait()
    assert.are.equal(130, r.status)
    assert.is_nil(r.err:find "traceback")
  end)

  it("are quiet when nobody reads on", function()
    local r = run.program {"sh", "-c", ("yes | %s --map line | head -n 2"):format(
      run.quote(run.ppsh_path))}
    assert.are.equal("y\ny\n", r.out)
    assert.are.equal("", r.err)
    r = run.ppsh({"--map", "line"}, {stdin = "a\n", stdout_file = "/dev/full"})
    assert.are.equal("ppsh: cannot write to stdout: No space left on device\n", r.err)
    assert.are.equal(1, r.status)
  end)

  it("refuse what makes no sense with status 2", function()
    local function refused(message, ...)
      local _, r = over("a\n", ...)
      assert.are.equal(2, r.status)
      assert.matches("ppsh: " .. message .. "\nTry 'ppsh --help'.\n", r.err, 1, true)
    end
    refused("--map:1: unexpected symbol near <eof>", "--map", "line +")
    refused("--filter:1: <eof> expected near 'y'", "--filter", "x y")
    refused("--reduce:2: unexpected symbol near <eof>", "--reduce", "a +\n")
    refused("bad value for --block: '0' (bytes, or with K, M or G)", "--block", "0", "--map", "1")
    refused("bad value for --max-line: '1x' (bytes, or with K, M or G)", "--max-line", "1x",
      "--map", "1")
    refused("bad value for --fields: '' (is empty)", "-F", "", "--map", "1")
    refused("bad value for --fields: '[[' (malformed pattern (missing ']'))", "-F", "[[", "--map",
      "1")
    refused("--fold does not go with --map", "--fold", "--map", "1")
  end)
end)
