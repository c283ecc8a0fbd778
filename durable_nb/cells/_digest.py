"""One way to turn text and bytes into a version: 128 bits of BLAKE3, as 32 hex characters."""

from __future__ import annotations

from blake3 import blake3


def digest(*parts: str | bytes) -> str:
    """The version of a sequence of parts; the boundaries between parts count."""
    written: list[bytes] = []
    for part in parts:
        # A lone surrogate is legal in Python text and in file names, and must neither fail nor collide.
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        written += (len(data).to_bytes(8, "little"), data)
    return blake3(b"".join(written)).hexdigest(length=16)


def keyed_digest(key: bytes, *parts: str | bytes) -> str:
    """As `digest`, but without the key nobody can test a guess of the parts. `key` may have any length."""
    inner = blake3(key, derive_key_context="durable_nb 1 keyed version").digest()
    hasher = blake3(key=inner)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest(length=16)
