"""Completing callbacks from outside, in whatever process.

The id of a callback names its execution and its operation. Completion is a compare-and-append on the journal: it is
refused when the callback has ended, so exactly one of several senders (and the time-out) wins, and each knows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from durable_nb.abc import Journal
from durable_nb.events import Event, EventKind, OperationType, Status
from durable_nb.exceptions import InvalidStateError, JournalConflictError, ValidationError
from durable_nb.sdk._errors import Failure
from durable_nb.sdk._local import EngineClock, SystemClock, bell_of
from durable_nb.sdk._machine import OperationState, advance
from durable_nb.sdk.lambda_service import CallbackTimeoutType, ErrorObject

if TYPE_CHECKING:
    from durable_nb.sdk.state import ExecutionState

_SEPARATOR = "."


def new_callback_id(state: ExecutionState, operation_id: str) -> str:
    """The id of a callback, unique in the store."""
    return f"{state.callback_scope}{_SEPARATOR}{operation_id}"


def parse_callback_id(callback_id: str) -> tuple[str, str]:
    """Execution id and operation id."""
    execution_id, separator, operation_id = callback_id.rpartition(_SEPARATOR)
    if not separator or not execution_id or not operation_id:
        raise ValidationError(f"{callback_id!r} is no callback id of this store")
    return execution_id, operation_id


def deadline_of(recorded: OperationState) -> float | None:
    """When the callback times out, by the real clock; None when nothing limits it."""
    return recorded.due


def expire(state: ExecutionState, recorded: OperationState) -> None:
    """Record that a limit passed, unless the outside was faster."""
    from durable_nb.sdk.state import JournalRecorder

    recorder = state.recorder
    if not isinstance(recorder, JournalRecorder):
        return  # a service keeps its own time
    timeout_at = recorded.details.get("timeout_at")
    whole = timeout_at is not None and recorded.due is not None and recorded.due >= timeout_at
    kind = CallbackTimeoutType.TIMEOUT if whole else CallbackTimeoutType.HEARTBEAT
    message = "Callback timed out" if whole else "Callback timed out on heartbeat"
    error = ErrorObject(message=message, type=kind.value, data=None, stack_trace=None)
    sender = CallbackSender(recorder.journal, state.clock)
    # It may have been completed in this moment; the caller looks at the history again.
    with contextlib.suppress(InvalidStateError):
        sender.end(recorder.execution_id, recorded.operation_id, EventKind.TIMED_OUT, failure=Failure(error))
    state.refresh()


@dataclass(frozen=True, slots=True)
class CallbackSender:
    """Completes callbacks in a journal."""

    journal: Journal
    clock: EngineClock

    def success(self, callback_id: str, result: bytes | str | None = None) -> None:
        """Give the callback its result."""
        payload = result.encode("utf-8") if isinstance(result, str) else result
        self.end(*parse_callback_id(callback_id), EventKind.SUCCEEDED, payload=payload)

    def failure(self, callback_id: str, error: ErrorObject | None = None) -> None:
        """Let the callback fail."""
        wire = error or ErrorObject(message=None, type=None, data=None, stack_trace=None)
        self.end(*parse_callback_id(callback_id), EventKind.FAILED, failure=Failure(wire))

    def heartbeat(self, callback_id: str) -> None:
        """Say that the work goes on: the heartbeat limit starts again."""
        execution_id, operation_id = parse_callback_id(callback_id)

        def beat(current: OperationState) -> Event:
            every = current.details.get("heartbeat")
            limits = [current.details["timeout_at"]] if "timeout_at" in current.details else []
            if every:
                limits.append(self.clock.real() + every)
            return self._event(current, EventKind.HEARTBEAT, due=min(limits, default=None))

        self._append(execution_id, operation_id, beat, wakes=False)

    def end(
        self,
        execution_id: str,
        operation_id: str,
        kind: EventKind,
        *,
        payload: bytes | None = None,
        failure: Failure | None = None,
    ) -> None:
        """Append an end; `InvalidStateError` when there is one already."""

        def ended(current: OperationState) -> Event:
            return self._event(current, kind, payload=payload, failure=failure)

        self._append(execution_id, operation_id, ended, wakes=True)

    def _event(
        self,
        current: OperationState,
        kind: EventKind,
        *,
        payload: bytes | None = None,
        failure: Failure | None = None,
        due: float | None = None,
    ) -> Event:
        return Event(
            operation_id=current.operation_id,
            kind=kind,
            type=current.operation_type,
            at=self.clock.now(),
            sub_type=current.sub_type,
            name=current.name,
            parent_id=current.parent_id,
            payload=payload,
            error=failure.info() if failure else None,
            due=due,
            details=failure.details() if failure else {},
        )

    def _append(
        self, execution_id: str, operation_id: str, make: Callable[[OperationState], Event], *, wakes: bool
    ) -> None:
        while True:
            last = self.journal.append(execution_id, [], durable=False) if self.journal.get(execution_id) else 0
            current: OperationState | None = None
            for stored in self.journal.read_operation(execution_id, operation_id):
                current = advance(current, stored.event, trusted=stored.trusted)
            if current is None or current.operation_type not in _COMPLETABLE:
                raise ValidationError(f"there is no callback {execution_id}{_SEPARATOR}{operation_id} in this store")
            if current.status.is_terminal:
                raise InvalidStateError(f"the callback has ended already: {Status(current.status).value}")
            event = make(current)
            try:
                if wakes:
                    self.journal.append(execution_id, [event], after=last, due=self.clock.now())
                else:
                    self.journal.append(execution_id, [event], after=last)
            except JournalConflictError:
                continue  # something else was recorded in between: look again
            bell_of(execution_id).ring()
            return


_COMPLETABLE = (OperationType.CALLBACK, OperationType.CHAINED_INVOKE)


def sender_for(journal: Journal, clock: EngineClock | None = None) -> CallbackSender:
    """A sender on a journal, by the machine's time unless told otherwise."""
    return CallbackSender(journal, clock or SystemClock())
