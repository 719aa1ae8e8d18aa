-- An error that nothing catches: its message and traceback go to standard error.
local function third() error({}) end
local function second(f) local ok = pcall(third); f(ok) end
io.write("unflushed text before the error")
second(function(ok) local t = {field = {}} ; return t.field.missing.deeper end)
