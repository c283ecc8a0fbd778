"""What one history lacks of another: plain functions over recorded events. The package's text has the rules."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from durable_nb.abc import Journal
from durable_nb.events import CELL, Event, EventKind, OperationType, StoredEvent

__all__ = [
    "ADDRESS",
    "Item",
    "Left",
    "Missing",
    "Side",
    "identity_of",
    "is_over",
    "missing_of_handler",
    "missing_of_notebook",
]

ADDRESS = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
"""The name of a blob, in a payload or in details."""

_MASK = b"0" * 64

REFUSED = "refused"
"""The key of details of a note of the SDK: see `durable_nb.sdk._once`."""


@dataclass(frozen=True, slots=True)
class Left:
    """Something that was not copied."""

    what: str
    why: str
    problem: bool = True
    """False when nothing is wrong: it belongs where it is."""

    def __str__(self) -> str:
        return f"{self.what} {self.why}"


# --- events that are the same -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """An event of one side."""

    sequence: int
    event: Event
    trusted: bool
    identity: bytes
    """Equal for the same event in every store: of all that it says, but for the names of blobs and of its execution,
    which differ between stores."""

    @property
    def label(self) -> str:
        """What a person calls its operation."""
        event = self.event
        return str(event.name or event.details.get("label") or event.operation_id[:12])


def identity_of(stored: StoredEvent) -> bytes:
    """See `Item.identity`."""
    event = stored.event
    own = stored.execution_id
    said = [
        None if event.operation_id == own else event.operation_id,
        event.kind.value,
        event.type.value,
        event.sub_type,
        event.name,
        None if event.parent_id == own else event.parent_id,
        _number(event.at),
        event.attempt,
        None if event.payload is None else blake3(ADDRESS.sub(_MASK, event.payload)).hexdigest(),
        None if event.error is None else [event.error.type, event.error.message, *event.error.traceback],
        None if event.error is None else event.error.data,
        None if event.due is None else _number(event.due),
        _number(dict(event.details)),
    ]
    return blake3(ADDRESS.sub(_MASK, json.dumps(said, sort_keys=True).encode())).digest()


def _number(value: Any) -> Any:
    """The value with one way to write each number: a database may give 2 back for 2.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _number(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_number(item) for item in value]
    return value


class Side:
    """The events of one execution in one store; only its new ones are read again."""

    def __init__(self, journal: Journal, execution_id: str | None) -> None:
        self._journal = journal
        self.execution_id = execution_id
        self.items: list[Item] = []

    @property
    def last(self) -> int:
        """The number of the last event that is known."""
        return self.items[-1].sequence if self.items else 0

    def refresh(self) -> bool:
        """Read what is new; whether there was anything."""
        if self.execution_id is None:
            return False
        new = [
            Item(stored.sequence, stored.event, stored.trusted, identity_of(stored))
            for stored in self._journal.read(self.execution_id, after=self.last)
        ]
        self.items += new
        return bool(new)


# --- the difference ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Missing:
    """What the target lacks."""

    groups: list[list[Item]] = field(default_factory=list)
    """In the order of the source. A group is written in one transaction: whole, or not at all."""
    left: list[Left] = field(default_factory=list)
    present: int = 0
    """Events that are there already."""
    apart: int = 0
    """Cells whose steps ran on both sides."""


_ENDS = frozenset({EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELLED, EventKind.TIMED_OUT, EventKind.STOPPED})
_OUTSIDE = frozenset({OperationType.CALLBACK, OperationType.CHAINED_INVOKE})
"""Operations whose end comes to the store that began them."""


