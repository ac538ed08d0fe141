-- SPDX-License-Identifier: MIT
local run = require "spec.support.run"

describe("the prompt", function()
  local state

  before_each(function() state = run.directory() end)
  teardown(run.cleanup)

  -- At a terminal that understands no escapes, so that only text is seen.
  local function open()
    local p = run.start_ppsh({}, {
      pty = true,
      env = {TERM = "dumb", XDG_STATE_HOME = state, INPUTRC = "/dev/null"},
    })
    p:expect "> "
    return p
  end

  local function enter(p, line, answer)
    p:write(line .. "\n")
    p:expect(line, true) -- its echo
    if answer then p:expect("\n" .. answer .. "\r\n", true) end
    p:expect "> "
  end

  local function leave(p)
    p:write "\4"
    local r = p:wait()
    assert.are.equal(0, r.status)
    return r
  end

  it("names itself and Lua", function()
    local p = open()
    assert.matches("^ppsh %d.-\r\nLua 5%.4%.%d+  Copyright", p:out())
    leave(p)
  end)

  it("prints the values of expressions", function()
    local p = open()
    enter(p, "1 + 1", "2")
    enter(p, "=3, nil, 'x'", "3\tnil\tx")
    enter(p, "x = 5")
    enter(p, "x", "5")
    enter(p, "return x, x", "5\t5")
    enter(p, "type(pp)", "table")
    leave(p)
  end)

  it("continues lines that are not complete", function()
    local p = open()
    p:write "for i = 1, 2 do\n"
    p:expect ">> "
    p:write "print(i * 10)\n"
    p:expect ">> "
    p:write "end\n"
    p:expect("\n10\r\n20\r\n> ", true)
    p:write "(1 +\n"
    p:expect ">> "
    p:write "2)\n"
    p:expect("\n3\r\n> ", true)
    p:write "do\n"
    p:expect ">> "
    p:write "\4"
    p:expect "<eof>"
    p:wait()
  end)

  it("shows errors and goes on", function()
    local p = open()
    p:write "error 'no'\n"
    p:expect("\nstdin:1: no\r\nstack traceback:", true)
    p:expect "> "
    p:write "x = = 1\n"
    p:expect "unexpected symbol near '='"
    p:expect "> "
    p:write "error({})\n"
    p:expect("(error object is a table value)", true)
    p:expect "> "
    enter(p, "1", "1")
    leave(p)
  end)

  it("uses _PROMPT and _PROMPT2", function()
    local p = open()
    p:write("_PROMPT = 'one: ' _PROMPT2 = setmetatable({},"
      .. " {__tostring = function() return 'two: ' end})\n")
    p:expect "\none: "
    p:write "do\n"
    p:expect "\ntwo: "
    p:write "end\n"
    p:expect "\none: "
    leave(p)
  end)

  it("clears the line at Ctrl-C", function()
    local p = open()
    p:write "error('not me"
    p:expect "not me"
    p:write "\3"
    p:expect "\n> $"
    p:write "do\n"
    p:expect ">> "
    p:write "\3"
    p:expect "\n> $"
    enter(p, "7", "7")
    assert.is_nil(p:out():find("stack traceback", 1, true))
    leave(p)
  end)

  it("stops what is being evaluated at Ctrl-C, and can do it again", function()
    local p = open()
    for _ = 1, 3 do
      p:write "io.write 'spin' io.write 'ning\\n' while true do end\n"
      p:expect "spinning\r\n"
      p:write "\3"
      p:expect "interrupted!"
      p:expect "> "
    end
    p:write "coroutine.wrap(function() print('co' .. 'ro') while true do end end)()\n"
    p:expect "coro\r\n"
    p:write "\3"
    p:expect "interrupted!"
    p:expect "> "
    enter(p, "8", "8")
    leave(p)
  end)

  it("ends by os.exit", function()
    local p = open()
    p:write "os.exit(9)\n"
    assert.are.equal(9, p:wait().status)
  end)

  it("ends by a signal, and leaves the terminal as it was", function()
    local file = run.directory() .. "/pid"
    local p = run.start({"sh", "-c", 'stty -a >"$1.before"; "$0" -i -e "$2"; echo "ended $?";'
      .. ' stty -a >"$1.after"', run.ppsh_path, file,
      ("local f = io.open('/proc/self/stat') print('pid ' .. f:read 'n')")}, {
        pty = true, env = {TERM = "dumb", XDG_STATE_HOME = state},
      })
    local pid = p:expect("pid %d+"):match "%d+"
    p:expect "> "
    os.execute("kill -s TERM " .. pid)
    p:expect "ended 143"
    p:wait()
    assert.are.equal(run.read(file .. ".before"), run.read(file .. ".after"))
  end)

  it("keeps history between runs", function()
    local p = open()
    enter(p, "'first line'", "first line")
    enter(p, "  ")
    enter(p, "'first line'", "first line")
    leave(p)
    assert.are.equal("'first line'\n", run.read(state .. "/ppsh/history"))
    p = open()
    p:write "\16\n" -- Ctrl-P
    p:expect("\nfirst line\r\n", true)
    leave(p)
  end)

  it("completes names and fields", function()
    local p = open()
    p:write "string.form\t('%d', 12)\n"
    p:expect("\n12\r\n", true)
    p:write "coll\t('count') > 0\n"
    p:expect("\ntrue\r\n", true)
    p:write "setmetatable(_G, {__index = function() error 'looked' end}) and nil\n"
    p:expect("\nnil\r\n", true)
    p:write "nothing.at\t = = 1\n"
    p:expect "unexpected symbol"
    leave(p)
  end)

  it("is shown by -i after the script, terminal or not", function()
    local r = run.ppsh({"-i", "-e", "x = 4"}, {stdin = "x\nfor i = 1, 2 do\nprint(i) end\n=x + 1"})
    assert.are.equal(0, r.status)
    assert.matches("^Lua 5.4.-\n> 4\n> >> 1\n2\n> 5\n> \n$", r.out)
    r = run.ppsh({"-i", run.file "y = ..."  , "arg"}, {stdin = "y"})
    assert.matches("\n> arg\n> \n$", r.out)
    r = run.ppsh({"-i", "-e", "error 'no'"}, {stdin = "1"})
    assert.are.equal(1, r.status)
  end)
end)
