"""Proof at save time that a value comes back as it was.

Theory. A pickle can be wrong without an error: a `__reduce__` that forgets an attribute, a subclass whose base in C
knows nothing of its instance dict, a `__setstate__` that guesses. So what has rules of its own is loaded again, in the
same process, and the two graphs are walked side by side: same types, same structure, same sharing. `==` is never
asked, since it is the user's code and often says too little.

Exempt are exact types of the standard library, NumPy, pandas and a few packages whose pickles are known to be right,
and classes without any pickling hook, for which pickle is right by construction. Loading runs the hooks of the user's
classes, which may be seen from outside; therefore each class of the notebook is loaded for checking only once, and its
further instances stand for themselves. Arrays are laid over the live memory: checking a gigabyte costs no gigabyte.
"""

from __future__ import annotations

import collections
import functools
import io
import pickle
import struct
import sys
import types
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from durable_nb._ident import ident
from durable_nb.snapshot import _memory, _sets
from durable_nb.snapshot._deep import deeply
from durable_nb.snapshot._digest_rules import slots_of
from durable_nb.snapshot._kinds import ATOMS, Kind, default_reduce, full_name, kind_of_type
from durable_nb.snapshot._pickle import PROTOCOL, REGISTERED, GroupPickler
from durable_nb.snapshot._scan import Problem, unnoticed
from durable_nb.snapshot._unpickle import GroupUnpickler

if TYPE_CHECKING:
    from durable_nb.snapshot._groups import Group
    from durable_nb.snapshot._tracker import Tracker

_TRUSTED = frozenset(
    {"numpy", "pandas", "scipy", "sklearn", "matplotlib", "pyarrow", "polars", "torch", "dateutil", "pytz", "sympy"}
)
"""Packages whose pickles are tested where they are made, and leave out caches only (SymPy: hashes and assumptions)."""

_CHECK_ALWAYS_BELOW = 16 << 20
"""Bytes. Larger values of an installed package's type are checked once per type."""


class Difference(Exception):  # noqa: N818 - the result of a comparison, which is caught beside it
    """What came back is not what was there: where, and how."""

    def __init__(self, path: str, how: str, value: Any) -> None:
        super().__init__(path, how)
        self.path, self.how, self.value = path, how, value


def trusted(kind: type) -> bool:
    """True for types whose pickles need no proof."""
    top = kind.__module__.partition(".")[0]
    return (top in sys.stdlib_module_names and top != "__main__") or top in _TRUSTED


def check_round_trip(group: Group, tracker: Tracker) -> list[Problem]:
    """Load what would be stored, and compare graph with graph; an empty list is the proof."""
    found = group.scan
    assert found is not None
    definitions = tracker.definitions
    doubted = [kind for kind in found.custom if not trusted(kind) and not default_reduce(kind)]
    fresh = [kind for kind in doubted if not definitions.vouched(kind)]
    owned = [kind for kind in doubted if definitions.owns(kind)]
    for kind in owned:
        lost = definitions.refuted(kind)
        if lost:
            name, path = _first_of(kind, group, tracker)
            return [Problem(name, f"{kind.__module__}.{kind.__qualname__}", path, f"of an object of its class, {lost}")]
    if not fresh and (len(owned) == len(doubted) or found.nbytes > _CHECK_ALWAYS_BELOW):
        return []
    spared = frozenset(kind for kind in owned if kind not in fresh)
    values = [(name, tracker.value(name)) for name in group.names]
    try:
        with unnoticed():
            try:
                _compare_all(values, group, tracker, spared)
            except RecursionError:
                deeply(lambda: _compare_all(values, group, tracker, spared))
    except Difference as exc:
        kind = type(exc.value)
        for suspect in fresh:
            definitions.vouch(suspect, f"{exc.path}: {exc.how}")
        return [Problem(_name_in(exc.path), f"{kind.__module__}.{kind.__qualname__}", exc.path, exc.how)]
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001 - what a user's hook raises while loading is the answer
        name, value = values[0]
        suspect = fresh[0] if fresh else type(value)
        for kind in fresh:
            definitions.vouch(kind, "loading it again fails")
        why = f"loading it again fails: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}"
        return [Problem(name, f"{suspect.__module__}.{suspect.__qualname__}", name, why)]
    for kind in fresh:
        definitions.vouch(kind)
    return []


def _first_of(kind: type, group: Group, tracker: Tracker) -> tuple[str, str]:
    """A name of the group that holds an instance of a class, and the way to it."""
    for name in group.names:
        value = tracker.value(name)
        if type(value) is kind:
            return name, name
    return group.names[0], group.names[0]


