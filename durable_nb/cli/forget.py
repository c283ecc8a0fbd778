"""`durable-nb forget`: remove an execution, or cells of it, from the store."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from durable_nb.cli._options import EXECUTION_HELP, StoreOption

__all__ = ["forget", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="forget")(forget)


def forget(
    execution: Annotated[str, typer.Argument(metavar="EXECUTION", help=EXECUTION_HELP)],
    cells: Annotated[
        list[str] | None, typer.Argument(metavar="[CELL]…", help="Only these: numbers, names or parts of first lines.")
    ] = None,
    store: StoreOption = None,
    at_most_once: Annotated[
        bool, typer.Option("--at-most-once", help="Also at-most-once cells. Their marker stays: they still ask first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Forget what cells did, so that they run again. Asks first on a terminal."""
    from durable_nb.cli._exit import Complaint
    from durable_nb.cli._listing import choose, listing
    from durable_nb.cli._places import find_execution, opened, owned
    from durable_nb.history import History

    with opened(store, execution) as place:
        history = History(place.journal)
        view = find_execution(history, execution)
        chosen = list(view.operations)
        if cells:
            every = listing(view)
            named = {each.op.operation_id for text in cells for each in choose(history, view, every, text)}
            chosen = [op for op in chosen if op.operation_id in named]
        kept = [op for op in chosen if op.at_most_once and not at_most_once]
        if cells and kept:
            raise Complaint(f"{kept[0].label} runs at most once: add --at-most-once to forget that it ran")
        going = [op for op in chosen if op not in kept]
        what = f"{len(going)} records" if cells or kept else "everything"
        if not yes and sys.stdin.isatty() and not typer.confirm(f"Forget {what} of {view.name}?", err=True):
            return 0
        with owned(place.journal, view):
            if cells or kept:
                history.forget(view, going)
        if not cells and not kept:
            history.forget(view)
    note = f"; {len(kept)} at-most-once kept (--at-most-once forgets them too)" if kept else ""
    sys.stdout.write(f"forgot {what} of {view.name}{note}\n")
    return 0
