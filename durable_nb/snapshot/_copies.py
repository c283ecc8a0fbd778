"""Keeps the folder of copies in its size.

Any copy may go at any time: it is fetched again. What is mapped stays mapped, since a file's bytes go with its last
map. But a map is checked a moment later by reading its file, and a reader looks for a name before it opens it. So a
copy goes in two steps: it is moved to `trash`, where readers still find it, and removed a minute later.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["trim"]

_GRACE_SECONDS = 60.0
"""How long a copy that goes is still found."""

_SHARE = 0.8
"""How much of its size the folder keeps when it has more: trimming is not to come back with the next blob."""

_FOLDER = re.compile(r"[0-9a-f]{16}")
"""Name of a store's folder of copies. Nothing else is touched: somebody may have chosen a folder with a store in it."""

_NAME = 64
"""Letters in a blob's name."""


class _Copy(NamedTuple):
    used: float
    nbytes: int
    path: Path


def trim(base: Path, limit: int) -> int:
    """Bring the copies of all stores below a folder into a size; the least recently used go.

    When a copy was read last is told by its file's access time, which most file systems keep to a day.

    Args:
        base: has a folder for each store.
        limit: bytes.

    Returns:
        Bytes that were given back, or will be a minute later.
    """
    given = 0
    copies: list[_Copy] = []
    for folder in _entries(base):
        if _FOLDER.fullmatch(folder.name) and not Path(folder.path, "journal.db").exists():
            blobs = Path(folder.path, "blobs")
            _empty(blobs / "trash")
            copies += _copies_in(blobs)
    total = sum(copy.nbytes for copy in copies)
    if total <= limit:
        return 0
    for copy in sorted(copies):
        if total - given <= limit * _SHARE:
            break
        trash = copy.path.parents[1] / "trash"
        with contextlib.suppress(FileNotFoundError):  # another process trims too
            trash.mkdir(mode=0o700, exist_ok=True)
            copy.path.rename(trash / copy.path.name)
        given += copy.nbytes
    return given


def _copies_in(blobs: Path) -> Iterator[_Copy]:
    for folder in _entries(blobs):
        if len(folder.name) == 2:
            for entry in _entries(Path(folder.path)):
                if len(entry.name) == _NAME:
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield _Copy(max(found.st_atime, found.st_mtime), found.st_blocks * 512, Path(entry.path))


def _empty(trash: Path) -> None:
    """Remove what has been there for long enough."""
    for entry in _entries(trash):
        with contextlib.suppress(FileNotFoundError):
            # Its change time is that of its being moved here.
            if time.time() - entry.stat(follow_symlinks=False).st_ctime > _GRACE_SECONDS:
                Path(entry.path).unlink()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
