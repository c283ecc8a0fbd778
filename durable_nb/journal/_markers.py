"""At-most-once markers: one exclusive, fsynced file per started step, outside the database.

The database can be lost, damaged or restored from an old copy; the marker still says that the body was started. It is
created with O_EXCL, so of two processes one wins, and its folder is fsynced before the body may start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable_nb.abc import Markers

__all__ = ["FileMarkers"]

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class FileMarkers(Markers):
    """Markers as files `<folder>/<digest of execution and name>.json`, mode 0400."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def _path(self, execution: str, name: str) -> Path:
        digest = hashlib.blake2b(f"{len(execution)}:{execution}{name}".encode(), digest_size=20).hexdigest()
        return self._folder / f"{digest}.json"

    def claim(self, execution: str, name: str, facts: Mapping[str, Any]) -> bool:
        self._make_folder()
        data = json.dumps({"execution": execution, "name": name, **facts}).encode()
        path = self._path(execution, name)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NOFOLLOW, 0o400)
        except FileExistsError:
            return False
        # From here on the marker exists, whatever fails: the step then asks, and never runs twice.
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        self._sync_folder()
        return True

    def _make_folder(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
            self._sync_folder()

    def read(self, execution: str, name: str) -> Mapping[str, Any] | None:
        try:
            text = self._path(execution, name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
        except ValueError:  # torn by a crash between create and write: it exists, and that is what counts
            return {"execution": execution, "name": name}
        return found if isinstance(found, dict) else {"execution": execution, "name": name}

    def clear(self, execution: str, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(execution, name))
        if self._folder.is_dir():
            self._sync_folder()

    def _sync_folder(self) -> None:
        for folder in (self._folder, self._folder.parent):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
