-- SPDX-License-Identifier: MIT
--- Sets of hosts as the shell has them, and putting equal answers together.
local run = require "spec.support.run"

-- What a script says that has these hosts; none of them is ever reached.
local function said(hosts, text)
  local args = {"--log", "error", "-j0"}
  if hosts then args[3], args[4], args[5] = "-j0", "-H", hosts end
  args[#args + 1] = run.file([[
    local session, fold = require "pp.shell.session", require "pp.shell.fold"
  ]] .. text)
  local r = run.ppsh(args)
  assert.are.equal("", r.err)
  return (r.out:gsub("\n$", ""))
end

local function nodes(hosts, set)
  return said(hosts, ([[
    local list, wrong = session.nodes(%q)
    print(list and table.concat(list, " ") or wrong)
  ]]):format(set))
end

describe("a set of hosts", function()
  teardown(run.cleanup)

  local hosts = "n[1-4],rack:22"

  it("is every host, this machine, or what it names", function()
    for set, want in pairs {
      all = "n1 n2 n3 n4 rack:22", ["local"] = "local", ["n[2-3]"] = "n2 n3",
      ["all!n2"] = "n1 n3 n4 rack:22", ["n[1-4]!n[1-2],local"] = "n3 n4 local",
      ["rack:22 , n1"] = "n1 rack:22", ["all!rack"] = "n1 n2 n3 n4",
      ["all,local"] = "n1 n2 n3 n4 rack:22 local",
    } do
      assert.are.equal(want, nodes(hosts, set))
    end
  end)

  it("is this machine where there are no hosts", function()
    assert.are.equal("local", nodes(nil, "all"))
  end)

  it("says what is wrong with it and where", function()
    for set, want in pairs {
      ["n[2-6]"] = "there is no host 'n[5-6]' here (character 1)\nn[2-6]\n^",
      ["n1, what"] = "there is no host 'what' here (character 5)\nn1, what\n    ^",
      ["n[1-"] = "a number is missing before the end (character 5)\nn[1-\n    ^",
      ["me@n1"] = "a node is named without a user (character 1)",
      ["n1/2"] = "a node is named without workers (character 4)",
      ["!n1"] = "there is nothing to take this from (character 2)",
      ["@hosts"] = "a file cannot stand here",
      ["n1!n1"] = "there is no host in the set 'n1!n1'",
      [""] = "a host is missing before the end",
    } do
      local text = nodes(hosts, set)
      assert.is_truthy(text:find(want, 1, true), set .. ": " .. text)
    end
  end)

  it("changes while hosts come and go", function()
    assert.are.equal("n1 n2|n1 n2 n3|n3|n3 n2|n3 n2 n1:22|nil", said("n[1-2]/4", [[
      local function show()
        io.write(table.concat(session.nodes "all", " "), "|")
      end
      show()
      assert(session.add "n3")
      show()
      session.remove "n[1-2]"
      show()
      assert(session.add "n2") -- not with four workers
      show()
      assert(session.add "me@n1:22/3")
      show()
      print((session.nodes "n1"))
    ]]))
  end)

  it("does not let go of this machine, nor take a host twice as different ones", function()
    local text = said("n1", [[
      print(session.remove "local")
      print(session.remove "n7")
      print(session.add "n1/7")
      print(session.add "x[")
      print(table.concat(session.nodes "all", " "))
    ]])
    assert.matches("'local' is this machine and stays", text, 1, true)
    assert.matches("there is no host 'n7' here", text, 1, true)
    assert.matches("nil\tbad hosts 'n1/7'", text, 1, true)
    assert.matches("nil\tbad hosts 'x['", text, 1, true)
    assert.matches("\nn1$", text)
  end)

  it("is cut off a line where it ends", function()
    assert.are.equal(table.concat({
      "[all] [os.time()]", "[n1,n2] [x, y]", "[n[1-4], n7 !n2] [f()]", "[all] []", "[] []",
      "[n1 , n2] [#x]", "[all !n2] [not x]", "[[::1]:22] [x]", "[n[1-2, 4]] [{1}]",
    }, "\n"), said(nil, [[
      for _, line in ipairs {
        "all os.time()", "n1,n2  x, y", "n[1-4], n7 !n2 f()", "all", "", "n1 , n2 #x",
        "all !n2 not x", "[::1]:22 x", "n[1-2, 4] {1}",
      } do
        print(("[%s] [%s]"):format(session.split(line)))
      end
    ]]))
  end)
end)

