-- The library: string, table, utf8, io with standard streams and files, os, debug, load.
print(("%5d|%-5s|%05.1f|%q|%s|%x|%X|%o|%c|%i|%g"):format(42, "ab", 3.14159, 'q"\n\0z', nil, 255, 255, 8, 65, -3, 1e20))
print(("hello world"):upper(), ("ABC"):lower(), ("abc"):rep(3, "-"), ("abc"):reverse(), ("abc"):byte(1, -1))
print(("key = value"):match("^(%w+)%s*=%s*(%w+)$"), ("a,b,,c"):find(",,", 1, true), ("THE (quick) fox"):find("%((%a+)%)"))
print(("hello"):gsub("l+", function(s) return "<" .. #s .. ">" end), ("abc"):gsub("%w", {a = "1", b = false}), ("x y z"):gsub("%s", "%%"))
for k, v in ("a=1, b=2, c=3"):gmatch("(%w+)=(%w+)") do io.write(k, v, ";") end
print(("f(a(b)c)d"):match("%b()"), ("THE END"):gsub("%f[%a]%a+", "W"), ("\u{48}\x41\65\z
    x"))
print(string.pack("<i4 z s1 d", -2, "abc", "de", 1.5):byte(1, -1))
print(string.unpack("<i4 z s1 d", string.pack("<i4 z s1 d", -2, "abc", "de", 1.5)))
print(utf8.char(72, 228, 8364, 0x10FFFF), utf8.len("häß€"), utf8.codepoint("€", 1), #utf8.charpattern, utf8.offset("a€b", 3))
for p, c in utf8.codes("aé€") do io.write(p, "=", c, " ") end
print()

local t = {}
for i = 1, 500 do t[i] = (i * 7919) % 1009 end
table.sort(t)
print(t[1], t[250], t[500], #t)
table.sort(t, function(x, y) return x > y end)
print(t[1], t[500], table.concat(t, " ", 1, 5), table.concat(table.move({1, 2, 3}, 1, 3, 2), ","))
print(pcall(table.sort, {3, 1, "x"}))
print(pcall(table.sort, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, function() return true end))
print(table.unpack(table.pack(1, nil, 3), 1, 3))
print(table.remove(t), #t, table.insert(t, 1, 0), t[1], next({}), rawlen({1, 2}), rawequal(t, t))

-- standard input: a line, a number, a line with its newline, a block, the rest
print(io.read("l"))
print(io.read("n", "n"))
print((io.read("L")))
print(io.read("L"))
print(io.read(5))
local rest = 0
for line in io.lines() do rest = rest + 1; io.write("[", line, "]") end
print(rest, io.read("l"))
io.stderr:write("to standard error ", 1, " ", 2.5, "\n")
print(io.type(io.stdout), io.type(42), tostring(io.stdin):match("^file %("))

-- files in the directory given
local path = arg[1] .. "/lua.txt"
local f = assert(io.open(path, "w+"))
print(f:write("line 1\n", 2, "\n", 3.5, "\n") == f, f:seek("set", 0))
print(f:read("l", "n", "n"))
print(f:seek("end"), f:setvbuf("full", 1024), f:close(), io.type(f))
for l in io.lines(path, "L") do io.write(l) end
print(io.open(arg[1] .. "/none/x", "r") == nil, select(3, io.open(arg[1] .. "/none/x", "r")))
print(os.rename(path, path .. "2"), os.remove(path .. "2"), (select(3, os.remove(path))))
local p = assert(io.popen("echo from a child; exit 3"))
print(p:read("a"), p:close())
print(pcall(f.read, f))

print(os.getenv("LOW2G_TEST_VALUE"), os.getenv("LOW2G_TEST_UNSET"))
print(os.time({year = 2024, month = 2, day = 29, hour = 12}) - os.time({year = 2024, month = 2, day = 28, hour = 12}))
print(os.date("!%Y-%m-%d %H:%M:%S", 86400 * 365), os.date("!*t", 0).year, type(os.clock()), os.difftime(5, 3))
print(os.setlocale("C"), os.setlocale(nil), os.execute("exit 5"))

local env = {print = print}
load("x = 5; print(x)", "chunk", "t", env)()
print(x, env.x)
local dumped = load(string.dump(function(a) return a + 1 end))
print(dumped(41))
local info = debug.getinfo(1, "Sl")
print(info.what, info.currentline, debug.traceback("trace", 1):match("^trace\nstack traceback:"))
local hooked = 0
debug.sethook(function() hooked = hooked + 1 end, "", 100)
for _ = 1, 10000 do end
debug.sethook()
print(hooked > 50, (debug.getlocal(1, 1)))
print(pcall(require, "no.such.module") == false, package.config:sub(1, 1))
warn("@on"); warn("a ", "warning")
io.stdout:setvbuf("no")
io.write("before exit\n")
os.exit(arg[2] and tonumber(arg[2]) or 5, true)
