-- luacheck --std lua54 lua scripts spec
std = "lua54"
max_line_length = 100
exclude_files = {"build*"}
-- Examples are scripts: what they define may be global.
files["scripts/examples"] = {allow_defined_top = true}
files["spec"] = {
  -- busted; not by its std, which --std on the command line would replace
  read_globals = {
    "describe", "insulate", "expose", "it", "pending", "finally", "randomize",
    "setup", "teardown", "lazy_setup", "lazy_teardown", "strict_setup",
    "strict_teardown", "before_each", "after_each", "spy", "stub", "mock",
    "match", assert = {other_fields = true},
  },
}
