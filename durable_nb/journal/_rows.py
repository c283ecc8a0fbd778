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

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


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
        _JSON.encode(dict(event.details)) if event.details else None,
    )
    return (*row, None if signer is None else _mac(signer, row))


def mac_of(row: Row, signer: Signer) -> bytes:
    """The signature of the columns of a read query."""
    return _mac(signer, row[:14])


def is_event(row: Row) -> bool:
    """Whether the columns of a read query are an event."""
    return "damaged" not in event_of(row, ()).event.details


def event_of(row: Row, signers: Sequence[Signer]) -> StoredEvent:
    """The columns of a read query as an event; `trusted` says whether its signature is of one of these keys.

    A row that is no event at all (damaged, or not written by us) comes back as an untrusted note: it changes no state.
    """
    mac = row[14]
    trusted = not signers or (
        isinstance(mac, bytes) and any(hmac.compare_digest(mac, mac_of(row, signer)) for signer in signers)
    )
    try:
        event = _event(row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        event = Event(
            operation_id=str(row[2]),
            kind=EventKind.NOTE,
            type=OperationType.CONTEXT,
            at=0.0,
            details={"damaged": f"{type(exc).__name__}: {exc}"},
        )
        trusted = False
    return StoredEvent(
        execution_id=str(row[0]), sequence=row[1] if isinstance(row[1], int) else 0, trusted=trusted, event=event
    )


def _event(row: Row) -> Event:
    for value, kinds in zip(row, _COLUMNS, strict=False):
        if not isinstance(value, kinds):
            raise TypeError(f"a column holds {type(value).__name__}")
    details = json.loads(row[13]) if row[13] else {}
    if not isinstance(details, dict):
        raise TypeError("details are no object")
    return Event(
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
        details=details,
    )


_TEXT = (str, type(None))
_NUMBER = (float, int)
_COLUMNS: tuple[tuple[type, ...], ...] = (
    (str,),
    (int,),
    (str,),
    (str,),
    (str,),
    _TEXT,
    _TEXT,
    _TEXT,
    _NUMBER,
    (int,),
    (bytes, type(None)),
    _TEXT,
    (*_NUMBER, type(None)),
    _TEXT,
)
"""What each column of an event holds; SQLite itself keeps whatever it is given."""


def execution_of(row: Row) -> ExecutionRecord:
    """The columns of an execution query as a record. It is not signed: nothing that it says is loaded."""
    try:
        details = json.loads(row[6])
        status = Status(row[4])
    except (ValueError, TypeError, RecursionError) as exc:
        details, status = {"damaged": f"{type(exc).__name__}: {exc}"}, Status.STOPPED
    return ExecutionRecord(
        execution_id=str(row[0]),
        name=str(row[1]),
        kind=str(row[2]),
        created_at=row[3] if isinstance(row[3], _NUMBER) else 0.0,
        status=status,
        due=row[5] if isinstance(row[5], _NUMBER) else None,
        details=details if isinstance(details, dict) else {"damaged": "details are no object"},
    )
