"""What a replayed notebook gives is what a fresh run of the plain kernel gives."""

from __future__ import annotations

import re

import pytest

from tests.notebook.harness import Bench, Kernel, run_all
from tests.notebook.scenario import twice

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]


def test_only_what_was_not_done_runs_after_a_kill_inside_a_cell(bench: Bench) -> None:
    cells = [
        "a = sum(range(10)); print('one')",
        "b = [a] * 3; b",
        "import time; print('inside', flush=True); time.sleep(WAIT); c = len(b)",
        "c + 1",
    ]
    started = run_all(bench, ["WAIT = 600", *cells], kill_inside=(3, "inside"))
    assert started.verdicts == ["declared", "executed", "executed"]
    run = run_all(bench, ["WAIT = 0", *cells], probes=["a", "b", "c"])
    assert run.verdicts == ["declared", "replayed", "replayed", "executed", "executed"]
    assert run.probes == {"a": "45", "b": "[45, 45, 45]", "c": "3"}
    assert run.cells[1].stdout == "one\n"
    assert run.cells[2].result == "[45, 45, 45]"


def test_aliases_mutations_and_deletions_come_back(bench: Bench) -> None:
    cells = [
        "a = list(range(3)); d = {'inner': a}; gone = max(1, 2)",
        "b = a",
        "d['inner'].append(99)",
        "del gone",
        "b.append(len(a))",
    ]
    probes = ["a", "b is a", "d['inner'] is b", "'gone' in globals()"]
    twice(bench, cells, probes=probes).expect_equal().expect(*["replayed"] * 5)


def test_names_bound_out_of_sight_come_back(bench: Bench) -> None:
    cells = [
        "def f():\n    global x\n    x = [1]\n",
        "f()",
        "exec('y = 2')",
        "globals()['z'] = x + [y]",
    ]
    twice(bench, cells, probes=["x", "y", "z"]).expect_equal().expect("declared", "replayed", "replayed", "replayed")


def test_numpy_views_still_write_through(bench: Bench) -> None:
    cells = [
        "import numpy as np",
        "base = np.arange(20.0); view = base[::2]; tail = base[10:]",
        "view[0] = -1",
        "other = view[1:]",
    ]
    probe = "[other.__setitem__(0, 7.0), base[2], view[1], tail.base is base, base.flags.owndata][1:]"
    twice(bench, cells, probes=["base.tolist()", probe]).expect_equal()


def test_functions_see_the_live_namespace(bench: Bench) -> None:
    cells = [
        "factor = 2",
        "def scale(x):\n    return x * factor\n",
        "from functools import partial\nscaled = partial(scale, 10); made = [lambda: factor]",
        "factor = 5",
        "scaled(), made[0](), scale(1)",
    ]
    twice(bench, cells, probes=["scaled()", "made[0]()", "scale.__globals__ is globals()"]).expect_equal()


def test_classes_dataclasses_and_enums_keep_their_identity(bench: Bench) -> None:
    cells = [
        "from dataclasses import dataclass\nfrom enum import Enum\n"
        "@dataclass\nclass P:\n    x: int\nclass Color(Enum):\n    RED = 1\nclass C:\n    def twice(self): return self.v * 2",
        "p = P(1); c = Color(1); o = C(); o.v = len('abc')",
        "q = [P(1), c]",
    ]
    probes = ["isinstance(p, P)", "p == P(1)", "q[0] == p", "c is Color.RED", "q[1] is c", "o.twice()", "type(o) is C"]
    twice(bench, cells, probes=probes).expect_equal().expect("declared", "replayed", "replayed")


def test_closures_share_their_cells(bench: Bench) -> None:
    cells = [
        "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n"
        "    def get():\n        return n\n    return up, get\n",
        "up, get = counter()",
        "up(); up()",
    ]
    twice(bench, cells, probes=["get()", "up()", "get()"]).expect_equal().expect("declared", "replayed", "replayed")


def test_the_next_draw_is_the_same_as_in_an_unbroken_run(bench: Bench) -> None:
    cells = [
        "import random\nimport numpy as np",
        "random.seed(1); np.random.seed(2); rng = np.random.default_rng(3)",
        "a = random.random(), np.random.rand(), rng.random()",
        "b = random.random(), np.random.rand(), rng.random()",
    ]
    probes = ["a", "b", "random.random()", "np.random.rand()", "rng.random()"]
    twice(bench, cells, probes=probes).expect_equal().expect("declared", "replayed", "replayed", "replayed")


def test_process_state_comes_back(bench: Bench) -> None:
    bench.write("sub/keep.txt", "")
    cells = [
        "import os, sys, warnings, decimal",
        "os.chdir('sub'); os.environ['MY_MODE'] = str(len('fast')); sys.path.append(os.getcwd())",
        "warnings.simplefilter('ignore', ResourceWarning); decimal.getcontext().prec = int('7')",
    ]
    probes = [
        "os.path.basename(os.getcwd())",
        "os.environ['MY_MODE']",
        "os.path.basename(sys.path[-1])",
        "warnings.filters[0][0]",
        "decimal.getcontext().prec",
    ]
    twice(bench, cells, probes=probes).expect_equal().expect("declared", "replayed", "replayed")


def test_plot_settings_and_frame_options_come_back(bench: Bench) -> None:
    cells = [
        "import matplotlib.pyplot as plt\nimport pandas as pd",
        "plt.rcParams['lines.linewidth'] = float(4); pd.set_option('display.max_rows', int(7))",
    ]
    probes = ["plt.rcParams['lines.linewidth']", "pd.get_option('display.max_rows')"]
    twice(bench, cells, probes=probes).expect_equal()


