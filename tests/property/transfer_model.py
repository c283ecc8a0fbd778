"""Stores in memory for tests of copies, and what a history is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durable_nb.abc import Markers, Share
from durable_nb.events import CELL, Event, EventKind, OperationType
from durable_nb.journal import MemoryJournal
from durable_nb.runtime import Store
from durable_nb.snapshot import MemoryBlobStore

CLOCK = itertools.count(1)
"""Moments that never come twice, so that a doubled event would be seen."""


class MemoryMarkers(Markers):
    """Markers in a dict."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}

    def claim(self, execution: str, name: str, facts: Mapping[str, Any]) -> bool:
        if (execution, name) in self.kept:
            return False
        self.kept[execution, name] = {"execution": execution, "name": name, **facts}
        return True

    def read(self, execution: str, name: str) -> Mapping[str, Any] | None:
        return self.kept.get((execution, name))

    def called(self, name: str) -> Iterator[Mapping[str, Any]]:
        return iter([facts for facts in self.kept.values() if facts["name"] == name])

    def of(self, execution: str) -> Iterator[Mapping[str, Any]]:
        return iter([facts for facts in self.kept.values() if facts["execution"] == execution])

    def clear(self, execution: str, name: str) -> None:
        self.kept.pop((execution, name), None)


class MemoryShare(Share):
    """Of a store that one process has to itself."""

    @contextmanager
    def alone(self) -> Iterator[bool]:
        yield True

    def hold(self, addresses: Iterable[str]) -> None:
        pass

    def held(self) -> set[str]:
        return set()

    def nbytes(self) -> int:
        return 0

    def close(self) -> None:
        pass


def memory_store(name: str) -> Store:
    return Store(Path("/", name), MemoryJournal(), MemoryBlobStore(), MemoryMarkers(), MemoryShare())


def cell(operation: str, kind: EventKind = EventKind.SUCCEEDED, **fields: Any) -> Event:
    facts = {"details": {"label": operation, "ordinal": 0}, **fields}
    return Event(
        operation_id=operation, kind=kind, type=OperationType.CONTEXT, sub_type=CELL, at=float(next(CLOCK)), **facts
    )


def step(operation: str, parent: str, kind: EventKind = EventKind.SUCCEEDED, **fields: Any) -> Event:
    return Event(
        operation_id=operation, kind=kind, type=OperationType.STEP, parent_id=parent, at=float(next(CLOCK)), **fields
    )


def notebook(store: Store, name: str = "n.ipynb", **details: Any) -> str:
    return store.journal.create(name, kind="notebook", at=1.0, details=details).execution_id


def history(store: Store, name: str = "n.ipynb") -> list[Event]:
    record = store.journal.find(name)
    return [] if record is None else [stored.event for stored in store.journal.read(record.execution_id)]
