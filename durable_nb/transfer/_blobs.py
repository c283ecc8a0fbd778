"""Carrying blobs from one store to another, and translating their names where these differ.

An open store names a blob by its bytes, an encrypted one by the sealed bytes. A name is 64 characters in every store,
so a translated manifest is as long as it was, and the places that it tells of bytes behind its head stay right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from durable_nb.events import Event
from durable_nb.exceptions import DamagedBlobError
from durable_nb.runtime import Store
from durable_nb.transfer._merge import ADDRESS

__all__ = ["Carrier", "is_sealed"]

_IN_A_BLOB = b"DNB\x01"
"""Begins the payload of a step whose pickle is a blob; the blob's name follows."""


def is_sealed(store: Store) -> bool:
    """Whether what is written to this store can be read only with its key."""
    from durable_nb.snapshot import EncryptedBlobStore

    return isinstance(store.blobs, EncryptedBlobStore)


class Carrier:
    """Brings what events name from `source` to `target`.

    Args:
        source: store.
        target: store.
    """

    def __init__(self, source: Store, target: Store) -> None:
        self._source, self._target = source, target
        self.blobs = 0
        """How many were written."""
        self.nbytes = 0
        """Bytes in them."""
        self._known = source.journal.blob_refs()
        self._open = not is_sealed(source) and not is_sealed(target)
        self._carried: dict[str, str] = {}
        self._inner: dict[str, tuple[str, ...]] = {}

    def carry(self, event: Event) -> tuple[Event, tuple[str, ...]]:
        """Bring the blobs that an event names; returns the event as the target is to have it, and what it names there.

        Raises:
            DamagedBlobError: a blob's bytes are not what its name says.
            MissingBlobError: a blob is not in the source.
        """
        names: dict[str, str] = {}
        inside: list[str] = []
        containers = _containers(event)
        for address in self._named(event):
            names[address] = self._blob(address, is_container=address in containers)
            inside += self._inner.get(address, ())
        refs = tuple(dict.fromkeys([*names.values(), *inside]))
        if all(old == new for old, new in names.items()):
            return event, refs
        details = json.loads(_renamed(json.dumps(dict(event.details)).encode(), names))
        payload = None if event.payload is None else _renamed(event.payload, names)
        return replace(event, payload=payload, details=details), refs

    def mend(self, event: Event) -> None:
        """Bring what the target has a row of and lost the blobs of. Where names are translated this is not known."""
        blobs = self._target.blobs
        if self._open and not all(blobs.vouches(address, -1) or blobs.has(address) for address in self._named(event)):
            self.carry(event)

    def _named(self, event: Event) -> list[str]:
        text = (event.payload or b"") + b"\n" + json.dumps(dict(event.details)).encode()
        return self._addresses(text)

    def _addresses(self, text: bytes) -> list[str]:
        found = dict.fromkeys(match.decode("ascii") for match in ADDRESS.findall(text))
        return [address for address in found if address in self._known]

    def _blob(self, address: str, *, is_container: bool) -> str:
        """The name of a blob in the target, where it is now."""
        known = self._carried.get(address)
        if known is not None:
            return known
        self._source.hold([address])
        # Held before it is looked for: a collection that finds it unnamed after this leaves it in place.
        self._target.hold([address])
        made = self._container(address) if is_container else self._plain(address)
        if made != address:
            self._target.hold([made])
        self._carried[address] = made
        return made

    def _plain(self, address: str) -> str:
        if self._target.blobs.has(address):
            return address
        view = self._source.blobs.map(address)
        return self._put(address, view)

    def _container(self, address: str) -> str:
        data = self._source.blobs.get(address)
        names = {inner: self._blob(inner, is_container=False) for inner in self._addresses(data) if inner != address}
        self._inner[address] = tuple(names.values())
        if self._target.blobs.has(address):
            return address
        return self._put(address, memoryview(_renamed(data, names)))

    def _put(self, address: str, view: memoryview) -> str:
        before = self._target.blobs.written
        made = self._target.blobs.put(view)
        # What was mapped may be verified only after it was mapped; equal names are the shorter proof.
        if address in self._source.blobs.settle() or (self._open and made != address):
            raise DamagedBlobError(address)
        if self._open or self._target.blobs.written != before:  # else a sealed one was in place already
            self.blobs += 1
            self.nbytes += view.nbytes
        return made


def _containers(event: Event) -> set[str]:
    """Blobs that hold what else would be the payload, and name blobs themselves."""
    found = {str(event.details.get("payload_blob"))}
    if event.payload is not None and event.payload[: len(_IN_A_BLOB)] == _IN_A_BLOB:
        found.add(event.payload[len(_IN_A_BLOB) :].decode("ascii", "replace"))
    return found


def _renamed(data: bytes, names: Mapping[str, str]) -> bytes:
    def other(match: re.Match[bytes]) -> bytes:
        text = match[0].decode("ascii")
        return names.get(text, text).encode("ascii")

    return ADDRESS.sub(other, data) if any(old != new for old, new in names.items()) else data
