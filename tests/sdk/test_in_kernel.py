"""Batches in real kernels: their progress bar, and their progress over a kill."""

from __future__ import annotations

import pytest

from tests.notebook.harness import Bench, run_all

pytestmark = pytest.mark.kernel

CELL = (
    "from durable_nb import context, MapConfig\n"
    "r = context.map(range(6), lambda c, x, i, every: c.step(lambda _: x * x), name='squares')\n"
    "print(sum(r.get_results()))"
)


def lines(run: object) -> list[str]:
    outputs = run.cells[0].expect_ok().outputs  # type: ignore[attr-defined]
    return [one["data"]["text/plain"] for one in outputs if one["output_type"] == "display_data"]


def test_a_batch_leaves_one_line_that_depends_on_its_work_only(bench: Bench) -> None:
    first = run_all(bench, [CELL], probes=["sum(r.get_results())"])
    again = run_all(bench, [CELL], probes=["sum(r.get_results())"])
    assert first.probes == again.probes == {"sum(r.get_results())": "55"}
    assert lines(first) == lines(again) == ["squares: 6 of 6"]


def test_handlers_and_steps_defined_in_cells_work_after_a_restart(bench: Bench) -> None:
    """Definitions come back usable: registered, by their live class, with their steps."""
    cells = [
        "from durable_nb import durable_execution, durable_step, context\n"
        "class Point:\n    def __init__(self, x):\n        self.x = x",
        "@durable_step\ndef double(step, x):\n    return Point(x * 2)",
        "@durable_execution\ndef handler(event, context):\n    return context.step(lambda _: event['n'] + 1)",
        "p = context.step(double(4))\nprint(p.x, isinstance(p, Point))",
        "r = handler.run({'n': 1}, name='nested')\nprint(r)",
    ]
    first = run_all(bench, cells, probes=["p.x", "r"])
    assert [cell.status for cell in first.cells] == ["ok"] * len(cells), [cell.evalue for cell in first.cells]
    more = [
        *cells,
        "again = handler.run({'n': 5})\nq = context.step(double(7))\nprint(again, q.x, isinstance(q, Point))",
    ]
    again = run_all(bench, more, probes=["p.x", "r", "again", "isinstance(p, Point)"])
    assert [cell.status for cell in again.cells] == ["ok"] * len(more), [cell.evalue for cell in again.cells]
    assert again.probes == {"p.x": "8", "r": "2", "again": "6", "isinstance(p, Point)": "True"}
    assert again.cells[-1].stdout == "6 14 True\n"
    assert again.cells[3].stdout == "8 True\n"
