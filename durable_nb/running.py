"""What runs now: which notebook cell, or which body on a cluster. Kept where asking loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["enter_cell", "remote_body", "running_cell", "running_remotely"]

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


_remote: ContextVar[str | None] = ContextVar("durable_nb_remote_body", default=None)


@contextmanager
def running_remotely(name: str) -> Iterator[None]:
    """Around a body that a worker of a cluster runs, called `name`: there is no journal here."""
    token = _remote.set(name)
    try:
        yield
    finally:
        _remote.reset(token)


def remote_body() -> str | None:
    """The name of the body that runs here for another process, or None."""
    return _remote.get()
