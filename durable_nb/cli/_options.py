"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["EXECUTION_HELP", "AsJson", "StoreOption"]

EXECUTION_HELP = "Its name, or the path of its notebook."

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="Folder or URL of the store [$DURABLE_NB_STORE, else the nearest .durable]."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
