"""The shared vocabulary: what a journal records, as frozen values.

An execution is a sequence of events; the state of an operation is what its events fold to. Nothing here knows how
events are kept or what a result means: a payload is bytes that name their own encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from durable_nb._dataclass import dataclass

_NO_DETAILS: Mapping[str, Any] = MappingProxyType({})


def _no_details() -> Mapping[str, Any]:
    return _NO_DETAILS


class OperationType(StrEnum):
    """The kinds of recorded unit. A notebook cell is a `CONTEXT` of sub-type `CELL`."""

    EXECUTION = "EXECUTION"
    CONTEXT = "CONTEXT"
    STEP = "STEP"
    WAIT = "WAIT"
    CALLBACK = "CALLBACK"
    CHAINED_INVOKE = "CHAINED_INVOKE"


CELL = "Cell"
"""The sub-type of an operation that is a notebook cell."""


class Status(StrEnum):
    """State of an operation, an execution or an invocation: one enum, so that the three compare with each other."""

    STARTED = "STARTED"
    PENDING = "PENDING"
    READY = "READY"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"
    RETRY = "RETRY"

    @property
    def is_terminal(self) -> bool:
        """True when nothing can follow."""
        return self in _TERMINAL


_TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT, Status.STOPPED})


class EventKind(StrEnum):
    """What happened to an operation."""

    STARTED = "STARTED"
    """An attempt began (or, for waits and callbacks, the operation was created)."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    RETRY_SCHEDULED = "RETRY_SCHEDULED"
    """An attempt ended in an error that the strategy allows; `due` says when the next one may start."""
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"
    HEARTBEAT = "HEARTBEAT"
    NOTE = "NOTE"
    """A remark for people and tools (a decision, an audit verdict); it changes no state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An error as the journal keeps it: enough to show, to filter on and to rebuild."""

    type: str
    """Fully qualified class name."""
    message: str
    traceback: tuple[str, ...] = ()
    """Formatted lines of the user's frames, outermost first."""
    data: str | None = None
    """Whatever the raiser added, as text (the SDK's `ErrorData`)."""

    def __str__(self) -> str:
        return f"{self.type.rpartition('.')[2]}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one operation."""

    operation_id: str
    kind: EventKind
    type: OperationType
    at: float
    """Seconds since the epoch, UTC, by the wall clock of the writer."""
    sub_type: str | None = None
    name: str | None = None
    parent_id: str | None = None
    attempt: int = 1
    payload: bytes | None = None
    """The result, manifest or state, in an encoding that the payload or `details` names."""
    error: ErrorInfo | None = None
    due: float | None = None
    """Seconds since the epoch at which the operation wants attention; None when it does not."""
    details: Mapping[str, Any] = field(default_factory=_no_details)
    """JSON values only: options, reasons, sizes, durations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event with its place in the journal."""

    execution_id: str
    sequence: int
    """1, 2, 3… within the execution."""
    event: Event
    trusted: bool = True
    """False when the row was not signed with a key of this user or team: show it, never load values from it."""


class _EventFields:
    """An event that is being filled in: the slots of an `Event`, and not frozen."""

    __slots__ = tuple(one.name for one in fields(Event))


class _StoredFields:
    """The same for a `StoredEvent`."""

    __slots__ = tuple(one.name for one in fields(StoredEvent))


def new_event(
    operation_id: str,
    kind: EventKind,
    type: OperationType,  # noqa: A002 - the field's name
    at: float,
    sub_type: str | None,
    name: str | None,
    parent_id: str | None,
    attempt: int,
    payload: bytes | None,
    error: ErrorInfo | None,
    due: float | None,
    details: Mapping[str, Any],
) -> Event:
    """An `Event` with all its fields, in their order: for whoever makes one for every step or every row.

    The constructor of a frozen dataclass sets each field by a call of `object.__setattr__`; over a long history those
    take longer than reading it. Here the fields are set while the object still belongs to a class that is not frozen.
    """
    made: Any = _EventFields()
    made.operation_id = operation_id
    made.kind = kind
    made.type = type
    made.at = at
    made.sub_type = sub_type
    made.name = name
    made.parent_id = parent_id
    made.attempt = attempt
    made.payload = payload
    made.error = error
    made.due = due
    made.details = details
    made.__class__ = Event
    event: Event = made
    return event


def new_stored(execution_id: str, sequence: int, event: Event, trusted: bool) -> StoredEvent:  # noqa: FBT001
    """A `StoredEvent`, made like `new_event`."""
    made: Any = _StoredFields()
    made.execution_id = execution_id
    made.sequence = sequence
    made.event = event
    made.trusted = trusted
    made.__class__ = StoredEvent
    stored: StoredEvent = made
    return stored


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One durable run: a notebook, or a handler with an input."""

    execution_id: str
    name: str
    """Unique in the store; what a user types."""
    kind: str
    """`notebook` or `handler`."""
    created_at: float
    status: Status = Status.STARTED
    due: float | None = None
    """The earliest time at which an operation of it wants attention."""
    details: Mapping[str, Any] = field(default_factory=_no_details)
    """JSON values: handler name and input digest, notebook path, Python version."""
