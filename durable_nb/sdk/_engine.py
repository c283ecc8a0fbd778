"""Where handlers find a store, and cells their context. Filled by the layers above; the SDK knows only these hooks."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durable_nb.exceptions import InvalidStateError, RemoteBodyError
from durable_nb.running import enter_cell, remote_body, running_cell

if TYPE_CHECKING:
    from durable_nb.abc import Executor
    from durable_nb.sdk._driver import Driver
    from durable_nb.sdk.context import DurableContext
    from durable_nb.sdk.execution import DurableHandler

_COMPOSITION_ROOT = "durable_nb.runtime"


@dataclass(frozen=True, slots=True)
class Nested:
    """The result of a handler that ran as part of a cell."""

    value: Any


def driver_for(store: Any) -> Driver:
    """The driver of a store (None: the default store)."""
    if store is None and remote_body() is not None:
        # Its default store would be one of the worker's own, where nobody looks.
        raise RemoteBodyError("a durable handler without a store of its own", remote_body())
    # By name: a static import would turn the layers upside down.
    driver: Driver = importlib.import_module(_COMPOSITION_ROOT).driver_for(store)
    return driver


def executor_for(place: Any) -> Executor:
    """The executor that a config names: one, or `dask://host:port`, or a `distributed.Client`.

    Raises:
        ValidationError: it names no kind of executor that is known.
    """
    executor: Executor = importlib.import_module(_COMPOSITION_ROOT).executor_for(place)
    return executor


def current_cell_context() -> DurableContext:
    """The running cell's context.

    Raises:
        InvalidStateError: no durable cell runs.
    """
    context: DurableContext | None = running_cell()
    if remote_body() is not None:
        raise RemoteBodyError("durable_nb.context", remote_body())
    if context is None:
        raise InvalidStateError(
            "there is no durable cell running: `durable_nb.context` is for code in a durable cell; "
            "handlers get their context as an argument"
        )
    return context


class CellContextProxy:
    """`durable_nb.context`: stands for the context of whichever cell runs, so that it can be imported once.

    `from durable_nb import context` in the first cell of a notebook serves all the others.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # copy, pickle and inspect ask for these; they are not about any cell
        return getattr(current_cell_context(), name)

    def __repr__(self) -> str:
        return "<durable_nb.context: the running cell's context>"

    def __reduce__(self) -> str:
        return "cell_context"


cell_context = CellContextProxy()


def nested_run(handler: DurableHandler[Any, Any], event: Any, name: str | None) -> Nested | None:
    """Run a handler as part of the running cell; None when no cell runs."""
    context = running_cell()
    run_handler = getattr(context, "run_handler", None)
    if context is None or run_handler is None:
        return None
    return Nested(run_handler(handler, event, name))


__all__ = [
    "cell_context",
    "current_cell_context",
    "driver_for",
    "enter_cell",
    "executor_for",
    "nested_run",
    "running_cell",
]
