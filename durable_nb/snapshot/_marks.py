"""What each name was bound to when it was last looked at, without keeping the values alive."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._addresses import POINTER, addresses_of
from durable_nb.snapshot._kinds import ATOMS

__all__ = ["Mark", "Marks", "Picture", "moved"]

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


class Picture:
    """The names of bindings in their order, and the addresses of their values as bytes.

    Names and values are not told one by one, so that the price of a cell hardly grows with the names of the session.
    """

    __slots__ = ("addresses", "names")

    def __init__(self, names: Iterable[str], values: Iterable[Any]) -> None:
        self.names = list(names)
        self.addresses = addresses_of(values)

    @classmethod
    def of(cls, bindings: Mapping[str, Any]) -> Picture:
        """The picture of a mapping."""
        return cls(bindings, bindings.values())


class Marks(dict[str, Mark]):
    """The marks of all names.

    Made from bindings, they come with a picture of these. What the picture shows unchanged has not moved, unless its
    mark says that another value may have come to the address. A mark that is set or taken by itself spoils it.
    """

    __slots__ = ("_picture", "_unsure")

    def __init__(self, marks: Mapping[str, Mark] = {}) -> None:  # noqa: B006 - read only
        super().__init__(marks)
        self._picture: Picture | None = None
        self._unsure: dict[str, None] = {}

    def __setitem__(self, name: str, mark: Mark) -> None:
        self._picture = None
        super().__setitem__(name, mark)

    def discard(self, name: str) -> None:
        """Forget the mark of a name, if there is one."""
        self._picture = None
        self.pop(name, None)

    def copy(self) -> Marks:
        """The same marks and picture, which change by themselves."""
        copied = Marks(self)
        copied._picture, copied._unsure = self._picture, dict(self._unsure)
        return copied

    def renewed(self, bindings: Mapping[str, Any], changed: Iterable[str], picture: Picture | None = None) -> Marks:
        """The marks of all bindings: new ones for the names that changed, the same for the others.

        Args:
            bindings: what is bound now.
            changed: what `moved` says of them.
            picture: of the bindings, where there is one already.
        """
        found = Marks(self)
        fresh = {name: Mark(bindings[name]) for name in changed}
        found.update(fresh)
        if len(found) != len(bindings):  # some are bound no more: what is bound is in it, or has changed
            for name in found.keys() - bindings.keys():
                del found[name]
        if self._picture is None:
            found._unsure = {name: None for name, mark in found.items() if mark.may_be_gone}
        else:
            found._unsure = {name: None for name in self._unsure if name in found}
            for name, mark in fresh.items():
                if mark.may_be_gone:
                    found._unsure[name] = None
                else:
                    found._unsure.pop(name, None)
        found._picture = Picture.of(bindings) if picture is None else picture
        return found

    def show(self, names: list[str], values: Sequence[Any]) -> bool:
        """Whether these are the bindings that were marked, each name bound to what it was, in the same order."""
        then = self._picture
        if then is None or names != then.names or addresses_of(values) != then.addresses:
            return False
        if not self._unsure:
            return True
        now = dict(zip(names, values, strict=True))
        return all(self[name].same(now[name]) for name in self._unsure)

    def moved(self, bindings: Mapping[str, Any], picture: Picture | None = None) -> list[str]:
        """Names that are not bound to what they were when they were marked, in the order of the bindings.

        Args:
            bindings: what is bound now.
            picture: of the bindings, where there is one already.
        """
        then = self._picture
        if then is None:
            return moved(self, bindings)
        now = Picture.of(bindings) if picture is None else picture
        names = now.names
        count = _in_common(names, then.names)
        tail = {name: bindings[name] for name in names[count:]}
        other = {name for name in self._unsure if name in bindings and not self[name].same(bindings[name])}
        old, new = then.addresses[: count * POINTER], now.addresses[: count * POINTER]
        if old != new:
            pairs = zip(memoryview(old).cast("P"), memoryview(new).cast("P"), strict=True)
            other.update(names[place] for place, (before, after) in enumerate(pairs) if before != after)
        found = [name for name in names[:count] if name in other] if other else []
        return found + moved(self, tail)


def _in_common(names: list[str], others: list[str]) -> int:
    """How many names both lists begin with."""
    shorter = min(len(names), len(others))
    if (names[:shorter] if len(names) > shorter else names) == (others[:shorter] if len(others) > shorter else others):
        return shorter
    return list(map(operator.ne, names, others)).index(True)
