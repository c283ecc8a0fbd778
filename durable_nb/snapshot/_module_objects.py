"""Objects that a module holds: `settings = config.SETTINGS` must stay the module's object, not become a copy.

Modules outside the installed packages are looked into: they are few, and their objects are what a project's notebooks
share with its code. Of installed packages the lists, dicts and sets that are public attributes of a module count, as
`from nltk.data import path` binds one. A restored name is bound to the live module's object. A cell that changes such
an object in place changes the module, which no checkpoint of names can bring back: the cell has to run again.
"""

from __future__ import annotations

import sys
import sysconfig
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from itertools import chain, islice
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb._ident import ident
from durable_nb.snapshot._kinds import ATOMS, Kind, is_main, kind_of_type

_INSTALLED = tuple(
    {path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))}
)


def _is_local(name: str, module: Any) -> bool:
    if is_main(module) or name.partition(".")[0] == "durable_nb" or not isinstance(module, ModuleType):
        return False
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or file.startswith(_INSTALLED):
        return False
    return "site-packages" not in file and "dist-packages" not in file


Steps = tuple[tuple[str, Any], ...]
"""From an attribute of a module inwards: `("key", …)`, `("index", …)` or `("attribute", …)` each."""

_LOOKED_INTO = 1000
"""Objects of all local modules. What lies deeper in larger data is not found, and comes back as a copy."""


_OPAQUE = sys.stdlib_module_names | {"matplotlib", "numpy", "pandas", "polars", "torch"}
"""Packages whose objects are no plain holders: what they hold is theirs."""


_NO_PLACE = ATOMS | {FunctionType, BuiltinFunctionType, ModuleType, type}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a local module holds an object: `config.SETTINGS['plot']`."""

    module: str
    attribute: str
    steps: Steps = ()

    def __str__(self) -> str:
        shown = {"key": "[{!r}]", "index": "[{!r}]", "attribute": ".{}"}
        return f"{self.module}.{self.attribute}" + "".join(shown[kind].format(step) for kind, step in self.steps)

    def follow(self, module: ModuleType) -> Any:
        """The object that is there now.

        Raises:
            LookupError, AttributeError, TypeError: nothing is.
        """
        found = vars(module)[self.attribute]
        for kind, step in self.steps:
            found = getattr(found, step) if kind == "attribute" else found[step]
        return found


_Found = tuple[Any, Any]
"""Module and attribute, or where the holder was found and the step from there: places are made for those that count."""


def _place(found: _Found) -> Place:
    steps: list[Any] = []
    while not isinstance(found[0], str):
        found, step = found
        steps.append(step)
    return Place(*found, tuple(reversed(steps)))


_TABLES = frozenset({list, dict, set, OrderedDict, defaultdict, deque, Counter})
_NOT_LOOKED_AT = frozenset({"IPython", "__main__", "__mp_main__", "builtins", "durable_nb", "ipykernel", "sys"})


class ModuleObjects:
    """Which mutable objects local modules hold under a name, and inside these; and which tables installed ones hold."""

    def __init__(self) -> None:
        self._tables: dict[int, _Found] = {}
        self._looked_at: dict[str, bool] = {}
        self._local: list[str] = []
        self._found: dict[int, _Found] = {}

    def refresh(self) -> None:
        """Look at the local modules as they are now."""
        if len(self._looked_at) != len(sys.modules):
            known = self._looked_at
            self._looked_at = {
                name: known[name] if name in known else _is_local(name, module)
                for name, module in list(sys.modules.items())
            }
            self._local = [name for name, local in self._looked_at.items() if local]
            for name in self._looked_at.keys() - known.keys():
                if not self._looked_at[name] and name.partition(".")[0] not in _NOT_LOOKED_AT:
                    self._tables.update(_tables(name))
        found: dict[int, _Found] = {}
        waiting: deque[tuple[_Found, Any]] = deque()
        for name in self._local:
            module = sys.modules.get(name)
            for attribute, value in list(vars(module).items()) if module is not None else ():
                if type(value) not in _NO_PLACE and not attribute.startswith("__"):
                    waiting.append(((name, attribute), value))
        most = len(waiting) + _LOOKED_INTO
        while waiting:
            place, value = waiting.popleft()
            mutable = kind_of_type(type(value)) in (Kind.MUTABLE, Kind.LISTED)
            if mutable and ident(value) in found:
                continue
            if mutable:
                found[ident(value)] = place
            if len(found) + len(waiting) < most and (mutable or type(value) is tuple):
                waiting.extend(((place, step), part) for step, part in _parts(value))
        self._found = found

    def place_of(self, value: Any) -> Place | None:
        """Where a module holds this very object now."""
        found = self._found.get(ident(value)) or self._tables.get(ident(value))
        place = None if found is None else _place(found)
        module = None if place is None else sys.modules.get(place.module)
        if place is None or module is None:
            return None
        try:
            return place if place.follow(module) is value else None
        except (LookupError, AttributeError, TypeError):
            return None

    def holds_one_of(self, ids: frozenset[int]) -> bool:
        """Whether one of these objects may be a module's."""
        return not (ids.isdisjoint(self._found) and ids.isdisjoint(self._tables))

    def __bool__(self) -> bool:
        return bool(self._found or self._tables)


def _tables(name: str) -> dict[int, _Found]:
    """The tables that are public attributes of an installed module."""
    module = sys.modules.get(name)
    if not isinstance(module, ModuleType):
        return {}
    return {
        ident(value): (name, attribute)
        for attribute, value in list(vars(module).items())
        if type(value) in _TABLES and not attribute.startswith("_")
    }


def _parts(value: Any) -> list[tuple[tuple[str, Any], Any]]:
    """What may hold further objects inside a value, and the step to it."""
    kind = type(value)
    if kind in (list, tuple):
        return [(("index", at), part) for at, part in enumerate(value[:_LOOKED_INTO]) if type(part) not in ATOMS]
    if kind in (dict, OrderedDict, defaultdict, Counter):
        step, table = "key", value
    elif str(kind.__module__).partition(".")[0] in _OPAQUE and kind not in (SimpleNamespace, Namespace):
        return []
    else:
        step, table = "attribute", _attributes(value)
    # Copied by one call, in which `chain` asks for the iterator: a thread of the module's may be filling the table.
    keys = [key for key in list(islice(chain(table), _LOOKED_INTO)) if type(key) in ATOMS]
    return [((step, key), part) for key in keys if type(part := table.get(key)) not in ATOMS]


def _attributes(value: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found
