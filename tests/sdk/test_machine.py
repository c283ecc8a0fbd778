"""The life of an operation: every pair of state and event is in the table, late or refused."""

from __future__ import annotations

import itertools

import pytest

from durable_nb.events import Event, EventKind, OperationType, Status
from durable_nb.exceptions import StoreError
from durable_nb.sdk._machine import NEXT, OperationState, advance


def event(kind: EventKind, *, type: OperationType = OperationType.STEP, attempt: int = 1, **more: object) -> Event:  # noqa: A002
    return Event(operation_id="op", kind=kind, type=type, at=5.0, attempt=attempt, **more)  # type: ignore[arg-type]


def state_of(status: Status, type: OperationType = OperationType.STEP, attempt: int = 1) -> OperationState:  # noqa: A002
    return OperationState("op", type, None, None, None, status, attempt, 0.0)


PAIRS = list(itertools.product([Status.STARTED, Status.PENDING, Status.READY, Status.SUCCEEDED], EventKind))


@pytest.mark.parametrize(("status", "kind"), PAIRS, ids=str)
def test_every_pair_has_an_answer(status: Status, kind: EventKind) -> None:
    before = state_of(status)
    if kind is EventKind.NOTE:
        assert advance(before, event(kind)).status is status
    elif (status, kind) in NEXT and not (kind is EventKind.STARTED and status is not Status.STARTED):
        assert advance(before, event(kind)).status is NEXT[status, kind]
    elif kind is EventKind.STARTED:
        assert advance(before, event(kind)).status is status, "a start of the same attempt is late"
    else:
        with pytest.raises(StoreError, match=f"{kind.value} cannot follow {status.value}"):
            advance(before, event(kind))


def test_the_next_attempt_s_start_counts() -> None:
    assert advance(state_of(Status.PENDING, attempt=1), event(EventKind.STARTED, attempt=2)).status is Status.STARTED


@pytest.mark.parametrize("type_", [OperationType.CALLBACK, OperationType.CHAINED_INVOKE])
def test_of_ends_from_outside_the_first_wins(type_: OperationType) -> None:
    state = advance(None, event(EventKind.STARTED, type=type_, details={"callback_id": "x"}))
    state = advance(state, event(EventKind.SUCCEEDED, type=type_, payload=b"first"))
    state = advance(state, event(EventKind.TIMED_OUT, type=type_))
    assert (state.status, state.payload) == (Status.SUCCEEDED, b"first")
    assert state.details == {"callback_id": "x"}


def test_a_result_may_follow_nothing_and_says_when_it_began() -> None:
    state = advance(None, event(EventKind.SUCCEEDED, payload=b"1", details={"started": 2.0}))
    assert (state.started_at, state.ended_at, state.status) == (2.0, 5.0, Status.SUCCEEDED)


def test_one_event_that_is_not_trusted_taints_the_operation() -> None:
    state = advance(None, event(EventKind.STARTED), trusted=False)
    assert not advance(state, event(EventKind.SUCCEEDED), trusted=True).trusted
