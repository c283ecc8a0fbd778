"""`durable-nb ls`: the executions in a store."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from durable_nb.cli._options import AsJson, StoreOption

__all__ = ["ls", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="ls")(ls)


def ls(
    notebook: Annotated[
        str | None, typer.Argument(metavar="[NOTEBOOK]", help="List the store beside this notebook.")
    ] = None,
    store: StoreOption = None,
    json_output: AsJson = False,
) -> int:
    """List the executions in a store: notebooks and durable functions."""
    from durable_nb.amounts import size
    from durable_nb.cli._format import as_json
    from durable_nb.cli._places import opened
    from durable_nb.cli._tables import console, execution_json, executions_table
    from durable_nb.history import History
    from durable_nb.maintenance import store_size
    from durable_nb.settings import Settings

    with opened(store, notebook) as place:
        # Every store has a place for sessions without a name; it says nothing while it is empty.
        views = [view for view in History(place.journal).executions() if view.operations or view.record.details]
        if json_output:
            sys.stdout.write(as_json([execution_json(view) for view in views]) + "\n")
        elif views:
            console().print(executions_table(views))
            limit = Settings.from_environment().store_limit
            sys.stdout.write(f"{place.label} has {size(store_size(place))}{f' of {limit}' if limit else ''}\n")
        else:
            sys.stdout.write(f"nothing has run in {place.label} yet\n")
    return 0
