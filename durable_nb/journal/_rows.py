"""Events to rows and back, and the signature that binds a row to its place."""

from __future__ import annotations

import hmac
import json
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from durable_nb.events import (
    ErrorInfo,
    Event,
    EventKind,
    ExecutionRecord,
    OperationType,
    Status,
    StoredEvent,
    new_event,
    new_stored,
)

Signer = Callable[[bytes], bytes]
"""Bytes to their message authentication code, under a key of this user or team."""

Row = tuple[Any, ...]

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_raw_decode = json.JSONDecoder().raw_decode
_length = struct.Struct(">Q").pack
_ABSENT = _length(0)

_KINDS = {kind.value: kind for kind in EventKind}
_TYPES = {kind.value: kind for kind in OperationType}
# What `.value` says: it is a function of Python in some versions, and every row asks it twice.
_KIND_TEXT = {kind: kind.value for kind in EventKind}
_TYPE_TEXT = {kind: kind.value for kind in OperationType}


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
    execution, sequence, operation, kind, type_, sub_type, name, parent, at, attempt, payload, error, due, details = row
    parts = (
        _repeated(execution) if type(execution) is str else _part(execution),
        _part(sequence),
        _part(operation),
        _repeated(kind) if type(kind) is str else _part(kind),
        _repeated(type_) if type(type_) is str else _part(type_),
        _repeated(sub_type) if type(sub_type) is str else _part(sub_type),
        _repeated(name) if type(name) is str else _part(name),
        _repeated(parent) if type(parent) is str else _part(parent),
        _part(at),
        _repeated(attempt) if type(attempt) is int else _part(attempt),
        _part(payload),
        _part(error),
        _part(due),
        _part(details),
    )
    return signer(b"".join(parts))


def _part(value: Any) -> bytes:
    """A column for the signature: its length, then the mark of its kind and its value."""
    if value is None:
        return _ABSENT
    data = b"\1" + value if isinstance(value, bytes) else b"\2" + repr(value).encode()
    return _length(len(data)) + data


_repeated = lru_cache(maxsize=256)(_part)
"""The same for text and whole numbers that many rows share. For no other type: 0.0 and -0.0 are equal, not the same."""


def row_of(execution_id: str, sequence: int, event: Event, signer: Signer | None) -> Row:
    """The event as the columns of `insert_event`."""
    row: Row = (
        execution_id,
        sequence,
        event.operation_id,
        _KIND_TEXT[event.kind],
        _TYPE_TEXT[event.type],
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
    trusted = not signers or _is_signed(row, signers)
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
    return new_stored(str(row[0]), row[1] if isinstance(row[1], int) else 0, event, trusted)


def _is_signed(row: Row, signers: Sequence[Signer]) -> bool:
    mac = row[14]
    if isinstance(mac, bytes):
        for signer in signers:
            if hmac.compare_digest(mac, mac_of(row, signer)):
                return True
    return False


def _event(row: Row) -> Event:
    _, sequence, operation, kind, type_, sub_type, name, parent, at, attempt, payload, error, due, details, _ = row
    if not (
        # The common case, without a loop.
        type(sequence) is int
        and type(operation) is str
        and (sub_type is None or type(sub_type) is str)
        and (name is None or type(name) is str)
        and (parent is None or type(parent) is str)
        and type(at) is float
        and type(attempt) is int
        and (payload is None or type(payload) is bytes)
        and error is None
        and due is None
        and type(details) is str
        and type(row[0]) is str
        and type(kind) is str
        and type(type_) is str
    ):
        _check_columns(row)
    return new_event(
        operation,
        _KINDS.get(kind) or EventKind(kind),
        _TYPES.get(type_) or OperationType(type_),
        at,
        sub_type,
        name,
        parent,
        attempt,
        payload,
        _error(error),
        due,
        _details(details) if details else {},
    )


def _details(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        found, end = _raw_decode(text)
        if end == len(text):
            details: dict[str, Any] = found
            return details
    details = json.loads(text)  # what has blanks around it, or is no object
    if not isinstance(details, dict):
        raise TypeError("details are no object")
    return details


def _check_columns(row: Row) -> None:
    for value, kinds in zip(row, _COLUMNS, strict=False):
        if not isinstance(value, kinds):
            raise TypeError(f"a column holds {type(value).__name__}")


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
