"""Numbers that installed packages count for themselves: the next id, the next default name.

Theory. `control` calls systems `sys[0]`, `sys[1]`…, SymPy numbers its dummies, Bokeh its models. The count lives in a
class or a module of the package, so that a resumed kernel would begin again at zero and give a name twice. Such a
place is told by its form: a whole number that code of its own module assigns to (`Class.count += 1`, `global count`),
or an `itertools.count`. Of the thousands of modules that a scientific notebook loads, a few dozen places remain.

The counters are like a generator of random numbers: an input of a cell that moves them, and put back with what the cell
did. A counter that only imports have moved is at its start, which every process makes for itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dis import EXTENDED_ARG, opmap
from types import CodeType, FunctionType, ModuleType
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._digest import digest_text
from durable_nb.snapshot._kinds import ATOMS
from durable_nb.snapshot._process_part import Part

_STORES = (opmap["STORE_GLOBAL"], opmap["STORE_ATTR"])

_NEXT = type(itertools.count().__next__)

_COUNT = re.compile(r"count\((-?\d+)\)")

_OWN = frozenset(
    {"IPython", "PIL", "anywidget", "comm", "dask", "debugpy", "distributed", "durable_nb", "ipykernel", "ipywidgets"}
    | {"jedi", "joblib"}
    | {"jupyter_client", "matplotlib", "matplotlib_inline", "networkx", "numpy", "pandas", "parso", "psygnal", "rich"}
    | {"platformdirs", "prompt_toolkit", "psutil", "pydevd", "pydevd_plugins", "_pydev_bundle", "_pydevd_bundle"}
    | {"_pydevd_frame_eval", "_pydevd_sys_monitoring"}
    | {"pygments", "scipy", "sklearn", "threadpoolctl", "tornado", "tqdm", "traitlets", "zmq"}
)
"""Packages that the kernel itself uses, whose counts move by themselves, and such as count only what nobody sees."""

_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/].*\.py\Z")

Place = tuple[str, str, str]
"""Module, qualified name of the class (or nothing) and attribute."""


class Counters(Part):
    name = "<counters>"

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._modules = 0
        self._holders: dict[Place, Any] = {}
        self._lookups: dict[Place, Callable[[str], Any]] = {}
        """Per place, what gives an attribute of its holder: every cell asks all of them twice."""
        self._start: dict[Place, int] = {}
        self._ledgers: dict[Place, defaultdict[Any, Any]] = {}
        self._fresh: set[Place] = set()
        """Places that came with the modules which the last cell imported."""
        self._last: tuple[Any, str] = ((), self.absent)

    # --- a part of the process -------------------------------------------------------------------------------------

    def read(self) -> Any:
        """The numbers by place; None while no package counts."""
        self._notice()
        found: dict[Place, int] = {}
        for place, lookup in self._lookups.items():
            value = lookup(place[2])
            now = value if type(value) is int else _value_of(value)
            if now is not None:
                found[place] = now
        found.update((place, _total(ledger)) for place, ledger in self._ledgers.items())
        return found or None

    def version(self, value: Any) -> str:
        moved = tuple((place, now) for place, now in value.items() if now != self._start.get(place))
        if moved != self._last[0]:
            self._last = (moved, digest_text(repr(sorted(moved))) if moved else self.absent)
        return self._last[1]

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        old = before or {}
        changed = {place: now for place, now in after.items() if old.get(place) != now}
        for place in self._ledgers:
            if changed.get(place):
                return {
                    "again": f"{_dotted(place)} counts for an object, which no checkpoint holds: the cell runs again"
                }
        return {"value": [[*place, now] for place, now in changed.items() if place not in self._ledgers]}

    def write(self, value: Any) -> None:
        for module, owner, attribute, number in value:
            importlib.import_module(module)
            self._notice()
            holder = self._holders.get((module, owner, attribute))
            if holder is None:
                raise ValueError(f"{module} does not count in {owner or module}.{attribute} any more")
            _set(holder, attribute, number)

    def reset(self) -> None:
        """Back to what the imports made."""
        for place, number in self._start.items():
            if place in self._holders:
                _set(self._holders[place], place[2], number)

    # --- where they begin ------------------------------------------------------------------------------------------

    def note_start(self) -> None:
        """The last cell only imported: what came with it is at its start."""
        numbers = self.read() or {}
        self._start.update((place, numbers[place]) for place in self._fresh if place in numbers)
        self._fresh.clear()

    def begin(self) -> None:
        """A cell is next: what comes now came with no cell. Of what came with the last one, no start is known."""
        self._fresh.clear()
        self.note_start()

    def start_of(self, place: Place, otherwise: int) -> int:
        """The number at which a counter began, where that is known."""
        return self._start.get(place, otherwise)

    def is_one(self, module: str, attribute: str) -> bool:
        """Whether an attribute of a module is a counter of its package."""
        return (module, "", attribute) in self._holders

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What runs inside is not the notebook's: loading a value may make objects, which count."""
        before = {place: now for place, now in (self.read() or {}).items() if place in self._holders}
        try:
            yield
        finally:
            for place, number in before.items():
                if _value(self._holders[place], place[2]) != number:
                    _set(self._holders[place], place[2], number)

    def counted_for(self) -> dict[int, tuple[Any, str]]:
        """Objects for each of which a package counts by itself (Mesa: the agents of each model), by id, and where."""
        self._notice()
        return {
            ident(key): (key, _dotted(place))
            for place, ledger in self._ledgers.items()
            for key in list(ledger)
            if type(key) not in ATOMS
        }

    def _notice(self) -> None:
        if len(sys.modules) == self._modules:
            return
        for name, module in list(sys.modules.items()):
            if name not in self._known:
                self._known.add(name)
                if name.partition(".")[0] not in _OWN and isinstance(module, ModuleType):
                    places, ledgers = _places(name, module)
                    self._holders.update(places)
                    self._lookups.update((place, vars(holder).get) for place, holder in places.items())
                    self._ledgers.update(ledgers)
                    self._fresh.update(places, ledgers)
        self._modules = len(sys.modules)


