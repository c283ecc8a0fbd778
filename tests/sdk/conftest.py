"""Handlers over real journals, for every test of the SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_nb.abc import Journal
from durable_nb.journal import MemoryJournal, SqliteJournal
from durable_nb.sdk._driver import Driver
from durable_nb.testing import DurableFunctionTestRunner, VirtualClock


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Each journal that there is."""
    made: Journal = MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "journal.db")
    yield made
    made.close()


@pytest.fixture
def driver(journal: Journal) -> Driver:
    """A driver that skips time."""
    return Driver(journal, VirtualClock())


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Run a handler in memory; returns the test result."""
    runners: list[DurableFunctionTestRunner] = []

    def go(handler: Any, input: Any = None, **options: Any) -> Any:  # noqa: A002
        runner = DurableFunctionTestRunner(handler)
        runners.append(runner)
        return runner.run(input, **options)

    yield go
    for runner in runners:
        runner.close()
