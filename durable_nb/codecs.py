"""Bytes to bytes: encryption.

Format of a sealed message: 4 bytes of magic, a 32-byte id, then chunks of 1 MiB (the last one may be shorter or empty),
each followed by its 16-byte tag.

Each message has an AES key of its own, made from the store's key and the id, so nonces are chunk numbers and none is
used twice under one key. The tags cover the message's context and whether a chunk is the last one: chunks cannot be
left out, repeated, moved to another place or another message.

The id is random, or (`same=True`) a keyed hash of the message: equal messages are then sealed equally, which is what a
content-addressed store needs. Who can read such a store learns which blobs are equal, and how large they are.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from durable_nb.exceptions import StoreError, ValidationError

__all__ = ["Cipher", "derive", "sealed_size"]

_MAGIC = b"DNBE"
_ID = 32
_TAG = 16
_HEAD = len(_MAGIC) + _ID
CHUNK = 1 << 20
"""Bytes of a message in one chunk."""


class Cipher:
    """AES-256-GCM under one 32-byte key.

    Raises:
        ValidationError: the package `cryptography` is not installed.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValidationError("a key for encryption has 32 bytes")
        self._aead = _aead()
        self._name_key = hmac.digest(key, b"durable_nb id 1", "sha256")
        self._seal_key = hmac.digest(key, b"durable_nb seal 1", "sha256")

    def seal(self, parts: Sequence[bytes | memoryview], context: bytes, *, same: bool = False) -> list[bytes]:
        """A message, given in parts, as sealed parts."""
        views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        name = self._name_of(views, context) if same else secrets.token_bytes(_ID)
        aead = self._aead(self._key_of(name))
        size = sum(view.nbytes for view in views)
        last = max(-(-size // CHUNK) - 1, 0)
        sealed = [_MAGIC + name]
        for number, chunk in enumerate(_chunks(views)):
            sealed.append(aead.encrypt(_nonce(number), chunk, _covered(context, number == last)))
        return sealed

    def open(self, sealed: bytes | memoryview, context: bytes) -> Iterator[bytes]:
        """The chunks of a message.

        Raises:
            StoreError: it was not sealed with this key for this place, or it was changed.
        """
        view = memoryview(sealed)
        if view.nbytes < _HEAD + _TAG or bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise StoreError("this is no sealed message")
        aead = self._aead(self._key_of(bytes(view[len(_MAGIC) : _HEAD])))
        body = view[_HEAD:]
        last = max(-(-body.nbytes // (CHUNK + _TAG)) - 1, 0)
        for number in range(last + 1):
            chunk = body[number * (CHUNK + _TAG) : (number + 1) * (CHUNK + _TAG)]
            try:
                yield aead.decrypt(_nonce(number), chunk, _covered(context, number == last))
            except Exception as exc:
                raise StoreError("a sealed message was changed, or sealed with another key") from exc

    def _name_of(self, views: Sequence[memoryview], context: bytes) -> bytes:
        from blake3 import blake3

        hasher = blake3(len(context).to_bytes(8, "big") + context, key=self._name_key)
        for view in views:
            hasher.update(view)
        return hasher.digest()

    def _key_of(self, name: bytes) -> bytes:
        return hmac.digest(self._seal_key, name, "sha256")


def sealed_size(nbytes: int) -> int:
    """How large the message of a sealed one of `nbytes` is; -1 when there is none of this size."""
    body = nbytes - _HEAD
    chunks = -(-body // (CHUNK + _TAG))
    return body - chunks * _TAG if body >= _TAG else -1


_COST = 1 << 15
"""Of scrypt: about 0.1 s and 32 MB each time a store is opened. Another number is another key."""


def derive(secret: str, salt: bytes) -> bytes:
    """A key from a secret that a person may have made up: slow on purpose, and different in each store."""
    return hashlib.scrypt(secret.encode("utf-8"), salt=salt, n=_COST, r=8, p=1, maxmem=1 << 26, dklen=32)


def _chunks(views: Sequence[memoryview]) -> Iterator[bytes]:
    """The joined views in chunks; one empty chunk when there is nothing."""
    pending = bytearray()
    some = False
    for view in views:
        at = 0
        while at < view.nbytes:
            piece = view[at : at + CHUNK - len(pending)]
            pending += piece
            at += piece.nbytes
            if len(pending) == CHUNK:
                yield bytes(pending)
                some = True
                pending.clear()
    if pending or not some:
        yield bytes(pending)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _covered(context: bytes, last: bool) -> bytes:
    return (b"\1" if last else b"\0") + context


def _aead() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ValidationError(
            "an encrypted store needs the package cryptography: pip install 'durable_nb[encryption]'"
        ) from None
    return AESGCM
