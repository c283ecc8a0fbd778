"""One invocation against a checkpoint service: the same engine, with the service in the place of the journal.

The service keeps time (it ends waits, makes retries ready, names callbacks) and wants every attempt announced.
Updates of concurrent branches travel together: whoever holds the lock sends all that is queued.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from durable_nb.events import Event, EventKind, OperationType, Status
from durable_nb.exceptions import CheckpointError, GetExecutionStateError
from durable_nb.sdk._errors import Failure
from durable_nb.sdk._invocation import invoke_handler, parse_event
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk._wire import action_of
from durable_nb.sdk.constants import CHECKPOINT_SIZE_LIMIT_BYTES
from durable_nb.sdk.lambda_service import (
    CallbackOptions,
    ChainedInvokeOptions,
    ContextOptions,
    DurableExecutionInvocationOutput,
    DurableServiceClient,
    ErrorObject,
    Operation,
    OperationUpdate,
    StepOptions,
    WaitOptions,
    sub_type_of,
)
from durable_nb.sdk.operation.child import REPLAY_CHILDREN
from durable_nb.sdk.operation.invoke import FUNCTION, TENANT
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES
from durable_nb.sdk.state import ExecutionState, Modes, News, Recorder

if TYPE_CHECKING:
    from durable_nb.sdk.execution import DurableExecutionInvocationInput, DurableHandler
    from durable_nb.sdk.types import LambdaContext


class _Request:
    """Updates on their way."""

    __slots__ = ("done", "error", "order", "states", "updates")

    def __init__(self, updates: list[OperationUpdate]) -> None:
        self.updates = updates
        self.states: dict[str, OperationState] = {}
        self.error: Exception | None = None
        self.order = 0
        self.done = False


class ServiceRecorder(Recorder):
    """Records with a service."""

    completes_waits = False
    elides_starts = False

    def __init__(self, client: DurableServiceClient, arn: str, token: str) -> None:
        self._client = client
        self._arn = arn
        self._token = token
        self._lock = threading.Lock()
        self._queue: list[_Request] = []
        self._queue_lock = threading.Lock()
        self._sent = 0

    def write(self, events: Sequence[Event], *, durable: bool, refs: Iterable[str]) -> News:  # noqa: ARG002
        updates = [update for event in events if (update := update_of(event)) is not None]
        return self.send(updates)

    def news(self) -> News:
        return self.send([])  # an empty checkpoint is answered with what has changed

    def send(self, updates: list[OperationUpdate]) -> News:
        """Send updates; returns the states that the service answered with."""
        request = _Request(updates)
        with self._queue_lock:
            self._queue.append(request)
        with self._lock:
            if not request.done:
                self._send_queued()
        if request.error is not None:
            raise request.error
        return News(states=request.states, order=request.order)

    def _send_queued(self) -> None:
        with self._queue_lock:
            batch, self._queue = self._queue, []
        updates = [update for request in batch for update in request.updates]
        self._sent += 1
        error: Exception | None = None
        states: dict[str, OperationState] = {}
        try:
            answer = self._client.checkpoint(self._arn, self._token, updates, uuid.uuid4().hex)
            self._token = answer.checkpoint_token
            states = {one.operation_id: state_of(one) for one in answer.new_execution_state.operations}
        except CheckpointError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - whatever a client raises, every waiter must learn of it
            error = CheckpointError.from_exception(raised)
            error.__cause__ = raised
        for request in batch:
            request.error, request.states, request.order, request.done = error, states, self._sent, True


def update_of(event: Event) -> OperationUpdate | None:
    """What to ask of a service for an event; None when it is none of its concern."""
    action = action_of(event)
    if action is None or (event.type is OperationType.WAIT and event.kind is not EventKind.STARTED):
        return None
    details = event.details
    options: dict[str, Any] = {}
    if event.kind is EventKind.RETRY_SCHEDULED:
        options["step_options"] = StepOptions(int(details["delay"]))
    elif details.get(REPLAY_CHILDREN):
        options["context_options"] = ContextOptions(replay_children=True)
    elif event.type is OperationType.WAIT:
        options["wait_options"] = WaitOptions(int(details["seconds"]))
    elif event.type is OperationType.CALLBACK:
        options["callback_options"] = CallbackOptions(int(details.get("timeout", 0)), int(details.get("heartbeat", 0)))
    elif event.type is OperationType.CHAINED_INVOKE:
        options["chained_invoke_options"] = ChainedInvokeOptions(details[FUNCTION], details.get(TENANT))
    error = Failure.from_event(event.error, details, trusted=True).error if event.error else None
    return OperationUpdate(
        event.operation_id,
        event.type,
        action,
        event.parent_id,
        event.name,
        sub_type_of(event.sub_type),
        None if event.payload is None else event.payload.decode("utf-8"),
        error,
        **options,
    )


def state_of(operation: Operation) -> OperationState:
    """The state that a service tells."""
    details = (
        operation.step_details
        or operation.context_details
        or operation.callback_details
        or operation.chained_invoke_details
    )
    result = details.result if details else None
    failure = Failure(details.error) if details is not None and details.error is not None else None
    facts: dict[str, Any] = dict(failure.details()) if failure else {}
    due = None
    if operation.context_details is not None and operation.context_details.replay_children:
        facts[REPLAY_CHILDREN] = True
    if operation.callback_details is not None:
        facts["callback_id"] = operation.callback_details.callback_id
    if operation.step_details is not None and operation.step_details.next_attempt_timestamp is not None:
        due = operation.step_details.next_attempt_timestamp.timestamp()
    if operation.wait_details is not None and operation.wait_details.scheduled_end_timestamp is not None:
        due = operation.wait_details.scheduled_end_timestamp.timestamp()
    started = operation.start_timestamp
    return OperationState(
        operation.operation_id,
        operation.operation_type,
        operation.sub_type,
        operation.name,
        operation.parent_id,
        operation.status,
        operation.step_details.attempt if operation.step_details else 1,
        started.timestamp() if started else 0.0,
        operation.end_timestamp.timestamp() if operation.end_timestamp else None,
        None if result is None else result.encode("utf-8"),
        failure.info() if failure else None,
        due,
        facts,
    )


def _history(invocation: DurableExecutionInvocationInput, client: DurableServiceClient) -> list[Operation]:
    first = invocation.initial_execution_state
    operations, marker = list(first.operations), first.next_marker
    while marker:
        try:
            page = client.get_execution_state(invocation.durable_execution_arn, invocation.checkpoint_token, marker)
        except GetExecutionStateError:
            raise
        except Exception as raised:
            raise GetExecutionStateError.from_exception(raised) from raised
        operations += page.operations
        marker = page.next_marker or ""
    return operations


def serve(
    handler: DurableHandler[Any, Any],
    invocation: DurableExecutionInvocationInput,
    client: DurableServiceClient,
    lambda_context: LambdaContext | None,
) -> DurableExecutionInvocationOutput:
    """Perform one invocation; returns how it ended.

    Raises:
        InvocationError: it is to be invoked again.
    """
    from durable_nb.sdk.execution import LAMBDA_RESPONSE_SIZE_LIMIT, handle_checkpoint_error

    recorder = ServiceRecorder(client, invocation.durable_execution_arn, invocation.checkpoint_token)
    modes = Modes(serdes=handler.serdes or EXTENDED_TYPES_SERDES, payload_limit=CHECKPOINT_SIZE_LIMIT_BYTES)
    modes.text_only = True
    state = ExecutionState(invocation.durable_execution_arn, recorder, modes=modes)
    started_at: float | None = None
    for operation in _history(invocation, client):
        if operation.operation_type is OperationType.EXECUTION:
            details = operation.execution_details
            state.input_payload = details.input_payload if details else None
            started_at = operation.start_timestamp.timestamp() if operation.start_timestamp else None
        else:
            state.operations[operation.operation_id] = state_of(operation)
    try:
        outcome = invoke_handler(
            handler.func,
            parse_event(state.input_payload),
            state,
            lambda_context=lambda_context,
            serdes=handler.serdes,
            plugins=handler.plugins,
            started_at=started_at,
        )
        state.flush_or_raise()
        if outcome.status is Status.RETRY and outcome.raised is not None:
            raise outcome.raised
        if outcome.status is Status.PENDING:
            return DurableExecutionInvocationOutput.create_pending()
        if outcome.status is Status.SUCCEEDED and outcome.encoded is not None:
            text = outcome.encoded.text or ""
            if len(text.encode("utf-8")) > LAMBDA_RESPONSE_SIZE_LIMIT:
                recorder.send([OperationUpdate.create_execution_succeed(text)])
                text = ""
            return DurableExecutionInvocationOutput.create_succeeded(text)
        error = outcome.failure.error if outcome.failure else ErrorObject.from_message("failed")
        return DurableExecutionInvocationOutput(Status.FAILED, error=error)
    except CheckpointError as failed:
        return handle_checkpoint_error(failed)
    finally:
        state.close()


__all__ = ["ServiceRecorder", "serve", "state_of", "update_of"]
