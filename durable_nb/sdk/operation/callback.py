"""`context.create_callback` and `context.wait_for_callback`: results from outside.

A callback is created once, with an id that names it in the whole store. Whoever has the id completes it through the
journal (`complete_callback`), from any process. Its limits are moments of the real clock, also in tests that skip time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from durable_nb.events import EventKind, Status
from durable_nb.exceptions import (
    CallbackError,
    CallbackExternalError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    ChildContextError,
    StepError,
)
from durable_nb.sdk._callbacks import deadline_of, expire, new_callback_id
from durable_nb.sdk._errors import Failure, build
from durable_nb.sdk._local import Wake
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk._qualify import qualified_name
from durable_nb.sdk.config import CallbackConfig, ChildConfig, StepConfig, WaitForCallbackConfig
from durable_nb.sdk.lambda_service import ErrorObject, OperationSubType
from durable_nb.sdk.operation._frame import Frame, failure_of, refuse_in_body
from durable_nb.sdk.serdes import PassThroughSerDes, SerDes
from durable_nb.sdk.types import StepContext, WaitForCallbackContext

if TYPE_CHECKING:
    from durable_nb.sdk.context import DurableContext

T = TypeVar("T")

_PASS_THROUGH = PassThroughSerDes()


@dataclass(frozen=True, slots=True)
class Callback(Generic[T]):
    """A result that somebody outside will give."""

    callback_id: str
    operation_id: str
    frame: Frame
    serdes: SerDes[Any]

    def result(self) -> T | None:
        """The result; waits for it. What was sent is text unless the config has a serdes.

        Raises:
            CallbackExternalError: the outside reported a failure.
            CallbackTimeoutError: a limit passed first.
        """
        frame = self.frame
        refuse_in_body(frame.state, "create_callback().result")
        with frame.waiting():
            return self._result()

    def _result(self) -> T | None:
        frame = self.frame
        while True:
            recorded = frame.recorded()
            if recorded is None or recorded.status is Status.STARTED:
                frame.state.refresh()
                recorded = frame.recorded()
            if recorded is not None and recorded.status is Status.SUCCEEDED:
                value: T | None = frame.result(self.serdes, recorded)
                return value
            if recorded is not None and recorded.status.is_terminal:
                _raise(recorded)
            due = deadline_of(recorded) if recorded else None
            if recorded is not None and due is not None and due <= frame.state.clock.real():
                expire(frame.state, recorded)
                continue
            wake = Wake(real_at=due, operations=frozenset({self.operation_id}))
            frame.pause(wake)


def _raise(recorded: OperationState) -> NoReturn:
    cls: type[CallbackError] = CallbackTimeoutError if recorded.status is Status.TIMED_OUT else CallbackExternalError
    recorded_error = failure_of(recorded).error
    message = recorded_error.message
    if message is None or recorded.error is None:
        message = f"Callback {recorded.status.value.lower()}"
    raise _without_cause(cls, replace(recorded_error, message=message))


def _without_cause(cls: type[CallbackError], recorded: ErrorObject) -> CallbackError:
    """The outside's error has no Python class behind it: its type is told in `original_type`."""
    wire = replace(recorded, type=qualified_name(cls), original_type=None)
    error = build(cls, Failure(wire))
    error.__cause__ = None
    vars(error)["original_type"] = recorded.type
    assert isinstance(error, CallbackError)
    return error


def create_callback(frame: Frame, config: CallbackConfig | None) -> Callback[Any]:
    """Create a callback, or find the one that was created; never raises for one that failed meanwhile."""
    chosen = config or CallbackConfig()
    recorded = frame.recorded()
    if recorded is None:
        state = frame.state
        real = state.clock.real()
        timeout, heartbeat = chosen.timeout_seconds, chosen.heartbeat_timeout_seconds
        details: dict[str, Any] = {"callback_id": new_callback_id(state, frame.identifier.operation_id)}
        if timeout:
            details["timeout"] = timeout
            details["timeout_at"] = real + timeout
        if heartbeat:
            details["heartbeat"] = heartbeat
        limits = [real + limit for limit in (timeout, heartbeat) if limit]
        frame.record(frame.event(EventKind.STARTED, due=min(limits, default=None), details=details))
        recorded = frame.recorded()
    assert recorded is not None
    serdes = _PASS_THROUGH if chosen.serdes is None else chosen.serdes
    return Callback(str(recorded.details["callback_id"]), recorded.operation_id, frame, serdes)


def wait_for_callback(
    context: DurableContext,
    submitter: Callable[[str, WaitForCallbackContext], Any],
    name: str | None,
    config: WaitForCallbackConfig | None,
) -> Any:
    """Create a callback, hand its id out in a step, wait for the result. All in a child context."""
    chosen = config or WaitForCallbackConfig()

    def body(inner: DurableContext) -> Any:
        callback = inner.create_callback(f"{name} create callback id" if name else "create callback id", chosen)

        callback_id = callback.callback_id  # alone: the callback itself belongs to this process

        def submit(step_context: StepContext) -> Any:
            return submitter(callback_id, WaitForCallbackContext(step_context.logger))

        submit_config = StepConfig(chosen.retry_strategy, serdes=chosen.serdes)
        inner.step(submit, f"{name} submitter" if name else "submitter", submit_config)
        return callback.result()

    try:
        return context.run_child(body, name, OperationSubType.WAIT_FOR_CALLBACK, ChildConfig(serdes=chosen.serdes))
    except ChildContextError as error:
        _raise_inner(error)


_INNER: dict[str, type[CallbackError]] = {
    qualified_name(CallbackExternalError): CallbackExternalError,
    qualified_name(CallbackTimeoutError): CallbackTimeoutError,
    # The only step in the child context is the submitter.
    qualified_name(StepError): CallbackSubmitterError,
}


def _raise_inner(error: ChildContextError) -> NoReturn:
    """Raise the callback's own error: callers of `wait_for_callback` know nothing of the child context."""
    failure: Failure = vars(error)["_durable_failure"]
    cls = _INNER.get(failure.error.type or "")
    if cls is None:
        raise error
    if cls is not CallbackSubmitterError:
        raise _without_cause(cls, failure.error)
    inner = build(StepError, failure)
    outer = build(cls, replace(failure, error=replace(failure.error, type=qualified_name(cls))))
    outer.__cause__ = inner
    raise outer


__all__ = ["Callback", "create_callback", "wait_for_callback"]
