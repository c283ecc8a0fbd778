"""Text that PostgreSQL cannot hold: the character NUL. It is written as two others, and read back as itself."""

from __future__ import annotations

from typing import Any

__all__ = ["plain", "storable"]

_NUL, _ESCAPE = "\0", "\uf8ff"


def storable(value: Any) -> Any:
    """A value of a row as the server can hold it."""
    if isinstance(value, str) and (_NUL in value or _ESCAPE in value):
        return value.replace(_ESCAPE, f"{_ESCAPE}1").replace(_NUL, f"{_ESCAPE}0")
    return value


def plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row as it was given."""
    return tuple(map(_plain, row))


def _plain(value: Any) -> Any:
    if isinstance(value, str) and _ESCAPE in value:
        return value.replace(f"{_ESCAPE}0", _NUL).replace(f"{_ESCAPE}1", _ESCAPE)
    return value
