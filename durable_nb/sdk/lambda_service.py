"""The wire model: operations, updates and errors as a checkpoint service exchanges them.

Locally nothing of this travels. It is how operations are shown to tests and plugins, and what lets a handler run
against any `DurableServiceClient` (`execution.DurableExecutionInvocationInputWithClient`).
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Protocol, Self

from durable_nb.events import OperationType, Status
from durable_nb.exceptions import (
    CheckpointError,
    GetExecutionStateError,
)
from durable_nb.sdk._wire_parts import (
    CallbackDetails,
    CallbackOptions,
    ChainedInvokeDetails,
    ChainedInvokeOptions,
    ContextDetails,
    ContextOptions,
    ErrorObject,
    ExecutionDetails,
    InvocationStatus,
    OperationPayload,
    OperationStatus,
    StepDetails,
    StepOptions,
    WaitDetails,
    WaitOptions,
    Wire,
    error_dict,
    error_from,
    present,
    register_operation_error,
)
from durable_nb.sdk.identifier import OperationIdentifier


class OperationAction(Enum):
    """What an update does."""

    START = "START"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    RETRY = "RETRY"
    CANCEL = "CANCEL"


class OperationSubType(StrEnum):
    """The sub-types that the SDK itself uses; others are free text."""

    STEP = "Step"
    WAIT = "Wait"
    CALLBACK = "Callback"
    RUN_IN_CHILD_CONTEXT = "RunInChildContext"
    MAP = "Map"
    MAP_ITERATION = "MapIteration"
    PARALLEL = "Parallel"
    PARALLEL_BRANCH = "ParallelBranch"
    WAIT_FOR_CALLBACK = "WaitForCallback"
    WAIT_FOR_CONDITION = "WaitForCondition"
    CHAINED_INVOKE = "ChainedInvoke"


class CallbackTimeoutType(Enum):
    """Which of a callback's two limits passed."""

    TIMEOUT = "Callback.Timeout"
    HEARTBEAT = "Callback.Heartbeat"


class TimestampConverter:
    """Moments to milliseconds since the epoch and back."""

    @staticmethod
    def to_unix_millis(dt: dt.datetime | None) -> int | None:
        """Whole milliseconds."""
        return None if dt is None else int(dt.timestamp() * 1000)

    @staticmethod
    def from_unix_millis(ms: int | dt.datetime | None) -> dt.datetime | None:
        """A moment in UTC; one that is a moment already stays."""
        if isinstance(ms, dt.datetime):
            return ms
        return None if ms is None else dt.datetime.fromtimestamp(ms / 1000, tz=dt.UTC)


_DETAILS: dict[str, tuple[str, Any]] = {
    "ExecutionDetails": ("execution_details", ExecutionDetails),
    "ContextDetails": ("context_details", ContextDetails),
    "StepDetails": ("step_details", StepDetails),
    "WaitDetails": ("wait_details", WaitDetails),
    "CallbackDetails": ("callback_details", CallbackDetails),
    "ChainedInvokeDetails": ("chained_invoke_details", ChainedInvokeDetails),
}
_MOMENTS = ("StartTimestamp", "EndTimestamp")
_DETAIL_MOMENTS = (("StepDetails", "NextAttemptTimestamp"), ("WaitDetails", "ScheduledEndTimestamp"))


def sub_type_of(text: str | None) -> str | None:
    """The enum member where there is one, so that both spellings compare and print alike."""
    try:
        return OperationSubType(text) if text else None
    except ValueError:
        return text


