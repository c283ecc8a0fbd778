"""Which notebook cell runs now: the one fact that the SDK asks of the notebook, kept where asking loads nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

__all__ = ["enter_cell", "running_cell"]

_cell: ContextVar[Any] = ContextVar("durable_nb_cell", default=None)
_cells: list[Any] = []
"""The running cells' contexts where context variables do not reach: threads that a cell started."""


def enter_cell(context: Any) -> Callable[[], None]:
    """Make `context` the running cell's; returns what ends that."""
    token = _cell.set(context)
    _cells.append(context)

    def leave() -> None:
        _cells.remove(context)
        try:
            _cell.reset(token)
        except ValueError:
            _cell.set(None)  # an awaiting cell ended in another context than it began in

    return leave


def running_cell() -> Any:
    """The running cell's durable context, or None."""
    found = _cell.get()
    if found is not None:
        return found
    return _cells[-1] if _cells else None
