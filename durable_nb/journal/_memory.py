"""A journal in memory: for tests, and as the plainest statement of what a journal does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import EllipsisType
from typing import Any

from durable_nb.abc import Journal, Lease
from durable_nb.events import CELL, Event, ExecutionRecord, Status, StoredEvent
from durable_nb.exceptions import JournalConflictError, LeaseHeldError, LeaseLostError, StoreError
from durable_nb.journal._ids import new_execution_id
from durable_nb.journal._owner import this_process

__all__ = ["MemoryJournal"]


class MemoryJournal(Journal):
    """Keeps everything in this process; nothing survives it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._records: dict[str, ExecutionRecord] = {}
        self._events: dict[str, list[StoredEvent]] = {}
        self._sequence: dict[str, int] = {}
        self._refs: dict[tuple[str, int], tuple[str, ...]] = {}
        self._leases: dict[str, tuple[int, str | None]] = {}

    def create(self, name: str, *, kind: str, at: float, details: Mapping[str, Any]) -> ExecutionRecord:
        with self._lock:
            found = self.find(name)
            if found is not None:
                return found
            copied = json.loads(json.dumps(dict(details)))
            record = ExecutionRecord(
                execution_id=new_execution_id(), name=name, kind=kind, created_at=at, details=copied
            )
            self._records[record.execution_id] = record
            self._events[record.execution_id] = []
            self._sequence[record.execution_id] = 0
            return record

    def find(self, name: str) -> ExecutionRecord | None:
        with self._lock:
            return next((record for record in self._records.values() if record.name == name), None)

    def get(self, execution_id: str) -> ExecutionRecord | None:
        return self._records.get(execution_id)

    def executions(self) -> list[ExecutionRecord]:
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.created_at)

    def append(
        self,
        execution_id: str,
        events: Sequence[Event],
        *,
        lease: Lease | None = None,
        after: int | None = None,
        durable: bool = True,  # noqa: ARG002 - nothing here outlives the process
        payload_refs: Iterable[str] = (),
        status: Status | None = None,
        due: float | None | EllipsisType = ...,
    ) -> int:
        with self._lock:
            self._check_lease(execution_id, lease)
            if execution_id not in self._records:
                raise StoreError(f"there is no execution {execution_id!r} in this journal")
            last = self._sequence[execution_id]
            if after is not None and after != last:
                raise JournalConflictError(execution_id, after, last)
            for event in events:
                last += 1
                self._events[execution_id].append(StoredEvent(execution_id=execution_id, sequence=last, event=event))
            self._sequence[execution_id] = last
            refs = tuple(payload_refs)
            if refs:
                self._refs[execution_id, last] = refs
            self._set(execution_id, name=None, status=status, due=due, details=None)
            return last

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[StoredEvent]:
        with self._lock:
            return iter([stored for stored in self._events.get(execution_id, ()) if stored.sequence > after])

    def read_operation(self, execution_id: str, operation_id: str) -> list[StoredEvent]:
        return [stored for stored in self.read(execution_id) if stored.event.operation_id == operation_id]

    def find_cell(self, operation_id: str) -> list[StoredEvent]:
        with self._lock:
            found = [stored for key in sorted(self._events) for stored in self.read_operation(key, operation_id)]
            return [stored for stored in found if stored.event.sub_type == CELL]

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
        with self._lock:
            self._check_lease(execution_id, lease)
            if name is not None and self.find(name) is not None:
                raise StoreError(f"there is an execution called {name!r} already")
            self._set(execution_id, name=name, status=status, due=due, details=details)

    def _set(
        self,
        execution_id: str,
        *,
        name: str | None,
        status: Status | None,
        due: float | None | EllipsisType,
        details: Mapping[str, Any] | None,
    ) -> None:
        record = self._records[execution_id]
        if name is not None:
            record = replace(record, name=name)
        if status is not None:
            record = replace(record, status=status)
        if not isinstance(due, EllipsisType):
            record = replace(record, due=due)
        if details is not None:
            record = replace(record, details=json.loads(json.dumps(dict(details))))
        self._records[execution_id] = record

    def due(self, now: float) -> list[ExecutionRecord]:
        with self._lock:
            found = [record for record in self._records.values() if record.due is not None and record.due <= now]
        return sorted((r for r in found if not r.status.is_terminal), key=lambda record: record.due or 0.0)

    def forget(self, execution_id: str, operation_id: str | None = None) -> int:
        with self._lock:
            events = self._events.get(execution_id, [])
            kept = [] if operation_id is None else [e for e in events if e.event.operation_id != operation_id]
            gone = {stored.sequence for stored in events} - {stored.sequence for stored in kept}
            self._refs = {key: refs for key, refs in self._refs.items() if key[0] != execution_id or key[1] not in gone}
            if operation_id is None:
                for table in (self._records, self._events, self._sequence):
                    table.pop(execution_id, None)
            else:
                self._events[execution_id] = kept
            return len(gone)

    def prune(self, execution_id: str, sequences: Iterable[int]) -> int:
        with self._lock:
            going = set(sequences)
            events = self._events.get(execution_id, [])
            kept = [stored for stored in events if stored.sequence not in going]
            for number in going:
                self._refs.pop((execution_id, number), None)
            if execution_id in self._events:
                self._events[execution_id] = kept
            return len(events) - len(kept)

    def acquire(self, execution_id: str, *, ttl: float) -> Lease:  # noqa: ARG002 - a holder lives as long as this process
        with self._lock:
            token, holder = self._leases.get(execution_id, (0, None))
            if holder is not None:
                raise LeaseHeldError(execution_id, holder)
            owner = this_process().label
            self._leases[execution_id] = (token + 1, owner)
            return Lease(execution_id=execution_id, token=token + 1, owner=owner)

    def renew(self, lease: Lease, *, ttl: float) -> None:  # noqa: ARG002 - as above
        with self._lock:
            self._check_lease(lease.execution_id, lease)

    def release(self, lease: Lease) -> None:
        with self._lock:
            if self._leases.get(lease.execution_id, (0, None))[0] == lease.token:
                self._leases[lease.execution_id] = (lease.token, None)

    def _check_lease(self, execution_id: str, lease: Lease | None) -> None:
        if lease is not None and self._leases.get(execution_id, (0, None))[0] != lease.token:
            raise LeaseLostError(execution_id, lease.token)

    def blob_refs(self) -> set[str]:
        with self._lock:
            return {address for refs in self._refs.values() for address in refs}

    def close(self) -> None:
        """Nothing to close."""
