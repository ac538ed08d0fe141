-- SPDX-License-Identifier: MIT
--- Lines for hosts at the prompt itself, typed at a terminal.
local remote = require "spec.support.remote"
local run = require "spec.support.run"

describe("at the prompt", function()
  if remote.missing() then
    pending(remote.missing(), function() end)
    return
  end
  local net

  setup(function()
    net = remote.new()
    for i = 1, 2 do net:sshd("node" .. i) end
  end)
  teardown(function()
    net:close()
    run.cleanup()
  end)

  local function open()
    local p = run.start_ppsh({"-j1", "-H", "node[1-2]/1"}, {
      pty = true, timeout = 60,
      env = {TERM = "dumb", XDG_STATE_HOME = run.directory(), INPUTRC = "/dev/null",
        PATH = net.path},
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
    assert.are.equal(0, p:wait().status)
  end

  it("lines go to the hosts of .on, and here again", function()
    local p = open()
    enter(p, "n = 'here'")
    enter(p, "@all n = pp.job.node")
    enter(p, "@all n == 'node1', {n}", 'node1: true\t{"node1"}\r\nnode2: false\t{"node2"}')
    enter(p, ".diff", "--- node1\r\n+++ node2\r\n- #1 = true\r\n+ #1 = false\r\n"
      .. '- #2[1] = "node1"\r\n+ #2[1] = "node2"')
    p:write ".on node2\n"
    p:expect("@node2> ", true)
    enter(p, "n", "node2: node2")
    p:write "for i = 1, 2 do\n"
    p:expect ">> "
    p:write "print(i) end\n"
    p:expect("node2: 1\r\nnode2: 2\r\n", true)
    p:expect("@node2> ", true)
    enter(p, "error 'no'", "node2: stdin:9: no\r\nstack traceback:\r\n\t"
      .. "[C]: in function 'error'\r\n\tstdin:9: in main chunk")
    p:write ".local\n"
    p:expect "\n> "
    enter(p, "n", "here")
    enter(p, "@node3 n", "bad hosts 'node3': there is no host 'node3' here (character 1)\r\n"
      .. "node3\r\n^")
    leave(p)
  end)

  it("Ctrl-C ends a line on all hosts while jobs go on", function()
    local p = open()
    enter(p, "@all n = 7")
    enter(p, "s = pp.Server()")
    enter(p, "j = s:submit(function() require 'pp'.sleep(1) return 'lived' end)")
    p:write "@all print 'busy' while true do end\n"
    p:expect("node[1-2]: busy\r\n", true)
    p:write "\3"
    p:expect("node[1-2]: did not finish (stopped)\r\n", true)
    p:expect "> "
    enter(p, "@all n", "node[1-2]: 7")
    enter(p, "j()", "lived")
    leave(p)
    assert.are.same({}, net:left "node1")
  end)

  it("Tab completes names of a host, and hosts come and go", function()
    local p = open()
    enter(p, "@node1 only_there = 5")
    p:write "@node1 only_th\t"
    p:expect("only_there", true)
    p:write "\n"
    p:expect("node1: 5\r\n", true)
    p:expect "> "
    p:write ".hosts -node1\n"
    p:expect "node2 .-\n> "
    enter(p, "@all pp.job.node", "node2: node2")
    p:write ".hosts +node1/1\n"
    p:expect "node2 .-\n> "
    enter(p, "@node1 only_there", "node1: a new interpreter: the globals it had are gone\r\n"
      .. "node1: nil")
    leave(p)
  end)
end)
