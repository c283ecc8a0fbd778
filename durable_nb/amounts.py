"""Durations, sizes and moments as people read them: in the terminal, in notebooks and on the board."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["duration", "moment", "size"]

UNKNOWN = "–"


def duration(seconds: float | None) -> str:
    """`85 ms`, `12.3 s`, `3 min 12 s`, `2 h 05 min`; a dash for an unknown one."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(nbytes: int) -> str:
    """`812 B`, `3.4 kB`, `1.2 GB`: powers of 1000, as disks are sold."""
    if nbytes < 1000:
        return f"{nbytes} B"
    amount = nbytes / 1000
    for unit in ("kB", "MB"):
        if amount < 999.5:
            return f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def moment(at: float | None) -> str:
    """Local date and time to the second; a dash for an unknown one."""
    if at is None:
        return UNKNOWN
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
