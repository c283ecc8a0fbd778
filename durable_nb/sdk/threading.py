"""Small synchronisation tools with an order."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Self

from durable_nb.exceptions import OrderedLockError


class CompletionEvent:
    """An event that may end in an error, which every waiter gets."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._error: BaseException | None = None

    def set(self, error: BaseException | None = None) -> None:
        """Wake the waiters; the first call decides."""
        if not self._event.is_set():
            self._error = error
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """True once set; raises the error it was set with."""
        done = self._event.wait(timeout)
        if done and self._error is not None:
            raise self._error
        return done

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._event.is_set()


class OrderedLock:
    """A lock that is taken in the order of asking, and that stays broken once a holder failed.

    Later holders would act on a state that the failed one left half done: they get `OrderedLockError` instead.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._broken = False
        self._source: Exception | None = None

    def acquire(self) -> bool:
        """Wait for the turn."""
        with self._guard:
            self._refuse_if_broken()
            turn = threading.Event()
            self._waiting.append(turn)
            if self._waiting[0] is turn:
                turn.set()
        turn.wait()
        with self._guard:
            self._refuse_if_broken()
        return True

    def release(self) -> None:
        """Hand over to the next."""
        with self._guard:
            if not self._waiting:
                raise OrderedLockError("the lock is not held")
            self._waiting.popleft()
            if self._waiting:
                self._waiting[0].set()

    def reset(self) -> None:
        """Make a broken lock usable again."""
        with self._guard:
            if self._waiting and not self._broken:
                raise OrderedLockError("the lock cannot be reset while it is held or waited for")
            self._waiting.clear()
            self._broken, self._source = False, None

    def is_broken(self) -> bool:
        """Whether a holder failed."""
        with self._guard:
            return self._broken

    def _refuse_if_broken(self) -> None:
        if self._broken:
            raise OrderedLockError("an earlier holder of the lock failed", self._source)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.release()
            return
        with self._guard:
            self._broken = True
            self._source = error if isinstance(error, Exception) else None
            waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            turn.set()


class OrderedCounter:
    """A counter whose changes happen in the order of asking."""

    def __init__(self) -> None:
        self._lock = OrderedLock()
        self._value = 0

    def increment(self) -> int:
        """Add one; returns the new value."""
        with self._lock:
            self._value += 1
            return self._value

    def decrement(self) -> int:
        """Take one away; returns the new value."""
        with self._lock:
            self._value -= 1
            return self._value

    def get_current(self) -> int:
        """The value now."""
        with self._lock:
            return self._value


__all__ = ["CompletionEvent", "OrderedCounter", "OrderedLock"]
