"""Section B: live resources, which cannot be stored and must be opened again or named."""

from __future__ import annotations

from tests.fidelity.case import Case, Edit, cells

CASES = (
    # --- 18: half-used iterators ----------------------------------------------------------------------------------------
    Case(
        row="18",
        name="generator-half-used",
        cells=cells("""
def numbers():
    n = 0
    while True:
        n += 1
        yield n
g = numbers()
---
first = next(g), next(g)
---
second = next(g)
---
print(first, second)
"""),
        probes=("next(g)", "first, second"),
        edits=(Edit({1: "first = next(g)"}), Edit({3: "print(second, first)"}), Edit(order=(0, 2, 1, 3))),
        refusal=True,
    ),
    Case(
        row="18",
        name="iterators-of-builtins",
        cells=cells("""
import itertools
it = iter([10, 20, 30, 40])
en = enumerate('abcd')
co = itertools.count(5)
z = zip([1, 2, 3], 'xyz')
m = map(str, range(5))
---
a = next(it), next(en), next(co), next(z), next(m)
---
b = next(it), next(en), next(co), next(z), next(m)
---
print(a, b)
"""),
        probes=("next(it), next(en), next(co), next(z), next(m)", "list(it)"),
        edits=(Edit({1: "a = next(it), next(en)"}), Edit({3: "print(b)"})),
        refusal=True,
    ),
    Case(
        row="18",
        name="generator-that-reads-a-list-changed-later",
        cells=cells("""
src = [1, 2, 3]
g = (x * 10 for x in src)
---
a = next(g)
---
src.append(4)
---
print(a, list(g))
"""),
        probes=("src", "next(g, 'end')"),
        edits=(Edit({2: "src.append(5)"}),),
        refusal=True,
    ),
    Case(
        row="18",
        name="csv-reader",
        cells=cells("""
import csv
f = open('data.csv')
reader = csv.reader(f)
---
head = next(reader)
---
row = next(reader)
---
print(head, row)
"""),
        files={"data.csv": "a,b\n1,2\n3,4\n5,6\n"},
        probes=("next(reader)", "head, row"),
        edits=(Edit({3: "print(row)"}), Edit(files={"data.csv": "x,y\n7,8\n9,9\n1,1\n"})),
        refusal=True,
    ),
    Case(
        row="18",
        name="generator-used-up-in-one-cell",
        cells=cells("""
def squares(n):
    for i in range(n):
        yield i * i
---
total = sum(squares(5))
---
g = squares(3)
rest = list(g)
---
print(total, rest)
"""),
        probes=("total, rest", "list(g)"),
        edits=(Edit({0: "def squares(n):\n    for i in range(n):\n        yield i * i * i"}),),
        replays=(1,),
        refusal=True,
    ),
    # --- 19: files, sockets, subprocesses -------------------------------------------------------------------------------
    Case(
        row="19",
        name="open-file-read-on",
        cells=cells("""
f = open('lines.txt')
---
one = f.readline()
---
two = f.readline()
---
print(one.strip(), two.strip())
f.close()
"""),
        files={"lines.txt": "first\nsecond\nthird\n"},
        probes=("f.closed", "one, two"),
        edits=(Edit({3: "print(two)\nf.close()"}), Edit(files={"lines.txt": "1\n2\n3\n"})),
        refusal=True,
    ),
    Case(
        row="19",
        name="file-written-over-several-cells",
        cells=cells("""
out = open('log.txt', 'w')
---
n = out.write('one\\n')
---
out.write('two\\n')
out.close()
---
text = open('log.txt').read()
print(text)
"""),
        probes=("out.closed, text",),
        edits=(Edit({1: "n = out.write('uno\\n')"}), Edit({2: "out.write('due\\n')\nout.close()"})),
        refusal=True,
    ),
    Case(
        row="19",
        name="string-buffers",
        cells=cells("""
import io
s = io.StringIO()
b = io.BytesIO(b'abcdef')
---
print('hello', file=s)
x = b.read(2)
---
s.write('more')
y = b.read(2)
---
print(s.getvalue(), x, y)
"""),
        probes=("s.write('!'); s.getvalue()", "b.read()"),
        edits=(Edit({1: "print('bye', file=s)\nx = b.read(3)"}),),
        refusal=True,
    ),
    Case(
        row="19",
        name="subprocess-handle",
        cells=cells("""
import subprocess, sys
p = subprocess.Popen([sys.executable, '-c', 'print(6 * 7)'], stdout=subprocess.PIPE, text=True)
---
out, _err = p.communicate()
---
print(out.strip(), p.returncode)
"""),
        probes=("out, p.returncode",),
        edits=(Edit({2: "print(out)"}),),
        refusal=True,
    ),
    Case(
        row="19",
        name="socket-pair",
        cells=cells("""
import socket
a, b = socket.socketpair()
---
sent = a.send(b'ping')
---
got = b.recv(10)
---
print(sent, got)
a.close(); b.close()
"""),
        probes=("got",),
        edits=(Edit({3: "print(got)\na.close(); b.close()"}),),
        refusal=True,
    ),
    # --- 20: connections ------------------------------------------------------------------------------------------------
    Case(
        row="20",
        name="sqlite-in-memory",
        cells=cells("""
import sqlite3
db = sqlite3.connect(':memory:')
---
_ = db.execute('create table t (x)')
---
_ = db.executemany('insert into t values (?)', [(1,), (2,)])
---
total = db.execute('select sum(x) from t').fetchone()[0]
print(total)
"""),
        probes=("db.execute('select count(*) from t').fetchone()", "total"),
        edits=(
            Edit({2: "_ = db.executemany('insert into t values (?)', [(5,)])"}),
            Edit({3: "total = db.execute('select max(x) from t').fetchone()[0]\nprint(total)"}),
        ),
        refusal=True,
    ),
    Case(
        row="20",
        name="sqlite-file-and-data-behind-it",
        cells=cells("""
import sqlite3
db = sqlite3.connect('data.db')
_ = db.execute('create table if not exists t (x)')
_ = db.execute('delete from t')
_ = db.executemany('insert into t values (?)', [(1,), (2,), (3,)])
db.commit()
---
rows = [r[0] for r in db.execute('select x from t order by x')]
---
mean = sum(rows) / len(rows)
---
print(rows, mean)
db.close()
"""),
        probes=("rows, mean",),
        edits=(Edit({2: "mean = max(rows)"}),),
        refusal=True,
        ignore=("files",),
    ),
    # --- 21: threads, locks, executors, tasks ---------------------------------------------------------------------------
    Case(
        row="21",
        name="thread-joined-later",
        cells=cells("""
import threading
box = []
go = threading.Event()
def work():
    go.wait()
    box.append('done')
t = threading.Thread(target=work)
t.start()
---
before = list(box)
---
go.set()
t.join()
---
print(before, box)
"""),
        probes=("box, before", "t.is_alive()"),
        edits=(Edit({3: "print(box)"}),),
        refusal=True,
    ),
    Case(
        row="21",
        name="lock",
        cells=cells("""
import threading
lock = threading.Lock()
count = 0
---
with lock:
    count += 1
---
print(count, lock.locked())
"""),
        probes=("lock.acquire(blocking=False), count",),
        edits=(Edit({1: "with lock:\n    count += 2"}),),
        refusal=True,
    ),
    Case(
        row="19",
        name="archives-that-with-has-closed",
        cells=cells("""
import csv, gzip, zipfile
from pathlib import Path
rows = [[len('ab'), 'x'], [len('abc'), 'y']]
---
with zipfile.ZipFile('pack.zip', 'w') as pack:
    pack.writestr(zipfile.ZipInfo('a.txt'), 'hello')
with gzip.GzipFile('text.gz', 'wb', mtime=0) as text:
    count = text.write(b'compressed')
---
with zipfile.ZipFile('pack.zip') as opened:
    names = opened.namelist()
with open('rows.csv', 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerows(rows)
---
print(names, Path('rows.csv').read_text().split(), gzip.open('text.gz', 'rt').read())
"""),
        probes=("pack.fp, file.closed, names", "type(writer).__name__, text.closed"),
        edits=(
            Edit(
                {
                    1: "with zipfile.ZipFile('pack.zip', 'w') as pack:\n    pack.writestr(zipfile.ZipInfo('b.txt'), 'hello')\nwith gzip.GzipFile('text.gz', 'wb', mtime=0) as text:\n    count = text.write(b'other')"
                }
            ),
            Edit({0: "import csv, gzip, zipfile\nfrom pathlib import Path\nrows = [[1, 'z']]"}),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="21",
        name="executor-that-with-has-ended",
        cells=cells("""
from concurrent.futures import ThreadPoolExecutor
import threading
---
with ThreadPoolExecutor(2) as pool:
    results = list(pool.map(abs, [-1, -2]))
worker = threading.Thread(target=results.append, args=(3,))
worker.start()
worker.join()
---
print(results, worker.is_alive())
"""),
        probes=("results, worker.is_alive()", "pool._shutdown"),
        edits=(
            Edit(
                {
                    1: "with ThreadPoolExecutor(2) as pool:\n    results = list(pool.map(abs, [-4]))\nworker = threading.Thread(target=results.append, args=(5,))\nworker.start()\nworker.join()"
                }
            ),
        ),
        replays=(1, 2),
    ),
    Case(
        row="21",
        name="executor",
        cells=cells("""
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
---
results = list(pool.map(lambda x: x * 2, range(4)))
---
pool.shutdown()
print(results)
"""),
        probes=("results",),
        edits=(Edit({1: "results = list(pool.map(lambda x: x * 3, range(4)))"}),),
        refusal=True,
    ),
    # --- 22: async ------------------------------------------------------------------------------------------------------
    Case(
        row="22",
        name="top-level-await",
        cells=cells("""
import asyncio
async def fetch(n):
    await asyncio.sleep(0)
    return n * 2
---
r = await fetch(21)
---
both = await asyncio.gather(fetch(1), fetch(2))
---
print(r, both)
"""),
        probes=("r, both",),
        edits=(
            Edit({0: "import asyncio\nasync def fetch(n):\n    await asyncio.sleep(0)\n    return n * 3"}),
            Edit({1: "r = await fetch(22)"}),
        ),
        replays=(1, 2, 3),
    ),
    Case(
        row="22",
        name="loop-bound-objects",
        cells=cells("""
import asyncio
q = asyncio.Queue()
lock = asyncio.Lock()
---
await q.put(5)
async with lock:
    n = q.qsize()
---
got = await q.get()
---
print(n, got, q.empty())
"""),
        probes=("n, got, q.empty()",),
        edits=(Edit({1: "await q.put(6)\nn = q.qsize()"}),),
        refusal=True,
    ),
    Case(
        row="22",
        name="coroutine-not-awaited-yet",
        cells=cells("""
async def f():
    return 5
c = f()
---
x = 1 + 1
---
y = await c
print(x, y)
"""),
        probes=("x, y",),
        edits=(Edit({1: "x = 2 + 2"}),),
        refusal=True,
    ),
    # --- 23: models and optimizers that share parameters ---------------------------------------------------------------
    Case(
        row="23",
        name="optimizer-shares-the-parameters-of-its-model",
        cells=cells("""
import numpy as np
class Model:
    def __init__(self):
        self.w = np.ones((4, 4)); self.b = np.zeros(4)
class Sgd:
    def __init__(self, params, lr): self.params, self.lr = params, lr
    def step(self, grads):
        for p, g in zip(self.params, grads): p -= self.lr * g
model = Model()
opt = Sgd([model.w, model.b], 0.5)
---
opt.step([np.ones((4, 4)), np.ones(4)])
---
opt.lr = 0.1
opt.step([np.ones((4, 4)), np.ones(4)])
---
print(model.w[0, 0], model.b)
"""),
        needs=("numpy",),
        probes=("opt.params[0] is model.w", "opt.step([np.ones((4, 4)), np.ones(4)]); model.w[0, 0]"),
        edits=(Edit({1: "opt.step([np.zeros((4, 4)), np.ones(4)])"}),),
        replays=(0, 1, 2, 3),
    ),
    Case(
        row="23",
        name="estimator-fitted-over-cells",
        cells=cells("""
import numpy as np
from sklearn.linear_model import SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3)); y = X @ [1., 2., 3.]
model = SGDRegressor(random_state=0, max_iter=50, tol=None)
pipe = make_pipeline(StandardScaler(), model)
---
_ = pipe.fit(X, y)
---
_ = model.partial_fit(X, y)
---
print(pipe[-1] is model, np.round(model.coef_, 6))
"""),
        needs=("numpy", "sklearn.linear_model", "sklearn.pipeline"),
        probes=("pipe[-1] is model", "_ = model.partial_fit(X, y); np.round(pipe[-1].coef_, 6)", "rng.normal()"),
        edits=(
            Edit({2: "pass"}),
            Edit(
                {
                    0: "import numpy as np\nfrom sklearn.linear_model import SGDRegressor\nfrom sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import StandardScaler\nrng = np.random.default_rng(1)\nX = rng.normal(size=(40, 3)); y = X @ [1., 2., 3.]\nmodel = SGDRegressor(random_state=0, max_iter=50, tol=None)\npipe = make_pipeline(StandardScaler(), model)"
                }
            ),
        ),
        replays=(1, 2, 3),
    ),
    # --- 24: memory maps, temporary files -------------------------------------------------------------------------------
    Case(
        row="24",
        name="memory-mapped-array",
        cells=cells("""
import numpy as np
np.save('a.npy', np.arange(8))
---
m = np.load('a.npy', mmap_mode='r')
---
s = int(m.sum())
---
print(s, m[:3].tolist())
"""),
        needs=("numpy",),
        probes=("m.tolist(), s", "type(m).__name__"),
        edits=(Edit({0: "import numpy as np\nnp.save('a.npy', np.arange(9))"}), Edit({2: "s = int(m.max())"})),
        refusal=True,
    ),
    Case(
        row="24",
        name="memory-map-written-through",
        cells=cells("""
import numpy as np
m = np.memmap('m.bin', dtype='i4', mode='w+', shape=(4,))
---
m[1] = 7
m.flush()
---
print(np.fromfile('m.bin', dtype='i4').tolist())
"""),
        needs=("numpy",),
        probes=("m.tolist()", "m[0] = 5; m.flush(); np.fromfile('m.bin', dtype='i4').tolist()"),
        edits=(Edit({1: "m[1] = 8\nm.flush()"}),),
        refusal=True,
    ),
    Case(
        row="24",
        name="temporary-directory",
        cells=cells("""
import tempfile, pathlib
tmp = tempfile.TemporaryDirectory()
p = pathlib.Path(tmp.name) / 'x.txt'
---
n = p.write_text('hello')
---
back = p.read_text()
print(back, n)
"""),
        probes=("back", "p.exists()"),
        edits=(Edit({1: "n = p.write_text('other')"}),),
        ignore=("names.tmp", "names.p"),
        refusal=True,
    ),
    # --- 25: no pickle at all -------------------------------------------------------------------------------------------
    Case(
        row="25",
        name="ctypes",
        cells=cells("""
import ctypes
class Pair(ctypes.Structure):
    _fields_ = [('a', ctypes.c_int), ('b', ctypes.c_int)]
pair = Pair(1, 2)
ptr = ctypes.pointer(pair)
---
pair.a = 50
---
arr = (ctypes.c_int * 3)(1, 2, 3)
arr[1] = 9
---
print(ptr.contents.a, list(arr))
"""),
        probes=("ptr.contents.b = 5; pair.b", "list(arr)"),
        edits=(Edit({1: "pair.a = 51"}),),
        refusal=True,
    ),
    Case(
        row="25",
        name="unstorable-beside-storable",
        cells=cells("""
import threading
holder = {'lock': threading.Lock(), 'data': [1]}
plain = [len('x')]
---
holder['data'].append(2)
---
plain.append(3)
---
print(holder['data'], plain)
"""),
        probes=("holder['data'], plain", "holder['lock'].locked()"),
        edits=(Edit({1: "holder['data'].append(20)"}), Edit({2: "plain.append(30)"})),
        refusal=True,
    ),
    Case(
        row="25",
        name="alias-into-an-unstorable-group",
        cells=cells("""
import threading
data = [1]
holder = (threading.Lock(), data)
---
data.append(2)
---
n = len(holder[1])
---
print(n, data is holder[1])
"""),
        probes=("data.append(9); holder[1]", "data is holder[1]"),
        edits=(Edit({1: "data.append(2); data.append(3)"}),),
        refusal=True,
    ),
)
