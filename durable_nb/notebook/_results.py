"""Pseudo-names of displayed results, `Out[n]`: under the numbers of this session, and as the objects that they are.

Numbers differ from session to session, so a checkpoint says which cell a result belongs to, and which of the cell's
results it is: `owner_of`.

A cell that shows a value which a name holds makes no new value: its result is that very object. When the name still has
the version that the checkpoint recorded, the result is bound to the live object, so that it stays one with whatever
else refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from durable_nb.snapshot import EARLIER, Group, Tracker, Version, earlier_number, result_number

_NO_NUMBER = 10**9
"""Added to the number of a result whose cell has no number in this session; its name goes again after loading."""


class Results:
    """Which results the cells of one session have shown.

    IPython's display hook is watched, since results before the last one of a cell are in no message and in no `Out`.
    """

    def __init__(self, shell: Any, tracker: Tracker) -> None:
        self._hook, self._tracker = shell.displayhook, tracker
        self._numbers: dict[str, int] = {}
        """By owner."""
        self._shown: list[Any] = []
        """Results of the running cell, the last one last."""
        self.recent: list[int] = []
        """Numbers of the last results, which are `___`, `__` and `_`."""
        self._update = self._hook.update_user_ns
        self._hook.update_user_ns = self._updated

    def remove(self) -> None:
        """Leave the display hook as it was."""
        self._hook.__dict__.pop("update_user_ns", None)

    def _updated(self, result: Any) -> None:
        self._shown = [*self._shown[-EARLIER:], result]
        self._update(result)

    def begin(self) -> None:
        """A cell begins."""
        self._shown = []

    def take(self, operation: str, number: int) -> None:
        """A cell has shown what it shows: its results get their names."""
        last = [*self._shown[-1 - EARLIER : -1]]
        numbers = [earlier_number(number, back) for back in range(len(last), 0, -1)]
        self._tracker.bound.earlier.update(zip(numbers, last, strict=True))
        for back in range(EARLIER + 1):
            self._numbers.pop(owner_of(operation, back), None)
        for back, each in enumerate(reversed([*numbers, number])):
            self._numbers[owner_of(operation, back)] = each
        self.recent = [*self.recent, *numbers, number][-1 - EARLIER :]

    def tidy(self) -> None:
        """Let go of earlier results that nothing names any more."""
        earlier = self._tracker.bound.earlier
        for number in [number for number in earlier if number not in self.recent]:
            del earlier[number]

    def owners(self) -> dict[int, str]:
        """The owner of each number."""
        return {number: owner for owner, number in self._numbers.items()}

    def number_of(self, owner: str) -> int | None:
        """The number of a result in this session, if its cell has run."""
        return self._numbers.get(owner)


def owner_of(operation: str, back: int) -> str:
    """A result of a cell by its place: 0 for the last one."""
    return f"{operation}-{back}" if back else operation


def owned_number(owner: str, operation: str, number: int) -> int | None:
    """The number of a result of this cell, when the cell's last one has this number; None for another cell's."""
    if owner == operation:
        return number
    cell, _, back = owner.rpartition("-")
    return earlier_number(number, int(back)) if cell == operation else None


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
    deleted = [name for name in manifest["deleted"] if result_number(name) is None]
    return {**manifest, "groups": groups, "deleted": deleted}


def names_of(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The names that a manifest binds."""
    for group in manifest["groups"]:
        yield from group["names"]


def strangers(manifest: Mapping[str, Any]) -> list[str]:
    """Results without a number in this session."""
    return [name for name in names_of(manifest) if (result_number(name) or 0) >= _NO_NUMBER]


def same_objects(groups: Sequence[Group], tracker: Tracker) -> dict[str, str]:
    """Results that are the object which a name of their group holds, and that name."""
    found = {}
    for group in groups:
        plain = [name for name in group.names if result_number(name) is None]
        for name in group.names:
            if result_number(name) is None:
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
        results = [name for name in group["names"] if result_number(name) is not None]
        plain = [name for name in group["names"] if result_number(name) is None]
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
