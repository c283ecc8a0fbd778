"""`durable-nb invoke`: run a handler to its end, or go on with one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from durable_nb.cli._options import StoreOption

__all__ = ["invoke", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="invoke")(invoke)


def invoke(
    handler: Annotated[str, typer.Argument(metavar="MODULE:HANDLER", help="Where the handler is.")],
    input_text: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Its event; @FILE or - (standard input) too.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The execution's name: the same one resumes, or returns the result.")
    ] = None,
    store: StoreOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Only record it; a worker runs it.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait for the end; it stays resumable.")
    ] = None,
) -> int:
    """Run a durable handler; prints its result as JSON."""
    from durable_nb.cli._exit import Complaint, ExitCode
    from durable_nb.cli._handlers import handler_at, json_argument, opened_for_handlers, print_json
    from durable_nb.exceptions import ExecutionFailedError
    from durable_nb.runtime import driver_for

    found = handler_at(handler)
    event = json_argument(input_text, "--input")
    with opened_for_handlers(store, create=True) as place:
        handle = found.start_on(driver_for(place), event, name=name)
        if detach:
            sys.stdout.write(f"{handle.name}\n")
            return ExitCode.OK
        try:
            print_json(handle.result(timeout))
        except ExecutionFailedError as error:
            raise Complaint(f"{handle.name} {error.status}: {error.original_type}: {error}", ExitCode.FAILED) from None
        except TimeoutError as error:
            raise Complaint(str(error), ExitCode.FAILED) from None
    return ExitCode.OK
