"""Names that have a version and no value yet.

Theory. A checkpoint that is given back need not be loaded before somebody looks. A *promise* stands for one of its
groups: `Tracker.promise` takes the names out of the namespace and notes their versions, `Tracker.materialise` loads the
group, whole and once. The namespace stays an exact dict, in which a promised name is simply not there: whoever lets
code run must have the names materialised that this code can reach. A value that is missed shows as a `NameError`,
never as another value; names of built-ins are therefore not promised (`notebook/_waiting.py` decides).

Invariants.
* A name is promised or bound, never both, but for the moment until something that was bound behind our back is noticed:
  what is bound wins.
* Nothing can change or share what is not loaded, so the version of a promised name stays.
* `places` remembers where a promised name stands among the others, since the order of a namespace can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb._ident import ident


@dataclass(frozen=True, slots=True, eq=False)
class Promise:
    """One group that can be loaded."""

    names: tuple[str, ...]
    fetch: Callable[[], dict[str, Any]]
    """Name to value; raises when the bytes cannot be had."""


class Promises:
    """The promised names of one namespace."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._by_name: dict[str, Promise] = {}
        self._places: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._by_name))

    def add(self, promise: Promise) -> None:
        """Take the names out of the namespace."""
        self._places.update(dict.fromkeys(self._namespace))
        self._places.update(dict.fromkeys(promise.names))
        for name in promise.names:
            self._by_name[name] = promise
            self._namespace.pop(name, None)

    def drop(self, name: str) -> None:
        """The name is bound or gone: nothing will be loaded for it."""
        self._by_name.pop(name, None)

    def forget_place(self, name: str) -> None:
        """The name was deleted: bound again, it stands at the end."""
        self._places.pop(name, None)

    def of(self, names: Iterable[str]) -> list[Promise]:
        """The promises behind some names, each once."""
        found = {ident(self._by_name[name]): self._by_name[name] for name in names if name in self._by_name}
        return list(found.values())

    def owed(self, promise: Promise) -> tuple[str, ...]:
        """The names that still wait for this promise."""
        return tuple(name for name in promise.names if self._by_name.get(name) is promise)

    def in_order(self) -> list[str]:
        """The names of the namespace, as they would stand if none had been promised."""
        later = [name for name in self._namespace if name not in self._places]
        return [*(name for name in self._places if name in self._namespace), *later]
