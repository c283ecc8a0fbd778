"""`durable_execution`: a function becomes a handler that survives its process.

A handler can be used in three ways. `handler.run(event, name=...)` drives an execution of that name on the local store
to its end and returns the result; `handler.start(...)` only records it, for a worker. Called as a hosting platform
calls it, `handler(invocation, platform_context)`, it performs one invocation against a checkpoint service.
"""

from __future__ import annotations

import functools
import json
import sys
import uuid
from collections.abc import Callable, Coroutine, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from durable_nb.events import ExecutionRecord, Status
from durable_nb.exceptions import CheckpointError, ExecutionError, ExecutionFailedError, ValidationError
from durable_nb.sdk import _engine
from durable_nb.sdk._codec import decode
from durable_nb.sdk._driver import Driver, Result
from durable_nb.sdk._errors import Failure, build
from durable_nb.sdk._registry import HANDLERS
from durable_nb.sdk.context import DurableContext
from durable_nb.sdk.lambda_service import (
    DurableExecutionInvocationOutput,
    DurableServiceClient,
    ErrorObject,
    InvocationStatus,
    LambdaClient,
    Operation,
)
from durable_nb.sdk.plugin import Plugin
from durable_nb.sdk.serdes import DEFAULT_JSON_SERDES, SerDes, SerDesContext

if TYPE_CHECKING:
    from durable_nb.sdk.aio import AsyncDurableContext
    from durable_nb.sdk.types import LambdaContext

E = TypeVar("E")
R = TypeVar("R")

LAMBDA_RESPONSE_SIZE_LIMIT = 6 * 1024 * 1024 - 50


# --- The wire form of an invocation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class InitialExecutionState:
    """The first page of the history."""

    operations: list[Operation]
    next_marker: str

    @staticmethod
    def from_dict(input_dict: Mapping[str, Any]) -> InitialExecutionState:
        """From the wire form."""
        operations = [Operation.from_dict(item) for item in input_dict.get("Operations") or []]
        return InitialExecutionState(operations, input_dict.get("NextMarker") or "")

    @staticmethod
    def from_json_dict(input_dict: Mapping[str, Any]) -> InitialExecutionState:
        """From the wire form with moments as milliseconds."""
        operations = [Operation.from_json_dict(item) for item in input_dict.get("Operations") or []]
        return InitialExecutionState(operations, input_dict.get("NextMarker") or "")

    def to_dict(self) -> MutableMapping[str, Any]:
        """The wire form."""
        return {"Operations": [item.to_dict() for item in self.operations], "NextMarker": self.next_marker}

    def to_json_dict(self) -> MutableMapping[str, Any]:
        """The wire form with moments as milliseconds."""
        return {"Operations": [item.to_json_dict() for item in self.operations], "NextMarker": self.next_marker}


