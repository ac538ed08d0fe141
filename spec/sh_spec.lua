-- SPDX-License-Identifier: MIT
-- server:sh: commands as jobs. Runs inside ppsh.
local child = require "spec.support.child"
local pp = require "pp"

describe("server:sh", function()
  local server

  setup(function() server = pp.Server(2) end)
  teardown(function()
    server:destroy()
    child.clean()
  end)

  it("gives the exit status and what was written, apart", function()
    local r = server:sh("echo out; echo err >&2; exit 3")()
    assert.equal(3, r.status)
    assert.is_nil(r.signal)
    assert.equal("out\n", r.stdout)
    assert.equal("err\n", r.stderr)
    assert.is_number(r.time)
  end)

  it("tells which signal has killed the command", function()
    local r = server:sh("kill -9 $$")()
    assert.equal(9, r.signal)
    assert.equal(137, r.status)
  end)

  it("shows a list of words to no shell", function()
    local words = {"$HOME", "a  b", "'", '"', "\n", "-n", "*", "\xff\xfe", ""}
    local r = server:sh({"printf", "[%s]", table.unpack(words)})()
    assert.equal("[" .. table.concat(words, "][") .. "]", r.stdout)
  end)

  it("takes a command that begins with a dash for a command", function()
    local r = server:sh("-x")()
    assert.equal(127, r.status)
  end)

  it("reads stdin, or none", function()
    local text = ("0123456789\n"):rep(200000)
    assert.equal(text, server:sh("cat", {stdin = text})().stdout)
    assert.equal("", server:sh("cat")().stdout)
    -- who does not read it all is no mistake
    assert.equal("0123", server:sh("head -c 4", {stdin = text})().stdout)
  end)

  it("runs in the directory, with the variables and by the shell that were asked for", function()
    local dir = child.output_of "cd /usr && pwd -P":gsub("\n", "")
    assert.equal(dir .. "\n", server:sh("pwd -P", {cwd = "/usr"})().stdout)
    local r = server:sh("echo $A-$HOME-$PATH", {env = {A = "x y", HOME = false}})()
    assert.equal("x y--" .. os.getenv "PATH" .. "\n", r.stdout)
    r = server:sh("BEGIN { print 1 + 1 }", {shell = "/bin/echo"})()
    assert.equal("-c BEGIN { print 1 + 1 }\n", r.stdout)
  end)

  it("fails when the command cannot be run, and says why", function()
    local ok, err = server:sh({"/no/such/program"}):pcall()
    assert.is_false(ok)
    assert.equal("error", err.kind)
    assert.equal("cannot run '/no/such/program': No such file or directory", err.message)
    ok, err = server:sh("pwd", {cwd = "/no/such/place"}):pcall()
    assert.is_false(ok)
    assert.equal("cannot run in '/no/such/place': No such file or directory", err.message)
  end)

  it("kills what writes more than the limit", function()
    local ok, err = server:sh("yes", {limit = 100000}):pcall()
    assert.is_false(ok)
    assert.equal("the command wrote more than 100000 bytes to stdout", err.message)
    assert.equal(100000, #server:sh("head -c 100000 /dev/zero", {limit = 100000})().stdout)
  end)

  it("kills the command and what it has started when it is cancelled or late", function()
    local file = child.gate().path .. ".pids"
    local command = ("sleep 1000 & echo $! >%s; echo $$ >>%s; wait"):format(file, file)
    local function pids()
      local f = io.open(file)
      local a, b
      if f then
        a, b = f:read("n", "n")
        f:close()
      end
      return a and b and {a, b}
    end
    local job = server:sh(command)
    local both = assert(child.eventually(pids))
    job:cancel()
    for _, pid in ipairs(both) do
      assert.is_true(child.eventually(function() return not child.alive(pid) end))
    end
    os.remove(file)
    local ok, err = server:sh(command .. "; wait", {timeout = 0.3}):pcall()
    assert.is_false(ok)
    assert.equal("timeout", err.kind)
    both = pids()
    for _, pid in ipairs(both or {}) do
      assert.is_true(child.eventually(function() return not child.alive(pid) end))
    end
  end)

  it("ends what the command leaves running", function()
    local r = server:sh("sleep 1000 & echo $!")()
    local pid = tonumber(r.stdout)
    assert.is_true(child.eventually(function() return not child.alive(pid) end))
  end)

  it("is a job as any other: callbacks, names, places", function()
    local got
    local job = server:sh("echo x", {
      name = "n", callbackargs = {1}, callback = function(a, r) got = {a, r.stdout} end,
      on = "local",
    })
    job:wait()
    assert.same({1, "x\n"}, got)
    assert.equal("n", job.name)
  end)

  it("runs in a job, and where there are no workers", function()
    local function f()
      return require "pp".Server():sh("echo nested")().stdout
    end
    assert.equal("nested\n", server:spawn(f)())
    local here <close> = pp.Server(0)
    assert.equal("here\n", here:sh("echo here")().stdout)
    local ok, err = here:sh("sleep 1000", {timeout = 0.1}):pcall()
    assert.is_false(ok)
    assert.equal("timeout", err.kind)
  end)

  it("refuses nonsense at the call", function()
    local function refused(text, ...)
      local ok, err = pcall(server.sh, server, ...)
      assert.is_false(ok)
      assert.matches(text, err, 1, true)
    end
    refused("cmd must be a string or a list of strings, got nil", nil)
    refused("cmd has no words", {})
    refused("word 2 of cmd must be a string, got table", {"a", {}})
    refused("the command holds a zero byte", "a\0b")
    refused("bad argument #2 to 'sh' (unknown option 'foo')", "a", {foo = 1})
    refused("bad argument #2 to 'sh' (cwd must be a string, got number)", "a", {cwd = 1})
    refused("bad argument #2 to 'sh' (priority must be a number, got string)", "a",
      {priority = "x"})
    refused("'a=b' is no name for a variable", "a", {env = {["a=b"] = "c"}})
    refused("shell goes with a string", {"a"}, {shell = "/bin/sh"})
  end)
end)
