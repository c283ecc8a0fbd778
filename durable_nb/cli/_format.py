"""Values as people read them: durations, sizes, moments."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

__all__ = ["as_json", "duration", "moment", "one_line", "printable", "size"]


def duration(seconds: float | None) -> str:
    """`85 ms`, `12.3 s`, `3 min 12 s`, `2 h 05 min`; a dash for an unknown one."""
    if seconds is None:
        return "–"
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
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("the loop returns at its last unit")


def moment(at: float | None) -> str:
    """Local date and time to the second; a dash for an unknown one."""
    if at is None:
        return "–"
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def one_line(text: str, width: int = 60) -> str:
    """The first line of a text, cut to a width; nothing in it commands the terminal."""
    line = printable(next((part.strip() for part in text.splitlines() if part.strip()), ""))
    return line if len(line) <= width else line[: width - 1] + "…"


def printable(text: str) -> str:
    """The text without control characters: a store that came from elsewhere must not write escape sequences."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def as_json(value: Any) -> str:
    """What `--json` prints."""
    return json.dumps(value, indent=2, ensure_ascii=False)
