"""`durable-nb verify`: read everything back and say what is damaged, missing or not signed by you."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable_nb.cli._options import AsJson, StoreOption

if TYPE_CHECKING:
    from durable_nb.abc import BlobStore

__all__ = ["register", "verify"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="verify")(verify)


def verify(
    notebook: Annotated[
        str | None, typer.Argument(metavar="[NOTEBOOK]", help="Check the store beside this notebook.")
    ] = None,
    store: StoreOption = None,
    json_output: AsJson = False,
) -> int:
    """Check a store: every row's signature and the content of every blob. Exit status 1 when something is wrong."""
    from durable_nb.cli._exit import ExitCode
    from durable_nb.cli._format import as_json, size
    from durable_nb.cli._places import opened
    from durable_nb.history import History

    with opened(store, notebook) as place:
        views = History(place.journal).executions()
        needed = place.journal.blob_refs()
        found: dict[str, Any] = {"store": str(place.place), "executions": len(views)}
        found |= _blobs(place.blobs, needed)
    found["untrusted"] = [f"{view.name}: {op.label}" for view in views for op in view.operations if not op.trusted]
    wrong = bool(found["untrusted"] or found["damaged"] or found["missing"])
    if json_output:
        sys.stdout.write(as_json({**found, "ok": not wrong}) + "\n")
        return ExitCode.FAILED if wrong else ExitCode.OK
    for label in found["untrusted"]:
        sys.stdout.write(f"not signed with your key: {label}; it will run again\n")
    for address in found["damaged"]:
        sys.stdout.write(f"damaged blob {address}; the cells that need it will run again\n")
    for address in found["missing"]:
        sys.stdout.write(f"missing blob {address}; the cells that need it will run again\n")
    counts = f"{found['executions']} executions, {found['blobs']} blobs, {size(found['bytes'])}"
    sys.stdout.write(f"{'NOT all right' if wrong else 'all right'}: {counts} in {found['store']}\n")
    return ExitCode.FAILED if wrong else ExitCode.OK


def _blobs(blobs: BlobStore, needed: set[str]) -> dict[str, Any]:
    from durable_nb.exceptions import DamagedBlobError

    present = sorted(blobs.addresses())
    damaged, total = [], 0
    for address in present:
        total += blobs.size(address)
        try:
            # `get` verifies; one blob at a time is in memory.
            blobs.get(address)
        except DamagedBlobError:
            damaged.append(address)
    missing = sorted(needed - set(present))
    unused = len(set(present) - needed)
    return {"blobs": len(present), "bytes": total, "damaged": damaged, "missing": missing, "unused": unused}
