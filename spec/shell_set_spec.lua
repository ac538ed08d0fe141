-- SPDX-License-Identifier: MIT
--- `@SET expr`: what is evaluated on the hosts of a set, and what is seen of it.
local child = require "spec.support.child"
local remote = require "spec.support.remote"
local run = require "spec.support.run"

local prelude = [[
  local console, session = require "pp.shell.console", require "pp.shell.session"
  local function at(set, source)
    local ok, wrong = console.eval(set, source)
    if ok == nil then io.stderr:write(wrong, "\n") end
    return ok
  end
  local function mark(text) io.stdout:write(text, "\n") io.stdout:flush() end
]]

describe("@SET", function()
  if remote.missing() then
    pending(remote.missing(), function() end)
    return
  end
  local net

  setup(function()
    net = remote.new()
    for i = 1, 3 do net:sshd("node" .. i, {env = {WHICH = "w" .. i}}) end
  end)
  teardown(function() net:close() end)

  local function start(text, options)
    return net:start(prelude .. text, options or {options = {"-j1", "-H", "node[1-3]/2"}})
  end
  -- Its end, without what is said of hosts that take their time to connect.
  local function finish(p)
    local r = child.finish(p)
    assert.are.equal(0, r.status, r.err)
    r.err = r.err:gsub("waiting for [^\n]*\n", "")
    return r
  end
  local function said(text, options)
    local r = finish(start(text, options))
    return r.out, r.err
  end

  it("folds what is the same and shows the rest apart", function()
    local out, err = said [[
      at("all", "_VERSION")
      at("all", "n = tonumber(pp.job.node:match '%d')")
      at("all", "n < 3")
      at("node[1-3]!node2", "n")
      at("node2,local", "n")
      at("all", "{n = n > 1, list = {1, 2, {x = 'y'}}}")
      at("all", "(function() local t = {} t.t = t t[1] = {up = t} return t end)()")
      at("all", "print, {print}")
      at("all", "os.getenv 'WHICH'")
      at("all", "n, 'x'")
    ]]
    assert.are.equal("", err)
    assert.matches("^" .. [[
node%[1%-3%]: Lua 5%.4
node%[1%-2%]: true
node3: false
node1: 1
node3: 3
node2: 2
local: nil
node%[2%-3%]: {list = {1, 2, {x = "y"}}, n = true}
node1: {list = {1, 2, {x = "y"}}, n = false}
node%[1%-3%]: {{up = <cycle: 2 up>}, t = <this table>}
node%[1%-3%]: function: [^\n]*0x[^\n]*	{function: [^\n]*}
node1: w1
node2: w2
node3: w3
node1: 1	x
node2: 2	x
node3: 3	x
$]], out)
  end)

  it("folds what is written, and errors that mean the same", function()
    local out, err = said [[
      at("all", "n = pp.job.node:match '%d' print('hello', n < '3') io.stderr:write 'careful'")
      at("all", "error('no table: 0x' .. ('5'):rep(11) .. n)")
      at("all", "local f = assert(io.open(os.getenv 'XDG_CACHE_HOME' .. '/nothing'))")
      at("all", "error('on ' .. pp.job.node, 0)")
    ]]
    assert.are.equal("node[1-2]: hello\ttrue\nnode3: hello\tfalse\n", out)
    local lines = {}
    for line in err:gmatch "[^\n]+" do
      if line:find "^node" then lines[#lines + 1] = line end
    end
    assert.are.equal("node[1-3]: careful", lines[1])
    assert.are.equal("node[1-3]: stdin:1: no table: 0x...", lines[2])
    assert.are.equal("node[1-3]: on HOST", lines[#lines])
  end)

  it("says how answers differ", function()
    local out, err = said [[
      console.diff()
      at("all", "1")
      console.diff()
      at("all", "n = tonumber(pp.job.node:match '%d')")
      at("all", "{a = {b = n // 3, c = 1}, list = {1, n == 3 and 5 or 2, 3}," ..
        "[n == 3 and 'more'] = 1}")
      console.diff()
      at("all", "('line\\n'):rep(5) .. (n == 3 and 'other' or 'last') .. '\\nend'")
      console.diff()
    ]]
    assert.are.equal("there are no answers to compare\n", err)
    assert.matches("all the same", out)
    assert.matches([[
%-%-%- node%[1%-2%]
%+%+%+ node3
%- a%.b = 0
%+ a%.b = 1
%- list%[2%] = 2
%+ list%[2%] = 5
%+ more = 1
%- %[false%] = 1
]], out)
    assert.matches([[
%-%-%- node%[1%-2%]
%+%+%+ node3
@ line 6
%- last
%+ other
$]], out)
  end)

  it("has one interpreter on each host, on the connection there is", function()
    local out = said [[
      local s = session.server()
      s:wait_hosts()
      at("all", "x = (x or 0) + 1")
      at("all", "x = (x or 0) + 1 return x")
      print(s:get_stats().node1.ncpus, s:get_stats().node1.njobs)
      print(s:submit{function() return x end, on = "node1"}())
    ]]
    assert.are.equal("node[1-3]: 2\n2\t0\nnil\n", out)
    assert.are.equal(3, select(2, (net.lab:log "node1" .. net.lab:log "node2"
      .. net.lab:log "node3"):gsub("Accepted publickey", "")) // 4)
  end)

  it("names those that do not answer in time, and keeps what can be kept", function()
    local out, err = said [[
      at("all", "n = pp.job.node:match '%d'")
      console.limit(1.5)
      at("all", "if n == '1' then while true do end end " ..
        "if n == '2' then os.execute 'sleep 99' end return 'ok'")
      console.limit(0)
      at("all", "n")
    ]]
    assert.are.equal("node3: ok\nnode1: 1\nnode2: nil\nnode3: 3\n", out)
    assert.are.equal("node1: no answer within 1.5 s (stopped)\n"
      .. "node2: no answer within 1.5 s (had to be killed: its globals are gone)\n", err)
  end)

  it("shows what is written while it runs, and stops it also in the midst of that", function()
    local p = start [[
      at("all", "n = 1")
      console.limit(0)
      at("all", "for i = n, 1000 do print(i) os.execute 'sleep 0.1' end")
      mark "done"
    ]]
    for i = 1, 3 do p:expect(("node[^\n]*: %d\n"):format(i * 5)) end
    p:kill "INT"
    p:expect "done\n"
    local r = finish(p)
    assert.are.equal("node[1-3]: did not finish (stopped)\n", r.err)
  end)

  it("ends with Ctrl-C everywhere, and says who did not finish", function()
    local p = start [[
      at("all", "n = pp.job.node:match '%d'")
      at("all", "if n ~= '3' then print('busy') while true do end end return 'early'")
      at("all", "n")
      mark "done"
    ]]
    p:expect("node[1-2]: busy\n", true)
    p:kill "INT"
    p:expect("node3: early\nnode1: 1\nnode2: 2\nnode3: 3\ndone\n", true)
    local r = finish(p)
    assert.are.equal("node[1-2]: did not finish (stopped)\n", r.err)
    assert.are.same({}, net:left "node1")
  end)

  it("names a host that dies meanwhile, and says that its globals are gone", function()
    local p = start [[
      at("all", "n = pp.job.node:match '%d'")
      mark "go"
      at("all", "if n == '2' then print 'here' while true do end end return n")
      mark "back"
      session.server():wait_hosts()
      console.limit(20)
      at("all", "n")
    ]]
    p:expect "go\n"
    p:expect "node2: here\n"
    net.lab:drop "node2"
    p:expect "node1: 1\nnode3: 3\n"
    p:expect "back\n"
    p:expect "node1: 1\nnode2: nil\nnode3: 3\n"
    local r = finish(p)
    assert.matches("node2: host 'node2' was lost %(.-%): its globals are gone\n", r.err)
  end)

  it("says why a host cannot be asked, and goes on with the others", function()
    local out, err = said([[
      print(at("node[1,9]", "1"))
      session.remove "node1"
      at("all", "2")
      print(at("node1", "3"))
      session.add "node1"
      at("all", "4")
    ]], {options = {"-j0", "--log", "error", "-H", "node[1-2],node9:1"}})
    assert.matches("nil\n", out)
    assert.matches("node2: 2\n", out, 1, true)
    assert.matches("node[1-2]: 4\n", out, 1, true)
    assert.matches("there is no host 'node9' here", err, 1, true)
    assert.matches("node9:1: cannot be used: ", err, 1, true)
    assert.matches("there is no host 'node1' here", err, 1, true)
  end)

  it("ends quietly when nobody reads what hosts write", function()
    local lines = run.file "@all for i = 1, 1e6 do print(i) end\n@all 5\n"
    for _ = 1, 3 do
      local r = run.program({"bash", "-c", ("%s -j1 -i -H node[1-3]/1 <%s | head -n 3 >/dev/null; "
        .. "echo ${PIPESTATUS[0]}"):format(run.quote(run.ppsh_path), lines)},
        {env = {PATH = net.path}, timeout = 60})
      assert.are.equal("141\n", r.out)
      assert.is_nil(r.err:find("ppsh: ", 1, true))
    end
  end)

  it("completes as a host has it", function()
    local out = said [[
      at("node2", "only_there = {}")
      print(table.concat(console.complete("node2", "x = only_t"), " "))
      print(#console.complete("node9", "only_t"))
    ]]
    assert.are.equal("only_there\n0\n", out)
  end)
end)
