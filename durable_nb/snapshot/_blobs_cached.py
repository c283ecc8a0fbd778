"""Blobs of a store on a server, behind a folder of this machine.

The folder is a `FileBlobStore`: what was read once is verified, mapped and remembered exactly as in an embedded store.
It may be lost, full or damaged at any time: what is missing or wrong in it is fetched again, and where it cannot be
written to, blobs are read into memory. What counts is what the server has: `put` returns when it is there.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from durable_nb.abc import BlobPlace, BlobStore, Buffer
from durable_nb.exceptions import DamagedBlobError, MissingBlobError
from durable_nb.snapshot._blobs import FileBlobStore, Map, address_of, views
from durable_nb.snapshot._copies import trim

__all__ = ["CachedBlobStore", "NoCopies"]

_KNOWN_SECONDS = 600.0
"""How long a blob is taken to be on the server without asking again: a collection takes far longer to remove it."""

_LOOKS = 50
"""The size of the folder is looked at each time that this part of its limit has come in."""


class NoCopies(FileBlobStore):
    """In place of a folder that cannot be made: nothing is in it, and nothing can be written to it.

    Args:
        root: where the folder would be.
    """

    def __init__(self, root: Path) -> None:  # the folder is not there: the base class would make it
        self.root = root

    def put(self, data: Buffer | Sequence[Buffer]) -> str:
        raise OSError(errno.ENOSPC, "there are no copies", str(self.root))

    def put_large(self, data: memoryview) -> tuple[str, list[bytes]]:
        raise OSError(errno.ENOSPC, "there are no copies", str(self.root))

    def receive(self, address: str, data: Iterator[bytes]) -> None:
        raise OSError(errno.ENOSPC, "there are no copies", str(self.root))

    def get(self, address: str) -> bytes:
        raise MissingBlobError(address)

    def map(self, address: str) -> memoryview:
        raise MissingBlobError(address)

    def size(self, address: str) -> int:
        raise MissingBlobError(address)

    def vouches(self, address: str, size: int) -> bool:
        return False

    def settle(self, timeout: float | None = None) -> tuple[str, ...]:
        return ()

    def delete(self, address: str) -> None:
        """Nothing is there."""


class CachedBlobStore(BlobStore):
    """Blobs in a place far away, read through a folder.

    Args:
        place: where they are.
        cache: where those that were read or written here are kept.
        limit: bytes that the folder of all stores' copies, two above the cache, may have; None: any number.
    """

    def __init__(self, place: BlobPlace, cache: FileBlobStore, *, limit: int | None = None) -> None:
        self.place, self.cache = place, cache
        self._limit = limit
        self._room = 0
        """Bytes that may still be kept before somebody looks at the folder's size again."""
        self._known: dict[str, float] = {}
        self._doubted: set[str] = set()
        """Blobs that came damaged, or of which only the row is left: who has the right bytes next writes them again."""

    # --- writing ---------------------------------------------------------------------------------------------------

    def put(self, data: Buffer | Sequence[Buffer]) -> str:
        parts = views(data)
        try:
            address = self.cache.put(parts)
        except OSError:  # full, or read-only
            address = address_of(parts)
        self._keep(address, parts)
        self._grown(sum(part.nbytes for part in parts))
        return address

    def put_large(self, data: memoryview) -> tuple[str, list[bytes]]:
        """See `FileBlobStore.put_large`."""
        from durable_nb.snapshot._blobs import chunk_hashes, root_of

        parts = views(data)
        try:
            address, hashes = self.cache.put_large(data)
        except OSError:
            hashes = chunk_hashes(parts)
            address = root_of(hashes, data.nbytes)
        self._keep(address, parts)
        self._grown(data.nbytes)
        return address, hashes

    def _keep(self, address: str, parts: Sequence[memoryview]) -> None:
        if not self.has(address):
            self.place.write(address, parts)
            self.written += sum(part.nbytes for part in parts)
            self._doubted.discard(address)
            self._known[address] = time.monotonic()

    # --- reading ---------------------------------------------------------------------------------------------------

    def get(self, address: str) -> bytes:
        try:
            return self.cache.get(address)
        except (DamagedBlobError, MissingBlobError):
            return self.cache.get(address) if self._fetch(address) else bytes(self._in_memory(address))

    def map(self, address: str) -> memoryview:
        try:
            return self.cache.map(address)
        except (DamagedBlobError, MissingBlobError):
            return self.cache.map(address) if self._fetch(address) else self._in_memory(address)

    def _fetch(self, address: str) -> bool:
        """Bring a blob into the cache; False when the cache cannot take it."""
        try:
            self.cache.receive(address, self.place.read(address))
        except (DamagedBlobError, MissingBlobError):
            self._doubt(address)
            raise
        except OSError:
            return False
        self._grown(self.cache.size(address))
        return True

    def _in_memory(self, address: str) -> memoryview:
        size = self.place.size(address)
        if size is None:
            raise MissingBlobError(address)
        view, at = memoryview(Map(-1, size) if size else bytearray()), 0
        for piece in self.place.read(address):
            if at + len(piece) > size:
                break
            view[at : at + len(piece)] = piece
            at += len(piece)
        if at != size or address_of(view) != address:
            self._doubt(address)
            raise DamagedBlobError(address)
        return view

    def _doubt(self, address: str) -> None:
        self._doubted.add(address)
        self._known.pop(address, None)

    def settle(self, timeout: float | None = None) -> tuple[str, ...]:
        return self.cache.settle(timeout)

    def has(self, address: str) -> bool:
        if address in self._doubted:
            return False
        now = time.monotonic()
        if now - self._known.get(address, -_KNOWN_SECONDS) < _KNOWN_SECONDS:
            return True
        if self.place.find(address) is None:
            return False
        self._known[address] = now
        return True

    def size(self, address: str) -> int:
        try:
            return self.cache.size(address)
        except MissingBlobError:
            size = self.place.size(address)
            if size is None:
                raise
            return size

    def vouches(self, address: str, size: int) -> bool:
        return self.cache.vouches(address, size)

    def addresses(self) -> Iterator[str]:
        return self.place.addresses()

    def delete(self, address: str) -> None:
        self._known.pop(address, None)
        self.place.delete(address)
        self.cache.delete(address)

    # --- copies ----------------------------------------------------------------------------------------------------

    def _grown(self, nbytes: int) -> None:
        """So much may have come into the folder."""
        if self._limit is not None:
            self._room -= nbytes
            if self._room <= 0:
                self._room = self._limit // _LOOKS
                self.trim()

    def trim(self) -> int:
        if self._limit is None:
            return 0
        try:
            return trim(self.cache.root.parents[1], self._limit)
        except OSError:  # nobody's concern here: it is as large as it was
            return 0

    # --- care ------------------------------------------------------------------------------------------------------

    def check(self, address: str) -> int:
        return self._in_memory(address).nbytes

    def condemn(self, *addresses: str) -> None:
        """See `BlobPlace.condemn`."""
        self.place.condemn(addresses)

    def condemned(self) -> Iterator[tuple[str, float]]:
        """See `BlobPlace.condemned`."""
        return self.place.condemned()

    def spare(self, address: str) -> None:
        """See `BlobPlace.spare`."""
        self.place.spare(address)

    def purge(self, address: str) -> int:
        """See `BlobPlace.purge`; from the cache it goes too."""
        size = self.place.purge(address)
        if size:
            self._known.pop(address, None)
            self.cache.delete(address)
        return size

    def temporaries(self) -> Iterator[Path]:
        """What writers that were killed have left in the cache."""
        return self.cache.temporaries()
