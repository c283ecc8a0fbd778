"""Histories of released formats still replay, and code that does not fit one is refused by name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_nb.events import OperationType
from durable_nb.journal import MemoryJournal
from durable_nb.sdk._driver import Driver
from durable_nb.sdk.exceptions import NonDeterministicExecutionError
from durable_nb.testing import VirtualClock

from . import recorded

HISTORIES = sorted(Path(__file__).parent.glob("handlers-*.json.gz"))


@pytest.fixture(autouse=True)
def _nothing_runs() -> Iterator[None]:
    recorded.FORBIDDEN[0] = True
    yield
    recorded.FORBIDDEN[0] = False


def restore(path: Path, change: Any = None) -> tuple[Driver, dict[str, Any], Any]:
    """A journal with the history up to the handler's last operation, and what the handler returned."""
    data = json.loads(gzip.decompress(path.read_bytes()))
    journal = MemoryJournal()
    record = journal.create("recorded", kind="handler", at=0.0, details=data["details"])
    events = [recorded.from_json(event) for event in data["events"]]
    ends = [event for event in events if event.type is OperationType.EXECUTION and event.kind.value != "STARTED"]
    events = [event for event in events if event not in ends]
    if change is not None:
        events = [change(event) for event in events]
    journal.append(record.execution_id, events, due=0.0)
    return Driver(journal, VirtualClock()), data, record


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_recorded_history_replays_without_running_anything(path: Path) -> None:
    driver, data, record = restore(path)
    handler = recorded.recorded
    driver.create("recorded", "recorded-handler", '{"n": 1}')
    assert handler.value_of(driver.drive(record, handler)) == data["result"]


@pytest.mark.parametrize("name", ["value", "pause", "child", "map FLAT", "poll", "answer", "call"])
def test_a_history_with_another_operation_in_a_place_is_refused_by_name(name: str) -> None:
    def rename(event: Any) -> Any:
        return replace(event, name="something else") if event.name == name else event

    driver, _, record = restore(HISTORIES[-1], rename)
    handler = recorded.recorded
    with pytest.raises(NonDeterministicExecutionError, match="something else") as caught:
        handler.value_of(driver.drive(record, handler))
    assert name in str(caught.value)
