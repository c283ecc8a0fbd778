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


class Held:
    """Holds SIGINT: whether it came meanwhile is noted, and nothing is raised."""

    came = False
    _previous: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = (_handle(signal.SIGINT, self._note),)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            _handle(signal.SIGINT, self._previous[0])

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.came = True


class Deferred:
    """Ignores SIGINT."""

    _previous: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = (_handle(signal.SIGINT, _IGNORE),)

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            _handle(signal.SIGINT, self._previous[0])


def held_interrupts() -> Held:
    """Note SIGINT meanwhile instead of raising in the middle of our own work; the caller then ends the cell."""
    return Held()


def deferred_interrupts() -> Deferred:
    """Ignore SIGINT meanwhile.

    The cell's body has ended when its checkpoint is written: an interrupt that comes then has nothing left to stop, and
    is dropped rather than raised into the next cell.
    """
    return Deferred()
