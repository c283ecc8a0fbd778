"""Times, sizes and tables as plain text."""

from __future__ import annotations

import time
from collections.abc import Sequence


def clock(at: float) -> str:
    """A point in time, by the local clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def duration(seconds: float | None) -> str:
    """Seconds for people: `0.012`, `3.4`, `2 min 05 s`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, widest: int = 100) -> str:
    """Columns aligned with spaces; the last one is cut rather than wrapped."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        last = row[-1] if len(row[-1]) <= widest else row[-1][: widest - 1] + "…"
        lines.append("  ".join([*cells[:-1], last]).rstrip())
    return "\n".join(lines)
