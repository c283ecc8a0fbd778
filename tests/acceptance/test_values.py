"""What a replay gives back: the objects, their sharing, their code, and the process around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.story import DECLARED, EXECUTED, NOT_DURABLE, REPLAYED, Story
from tests.notebook.harness import Bench, Kernel, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(4)]

# Cells, then a live cell that behaves as the values behave: it is new in the second run, so everything before it was replayed.
BEHAVIOUR: dict[str, tuple[list[str], str]] = {
    "aliases in one cell": (["a = sorted([2, 1])\nb = a"], "b.append(9)\nprint(a, b is a)"),
    "aliases across cells": (["a = sorted([2, 1])", "b = a"], "b.append(9)\nprint(a, b is a)"),
    "results where multiprocessing calls the notebook by another name": (
        [
            "from pathlib import Path\nsize = Path('local_part.py').write_text('VALUE = 3')",
            "import multiprocessing\n%run -i local_part.py",
            "mark = object()\nfirst = [max(1, 2)]\nfirst",
            "second = [max(3, 4), 5]\nsecond",
            "def check(x=mark):\n    return x is mark",
        ],
        "print(first, second, first is second, check(), VALUE)",
    ),
    "settings behind functions": (
        [
            "import csv, gc, os, socket, sys, time\nimport sklearn",
            "socket.setdefaulttimeout(3)\nsys.setswitchinterval(0.01)\ngc.disable()",
            "old = csv.field_size_limit(1_000_000)\ncsv.register_dialect('semicolons', delimiter=';')",
            "os.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()",
            "sklearn.set_config(transform_output='pandas')",
            "get_ipython().ast_node_interactivity = 'all'",
        ],
        "socket.getdefaulttimeout(), sys.getswitchinterval(), gc.isenabled(), csv.field_size_limit()\n"
        "csv.get_dialect('semicolons').delimiter, time.tzname, sklearn.get_config()['transform_output']",
    ),
    "a printer that a cell registers": (
        [
            "import decimal\nhtml = get_ipython().display_formatter.formatters['text/html']",
            "html.for_type(decimal.Decimal, lambda value: f'<b>{value}</b>');",
            "total = decimal.Decimal(3) + 1",
        ],
        "total",
    ),
    "whether pyplot is interactive": (
        ["import matplotlib.pyplot as plt", "plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);", "plt.ioff()"],
        "plt.figure(figsize=(1, 1)); plt.plot([3, 4]); print(plt.isinteractive(), plt.get_backend())",
    ),
    "an alias made by a container": (["a = sorted([2, 1])", "box = {'a': a}"], "box['a'].append(9)\nprint(a)"),
    "a change through an alias": (["a = sorted([2, 1])", "b = [a]", "b[0].append(5)"], "print(a, b[0] is a)"),
    "a change through a function's closure": (
        [
            "def make():\n    seen = []\n    def add(x):\n        seen.append(x)\n        return list(seen)\n    return add",
            "add = make()",
            "add(1)",
        ],
        "print(add(2))",
    ),
    "two functions that share a cell": (
        [
            "def pair():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n    def get():\n        return n\n    return up, get",
            "up, get = pair()",
            "up()",
        ],
        "up()\nprint(get())",
    ),
    "a mutable default": (["def f(x, seen=[]):\n    seen.append(x)\n    return list(seen)", "f(1)"], "print(f(2))"),
    "a view of an array": (
        ["import numpy as np", "a = np.arange(10) * 1", "v = a[::2]"],
        "v[:] = -1\nprint(a.tolist(), v.base is a, np.shares_memory(a, v))",
    ),
    "a change through a view": (
        ["import numpy as np", "a = np.arange(6) + 0", "v = a[2:]", "v[0] = 99"],
        "print(a.tolist())",
    ),
    "a large array and its view": (
        ["import numpy as np", "a = np.arange(200_000) * 2", "v = a.reshape(2, -1)[1]"],
        "v[0] = -7\nprint(a[100_000], a.flags.writeable, a.sum())",
    ),
    "a frame changed in place": (
        [
            "import pandas as pd",
            "df = pd.DataFrame({'a': [3, 1, 2]})",
            "df.sort_values('a', inplace=True)\ndf['b'] = df.a * 2",
        ],
        "print(df.to_dict('list'), df.index.tolist())",
    ),
    "del, and del then redefine": (
        ["a, b = max(1, 2), max(3, 4)", "del a", "del b\nb = max(5, 6)"],
        "print('a' in globals(), b)",
    ),
    "a function sees a global that is bound later": (
        ["def f():\n    return base + 1", "base = max(1, 2)", "f()"],
        "base = 100\nprint(f(), f.__globals__ is globals())",
    ),
    "a lambda and a decorated function": (
        [
            "import functools",
            "double = (lambda k: lambda x: x * k)(2)",
            "@functools.lru_cache\ndef slow(x):\n    return double(x)",
            "slow(3)",
        ],
        "print(slow(4), slow.__wrapped__(5), slow.cache_info().maxsize)",
    ),
    "instances belong to the live class": (
        [
            "class P:\n    def __init__(self, x):\n        self.x = x\n    def twice(self):\n        return self.x * 2",
            "p = P(sum([1, 2]))",
        ],
        "print(isinstance(p, P), type(p) is P, p.twice())",
    ),
    "dataclasses are equal": (
        ["from dataclasses import dataclass", "@dataclass\nclass D:\n    x: int\n    y: list", "d = D(1, sorted([2]))"],
        "print(d == D(1, [2]), d)",
    ),
    "enum members are the members": (
        ["from enum import Enum", "class Color(Enum):\n    RED = 1\n    BLUE = 2", "c = [Color.RED, max(1, 2)]"],
        "print(c[0] is Color.RED, c[0] == Color.RED, Color(1) is c[0])",
    ),
    "named tuples": (
        ["from collections import namedtuple", "T = namedtuple('T', 'a b')", "t = T(1, sorted([2]))"],
        "print(isinstance(t, T), t, t._replace(a=5))",
    ),
    "a bound method and a partial": (
        ["import functools", "a = sorted([2, 1])", "add = a.append\npart = functools.partial(add, 7)"],
        "add(8)\npart()\nprint(a)",
    ),
    "a set keeps its order": (["s = {f'k{i}' for i in range(40)}", "s -= {'k3', 'k17'}"], "print(list(s))"),
    "containers of every kind": (
        [
            "from collections import OrderedDict, defaultdict, deque, Counter",
            "x = deque([1, 2], maxlen=2), defaultdict(list, a=[1]), Counter('abca'), OrderedDict(b=1)",
        ],
        "x[0].append(3)\nx[1]['new'].append(1)\nprint(x)",
    ),
    "an object that holds itself": (["a = sorted([1])", "a.append(a)"], "print(a[1] is a, len(a))"),
    "a weak reference": (
        ["import weakref", "class N:\n    pass", "n = N()", "w = weakref.ref(n)"],
        "print(w() is n)",
    ),
    "an estimator": (
        [
            "from sklearn.linear_model import LinearRegression",
            "m = LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])",
        ],
        "print(m.predict([[10.0]]).round(6), type(m).__name__)",
    ),
    "random states": (
        ["import random, numpy as np", "random.seed(4)\nnp.random.seed(4)", "x = random.random() + np.random.rand()"],
        "print(random.random(), np.random.rand())",
    ),
    "the working directory and sys.path": (
        ["import os, sys", "os.makedirs('sub', exist_ok=True)\nos.chdir('sub')\nsys.path.insert(0, 'mine')"],
        "print(os.path.basename(os.getcwd()), sys.path[0])",
    ),
    "environment variables": (
        ["import os", "os.environ['MY_MODE'] = str(sum([1, 2]))"],
        "print(os.environ['MY_MODE'])",
    ),
    "options of packages": (
        [
            "import pandas as pd, numpy as np, matplotlib as mpl",
            "pd.set_option('display.max_rows', 7)\nnp.set_printoptions(precision=2)\nmpl.rcParams['lines.linewidth'] = 5.5",
        ],
        "print(pd.get_option('display.max_rows'), np.array([1.23456]), mpl.rcParams['lines.linewidth'])",
    ),
    "warning filters": (
        ["import warnings", "warnings.simplefilter('error')"],
        "try:\n    warnings.warn('x')\nexcept UserWarning as e:\n    print('raised', e)",
    ),
    "a session magic": (["%cd -q .\nx = max(1, 2)", "%env MY_VAR=5"], "import os\nprint(os.environ['MY_VAR'], x)"),
    "names of Jupyter's own": (["40 + 2", "[1, 2]"], "print(_, __, Out[1], _2, In[1])"),
    "an async cell": (["import asyncio", "x = await asyncio.sleep(0, 'slept')\nx"], "print(x)"),
}


@pytest.mark.parametrize("what", BEHAVIOUR)
def test_after_a_replay_values_behave_as_in_an_unbroken_run(bench: Bench, what: str) -> None:
    cells, live = BEHAVIOUR[what]
    story = Story(bench)
    first = story.run(cells)
    assert EXECUTED in first.verdicts
    second = story.run([*cells, live])
    replayed = [verdict for verdict in second.verdicts[:-1] if verdict not in (DECLARED, NOT_DURABLE)]
    assert REPLAYED in second.verdicts
    # Cells whose work is to set something up may run again; nothing that computed may.
    assert replayed.count(EXECUTED) <= 1, second.verdicts


UNSTORABLE = {
    "a generator": "g = (n * n for n in range(5))\nnext(g)",
    "a lock": "import threading\ng = {'lock': threading.Lock()}",
    "an open file": "g = open('data.txt')\nline = g.readline()",
    "a connection": "import sqlite3\ng = sqlite3.connect(':memory:')",
    "a socket": "import socket\ng = socket.socket()",
    "a module-like handle inside": "import threading\nclass H:\n    pass\nh = H()\nh.inner = [threading.RLock()]\ng = h",
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_what_cannot_be_stored_never_breaks_a_cell_and_is_named(bench: Bench, what: str) -> None:
    bench.write("data.txt", "one\ntwo\n")
    story = Story(bench, probes=["type(g).__name__"])
    cells = [UNSTORABLE[what], "x = max(1, 2)\nx"]
    first = story.run(cells)
    assert first.verdicts[0] == NOT_DURABLE
    reason = first.cells[0].durable["reason"]
    assert "g" in reason, reason
    second = story.run(cells)
    assert second.verdicts == [NOT_DURABLE, REPLAYED]


def test_a_cell_that_only_reads_what_an_unstorable_one_makes_is_replayed(bench: Bench) -> None:
    story = Story(bench, probes=["rows"])
    cells = [
        "import sqlite3",
        "db = sqlite3.connect(':memory:')\ndb.execute('create table t (x)')\ndb.execute('insert into t values (7)')\n;",
        "rows = db.execute('select x from t').fetchall()\nrows",
    ]
    story.run(cells)
    assert story.verdicts(cells)[2] == REPLAYED


def test_a_half_used_generator_is_never_restarted_at_zero(bench: Bench) -> None:
    story = Story(bench, probes=["a", "b", "list(g)"])
    cells = ["g = (n for n in range(6))", "a = next(g)\na", "b = next(g)\nb"]
    story.run(cells)
    story.run(cells)


def test_a_wrong_but_quiet_pickle_is_found_at_save(bench: Bench) -> None:
    liar = "class Liar:\n    def __init__(self, x):\n        self.x = x\n    def __reduce__(self):\n        return Liar, (0,)"
    story = Story(bench, probes=["a.x"])
    cells = [liar, "a = Liar(sum([40, 2]))"]
    assert story.verdicts(cells)[1] == NOT_DURABLE
    assert story.run(cells).probes == {"a.x": "42"}


def test_unchanged_data_costs_nothing_when_it_is_stored_again(bench: Bench) -> None:
    cells = ["import numpy as np", "a = np.arange(500_000) * 1.5", "b = a", "c = {'a': a, 'n': 1}"]
    run = run_all(bench, cells, notebook=bench.notebook("a.ipynb", cells))
    stored = [cell.durable["bytes"] for cell in run.cells]
    assert stored[1] > 4_000_000
    assert max(stored[2:]) < 40_000


def test_a_large_array_is_restored_writable_and_private(bench: Bench) -> None:
    cells = [
        "import numpy as np",
        "a = np.ones(500_000)",
        "a[0] = 5.0\nprint(a.sum(), a.flags.writeable, type(a) is np.ndarray)",
    ]
    story = Story(bench, probes=["a[:2].tolist()"])
    story.run(cells[:2])
    story.run(cells)
    assert story.verdicts(cells)[1:] == [REPLAYED, REPLAYED]


def test_names_that_look_secret_are_never_written(bench: Bench) -> None:
    secret = "correct-horse-battery"
    cells = [
        f"import os\nAPI_KEY = '{secret}' + str(max(1, 2))",
        f"password = '{secret}'.upper()",
        f"os.environ['MY_TOKEN'] = '{secret}'\nuser = max('a', 'b')",
        "x = len(API_KEY)\nx",
    ]
    bench.notebook("a.ipynb", ["x"])
    run_all(bench, cells, notebook="a.ipynb")
    second = run_all(bench, cells, notebook="a.ipynb", probes=["len(API_KEY)", "len(password)"])
    assert second.probes == {"len(API_KEY)": "22", "len(password)": "21"}
    for path in bench.store.rglob("*"):
        if path.is_file() and "blobs" in path.parts:
            assert secret.encode() not in path.read_bytes()
            assert secret.upper().encode() not in path.read_bytes()


def test_a_damaged_blob_costs_a_rerun_and_one_line(bench: Bench) -> None:
    story = Story(bench, probes=["a.sum()"])
    cells = ["import numpy as np", "a = np.arange(300_000) * 2", "n = int(a.sum())\nn"]
    story.run(cells)
    for path in (bench.store / "blobs").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"\0" * path.stat().st_size)
    run = story.run(cells, compare=False)
    assert run.probes == {"a.sum()": repr_of_sum(300_000)}
    assert run.verdicts[1] == EXECUTED


def repr_of_sum(n: int) -> str:
    return f"np.int64({n * (n - 1)})"


def test_a_store_signed_by_somebody_else_is_not_loaded(bench: Bench) -> None:
    cells = ["import uuid", "a = uuid.uuid4().hex\nprint(a)"]
    bench.notebook("a.ipynb", cells)
    first = run_all(bench, cells, notebook="a.ipynb", env={"DURABLE_NB_KEY": "theirs"})
    second = run_all(bench, cells, notebook="a.ipynb", env={"DURABLE_NB_KEY": "mine"})
    assert second.stdout != first.stdout
    assert second.verdicts[1] == EXECUTED


def test_a_gigantic_recursion_is_stored_or_named_and_never_an_error(bench: Bench) -> None:
    story = Story(bench, probes=["depth(a)"])
    cells = [
        "def depth(x):\n    n = 0\n    while x:\n        x, n = x[0], n + 1\n    return n",
        "a = []\nfor _ in range(20_000):\n    a = [a]",
    ]
    story.run(cells)
    story.run(cells)


def test_a_failing_cells_names_stay_and_nothing_that_reads_them_is_stored(bench: Bench) -> None:
    bench.notebook("a.ipynb", ["x"])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run("x = max(1, 2)").expect_ok()
        assert kernel.run("x = max(3, 4)\n1 / 0").status == "error"
        assert kernel.value("x") == "4"
        assert kernel.run("y = x + 1").verdict == NOT_DURABLE
        assert kernel.run("x = max(5, 6)").verdict == EXECUTED
        assert kernel.run("z = x + 1").verdict == EXECUTED


def test_a_store_is_private_to_its_user(bench: Bench) -> None:
    cells = ["import numpy as np", "a = np.arange(300_000) * 2"]
    bench.notebook("a.ipynb", cells)
    run_all(bench, cells, notebook="a.ipynb")
    modes = {path: path.stat().st_mode & 0o077 for path in [bench.store, *bench.store.rglob("*")] if not _is_note(path)}
    assert not {path: mode for path, mode in modes.items() if mode}


def _is_note(path: Path) -> bool:
    return path.name == ".gitignore"
