"""One invocation: a handler called over a state, and what came of it. No clock to wait on, no lease, no loop."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from durable_nb.events import Status
from durable_nb.exceptions import (
    BackgroundThreadError,
    InvocationError,
    OrphanedChildException,
    SuspendExecution,
)
from durable_nb.sdk._codec import Encoded, encode
from durable_nb.sdk._errors import Failure, capture, is_unrecoverable
from durable_nb.sdk._local import Wake
from durable_nb.sdk.context import DurableContext
from durable_nb.sdk.plugin import Plugin, PluginExecutor
from durable_nb.sdk.serdes import SerDes, SerDesContext
from durable_nb.sdk.state import ExecutionState, ReplayStatus, wake_of
from durable_nb.sdk.types import LambdaContext


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended: SUCCEEDED, FAILED, PENDING (suspended), RETRY or STOPPED."""

    status: Status
    encoded: Encoded | None = None
    failure: Failure | None = None
    wake: Wake = field(default_factory=Wake)
    raised: BaseException | None = None
    """The error itself, for RETRY."""


def parse_event(payload: str | None) -> Any:
    """The handler's event; an absent or blank payload is an empty dict."""
    return json.loads(payload) if payload and payload.strip() else {}


def invoke_handler(
    func: Callable[[Any, Any], Any],
    event: Any,
    state: ExecutionState,
    *,
    lambda_context: LambdaContext | None = None,
    serdes: SerDes[Any] | None = None,
    plugins: Sequence[Plugin] | None = None,
    started_at: float | None = None,
) -> Outcome:
    """Call the handler once. When this returns, no thread of the invocation writes any more."""
    executor = PluginExecutor(plugins)
    state.plugins = executor if executor.has_plugins else None
    replay = ReplayStatus.REPLAY if state.has_prior_operations() else ReplayStatus.NEW
    context = DurableContext.from_lambda_context(state, lambda_context, replay)
    with executor.invocation(state, started_at=started_at, execution_input=event) as end:
        outcome = _call(func, event, context, serdes)
        end.status = outcome.status
        if outcome.failure is not None:
            end.error = outcome.failure.to_error_object()
        elif outcome.encoded is not None:
            end.result = outcome.encoded.text
    return outcome


def _call(func: Callable[[Any, Any], Any], event: Any, context: DurableContext, serdes: SerDes[Any] | None) -> Outcome:
    state = context.state
    try:
        try:
            value = _run(func, event, context)
        finally:
            state.pool.shutdown()  # branches that outlived their batch end at their next operation
        encoded = _encode_result(value, serdes, state)
        return Outcome(Status.SUCCEEDED, encoded)
    except SuspendExecution as suspended:
        return Outcome(Status.PENDING, wake=wake_of(suspended))
    except OrphanedChildException:
        if state.cancelled is None:
            raise
        return Outcome(Status.STOPPED)
    except BackgroundThreadError as error:
        raise error.source_exception from None
    except Exception as error:  # noqa: BLE001 - whatever escapes a handler is its result
        if is_unrecoverable(error) and isinstance(error, InvocationError):
            status = Status.RETRY if error.is_retryable() else Status.FAILED
            return Outcome(status, failure=capture(error), raised=error)
        return Outcome(Status.FAILED, failure=capture(error))


def _run(func: Callable[[Any, Any], Any], event: Any, context: DurableContext) -> Any:
    if not inspect.iscoroutinefunction(func):
        return func(event, context)
    from durable_nb.sdk.aio import AsyncDurableContext, run_async

    return run_async(lambda: func(event, AsyncDurableContext(context)))


def _encode_result(value: Any, serdes: SerDes[Any] | None, state: ExecutionState) -> Encoded:
    if serdes is None:
        # Plain JSON: what a handler returns leaves the world of Python.
        return Encoded(json.dumps(value).encode("utf-8"))
    return encode(serdes, value, SerDesContext("", state.durable_execution_arn, None, "EXECUTION"))


__all__ = ["Outcome", "invoke_handler", "parse_event"]
