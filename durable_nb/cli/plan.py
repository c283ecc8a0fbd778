"""`durable-nb plan`: what running a notebook would replay and run, and why. Runs nothing."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from durable_nb.cli._options import AsJson, StoreOption
from durable_nb.foresight import Foreseen

__all__ = ["plan", "register"]

_STYLES = {"replay": "green", "run": "yellow", "ordinary": "yellow", "decide": "red", "declare": "dim", "manage": "dim"}
_WORDS = {"ordinary": "run (no step)", "decide": "asks you", "manage": "%durable"}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="plan")(plan)


def plan(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK", help="The notebook.")],
    execution: Annotated[
        str | None, typer.Option("--execution", metavar="NAME", help="The history to look in [the notebook's own].")
    ] = None,
    store: StoreOption = None,
    json_output: AsJson = False,
) -> int:
    """Say for every cell whether Run All would replay or run it, why, and how long it took last time."""
    from durable_nb.cli._format import as_json
    from durable_nb.cli._places import store_environment
    from durable_nb.foresight import foresee

    environment = store_environment(store)
    if execution is not None:
        environment["DURABLE_NB_EXECUTION"] = execution
    rows = foresee(notebook.absolute(), environment=environment)
    if json_output:
        sys.stdout.write(as_json([asdict(row) for row in rows]) + "\n")
    else:
        _print(rows)
    return 0


def _print(rows: list[Foreseen]) -> None:
    from rich.text import Text

    from durable_nb.amounts import duration
    from durable_nb.cli._format import one_line
    from durable_nb.cli._tables import console

    screen = console()
    for row in rows:
        word = _WORDS.get(row.action, row.action)
        told = word if row.sure else f"probably {word}"
        line = Text(f"[{row.number:>3}] ", style="dim")
        line.append(f"{told:<15}", style=_STYLES[row.action])
        line.append(f"{duration(row.seconds) if row.seconds is not None else '':>10}  {one_line(row.label, 48):<48}  ")
        line.append(row.reason, style="dim")
        screen.print(line, overflow="fold")
        for each in row.difference:
            screen.print(f"        {each}", markup=False, style="dim")
    replayed = [row for row in rows if row.action == "replay"]
    running = [row for row in rows if row.action in ("run", "ordinary")]
    spared, cost = (sum(row.seconds or 0.0 for row in part) for part in (replayed, running))
    unknown = sum(row.seconds is None for row in running)
    screen.print(
        f"{len(replayed)} to replay ({duration(spared)} spared), {len(running)} to run "
        f"({duration(cost)}{f', and {unknown} of unknown length' if unknown else ''})",
        markup=False,
    )
