"""A journal whose rows say little to who has no key.

Payload, error, details and name of an event are sealed together and take the payload's place; the details of an
execution are sealed in theirs. What the database needs to find and order things stays readable: the names of
executions, ids, kinds, times, attempts, states, leases, and which blobs a row names. A row is signed as it is stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import EllipsisType
from typing import Any

from durable_nb.abc import Claimed, Journal, Lease
from durable_nb.codecs import Cipher
from durable_nb.events import ErrorInfo, Event, EventKind, ExecutionRecord, Status, StoredEvent
from durable_nb.exceptions import StoreError
from durable_nb.journal._wrapper import JournalWrapper

__all__ = ["EncryptedJournal"]

_SEALED = "sealed"
_EVENT, _EXECUTION = b"event", b"execution"


class EncryptedJournal(JournalWrapper):
    """Seals what it writes to `inner`, and opens what it reads."""

    def __init__(self, inner: Journal, cipher: Cipher) -> None:
        super().__init__(inner)
        self._cipher = cipher

    # --- executions ------------------------------------------------------------------------------------------------

    def _details_in(self, details: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(dict(details), ensure_ascii=False).encode("utf-8", "surrogatepass")
        return {_SEALED: base64.b64encode(b"".join(self._cipher.seal([data], _EXECUTION))).decode("ascii")}

    def _record_out(self, record: ExecutionRecord) -> ExecutionRecord:
        sealed = record.details.get(_SEALED)
        if not isinstance(sealed, str):
            return record
        try:
            data = b"".join(self._cipher.open(base64.b64decode(sealed), _EXECUTION))
            details = json.loads(data.decode("utf-8", "surrogatepass"))
        except (StoreError, ValueError) as exc:
            return replace(record, status=Status.STOPPED, details={"damaged": str(exc)})
        return replace(record, details=details)

    def create(self, name: str, *, kind: str, at: float, details: Mapping[str, Any]) -> ExecutionRecord:
        return self._record_out(self.inner.create(name, kind=kind, at=at, details=self._details_in(details)))

    def find(self, name: str) -> ExecutionRecord | None:
        found = self.inner.find(name)
        return None if found is None else self._record_out(found)

    def get(self, execution_id: str) -> ExecutionRecord | None:
        found = self.inner.get(execution_id)
        return None if found is None else self._record_out(found)

    def executions(self) -> list[ExecutionRecord]:
        return [self._record_out(record) for record in self.inner.executions()]

    def due(self, now: float) -> list[ExecutionRecord]:
        return [self._record_out(record) for record in self.inner.due(now)]

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
        found = self.inner.claim(now, kind=kind, limit=limit, ttl=ttl, without=without, limits=limits)
        return [replace(claimed, record=self._record_out(claimed.record)) for claimed in found]

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
        sealed = None if details is None else self._details_in(details)
        self.inner.update(execution_id, name=name, status=status, due=due, details=sealed, lease=lease)

    # --- events ----------------------------------------------------------------------------------------------------

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
            [self._event_in(event) for event in events],
            lease=lease,
            after=after,
            durable=durable,
            payload_refs=payload_refs,
            status=status,
            due=due,
        )

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[StoredEvent]:
        return map(self._event_out, self.inner.read(execution_id, after=after))

    def read_operation(self, execution_id: str, operation_id: str) -> list[StoredEvent]:
        return [self._event_out(stored) for stored in self.inner.read_operation(execution_id, operation_id)]

    def find_cell(self, operation_id: str) -> list[StoredEvent]:
        return [self._event_out(stored) for stored in self.inner.find_cell(operation_id)]

    def _event_in(self, event: Event) -> Event:
        error = event.error
        facts = {
            "name": event.name,
            "details": dict(event.details),
            "error": None if error is None else [error.type, error.message, list(error.traceback), error.data],
            "payload": event.payload is not None,
        }
        head = json.dumps(facts, ensure_ascii=False).encode("utf-8", "surrogatepass")
        parts = [len(head).to_bytes(8, "big"), head, event.payload or b""]
        payload = b"".join(self._cipher.seal(parts, _EVENT))
        return replace(event, name=None, error=None, payload=payload, details={_SEALED: True})

    def _event_out(self, stored: StoredEvent) -> StoredEvent:
        event = stored.event
        if event.details.get(_SEALED) is not True:
            return stored  # a damaged row; or one that was not written here, whose signature says so
        try:
            return replace(stored, event=self._opened(event))
        except (StoreError, ValueError, TypeError, KeyError, RecursionError) as exc:
            damaged = replace(
                event, kind=EventKind.NOTE, payload=None, details={"damaged": f"{type(exc).__name__}: {exc}"}
            )
            return replace(stored, event=damaged, trusted=False)

    def _opened(self, event: Event) -> Event:
        data = b"".join(self._cipher.open(event.payload or b"", _EVENT))
        size = int.from_bytes(data[:8], "big")
        facts = json.loads(data[8 : 8 + size].decode("utf-8", "surrogatepass"))
        error = None
        if facts["error"] is not None:
            type_, message, traceback, more = facts["error"]
            error = ErrorInfo(type=type_, message=message, traceback=tuple(traceback), data=more)
        payload = data[8 + size :] if facts["payload"] else None
        return replace(event, name=facts["name"], error=error, payload=payload, details=facts["details"])
