"""Markers of at-most-once steps: a start that the journal cannot forget.

The journal says that a step was started, and so does a marker outside it (`durable_nb.abc.Markers`). The order is

    1. no marker of this attempt may be there, else the journal has lost what happened: the step is refused;
    2. the start is recorded;
    3. the marker is claimed, exclusively;
    4. the body runs.

A process that dies between 2 and 3 leaves a start without a marker: the attempt is interrupted, and the strategy
decides as it always does. One that dies after 3 leaves both. So a marker without a record means one thing only: the
journal was lost, damaged or put back from an old copy, and a person has to say what happened.

Whoever counts an attempt as interrupted claims its marker first, so that an owner that slept between 2 and 3 and wakes
late does not begin. A marker names the execution's id in the journal: when the same name is run by two journals (one
was deleted under a running process), the marker belongs to the one that was first.

A decision is an event, not the removal of a marker: `again` ends the marked attempt, and the next one has its own.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from durable_nb.abc import Journal, Lease, Markers
from durable_nb.events import Event, EventKind, ExecutionRecord, OperationType, Status
from durable_nb.exceptions import StepInterruptedError, StoreError, ValidationError
from durable_nb.sdk._errors import capture
from durable_nb.sdk._machine import OperationState, advance
from durable_nb.sdk.identifier import OperationIdentifier
from durable_nb.sdk.lambda_service import OperationSubType
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, SerDesContext

DECISIONS = ("again", "failed", "succeeded")


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that was started, and whose end nobody knows."""

    operation_id: str
    name: str | None
    sub_type: str | None
    parent_id: str | None
    attempt: int

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.name or self.operation_id[:12]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A step that was started and that the journal does not know."""

    message: str
    last: int
    """The last attempt that has a marker."""


@dataclass(frozen=True, slots=True)
class Starts:
    """The markers of one execution.

    Args:
        markers: of the store.
        execution: the name that the markers carry; it finds them again when the journal is a new one.
        journal_id: the execution's id in this journal.
        known: names that the markers of all known executions carry, where an execution may have been renamed
            (notebooks): a marker of any other name is of an execution that the journal has lost.
    """

    markers: Markers
    execution: str
    journal_id: str
    known: Callable[[], Collection[str]] | None = None

    def forgotten(self, who: OperationIdentifier, attempt: int) -> Forgotten | None:
        """What the markers tell of an attempt that the journal does not know; None when it may begin."""
        found = self._found(who, attempt)
        if found is None:
            return None
        last = attempt
        while self._found(who, last + 1) is not None:
            last += 1
        return Forgotten(self._refusal(who, found), last)

    def _found(self, who: OperationIdentifier, attempt: int) -> Mapping[str, Any] | None:
        name = marker_of(who.operation_id, attempt)
        found = self.markers.read(self.execution, name)
        return self._orphan(name) if found is None and self.known is not None else found

    def _orphan(self, name: str) -> Mapping[str, Any] | None:
        assert self.known is not None
        known: Collection[str] | None = None
        for facts in self.markers.called(name):
            known = self.known() if known is None else known
            if facts.get("execution") not in known:
                return facts
        return None

    def claim(self, who: OperationIdentifier, attempt: int) -> None:
        """Take the right to begin; raises `StepInterruptedError` when somebody else has it."""
        if not self._claim(who, attempt):
            found = self.markers.read(self.execution, marker_of(who.operation_id, attempt)) or {}
            raise StepInterruptedError(self._refusal(who, found), who.operation_id)

    def interrupted(self, who: OperationIdentifier, attempt: int) -> None:
        """Keep a late owner from beginning an attempt that is about to count as interrupted.

        Raises:
            StepInterruptedError: the attempt was begun under another journal.
        """
        if self._claim(who, attempt):
            return
        found = self.markers.read(self.execution, marker_of(who.operation_id, attempt)) or {}
        if found.get("journal") not in (None, self.journal_id):
            raise StepInterruptedError(self._refusal(who, found), who.operation_id)

    def _claim(self, who: OperationIdentifier, attempt: int) -> bool:
        facts = {
            "at": time.time(),
            "journal": self.journal_id,
            "operation": who.operation_id,
            "step": who.name,
            "sub_type": None if who.sub_type is None else str(who.sub_type),
            "parent": who.parent_id,
            "attempt": attempt,
        }
        try:
            return self.markers.claim(self.execution, marker_of(who.operation_id, attempt), facts)
        except OSError as exc:
            raise StoreError(
                f"the start of step {who.name or who.operation_id[:12]!r} cannot be marked: {exc}"
            ) from exc

    def _refusal(self, who: OperationIdentifier, found: Mapping[str, Any]) -> str:
        at = found.get("at")
        told = time.strftime(" at %Y-%m-%d %H:%M:%S", time.localtime(at)) if isinstance(at, int | float) else ""
        label = who.name or who.operation_id[:12]
        command = f"durable-nb resolve {shlex.quote(self.execution)} {shlex.quote(label)}"
        return (
            f"step {label!r} was started{told}, and the journal does not know of it (it was lost, or is an old copy); "
            f"it does not run until you decide: {command} --again | --failed | --succeeded --result JSON"
        )


def marker_of(operation_id: str, attempt: int) -> str:
    """The name of the marker of one attempt."""
    # No cell's step is called so: their names have no control characters.
    return f"\0step\0{operation_id}\0{attempt}"


def starts_of(markers: Markers, journal: Journal, record: ExecutionRecord) -> Starts:
    """The markers of an execution: a notebook may have been renamed, and its markers carry its first name."""
    if record.kind != "notebook":
        return Starts(markers, record.name, record.execution_id)
    return Starts(
        markers, _carried(record), record.execution_id, lambda: {_carried(each) for each in journal.executions()}
    )


def _carried(record: ExecutionRecord) -> str:
    return str(record.details.get("markers") or record.name)


REFUSED = "refused"
"""The key of `Event.details` of a note that a step was not run because the journal had forgotten its start."""


def undecided(journal: Journal, execution_id: str) -> list[Begun]:
    """At-most-once steps that were started and whose end nobody knows, in the order in which they were found so."""
    known: dict[str, OperationState] = {}
    refused: dict[str, Event] = {}
    for stored in journal.read(execution_id):
        event = stored.event
        key = event.operation_id
        if event.type is not OperationType.STEP:
            continue
        if event.kind is EventKind.NOTE:
            if event.details.get(REFUSED):
                refused[key] = event
        elif key in known or key in refused or event.details.get("at_most_once"):
            known[key] = advance(known.get(key), event, trusted=stored.trusted)
    found = [_open(known.get(key), refused.get(key)) for key in {**refused, **known}]
    return [one for one in found if one is not None]


def _open(recorded: OperationState | None, refused: Event | None) -> Begun | None:
    """The attempt that nobody knows the end of."""
    last: OperationState | Event | None = recorded
    if recorded is None or (refused is not None and refused.attempt > recorded.attempt):
        last = refused
    elif recorded.status is not Status.STARTED:
        return None
    assert last is not None
    if recorded is not None and recorded.status.is_terminal:
        return None
    return Begun(last.operation_id, last.name, last.sub_type, last.parent_id, last.attempt)


def decide(
    journal: Journal, execution_id: str, step: Begun, decision: str, *, lease: Lease | None, result: Any = ...
) -> None:
    """Record a person's word about a step whose end nobody knows.

    Args:
        journal: where it is recorded.
        execution_id: the step's execution.
        step: one of `undecided`.
        decision: `again` lets the next attempt begin, `failed` lets the step fail, `succeeded` gives it `result`.
        lease: of the execution, where it has one.
        result: a JSON value, for `succeeded`.

    Raises:
        ValidationError: it is no such decision, or the result is missing.
    """
    if decision not in DECISIONS:
        raise ValidationError(f"a step of a handler cannot be resolved with --{decision}: it has no inputs to compare")
    if (decision == "succeeded") != (result is not ...):
        raise ValidationError("--succeeded needs the step's result (--result JSON), and no other decision takes one")
    now = time.time()
    event = Event(
        operation_id=step.operation_id,
        kind=EventKind.RETRY_SCHEDULED,
        type=OperationType.STEP,
        at=now,
        sub_type=step.sub_type or str(OperationSubType.STEP),
        name=step.name,
        parent_id=step.parent_id,
        attempt=step.attempt,
        due=now,
        details={"decision": decision, "at_most_once": True},
    )
    if decision == "failed":
        error = StepInterruptedError(f"step {step.label!r}: a person said that it failed", step.operation_id)
        failure = capture(error)
        details = {**failure.details(), **event.details}
        event = replace(event, kind=EventKind.FAILED, due=None, error=failure.info(), details=details)
    elif decision == "succeeded":
        payload = EXTENDED_TYPES_SERDES.serialize(result, SerDesContext()).encode("utf-8")
        event = replace(event, kind=EventKind.SUCCEEDED, due=None, payload=payload)
    journal.append(execution_id, [event], lease=lease)


MEANS = {
    "again": "its next attempt runs when the handler or the cell is run",
    "failed": "it counts as failed",
    "succeeded": "it counts as done, with this result",
}


def resolve(
    journal: Journal, execution_id: str, which: str, decision: str, *, lease: Lease | None, result: Any = ...
) -> str:
    """Decide about the step that `which` names (or whose id begins so); returns what follows.

    Raises:
        ValidationError: no such step waits for a decision, or several do.
    """
    waiting = undecided(journal, execution_id)
    found = [one for one in waiting if one.name == which] or [
        one for one in waiting if len(which) >= _PREFIX and one.operation_id.startswith(which)
    ]
    if not found:
        raise ValidationError(f"there is no at-most-once step {which!r} that waits for a decision")
    if len(found) > 1:
        ids = ", ".join(one.operation_id[:12] for one in found)
        raise ValidationError(f"{len(found)} steps called {which!r} wait for a decision: name one by its id ({ids})")
    decide(journal, execution_id, found[0], decision, lease=lease, result=result)
    return MEANS[decision]


_PREFIX = 8
"""Characters of an id that name a step."""

__all__ = ["REFUSED", "Begun", "Forgotten", "Starts", "decide", "marker_of", "resolve", "starts_of", "undecided"]
