"""Reading what `GroupPickler` wrote, onto the live namespace."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol

from durable_nb.snapshot import _rebuild
from durable_nb.snapshot._importing import imported
from durable_nb.snapshot._module_objects import Place
from durable_nb.snapshot._pickle import REGISTERED

if TYPE_CHECKING:
    from durable_nb.snapshot._tracker import Tracker


class Library(Protocol):
    """Where definitions and sources come from when they are not live."""

    def definition(self, name: str, tracker: Tracker) -> Any: ...

    def source(self, name: str) -> str: ...


class GroupUnpickler(pickle.Unpickler):
    """Restores segments; its persistent ids are exactly those that `GroupPickler` writes."""

    def __init__(self, file: Any, tracker: Tracker, library: Library, buffers: Iterable[Any]) -> None:
        super().__init__(file, buffers=buffers)
        self._tracker = tracker
        self._library = library
        self._sets: dict[int, Any] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        if module == _rebuild.__name__ and name == _rebuild.code.__name__:
            # No bound method: the memo would hold it, and so itself, with all that was loaded.
            return partial(_noted_code, self._tracker.on_code) if self._tracker.on_code is not None else _rebuild.code
        imported(module)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple):
            return self._composed(*pid)
        kind, _, rest = str(pid).partition(":")
        if kind == "d":
            return self._definition(rest)
        if kind == "g":
            return self._tracker.namespace
        if kind == "m":
            return imported(rest)
        if kind == "q":
            module, _, attribute = rest.partition(":")
            return getattr(imported(module), attribute)
        if kind == "n":
            return imported(rest).__dict__
        if kind == "a":
            name, _, attribute = rest.partition(":")
            attribute, _, part = attribute.partition(".")
            held = vars(self._definition(name))[attribute]
            return getattr(held, part) if part else held
        if kind == "f":
            return self._tracker.filename_for(self._library.source(rest))
        if kind == "s":
            return self._sets[int(rest)]
        if kind == "M":
            return sys.modules["__main__"]
        if kind == "o":
            return getattr(sys, rest)
        raise pickle.UnpicklingError(f"unknown reference {pid!r}")

    def _composed(self, kind: str, *facts: Any) -> Any:
        if kind == "c":
            return self._class_state(*facts)
        if kind == "q":
            module, attribute, *steps = facts
            place = Place(module, attribute, tuple(zip(steps[::2], steps[1::2], strict=True)))
            return place.follow(imported(module))
        return self._ordered_set(*facts)

    def _definition(self, name: str) -> Any:
        definitions = self._tracker.definitions
        live = definitions.live(name)
        if live is not None:
            return live
        if name in definitions.building:
            raise pickle.UnpicklingError(f"the definition {name} needs itself")
        definitions.building.add(name)
        try:
            made = self._library.definition(name, self._tracker)
        finally:
            definitions.building.discard(name)
        definitions.adopt(name, made)
        definitions.hold(made)
        return made

    def _class_state(self, name: str, state: dict[str, Any], gone: tuple[str, ...]) -> Any:
        made = self._definition(name)
        for subclass in state.pop(REGISTERED, ()):
            made.register(subclass)
        self._tracker.definitions.apply_state(made, state, gone)
        return made

    def _ordered_set(self, key: int, items: list[Any], plan: list[int], fillers: list[int], frozen: bool) -> Any:
        made = self._sets[key] = _rebuild.ordered_set(items, plan, fillers, frozen)
        return made


def _noted_code(note: Callable[[CodeType], None], *arguments: Any) -> CodeType:
    made = _rebuild.code(*arguments)
    note(made)
    return made
