"""Text and data as a command prints them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["as_json", "one_line", "printable"]


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
