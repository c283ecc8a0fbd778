"""A person's way through JupyterLab: run, edit a cell in the middle, restart, Run All."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.browser.lab import Lab
from tests.notebook.runners import jupyter_execute, nbval, papermill
from tests.notebook.stores import completed, ran

pytestmark = [pytest.mark.browser, pytest.mark.kernel, pytest.mark.xdist_group("browser")]

# Each cell shows a number of its own making: it stays when the cell is replayed and changes when it runs.
CELLS = [
    "import uuid",
    "a = 1\nprint(uuid.uuid4())",
    "b = a + 1\nprint(uuid.uuid4())",
    "c = b * 2\nprint(uuid.uuid4())",
    "d = a * 3\nprint(uuid.uuid4())",
]


@pytest.mark.parametrize("server", ["lab", pytest.param("notebook", marks=pytest.mark.soak)], indirect=True)
def test_after_an_edit_and_a_restart_only_the_cell_and_its_dependants_run(lab: Lab) -> None:
    lab.bench.notebook("a.ipynb", CELLS)
    lab.open("a.ipynb")
    lab.run_all()
    first = lab.texts()
    assert all(first[1:])
    lab.restart()
    lab.run_all()
    assert lab.texts() == first
    lab.edit(2, "b = a + 2\nprint(uuid.uuid4())")
    lab.save()
    lab.restart()
    lab.run_all()
    second = lab.texts()
    assert [now == then for now, then in zip(second, first, strict=True)] == [True, True, False, False, True]
    assert not lab.errors()


EXAMPLES = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
IN_SHORT = "payment"
"""The example that every run of the tests sees; the others are for the long run."""


@pytest.mark.parametrize("server", ["lab"], indirect=True)
@pytest.mark.parametrize(
    "name", [pytest.param(p.stem, marks=[] if p.stem == IN_SHORT else pytest.mark.soak) for p in EXAMPLES]
)
def test_an_example_replays_the_same_cells_in_every_front_end(lab: Lab, name: str) -> None:
    bench = lab.bench
    book = Path(shutil.copy(next(path for path in EXAMPLES if path.stem == name), bench.root))
    lab.open(book.name)
    lab.run_all(limit=600)
    done = completed(bench)
    assert done
    _, known = ran(bench, set())
    lab.restart()
    lab.run_all()
    found = {}
    found["JupyterLab"], known = ran(bench, known)
    lab.stop_kernels()  # one kernel owns a notebook at a time
    for runner in (jupyter_execute, papermill, nbval):
        ended = runner(bench, book)
        assert ended.code == 0, f"{runner.__name__}: {ended.stdout}\n{ended.stderr}"
        found[runner.__name__], known = ran(bench, known)
    # What cannot be stored runs everywhere; everything else is replayed everywhere.
    assert len(set(map(frozenset, found.values()))) == 1, found
    assert completed(bench) == done
    assert not lab.errors()
