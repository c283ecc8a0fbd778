"""Any Python value: cloudpickle, large buffers kept as blobs. The default in notebooks.

What is defined in `__main__` under its own name is stored by name and not by value, as pickle does for modules: a
result that comes back is an instance of the live class, on the first run (results are round-tripped) as at a replay.
Everything else that cannot be imported (lambdas, local classes) travels by value.

Layout of a payload: a four-byte mark, the number of buffers, each buffer (inline bytes, or the address of a blob), the
pickle stream. A stream that is large itself becomes a blob too. Only payloads that the journal vouches for are loaded.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from types import FunctionType
from typing import Any

from durable_nb.abc import BlobStore
from durable_nb.exceptions import SerDesError
from durable_nb.sdk.serdes import BytesSerDes, SerDesContext

_MARK = b"DNP\x01"
_BLOB = b"DNB\x01"
_INLINE, _ADDRESS = 0, 1
_HEAD = struct.Struct(">4sI")
_PART = struct.Struct(">BQ")


def _main_object(name: str) -> Any:
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise SerDesError(
                f"the stored value needs {name!r}, which is not defined now: run its definition first"
            ) from None
    return found


def _is_main(obj: Any) -> bool:
    if getattr(obj, "__module__", None) != "__main__":
        return False
    found: Any = sys.modules.get("__main__")
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def _make_pickler(file: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, (type, FunctionType)) and _is_main(obj):
                return _main_object, (obj.__qualname__,)
            return super().reducer_override(obj)

    return Pickler(file, protocol=5, buffer_callback=buffers.append)


class PickleSerDes(BytesSerDes):
    """Cloudpickle.

    Args:
        blobs: where large buffers go; None keeps everything in the payload.
        inline_limit: bytes from which a buffer is large.
    """

    def __init__(self, blobs: BlobStore | None = None, *, inline_limit: int = 32 * 1024) -> None:
        self._blobs = blobs
        self._inline_limit = inline_limit

    def dump(self, value: Any, serdes_context: SerDesContext) -> tuple[bytes, tuple[str, ...]]:  # noqa: ARG002
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        _make_pickler(file, buffers).dump(value)
        parts: list[bytes] = [_HEAD.pack(_MARK, len(buffers))]
        refs: list[str] = []
        for buffer in buffers:
            raw = buffer.raw()
            if self._blobs is not None and raw.nbytes > self._inline_limit:
                address = self._blobs.put(raw)
                refs.append(address)
                text = address.encode("ascii")
                parts += [_PART.pack(_ADDRESS, len(text)), text]
            else:
                parts += [_PART.pack(_INLINE, raw.nbytes), bytes(raw)]
        parts.append(file.getvalue())
        data = b"".join(parts)
        if self._blobs is not None and len(data) > self._inline_limit:
            address = self._blobs.put(data)
            return _BLOB + address.encode("ascii"), (*refs, address)
        return data, tuple(refs)

    def load(self, data: bytes, serdes_context: SerDesContext) -> Any:  # noqa: ARG002
        if data[:4] == _BLOB:
            data = self._store().get(data[4:].decode("ascii"))
        mark, count = _HEAD.unpack_from(data)
        if mark != _MARK:
            raise SerDesError("the payload is no pickle of this program")
        at = _HEAD.size
        buffers: list[Any] = []
        for _ in range(count):
            kind, size = _PART.unpack_from(data, at)
            at += _PART.size
            part = data[at : at + size]
            at += size
            # A writable copy, so that an array that comes back can be changed as the one that was stored.
            buffers.append(bytearray(part) if kind == _INLINE else self._store().map(part.decode("ascii")))
        return pickle.loads(memoryview(data)[at:], buffers=buffers)

    def _store(self) -> BlobStore:
        if self._blobs is None:
            raise SerDesError("the payload names a blob and this serdes has no blob store")
        return self._blobs


__all__ = ["PickleSerDes"]