@dataclass(frozen=True)
class Operation:
    """An operation and its state."""

    operation_id: str
    operation_type: OperationType
    status: Status
    parent_id: str | None = None
    name: str | None = None
    start_timestamp: dt.datetime | None = None
    end_timestamp: dt.datetime | None = None
    sub_type: str | None = None
    execution_details: ExecutionDetails | None = None
    context_details: ContextDetails | None = None
    step_details: StepDetails | None = None
    wait_details: WaitDetails | None = None
    callback_details: CallbackDetails | None = None
    chained_invoke_details: ChainedInvokeDetails | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the wire form."""
        return cls(
            operation_id=data["Id"],
            operation_type=OperationType(data["Type"]),
            status=Status(data["Status"]),
            parent_id=data.get("ParentId"),
            name=data.get("Name"),
            start_timestamp=data.get("StartTimestamp"),
            end_timestamp=data.get("EndTimestamp"),
            sub_type=sub_type_of(data.get("SubType")),
            **{attr: kind.from_dict(data[key]) for key, (attr, kind) in _DETAILS.items() if data.get(key)},
        )

    def to_dict(self) -> Wire:
        """The wire form."""
        wire = present(
            Id=self.operation_id,
            Type=self.operation_type.value,
            Status=self.status.value,
            ParentId=self.parent_id,
            Name=self.name,
            StartTimestamp=self.start_timestamp,
            EndTimestamp=self.end_timestamp,
            SubType=self.sub_type,
        )
        for key, (attr, _) in _DETAILS.items():
            details = getattr(self, attr)
            if details is not None:
                wire[key] = details.to_dict()
        return wire

    @classmethod
    def from_json_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the wire form with moments as milliseconds."""
        return cls.from_dict(_convert(data, TimestampConverter.from_unix_millis))

    def to_json_dict(self) -> Wire:
        """The wire form with moments as milliseconds."""
        return _convert(self.to_dict(), TimestampConverter.to_unix_millis)


def _convert(data: Mapping[str, Any], convert: Any) -> Wire:
    result = dict(data)
    for key in _MOMENTS:
        if result.get(key) is not None:
            result[key] = convert(result[key])
    for key, inner in _DETAIL_MOMENTS:
        if result.get(key) and result[key].get(inner) is not None:
            result[key] = {**result[key], inner: convert(result[key][inner])}
    return result


