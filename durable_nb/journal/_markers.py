"""At-most-once markers: one exclusive, fsynced file per started step, outside the database.

The database can be lost, damaged or restored from an old copy; the marker still says that the body was started. It is
created with O_EXCL, so of two processes one wins, and its folder is fsynced before the body may start.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable_nb.abc import Markers

__all__ = ["FileMarkers"]


class FileMarkers(Markers):
    """Markers as files `<folder>/<digest of execution and name>.json`, mode 0400."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def _path(self, execution: str, name: str) -> Path:
        digest = hashlib.blake2b(f"{len(execution)}:{execution}{name}".encode(), digest_size=20).hexdigest()
        return self._folder / f"{digest}.json"

    def claim(self, execution: str, name: str, facts: Mapping[str, Any]) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(self._path(execution, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"execution": execution, "name": name, **facts}, file)
            file.flush()
            os.fsync(file.fileno())
        self._sync_folder()
        return True

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
        self._path(execution, name).unlink(missing_ok=True)
        if self._folder.is_dir():
            self._sync_folder()

    def _sync_folder(self) -> None:
        for folder in (self._folder, self._folder.parent):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
