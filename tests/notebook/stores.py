"""What a store says afterwards: which cells are completed, and which ones ran since."""

from __future__ import annotations

from durable_nb.events import CELL, EventKind, StoredEvent
from durable_nb.runtime import open_store
from tests.notebook.harness import Bench


def events(bench: Bench, *, notebook: str | None = None) -> list[StoredEvent]:
    """The events of all executions, or of one notebook's; none while there is no store."""
    if not (bench.store / "journal.db").exists():
        return []
    store = open_store(bench.store, create=False)
    try:
        return [
            stored
            for record in store.journal.executions()
            if notebook is None or record.name == notebook
            for stored in store.journal.read(record.execution_id)
        ]
    finally:
        store.close()


def completed(bench: Bench, *, notebook: str | None = None) -> set[tuple[str, str, float]]:
    """Cells whose results are stored: execution, operation, and when the result was made."""
    return {
        (stored.execution_id, stored.event.operation_id, stored.event.at)
        for stored in events(bench, notebook=notebook)
        if stored.event.kind is EventKind.SUCCEEDED
        and stored.event.sub_type == CELL
        and not stored.event.details.get("runs_again")
    }


def undecided(bench: Bench) -> bool:
    """Whether an at-most-once body has started and not ended: who is killed now has to decide about it."""
    last: dict[tuple[str, str], StoredEvent] = {}
    for stored in events(bench):
        last[stored.execution_id, stored.event.operation_id] = stored
    return any(
        stored.event.kind is EventKind.STARTED and stored.event.details.get("at_most_once") for stored in last.values()
    )


def ran(bench: Bench, known: set[tuple[str, int]]) -> tuple[set[str], set[tuple[str, int]]]:
    """The cells that began since `known`, by operation, and what is known now."""
    found = [stored for stored in events(bench) if stored.event.sub_type == CELL]
    now = {(stored.execution_id, stored.sequence) for stored in found}
    began = {s.event.operation_id for s in found if (s.execution_id, s.sequence) not in known}
    return began, now
