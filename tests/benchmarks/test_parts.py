"""Parts of a cell's price, each by itself: what a change makes slower is seen here before it is seen in a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from durable_nb.events import CELL, Event, EventKind, OperationType
from durable_nb.journal import SqliteJournal
from durable_nb.snapshot import FileBlobStore, ProcessState, Tracker, save
from tests.benchmarks.workloads import scale


def _count(full: int, least: int) -> int:
    return max(least, int(full * scale()))


def _cell(tracker: Tracker, names: tuple[str, ...], source: str) -> Any:
    before = tracker.before(names)
    exec(source, tracker.namespace)
    return tracker.after(before, names, fingerprint="f")


def test_the_names_of_a_long_session_around_a_cell(benchmark: BenchmarkFixture) -> None:
    tracker = Tracker({f"v{number}": number for number in range(_count(1000, 50))})
    delta = benchmark(_cell, tracker, ("x",), "x = 1")
    assert set(delta.changed) <= {"x"}


def test_one_row_of_an_array_changes(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    tracker = Tracker({"m": np.zeros((_count(2500, 600), 1000)), "np": np})
    blobs = FileBlobStore(tmp_path / "blobs")
    tracker.version("m")

    def cell() -> dict[str, Any]:
        return save(_cell(tracker, ("m",), "m[7] += 1"), blobs)

    cell()  # the whole array is written once
    assert benchmark(cell)["nbytes"] <= 1.1e6


def test_python_objects_get_a_version(benchmark: BenchmarkFixture) -> None:
    namespace = {"d": [{"id": i, "name": f"n{i}", "value": i / 2} for i in range(_count(100_000, 100))]}

    def version() -> Any:
        return Tracker(dict(namespace)).version("d")

    assert benchmark(version).kind == "content"


def test_the_state_of_the_process(benchmark: BenchmarkFixture) -> None:
    assert "<random>" in benchmark(ProcessState.capture).versions


def test_one_synced_commit(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    record = journal.create("bench", kind="notebook", at=0.0, details={})
    event = Event(
        operation_id="0" * 32,
        kind=EventKind.SUCCEEDED,
        type=OperationType.CONTEXT,
        sub_type=CELL,
        at=1.0,
        payload=b"x" * 1000,
        details={},
    )
    benchmark(journal.append, record.execution_id, [event])
    journal.close()


def test_importing_the_package(benchmark: BenchmarkFixture) -> None:
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", "import durable_nb"],), {"check": True}, rounds=5)
