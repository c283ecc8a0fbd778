"""`durable-nb callback`: complete a callback from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from durable_nb.cli._options import StoreOption

if TYPE_CHECKING:
    from durable_nb.sdk._callbacks import CallbackSender

__all__ = ["failure", "heartbeat", "register", "success"]

CallbackId = Annotated[str, typer.Argument(metavar="ID", help="The callback's id, as the handler gave it out.")]


def register(app: typer.Typer) -> None:
    """Add the verb with its three forms."""
    group = typer.Typer(help="Complete a callback that an execution waits for.", no_args_is_help=True)
    for command in (success, failure, heartbeat):
        group.command()(command)
    app.add_typer(group, name="callback")


def _send(store: str | None, act: Callable[[CallbackSender], None]) -> int:
    from durable_nb.cli._handlers import opened_for_handlers
    from durable_nb.sdk._callbacks import sender_for

    with opened_for_handlers(store, create=False) as place:
        act(sender_for(place.journal))
    return 0


def success(
    callback_id: CallbackId,
    result: Annotated[
        str | None,
        typer.Option("--result", metavar="TEXT", help="What `result()` gives; text unless the code decodes it."),
    ] = None,
    store: StoreOption = None,
) -> int:
    """Give the callback its result."""
    return _send(store, lambda sender: sender.success(callback_id, result))


def failure(
    callback_id: CallbackId,
    message: Annotated[str | None, typer.Option("--message", help="What went wrong.")] = None,
    error_type: Annotated[str | None, typer.Option("--type", help="What kind of error it is.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="More about it.")] = None,
    store: StoreOption = None,
) -> int:
    """Let the callback fail."""
    from durable_nb.sdk.lambda_service import ErrorObject

    error = ErrorObject(message, error_type, data, None)
    return _send(store, lambda sender: sender.failure(callback_id, error))


def heartbeat(callback_id: CallbackId, store: StoreOption = None) -> int:
    """Say that the work goes on."""
    return _send(store, lambda sender: sender.heartbeat(callback_id))
