"""Deterministic operation ids.

The id of an operation is a hash of its parent's id and of its number among the operations that the parent context
asked for: names, functions and arguments take no part. So renaming is harmless, and reordering is what breaks a replay
(`validate` then says so).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any, Protocol

from durable_nb.events import OperationType
from durable_nb.exceptions import NonDeterministicExecutionError


class RecordedIdentity(Protocol):
    """What identifies an operation in the history."""

    @property
    def operation_type(self) -> OperationType: ...
    @property
    def sub_type(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def parent_id(self) -> str | None: ...


@dataclass(frozen=True)
class OperationIdNamespace:
    """Where ids are numbered: the operation id of a context, or None for the handler itself."""

    prefix: str | None = None

    def create_id_for_step(self, step: int) -> str:
        """The id of the operation with this number."""
        text = f"{self.prefix}-{step}" if self.prefix else str(step)
        return blake2b(text.encode()).hexdigest()[:64]


@dataclass(frozen=True, slots=True)
class OperationIdentifier:
    """An operation as the code asks for it."""

    operation_id: str
    sub_type: str | None
    parent_id: str | None = None
    name: str | None = None
    operation_type: OperationType = field(kw_only=True, default=OperationType.STEP)

    @property
    def type(self) -> OperationType:
        """The operation type."""
        return self.operation_type

    def validate_checkpoint(self, checkpoint: RecordedIdentity | None) -> None:
        """Raise `NonDeterministicExecutionError` when the history has another operation at this place."""
        if checkpoint is None:
            return
        if (
            self.operation_type == checkpoint.operation_type
            and self.sub_type == checkpoint.sub_type
            and self.name == checkpoint.name
            and self.parent_id == checkpoint.parent_id
        ):
            return
        asked = (self.operation_type, self.sub_type, self.name, self.parent_id)
        recorded = (checkpoint.operation_type, checkpoint.sub_type, checkpoint.name, checkpoint.parent_id)
        labels = ("type", "sub-type", "name", "parent")
        differences = "; ".join(
            f"{label}: recorded {_show(was)}, asked for {_show(now)}"
            for label, was, now in zip(labels, recorded, asked, strict=True)
            if was != now
        )
        raise NonDeterministicExecutionError(
            f"the code asks for {_describe(*asked)} where the history has {_describe(*recorded)} "
            f"({differences}; operation {self.operation_id}). The code must ask for the same operations in the "
            "same order at every replay",
            step_id=self.operation_id,
        )


class _IdentifierFields:
    """An identifier that is being filled in (see `durable_nb.events.new_event`)."""

    __slots__ = tuple(one.name for one in fields(OperationIdentifier))


def identified(
    operation_id: str, sub_type: str | None, parent_id: str | None, name: str | None, operation_type: OperationType
) -> OperationIdentifier:
    """An `OperationIdentifier`, for whoever makes one for every operation."""
    made: Any = _IdentifierFields()
    made.operation_id = operation_id
    made.sub_type = sub_type
    made.parent_id = parent_id
    made.name = name
    made.operation_type = operation_type
    made.__class__ = OperationIdentifier
    identifier: OperationIdentifier = made
    return identifier


def _show(value: object) -> str:
    return "nothing" if value is None else repr(str(value))


def _describe(kind: OperationType, sub_type: str | None, name: str | None, _parent: str | None) -> str:
    return f"{name!r} ({sub_type or kind.value})" if name else f"an unnamed {sub_type or kind.value}"


__all__ = [
    "OperationIdNamespace",
    "OperationIdentifier",
    "RecordedIdentity",
    "identified",
]