describe("folding", function()
  teardown(run.cleanup)

  it("puts equal keys together, the most common first", function()
    assert.are.equal("n[1-2,4]: b 3\nn3: a 1\nn5: c 1", said(nil, [[
      for _, g in ipairs(fold.group {
        {node = "n3", key = "a"}, {node = "n1", key = "b"}, {node = "n2", key = "b"},
        {node = "n5", key = "c"}, {node = "n4", key = "b"},
      }) do
        print(g.nodes .. ": " .. g.key, #g)
      end
    ]]):gsub("\t", " ") .. "")
  end)

  it("takes out of errors what every host has of its own", function()
    assert.are.equal(table.concat({
      "table: 0x...: no", "pid ... died", "sshd[...]: x", "~/a/b at HOST, HOST.example",
      "t[12] is 4711", "/home/other", "/proc/.../fd",
    }, "\n"), said(nil, [[
      local own = {{"/home/me", "~"}, {"node1", "HOST"}, {"/", "no"}}
      for _, text in ipairs {
        "table: 0x55aabbccddee: no", "pid 4711 died", "sshd[4711]: x",
        "/home/me/a/b at node1, node1.example", "t[12] is 4711", "/home/other", "/proc/12/fd",
      } do
        print(fold.normalise(text, own))
      end
    ]]))
  end)

  it("of five hundred answers takes no time worth naming", function()
    assert.are.equal("n[001-500] 500", said(nil, [[
      local list, t = {}, os.clock()
      for i = 1, 500 do list[i] = {node = ("n%03d"):format(i), key = ("x"):rep(10000)} end
      local g = fold.group(list)
      print(g[1].nodes, #g[1])
    ]]):gsub("\t", " ") .. "")
  end)
end)

describe("a portrait", function()
  local portrait

  setup(function() portrait = require "pp.shell.portrait" end)

  local function bytes(...) return (portrait.encode {n = select("#", ...), ...}) end
  local function same(a, b) return bytes(a) == bytes(b) end

  it("is the same where values are, through and through", function()
    local a, b = {}, {}
    for i = 1, 100 do a["k" .. i] = {i, -i, {i / 4}} end
    for i = 100, 1, -1 do b["k" .. i] = {i, -i, {i / 4}} end
    local shared = {1}
    local loop, other = {1}, {1}
    loop.up, other.up = {loop}, {other}
    for _, pair in ipairs {
      {a, b}, {{shared, shared}, {{1}, {1}}}, {loop, other}, {0/0, 0/0}, {print, type},
      {{[{1, {2}}] = "x", [{1, {3}}] = "y"}, {[{1, {3}}] = "y", [{1, {2}}] = "x"}},
      {{[shared] = shared}, {[{1}] = {1}}},
    } do
      assert.is_true(same(pair[1], pair[2]))
    end
  end)

  it("is another where they are not", function()
    local loop = {1}
    loop.up = {loop}
    local values = {
      1, 1.0, "1", true, false, -0.0, 0.0, 0, math.mininteger, 2^63, {}, {1}, {1, 2}, {[2] = 1},
      {{1}}, {{1}, {1}}, loop, {loop}, print, "", "\0", {a = 1}, {a = {1}}, {[1.5] = 1},
      {[{1}] = 1}, {[{2}] = 1}, {[true] = 1}, 0/0, setmetatable({}, {__name = "Point"}),
    }
    for i, a in ipairs(values) do
      for k, b in ipairs(values) do
        assert.are.equal(i == k, same(a, b), i .. " and " .. k)
      end
    end
    assert.are_not.equal(bytes(nil), bytes())
    assert.are_not.equal(bytes(1, nil), bytes(1))
  end)

  it("gives the values back", function()
    local t = {1, "two", {x = 1.5, [true] = false}, n = "own", [{1}] = math.mininteger}
    t.self = t
    local list = portrait.decode((portrait.encode {t, nil, "x", n = 4}))
    assert.are.equal(4, list.n)
    assert.are.equal("x", list[3])
    assert.is_nil(list[2])
    local back = list[1]
    assert.are.equal(back, back.self)
    assert.are.same({x = 1.5, [true] = false}, back[3])
    assert.are.equal("own", back.n)
    local drawn, texts = portrait.encode {{print, {io.stdout}}, type, n = 2}
    local there = portrait.decode(drawn, texts)
    assert.are.equal(tostring(print), tostring(there[1][1]))
    assert.are.equal(tostring(io.stdout), tostring(there[1][2][1]))
    assert.are.equal(tostring(type), tostring(there[2]))
  end)

  it("does no harm when it is none", function()
    local whole = bytes({1, "x", {y = 2.5}}, "end", nil, true)
    for n = 0, #whole - 1 do assert.is_nil(portrait.decode(whole:sub(1, n))) end
    assert.is_nil(portrait.decode(nil))
    assert.is_nil(portrait.decode {})
    math.randomseed(7)
    for _ = 1, 3000 do
      local at = math.random(#whole)
      local list = portrait.decode(whole:sub(1, at - 1) .. string.char(math.random(0, 255))
        .. whole:sub(at + 1))
      assert.is_true(list == nil or type(list.n) == "number")
    end
  end)

  it("takes time in proportion", function()
    -- where each table leads to all others, and is a key
    local all = {by = {}}
    for i = 1, 3000 do
      local t = {i, all = all}
      all[i], all.by[t] = t, i
    end
    assert.is_true(#bytes(all) < 1000000)
    local t = {}
    for _ = 1, 60 do t = {t, t} end
    assert.is_true(#bytes(t) < 10000)
  end)
end)