def missing_of_notebook(
    source: Sequence[Item],
    target: Sequence[Item],
    *,
    name: str,
    damaged: AbstractSet[int] = frozenset(),
    began: AbstractSet[str] = frozenset(),
    once: bool = True,
) -> Missing:
    """What the target lacks of a notebook's history.

    Args:
        source: all events of the source.
        target: all events of the target.
        name: of the notebook, for people.
        damaged: numbers of events in the source whose blobs cannot be had.
        began: names of at-most-once cells that the target has begun by itself, whatever its rows say.
        once: False leaves at-most-once cells out: the target knows the notebook's under other names.
    """
    found = Missing(present=_present(source, target))
    untrusted = sum(1 for item in source if not item.trusted)
    if untrusted:
        found.left.append(
            Left(name, f"has {untrusted} records that are not signed with a key that you trust (see durable-nb trust)")
        )
    # That a step was not run because its marker was there alone is a question of one store, and no part of a story.
    ours = _units(item for item in source if not item.event.details.get(REFUSED))
    theirs = _units(item for item in target if not item.event.details.get(REFUSED))
    at_most_once = _at_most_once(source) | _at_most_once(target)
    chosen: list[Item] = []
    for (kind, key), items in ours.items():
        there = theirs.get((kind, key), [])
        if kind == "steps":
            chosen += _steps(items, there, at_most_once, damaged, found, name)
        elif key not in at_most_once:
            chosen += _cell(items, there, damaged, found, name)
        elif once:
            chosen += _once(items, there, damaged, began, found, name)
    if found.apart:
        cells = "one cell" if found.apart == 1 else f"{found.apart} cells"
        found.left.append(Left(name, f"has steps inside {cells} that ran on both sides: each keeps its own", False))
    chosen.sort(key=lambda item: item.sequence)
    found.groups = list(_grouped(chosen, at_most_once))
    return found


def _present(source: Sequence[Item], target: Sequence[Item]) -> int:
    here = Counter(item.identity for item in source)
    return (here & Counter(item.identity for item in target if item.trusted)).total()


def _units(items: Iterable[Item]) -> dict[tuple[str, str], list[Item]]:
    """Events that are one story: those of a cell, and those of all steps below one."""
    items = list(items)
    parents = {each.event.operation_id: each.event.parent_id for each in items if each.event.sub_type != CELL}
    found: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        key = item.event.operation_id
        kind = "cell" if item.event.sub_type == CELL else "steps"
        seen: set[str] = set()
        while kind == "steps" and key not in seen and (above := parents.get(key)) is not None:
            seen.add(key)
            key = above
        found.setdefault((kind, key), []).append(item)
    return found


def _at_most_once(items: Iterable[Item]) -> set[str]:
    """Operations whose body may begin once; only such have decisions."""
    return {
        item.event.operation_id
        for item in items
        if item.event.details.get("at_most_once") or item.event.details.get("decision")
    }


def _rest(mine: Sequence[Item], theirs: Sequence[Item]) -> Sequence[Item] | None:
    """What follows in my story, when theirs is the beginning of it or goes further; None when it is another story."""
    ours, there = [item.identity for item in mine], [item.identity for item in theirs]
    if ours[: len(there)] == there:
        return mine[len(there) :]
    return () if there[: len(ours)] == ours or not Counter(ours) - Counter(there) else None


def _cell(
    items: list[Item], theirs: list[Item], damaged: AbstractSet[int], found: Missing, name: str
) -> Sequence[Item]:
    """Of an ordinary cell. That a checkpoint cannot be read (`lost`) is so in one store only."""
    good = [item for item in items if item.trusted and not item.event.details.get("lost")]
    _tell_damaged(good, damaged, found, name)
    good = [item for item in good if item.sequence not in damaged]
    there = [item for item in theirs if item.trusted and not item.event.details.get("lost")]
    if [item.identity for item in good[: len(there)]] == [item.identity for item in there]:
        return good[len(there) :]
    known = Counter(item.identity for item in there)
    new = []
    for item in good:
        if item.event.kind is EventKind.SUCCEEDED:
            if known[item.identity] == 0:
                new.append(item)
            else:
                known[item.identity] -= 1
    return new


def _once(
    items: list[Item],
    theirs: list[Item],
    damaged: AbstractSet[int],
    began: AbstractSet[str],
    found: Missing,
    name: str,
) -> Sequence[Item]:
    _tell_damaged(items, damaged, found, name)
    story = _closed(_whole(items, damaged), lambda _: True)
    there = [item for item in theirs if item.trusted]
    rest = _rest(story, there)
    if story and not there and any(item.event.name in began for item in items):
        rest = None
    if rest is None:
        found.left.append(
            Left(f"{name}: at-most-once {items[0].label}", "was begun on both sides: each keeps its own record", False)
        )
    return rest or ()