def _name_in(path: str) -> str:
    for position, letter in enumerate(path):
        if not (letter.isalnum() or letter == "_"):
            return path[:position]
    return path


def _compare_all(values: list[tuple[str, Any]], group: Group, tracker: Tracker, spared: frozenset[type]) -> None:
    assert group.scan is not None
    file, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    pickler = GroupPickler(
        file, tracker.definitions, buffer_callback=buffers.append, shared=group.scan.shared, strict=True, spared=spared
    )
    for _, value in values:
        pickler.current = value
        pickler.dump(value)
    file.seek(0)
    loader = _Loader(file, tracker, buffers, pickler.standing)
    walk = Walk(group.scan.shared)
    for name, value in values:
        walk.compare(name, value, loader.load())
    for name, cls, state in loader.states:
        live, _ = tracker.definitions.class_state(cls)
        for attribute, content in state.items():
            if attribute != REGISTERED and attribute in live:
                walk.compare(f"{name}.{attribute}", live[attribute], content)


class _Loader(GroupUnpickler):
    """Loads beside the session: live classes are used and left alone."""

    def __init__(self, file: Any, tracker: Tracker, buffers: list[Any], standing: dict[str, Any]) -> None:
        super().__init__(file, tracker, _Nothing(), buffers)
        self._standing = standing
        self.states: list[tuple[str, type, dict[str, Any]]] = []

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, str) and pid.startswith("y:"):
            return self._standing[pid]
        return super().persistent_load(pid)

    def _class_state(self, name: str, state: dict[str, Any], gone: tuple[str, ...]) -> Any:
        cls = self._definition(name)
        self.states.append((cls.__name__, cls, state))
        return cls


class _Nothing:
    def definition(self, name: str, tracker: Tracker) -> Any:
        raise pickle.UnpicklingError(f"the definition {name} is gone")

    def source(self, name: str) -> str:
        return ""


