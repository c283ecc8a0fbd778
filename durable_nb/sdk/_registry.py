"""Functions by name: what `invoke`, workers and the command line can run."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from durable_nb.exceptions import ValidationError

if TYPE_CHECKING:
    from durable_nb.sdk.execution import DurableHandler

Function = Callable[..., Any]
"""A plain function `(event, lambda_context) -> JSON value`."""


class Registry:
    """Durable handlers and plain functions by name. A registry may stand on another one."""

    def __init__(self, below: Registry | None = None) -> None:
        self._below = below
        self._lock = threading.Lock()
        self._entries: dict[str, DurableHandler[Any, Any] | Function] = {}

    def register(self, name: str, function: DurableHandler[Any, Any] | Function) -> None:
        """Make a function known; a later one of the same name replaces it (its module was loaded again)."""
        with self._lock:
            self._entries[name] = function

    def find(self, name: str) -> DurableHandler[Any, Any] | Function | None:
        """The function of that name, or of that `module:name`."""
        with self._lock:
            found = self._entries.get(name)
        if found is None and self._below is not None:
            found = self._below.find(name)
        return found

    def names(self) -> list[str]:
        """All names."""
        with self._lock:
            own = set(self._entries)
        return sorted(own | set(self._below.names() if self._below else ()))


HANDLERS = Registry()
"""Every handler of this process, by its own name and as `module:name`."""


def import_handler(reference: str) -> Any:
    """The object at `module:attribute`.

    Raises:
        ValidationError: there is no such module or attribute, with the name of what is missing.
    """
    module_name, separator, attribute = reference.partition(":")
    if not separator or not module_name or not attribute:
        raise ValidationError(f"{reference!r} is no handler reference: write module:function")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as exc:
        raise ValidationError(f"cannot import {module_name!r} for {reference!r}: {exc}") from exc
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValidationError(f"module {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    return found


@contextmanager
def registered(registry: Registry, name: str, function: Function) -> Iterator[None]:
    """A function known for a while."""
    registry.register(name, function)
    try:
        yield
    finally:
        with registry._lock:
            registry._entries.pop(name, None)


__all__ = ["HANDLERS", "Registry", "import_handler", "registered"]
