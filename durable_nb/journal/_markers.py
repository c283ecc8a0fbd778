"""At-most-once markers: one exclusive, fsynced file per started step, outside the database.

The database can be lost, damaged or restored from an old copy; the marker still says that the body was started. It is
created with O_EXCL, so of two processes one wins, and its folder is fsynced before the body may start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from durable_nb.abc import Markers

__all__ = ["FileMarkers"]

_LIMIT = 1 << 20
"""Bytes. No marker of ours is that large."""

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class FileMarkers(Markers):
    """Markers as files `<folder>/<digest of execution and name>.json`, mode 0400."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder_is_kept = False
        """Whether the folder's own name is known to be on disk: another process may have made it and not synced it."""

    def _path(self, execution: str, name: str) -> Path:
        digest = hashlib.blake2b(f"{len(execution)}:{execution}{name}".encode(), digest_size=20).hexdigest()
        return self._folder / f"{digest}.json"

    def claim(self, execution: str, name: str, facts: Mapping[str, Any]) -> bool:
        self._make_folder()
        data = json.dumps({"execution": execution, "name": name, **facts}).encode()
        path = self._path(execution, name)
        try:
            # From here on the marker exists, whatever fails: the step then asks, and never runs twice.
            _write(path, data)
        except FileExistsError:
            self._complete(path, data)
            return False
        self._sync_folder()
        return True

    def _complete(self, path: Path, data: bytes) -> None:
        """Let a marker that a crash tore say something: it has no name, so that nobody who lists them would find it."""
        if _facts(path) != {} or path.is_symlink():
            return
        temporary = path.with_name(f"{path.stem}-{os.getpid()}-{secrets.token_hex(4)}")
        _write(temporary, data)
        os.rename(temporary, path)
        self._sync_folder()

    def _make_folder(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
            self._folder_is_kept = False
            self._sync_folder()

    def read(self, execution: str, name: str) -> Mapping[str, Any] | None:
        found = _facts(self._path(execution, name))
        # Torn by a crash between create and write, or damaged: it exists, and that is what counts.
        return None if found is None else {"execution": execution, "name": name, **found}

    def called(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Markers that a crash tore carry no name, and are not among them: their own execution still finds them."""
        for path in sorted(self._folder.glob("*.json")):
            found = _facts(path)
            if found is not None and found.get("name") == name:
                yield found

    def of(self, execution: str) -> Iterator[Mapping[str, Any]]:
        """Torn ones carry no name, and are not among them: see `called`."""
        for path in sorted(self._folder.glob("*.json")):
            found = _facts(path)
            if found is not None and found.get("execution") == execution and isinstance(found.get("name"), str):
                yield found

    def clear(self, execution: str, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(execution, name))
        if self._folder.is_dir():
            self._sync_folder()

    def _sync_folder(self) -> None:
        for folder in (self._folder,) if self._folder_is_kept else (self._folder, self._folder.parent):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        self._folder_is_kept = True


def _write(path: Path, data: bytes) -> None:
    """Make a file and have its bytes on disk."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NOFOLLOW, 0o400)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _facts(path: Path) -> dict[str, Any] | None:
    """What a marker says; nothing when it cannot be read; None when there is none."""
    try:
        if not path.is_symlink() and path.stat().st_size > _LIMIT:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {} if path.is_symlink() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
