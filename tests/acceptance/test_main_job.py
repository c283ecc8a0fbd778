"""Run a notebook, lose the kernel, run it again: only what was not done runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.acceptance.story import DECLARED, EXECUTED, REPLAYED, Story
from tests.notebook.harness import LIMIT, Bench, Kernel, run_all
from tests.notebook.runners import durable_nb, jupyter_execute, nbval, papermill

pytestmark = pytest.mark.kernel

CELLS = [
    "import math",
    "rows = [n * n for n in range(50)]\nprint(len(rows))",
    "total = sum(rows)\ntotal",
    "root = math.sqrt(total)\nprint(round(root, 3))",
    "rows.append(total)\nrows[-1]",
]


def test_all_cells_are_replayed_by_a_fresh_kernel(bench: Bench) -> None:
    story = Story(bench, probes=["rows", "total", "root"])
    assert story.verdicts(CELLS, compare=True) == [DECLARED, *[EXECUTED] * 4]
    assert story.verdicts(CELLS) == [DECLARED, *[REPLAYED] * 4]


@pytest.mark.parametrize("last", range(len(CELLS)))
def test_after_sigkill_between_cells_only_the_rest_runs(bench: Bench, last: int) -> None:
    story = Story(bench, probes=["rows", "total", "root"])
    story.run(CELLS, kill_after=last)
    assert story.verdicts(CELLS) == [DECLARED, *[REPLAYED] * last, *[EXECUTED] * (4 - last)]


def test_after_sigkill_inside_a_cell_that_cell_runs_again(bench: Bench) -> None:
    slow = "import pathlib\nprint('in', flush=True)\nwhile not pathlib.Path('go').exists(): pass\nx = 1"
    story = Story(bench, probes=["x", "y"])
    story.run(["y = [1]\ny.append(2)", slow], kill_inside=(1, "in"))
    bench.write("go", "")
    assert story.verdicts(["y = [1]\ny.append(2)", slow]) == [REPLAYED, EXECUTED]


def test_an_edited_cell_and_its_dependants_run_and_nothing_else(bench: Bench) -> None:
    story = Story(bench, probes=["a", "b", "c", "d"])
    cells = ["a = [1]\na.append(2)", "b = [*a, 3]\nb.sort()", "c = len(b) + 1\nc", "d = sum(a)\nd"]
    story.run(cells)
    cells[1] = "b = [*a, 3, 4]\nb.sort()"
    assert story.verdicts(cells) == [REPLAYED, EXECUTED, EXECUTED, REPLAYED]
    assert story.verdicts(cells) == [REPLAYED] * 4


def test_a_rerun_that_gives_an_equal_value_leaves_its_consumers_valid(bench: Bench) -> None:
    story = Story(bench, probes=["a", "b"])
    story.run(["a = sum([1, 2])\na", "b = a * 2\nb"])
    assert story.verdicts(["a = sum([2, 1])\na", "b = a * 2\nb"]) == [EXECUTED, REPLAYED]


def test_an_edit_that_is_taken_back_finds_the_first_checkpoint(bench: Bench) -> None:
    story = Story(bench)
    first, second = ["a = max(1, 2)\na"], ["a = max(1, 3)\na"]
    story.run(first)
    story.run(second)
    assert story.verdicts(first) == [REPLAYED]


def test_the_reply_says_what_became_of_the_cell(bench: Bench) -> None:
    story = Story(bench)
    source = "x = sum(range(10))"
    (first,) = story.run([source]).cells
    (second,) = story.run([source]).cells
    assert set(first.durable) >= {"status", "reason", "attempt", "seconds", "bytes", "saved_seconds"}
    assert first.durable["attempt"] == 1
    assert first.durable["bytes"] > 0
    assert first.durable["saved_seconds"] == 0
    assert 0 <= second.durable["saved_seconds"] <= first.durable["seconds"]
    json.dumps([first.durable, second.durable])


UNIQUE = ["import uuid", "one = uuid.uuid4().hex\nprint(one)", "two = one + uuid.uuid4().hex\nprint(two)"]


def test_every_runner_replays_what_another_one_ran(bench: Bench) -> None:
    book = bench.notebook("a.ipynb", UNIQUE)
    first = run_all(bench, UNIQUE, notebook=book, cell_ids="auto")
    texts = first.stdout
    assert all(texts[1:])
    assert run_all(bench, UNIQUE, notebook=book).stdout == texts
    assert jupyter_execute(bench, book).texts() == texts
    assert papermill(bench, book).texts() == texts
    out = bench.root / "out.ipynb"
    ran = durable_nb(bench, "run", "a.ipynb", "-o", "out.ipynb", out=out)
    assert ran.code == 0, ran.stderr
    assert ran.texts() == texts
    saved = [
        {"source": source, "outputs": outputs, "execution_count": n}
        for n, (source, outputs) in enumerate(zip(UNIQUE, first.outputs, strict=True), start=1)
    ]
    checked = nbval(bench, bench.notebook("a.ipynb", saved))
    assert checked.code == 0, checked.stdout


def test_papermill_from_another_folder_finds_the_same_history(bench: Bench) -> None:
    book = bench.notebook("sub/a.ipynb", UNIQUE)
    first = jupyter_execute(bench, book).texts()
    assert (
        papermill(bench, book, cwd=bench.root.parent, env={"DURABLE_NB_STORE": str(book.parent / ".durable")}).texts()
        == first
    )


def test_durable_nb_run_resumes_and_says_so(bench: Bench) -> None:
    cells = [
        *UNIQUE,
        "import os, signal\nif not os.path.exists('go'): os.kill(os.getpid(), signal.SIGKILL)\nprint('done')",
    ]
    bench.notebook("a.ipynb", cells)
    out = bench.root / "a.out.ipynb"
    died = durable_nb(bench, "run", "a.ipynb", out=out)
    assert died.code == 1
    assert "run the same command again" in died.stderr
    bench.write("go", "")
    ran = durable_nb(bench, "run", "a.ipynb", "--json", out=out)
    assert ran.code == 0, ran.stderr
    assert [cell["status"] for cell in json.loads(ran.stdout)["cells"]] == [DECLARED, REPLAYED, REPLAYED, EXECUTED]
    assert ran.texts()[:3] == died.texts()[:3]
    shown = json.loads(durable_nb(bench, "show", "a.ipynb", "--json").stdout)
    assert [op["number"] for op in shown["operations"]] == [2, 3, 4]


def test_a_run_that_is_killed_itself_is_resumed_at_once(bench: Bench) -> None:
    """The kernel of the killed command does not stand in the way of the next one."""
    slow = "import pathlib, time\nif not pathlib.Path('go').exists():\n    pathlib.Path('in').touch()\n    time.sleep(600)\nprint('done')"
    bench.notebook("a.ipynb", [*UNIQUE, slow])
    argv = [sys.executable, "-m", "durable_nb.cli", "run", "a.ipynb", "-q"]
    with subprocess.Popen(argv, cwd=bench.root, env=bench.environment()) as process:
        deadline = time.monotonic() + LIMIT
        while not (bench.root / "in").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        bench.write("go", "")
        process.kill()
    ran = durable_nb(bench, "run", "a.ipynb", "--json")
    assert ran.code == 0, ran.stderr
    assert [cell["status"] for cell in json.loads(ran.stdout)["cells"]] == [DECLARED, REPLAYED, REPLAYED, EXECUTED]


def test_fresh_runs_everything_again(bench: Bench) -> None:
    bench.notebook("a.ipynb", UNIQUE)
    out = bench.root / "a.out.ipynb"
    first = durable_nb(bench, "run", "a.ipynb", out=out).texts()
    again = durable_nb(bench, "run", "a.ipynb", "--fresh", out=out)
    assert again.code == 0, again.stderr
    assert again.texts()[1] != first[1]


def test_a_parameter_runs_what_depends_on_it(bench: Bench) -> None:
    cells = [
        {"source": "n = 1", "metadata": {"tags": ["parameters"]}},
        "import uuid\nprint(n, uuid.uuid4())",
        "print(uuid.uuid4())",
    ]
    book = bench.notebook("a.ipynb", cells)
    out = bench.root / "a.out.ipynb"
    first = durable_nb(bench, "run", "a.ipynb", "-p", "n", "5", out=out).texts()
    assert durable_nb(bench, "run", "a.ipynb", "-p", "n", "5", out=out).texts() == first
    assert papermill(bench, book, parameters={"n": 5}).texts() == first
    other = durable_nb(bench, "run", "a.ipynb", "-p", "n", "6", out=out).texts()
    assert other[2] != first[2]
    assert other[3] == first[3]


def test_the_extension_stores_marked_cells_only(bench: Bench) -> None:
    cells = ["import uuid", "a = uuid.uuid4().hex\nprint(a)", "%%durable_step\nb = uuid.uuid4().hex\nprint(b)"]
    options = {"spec": "python3", "extension": True, "notebook": "a.ipynb", "env": {"PYTHONHASHSEED": "0"}}
    bench.notebook("a.ipynb", cells)
    first = run_all(bench, cells, **options)
    second = run_all(bench, cells, **options)
    assert first.stdout[1] != second.stdout[1]
    assert first.stdout[2] == second.stdout[2]
    assert second.verdicts[2] == REPLAYED


def test_a_completed_cell_that_is_run_again_by_hand_is_replayed(bench: Bench) -> None:
    bench.notebook("a.ipynb", [UNIQUE[1]])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run("import uuid")
        first = kernel.run(UNIQUE[1], cell_id="one")
        again = kernel.run(UNIQUE[1], cell_id="one")
    assert again.stdout == first.stdout
    assert again.verdict == REPLAYED


def test_the_same_text_twice_is_two_steps(bench: Bench) -> None:
    bench.notebook("a.ipynb", [UNIQUE[1], UNIQUE[1]])
    cells = ["import uuid", UNIQUE[1], UNIQUE[1]]
    first = run_all(bench, cells, notebook="a.ipynb")
    second = run_all(bench, cells, notebook="a.ipynb")
    assert first.stdout[1] != first.stdout[2]
    assert second.stdout == first.stdout
    counted = Story(bench, notebook="b.ipynb", probes=["x"])
    counted.run(["x = max(0, 1)", "x += 1", "x += 1"])
    assert counted.verdicts(["x = max(0, 1)", "x += 1", "x += 1"])[1:] == [REPLAYED, REPLAYED]
