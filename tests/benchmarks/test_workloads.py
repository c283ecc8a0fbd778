"""Every workload and every figure of the page, small: the benchmarks never rot. Sizes and times are for `make bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.measure import Runner, Sides
from tests.benchmarks.page import Run, page, table
from tests.benchmarks.peers import COMPARED
from tests.benchmarks.report import machine
from tests.benchmarks.workloads import WORKLOADS, scale

SMALL = ("trivial", "again")
"""The others differ from these in their cells only."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One round of a few workloads at the size of the environment."""
    runner = Runner(scale(), None, tmp_path_factory.mktemp("bench"))
    run = Run(machine(), scale())
    for name in SMALL:
        run.sides[name] = runner.workload(name, rounds=1, note=lambda text: None)
    return run


def test_every_side_runs_and_the_second_life_replays(run: Run) -> None:
    for sides in run.sides.values():
        assert not sides.failures
        assert sides.figures["first"][0]["statuses"] == ["executed"]
        assert sides.figures["replay"][0]["statuses"] == ["replayed"]
        assert sides.figures["plain"][0]["statuses"] == ["None"]


def test_saving_before_and_after_the_reply_is_measured(run: Run, tmp_path: Path) -> None:
    run.orders = Runner(scale(), None, tmp_path).orders(1, note=lambda text: None)
    for sides in run.orders.values():
        before, after = sides["before"][0], sides["after"][0]
        assert all(0 < reply <= whole for reply, whole in zip(before["reply"], before["whole"], strict=True))
        assert sum(after["reply"]) < sum(after["whole"]), "what is saved after the reply takes time after it"
    assert "## Saving before the reply, or after it" in page(run)


def test_an_equal_copy_of_stored_data_stores_nothing(run: Run) -> None:
    assert run.sides["again"].figures["first"][0]["stored"] == 0


def test_the_page_tells_what_was_measured(run: Run) -> None:
    text = page(run)
    assert "| unchanged data stored again | 0 bytes | 0 bytes | met |" in text
    assert "### 8 trivial cells" in text
    assert "trivial cell, first run" in table(run)
    assert json.loads(json.dumps(run.raw()))["workloads"]["again"]["rounds"]["first"]


def test_a_side_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    runner = Runner(scale(), "/nowhere/python", tmp_path)

    def process(module: str, *arguments: Any, **more: Any) -> Any:
        if module == "peers":
            raise RuntimeError("No module named 'joblib'")
        return {
            "seconds": [0.1],
            "looks": [0.1] * 3,
            "stored": 1,
            "peak": 1,
            "cpu": 0.1,
            "inside": 0.1,
            "commit": 0.001,
        }

    runner.process = process  # type: ignore[method-assign]
    sides = runner.workload("array", rounds=1, note=lambda text: None)
    assert set(sides.figures) == {"plain", "first", "replay", "machine"}
    assert sides.failures == {f"{peer} first": "No module named 'joblib'" for peer in COMPARED["array"]}
    assert "failed: No module named 'joblib'" in page(Run(machine(), 1.0, {"array": _with_limits(sides)}))


def _with_limits(sides: Sides) -> Sides:
    for figures in sides.figures["machine"]:
        figures.update(write_fsync=0.1, copy=0.1, xxh3=0.1, blake3=0.1, read_sum=0.1)
    for figures in sides.figures["replay"]:
        figures["peak_first_look"] = 1
    return sides


def test_a_run_of_one_row_keeps_the_others(run: Run) -> None:
    again = Run(run.machine, run.size)
    again.keep(json.loads(json.dumps(run.raw())))
    assert page(again) == page(run)
    other = Run(run.machine, run.size * 2)
    other.keep(run.raw())
    assert not other.sides


def test_workloads_are_python_and_know_their_neighbours() -> None:
    for name, make in WORKLOADS.items():
        workload = make(0.001)
        assert workload.name == name
        for source in (*workload.setup, *workload.cells):
            compile(source, name, "exec")
        caching = {"joblib", "marimo"} & set(COMPARED.get(name, ()))
        assert bool(caching) == bool(workload.made)
