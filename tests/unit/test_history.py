"""The read model says what the events say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from durable_nb.events import CELL, ErrorInfo, Event, EventKind, OperationType, Status, StoredEvent
from durable_nb.history import History, fold
from durable_nb.journal import MemoryJournal


def event(kind: EventKind, at: float, *, op: str = "op", cell: bool = True, **fields: Any) -> Event:
    sort = {"type": OperationType.CONTEXT, "sub_type": CELL} if cell else {"type": OperationType.STEP}
    return Event(operation_id=op, kind=kind, at=at, **{**sort, **fields})


def stored(*events: Event) -> list[StoredEvent]:
    return [StoredEvent(execution_id="e", sequence=n, event=each) for n, each in enumerate(events, start=1)]


def journal_of(
    events: Sequence[Event], *, name: str = "a.ipynb", kind: str = "notebook", **details: Any
) -> MemoryJournal:
    journal = MemoryJournal()
    record = journal.create(name, kind=kind, at=1.0, details=details)
    journal.append(record.execution_id, events)
    return journal


def test_a_retried_cell_keeps_its_failed_attempt() -> None:
    error = ErrorInfo(type="builtins.OSError", message="no")
    (op,) = fold(
        stored(
            event(EventKind.STARTED, 10.0, details={"source": "# why\nx = 1\ny = 2", "ordinal": 0}),
            event(EventKind.RETRY_SCHEDULED, 11.0, error=error, due=16.0),
            event(EventKind.STARTED, 16.0, attempt=2),
            event(EventKind.SUCCEEDED, 18.5, attempt=2, payload=b"12345", details={"reason": "first run"}),
        )
    )
    assert op.status is Status.SUCCEEDED
    assert [(a.number, a.status, a.seconds) for a in op.attempts] == [
        (1, Status.FAILED, 1.0),
        (2, Status.SUCCEEDED, 2.5),
    ]
    assert op.attempts[0].next_at == 16.0
    assert op.error == error
    assert (op.label, op.nbytes, op.seconds, op.reason, op.due) == ("x = 1", 5, 2.5, "first run", None)


def test_an_older_run_that_was_copied_in_later_is_an_attempt_and_not_the_present_state() -> None:
    (op,) = fold(
        stored(
            event(EventKind.STARTED, 20.0),
            event(EventKind.FAILED, 21.0, error=ErrorInfo(type="ValueError", message="no")),
            event(EventKind.SUCCEEDED, 10.0, details={"seconds": 1.0, "reason": "there"}),
        )
    )
    assert (op.status, op.last_sequence, op.reason) == (Status.FAILED, 2, "")
    assert [(a.started_at, a.status) for a in op.attempts] == [(9.0, Status.SUCCEEDED), (20.0, Status.FAILED)]


def test_of_two_versions_of_a_cell_the_later_one_by_the_clock_is_current_wherever_it_stands() -> None:
    facts = {"name": "load", "details": {"ordinal": 0}}
    ops = fold(
        stored(event(EventKind.SUCCEEDED, 9.0, op="new", **facts), event(EventKind.SUCCEEDED, 5.0, op="old", **facts))
    )
    assert {op.operation_id: op.superseded for op in ops} == {"new": False, "old": True}


def test_a_scheduled_retry_is_pending_until_it_starts() -> None:
    (op,) = fold(stored(event(EventKind.STARTED, 1.0), event(EventKind.RETRY_SCHEDULED, 2.0, due=9.0)))
    assert (op.status, op.due) == (Status.PENDING, 9.0)


def test_an_end_without_a_start_is_an_attempt_of_the_recorded_length() -> None:
    (op,) = fold(stored(event(EventKind.SUCCEEDED, 10.0, details={"seconds": 4.0, "bytes": 7})))
    assert (op.started_at, op.ended_at, op.nbytes) == (6.0, 10.0, 7)


def test_notes_and_heartbeats_change_no_state() -> None:
    events = [
        event(EventKind.STARTED, 1.0),
        event(EventKind.HEARTBEAT, 2.0),
        event(EventKind.NOTE, 3.0, details={"decision": "keep"}),
    ]
    (op,) = fold(stored(*events))
    assert op.status is Status.STARTED
    assert [dict(note.details) for note in op.notes] == [{"decision": "keep"}]


ONCE = {"at_most_once": True}


@pytest.mark.parametrize(
    ("kinds", "details", "needed"),
    [
        ([EventKind.STARTED], ONCE, True),
        ([EventKind.STARTED], {}, False),
        ([EventKind.STARTED, EventKind.SUCCEEDED], ONCE, False),
        ([EventKind.STARTED, EventKind.FAILED], ONCE, True),
        ([EventKind.STARTED, EventKind.RETRY_SCHEDULED], ONCE, False),
        ([EventKind.STARTED, EventKind.NOTE], ONCE, False),
        ([EventKind.STARTED, EventKind.NOTE, EventKind.STARTED], ONCE, True),
    ],
)
def test_a_decision_is_needed_where_an_at_most_once_body_has_no_known_good_end(
    kinds: list[EventKind], details: dict[str, Any], needed: bool
) -> None:
    decided = {"decision": "again"}
    events = [event(k, float(n), details=decided if k is EventKind.NOTE else details) for n, k in enumerate(kinds)]
    assert fold(stored(*events))[0].needs_decision is needed


def test_an_older_record_of_the_same_cell_is_superseded() -> None:
    same = {"source": "x = f(a)", "ordinal": 0}
    twin = {"source": "x = f(a)", "ordinal": 1}
    journal = journal_of(
        [
            event(EventKind.SUCCEEDED, 1.0, op="old", details=same),
            event(EventKind.SUCCEEDED, 2.0, op="twin", details=twin),
            event(EventKind.SUCCEEDED, 3.0, op="new", details=same),
        ]
    )
    (view,) = History(journal).executions()
    assert [op.operation_id for op in view.cells] == ["twin", "new"]
    assert view.count(Status.SUCCEEDED) == 2
    assert view.last_at == 3.0


def test_a_record_that_is_used_again_is_current_again() -> None:
    """An edit that was taken back: the replay is noted, and the first record is the cell's again."""
    same = {"source": "x", "ordinal": 0}
    ops = fold(
        stored(
            event(EventKind.SUCCEEDED, 1.0, op="first", details=same),
            event(EventKind.SUCCEEDED, 2.0, op="second", details=same),
            event(EventKind.NOTE, 3.0, op="first"),
        )
    )
    assert {op.operation_id: op.superseded for op in ops} == {"first": False, "second": True}


