"""Blobs that say nothing to who has no key.

Each is sealed before it is stored, under the address of its sealed bytes: whether a store is whole can be told without
opening anything. Equal bytes are sealed equally, so they are still kept once. What is read is opened into memory, and
nothing is mapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from durable_nb.abc import BlobStore, Buffer
from durable_nb.codecs import Cipher, sealed_size
from durable_nb.exceptions import DamagedBlobError, MissingBlobError, StoreError
from durable_nb.snapshot._blobs import FileBlobStore, Map, views

__all__ = ["EncryptedBlobStore"]

_CONTEXT = b"blob"


class EncryptedBlobStore(BlobStore):
    """Seals what it puts into `inner`, and opens what it gets."""

    def __init__(self, inner: FileBlobStore, cipher: Cipher) -> None:
        self.inner = inner
        self._cipher = cipher

    @property
    def written(self) -> int:  # type: ignore[override]
        """See `BlobStore`; what a seal adds is written too."""
        return self.inner.written

    def put(self, data: Buffer | Sequence[Buffer]) -> str:
        return self.inner.put(self._cipher.seal(views(data), _CONTEXT, same=True))

    def _chunks(self, address: str) -> Iterator[bytes]:
        try:
            yield from self._cipher.open(self.inner.get(address), _CONTEXT)
        except (DamagedBlobError, MissingBlobError):
            raise
        except StoreError as exc:  # whole as a blob, and not sealed by us
            raise DamagedBlobError(address) from exc

    def get(self, address: str) -> bytes:
        return b"".join(self._chunks(address))

    def map(self, address: str) -> memoryview:
        size = self.size(address)
        if size < 0:
            raise DamagedBlobError(address)
        if size == 0:
            self.get(address)
            return memoryview(bytearray())
        view, at = memoryview(Map(-1, size)), 0
        for chunk in self._chunks(address):
            view[at : at + len(chunk)] = chunk
            at += len(chunk)
        return view

    def settle(self, timeout: float | None = None) -> tuple[str, ...]:
        return self.inner.settle(timeout)

    def has(self, address: str) -> bool:
        return self.inner.has(address)

    def size(self, address: str) -> int:
        return sealed_size(self.inner.size(address))

    def vouches(self, address: str, size: int) -> bool:
        return self.inner.vouches(address, -1) and size in (-1, self.size(address))

    def addresses(self) -> Iterator[str]:
        return self.inner.addresses()

    def delete(self, address: str) -> None:
        self.inner.delete(address)

    # --- collection: about files, not about what is in them ----------------------------------------------------------

    def places(self, address: str) -> Iterator[Path]:
        """See `FileBlobStore`."""
        return self.inner.places(address)

    def temporaries(self) -> Iterator[Path]:
        """See `FileBlobStore`."""
        return self.inner.temporaries()

    def condemn(self, *addresses: str) -> None:
        """See `FileBlobStore`."""
        self.inner.condemn(*addresses)

    def condemned(self) -> Iterator[tuple[str, float]]:
        """See `FileBlobStore`."""
        return self.inner.condemned()

    def spare(self, address: str) -> None:
        """See `FileBlobStore`."""
        self.inner.spare(address)

    def purge(self, address: str) -> int:
        """See `FileBlobStore`."""
        return self.inner.purge(address)
