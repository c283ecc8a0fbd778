"""Warnings that were shown once and are not shown again.

Theory. By default Python shows a warning once for each place of a module, and keeps a list of what it has shown in the
module's `__warningregistry__`. In a resumed kernel these lists are empty, so that a cell that runs would repeat what a
replayed one has shown. They are put back with the cell that showed the warnings. A list holds for one version of the
filters: any change of these (`warnings.catch_warnings` changes them twice) empties all lists, which is put back too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

from durable_nb.snapshot._process_part import Part

_REGISTRY = "__warningregistry__"

Shown = tuple[str, str, str, int]
"""Module, text, category (`module:name`) and line."""


class _Probe(Warning):
    """Asks for the version of the filters, and is never shown."""


class Warned(Part):
    name = "<warned>"
    absent = "nothing"

    def __init__(self) -> None:
        self._filters: int | None = None
        self._valid: dict[Shown, None] = {}
        self._new = False

    def note_start(self) -> None:
        """Watch what is shown from now on."""
        shown: Any = warnings._showwarnmsg  # type: ignore[attr-defined]
        if getattr(shown, "watched_by", None) is self:
            return

        @functools.wraps(shown)
        def watching(message: Any) -> None:
            if message.category is _Probe:
                return
            self._new = True
            shown(message)

        watching.watched_by = self  # type: ignore[attr-defined]
        warnings._showwarnmsg = watching  # type: ignore[attr-defined]

    def read(self) -> Any:
        """The version of the filters and what is not shown again; None when that is nothing."""
        filters = _version_of_filters()
        if filters != self._filters:
            self._filters, self._valid = filters, {}
        if self._new:
            self._new = False
            self._valid = dict.fromkeys(_shown(filters))
        return (filters, tuple(self._valid)) if self._valid else None

    def version(self, value: Any) -> str:
        return f"{value[0]}:{len(value[1])}"

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        cleared = before is not None and before[0] != after[0]
        old = frozenset(before[1]) if before is not None and not cleared else frozenset()
        return {"value": [cleared, [list(entry) for entry in after[1] if entry not in old]]}

    def write(self, value: Any) -> None:
        cleared, entries = value
        if cleared:
            self.reset()
        filters = _version_of_filters()
        for module_name, text, category, line in entries:
            module = sys.modules.get(module_name)
            kind = _category(category)
            if module is None or kind is None or filters is None:
                continue  # it will be shown once more, by the module that is imported then
            registry = vars(module).setdefault(_REGISTRY, {})
            if registry.get("version") != filters:
                registry.clear()
                registry["version"] = filters
            registry[text, kind, line] = True
        self._new = True

    def reset(self) -> None:
        """Empty all lists, as a change of the filters does."""
        mutated: Any = getattr(warnings, "_filters_mutated", None) or warnings._filters_mutated_lock_held  # type: ignore[attr-defined]
        mutated()


def _version_of_filters() -> int | None:
    """What Python writes into a list of warnings, as it tells the number nowhere else; None when nobody watches.

    Without a watcher (somebody has reloaded `warnings`) the question itself would be shown.
    """
    if not hasattr(warnings._showwarnmsg, "watched_by"):  # type: ignore[attr-defined]
        return None
    registry: dict[Any, Any] = {}
    with contextlib.suppress(_Probe):
        warnings.warn_explicit(_Probe(), _Probe, "", 0, registry=registry)
    return registry.get("version")


def _shown(filters: int | None) -> list[Shown]:
    """What the lists of all modules hold. The shell empties that of the notebook's own code before each cell."""
    found: list[Shown] = []
    modules: dict[str, Any] = dict(sys.modules)
    for name, module in modules.items():
        registry = vars(module).get(_REGISTRY) if isinstance(module, ModuleType) and name != "__main__" else None
        if registry and registry.get("version") == filters:
            found += [(name, *entry) for key in registry if (entry := _entry(key)) is not None]
    return found


def _entry(key: Any) -> tuple[str, str, int] | None:
    """Text, category and line; None for what is no warning, such as the version."""
    if not (isinstance(key, tuple) and len(key) == 3 and isinstance(key[0], str) and isinstance(key[1], type)):
        return None
    return key[0], f"{key[1].__module__}:{key[1].__qualname__}", key[2]


def _category(text: str) -> type[Warning] | None:
    module, _, name = text.partition(":")
    try:
        found: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) and issubclass(found, Warning) else None
