"""Pseudo-names of displayed results."""

from __future__ import annotations


def result_index(name: str) -> int | None:
    """The number in a pseudo-name `Out[n]`, or None."""
    if name.startswith("Out[") and name.endswith("]") and name[4:-1].isdigit():
        return int(name[4:-1])
    return None
