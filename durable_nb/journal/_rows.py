"""Events to rows and back, and the signature that binds a row to its place."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any

from durable_nb.events import ErrorInfo, Event, EventKind, ExecutionRecord, OperationType, Status, StoredEvent

Signer = Callable[[bytes], bytes]
"""Bytes to their message authentication code, under a key of this user or team."""

Row = tuple[Any, ...]


def _error_text(error: ErrorInfo | None) -> str | None:
    if error is None:
        return None
    return json.dumps([error.type, error.message, list(error.traceback), error.data], ensure_ascii=False)


def _error(text: str | None) -> ErrorInfo | None:
    if text is None:
        return None
    type_, message, traceback, data = json.loads(text)
    return ErrorInfo(type=type_, message=message, traceback=tuple(traceback), data=data)


def _mac(signer: Signer, row: Sequence[Any]) -> bytes:
    """Every column takes part, lengths first, so that no byte can move from one column to the next."""
    parts: list[bytes] = []
    for value in row:
        data = b"" if value is None else b"\1" + value if isinstance(value, bytes) else b"\2" + repr(value).encode()
        parts += [len(data).to_bytes(8, "big"), data]
    return signer(b"".join(parts))


def row_of(execution_id: str, sequence: int, event: Event, signer: Signer | None) -> Row:
    """The event as the columns of `insert_event`."""
    row: Row = (
        execution_id,
        sequence,
        event.operation_id,
        event.kind.value,
        event.type.value,
        event.sub_type,
        event.name,
        event.parent_id,
        float(event.at),
        event.attempt,
        event.payload,
        _error_text(event.error),
        None if event.due is None else float(event.due),
        json.dumps(dict(event.details), ensure_ascii=False) if event.details else None,
    )
    return (*row, None if signer is None else _mac(signer, row))


def event_of(row: Row, signer: Signer | None) -> StoredEvent:
    """The columns of a read query as an event; `trusted` says whether its signature is ours."""
    trusted = signer is None or (row[14] is not None and hmac.compare_digest(row[14], _mac(signer, row[:14])))
    return StoredEvent(
        execution_id=row[0],
        sequence=row[1],
        trusted=trusted,
        event=Event(
            operation_id=row[2],
            kind=EventKind(row[3]),
            type=OperationType(row[4]),
            sub_type=row[5],
            name=row[6],
            parent_id=row[7],
            at=row[8],
            attempt=row[9],
            payload=row[10],
            error=_error(row[11]),
            due=row[12],
            details=json.loads(row[13]) if row[13] else {},
        ),
    )


def execution_of(row: Row) -> ExecutionRecord:
    """The columns of an execution query as a record."""
    return ExecutionRecord(
        execution_id=row[0],
        name=row[1],
        kind=row[2],
        created_at=row[3],
        status=Status(row[4]),
        due=row[5],
        details=json.loads(row[6]),
    )
