-- luacheck --std lua54
std = "lua54"
max_line_length = 100
exclude_files = {"build*"}
files["spec"].std = "+busted"
-- Examples and benchmarks are scripts: what they define may be global.
files["scripts/examples"].allow_defined_top = true
