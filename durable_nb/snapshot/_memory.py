"""Who owns the memory of an array, and how an array lies in it.

`v = a[::2]` and `a` share a block. The block's owner is the last link of the `.base` chain: an array that owns its
data, a `bytes` or `bytearray`, one of our maps, or something foreign (a C structure of some package) whose memory can
only be copied. Everything here is by duck typing on NumPy arrays; NumPy itself is never imported for it.
"""

from __future__ import annotations

import sys
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.snapshot._blobs import Map


def is_array(value: object) -> bool:
    """True for NumPy arrays, without importing NumPy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def owner_of(array: Any) -> Any:
    """The object at the end of the `.base` chain; the array itself when it owns its data."""
    numpy: Any = sys.modules["numpy"]
    link = array
    while True:
        if isinstance(link, numpy.ndarray):
            base = link.base
            if base is None:
                return link
            link = base
        elif isinstance(link, memoryview):
            if link.obj is None:
                return link
            link = link.obj
        elif type(link).__name__ == "DummyArray" and hasattr(link, "__array_interface__"):
            link = link.base  # what numpy.lib.stride_tricks.as_strided puts in between
        else:
            return link


@dataclass(frozen=True, slots=True)
class Block:
    """The memory of an owner, as far as it can be addressed."""

    owner: Any
    start: int
    """Address of the first byte."""
    nbytes: int


def block_of(owner: Any) -> Block | None:
    """The block of an owner, or None when its memory is foreign: it can be copied, never shared again."""
    numpy: Any = sys.modules["numpy"]
    if isinstance(owner, numpy.ndarray):
        flags = owner.flags
        if not (flags.c_contiguous or flags.f_contiguous):
            return None
        return Block(owner, owner.__array_interface__["data"][0], owner.nbytes)
    if isinstance(owner, (bytes, bytearray, Map)):
        if not len(owner):
            return None
        raw = numpy.frombuffer(owner, dtype=numpy.uint8)
        return Block(owner, raw.__array_interface__["data"][0], raw.nbytes)
    return None


def offset_in(array: Any, block: Block) -> int | None:
    """Where the array's first element lies in the block; None when it does not lie in it."""
    if array.size == 0:
        return 0
    offset = int(array.__array_interface__["data"][0]) - block.start
    low = high = offset
    for length, stride in zip(array.shape, array.strides, strict=True):
        reach = (length - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    return offset if low >= 0 and high + array.itemsize <= block.nbytes else None


def layout(array: Any) -> str:
    """`C`, `F` or, for everything else, the strides as text."""
    flags = array.flags
    if flags.c_contiguous:
        return "C"
    if flags.f_contiguous:
        return "F"
    return ",".join(map(str, array.strides))


def block_bytes(block: Block) -> memoryview:
    """The bytes of a whole block."""
    return flat_bytes(block.owner) if is_array(block.owner) else memoryview(block.owner).cast("B")


def flat_bytes(array: Any) -> memoryview:
    """The bytes of a contiguous array in memory order, without a copy."""
    numpy: Any = sys.modules["numpy"]
    if array.nbytes == 0:
        return memoryview(b"")
    plain = array.view(numpy.ndarray)
    line = plain.reshape(-1, order="F" if not plain.flags.c_contiguous else "C")
    return memoryview(line.view(numpy.uint8)).cast("B")
