"""Large values in files beside the history; the payload names the file.

A payload is signed and a file is not, so the payload holds a digest of what it names. A path in a payload is only ever
opened below the configured folder, name by name and through no link.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import urllib.parse
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from durable_nb.exceptions import SerDesError
from durable_nb.sdk.constants import CHECKPOINT_SIZE_LIMIT_BYTES
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, SerDes, SerDesContext
from durable_nb.sdk.types import DurableExecutionArn

_OVERFLOW_THRESHOLD_BYTES = CHECKPOINT_SIZE_LIMIT_BYTES - 1024


class FileSystemSerDesMode(StrEnum):
    """When a value goes to a file."""

    ALWAYS = "ALWAYS"
    OVERFLOW = "OVERFLOW"
    """Only when it is larger than a checkpoint may be."""


class FileSystemPathEncoding(StrEnum):
    """How execution and operation become a path."""

    URI = "URI"
    """Readable: function/execution/invocation/operation, percent-encoded."""
    HASH = "HASH"
    """SHA-256 of each: no length or character can break a file system."""


class GeneratePreview(Protocol):
    """What is shown of a value that is in a file."""

    def __call__(self, value: Any) -> dict[str, Any] | None: ...


@dataclass(frozen=True)
class FileSystemSerDesConfig:
    """Options of `FileSystemSerDes`."""

    storage_mode: FileSystemSerDesMode = FileSystemSerDesMode.ALWAYS
    path_encoding: FileSystemPathEncoding = FileSystemPathEncoding.URI
    generate_preview: GeneratePreview | None = None
    serdes: SerDes[Any] = EXTENDED_TYPES_SERDES


class FileSystemSerDes(SerDes[Any]):
    """Keeps values under `base_path`. The payload is `{"file": path}` or, inline, `{"data": text}`."""

    def __init__(self, base_path: str, config: FileSystemSerDesConfig | None = None) -> None:
        self._base = base_path
        self._config = config or FileSystemSerDesConfig()

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
        text = self._config.serdes.serialize(value, serdes_context)
        inline = self._config.storage_mode is FileSystemSerDesMode.OVERFLOW
        if inline and len(text.encode("utf-8")) <= _OVERFLOW_THRESHOLD_BYTES:
            return json.dumps({"data": text})
        path = self._path(serdes_context)
        _write(path, text)
        envelope: dict[str, Any] = {"file": str(path), "digest": _digest(text)}
        preview = self._config.generate_preview(value) if self._config.generate_preview else None
        if preview is not None:
            envelope["preview"] = preview
        return json.dumps(envelope)

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
        envelope = json.loads(data)
        if isinstance(envelope, dict) and isinstance(envelope.get("file"), str):
            text = _read(Path(self._base), envelope["file"])
            if envelope.get("digest", _digest(text)) != _digest(text):
                raise SerDesError(f"the file of a stored value was changed: {envelope['file']}")
        elif isinstance(envelope, dict) and isinstance(envelope.get("data"), str):
            text = envelope["data"]
        else:
            raise SerDesError('the payload names neither a "file" nor "data"')
        return self._config.serdes.deserialize(text, serdes_context)

    def _path(self, context: SerDesContext) -> Path:
        folder = Path(self._base)
        arn = context.durable_execution_arn
        if self._config.path_encoding is FileSystemPathEncoding.HASH:
            return folder / _digest(arn) / f"{_digest(context.operation_id)}.json"
        parsed = DurableExecutionArn.from_arn(arn)
        if parsed is None:
            folder /= _quote(arn)
        else:
            for part in (parsed.function_name, parsed.execution_name, parsed.invocation_id):
                folder /= _segment(part)
        return folder / f"{_quote(context.operation_id)}.json"


def _segment(part: str) -> str:
    # A part of an ARN is readable as it is unless it could leave the folder.
    return _quote(part) if "/" in part or part in (".", "..") else part


def _quote(part: str) -> str:
    quoted = urllib.parse.quote(part, safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted


def _digest(part: str) -> str:
    return hashlib.sha256(part.encode("utf-8")).hexdigest()


def _read(base: Path, name: str) -> str:
    """The text of a file below `base`."""
    folders, last = _below(base, name)
    flags = os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        with contextlib.ExitStack() as stack:
            place = _opened(stack, os.fspath(base), os.O_RDONLY | os.O_DIRECTORY)
            for folder in folders:
                place = _opened(stack, folder, flags | os.O_DIRECTORY, place)
            handle = _opened(stack, last, flags, place)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise SerDesError(f"a stored value names something that is no file: {name!r}")
            with os.fdopen(os.dup(handle), encoding="utf-8", newline="") as file:
                return file.read()
    except (OSError, ValueError) as exc:
        raise SerDesError(f"the file of a stored value cannot be read: {exc}") from exc


def _below(base: Path, name: str) -> tuple[tuple[str, ...], str]:
    """The folders from `base` to a file, and its name."""
    path = Path(name)
    root = base if base in path.parents else base.absolute()
    if "\0" in name or root not in path.parents or ".." in path.relative_to(root).parts:
        raise SerDesError(f"a stored value names a file outside {base}: {name!r}")
    *folders, last = path.relative_to(root).parts
    return tuple(folders), last


def _opened(stack: contextlib.ExitStack, name: str, flags: int, place: int | None = None) -> int:
    handle = os.open(name, flags, dir_fd=place)
    stack.callback(os.close, handle)
    return handle


def _write(path: Path, text: str) -> None:
    """Complete or not there: a crash between write and rename leaves only a temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = [
    "FileSystemPathEncoding",
    "FileSystemSerDes",
    "FileSystemSerDesConfig",
    "FileSystemSerDesMode",
    "GeneratePreview",
]
