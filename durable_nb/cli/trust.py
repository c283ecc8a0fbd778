"""`durable-nb trust`: sign the records of a store that came from elsewhere, because a person trusts them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from durable_nb.settings import StoreUrl

__all__ = ["register", "trust"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="trust")(trust)


def trust(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A store (or its URL), the folder that holds it, or a notebook.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Trust what a store holds, as you trust a program that you start.

    Until then its outputs can be looked at (`durable-nb show`) and its values are never loaded.
    """
    from durable_nb.cli._exit import Complaint
    from durable_nb.cli._format import printable
    from durable_nb.maintenance import trust as sign
    from durable_nb.maintenance import untrusted
    from durable_nb.runtime import open_store

    place = _store_of(path)
    store = open_store(place, create=False)
    try:
        found = untrusted(store)
        for name, numbers in found.by_execution.values():
            sys.stdout.write(f"{printable(name)}: {len(numbers)} records\n")
        if not found.count:
            sys.stdout.write(f"every record in {place} is signed with a key that you trust\n")
            return 0
        question = f"Whoever wrote these {found.count} records can run code as you when they are replayed. Trust them?"
        if not yes:
            if not sys.stdin.isatty():
                raise Complaint("trusting a store needs your word: add --yes")
            if not typer.confirm(question, err=True):
                return 0
        sys.stdout.write(f"{sign(store, found)} records are signed with your key now\n")
    finally:
        store.close()
    return 0


def _store_of(text: str) -> Path | StoreUrl:
    from durable_nb.cli._exit import Complaint
    from durable_nb.runtime import find_store
    from durable_nb.settings import STORE_DIRECTORY, Settings

    shared = text if "://" in text else Settings.from_environment().store or ""
    if "://" in shared and (text == shared or text.endswith(".ipynb")):
        return find_store(Settings(store=shared), Path.cwd())
    path = Path(text)
    folder = path.parent if path.suffix == ".ipynb" else path
    for candidate in (folder, folder / STORE_DIRECTORY):
        if (candidate / "journal.db").is_file():
            return candidate
    raise Complaint(f"there is no store at {path}")
