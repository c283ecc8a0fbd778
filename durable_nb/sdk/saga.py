"""Undoing what was done when a later step fails.

    with Saga(context) as saga:
        saga.step(reserve(order), undo=lambda reservation: release(reservation))
        saga.step(charge(order), undo=lambda payment: refund(payment))

When the block ends in an error, the undo steps of what succeeded run in reverse order, each as a durable step of its
own: a crash in the middle goes on undoing at the next invocation. Then the error goes on. A suspension undoes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from durable_nb.exceptions import DurableOperationError, InvocationError
from durable_nb.sdk.config import StepConfig
from durable_nb.sdk.context import DurableContext
from durable_nb.sdk.types import StepContext

T = TypeVar("T")

StepFunction = Callable[[StepContext], Any]


class Saga:
    """Steps with their undo steps.

    Args:
        context: where the steps run.
        undo_config: options of the undo steps; they usually want retries.
    """

    def __init__(self, context: DurableContext, *, undo_config: StepConfig | None = None) -> None:
        self._context = context
        self._undo_config = undo_config
        self._undo: list[tuple[str | None, StepFunction]] = []

    def step(
        self,
        func: Callable[[StepContext], T],
        *,
        undo: Callable[[T], StepFunction] | None = None,
        name: str | None = None,
        config: StepConfig | None = None,
    ) -> T:
        """Run a step; `undo(result)` gives the step that undoes it."""
        result = self._context.step(func, name, config)
        if undo is not None:
            label = name or getattr(func, "_original_name", None)
            self.add(undo(result), name=f"undo {label}" if label else None)
        return result

    def add(self, undo: StepFunction, *, name: str | None = None) -> None:
        """Undo something that was done in another way."""
        self._undo.append((name, undo))

    def undo(self) -> None:
        """Undo everything now, last first."""
        while self._undo:
            name, func = self._undo.pop()
            self._context.step(func, name, self._undo_config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # A suspension, an interrupt and an invocation that will be made again are no failure of the work.
        again = isinstance(error, InvocationError) and not isinstance(error, DurableOperationError)
        if isinstance(error, Exception) and not again:
            self.undo()


__all__ = ["Saga"]
