"""What events make of an operation, and what a piece of code may do at an operation. Pure: no clock, no journal.

An operation's state is the fold of its events. The table below is the whole life of an operation; a pair that is not in
it means that the journal and this code disagree, and is refused rather than guessed at.

Three rules need words:
- The start of an attempt may be missing: an at-least-once body writes its start together with its end, or not at all,
  because a start that was lost means the same as one that was never written. So a result may follow nothing.
- A start that was deferred travels with whichever thread commits next, so it may land behind the end of its own
  operation, or behind the end of its own attempt. Then it says nothing new.
- Completions from outside (callbacks, invoked functions) race with time-outs and with each other: the first terminal
  event wins, later ones change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durable_nb.events import ErrorInfo, Event, EventKind, OperationType, Status
from durable_nb.exceptions import StoreError

_ENDS = {
    EventKind.SUCCEEDED: Status.SUCCEEDED,
    EventKind.FAILED: Status.FAILED,
    EventKind.CANCELLED: Status.CANCELLED,
    EventKind.TIMED_OUT: Status.TIMED_OUT,
    EventKind.STOPPED: Status.STOPPED,
}

# Asking an enum's class for a member calls a function in Python 3.11: what every event asks is kept by name.
_STARTED, _SUCCEEDED = EventKind.STARTED, EventKind.SUCCEEDED
_NOTE, _HEARTBEAT = EventKind.NOTE, EventKind.HEARTBEAT
_TERMINAL = frozenset(_ENDS.values())

_OPEN = (Status.STARTED, Status.PENDING, Status.READY)

NEXT: dict[tuple[Status | None, EventKind], Status] = {
    (None, EventKind.STARTED): Status.STARTED,
    (None, EventKind.RETRY_SCHEDULED): Status.PENDING,
    (Status.STARTED, EventKind.STARTED): Status.STARTED,  # an interrupted attempt runs again
    (Status.STARTED, EventKind.RETRY_SCHEDULED): Status.PENDING,
    (Status.STARTED, EventKind.HEARTBEAT): Status.STARTED,
    (Status.PENDING, EventKind.STARTED): Status.STARTED,
    (Status.PENDING, EventKind.RETRY_SCHEDULED): Status.PENDING,  # attempt n + 1 failed, its start was not written
    (Status.READY, EventKind.STARTED): Status.STARTED,  # a service has said that the delay is over
    (Status.READY, EventKind.RETRY_SCHEDULED): Status.PENDING,
    **{(status, kind): end for status in (None, *_OPEN) for kind, end in _ENDS.items()},
}

_FIRST = {kind: after for (before, kind), after in NEXT.items() if before is None}

_FROM_OUTSIDE = frozenset({OperationType.CALLBACK, OperationType.CHAINED_INVOKE, OperationType.EXECUTION})
_new = object.__new__


@dataclass(slots=True)
class OperationState:
    """Where an operation stands."""

    operation_id: str
    operation_type: OperationType
    sub_type: str | None
    name: str | None
    parent_id: str | None
    status: Status
    attempt: int
    """Of the last attempt that left a trace."""
    started_at: float
    ended_at: float | None = None
    payload: bytes | None = None
    error: ErrorInfo | None = None
    due: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Of the last event that had any; for callbacks and invokes those of the start, joined by later ones."""
    trusted: bool = True


def _is_late(state: OperationState, event: Event) -> bool:
    ended = state.status.is_terminal or state.status in (Status.PENDING, Status.READY)
    return ended and event.attempt <= state.attempt


def advance(state: OperationState | None, event: Event, *, trusted: bool = True) -> OperationState:
    """The state after an event. `state` is changed in place where there is one."""
    kind = event.kind
    if state is None:
        return _first(event, trusted=trusted)
    if kind is _NOTE:
        return state
    if state.operation_type in _FROM_OUTSIDE and state.status in _TERMINAL:
        return state
    if kind is _STARTED and _is_late(state, event):
        return state
    after = NEXT.get((state.status, kind))
    if after is None:
        raise _refused(event, state.status.value)
    details = event.details
    state.status = after
    if kind is not _HEARTBEAT:
        state.attempt = event.attempt
    if details:
        state.details = {**state.details, **details} if event.type in _FROM_OUTSIDE else details
    if event.payload is not None or after in _TERMINAL:
        state.payload = event.payload
    if event.error is not None or kind is _SUCCEEDED:
        state.error = event.error
    state.due = event.due
    state.trusted = state.trusted and trusted
    if after in _TERMINAL:
        state.ended_at = event.at
    return state


def _first(event: Event, *, trusted: bool) -> OperationState:
    """The state after the first event of an operation: for most steps their only one."""
    after = _FIRST.get(event.kind)
    if after is None:
        raise _refused(event, "nothing")
    details = event.details
    state = _new(OperationState)  # a history makes thousands: without the call that passes on every field
    state.operation_id = event.operation_id
    state.operation_type = event.type
    state.sub_type = event.sub_type
    state.name = event.name
    state.parent_id = event.parent_id
    state.status = after
    state.attempt = event.attempt
    state.started_at = details.get("started", event.at) if details else event.at
    state.ended_at = event.at if after in _TERMINAL else None
    state.payload = event.payload
    state.error = event.error
    state.due = event.due
    state.details = details
    state.trusted = trusted
    return state


def _refused(event: Event, before: str) -> StoreError:
    return StoreError(f"operation {event.operation_id}: {event.kind.value} cannot follow {before}")