@dataclass(frozen=True)
class DurableExecutionInvocationInput:
    """What a service sends to invoke a handler."""

    durable_execution_arn: str
    checkpoint_token: str
    initial_execution_state: InitialExecutionState
    updated_operation_ids: list[str] = field(default_factory=list, kw_only=True)

    @staticmethod
    def from_dict(input_dict: Mapping[str, Any]) -> DurableExecutionInvocationInput:
        """From the wire form."""
        return DurableExecutionInvocationInput._from(input_dict, InitialExecutionState.from_dict)

    @staticmethod
    def from_json_dict(input_dict: Mapping[str, Any]) -> DurableExecutionInvocationInput:
        """From the wire form with moments as milliseconds."""
        return DurableExecutionInvocationInput._from(input_dict, InitialExecutionState.from_json_dict)

    @staticmethod
    def _from(
        data: Mapping[str, Any], state: Callable[[Mapping[str, Any]], InitialExecutionState]
    ) -> DurableExecutionInvocationInput:
        return DurableExecutionInvocationInput(
            data["DurableExecutionArn"],
            data["CheckpointToken"],
            state(data.get("InitialExecutionState") or {}),
            updated_operation_ids=list(data.get("UpdatedOperationIds") or []),
        )

    def to_dict(self) -> MutableMapping[str, Any]:
        """The wire form."""
        return self._to(self.initial_execution_state.to_dict())

    def to_json_dict(self) -> MutableMapping[str, Any]:
        """The wire form with moments as milliseconds."""
        return self._to(self.initial_execution_state.to_json_dict())

    def _to(self, state: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {
            "DurableExecutionArn": self.durable_execution_arn,
            "CheckpointToken": self.checkpoint_token,
            "InitialExecutionState": state,
            "UpdatedOperationIds": self.updated_operation_ids,
        }


@dataclass(frozen=True)
class DurableExecutionInvocationInputWithClient(DurableExecutionInvocationInput):
    """The same with the service to talk to: how a test gives its own."""

    service_client: DurableServiceClient

    @staticmethod
    def from_durable_execution_invocation_input(
        invocation_input: DurableExecutionInvocationInput, service_client: DurableServiceClient
    ) -> DurableExecutionInvocationInputWithClient:
        """`invocation_input` with a client."""
        return DurableExecutionInvocationInputWithClient(
            durable_execution_arn=invocation_input.durable_execution_arn,
            checkpoint_token=invocation_input.checkpoint_token,
            initial_execution_state=invocation_input.initial_execution_state,
            updated_operation_ids=invocation_input.updated_operation_ids,
            service_client=service_client,
        )


def handle_checkpoint_error(error: CheckpointError) -> DurableExecutionInvocationOutput:
    """What an invocation whose checkpoint failed answers: raise to be invoked again, or end the execution."""
    if error.is_retryable():
        raise error
    return DurableExecutionInvocationOutput(InvocationStatus.FAILED, error=ErrorObject.from_exception(error))


# --- Handlers ---------------------------------------------------------------------------------------------------------


class ExecutionHandle(Generic[R]):
    """An execution on the local store."""

    def __init__(self, handler: DurableHandler[Any, R], driver: Driver, record: ExecutionRecord) -> None:
        self._handler = handler
        self._driver = driver
        self._record = record

    @property
    def name(self) -> str:
        """Its name."""
        return self._record.name

    @property
    def execution_id(self) -> str:
        """Its id in the store."""
        return self._record.execution_id

    @property
    def status(self) -> Status:
        """STARTED until it is over."""
        return self._driver.result(self._record.execution_id).status

    def result(self, timeout: float | None = None) -> R:
        """Drive it to its end (unless it has one) and return the result.

        Raises:
            ExecutionFailedError: it failed. The error is also an instance of the type that ended it.
            TimeoutError: it is not over in `timeout` seconds; it stays resumable.
            LeaseHeldError: another process drives it.
        """
        result = self._driver.drive(self._record, self._handler, timeout=timeout)
        return self._handler.value_of(result)

    def step(self) -> Status:
        """Drive it until it suspends or is over; returns where it stands."""
        return self._driver.drive(self._record, self._handler, wait=False).status

    def cancel(self, reason: str | None = None) -> None:
        """Stop it: whoever drives it stops at its next operation."""
        record = self._driver.result(self._record.execution_id).record
        self._driver.stop(record, reason)


class DurableHandler(Generic[E, R]):
    """A handler; made by `durable_execution`."""

    def __init__(
        self,
        func: Callable[[E, Any], Any],
        *,
        name: str | None = None,
        serdes: SerDes[Any] | None = None,
        plugins: Sequence[Plugin] | None = None,
        boto3_client: Any = None,
    ) -> None:
        functools.update_wrapper(cast("Any", self), func)
        self.func = func
        self.serdes = serdes
        self._given_plugins = plugins
        self._plugins: list[Plugin] | None = None
        self.reference = f"{_module_of(func)}:{func.__qualname__}"
        self.name = name or self.reference
        self._boto3_client = boto3_client
        HANDLERS.register(self.reference, self)
        HANDLERS.register(name or func.__name__, self)

    @property
    def plugins(self) -> list[Plugin]:
        """Those given in code and those that the environment names, loaded at the first invocation."""
        if self._plugins is None:
            from durable_nb.sdk.plugin_discovery import load_configured_plugins

            self._plugins = load_configured_plugins(self._given_plugins)
        return self._plugins

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew, not filled in: a handler that comes back (in a notebook, say) has to be registered again.
        name = None if self.name == self.reference else self.name
        return _make_handler, (type(self), self.func, name, self.serdes, self._given_plugins)

    def __repr__(self) -> str:
        return f"<durable handler {self.name}>"

    # --- on the local store ----------------------------------------------------------------------------------------

    def run(
        self, event: E | None = None, *, name: str | None = None, store: Any = None, timeout: float | None = None
    ) -> R:
        """Run an execution to its end and return its result; the same name resumes it, or returns what it returned.

        Args:
            event: any JSON value; what the handler gets.
            name: the idempotency key; None makes a new one.
            store: a store's directory or an open store; None is the default store.
            timeout: seconds to wait; the execution stays resumable when it passes.

        Raises:
            ExecutionFailedError: it failed. The error is also an instance of the type that ended it.
            ExecutionConflictError: the name belongs to another handler or another input.
            LeaseHeldError: another process drives it now.
            TimeoutError: it is not over in time.
        """
        nested = _engine.nested_run(self, event, name) if store is None else None
        if nested is not None:
            return cast("R", nested.value)
        return self.start(event, name=name, store=store).result(timeout)

    def start(self, event: E | None = None, *, name: str | None = None, store: Any = None) -> ExecutionHandle[R]:
        """Record an execution, on disk, without running it: a worker or `result()` of the handle will."""
        driver = _engine.driver_for(store)
        return self.start_on(driver, event, name=name)

    def start_on(self, driver: Driver, event: E | None = None, *, name: str | None = None) -> ExecutionHandle[R]:
        """The same with a driver at hand."""
        chosen = name or f"{self.func.__name__}-{uuid.uuid4().hex[:12]}"
        return ExecutionHandle(self, driver, driver.create(chosen, self.name, event_text(event)))

    def value_of(self, result: Result) -> R:
        """The value of an ended execution, or its error."""
        if result.status is not Status.SUCCEEDED or result.encoded is None:
            failure = result.failure or Failure(
                ErrorObject(f"execution {result.record.name!r} is {result.status.value}", None, None, None)
            )
            error = build(ExecutionFailedError, failure)
            assert isinstance(error, ExecutionFailedError)
            error.execution_name, error.status = result.record.name, result.status.value
            raise error
        serdes = self.serdes or DEFAULT_JSON_SERDES
        context = SerDesContext("", result.record.execution_id, None, "EXECUTION")
        return cast("R", decode(serdes, result.encoded, context, trusted=result.trusted))

    def context_for(self, record: ExecutionRecord, driver: Driver) -> LambdaContext | None:  # noqa: ARG002
        """The platform context of a local invocation: there is none, unless a test gives one."""
        return driver.lambda_context_of(record) if driver.lambda_context_of else None

    # --- against a service -----------------------------------------------------------------------------------------

    def __call__(self, event: Any = None, lambda_context: LambdaContext | None = None) -> Any:
        """One invocation as a platform makes it; with a plain event, `run(event)`."""
        if isinstance(event, DurableExecutionInvocationInputWithClient):
            return self._serve(event, event.service_client, lambda_context)
        if isinstance(event, Mapping) and "DurableExecutionArn" in event:
            client: DurableServiceClient
            if self._boto3_client is not None:
                client = LambdaClient(self._boto3_client)
            else:
                client = LambdaClient.initialize_client()
            return self._serve(DurableExecutionInvocationInput.from_json_dict(event), client, lambda_context)
        if lambda_context is not None:
            raise ExecutionError(
                "the event of a platform invocation has no DurableExecutionArn: the function was not invoked durably"
            )
        return self.run(event)

    def _serve(
        self,
        invocation: DurableExecutionInvocationInput,
        client: DurableServiceClient,
        lambda_context: LambdaContext | None,
    ) -> MutableMapping[str, Any]:
        from durable_nb.sdk._service import serve

        return serve(self, invocation, client, lambda_context).to_dict()


def _make_handler(
    cls: type[DurableHandler[Any, Any]],
    func: Callable[[Any, Any], Any],
    name: str | None,
    serdes: SerDes[Any] | None,
    plugins: Sequence[Plugin] | None,
) -> DurableHandler[Any, Any]:
    return cls(func, name=name, serdes=serdes, plugins=plugins)


def _module_of(func: Callable[..., Any]) -> str:
    """The name under which another process can import the function's module: a script's own name for `__main__`."""
    if func.__module__ != "__main__":
        return func.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name.removesuffix(".__main__"))
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


