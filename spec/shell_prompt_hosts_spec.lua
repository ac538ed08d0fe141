-- SPDX-License-Identifier: MIT
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local screen = require "spec.support.screen"

describe("the prompt with hosts", function()
  local why = remote.missing() or screen.missing()
  if why then
    pending("is looked at: " .. why)
    return
  end
  local net, s

  setup(function()
    net = remote.new()
    for _, name in ipairs {"n1", "n2", "n3"} do net:sshd(name) end
    s = screen.open({"-j", "1", "-H", "n[1-2]/1"}, {env = {PATH = net.path}, rows = 50})
    s:ends ">"
  end)
  teardown(function()
    s:close()
    net:close()
  end)
  before_each(function()
    s:press "C-l"
    s:ends ">"
  end)

  it("evaluates on them, from line to line", function()
    s:enter "@all x = 20 + 1"
    s:sees "x = 20 %+ 1\n>$"
    s:enter "@all x * 2, {x}"
    s:ends "n[1-2]: 42      {21}\n>"
    s:enter "@n1 for i = 1, 2 do"
    s:ends ">>"
    s:enter "print('i', i) end"
    s:sees "\nn1: i%s+1\nn1: i%s+2\n>$"
    s:enter "@all"
    s:ends "what is to be evaluated there? @all EXPR (.on all stays there)\n>"
    s:enter "@n[1-4] 1"
    s:sees "there is no host 'n%[3%-4%]' here .-\n%^\n>$"
    s:enter "@all error 'no'"
    s:sees "n%[1%-2%]: stdin:7: no\n"
    s:sees "stdin:7: in main chunk\n>$"
  end)

  it("stays on a set that .on names", function()
    s:enter ".on n2"
    s:enter "y = 7"
    s:enter "y"
    s:ends "n2: 7\n@n2>"
    s:enter "@all y"
    s:ends "n1: nil\nn2: 7\n@n2>"
    s:enter ".sh echo $((y + 1)) there"
    s:sees "%[n2%] 1 there\n@n2>$"
    s:type "a_long_na"
    s:press "C-u"
    s:enter "a_long_name = 1"
    s:ends "@n2>"
    s:type "a_lon"
    s:press "Tab"
    s:ends "@n2> a_long_name"
    s:press "C-u"
    s:enter ".on nowhere"
    s:sees "there is no host 'nowhere' here"
    s:enter ".local"
    s:enter "y"
    s:ends "nil\n>"
  end)

  it("completes names of hosts", function()
    s:type "@n1,lo"
    s:press "Tab"
    s:ends "> @n1,local"
    s:press "C-u"
    s:type ".on al"
    s:press "Tab"
    s:ends "> .on all"
    s:press "C-u"
    s:ends ">"
  end)

  it("is given back by Ctrl-C, whatever hosts do", function()
    s:enter "@all io.write('bu', 'sy\\n') while true do end"
    s:sees "n%[1%-2%]: busy"
    s:press "C-c"
    s:sees "n%[1%-2%]: did not finish %(stopped%)\n>$"
    s:enter "@all x"
    s:ends "n[1-2]: 21\n>"
    s:enter "server = pp.Server(0)"
    s:enter "server:wait_hosts()"
    s:ends "true\n>"
    local gate = child.gate()
    s:enter(("a = server:submit(function(p) io.open(p):close() return 'went on' end, {'%s'})")
      :format(gate.path))
    s:enter "server:map(function() print('at', 'it') while true do end end, {1, 2})"
    s:sees "\nat%s+it"
    s:press "C-c"
    s:sees "interrupted!.-\n>$"
    gate:open()
    s:enter "a()"
    s:ends "went on\n>"
    s:enter "#server:map(type, {1, 2, 3})"
    s:ends "3\n>"
  end)

  it("shows the lines that errors of jobs there are of", function()
    s:enter "function f(n) error('bad ' .. n) end"
    s:enter "server:submit{f, args = {1}, on = 'n2'}()"
    local number = s:sees "\nstdin:(%d+): bad 1\n"
    s:ends(("typed before:\n        stdin:%s: function f(n) error('bad ' .. n) end\n>")
      :format(number))
    s:enter "_ = server:submit{f, args = {2}, on = 'n1'}"
    s:sees "%-%- job %d+ failed: stdin:%d+: bad 2, on n1, "
  end)

  it("adds hosts and lets them go", function()
    s:enter ".hosts +n3/1 -n2"
    s:enter "@n3 pp.job.node"
    s:ends "n3: n3\n>"
    s:press "C-l"
    s:enter ".hosts"
    s:sees "host   state      workers  jobs  reason\nlocal  connected        1     %d\n"
    s:sees "\nn3     connected        1     %d\n>$"
    assert.is_nil(s:text():find("n2", 1, true))
    s:enter ".hosts nonsense"
    s:sees "what is 'nonsense'%?"
    s:enter ".hosts -n7"
    s:sees "there is no host 'n7' here"
  end)

  it("does so for servers made without hosts, and counts the jobs of all", function()
    local there = screen.open({"-j", "1", "-H", "n[1-2]/1"}, {env = {PATH = net.path}, rows = 50})
    local _ <close> = setmetatable({}, {__close = function() there:close() end})
    there:ends ">"
    there:enter "function names(s) s:wait_hosts() local t = {} for n in pairs(s:get_stats()) do"
    there:enter "if s:get_active_nodes()[n] then t[#t + 1] = n end end table.sort(t)"
    there:enter "return table.concat(t, ' ') end"
    there:enter "one, own = pp.Server(1), pp.Server{ncpus = 1, hosts = 'n1/1'}"
    there:enter "names(one) .. ', ' .. names(own)"
    there:ends "local n1 n2, local n1\n>"
    there:enter ".hosts -n1 +n3/1"
    there:sees "\nhost   state .-\n>$"
    there:enter "two = pp.Server()"
    there:enter "names(one) .. ', ' .. names(two) .. ', ' .. names(own)"
    there:ends "local n2 n3, local n2 n3, local n1\n>"
    there:enter "function run(s, on) return s:submit{type, args = {1}, on = on}() end"
    there:enter "run(one, 'n3'), run(two, 'n3'), run(own, 'local')"
    there:sees "number%s+number%s+number\n>$"
    there:enter ".hosts"
    there:sees "\nlocal +connected +1 +1\nn2 +connected +1 +0\nn3 +connected +1 +2\n>$"
  end)
end)
