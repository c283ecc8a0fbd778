"""The thread that keeps leases and looks after executions whose code runs."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

import pytest

from durable_nb.abc import Journal, Lease
from durable_nb.sdk import _keeper
from durable_nb.sdk.state import ExecutionState
from durable_nb.testing.faults import SimulatedCrash

LIMIT = 60.0
LEASE = Lease(execution_id="x", token=1, owner="me")


class State:
    """What the keeper asks of an execution."""

    cancelled = None

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.flushed = threading.Semaphore(0)

    def refresh(self) -> bool:
        return False

    def flush(self) -> None:
        self.flushed.release()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None: ...


def looked_after(keeper: _keeper.Keeper, state: State) -> Any:
    return keeper.watching(cast("Journal", object()), LEASE, cast("ExecutionState", state))


@pytest.mark.parametrize("failure", [SimulatedCrash("died"), RuntimeError("unforeseen"), SystemExit(3)], ids=repr)
def test_what_one_execution_meets_does_not_end_the_care_of_the_others(
    failure: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_keeper, "_TICK_SECONDS", 0.01)
    keeper, bad, good = _keeper.Keeper(), State(failure), State()
    with caplog.at_level(logging.ERROR, "durable_nb"), looked_after(keeper, bad), looked_after(keeper, good):
        for _ in range(3):
            assert bad.flushed.acquire(timeout=LIMIT)
            assert good.flushed.acquire(timeout=LIMIT)
    assert "could not be looked after" in caplog.text
