"""The context of a running notebook cell.

The children of a cell are operations of the notebook's execution whose parent is the cell's operation. A cell is not
suspended: what waits, waits in the kernel, so that an interrupt ends it; retries happen in the process. What is
recorded survives a kill all the same, deadlines and attempts included.

A notebook's history can be long, so it is not loaded: operations are looked up one by one when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from durable_nb.abc import BlobStore, Journal, Lease, Markers
from durable_nb.events import Event, EventKind, OperationType, Status, StoredEvent
from durable_nb.exceptions import ExecutionFailedError, InvokeError
from durable_nb.sdk._driver import Driver
from durable_nb.sdk._errors import build, capture
from durable_nb.sdk._local import EngineClock, SystemClock
from durable_nb.sdk._machine import OperationState, advance
from durable_nb.sdk._once import starts_of
from durable_nb.sdk.context import DurableContext, ExecutionContext
from durable_nb.sdk.execution import event_text
from durable_nb.sdk.lambda_service import OperationSubType
from durable_nb.sdk.operation._frame import raise_failure
from durable_nb.sdk.operation.invoke import FUNCTION
from durable_nb.sdk.pickle_serdes import PickleSerDes
from durable_nb.sdk.serdes import SerDes
from durable_nb.sdk.state import ExecutionState, JournalRecorder, Modes, News, Progress, ReplayStatus, Waiting

if TYPE_CHECKING:
    from durable_nb.sdk.execution import DurableHandler


class _Operations(dict[str, OperationState]):
    """Operations by id, read from the journal when they are first asked for."""

    def __init__(self, journal: Journal, execution_id: str) -> None:
        super().__init__()
        self._journal = journal
        self._execution_id = execution_id
        self._absent: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key)
        if found is not None or key in self._absent:
            return default if found is None else found
        state = self.read(key)
        if state is None:
            self._absent.add(key)
            return default
        return self.setdefault(key, state)

    def read(self, key: str) -> OperationState | None:
        """The operation as it is in the journal now."""
        state: OperationState | None = None
        for stored in self._journal.read_operation(self._execution_id, key):
            if state is not None or stored.event.kind is not EventKind.NOTE:
                state = advance(state, stored.event, trusted=stored.trusted)
        return state


class _CellRecorder(JournalRecorder):
    """Looks for news only where the outside can have written: at the open callbacks of this cell."""

    operations: _Operations

    def history(self) -> list[StoredEvent]:
        return []

    def write(self, events: Sequence[Event], *, durable: bool, refs: Any) -> News:
        self.journal.append(self.execution_id, events, lease=self.lease, durable=durable, payload_refs=refs)
        return News()

    def news(self) -> News:
        states: dict[str, OperationState] = {}
        for key, state in list(self.operations.items()):
            if state.operation_type is OperationType.CALLBACK and not state.status.is_terminal:
                fresh = self.operations.read(key)
                if fresh is not None and (fresh.status is not state.status or fresh.due != state.due):
                    states[key] = fresh
        return News(states=states)


class CellContext(DurableContext):
    """`durable_nb.context`: durable operations inside a cell."""

    @classmethod
    def for_cell(
        cls,
        journal: Journal,
        execution_id: str,
        lease: Lease | None,
        parent_id: str,
        *,
        blobs: BlobStore | None = None,
        markers: Markers | None = None,
        serdes: SerDes[Any] | None = None,
        clock: EngineClock | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_wait: Callable[[Waiting], None] | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> CellContext:
        """The context of a cell that is about to run.

        Args:
            journal: of the notebook's execution.
            execution_id: the notebook's execution.
            lease: that the notebook holds.
            parent_id: the cell's operation id, made of its identity, ordinal and fingerprint.
            blobs: where large results go.
            markers: where at-most-once steps leave proof of their start outside the journal.
            serdes: instead of cloudpickle.
            clock: instead of the machine's.
            on_progress: told how far batches are, in the thread of the batch.
            on_event: told of every event of the cell's operations, in the thread that records it.
            on_wait: told of operations that wait, in the thread that waits.
            interrupted: asked while waiting; True ends the wait with `KeyboardInterrupt`.
        """
        modes = Modes(
            blocks=True,
            serdes=serdes or PickleSerDes(blobs),
            payload_limit=None,
            on_progress=on_progress,
            on_event=on_event,
            on_wait=on_wait,
        )
        if interrupted is not None:
            modes.interrupted = interrupted
        recorder = _CellRecorder(journal, execution_id, lease)
        state = ExecutionState(execution_id, recorder, clock=clock or SystemClock(), modes=modes)
        record = None if markers is None else journal.get(execution_id)
        if markers is not None and record is not None:
            state.starts = starts_of(markers, journal, record)
        operations = _Operations(journal, execution_id)
        state.operations = operations
        recorder.operations = operations
        context = cls(state, ExecutionContext(execution_id), None, parent_id)
        if operations.get(context._peek_next_operation_id()) is not None:
            context._replay_status = ReplayStatus.REPLAY
        return context

    def close(self) -> None:
        """The cell has ended: write what was deferred, end the branches that are left, refuse further operations."""
        self._scope.close()
        self.state.pool.shutdown()
        self.state.flush()
        self.state.close()

    def retry_now(self, operation_id: str) -> None:
        """End the delay before the next attempt, or a wait, of one of the cell's operations."""
        self.state.retry_now.add(operation_id)
        self.state.bell.ring()

    def run_handler(self, handler: DurableHandler[Any, Any], event: Any, name: str | None) -> Any:
        """Run a durable handler as an operation of this cell; its execution is nested in the notebook's."""
        label = name or handler.func.__name__
        sub_type = OperationSubType.CHAINED_INVOKE
        with self._operation("handler", OperationType.CHAINED_INVOKE, sub_type, label) as frame:
            recorded = frame.recorded()
            if recorded is not None and recorded.status is Status.SUCCEEDED:
                return frame.result(frame.serdes(None), recorded)
            if recorded is not None and recorded.status.is_terminal:
                raise_failure(InvokeError, recorded)
            if recorded is None:
                details = {FUNCTION: handler.name}
                frame.record(frame.event(EventKind.STARTED, details=details))
            journal = _journal_of(self.state)
            starts = self.state.starts
            driver = Driver(
                journal,
                self.state.clock,
                on_progress=self.state.modes.on_progress,
                markers=None if starts is None else starts.markers,
            )
            parent = journal.get(self.execution_context.durable_execution_arn)
            where = parent.name if parent is not None else self.execution_context.durable_execution_arn
            chosen = name or f"{where}/{label}-{frame.identifier.operation_id[:12]}"
            child = driver.create(chosen, handler.name, event_text(event))
            try:
                value = handler.value_of(driver.drive(child, handler))
            except ExecutionFailedError as error:
                failure = capture(error)
                frame.fail(failure)
                raise build(InvokeError, failure)  # noqa: B904 - built with its cause
            encoded, value = frame.encode(frame.serdes(None), value)
            frame.succeed(encoded)
            return value


def _journal_of(state: ExecutionState) -> Journal:
    recorder = state.recorder
    assert isinstance(recorder, JournalRecorder)
    return recorder.journal


__all__ = ["CellContext"]
