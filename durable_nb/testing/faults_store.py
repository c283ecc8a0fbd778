"""Faults under a store: every write, sync, rename and transaction of the checkpoint path is a named point.

How it works. The modules that write a store (`snapshot/_blobs.py`, `snapshot/_sign.py`, `journal/_markers.py`,
`journal/_sqlite.py`, `runtime.py`, `maintenance.py`) reach the system through their module globals `os` and `sqlite3`.
`StoreFaults.install` puts a layer in the place of these two names; when no fault is rehearsed nothing is there at all,
so the points cost nothing. A point is passed each time the layer is called; points are counted from 1 in the order in
which a run passes them.

What can happen at a point:

- `kill`, `kill_after`: SIGKILL just before or just after the call.
- `enospc`, `eio`: the call fails with that error; a write has written half by then.
- `busy`: SQLite says that the database is locked.
- `torn`: half of a write reaches the file, then SIGKILL.
- `power`, `power_after`: the machine stops. What was not synced is gone: bytes of files without fsync, names whose
  folder was not fsynced, the tail of SQLite's log after its last synced commit. Then SIGKILL.
- `stop`: SIGSTOP; whoever drives the process lets it go on.

The power model is a forgetful one: a file system may keep more than it promises, never less, so a store that survives
here does not lean on luck. Removals count as durable at once (a marker that comes back only makes a step ask).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from durable_nb import encryption, maintenance, runtime
from durable_nb.journal import _markers, _sqlite
from durable_nb.snapshot import _blobs, _sign

__all__ = ["FAULTS_OF", "Fault", "StoreFaults", "faults_at"]

Kind = Literal["kill", "kill_after", "enospc", "eio", "busy", "torn", "power", "power_after", "stop"]

_FILE: tuple[Kind, ...] = ("kill", "kill_after", "enospc", "eio", "power", "power_after")
FAULTS_OF: dict[str, tuple[Kind, ...]] = {
    "open": _FILE,
    "write": (*_FILE, "torn"),
    "fsync": _FILE,
    "rename": _FILE,
    "link": _FILE,
    "mkdir": _FILE,
    "unlink": ("kill", "kill_after", "power"),
    "BEGIN": ("kill", "enospc", "eio", "busy", "power"),
    "INSERT": ("kill", "kill_after", "enospc", "eio", "power"),
    "UPDATE": ("kill", "kill_after", "enospc", "eio", "power"),
    "DELETE": ("kill", "kill_after", "enospc", "eio", "power"),
    "COMMIT": (*_FILE, "busy"),
    "reply": ("kill", "kill_after", "power", "power_after"),
}
"""Which faults make sense at a point, by the last word of its name."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, and at which point of a run."""

    kind: Kind
    point: int

    def __str__(self) -> str:
        return f"{self.kind} at point {self.point}"


class _Disk:
    """What of the files below the layer has not reached the disk yet."""

    def __init__(self) -> None:
        self.synced_bytes: dict[str, int] = {}
        """Path to the bytes of it that are on disk, for files with more than that."""
        self.new_names: list[tuple[str, str | None]] = []
        """Names without a synced folder, in order: the path, and what it was called before (None: nothing)."""
        self.replaced: dict[str, str] = {}
        """Names that another file has taken, and where the one before is kept."""
        self.logs: dict[str, int] = {}
        """SQLite's log files and how much of each is synced."""

    def synced_folder(self, folder: str) -> None:
        for path in [path for path in self.replaced if os.path.dirname(path) == folder]:
            os.unlink(self.replaced.pop(path))
        self.new_names = [entry for entry in self.new_names if os.path.dirname(entry[0]) != folder]

    def renamed(self, old: str, new: str) -> None:
        if old in self.synced_bytes:
            self.synced_bytes[new] = self.synced_bytes.pop(old)
        self.new_names = [entry for entry in self.new_names if entry[0] != old]
        self.new_names.append((new, old))

    def replacing(self, path: str) -> None:
        """A rename is about to take the name of a file: until its folder is synced the old one may come back."""
        if os.path.isfile(path):
            backup = f"{path}.was"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(backup)
            os.link(path, backup)
            self.replaced[path] = backup

    def forget(self) -> None:
        """Leave on disk what a loss of power would leave."""
        for path, size in self.synced_bytes.items():
            with contextlib.suppress(FileNotFoundError):
                os.chmod(path, 0o600)
                os.truncate(path, size)
        for path, size in self.logs.items():
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(path) > size:
                    os.truncate(path, size)
        for path, old in reversed(self.new_names):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            elif old is not None and os.path.isdir(os.path.dirname(old)):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(path, old)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        for path, backup in self.replaced.items():
            with contextlib.suppress(FileNotFoundError):
                os.rename(backup, path)


