"""`durable-nb show`: one execution's cells, or one cell with its attempts."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from durable_nb.cli._options import EXECUTION_HELP, AsJson, StoreOption
from durable_nb.history import ExecutionView, OperationView

__all__ = ["register", "show"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="show")(show)


def show(
    execution: Annotated[str, typer.Argument(metavar="EXECUTION", help=EXECUTION_HELP)],
    cell: Annotated[
        str | None, typer.Argument(metavar="[CELL]", help="A cell's number, its name or part of its first line.")
    ] = None,
    store: StoreOption = None,
    all_records: Annotated[bool, typer.Option("--all", help="Also records that later ones have replaced.")] = False,
    json_output: AsJson = False,
) -> int:
    """Show what an execution has recorded: its cells, or one cell with its attempts, errors and steps."""
    from durable_nb.cli._format import as_json
    from durable_nb.cli._listing import choose, listing
    from durable_nb.cli._places import find_execution, opened
    from durable_nb.cli._tables import console, execution_json, operation_json, operations_table
    from durable_nb.history import History

    with opened(store, execution) as place:
        history = History(place.journal)
        view = find_execution(history, execution)
        every = listing(view)
        listed = every if cell is None else choose(history, view, every, cell)
    hidden = 0
    if cell is None and not all_records:
        listed = [each for each in every if each.number is not None]
        hidden = len(every) - len(listed)
    if json_output:
        found = {**execution_json(view), "operations": [operation_json(each.op, each.number) for each in listed]}
        sys.stdout.write(as_json(found) + "\n")
    elif cell is None:
        screen = console()
        screen.print(f"{view.name} ({view.record.kind})", markup=False, style="bold")
        screen.print(operations_table((each.number, each.op) for each in listed))
        if hidden:
            screen.print(f"{hidden} more of cells that the notebook does not have now: --all shows them", style="dim")
    else:
        for each in listed:
            _one(view, each.op)
    return 0


def _one(view: ExecutionView, op: OperationView) -> None:
    from rich.syntax import Syntax

    from durable_nb.amounts import duration, moment, size
    from durable_nb.cli._tables import console, operations_table, state

    screen = console()
    screen.print(op.label, markup=False, style="bold")
    screen.print("state    ", state(op), end="")
    screen.print(f", {size(op.nbytes)}, took {duration(op.seconds)}, id {op.operation_id[:12]}", markup=False)
    if op.reason:
        screen.print(f"ran      {op.reason}", markup=False)
    if op.details.get("runs_again"):
        screen.print(f"again    {op.details['runs_again']}", markup=False)
    for attempt in op.attempts:
        what = attempt.status.value.lower() + (f": {attempt.error}" if attempt.error else "")
        line = f"attempt  {attempt.number}  {moment(attempt.started_at)}  {duration(attempt.seconds):>10}  {what}"
        screen.print(line, markup=False)
        if attempt.error is not None:
            screen.print("".join(attempt.error.traceback), markup=False, style="dim", end="")
    for note in op.notes:
        screen.print(f"note     {moment(note.at)}  {dict(note.details)}", markup=False)
    if op.source:
        screen.print(Syntax(op.source, "python", background_color="default"))
    children = view.children(op.operation_id)
    if children:
        screen.print(operations_table(enumerate(children, start=1)))
