"""`durable-nb worker`: drive whatever is due in a store."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from durable_nb.cli._options import StoreOption

__all__ = ["register", "worker"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="worker")(worker)


def worker(
    modules: Annotated[
        list[str] | None, typer.Argument(metavar="[MODULE]…", help="Modules whose handlers `invoke` may name.")
    ] = None,
    store: StoreOption = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="How many executions at once.")] = 4,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit", metavar="HANDLER=N", help="At most N of its executions at once, over all workers told the same."
        ),
    ] = None,
    poll: Annotated[float, typer.Option("--poll", help="Seconds between two looks at the store.")] = 0.5,
    once: Annotated[bool, typer.Option("--once", help="Stop when nothing is due.")] = False,
) -> int:
    """Drive executions: waits that are over, retries, callbacks that came, and what a dead process left."""
    import importlib
    import os
    import sys
    from pathlib import Path

    from durable_nb.cli._exit import Complaint
    from durable_nb.cli._handlers import opened_for_handlers
    from durable_nb.runtime import Worker, driver_for

    sys.path.insert(0, os.fspath(Path.cwd()))
    for module in modules or ():
        try:
            importlib.import_module(module.partition(":")[0])
        except ImportError as exc:
            raise Complaint(f"cannot import {module}: {exc}") from None
    with opened_for_handlers(store, create=True) as place:
        running = Worker(driver_for(place), threads=threads, limits=_limits(limit or []))

        def stop(_signal: int, _frame: FrameType | None) -> None:
            running.stop()

        previous = signal.signal(signal.SIGTERM, stop)
        try:
            if once:
                running.run_until_idle()
            else:
                running.run_forever(poll_seconds=poll)
        finally:
            running.stop()
            signal.signal(signal.SIGTERM, previous)
    return 0


def _limits(words: list[str]) -> dict[str, int]:
    from durable_nb.cli._exit import Complaint

    found = {}
    for word in words:
        name, separator, number = word.rpartition("=")
        if not separator or not name or not number.isdigit() or not int(number):
            raise Complaint(f"--limit {word}: write the name of a handler and a number, such as --limit order=5")
        found[name] = int(number)
    return found
