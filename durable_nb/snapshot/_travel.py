"""Groups of names on their way to another process and back.

The same bytes as a checkpoint's, in other places: small ones travel in the manifest, large ones beside it, and none is
copied where it can be referred to. What a session knows of the buffers in its store takes no part in it
(`Tracker.with_buffers`): a store has none of these blobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from durable_nb._ident import ident
from durable_nb.abc import BlobStore, Buffer
from durable_nb.exceptions import MissingBlobError, NotStorableError
from durable_nb.snapshot._blobs import Map, address_of, views
from durable_nb.snapshot._buffers import StoredBuffers
from durable_nb.snapshot._groups import Group, Version
from durable_nb.snapshot._manifest import group_values, save
from durable_nb.snapshot._tracker import Delta, Tracker

PART_BYTES = 1 << 20
"""Blobs of at least this size travel beside the manifest."""

_UNSAID = Version("", False, "lineage")
"""Versions do not travel: who takes values in gives them versions of its own."""


class Luggage(BlobStore):
    """Blobs that travel: references to live memory, not copies of it, where that is in one piece.

    Args:
        below: blobs that are there already, which `put` need not take; `packed` leaves them out.
    """

    def __init__(self, below: Mapping[str, Buffer] | None = None) -> None:
        self._below = dict(below or {})
        self._own: dict[str, Buffer] = {}

    @property
    def packed(self) -> dict[str, Buffer]:
        """What was put here."""
        return self._own

    def put(self, data: Buffer | Sequence[Buffer]) -> str:
        address = address_of(data)
        if not self.has(address):
            parts = views(data)
            self._own[address] = parts[0] if len(parts) == 1 else b"".join(parts)
        return address

    def get(self, address: str) -> bytes:
        return bytes(self._found(address))

    def map(self, address: str) -> memoryview:
        data = memoryview(self._found(address))
        if not data.nbytes:
            return memoryview(bytearray())
        block = Map(-1, data.nbytes)
        block[:] = data
        return memoryview(block)

    def _found(self, address: str) -> Buffer:
        found = self._own.get(address)
        if found is None:
            found = self._below.get(address)
        if found is None:
            raise MissingBlobError(address)
        return found

    def has(self, address: str) -> bool:
        return address in self._own or address in self._below

    def size(self, address: str) -> int:
        return memoryview(self._found(address)).nbytes

    def addresses(self) -> Iterator[str]:
        return iter([*self._below, *self._own])

    def delete(self, address: str) -> None:
        self._own.pop(address, None)


def pack(
    tracker: Tracker,
    groups: Iterable[Group],
    blobs: BlobStore,
    *,
    deleted: Iterable[str] = (),
    process: Mapping[str, Any] | None = None,
    buffers: StoredBuffers | None = None,
) -> dict[str, Any]:
    """A manifest of these groups, as they are now.

    A group that cannot travel has no segments, and `problems` says why, as in the manifest of a checkpoint.
    `buffers` is what is known of large buffers that are there already.
    """
    each = list({ident(group): group for group in groups}.values())
    versions = {name: _UNSAID for group in each for name in group.names}
    problems = tuple(problem for group in each for problem in group.problems)
    delta = Delta(versions, tuple(deleted), each, problems, dict(process or {}), tracker)
    with tracker.with_buffers(StoredBuffers() if buffers is None else buffers):
        return save(delta, blobs, inline_limit=PART_BYTES - 1)


def unpack(
    manifest: Mapping[str, Any], tracker: Tracker, blobs: BlobStore, buffers: StoredBuffers | None = None
) -> dict[str, Any]:
    """The values of a manifest, in the order of its groups; nothing is bound.

    Args:
        manifest: of `pack`.
        tracker: of the namespace that is to get the values.
        blobs: where the large bytes are.
        buffers: learns of the buffers in them.

    Raises:
        NotStorableError: a group has not travelled.
    """
    found: dict[str, Any] = {}
    with tracker.with_buffers(StoredBuffers() if buffers is None else buffers):
        for group in manifest["groups"]:
            if group.get("segments") is None:
                problem = next(one for one in manifest["problems"] if one["name"] in group["names"])
                raise NotStorableError(problem["name"], problem["type"], problem["path"], problem["why"])
            found.update(group_values(manifest, group, tracker, blobs))
    return found
