"""What a namespace binds: the user's names, and pseudo-names for what has no name of its own.

`Out[3]` is the result that cell 3 showed last, `Figure[1]` an open pyplot figure (`_figures.py`). A cell that shows
several results (`ast_node_interactivity = 'all'`) leaves the earlier ones in `__` and `___` only: they are `Out[-31]`
and `Out[-32]`, the last but one and the last but two of cell 3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from durable_nb.snapshot import _figures

EARLIER = 2
"""Results before the last one that IPython still holds: `__` and `___`."""

_OUT = re.compile(r"Out\[(-?\d+)\]")
_ALWAYS_HIDDEN = re.compile(r"_|__|___|_i+|_i\d+|_\d+|_[dio]h|In|Out|__\w+__")
_USUALLY_HIDDEN = frozenset({"get_ipython", "exit", "quit", "open", "display"})
_LAST = ("_", "__", "___")


def earlier_number(number: int, back: int) -> int:
    """The number of the result that a cell showed `back` results before its last one."""
    return -(number * 10 + back)


def result_number(name: str) -> int | None:
    """The number in a pseudo-name `Out[n]`; None for any other name."""
    found = _OUT.fullmatch(name)
    return int(found[1]) if found is not None else None


class _OutNames(dict[int, str]):
    """The pseudo-names of results, each made once: every cell asks for all of them."""

    def __missing__(self, number: int) -> str:
        name = self[number] = f"Out[{number}]"
        return name


_OUT_NAMES = _OutNames()


class Bindings:
    """Names and pseudo-names of one namespace, without any tracking.

    Args:
        namespace: the dict in which the user's code runs.
        hidden: names that belong to the shell; one that the user binds anew is the user's. A mapping to the values that
            the shell gave them tells this also of `_`, `__` and `___`.
    """

    def __init__(self, namespace: dict[str, Any], hidden: Iterable[str]) -> None:
        self._namespace = namespace
        self._shells = hidden if isinstance(hidden, Mapping) else None
        self._hidden = {name: namespace.get(name) for name in {*hidden, *_USUALLY_HIDDEN} if name in namespace}
        self._users: set[str] = set()
        """Names that can only be the user's."""
        self._never: set[str] = set()
        """Names that never are: the shell adds `_i7` and its like with each cell."""
        self._seen: list[str] = []
        """All names of the namespace when it was last looked at, of which `_ordered` are the user's in their order."""
        self._ordered: list[str] = []
        self._maybe: list[str] = []
        """Those of them whose value decides."""
        self.earlier: dict[int, Any] = {}
        """Results that only `__` or `___` may hold, by `earlier_number`."""

    def all(self) -> dict[str, Any]:
        """Everything that is bound."""
        return dict(zip(*self.pairs(), strict=True))

    def pairs(self) -> tuple[list[str], tuple[Any, ...]]:
        """The names of everything that is bound, and the values in the same order."""
        self._look(list(self._namespace))
        sometimes = [name for name in self._maybe if self._is_sometimes(name)]
        names, values = self._in_order(sometimes) if sometimes else self._users_own()
        results = self.results()
        if results:
            names += map(_OUT_NAMES.__getitem__, results)
            values += tuple(results.values())
        figures = _figures.open_figures()
        if figures:
            names += figures
            values += tuple(figures.values())
        return names, values

    def _look(self, names: list[str]) -> None:
        """Tell the names apart. Every cell asks twice, of all names, and most often some have come at the end."""
        if names == self._seen:
            return
        count = len(self._seen)
        if names[:count] != self._seen:
            count, self._ordered, self._maybe = 0, [], []
        for name in names[count:]:
            if name not in self._users and name not in self._never:
                self._is_sometimes(name)
            if name in self._users:
                self._ordered.append(name)
            elif name not in self._never:
                self._maybe.append(name)
        self._seen = names

    def _users_own(self) -> tuple[list[str], tuple[Any, ...]]:
        try:
            return self._ordered.copy(), tuple(map(self._namespace.__getitem__, self._ordered))
        except KeyError:  # a thread of the user's has just unbound it
            return self._in_order(())

    def _in_order(self, sometimes: Collection[str]) -> tuple[list[str], tuple[Any, ...]]:
        users = self._users
        found = {name: value for name, value in self._namespace.items() if name in users or name in sometimes}
        return list(found), tuple(found.values())

    def results(self) -> dict[int, Any]:
        """The results that were shown, by number."""
        displayed = self._namespace.get("_oh")
        known: dict[int, Any] = displayed if isinstance(displayed, dict) else {}
        return {**self.earlier, **known} if self.earlier else known

    def _is_sometimes(self, name: str) -> bool:
        """Whether a name that may be the user's is it now; one that always or never is, is noted as such."""
        hidden, value = self._hidden, self._namespace.get(name)
        if _is_shells(name):
            if name not in _LAST:
                self._never.add(name)
            return not (name in hidden and hidden[name] is value) and self._is_users(name, value)
        if name in hidden:
            return hidden[name] is not value
        self._users.add(name)
        return False

    def _is_users(self, name: str, value: Any) -> bool:
        """Whether `_`, `__` or `___` is a name that the user has bound, which the shell then leaves alone."""
        return name in _LAST and self._shells is not None and self._shells.get(name) is not value

    def __contains__(self, name: str) -> bool:
        if _figures.NAME.fullmatch(name):
            return name in _figures.open_figures()
        number = result_number(name)
        if number is not None:
            return number in self.results()
        if name not in self._namespace or _is_shells(name):
            return False
        return not (name in self._hidden and self._hidden[name] is self._namespace[name])

    def __getitem__(self, name: str) -> Any:
        """The value; `KeyError` when there is none."""
        if _figures.NAME.fullmatch(name):
            return _figures.open_figures()[name]
        number = result_number(name)
        return self._namespace[name] if number is None else self.results()[number]

    def __setitem__(self, name: str, value: Any) -> None:
        """Bind a name or a result, or open a figure."""
        if _figures.NAME.fullmatch(name):
            _figures.open_figure(name, value)
            return
        number = result_number(name)
        if number is None:
            self._namespace[name] = value
        elif number < 0:
            self.earlier[number] = value
        else:
            self._namespace.setdefault("_oh", {})[number] = value
            self._namespace[f"_{number}"] = value

    def discard(self, name: str) -> None:
        """Unbind; nothing happens when the name is not bound."""
        if _figures.NAME.fullmatch(name):
            _figures.close_figure(name)
            return
        number = result_number(name)
        if number is None:
            self._namespace.pop(name, None)
        elif number < 0:
            self.earlier.pop(number, None)
        else:
            self._namespace.get("_oh", {}).pop(number, None)
            self._namespace.pop(f"_{number}", None)


def _is_shells(name: str) -> bool:
    return (name[:1] == "_" or name in ("In", "Out")) and _ALWAYS_HIDDEN.fullmatch(name) is not None
