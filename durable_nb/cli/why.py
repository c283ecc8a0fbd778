"""`durable-nb why`: the cause of each cell's last run, and what its checkpoint depends on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from durable_nb.cli._listing import Listed
from durable_nb.cli._options import EXECUTION_HELP, AsJson, StoreOption
from durable_nb.history import OperationView

__all__ = ["register", "why"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="why")(why)


def why(
    execution: Annotated[str, typer.Argument(metavar="EXECUTION", help=EXECUTION_HELP)],
    cell: Annotated[
        str | None, typer.Argument(metavar="[CELL]", help="A cell's number, its name or part of its first line.")
    ] = None,
    store: StoreOption = None,
    json_output: AsJson = False,
) -> int:
    """Say why each cell ran when it last ran, as a diff; for one cell, also all that its checkpoint depends on."""
    from durable_nb.cli._format import as_json
    from durable_nb.cli._listing import choose, listing
    from durable_nb.cli._places import find_execution, opened
    from durable_nb.history import History

    with opened(store, execution) as place:
        history = History(place.journal)
        view = find_execution(history, execution)
        every = listing(view)
        current = [each for each in every if each.number is not None]
        listed = current if cell is None else choose(history, view, every, cell)
    if json_output:
        rows = [
            {"cell": each.number, "label": each.op.label, "reason": each.op.reason, "diff": _diff(each.op)}
            | ({} if cell is None else {"inputs": [dict(found) for found in each.op.inputs]})
            for each in listed
        ]
        sys.stdout.write(as_json(rows) + "\n")
        return 0
    _print(listed, with_inputs=cell is not None)
    return 0


def _diff(op: OperationView) -> list[str]:
    found = op.details.get("diff") or ()
    return [str(line) for line in found]


def _print(listed: Iterable[Listed], *, with_inputs: bool) -> None:
    from durable_nb.cli._format import one_line
    from durable_nb.cli._tables import console

    screen = console()
    for item in listed:
        op = item.op
        screen.print(f"{item.number or '–':>3}  {one_line(op.label, 60)}", markup=False, style="bold")
        screen.print(f"     ran: {op.reason or 'for the first time'}", markup=False)
        for line in _diff(op):
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            screen.print(f"       {line}", markup=False, style=style)
        if with_inputs:
            for each in op.inputs:
                screen.print(f"     depends on {_input(each)}", markup=False, style="dim")


def _input(found: Mapping[str, Any]) -> str:
    kind, key = found.get("kind", "?"), found.get("key", "")
    origin = f", from {found['origin']}" if found.get("origin") else ""
    return f"{kind} {key} ({str(found.get('version', ''))[:16]}{origin})"
