"""Markers of at-most-once bodies: they go first, always, and are never taken away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from durable_nb.abc import Markers
from durable_nb.events import CELL, EventKind, ExecutionRecord
from durable_nb.transfer._merge import Item

__all__ = ["copy_markers", "marker_name"]


def marker_name(record: ExecutionRecord) -> str:
    """The name that an execution's markers carry: a notebook may have been renamed since."""
    return str(record.details.get("markers") or record.name) if record.kind == "notebook" else record.name


def copy_markers(
    source: Markers, target: Markers, *, source_name: str, target_name: str, items: Iterable[Item], dry_run: bool
) -> tuple[int, set[str]]:
    """Let the target know which bodies were begun.

    Args:
        source: of the source.
        target: of the target.
        source_name: what the execution's markers are called in the source.
        target_name: and in the target.
        items: the execution's events in the source; a start among them is a witness too.
        dry_run: claim none.

    Returns:
        How many were new, and the names of those that the target had from a start of its own.
    """
    new, own = 0, set()
    for name, facts in _told(source, source_name, items):
        there = target.read(target_name, name)
        if there is not None:
            if there.get("at") != facts.get("at"):
                own.add(name)
            continue
        kept = {key: value for key, value in facts.items() if key not in ("execution", "name")}
        if dry_run or target.claim(target_name, name, kept):
            new += 1
        else:
            own.add(name)  # begun in this moment
    return new, own


def _told(source: Markers, execution: str, items: Iterable[Item]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The source's markers, and those that its rows say there must have been."""
    told = set()
    for facts in source.of(execution):
        told.add(str(facts["name"]))
        yield str(facts["name"]), facts
    for item in items:
        event = item.event
        if event.kind is not EventKind.STARTED or not event.details.get("at_most_once"):
            continue
        name = _named(item)
        if name is not None and name not in told:
            told.add(name)
            yield name, {"at": event.at, "label": item.label}


def _named(item: Item) -> str | None:
    from durable_nb.sdk._once import marker_of

    event = item.event
    return event.name if event.sub_type == CELL else marker_of(event.operation_id, event.attempt)
