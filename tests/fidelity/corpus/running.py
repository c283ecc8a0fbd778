"""Sections E and F: execution, identity, files, and what neighbouring engines got wrong."""

from __future__ import annotations

from tests.fidelity.case import Case, Edit, cells

CASES = (
    # --- 43: errors half-way --------------------------------------------------------------------------------------------
    Case(
        row="43",
        name="names-of-a-failed-cell-are-dirty",
        cells=cells("""
data = [len('a')]
total = 0
---
data.append('half')
total = 5
raise RuntimeError('stop')
---
seen = list(data), total
---
print(seen)
"""),
        probes=("data, total, seen",),
        edits=(Edit({1: "data.append('whole')\ntotal = 6"}), Edit(order=(0, 2, 3))),
        stop_on_error=False,
    ),
    Case(
        row="43",
        name="retry-starts-clean",
        cells=cells("""
attempts = []
import os, pathlib
---
%%durable_step flaky --max-attempts 3 --initial-delay 0s --jitter none
attempts.append(len(attempts))
marks = pathlib.Path('marks.txt')
n = int(marks.read_text()) if marks.exists() else 0
marks.write_text(str(n + 1))
if n < 2:
    raise OSError('not yet')
result = list(attempts)
---
print(attempts, result)
"""),
        probes=("attempts, result",),
        # The plain kernel has no such magic: compare with the notebook's own first run.
        first=True,
        repeats=True,
        edits=(Edit({2: "print(result)"}),),
    ),
    # --- 44 is in the acceptance tests: interrupts need a second process ------------------------------------------------
    # --- 45: kills ------------------------------------------------------------------------------------------------------
    Case(
        row="45",
        name="many-small-cells",
        cells=cells("""
total = 0
---
total += 1
---
total += 2
---
total *= 3
---
log = [total]
---
log.append(total + 1)
print(log)
"""),
        probes=("total, log",),
        edits=(Edit({2: "total += 20"}),),
        replays=(1, 2, 3, 4, 5),
    ),
    Case(
        row="45",
        name="at-most-once-is-never-started-twice",
        cells=cells("""
import pathlib
---
%%durable_step pay --at-most-once
log = pathlib.Path('paid.txt')
with log.open('a') as f:
    _ = f.write('paid\\n')
receipt = 'r-1'
---
print(receipt, pathlib.Path('paid.txt').read_text().count('paid'))
"""),
        first=True,
        refusal=True,
        edits=(Edit({2: "print(receipt)"}),),
        env={"DURABLE_NB_EXECUTION": "payments"},
    ),
    # --- 46: a loop of durable steps ------------------------------------------------------------------------------------
    # --- 47: identical cells --------------------------------------------------------------------------------------------
    Case(
        row="47",
        name="identical-cells",
        cells=cells("""
x = len('a')
items = []
---
x += 1
items.append(x)
---
x += 1
items.append(x)
---
x += 1
items.append(x)
---
print(x, items)
"""),
        probes=("x, items",),
        edits=(Edit(order=(0, 1, 2, 4)), Edit(order=(0, 1, 2, 3, 3, 4)), Edit({2: "x += 10\nitems.append(x)"})),
        replays=(0, 1, 2, 3, 4),
    ),
    Case(
        row="47",
        name="identical-random-cells",
        cells=cells("""
import random, uuid
---
print(uuid.uuid4())
---
print(uuid.uuid4())
"""),
        first=True,
        edits=(Edit({0: "import random, uuid, os"}),),
        replays=(1, 2),
    ),
    # --- 48: moved, split, merged, copied ------------------------------------------------------------------------------
    Case(
        row="48",
        name="moved-split-merged",
        cells=cells("""
a = sum(range(10))
---
b = sum(range(20))
---
c = a + b
d = [c]
---
d.append(a)
---
print(a, b, c, d)
"""),
        probes=("a, b, c, d",),
        edits=(
            Edit(order=(1, 0, 2, 3, 4)),
            Edit({2: "c = a + b"}, order=(0, 1, 2)),
            Edit({2: "c = a + b\nd = [c]\nd.append(a)", 3: None}),
            Edit({1: "a = a\nb = sum(range(20))"}),
            Edit(order=(0, 1, 2, 3, 3, 4)),
            Edit(order=(0, 1, 2, 4, 3)),
        ),
        replays=(0, 1, 2, 3, 4),
    ),
    # --- 49: edited -----------------------------------------------------------------------------------------------------
    Case(
        row="49",
        name="names-that-are-bound-or-left-alone",
        cells=cells("""
rows = [len('a')]
flag = bool(len(''))
def reset(really):
    global rows
    if really:
        rows = [0]
---
more = rows
x = 5
n = 9
---
if flag:
    rows = [9]
---
for x in range(len(rows) - 1):
    pass
---
try:
    [][1]
    more = None
except IndexError:
    pass
---
reset(flag)
---
for n in range(10):
    pass
---
print(rows, x, n, more, more is rows)
"""),
        probes=("rows, x, n, more", "more is rows"),
        edits=(
            Edit(
                {
                    0: "rows = [len('abc')]\nflag = bool(len(''))\ndef reset(really):\n    global rows\n    if really:\n        rows = [0]"
                }
            ),
            Edit({1: "more = rows\nx = 6\nn = 8"}),
            Edit({1: "more = list(rows)\nx = [5]\nn = 9"}),
            Edit({1: "pass"}),
            Edit({2: "if not flag:\n    rows = [9]"}),
        ),
        replays=(1, 2, 3, 4, 5, 6, 7),
        stop_on_error=False,
    ),
    Case(
        row="49",
        name="only-true-dependants",
        cells=cells("""
a = sum(range(10))
---
b = sum(range(5)) + a
---
c = sum(range(7))
---
d = b + c
---
print(a, b, c, d)
"""),
        probes=("a, b, c, d",),
        edits=(
            Edit({0: "a = sum(range(11))"}),
            Edit({0: "a = sum(range(10))  # the same"}),
            Edit({0: "a = 45"}),
            Edit({2: "c = sum(range(8))"}),
            Edit({1: "b = a"}),
        ),
        replays=(0, 1, 2, 3, 4),
    ),
    Case(
        row="49",
        name="conditional-reads-and-comprehensions",
        cells=cells("""
flag = bool(len('x'))
left = [1, 2]
right = [3, 4]
---
value = [n * 2 for n in (left if flag else right)]
---
def pick():
    return {k: v for k, v in zip('ab', left if flag else right)}
---
p = pick()
---
print(value, p)
"""),
        probes=("value, p, pick()",),
        edits=(
            Edit({0: "flag = bool(len('x'))\nleft = [1, 9]\nright = [3, 4]"}),
            Edit({0: "flag = not len('x')\nleft = [1, 2]\nright = [3, 4]"}),
        ),
        replays=(0, 1, 3, 4),
    ),
    Case(
        row="49",
        name="equal-value-keeps-its-readers",
        cells=cells("""
raw = 'b a c'.split()
---
clean = sorted(raw)
---
n = len(clean)
print(n)
"""),
        probes=("clean, n",),
        edits=(
            Edit({0: "raw = 'c b a'.split()"}),
            Edit({1: "clean = list(sorted(raw))"}),
            Edit({1: "clean = raw\nclean.sort()"}),
        ),
        replays=(0, 1, 2),
    ),
    # --- 51: dynamic names ----------------------------------------------------------------------------------------------
    Case(
        row="51",
        name="multiprocessing-calls-the-notebook-by-another-name",
        cells=cells("""
import multiprocessing
%run -i part.py
---
mark = object()
first = [max(1, 2)]
first
---
second = [max(3, 4), 5]
second
---
def check(x=mark):
    return x is mark
---
print(first, second, first is second, check(), VALUE)
"""),
        files={"part.py": "VALUE = 3\n"},
        probes=("first, second, first is second", "check()", "VALUE"),
        edits=(Edit(files={"part.py": "VALUE = 4\n"}), Edit({1: "mark = object()\nfirst = [max(1, 7)]\nfirst"})),
    ),
    Case(
        row="51",
        name="exec-globals-locals-push",
        cells=cells("""
exec('made = [1]')
globals()['key' + 'ed'] = {'a': 1}
---
get_ipython().push({'pushed': (1, 2)})
for name in ('u', 'v'):
    globals()[name] = name * 2
---
made.append(keyed['a'])
locals()['localed'] = 5
---
print(made, keyed, pushed, u, v, localed)
"""),
        probes=("made, keyed, pushed, u, v, localed",),
        edits=(
            Edit({0: "exec('made = [10]')\nglobals()['key' + 'ed'] = {'a': 3}"}),
            Edit({1: "get_ipython().push({'pushed': (1, 3)})\nu = v = 0"}),
        ),
    ),
    Case(
        row="51",
        name="eval-reads-anything",
        cells=cells("""
alpha = len('abc')
beta = 10
---
out = eval('al' + 'pha') + 1
---
names = sorted(k for k in globals() if k in ('alpha', 'beta', 'out'))
---
print(out, names)
"""),
        probes=("out, names",),
        edits=(Edit({0: "alpha = len('abcd')\nbeta = 10"}),),
    ),
    Case(
        row="51",
        name="run-a-script",
        cells=cells("""
%run script.py
---
y = from_script(2)
---
print(y, VALUE)
"""),
        files={"script.py": "VALUE = 7\ndef from_script(x):\n    return x * VALUE\n"},
        probes=("y, VALUE, from_script(3)",),
        edits=(Edit(files={"script.py": "VALUE = 8\ndef from_script(x):\n    return x * VALUE\n"}),),
    ),
    Case(
        row="51",
        name="capture-and-time-magics",
        cells=cells("""
%%capture out
print('captured')
value = [len('x')]
---
%time z = sum(range(100))
---
print(out.stdout, value, z)
"""),
        probes=("out.stdout, value, z",),
        edits=(Edit({0: "%%capture out\nprint('other')\nvalue = [2]"}),),
        ignore=("cells.1.outputs",),
    ),
    # --- 52: files ------------------------------------------------------------------------------------------------------
    Case(
        row="52",
        name="file-read",
        cells=cells("""
text = open('in.txt').read()
---
import json, pathlib
conf = json.loads(pathlib.Path('conf.json').read_text())
---
n = len(text) + conf['k']
---
print(n)
"""),
        files={"in.txt": "hello", "conf.json": '{"k": 1}'},
        probes=("text, conf, n",),
        edits=(Edit(files={"in.txt": "hello world"}), Edit(files={"conf.json": '{"k": 2}'})),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="52",
        name="file-missing-and-listing",
        cells=cells("""
import os, glob
found = os.path.exists('maybe.txt')
---
names = sorted(glob.glob('*.csv'))
---
listed = sorted(n for n in os.listdir('.') if n.endswith('.csv'))
---
print(found, names, listed)
"""),
        files={"a.csv": "1"},
        probes=("found, names, listed",),
        edits=(Edit(files={"maybe.txt": "x"}), Edit(files={"b.csv": "2"}), Edit(files={"a.csv": None})),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="52",
        name="try-open-missing",
        cells=cells("""
try:
    value = open('opt.txt').read()
except FileNotFoundError:
    value = 'default'
---
print(value)
"""),
        probes=("value",),
        edits=(Edit(files={"opt.txt": "given"}),),
        replays=(0, 1),
    ),
    Case(
        row="52",
        name="frame-from-csv",
        cells=cells("""
import pandas as pd
df = pd.read_csv('data.csv')
---
total = int(df['x'].sum())
---
df.to_csv('out.csv', index=False)
---
back = pd.read_csv('out.csv')
print(total, back.shape)
"""),
        needs=("numpy", "pandas"),
        files={"data.csv": "x,y\n1,2\n3,4\n"},
        probes=("total, back.to_dict()",),
        edits=(Edit(files={"data.csv": "x,y\n10,2\n3,4\n"}), Edit({2: "df.head(1).to_csv('out.csv', index=False)"})),
        replays=(1, 2, 3),
    ),
    Case(
        row="52",
        name="written-then-overwritten",
        cells=cells("""
import pathlib
p = pathlib.Path('state.txt')
n = p.write_text('one')
---
first = p.read_text()
---
n = p.write_text('two')
---
second = p.read_text()
---
print(first, second)
"""),
        probes=("first, second, p.read_text()",),
        edits=(
            Edit({1: "first = p.read_text().upper()"}),
            Edit({0: "import pathlib\np = pathlib.Path('state.txt')\nn = p.write_text('uno')"}),
            Edit({2: "n = p.write_text('due')"}),
            Edit(order=(0, 1, 3, 4), cells={3: "second = 'none'"}),
        ),
        replays=(1, 2, 3, 4),
    ),
    Case(
        row="52",
        name="json-written-and-read-through-a-function",
        cells=cells("""
import json
def save(obj, name):
    with open(name, 'w') as f:
        json.dump(obj, f)
def load(name):
    with open(name) as f:
        return json.load(f)
---
save({'a': 1}, 'o.json')
---
got = load('o.json')
---
print(got)
"""),
        probes=("got, load('o.json')",),
        edits=(Edit({1: "save({'a': 2}, 'o.json')"}), Edit(files={"o.json": None})),
        replays=(1, 2, 3),
    ),
    Case(
        row="52",
        name="written-as-it-was",
        cells=cells("""
import pathlib
n = pathlib.Path('state.txt').write_text('one')
---
size = n * 2
---
print(size)
"""),
        files={"state.txt": "one"},
        probes=("pathlib.Path('state.txt').read_text()", "size"),
        edits=(Edit(files={"state.txt": ""}), Edit(files={"state.txt": "two"}), Edit(files={"state.txt": None})),
        replays=(1, 2),
    ),
    Case(
        row="52",
        name="numpy-saved-and-loaded",
        cells=cells("""
import numpy as np
a = np.arange(6).reshape(2, 3)
---
np.save('a.npy', a); np.savez('z.npz', a=a, b=a * 2)
---
b = np.load('a.npy')
z = np.load('z.npz')['b']
---
print(b.sum(), z.sum())
"""),
        needs=("numpy",),
        probes=("b.tolist(), z.tolist()",),
        edits=(Edit({0: "import numpy as np\na = np.arange(6).reshape(3, 2) + 1"}),),
        replays=(0, 1, 2, 3),
    ),
    # --- 53: clock, uuid, id, set order ---------------------------------------------------------------------------------
    Case(
        row="53",
        name="first-values-stay",
        cells=cells("""
import time, uuid, os, datetime
---
now = time.time_ns(); today = datetime.datetime.now()
print(now)
---
u = uuid.uuid4(); pid = os.getpid()
print(u, pid)
---
token = os.urandom(4).hex()
print(token)
---
print(now, u, token)
"""),
        first=True,
        edits=(Edit({3: "token = os.urandom(5).hex()\nprint(token)", 4: "print(now, u)"}),),
        replays=(1, 2, 3, 4),
    ),
    Case(
        row="53",
        name="order-of-sets",
        cells=cells("""
s = {'apple', 'pear', 'plum', 'fig', 'kiwi'}
print(s)
---
order = list(s)
t = s | {'lemon'}
---
print(t, order)
"""),
        probes=("list(s), list(t)", "s.pop()", "list(s | {'zz'})"),
        edits=(Edit({2: "print(order, list(t))"}),),
        replays=(1, 2),
    ),
    # --- 56: secrets ----------------------------------------------------------------------------------------------------
    Case(
        row="56",
        name="secret-names",
        cells=cells("""
import os
api_key = 'sk-' + str(len('abc'))
---
os.environ['MY_TOKEN'] = 'tok'
---
n = len(api_key)
---
print(n, os.environ['MY_TOKEN'])
"""),
        probes=("api_key, n", "os.environ['MY_TOKEN']"),
        edits=(Edit({0: "import os\napi_key = 'sk-longer' + str(len('abc'))"}),),
    ),
    # --- 59: fork, multiprocessing --------------------------------------------------------------------------------------
    Case(
        row="59",
        name="forked-workers",
        cells=cells("""
import multiprocessing as mp, os
def square(x):
    return x * x
ctx = mp.get_context('fork')
---
with ctx.Pool(2) as pool:
    r = pool.map(square, range(5))
---
pid = os.fork()
if pid == 0:
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
---
print(r, code)
"""),
        probes=("r, code",),
        edits=(
            Edit(
                {
                    0: "import multiprocessing as mp, os\ndef square(x):\n    return x * x * x\nctx = mp.get_context('fork')"
                }
            ),
        ),
        ignore=("names.pid", "names.pool", "names.ctx"),
    ),
    # --- F --------------------------------------------------------------------------------------------------------------
    Case(
        row="F7",
        name="silent-serialisation-loss",
        cells=cells("""
import datetime, decimal, fractions, uuid, pathlib, re, ipaddress, collections, array
stuff = {
    'tz': datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), 'delta': datetime.timedelta(1),
    'dec': decimal.Decimal('1.10'), 'frac': fractions.Fraction(1, 3), 'uuid': uuid.UUID(int=5),
    'path': pathlib.PurePosixPath('a/b'), 're': re.compile('a+', re.I), 'ip': ipaddress.ip_address('::1'),
    'tuple': (1, (2,)), 1: 'int key', None: 'none key', (1, 2): 'tuple key', True and 2.5: 'float key',
    'bytes': b'\\x00\\xff', 'ba': bytearray(b'x'), 'complex': 1 + 2j, 'nan': float('nan'), 'inf': float('-inf'),
    'neg': -0.0, 'big': 10 ** 400, 'ell': ..., 'ni': NotImplemented, 'range': range(1, 9, 2), 'slice': slice(1, None),
    'arr': array.array('d', [1.5]), 'chain': collections.ChainMap({'a': 1}), 'surrogate': '\\ud800',
}
n = len(stuff)
---
stuff['tuple2'] = stuff['tuple']
---
print(n, sorted(str(type(v).__name__) for v in stuff.values()))
"""),
        probes=(
            "stuff['neg'], stuff['nan'], stuff['tz'].tzinfo is datetime.timezone.utc",
            "stuff['re'].pattern",
            "stuff['big'] == 10 ** 400",
            "stuff['ell'] is ..., stuff['ni'] is NotImplemented",
        ),
        edits=(Edit({1: "stuff['tuple2'] = 0"}),),
        replays=(0, 1, 2),
    ),
    Case(
        row="F8",
        name="side-effect-mutation",
        cells=cells("""
state = {'messages': []}
def node(s):
    s['messages'].append(len(s['messages']))
---
node(state)
---
node(state)
---
print(state)
"""),
        probes=("node(state); state",),
        edits=(
            Edit(order=(0, 1, 3)),
            Edit({0: "state = {'messages': ['first']}\ndef node(s):\n    s['messages'].append(len(s['messages']))"}),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="F10",
        name="code-change-surprises",
        cells=cells("""
class Model:
    def fit(self, xs):
        self.mean = sum(xs) / len(xs)
        return self
    def predict(self, x):
        return x - self.mean
---
m = Model().fit([1, 2, 3])
---
p = m.predict(10)
---
print(p)
"""),
        probes=("m.predict(0), p",),
        edits=(
            Edit(
                {
                    0: "class Model:\n    def fit(self, xs):\n        self.mean = sum(xs) / len(xs)\n        return self\n    def predict(self, x):\n        return x + self.mean"
                }
            ),
            Edit(
                {
                    0: "class Model:\n    offset = 1\n    def fit(self, xs):\n        self.mean = sum(xs) / len(xs)\n        return self\n    def predict(self, x):\n        return x - self.mean + self.offset"
                }
            ),
        ),
        replays=(1, 2, 3),
    ),
)
