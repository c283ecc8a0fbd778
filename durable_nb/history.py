"""The read model: what happened, folded from the journal for people and screens.

Screens (command line, widgets, `%durable`) ask this module and nothing deeper. It knows the journal's port and
vocabulary only; it writes nothing but what a person asks it to forget.

An operation's state is the fold of its events in order: `_NEXT` says which status an event leads to. Events of one
operation carry their attempt; a retried operation keeps its failed attempts here although the notebook no longer shows
them. Operations that were recorded for another version of the same cell (its source or an input changed) stay in the
journal: `superseded` tells them from what the last run used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.abc import Journal
from durable_nb.events import CELL, ErrorInfo, Event, EventKind, ExecutionRecord, OperationType, Status, StoredEvent

__all__ = ["AttemptView", "ExecutionView", "History", "Note", "OperationView", "first_line", "fold"]

_NEXT: Mapping[EventKind, Status] = {
    EventKind.STARTED: Status.STARTED,
    EventKind.SUCCEEDED: Status.SUCCEEDED,
    EventKind.FAILED: Status.FAILED,
    EventKind.RETRY_SCHEDULED: Status.PENDING,
    EventKind.CANCELLED: Status.CANCELLED,
    EventKind.TIMED_OUT: Status.TIMED_OUT,
    EventKind.STOPPED: Status.STOPPED,
}
"""Kinds that are not here (heartbeats, notes) change no state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A remark that was recorded with an operation: a decision, an audit verdict, a replay."""

    at: float
    sequence: int
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One try of an operation."""

    number: int
    started_at: float
    ended_at: float | None = None
    status: Status = Status.STARTED
    """`STARTED` with no end: it runs, or its process died inside it."""
    error: ErrorInfo | None = None
    next_at: float | None = None
    """When the following attempt may start."""

    @property
    def seconds(self) -> float | None:
        """How long it took; None while its end is not known."""
        return None if self.ended_at is None else max(0.0, self.ended_at - self.started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationView:
    """A recorded unit: a cell, or a step, wait, callback… inside one."""

    execution_id: str
    operation_id: str
    type: OperationType
    sub_type: str | None = None
    name: str | None = None
    parent_id: str | None = None
    status: Status = Status.STARTED
    attempts: tuple[AttemptView, ...] = ()
    notes: tuple[Note, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """Of all its events, later ones over earlier ones."""
    payload_bytes: int = 0
    due: float | None = None
    trusted: bool = True
    """False when a row's signature was not made with a key of this user or team."""
    superseded: bool = False
    """True when a later record of the same cell has replaced it."""
    first_sequence: int = 0
    last_sequence: int = 0
    last_at: float = 0.0
    """When its last event happened."""

    @property
    def is_cell(self) -> bool:
        """Whether this is a notebook cell."""
        return self.sub_type == CELL

    @property
    def label(self) -> str:
        """What to call it: its name, else the first line of its source, else its kind."""
        label = self.name or self.details.get("label") or first_line(self.source)
        return str(label or (self.sub_type or self.type.value).lower())

    @property
    def source(self) -> str:
        """The cell's source; empty for other operations."""
        return str(self.details.get("source") or "")

    @property
    def ordinal(self) -> int | None:
        """Which appearance of this source or name it is; None where that has no meaning."""
        found = self.details.get("ordinal")
        return found if isinstance(found, int) else None

    @property
    def at_most_once(self) -> bool:
        """Whether its body may start only once."""
        options = self.details.get("options")
        said = (self.details, options if isinstance(options, Mapping) else {}, *(note.details for note in self.notes))
        return any(bool(facts.get("at_most_once")) for facts in said)

    @property
    def decision(self) -> str | None:
        """What a person decided about it, while nothing has happened since."""
        if not self.notes or self.notes[-1].sequence != self.last_sequence:
            return None
        found = self.notes[-1].details.get("decision")
        return None if found is None else str(found)

    @property
    def needs_decision(self) -> bool:
        """An at-most-once body that was started and is not known to have succeeded, while nobody has decided."""
        unknown = self.status in (Status.STARTED, Status.FAILED)
        return self.at_most_once and unknown and self.decision is None

    @property
    def inputs(self) -> Sequence[Mapping[str, Any]]:
        """The inputs it was recorded with."""
        found = self.details.get("inputs") or ()
        return [dict(each) for each in found if isinstance(each, Mapping)]

    @property
    def started_at(self) -> float | None:
        """Start of the first attempt."""
        return self.attempts[0].started_at if self.attempts else None

    @property
    def ended_at(self) -> float | None:
        """End of the last attempt."""
        return self.attempts[-1].ended_at if self.attempts else None

    @property
    def seconds(self) -> float | None:
        """How long the work took, as its record says, else by the clock of its last attempt."""
        found = self.details.get("seconds")
        if isinstance(found, int | float):
            return float(found)
        return self.attempts[-1].seconds if self.attempts else None

    @property
    def nbytes(self) -> int:
        """Bytes of its checkpoint: what the record says, else its payload in the journal."""
        found = self.details.get("bytes")
        return found if isinstance(found, int) else self.payload_bytes

    @property
    def reason(self) -> str:
        """Why it ran; empty when its record does not tell."""
        return str(self.details.get("reason") or "")

    @property
    def error(self) -> ErrorInfo | None:
        """The error of the last attempt that had one."""
        return next((attempt.error for attempt in reversed(self.attempts) if attempt.error is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionView:
    """One durable run with its operations in order of their first start."""

    record: ExecutionRecord
    operations: tuple[OperationView, ...] = ()

    @property
    def name(self) -> str:
        """What a user types."""
        return self.record.name

    @property
    def cells(self) -> tuple[OperationView, ...]:
        """Its notebook cells that are current."""
        return tuple(op for op in self.operations if op.is_cell and not op.superseded)

    @property
    def nbytes(self) -> int:
        """Bytes of all its checkpoints; data that two of them share counts twice."""
        return sum(op.nbytes for op in self.operations)

    @property
    def last_at(self) -> float:
        """When something last happened."""
        times = [self.record.created_at]
        for op in self.operations:
            times += [t for attempt in op.attempts for t in (attempt.started_at, attempt.ended_at) if t is not None]
        return max(times)

    def count(self, status: Status) -> int:
        """How many current cells (or, in a handler, operations) have this status."""
        among = self.cells if self.record.kind == "notebook" else self.operations
        return sum(op.status is status for op in among)

    def children(self, operation_id: str | None) -> tuple[OperationView, ...]:
        """The operations directly under another one; None asks for the top ones."""
        return tuple(op for op in self.operations if op.parent_id == operation_id)


def fold(events: Iterable[StoredEvent]) -> tuple[OperationView, ...]:
    """Events of one execution, in order, to its operations."""
    found: dict[str, OperationView] = {}
    for stored in events:
        event = stored.event
        before = found.get(event.operation_id)
        if before is None:
            before = OperationView(
                execution_id=stored.execution_id,
                operation_id=event.operation_id,
                type=event.type,
                first_sequence=stored.sequence,
            )
        found[event.operation_id] = _apply(before, stored)
    return _mark_superseded(list(found.values()))


def _apply(op: OperationView, stored: StoredEvent) -> OperationView:
    event = stored.event
    changes: dict[str, Any] = {
        "sub_type": event.sub_type or op.sub_type,
        "name": event.name or op.name,
        "parent_id": event.parent_id or op.parent_id,
        "last_sequence": stored.sequence,
        "last_at": event.at,
        "trusted": op.trusted and stored.trusted,
    }
    status = _NEXT.get(event.kind)
    if event.kind is EventKind.STARTED and event.details.get("deferred") and op.attempts:
        return replace(op, **changes)  # it travelled with another thread's commit, and landed behind its own end
    if status is None:
        if event.kind is EventKind.NOTE:
            changes["notes"] = (*op.notes, Note(at=event.at, sequence=stored.sequence, details=event.details))
        return replace(op, **changes)
    if _is_copied(op, event):
        attempts = (*_attempts((), event, status), *op.attempts)
        return replace(op, attempts=attempts, trusted=op.trusted and stored.trusted)
    changes |= {
        "status": status,
        "due": event.due,
        "details": {**op.details, **event.details},
        "attempts": _attempts(op.attempts, event, status),
    }
    if event.payload is not None:
        changes["payload_bytes"] = len(event.payload)
    return replace(op, **changes)


def _is_copied(op: OperationView, event: Event) -> bool:
    """Whether this is an older run of an ended cell, which came later from another store: a run of here has a start."""
    ended = op.is_cell and op.status.is_terminal and event.kind is EventKind.SUCCEEDED
    return ended and event.at < op.last_at


def _attempts(before: tuple[AttemptView, ...], event: Event, status: Status) -> tuple[AttemptView, ...]:
    if event.kind is EventKind.STARTED:
        return (*before, AttemptView(number=event.attempt, started_at=event.at))
    if not before or before[-1].ended_at is not None:
        # An operation that is recorded only at its end (a group commit may leave out its start).
        before = (*before, AttemptView(number=event.attempt, started_at=_start_of(event)))
    ended = Status.FAILED if event.kind is EventKind.RETRY_SCHEDULED else status
    last = replace(before[-1], ended_at=event.at, status=ended, error=event.error, next_at=event.due)
    return (*before[:-1], last)


def _start_of(event: Event) -> float:
    seconds = event.details.get("seconds")
    return event.at - seconds if isinstance(seconds, int | float) else event.at


def _mark_superseded(operations: list[OperationView]) -> tuple[OperationView, ...]:
    """Of several records of one cell, only the one that was touched last is current."""
    latest: dict[tuple[object, ...], OperationView] = {}
    for op in operations:
        key = _place(op)
        if key is not None and (key not in latest or _touched(op) > _touched(latest[key])):
            latest[key] = op
    current = {op.operation_id for op in latest.values()}
    marked = [
        op if _place(op) is None or op.operation_id in current else replace(op, superseded=True) for op in operations
    ]
    return tuple(sorted(marked, key=lambda op: op.first_sequence))


def _touched(op: OperationView) -> tuple[float, int]:
    # By the time first: what was copied from another store comes later in the journal, and may be older.
    return op.last_at, op.last_sequence


def _place(op: OperationView) -> tuple[object, ...] | None:
    """What stays the same when a cell is recorded again: its identity (name or canonical source) and its ordinal."""
    if not op.is_cell:
        return None
    identity = op.details.get("identity") or op.name or op.source
    return (identity, op.ordinal) if identity else None


def first_line(source: str) -> str:
    """What to call a cell without a name: its first line that is code."""
    for line in source.splitlines():
        text = line.strip()
        if text and not text.startswith(("#", "%%durable_step")):
            return text
    return source.strip().partition("\n")[0]


class History:
    """Questions to one journal, and the removal of what a person names."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def executions(self) -> list[ExecutionView]:
        """All, oldest first."""
        return [self._view(record) for record in self._journal.executions()]

    def find(self, name: str) -> ExecutionView | None:
        """By its name, or by a prefix of its id that fits one execution only."""
        record = self._journal.find(name)
        if record is None:
            fits = [each for each in self._journal.executions() if each.execution_id.startswith(name)] if name else []
            record = fits[0] if len(fits) == 1 else None
        return None if record is None else self._view(record)

    def names(self) -> list[str]:
        """Of all executions."""
        return [record.name for record in self._journal.executions()]

    def select(self, execution: ExecutionView, which: str) -> list[OperationView]:
        """Cells (or operations) of an execution that `which` means: a number in the list, a name, or part of a label.

        The most exact meaning that fits anything decides, so a step called `3` is found by its name.
        """
        among = execution.cells or execution.operations
        by_name = [op for op in among if op.name == which or op.operation_id == which]
        if by_name:
            return by_name
        if which.isdecimal() and 1 <= int(which) <= len(among):
            return [among[int(which) - 1]]
        return [op for op in among if which in op.label or op.operation_id.startswith(which)]

    def forget(self, execution: ExecutionView, operations: Iterable[OperationView] | None = None) -> int:
        """Remove an execution, or some operations with all that was recorded under them; returns how many events."""
        if operations is None:
            return self._journal.forget(execution.record.execution_id)
        gone = 0
        for op in operations:
            for each in (*_below(execution, op), op):
                gone += self._journal.forget(execution.record.execution_id, each.operation_id)
        return gone

    def _view(self, record: ExecutionRecord) -> ExecutionView:
        return ExecutionView(record=record, operations=fold(self._journal.read(record.execution_id)))


def _below(execution: ExecutionView, op: OperationView) -> Iterator[OperationView]:
    for child in execution.children(op.operation_id):
        yield from _below(execution, child)
        yield child
