"""Object stores for the large blobs of a shared store: a folder that all machines see, or a bucket.

A bucket is used through obstore: one wheel without dependencies (the `object_store` crate of Apache Arrow), which
speaks to S3, Google and Azure, retries what may pass, and works in threads. fsspec would bring a package and an event
loop for each of the three. It does not sync the files that it writes, so a folder is written here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from durable_nb.abc import Buffer, ObjectPlace
from durable_nb.exceptions import MissingBlobError, StoreError, ValidationError
from durable_nb.snapshot._blobs import _sync_directory, views

__all__ = ["open_objects"]

_PIECE = 4 << 20
"""Bytes that are read at once."""

PATIENCE = 30.0
"""Seconds that a request is repeated while the bucket does not answer, or answers that it cannot."""

_PAUSE = 0.5
"""Seconds between two tries of ours."""

_BUCKETS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")


def open_objects(place: str) -> ObjectPlace:
    """The object store at a URL, or in a folder.

    Raises:
        ValidationError: it is of a kind that is not known, or its package is missing.
        StoreError: it cannot be opened.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        return FolderObjects(Path(place).expanduser().absolute())
    if scheme == "file":
        return FolderObjects(Path(rest).absolute())
    if scheme not in _BUCKETS:
        raise ValidationError(
            f"DURABLE_NB_BLOBS is of a kind that is not known: {place!r}; give a folder, s3://, gs:// or az://"
        )
    return BucketObjects(place)


class FolderObjects(ObjectPlace):
    """Objects as files below a folder that all machines see."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, parts: Sequence[Buffer]) -> None:
        path = self._root / name
        try:
            self._make_folder(path.parent)
            temporary = path.with_name(f"tmp-{secrets.token_hex(8)}")
            try:
                with temporary.open("xb") as file:
                    for part in views(parts):
                        file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_directory(path.parent)
        except OSError as exc:
            raise StoreError(f"a blob cannot be written to {self._root}: {exc}") from exc

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            _sync_directory(folder.parent)

    def read(self, name: str) -> Iterator[bytes]:
        try:
            with (self._root / name).open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except FileNotFoundError:
            raise MissingBlobError(_address_in(name)) from None
        except OSError as exc:
            raise StoreError(f"a blob cannot be read from {self._root}: {exc}") from exc

    def delete(self, name: str) -> None:
        try:
            (self._root / name).unlink(missing_ok=True)
        except OSError as exc:
            raise StoreError(f"a blob cannot be removed from {self._root}: {exc}") from exc


class BucketObjects(ObjectPlace):
    """Objects in a bucket. Keys, regions and endpoints come from the provider's own environment variables.

    Args:
        url: `s3://bucket/prefix`, `gs://…` or `az://…`.
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore import exceptions, store
        except ImportError:
            raise ValidationError(
                f"blobs in {url} need the package obstore: pip install 'durable_nb[objects]'"
            ) from None
        self._url = url
        self._obstore: Any = obstore
        self._errors = (exceptions.BaseError, OSError)
        self._passing = (exceptions.GenericError, FileNotFoundError)
        try:
            retries: Any = {"retry_timeout": timedelta(seconds=PATIENCE)}
            self._store: Any = store.from_url(url, retry_config=retries)
        except (*self._errors, ValueError) as exc:
            raise StoreError(f"the blobs' place {url} cannot be opened: {_first_line(exc)}") from exc

    def write(self, name: str, parts: Sequence[Buffer]) -> None:
        flat = views(parts)
        small = sum(part.nbytes for part in flat) <= _PIECE
        deadline = time.monotonic() + PATIENCE
        with self._told("written to"):
            while True:
                try:
                    self._put(name, flat, small=small)
                    return
                except self._passing as exc:
                    # What obstore does not repeat itself: an answer that was cut, or an upload in parts that the bucket
                    # does not know any more. A name is written once, so it can be written again.
                    missing = small and isinstance(exc, FileNotFoundError)  # the bucket itself
                    if missing or time.monotonic() + _PAUSE > deadline:
                        raise
                time.sleep(_PAUSE)

    def _put(self, name: str, parts: Sequence[memoryview], *, small: bool) -> None:
        if small:
            self._obstore.put(self._store, name, b"".join(parts), use_multipart=False)
        else:
            # In pieces, each of which is sent again when it fails: a large array is never copied whole.
            self._obstore.put(self._store, name, map(bytes, _pieces(parts)))

    def read(self, name: str) -> Iterator[bytes]:
        with self._told("read from"):
            try:
                found = self._obstore.get(self._store, name)
            except FileNotFoundError:
                raise MissingBlobError(_address_in(name)) from None
            for piece in found.stream(min_chunk_size=_PIECE):
                yield bytes(piece)

    def delete(self, name: str) -> None:
        with self._told("removed from"), contextlib.suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as exc:
            raise StoreError(f"a blob cannot be {what} {self._url}: {_first_line(exc)}") from exc


def _pieces(parts: Sequence[Buffer]) -> Iterator[memoryview]:
    for view in views(parts):
        for start in range(0, view.nbytes, _PIECE):
            yield view[start : start + _PIECE]


def _address_in(name: str) -> str:
    """Objects are called `ab/<address>-<random>`."""
    return name.rpartition("/")[2].partition("-")[0]


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
