"""Deterministic operation ids.

The id of an operation is a hash of its parent's id and of its number among the operations that the parent context
asked for: names, functions and arguments take no part. So renaming is harmless, and reordering is what breaks a replay
(`validate` then says so).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

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
        return hashlib.blake2b(text.encode()).hexdigest()[:64]


@dataclass(frozen=True)
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
        asked = (self.operation_type, self.sub_type, self.name, self.parent_id)
        recorded = (checkpoint.operation_type, checkpoint.sub_type, checkpoint.name, checkpoint.parent_id)
        if asked == recorded:
            return
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


def _show(value: object) -> str:
    return "nothing" if value is None else repr(str(value))


def _describe(kind: OperationType, sub_type: str | None, name: str | None, _parent: str | None) -> str:
    return f"{name!r} ({sub_type or kind.value})" if name else f"an unnamed {sub_type or kind.value}"


__all__ = [
    "OperationIdNamespace",
    "OperationIdentifier",
    "RecordedIdentity",
]
