"""When a checkpoint may be replayed: what changes make a cell run, and which do not."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tests.notebook.harness import Bench, Kernel, Run, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]


def verdicts(bench: Bench, cells: Sequence[str], **kernel: object) -> list[str | None]:
    run = run_all(bench, cells, **kernel)  # type: ignore[arg-type]
    assert all(cell.status == "ok" for cell in run.cells), [cell.evalue for cell in run.cells]
    return run.verdicts


def reason(run: Run, index: int) -> str:
    return str(run.cells[index].durable["reason"])


def test_an_edit_runs_the_cell_and_what_depends_on_it(bench: Bench) -> None:
    cells = ["a = len('a')", "b = len('bb')", "c = a + 1", "d = b + 1"]
    run_all(bench, cells)
    run = run_all(bench, ["a = len('a')", "b = len('bbb')", "c = a + 1", "d = b + 1"], cell_ids="auto", probes=["d"])
    assert run.verdicts == ["replayed", "executed", "replayed", "executed"]
    assert run.probes == {"d": "4"}
    assert "b" in reason(run, 3)


def test_comments_and_layout_are_no_edit_and_a_semicolon_is(bench: Bench) -> None:
    run_all(bench, ["x = len('a')", "x + 1"])
    run = run_all(bench, ["# a remark\n\nx = len( 'a' )  # one", "x + 1;"])
    assert run.verdicts == ["replayed", "executed"]
    assert run.cells[1].outputs == []


def test_an_equal_value_keeps_what_depends_on_it(bench: Bench) -> None:
    run_all(bench, ["x = sorted([2, 1])", "y = sum(x)"])
    assert verdicts(bench, ["x = sorted([1, 2])", "y = sum(x)"]) == ["executed", "replayed"]


def test_an_edited_function_runs_its_callers_however_deep(bench: Bench) -> None:
    cells = [
        "def inner(x):\n    return x + 1\n",
        "def outer(x):\n    return inner(x)\n",
        "from functools import partial\ntable = {'f': partial(outer, 1)}",
        "y = table['f']()",
        "z = len('untouched')",
    ]
    run_all(bench, cells)
    run = run_all(bench, [cells[0].replace("+ 1", "+ 2"), *cells[1:]], probes=["y"])
    assert run.probes == {"y": "3"}
    assert run.verdicts[3:] == ["executed", "replayed"]


def test_an_edited_method_and_a_decorator_run_their_users(bench: Bench) -> None:
    cells = [
        "def twice(f):\n    def wrapped(*a):\n        return f(*a) * 2\n    return wrapped\n",
        "class C:\n    def value(self):\n        return 1\n",
        "@twice\ndef g():\n    return 3\n",
        "c = C()",
        "a = c.value()",
        "b = g()",
    ]
    run_all(bench, cells)
    edited = [cells[0].replace("* 2", "* 5"), cells[1].replace("1", "10"), *cells[2:]]
    assert run_all(bench, edited, probes=["a", "b"]).probes == {"a": "10", "b": "15"}


def test_another_seed_runs_the_draws_after_it_and_nothing_else(bench: Bench) -> None:
    cells = ["import random", "random.seed(1)", "a = random.random()", "b = len('abc')", "c = random.random()"]
    run_all(bench, cells)
    run = run_all(bench, ["import random", "random.seed(2)", *cells[2:]], probes=["a", "c"])
    assert run.verdicts[1:] == ["executed", "executed", "replayed", "executed"]
    import random

    random.seed(2)
    assert run.probes == {"a": repr(random.random()), "c": repr(random.random())}
    assert "random" in reason(run, 2)


def test_an_edited_local_module_runs_the_cells_that_reach_it(bench: Bench) -> None:
    bench.write("helpers.py", "import inner\ndef f(): return inner.N\n")
    bench.write("inner.py", "N = 1\n")
    cells = ["import helpers", "x = helpers.f()", "y = len('abc')"]
    run_all(bench, cells)
    assert verdicts(bench, cells)[1:] == ["replayed", "replayed"]
    bench.write("inner.py", "N = 20\n")
    run = run_all(bench, cells, probes=["x"])
    assert run.verdicts[1:] == ["executed", "replayed"]
    assert run.probes == {"x": "20"}
    assert "inner" in reason(run, 1)


def test_a_changed_setting_of_a_module_is_set_again_every_time(bench: Bench) -> None:
    bench.write("cfg.py", "X = 1\n")
    cells = ["import cfg", "cfg.X = 3", "y = cfg.X * 2", "z = len('abc')"]
    run_all(bench, cells)
    run = run_all(bench, cells, probes=["y", "cfg.X"])
    assert run.verdicts[1:] == ["executed", "replayed", "replayed"]
    assert run.probes == {"y": "6", "cfg.X": "3"}
    run = run_all(bench, ["import cfg", "cfg.X = 5", *cells[2:]], probes=["y"])
    assert run.verdicts[2:] == ["executed", "replayed"]
    assert run.probes == {"y": "10"}


def test_files_read_missing_and_listed_are_inputs(bench: Bench) -> None:
    bench.write("data.csv", "1\n2\n")
    bench.write("parts/a.txt", "")
    cells = [
        "import os, glob\nfrom pathlib import Path",
        "n = sum(int(x) for x in open('data.csv'))",
        "there = os.path.exists('extra.csv')",
        "parts = sorted(os.listdir('parts'))",
        "k = len('abc')",
    ]
    run_all(bench, cells)
    assert verdicts(bench, cells)[1:] == ["replayed"] * 4
    bench.write("data.csv", "1\n2\n3\n")
    run = run_all(bench, cells)
    assert run.verdicts[1:] == ["executed", "replayed", "replayed", "replayed"]
    assert "data.csv" in reason(run, 1)
    bench.write("extra.csv", "")
    bench.write("parts/b.txt", "")
    run = run_all(bench, cells, probes=["there", "parts"])
    assert run.verdicts[1:] == ["replayed", "executed", "executed", "replayed"]
    assert run.probes == {"there": "True", "parts": "['a.txt', 'b.txt']"}


def test_a_touched_file_with_the_same_content_is_no_change(bench: Bench) -> None:
    path = bench.write("data.csv", "1\n2\n")
    cells = ["text = open('data.csv').read()"]
    run_all(bench, cells)
    os.utime(path, (1, 1))
    assert verdicts(bench, cells) == ["replayed"]


def test_files_that_the_notebook_writes_are_read_at_their_place(bench: Bench) -> None:
    cells = [
        "from pathlib import Path",
        "Path('out.txt').write_text('one'); None",
        "a = Path('out.txt').read_text()",
        "Path('out.txt').write_text('two'); None",
        "b = Path('out.txt').read_text()",
    ]
    run_all(bench, cells)
    assert verdicts(bench, cells)[1:] == ["replayed"] * 4
    edited = [*cells[:2], "a = Path('out.txt').read_text() + '!'", *cells[3:]]
    run = run_all(bench, edited, probes=["a", "b", "Path('out.txt').read_text()"])
    assert run.probes == {"a": "'one!'", "b": "'two'", "Path('out.txt').read_text()": "'two'"}


def test_an_output_file_that_was_removed_or_changed_comes_back(bench: Bench) -> None:
    cells = ["from pathlib import Path", "Path('out.txt').write_text('one'); None"]
    run_all(bench, cells)
    (bench.root / "out.txt").unlink()
    run_all(bench, cells)
    assert (bench.root / "out.txt").read_text() == "one"
    (bench.root / "out.txt").write_text("somebody else")
    assert verdicts(bench, cells)[1] == "executed"
    assert (bench.root / "out.txt").read_text() == "one"


def test_an_environment_variable_that_a_cell_reads_is_an_input(bench: Bench) -> None:
    cells = ["import os", "mode = os.environ.get('MY_MODE', 'slow')", "k = len('abc')"]
    run_all(bench, cells, env={"MY_MODE": "a"})
    assert verdicts(bench, cells, env={"MY_MODE": "a", "OTHER": "x"})[1:] == ["replayed", "replayed"]
    run = run_all(bench, cells, env={"MY_MODE": "b"}, probes=["mode"])
    assert run.verdicts[1:] == ["executed", "replayed"]
    assert run.probes == {"mode": "'b'"}
    assert "MY_MODE" in reason(run, 1)


def test_a_cell_that_may_read_everything_runs_when_anything_changed(bench: Bench) -> None:
    cells = ["a = len('a')", "b = eval('a' + ' + 1')"]
    run_all(bench, cells)
    assert verdicts(bench, cells) == ["replayed", "replayed"]
    run = run_all(bench, ["a = len('aa')", cells[1]], probes=["b"])
    assert run.probes == {"b": "3"}


def test_what_reads_a_failed_cells_leftovers_is_not_stored(bench: Bench) -> None:
    run = run_all(bench, ["x = [1]", "x.append(2); 1 / 0", "y = len(x)"], stop_on_error=False)
    assert run.verdicts == ["declared", "failed", "not_durable"]
    again = run_all(bench, ["x = [1]", "y = len(x)"], probes=["y"])
    assert again.probes == {"y": "1"}


def test_depends_on_adds_files(bench: Bench) -> None:
    bench.write("conf/a.toml", "1")
    cells = ["%%durable_step load --depends-on conf/*.toml\nx = len('abc')"]
    run_all(bench, cells)
    assert verdicts(bench, cells) == ["replayed"]
    bench.write("conf/a.toml", "2")
    assert verdicts(bench, cells) == ["executed"]
    bench.write("conf/b.toml", "2")
    assert verdicts(bench, cells) == ["executed"]


def test_off_and_always_are_respected(bench: Bench) -> None:
    cells = ["# durable: always\nimport time; t = time.time()", "# durable: off\nu = len('abc')", "v = len('abc')"]
    run_all(bench, cells)
    assert verdicts(bench, cells) == ["executed", "not_durable", "replayed"]


def test_old_history_still_serves_after_editing_back(bench: Bench) -> None:
    run_all(bench, ["x = len('a')", "y = x * 10"])
    run_all(bench, ["x = len('aa')", "y = x * 10"])
    run = run_all(bench, ["x = len('a')", "y = x * 10"], probes=["y"])
    assert run.verdicts == ["replayed", "replayed"]
    assert run.probes == {"y": "10"}


def test_a_forced_run_makes_a_new_value_and_its_readers_run(bench: Bench) -> None:
    cells = [
        "import uuid\nclass Box:\n    def __reduce__(self): return (Box.of, (self.v,))\n    @staticmethod\n    def of(v):\n        b = Box(); b.v = v; return b",
        "box = Box.of(uuid.uuid4().hex)",
        "got = box.v",
    ]
    first = run_all(bench, cells, probes=["got == box.v"])
    assert first.probes == {"got == box.v": "True"}
    forced = [cells[0], "%%durable_step --force\n" + cells[1], cells[2]]
    run = run_all(bench, forced, probes=["got == box.v"])
    assert run.verdicts[1:] == ["executed", "executed"]
    assert run.probes == {"got == box.v": "True"}


def test_a_value_that_was_made_anew_is_not_taken_for_the_old_one(bench: Bench) -> None:
    make = "import uuid\nclass Box:\n    def __reduce__(self): return (Box.of, (self.v,))\n    @staticmethod\n    def of(v):\n        b = Box(); b.v = v; return b"
    cells = [make, "%%durable_step box\nbox = Box.of(uuid.uuid4().hex)", "got = box.v"]
    run_all(bench, cells, env={"DURABLE_NB_EXECUTION": "a"})
    with Kernel(bench, env={"DURABLE_NB_EXECUTION": "a"}) as kernel:
        kernel.run(cells[0])
        kernel.run("%durable forget box")
        assert kernel.run(cells[1]).verdict == "executed"
        assert kernel.run(cells[2]).verdict == "executed"
        assert kernel.value("got == box.v") == "True"
