"""What every step makes is made by a short way: it is the same as by the long one."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
from typing import Any

import pytest

from durable_nb.events import ErrorInfo, Event, EventKind, OperationType, Status
from durable_nb.exceptions import NonDeterministicExecutionError
from durable_nb.sdk._machine import OperationState, advance
from durable_nb.sdk.identifier import OperationIdentifier, identified
from durable_nb.sdk.types import StepContext, step_context


@pytest.mark.parametrize(
    ("kind", "status", "ended"),
    [
        (EventKind.SUCCEEDED, Status.SUCCEEDED, 5.0),
        (EventKind.STARTED, Status.STARTED, None),
        (EventKind.RETRY_SCHEDULED, Status.PENDING, None),
    ],
)
def test_the_first_event_fills_in_every_field(kind: EventKind, status: Status, ended: float | None) -> None:
    error = ErrorInfo(type="ValueError", message="no")
    details = {"started": 2.0}
    event = Event(
        operation_id="a", kind=kind, type=OperationType.STEP, at=5.0, sub_type="Step", name="add", parent_id="b",
        attempt=2, payload=b"5", error=error, due=7.0, details=details,
    )  # fmt: skip
    assert advance(None, event, trusted=False) == OperationState(
        "a", OperationType.STEP, "Step", "add", "b", status, 2, 2.0, ended, b"5", error, 7.0, details, False
    )


def _same(short: Any, long: Any, field: str) -> None:
    assert type(short) is type(long)
    assert short == long
    assert repr(short) == repr(long)
    assert hash(short) == hash(long)
    assert copy.deepcopy(short) == long
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(short, field, "x")


def test_an_identifier_is_one() -> None:
    short = identified("a", "Step", "b", "add", OperationType.STEP)
    _same(short, OperationIdentifier("a", "Step", "b", "add", operation_type=OperationType.STEP), "name")
    assert pickle.loads(pickle.dumps(short)) == short


def test_the_context_of_a_step_is_one() -> None:
    logger = logging.getLogger("test")
    _same(step_context(logger, 3), StepContext(logger, 3), "attempt")


@pytest.mark.parametrize("changed", ["operation_type", "sub_type", "name", "parent_id"])
def test_each_part_of_an_identity_is_compared(changed: str) -> None:
    recorded = advance(None, Event(operation_id="a", kind=EventKind.SUCCEEDED, type=OperationType.STEP, at=1.0))
    identified("a", None, None, None, OperationType.STEP).validate_checkpoint(recorded)
    setattr(recorded, changed, OperationType.WAIT if changed == "operation_type" else "other")
    with pytest.raises(NonDeterministicExecutionError):
        identified("a", None, None, None, OperationType.STEP).validate_checkpoint(recorded)
