-- The language: closures, coroutines, metamethods, goto, integers and floats, errors.
print(_VERSION, driver_name(), select('#', table.unpack(arg)), arg[1], arg[2])

-- closures and upvalues shared between them
local function counter()
  local n = 0
  return function() n = n + 1; return n end, function() return n end
end
local inc, get = counter()
inc(); inc(); inc()
print("closures", get())

-- coroutines: generators, wrap, errors across, yield across pcall, close
local function permute(a, n)
  n = n or #a
  if n <= 1 then coroutine.yield(a) else
    for i = 1, n do
      a[n], a[i] = a[i], a[n]
      permute(a, n - 1)
      a[n], a[i] = a[i], a[n]
    end
  end
end
for p in coroutine.wrap(function() permute({1, 2, 3}) end) do io.write(table.concat(p, ","), " ") end
print()
local co = coroutine.create(function(...)
  local x = coroutine.yield(select('#', ...))
  local ok, err = pcall(function() coroutine.yield(x * 2); error({code = 7}) end)
  coroutine.yield(ok, type(err), err.code)
  error("deep")
end)
print(coroutine.resume(co, 1, nil, 3))
print(coroutine.resume(co, 21))
print(coroutine.resume(co))
print(coroutine.resume(co))
print(coroutine.status(co), coroutine.resume(co))
local closing = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() print("closed") end}); coroutine.yield() end)
coroutine.resume(closing); print(coroutine.close(closing))

-- errors and their messages
print(pcall(function() local t; return t.x end))
print(pcall(function() return 1 + {} end))
print(pcall(function() return #5 end))
print(pcall(function() return {} < {} end))
print(pcall(function() return ("x").y.z end))
print(pcall(function() return 1 // 0 end))
print(pcall(function() return 2^53 | 0.5 end))
print(pcall(error))
print(pcall(error, setmetatable({}, {__tostring = function() return "custom" end})))
print(select(2, xpcall(function() error("traced", 2) end, function(m) return "handled: " .. m end)))
print(load("x = = 1", "chunk"))
print(load("goto nowhere", "chunk"))
print(pcall(string.rep, "x", -1), pcall(string.rep))
local function recurse(n) return 1 + recurse(n + 1) end
local ok, msg = pcall(recurse, 1)
print(ok, msg:match("stack overflow"))
print(pcall(setmetatable, {}, 1))

-- goto, nested loops, integer division, bit operations, float formatting
for i = 1, 3 do
  for j = 1, 3 do
    if j == 2 then goto continue end
    io.write(i, ":", j, " ")
    ::continue::
  end
end
print()
print(7 // 2, -7 // 2, 7 % -3, -7 % 3, 7.5 // 2, 1 / 0, -1 / 0, 0 / 0 ~= 0 / 0)
print(0xff & 0x0f, 1 << 62, 1 << 63, 1 << 64, ~0, 5 ~ 3, -1 >> 60)
print(math.maxinteger + 1 == math.mininteger, math.type(1), math.type(1.0), math.type("1"))
print(10 == 10.0, "10" + 5, "0x10" * 1, 1e15, 1e16, 2^63, 0.1, 1/3, 100 // 1e-320)
print(math.floor(-3.5), math.ceil(-3.5), math.fmod(-7, 3), math.tointeger(3.0), math.ult(1, -1))
print(string.format("%.14g %.3f %e %a", math.pi, math.sin(1), math.exp(10), 0.5), math.abs(math.mininteger))
math.randomseed(42); local r = math.random(100); math.randomseed(42); print(r == math.random(100))

-- metamethods
local V = {}
V.__index = V
V.__add = function(a, b) return setmetatable({x = a.x + b.x}, V) end
V.__eq = function(a, b) return a.x == b.x end
V.__lt = function(a, b) return a.x < b.x end
V.__le = function(a, b) return a.x <= b.x end
V.__call = function(self, y) return self.x * y end
V.__concat = function(a, b) return "V" .. tostring(type(a) == "table" and a.x or a) .. tostring(type(b) == "table" and b.x or b) end
V.__len = function(a) return a.x end
V.__unm = function(a) return setmetatable({x = -a.x}, V) end
V.__tostring = function(a) return "V(" .. a.x .. ")" end
V.__name = "Vector"
V.__pairs = function(t) return function(_, k) if not k then return 1, t.x end end, t, nil end
local a, b = setmetatable({x = 3}, V), setmetatable({x = 4}, V)
print(tostring(a + b), a == b, a < b, a <= b, a(10), a .. b, #a, tostring(-a), a .. "s")
for k, v in pairs(a) do print("pairs", k, v) end
local proxy = setmetatable({}, {__index = function(_, k) return k .. "!" end, __newindex = function(t, k, v) rawset(t, k, v * 2) end})
proxy.z = 21; print(proxy.hello, proxy.z)

-- garbage collection: finalizers, weak tables, generational mode
local finalized = 0
for _ = 1, 100 do setmetatable({}, {__gc = function() finalized = finalized + 1 end}) end
collectgarbage(); collectgarbage()
print("finalized", finalized)
local weak = setmetatable({}, {__mode = "v"})
weak[1] = {}; weak[2] = "kept"; collectgarbage()
print(weak[1], weak[2])
print(collectgarbage("generational"))
local junk = {}
for i = 1, 50000 do junk[i % 100] = {i, tostring(i)} end
print(collectgarbage("incremental"), #junk, collectgarbage("count") > 0)

-- a long computation through the bytecode interpreter
local sieve, primes = {}, 0
for i = 2, 200000 do
  if not sieve[i] then
    primes = primes + 1
    for j = i * i, 200000, i do sieve[j] = true end
  end
end
print("primes", primes)
setmetatable({}, {__gc = function() print("closing state") end})
return 17
