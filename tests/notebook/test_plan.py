"""The plan: what Run All would do is told before, by the command line and in a kernel, and nothing is run or written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.harness import Bench, Kernel
from tests.notebook.runners import durable_nb

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

CELLS = [
    "import time, uuid",
    "start = 1",
    "made = start + len('one')\nprint(uuid.uuid4())",
    "used = made * 2\nprint(uuid.uuid4())",
    "apart = len('abc')\nprint(uuid.uuid4())",
    "handle = (number for number in range(3))",
    "sums = apart + 1\nprint(uuid.uuid4())",
    "%%durable_step pay --at-most-once\nreceipt = apart",
]
ACTIONS = {"replay": "replayed", "declare": "declared"}


def plan(bench: Bench, notebook: Path, *more: str) -> list[dict[str, Any]]:
    done = durable_nb(bench, "plan", str(notebook), "--json", *more)
    assert done.code == 0, done.stderr
    return list(json.loads(done.stdout))


def run(bench: Bench, notebook: Path) -> list[str]:
    done = durable_nb(bench, "run", str(notebook), "--json")
    return [cell["status"] for cell in json.loads(done.stdout)["cells"]]


def test_the_plan_of_a_notebook_that_never_ran_is_to_run_it_and_makes_no_store(bench: Bench) -> None:
    book = bench.notebook("a.ipynb", CELLS)
    rows = plan(bench, book)
    assert [row["action"] for row in rows] == ["declare"] * 2 + ["run"] * 6
    assert not bench.store.exists()


def test_what_is_planned_for_sure_happens(bench: Bench) -> None:
    run(bench, bench.notebook("a.ipynb", CELLS))
    edited = [*CELLS[:2], CELLS[2].replace("'one'", "'three'"), *CELLS[3:]]
    for cells in (CELLS, edited):
        book = bench.notebook("a.ipynb", cells)
        rows = plan(bench, book)
        verdicts = run(bench, book)
        for row, verdict in zip(rows, verdicts, strict=True):
            if row["sure"]:
                expected = ACTIONS.get(row["action"], ("executed", "not_durable"))
                assert verdict == expected or verdict in expected, (row, verdict)


def test_readers_of_a_cell_that_would_run_would_probably_run_and_others_are_replayed(bench: Bench) -> None:
    run(bench, bench.notebook("a.ipynb", CELLS))
    book = bench.notebook("a.ipynb", [*CELLS[:2], CELLS[2].replace("'one'", "'three'"), *CELLS[3:]])
    rows = plan(bench, book)
    assert [row["action"] for row in rows[2:]] == ["run", "run", "replay", "run", "replay", "replay"]
    assert [row["sure"] for row in rows[2:5]] == [True, False, True]
    assert "made" in rows[3]["reason"]


def test_a_set_up_cell_runs_and_what_relies_on_it_is_replayed(bench: Bench) -> None:
    cells = ["import json", "json.flavour = len('abc')", "x = json.flavour + len('a')\nprint(x)"]
    book = bench.notebook("a.ipynb", cells)
    run(bench, book)
    rows = plan(bench, book)
    assert [row["action"] for row in rows] == ["declare", "run", "replay"]
    assert run(bench, book)[2] == "replayed"


def test_planning_runs_nothing_and_writes_nothing(bench: Bench) -> None:
    cells = ["from pathlib import Path", "n = Path('count').write_text('x')", "m = Path('other').write_text('y')"]
    run(bench, bench.notebook("a.ipynb", cells[:2]))
    book = bench.notebook("a.ipynb", cells)
    before = _events(bench)
    plan(bench, book)
    assert _events(bench) == before
    assert not (bench.root / "other").exists()


def _events(bench: Bench) -> list[Any]:
    from durable_nb.runtime import open_store

    store = open_store(bench.store, create=False)
    try:
        found = []
        for record in store.journal.executions():
            found += [(stored.sequence, stored.event.kind) for stored in store.journal.read(record.execution_id)]
        return found
    finally:
        store.close()


def test_an_at_most_once_step_whose_end_is_unknown_is_planned_as_a_question(bench: Bench) -> None:
    cells = ["import os, signal", "%%durable_step pay --at-most-once\nos.kill(os.getpid(), signal.SIGKILL)"]
    book = bench.notebook("a.ipynb", cells)
    durable_nb(bench, "run", str(book))
    rows = plan(bench, book)
    assert [row["action"] for row in rows] == ["declare", "decide"]


def test_a_kernel_plans_its_saved_notebook(bench: Bench) -> None:
    book = bench.notebook("a.ipynb", CELLS[:4])
    run(bench, book)
    bench.notebook("a.ipynb", [*CELLS[:3], "used = made * 3"])
    with Kernel(bench, notebook=book) as kernel:
        text = kernel.run("%durable plan").expect_ok().stdout
    lines = {line.split()[0]: line for line in text.splitlines() if line[:1].isdigit()}
    assert "replay" in lines["3"]
    assert "run" in lines["4"]


def test_only_marked_cells_are_planned_as_steps_where_the_extension_is_loaded(bench: Bench) -> None:
    cells: Sequence[str] = ["%load_ext durable_nb", "a = len('a')", "%%durable_step\nb = len('abc')", "a + b"]
    book = bench.notebook("a.ipynb", cells, kernel="python3")
    done = durable_nb(bench, "run", str(book), "--kernel", "python3")
    assert done.code == 0, done.stderr
    rows = plan(bench, book)
    assert [row["action"] for row in rows] == ["declare", "ordinary", "replay", "ordinary"]


def test_a_file_that_is_no_notebook_is_one_clear_line(bench: Bench) -> None:
    done = durable_nb(bench, "plan", str(bench.write("a.ipynb", "{")))
    assert done.code == 2
    assert len(done.stderr.strip().splitlines()) == 1
