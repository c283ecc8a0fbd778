"""`DurableFunctionTestRunner`: run handlers in a test, look at what they recorded, skip their waits.

The engine is the real one; only the journal is in memory (unless a store is given) and the clock jumps.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from durable_nb.abc import Journal
from durable_nb.events import ExecutionRecord, OperationType, Status
from durable_nb.exceptions import DurableExecutionsError, ValidationError
from durable_nb.sdk._callbacks import CallbackSender
from durable_nb.sdk._driver import Driver
from durable_nb.sdk._local import EngineClock, SystemClock
from durable_nb.sdk._machine import OperationState, advance
from durable_nb.sdk._registry import HANDLERS, Registry
from durable_nb.sdk.context import DurableContext
from durable_nb.sdk.execution import DurableHandler, event_text
from durable_nb.sdk.lambda_service import ErrorObject, InvocationStatus
from durable_nb.sdk.serdes import DEFAULT_JSON_SERDES, SerDes
from durable_nb.sdk.state import JournalRecorder
from durable_nb.testing._operations import (
    CallbackOperation,
    ContextOperation,
    ExecutionOperation,
    InvokeOperation,
    Operation,
    StepOperation,
    WaitOperation,
    _Lookup,
    tree,
)
from durable_nb.testing.clock import VirtualClock
from durable_nb.testing.exceptions import DurableFunctionsTestError, ResourceNotFoundException

P = ParamSpec("P")
logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.01
DEFAULT_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class DurableFunctionTestResult(_Lookup):
    """What came of an execution."""

    status: Status
    operations: list[Operation]
    """The top level."""
    result: Any = None
    """The value that the handler returned."""
    error: ErrorObject | None = None
    execution_status: Status | None = None
    payload: str | None = field(default=None, kw_only=True)
    """The result as it was serialized; None where that is no text."""

    def _level(self) -> list[Operation]:
        return self.operations


@dataclass(frozen=True)
class TestLambdaContext:
    """The platform's context in a test."""

    __test__ = False  # no test class

    aws_request_id: str = "test-invoke-12345"
    function_name: str | None = "test-function"
    invoked_function_arn: str | None = None
    log_group_name: str | None = None
    log_stream_name: str | None = None
    memory_limit_in_mb: str | None = None
    function_version: str | None = "$LATEST"
    tenant_id: str | None = None
    client_context: dict[str, Any] | None = None
    identity: Any = None

    def get_remaining_time_in_millis(self) -> int:
        """A test has all the time."""
        return 900_000

    def log(self, msg: str) -> None:
        """Write to the log."""
        logger.info("%s", msg)


