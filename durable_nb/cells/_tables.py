"""Lists, dicts and sets of installed packages that a cell changes in place: `nltk.data.path.append(folder)`.

Theory. The attribute stays bound to the object that it was bound to, so that comparing the attributes of modules shows
nothing. What a cell names is compared by content instead: the first table on each dotted path that its code, or code
that it reaches, follows from a module. A module that the cell itself imported was not there to be looked at before;
then the form decides, a path that ends in a method that changes a table.
"""

from __future__ import annotations

import operator
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from durable_nb.cells._module_state import is_installed, own_attributes
from durable_nb.cells._uses import Chain

__all__ = ["Tables"]

_TABLES = (list, dict, set, bytearray)
_CHANGERS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem", "remove"}
    | {"reverse", "setdefault", "sort", "update"}
)
_NOT_LOOKED_AT = frozenset({"IPython", "builtins", "durable_nb", "ipykernel", "logging", "readline", "sys", "warnings"})
"""Packages whose tables are state of the process, with versions of their own, or change around every cell."""

_LARGE = 100_000
"""Entries. Larger tables are data of a package."""


class Tables:
    """The tables that a cell names, as they were before it ran.

    Args:
        paths: dotted paths from modules, the first part `@` and the module's name.
    """

    def __init__(self, paths: Iterable[Chain]) -> None:
        self._before: dict[str, tuple[Any, list[Any]]] = {}
        self._later: list[Chain] = []
        for path in paths:
            if not is_installed(path[0][1:]) or path[0][1:].partition(".")[0] in _NOT_LOOKED_AT:
                continue
            if _is_loaded(path):
                found = _table(path)
                if found is not None and (entries := _entries(found[1])) is not None:
                    self._before[found[0]] = (found[1], entries)
            elif path[-1] in _CHANGERS:
                self._later.append(path)

    def changed(self) -> Iterator[str]:
        """Those that are not as they were, as dotted names. Call it after the cell ran."""
        for name, (table, entries) in self._before.items():
            now = _entries(table)
            if now is None or len(now) != len(entries) or not all(map(operator.is_, now, entries)):
                yield name
        for path in self._later:
            found = _table(path)
            if found is not None and is_installed(path[0][1:]):
                yield found[0]


def _entries(table: Any) -> list[Any] | None:
    """What is in a table; None of a large one.

    Copied by one call each, since another thread may be filling it, and by the built-in types' own methods: a package's
    dict may import something for each of its values.
    """
    kind = type(table)
    if kind is deque:
        return list(table) if len(table) <= _LARGE else None
    base: Any = next(each for each in _TABLES if issubclass(kind, each))
    if base.__len__(table) > _LARGE:
        return None
    return [*list(dict.keys(table)), *list(dict.values(table))] if base is dict else list(base.copy(table))


def _is_loaded(path: Chain) -> bool:
    name = path[0][1:]
    return name in sys.modules or name.rpartition(".")[0] in sys.modules


def _table(path: Chain) -> tuple[str, Any] | None:
    """The first table on a path, and its dotted name. Nothing is imported, and no property is run."""
    parts = [*path[0][1:].split("."), *path[1:]]
    length = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in sys.modules), 0)
    value: Any = sys.modules.get(".".join(parts[:length]))
    for at in range(length, len(parts)):
        value = _attribute(value, parts[at])
        if type(value) is deque or issubclass(type(value), _TABLES):
            return None if type(value).__name__ == "RcParams" else (".".join(parts[: at + 1]), value)
    return None


def _attribute(value: Any, name: str) -> Any:
    """An attribute that is simply there. `type` is asked, not `isinstance`: a proxy answers that by running code."""
    if issubclass(type(value), type):
        return next((vars(base)[name] for base in value.__mro__ if name in vars(base)), None)
    return own_attributes(value).get(name)
