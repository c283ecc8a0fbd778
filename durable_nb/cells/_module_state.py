"""Modules as state: what a cell sets in them, or inside what they hold, no checkpoint of names brings back."""

from __future__ import annotations

import contextlib
import operator
import re
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from itertools import chain, count, islice
from types import FunctionType, GeneratorType, ModuleType, SimpleNamespace
from typing import Any

from durable_nb._ident import ident

__all__ = ["ModuleState", "changed", "is_installed", "module_state"]

ModuleState = dict[str, object]
"""Attribute to the value, kept so that its id stays its own; of a local module, with what plain data holds."""


_SHELLS = frozenset({"sys", "builtins", "warnings", "readline", "__main__"})
"""Modules in which the shell itself sets attributes around each cell, and whose state has versions of its own."""


def module_state(module: ModuleType, *, local: bool = False) -> ModuleState:
    """The attributes of a module as `changed` compares them.

    Args:
        local: also look at private names, and inside what the module holds, but for what is called a cache. Installed
            packages keep caches in many places, so for them only public bindings count.
    """
    if module.__name__ in _SHELLS:
        return {}
    if not local:
        return dict(vars(module))  # each cell takes it, of all that it can reach: what is of interest is asked later
    return {
        name: (value, _contents(name, value))
        for name, value in list(vars(module).items())
        if not name.startswith("__") and not isinstance(value, ModuleType)
    }


_CACHE = re.compile(r"cache|memo", re.IGNORECASE)
"""Attributes that hold what can be made again."""

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_HOLDERS = (SimpleNamespace, Namespace)
_COMPARED = 2000
"""Objects of one attribute. Deeper down only identities count."""


def _contents(name: str, value: Any) -> object:
    """What an attribute holds; None where there is nothing inside, as in most functions and classes of a project."""
    kind = type(value)
    if kind in _ATOMS or (kind is FunctionType and _keeps_nothing(value)):
        return None
    if issubclass(kind, type):
        data = _data_of(value)
        if _ATOMS.issuperset(map(type, data)):
            return data, list(map(type, data))
    return None if _CACHE.search(name) else _Contents().of(value)


def _keeps_nothing(function: FunctionType) -> bool:
    return (
        function.__closure__ is None
        and not function.__dict__
        and (function.__kwdefaults__ is None or _ATOMS.issuperset(map(type, function.__kwdefaults__.values())))
        and _ATOMS.issuperset(map(type, function.__defaults__ or ()))
    )


_data_names: dict[int, tuple[type, int, tuple[str, ...]]] = {}
"""By id: the class, how many attributes it had, and which of them are no code."""


def _data_of(cls: type) -> list[Any]:
    """Names and values of what a class of a local module holds."""
    own = vars(cls)
    known = _data_names.get(ident(cls))
    if known is None or known[0] is not cls or known[1] != len(own):
        names = [name for name, held in list(own.items()) if not (name.startswith("__") or is_code(held))]
        local = _is_local(cls)
        known = (cls, len(own), tuple(name for name in names if local and not _CACHE.search(name)))
        _data_names[ident(cls)] = known
    return [part for name in known[2] for part in (name, own.get(name))]


