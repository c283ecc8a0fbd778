"""A clock that jumps to the next moment that somebody waits for.

It runs with real time and is ahead of it by what was skipped. It jumps only when nobody is busy: while a handler or an
invoked function runs, others wait in real time, so what a jump would overtake is never overtaken.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from durable_nb.sdk._local import POLL_SECONDS, Bell, EngineClock, SystemClock

_SLICE_SECONDS = 0.02


class VirtualClock(EngineClock):
    """Skips waits and retry delays.

    Args:
        skip_outside: also skip limits on the outside world (callback time-outs, heartbeats); otherwise these pass in
            real time, since the test's own code has to be given its chance to answer.
    """

    def __init__(self, *, skip_outside: bool = False) -> None:
        self._lock = threading.Condition()
        self._ahead = 0.0
        self._busy = 0
        self._waiting: dict[int, float] = {}
        self._skip_outside = skip_outside

    def now(self) -> float:
        """Real time and what was skipped."""
        return time.time() + self._ahead

    def real(self) -> float:
        """Real time, unless limits on the outside are skipped too."""
        return self.now() if self._skip_outside else time.time()

    def advance(self, seconds: float) -> None:
        """Skip ahead."""
        with self._lock:
            self._ahead += seconds
            self._lock.notify_all()

    def sleep(self, seconds: float) -> None:
        """Skip ahead instead of sleeping."""
        self.advance(seconds)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Held while code runs."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._lock.notify_all()

    def wait(self, bell: Bell, seen: int, *, until: float | None, real_until: float | None, poll: bool) -> None:
        """Jump to the earliest moment anybody waits for, once nobody is busy."""
        skipped = until
        if self._skip_outside and real_until is not None:
            skipped = real_until if skipped is None else min(skipped, real_until)
            real_until = None
        if skipped is None:
            limit = POLL_SECONDS if real_until is None else max(0.0, min(POLL_SECONDS, real_until - time.time()))
            bell.wait(seen, limit)
            return
        me = threading.get_ident()
        with self._lock:
            self._waiting[me] = skipped
        try:
            while bell.rings == seen and self.now() < skipped:
                with self._lock:
                    if not self._busy and min(self._waiting.values()) >= skipped:
                        self._ahead += max(0.0, skipped - self.now()) + 1e-6
                        self._lock.notify_all()
                        return
                    self._lock.wait(_SLICE_SECONDS)
                if poll and bell.rings != seen:
                    return
        finally:
            with self._lock:
                self._waiting.pop(me, None)


class RealClock(SystemClock):
    """The machine's time."""


SkipClock = VirtualClock


def real_now() -> dt.datetime:
    """The machine's time in UTC."""
    return dt.datetime.now(tz=dt.UTC)


__all__ = ["RealClock", "SkipClock", "VirtualClock", "real_now"]