class _Watch:
    """Which callbacks are open, and were created by an invocation that has ended."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.invoking: set[str] = set()
        self.invocations: dict[str, int] = {}

    def told(self, execution_id: str, what: str) -> None:
        with self.condition:
            if what == "start":
                self.invoking.add(execution_id)
                self.invocations[execution_id] = self.invocations.get(execution_id, 0) + 1
            else:
                self.invoking.discard(execution_id)
            self.condition.notify_all()


class DurableFunctionTestRunner:
    """Runs one handler. A context manager; `close` ends what still runs.

    Args:
        handler: a durable handler, or a plain `(event, context)` function.
        poll_interval: kept for ported code; nothing polls that slowly here.
        max_invocation_page_bytes: kept for ported code.
        execution_timeout: seconds after which `run` gives up.
        invocation_timeout: kept for ported code.
        store: a journal, or the directory or file of one; None keeps everything in memory.
        skip_time: let waits and retry delays pass at once.
        region: part of the execution's ARN.
        skip_callback_timeouts: let limits of callbacks pass at once too.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        poll_interval: float = 1.0,  # noqa: ARG002
        max_invocation_page_bytes: int | None = None,  # noqa: ARG002
        execution_timeout: float = DEFAULT_TIMEOUT_SECONDS,
        invocation_timeout: float = 900,  # noqa: ARG002
        store: Journal | str | os.PathLike[str] | None = None,
        skip_time: bool = True,
        region: str = "us-west-2",
        *,
        skip_callback_timeouts: bool = False,
    ) -> None:
        self.handler = handler if isinstance(handler, DurableHandler) else DurableHandler(handler)
        self._timeout = execution_timeout
        self._region = region
        self._owns_journal = not isinstance(store, Journal)
        self.journal: Journal = _journal(store)
        self.clock: EngineClock = VirtualClock(skip_outside=skip_callback_timeouts) if skip_time else SystemClock()
        self._registry = Registry(HANDLERS)
        self._watch = _Watch()
        self._places: dict[str, tuple[str, str, str]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._errors: dict[str, BaseException] = {}
        self._fault: Callable[[JournalRecorder], JournalRecorder] | None = None
        self.driver = Driver(
            self.journal,
            self.clock,
            self._registry,
            arn_of=self.arn_of,
            on_invocation=self._watch.told,
            lambda_context_of=self._lambda_context,
            wrap_recorder=self._wrap,
        )

    # --- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop what still runs, and forget it all."""
        for arn, thread in self._threads.items():
            if thread.is_alive():
                record = self._record(arn)
                if not record.status.is_terminal:
                    self.driver.stop(record, "the test runner was closed")
                thread.join(5.0)
        self._threads.clear()
        if self._owns_journal:
            self.journal.close()

    def register_durable_function(
        self,
        function_name: str,
        handler: Callable[..., Any],
        execution_timeout: int = 120,  # noqa: ARG002
        retention_period_days: int = 1,  # noqa: ARG002
    ) -> Self:
        """Let `context.invoke(function_name)` run a durable handler."""
        durable = handler if isinstance(handler, DurableHandler) else DurableHandler(handler)
        self._registry.register(function_name, durable)
        return self

    def register_function(self, function_name: str, handler: Callable[..., Any]) -> Self:
        """Let `context.invoke(function_name)` run a plain function `(event, lambda_context)`."""
        self._registry.register(function_name, handler)
        return self

    # --- running ---------------------------------------------------------------------------------------------------

    def run(
        self,
        input: Any = None,  # noqa: A002 - the name of the mirrored interface
        execution_timeout: float | None = None,
        timeout: float | None = None,
        function_name: str = "test-function",
        execution_name: str = "execution-name",
        account_id: str = "123456789012",
        tenant_id: str | None = None,  # noqa: ARG002
        *,
        callbacks: Mapping[str, Callable[..., Any]] | None = None,
        fault: Callable[[JournalRecorder], JournalRecorder] | None = None,
    ) -> DurableFunctionTestResult:
        """Run the handler to its end.

        Args:
            input: a value, or JSON text.
            execution_timeout: seconds, instead of the runner's.
            timeout: the same.
            function_name: part of the execution's ARN.
            execution_name: part of the execution's ARN.
            account_id: part of the execution's ARN.
            tenant_id: kept for ported code.
            callbacks: by the name of a callback, what completes it: a function (of nothing, or of the callback's id)
            whose
                result is sent, or whose error is.
            fault: wraps the recorder; see `durable_nb.testing.faults`.

        Raises:
            TimeoutError: it is not over in time.
        """
        arn = self._start(input, function_name, execution_name, account_id)
        limit = _first(execution_timeout, timeout, self._timeout)
        if callbacks:
            self._drive_in_thread(arn)
            self._answer(arn, callbacks, time.monotonic() + limit)
            return self.wait_for_result(arn, limit)
        self._fault = fault
        try:
            self.driver.drive(self._record(arn), self.handler, timeout=limit)
        finally:
            self._fault = None
        return self.result_of(arn)

    def resume(
        self,
        execution_arn: str | None = None,
        *,
        timeout: float | None = None,
        fault: Callable[[JournalRecorder], JournalRecorder] | None = None,
    ) -> DurableFunctionTestResult:
        """Go on with an execution that a fault ended (the last one, unless its ARN is given)."""
        arn = execution_arn or next(reversed(self._places))
        self._fault = fault
        try:
            self.driver.drive(self._record(arn), self.handler, timeout=_first(timeout, self._timeout))
        finally:
            self._fault = None
        return self.result_of(arn)

    def run_async(
        self,
        input: Any = None,  # noqa: A002
        execution_timeout: float | None = None,
        timeout: float | None = None,
        function_name: str = "test-function",
        execution_name: str = "execution-name",
        account_id: str = "123456789012",
        tenant_id: str | None = None,  # noqa: ARG002
    ) -> str:
        """Start the handler; returns the execution's ARN."""
        arn = self._start(input, function_name, execution_name, account_id)
        self._drive_in_thread(arn, _first(execution_timeout, timeout, self._timeout))
        return arn

    def wait_for_result(self, execution_arn: str, timeout: float = 60) -> DurableFunctionTestResult:
        """The result of an execution that was started."""
        record = self._record(execution_arn)
        thread = self._threads.get(execution_arn)
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError("Execution did not complete within timeout")
            error = self._errors.pop(execution_arn, None)
            if error is not None:
                raise error
        elif not record.status.is_terminal:
            self.driver.drive(record, self.handler, timeout=timeout)
        return self.result_of(execution_arn)

    def wait_for_callback(self, execution_arn: str, name: str | None = None, timeout: float = 60) -> str:
        """The id of the latest open callback (of that name) whose creating invocation has ended."""
        record = self._record(execution_arn)
        deadline = time.monotonic() + timeout
        with self._watch.condition:
            while True:
                found = self._open_callback(record.execution_id, name)
                if found is not None:
                    return found
                if self.journal_status(record).is_terminal:
                    raise DurableFunctionsTestError(f"the execution ended without a callback {name or ''}".rstrip())
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"Callback did not become available within {timeout:g}s")
                self._watch.condition.wait(min(left, _POLL_SECONDS))

    def send_callback_success(self, callback_id: str, result: bytes | str | None = None) -> None:
        """Complete a callback."""
        self._send(lambda sender: sender.success(callback_id, result))

    def send_callback_failure(self, callback_id: str, error: ErrorObject | None = None) -> None:
        """Let a callback fail."""
        self._send(lambda sender: sender.failure(callback_id, error))

    def send_callback_heartbeat(self, callback_id: str) -> None:
        """Say that the work behind a callback goes on."""
        self._send(lambda sender: sender.heartbeat(callback_id))

    def _send(self, act: Callable[[CallbackSender], None]) -> None:
        try:
            act(CallbackSender(self.journal, self.clock))
        except DurableExecutionsError as error:
            raise ResourceNotFoundException(f"the callback cannot be completed: {error}") from error

    # --- results ---------------------------------------------------------------------------------------------------

    def result_of(self, execution_arn: str) -> DurableFunctionTestResult:
        """What an execution has recorded so far."""
        record = self._record(execution_arn)
        end = self.driver.result(record.execution_id)
        states = list(self.states(record.execution_id).values())
        serdes: SerDes[Any] = self.handler.serdes or DEFAULT_JSON_SERDES
        value, payload = None, None
        if end.status is Status.SUCCEEDED and end.encoded is not None:
            value, payload = self.handler.value_of(end), end.encoded.text
        status = end.status
        if status not in (Status.SUCCEEDED, Status.FAILED):
            status = InvocationStatus.FAILED if status.is_terminal else InvocationStatus.PENDING
        return DurableFunctionTestResult(
            status,
            tree(states, serdes),
            value,
            end.failure.to_error_object() if end.failure else None,
            end.status,
            payload=payload,
        )

    def states(self, execution_id: str) -> dict[str, OperationState]:
        """The operations of an execution by id, in the order of the history."""
        states: dict[str, OperationState] = {}
        for stored in self.journal.read(execution_id):
            event = stored.event
            if event.type is not OperationType.EXECUTION:
                states[event.operation_id] = advance(states.get(event.operation_id), event, trusted=stored.trusted)
        return states

    # --- inside ----------------------------------------------------------------------------------------------------

    def _start(self, given: Any, function_name: str, execution_name: str, account_id: str) -> str:
        name = f"{execution_name}/{uuid.uuid4()}"
        record = self.driver.create(name, self.handler.name, _event_text(given))
        self._places[record.execution_id] = (function_name, execution_name, account_id)
        arn = self.arn_of(record)
        self._places[arn] = self._places.pop(record.execution_id)
        return arn

    def arn_of(self, record: ExecutionRecord) -> str:
        """What user code sees as the execution's id."""
        place = self._places.get(record.execution_id) or next(
            (value for key, value in self._places.items() if key.endswith(record.execution_id)), None
        )
        function, execution, account = place or (str(record.details.get("handler", "function")), record.name, "0")
        function = function.replace(":", "-")
        prefix = f"arn:aws:lambda:{self._region}:{account}:function:{function}:$LATEST"
        return f"{prefix}/durable-execution/{execution.replace('/', '-')}/{record.execution_id}"

    def _record(self, execution_arn: str) -> ExecutionRecord:
        record = self.journal.get(execution_arn.rpartition("/")[2])
        if record is None:
            raise ResourceNotFoundException("execution does not exist.")
        return record

    def journal_status(self, record: ExecutionRecord) -> Status:
        """The status in the journal now."""
        fresh = self.journal.get(record.execution_id)
        return record.status if fresh is None else fresh.status

    def _lambda_context(self, record: ExecutionRecord) -> TestLambdaContext:
        return TestLambdaContext(invoked_function_arn=self.arn_of(record))

    def _wrap(self, recorder: JournalRecorder) -> JournalRecorder:
        return self._fault(recorder) if self._fault is not None else recorder

    def _drive_in_thread(self, arn: str, timeout: float | None = None) -> None:
        record = self._record(arn)

        def work() -> None:
            try:
                self.driver.drive(record, self.handler, timeout=timeout)
            except BaseException as error:  # noqa: BLE001 - raised by wait_for_result
                self._errors[arn] = error

        thread = threading.Thread(target=work, name=f"test execution {record.name}", daemon=True)
        self._threads[arn] = thread
        thread.start()

    def _open_callback(self, execution_id: str, name: str | None) -> str | None:
        if execution_id in self._watch.invoking:
            return None
        for state in reversed(list(self.states(execution_id).values())):
            is_open = state.operation_type is OperationType.CALLBACK and not state.status.is_terminal
            if is_open and _is_named(state.name, name):
                return str(state.details["callback_id"])
        return None

    def _answer(self, arn: str, callbacks: Mapping[str, Callable[..., Any]], deadline: float) -> None:
        """Complete callbacks as they come up, until the execution is over."""
        record = self._record(arn)
        answered: set[str] = set()
        thread = self._threads[arn]
        while thread.is_alive():
            with self._watch.condition:
                found = None
                for name in callbacks:
                    callback_id = self._open_callback(record.execution_id, name)
                    if callback_id is not None and callback_id not in answered:
                        found = name, callback_id
                        break
                if found is None:
                    if time.monotonic() > deadline:
                        raise TimeoutError("Execution did not complete within timeout")
                    self._watch.condition.wait(_POLL_SECONDS)
                    continue
            answered.add(found[1])
            self._answer_one(found[1], callbacks[found[0]])

    def _answer_one(self, callback_id: str, answer: Callable[..., Any]) -> None:
        takes_id = bool(inspect.signature(answer).parameters)
        try:
            value = answer(callback_id) if takes_id else answer()
        except Exception as error:  # noqa: BLE001 - the error is the answer
            self.send_callback_failure(callback_id, ErrorObject.from_exception(error))
            return
        if value is None or isinstance(value, (bytes, str)):
            self.send_callback_success(callback_id, value)
        else:
            self.send_callback_success(callback_id, json.dumps(value).encode("utf-8"))


