"""Large trees of plain data: lists, tuples and dicts of numbers and texts, each object held once.

Theory. Asking a question in Python about each of ten million objects takes a minute. A tree of plain data needs none:
`gc.get_referents` walks it, `marshal` (of version 2, which knows neither sharing nor interning) writes its content, and
`pickle` stores it, all in C. What is no such tree (another type, a subclass, a list that is held twice) takes the
general way. Which way a value takes depends on its content alone, so equal values have equal digests.
"""

from __future__ import annotations

import gc
import marshal
from collections.abc import Iterator
from itertools import islice
from typing import Any

import xxhash

from durable_nb._dataclass import dataclass
from durable_nb._ident import ident

WORTH_IT = 4096
"""Objects. Less is quickly done the general way."""

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_HOLDERS = (list, dict, tuple)
_PLAIN = _ATOMS.union(_HOLDERS)

_BATCH = 1 << 16
_PIECE = 4096
_LOOK_INTO = 64
"""Members. What holds fewer is written member by member, so that no piece becomes as large as the whole."""

_DEEPEST_PIECE = 3


@dataclass(frozen=True, slots=True)
class Tree:
    """What is to be known of one."""

    mutables: frozenset[int]
    """Ids of its lists and dicts."""
    objects: int


def tree(value: Any) -> Tree | None:
    """The value as a large tree of plain data, or None when it is none."""
    if type(value) not in _HOLDERS:
        return None
    mutables: set[int] = set()
    tuples: set[int] = set()
    waiting, objects = [value], 1
    while waiting:
        batch = waiting[-_BATCH:]
        del waiting[-_BATCH:]
        fixed = [ident(one) for one in batch if type(one) is tuple]
        free = list(map(ident, batch)) if not fixed else [ident(one) for one in batch if type(one) is not tuple]
        if not (_add(tuples, fixed) and _add(mutables, free)):
            return None
        members = gc.get_referents(*batch)
        objects += len(members)
        kinds = set(map(type, members))
        if not _PLAIN.issuperset(kinds):
            return None
        if not kinds.isdisjoint(_HOLDERS):
            # The empty tuple is one object, wherever it stands.
            waiting += [one for one in members if type(one) in _HOLDERS and (one or type(one) is not tuple)]
    return Tree(frozenset(mutables), objects) if objects >= WORTH_IT else None


def _add(seen: set[int], ids: list[int]) -> bool:
    """Whether all of them are new."""
    before = len(seen)
    seen.update(ids)
    return len(seen) == before + len(ids)


def digest(value: Any) -> tuple[str, int] | None:
    """XXH3-128 of the content of a tree, and how many bytes that was; None when it is nested too deeply."""
    hasher, size = xxhash.xxh3_128(), 0
    try:
        for piece in _pieces(value, 0):
            hasher.update(piece)
            size += len(piece)
    except ValueError:
        return None
    return hasher.hexdigest(), size


def _pieces(value: Any, depth: int) -> Iterator[bytes]:
    kind = type(value)
    if kind not in _HOLDERS or (len(value) <= _LOOK_INTO and depth >= _DEEPEST_PIECE):
        yield marshal.dumps(value, 2)
        return
    yield b"%s:%d:" % (kind.__name__.encode(), len(value))
    members = iter(value.items() if kind is dict else value)
    if len(value) > _LOOK_INTO:
        while piece := list(islice(members, _PIECE)):
            yield marshal.dumps(piece, 2)
        return
    for member in members:
        for part in member if kind is dict else (member,):
            yield from _pieces(part, depth + 1)
