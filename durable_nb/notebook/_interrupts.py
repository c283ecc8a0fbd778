"""SIGINT while a transaction ends: it waits, so that nothing is committed half."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from types import FrameType
from typing import Any, Self

# The C function under `signal.signal`: every cell asks several times, and the enums around it cost more than the call.
_handle = _signal.signal
_IGNORE = int(signal.SIG_IGN)


class _Handled:
    """Puts another handler of SIGINT in place meanwhile; in any thread but the main one it does nothing."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._is_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._is_main:
            self._previous = _handle(signal.SIGINT, self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            _handle(signal.SIGINT, self._previous)
        self._handler = None  # which may hold this object


class Held(_Handled):
    """Whether SIGINT came while it was held."""

    def __init__(self) -> None:
        super().__init__(self._note)
        self.came = False

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.came = True


def held_interrupts() -> Held:
    """Note SIGINT meanwhile instead of raising in the middle of our own work; the caller then ends the cell."""
    return Held()


def raised_interrupts() -> _Handled:
    """Raise `KeyboardInterrupt` for SIGINT meanwhile, also in a task, which the kernel would cancel instead."""
    return _Handled(signal.default_int_handler)


def deferred_interrupts() -> _Handled:
    """Ignore SIGINT meanwhile.

    The cell's body has ended when its checkpoint is written: an interrupt that comes then has nothing left to stop, and
    is dropped rather than raised into the next cell.
    """
    return _Handled(_IGNORE)
