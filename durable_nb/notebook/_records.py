"""Checkpoints of cells as the journal keeps them: what is found for a cell, and how one is written.

A completed cell is one SUCCEEDED event. Its `details` hold what screens and validation read (source, inputs, times);
its payload holds what a replay gives back (names, process state, outputs), decoded only when it is given back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from durable_nb.abc import BlobStore, Journal, Lease
from durable_nb.cells import Inputs, from_json
from durable_nb.events import CELL, ErrorInfo, Event, EventKind, ExecutionRecord, OperationType, StoredEvent
from durable_nb.exceptions import StoreError, UntrustedCheckpointError
from durable_nb.notebook._execution import ANONYMOUS
from durable_nb.snapshot import decode, encode

INLINE_LIMIT = 32 * 1024
"""Bytes. A smaller payload stays in the journal's row."""


def operation_id(identity: str, ordinal: int) -> str:
    """The id of a cell: its identity (name or source) and which appearance of that it is."""
    return blake2b(f"cell:{identity}:{ordinal}".encode(), digest_size=16).hexdigest()


def once_id(execution: str, name: str) -> str:
    """The id of an at-most-once step: the execution and the step's name; inputs take no part."""
    return blake2b(f"once:{len(execution)}:{execution}:{name}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Record:
    """One completed run of a cell."""

    stored: StoredEvent
    blobs: BlobStore

    @property
    def event(self) -> Event:
        return self.stored.event

    @cached_property
    def inputs(self) -> Inputs:
        """What it depended on."""
        return from_json(self.event.details.get("inputs", ()))

    @property
    def seconds(self) -> float:
        """How long the body took."""
        return float(self.event.details.get("seconds", 0.0))

    @property
    def source(self) -> str:
        return str(self.event.details.get("source", ""))

    @property
    def files(self) -> Mapping[str, Any]:
        """The files it left: `states` and `blobs`, as `World.keep_files` gives them."""
        found = self.event.details.get("files")
        return found if isinstance(found, Mapping) else {}

    @property
    def runs_again(self) -> str | None:
        """Why it cannot be given back, when it cannot: the cell then runs at its place on a fresh kernel."""
        found = self.event.details.get("runs_again")
        return None if found is None else str(found)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What a replay gives back.

        Raises:
            UntrustedCheckpointError: the row was not signed with a key of this user or team.
        """
        if not self.stored.trusted:
            raise UntrustedCheckpointError(f"the checkpoint of cell {self.event.details.get('label', '')!r}")
        payload = self.event.payload
        address = self.event.details.get("payload_blob")
        if payload is None and address:
            payload = self.blobs.get(str(address))
        return _whole(decode(payload or b""))

    def versions(self) -> Iterator[tuple[str, str]]:
        """Names that the run bound or changed, and the versions it left."""
        for group in self.manifest["names"]["groups"]:
            for name, version in group["versions"].items():
                yield name, str(version[0])


def _slim(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without what is empty in it. Most cells leave little: their row then fits into a page of the database
    and needs none beside it.
    """
    found = {key: value for key, value in manifest.items() if value}
    found["names"] = {key: value for key, value in manifest["names"].items() if value}
    return found


def _whole(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that `_slim` was given."""
    try:
        names = {
            "groups": [],
            "definitions": {},
            "sources": {},
            "deleted": [],
            "process": {},
            "problems": [],
            "blobs": [],
            "nbytes": 0,
            **manifest["names"],
        }
    except (KeyError, TypeError) as exc:
        raise StoreError("this manifest is damaged: it tells of no names") from exc
    return {"outputs": [], "models": {}, "results": {}, "same": {}, "has_result": False, **manifest, "names": names}


class CellJournal:
    """The events of cells in one execution."""

    def __init__(self, journal: Journal, blobs: BlobStore, execution_id: str, anonymous_id: str | None) -> None:
        self.journal, self.blobs = journal, blobs
        self.execution_id, self._anonymous_id = execution_id, anonymous_id
        self.is_anonymous = anonymous_id is not None and execution_id == anonymous_id

    def events(self, operation: str) -> list[StoredEvent]:
        """This execution's events of an operation, oldest first."""
        return self.journal.read_operation(self.execution_id, operation)

    def executions(self) -> list[ExecutionRecord]:
        """All executions of the store."""
        return self.journal.executions()

    def candidates(self, operation: str) -> list[Record]:
        """Completed runs that may serve, newest first: of this execution and of sessions that had no name.

        A session without a name looks across the whole store.
        """
        found = [
            stored
            for stored in self.journal.find_cell(operation)
            if stored.event.kind is EventKind.SUCCEEDED
            and (self.is_anonymous or stored.execution_id in (self.execution_id, self._anonymous_id))
        ]
        found.sort(key=lambda stored: (stored.execution_id == self.execution_id, stored.event.at), reverse=True)
        return [Record(stored, self.blobs) for stored in found]

    def completed(self) -> list[Record]:
        """Completed runs of this execution, oldest first: one that was copied from another store may be anywhere."""
        found = [
            Record(stored, self.blobs)
            for stored in self.journal.read(self.execution_id)
            if stored.event.kind is EventKind.SUCCEEDED and stored.event.sub_type == CELL
        ]
        return sorted(found, key=lambda record: record.event.at)

    def with_files(self) -> list[Record]:
        """Completed runs that left files, oldest first: of this execution, and of all for a session without a name."""
        everywhere = [record.execution_id for record in self.journal.executions()] if self.is_anonymous else []
        found = [
            Record(stored, self.blobs)
            for execution in everywhere or [self.execution_id]
            for stored in self.journal.read(execution)
            if stored.event.kind is EventKind.SUCCEEDED and stored.trusted and "files" in stored.event.details
        ]
        return sorted(found, key=lambda record: record.event.at)

    def write(
        self,
        events: Sequence[Event],
        *,
        lease: Lease | None,
        durable: bool = True,
        refs: Sequence[str] = (),
    ) -> None:
        self.journal.append(self.execution_id, events, lease=lease, durable=durable, payload_refs=refs)

    def pack(self, manifest: Mapping[str, Any]) -> tuple[bytes | None, str | None]:
        """The manifest as a payload, or as the address of a blob when it is large."""
        payload = encode(_slim(manifest))
        if len(payload) <= INLINE_LIMIT:
            return payload, None
        return None, self.blobs.put(payload)


def cell_event(
    operation: str,
    kind: EventKind,
    at: float,
    *,
    name: str | None,
    attempt: int = 1,
    payload: bytes | None = None,
    error: ErrorInfo | None = None,
    due: float | None = None,
    details: Mapping[str, Any] | None = None,
) -> Event:
    """An event of a cell."""
    return Event(
        operation_id=operation,
        kind=kind,
        type=OperationType.CONTEXT,
        sub_type=CELL,
        name=name,
        at=at,
        attempt=attempt,
        payload=payload,
        error=error,
        due=due,
        details=dict(details or {}),
    )


__all__ = ["ANONYMOUS", "CellJournal", "Record", "cell_event", "once_id", "operation_id"]
