-- SPDX-License-Identifier: MIT
local describe, it, assert, setup, teardown, pending =
  describe, it, assert, setup, teardown, pending

local child = require "spec.support.child"
local run = require "spec.support.run"

local build = run.ppsh_path:match "^(.*)/"

local function sh(text, ...)
  local words = {...}
  for i, word in ipairs(words) do words[i] = run.quote(word) end
  return run.program({"bash", "-c", text:format(table.unpack(words))}, {timeout = 120})
end

-- The files below a directory, without those of `except`.
local function files(dir)
  local list = {}
  local found = child.output_of("cd " .. run.quote(dir) .. " && find . ! -type d")
  for name in found:gmatch "%./([^\n]+)" do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

local function expected(prefix, zsh, ...)
  local list = {
    prefix .. "bin/ppsh", prefix .. "share/man/man1/ppsh.1", prefix .. "share/man/man3/pp.3",
    prefix .. "share/bash-completion/completions/ppsh", prefix .. "share/zsh/" .. zsh .. "/_ppsh",
    prefix .. "share/doc/ppsh/README.md", prefix .. "share/doc/ppsh/LICENSE",
    prefix .. "share/doc/ppsh/coming-from-parallelpython.md", ...
  }
  for name in child.output_of "ls scripts/examples":gmatch "%S+%.lua" do
    list[#list + 1] = prefix .. "share/doc/ppsh/examples/" .. name
  end
  table.sort(list)
  return list
end

describe("an installed ppsh", function()
  local stage

  setup(function()
    stage = run.directory()
    local r = sh("DESTDIR=%s cmake --install %s --prefix /opt/pp", stage, build)
    assert(r.status == 0, r.err)
  end)
  teardown(run.cleanup)

  it("is where it is looked for, with DESTDIR and a prefix", function()
    assert.are.same(expected("opt/pp/", "site-functions"), files(stage))
  end)

  it("runs", function()
    local r = run.program({stage .. "/opt/pp/bin/ppsh", "-j1", "-e",
      "print(pp.Server():spawn(function(n) return n * n end, 12)())"})
    assert.are.equal("144\n", r.out)
    for name in child.output_of("ls " .. stage .. "/opt/pp/share/doc/ppsh/examples"):gmatch "%S+" do
      assert.are.equal(run.read("scripts/examples/" .. name),
        run.read(stage .. "/opt/pp/share/doc/ppsh/examples/" .. name))
    end
  end)

  it("has manual pages without warnings", function()
    if not child.has "groff" then return pending "groff is not installed" end
    for _, page in ipairs {"man1/ppsh.1", "man3/pp.3"} do
      local r = sh("groff -man -ww -Tutf8 %s >/dev/null", stage .. "/opt/pp/share/man/" .. page)
      assert.are.equal("", r.err)
      assert.are.equal(0, r.status)
    end
  end)

  describe("completes", function()
    local home

    setup(function()
      home = run.directory()
      sh([[mkdir %s/.ssh && cd %s/.ssh &&
        printf 'Host big small *.x\n User me\nhost=eq\n' >config &&
        printf 'node1,10.0.0.1 ssh-ed25519 A\n|1|abc= ssh-ed25519 x\n[port]:2222 ssh-rsa B\n' \
          >known_hosts]], home, home)
    end)

    -- What bash offers at the end of a line.
    local function bash(line)
      local r = sh([[export HOME=%s PATH=%s:$PATH
        source %s || exit 1
        complete -p ppsh | grep -q -- '-F _ppsh ppsh' || exit 2
        COMP_LINE=%s COMP_POINT=${#COMP_LINE} COMP_WORDS=() COMP_CWORD=0
        _ppsh ppsh && printf '%%s\n' "${COMPREPLY[@]}"]], home, build,
        stage .. "/opt/pp/share/bash-completion/completions/ppsh", line)
      assert.are.equal("", r.err)
      assert.are.equal(0, r.status)
      return (r.out:gsub("\n$", ""):gsub("\n", " "))
    end

    it("in bash", function()
      assert.are.equal("--map --max-line", bash "ppsh --ma")
      assert.are.equal("--progress --progress=always", bash "ppsh -j 2 --pro")
      local all = " " .. bash "ppsh -" .. " "
      for line in run.ppsh {"--help"}.out:gmatch "\n  (%-[^\n]*)" do
        for option in line:gsub("  .*", ""):gmatch "%f[^%s]%-%-?[%w-]+" do
          assert.is_truthy(all:find(" " .. option .. " ", 1, true), option)
        end
      end
      local hosts = bash "ppsh -H "
      for _, host in ipairs {"big", "small", "eq", "node1", "10.0.0.1", "port:2222"} do
        assert.is_truthy((" " .. hosts .. " "):find(" " .. host .. " ", 1, true), host)
      end
      assert.is_nil(hosts:find("*", 1, true))
      assert.is_nil(hosts:find("|", 1, true))
      assert.are.equal("big,small", bash "ppsh -H big,sm")
      assert.are.equal("-Hbig", bash "ppsh -Hbi")
      assert.are.equal("big", bash "ppsh -H me@bi") -- behind the @
      assert.are.equal("node1", bash "ppsh --hosts=nod") -- behind the =
      assert.are.equal("error warn info debug", bash "ppsh --log ")
      assert.are.equal("", bash "ppsh script.lua --") -- its own arguments
      assert.are.equal("", bash "ppsh -e 1 -- --")
    end)

    it("in zsh", function()
      if not child.has "zsh" then return pending "zsh is not installed" end
      local r = run.program({"zsh", "-f", "-c", ([=[
        zmodload zsh/zpty || exit 3
        ask() { # what the line becomes
          local out= piece
          zpty -n -w z "$1"
          repeat 600 {
            while zpty -rt z piece; do out+=$piece; done
            [[ $out == *$~2* ]] && print -r -- "$2" && break
            sleep 0.05
          }
        }
        zpty z zsh -f -i
        ask $'HOME=%s PATH=%s:$PATH; fpath=(%s $fpath); autoload -Uz compinit
          compinit -u -D; print $_comps[ppsh]-\n' _ppsh-
        ask $'ppsh --prog\t' --progress
        ask $'\C-uppsh --log de\t' debug
        ask $'\C-uppsh -H me@bi\t' me@big
        ask $'\C-uppsh --hosts=big,nod\t' big,node1
        ask $'\C-uppsh -e 1 /etc/passw\t' /etc/passwd
        ]=]):format(home, build, stage .. "/opt/pp/share/zsh/site-functions")}, {timeout = 60})
      assert.are.equal("_ppsh-\n--progress\ndebug\nme@big\nbig,node1\n/etc/passwd\n", r.out)
    end)
  end)

  it("can be a Debian package", function()
    if not child.has "dpkg-shlibdeps" then return pending "dpkg-dev is not installed" end
    local dir = run.directory()
    local r = sh("cd %s && cpack -G DEB --config %s", dir, build .. "/CPackConfig.cmake")
    assert.are.equal(0, r.status, r.out .. r.err)
    local package = child.output_of("ls " .. dir .. "/*.deb"):gsub("\n", "")
    local fields = child.output_of("dpkg-deb -f " .. package)
    assert.matches("\nPackage: ppsh\n", "\n" .. fields, 1, true)
    for _, library in ipairs {"libc6", "libreadline8", "libssh2%-1", "libssl3"} do
      assert.matches("\nDepends:[^\n]*" .. library, fields)
    end
    assert.are.equal(0, sh("dpkg-deb -x %s %s", package, dir .. "/tree").status)
    assert.are.same(expected("usr/", "vendor-completions", "usr/share/doc/ppsh/copyright"),
      files(dir .. "/tree"))
    assert.are.equal("2\n", run.program({dir .. "/tree/usr/bin/ppsh", "-e", "print(1 + 1)"}).out)
  end)
end)
