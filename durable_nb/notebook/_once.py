"""At-most-once steps: the protocol that never starts a body twice.

A step is (execution, NAME); its inputs take no part. Two witnesses say that a body was started: the journal's STARTED
event and a marker file outside the database. The marker is created exclusively and fsynced before the first user
instruction, so whatever happens to the journal, a body that may have run is never started again without a person's
word. What the witnesses say leads to one of five answers:

    marker  journal                      answer
    ------  ---------------------------  ------------------------------------------------
    no      nothing                      run
    no      SUCCEEDED                    replay (or `StepChangedError`)
    yes     SUCCEEDED, same inputs       replay
    yes     SUCCEEDED, other inputs      `StepChangedError`, until `resolve --keep | --again`
    yes     anything else, or nothing    `StepInterruptedError`, until `resolve --succeeded | --failed | --again`

A retry that the user allowed (`--retry-on`) starts after an attempt whose end is known; it has a marker of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from durable_nb._dataclass import dataclass
from durable_nb.abc import Lease, Markers
from durable_nb.cells import Difference
from durable_nb.events import EventKind, StoredEvent
from durable_nb.exceptions import StepInterruptedError, StoreError, ValidationError
from durable_nb.notebook._records import CellJournal, Record, cell_event, once_id

Decision = Literal["keep", "again", "succeeded", "failed"]
DECISIONS: tuple[Decision, ...] = ("keep", "again", "succeeded", "failed")

DECISIONS_AFTER: Mapping[str, tuple[Decision, ...]] = {
    "interrupted": ("succeeded", "again", "failed"),
    "changed": ("keep", "again"),
    "failed": ("again",),
}
"""What a person may decide, by the answer of a verdict; the likeliest first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be done with an at-most-once step now."""

    answer: Literal["run", "replay", "changed", "interrupted", "empty", "failed"]
    """`empty`: a person said that it happened; nothing is given back. `failed`: a person said that it did not."""
    record: Record | None = None
    difference: Difference | None = None
    why: str = ""
    round: int = 0
    """How often a person has said `--again`: each round has markers of its own."""
    attempt: int = 1
    due: float | None = None
    """When that attempt may start; None: now."""


class OnceSteps:
    """The at-most-once steps of one execution."""

    def __init__(self, cells: CellJournal, markers: Markers, execution: str) -> None:
        self._cells, self._markers, self._execution = cells, markers, execution

    def operation(self, name: str) -> str:
        """The id of the step's operation."""
        return once_id(self._execution, name)

    def judge(self, name: str, differs: Callable[[Record], Difference | None]) -> Verdict:
        """What the witnesses say."""
        events = self._believed(name)
        decided = _last(events, EventKind.NOTE)
        decision = decided.event.details.get("decision") if decided else None
        rounds = sum(1 for stored in events if stored.event.details.get("decision") == "again")
        relevant = [stored for stored in events if stored.event.kind is not EventKind.NOTE]
        done = _last(relevant, EventKind.SUCCEEDED)
        if decided is not None and relevant and relevant[-1].sequence > decided.sequence:
            decision = None  # something happened after the decision: it is spent
        if decision == "again":
            # The journal may have been lost after a marker of this very round was made.
            return self._unless_marked(name, rounds, Verdict("run", round=rounds))
        if decision == "succeeded":
            return Verdict("empty", why="you said that it happened")
        if decision == "failed":
            return Verdict("failed", why="you said that it failed")
        if done is not None and relevant[-1] is done:
            record = Record(done, self._cells.blobs)
            difference = None if decision == "keep" or self._kept(events, done) else differs(record)
            if difference is not None:
                return Verdict("changed", record, difference, round=rounds)
            return Verdict("replay", record, round=rounds)
        if relevant:
            return self._unfinished(name, rounds, relevant[-1])
        return self._unless_marked(name, rounds, Verdict("run", round=rounds))

    def _believed(self, name: str) -> list[StoredEvent]:
        """The step's events, without decisions and ends that were not signed with a key of ours.

        Who can write to the store without the key may make a step ask; they cannot make it run or count as done. An end
        that is not believed leaves the start that is: the step asks.
        """
        return [stored for stored in self._events(name) if stored.trusted or stored.event.kind in _ONLY_ASK]

    def _events(self, name: str) -> list[StoredEvent]:
        return self._cells.events(self.operation(name))

    def _kept(self, events: Sequence[StoredEvent], done: StoredEvent) -> bool:
        return any(
            stored.event.details.get("decision") == "keep" and stored.sequence > done.sequence for stored in events
        )

    def _unfinished(self, name: str, rounds: int, last: StoredEvent) -> Verdict:
        """A retry that was allowed and never started may start; anything else needs a person."""
        following = last.event.attempt + 1
        if last.event.kind is EventKind.RETRY_SCHEDULED and (
            self._markers.read(self._execution, _marker(name, rounds, following)) is None
        ):
            return Verdict("run", round=rounds, attempt=following, due=last.event.due)
        why = _how_it_ended(last)
        if any(not stored.trusted and stored.event.kind is EventKind.SUCCEEDED for stored in self._events(name)):
            why = "its recorded end was not signed with a key that you trust (see durable-nb trust)"
        return Verdict("interrupted", why=why, round=rounds)

    def _unless_marked(self, name: str, rounds: int, verdict: Verdict) -> Verdict:
        marker = self._markers.read(self._execution, _marker(name, rounds, 1))
        if marker is None and rounds == 0:
            marker = self._orphan(name)
        if marker is None:
            return verdict
        when = marker.get("at")
        told = f" at {_clock(float(when))}" if isinstance(when, int | float) else ""
        return Verdict(
            "interrupted", why=f"it was started{told}, and the journal does not say how it ended", round=rounds
        )

    def _orphan(self, name: str) -> Mapping[str, object] | None:
        """A start of a step of this name in an execution that the journal does not know.

        The journal was lost or put back from an old copy, and the notebook may have had another name before.
        """
        known: set[str] | None = None
        for marker in self._markers.called(name):
            if known is None:
                known = {str(record.details.get("markers") or record.name) for record in self._cells.executions()}
            if marker.get("execution") not in known:
                return marker
        return None

    def start(
        self, name: str, *, rounds: int, attempt: int, label: str, lease: Lease | None, details: dict[str, object]
    ) -> None:
        """Claim the right to start this attempt, and record it, before the first user instruction.

        Raises:
            StepInterruptedError: somebody else has started it.
        """
        now = time.time()
        if not self._markers.claim(self._execution, _marker(name, rounds, attempt), {"at": now, "label": label}):
            raise StepInterruptedError(f"step {name!r} was started by somebody else; see %durable resolve {name}")
        event = cell_event(self.operation(name), EventKind.STARTED, now, name=name, attempt=attempt, details=details)
        self._cells.write([event], lease=lease)

    def resolve(self, name: str, decision: str, *, lease: Lease | None) -> str:
        """Record a person's decision; returns what it means.

        Raises:
            ValidationError: there is no such step, or it needs no such decision.
        """
        if decision not in DECISIONS:
            raise ValidationError(f"{decision!r} is no decision: use one of {', '.join('--' + d for d in DECISIONS)}")
        events = self._believed(name)
        rounds = sum(1 for stored in events if stored.event.details.get("decision") == "again")
        relevant = [stored for stored in events if stored.event.kind is not EventKind.NOTE]
        marked = self._markers.read(self._execution, _marker(name, rounds, 1)) is not None
        marked = marked or (rounds == 0 and self._orphan(name) is not None)
        if not relevant and not marked:
            raise ValidationError(f"there is no at-most-once step called {name!r} that was started in this notebook")
        completed = bool(relevant) and relevant[-1].event.kind is EventKind.SUCCEEDED
        if completed and decision in ("succeeded", "failed"):
            raise ValidationError(f"step {name!r} is completed and needs no such decision: use --keep or --again")
        if not completed and decision == "keep":
            raise ValidationError(f"step {name!r} has no result to keep: use --succeeded, --failed or --again")
        note = cell_event(self.operation(name), EventKind.NOTE, time.time(), name=name, details={"decision": decision})
        self._cells.write([note], lease=lease)
        return {
            "keep": f"the recorded result of {name!r} stays valid as the cell is now",
            "again": f"{name!r} runs once more when its cell is run",
            "succeeded": f"{name!r} counts as done; its cell is not run (no names were recorded)",
            "failed": f"{name!r} counts as failed; its cell raises until you decide --again",
        }[decision]


_ONLY_ASK = frozenset({EventKind.STARTED, EventKind.FAILED})
"""Events that keep a body from being run."""


def _marker(name: str, rounds: int, attempt: int) -> str:
    """The marker of one start. The first of the first round carries the bare name."""
    return name if rounds == 0 and attempt == 1 else f"{name}\0{rounds}.{attempt}"


def _last(events: Sequence[StoredEvent], kind: EventKind) -> StoredEvent | None:
    return next((stored for stored in reversed(events) if stored.event.kind is kind), None)


def _how_it_ended(stored: StoredEvent) -> str:
    event = stored.event
    if event.kind is EventKind.FAILED:
        return f"it failed at {_clock(event.at)} with {event.error}"
    if event.kind is EventKind.RETRY_SCHEDULED:
        return (
            f"attempt {event.attempt} failed at {_clock(event.at)} with {event.error}, and the next one was not started"
        )
    return f"it was started at {_clock(event.at)}, and nobody recorded its end"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


__all__ = ["DECISIONS", "DECISIONS_AFTER", "Decision", "OnceSteps", "StoreError", "Verdict"]
