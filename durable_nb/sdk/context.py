"""`DurableContext`: what handlers ask for durable operations, and the decorators for their functions."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, overload

from durable_nb.events import OperationType
from durable_nb.exceptions import ValidationError
from durable_nb.sdk.concurrency.models import BatchResult
from durable_nb.sdk.config import (
    CallbackConfig,
    ChildConfig,
    Duration,
    InvokeConfig,
    MapConfig,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
    WaitForCallbackConfig,
    as_duration,
)
from durable_nb.sdk.identifier import OperationIdNamespace, identified
from durable_nb.sdk.lambda_service import OperationSubType
from durable_nb.sdk.logger import Logger, LogInfo
from durable_nb.sdk.operation import callback as callbacks
from durable_nb.sdk.operation._alone import PASSES
from durable_nb.sdk.operation._body import run_coroutine
from durable_nb.sdk.operation._calls import Calls
from durable_nb.sdk.operation._frame import Frame, refuse_in_body
from durable_nb.sdk.operation.callback import Callback
from durable_nb.sdk.operation.child import child, virtual_child
from durable_nb.sdk.operation.invoke import invoke
from durable_nb.sdk.operation.map import map_items
from durable_nb.sdk.operation.parallel import parallel
from durable_nb.sdk.operation.step import step
from durable_nb.sdk.operation.wait import check_seconds, wait
from durable_nb.sdk.operation.wait_for_condition import wait_for_condition
from durable_nb.sdk.state import ExecutionState, ReplayStatus, Scope
from durable_nb.sdk.types import (
    LambdaContext,
    LoggerInterface,
    StepContext,
    WaitForCallbackContext,
    WaitForConditionCheckContext,
)
from durable_nb.sdk.waits import WaitForConditionConfig

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")

Wait: TypeAlias = Duration | dt.timedelta | float


_STEP, _STEP_TYPE = OperationSubType.STEP, OperationType.STEP
_REPLAY, _NEW = ReplayStatus.REPLAY, ReplayStatus.NEW

_reserved: ContextVar[tuple[DurableContext, str] | None] = ContextVar("durable_nb_reserved", default=None)


@dataclass(frozen=True)
class ExecutionContext:
    """The execution as a whole."""

    durable_execution_arn: str


class DurableContext:
    """Durable operations of a handler, a child context or a branch.

    Operations are numbered in the order in which they are asked for; that number is their identity in the history. So
    one context belongs to one thread: use `parallel` or `map` to do several things at once.
    """

    def __init__(
        self,
        state: ExecutionState,
        execution_context: ExecutionContext,
        lambda_context: LambdaContext | None = None,
        parent_id: str | None = None,
        logger: Logger | None = None,
        step_id_prefix: str | None = None,
        replay_status: ReplayStatus = ReplayStatus.NEW,
        *,
        scope: Scope | None = None,
        calls: Calls | None = None,
    ) -> None:
        self.state = state
        self.execution_context = execution_context
        self.lambda_context = lambda_context
        self._parent_id = parent_id
        self._prefix = parent_id if step_id_prefix is None else step_id_prefix
        self._namespace = OperationIdNamespace(self._prefix)
        self._replay_status = replay_status
        self._scope = scope or Scope(parent_id, None)
        self._calls = calls
        self._counter_lock = threading.Lock()
        self._counter = 0
        self._next_id: str | None = None
        info = LogInfo(state, parent_id)
        if logger is None:
            self.logger = Logger.from_log_info(logging.getLogger(), info, self.is_replaying)
        else:
            self.logger = Logger.from_log_info(logger.get_logger(), info, self.is_replaying)

    # --- about itself ----------------------------------------------------------------------------------------------

    @property
    def is_virtual(self) -> bool:
        """Whether this context leaves no operation of its own."""
        return self._prefix != self._parent_id

    @staticmethod
    def from_lambda_context(
        state: ExecutionState,
        lambda_context: LambdaContext | None,
        replay_status: ReplayStatus = ReplayStatus.NEW,
    ) -> DurableContext:
        """The context of a handler."""
        execution = ExecutionContext(state.durable_execution_arn)
        return DurableContext(state, execution, lambda_context, replay_status=replay_status)

    def create_child_context(self, operation_id: str, *, is_virtual: bool = False) -> DurableContext:
        """A context whose operations are numbered below `operation_id`."""
        return self._child_context(operation_id, self._scope, is_virtual=is_virtual)

    def _child_context(self, operation_id: str, scope: Scope, *, is_virtual: bool = False) -> DurableContext:
        return type(self)(
            self.state,
            self.execution_context,
            self.lambda_context,
            self._parent_id if is_virtual else operation_id,
            self.logger,
            operation_id,
            self._replay_status,
            scope=Scope(operation_id, scope),
            calls=self._calls,
        )

    def branch_context(self, branch: Frame, batch: Frame | None) -> DurableContext:
        """The context of a branch; `batch` is given when the branch itself leaves no operation."""
        context = self._child_context(branch.identifier.operation_id, branch.scope)
        context._calls = branch.calls
        if batch is not None:
            context._parent_id = batch.identifier.operation_id
            context.logger = context.logger.with_log_info(LogInfo(self.state, batch.identifier.operation_id))
        return context

    def set_logger(self, new_logger: LoggerInterface) -> None:
        """Write log records to another logger from now on."""
        self.logger = Logger.from_log_info(new_logger, LogInfo(self.state, self._parent_id), self.is_replaying)

    def is_replaying(self) -> bool:
        """Whether this context still walks over its history."""
        return self._replay_status is _REPLAY

    # --- numbering -------------------------------------------------------------------------------------------------

    @property
    def asked(self) -> int:
        """How many operations it was asked for."""
        return self._counter

    def reserve(self) -> str:
        """Take the next number now, for an operation that another thread will ask for."""
        return self._create_step_id()

    @contextmanager
    def numbered(self, operation_id: str | None) -> Iterator[None]:
        """Let the next operation that this thread asks for have a number that was reserved."""
        token = _reserved.set(None if operation_id is None else (self, operation_id))
        try:
            yield
        finally:
            _reserved.reset(token)

    def _create_step_id(self) -> str:
        reserved = _reserved.get()
        if reserved is not None and reserved[0] is self:
            _reserved.set(None)
            return reserved[1]
        with self._counter_lock:
            self._counter += 1
            known, self._next_id = self._next_id, None
            return known or self._namespace.create_id_for_step(self._counter)

    def _peek_next_operation_id(self) -> str:
        with self._counter_lock:
            if self._next_id is None:
                self._next_id = self._namespace.create_id_for_step(self._counter + 1)
            return self._next_id

    @staticmethod
    def _resolve_step_name(name: str | None, func: Callable[..., Any]) -> str | None:
        return name or getattr(func, "_original_name", None)

    def _operation(self, what: str, kind: OperationType, sub_type: str, name: str | None) -> _Asked:
        """The frame of the next operation, as a context manager that keeps the replay status right around it."""
        refuse_in_body(self.state, what)
        identifier = identified(self._create_step_id(), sub_type, self._parent_id, name, kind)
        return _Asked(self, Frame(self.state, identifier, self._scope, self.logger, self._calls))

    # --- operations ------------------------------------------------------------------------------------------------

    @overload
    def step(
        self,
        func: Callable[[StepContext], Coroutine[Any, Any, T]],
        name: str | None = None,
        config: StepConfig | None = None,
    ) -> T: ...

    @overload
    def step(
        self, func: Callable[[StepContext], T], name: str | None = None, config: StepConfig | None = None
    ) -> T: ...

    def step(
        self, func: Callable[[StepContext], Any], name: str | None = None, config: StepConfig | None = None
    ) -> Any:
        """Run `func(step_context)` once and keep its result.

        Raises:
            StepError: it failed for the last time. The error is also an instance of the type that `func` raised.
        """
        sub_type = (config.sub_type if config else None) or _STEP
        step_name = self._resolve_step_name(name, func)
        with self._operation("step", _STEP_TYPE, sub_type, step_name) as frame:
            return step(frame, func, config)

    def wait(self, duration: Wait, name: str | None = None) -> None:
        """Let `duration` pass. A handler holds nothing meanwhile, and may be resumed by another process."""
        seconds = as_duration(duration, "duration").to_seconds()
        check_seconds(seconds)
        with self._operation("wait", OperationType.WAIT, OperationSubType.WAIT, name) as frame:
            wait(frame, seconds)

    def run_in_child_context(
        self, func: Callable[[DurableContext], T], name: str | None = None, config: ChildConfig[Any] | None = None
    ) -> T:
        """Run `func(context)` as one operation that holds those it asks for.

        Raises:
            ChildContextError: it failed. The error is also an instance of the type that `func` raised.
        """
        chosen: ChildConfig[Any] = config or ChildConfig()
        sub_type = chosen.sub_type or OperationSubType.RUN_IN_CHILD_CONTEXT
        return self.run_child(func, self._resolve_step_name(name, func), sub_type, chosen)

    def run_child(
        self, func: Callable[[DurableContext], T], name: str | None, sub_type: str, config: ChildConfig[Any]
    ) -> T:
        """A child context of any sub-type."""
        with self._operation("run_in_child_context", OperationType.CONTEXT, sub_type, name) as frame:
            operation_id = frame.identifier.operation_id
            body: Callable[[DurableContext], T] = _synchronous(func)
            if config.is_virtual:
                context = self._child_context(operation_id, self._scope, is_virtual=True)
                return virtual_child(frame, body, context)
            return child(frame, body, lambda: self._child_context(operation_id, self._scope), config)

    def map(
        self,
        inputs: Sequence[U],
        func: Callable[[DurableContext, U, int, Sequence[U]], T],
        name: str | None = None,
        config: MapConfig[Any] | None = None,
    ) -> BatchResult[T]:
        """Call `func(context, item, index, items)` for every item, at once. Failures of items do not raise."""
        chosen: MapConfig[Any] = config or MapConfig()
        chosen.completion_config.validate_for_total(len(inputs))
        step_name = self._resolve_step_name(name, func)
        with self._operation("map", OperationType.CONTEXT, OperationSubType.MAP, step_name) as frame:
            return map_items(self, frame, inputs, _synchronous(func), chosen)

    def parallel(
        self,
        functions: Sequence[Callable[[DurableContext], T] | ParallelBranch[T]],
        name: str | None = None,
        config: ParallelConfig | None = None,
    ) -> BatchResult[T]:
        """Call every function with a context of its own, at once. Failures of branches do not raise."""
        chosen = config or ParallelConfig()
        chosen.completion_config.validate_for_total(len(functions))
        with self._operation("parallel", OperationType.CONTEXT, OperationSubType.PARALLEL, name) as frame:
            return parallel(self, frame, [_synchronous(func) for func in functions], chosen)

    def create_callback(self, name: str | None = None, config: CallbackConfig | None = None) -> Callback[Any]:
        """A result that somebody outside will give; hand `callback_id` out, then ask for `result()`."""
        sub_type = (config.sub_type if config else None) or OperationSubType.CALLBACK
        with self._operation("create_callback", OperationType.CALLBACK, sub_type, name) as frame:
            return callbacks.create_callback(frame, config)

    def wait_for_callback(
        self,
        submitter: Callable[[str, WaitForCallbackContext], Any],
        name: str | None = None,
        config: WaitForCallbackConfig | None = None,
    ) -> Any:
        """Give `submitter` the id of a new callback, and wait for its result."""
        return callbacks.wait_for_callback(self, submitter, self._resolve_step_name(name, submitter), config)

    def wait_for_condition(
        self,
        check: Callable[[T, WaitForConditionCheckContext], T],
        config: WaitForConditionConfig[T],
        name: str | None = None,
    ) -> T:
        """Call `check(state, context)` until the wait strategy says that the condition holds; returns the last
        state.
        """
        if config is None:
            raise ValidationError("wait_for_condition needs a config")
        step_name = self._resolve_step_name(name, check)
        sub_type = OperationSubType.WAIT_FOR_CONDITION
        with self._operation("wait_for_condition", OperationType.STEP, sub_type, step_name) as frame:
            return wait_for_condition(frame, check, config)

    def invoke(
        self, function_name: str, payload: Any, name: str | None = None, config: InvokeConfig[Any, Any] | None = None
    ) -> Any:
        """Run the function registered as `function_name`, as an execution of its own; returns its result."""
        sub_type = OperationSubType.CHAINED_INVOKE
        with self._operation("invoke", OperationType.CHAINED_INVOKE, sub_type, name) as frame:
            return invoke(frame, function_name, payload, config)


class _Asked:
    """An operation that has been asked for.

    The context stops replaying before an operation that has never been there, and before a step that is not done; after
    any other operation that was not done; and after the last one that the history has.
    """

    __slots__ = ("_context", "_done", "_frame", "_replayed")

    def __init__(self, context: DurableContext, frame: Frame) -> None:
        self._context = context
        self._frame = frame
        self._replayed = context._replay_status is _REPLAY
        self._done = False

    def __enter__(self) -> Frame:
        if self._replayed:
            who = self._frame.identifier
            recorded = self._context.state.operations.get(who.operation_id)
            self._done = recorded is not None and recorded.status.is_terminal
            if recorded is None or (who.operation_type is _STEP_TYPE and not self._done):
                self._context._replay_status = _NEW
        return self._frame

    def __exit__(self, *_: object) -> None:
        if not self._replayed:
            return
        context = self._context
        if not self._done or context.state.operations.get(context._peek_next_operation_id()) is None:
            context._replay_status = _NEW


def _synchronous(func: Any) -> Any:
    """`func`, with a coroutine that it returns run to its end."""

    def run(*args: Any) -> Any:
        value = func(*args)
        return run_coroutine(value) if inspect.iscoroutine(value) else value

    inner = func.func if isinstance(func, ParallelBranch) else func
    setattr(run, PASSES, inner)
    return ParallelBranch(run, func.name) if isinstance(func, ParallelBranch) else run


# --- Decorators -------------------------------------------------------------------------------------------------------


def _named(func: Callable[..., Any], call: Any) -> Any:
    """`call`, knowing what the decorated function was called: the default name of its operation."""
    call._original_name = func.__name__
    return call


@overload
def durable_step(
    func: Callable[Concatenate[StepContext, P], Coroutine[Any, Any, T]],
) -> Callable[P, Callable[[StepContext], Coroutine[Any, Any, T]]]: ...


@overload
def durable_step(func: Callable[Concatenate[StepContext, P], T]) -> Callable[P, Callable[[StepContext], T]]: ...


def durable_step(func: Callable[Concatenate[StepContext, P], T]) -> Callable[P, Callable[[StepContext], T]]:
    """Let `func(step_context, *args)` be called as `func(*args)`, which gives what `context.step` takes."""

    @functools.wraps(func)
    def bind(*args: P.args, **kwargs: P.kwargs) -> Callable[[StepContext], T]:
        def call(step_context: StepContext) -> T:
            return func(step_context, *args, **kwargs)

        bound: Callable[..., T] = _named(func, call)
        return bound

    return bind


def durable_with_child_context(
    func: Callable[Concatenate[DurableContext, P], T],
) -> Callable[P, Callable[[DurableContext], T]]:
    """Let `func(context, *args)` be called as `func(*args)`, which gives what `run_in_child_context` takes."""

    @functools.wraps(func)
    def bind(*args: P.args, **kwargs: P.kwargs) -> Callable[[DurableContext], T]:
        def call(context: DurableContext) -> T:
            return func(context, *args, **kwargs)

        setattr(call, PASSES, func)
        bound: Callable[..., T] = _named(func, call)
        return bound

    return bind


def durable_wait_for_callback(
    func: Callable[Concatenate[str, WaitForCallbackContext, P], T],
) -> Callable[P, Callable[[str, WaitForCallbackContext], T]]:
    """Let `func(callback_id, context, *args)` be called as `func(*args)`, which gives what `wait_for_callback`
    takes.
    """

    @functools.wraps(func)
    def bind(*args: P.args, **kwargs: P.kwargs) -> Callable[[str, WaitForCallbackContext], T]:
        def call(callback_id: str, context: WaitForCallbackContext) -> T:
            return func(callback_id, context, *args, **kwargs)

        bound: Callable[..., T] = _named(func, call)
        return bound

    return bind


def durable_parallel_branch(
    name: str | None = None,
) -> Callable[[Callable[Concatenate[DurableContext, P], T]], Callable[P, ParallelBranch[T]]]:
    """Let `func(context, *args)` be called as `func(*args)`, which gives a branch of `parallel`."""

    def decorate(func: Callable[Concatenate[DurableContext, P], T]) -> Callable[P, ParallelBranch[T]]:
        @functools.wraps(func)
        def bind(*args: P.args, **kwargs: P.kwargs) -> ParallelBranch[T]:
            def call(context: DurableContext) -> T:
                return func(context, *args, **kwargs)

            setattr(call, PASSES, func)
            return ParallelBranch(call, name)

        return bind

    return decorate


__all__ = [
    "Callback",
    "DurableContext",
    "ExecutionContext",
    "durable_parallel_branch",
    "durable_step",
    "durable_wait_for_callback",
    "durable_with_child_context",
]
