"""Giving a checkpoint back: names, process state, deletions, session magics, outputs, the result and its number.

Names are loaded before anything is shown: a checkpoint that cannot be read leaves the notebook untouched, and the cell
runs instead. Plain data whose bytes are in place is only promised (`_waiting.py`).
"""

from __future__ import annotations

import ast
import time
from functools import partial
from typing import TYPE_CHECKING

from IPython.utils.capture import capture_output

from durable_nb.exceptions import DurableExecutionsError
from durable_nb.notebook._cell import Cell, Report, magics_of
from durable_nb.notebook._records import Record
from durable_nb.notebook._results import bind_results, names_of, renamed, split_standing, strangers
from durable_nb.notebook._world import states_of
from durable_nb.snapshot import EARLIER, earlier_number, load

if TYPE_CHECKING:
    from durable_nb.notebook._session import Session


class CannotReplayError(DurableExecutionsError):
    """Raised when a valid checkpoint cannot be given back; says why in one line."""


def replay(session: Session, cell: Cell, record: Record, *, at_once: bool = False) -> Report:
    """Give the checkpoint back.

    Args:
        session: of the kernel.
        cell: the cell in whose place it is given back.
        record: its checkpoint.
        at_once: load every value now, though it might wait.

    Raises:
        CannotReplayError: it cannot be read; nothing was changed.
    """
    clock = time.perf_counter()
    if record.runs_again is not None:
        raise CannotReplayError(record.runs_again)
    try:
        manifest = record.manifest
        assert session.home is not None
        _session_magics(session, cell.tree)  # first: what they set may be part of the state that comes back below
        numbers = session.renumbered(cell, manifest["results"])
        names = renamed(manifest["names"], numbers)
        same = {numbers.get(name, name): other for name, other in manifest.get("same", {}).items()}
        missing, standing = split_standing(names, same, session.tracker)
        session.tracker.materialise([name for group in standing for name in group["names"]])
        blobs = session.home.store.blobs
        may_wait = None if cell.options.at_most_once or at_once else session.waiting.decider(blobs)
        lost = load(
            {**names, "groups": missing},
            session.tracker,
            blobs,
            may_wait=may_wait,
            on_failure=partial(session.lost_value, cell, record),
        )
        bind_results(standing, same, session.tracker)
    except Exception as exc:  # whatever a damaged or foreign checkpoint raises: the cell runs, and the user hears why
        raise CannotReplayError(f"its checkpoint cannot be read ({_one_line(exc)})") from exc
    if any(name in session.tracker.promised for name in names_of(names)):
        session.home.store.hold(names["blobs"])
    session.waiting.settle()
    follow_results(session)
    for part in lost:
        session.warn(f"cell {cell.label!r} was replayed, but not its change of {part}")
    session.book.chosen.update(manifest.get("chosen", {}))
    for name in strangers(names):
        session.tracker.unbind(name)
    session.world.ledger.replayed(states_of(record.files), owner=cell.operation)
    count = session.result_number()
    if (cell.request.marked or cell.options.retries or cell.options.on) and not manifest.get("cleared"):
        from durable_nb.notebook._steps_view import show_final

        show_final(session, cell)
    session.tee.replay(manifest["outputs"], manifest["models"], cell.request.parent, count)
    if manifest["has_result"]:
        cell.shown_result = True
        _show_results(session, cell, count)
    for name in names_of(names):
        session.book.origins[name] = cell.label
    seconds = time.perf_counter() - clock
    saved = max(record.seconds - seconds, 0.0)
    return Report("replayed", cell.reason, attempt=record.event.attempt, seconds=seconds, saved_seconds=saved)


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _session_magics(session: Session, tree: ast.Module) -> None:
    """Magics that set the session up are applied again, in order: they are cheap, and no checkpoint holds them."""
    for call in magics_of(tree):
        if call.is_session:
            session.waiting.applying(call.name)
            with session.tee.muted(), capture_output():  # what they print is among the recorded outputs
                session.shell.run_line_magic(call.name, call.line)


def follow_results(session: Session) -> None:
    """`_`, `__` and `___` are the objects of the last results, also when a checkpoint has just bound new ones."""
    shell, hook = session.shell, session.shell.displayhook
    results = session.tracker.bound.results()
    for name, number in zip(("_", "__", "___"), reversed(session.results.recent), strict=False):
        value = results.get(number)
        if value is None or value is getattr(hook, name):
            continue
        if shell.user_ns.get(name) is shell.user_ns_hidden.get(name):  # else the user has bound it: it stays theirs
            shell.push({name: value}, interactive=False)
        setattr(hook, name, value)


def _show_results(session: Session, cell: Cell, count: int) -> None:
    """`_`, `__`, `___`, `_N` and the result object, as the display hook sets them."""
    results = session.tracker.bound.results()
    if count not in results:
        return
    earlier = [earlier_number(count, back) for back in range(EARLIER, 0, -1)]
    values = [results[number] for number in (*earlier, count) if number in results]
    hook = session.shell.displayhook
    for value in values:
        hook.update_user_ns(value)
    session.results.take(cell.operation, count)
    if hook.exec_result is not None:
        hook.exec_result.result = values[-1]
