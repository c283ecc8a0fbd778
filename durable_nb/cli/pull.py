"""`durable-nb pull`: copy histories from another store."""

from __future__ import annotations

import typer

from durable_nb.cli._options import AsJson, StoreOption
from durable_nb.cli._transfer import As, DryRun, Executions, InTheOpen, Other

__all__ = ["pull", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="pull")(pull)


def pull(
    other: Other,
    executions: Executions = None,
    rename: As = None,
    in_the_open: InTheOpen = False,
    dry_run: DryRun = False,
    store: StoreOption = None,
    json_output: AsJson = False,
) -> int:
    """Copy histories from another store to yours: only what it lacks, verified on the way.

    Killed at any point, the same command goes on from there. Exit status 1 when something could not be copied.
    """
    from durable_nb.cli._transfer import Stores, copy

    stores = Stores(store, other, executions or [], subject=rename, pull=True)
    return copy(stores, rename=rename, in_the_open=in_the_open, dry_run=dry_run, json_output=json_output)
