"""Where the values of a namespace are, all at once: what every cell asks of all names must cost next to nothing."""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Iterable
from typing import Any

from durable_nb._ident import ident

__all__ = ["POINTER", "addresses_of"]

POINTER = struct.calcsize("P")
"""Bytes of one address."""

_ITEMS = tuple.__basicsize__
"""Where in a tuple its items begin."""


def _read(values: tuple[Any, ...]) -> bytes:
    return ctypes.string_at(id(values) + _ITEMS, POINTER * len(values))


def _asked(values: tuple[Any, ...]) -> bytes:
    return array("q" if POINTER == 8 else "i", map(ident, values)).tobytes()


def _is_laid_out_so() -> bool:
    """Whether this interpreter's tuples hold the addresses of their items, as CPython's do."""
    probe = (object(), object(), "")
    try:
        return _read(probe) == struct.pack("3P", *map(id, probe))
    except (ValueError, TypeError, struct.error):
        return False


_addresses = _read if _is_laid_out_so() else _asked


def addresses_of(values: Iterable[Any]) -> bytes:
    """`POINTER` bytes for each value, the same for the same object while it lives: read from memory, not asked."""
    return _addresses(tuple(values))
