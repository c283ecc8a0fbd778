"""The whole error tree. Standard library only, so that anything may import it.

Three families under `DurableExecutionsError`: you called it wrong (`ValidationError`, `InvalidStateError`), history and
code disagree (`NonDeterministicExecutionError`, `StepChangedError`, `StepInterruptedError`), the store failed
(`StoreError`). Only suspension, which user code must not catch, derives from `BaseException`.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, Self


class DurableExecutionsError(Exception):
    """Root of everything durable_nb raises."""


class ValidationError(DurableExecutionsError):
    """Raised when an argument, option or configuration value is wrong."""


class InvalidStateError(DurableExecutionsError):
    """Raised when an object is used in a state that does not allow it."""


# --- The store -------------------------------------------------------------------------------------------------


class StoreError(DurableExecutionsError):
    """Root of what can be wrong with a store."""


def _is_damage(why: str) -> bool:
    return "malformed" in why or "not a database" in why


class StoreUnreadableError(StoreError):
    """Raised when a store cannot be opened."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(place, why)
        self.place, self.why = place, why

    def __str__(self) -> str:
        cure = "; to keep what can be read of it: durable-nb verify --repair" if _is_damage(self.why) else ""
        return f"cannot open the store {self.place}: {self.why}{cure}"


class StoreMissingError(StoreUnreadableError):
    """Raised when a store is to be opened that nobody has made yet."""


class StoreVersionError(StoreError):
    """Raised when a store was written by a newer durable_nb."""

    def __init__(self, place: str, found: int, known: int) -> None:
        super().__init__(place, found, known)
        self.place, self.found, self.known = place, found, known

    def __str__(self) -> str:
        return (
            f"the store {self.place} has format {self.found}, this durable_nb reads up to {self.known}: "
            "upgrade durable_nb, or name another store"
        )


class JournalConflictError(StoreError):
    """Raised by `Journal.append` when another process wrote to this execution first."""

    def __init__(self, execution_id: str, expected: int, found: int) -> None:
        super().__init__(execution_id, expected, found)
        self.execution_id, self.expected, self.found = execution_id, expected, found

    def __str__(self) -> str:
        return f"execution {self.execution_id!r} is at event {self.found}, not {self.expected}"


class LeaseHeldError(StoreError):
    """Raised by `Journal.acquire` when a live process holds the execution."""

    def __init__(self, execution_id: str, holder: str) -> None:
        super().__init__(execution_id, holder)
        self.execution_id, self.holder = execution_id, holder

    def __str__(self) -> str:
        return f"execution {self.execution_id!r} is held by {self.holder}"


class LeaseLostError(StoreError):
    """Raised by a write whose lease another owner has taken since."""

    def __init__(self, execution_id: str, token: int) -> None:
        super().__init__(execution_id, token)
        self.execution_id, self.token = execution_id, token

    def __str__(self) -> str:
        return f"execution {self.execution_id!r} has another owner now (token {self.token} is no longer valid)"


class MissingBlobError(StoreError):
    """Raised when a checkpoint names bytes that are not in the store."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"blob {self.address[:16]}… is not in the store"


class DamagedBlobError(StoreError):
    """Raised when stored bytes do not match their address."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"blob {self.address[:16]}… is damaged: its bytes do not match its address"


class UntrustedCheckpointError(StoreError):
    """Raised when a checkpoint's signature was not made with a key of this user or team."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} was not signed with your key: its values are not loaded (see durable-nb verify and trust)"


class LostValueError(StoreError):
    """Raised when a replayed value that waited to be loaded cannot be, though its bytes were there."""

    def __init__(self, name: str, cell: str, why: str) -> None:
        super().__init__(name, cell, why)
        self.name, self.cell, self.why = name, cell, why

    def __str__(self) -> str:
        return f"{self.name}, which cell {self.cell!r} made, cannot be loaded from its checkpoint: {self.why}"


class NotStorableError(DurableExecutionsError):
    """Raised when a value cannot be stored and given back faithfully."""

    def __init__(self, name: str, type_name: str, path: str, why: str) -> None:
        super().__init__(name, type_name, path, why)
        self.name, self.type_name, self.path, self.why = name, type_name, path, why

    def __str__(self) -> str:
        return f"{self.path} ({self.type_name}) cannot be stored: {self.why}"


# --- History and code disagree -----------------------------------------------------------------------------------


class StepChangedError(DurableExecutionsError):
    """Raised when an at-most-once step was completed with other inputs than it has now."""

    def __init__(self, name: str, difference: str) -> None:
        super().__init__(name, difference)
        self.name, self.difference = name, difference

    def __str__(self) -> str:
        return f"step {self.name!r} ran at most once already, with other inputs: {self.difference}"


class StepTimeoutError(DurableExecutionsError):
    """Raised in a step whose attempt exceeded its time-out."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name, seconds)
        self.name, self.seconds = name, seconds

    def __str__(self) -> str:
        return f"{self.name} took longer than its time-out of {self.seconds:g} s"


