"""SIGINT while a transaction ends: it waits, so that nothing is committed half."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The C function under `signal.signal`: every cell asks several times, and the enums around it cost more than the call.
_handle = _signal.signal
_IGNORE = int(signal.SIG_IGN)


class Held:
    """Whether SIGINT came while it was held."""

    came = False


@contextmanager
def held_interrupts() -> Iterator[Held]:
    """Note SIGINT meanwhile instead of raising in the middle of our own work; the caller then ends the cell."""
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        held.came = True

    previous = _handle(signal.SIGINT, note)
    try:
        yield held
    finally:
        _handle(signal.SIGINT, previous)


@contextmanager
def raised_interrupts() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for SIGINT meanwhile, also in a task, which the kernel would cancel instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = _handle(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        _handle(signal.SIGINT, previous)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Ignore SIGINT meanwhile.

    The cell's body has ended when its checkpoint is written: an interrupt that comes then has nothing left to stop, and
    is dropped rather than raised into the next cell.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = _handle(signal.SIGINT, _IGNORE)
    try:
        yield
    finally:
        _handle(signal.SIGINT, previous)
