"""The session's home: an open store, the execution in it, and the right to write to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.events import ExecutionRecord
from durable_nb.exceptions import DurableExecutionsError, StoreError
from durable_nb.notebook._execution import ANONYMOUS, Notebook, Ownership, locate, marker_name, project_of, resolve
from durable_nb.notebook._once import OnceSteps
from durable_nb.notebook._records import CellJournal
from durable_nb.runtime import Store, cache_of, find_store, open_store
from durable_nb.settings import Settings, StoreUrl


@dataclass(frozen=True, slots=True)
class Home:
    """What a session writes to."""

    store: Store
    record: ExecutionRecord
    ownership: Ownership
    cells: CellJournal
    once: OnceSteps
    named_by: str
    """Who told the execution's name, for `%durable status`."""

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody told which notebook this is."""
        return self.record.name == ANONYMOUS

    def steps_called(self, name: str) -> list[OnceSteps]:
        """For a session without a name: the at-most-once steps of the executions that know a step of this name."""
        found = []
        for record in self.store.journal.executions():
            if record.kind != "notebook" or record.name == ANONYMOUS:
                continue
            cells = CellJournal(self.store.journal, self.store.blobs, record.execution_id, None)
            steps = OnceSteps(cells, self.store.markers, marker_name(record))
            if cells.events(steps.operation(name)):
                found.append(steps)
        return found

    def close(self) -> None:
        """Let the execution go and close the store."""
        try:
            self.ownership.close()
        finally:
            self.store.close()


@dataclass(frozen=True, slots=True)
class Location:
    """Where a session is, known before any store is opened."""

    notebook: Notebook | None
    store: Path | StoreUrl
    project: Path
    """The folder that paths of inputs are relative to."""

    def files_of_store(self, settings: Settings) -> Path:
        """Where the store has files on this machine: they are nobody's inputs."""
        return cache_of(self.store, settings) if isinstance(self.store, StoreUrl) else self.store


def find_location(namespace: Mapping[str, Any], settings: Settings) -> Location:
    """Where the notebook of this kernel is, and where its store belongs.

    Paths are relative to the store's folder when the notebook lies in it, else to the notebook's project.

    Raises:
        ValidationError: the store's URL is of a kind that is not known.
    """
    notebook = locate(namespace, os.environ)
    folder = notebook.folder if notebook is not None else Path.cwd()
    place = find_store(settings, folder)
    if isinstance(place, Path) and (folder == place.parent or place.parent in folder.parents):
        return Location(notebook, place, place.parent)
    return Location(notebook, place, project_of(folder))


def open_home(location: Location, settings: Settings, *, use: str | None = None) -> Home:
    """Open the store of this kernel's notebook, and its execution.

    Args:
        location: where it is.
        settings: execution and key as the environment gives them.
        use: the name that `%durable use` asked for.

    Raises:
        StoreError: the store cannot be opened.
    """
    store = open_store(location.store, settings=settings)
    try:
        return _in_store(store, location, settings, use)
    except BaseException:
        store.close()
        raise


def keep_small(store: Store, settings: Settings, warn: Callable[[str], None]) -> None:
    """Bring the store into the budget that the environment sets, at most once a day and before anything is replayed."""
    if settings.store_limit is None and settings.store_days is None:
        return
    from durable_nb.maintenance import budget_of, collect_if_due

    try:
        collect_if_due(store, budget_of(settings))
    except (DurableExecutionsError, OSError) as exc:
        warn(f"the store was not brought into its budget: {exc}")


def _in_store(store: Store, location: Location, settings: Settings, use: str | None) -> Home:
    notebook, project = location.notebook, location.project
    anonymous = store.journal.create(ANONYMOUS, kind="notebook", at=time.time(), details={})
    name = use or settings.execution
    if name:
        named_by = "%durable use" if use else "DURABLE_NB_EXECUTION"
        facts = {"project": str(project), **({"path": str(notebook.path)} if notebook else {})}
        record = store.journal.create(name, kind="notebook", at=time.time(), details=facts)
        if record.kind != "notebook":
            raise StoreError(f"{name!r} is an execution of a handler, not of a notebook: choose another name")
    elif notebook is not None:
        record, named_by = resolve(store.journal, notebook, project), notebook.told_by
    else:
        record, named_by = anonymous, "nobody"
    cells = CellJournal(store.journal, store.blobs, record.execution_id, anonymous.execution_id)
    once = OnceSteps(cells, store.markers, marker_name(record))
    return Home(store, record, Ownership(store.journal, record), cells, once, named_by)
