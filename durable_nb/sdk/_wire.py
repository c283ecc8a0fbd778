"""Operations of the journal in the form of the wire, and events as updates for a service."""

from __future__ import annotations

import datetime as dt

from durable_nb.events import Event, EventKind, OperationType
from durable_nb.sdk._codec import ENCODING
from durable_nb.sdk._errors import Failure
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk.lambda_service import (
    CallbackDetails,
    ChainedInvokeDetails,
    ContextDetails,
    ErrorObject,
    Operation,
    OperationAction,
    StepDetails,
    WaitDetails,
    sub_type_of,
)

_ACTIONS = {
    EventKind.STARTED: OperationAction.START,
    EventKind.SUCCEEDED: OperationAction.SUCCEED,
    EventKind.FAILED: OperationAction.FAIL,
    EventKind.RETRY_SCHEDULED: OperationAction.RETRY,
    EventKind.CANCELLED: OperationAction.CANCEL,
}


def moment(seconds: float | None) -> dt.datetime | None:
    """A moment in UTC."""
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def payload_text(state: OperationState) -> str | None:
    """The payload as text; None where it is bytes."""
    if state.payload is None or ENCODING in state.details:
        return None
    return state.payload.decode("utf-8")


def error_of(state: OperationState) -> ErrorObject | None:
    """The recorded error, which still knows how to rebuild itself."""
    if state.error is None:
        return None
    return Failure.from_event(state.error, state.details, trusted=state.trusted).to_error_object()


def operation_of(state: OperationState) -> Operation:
    """The wire form of an operation's state."""
    kind = state.operation_type
    terminal = state.status.is_terminal
    result, error = payload_text(state), error_of(state)
    details: dict[str, object] = {}
    if kind is OperationType.STEP:
        next_attempt = None if terminal else moment(state.due)
        details["step_details"] = StepDetails(state.attempt, next_attempt, result, error)
    elif kind is OperationType.CONTEXT:
        details["context_details"] = ContextDetails(bool(state.details.get("replay_children")), result, error)
    elif kind is OperationType.WAIT:
        details["wait_details"] = WaitDetails(moment(state.due or state.details.get("ends_at")))
    elif kind is OperationType.CALLBACK:
        details["callback_details"] = CallbackDetails(str(state.details.get("callback_id", "")), result, error)
    elif kind is OperationType.CHAINED_INVOKE:
        details["chained_invoke_details"] = ChainedInvokeDetails(result if terminal else None, error)
    return Operation(
        state.operation_id,
        kind,
        state.status,
        state.parent_id,
        state.name,
        moment(state.started_at),
        moment(state.ended_at),
        sub_type_of(state.sub_type),
        **details,  # type: ignore[arg-type]
    )


def action_of(event: Event) -> OperationAction | None:
    """What a service is asked to do for an event; None when it is none of its concern."""
    return _ACTIONS.get(event.kind)
