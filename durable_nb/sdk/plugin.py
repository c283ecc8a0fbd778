"""Plugins: what instrumentation is told about an execution.

Invocation and user-function hooks run in the thread of the user's code, so that a tracer can set its context there.
Operation hooks run in one other thread, in order, and are all delivered before the invocation ends. A plugin that
raises is logged and does no other harm.

An operation that ended in an earlier invocation is not told again; one that was open then is told once, as replayed.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from durable_nb.events import Event, EventKind, OperationType, Status
from durable_nb.sdk._wire import moment, operation_of
from durable_nb.sdk.lambda_service import ErrorObject, InvocationStatus, Operation

if TYPE_CHECKING:
    from durable_nb.sdk.operation._frame import Frame
    from durable_nb.sdk.state import ExecutionState

logger = logging.getLogger(__name__)


class UserFunctionOutcome(Enum):
    """How a user function ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INCOMPLETE = "INCOMPLETE"
    """It suspended."""

    @classmethod
    def from_error(cls, error: ErrorObject | None) -> UserFunctionOutcome:
        """FAILED with an error, else SUCCEEDED."""
        return cls.FAILED if error else cls.SUCCEEDED


@dataclass(frozen=True)
class OperationInfo:
    """An operation as plugins see it."""

    operation_id: str
    operation_type: OperationType
    sub_type: str | None
    name: str | None
    parent_id: str | None
    start_time: dt.datetime | None
    is_replayed: bool
    status: Status
    end_time: dt.datetime | None = field(default=None, kw_only=True)
    result: str | None = field(default=None, kw_only=True)
    error: ErrorObject | None = field(default=None, kw_only=True)
    attempt: int | None = field(default=None, kw_only=True)

    @staticmethod
    def from_operation(operation: Operation, *, is_replayed: bool = False) -> OperationInfo:
        """From the wire form."""
        return OperationInfo(**_fields_of(operation, is_replayed=is_replayed))


def _fields_of(operation: Operation, *, is_replayed: bool) -> dict[str, Any]:
    details = (
        operation.step_details
        or operation.context_details
        or operation.callback_details
        or operation.chained_invoke_details
    )
    return {
        "operation_id": operation.operation_id,
        "operation_type": operation.operation_type,
        "sub_type": operation.sub_type,
        "name": operation.name,
        "parent_id": operation.parent_id,
        "start_time": operation.start_timestamp,
        "is_replayed": is_replayed,
        "status": operation.status,
        "end_time": operation.end_timestamp,
        "result": details.result if details else None,
        "error": details.error if details else None,
        "attempt": operation.step_details.attempt if operation.step_details else None,
    }


@dataclass(frozen=True)
class OperationStartInfo(OperationInfo):
    """An operation begins."""


@dataclass(frozen=True)
class OperationEndInfo(OperationInfo):
    """An operation has ended."""


@dataclass(frozen=True)
class OperationChangeInfo:
    """Operations changed their state."""

    execution_arn: str
    updated_operations: Mapping[str, OperationInfo]
    operations: Mapping[str, OperationInfo]


@dataclass(frozen=True)
class UserFunctionStartInfo(OperationInfo):
    """A function of the user is called."""

    is_replay_children: bool = False


@dataclass(frozen=True)
class UserFunctionEndInfo(OperationInfo):
    """A function of the user has returned, raised or suspended."""

    is_replay_children: bool = False
    outcome: UserFunctionOutcome = UserFunctionOutcome.SUCCEEDED

    @classmethod
    def from_start_info(
        cls,
        start_info: UserFunctionStartInfo,
        error: ErrorObject | None,
        *,
        outcome: UserFunctionOutcome | None = None,
    ) -> UserFunctionEndInfo:
        """The end of what `start_info` began."""
        values = {one.name: getattr(start_info, one.name) for one in fields(start_info)}
        now = dt.datetime.now(tz=dt.UTC)
        values |= {"error": error, "end_time": now, "outcome": outcome or UserFunctionOutcome.from_error(error)}
        return cls(**values)


