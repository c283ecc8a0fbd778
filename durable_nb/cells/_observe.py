"""What a cell does to the world while it runs: files, listings, environment variables, processes, sockets.

Three sources. CPython's audit events tell of every `open`, listing, rename and removal, from whatever thread or
package, but not of `os.stat` and its kin; those are wrapped, and count when the nearest frame outside the standard
library is a cell or local code, as do environment variables. Libraries that open files in C (Arrow, HDF5) raise no
event at all: the caller looks for names of files among the values a cell has read (`FileLedger.mentioned`).

An audit hook cannot be removed, so there is one for the process, and it looks at the active observation. It runs inside
other people's calls: it must neither raise (but for what the caller's own hook raises on purpose) nor call
anything that raises events of its own without the guard.
"""

from __future__ import annotations

import functools
import os
import stat as stat_module
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from types import FrameType
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.cells._places import Places

__all__ = ["Observed", "Observer", "Signature"]

Signature = tuple[int, int, int]
"""Size, mtime in ns and inode of a file when it was first read."""

ALL_VARIABLES = "*"
"""The key of a cell that went through the whole environment."""

_real_stat = os.stat
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROCESS_EVENTS = frozenset(
    {"subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.exec", "os.fork", "os.forkpty", "pty.spawn"}
)
_SOCKET_EVENTS = frozenset({"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"})
_CHANGING_EVENTS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.truncate": ((0, None),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "shutil.rmtree": ((0, 1),),
}
"""Events that change what is at a path: among their arguments, each path and the descriptor of its folder."""

_EXISTENCE_CALLS = frozenset(
    {"exists", "lexists", "isfile", "isdir", "islink", "ismount", "is_file", "is_dir", "is_symlink"}
)
_SHELL_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("IPython", "pexpect", "ptyprocess", "ipykernel"))
"""Packages between a `!` line and the program it starts."""
_SOURCE_READERS = ("linecache.py", "inspect.py", "traceback.py", "tokenize.py")


@dataclass(slots=True)
class Observed:
    """What one cell did. Paths are absolute and normalised, not resolved."""

    read: dict[str, Signature | None] = field(default_factory=dict)
    """Files opened for reading, but for those the cell had written whole before; with their state when first read."""
    versions: dict[str, str] = field(default_factory=dict)
    """Their versions when they were first read, from the `version_of` hook."""
    written: dict[str, None] = field(default_factory=dict)
    """Paths opened for writing, created, renamed or removed, in order."""
    before: dict[str, str] = field(default_factory=dict)
    """For a file that the cell changed: its version just before, from the `version_of` hook."""
    missing: dict[str, None] = field(default_factory=dict)
    """Paths that were looked for and not there."""
    present: dict[str, str] = field(default_factory=dict)
    """Paths that were only asked for: `file` or `dir`."""
    listings: dict[str, None] = field(default_factory=dict)
    """Directories whose entries were listed."""
    mentioned: dict[str, str] = field(default_factory=dict)
    """Paths that were named, not seen opened, and may have been read all the same, with the version before the cell; a
    folder ends in a slash, a pattern has wildcards. `FileLedger.settle` fills it."""
    env: dict[str, str | None] = field(default_factory=dict)
    """Environment variables that were read, with the value first seen; never written anywhere as they are."""
    cwd: str | None = None
    """The working directory when the cell began."""
    used_cwd: bool = False
    """A relative path was used, or the working directory asked for."""
    sockets: bool = False
    processes: bool = False
    trouble: list[str] = field(default_factory=list)
    """What went wrong while watching: an input may have been missed, so the cell must not be stored."""

    def absorb(self, later: Observed) -> None:
        """Add what happened later in the same cell."""
        for path, signature in later.read.items():
            self.read.setdefault(path, signature)
        for mine, its in ((self.versions, later.versions), (self.before, later.before), (self.present, later.present)):
            for path, text in its.items():
                mine.setdefault(path, text)
        for name, value in later.env.items():
            self.env.setdefault(name, value)
        self.written.update(later.written)
        self.missing.update(later.missing)
        self.listings.update(later.listings)
        self.mentioned.update(later.mentioned)
        self.used_cwd = self.used_cwd or later.used_cwd
        self.sockets = self.sockets or later.sockets
        self.processes = self.processes or later.processes
        self.trouble += later.trouble


