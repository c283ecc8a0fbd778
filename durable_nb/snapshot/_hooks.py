"""Instances of notebook classes whose pickling is the user's: what their hooks leave out.

A class with a `__reduce__`, `__getstate__` or constructor arguments of its own says by itself what is written, and a
pass over what is written sees no more than that. Two things follow. What such an object holds besides is looked at too,
so that a change of it is a change of the group. And since the hooks that load are run only once per class, for a proof,
a later instance is stored only when all it holds is part of what is written, locks and empty places aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._digest_rules import slots_of
from durable_nb.snapshot._kinds import ATOMS, Kind, kind_of_type

_DEEPEST = 3


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What an instance holds: its dict and its slots."""
    yield from list(getattr(value, "__dict__", {}).items())
    for name in slots_of(type(value)):
        if hasattr(value, name):
            yield name, getattr(value, name)


def left_out(value: Any, made: tuple[Any, ...]) -> str | None:
    """The first attribute that is not part of what `__reduce__` gave."""
    objects: set[int] = set()
    atoms: set[tuple[type, Any]] = set()
    for part in made[1:5]:
        _collect(part, objects, atoms, _DEEPEST)
    for name, held in attributes(value):
        kind = type(held)
        known = (kind, held) in atoms if kind in ATOMS else ident(held) in objects
        if not known and not _is_empty(held) and kind_of_type(kind) not in (Kind.HANDLE, Kind.WEAKREF):
            return name
    return None


def _collect(part: Any, objects: set[int], atoms: set[tuple[type, Any]], depth: int) -> None:
    kind = type(part)
    if kind in ATOMS:
        atoms.add((kind, part))
        return
    objects.add(ident(part))
    if depth and kind in (tuple, list, dict):
        for item in part.values() if kind is dict else part:
            _collect(item, objects, atoms, depth - 1)


def _is_empty(value: Any) -> bool:
    return value is None or (type(value) in (list, dict, set, tuple) and not value)
