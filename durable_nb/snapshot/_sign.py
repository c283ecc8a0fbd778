"""Manifests as bytes, and the signature without which nothing of them is unpickled."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable_nb.exceptions import StoreError, UntrustedCheckpointError

_MAGIC = b"DNB1"
_SIGNED = b"DNBS"
_BYTES = "\0bytes"


def encode(value: Mapping[str, Any]) -> bytes:
    """JSON values and `bytes` as bytes; equal values give equal bytes."""
    raw: list[bytes] = []
    head = json.dumps(_out(value, raw), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return b"".join([_MAGIC, len(head).to_bytes(8, "big"), head, *raw])


def decode(data: bytes | memoryview) -> dict[str, Any]:
    """What `encode` was given."""
    view = memoryview(data)
    if bytes(view[:4]) != _MAGIC or view.nbytes < 12:
        raise StoreError("these bytes are no manifest")
    size = int.from_bytes(view[4:12], "big")
    found = _in(json.loads(bytes(view[12 : 12 + size])), view[12 + size :])
    assert isinstance(found, dict)
    return found


def _out(value: Any, raw: list[bytes]) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        start = sum(map(len, raw))
        raw.append(bytes(value))
        return {_BYTES: [start, len(raw[-1])]}
    if isinstance(value, Mapping):
        return {key: _out(item, raw) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_out(item, raw) for item in value]
    return value


def _in(value: Any, raw: memoryview) -> Any:
    if isinstance(value, dict):
        place = value.get(_BYTES)
        if place is not None:
            return bytes(raw[place[0] : place[0] + place[1]])
        return {key: _in(item, raw) for key, item in value.items()}
    if isinstance(value, list):
        return [_in(item, raw) for item in value]
    return value


class Keyring:
    """The key that signs, and the keys that are trusted.

    Args:
        key: a secret shared by a team or given to CI (`DURABLE_NB_KEY`); None uses the user's own.
        path: where the user's own key is kept; None is Jupyter's data directory.
    """

    def __init__(self, key: str | None = None, path: Path | None = None) -> None:
        self.key = hashlib.sha256(b"durable_nb key\0" + key.encode()).digest() if key else _own_key(path)

    def sign(self, data: bytes, context: str) -> bytes:
        """The signature of bytes in a place (execution, cell): elsewhere they are not valid."""
        return hmac.new(self.key, len(context).to_bytes(8, "big") + context.encode() + data, hashlib.sha256).digest()

    def verify(self, data: bytes, signature: bytes, context: str) -> bool:
        return hmac.compare_digest(self.sign(data, context), signature)


def _own_key(path: Path | None) -> bytes:
    if path is None:
        from jupyter_core.paths import jupyter_data_dir

        path = Path(jupyter_data_dir()) / "durable_nb" / "key"
    with contextlib.suppress(FileNotFoundError):
        return _read_key(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"key-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(32).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # A link fails when somebody else was first: then theirs is the key.
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    os.unlink(temporary)
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    data = bytes.fromhex(path.read_text().strip())
    if len(data) < 32:
        raise StoreError(f"the key file {path} is damaged")
    return data


def seal(manifest: Mapping[str, Any], keyring: Keyring, context: str) -> bytes:
    """A manifest as signed bytes."""
    data = encode(manifest)
    return _SIGNED + keyring.sign(data, context) + data


def open_signed(payload: bytes, keyring: Keyring, context: str) -> dict[str, Any]:
    """The manifest of signed bytes.

    Raises:
        UntrustedCheckpointError: the signature is not of this key, or of another place.
    """
    if payload[:4] != _SIGNED or not keyring.verify(payload[36:], payload[4:36], context):
        raise UntrustedCheckpointError(context)
    return decode(payload[36:])
