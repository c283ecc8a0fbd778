"""From what a user types to a store and an execution in it.

A store is named by `--store`, else by `DURABLE_NB_STORE`, else it is `.durable/` beside the notebook that was named,
else the one in the working directory or the nearest folder above it. Relative paths mean the caller's working
directory. An execution is named by its name or by its notebook's path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from durable_nb.abc import Journal, Lease
from durable_nb.cli._exit import Complaint
from durable_nb.exceptions import LeaseHeldError
from durable_nb.history import ExecutionView, History
from durable_nb.runtime import Store, find_store, is_store, open_store, store_text
from durable_nb.settings import STORE_DIRECTORY, Settings, StoreUrl

__all__ = ["find_execution", "forget_ordinary", "opened", "owned", "place_of", "store_environment"]

_LEASE_SECONDS = 30.0


def store_environment(option: str | None) -> dict[str, str]:
    """What a kernel, whose working directory is another, must be told of the store; nothing when it finds it itself."""
    text = option or Settings.from_environment().store
    return {} if text is None else {"DURABLE_NB_STORE": store_text(find_store(Settings(store=text), Path.cwd()))}


def place_of(option: str | None, subject: str | None) -> Path | StoreUrl:
    """The directory or URL of the store that is meant, whether or not there is one."""
    settings = Settings.from_environment()
    if option is not None:
        settings = replace(settings, store=option)
    folder = Path.cwd()
    if subject is not None and subject.endswith(".ipynb") and settings.store is None:
        beside = Path(subject).absolute().parent
        if (beside / STORE_DIRECTORY).is_dir():
            return beside / STORE_DIRECTORY
    if settings.store is None:
        for candidate in (folder, *folder.parents):
            if (candidate / STORE_DIRECTORY).is_dir():
                return candidate / STORE_DIRECTORY
    return find_store(settings, folder)


@contextmanager
def opened(option: str | None, subject: str | None = None) -> Iterator[Store]:
    """The store that is meant, which must exist: reading commands never make one."""
    place = place_of(option, subject)
    if isinstance(place, Path) and not place.is_dir():
        raise Complaint(f"there is no store at {place}: name one with --store, or name a notebook that has run")
    store = open_store(place, create=False)
    try:
        yield store
    finally:
        store.close()


def find_execution(history: History, text: str) -> ExecutionView:
    """The execution that `text` names, or a complaint that lists what there is."""
    found = _by_path(history, text) or history.find(text)
    if found is None:
        names = history.names()
        known = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise Complaint(f"there is no execution {text!r} in this store ({known or 'it is empty'})")
    return found


def _by_path(history: History, text: str) -> ExecutionView | None:
    if not text.endswith(".ipynb"):
        return None
    path = os.path.realpath(text)
    for view in history.executions():
        recorded = view.record.details.get("path")
        if isinstance(recorded, str) and os.path.realpath(recorded) == path:
            return view
    return None


@contextmanager
def owned(journal: Journal, execution: ExecutionView) -> Iterator[Lease]:
    """Nobody else writes to the execution meanwhile."""
    try:
        lease = journal.acquire(execution.record.execution_id, ttl=_LEASE_SECONDS)
    except LeaseHeldError as exc:
        raise Complaint(f"{execution.name} is in use by {exc.holder}: stop that kernel first") from None
    try:
        yield lease
    finally:
        journal.release(lease)


def forget_ordinary(option: str | None, notebook: Path, execution: str | None) -> int:
    """Forget the cells of a notebook except the at-most-once ones; returns how many. No store: nothing to forget."""
    place = place_of(option, str(notebook))
    if not is_store(place):
        return 0
    with opened(option, str(notebook)) as store:
        history = History(store.journal)
        found = history.find(execution) if execution is not None else _by_path(history, str(notebook))
        if found is None:
            return 0
        gone = [op for op in found.operations if op.is_cell and not op.at_most_once]
        with owned(store.journal, found):
            history.forget(found, gone)
        return len(gone)
