"""The iteration order of sets, kept.

Theory. A set's order is the order of the slots of its hash table, and that depends on how the table grew: pickling a
set of 30 integers and loading it gives another order more often than not. The loader therefore rebuilds the table.
`set(dict)` makes a table sized for the dict and inserts in the dict's order, so the table is decided by two things:
how many keys there are, and who comes first where two want one slot. Both are read off the live table: a member must be
inserted after every member that sits on its way from its hash to its slot; a deleted slot on the way is taken by a
filler while building. A larger table than the members need is made by more fillers, or for a frozen set by a union, as
unions made it. The plan is tried at once, and a plan that fails is no plan.

A set with a member whose hash differs between processes has an arbitrary order in any run: there the plan is tried,
and not missed.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import decimal
import enum
import fractions
import os
import sys
import uuid
from typing import Any

from durable_nb.snapshot import _rebuild

_LINEAR_PROBES = 9
_SHIFT = 5


class _Entry(ctypes.Structure):
    _fields_ = (("key", ctypes.c_void_p), ("hash", ctypes.c_ssize_t))


class _Table(ctypes.Structure):
    _fields_ = (
        ("refcount", ctypes.c_ssize_t),
        ("type", ctypes.c_void_p),
        ("fill", ctypes.c_ssize_t),
        ("used", ctypes.c_ssize_t),
        ("mask", ctypes.c_ssize_t),
        ("table", ctypes.POINTER(_Entry)),
    )


def strings_hash_alike() -> bool:
    """True when strings have the same hash in every process (`PYTHONHASHSEED` is set)."""
    if not sys.flags.hash_randomization:
        return True
    return os.environ.get("PYTHONHASHSEED", "random").isdigit()


def stable(value: Any, strings: bool) -> bool:
    """True when the value's hash is the same in another process."""
    kind = type(value)
    if kind in (int, float, complex, bool):
        return bool(value == value)  # noqa: PLR0124 - a NaN hashes by its address
    if kind in (str, bytes):
        return strings
    if kind in (tuple, frozenset):
        return all(stable(item, strings) for item in value)
    if isinstance(value, (decimal.Decimal, fractions.Fraction, uuid.UUID)):
        return True
    if isinstance(value, (enum.Enum, dt.date, dt.time, dt.timedelta)):
        return strings
    return value is None and sys.version_info >= (3, 12)


def survives(value: set[Any] | frozenset[Any]) -> bool:
    """True when an ordinary pickle gives the same order back."""
    members = list(value)
    return len(members) < 2 or _same(set(members), members)


def ordered(value: set[Any] | frozenset[Any]) -> bool:
    """True when the order is the same in every process; otherwise it is kept only where that is possible."""
    strings = strings_hash_alike()
    return all(stable(member, strings) for member in value)


def plan_for(value: set[Any] | frozenset[Any]) -> tuple[list[Any], list[int], list[Any]] | None:
    """Members, insertion plan and fillers for `_rebuild.ordered_set`; None when no plan gives this order."""
    members = list(value)
    slots = _slots(value)
    if slots is None:
        return None
    mask = len(slots) - 1
    at = {slot: place for place, slot in enumerate(index for index, key in enumerate(slots) if key == "used")}
    before: list[list[int]] = []
    fillers: set[int] = set()
    for place, slot in enumerate(at):
        way = _way(hash(members[place]), slot, mask)
        if way is None:
            return None
        fillers.update(step for step in way if slots[step] == "deleted")
        if any(slots[step] == "free" for step in way):
            return None
        before.append([at[step] for step in way if slots[step] == "used"])
    sequence = _sorted(before)
    if sequence is None:
        return None
    values = [_unused(slot, mask) for slot in sorted(fillers)]
    room = _room(len(members) + len(values), mask)
    if isinstance(value, frozenset):
        return None if values else _frozen_plan(members, sequence, room, mask + 1)
    if room is None:
        return None
    values += [_unused(step & mask, mask) + (mask + 1) * (step + 7) for step in range(room)]
    plan = [-1 - step for step in range(len(values) - room)]
    plan += sequence
    plan += [-1 - step for step in range(len(values) - room, len(values))]
    made = _rebuild.ordered_set(members, plan, values, False)
    return (members, plan, values) if _same(made, members) else None


def _frozen_plan(
    members: list[Any], sequence: list[int], room: int | None, size: int
) -> tuple[list[Any], list[int], list[Any]] | None:
    """Tables of other sizes than a dict gives come from unions; the few ways to such a size are tried."""
    ways: list[list[Any]] = [[]] if room == 0 else [["all", room]] if room is not None and room <= len(members) else []
    ways += [["rest", first] for first in (0, size // 4, min(len(members), size // 2 - 1)) if first <= len(members)]
    for way in ways:
        if _same(_rebuild.ordered_set(members, sequence, way, True), members):
            return members, sequence, way
    return None


def _same(made: Any, members: list[Any]) -> bool:
    return len(made) == len(members) and all(left is right for left, right in zip(made, members, strict=True))


def _slots(value: Any) -> list[str] | None:
    """`used`, `deleted` or `free` for each slot of the live table, read from memory after checks of its layout."""
    if sys.implementation.name != "cpython" or hasattr(sys, "gettotalrefcount") or not _gil():
        return None
    table = _Table.from_address(id(value))
    size = table.mask + 1
    if table.used != len(value) or size < 8 or size & table.mask or table.fill < table.used or table.fill >= size:
        return None
    expected = sys.getsizeof(value) - sys.getsizeof(set())
    if size > 8 and expected != size * ctypes.sizeof(_Entry):
        return None
    members = {id(member) for member in value}
    found = []
    for index in range(size):
        key = table.table[index].key
        found.append("free" if key is None else "used" if key in members else "deleted")
    return found if found.count("used") == len(value) else None


def _gil() -> bool:
    check = getattr(sys, "_is_gil_enabled", None)
    return check is None or bool(check())


def _way(hashed: int, slot: int, mask: int) -> list[int] | None:
    """The slots that insertion looks at before it reaches `slot`."""
    perturb = hashed & (2**64 - 1)
    index = hashed & mask
    way: list[int] = []
    for _ in range(4 * mask + 64):
        reach = _LINEAR_PROBES if index + _LINEAR_PROBES <= mask else 0
        for step in range(index, index + reach + 1):
            if step == slot:
                return way
            way.append(step)
        perturb >>= _SHIFT
        index = (index * 5 + 1 + perturb) & mask
    return None


def _sorted(before: list[list[int]]) -> list[int] | None:
    """Places in an order that respects `before`, or None for a cycle."""
    done: list[int] = []
    state = [0] * len(before)
    for start in range(len(before)):
        stack = [(start, iter(before[start]))] if state[start] == 0 else []
        if stack:
            state[start] = 1
        while stack:
            place, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                state[place] = 2
                done.append(place)
            elif state[following] == 1:
                return None
            elif state[following] == 0:
                state[following] = 1
                stack.append((following, iter(before[following])))
    return done


def _room(count: int, mask: int) -> int | None:
    """How many more keys make `set(dict)` choose this table size; None when fewer would be needed."""
    size = mask + 1
    if count * 5 < 8 * 3 - 3 and size == 8:  # small enough to stay in the built-in table
        return 0
    needed = max(0, size // 4 - count)
    total = count + needed
    made = 8
    if total * 5 >= 7 * 3:
        while made <= total * 2:
            made *= 2
    return needed if made == size else None


def _unused(slot: int, mask: int) -> int:
    """A hash that lands on `slot`."""
    return slot + (mask + 1) * 1_000_003