def test_everything_shown_comes_back_in_order_and_in_its_final_state(bench: Bench) -> None:
    cells = [
        "import sys\nfrom IPython.display import display, update_display, clear_output, HTML",
        "print('a'); print('b', file=sys.stderr, flush=True); display(HTML('<b>x</b>')); print('c'); str(1 + 1)",
        "display('old', display_id='d'); print('gone'); print(len('x'), end='')",
        "print('gone'); clear_output(wait=True); print('kept'); update_display('new', display_id='d')",
        "import threading\nfor t in [threading.Thread(target=print, args=('from a thread',))]: t.start(); t.join()\ndel t",
        "import subprocess\nsubprocess.run(['echo', 'from a process'], check=True); None",
        "for i in range(4): print(f'\\r{i}', end='', flush=True)",
    ]
    run = twice(bench, cells)
    run.expect("declared", *["replayed"] * 6)
    assert [c.outputs for c in run.second.cells[:-1]] == [c.outputs for c in run.plain.cells[:-1]]
    assert run.second.stdout[-1] == "3"


def test_a_figure_is_shown_once_and_the_objects_come_back(bench: Bench) -> None:
    cells = [
        "%matplotlib inline\nimport matplotlib.pyplot as plt",
        "fig, ax = plt.subplots(figsize=(1, 1)); ax.plot([1, 2]);",
        "ax.set_title('later'); fig",
    ]
    run = twice(bench, cells, probes=["ax.get_title()", "fig.axes[0] is ax", "len(ax.lines)"])
    assert run.second.probes == run.plain.probes
    assert [len(c.outputs) for c in run.second.cells] == [len(c.outputs) for c in run.plain.cells]
    assert run.second.cells[1].outputs == run.first.cells[1].outputs


def test_history_results_and_counts_are_those_of_an_unbroken_run(bench: Bench) -> None:
    cells = ["[1]", "_.append(2); _", "x = Out[1]", "len(In), In[1]"]
    probes = ["_", "Out[1]", "Out[2] is Out[1]", "_2 is x", "In[2]", "_oh[1] is x"]
    twice(bench, cells, probes=probes).expect_equal()


def test_top_level_await_is_replayed(bench: Bench) -> None:
    cells = ["import asyncio", "await asyncio.sleep(0); x = await asyncio.sleep(0, 'slept')", "x + '!'"]
    twice(bench, cells, probes=["x"]).expect_equal().expect("declared", "replayed", "replayed")


def test_two_identical_cells_are_two_steps(bench: Bench) -> None:
    cells = ["x = 0", "x += 1; print(x)", "x += 1; print(x)"]
    twice(bench, cells, probes=["x"]).expect_equal().expect("declared", "replayed", "replayed")


def test_a_completed_cell_run_again_by_hand_replays_and_a_changed_one_runs(bench: Bench) -> None:
    with Kernel(bench) as kernel:
        kernel.run("import time", cell_id="a")
        first = kernel.run("y = time.time(); y", cell_id="b")
        again = kernel.run("y = time.time(); y", cell_id="b")
        assert (again.verdict, again.result) == ("replayed", first.result)
        kernel.run("x = 0", cell_id="c")
        assert kernel.run("x += 1", cell_id="d").verdict == "executed"
        assert kernel.run("x += 1", cell_id="d").verdict == "executed"
        assert kernel.value("x") == "2"


def test_values_that_cannot_be_stored_run_again_and_their_readers_replay(bench: Bench) -> None:
    cells = [
        "import sqlite3",
        "db = sqlite3.connect(':memory:'); limit = len('abc')",
        "rows = db.execute('select 41 + 1').fetchall()",
        "total = rows[0][0] + limit; print(total)",
    ]
    run = twice(bench, cells, probes=["rows", "total", "type(db).__name__"]).expect_equal()
    assert run.first.verdicts[1] == run.second.verdicts[1] == "not_durable"
    assert run.second.verdicts[3] == "replayed"
    reason = run.second.cells[1].durable["reason"]
    assert "db" in reason
    assert "sqlite3.Connection" in reason


def test_a_half_used_generator_never_starts_again_in_silence(bench: Bench) -> None:
    cells = ["g = (i * i for i in range(10))", "a = next(g), next(g)", "b = next(g)"]
    twice(bench, cells, probes=["a", "b", "next(g)"]).expect_equal()


def test_tracebacks_and_source_of_restored_functions_are_the_users(bench: Bench) -> None:
    cells = [
        "import inspect",
        "fs = [lambda x: 1 / x for _ in range(1)]\ndef g(x=len('a')):\n    return fs[0](x)",
        "h = g",
    ]
    twice(bench, cells, probes=["inspect.getsource(h)"]).expect_equal()
    run = run_all(bench, [*cells, "h(0)"])
    assert run.cells[-1].ename == "ZeroDivisionError"
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(run.cells[-1].traceback))
    assert "durable_nb" not in text
    assert "return fs[" in text


def test_an_error_shows_the_users_lines_only(bench: Bench) -> None:
    cells = ["x = len('a')\n\nx / 0"]
    run = twice(bench, cells).expect_equal()
    assert run.second.verdicts == ["failed"]
    assert run.second.cells[0].traceback == run.plain.cells[0].traceback


def test_a_traceback_through_a_restored_function_names_its_cell(bench: Bench) -> None:
    cells = ["def g():\n    return e\nimport os\nos.environ['X_MODE'] = '2'", "g()"]
    run = twice(bench, cells)
    assert run.second.verdicts[0] == "replayed"
    assert run.second.cells[1].traceback == run.plain.cells[1].traceback
    assert "Cell In[1], line 2" in re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(run.second.cells[1].traceback))
