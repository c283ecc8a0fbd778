"""Objects that a local module holds: `settings = config.SETTINGS` must stay the module's object, not become a copy.

Only modules outside the installed packages are looked at: they are few, and their objects are what a project's
notebooks share with its code. A restored name is bound to the live module's object. A cell that changes such an object
in place changes the module, which no checkpoint of names can bring back: the cell has to run again.
"""

from __future__ import annotations

import sys
import sysconfig
from types import ModuleType
from typing import Any

from durable_nb.snapshot._kinds import Kind, is_main, kind_of_type

_INSTALLED = tuple(
    {path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))}
)


def _is_local(name: str, module: Any) -> bool:
    if is_main(module) or name.partition(".")[0] == "durable_nb" or not isinstance(module, ModuleType):
        return False
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or file.startswith(_INSTALLED):
        return False
    return "site-packages" not in file and "dist-packages" not in file


class ModuleObjects:
    """Which mutable objects local modules hold under a name."""

    def __init__(self) -> None:
        self._looked_at: dict[str, bool] = {}
        self._local: list[str] = []
        self._found: dict[int, tuple[str, str]] = {}

    def refresh(self) -> None:
        """Look at the local modules as they are now."""
        if len(self._looked_at) != len(sys.modules):
            self._looked_at = {
                name: self._looked_at.get(name) or _is_local(name, module) for name, module in list(sys.modules.items())
            }
            self._local = [name for name, local in self._looked_at.items() if local]
        found: dict[int, tuple[str, str]] = {}
        for name in self._local:
            module = sys.modules.get(name)
            for attribute, value in list(vars(module).items()) if module is not None else ():
                if kind_of_type(type(value)) is Kind.MUTABLE and not attribute.startswith("__"):
                    found.setdefault(id(value), (name, attribute))
        self._found = found

    def place_of(self, value: Any) -> tuple[str, str] | None:
        """Module and attribute that hold this very object now."""
        place = self._found.get(id(value))
        if place is None:
            return None
        module = sys.modules.get(place[0])
        return place if module is not None and vars(module).get(place[1]) is value else None

    def holds_one_of(self, ids: frozenset[int]) -> bool:
        """Whether one of these objects may be a module's."""
        return not ids.isdisjoint(self._found)

    def __bool__(self) -> bool:
        return bool(self._found)
