"""Out-of-band buffers: to blobs and back, storing of a changed gigabyte only the chunks that changed.

Theory. A scan leaves the XXH3 digests of a large buffer's chunks. The store's memory of what it holds keeps, per
buffer, those digests and the BLAKE3 hashes of the same chunks. A buffer whose digests are all known costs nothing. One
that differs from a known buffer of its size in a few chunks becomes that buffer's blob plus a *patch*, a blob of the
changed chunks. A patch whose chunks all changed again is left out; when the patches would be more than a quarter of the
buffer, and more chunks than are copied in no time, it is written whole again. The address of the result is the root of
its chunk hashes either way, so a patched buffer that was once written whole is found again.

The digests travel with the reference (`sums`), so that a buffer restored in a new process can be patched as well.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from durable_nb._dataclass import dataclass
from durable_nb.abc import BlobStore
from durable_nb.exceptions import DamagedBlobError
from durable_nb.snapshot._blobs import CHUNK, TREE_FROM, chunk_hashes, root_of
from durable_nb.snapshot._digest import chunk_digests, join_digests

_REMEMBERED = 512
"""Large buffers whose chunk digests are kept in memory (48 bytes per MiB each)."""

_COPIED = 32
"""Chunks of patches that any buffer may have: copying them at a restore takes milliseconds."""

_CLOSE = 64
"""A known buffer is near enough, and no other is looked for, when one in so many of its chunks differs."""

_XXH3, _BLAKE3 = 16, 32


class Keeper(Protocol):
    """Where references to written bytes are noted."""

    blobs: BlobStore
    used: dict[str, None]
    nbytes: int

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


@dataclass(frozen=True, slots=True)
class _Known:
    """A large buffer that the store holds."""

    size: int
    digests: tuple[bytes, ...]
    hashes: tuple[bytes, ...]
    reference: Mapping[str, Any]

    def changed(self, digests: tuple[bytes, ...]) -> list[int]:
        """The chunks that are others there."""
        pairs = enumerate(zip(self.digests, digests, strict=True))
        return [index for index, (old, new) in pairs if old != new]

    def patches_below(self, chunks: list[int]) -> list[Mapping[str, Any]]:
        """The patches that still show when these chunks are laid over them, in their order."""
        hidden, kept = set(chunks), []
        for patch in reversed(self.reference.get("patches", ())):
            if not hidden.issuperset(patch["chunks"]):
                kept.append(patch)
                hidden.update(patch["chunks"])
        return kept[::-1]


class StoredBuffers:
    """What the store already has of the large buffers of a session."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._unread: list[tuple[Mapping[str, Any], Callable[[Mapping[str, Any]], bytes]]] = []

    def store(self, view: memoryview, writer: Keeper, scanned: Mapping[tuple[int, int], Any] | None) -> dict[str, Any]:
        """Write a buffer, or as little of it as is new; returns its reference.

        Args:
            view: the live memory.
            writer: of the manifest.
            scanned: chunk digests of live memory by address and size, taken just now.
        """
        if view.nbytes < TREE_FROM:
            return writer.keep([view], view.nbytes)
        self._read_all()
        digests = tuple(_scanned_digests(view, scanned) or chunk_digests(view))
        key = join_digests(list(digests), view.nbytes)
        known = self._known.get(key)
        if known is not None and all(map(writer.blobs.has, blobs_of(known.reference))):
            self._known.move_to_end(key)
            writer.used.update(dict.fromkeys(blobs_of(known.reference)))
            return dict(known.reference)
        base = self._closest(view.nbytes, digests, writer.blobs)
        made = self._patch(view, digests, base, writer) if base is not None else self._whole(view, digests, writer)
        self._note(key, made)
        writer.used.update(dict.fromkeys(blobs_of(made.reference)))
        return dict(made.reference)

    def learn(self, reference: Mapping[str, Any], read: Callable[[Mapping[str, Any]], bytes]) -> None:
        """A buffer was restored; its digests are read when something is to be compared with them."""
        if "sums" in reference:
            self._unread.append((reference, read))

    def _read_all(self) -> None:
        unread, self._unread = self._unread, []
        for reference, read in unread:
            sums = read(reference["sums"])
            count = -(-reference["size"] // CHUNK)
            if len(sums) != count * (_XXH3 + _BLAKE3):
                continue
            digests = tuple(sums[at : at + _XXH3] for at in range(0, count * _XXH3, _XXH3))
            hashes = tuple(sums[at : at + _BLAKE3] for at in range(count * _XXH3, len(sums), _BLAKE3))
            key = join_digests(list(digests), reference["size"])
            self._note(key, _Known(reference["size"], digests, hashes, reference))

    def _note(self, key: bytes, known: _Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _closest(self, size: int, digests: tuple[bytes, ...], blobs: BlobStore) -> _Known | None:
        """The known buffer to patch: the change, and all patches together, must stay small."""
        best: tuple[int, _Known] | None = None
        quarter = len(digests) // 4
        for known in reversed(self._known.values()):
            if known.size != size:
                continue
            changed = known.changed(digests)
            if len(changed) > quarter or (best is not None and best[0] <= len(changed)):
                continue
            patched = sum(len(patch["chunks"]) for patch in known.patches_below(changed))
            if len(changed) + patched <= max(quarter, _COPIED) and all(map(blobs.has, blobs_of(known.reference))):
                best = (len(changed), known)
                if len(changed) * _CLOSE <= len(digests):
                    break
        return None if best is None else best[1]

    def _whole(self, view: memoryview, digests: tuple[bytes, ...], writer: Keeper) -> _Known:
        put_large = getattr(writer.blobs, "put_large", None)
        if put_large is not None:
            address, hashes = put_large(view)
        else:
            address, hashes = writer.blobs.put(view), chunk_hashes([view])
        writer.nbytes += view.nbytes
        return self._referred(view.nbytes, digests, tuple(hashes), {"blob": address}, writer)

    def _patch(self, view: memoryview, digests: tuple[bytes, ...], base: _Known, writer: Keeper) -> _Known:
        changed = base.changed(digests)
        parts = [view[index * CHUNK : (index + 1) * CHUNK] for index in changed]
        hashes = list(base.hashes)
        for index, part in zip(changed, parts, strict=True):
            hashes[index] = chunk_hashes([part])[0]
        whole = root_of(hashes, view.nbytes)
        if writer.blobs.has(whole):
            return self._referred(view.nbytes, digests, tuple(hashes), {"blob": whole}, writer)
        patch = {"blob": writer.blobs.put(parts), "chunks": changed}
        writer.nbytes += sum(part.nbytes for part in parts)
        patches = [*base.patches_below(changed), patch]
        facts = {"blob": base.reference["blob"], "patches": patches}
        return self._referred(view.nbytes, digests, tuple(hashes), facts, writer)

    @staticmethod
    def _referred(
        size: int, digests: tuple[bytes, ...], hashes: tuple[bytes, ...], facts: dict[str, Any], writer: Keeper
    ) -> _Known:
        sums = b"".join([*digests, *hashes])
        reference = {**facts, "size": size, "sums": writer.keep([sums], len(sums))}
        return _Known(size, digests, hashes, reference)


def _scanned_digests(view: memoryview, scanned: Mapping[tuple[int, int], Any] | None) -> Any:
    if not scanned:
        return None
    return scanned.get((address_of_memory(view), view.nbytes))


def address_of_memory(view: memoryview) -> int:
    """Where a flat view lies; 0 when nothing can tell."""
    import sys

    numpy: Any = sys.modules.get("numpy")
    if numpy is None or view.nbytes == 0:
        return 0
    found: int = numpy.frombuffer(view, dtype=numpy.uint8).__array_interface__["data"][0]
    return found


def blobs_of(reference: Mapping[str, Any]) -> list[str]:
    """Every blob that a reference needs."""
    found = [reference["blob"]] if "blob" in reference else []
    found += [patch["blob"] for patch in reference.get("patches", ())]
    if "sums" in reference:
        found += blobs_of(reference["sums"])
    return found


def fetch(reference: Mapping[str, Any], blobs: BlobStore) -> Any:
    """The writable memory of a stored buffer."""
    inline = reference.get("inline")
    if inline is not None:
        return bytearray(inline)
    if blobs.size(reference["blob"]) != reference["size"]:  # asked first: a giant in its place is not even hashed
        raise DamagedBlobError(reference["blob"])
    view = blobs.map(reference["blob"])
    if view.nbytes != reference["size"]:
        raise DamagedBlobError(reference["blob"])
    for patch in reference.get("patches", ()):
        data, at = blobs.get(patch["blob"]), 0
        for index in patch["chunks"]:
            size = min(CHUNK, view.nbytes - index * CHUNK)
            view[index * CHUNK : index * CHUNK + size] = data[at : at + size]
            at += size
        if at != len(data):
            raise DamagedBlobError(patch["blob"])
    return view
