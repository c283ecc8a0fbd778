"""A journal around a journal: the base of logging, latency and faults, so that the real ones stay simple."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any

from durable_nb.abc import Claimed, Journal, Lease
from durable_nb.events import Event, ExecutionRecord, Status, StoredEvent

__all__ = ["JournalWrapper"]


class JournalWrapper(Journal):
    """Passes every call on to `inner`; override what you want to change."""

    def __init__(self, inner: Journal) -> None:
        self.inner = inner

    def create(self, name: str, *, kind: str, at: float, details: Mapping[str, Any]) -> ExecutionRecord:
        return self.inner.create(name, kind=kind, at=at, details=details)

    def find(self, name: str) -> ExecutionRecord | None:
        return self.inner.find(name)

    def get(self, execution_id: str) -> ExecutionRecord | None:
        return self.inner.get(execution_id)

    def executions(self) -> list[ExecutionRecord]:
        return self.inner.executions()

    def append(
        self,
        execution_id: str,
        events: Sequence[Event],
        *,
        lease: Lease | None = None,
        after: int | None = None,
        durable: bool = True,
        payload_refs: Iterable[str] = (),
        status: Status | None = None,
        due: float | None | EllipsisType = ...,
    ) -> int:
        return self.inner.append(
            execution_id,
            events,
            lease=lease,
            after=after,
            durable=durable,
            payload_refs=payload_refs,
            status=status,
            due=due,
        )

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[StoredEvent]:
        return self.inner.read(execution_id, after=after)

    def read_operation(self, execution_id: str, operation_id: str) -> list[StoredEvent]:
        return self.inner.read_operation(execution_id, operation_id)

    def find_cell(self, operation_id: str) -> list[StoredEvent]:
        return self.inner.find_cell(operation_id)

    def update(
        self,
        execution_id: str,
        *,
        name: str | None = None,
        status: Status | None = None,
        due: float | None | EllipsisType = ...,
        details: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.inner.update(execution_id, name=name, status=status, due=due, details=details, lease=lease)

    def due(self, now: float) -> list[ExecutionRecord]:
        return self.inner.due(now)

    def forget(self, execution_id: str, operation_id: str | None = None) -> int:
        return self.inner.forget(execution_id, operation_id)

    def prune(self, execution_id: str, sequences: Iterable[int]) -> int:
        return self.inner.prune(execution_id, sequences)

    def acquire(self, execution_id: str, *, ttl: float) -> Lease:
        return self.inner.acquire(execution_id, ttl=ttl)

    def renew(self, lease: Lease, *, ttl: float) -> None:
        self.inner.renew(lease, ttl=ttl)

    def release(self, lease: Lease) -> None:
        self.inner.release(lease)

    def claim(
        self,
        now: float,
        *,
        kind: str,
        limit: int,
        ttl: float,
        without: Iterable[str] = (),
        limits: Mapping[str, int] | None = None,
    ) -> Sequence[Claimed]:
        return self.inner.claim(now, kind=kind, limit=limit, ttl=ttl, without=without, limits=limits)

    def await_due(self, stop: threading.Event, timeout: float) -> None:
        self.inner.await_due(stop, timeout)

    def blob_refs(self) -> set[str]:
        return self.inner.blob_refs()

    def resign(self, execution_id: str, sequences: Iterable[int]) -> int:
        return self.inner.resign(execution_id, sequences)

    def complaints(self) -> list[str]:
        return self.inner.complaints()

    def shrink(self) -> None:
        self.inner.shrink()

    def close(self) -> None:
        self.inner.close()
