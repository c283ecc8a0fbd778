"""Importing a module that the notebook reached by another way."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, TracebackType


def imported(name: str) -> ModuleType:
    """The module of this name.

    A value names the module that defines its class, the notebook imported the one that offers it. Where the two import
    each other, only one order works: when the first try fails inside another module, that one goes first.

    Raises:
        ImportError: no order works.
    """
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        for first in _half_way(exc.__traceback__):
            if first == name:
                continue
            try:
                importlib.import_module(first)
            except ImportError:
                continue
            return importlib.import_module(name)
        raise


def _half_way(trace: TracebackType | None) -> Iterator[str]:
    """The modules whose code was running, the innermost first."""
    found = []
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            found.append(str(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    yield from reversed(found)
