"""Section A: bindings, mutation, aliasing, functions, classes."""

from __future__ import annotations

from tests.fidelity.case import Case, Edit, cells

CASES = (
    # --- 1: two names, one object, bound in one cell --------------------------------------------------------------------
    Case(
        row="1",
        name="alias-in-one-cell",
        cells=cells("""
a = [len('xyz')]
b = a
---
c = {'k': a, 'again': b}
len(c)
---
print(a is b, c['k'] is b)
"""),
        probes=("b.append(5); a", "a is b", "c['k'] is a and c['again'] is a"),
        edits=(Edit({0: "a = [len('xyz')]\nb = list(a)"}), Edit({2: "print(a is b)"})),
        replays=(0, 1, 2),
    ),
    Case(
        row="1",
        name="same-content-is-not-one-object",
        cells=cells("""
a = [len('x')]
b = [len('x')]
---
a.append(2)
---
print(a, b, a is b)
"""),
        probes=("a.append(7); b", "a is b"),
        edits=(Edit({0: "a = [len('x')]\nb = a"}),),
        replays=(0, 1, 2),
    ),
    # --- 2: across cells ------------------------------------------------------------------------------------------------
    Case(
        row="2",
        name="alias-across-cells",
        cells=cells("""
a = [len('xyz')]
---
n = sum(range(10))
---
b = a
---
d = {'deep': [b]}
---
print(a is b, d['deep'][0] is a)
"""),
        probes=("b.append(5); (a, d)", "a is b"),
        edits=(
            Edit({2: "b = list(a)"}),
            Edit({1: "n = sum(range(11))"}),
            Edit({0: "a = [len('xyzz')]"}),
            Edit({4: "print(d)"}),
        ),
        replays=(0, 1, 2, 3, 4),
    ),
    Case(
        row="2",
        name="what-a-name-was-bound-to-before",
        cells=cells("""
rows = [len('a')]
more = rows
deep = {'k': rows, 'other': [1]}
part = deep['other']
---
rows
---
rows = sorted([5, 4])
---
more.append(7)
---
deep = len('deep')
---
for more in range(2):
    pass
---
print(rows, more, deep, part)
"""),
        probes=("rows, more, deep, part, Out[2]",),
        edits=(
            Edit({0: "rows = [len('abc')]\nmore = rows\ndeep = {'k': rows, 'other': [1]}\npart = deep['other']"}),
            Edit({0: "rows = [len('a')]\nmore = [len('b')]\ndeep = {'k': more, 'other': rows}\npart = deep['other']"}),
            Edit({2: "pass"}),
            Edit({3: "pass"}),
            Edit({4: "deep['other'].append(3)\ndeep = len('deep')"}),
        ),
        replays=(0, 1, 2, 3, 4, 5, 6),
    ),
    Case(
        row="2",
        name="instances-of-a-class-that-changes-beside-them",
        cells=cells("""
class C:
    level = 1
    def __init__(self, x):
        self.x = x
---
p = C(len('a'))
q = [p]
---
C.level = 2
n = len('n')
---
print(p.x, p.level, q[0] is p)
---
class C:
    level = 5
n = len('nn')
---
print(p.x, p.level, C.level, n)
"""),
        probes=("p.x, p.level, q[0] is p, C.level",),
        edits=(
            Edit({1: "p = C(len('abc'))\nq = [p]"}),
            Edit({1: "p = C(len('abc'))\nq = [C(1)]"}),
            Edit({2: "C.level = 3\nn = len('n')"}),
            Edit({2: "n = len('n')"}),
        ),
        replays=(1, 2, 3, 4, 5),
    ),
    Case(
        row="2",
        name="alias-of-a-part",
        cells=cells("""
outer = {'inner': [len('a')], 'other': set()}
---
part = outer['inner']
---
part.append(99)
---
outer['other'].add(len(part))
print(outer)
"""),
        probes=("part is outer['inner']", "part.append(1); outer"),
        edits=(Edit({2: "part.append(98)"}), Edit({1: "part = list(outer['inner'])"})),
        replays=(0, 1, 2, 3),
    ),
    # --- 3: a cell changes an earlier object ----------------------------------------------------------------------------
    Case(
        row="3",
        name="append-in-later-cells",
        cells=cells("""
items = list(range(3))
---
items.append(sum(items))
---
items.append(sum(items))
---
total = sum(items)
total
"""),
        probes=("items", "total"),
        edits=(
            Edit({1: "items.append(100)"}),
            Edit({2: "items.append(-1)"}),
            Edit(order=(0, 1, 3)),
            Edit(order=(0, 2, 1, 3)),
            Edit({0: "items = list(range(4))"}),
        ),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="3",
        name="frame-inplace",
        cells=cells("""
import pandas as pd
df = pd.DataFrame({'a': [1, 2, 3], 'b': list('xyz')})
---
df.drop(columns='b', inplace=True)
---
df['c'] = df['a'] * 2
---
df.loc[1, 'c'] = -5
print(df)
"""),
        probes=("df.to_dict()", "list(df.columns)", "df['c'].sum()"),
        edits=(Edit({1: "pass"}), Edit({2: "df['c'] = df['a'] * 3"}), Edit({3: "print(df)"})),
        needs=("numpy", "pandas"),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="3",
        name="array-inplace",
        cells=cells("""
import numpy as np
a = np.zeros(5)
---
a[2] = 7
---
a += 1
---
np.multiply(a, 2, out=a)
a.sort()
---
print(a)
"""),
        probes=("a.tolist()", "a[0] = 9; a.tolist()"),
        edits=(Edit({1: "a[2] = 8"}), Edit({2: "a += 2"}), Edit({3: "pass"})),
        needs=("numpy",),
        replays=(0, 1, 2, 3, 4),
    ),
    Case(
        row="3",
        name="change-that-is-seen-only-by-a-method",
        cells=cells("""
class Account:
    def __init__(self):
        self.balance = 0
        self.log = []
    def pay(self, n):
        self.balance += n
        self.log.append(n)
---
acc = Account()
---
acc.pay(10)
---
acc.pay(5)
acc.balance
---
print(acc.log)
"""),
        probes=("acc.balance, acc.log", "acc.pay(1); acc.balance", "isinstance(acc, Account)"),
        edits=(
            Edit({2: "acc.pay(20)"}),
            Edit(
                {
                    0: "class Account:\n    def __init__(self):\n        self.balance = 1\n        self.log = []\n    def pay(self, n):\n        self.balance += 2 * n\n        self.log.append(n)"
                }
            ),
        ),
        replays=(1, 2, 3, 4),
    ),
    # --- 4: through what the cell does not name -------------------------------------------------------------------------
    Case(
        row="3",
        name="much-plain-data",
        cells=cells("""
rows = [{'id': i, 'tags': [i, 'x']} for i in range(3000)]
---
first = rows[0]
---
first['tags'].append(5)
---
rows.append({'id': -1, 'tags': []})
---
others = list(rows)
---
rows[7]['tags'] = others[8]['tags']
---
lonely = {n: [n, float(n)] for n in range(5000)}
---
lonely[3].append(True)
---
print(sum(len(row['tags']) for row in rows), first, others[7], len(lonely), lonely[3])
"""),
        probes=(
            "first['tags'].append(6); rows[0], others[0]",
            "rows[8]['tags'].append('y'); rows[7], others[7]",
            "lonely[2].append(1); lonely[2], list(lonely)[:3]",
        ),
        edits=(
            Edit({2: "first['tags'].append('five')"}),
            Edit({3: "pass"}),
            Edit({5: "pass"}),
            Edit({7: "lonely[3].append(1)"}),
        ),
        replays=(0, 1, 2, 3, 4, 5, 6, 7, 8),
    ),
    Case(
        row="4",
        name="through-a-container",
        cells=cells("""
rows = [[n] for n in range(3)]
first = rows[0]
---
def change():
    rows[0].append('by function')
---
change()
---
holder = {'x': rows}
---
holder['x'][1].extend([7, 8])
---
print(first, rows)
"""),
        probes=("first is rows[0]", "holder['x'] is rows", "change(); first"),
        edits=(Edit({1: "def change():\n    rows[0].append('edited')"}), Edit({4: "holder['x'][1].extend([9])"})),
        replays=(0, 2, 3, 4, 5),
    ),
    Case(
        row="4",
        name="through-a-closure",
        cells=cells("""
def make():
    kept = []
    def add(x):
        kept.append(x)
        return len(kept)
    def show():
        return list(kept)
    return add, show
add, show = make()
---
add(1)
---
add(2)
---
print(show())
"""),
        probes=("add(3), show()", "add.__closure__[0].cell_contents is show.__closure__[0].cell_contents"),
        edits=(Edit({1: "add(10)"}), Edit(order=(0, 2, 3))),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="4",
        name="through-an-attribute",
        cells=cells("""
class Node:
    def __init__(self, name):
        self.name, self.children, self.parent = name, [], None
    def add(self, child):
        child.parent = self
        self.children.append(child)
        return child
root = Node('root')
---
leaf = root.add(Node('leaf'))
---
leaf.parent.name = 'changed'
---
print(root.name, leaf.parent is root)
"""),
        probes=("leaf.parent is root and root.children[0] is leaf", "leaf.parent.name = 'z'; root.name"),
        edits=(Edit({2: "leaf.parent.name = 'other'"}),),
        replays=(1, 2, 3),
    ),
    Case(
        row="4",
        name="through-a-default-argument",
        cells=cells("""
def collect(x, into=[]):
    into.append(x)
    return into
---
first = collect(1)
---
second = collect(2)
---
print(first, second, first is second, collect.__defaults__[0] is first)
"""),
        probes=("collect(9)", "first", "first is collect.__defaults__[0]"),
        edits=(
            Edit({1: "first = collect(100)"}),
            Edit({0: "def collect(x, into=[0]):\n    into.append(x)\n    return into"}),
        ),
    ),
    Case(
        row="4",
        name="through-a-class-attribute",
        cells=cells("""
class Registry:
    items = []
    count = 0
---
Registry.items.append('a')
Registry.count += 1
---
r = Registry()
r.items.append('b')
---
print(Registry.items, Registry.count)
"""),
        probes=("Registry.items, Registry.count", "r.items is Registry.items", "type(r) is Registry"),
        edits=(Edit({1: "Registry.items.append('c')"}), Edit({2: "r = Registry()"})),
    ),
    Case(
        row="4",
        name="through-a-tuple-that-two-names-hold",
        cells=cells("""
x = [len('a')]
t = (x, 1)
y = [t]
z = {'k': (t,)}
---
n = len(y)
---
x.append(2)
---
print(y, z, y[0][0] is x, z['k'][0] is t)
"""),
        probes=("y[0][0] is x", "x.append(3); y, z", "z['k'][0][0] is x"),
        edits=(Edit({2: "x.append(20)"}), Edit({1: "n = len(z)"})),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="4",
        name="through-an-iterator-over-it",
        cells=cells("""
data = {'a': [1], 'b': [2]}
---
for value in data.values():
    value.append(0)
---
[v.append(5) for v in data.values() if len(v) > 1]
print(data)
"""),
        probes=("data", "value is data['b']"),
        edits=(Edit({1: "for value in data.values():\n    value.append(1)"}),),
        replays=(0, 1, 2),
    ),
    # --- 5: views and bases ---------------------------------------------------------------------------------------------
    Case(
        row="5",
        name="array-view",
        cells=cells("""
import numpy as np
arr = np.arange(10)
---
v = arr[::2]
---
v[0] = 100
---
w = v.reshape(5, 1)
---
w[1] = -3
print(arr)
"""),
        probes=("v[2] = 55; arr.tolist()", "np.shares_memory(arr, w)", "arr[4] = 1; w.ravel().tolist()"),
        edits=(Edit({1: "v = arr[::2].copy()"}), Edit({2: "v[0] = 101"}), Edit({3: "w = v.reshape(5, 1).copy()"})),
        needs=("numpy",),
        replays=(0, 1, 2, 3, 4),
    ),
    Case(
        row="5",
        name="large-array-view",
        cells=cells("""
import numpy as np
big = np.zeros((500, 400))
---
row = big[3]
col = big[:, 1].T
---
row[:] = 1
---
col += 2
---
print(big.sum(), big[3, 1])
"""),
        probes=("row[0] = 9; big[3, 0]", "np.shares_memory(row, col)", "big[:, 1] = 4; col[:3].tolist()"),
        edits=(Edit({2: "row[:] = 3"}), Edit({3: "col += 1"})),
        needs=("numpy",),
        replays=(0, 1, 2, 3, 4),
    ),
    Case(
        row="5",
        name="views-of-array-subclasses",
        cells=cells("""
import numpy as np
class Signal(np.ndarray):
    pass
---
u = np.arange(6.).reshape(2, 3)
r = {'u': u.view(Signal)}
s = r['u'][1:].view(Signal)
plain = s.view(np.ndarray)
rec = np.zeros(3, dtype=[('a', 'f8'), ('b', 'i4')]).view(np.recarray)
column = rec.a
---
big = np.zeros(100_000).view(Signal)
part = big[500:510]
---
u[0, 0] = 7
part[0] = 3
column[1] = 2
---
print(r, s, big[499:502], rec)
"""),
        probes=(
            "plain.__setitem__((0, 1), 9.); u, r, s",
            "rec['a'].__setitem__(2, 5.); column",
            "part += 1; big.sum()",
        ),
        edits=(Edit({3: "u[1, 1] = 5\npart[2] = 3"}),),
        needs=("numpy",),
        replays=(1, 2, 3, 4),
    ),
    Case(
        row="5",
        name="large-array-only-read",
        cells=cells("""
import numpy as np
big = np.zeros((500, 400))
---
m = float(big[3].mean())
print(m, big.shape)
---
part = big[3:5]
big[3] = 1
---
n = big[3:5].sum() + m
print(n)
---
part[0, 0] = n
---
print(big.max(), big[:10].sum(axis=0).tolist()[:3])
"""),
        probes=("part[1] = 9; float(big[4, 0])", "np.shares_memory(part, big)", "n, m"),
        edits=(
            Edit({1: "big = np.ones((500, 400))\nm = 0.0"}),
            Edit({2: "part = big[3:5]\nbig[4] = 2"}),
            Edit({4: "big[0] = n"}),
            Edit({1: "m = float(big[3].mean(out=big[3, 0:1].reshape(())))\nprint(m, big.shape)"}),
        ),
        needs=("numpy",),
        replays=(0, 1, 2, 3, 4, 5),
    ),
    Case(
        row="5",
        name="view-without-its-base-name",
        cells=cells("""
import numpy as np
a = np.arange(6)[1:5]
b = a[:2]
---
b += 10
---
del a
---
print(b)
"""),
        probes=("b.tolist()", "b[0] = 5; b.tolist()"),
        edits=(Edit({1: "b += 20"}),),
        needs=("numpy",),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="5",
        name="frame-and-its-columns",
        cells=cells("""
import pandas as pd, numpy as np
df = pd.DataFrame({'a': np.arange(4), 'b': np.arange(4) * 1.5})
---
col = df['a']
values = df['b'].to_numpy()
---
df.loc[0, 'a'] = 50
---
print(col.tolist(), df['a'].tolist(), values.tolist())
"""),
        probes=("df.loc[1, 'a'] = 60; col.tolist()", "df['a'].tolist()", "values.tolist()"),
        edits=(Edit({2: "df.loc[0, 'a'] = 51"}),),
        needs=("numpy", "pandas"),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="5",
        name="memoryview",
        cells=cells("""
buf = bytearray(b'abcdef')
---
view = memoryview(buf)[2:4]
---
view[0] = ord('Z')
---
print(bytes(buf))
"""),
        probes=("view[1] = ord('Q'); bytes(buf)", "bytes(view)"),
        edits=(Edit({2: "view[0] = ord('Y')"}),),
        refusal=True,
    ),
    Case(
        row="5",
        name="array-from-buffer",
        cells=cells("""
import numpy as np
raw = bytearray(8)
arr = np.frombuffer(raw, dtype='u1')
---
raw[3] = 7
---
print(arr.tolist())
"""),
        probes=("raw[0] = 1; arr.tolist()", "arr[1] = 9; bytes(raw)"),
        edits=(Edit({1: "raw[3] = 8"}),),
        needs=("numpy",),
        refusal=True,
    ),
    Case(
        row="5",
        name="frame-made-from-an-array-without-copying",
        cells=cells("""
import numpy as np, pandas as pd
base = np.arange(6.0).reshape(3, 2)
df = pd.DataFrame(base, columns=['x', 'y'], copy=False)
---
base[0, 0] = 99
---
print(df)
"""),
        probes=("base[1, 1] = 77; df.to_numpy().tolist()", "base.tolist()"),
        edits=(Edit({1: "base[0, 0] = 98"}),),
        needs=("numpy", "pandas"),
    ),
    # --- 6: del ---------------------------------------------------------------------------------------------------------
    Case(
        row="6",
        name="del-and-redefine",
        cells=cells("""
x = [len('a')]
y = x
---
del x
---
try:
    x
except NameError as exc:
    print(exc)
---
x = {'new': len(y)}
---
print(x, y)
"""),
        probes=("x, y",),
        edits=(Edit({1: "pass"}), Edit({3: "pass"}), Edit(order=(0, 1, 2))),
        replays=(0, 1, 2, 3, 4),
    ),
    Case(
        row="6",
        name="del-stays-deleted",
        cells=cells("""
temp = sum(range(5))
keep = temp + 1
---
del temp
---
print('temp' in globals(), keep)
"""),
        probes=("temp", "keep"),
        edits=(Edit({0: "temp = sum(range(6))\nkeep = temp + 1"}), Edit(order=(0, 2))),
        replays=(0, 1),
    ),
    Case(
        row="6",
        name="del-of-items-and-attributes",
        cells=cells("""
class Box: pass
box = Box(); box.a = [1]; box.b = 2
d = dict(zip('xyz', range(3)))
---
del box.b, d['y']
---
print(vars(box), d)
"""),
        probes=("vars(box), d", "box.b"),
        edits=(Edit({1: "del d['x']"}),),
    ),
    # --- 7: global in a function ----------------------------------------------------------------------------------------
    Case(
        row="6",
        name="bound-and-deleted-in-one-cell",
        cells=cells("""
a, b = 1, [2]
---
b = a + 1
del b
---
b = a + 2
try:
    del b
except NameError:
    pass
c = 3
---
for i in range(3):
    pass
del i
with open('x.txt', 'w') as handle:
    handle.write('x')
del handle
---
print(sorted(name for name in ('a', 'b', 'c', 'i', 'handle') if name in globals()))
"""),
        probes=("'b' in globals(), 'i' in globals()",),
        edits=(
            Edit({1: "pass"}),
            Edit({0: "a, b, i, handle = 1, [2], 3, 4", 1: "pass"}),
            Edit(order=(0, 2, 1, 3, 4)),
            Edit(order=(0, 2, 3, 4)),
        ),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="7",
        name="global-statement",
        cells=cells("""
counter = 0
def bump():
    global counter, fresh
    counter += 1
    fresh = [counter]
---
bump()
---
bump()
---
print(counter, fresh)
"""),
        probes=("counter, fresh", "bump(); counter"),
        edits=(
            Edit({0: "counter = 0\ndef bump():\n    global counter, fresh\n    counter += 2\n    fresh = [counter]"}),
            Edit(order=(0, 1, 3)),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="7",
        name="global-deep-inside",
        cells=cells("""
def outer():
    def inner():
        global hidden
        hidden = len(str(given))
    inner()
given = 12345
---
outer()
---
given = 7
outer()
---
print(hidden)
"""),
        probes=("hidden", "outer(); hidden"),
        edits=(Edit({2: "given = 77\nouter()"}),),
        replays=(1, 2, 3),
    ),
    # --- 8: a function reads a global that changes later ---------------------------------------------------------------
    Case(
        row="8",
        name="global-changed-later",
        cells=cells("""
scale = 2
def f(x):
    return x * scale
---
before = f(10)
---
scale = 3
---
after = f(10)
print(before, after)
"""),
        probes=("scale = 100; f(1)", "f.__globals__ is globals()", "before, after"),
        edits=(Edit({2: "scale = 4"}), Edit({0: "scale = 5\ndef f(x):\n    return x * scale"})),
        replays=(1, 3),
    ),
    Case(
        row="8",
        name="functions-in-containers",
        cells=cells("""
rate = 2
table = {'double': lambda x: x * rate, 'list': [lambda: rate]}
made = sorted([len('ab')])
---
out = table['double'](5)
---
rate = 10
---
print(out, table['double'](5), table['list'][0]())
"""),
        probes=("rate = 7; table['double'](1), table['list'][0]()", "table['double'].__globals__ is globals()"),
        edits=(Edit({2: "rate = 11"}),),
        replays=(0, 1, 3),
    ),
    Case(
        row="8",
        name="method-and-inner-function-read-globals",
        cells=cells("""
unit = len('ab')
class Ruler:
    def measure(self, n):
        return n * unit
    def later(self):
        return lambda n: n + unit
r = Ruler()
fn = r.later()
bound = r.measure
---
a = r.measure(3), fn(3), bound(3)
---
unit = 50
---
print(a, r.measure(3), fn(3), bound(3))
"""),
        probes=("unit = 1; r.measure(1), fn(1), bound(1)", "bound.__self__ is r", "fn.__globals__ is globals()"),
        edits=(Edit({2: "unit = 51"}),),
        replays=(0, 1, 3),
    ),
    # --- 9: closures, defaults, partials --------------------------------------------------------------------------------
    Case(
        row="9",
        name="counter-in-a-closure",
        cells=cells("""
def counter():
    n = 0
    def step():
        nonlocal n
        n += 1
        return n
    def peek():
        return n
    return step, peek
step, peek = counter()
---
step(); step()
---
x = step()
---
print(x, peek())
"""),
        probes=("step(), peek()", "step.__closure__[0] is peek.__closure__[0]"),
        edits=(Edit({1: "step()"}), Edit(order=(0, 2, 3))),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="9",
        name="partial",
        cells=cells("""
from functools import partial
store = []
def put(where, x):
    where.append(x)
    return len(where)
p = partial(put, store)
---
p('a')
---
q = partial(p, 'fixed')
q()
---
print(store)
"""),
        probes=("p('z'), store", "p.args[0] is store", "q.args[0] is store or q.func.args[0] is store"),
        edits=(Edit({1: "p('b')"}),),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="9",
        name="closures-over-one-loop-variable",
        cells=cells("""
def build():
    fs = []
    for i in range(3):
        fs.append(lambda: i)
    bound = [lambda i=i: i for i in range(3)]
    return fs, bound
fs, bound = build()
---
print([f() for f in fs], [b() for b in bound])
"""),
        probes=("[f() for f in fs], [b() for b in bound]", "fs[0].__closure__[0] is fs[2].__closure__[0]"),
        replays=(0, 1),
    ),
    # --- 10: lambdas, nested and decorated ------------------------------------------------------------------------------
    Case(
        row="10",
        name="decorated",
        cells=cells("""
import functools
calls = []
def traced(fn):
    @functools.wraps(fn)
    def wrapper(*args):
        calls.append(fn.__name__)
        return fn(*args)
    return wrapper
---
@traced
def square(x):
    return x * x
---
r = square(4)
---
print(r, calls, square.__name__, square.__wrapped__(3))
"""),
        probes=("square(2), calls", "square.__wrapped__(5)", "square.__module__"),
        edits=(
            Edit({1: "@traced\ndef square(x):\n    return x * x + 1"}),
            Edit(
                {
                    0: "import functools\ncalls = []\ndef traced(fn):\n    @functools.wraps(fn)\n    def wrapper(*args):\n        calls.append(fn.__name__)\n        return -fn(*args)\n    return wrapper"
                }
            ),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="10",
        name="lambda-edited",
        cells=cells("""
f = lambda x: x + 1
---
g = [f, lambda x: f(x) * 2]
---
print(g[1](3))
"""),
        probes=("g[0] is f", "f = lambda x: 0; g[1](3)"),
        edits=(Edit({0: "f = lambda x: x + 2"}), Edit({1: "g = [f, lambda x: f(x) * 3]"})),
        replays=(2,),
    ),
    Case(
        row="10",
        name="calls-through-functions",
        cells=cells("""
def low(x):
    return x + 1
---
def mid(x):
    return low(x) * 2
---
def top(x):
    return mid(x) - 3
---
result = top(10)
---
print(result)
"""),
        probes=("top(1)",),
        edits=(
            Edit({0: "def low(x):\n    return x + 100"}),
            Edit({1: "def mid(x):\n    return low(x) * 5"}),
            Edit({0: "def low(x):\n    # only a comment\n    return x + 1"}),
        ),
        replays=(3, 4),
    ),
    Case(
        row="10",
        name="recursive-and-mutual",
        cells=cells("""
def even(n):
    return True if n == 0 else odd(n - 1)
def odd(n):
    return False if n == 0 else even(n - 1)
fact = (lambda f: lambda n: f(f, n))(lambda f, n: 1 if n < 2 else n * f(f, n - 1))
---
r = even(10), fact(5)
---
print(r)
"""),
        probes=("odd(7), fact(6)",),
        edits=(
            Edit(
                {
                    0: "def even(n):\n    return True if n == 0 else odd(n - 1)\ndef odd(n):\n    return 'never' if n == 0 else even(n - 1)\nfact = lambda n: n"
                }
            ),
        ),
        replays=(1, 2),
    ),
    # --- 11: class, instances, class edited ----------------------------------------------------------------------------
    Case(
        row="11",
        name="class-edited",
        cells=cells("""
class Point:
    def __init__(self, x):
        self.x = x
    def twice(self):
        return self.x * 2
---
p = Point(3)
---
t = p.twice()
---
print(t, isinstance(p, Point), type(p) is Point)
"""),
        probes=("p.twice()", "isinstance(p, Point)", "type(p) is Point", "Point(5).twice()"),
        edits=(
            Edit(
                {
                    0: "class Point:\n    def __init__(self, x):\n        self.x = x\n    def twice(self):\n        return self.x * 20"
                }
            ),
            Edit(
                {
                    0: "class Point:\n    # a comment\n    def __init__(self, x):\n        self.x = x\n    def twice(self):\n        return self.x * 2"
                }
            ),
            Edit({1: "p = Point(4)"}),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="11",
        name="class-defined-twice",
        cells=cells("""
class A:
    tag = 1
---
old = A()
---
class A:
    tag = 2
---
new = A()
---
print(isinstance(old, A), isinstance(new, A), old.tag, new.tag)
"""),
        probes=("isinstance(old, A), isinstance(new, A)", "old.tag, new.tag", "type(old) is type(new)"),
        edits=(Edit({2: "class A:\n    tag = 3"}), Edit({4: "print(old.tag)"})),
        replays=(1, 3),
    ),
    Case(
        row="11",
        name="same-class-defined-twice",
        cells=cells("""
class A:
    tag = 1
---
old = A()
---
class A:
    tag = 1
---
new = A()
---
print(isinstance(old, A), isinstance(new, A), type(old) is type(new))
"""),
        probes=("isinstance(old, A), isinstance(new, A)", "type(old) is type(new)", "type(old) is A"),
        edits=(Edit({4: "print(type(old) is A)"}),),
    ),
    Case(
        row="11",
        name="inheritance-and-super",
        cells=cells("""
class Base:
    def hello(self):
        return 'base'
---
class Derived(Base):
    def hello(self):
        return 'derived ' + super().hello()
---
d = Derived()
---
text = d.hello()
---
print(text, isinstance(d, Base), Derived.__mro__[1] is Base)
"""),
        probes=("d.hello()", "isinstance(d, Base)", "Derived.__mro__[1] is Base"),
        edits=(Edit({0: "class Base:\n    def hello(self):\n        return 'changed'"}),),
        replays=(2, 3, 4),
    ),
    # --- 12: dataclass, enum, namedtuple, ABC, singledispatch, metaclass ------------------------------------------------
    Case(
        row="11",
        name="class-state-through-an-instance",
        cells=cells("""
class P:
    seen = []
    count = 0
    def add(self, v):
        self.seen.append(v)
        type(self).count += 1
p = P()
---
p.add(1)
---
p.add(2)
---
print(P.seen, P.count)
"""),
        probes=("P.seen, P.count, p.seen is P.seen",),
        edits=(Edit({1: "pass"}),),
    ),
    Case(
        row="11",
        name="class-state-of-a-base",
        cells=cells("""
class Base:
    made = {}
    @classmethod
    def get(cls):
        if cls not in cls.made:
            cls.made[cls] = cls()
        return cls.made[cls]
    def __init__(self):
        self.v = [1]
class Sub(Base):
    pass
---
s = Sub.get()
---
s.v.append(2)
---
print(len(Base.made), Sub.get() is s, Sub.get().v)
"""),
        probes=("Sub.get() is s, Base.made[Sub] is s",),
        edits=(
            Edit({1: "s = 0"}),
            Edit({2: "pass"}),
        ),
    ),
    Case(
        row="11",
        name="class-state-of-a-metaclass",
        cells=cells("""
class Single(type):
    made = {}
    def __call__(cls, *a):
        if cls not in cls.made:
            cls.made[cls] = super().__call__(*a)
        return cls.made[cls]
class Conf(metaclass=Single):
    def __init__(self):
        self.v = [1]
---
c = Conf()
---
c.v.append(2)
---
d = Conf()
---
print(c is d, d.v)
"""),
        probes=("Conf() is c, Conf().v, len(Single.made)",),
        edits=(
            Edit({2: "pass"}),
            Edit({3: "d = Conf()\nd.v.append(5)"}),
        ),
    ),
    Case(
        row="11",
        name="instance-of-a-subclass",
        cells=cells("""
class Base:
    log = []
    def note(self, v):
        self.log.append(v)
class Sub(Base):
    pass
items = [Sub()]
---
items[0].note('a')
---
x = len(items)
---
print(Base.log, x)
"""),
        probes=("Base.log, Sub.log",),
        edits=(Edit({1: "pass"}),),
    ),
    Case(
        row="11",
        name="subclasses-that-register",
        cells=cells("""
class A:
    reg = []
    def __init_subclass__(cls):
        A.reg.append(cls.__name__)
    def hi(self): return 'A'
---
class B(A):
    def hi(self): return super().hi() + 'B'
---
b = B()
b.k = [1]
---
def hi2(self): return 'patched'
A.hi = hi2
---
x = b.hi()
---
print(x, b.hi(), A.reg)
"""),
        probes=("b.hi(), A.reg, isinstance(b, A)",),
        edits=(Edit({3: "pass"}), Edit({1: "class B(A):\n    def hi(self): return 'new'"})),
    ),
    Case(
        row="12",
        name="dataclass",
        cells=cells("""
from dataclasses import dataclass, field, replace
@dataclass(order=True)
class Item:
    name: str
    tags: list = field(default_factory=list)
---
one = Item('a', ['x'])
two = Item('a', ['x'])
---
equal = one == two, one is two
---
print(equal, replace(one, name='b'), sorted([two, Item('0')]))
"""),
        probes=("one == two", "one == Item('a', ['x'])", "isinstance(one, Item)", "one.tags.append(1); two.tags"),
        edits=(Edit({1: "one = Item('a', ['x'])\ntwo = one"}),),
        replays=(1, 2, 3),
    ),
    Case(
        row="12",
        name="enum",
        cells=cells("""
from enum import Enum, IntFlag, auto
class Colour(Enum):
    RED = 1
    BLUE = 2
class Mode(IntFlag):
    R = auto()
    W = auto()
---
c = Colour.RED
m = Mode.R | Mode.W
table = {Colour.RED: 'r', Colour.BLUE: 'b'}
---
print(c is Colour.RED, table[Colour(2)], m, Mode.W in m)
"""),
        probes=("c is Colour.RED", "table[Colour.BLUE]", "m == Mode.R | Mode.W", "Colour['RED'] is c", "list(Colour)"),
        edits=(Edit({1: "c = Colour.BLUE\nm = Mode.R\ntable = {}"}),),
        replays=(1, 2),
    ),
    Case(
        row="12",
        name="namedtuple-typeddict",
        cells=cells("""
from collections import namedtuple
from typing import NamedTuple, TypedDict
P = namedtuple('P', 'x y')
class Q(NamedTuple):
    a: int
    b: list
class T(TypedDict):
    k: int
---
p, q, t = P(1, 2), Q(1, []), T(k=3)
---
q.b.append(5)
---
print(p, q, t, type(p) is P, p == (1, 2), q._replace(a=9))
"""),
        probes=("type(p) is P, type(q) is Q", "p._replace(x=8)", "P(1, 2) == p", "q.b.append(1); q"),
        edits=(Edit({2: "q.b.append(6)"}),),
        replays=(2, 3),
    ),
    Case(
        row="12",
        name="abc-registration",
        cells=cells("""
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def area(self): ...
class Square:
    def area(self):
        return 4
---
Shape.register(Square)
---
s = Square()
ok = isinstance(s, Shape)
---
print(ok, issubclass(Square, Shape))
"""),
        probes=("isinstance(s, Shape)", "issubclass(Square, Shape)", "Shape()"),
        edits=(Edit({1: "pass"}),),
    ),
    Case(
        row="12",
        name="singledispatch",
        cells=cells("""
from functools import singledispatch
@singledispatch
def show(x):
    return 'any'
---
@show.register
def _(x: int):
    return 'int'
---
@show.register(list)
def show_list(x):
    return f'list of {len(x)}'
---
r = [show('s'), show(1), show([1, 2])]
---
print(r)
"""),
        probes=("show(1), show([]), show('')", "sorted(t.__name__ for t in show.registry)"),
        edits=(Edit({1: "@show.register\ndef _(x: int):\n    return 'integer'"}), Edit(order=(0, 2, 3, 4))),
    ),
    Case(
        row="12",
        name="metaclass-table",
        cells=cells("""
class Meta(type):
    table = {}
    def __new__(m, name, bases, ns):
        cls = super().__new__(m, name, bases, ns)
        m.table[name] = cls
        return cls
---
class Plugin(metaclass=Meta):
    pass
class Other(Plugin):
    pass
---
names = sorted(Meta.table)
---
print(names, Meta.table['Other'] is Other)
"""),
        probes=("sorted(Meta.table)", "Meta.table['Other'] is Other", "type(Plugin) is Meta"),
        edits=(Edit({1: "class Plugin(metaclass=Meta):\n    pass"}),),
    ),
    Case(
        row="12",
        name="init-subclass-table",
        cells=cells("""
class Base:
    kinds = []
    def __init_subclass__(cls, **kw):
        Base.kinds.append(cls)
---
class One(Base): pass
---
class Two(Base): pass
---
print([k.__name__ for k in Base.kinds], Base.kinds[0] is One)
"""),
        probes=("[k.__name__ for k in Base.kinds]", "Base.kinds[0] is One", "Base.kinds[-1] is Two"),
        edits=(Edit({2: "pass"}), Edit({1: "class One(Base):\n    x = 1"})),
    ),
    Case(
        row="12",
        name="slots-and-properties",
        cells=cells("""
class S:
    __slots__ = ('a', 'b', '_p')
    def __init__(self):
        self.a, self._p = [1], 0
    @property
    def p(self):
        return self._p
    @p.setter
    def p(self, v):
        self._p = v * 2
s = S()
---
s.p = 4
s.b = s.a
---
print(s.p, s.b is s.a)
"""),
        probes=("s.p, s.a, s.b is s.a", "s.p = 1; s.p", "s.zzz = 1"),
        edits=(Edit({1: "s.p = 5"}),),
    ),
    # --- 13: monkeypatching ---------------------------------------------------------------------------------------------
    Case(
        row="13",
        name="patch-a-library-class",
        cells=cells("""
import pandas as pd
def top(self, n=1):
    return self.head(n)
pd.DataFrame.top = top
---
df = pd.DataFrame({'a': [3, 1, 2]})
---
out = df.top(2)
---
print(out)
"""),
        probes=("df.top().shape", "pd.DataFrame.top is top"),
        edits=(Edit({0: "import pandas as pd\ndef top(self, n=1):\n    return self.tail(n)\npd.DataFrame.top = top"}),),
        needs=("numpy", "pandas"),
        replays=(2, 3),
    ),
    Case(
        row="13",
        name="patch-a-module-and-builtins",
        cells=cells("""
import math, builtins
math.tau2 = 2 * math.tau
builtins.shout = lambda s: s.upper() + '!'
---
loud = shout('hey')
---
x = math.tau2
---
print(loud, round(x, 3))
"""),
        probes=("shout('a')", "math.tau2 > 12"),
        edits=(
            Edit({0: "import math, builtins\nmath.tau2 = 3 * math.tau\nbuiltins.shout = lambda s: s.lower() + '?'"}),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="13",
        name="patch-a-function-in-use",
        cells=cells("""
import json
real = json.dumps
json.dumps = lambda *a, **k: 'patched'
---
s = json.dumps({'a': 1})
---
json.dumps = real
---
t = json.dumps({'a': 1})
print(s, t)
"""),
        probes=("json.dumps({'b': 2})", "s, t"),
        edits=(Edit({0: "import json\nreal = json.dumps\njson.dumps = lambda *a, **k: 'other'"}), Edit({2: "pass"})),
    ),
    # --- 14: caches -----------------------------------------------------------------------------------------------------
    Case(
        row="14",
        name="lru-cache",
        cells=cells("""
from functools import lru_cache
@lru_cache(maxsize=None)
def slow(n):
    return n * 10
---
a = slow(3)
---
b = slow(3) + slow(4)
---
print(a, b)
"""),
        probes=("slow(3), slow(5)", "slow.cache_parameters()"),
        edits=(
            Edit({0: "from functools import lru_cache\n@lru_cache(maxsize=None)\ndef slow(n):\n    return n * 100"}),
        ),
        replays=(2, 3),
    ),
    Case(
        row="14",
        name="cached-property-and-memo",
        cells=cells("""
from functools import cached_property
memo = {}
class Data:
    def __init__(self, n):
        self.n = n
    @cached_property
    def square(self):
        return self.n ** 2
def fib(n):
    if n not in memo:
        memo[n] = n if n < 2 else fib(n - 1) + fib(n - 2)
    return memo[n]
---
d = Data(5)
x = d.square
---
y = fib(10)
---
print(x, y, len(memo))
"""),
        probes=("d.square, 'square' in vars(d)", "fib(12), len(memo)"),
        edits=(
            Edit(
                {
                    0: "from functools import cached_property\nmemo = {}\nclass Data:\n    def __init__(self, n):\n        self.n = n\n    @cached_property\n    def square(self):\n        return self.n ** 3\ndef fib(n):\n    return 0"
                }
            ),
        ),
        replays=(1, 2, 3),
    ),
    # --- 15: weakrefs, finalisers ---------------------------------------------------------------------------------------
    Case(
        row="15",
        name="weakref",
        cells=cells("""
import weakref
class Thing:
    def __init__(self, n): self.n = n
t = Thing(1)
---
ref = weakref.ref(t)
wd = weakref.WeakValueDictionary(t=t)
---
print(ref() is t, wd['t'] is t)
"""),
        probes=("ref() is t", "wd.get('t') is t"),
        edits=(Edit({0: "import weakref\nclass Thing:\n    def __init__(self, n): self.n = n\nt = Thing(2)"}),),
    ),
    Case(
        row="15",
        name="finaliser-runs-once",
        cells=cells("""
log = []
class Closing:
    def __init__(self, n): self.n = n
    def __del__(self): log.append(self.n)
---
c = Closing(1)
---
c = Closing(2)
---
print(log)
"""),
        probes=("log", "del c; log"),
        edits=(Edit({2: "c = Closing(3)"}),),
        refusal=True,
    ),
    Case(
        row="15",
        name="context-left-open",
        cells=cells("""
from contextlib import ExitStack
log = []
stack = ExitStack()
stack.callback(log.append, 'closed')
---
n = len(log)
---
stack.close()
---
print(log, n)
"""),
        probes=("log",),
        edits=(Edit({1: "n = len(log) + 1"}),),
    ),
    # --- 16: cycles, deep, huge -----------------------------------------------------------------------------------------
    Case(
        row="16",
        name="cycles",
        cells=cells("""
a = [len('x')]
a.append(a)
d = {}
d['self'] = d
d['list'] = a
---
t = (a, d)
a.append(t)
---
print(len(a), d['self'] is d, a[1] is a, a[2][0] is a)
"""),
        probes=("a[1] is a", "d['list'] is a", "a[2] is t", "t[1]['self'] is d"),
        edits=(Edit({1: "t = (a, d, 1)\na.append(t)"}),),
        replays=(0, 1, 2),
    ),
    Case(
        row="16",
        name="very-deep",
        cells=cells("""
deep = []
for _ in range(20000):
    deep = [deep]
---
n, x = 0, deep
while x:
    x = x[0]
    n += 1
---
print(n)
"""),
        probes=("n", "len(deep)"),
        edits=(Edit({2: "print(-n)"}),),
        refusal=True,
    ),
    Case(
        row="16",
        name="linked-list-of-objects",
        cells=cells("""
class Link:
    def __init__(self, value, rest): self.value, self.rest = value, rest
head = None
for i in range(3000):
    head = Link(i, head)
---
def total(link):
    s = 0
    while link:
        s, link = s + link.value, link.rest
    return s
---
head.rest.value = -1
---
print(total(head))
"""),
        probes=("total(head)", "head.rest.value"),
        edits=(Edit({2: "head.rest.value = -2"}),),
        refusal=True,
    ),
    # --- 17: wrong-but-quiet pickles ------------------------------------------------------------------------------------
    Case(
        row="17",
        name="standard-containers-keep-all",
        cells=cells("""
from collections import deque, defaultdict, OrderedDict, Counter
dq = deque([1, 2], maxlen=2)
dd = defaultdict(list, a=[1])
od = OrderedDict(x=1, y=2)
ct = Counter('hello')
---
dq.append(3)
dd['b'].append(2)
od.move_to_end('x')
ct.update('l')
---
print(dq, dict(dd), od, ct.most_common(1))
"""),
        probes=("dq.append(9); dq", "dd['zz'].append(1); dict(dd)", "list(od)", "ct['nothing']", "dq.maxlen"),
        edits=(Edit({1: "dq.append(4)"}),),
        replays=(0, 1, 2),
    ),
    Case(
        row="17",
        name="subclass-with-attributes",
        cells=cells("""
class Tagged(list):
    tag = None
class Bag(dict):
    def __missing__(self, key): return 'missing'
t = Tagged([1, 2]); t.tag = 'x'
b = Bag(a=1); b.note = [t]
---
t.append(3)
---
print(t, t.tag, b['zz'], b.note[0] is t)
"""),
        probes=("t.tag, list(t), type(t) is Tagged", "b['q'], b.note[0] is t"),
        edits=(Edit({1: "t.append(4)"}),),
    ),
    Case(
        row="17",
        name="reduce-that-lies",
        cells=cells("""
class Liar:
    def __init__(self): self.value = len('secret')
    def __reduce__(self): return (Liar, ())
x = Liar()
---
x.value = 99
---
print(x.value)
"""),
        probes=("x.value",),
        edits=(Edit({1: "x.value = 100"}),),
        refusal=True,
    ),
    Case(
        row="17",
        name="getstate-that-drops",
        cells=cells("""
class Drops:
    def __init__(self): self.kept, self.lost = [1], [2]
    def __getstate__(self): return {'kept': self.kept}
    def __setstate__(self, state): self.__dict__.update(state); self.lost = None
x = Drops()
---
x.lost.append(3)
---
print(x.kept, x.lost)
"""),
        probes=("x.kept, x.lost",),
        edits=(Edit({1: "x.lost.append(4)"}),),
        refusal=True,
    ),
    Case(
        row="17",
        name="sets-keep-their-order",
        cells=cells("""
s = set('the quick brown fox jumps over the lazy dog'.split())
s.discard('fox'); s.add('cat')
f = frozenset(s)
---
first = list(s)
---
s.add('zebra')
---
print(first, list(s), list(f))
"""),
        probes=("list(s)", "list(f)", "s.add('ant'); list(s)", "[x for x in s][:3]"),
        edits=(Edit({2: "s.add('yak')"}),),
        replays=(0, 1, 2, 3),
    ),
)