@dataclass(frozen=True)
class OperationUpdate:
    """A change that the code asks a checkpoint service to record."""

    operation_id: str
    operation_type: OperationType
    action: OperationAction
    parent_id: str | None = None
    name: str | None = None
    sub_type: str | None = None
    payload: str | None = None
    error: ErrorObject | None = None
    context_options: ContextOptions | None = None
    step_options: StepOptions | None = None
    wait_options: WaitOptions | None = None
    callback_options: CallbackOptions | None = None
    chained_invoke_options: ChainedInvokeOptions | None = None

    def to_dict(self) -> Wire:
        """The wire form."""
        wire = present(
            Id=self.operation_id,
            Type=self.operation_type.value,
            Action=self.action.value,
            ParentId=self.parent_id,
            Name=self.name,
            SubType=self.sub_type,
            Payload=self.payload,
            Error=error_dict(self.error),
        )
        for key, attr in _OPTIONS.items():
            options = getattr(self, attr[0])
            if options is not None:
                wire[key] = options.to_dict()
        return wire

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the wire form."""
        return cls(
            operation_id=data["Id"],
            operation_type=OperationType(data["Type"]),
            action=OperationAction(data["Action"]),
            parent_id=data.get("ParentId"),
            name=data.get("Name"),
            sub_type=sub_type_of(data.get("SubType")),
            payload=data.get("Payload"),
            error=error_from(data),
            **{attr: kind.from_dict(data[key]) for key, (attr, kind) in _OPTIONS.items() if data.get(key)},
        )

    @classmethod
    def _of(cls, identifier: OperationIdentifier, kind: OperationType, action: OperationAction, **fields: Any) -> Self:
        return cls(
            operation_id=identifier.operation_id,
            operation_type=kind,
            action=action,
            parent_id=identifier.parent_id,
            name=identifier.name,
            sub_type=identifier.sub_type,
            **fields,
        )

    @classmethod
    def create_callback(cls, identifier: OperationIdentifier, callback_options: CallbackOptions) -> Self:
        """A callback is created."""
        return cls._of(identifier, OperationType.CALLBACK, OperationAction.START, callback_options=callback_options)

    @classmethod
    def create_context_start(cls, identifier: OperationIdentifier) -> Self:
        """A context begins."""
        return cls._of(identifier, OperationType.CONTEXT, OperationAction.START)

    @classmethod
    def create_context_succeed(
        cls, identifier: OperationIdentifier, payload: str | None, *, context_options: ContextOptions | None = None
    ) -> Self:
        """A context has a result."""
        return cls._of(
            identifier,
            OperationType.CONTEXT,
            OperationAction.SUCCEED,
            payload=payload,
            context_options=context_options,
        )

    @classmethod
    def create_context_fail(cls, identifier: OperationIdentifier, error: ErrorObject) -> Self:
        """A context failed."""
        return cls._of(identifier, OperationType.CONTEXT, OperationAction.FAIL, error=error)

    @classmethod
    def create_execution_succeed(cls, payload: str) -> Self:
        """The execution has a result (too large for the reply)."""
        return cls(_result_id(), OperationType.EXECUTION, OperationAction.SUCCEED, payload=payload)

    @classmethod
    def create_execution_fail(cls, error: ErrorObject) -> Self:
        """The execution failed (with an error too large for the reply)."""
        return cls(_result_id(), OperationType.EXECUTION, OperationAction.FAIL, error=error)

    @classmethod
    def create_step_start(cls, identifier: OperationIdentifier) -> Self:
        """An attempt of a step begins."""
        return cls._of(identifier, OperationType.STEP, OperationAction.START)

    @classmethod
    def create_step_succeed(cls, identifier: OperationIdentifier, payload: str | None) -> Self:
        """A step has a result."""
        return cls._of(identifier, OperationType.STEP, OperationAction.SUCCEED, payload=payload)

    @classmethod
    def create_step_fail(cls, identifier: OperationIdentifier, error: ErrorObject) -> Self:
        """A step finally failed."""
        return cls._of(identifier, OperationType.STEP, OperationAction.FAIL, error=error)

    @classmethod
    def create_step_retry(
        cls, identifier: OperationIdentifier, error: ErrorObject, next_attempt_delay_seconds: int
    ) -> Self:
        """An attempt failed and another one follows."""
        return cls._of(
            identifier,
            OperationType.STEP,
            OperationAction.RETRY,
            error=error,
            step_options=StepOptions(next_attempt_delay_seconds),
        )

    @classmethod
    def create_invoke_start(
        cls, identifier: OperationIdentifier, payload: str | None, chained_invoke_options: ChainedInvokeOptions
    ) -> Self:
        """Another function is to be run."""
        return cls._of(
            identifier,
            OperationType.CHAINED_INVOKE,
            OperationAction.START,
            payload=payload,
            chained_invoke_options=chained_invoke_options,
        )

    @classmethod
    def create_wait_for_condition_start(cls, identifier: OperationIdentifier) -> Self:
        """Polling begins."""
        return cls.create_step_start(identifier)

    @classmethod
    def create_wait_for_condition_succeed(cls, identifier: OperationIdentifier, payload: str | None) -> Self:
        """The condition holds."""
        return cls.create_step_succeed(identifier, payload)

    @classmethod
    def create_wait_for_condition_retry(
        cls, identifier: OperationIdentifier, payload: str | None, next_attempt_delay_seconds: int
    ) -> Self:
        """The condition does not hold yet; `payload` is the state."""
        return cls._of(
            identifier,
            OperationType.STEP,
            OperationAction.RETRY,
            payload=payload,
            step_options=StepOptions(next_attempt_delay_seconds),
        )

    @classmethod
    def create_wait_for_condition_fail(cls, identifier: OperationIdentifier, error: ErrorObject) -> Self:
        """Polling failed."""
        return cls.create_step_fail(identifier, error)

    @classmethod
    def create_wait_start(cls, identifier: OperationIdentifier, wait_options: WaitOptions) -> Self:
        """A wait begins."""
        return cls._of(identifier, OperationType.WAIT, OperationAction.START, wait_options=wait_options)


_OPTIONS: dict[str, tuple[str, Any]] = {
    "ContextOptions": ("context_options", ContextOptions),
    "StepOptions": ("step_options", StepOptions),
    "WaitOptions": ("wait_options", WaitOptions),
    "CallbackOptions": ("callback_options", CallbackOptions),
    "ChainedInvokeOptions": ("chained_invoke_options", ChainedInvokeOptions),
}


def _result_id() -> str:
    return f"execution-result-{int(time.time() * 1000)}"


@dataclass(frozen=True)
class CheckpointUpdatedExecutionState:
    """The operations that a checkpoint changed."""

    operations: list[Operation] = field(default_factory=list)
    next_marker: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the wire form."""
        return cls([Operation.from_dict(item) for item in data.get("Operations", [])], data.get("NextMarker"))


