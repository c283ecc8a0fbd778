"""Which arrays need no look after a cell, because nothing in it could have changed them.

The cell's text says that it only computes from them (`cells/_only_read.py`). That is enough only if nothing else in the
cell can reach their memory: so the cell may use no code of the notebook, no packages but NumPy and a few that compute
with numbers, and, beside such arrays, nothing but numbers and text. Objects of any other kind might hold a pointer to
the memory that no pass can see.
"""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import Any

from durable_nb.cells import Reads, only_read
from durable_nb.snapshot import Tracker

_NUMBERS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_PACKAGES = frozenset({"math", "numpy", "time"})
_WORTH = 1 << 20
"""Bytes. A smaller array is looked at as quickly as all this is asked."""


def spared(tree: ast.Module, reads: Reads, tracker: Tracker) -> frozenset[str]:
    """Names of arrays that cannot have changed when the cell ends.

    Args:
        tree: the cell.
        reads: all that the cell may reach.
        tracker: knows which names share memory.
    """
    namespace = tracker.namespace
    arrays = frozenset(name for name in reads.names if _is_array(namespace.get(name)))
    if not any(namespace[name].nbytes >= _WORTH for name in arrays):
        return frozenset()
    arrays &= only_read(tree)
    if not any(namespace[name].nbytes >= _WORTH for name in arrays):
        return frozenset()
    if reads.everything is not None or reads.functions or reads.classes or reads.set_up or reads.interactive:
        return frozenset()
    if not {name.partition(".")[0] for name in reads.modules} <= _PACKAGES:
        return frozenset()
    if not all(name in namespace and _is_plain(namespace[name]) for name in reads.names - arrays):
        return frozenset()
    return frozenset(name for name in arrays if name not in reads.binds and _is_apart(name, arrays, reads, tracker))


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray and value.dtype.kind in "biufc"


def _is_plain(value: Any) -> bool:
    return type(value) in _NUMBERS or (isinstance(value, ModuleType) and value.__name__ in _PACKAGES)


def _is_apart(name: str, arrays: frozenset[str], reads: Reads, tracker: Tracker) -> bool:
    """Whether all that shares memory with the array is left alone, or only read as well."""
    group = tracker.group_of(name)
    if group is None or group.scan is None or group.doubtful or group.problems:
        return False
    return all(other in arrays or other not in reads.names | reads.binds for other in group.names)
