"""`durable-nb cancel`: end an execution of a handler."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from durable_nb.cli._options import StoreOption

__all__ = ["cancel", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="cancel")(cancel)


def cancel(
    execution: Annotated[str, typer.Argument(metavar="EXECUTION", help="Its name.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Kept in the history.")] = None,
    store: StoreOption = None,
) -> int:
    """Stop a handler: whoever drives it stops at its next operation, and nobody resumes it."""
    from durable_nb.cli._exit import Complaint
    from durable_nb.cli._handlers import opened_for_handlers
    from durable_nb.runtime import HANDLER_KIND, driver_for

    with opened_for_handlers(store, create=False) as place:
        record = place.journal.find(execution)
        if record is None:
            raise Complaint(f"there is no execution {execution!r} in this store")
        if record.kind != HANDLER_KIND:
            raise Complaint(f"{execution} is a {record.kind}: interrupt its kernel instead")
        driver_for(place).stop(record, reason)
    sys.stdout.write(f"cancelled {execution}\n")
    return 0
