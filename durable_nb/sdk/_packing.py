"""Bodies to bytes and back, for executors in other processes.

A body travels as a pickle of the function with what it closes over. Large buffers in it (arrays) are left out of the
pickle and travel beside it, so that an executor can send equal ones once. Every body gets a copy of its own of them: as
in the process of the handler, one may write into its array without another seeing it.

What belongs to the running execution (contexts, the state behind them) is refused by name: copied to a worker it would
look alive and record nothing.
"""

from __future__ import annotations

import functools
import inspect
import io
import marshal
import pickle
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle

from durable_nb.abc import Buffer
from durable_nb.exceptions import CannotTravelError, RemoteBodyError

PART_BYTES = 1 << 20
"""A buffer, or a pickle, of at least this size travels as a part of its own."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A value on its way to another process."""

    head: bytes
    """The pickle; empty when it is large, and the last of the parts."""
    parts: tuple[Buffer, ...] = ()


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle ships no annotations
    """Refuses what must not be copied."""

    def __init__(self, file: io.BytesIO, step: str | None, keep: Callable[[pickle.PickleBuffer], bool]) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)
        self._step = step

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.CodeType):
            # With the name of its file, which cloudpickle leaves out: tracebacks from there are read here.
            return marshal.loads, (marshal.dumps(obj),)
        if isinstance(obj, io.IOBase) and not isinstance(obj, io.BytesIO | io.StringIO):
            # cloudpickle would send what the file holds now.
            raise pickle.PicklingError("an open file stays where it is")
        what = _bound_to_the_execution(obj)
        if what is not None:
            raise RemoteBodyError(what, self._step)
        return super().reducer_override(obj)


def _bound_to_the_execution(obj: Any) -> str | None:
    from durable_nb.sdk._engine import CellContextProxy
    from durable_nb.sdk.aio import AsyncDurableContext
    from durable_nb.sdk.context import DurableContext
    from durable_nb.sdk.operation._frame import Frame
    from durable_nb.sdk.state import ExecutionState

    if isinstance(obj, CellContextProxy):
        return "durable_nb.context"
    if isinstance(obj, DurableContext | AsyncDurableContext):
        return "a durable context"
    if isinstance(obj, ExecutionState | Frame):
        return "the state of the execution"
    return None


def pack(value: Any, step: str, place: str, *, blame: Any = None) -> Packed:
    """A value as bytes.

    Args:
        value: any.
        step: for people: what it belongs to.
        place: for people: where it is to go.
        blame: the function in it whose variables are looked through when it cannot be pickled.

    Raises:
        RemoteBodyError: it holds a context of the running execution.
        CannotTravelError: it cannot be pickled; says which name is the reason, where that can be found.
    """
    parts: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Whether a buffer stays in the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:  # not in one piece: the pickle makes one of it
            return True
        if raw.nbytes < PART_BYTES:
            return True
        parts.append(raw)
        return False

    file = io.BytesIO()
    try:
        _Packer(file, step, keep).dump(value)
    except RemoteBodyError:
        raise
    except Exception as error:
        raise CannotTravelError(step, place, _reason(value if blame is None else blame, error)) from error
    head = file.getvalue()
    if len(head) < PART_BYTES:
        return Packed(head, tuple(parts))
    return Packed(b"", (*parts, head))


def unpack(head: bytes, parts: tuple[Buffer, ...]) -> Any:
    """The value of `pack`, with buffers of its own."""
    if not head:
        *parts_before, last = parts
        head, parts = bytes(last), tuple(parts_before)
    return pickle.loads(head, buffers=[bytearray(part) for part in parts])


def _reason(value: Any, error: Exception) -> str:
    told = f"{type(error).__name__}: {error}"
    for name, held in _held(value):
        try:
            _Packer(io.BytesIO(), name, lambda _: True).dump(held)
        except Exception:  # noqa: BLE001 - any type may refuse to be pickled, in any way
            return f"{name} ({type(held).__qualname__}) cannot be pickled: {told}; make it inside the body"
    return f"it cannot be pickled: {told}"


def _held(value: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    """What a function holds by name, and what the functions among these hold: the innermost first."""
    if isinstance(value, functools.partial):
        yield from _held(value.func, depth)
        named = [(f"argument {index + 1}", held) for index, held in enumerate(value.args)]
        yield from (*named, *value.keywords.items())
    if not inspect.isfunction(value) or depth == 0:
        return
    variables = inspect.getclosurevars(value)
    for name, held in (*variables.nonlocals.items(), *variables.globals.items()):
        yield from _held(held, depth - 1)
        yield name, held


__all__ = ["PART_BYTES", "Packed", "pack", "unpack"]
