"""One notebook, one history: through front ends and runners, from other folders, under other names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from durable_nb.runtime import open_store
from tests.notebook.harness import Bench, Kernel, run_all
from tests.notebook.runners import Ran, durable_nb, jupyter_execute, nbval, papermill

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

# The clock gives another value each time it really runs, so equal outputs prove a replay.
CELLS = ["import time", "t = time.perf_counter_ns(); print(t)", "u = t + 1; u"]


def first_time(bench: Bench, name: str = "a.ipynb") -> str:
    """What JupyterLab sees when it runs the notebook."""
    path = bench.root / name
    run = run_all(bench, CELLS, cell_ids="auto", env={"JPY_SESSION_NAME": str(path)}, cwd=path.parent)
    assert run.verdicts == ["declared", "executed", "executed"]
    return run.stdout[1]


def own_command(bench: Bench, book: Path) -> Ran:
    out = bench.private / "out.ipynb"
    return durable_nb(bench, "run", str(book), "-o", str(out), out=out)


@pytest.mark.parametrize("runner", [papermill, jupyter_execute, own_command])
def test_runners_that_send_no_cell_ids_replay_what_jupyterlab_ran(bench: Bench, runner) -> None:
    book = bench.notebook("a.ipynb", CELLS)
    shown = first_time(bench)
    ran = runner(bench, book)
    assert ran.code == 0, ran.stderr
    assert ran.texts()[1] == shown


def test_papermill_from_another_folder_finds_the_same_history(bench: Bench, tmp_path: Path) -> None:
    book = bench.notebook("sub/a.ipynb", CELLS)
    shown = first_time(bench, "sub/a.ipynb")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ran = papermill(bench, book, cwd=elsewhere)
    assert ran.code == 0, ran.stderr
    assert ran.texts()[1] == shown


def test_nbval_passes_on_the_notebook_that_another_runner_wrote(bench: Bench) -> None:
    book = bench.notebook("a.ipynb", CELLS)
    ran = jupyter_execute(bench, book)
    assert ran.code == 0, ran.stderr
    saved = bench.root / "a.ipynb"
    saved.write_text(json.dumps(ran.notebook))
    for _ in range(2):
        checked = nbval(bench, saved)
        assert checked.code == 0, checked.stdout


def test_a_session_without_a_name_and_one_with_a_name_share(bench: Bench) -> None:
    unnamed = run_all(bench, CELLS)
    named = run_all(bench, CELLS, env={"JPY_SESSION_NAME": str(bench.notebook("a.ipynb", CELLS))})
    assert named.stdout == unnamed.stdout
    assert named.verdicts[1:] == ["replayed", "replayed"]


def test_another_checkout_of_the_project_replays(bench: Bench, tmp_path: Path) -> None:
    bench.write("data.txt", "7")
    cells = [*CELLS, "n = int(open('data.txt').read())"]
    path = bench.notebook("nb/a.ipynb", cells)
    bench.write("nb/data.txt", "7")
    first = run_all(bench, cells, env={"JPY_SESSION_NAME": str(path)}, cwd=path.parent)
    other = Bench(tmp_path / "other")
    shutil.copytree(bench.root, other.root, dirs_exist_ok=True)
    shutil.copytree(bench.private, other.private, dirs_exist_ok=True)  # the same user's key
    again = run_all(other, cells, env={"JPY_SESSION_NAME": str(other.root / "nb/a.ipynb")}, cwd=other.root / "nb")
    assert again.stdout == first.stdout
    assert again.verdicts[1:] == ["replayed"] * 3


def names(bench: Bench) -> list[str]:
    store = open_store(bench.store)
    try:
        return sorted(record.name for record in store.journal.executions() if record.name != "(anonymous)")
    finally:
        store.close()


def test_a_renamed_notebook_keeps_its_history(bench: Bench) -> None:
    old = bench.notebook("old.ipynb", CELLS)
    shown = first_time(bench, "old.ipynb")
    new = old.rename(bench.root / "new.ipynb")
    run = run_all(bench, CELLS, env={"JPY_SESSION_NAME": str(new)})
    assert run.stdout[1] == shown
    assert names(bench) == ["new.ipynb"]


def test_a_copied_notebook_gets_a_history_of_its_own(bench: Bench) -> None:
    book = bench.notebook("a.ipynb", CELLS)
    first_time(bench)
    copy = Path(shutil.copy(book, bench.root / "b.ipynb"))
    run = run_all(bench, CELLS, env={"JPY_SESSION_NAME": str(copy)})
    assert run.verdicts[1:] == ["executed", "executed"]
    assert names(bench) == ["a.ipynb", "b.ipynb"]


def test_two_projects_with_one_store_do_not_share_a_name(bench: Bench, tmp_path: Path) -> None:
    env = {"DURABLE_NB_STORE": str(tmp_path / "shared")}
    for project, cells in (("one", ["x = len('one'); x"]), ("two", ["y = len('other'); y"])):
        bench.write(f"{project}/pyproject.toml", "")
        path = bench.notebook(f"{project}/a.ipynb", cells)
        run_all(bench, cells, env={**env, "JPY_SESSION_NAME": str(path)}, cwd=path.parent)
    store = open_store(tmp_path / "shared")
    found = [record.name for record in store.journal.executions() if record.name != "(anonymous)"]
    store.close()
    assert len(found) == 2


def test_the_extension_makes_marked_cells_durable_in_the_plain_kernel(bench: Bench) -> None:
    cells = [
        "%load_ext durable_nb\nimport time",
        "a = 3; label = len('abc')",
        "%%durable_step slow\nt = time.perf_counter_ns() + a\nt",
        "u = t + 1",
        "%%durable_step\nv = await asyncio.sleep(0, u) if False else u",
        "%durable_step w = time.perf_counter_ns()",
        "w",
    ]
    cells[0] += "\nimport asyncio"
    first = run_all(bench, cells, spec="python3")
    assert all(cell.status == "ok" for cell in first.cells), [cell.evalue for cell in first.cells]
    again = run_all(bench, cells, spec="python3", probes=["In[3]", "label"])
    assert again.verdicts == [None, None, "replayed", None, "replayed", "replayed", None]
    assert again.cells[2].result == first.cells[2].result
    assert again.cells[6].result == first.cells[6].result
    edited = run_all(bench, [cells[0], "a = 4; label = 1", *cells[2:]], spec="python3")
    assert edited.verdicts[2] == "executed"


def test_nothing_is_left_behind_by_a_session_that_marks_no_cell(bench: Bench) -> None:
    run_all(bench, ["%load_ext durable_nb", "x = len('a')"], spec="python3")
    assert not bench.store.exists()


def test_unloading_leaves_the_plain_kernel(bench: Bench) -> None:
    with Kernel(bench, spec="python3") as kernel:
        kernel.run("%load_ext durable_nb").expect_ok()
        assert kernel.run("%%durable_step s\nx = len('a')").verdict == "executed"
        kernel.run("%unload_ext durable_nb").expect_ok()
        assert kernel.run("x + 1").verdict is None
        assert kernel.run("%%durable_step s\nx = 1").status == "error"
        kernel.run("%load_ext durable_nb").expect_ok()
        assert kernel.run("%%durable_step s\nx = len('a')").verdict == "replayed"