@dataclass(frozen=True)
class CheckpointOutput:
    """The answer to a checkpoint."""

    checkpoint_token: str
    new_execution_state: CheckpointUpdatedExecutionState

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the wire form."""
        state = data.get("NewExecutionState") or {}
        return cls(data.get("CheckpointToken", ""), CheckpointUpdatedExecutionState.from_dict(state))


@dataclass(frozen=True)
class StateOutput:
    """One page of the history."""

    operations: list[Operation] = field(default_factory=list)
    next_marker: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the wire form."""
        return cls([Operation.from_dict(item) for item in data.get("Operations", [])], data.get("NextMarker"))


@dataclass(frozen=True)
class DurableExecutionInvocationOutput:
    """How an invocation ended."""

    status: Status
    result: str | None = None
    error: ErrorObject | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the wire form."""
        return cls(Status(data["Status"]), data.get("Result"), error_from(data))

    def to_dict(self) -> Wire:
        """The wire form."""
        return present(Status=self.status.value, Result=self.result, Error=error_dict(self.error))

    @classmethod
    def create_succeeded(cls, result: str) -> Self:
        """Done, with this result."""
        return cls(Status.SUCCEEDED, result=result)

    @classmethod
    def create_retry(cls, error: ErrorObject) -> Self:
        """To be invoked again."""
        return cls(Status.RETRY, error=error)

    @classmethod
    def create_pending(cls) -> Self:
        """Suspended."""
        return cls(Status.PENDING)


class DurableServiceClient(Protocol):
    """A checkpoint service."""

    def checkpoint(
        self,
        durable_execution_arn: str,
        checkpoint_token: str,
        updates: list[OperationUpdate],
        client_token: str | None,
    ) -> CheckpointOutput:
        """Record updates; the answer holds the state of every operation that changed."""

    def get_execution_state(
        self, durable_execution_arn: str, checkpoint_token: str, next_marker: str, max_items: int = 1000
    ) -> StateOutput:
        """A further page of the history."""


class LambdaClient(DurableServiceClient):
    """The hosted service, through a boto3 Lambda client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    @classmethod
    def initialize_client(cls) -> LambdaClient:
        """A client from the environment's AWS configuration."""
        try:
            import boto3  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as exc:
            raise ImportError("running against the hosted service needs boto3: pip install boto3") from exc
        return cls(boto3.client("lambda"))

    def checkpoint(
        self,
        durable_execution_arn: str,
        checkpoint_token: str,
        updates: list[OperationUpdate],
        client_token: str | None,
    ) -> CheckpointOutput:
        request = present(
            DurableExecutionArn=durable_execution_arn,
            CheckpointToken=checkpoint_token,
            Updates=[update.to_dict() for update in updates],
            ClientToken=client_token,
        )
        try:
            return CheckpointOutput.from_dict(self.client.checkpoint_durable_execution(**request))
        except Exception as exc:
            raise CheckpointError.from_exception(exc) from exc

    def get_execution_state(
        self, durable_execution_arn: str, checkpoint_token: str, next_marker: str, max_items: int = 1000
    ) -> StateOutput:
        try:
            answer = self.client.get_durable_execution_state(
                DurableExecutionArn=durable_execution_arn,
                CheckpointToken=checkpoint_token,
                Marker=next_marker,
                MaxItems=max_items,
            )
        except Exception as exc:
            raise GetExecutionStateError.from_exception(exc) from exc
        return StateOutput.from_dict(answer)


__all__ = [
    "CallbackDetails",
    "CallbackOptions",
    "CallbackTimeoutType",
    "ChainedInvokeDetails",
    "ChainedInvokeOptions",
    "CheckpointOutput",
    "CheckpointUpdatedExecutionState",
    "ContextDetails",
    "ContextOptions",
    "DurableExecutionInvocationOutput",
    "DurableServiceClient",
    "ErrorObject",
    "ExecutionDetails",
    "InvocationStatus",
    "LambdaClient",
    "Operation",
    "OperationAction",
    "OperationPayload",
    "OperationStatus",
    "OperationSubType",
    "OperationType",
    "OperationUpdate",
    "StateOutput",
    "StepDetails",
    "StepOptions",
    "TimestampConverter",
    "WaitDetails",
    "WaitOptions",
    "register_operation_error",
    "sub_type_of",
]
