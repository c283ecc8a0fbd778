"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, widest: int = 100) -> str:
    """Columns aligned with spaces; the last one is cut rather than wrapped."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        last = row[-1] if len(row[-1]) <= widest else row[-1][: widest - 1] + "…"
        lines.append("  ".join([*cells[:-1], last]).rstrip())
    return "\n".join(lines)