class _Identity:
    """An object, equal to itself only. It is kept, so that its id stays its own."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self._value is other._value

    __hash__ = None  # type: ignore[assignment]


class _Contents:
    """What an attribute of a local module holds: containers, objects of local classes, these classes, functions.

    Tables are copied by one call before they are gone through: a thread of the module's may be filling them.
    """

    def __init__(self) -> None:
        self._left = _COMPARED
        self._met: set[int] = set()

    def of(self, value: Any) -> object:
        kind = type(value)
        if kind in _ATOMS:
            return kind, repr(value) if kind is float or kind is complex else value  # zeros have signs
        if ident(value) in self._met or self._left <= 0:
            return _Identity(value)
        parts = self._parts(kind, value)
        if parts is None:
            return _Identity(value)
        self._met.add(ident(value))
        self._left -= len(parts)
        return _Identity(value), [self.of(part) for part in parts]

    def _parts(self, kind: type, value: Any) -> list[Any] | None:
        if kind in (dict, OrderedDict, defaultdict, Counter):
            return self._first(value) + self._first(value.values())
        if kind in (list, tuple, deque, set, frozenset):
            return self._first(value)
        if kind in _HOLDERS or _is_local(kind):
            own = own_attributes(value)
            return [part for name, held in list(own.items()) if not _CACHE.search(name) for part in (name, held)]
        if kind is GeneratorType and value.gi_frame is not None:
            frame = value.gi_frame
            return [frame.f_lasti, value.gi_yieldfrom, *frame.f_locals.values()]
        if kind is count:
            return [repr(value)]
        if kind.__module__ == "builtins" and hasattr(kind, "__length_hint__") and hasattr(kind, "__next__"):
            return [operator.length_hint(value)]
        if kind is FunctionType and not is_installed(str(value.__module__)):
            return _kept_by(value)
        return _data_of(value) or None if issubclass(kind, type) else None

    def _first(self, members: Iterable[Any]) -> list[Any]:
        # `chain` asks for the iterator inside the call of `list`. One that exists before may be out of date by then.
        return list(islice(chain(members), self._left))


def _is_local(kind: type) -> bool:
    module: object = kind.__module__  # a class body may set it to anything
    return isinstance(module, str) and not is_installed(module)


def own_attributes(value: Any) -> dict[str, Any]:
    try:
        found: Any = object.__getattribute__(value, "__dict__")
    except Exception:  # noqa: BLE001 - there is none, or the class of a proxy computes it
        return {}
    return found if type(found) is dict else {}


def _kept_by(function: FunctionType) -> list[Any]:
    """What a function keeps between its calls: defaults, attributes, variables of its closure."""
    kept = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    kept += [part for name, held in list(function.__dict__.items()) if name != "__wrapped__" for part in (name, held)]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            kept.append(cell.cell_contents)
    return kept


def is_code(value: object) -> bool:
    """Whether a class attribute is a method or another descriptor."""
    return hasattr(type(value), "__get__") or isinstance(value, type)


def is_installed(name: str) -> bool:
    """Whether a module is none of the notebook's own, whose state is compared."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "durable_nb":
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or "-packages" in file


def changed(before: ModuleState, after: ModuleState, *, package: str = "") -> list[str]:
    """Attributes that were set, replaced or removed between two states of a module.

    Args:
        package: the top-level package of an installed module. Packages set attributes of their own as they go (lazy
            imports, the plotting backend): what they put there themselves is no change.
    """
    if package:
        if before.keys() == after.keys() and all(map(operator.is_, before.values(), map(after.get, before))):
            return []
        before, after = _public(before), _public(after)
    names = []
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if not _same(old, new) and not (package and _own_doing(new if new is not None else old, package)):
            names.append(name)
    return sorted(names)


def _public(state: ModuleState) -> ModuleState:
    """Of an installed module, what a notebook may set."""
    return {
        name: (value, None)
        for name, value in state.items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


_INTEGRATIONS = frozenset({("matplotlib", "IPython"), ("matplotlib", "matplotlib_inline")})
"""Package and who puts functions into it when it is first used: the shell wraps pyplot's at the first figure."""

_KEEP_PLAIN_STATE = frozenset({"matplotlib", "IPython", "ipykernel", "ipywidgets", "traitlets", "tqdm", "comm", "zmq"})
"""Installed packages that keep plain values of their own in public attributes, and change them when they are used."""


def _own_doing(entry: object, package: str) -> bool:
    """Whether a package may have set an attribute itself."""
    value = entry[0] if isinstance(entry, tuple) else None
    if isinstance(value, _PLAIN):
        return package in _KEEP_PLAIN_STATE or package in sys.stdlib_module_names
    origin = getattr(value, "__module__", None)
    if not isinstance(origin, str):
        origin = type(value).__module__
    setter = origin.partition(".")[0]
    return setter == package or (package, setter) in _INTEGRATIONS


_PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple, list, dict, set, frozenset)


def _same(old: object, new: object) -> bool:
    if not (isinstance(old, tuple) and isinstance(new, tuple)):
        return old is new
    if old[0] is new[0]:
        return bool(old[1] == new[1])
    plain = (int, float, str, bytes, bool, type(None))
    return type(old[0]) is type(new[0]) and isinstance(new[0], plain) and repr(old[0]) == repr(new[0])
