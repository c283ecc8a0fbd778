"""What every journal must do, as test classes: subclass one, give it a `journal` fixture, and pytest does the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from durable_nb.abc import Journal
from durable_nb.events import CELL, ErrorInfo, Event, EventKind, OperationType, Status
from durable_nb.exceptions import JournalConflictError, LeaseHeldError, LeaseLostError, StoreError

__all__ = ["JournalTests", "event"]


def event(operation: str = "op", kind: EventKind = EventKind.SUCCEEDED, *, payload: bytes | None = None) -> Event:
    """An event for tests."""
    return Event(operation_id=operation, kind=kind, type=OperationType.STEP, at=12.5, payload=payload)


class JournalTests:
    """The promises of `durable_nb.abc.Journal`. A subclass provides the `journal` fixture."""

    @pytest.fixture
    def execution(self, journal: Journal) -> str:
        """An execution to write to."""
        return journal.create("orders", kind="handler", at=1.0, details={"handler": "shop:order"}).execution_id

    def test_an_execution_is_found_again_by_its_name(self, journal: Journal) -> None:
        made = journal.create("a", kind="handler", at=1.0, details={"x": [1, "ä"]})
        again = journal.create("a", kind="notebook", at=2.0, details={})
        assert again == made == journal.find("a") == journal.get(made.execution_id)
        assert made.details == {"x": [1, "ä"]}
        assert journal.find("b") is None
        assert journal.get("b") is None

    def test_executions_come_oldest_first(self, journal: Journal) -> None:
        for name, at in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
            journal.create(name, kind="handler", at=at, details={})
        assert [record.name for record in journal.executions()] == ["early", "middle", "late"]

    def test_events_come_back_whole_and_in_order(self, journal: Journal, execution: str) -> None:
        full = Event(
            operation_id="op",
            kind=EventKind.RETRY_SCHEDULED,
            type=OperationType.CONTEXT,
            at=99.25,
            sub_type="Cell",
            name="load; DROP TABLE events",
            parent_id="parent",
            attempt=3,
            payload=b"\0\xff",
            error=ErrorInfo(type="ValueError", message="bad\nvalue", traceback=("line 1\n",), data="{}"),
            due=100.5,
            details={"seconds": 1.5, "label": "größe"},
        )
        assert journal.append(execution, [full]) == 1
        assert journal.append(execution, [event("a"), event("b")]) == 3
        stored = list(journal.read(execution))
        assert [each.sequence for each in stored] == [1, 2, 3]
        assert stored[0].event == full
        assert all(each.trusted for each in stored)
        assert [each.event.operation_id for each in journal.read(execution, after=1)] == ["a", "b"]

    def test_an_operation_is_found_in_its_execution(self, journal: Journal, execution: str) -> None:
        other = journal.create("other", kind="handler", at=2.0, details={}).execution_id
        alike = "0123456789abcdef" * 2
        journal.append(execution, [event("x"), event("y"), event("x"), event(alike), event(alike + "0")])
        journal.append(other, [event("x")])
        assert [each.sequence for each in journal.read_operation(execution, "x")] == [1, 3]
        assert [each.sequence for each in journal.read_operation(execution, alike)] == [4]
        assert journal.read_operation(execution, "z") == []

    def test_a_cell_is_found_in_all_executions(self, journal: Journal, execution: str) -> None:
        other = journal.create("other", kind="notebook", at=2.0, details={}).execution_id
        cell = replace(event("x"), type=OperationType.CONTEXT, sub_type=CELL)
        journal.append(execution, [cell, event("y"), cell])
        journal.append(other, [event("y"), cell, event("x")])
        found = [(each.execution_id, each.sequence) for each in journal.find_cell("x")]
        assert found == sorted([(execution, 1), (execution, 3), (other, 2)])
        assert journal.find_cell("y") == [], "a step"

    def test_writing_to_an_unknown_execution_is_refused(self, journal: Journal) -> None:
        with pytest.raises(StoreError):
            journal.append("nowhere", [event()])

    def test_a_writer_that_has_not_seen_the_last_event_is_refused_and_writes_nothing(
        self, journal: Journal, execution: str
    ) -> None:
        journal.append(execution, [event()], after=0)
        with pytest.raises(JournalConflictError):
            journal.append(execution, [event()], after=0)
        assert len(list(journal.read(execution))) == 1

    def test_status_and_due_change_with_the_events(self, journal: Journal, execution: str) -> None:
        journal.append(execution, [event()], due=50.0)
        assert [record.execution_id for record in journal.due(50.0)] == [execution]
        assert journal.due(49.9) == []
        journal.append(execution, [event()], status=Status.SUCCEEDED)
        assert journal.due(60.0) == []
        found = journal.get(execution)
        assert found is not None
        assert (found.status, found.due) == (Status.SUCCEEDED, 50.0)
        journal.update(execution, status=Status.STARTED, due=None, name="renamed", details={"n": 1})
        found = journal.find("renamed")
        assert found is not None
        assert (found.status, found.due, found.details) == (Status.STARTED, None, {"n": 1})

    def test_a_name_that_is_taken_cannot_be_given(self, journal: Journal, execution: str) -> None:
        journal.create("taken", kind="handler", at=2.0, details={})
        with pytest.raises(StoreError):
            journal.update(execution, name="taken")

    def test_a_lease_has_one_holder_and_its_token_grows(self, journal: Journal, execution: str) -> None:
        first = journal.acquire(execution, ttl=60)
        with pytest.raises(LeaseHeldError):
            journal.acquire(execution, ttl=60)
        journal.renew(first, ttl=60)
        journal.release(first)
        second = journal.acquire(execution, ttl=60)
        assert second.token > first.token
        with pytest.raises(LeaseLostError):
            journal.append(execution, [event()], lease=first)
        with pytest.raises(LeaseLostError):
            journal.renew(first, ttl=60)
        journal.append(execution, [event()], lease=second)
        assert len(list(journal.read(execution))) == 1

    def test_what_is_due_is_claimed_once_and_earliest_first(self, journal: Journal) -> None:
        for name, kind, due in (
            ("late", "handler", 30.0),
            ("early", "handler", 10.0),
            ("middle", "handler", 20.0),
            ("book", "notebook", 1.0),
            ("future", "handler", 99.0),
            ("left", "handler", 5.0),
        ):
            record = journal.create(name, kind=kind, at=1.0, details={})
            journal.update(record.execution_id, due=due)
        over = journal.create("over", kind="handler", at=1.0, details={})
        journal.update(over.execution_id, due=1.0, status=Status.SUCCEEDED)
        left = journal.find("left")
        assert left is not None
        options = {"kind": "handler", "ttl": 60.0, "without": [left.execution_id]}
        first = journal.claim(50.0, limit=2, **options)  # type: ignore[arg-type]
        assert [claimed.record.name for claimed in first] == ["early", "middle"]
        assert [claimed.record.name for claimed in journal.claim(50.0, limit=9, **options)] == ["late"]  # type: ignore[arg-type]
        assert journal.claim(50.0, limit=9, **options) == []  # type: ignore[arg-type]
        journal.append(first[0].record.execution_id, [event()], lease=first[0].lease)
        with pytest.raises(LeaseHeldError):
            journal.acquire(first[0].record.execution_id, ttl=60)
        journal.release(first[0].lease)
        assert [claimed.record.name for claimed in journal.claim(50.0, limit=9, **options)] == ["early"]  # type: ignore[arg-type]

    def test_a_wait_for_work_ends_when_it_is_told_to(self, journal: Journal) -> None:
        stop = threading.Event()
        stop.set()
        journal.await_due(stop, 600.0)
        journal.await_due(stop, 600.0)
        stop.clear()
        journal.await_due(stop, 0.01)

    def test_forgetting_an_operation_leaves_the_others_and_their_numbers(
        self, journal: Journal, execution: str
    ) -> None:
        journal.append(execution, [event("a"), event("b"), event("a")])
        assert journal.forget(execution, "a") == 2
        assert journal.append(execution, [event("c")]) == 4
        assert [each.event.operation_id for each in journal.read(execution)] == ["b", "c"]
        assert journal.forget(execution) == 2
        assert journal.get(execution) is None

    def test_blobs_are_named_as_long_as_an_event_names_them(self, journal: Journal, execution: str) -> None:
        journal.append(execution, [event("a")], payload_refs=["11", "22"])
        journal.append(execution, [event("b")], payload_refs=["22"])
        assert journal.blob_refs() == {"11", "22"}
        journal.forget(execution, "a")
        assert journal.blob_refs() == {"22"}

    def test_single_events_can_be_removed_and_their_numbers_stay_taken(self, journal: Journal, execution: str) -> None:
        journal.append(execution, [event("a")], payload_refs=["11"])
        journal.append(execution, [event("b"), event("c")])
        assert journal.prune(execution, [1, 3, 99]) == 2
        assert [each.event.operation_id for each in journal.read(execution)] == ["b"]
        assert journal.blob_refs() == set()
        assert journal.append(execution, [event("d")]) == 4

    def test_concurrent_writers_lose_and_double_nothing(self, journal: Journal, execution: str) -> None:
        def write(number: int) -> None:
            for count in range(20):
                journal.append(execution, [event(f"{number}.{count}")])

        _together([lambda number=number: write(number) for number in range(8)])  # type: ignore[misc]
        stored = list(journal.read(execution))
        assert [each.sequence for each in stored] == list(range(1, 161))
        assert len({each.event.operation_id for each in stored}) == 160


def _together(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