def event_text(event: Any) -> str:
    """An event as JSON; None is an empty object.

    Raises:
        ValidationError: it is no JSON value.
    """
    try:
        return json.dumps({} if event is None else event)
    except (TypeError, ValueError) as exc:
        raise ValidationError(f"the event of a handler must be a JSON value: {exc}") from exc


@overload
def durable_execution(
    func: Callable[[E, AsyncDurableContext], Coroutine[Any, Any, R]],
) -> DurableHandler[E, R]: ...


@overload
def durable_execution(func: Callable[[E, DurableContext], R]) -> DurableHandler[E, R]: ...


@overload
def durable_execution(
    func: None = None,
    *,
    boto3_client: Any = None,
    plugins: Sequence[Plugin] | None = None,
    serdes: SerDes[Any] | None = None,
    name: str | None = None,
) -> Decorator: ...


def durable_execution(
    func: Callable[[Any, Any], Any] | None = None,
    *,
    boto3_client: Any = None,
    plugins: Sequence[Plugin] | None = None,
    serdes: SerDes[Any] | None = None,
    name: str | None = None,
) -> Any:
    """Make a handler of `func(event, context)`, which may be a coroutine function.

    Args:
        func: the function, when used without parentheses.
        boto3_client: a Lambda client for invocations by the hosted service.
        plugins: instrumentation (provisional).
        serdes: the default of all its operations, and for its result.
        name: what `invoke` and workers know it by; default `module:function`.
    """
    if plugins is not None:
        import warnings

        warnings.warn("the plugin interface is provisional and may change", FutureWarning, stacklevel=2)
    if func is None:
        return Decorator(boto3_client=boto3_client, plugins=plugins, serdes=serdes, name=name)
    return DurableHandler(func, boto3_client=boto3_client, plugins=plugins, serdes=serdes, name=name)


class Decorator:
    """`durable_execution` with its options given."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @overload
    def __call__(self, func: Callable[[E, AsyncDurableContext], Coroutine[Any, Any, R]]) -> DurableHandler[E, R]: ...

    @overload
    def __call__(self, func: Callable[[E, DurableContext], R]) -> DurableHandler[E, R]: ...

    def __call__(self, func: Callable[[Any, Any], Any]) -> DurableHandler[Any, Any]:
        """Make the handler."""
        return DurableHandler(func, **self._options)


__all__ = [
    "LAMBDA_RESPONSE_SIZE_LIMIT",
    "Decorator",
    "DurableExecutionInvocationInput",
    "DurableExecutionInvocationInputWithClient",
    "DurableExecutionInvocationOutput",
    "DurableHandler",
    "ExecutionHandle",
    "InitialExecutionState",
    "InvocationStatus",
    "durable_execution",
    "event_text",
    "handle_checkpoint_error",
]
