"""The parts of the wire model: errors, and what each kind of operation and update carries."""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from durable_nb.events import Status
from durable_nb.exceptions import (
    CallbackError,
    CallbackExternalError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    ChildContextError,
    DurableOperationError,
    InvokeError,
    SerDesError,
    StepError,
    WaitForConditionError,
)
from durable_nb.sdk._qualify import qualified_name

OperationStatus = Status
InvocationStatus = Status
OperationPayload = str
Wire = MutableMapping[str, Any]

_OPERATION_ERRORS: dict[str, type[DurableOperationError]] = {}


def register_operation_error(error_cls: type[DurableOperationError]) -> None:
    """Let a recorded error of this type come back as this class."""
    _OPERATION_ERRORS[qualified_name(error_cls)] = error_cls


for _operation_error in (
    StepError,
    InvokeError,
    ChildContextError,
    WaitForConditionError,
    CallbackError,
    CallbackExternalError,
    CallbackTimeoutError,
    CallbackSubmitterError,
):
    register_operation_error(_operation_error)


@dataclass(frozen=True)
class ErrorObject:
    """An error on the wire. `str()` of it is `Type: message`, with the type that the user's code raised."""

    message: str | None
    type: str | None
    data: str | None
    stack_trace: list[str] | None
    original_type: str | None = field(default=None, compare=False, repr=False)
    """The type raised by user code, when `type` is the operation error around it; not part of the wire form."""

    def __str__(self) -> str:
        kind = self.original_type or self.type
        parts = [part for part in (kind.rpartition(".")[2] if kind else None, self.message) if part]
        return ": ".join(parts)

    @classmethod
    def from_exception(cls, exception: BaseException) -> ErrorObject:
        """The error that `exception` becomes; errors of operations keep their data and stack trace."""
        original = getattr(exception, "original_type", None)
        if isinstance(exception, (DurableOperationError, SerDesError)):
            return cls(
                message=exception.message if exception.message is not None else str(exception),
                type=qualified_name(type(exception)),
                data=exception.data,
                stack_trace=exception.stack_trace,
                original_type=original if isinstance(original, str) else None,
            )
        return cls(message=str(exception), type=qualified_name(type(exception)), data=None, stack_trace=None)

    @classmethod
    def from_message(cls, message: str) -> ErrorObject:
        """An error that is only a message."""
        return cls(message=message, type=None, data=None, stack_trace=None)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ErrorObject:
        """From the wire form."""
        return cls(
            message=data.get("ErrorMessage"),
            type=data.get("ErrorType"),
            data=data.get("ErrorData"),
            stack_trace=data.get("StackTrace"),
        )

    def to_dict(self) -> Wire:
        """The wire form: only what is there."""
        return present(ErrorMessage=self.message, ErrorType=self.type, ErrorData=self.data, StackTrace=self.stack_trace)

    def to_durable_operation_error(self) -> DurableOperationError:
        """An operation error with these fields, of the recorded class where that is one of the SDK's."""
        cls = _OPERATION_ERRORS.get(self.type or "", DurableOperationError)
        return cls.from_error_fields(self.type, self.message, self.data, self.stack_trace)

    def raise_as_operation_error(self, operation_error_cls: builtins.type[DurableOperationError]) -> NoReturn:
        """Raise as `operation_error_cls`, caused by a stand-in for what was recorded."""
        error = operation_error_cls.from_error_fields(self.type, self.message, self.data, self.stack_trace)
        raise error from self.to_durable_operation_error()


def present(**fields: Any) -> Wire:
    """Only the fields that are there."""
    return {key: value for key, value in fields.items() if value is not None}


def error_from(data: Mapping[str, Any]) -> ErrorObject | None:
    """The error of a wire form, if it has one."""
    found = data.get("Error")
    return ErrorObject.from_dict(found) if found else None


def error_dict(error: ErrorObject | None) -> Wire | None:
    """The wire form of an error, if there is one."""
    return error.to_dict() if error else None


@dataclass(frozen=True)
class ExecutionDetails:
    """Of the EXECUTION operation."""

    input_payload: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ExecutionDetails:
        """From the wire form."""
        return cls(input_payload=data.get("InputPayload"))

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(InputPayload=self.input_payload)