COUNTERS = Counters()


def _dotted(place: Place) -> str:
    return ".".join(part for part in place if part)


# --- one counter -----------------------------------------------------------------------------------------------------


def _counted(value: Any) -> Any:
    """The `itertools.count` that an attribute is, or whose next number it gives."""
    counted: Any = getattr(value, "__self__", None) if type(value) is _NEXT else value
    return counted if type(counted) is itertools.count else None


def _value(holder: Any, attribute: str) -> int | None:
    """The number, or the one that comes next; None for what is no counter any more."""
    return _value_of(vars(holder).get(attribute))


def _value_of(found: Any) -> int | None:
    if type(found) is int:
        return found
    counted = _counted(found)
    matched = None if counted is None else _COUNT.fullmatch(repr(counted))
    return None if matched is None else int(matched[1])


def _total(ledger: Mapping[Any, Any]) -> int:
    """A number that grows with each number that is given out."""
    numbers = [_value_of(counted) for counted in list(ledger.values())]
    return len(numbers) + sum(number for number in numbers if number is not None)


def _set(holder: Any, attribute: str, number: int) -> None:
    found = vars(holder).get(attribute)
    counted = _counted(found)
    now = _value(holder, attribute)
    if counted is None or now is None:
        setattr(holder, attribute, number)
    elif now <= number:  # in place: others may hold it
        next(itertools.islice(counted, number - now, number - now), None)
    else:
        fresh = itertools.count(number)
        setattr(holder, attribute, fresh if found is counted else fresh.__next__)


# --- where a package counts ------------------------------------------------------------------------------------------


def _places(name: str, module: ModuleType) -> tuple[Mapping[Place, Any], Mapping[Place, Any]]:
    """The counters of a module and its classes with what holds them, and the dicts in which it counts for objects.

    Only exact types are asked for anything: a package may hold proxies that import something when they are touched.
    """
    if not _INSTALLED.search(vars(module).get("__file__") or ""):
        return {}, {}
    holders: dict[str, Any] = {"": module}
    for value in list(vars(module).values()):
        if issubclass(type(value), type) and value.__module__ == name:
            holders[value.__qualname__] = value
    found: dict[Place, Any] = {}
    numbers: dict[Place, Any] = {}
    ledgers: dict[Place, Any] = {}
    for owner, holder in holders.items():
        for attribute, value in list(vars(holder).items()):
            if type(value) is int and not attribute.startswith("__"):
                numbers[name, owner, attribute] = holder
            elif _counted(value) is not None:
                found[name, owner, attribute] = holder
            elif type(value) is defaultdict and _begins_to_count(value.default_factory):
                ledgers[name, owner, attribute] = value
    if numbers:
        stored = _stored(_functions(holders.values(), name), {attribute for _, _, attribute in numbers})
        found.update((place, holder) for place, holder in numbers.items() if place[2] in stored)
    return found, ledgers


def _begins_to_count(factory: Any) -> bool:
    return (factory.func if type(factory) is functools.partial else factory) in (int, itertools.count)


def _functions(holders: Iterable[Any], module: str) -> Iterator[FunctionType]:
    """The functions and methods that a module defines."""
    for holder in holders:
        for value in list(vars(holder).values()):
            accessors: tuple[Any, ...] = (value.fget, value.fset) if type(value) is property else (value,)
            for one in accessors:
                plain = one.__func__ if type(one) in (classmethod, staticmethod) else one
                if type(plain) is FunctionType:
                    plain = vars(plain).get("__wrapped__", plain)
                if type(plain) is FunctionType and plain.__module__ == module:
                    yield plain


def _stored(functions: Iterable[FunctionType], names: set[str]) -> set[str]:
    """Those of the names that the code of the functions assigns to, as globals or as attributes."""
    found: set[str] = set()
    codes = [function.__code__ for function in functions]
    while codes and found != names:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        if not names.isdisjoint(code.co_names):
            found |= names.intersection(_assigned(code))
    return found


def _assigned(code: CodeType) -> Iterator[str]:
    high = 0
    for operation, argument in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        if operation in _STORES:
            yield code.co_names[high | argument]
        high = (high | argument) << 8 if operation == EXTENDED_ARG else 0
