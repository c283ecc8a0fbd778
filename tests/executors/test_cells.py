"""Whole cells on a cluster: `%%durable_step --on dask://…` in real kernels, with real workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.executors.cluster import Cluster
from tests.notebook.harness import Bench, Kernel, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("dask")]


def on(cluster: Cluster, body: str, options: str = "") -> str:
    return f"%%durable_step --on {cluster.place} {options}\n{body}"


def test_a_cell_binds_changes_and_deletes_as_it_would_here(bench: Bench, cluster: Cluster) -> None:
    cells = [
        "import os\na = [1]\nb = a\ngone = 1\npair = {'a': a}\nhere = os.getpid()",
        on(cluster, "import os\na.append(2)\nnew = [a]\ndel gone\nelsewhere = os.getpid() != here\nprint('hello')\nlen(a)"),
        "print(a, b is a, pair['a'] is a, new[0] is a, 'gone' in dir(), elsewhere, _)",
    ]
    first = run_all(bench, cells)
    shown = first.cells[1].expect_ok()
    assert shown.stdout == "hello\n"
    assert shown.verdict == "executed"
    assert first.stdout[2] == "[1, 2] True True True False True 2\n"
    tasks = cluster.tasks()
    again = run_all(bench, cells)
    assert again.verdicts == ["replayed"] * 3
    assert again.outputs == first.outputs
    assert cluster.tasks() == tasks