@pytest.mark.parametrize(
    ("which", "found"), [("pay", ["a"]), ("2", ["b"]), ("load", ["b"]), ("b", ["b"]), ("9", []), ("nothing", [])]
)
def test_cells_are_selected_by_name_number_label_or_id(which: str, found: list[str]) -> None:
    journal = journal_of(
        [
            event(EventKind.SUCCEEDED, 1.0, op="a", name="pay", details={"source": "pay()", "ordinal": 0}),
            event(EventKind.SUCCEEDED, 2.0, op="b", details={"source": "load()", "ordinal": 0}),
        ]
    )
    history = History(journal)
    (view,) = history.executions()
    assert [op.operation_id for op in history.select(view, which)] == found


def test_an_execution_is_found_by_name_or_by_the_start_of_its_id() -> None:
    history = History(journal_of([]))
    (view,) = history.executions()
    assert history.find("a.ipynb") == view
    assert history.find(view.record.execution_id[:8]) == view
    assert history.find("b") is None or view.record.execution_id.startswith("b")
    assert history.find("") is None


def test_forgetting_a_cell_takes_the_steps_under_it() -> None:
    journal = journal_of(
        [
            event(EventKind.SUCCEEDED, 1.0, op="cell", details={"source": "x", "ordinal": 0}),
            event(EventKind.SUCCEEDED, 1.0, op="step", cell=False, parent_id="cell"),
            event(EventKind.SUCCEEDED, 1.0, op="inner", cell=False, parent_id="step"),
            event(EventKind.SUCCEEDED, 2.0, op="other", details={"source": "y", "ordinal": 0}),
        ]
    )
    history = History(journal)
    (view,) = history.executions()
    assert history.forget(view, history.select(view, "1")) == 3
    (after,) = history.executions()
    assert [op.operation_id for op in after.operations] == ["other"]
    assert history.forget(after) == 1
    assert history.executions() == []
