"""Who uses a store: a lock file that every process shares and that collection wants for itself.

The lock is the system's (`flock`), so that it ends with its process, however that ends. It says only that somebody has
the store open; what may be collected meanwhile is decided in `durable_nb.maintenance`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Pin"]

_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


class Pin:
    """A process's share in a store.

    Args:
        folder: the store's directory.

    Raises:
        OSError: the lock file cannot be made. On a disk that cannot be written to nothing can be collected either, and
            the share is taken to be there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._handle: int | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        try:
            self._handle = os.open(Path(folder) / "lock", flags, 0o600)
        except OSError as exc:
            if exc.errno not in _UNWRITABLE:
                raise
            return
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other process has the store open; while True nobody else can open it."""
        if self._handle is None:
            yield False
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A failed conversion may have let the share go.
            fcntl.flock(self._handle, fcntl.LOCK_SH)
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let the share go."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
