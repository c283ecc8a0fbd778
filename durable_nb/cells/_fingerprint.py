"""Inputs and their fingerprint: what must be equal for a checkpoint to be valid."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import replace
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.cells._digest import digest
from durable_nb.exceptions import ValidationError

__all__ = [
    "ABSENT",
    "KINDS",
    "Difference",
    "Input",
    "Inputs",
    "compare",
    "fingerprint",
    "first_difference",
    "from_json",
    "to_json",
]

KINDS = (
    "source",
    "name",
    "everything",
    "module",
    "dist",
    "python",
    "process",
    "file",
    "listing",
    "missing",
    "env",
    "cwd",
    "setup",
)
"""Kinds of input, in the order in which a person wants to hear about them."""

ABSENT = ""
"""The version of something that is not there: an unbound name, an unset variable, a package not installed."""

_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that a cell depended on."""

    kind: str
    key: str
    version: str
    origin: str | None = None
    """Where it came from, for people: the label of a cell, a path. No part of the fingerprint."""

    def __post_init__(self) -> None:
        if self.kind not in _RANK:
            raise ValidationError(f"unknown kind of input {self.kind!r}")


class Inputs(Mapping[tuple[str, str], Input]):
    """An ordered set of inputs: one version for each kind and key. Adding one again replaces its version."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Input] = ()) -> None:
        self._items: dict[tuple[str, str], Input] = {(item.kind, item.key): item for item in items}

    def add(self, item: Input) -> None:
        """Add an input."""
        self._items[item.kind, item.key] = item

    def update(self, items: Iterable[Input]) -> None:
        """Add several."""
        self._items.update(((item.kind, item.key), item) for item in items)

    def discard(self, kind: str, key: str) -> None:
        """Leave an input out."""
        self._items.pop((kind, key), None)

    def of(self, kind: str) -> dict[str, str]:
        """Versions by key, for one kind."""
        return {key: item.version for (found, key), item in self._items.items() if found == kind}

    def sorted(self) -> list[Input]:
        """In the order in which a person wants to hear about them."""
        return sorted(self._items.values(), key=lambda item: (_RANK[item.kind], item.key))

    def __getitem__(self, key: tuple[str, str]) -> Input:
        return self._items[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def values(self) -> ValuesView[Input]:
        return self._items.values()

    def items(self) -> ItemsView[tuple[str, str], Input]:
        return self._items.items()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inputs) and _pairs(self) == _pairs(other)

    def __hash__(self) -> int:
        return hash(frozenset(_pairs(self).items()))

    def __repr__(self) -> str:
        return f"Inputs({list(self._items.values())!r})"


def _pairs(inputs: Inputs) -> dict[tuple[str, str], str]:
    return {place: item.version for place, item in inputs.items()}


def fingerprint(inputs: Inputs) -> str:
    """32 hex characters; equal exactly when the kinds, keys and versions are, in whatever order they were found."""
    parts: list[str] = []
    for place, item in sorted(inputs.items()):
        parts += (*place, item.version)
    return digest(*parts)


@dataclass(frozen=True, slots=True)
class Difference:
    """An input that is not what it was."""

    recorded: Input
    current: Input
    """Its version is `ABSENT` when the thing is gone."""

    @property
    def kind(self) -> str:
        """The kind of the input."""
        return self.recorded.kind

    @property
    def key(self) -> str:
        """The key of the input."""
        return self.recorded.key


Lookup = Callable[[Input], "Input | str | None"]
"""Gives the present version of a recorded input."""


def compare(recorded: Inputs, current: Inputs | Lookup) -> Iterator[Difference]:
    """The recorded inputs that have another version now, the most telling kinds first.

    Args:
        recorded: what the checkpoint depended on.
        current: what is there now; a function is asked for one input after the other, so a caller that stops at the
            first difference pays for no more.
    """
    for item in recorded.sorted():
        found = current.get((item.kind, item.key)) if isinstance(current, Inputs) else current(item)
        if found is None:
            found = ABSENT
        now = replace(item, version=found, origin=None) if isinstance(found, str) else found
        if now.version != item.version:
            yield Difference(item, now)


def first_difference(recorded: Inputs, current: Inputs | Lookup) -> Difference | None:
    """The most telling difference, or None: the record is valid."""
    return next(compare(recorded, current), None)


def to_json(inputs: Inputs) -> list[list[Any]]:
    """JSON values, compact: `[kind, key, version]`, with the origin as a fourth where there is one."""
    return [
        [i.kind, i.key, i.version] if i.origin is None else [i.kind, i.key, i.version, i.origin]
        for i in inputs.values()
    ]


def from_json(data: Iterable[Iterable[Any]]) -> Inputs:
    """The inverse of `to_json`; an unknown kind is a `ValidationError`, so a newer record is never half understood."""
    return Inputs(Input(*row) for row in data)
