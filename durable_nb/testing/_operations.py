"""Operations as tests look at them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from durable_nb.events import OperationType, Status
from durable_nb.sdk._codec import Encoded, decode
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk._wire import error_of, moment, payload_text
from durable_nb.sdk.lambda_service import ErrorObject, sub_type_of
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, BytesSerDes, SerDes, SerDesContext
from durable_nb.testing.exceptions import DurableFunctionsTestError

O = TypeVar("O", bound="Operation")


@dataclass(frozen=True)
class Operation:
    """An operation of a tested execution."""

    operation_id: str
    operation_type: OperationType
    status: Status
    parent_id: str | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    sub_type: str | None = field(default=None, kw_only=True)
    start_timestamp: dt.datetime | None = field(default=None, kw_only=True)
    end_timestamp: dt.datetime | None = field(default=None, kw_only=True)


class _Lookup:
    """Operations by name: the first of that name at this level."""

    def _level(self) -> Sequence[Operation]:
        raise NotImplementedError

    def get_operation_by_name(self, name: str) -> Operation:
        """The first operation of that name."""
        for operation in self._level():
            if operation.name == name:
                return operation
        known = ", ".join(repr(one.name) for one in self._level()) or "none at all"
        raise DurableFunctionsTestError(f"Operation with name '{name}' not found; there are: {known}")

    def get_step(self, name: str) -> StepOperation:
        """The step (or wait_for_condition) of that name."""
        return cast("StepOperation", self.get_operation_by_name(name))

    def get_wait(self, name: str) -> WaitOperation:
        """The wait of that name."""
        return cast("WaitOperation", self.get_operation_by_name(name))

    def get_context(self, name: str) -> ContextOperation:
        """The child context, map, parallel or wait_for_callback of that name."""
        return cast("ContextOperation", self.get_operation_by_name(name))

    def get_callback(self, name: str) -> CallbackOperation:
        """The callback of that name."""
        return cast("CallbackOperation", self.get_operation_by_name(name))

    def get_invoke(self, name: str) -> InvokeOperation:
        """The invoke of that name."""
        return cast("InvokeOperation", self.get_operation_by_name(name))

    def get_execution(self, name: str) -> ExecutionOperation:
        """The execution of that name."""
        return cast("ExecutionOperation", self.get_operation_by_name(name))

    def get_all_operations(self) -> list[Operation]:
        """All operations below, depth first."""
        return list(_walk(self._level()))


def _walk(level: Sequence[Operation]) -> Iterator[Operation]:
    for operation in level:
        yield operation
        if isinstance(operation, ContextOperation):
            yield from _walk(operation.child_operations)


@dataclass(frozen=True)
class ContextOperation(_Lookup, Operation):
    """An operation with a result: a context, step or callback."""

    child_operations: list[Operation] = field(default_factory=list)
    result: Any = None
    """The value."""
    error: ErrorObject | None = None
    payload: str | None = field(default=None, kw_only=True)
    """The result as it was serialized; None where that is no text."""

    def _level(self) -> Sequence[Operation]:
        return self.child_operations


@dataclass(frozen=True)
class StepOperation(ContextOperation):
    """A step or wait_for_condition."""

    attempt: int = 0
    next_attempt_timestamp: dt.datetime | None = None


@dataclass(frozen=True)
class WaitOperation(Operation):
    """A wait."""

    scheduled_end_timestamp: dt.datetime | None = None


@dataclass(frozen=True)
class CallbackOperation(ContextOperation):
    """A callback."""

    callback_id: str | None = None


@dataclass(frozen=True)
class InvokeOperation(Operation):
    """An invoke."""

    result: Any = None
    """The value."""
    error: ErrorObject | None = None
    payload: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ExecutionOperation(Operation):
    """The execution itself."""

    input_payload: str | None = None


def value_of(state: OperationState, serdes: SerDes[Any] | None) -> Any:
    """The recorded value: decoded where the payload says how, else the text as it is."""
    if state.payload is None or (state.operation_type is OperationType.CHAINED_INVOKE and not state.status.is_terminal):
        return None
    text = payload_text(state)
    if state.operation_type is OperationType.CALLBACK:
        return text  # what was sent, as `callback.result()` gives it by default
    if text is None:
        if not isinstance(serdes, BytesSerDes):
            return state.payload
        context = SerDesContext(state.operation_id, "", state.name, state.operation_type.value, state.attempt)
        return decode(serdes, Encoded(state.payload, encoding=state.details["encoding"]), context)
    try:
        parsed = json.loads(text)
        if isinstance(parsed, dict) and parsed.keys() == {"t", "v"}:
            return EXTENDED_TYPES_SERDES.deserialize(text, SerDesContext())
    except Exception:  # noqa: BLE001 - a serdes of the user's own; its text is shown
        return text
    return parsed


def tree(states: Sequence[OperationState], serdes: SerDes[Any] | None) -> list[Operation]:
    """The top level, with what is below in its place, in the order of the history."""
    below: dict[str | None, list[OperationState]] = {}
    known = {state.operation_id for state in states}
    for state in states:
        parent = state.parent_id if state.parent_id in known else None
        below.setdefault(parent, []).append(state)
    return [_build(state, below, serdes) for state in below.get(None, [])]


def _build(
    state: OperationState, below: dict[str | None, list[OperationState]], serdes: SerDes[Any] | None
) -> Operation:
    children = [_build(child, below, serdes) for child in below.get(state.operation_id, [])]
    common: dict[str, Any] = {
        "operation_id": state.operation_id,
        "operation_type": state.operation_type,
        "status": state.status,
        "parent_id": state.parent_id,
        "name": state.name,
        "sub_type": sub_type_of(state.sub_type),
        "start_timestamp": moment(state.started_at),
        "end_timestamp": moment(state.ended_at),
    }
    if state.operation_type is OperationType.WAIT:
        ends_at = state.details.get("ends_at", state.due)
        return WaitOperation(**common, scheduled_end_timestamp=moment(ends_at))
    outcome: dict[str, Any] = {
        "result": value_of(state, serdes),
        "error": error_of(state),
        "payload": payload_text(state),
    }
    if state.operation_type is OperationType.CHAINED_INVOKE:
        outcome["payload"] = outcome["payload"] if state.status.is_terminal else None
        return InvokeOperation(**common, **outcome)
    if state.operation_type is OperationType.STEP:
        due = None if state.status.is_terminal else moment(state.due)
        return StepOperation(
            **common, child_operations=children, **outcome, attempt=state.attempt, next_attempt_timestamp=due
        )
    if state.operation_type is OperationType.CALLBACK:
        callback_id = str(state.details.get("callback_id", ""))
        return CallbackOperation(**common, child_operations=children, **outcome, callback_id=callback_id)
    return ContextOperation(**common, child_operations=children, **outcome)


__all__ = [
    "CallbackOperation",
    "ContextOperation",
    "ExecutionOperation",
    "InvokeOperation",
    "Operation",
    "StepOperation",
    "WaitOperation",
    "tree",
    "value_of",
]
