"""Runners of other people, first over the plain kernel: what the durable runs are compared with."""

from __future__ import annotations

import pytest

from tests.notebook.harness import Bench
from tests.notebook.runners import jupyter_execute, nbval, papermill

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("runner", [papermill, jupyter_execute])
def test_a_runner_executes_the_notebook_in_the_named_kernel(bench: Bench, runner) -> None:
    book = bench.notebook("a.ipynb", ["print('one')", "1 + 1"], kernel="python3")
    ran = runner(bench, book, kernel="python3")
    assert ran.code == 0, ran.stderr
    assert ran.texts() == ["one\n", ""]


def test_nbval_compares_with_the_saved_outputs(bench: Bench) -> None:
    saved = {"output_type": "stream", "name": "stdout", "text": "one\n"}
    cells = [{"source": "print('one')", "outputs": [saved]}, {"source": "print('two')", "outputs": []}]
    ran = nbval(bench, bench.notebook("a.ipynb", cells, kernel="python3"), kernel="python3")
    assert ran.code == 1
    assert "1 failed, 1 passed" in ran.stdout
