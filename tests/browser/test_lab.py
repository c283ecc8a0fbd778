"""A person's way through JupyterLab: run, edit a cell in the middle, restart, Run All."""

from __future__ import annotations

import pytest

from tests.browser.lab import Lab
from tests.notebook.runners import jupyter_execute, papermill

pytestmark = [pytest.mark.browser, pytest.mark.kernel, pytest.mark.xdist_group("browser")]

# Each cell shows a number of its own making: it stays when the cell is replayed and changes when it runs.
CELLS = [
    "import uuid",
    "a = 1\nprint(uuid.uuid4())",
    "b = a + 1\nprint(uuid.uuid4())",
    "c = b * 2\nprint(uuid.uuid4())",
    "d = a * 3\nprint(uuid.uuid4())",
]


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


@pytest.mark.parametrize("server", ["lab"], indirect=True)
def test_runners_replay_what_jupyterlab_ran(lab: Lab) -> None:
    bench = lab.bench
    book = bench.notebook("a.ipynb", CELLS)
    lab.open("a.ipynb")
    lab.run_all()
    lab.save()
    first = lab.texts()
    assert jupyter_execute(bench, book).texts() == first
    assert papermill(bench, book).texts() == first
