"""`durable-nb gc`: keep a store small."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from durable_nb.cli._options import AsJson, StoreOption

__all__ = ["gc", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="gc")(gc)


def gc(
    notebook: Annotated[
        str | None, typer.Argument(metavar="[NOTEBOOK]", help="The store beside this notebook.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Let the oldest checkpoints go above it (20GB).")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", help="Let replaced checkpoints of that age go.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Completed runs kept of one cell.")] = 20,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreOption = None,
    json_output: AsJson = False,
) -> int:
    """Remove what no checkpoint needs, and old checkpoints when you set a limit.

    At-most-once steps and what a running kernel uses always stay. Without options [$DURABLE_NB_STORE_LIMIT] and
    [$DURABLE_NB_STORE_DAYS] are the limits.
    """
    from dataclasses import asdict

    from durable_nb.amounts import size
    from durable_nb.cli._format import as_json, printable
    from durable_nb.cli._places import opened
    from durable_nb.maintenance import Budget, budget_of, collect, size_of, store_size
    from durable_nb.settings import Settings

    default = budget_of(Settings.from_environment())
    budget = Budget(
        max_bytes=default.max_bytes if max_size is None else size_of(max_size),
        max_days=default.max_days if older_than is None else older_than,
        keep=keep,
    )
    with opened(store, notebook) as place:
        done = collect(place, budget, dry_run=dry_run)
        now = store_size(place)
    if json_output:
        sys.stdout.write(as_json({**asdict(done), "store": place.label, "bytes": now, "dry_run": dry_run}) + "\n")
        return 0
    verb = "would go" if dry_run else "went"
    sys.stdout.write(f"{done.records} records and {done.blobs} blobs {verb} ({size(done.nbytes)}); ")
    sys.stdout.write(f"the store has {size(now)}: {place.label}\n")
    for name in done.held:
        sys.stdout.write(f"{printable(name)} is in use: its records stay\n")
    if done.copies:
        sys.stdout.write(f"{size(done.copies)} of this machine's copies went ({place.place.parent})\n")
    if done.waiting:
        sys.stdout.write(f"{done.waiting} blobs go when no other process has the store open, or in an hour\n")
    return 0