class DurableChildContextTestRunner(DurableFunctionTestRunner):
    """Runs a function of a child context, as the only thing that a handler does."""

    def __init__(
        self,
        context_function: Callable[Concatenate[DurableContext, P], Any],
        *args: Any,
        skip_time: bool = True,
        **kwargs: Any,
    ) -> None:
        decorated = hasattr(
            context_function, "__wrapped__"
        )  # by durable_with_child_context: it takes only the arguments
        function: Callable[..., Any] = context_function

        def handler(event: Any, context: DurableContext) -> Any:  # noqa: ARG001
            return function(*args, **kwargs)(context) if decorated else function(context, *args, **kwargs)

        super().__init__(handler, skip_time=skip_time)


class DurableFunctionCloudTestRunner:
    """Runs functions that are deployed on the hosted service. There is no such service here, so it cannot be made.

    The name is here so that test helpers which choose a runner by a setting can be imported after porting.
    """

    def __init__(self, function_name: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        raise DurableFunctionsTestError(
            f"{function_name!r}: the hosted service cannot be reached from here, use DurableFunctionTestRunner(handler)"
        )


def _is_named(found: str | None, wanted: str | None) -> bool:
    return wanted is None or found in (wanted, f"{wanted} create callback id")


def _first(*values: float | None) -> float:
    for value in values:
        if value is not None:
            return value
    raise ValidationError("a time-out is needed")


def _event_text(given: Any) -> str:
    if isinstance(given, str):
        if not given.strip():
            return "{}"
        try:
            json.loads(given)
        except ValueError:
            return json.dumps(given)  # a string that is no JSON text is a value like any other
        return given
    return event_text(given)


def _journal(store: Journal | str | os.PathLike[str] | None) -> Journal:
    from durable_nb.journal import MemoryJournal, SqliteJournal

    if isinstance(store, Journal):
        return store
    if store is None:
        return MemoryJournal()
    place = Path(store)
    return SqliteJournal(place / "journal.db" if place.is_dir() or not place.suffix else place)


__all__ = [
    "CallbackOperation",
    "ContextOperation",
    "DurableChildContextTestRunner",
    "DurableFunctionCloudTestRunner",
    "DurableFunctionTestResult",
    "DurableFunctionTestRunner",
    "ExecutionOperation",
    "InvocationStatus",
    "InvokeOperation",
    "Operation",
    "StepOperation",
    "TestLambdaContext",
    "WaitOperation",
]