@dataclass(frozen=True)
class ContextDetails:
    """Of a CONTEXT operation."""

    replay_children: bool = False
    result: str | None = None
    error: ErrorObject | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ContextDetails:
        """From the wire form."""
        return cls(replay_children=data.get("ReplayChildren", False), result=data.get("Result"), error=error_from(data))

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(Result=self.result, Error=error_dict(self.error), ReplayChildren=self.replay_children or None)


@dataclass(frozen=True)
class StepDetails:
    """Of a STEP operation."""

    attempt: int = 0
    next_attempt_timestamp: dt.datetime | None = None
    result: str | None = None
    error: ErrorObject | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepDetails:
        """From the wire form."""
        return cls(
            attempt=data.get("Attempt", 0),
            next_attempt_timestamp=data.get("NextAttemptTimestamp"),
            result=data.get("Result"),
            error=error_from(data),
        )

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(
            Attempt=self.attempt,
            NextAttemptTimestamp=self.next_attempt_timestamp,
            Result=self.result,
            Error=error_dict(self.error),
        )


@dataclass(frozen=True)
class WaitDetails:
    """Of a WAIT operation."""

    scheduled_end_timestamp: dt.datetime | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WaitDetails:
        """From the wire form."""
        return cls(scheduled_end_timestamp=data.get("ScheduledEndTimestamp"))

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(ScheduledEndTimestamp=self.scheduled_end_timestamp)


@dataclass(frozen=True)
class CallbackDetails:
    """Of a CALLBACK operation."""

    callback_id: str
    result: str | None = None
    error: ErrorObject | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CallbackDetails:
        """From the wire form."""
        return cls(callback_id=data["CallbackId"], result=data.get("Result"), error=error_from(data))

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(CallbackId=self.callback_id, Result=self.result, Error=error_dict(self.error))


@dataclass(frozen=True)
class ChainedInvokeDetails:
    """Of a CHAINED_INVOKE operation."""

    result: str | None = None
    error: ErrorObject | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChainedInvokeDetails:
        """From the wire form."""
        return cls(result=data.get("Result"), error=error_from(data))

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(Result=self.result, Error=error_dict(self.error))


@dataclass(frozen=True)
class StepOptions:
    """Of a RETRY update."""

    next_attempt_delay_seconds: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepOptions:
        """From the wire form."""
        return cls(data.get("NextAttemptDelaySeconds", 0))

    def to_dict(self) -> Wire:
        """The wire form."""
        return {"NextAttemptDelaySeconds": self.next_attempt_delay_seconds}


@dataclass(frozen=True)
class WaitOptions:
    """Of the START of a wait."""

    wait_seconds: int = 1

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WaitOptions:
        """From the wire form."""
        return cls(data.get("WaitSeconds", 1))

    def to_dict(self) -> Wire:
        """The wire form."""
        return {"WaitSeconds": self.wait_seconds}


@dataclass(frozen=True)
class CallbackOptions:
    """Of the START of a callback."""

    timeout_seconds: int = 0
    heartbeat_timeout_seconds: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CallbackOptions:
        """From the wire form."""
        return cls(data.get("TimeoutSeconds", 0), data.get("HeartbeatTimeoutSeconds", 0))

    def to_dict(self) -> Wire:
        """The wire form."""
        return {"TimeoutSeconds": self.timeout_seconds, "HeartbeatTimeoutSeconds": self.heartbeat_timeout_seconds}


@dataclass(frozen=True)
class ChainedInvokeOptions:
    """Of the START of an invoke."""

    function_name: str
    tenant_id: str | None = None
    x_amzn_trace_id: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChainedInvokeOptions:
        """From the wire form."""
        return cls(data["FunctionName"], data.get("TenantId"), data.get("XAmznTraceId"))

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(FunctionName=self.function_name, TenantId=self.tenant_id, XAmznTraceId=self.x_amzn_trace_id)


@dataclass(frozen=True)
class ContextOptions:
    """Of the SUCCEED of a context."""

    replay_children: bool = False

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ContextOptions:
        """From the wire form."""
        return cls(data.get("ReplayChildren", False))

    def to_dict(self) -> Wire:
        """The wire form."""
        return {"ReplayChildren": self.replay_children}