def _steps(
    items: list[Item],
    theirs: list[Item],
    at_most_once: Collection[str],
    damaged: AbstractSet[int],
    found: Missing,
    name: str,
) -> Sequence[Item]:
    _tell_damaged(items, damaged, found, name)

    def held(item: Item) -> bool:
        return item.event.operation_id in at_most_once or item.event.type in _OUTSIDE

    story = _closed(_whole(items, damaged), held)
    rest = _rest(story, theirs) if all(item.trusted for item in theirs) else None
    if rest is None:
        found.apart += 1
    return rest or ()


def _tell_damaged(items: Iterable[Item], damaged: AbstractSet[int], found: Missing, name: str) -> None:
    for item in items:
        if item.sequence in damaged:
            found.left.append(Left(f"{name}: {item.label}", "names a blob that is damaged or missing"))


def _whole(items: Sequence[Item], damaged: AbstractSet[int]) -> Sequence[Item]:
    """A story up to what is not believed or cannot be had."""
    for place, item in enumerate(items):
        if not item.trusted or item.sequence in damaged:
            return items[:place]
    return items


def _closed(items: Sequence[Item], held: Callable[[Item], bool]) -> Sequence[Item]:
    """The longest beginning of a story in which nothing that is held is open: begun, or allowed to begin."""
    opened: set[str] = set()
    good = 0
    for place, item in enumerate(items, start=1):
        event = item.event
        if held(item):
            decision = event.details.get("decision")
            if event.kind in (EventKind.STARTED, EventKind.RETRY_SCHEDULED) or decision == "again":
                opened.add(event.operation_id)
            elif event.kind in _ENDS or decision is not None:
                opened.discard(event.operation_id)
        if not opened:
            good = place
    return items[:good]


def _grouped(items: Iterable[Item], at_most_once: Collection[str]) -> Iterator[list[Item]]:
    """One event each, but an at-most-once step of a cell whole: half of it would be an interrupted attempt."""
    group: list[Item] = []
    opened: set[str] = set()
    for item in items:
        event = item.event
        group.append(item)
        if event.operation_id in at_most_once and event.sub_type != CELL:
            if event.kind in (EventKind.STARTED, EventKind.RETRY_SCHEDULED):
                opened.add(event.operation_id)
            elif event.kind in _ENDS:
                opened.discard(event.operation_id)
        if not opened:
            yield group
            group = []
    if group:
        yield group


# --- handlers ---------------------------------------------------------------------------------------------------------


def is_over(items: Iterable[Item]) -> Item | None:
    """The end of a handler, signed; None while it has none."""
    for item in items:
        if item.event.type is OperationType.EXECUTION and item.event.kind in _ENDS and item.trusted:
            return item
    return None


def missing_of_handler(
    source: Sequence[Item], target: Sequence[Item], *, name: str, damaged: AbstractSet[int] = frozenset()
) -> Missing:
    """What the target lacks of a handler's history: all of it, or nothing."""
    found = Missing(present=_present(source, target))
    end = is_over(source)
    doubted = sum(1 for item in source if not item.trusted)
    if doubted:
        why = f"has {doubted} records that are not signed with a key that you trust (see durable-nb trust)"
        found.left.append(Left(name, why))
    elif end is None:
        why = "has not ended, and stays where it is driven; that its at-most-once steps were begun is copied"
        found.left.append(Left(name, why, False))
    elif damaged:
        found.left.append(Left(name, "names a blob that is damaged or missing"))
    else:
        there = is_over(target)
        rest = _rest(source, target) if all(item.trusted for item in target) else None
        if there is not None and there.identity == end.identity:
            return found  # its steps may have been collected: its end is what counts
        if rest is None or there is not None:
            found.left.append(Left(name, "has another history in the target: a handler's name has one result"))
        elif rest:
            found.groups.append(list(rest))
    return found
