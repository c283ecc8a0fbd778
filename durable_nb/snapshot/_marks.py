"""What each name was bound to when it was last looked at, without keeping the values alive."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._addresses import POINTER, addresses_of
from durable_nb.snapshot._kinds import ATOMS

__all__ = ["Mark", "Marks", "moved"]

_KEPT_TEXT = 1 << 16
"""Characters. A longer text is not kept alive for comparing."""


class Mark:
    """The identity of a bound value, kept without keeping the value: memory stays the user's.

    Numbers and strings are kept, because their addresses are reused at once (long strings: by their hash).
    Other values are remembered weakly where their type allows it, else by address.
    """

    __slots__ = ("_atom", "address", "may_be_gone", "weak")

    def __init__(self, value: Any) -> None:
        self.address = ident(value)
        self._atom = value if type(value) in ATOMS else None
        self.may_be_gone = type(value) in (str, bytes) and len(value) > _KEPT_TEXT
        """Whether another value may have come to the same address, and `same` can tell."""
        if self.may_be_gone:
            self._atom = hash(value)
        self.weak: weakref.ref[Any] | None = None
        if type(value) not in ATOMS:
            try:
                self.weak = weakref.ref(value)
                self.may_be_gone = True
            except TypeError:
                self.weak = None

    def same(self, value: Any) -> bool:
        if ident(value) != self.address:
            return False
        if type(self._atom) is int and type(value) in (str, bytes):
            return hash(value) == self._atom
        return self.weak is None or self.weak() is value


def moved(marks: Mapping[str, Mark], bindings: Mapping[str, Any]) -> list[str]:
    """Names that are not bound to what they were when they were marked, in the order of the bindings.

    Every cell asks this of all names several times, so that the common answer takes no call.
    """
    marked = marks.get
    return [
        name
        for name, value in bindings.items()
        if (mark := marked(name)) is None
        or mark.address != ident(value)
        or (mark.may_be_gone and (not mark.same(value) if mark.weak is None else mark.weak() is not value))
    ]


class Marks(dict[str, Mark]):
    """The marks of all names.

    Made from bindings, they come with a picture of these: the names, and the addresses of all values as bytes. What the
    picture shows unchanged has not moved, unless its mark says that another value may have come to the address; so that
    the price of a cell does not grow with the names of the session. A mark that is set or taken by itself spoils it.
    """

    __slots__ = ("_addresses", "_names", "_unsure")

    def __init__(self, marks: Mapping[str, Mark] = {}) -> None:  # noqa: B006 - read only
        super().__init__(marks)
        self._names: list[str] | None = None
        self._addresses = b""
        self._unsure: list[str] = []

    def __setitem__(self, name: str, mark: Mark) -> None:
        self._names = None
        super().__setitem__(name, mark)

    def discard(self, name: str) -> None:
        """Forget the mark of a name, if there is one."""
        self._names = None
        self.pop(name, None)

    def copy(self) -> Marks:
        """The same marks and picture, which change by themselves."""
        copied = Marks(self)
        copied._names, copied._addresses, copied._unsure = self._names, self._addresses, self._unsure
        return copied

    def renewed(self, bindings: Mapping[str, Any], changed: Iterable[str]) -> Marks:
        """The marks of all bindings: new ones for the names that changed, the same for the others."""
        found = Marks(self)
        found.update({name: Mark(bindings[name]) for name in changed})
        for name in found.keys() - bindings.keys():
            del found[name]
        found._names, found._addresses = list(bindings), addresses_of(bindings.values())
        found._unsure = [name for name, mark in found.items() if mark.may_be_gone]
        return found

    def moved(self, bindings: Mapping[str, Any]) -> list[str]:
        """Names that are not bound to what they were when they were marked, in the order of the bindings."""
        old = self._names
        if old is None:
            return moved(self, bindings)
        names, addresses = list(bindings), addresses_of(bindings.values())
        count = _in_common(names, old)
        tail = {name: bindings[name] for name in names[count:]}
        other = {name for name in self._unsure if name in bindings and not self[name].same(bindings[name])}
        then, now = self._addresses[: count * POINTER], addresses[: count * POINTER]
        if then != now:
            pairs = zip(memoryview(then).cast("P"), memoryview(now).cast("P"), strict=True)
            other.update(names[place] for place, (before, after) in enumerate(pairs) if before != after)
        found = [name for name in names[:count] if name in other] if other else []
        return found + moved(self, tail)


def _in_common(names: list[str], others: list[str]) -> int:
    """How many names both lists begin with."""
    shorter = min(len(names), len(others))
    if names[:shorter] == others[:shorter]:
        return shorter
    return list(map(operator.ne, names, others)).index(True)