class CannotTravelError(DurableExecutionsError):
    """Raised when a body, or its result, cannot be sent between this process and a cluster; never retried."""

    def __init__(self, step: str, place: str, why: str) -> None:
        super().__init__(step, place, why)
        self.step, self.place, self.why = step, place, why

    def __str__(self) -> str:
        return f"{self.step!r} cannot run on {self.place}: {self.why}"


class WorkerLostError(DurableExecutionsError):
    """Raised when the process that ran a body was lost, and the body is not begun in another one."""

    def __init__(self, step: str, place: str, why: str) -> None:
        super().__init__(step, place, why)
        self.step, self.place, self.why = step, place, why

    def __str__(self) -> str:
        return f"the worker that ran {self.step!r} on {self.place} was lost: {self.why}"


# --- Durable executions (the SDK's tree) --------------------------------------------------------------------------


class TerminationReason(Enum):
    """Why an execution or invocation ended without a result."""

    UNHANDLED_ERROR = "UNHANDLED_ERROR"
    INVOCATION_ERROR = "INVOCATION_ERROR"
    EXECUTION_ERROR = "EXECUTION_ERROR"
    CHECKPOINT_FAILED = "CHECKPOINT_FAILED"
    NON_DETERMINISTIC_EXECUTION = "NON_DETERMINISTIC_EXECUTION"
    STEP_INTERRUPTED = "STEP_INTERRUPTED"
    SERIALIZATION_ERROR = "SERIALIZATION_ERROR"


class UnrecoverableError(DurableExecutionsError):
    """Root of errors that end the invocation or the execution whatever the retry strategy says."""

    def __init__(self, message: str, termination_reason: TerminationReason) -> None:
        super().__init__(message)
        self.termination_reason = termination_reason

    def __reduce__(self) -> tuple[Any, ...]:
        # `args` holds only the message (users compare it), so pickling rebuilds around the constructor.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class ExecutionError(UnrecoverableError):
    """Raised when the execution must fail now: it ends FAILED and no step retries it."""

    def __init__(self, message: str, termination_reason: TerminationReason = TerminationReason.EXECUTION_ERROR) -> None:
        super().__init__(message, termination_reason)


class NonDeterministicExecutionError(ExecutionError):
    """Raised when the code asks for another operation than the history has at this place."""

    def __init__(self, message: str, step_id: str | None = None) -> None:
        super().__init__(message, TerminationReason.NON_DETERMINISTIC_EXECUTION)
        self.step_id = step_id


class InvocationError(UnrecoverableError):
    """Raised when this invocation cannot go on; the driver invokes the handler again."""

    def __init__(
        self, message: str, termination_reason: TerminationReason = TerminationReason.INVOCATION_ERROR
    ) -> None:
        super().__init__(message, termination_reason)

    def is_retryable(self) -> bool:
        """Whether another invocation may succeed."""
        return True


class StepInterruptedError(InvocationError):
    """Given to the retry strategy (or raised) when an at-most-once body was started and its end is not known."""

    def __init__(self, message: str, step_id: str | None = None) -> None:
        super().__init__(message, TerminationReason.STEP_INTERRUPTED)
        self.step_id = step_id