class _Os:
    """Stands for the module `os` in one module of ours."""

    def __init__(self, faults: StoreFaults, prefix: str) -> None:
        self._faults, self._prefix, self._disk = faults, prefix, faults.disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _at(self, call: str, half: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
        return self._faults.point(f"{self._prefix} {call}", half)

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            return os.open(path, flags, mode, dir_fd=dir_fd)
        with self._at("open"):
            new = not os.path.lexists(path)
            descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
            if new:
                self._disk.new_names.append((os.path.abspath(path), None))
            return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        path = os.path.realpath(f"/proc/self/fd/{descriptor}")
        view = memoryview(data).cast("B")

        def half() -> None:
            self._disk.synced_bytes.setdefault(path, os.fstat(descriptor).st_size)
            os.write(descriptor, view[: len(view) // 2])

        with self._at("write", half):
            self._disk.synced_bytes.setdefault(path, os.fstat(descriptor).st_size)
            return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        path = os.path.realpath(f"/proc/self/fd/{descriptor}")
        with self._at("fsync"):
            os.fsync(descriptor)
            if os.path.isdir(path):
                self._disk.synced_folder(path)
            else:
                self._disk.synced_bytes.pop(path, None)

    def rename(self, old: Any, new: Any) -> None:
        with self._at("rename"):
            self._disk.replacing(os.path.abspath(new))
            os.rename(old, new)
            self._disk.renamed(os.path.abspath(old), os.path.abspath(new))

    replace = rename

    def link(self, old: Any, new: Any) -> None:
        with self._at("link"):
            os.link(old, new)
            self._disk.new_names.append((os.path.abspath(new), None))

    def unlink(self, path: Any) -> None:
        with self._at("unlink"):
            os.unlink(path)
            absolute = os.path.abspath(path)
            self._disk.synced_bytes.pop(absolute, None)
            self._disk.new_names = [entry for entry in self._disk.new_names if entry[0] != absolute]

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        with self._at("mkdir"):
            os.mkdir(path, mode)
            self._disk.new_names.append((os.path.abspath(path), None))


_SQL_ERRORS = {
    "enospc": "database or disk is full",
    "eio": "disk I/O error",
    "busy": "database is locked",
}


class _Sqlite:
    """Stands for the module `sqlite3` in the journal's."""

    def __init__(self, faults: StoreFaults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, place: Any, **options: Any) -> sqlite3.Connection:
        faults, log = self._faults, f"{os.path.abspath(place)}-wal"

        class Connection(sqlite3.Connection):
            _synced = True

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                words = sql.split(None, 3)
                verb = words[0].upper()
                if verb == "PRAGMA" and words[1] == "synchronous":
                    self._synced = sql.rstrip().rpartition(" ")[2] in ("FULL", "EXTRA")
                if verb not in ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT"):
                    return super().execute(sql, *values)
                with faults.point(f"journal {verb}", sql=True):
                    found = super().execute(sql, *values)
                    if verb == "COMMIT" and self._synced:
                        with contextlib.suppress(FileNotFoundError):
                            faults.disk.logs[log] = os.path.getsize(log)
                    elif log not in faults.disk.logs:
                        faults.disk.logs[log] = 0
                    return found

            def close(self) -> None:
                super().close()
                faults.disk.logs.pop(log, None)

        return sqlite3.connect(place, factory=Connection, **options)


class StoreFaults:
    """Counts the points of a run, and lets one fault happen.

    Args:
        fault: None passes all points, and `names` says which there were.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.names: list[str] = []
        self.fired = False
        self.disk = _Disk()
        self._lock = threading.RLock()
        self._put_back: list[tuple[Any, str, Any]] = []
        self._pid = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.fault,)

    def install(self) -> None:
        """Put the layer in place, for this process and not for its children."""
        self._pid = os.getpid()
        for module, name, layer in (
            (runtime, "os", _Os(self, "store")),
            (encryption, "os", _Os(self, "encryption")),
            (maintenance, "os", _Os(self, "care")),
            (_blobs, "os", _Os(self, "blob")),
            (_sign, "os", _Os(self, "key")),
            (_markers, "os", _Os(self, "marker")),
            (_sqlite, "os", _Os(self, "journal")),
            (_sqlite, "sqlite3", _Sqlite(self)),
        ):
            self._put_back.append((module, name, getattr(module, name)))
            setattr(module, name, layer)

    def remove(self) -> None:
        """Take the layer away."""
        while self._put_back:
            module, name, original = self._put_back.pop()
            setattr(module, name, original)

    @contextlib.contextmanager
    def point(self, name: str, half: Callable[[], None] | None = None, *, sql: bool = False) -> Iterator[None]:
        """A call that may fail. `half` does half of a write."""
        with self._lock:
            self.names.append(name)
            kind = self.fault.kind if self.fault is not None and len(self.names) == self.fault.point else None
        if kind is None or os.getpid() != self._pid:
            yield
            return
        self.fired = True
        if kind in ("enospc", "eio", "busy"):
            if half is not None:
                half()
            if sql:
                raise sqlite3.OperationalError(_SQL_ERRORS[kind])
            number = errno.ENOSPC if kind == "enospc" else errno.EIO
            raise OSError(number, os.strerror(number))
        if kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            yield
            return
        if kind in ("kill_after", "power_after"):
            yield
        elif kind == "torn" and half is not None:
            half()
        self._die(kind.startswith("power"))

    def _die(self, power: bool) -> None:
        # Only this thread goes on: what another one would still write, a dead machine would not.
        if power:
            self.disk.forget()
        os.kill(os.getpid(), signal.SIGKILL)

    def watch_replies(self, session: Any) -> None:
        """Make the reply of each cell a point: `session` is a kernel's Jupyter session."""
        send = session.send

        def sent(stream: Any, msg_or_type: Any, *args: Any, **keywords: Any) -> Any:
            if msg_or_type != "execute_reply":
                return send(stream, msg_or_type, *args, **keywords)
            with self.point("message reply"):
                return send(stream, msg_or_type, *args, **keywords)

        session.send = sent


def faults_at(name: str) -> tuple[Kind, ...]:
    """The faults that make sense at a point of this name."""
    return FAULTS_OF.get(name.rpartition(" ")[2], ())