@dataclass(frozen=True)
class InvocationInfo:
    """An invocation of a handler."""

    request_id: str | None
    execution_arn: str
    is_first_invocation: bool
    execution_start_time: dt.datetime | None = None
    execution_input: Any = field(default=None, kw_only=True)
    operations: Mapping[str, OperationInfo] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class InvocationStartInfo(InvocationInfo):
    """The handler is about to be called."""

    updated_operations: Mapping[str, OperationInfo] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class InvocationEndInfo(InvocationInfo):
    """The handler has returned, raised or suspended."""

    status: Status = field(default=InvocationStatus.SUCCEEDED, kw_only=True)
    error: ErrorObject | None = None
    execution_result: Any = field(default=None, kw_only=True)


@dataclass(frozen=True)
class PropagationInput:
    """An invoke that is about to be made."""

    execution_arn: str
    operation_id: str
    target_function_name: str
    parent_operation_id: str | None = None


@dataclass(frozen=True)
class PropagationMetadata:
    """What travels with an invoke."""

    x_amzn_trace_id: str | None = None


class DurableInstrumentationPlugin:
    """Base of plugins: every hook does nothing."""

    def provide_propagation_metadata(self, info: PropagationInput) -> PropagationMetadata | None:  # noqa: ARG002
        """What should travel with an invoke."""
        return None

    def on_invocation_start(self, info: InvocationStartInfo) -> None:
        """The handler is about to be called."""

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        """The handler has returned, raised or suspended."""

    def on_operation_start(self, info: OperationStartInfo) -> None:
        """An operation begins."""

    def on_operation_end(self, info: OperationEndInfo) -> None:
        """An operation has ended."""

    def on_operation_change(self, info: OperationChangeInfo) -> None:
        """Operations changed their state."""

    def on_user_function_start(self, info: UserFunctionStartInfo) -> None:
        """A function of the user is called."""

    def on_user_function_end(self, info: UserFunctionEndInfo) -> None:
        """A function of the user has returned, raised or suspended."""


class DurableInstrumentationPluginFactory(Protocol):
    """Makes the plugin of one invocation."""

    def create_plugin(self, info: InvocationStartInfo, /) -> DurableInstrumentationPlugin: ...


Plugin = DurableInstrumentationPlugin | DurableInstrumentationPluginFactory


