"""Durable calls that wait inside a cell, as its widget and its badge show them.

The SDK tells of each call that is there to wait (`wait`, `wait_for_condition`, a callback) when the cell comes to it,
also when nothing is left to wait for, and of each step that waits for its next attempt. A cell without a mark shows
nothing of itself until it comes to the first kind; then it gets the line and the widget of a marked cell. A step's
attempts are no reason to leave a line, since whether they are needed depends on the day: the badge tells of them.

Branches of `map` and `parallel` wait at the same time: what is shown is the call that goes on first.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from durable_nb.notebook._cell import Cell

if TYPE_CHECKING:
    from durable_nb.notebook._session import Session
    from durable_nb.sdk.state import Waiting

_TEXTS = {
    "wait": ("waiting", "waiting: {name}"),
    "condition": ("waiting for a condition", "waiting for the condition {name}"),
    "callback": ("waiting for an answer from outside", "waiting for {name}, an answer from outside"),
    "retry": ("a step is tried again", "step {name} is tried again"),
}
"""By kind of call: without a name, and with one."""

_GOES_ON = {"wait": "go", "condition": "go", "retry": "go"}
"""Buttons; only the outside can end a callback."""

_lock = threading.RLock()


def show_wait(session: Session, cell: Cell, waiting: Waiting) -> None:
    """Show that a durable call of the cell waits, or does so no more; from any thread."""
    if waiting.kind not in _TEXTS or not cell.managed:
        return
    with _lock:
        if cell.view is None and waiting.kind != "retry" and not waiting.over:
            _open(session, cell)
        before = dict(cell.waits)
        if waiting.over:
            cell.waits.pop(waiting.operation_id, None)
        elif waiting.due is not None or waiting.operation_id not in cell.waits:
            cell.waits[waiting.operation_id] = waiting
        if before != cell.waits:
            _tell(session, cell)


def _open(session: Session, cell: Cell) -> None:
    from durable_nb.notebook._steps_view import StepView

    if cell.options.quiet:
        return
    view = StepView(session, cell, 1, waits=True)
    view.enter_body()
    cell.view = view
    view.open()


def _tell(session: Session, cell: Cell) -> None:
    text, first = wait_text(cell.waits)
    view = cell.view
    if view is not None and first is None:
        view.goes_on()
    elif view is not None and first is not None:
        action = _GOES_ON.get(first.kind)
        context = cell.context
        view.go_on = lambda: context.retry_now(first.operation_id)
        view.waits(text, first.due, [action, "cancel"] if action and first.due is not None else ["cancel"])
    if session.waits is not None:
        session.waits(cell, text)


def wait_text(waits: Mapping[str, Any]) -> tuple[str, Waiting | None]:
    """What the calls wait for in words, and the one that goes on first; empty when none does."""
    if not waits:
        return "", None
    first = min(waits.values(), key=lambda each: (each.due is None, each.due or 0.0))
    plain, named = _TEXTS[first.kind]
    text = named.format(name=first.name) if first.name else plain
    return (f"{len(waits)} calls wait, first: {text}" if len(waits) > 1 else text), first
