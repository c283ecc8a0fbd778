"""Who uses a store: a lock file that every process shares and that collection wants for itself.

The lock is the system's (`flock`), so that it ends with its process, however that ends. It says only that somebody has
the store open; what may be collected meanwhile is decided in `durable_nb.maintenance`.

A process that has still to read some blobs lists them in a file of its own below `held/`, locked in the same way, so
that a list whose process has ended counts no more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from durable_nb.abc import Share

__all__ = ["Pin", "held_blobs"]

_HELD = "held"

_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


class Pin(Share):
    """A process's share in a store.

    Args:
        folder: the store's directory.

    Raises:
        OSError: the lock file cannot be made. On a disk that cannot be written to nothing can be collected either, and
            the share is taken to be there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._handle: int | None = None
        self._store = Path(folder)
        self._folder = self._store / _HELD
        self._list: tuple[int, Path] | None = None
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

    def hold(self, addresses: Iterable[str]) -> None:
        text = "".join(f"{address}\n" for address in addresses).encode()
        if not text or self._handle is None:
            return
        with contextlib.suppress(OSError):  # a full disk: what is collected all the same is told when it is missed
            if self._list is None:
                self._list = self._new_list()
            os.write(self._list[0], text)

    def _new_list(self) -> tuple[int, Path]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            path = self._folder / f"{os.getpid()}-{secrets.token_hex(8)}"
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:  # a collection may have met it before it was locked, and put it away
                return handle, path
            os.close(handle)

    def held(self) -> set[str]:
        return held_blobs(self._store)

    def nbytes(self) -> int:
        """Bytes on disk."""
        total = 0
        for folder, _, names in os.walk(self._store):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def close(self) -> None:
        held, self._list = self._list, None
        if held is not None:
            held[1].unlink(missing_ok=True)
            os.close(held[0])
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def held_blobs(folder: str | os.PathLike[str]) -> set[str]:
    """Blobs that living processes have still to read; what dead ones have left is removed."""
    found: set[str] = set()
    for path in Path(folder, _HELD).glob("*"):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        except OSError:  # its process has just ended
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.update(path.read_text(encoding="ascii", errors="replace").split())
        else:
            path.unlink(missing_ok=True)
        finally:
            os.close(handle)
    return found