class Walk:
    """Two graphs, side by side; raises `Difference`."""

    def __init__(self, shared: frozenset[int] = frozenset()) -> None:
        self._there: dict[int, int] = {}
        self._back: dict[int, int] = {}
        self._keep: list[Any] = []
        self._shared = shared
        self._strings = _sets.strings_hash_alike()

    def compare(self, path: str, old: Any, new: Any) -> None:
        """Every pair reachable from here, without recursion: graphs are deep."""
        pending = [(path, old, new)]
        while pending:
            place, left, right = pending.pop()
            pending.extend(self._pairs(place, left, right))

    def _pairs(self, path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
        if old is new:
            return
        kind = type(old)
        if type(new) is not kind:
            raise Difference(path, f"it comes back as a {type(new).__name__}", old)
        if kind in ATOMS:
            if _bits(old) != _bits(new):
                raise Difference(path, "it comes back with another value", old)
            return
        sort = kind_of_type(kind)
        if sort in (Kind.CLASS, Kind.MODULE, Kind.ENUM_MEMBER):
            raise Difference(path, "it comes back as another object", old)
        if sort in (Kind.HANDLE, Kind.STREAM):
            return
        if sort is not Kind.FROZEN and self._paired(path, old, new):
            return
        yield from self._parts(path, old, new, kind)

    def _paired(self, path: str, old: Any, new: Any) -> bool:
        """True when this very pair was met before; a different partner is lost sharing."""
        known = self._there.get(ident(old))
        if known is None and ident(new) not in self._back:
            self._there[ident(old)], self._back[ident(new)] = ident(new), ident(old)
            self._keep.append((old, new))
            return False
        if known != ident(new):
            raise Difference(path, "it is shared with another part of the value, and would not be any more", old)
        return True

    def _parts(self, path: str, old: Any, new: Any, kind: type) -> Iterator[tuple[str, Any, Any]]:
        if _memory.is_array(old):
            yield from self._array(path, old, new)
            return
        if isinstance(old, (list, tuple, collections.deque)):
            yield from _sequence(path, old, list(_plain_iter(old)), list(_plain_iter(new)))
        elif isinstance(old, dict):
            yield from _sequence(path, old, list(dict.keys(old)), list(dict.keys(new)), label=".keys()")
            yield from _sequence(path, old, list(dict.values(old)), list(dict.values(new)), label=".values()")
        elif isinstance(old, (set, frozenset)):
            yield from self._set(path, old, new)
        if kind in _EXACT:
            for attribute in _EXACT[kind]:
                yield f"{path}.{attribute}", getattr(old, attribute), getattr(new, attribute)
        elif kind is types.CellType:
            yield from _cell(path, old, new)
        elif kind is weakref.ref:
            yield path, old(), new()
        else:
            yield from _state(path, old, new, kind)

    def _set(self, path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
        left, right = list(_plain_iter(old)), list(_plain_iter(new))
        if len(left) != len(right):
            raise Difference(path, f"it comes back with {len(right)} members instead of {len(left)}", old)
        if all(_sets.stable(member, self._strings) for member in left):
            yield from _sequence(path, old, left, right)

    def _array(self, path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
        if old.dtype != new.dtype or old.shape != new.shape or old.flags.writeable != new.flags.writeable:
            raise Difference(path, "the array comes back in another form", old)
        owner = _memory.owner_of(old)
        if ident(owner) in self._shared and owner is not old:
            yield f"{path}.base", owner, _memory.owner_of(new)
        if old.dtype == object:
            yield from _sequence(path, old, old.ravel().tolist(), new.ravel().tolist())


def _bits(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack("<d", value)
    return struct.pack("<dd", value.real, value.imag) if isinstance(value, complex) else value


def _plain_iter(value: Any) -> Iterator[Any]:
    """Iterate as the built-in base does, whatever a subclass overrides."""
    bases: tuple[Any, ...] = (list, tuple, collections.deque, set, frozenset)
    for base in bases:
        if isinstance(value, base):
            return iter(list(base.__iter__(value)))
    raise TypeError(type(value))


def _sequence(path: str, owner: Any, old: list[Any], new: list[Any], label: str = "") -> Iterator[tuple[str, Any, Any]]:
    if len(old) != len(new):
        raise Difference(path, f"it comes back with {len(new)} items instead of {len(old)}", owner)
    for index, (left, right) in enumerate(zip(old, new, strict=True)):
        yield f"{path}{label}[{index}]", left, right


def _cell(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    try:
        left = old.cell_contents
    except ValueError:
        return
    yield path, left, new.cell_contents


def _state(path: str, old: Any, new: Any, kind: type) -> Iterator[tuple[str, Any, Any]]:
    """What makes an object of a class with attributes what it is."""
    if trusted(kind):
        if kind.__module__.partition(".")[0] == "sklearn":
            yield from _attributes(path, old, new)
    elif any(full_name(base) == "plotly.basedatatypes.BaseFigure" for base in kind.__mro__):
        # All else is made from these, some of it when it is first asked for.
        for part in ("_data", "_layout", "frames", "_grid_ref"):
            yield f"{path}.{part}", getattr(old, part), getattr(new, part)
    else:
        yield from _attributes(path, old, new)
        if not hasattr(old, "__dict__") and not slots_of(kind):
            yield from _reduced(path, old, new)


def _attributes(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    left, right = getattr(old, "__dict__", {}), getattr(new, "__dict__", {})
    for name in left:
        if name not in right:
            raise Difference(path, f"its attribute {name!r} is lost", old)
        yield f"{path}.{name}", left[name], right[name]
    for name in right:
        if name not in left:
            raise Difference(path, f"it comes back with an attribute {name!r} that it did not have", old)
    for name in slots_of(type(old)):
        if hasattr(old, name) != hasattr(new, name):
            raise Difference(path, f"its attribute {name!r} is lost", old)
        if hasattr(old, name):
            yield f"{path}.{name}", getattr(old, name), getattr(new, name)


def _reduced(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Objects without visible attributes: what they say of themselves must agree."""
    left, right = old.__reduce_ex__(PROTOCOL), new.__reduce_ex__(PROTOCOL)
    if isinstance(left, str) or isinstance(right, str):
        if left != right:
            raise Difference(path, "it comes back as another object", old)
        return
    yield path, left[:3], right[:3]
    for items, others in zip(left[3:5], right[3:5], strict=False):
        yield path, list(items or ()), list(others or ())


_EXACT: dict[type, tuple[str, ...]] = {
    types.FunctionType: ("__closure__", "__defaults__", "__kwdefaults__", "__dict__"),
    types.MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords"),
    collections.deque: ("maxlen",),
    collections.defaultdict: ("default_factory",),
    list: (),
    dict: (),
    tuple: (),
    set: (),
    frozenset: (),
    collections.OrderedDict: (),
    collections.Counter: (),
    types.CodeType: (),
}