class ExecutorError(InvocationError):
    """Raised when the executor of a batch cannot run anything now. Nothing is recorded: what was done stays done."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place} cannot be used: {why}; run it again when it can, and only what is not done runs")
        self.place, self.why = place, why


class RetryableSerDesError(InvocationError):
    """Raised by a serdes whose failure is passing (a full disk, a network): the invocation is tried again."""

    def __init__(
        self, message: str, termination_reason: TerminationReason = TerminationReason.SERIALIZATION_ERROR
    ) -> None:
        super().__init__(message, termination_reason)


class DurableApiErrorCategory(Enum):
    """What a failed call to a checkpoint service ends: the invocation only, or the whole execution."""

    INVOCATION = "INVOCATION"
    EXECUTION = "EXECUTION"


CheckpointErrorCategory = DurableApiErrorCategory

_PERMANENT_KEY_ERRORS = frozenset(
    {"KMSDisabledException", "KMSAccessDeniedException", "KMSNotFoundException", "KMSInvalidStateException"}
)


class BotoClientError(InvocationError):
    """Raised when a call to a remote checkpoint service failed."""

    def __init__(
        self,
        message: str,
        error_category: DurableApiErrorCategory = DurableApiErrorCategory.INVOCATION,
        error: Mapping[str, Any] | None = None,
        response_metadata: Mapping[str, Any] | None = None,
        termination_reason: TerminationReason = TerminationReason.INVOCATION_ERROR,
    ) -> None:
        super().__init__(message, termination_reason)
        self.error_category = error_category
        self.error = error
        self.response_metadata = response_metadata

    @classmethod
    def from_exception(cls, exception: Exception) -> Self:
        """The error of a client exception that carries a botocore-like `response`."""
        response: Mapping[str, Any] = getattr(exception, "response", None) or {}
        error, metadata = response.get("Error"), response.get("ResponseMetadata")
        return cls(
            str(exception),
            error_category=_api_error_category(error, metadata),
            error=error,
            response_metadata=metadata,
        )

    def is_retryable(self) -> bool:
        """False when the same call would fail in the same way."""
        return self.error_category is DurableApiErrorCategory.INVOCATION

    def build_logger_extras(self) -> dict[str, Any]:
        """What a log record about this error should carry."""
        extras: dict[str, Any] = {}
        if self.error:
            extras["Error"] = self.error
        if self.response_metadata:
            extras["ResponseMetadata"] = self.response_metadata
        return extras


def _api_error_category(error: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None) -> DurableApiErrorCategory:
    code = (error or {}).get("Code", "")
    if code in _PERMANENT_KEY_ERRORS:
        return DurableApiErrorCategory.EXECUTION
    status = (metadata or {}).get("HTTPStatusCode") or 0
    client_fault = 400 <= status < 500 and status != 429
    # A stale token says only that this invocation was overtaken: the next one reads a new token.
    stale_token = code == "InvalidParameterValueException" and str((error or {}).get("Message") or "").startswith(
        "Invalid Checkpoint Token"
    )
    if client_fault and not stale_token:
        return DurableApiErrorCategory.EXECUTION
    return DurableApiErrorCategory.INVOCATION


class CheckpointError(BotoClientError):
    """Raised when a checkpoint could not be written to a remote service."""

    def __init__(
        self,
        message: str,
        error_category: DurableApiErrorCategory = DurableApiErrorCategory.INVOCATION,
        error: Mapping[str, Any] | None = None,
        response_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, error_category, error, response_metadata, TerminationReason.CHECKPOINT_FAILED)


class GetExecutionStateError(BotoClientError):
    """Raised when the history could not be read from a remote service."""

    def __init__(
        self,
        message: str,
        error_category: DurableApiErrorCategory = DurableApiErrorCategory.INVOCATION,
        error: Mapping[str, Any] | None = None,
        response_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, error_category, error, response_metadata, TerminationReason.INVOCATION_ERROR)


class DurableOperationError(DurableExecutionsError):
    """Root of errors of a recorded operation. Also the stand-in that is the `__cause__` of such errors."""

    original_type: str | None = None
    """Name of the type that user code raised; None where there is no record of it."""

    def __init__(
        self,
        message: str | None = None,
        error_type: str | None = None,
        data: str | None = None,
        stack_trace: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_type = error_type
        self.data = data
        self.stack_trace = stack_trace

    @classmethod
    def from_error_fields(
        cls, error_type: str | None, message: str | None, data: str | None, stack_trace: list[str] | None
    ) -> Self:
        """The error whose recorded fields are these."""
        return cls(message=message, error_type=error_type, data=data, stack_trace=stack_trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class StepError(DurableOperationError):
    """Raised when a step finally failed. It is also an instance of the type that the step raised, where possible."""


class InvokeError(DurableOperationError):
    """Raised when an invoked function failed, timed out or was stopped."""


class ChildContextError(DurableOperationError):
    """Raised when a child context or a map or parallel item failed."""


class WaitForConditionError(DurableOperationError):
    """Raised when a check failed, or its attempts are over and the condition does not hold."""


class CallbackError(DurableOperationError):
    """Root of what can go wrong with a callback."""


class CallbackExternalError(CallbackError):
    """Raised when the outside reported a failure, or the callback was cancelled or stopped."""


class CallbackTimeoutError(CallbackError):
    """Raised when the callback's time-out or heartbeat time-out passed."""


