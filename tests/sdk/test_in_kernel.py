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
