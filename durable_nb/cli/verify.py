"""`durable-nb verify`: read everything back and say what is damaged, missing or not signed by you; repair it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from durable_nb.cli._options import AsJson, StoreOption

__all__ = ["register", "verify"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="verify")(verify)


def verify(
    notebook: Annotated[
        str | None, typer.Argument(metavar="[NOTEBOOK]", help="Check the store beside this notebook.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move what is damaged to quarantine/ and keep the rest. Deletes nothing.")
    ] = False,
    store: StoreOption = None,
    json_output: AsJson = False,
) -> int:
    """Check a store: every row's signature and the content of every blob. Exit status 1 when something is wrong."""
    from durable_nb.amounts import size
    from durable_nb.cli._exit import ExitCode
    from durable_nb.cli._format import as_json, printable
    from durable_nb.cli._places import opened, place_of
    from durable_nb.maintenance import check
    from durable_nb.maintenance import repair as mend

    if repair:
        for line in mend(place_of(store, notebook)):
            sys.stderr.write(f"{line}\n")
    with opened(store, notebook) as place:
        found = check(place)
    if json_output:
        lists = {kind.replace(" ", "_"): found.of(kind) for kind in ("database", "damaged record", "untrusted")}
        blobs = {"damaged": found.of("damaged blob"), "missing": found.of("missing blob"), "unused": found.unused}
        counts = {"executions": found.executions, "records": found.records, "blobs": found.blobs, "bytes": found.nbytes}
        sys.stdout.write(as_json({"store": place.label, **counts, **lists, **blobs, "ok": found.good}) + "\n")
    else:
        for finding in found.findings:
            sys.stdout.write(f"{printable(str(finding))}\n")
        counts_text = f"{found.executions} executions, {found.blobs} blobs, {size(found.nbytes)}"
        sys.stdout.write(f"{'all right' if found.good else 'NOT all right'}: {counts_text} in {place.label}\n")
    return ExitCode.OK if found.good else ExitCode.FAILED
