"""Pseudo-names of displayed results, `Out[n]`: under the numbers of this session, and as the objects that they are.

A cell that shows a value which a name holds makes no new value: its result is that very object. When the name still has
the version that the checkpoint recorded, the result is bound to the live object, so that it stays one with whatever
else refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from durable_nb.snapshot import Group, Tracker, Version

_NO_NUMBER = 10**9
"""Added to the number of a result whose cell has no number in this session; its name goes again after loading."""


def result_index(name: str) -> int | None:
    """The number in a pseudo-name `Out[n]`, or None."""
    if name.startswith("Out[") and name.endswith("]") and name[4:-1].isdigit():
        return int(name[4:-1])
    return None


def renamed(manifest: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """The manifest of names with its results under other numbers."""
    new = {old: name or f"Out[{_NO_NUMBER + number}]" for number, (old, name) in enumerate(names.items())}
    groups = [
        {
            **group,
            "names": [new.get(name, name) for name in group["names"]],
            "versions": {new.get(name, name): version for name, version in group["versions"].items()},
        }
        for group in manifest["groups"]
    ]
    deleted = [name for name in manifest["deleted"] if result_index(name) is None]
    return {**manifest, "groups": groups, "deleted": deleted}


def names_of(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The names that a manifest binds."""
    for group in manifest["groups"]:
        yield from group["names"]


def strangers(manifest: Mapping[str, Any]) -> list[str]:
    """Results without a number in this session."""
    return [name for name in names_of(manifest) if (result_index(name) or 0) >= _NO_NUMBER]


def same_objects(groups: Sequence[Group], tracker: Tracker) -> dict[str, str]:
    """Results that are the object which a name of their group holds, and that name."""
    found = {}
    for group in groups:
        plain = [name for name in group.names if result_index(name) is None]
        for name in group.names:
            if result_index(name) is None:
                continue
            value = tracker.value(name)
            other = next((other for other in plain if tracker.value(other) is value), None)
            if other is not None:
                found[name] = other
    return found


def split_standing(
    manifest: Mapping[str, Any], same: Mapping[str | None, str], tracker: Tracker
) -> tuple[list[Any], list[Any]]:
    """The groups that have to be loaded, and those whose names all hold what was recorded already."""
    missing: list[Any] = []
    standing: list[Any] = []
    for group in manifest["groups"]:
        results = [name for name in group["names"] if result_index(name) is not None]
        plain = [name for name in group["names"] if result_index(name) is None]
        stands = (
            bool(results)
            and bool(plain)
            and all(name in same for name in results)
            and all(tracker.version(name).text == group["versions"][name][0] for name in plain)
        )
        (standing if stands else missing).append(group)
    return missing, standing


def bind_results(groups: Sequence[Mapping[str, Any]], same: Mapping[str | None, str], tracker: Tracker) -> None:
    """Bind the results of standing groups to the live objects."""
    for group in groups:
        for name in group["names"]:
            if name in same:
                tracker.bind(name, tracker.value(same[name]))
        tracker.replaced(group["names"], {name: Version(*group["versions"][name]) for name in group["names"]}, ())
