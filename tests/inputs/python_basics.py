# Work for the interpreter in the modules a program uses; the output names no path and no process.
import collections, functools, hashlib, itertools, json, math, re, struct, sys, zlib

data = {"name": "low2g", "list": [1, 2.5, None, True, "é€😀"], "nested": {str(i): i * i for i in range(20)}}
text = json.dumps(data, sort_keys=True, indent=1)
print(text)
assert json.loads(text) == data
try:
    json.loads('{"a": [1, 2,, 3]}')
except json.JSONDecodeError as error:
    print("json:", error)

log = "\n".join(f"2024-01-{d:02d} host{d % 3} GET /p/{d}?q={d * 7}" for d in range(1, 29))
pattern = re.compile(r"^(?P<date>\d{4}-\d\d-\d\d) (?P<host>\w+) (?P<verb>[A-Z]+) (?P<path>/\S+)$", re.M)
print(collections.Counter(m["host"] for m in pattern.finditer(log)).most_common())
print(re.sub(r"(?<=q=)(\d+)", lambda m: hex(int(m[1])), log)[-60:], re.split(r"[,;]\s*", "a, b;c,  d"))

for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b", "blake2s"):
    print(name, hashlib.new(name, text.encode()).hexdigest())

blob = bytes(itertools.chain.from_iterable(struct.pack("<Id", i, math.sqrt(i)) for i in range(20000)))
for level in (1, 6, 9):
    packed = zlib.compress(blob, level)
    print("zlib", level, len(packed), hashlib.sha256(packed).hexdigest(), zlib.decompress(packed) == blob)
print("crc", zlib.crc32(blob), zlib.adler32(blob))
try:
    zlib.decompress(packed[:-5])
except zlib.error as error:
    print("zlib:", error)

print([math.fsum([0.1] * 10), math.gamma(5.5), math.hypot(3, 4), math.pow(2, 0.5), math.log1p(1e-10), math.erf(0.3)])
print(2**200 % 1000007, pow(3, 10**18, 998244353), 1e308 * 10, float("nan"), (0.1).hex(), f"{math.pi:.12f}")


@functools.lru_cache(maxsize=None)
def ways(n):
    return 1 if n < 2 else ways(n - 1) + ways(n - 2)


def gen():
    try:
        while True:
            got = yield
            print("got", got)
    except GeneratorExit:
        print("closed")


g = gen()
next(g)
g.send(1)
g.close()
print(ways(150), sorted("relocation", key=lambda c: (-ord(c), c)))


class Base:
    def __init_subclass__(cls, **kw):
        print("subclass", cls.__name__, kw)

    def __getattr__(self, name):
        raise AttributeError(f"no {name}")


class Derived(Base, tag=1):
    __slots__ = ("x",)


try:
    try:
        Derived().missing
    except AttributeError as inner:
        raise ValueError("outer") from inner
except ValueError as error:
    print(repr(error), repr(error.__cause__))
try:
    (lambda: 1 / 0)()
except ZeroDivisionError as error:
    print(error)


def deep(n):
    return deep(n + 1)


try:
    deep(0)
except RecursionError as error:
    print(error)
print(eval(compile("sum(x * x for x in range(1000))", "chunk", "eval")), sys.version_info[:2], sys.argv[1:])
print("to standard error", file=sys.stderr)
sys.exit(int(sys.argv[2]))