class Observer:
    """Watches one cell at a time. `install` once, then `begin` and `end` around each cell."""

    def __init__(
        self,
        places: Places,
        *,
        on_open_read: Callable[[str], None] | None = None,
        version_of: Callable[[str], str] | None = None,
    ) -> None:
        """
        Args:
            places: decides which paths and frames count.
            on_open_read: called with a path that counts just before it is opened for reading, once per cell and path.
                What it raises goes to the cell.
            version_of: gives the version of a file; asked just before the cell changes one.
        """
        self._places = places
        self._on_open_read = on_open_read
        self._version_of = version_of
        self._now: Observed | None = None
        self._whole: set[str] = set()
        self._announced: set[str] = set()
        self._own_variables: set[str] = set()
        self._lock = threading.Lock()
        self._is_user: Callable[[str], bool] = _no_cell
        self.imported: dict[str, Observed] = {}
        """Local module to what its own code, and that of modules it imported, read and did; see `importing`."""
        self._began = 0

    def install(self) -> None:
        """Put the hook and the wrappers in place; doing it again changes nothing."""
        _hook.install()

    def begin(self, user_filenames: Callable[[str], bool] | None = None) -> None:
        """Start watching a cell.

        Args:
            user_filenames: tells of a code object's file name whether it is a cell; names in angle brackets and
                kernel files are known to be.
        """
        self._now = Observed(cwd=_working_directory())
        self._began = time.time_ns()
        self._whole.clear()
        self._announced.clear()
        self._own_variables.clear()
        self._is_user = user_filenames or (_no_cell)
        _hook.active = self

    def end(self) -> Observed:
        """Stop watching; what was seen."""
        if _hook.active is self:
            _hook.active = None
        found, self._now = self._now, None
        if found is None:
            return Observed()
        for path in list(found.read):
            self._was_changed(found, path)
        return found

    @contextmanager
    def importing(self, name: str) -> Iterator[None]:
        """The code of a local module runs: what it reads is kept under the module's name, besides the cell's own.

        It counts between cells too: a module may be imported by a start-up file.
        """
        outer, before = self._now, _hook.active
        self._now = inner = Observed(cwd=_working_directory())
        _hook.active = self
        try:
            yield
        finally:
            _hook.active, self._now = before, outer
            self.imported[name] = inner
            if outer is not None:
                outer.absorb(inner)

    def _was_changed(self, found: Observed, path: str) -> None:
        """A file that was read and has another state now was changed by the cell, or while it ran."""
        if path not in found.written and self._signature(path) != found.read[path]:
            found.written[path] = None

    # --- called from the hook, guarded -------------------------------------------------------------------------------

    def event(self, name: str, arguments: tuple[Any, ...]) -> None:
        """An audit event. Nothing gets out of here but what the `on_open_read` hook raises."""
        now = self._now
        if now is None:
            return
        try:
            self._event(now, name, arguments)
        except _RefusalError as refusal:
            raise refusal.error from None
        except Exception as exc:  # noqa: BLE001 -- in the middle of somebody else's call, which must go on
            now.trouble.append(f"{name}: {type(exc).__name__}: {exc}")

    def _event(self, now: Observed, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            self._opened(now, *arguments[:3])
        elif name in ("os.listdir", "os.scandir"):
            self._listed(now, arguments[0])
        elif name in _CHANGING_EVENTS:
            for position, folder in _CHANGING_EVENTS[name]:
                at = arguments[folder] if folder is not None and folder < len(arguments) else -1
                path = self._absolute(now, arguments[position], folder=at)
                if path is not None:
                    self._changes(now, path, whole=True)
        elif name in ("os.putenv", "os.unsetenv"):
            self._own_variables.add(os.fsdecode(arguments[0]))
        elif name == "sqlite3.connect":
            self._database(now, arguments[0])
        elif name in _PROCESS_EVENTS:
            now.processes = True
            # `subprocess.Popen` tells the folder it was given; without one, a child works in ours.
            told = name == "subprocess.Popen" and len(arguments) > 2 and arguments[2] is not None
            now.used_cwd = now.used_cwd or (not told and self._asked_by_user())
        elif name in _SOCKET_EVENTS:
            now.sockets = True

    def _opened(self, now: Observed, raw: object, mode: object, flags: object) -> None:
        if mode is None and _opens_in_folder(raw):
            return
        path = self._absolute(now, raw)
        if path is None:
            return
        text = mode if isinstance(mode, str) else ""
        bits = flags if isinstance(flags, int) else 0
        writes = any(sign in text for sign in "wax+") if text else bool(bits & _WRITE_FLAGS)
        whole = "w" in text or "x" in text or bool(bits & os.O_TRUNC)
        reads = not whole and (not writes or "+" in text or "a" in text or not bits & os.O_WRONLY)
        if reads and not self._is_source(path):
            self._reads(now, path)
        if writes:
            self._changes(now, path, whole=whole)

    def _reads(self, now: Observed, path: str) -> None:
        if path in self._whole or path in now.read:
            return
        if self._on_open_read is not None and path not in self._announced:
            self._announced.add(path)
            try:
                self._on_open_read(path)
            except BaseException as exc:
                raise _RefusalError(exc) from exc
        self._stated(now, path)

    def _stated(self, now: Observed, path: str) -> os.stat_result | None:
        """Note a path that is read: there, with its version, or missing."""
        try:
            found = _real_stat(path)
        except (OSError, ValueError):
            now.missing[path] = None
            return None
        if not stat_module.S_ISREG(found.st_mode):
            return found
        if found.st_ctime_ns > self._began and self._places.is_temporary(path):
            return found  # made by something that the cell started: no input from before it
        now.read[path] = (found.st_size, found.st_mtime_ns, found.st_ino)
        if self._version_of is not None:
            now.versions[path] = self._version_of(path)
        return found

    def _changes(self, now: Observed, path: str, *, whole: bool) -> None:
        if path not in now.written:
            if self._version_of is not None:
                now.before[path] = self._version_of(path)
            whole = whole or not os.path.lexists(path)  # what the cell itself creates is all its own
        now.written[path] = None
        if whole:
            self._whole.add(path)

    def _database(self, now: Observed, raw: object) -> None:
        path = None if raw in (":memory:", "", b":memory:") else self._absolute(now, raw)
        if path is not None:
            if self._version_of is not None and path not in now.before:
                now.before[path] = self._version_of(path)
            self._reads(now, path)

    def _listed(self, now: Observed, raw: object) -> None:
        if raw is None:
            raw = "."
        path = self._absolute(now, raw)
        if path is not None and self._reader_counts():
            now.listings[path] = None

    def stat_call(self, raw: object) -> None:
        """`os.stat` and its kin are about to be called."""
        now = self._now
        if now is None:
            return
        try:
            self._stat_call(now, raw)
        except Exception as exc:  # noqa: BLE001 -- as above
            now.trouble.append(f"os.stat: {type(exc).__name__}: {exc}")

    def _stat_call(self, now: Observed, raw: object) -> None:
        path = self._absolute(now, raw, note_cwd=False)
        if path is None or path in self._whole or path in now.read or not self._reader_counts():
            return
        if not os.path.isabs(os.fsdecode(raw)):  # type: ignore[arg-type]
            now.used_cwd = True
        if not _asks_for_existence():
            found = self._stated(now, path)
            if found is not None and stat_module.S_ISDIR(found.st_mode):
                now.present[path] = "dir"
            return
        try:
            now.present[path] = "dir" if stat_module.S_ISDIR(_real_stat(path).st_mode) else "file"
        except (OSError, ValueError):
            now.missing[path] = None

    def variable(self, key: str, value: str | None) -> None:
        """An environment variable is being read; `ALL_VARIABLES` for a walk through all."""
        now = self._now
        if now is None or key in now.env or key in self._own_variables or ALL_VARIABLES in now.env:
            return
        if self._reader_counts() and not _copies_environ():
            now.env[key] = value

    def asked_cwd(self) -> None:
        """`os.getcwd` is being called."""
        now = self._now
        if now is not None and not now.used_cwd and self._reader_counts():
            now.used_cwd = True

    # --- questions ---------------------------------------------------------------------------------------------------

    def _absolute(self, now: Observed, raw: object, *, note_cwd: bool = True, folder: object = -1) -> str | None:
        """The absolute path, when it is one that counts.

        Args:
            now: notes the use of the working directory.
            raw: what the caller passed as a path.
            note_cwd: whether a relative path counts as use of the working directory.
            folder: a descriptor that the path is relative to; -1 is the working directory.
        """
        if isinstance(raw, int) or raw is None:
            return None
        try:
            path = os.fsdecode(raw)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 -- a path object may raise anything, and does so again in sight of the user
            return None
        if not path or "\0" in path:
            return None
        relative = not os.path.isabs(path)
        if relative and isinstance(folder, int) and folder >= 0:
            path, relative = os.path.join(_folder_of(folder), path), False
        elif relative:
            path = os.path.join(_real_getcwd(), path)
        path = os.path.normpath(path)
        if not self._places.counts(path):
            return None
        if relative and note_cwd:
            now.used_cwd = True
        return path

    def _signature(self, path: str) -> Signature | None:
        try:
            found = _real_stat(path)
        except (OSError, ValueError):
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino

    def _is_source(self, path: str) -> bool:
        """Whether Python itself reads a source file: for an import, a traceback."""
        if not path.endswith((".py", ".pyi", ".so", ".pyd")):
            return False
        for frame in _frames():
            name = frame.f_code.co_filename
            if "importlib" in name or name.endswith(_SOURCE_READERS):
                return True
            if self._places.frame(name) != "stdlib":
                return False
        return False

    def _asked_by_user(self) -> bool:
        """Whether a cell or local code started a program, itself or through a `!` line."""
        for frame in _frames():
            name = frame.f_code.co_filename
            kind = self._places.frame(name)
            if kind in ("user", "local") or self._is_user(name):
                return True
            if kind == "installed" and not any(part in name for part in _SHELL_PACKAGES):
                return False
        return False

    def _reader_counts(self) -> bool:
        """Whether the nearest frame outside the standard library is a cell or local code."""
        for frame in _frames():
            name = frame.f_code.co_filename
            if self._is_user(name):
                return True
            kind = self._places.frame(name)
            if kind == "stdlib":
                if "importlib" in name:
                    return False
                continue
            return kind in ("user", "local")
        return False


def _no_cell(_filename: str) -> bool:
    return False


_HERE = __file__
_real_getcwd = os.getcwd


def _frames() -> Iterator[FrameType]:
    """The frames that led here, nearest first, without this module's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename != _HERE:
            yield frame
        frame = frame.f_back


class _RefusalError(Exception):
    """Carries what the caller's hook raised past the net for our own mistakes."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def _working_directory() -> str | None:
    try:
        return _real_getcwd()
    except OSError:  # it was removed
        return None


def _folder_of(descriptor: int) -> str:
    """The path of an open folder."""
    return os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else _real_getcwd()


def _opens_in_folder(raw: object) -> bool:
    """`os.open` relative to a folder's descriptor, which its event does not tell, as `shutil` and `os.fwalk` do."""
    if not isinstance(raw, (str, bytes)) or os.path.isabs(raw):
        return False
    for frame in _frames():
        return frame.f_code.co_filename.endswith(("shutil.py", "<frozen os>", os.sep + "os.py"))
    return False


def _asks_for_existence() -> bool:
    """Whether `os.stat` is only asked if something is there: `os.path.isfile`, `Path.is_file` (through `Path.stat`)."""
    for frame in _frames():
        if frame.f_code.co_name in _EXISTENCE_CALLS:
            return True
        if frame.f_code.co_name not in ("stat", "lstat"):
            return False
    return False


class _Hook:
    """The process's one audit hook and its wrappers, looking at the active observer."""

    def __init__(self) -> None:
        self.active: Observer | None = None
        self._installed = False
        self._guard = threading.local()

    def install(self) -> None:
        if self._installed:
            return
        self._installed = True
        sys.addaudithook(_audit)
        for name in ("stat", "lstat", "access"):
            self._wrap_path_call(name)
        for name in ("getcwd", "getcwdb"):
            self._wrap_cwd(name)
        self._wrap_environ()

    def tell(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An event that is listed happened, in any thread."""
        observer = self.active
        if observer is not None:
            self._guarded(observer.event, event, arguments)

    def _guarded(self, call: Callable[..., None], *arguments: object) -> None:
        if getattr(self._guard, "busy", False):
            return
        self._guard.busy = True
        try:
            call(*arguments)
        finally:
            self._guard.busy = False

    def _wrap_path_call(self, name: str) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def wrapper(path: Any, *args: Any, **kwargs: Any) -> Any:
            observer = self.active
            if observer is not None and not isinstance(path, int) and kwargs.get("dir_fd") is None:
                self._guarded(observer.stat_call, path)
            return real(path, *args, **kwargs)

        # `os.stat in os.supports_fd` is how callers ask what the function can do.
        for capabilities in (
            os.supports_fd,
            os.supports_dir_fd,
            os.supports_follow_symlinks,
            os.supports_effective_ids,
        ):
            if real in capabilities:
                capabilities.add(wrapper)
        setattr(os, name, wrapper)

    def _wrap_cwd(self, name: str) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def wrapper() -> Any:
            observer = self.active
            if observer is not None:
                self._guarded(observer.asked_cwd)
            return real()

        setattr(os, name, wrapper)

    def _wrap_environ(self) -> None:
        kind: Any = type(os.environ)
        real_item, real_iter = kind.__getitem__, kind.__iter__
        hook = self

        @functools.wraps(real_item)
        def getitem(environ: Any, key: Any) -> Any:
            observer = hook.active
            if observer is None:
                return real_item(environ, key)
            try:
                value = real_item(environ, key)
            except KeyError:
                hook._guarded(observer.variable, os.fsdecode(key), None)
                raise
            hook._guarded(observer.variable, os.fsdecode(key), os.fsdecode(value))
            return value

        @functools.wraps(real_iter)
        def iterate(environ: Any) -> Iterator[Any]:
            observer = hook.active
            if observer is not None:
                hook._guarded(observer.variable, ALL_VARIABLES, None)
            yield from real_iter(environ)

        kind.__getitem__, kind.__iter__ = getitem, iterate


def _copies_environ() -> bool:
    """Whether the environment is only copied, as for a child process: `os.environ.copy()`."""
    for frame in _frames():
        name = frame.f_code.co_filename
        if "_collections_abc" not in name:
            return frame.f_code.co_name == "copy" and name.endswith(("<frozen os>", os.sep + "os.py"))
    return False


_EVENTS = (
    frozenset({"open", "os.listdir", "os.scandir", "os.putenv", "os.unsetenv", "sqlite3.connect"})
    | _PROCESS_EVENTS
    | _SOCKET_EVENTS
    | set(_CHANGING_EVENTS)
)
_hook = _Hook()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """The hook, which every `id` of the user's code calls: a function, since a method would cost twice as much."""
    if event in _EVENTS:
        _hook.tell(event, arguments)
