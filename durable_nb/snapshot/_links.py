"""Which names reach a common mutable object: groups found by object, and the sets of names that passes connect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from durable_nb._ident import ident
from durable_nb.snapshot._groups import Group
from durable_nb.snapshot._scan import Scan

__all__ = ["ObjectIndex", "connected"]


class ObjectIndex:
    """The groups that have been passed over, by the ids of the mutable objects that they reach.

    The memory of pandas objects is kept apart (*shadowed*): frames that share some copy on write, so that it links them
    to plain arrays only.
    """

    def __init__(self) -> None:
        self._groups: dict[int, Group] = {}
        self._shadow_groups: dict[int, Group] = {}
        self._shadow_holders: dict[int, set[int]] = {}

    def add(self, group: Group) -> None:
        """Enter a group that has a scan."""
        assert group.scan is not None
        for ids in group.scan.mutables.values():
            for key in ids:
                self._groups[key] = group
        for ids in group.scan.shadowed.values():
            for key in ids:
                self._shadow_holders.setdefault(key, set()).add(ident(group))
                self._shadow_groups[ident(group)] = group

    def remove(self, group: Group) -> None:
        """Take out what `add` entered, but for objects that another group has come to hold."""
        if group.scan is None:
            return
        for ids in group.scan.mutables.values():
            for key in ids:
                if self._groups.get(key) is group:
                    del self._groups[key]
        for ids in group.scan.shadowed.values():
            for key in ids:
                holders = self._shadow_holders.get(key)
                if holders is not None:
                    holders.discard(ident(group))
                    if not holders:
                        del self._shadow_holders[key]
        self._shadow_groups.pop(ident(group), None)

    def linked(self, found: Scan) -> Iterator[Group]:
        """Groups that share a mutable object with this scan; one may come more than once."""
        for ids in found.mutables.values():
            for key in ids:
                if key in self._groups:
                    yield self._groups[key]
                for holder in self._shadow_holders.get(key, ()):
                    yield self._shadow_groups[holder]
        for ids in found.shadowed.values():
            for key in ids:
                if key in self._groups:
                    yield self._groups[key]


def connected(scans: Iterable[Scan]) -> list[set[str]]:
    """The names of the scans, in sets that have no mutable object in common."""
    scans = list(scans)
    links = _Links()
    holders: dict[int, str] = {}
    for item in scans:
        for name, ids in item.mutables.items():
            links.add(name)
            for key in ids:
                links.join(name, holders.setdefault(key, name))
    for item in scans:
        for name, ids in item.shadowed.items():
            for key in ids:
                if key in holders:
                    links.join(name, holders[key])
    return links.components()


class _Links:
    """Union-find over names."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def add(self, name: str) -> None:
        self._parents.setdefault(name, name)

    def top(self, name: str) -> str:
        while self._parents[name] != name:
            self._parents[name] = name = self._parents[self._parents[name]]
        return name

    def join(self, left: str, right: str) -> None:
        if left != right:
            self._parents[self.top(left)] = self.top(right)

    def components(self) -> list[set[str]]:
        found: dict[str, set[str]] = {}
        for name in self._parents:
            found.setdefault(self.top(name), set()).add(name)
        return list(found.values())
