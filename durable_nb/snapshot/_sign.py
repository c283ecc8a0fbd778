"""Manifests as bytes, and the signature without which nothing of them is unpickled."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from durable_nb.exceptions import StoreError, UntrustedCheckpointError

_MAGIC = b"DNB1"
_SIGNED = b"DNBS"
_BYTES = "\0bytes"


def encode(value: Mapping[str, Any]) -> bytes:
    """JSON values and `bytes` as bytes; dicts keep their order."""
    raw = bytearray()

    def beside(item: Any) -> Any:
        """What JSON has no way to write: asked only of such, in the order of the text."""
        if isinstance(item, (bytes, bytearray, memoryview)):
            start = len(raw)
            raw.extend(bytes(item))
            return {_BYTES: [start, len(raw) - start]}
        if isinstance(item, Mapping):
            return dict(item)
        raise TypeError(f"a manifest cannot hold a {type(item).__name__}")

    head = json.dumps(value, default=beside, separators=(",", ":"), ensure_ascii=True).encode()
    return b"".join([_MAGIC, len(head).to_bytes(8, "big"), head, raw])


def decode(data: bytes | memoryview) -> dict[str, Any]:
    """What `encode` was given.

    Raises:
        StoreError: these are no bytes of `encode`. Nothing is allocated that the data do not hold themselves.
    """
    view = memoryview(data)
    if bytes(view[:4]) != _MAGIC or view.nbytes < 12:
        raise StoreError("these bytes are no manifest")
    size = int.from_bytes(view[4:12], "big")
    if size > view.nbytes - 12:
        raise StoreError("this manifest is cut short")
    try:
        found = _in(json.loads(bytes(view[12 : 12 + size])), view[12 + size :])
    except (ValueError, TypeError, RecursionError) as exc:
        raise StoreError(f"this manifest is damaged ({type(exc).__name__})") from exc
    if not isinstance(found, dict):
        raise StoreError("this manifest is no object")
    return found


def _in(value: Any, raw: memoryview) -> Any:
    if isinstance(value, dict):
        place = value.get(_BYTES)
        if place is not None:
            start, size = place
            if not (isinstance(start, int) and isinstance(size, int) and 0 <= start <= start + size <= raw.nbytes):
                raise ValueError("bytes outside the manifest")
            return bytes(raw[start : start + size])
        return {key: _in(item, raw) for key, item in value.items()}
    if isinstance(value, list):
        return [_in(item, raw) for item in value]
    return value


class Keyring:
    """The key that signs, and the keys that are trusted.

    Args:
        key: a secret shared by a team or given to CI (`DURABLE_NB_KEY`); None signs with the user's own.
        path: where the user's own keys are kept; None is Jupyter's data directory.
    """

    def __init__(self, key: str | None = None, path: Path | None = None) -> None:
        file = KeyFile(path)
        if key:
            self.key = hashlib.sha256(b"durable_nb key\0" + key.encode()).digest()
            others = file.keys()
        else:
            self.key, *others = file.keys(create=True)
        self.trusted: tuple[bytes, ...] = (self.key, *others)
        """Every key whose signatures are believed, the signing one first."""

    def sign(self, data: bytes, context: str) -> bytes:
        """The signature of bytes in a place (execution, cell): elsewhere they are not valid."""
        return signature(self.key, data, context)

    def verify(self, data: bytes, mac: bytes, context: str) -> bool:
        """Whether one of the trusted keys has signed these bytes for this place."""
        return any(hmac.compare_digest(signature(key, data, context), mac) for key in self.trusted)


def signature(key: bytes, data: bytes, context: str) -> bytes:
    """HMAC-SHA256 over bytes and their place."""
    return hmac.digest(key, len(context).to_bytes(8, "big") + context.encode() + data, "sha256")


_KEY_BYTES = 32


class KeyFile:
    """The user's keys: a file of mode 0600, one hexadecimal key a line. The first one signs, all are trusted.

    It is only ever replaced as a whole (temporary name, fsync, rename), so that a crash leaves the old or the new one.

    Args:
        path: None is `durable_nb/key` in Jupyter's data directory.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            from jupyter_core.paths import jupyter_data_dir

            path = Path(jupyter_data_dir()) / "durable_nb" / "key"
        self.path = path

    def keys(self, *, create: bool = False) -> list[bytes]:
        """All keys, the signing one first; with `create` there is at least one.

        Raises:
            StoreError: the file is damaged, or others may read or write it.
        """
        try:
            return self._read()
        except FileNotFoundError:
            if not create:
                return []
        self._make()
        return self._read()

    def _read(self) -> list[bytes]:
        handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            status = os.fstat(handle)
            text = os.read(handle, 1 << 20)
        finally:
            os.close(handle)
        if status.st_uid == os.getuid() and status.st_mode & 0o077:
            # Readable by others it is no secret any more, whatever is done to its mode now.
            raise StoreError(
                f"the key file {self.path} can be read by others (mode {status.st_mode & 0o777:o}); "
                "make a new key with: durable-nb key rotate --forget"
            )
        try:
            found = [bytes.fromhex(line) for line in text.decode("ascii").split()]
        except ValueError:
            found = []
        if not found or any(len(key) < _KEY_BYTES for key in found):
            raise StoreError(
                f"the key file {self.path} is damaged; make a new key with: durable-nb key rotate --forget"
            )
        return found

    def _make(self) -> None:
        temporary = self._write([secrets.token_bytes(_KEY_BYTES)])
        # A link fails when somebody else was first: then theirs is the key.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self.path)
        os.unlink(temporary)
        self._sync_folder()

    def replace(self, keys: Sequence[bytes]) -> None:
        """Keep these keys from now on, the signing one first."""
        os.replace(self._write(list(dict.fromkeys(keys))), self.path)
        self._sync_folder()

    def rotate(self, *, forget: bool = False) -> None:
        """Sign with a new key; the old ones stay trusted unless they are to be forgotten."""
        old = [] if forget else self.keys()
        self.replace([secrets.token_bytes(_KEY_BYTES), *old])

    def add(self, keys: Sequence[bytes], *, sign: bool = False) -> int:
        """Trust more keys, or sign with the first of them; returns how many were not known."""
        own = self.keys(create=True)
        new = [key for key in keys if key not in own]
        self.replace([*keys, *own] if sign else [*own, *keys])
        return len(new)

    def _write(self, keys: Sequence[bytes]) -> str:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = str(self.path.with_name(f"key-{os.getpid()}-{secrets.token_hex(4)}"))
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            data = memoryview(b"".join(key.hex().encode() + b"\n" for key in keys))
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(handle)
        return temporary

    def _sync_folder(self) -> None:
        handle = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