class CallbackSubmitterError(CallbackError):
    """Raised when the function that hands out the callback's id failed."""


class SerDesError(DurableExecutionsError):
    """Raised when a value cannot be serialized or a payload cannot be read; never retried."""

    def __init__(
        self,
        message: str | None = None,
        error_type: str | None = None,
        data: str | None = None,
        stack_trace: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_type = error_type
        self.data = data
        self.stack_trace = stack_trace

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class OrderedLockError(DurableExecutionsError):
    """Raised by a lock that broke because an earlier holder failed."""

    def __init__(self, message: str, source_exception: Exception | None = None) -> None:
        super().__init__(message)
        self.source_exception = source_exception


class PluginLoadError(DurableExecutionsError):
    """Raised when a configured plugin is not there or is no plugin."""


class ExecutionConflictError(DurableExecutionsError):
    """Raised when a name already belongs to an execution with another handler or another input."""

    def __init__(self, name: str, difference: str) -> None:
        super().__init__(name, difference)
        self.name, self.difference = name, difference

    def __str__(self) -> str:
        return (
            f"execution {self.name!r} exists with {self.difference}: "
            "use another name, or `durable-nb forget` to start again"
        )


class ExecutionFailedError(DurableOperationError):
    """Raised by `handler.run` when the execution did not succeed; also an instance of the type that ended it."""

    execution_name: str | None = None
    status: str | None = None
    """FAILED, TIMED_OUT, STOPPED or CANCELLED."""


class NestedOperationError(InvalidStateError, ExecutionError):
    """Raised when a durable operation is asked for inside the body of a step: steps are leaves."""

    def __init__(self, operation: str, step: str | None) -> None:
        ExecutionError.__init__(
            self,
            f"context.{operation} was called inside the step {step or '(unnamed)'!r}: a step is a leaf; "
            "use run_in_child_context to group operations",
        )


class RemoteBodyError(NestedOperationError):
    """Raised when a body that runs on a cluster uses what is only there where the handler or the cell runs."""

    def __init__(self, what: str, step: str | None) -> None:
        ExecutionError.__init__(
            self,
            f"{what} cannot be used in the body of {step or 'a step'!r}, which runs on a cluster, away from the "
            "journal: give the body plain values, and ask for durable operations outside of steps",
        )


# --- Control flow that user code must not catch ---------------------------------------------------------------------


class SuspendExecution(BaseException):  # noqa: N818 - the name is part of the mirrored interface
    """Ends an invocation that waits. Derives from `BaseException` so that `except Exception` does not see it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class TimedSuspendExecution(SuspendExecution):
    """A suspension that ends by itself at a known time."""

    def __init__(self, message: str, scheduled_timestamp: float) -> None:
        super().__init__(message)
        self.scheduled_timestamp = scheduled_timestamp

    @classmethod
    def from_delay(cls, message: str, delay_seconds: int) -> Self:
        """Suspend for `delay_seconds` from now, by the wall clock."""
        return cls(message, time.time() + delay_seconds)

    @classmethod
    def from_datetime(cls, message: str, datetime_timestamp: dt.datetime) -> Self:
        """Suspend until a moment."""
        return cls(message, datetime_timestamp.timestamp())


class BackgroundThreadError(BaseException):
    """Raised in user threads when the store failed under a checkpoint that they wait for."""

    def __init__(self, message: str, source_exception: Exception) -> None:
        super().__init__(message)
        self.source_exception = source_exception


class OrphanedChildException(BaseException):  # noqa: N818 - the name is part of the mirrored interface
    """Ends a branch whose parent operation has finished without it."""

    def __init__(self, message: str, operation_id: str) -> None:
        super().__init__(message)
        self.operation_id = operation_id


def _rebuild(cls: type[BaseException], args: tuple[Any, ...], state: Mapping[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