class PluginExecutor:
    """Tells the plugins of one invocation."""

    def __init__(self, plugins: Sequence[Plugin] | None) -> None:
        self._given = list(plugins or ())
        self._plugins: list[DurableInstrumentationPlugin] = []
        self._start: InvocationStartInfo | None = None
        self._known: set[str] = set()
        self._ended: set[str] = set()
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def has_plugins(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._given)

    # --- an invocation ---------------------------------------------------------------------------------------------

    @contextmanager
    def invocation(self, state: ExecutionState, *, started_at: float | None, execution_input: Any) -> Iterator[_End]:
        """The hooks around an invocation; the body reports its end through what it is given."""
        end = _End()
        if not self.has_plugins:
            yield end
            return
        operations = {key: operation_of(one) for key, one in state.operations.items()}
        # What this invocation found out before it began (waits that are over) is news to plugins.
        news = state.deferred_ids
        self._ended = {key for key, one in operations.items() if one.status.is_terminal and key not in news}
        infos = {key: OperationInfo.from_operation(one, is_replayed=True) for key, one in operations.items()}
        self._start = InvocationStartInfo(
            uuid.uuid4().hex,
            state.durable_execution_arn,
            not operations,
            moment(started_at),
            execution_input=execution_input,
            operations=infos,
        )
        self._create()
        self._thread = threading.Thread(target=self._deliver, name="durable_nb plugins", daemon=True)
        self._thread.start()
        self._tell("on_invocation_start", self._start)
        for key in news:
            self._queue.put(functools.partial(self._changed, operations[key]))
        previous = state.modes.on_event
        state.modes.on_event = lambda event: self._heard(state, event, previous)
        try:
            yield end
        finally:
            state.modes.on_event = previous
            self._queue.put(None)
            self._thread.join()
            self._tell_end(end)

    def _create(self) -> None:
        assert self._start is not None
        for given in self._given:
            if isinstance(given, DurableInstrumentationPlugin):
                self._plugins.append(given)
                continue
            try:
                self._plugins.append(given.create_plugin(self._start))
            except Exception:
                logger.exception("a plugin could not be created")

    def _tell_end(self, end: _End) -> None:
        start = self._start
        assert start is not None
        self._tell(
            "on_invocation_end",
            InvocationEndInfo(
                start.request_id,
                start.execution_arn,
                start.is_first_invocation,
                start.execution_start_time,
                end.error,
                execution_input=start.execution_input,
                operations=start.operations,
                status=end.status,
                execution_result=end.result,
            ),
        )

    def _tell(self, hook: str, info: Any) -> None:
        for plugin in self._plugins:
            try:
                getattr(plugin, hook)(info)
            except Exception:
                logger.exception("the plugin %s failed in %s", type(plugin).__name__, hook)

    def _deliver(self) -> None:
        while (task := self._queue.get()) is not None:
            task()

    # --- operations ------------------------------------------------------------------------------------------------

    def _heard(self, state: ExecutionState, event: Event, previous: Callable[[Event], None] | None) -> None:
        if previous is not None:
            previous(event)
        recorded = state.operations.get(event.operation_id)
        if recorded is None or event.kind in (EventKind.NOTE, EventKind.HEARTBEAT):
            return
        operation = operation_of(recorded)
        self._queue.put(lambda: self._changed(operation))

    def _changed(self, operation: Operation) -> None:
        key = operation.operation_id
        if key in self._ended:
            return
        if key not in self._known:
            self._known.add(key)
            replayed = self._start is not None and key in self._start.operations
            self._tell("on_operation_start", OperationStartInfo(**_fields_of(operation, is_replayed=replayed)))
        info = OperationInfo.from_operation(operation)
        arn = self._start.execution_arn if self._start else ""
        self._tell("on_operation_change", OperationChangeInfo(arn, {key: info}, {key: info}))
        if operation.status.is_terminal:
            self._ended.add(key)
            self._tell("on_operation_end", OperationEndInfo(**_fields_of(operation, is_replayed=False)))

    # --- user functions --------------------------------------------------------------------------------------------

    def around_user_function(
        self, frame: Frame, call: Callable[[], Any], *, attempt: int | None, is_replay_children: bool = False
    ) -> Any:
        """Run `call` between the hooks."""
        who = frame.identifier
        recorded = frame.state.get(who.operation_id)
        start = UserFunctionStartInfo(
            who.operation_id,
            who.operation_type,
            who.sub_type,
            who.name,
            who.parent_id,
            dt.datetime.now(tz=dt.UTC),
            recorded is not None and self._start is not None and who.operation_id in self._start.operations,
            Status.STARTED,
            attempt=attempt,
            is_replay_children=is_replay_children,
        )
        self._tell("on_user_function_start", start)
        try:
            value = call()
        except Exception as error:
            wire = ErrorObject.from_exception(error)
            self._tell("on_user_function_end", UserFunctionEndInfo.from_start_info(start, wire))
            raise
        except BaseException:
            outcome = UserFunctionOutcome.INCOMPLETE
            self._tell("on_user_function_end", UserFunctionEndInfo.from_start_info(start, None, outcome=outcome))
            raise
        self._tell("on_user_function_end", UserFunctionEndInfo.from_start_info(start, None))
        return value


@dataclass(slots=True)
class _End:
    """How an invocation ended."""

    status: Status = Status.FAILED
    error: ErrorObject | None = None
    result: Any = None


__all__ = [
    "DurableInstrumentationPlugin",
    "DurableInstrumentationPluginFactory",
    "InvocationEndInfo",
    "InvocationInfo",
    "InvocationStartInfo",
    "InvocationStatus",
    "OperationChangeInfo",
    "OperationEndInfo",
    "OperationInfo",
    "OperationStartInfo",
    "OperationType",
    "PluginExecutor",
    "PropagationInput",
    "PropagationMetadata",
    "UserFunctionEndInfo",
    "UserFunctionOutcome",
    "UserFunctionStartInfo",
]
