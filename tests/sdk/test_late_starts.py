"""A start that lands behind its own end changes nothing, for the engine and for people."""

from __future__ import annotations

from typing import Any

from durable_nb.events import Event, EventKind, OperationType, Status
from durable_nb.history import fold
from durable_nb.journal import MemoryJournal
from durable_nb.sdk import DurableContext, durable_execution
from durable_nb.sdk._driver import Driver
from durable_nb.sdk.identifier import OperationIdNamespace
from durable_nb.testing import VirtualClock


def test_a_late_start_does_not_reopen_an_operation() -> None:
    runs: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        value = context.run_in_child_context(lambda c: runs.append(1) or 7, name="child")
        return value + context.step(lambda _: 1)

    journal = MemoryJournal()
    driver = Driver(journal, VirtualClock())
    handle = handler.start_on(driver, name="late")
    child = OperationIdNamespace().create_id_for_step(1)
    common: dict[str, Any] = {"operation_id": child, "type": OperationType.CONTEXT, "sub_type": "RunInChildContext"}
    end = Event(**common, kind=EventKind.SUCCEEDED, at=2.0, name="child", payload=b"7")
    start = Event(**common, kind=EventKind.STARTED, at=1.0, name="child", details={"deferred": True})
    journal.append(handle.execution_id, [end, start])
    view = next(one for one in fold(journal.read(handle.execution_id)) if one.operation_id == child)
    assert view.status is Status.SUCCEEDED
    assert handle.result() == 8
    assert runs == []
