"""Markers of at-most-once bodies: they go first, always, and are never taken away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from durable_nb.abc import Markers
from durable_nb.events import CELL, EventKind, ExecutionRecord
from durable_nb.transfer._merge import Item

__all__ = ["Starts", "marker_name", "starts_to_copy"]


def marker_name(record: ExecutionRecord) -> str:
    """The name that an execution's markers carry: a notebook may have been renamed since."""
    return str(record.details.get("markers") or record.name) if record.kind == "notebook" else record.name


@dataclass(frozen=True, slots=True)
class Starts:
    """What the target has still to be told of begun bodies."""

    new: Mapping[str, Mapping[str, Any]]
    """Markers that it lacks: name and facts."""
    torn: Mapping[str, Mapping[str, Any]]
    """Those that it has and a kill has torn: no body followed such a claim, and it is to be completed."""
    own: frozenset[str]
    """Names of those that it has from a start of its own."""


def starts_to_copy(
    source: Markers, target: Markers, *, source_name: str, target_name: str, items: Iterable[Item]
) -> Starts:
    """The difference of the markers.

    Args:
        source: of the source.
        target: of the target.
        source_name: what the execution's markers are called in the source.
        target_name: and in the target.
        items: the execution's events in the source; a start among them is a witness too.
    """
    new, torn, own = {}, {}, set()
    for name, facts in _told(source, source_name, items):
        kept = {key: value for key, value in facts.items() if key not in ("execution", "name")}
        there = target.read(target_name, name)
        if there is None:
            new[name] = kept
        elif "at" not in there:
            torn[name] = kept
        elif there["at"] != facts.get("at"):
            own.add(name)
    return Starts(new, torn, frozenset(own))


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
