"""Out-of-band buffers: to blobs and back, storing of a changed gigabyte only what changed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, Protocol

from durable_nb.abc import BlobStore
from durable_nb.snapshot._scan import Scan


class Keeper(Protocol):
    """Where references to written bytes are noted."""

    blobs: BlobStore
    used: dict[str, None]
    nbytes: int
    inline_limit: int

    def keep(self, parts: list[Any], size: int) -> dict[str, Any]: ...


class Collector:
    """Takes the buffers of one pickle in order."""

    def __init__(self, in_band_below: int) -> None:
        self.found: list[memoryview] = []
        self._below = in_band_below

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """True keeps the buffer inside the pickle."""
        view = buffer.raw()
        if view.nbytes < self._below:
            return True
        self.found.append(view)
        return False


class StoredBuffers:
    """What the store already has of the live buffers."""

    def store(self, view: memoryview, writer: Keeper, scan: Scan | None) -> dict[str, Any]:
        """Write a buffer; returns its reference."""
        return writer.keep([view], view.nbytes)


def fetch(reference: Mapping[str, Any], blobs: BlobStore) -> Any:
    """The writable memory of a stored buffer."""
    inline = reference.get("inline")
    if inline is not None:
        return bytearray(inline)
    return blobs.map(reference["blob"])
