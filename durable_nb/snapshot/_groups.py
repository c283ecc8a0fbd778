"""Parts of the tracker's picture: groups of names, their versions, and marks of what a name is bound to."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._bindings import result_number
from durable_nb.snapshot._digest import digest_text
from durable_nb.snapshot._kinds import ATOMS
from durable_nb.snapshot._scan import Problem, Scan

_KEPT_TEXT = 1 << 16
"""Characters. A longer text is not kept alive for comparing."""


@dataclass(frozen=True, slots=True)
class Version:
    """The identity of a name's value."""

    text: str
    exact: bool
    """True when equal text means equal content: the name may be stored and given back."""
    kind: str
    """`content`, `lineage`, `dirty` (reading it forbids a checkpoint) or `missing` (no such name)."""
    producer: str = ""
    """Fingerprint of the cell that made it; empty when no cell did."""
    base: str = ""
    """Of a name whose group lost or won members since: the text that it had before."""


MISSING = Version("missing", True, "missing")


@dataclass(slots=True, eq=False)
class Group:
    """Names that share a mutable object, and what the last pass over them found."""

    names: tuple[str, ...]
    scan: Scan | None = None
    doubtful: bool = False
    """Something ran outside of cells that may have changed it."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        return () if self.scan is None else self.scan.problems


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


def parted(old: Version, names: Collection[str]) -> Version:
    """The version of a name whose group lost or won members while its own value stayed.

    It depends on who is left, not on the order in which the others went. Display results do not count.
    """
    base = old.base or old.text
    others = sorted(name for name in names if result_number(name) is None)
    return Version(digest_text("regrouped", base, *others), old.exact, old.kind, old.producer, base)
