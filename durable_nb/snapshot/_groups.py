"""Parts of the tracker's picture: groups of names, and their versions."""

from __future__ import annotations

from collections.abc import Collection

from durable_nb._dataclass import dataclass
from durable_nb.snapshot._bindings import result_number
from durable_nb.snapshot._digest import digest_text
from durable_nb.snapshot._scan import Problem, Scan


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


def parted(old: Version, names: Collection[str]) -> Version:
    """The version of a name whose group lost or won members while its own value stayed.

    It depends on who is left, not on the order in which the others went. Display results do not count.
    """
    base = old.base or old.text
    others = sorted(name for name in names if result_number(name) is None)
    return Version(digest_text("regrouped", base, *others), old.exact, old.kind, old.producer, base)
