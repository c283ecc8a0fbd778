"""Attempts of a cell: back-off, time-out, interrupts.

An attempt is one run of the cell's statements by IPython's own `run_ast_nodes`. While more attempts may follow, the
traceback is held back; the last one is shown as IPython shows it, so the user sees their own lines only.

Which errors end a cell at once, whatever the strategy: `KeyboardInterrupt`, `CancelledError`, `SystemExit`,
`GeneratorExit` (someone asked to stop) and errors before execution (there is nothing to try again).
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from durable_nb._dataclass import dataclass
from durable_nb.cells import StepOptions, resolve_error_types
from durable_nb.exceptions import StepTimeoutError, ValidationError

NEVER_RETRIED = (KeyboardInterrupt, asyncio.CancelledError, SystemExit, GeneratorExit)

_STUCK_SECONDS = 5.0
"""How long a body may go on after its time-out before the user is told that it does not react."""

_BACKOFF_OPTIONS = ("max_attempts", "initial_delay", "max_delay", "backoff", "jitter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Which errors are tried again, how often and after how long."""

    max_attempts: int
    initial_delay: float
    """Seconds before the second attempt."""
    max_delay: float
    rate: float
    jitter: str
    types: tuple[type[BaseException], ...]
    """With `message`: either one matching is enough. Empty and no message: every error."""
    message: re.Pattern[str] | None

    def allows(self, error: BaseException, attempts_made: int) -> bool:
        """Whether another attempt may follow."""
        if attempts_made >= self.max_attempts or isinstance(error, NEVER_RETRIED):
            return False
        if not self.types and self.message is None:
            return True
        by_type = bool(self.types) and isinstance(error, self.types)
        return by_type or (self.message is not None and self.message.search(str(error)) is not None)

    def delay(self, attempts_made: int) -> float:
        """Seconds until the next attempt: min(initial * rate ** (n - 1), max), jittered."""
        try:
            base = min(self.initial_delay * self.rate ** (attempts_made - 1), self.max_delay)
        except OverflowError:
            base = self.max_delay
        if self.jitter == "full":
            return random.SystemRandom().random() * base
        if self.jitter == "half":
            return base / 2 + random.SystemRandom().random() * base / 2
        return base


# Attempts, first delay, longest delay, rate, jitter: the presets of the SDK, in seconds.
PRESETS: Mapping[str, tuple[int, float, float, float, str]] = {
    "none": (1, 0.0, 0.0, 1.0, "none"),
    "default": (6, 5.0, 60.0, 2.0, "full"),
    "transient": (3, 5.0, 300.0, 2.0, "half"),
    "resource_availability": (5, 5.0, 300.0, 2.0, "full"),
    "critical": (10, 1.0, 60.0, 1.5, "none"),
    "linear": (6, 1.0, 300.0, 1.0, "none"),
    "fixed": (5, 5.0, 5.0, 1.0, "none"),
}


def backoff_of(options: StepOptions, namespace: Mapping[str, Any]) -> Backoff | None:
    """The strategy that the options ask for; None when a failing cell fails at once.

    Raises:
        ValidationError: an exception name is unknown, or a preset is given with what it already decides.
    """
    types = resolve_error_types(options.retry_on, namespace)
    if not options.retries:
        return None
    message = re.compile(options.retry_if_message) if options.retry_if_message else None
    if options.retry is not None:
        given = [name for name in _BACKOFF_OPTIONS if getattr(options, name) is not None]
        if given:
            shown = ", ".join("--" + name.replace("_", "-") for name in given)
            raise ValidationError(f"--retry {options.retry} decides {shown} already: give one or the other")
        attempts, first, longest, rate, jitter = PRESETS[options.retry]
    else:
        attempts = 3 if options.max_attempts is None else options.max_attempts
        first = 5.0 if options.initial_delay is None else options.initial_delay
        longest = max(300.0, first) if options.max_delay is None else options.max_delay
        rate = 2.0 if options.backoff is None else options.backoff
        jitter = options.jitter or "full"
    return Backoff(
        max_attempts=attempts,
        initial_delay=first,
        max_delay=longest,
        rate=rate,
        jitter=jitter,
        types=types,
        message=message,
    )


@contextmanager
def held_traceback(shell: Any) -> Iterator[Callable[[BaseException], None]]:
    """Hold back the traceback that IPython would show; the yielded function shows the last one after all."""
    shown: list[tuple[Any, dict[str, Any]]] = []
    original = shell.showtraceback

    def hold(exc_tuple: Any = None, *_: Any, **keywords: Any) -> None:
        shown.append((exc_tuple or sys.exc_info(), keywords))

    def show(error: BaseException) -> None:
        exc_tuple, keywords = shown[-1] if shown else ((type(error), error, error.__traceback__), {})
        if exc_tuple[1] is not error:  # the attempt was ended from outside: its own frames say nothing
            exc_tuple, keywords = (type(error), error, None), {"exception_only": True}
        original(exc_tuple, **keywords)

    shell.showtraceback = hold
    try:
        yield show
    finally:
        del shell.showtraceback


class Watchdog:
    """Ends an attempt after its time-out by raising `StepTimeoutError` in the main thread.

    The body runs in the main thread, where Python delivers signals: a thread waits and then sends SIGINT, for which a
    handler that raises our error is in place meanwhile. `time.sleep` and I/O return at once for a signal; code in C
    that never looks for signals does not, and is reported.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._ended = threading.Event()
        self.fired = False

    def __enter__(self) -> Self:
        self._previous = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._on_signal)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="durable_nb time-out", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # from here on no signal is sent
            self._ended.set()
        signal.signal(signal.SIGINT, self._previous)

    def _watch(self) -> None:
        if self._ended.wait(self._seconds):
            return
        with self._lock:
            if self._ended.is_set():
                return
            self.fired = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not self._ended.wait(_STUCK_SECONDS):
            print(
                f"durable_nb: {self._name} does not react to its time-out of {self._seconds:g} s: "
                "it is inside code that never looks for signals; it ends when that code returns",
                file=sys.stderr,
            )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.fired:
            raise StepTimeoutError(self._name, self._seconds)
        if callable(self._previous):
            self._previous(number, frame)
        else:
            raise KeyboardInterrupt


class LoopTimeout:
    """Ends an attempt that awaits: cancels its task, and knows that it did."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.fired = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._fire)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()
        if self.fired and self._task is not None:
            self._task.uncancel()

    def _fire(self) -> None:
        self.fired = True
        if self._task is not None:
            self._task.cancel()


async def attempt(
    run: Callable[[], Awaitable[bool]], name: str, seconds: float | None, *, in_loop: bool
) -> tuple[bool, bool]:
    """One attempt under its time-out: whether it raised, and whether the time-out ended it.

    Args:
        in_loop: the cell has a top-level await and runs as a task, so that nothing may block.
    """
    if seconds is None:
        return await run(), False
    with LoopTimeout(seconds) if in_loop else Watchdog(name, seconds) as limit:
        raised = await run()
    return raised, limit.fired


def pause_here(until: float, wake: threading.Event | None = None) -> None:
    """Wait in this thread until a point of wall time; an interrupt ends it at once. `wake` ends it early."""
    wake = wake or threading.Event()
    while (left := until - time.time()) > 0 and not wake.is_set():
        wake.wait(min(left, 3600.0))


async def pause(until: float, *, in_loop: bool, wake: threading.Event | None = None) -> None:
    """Wait until a point of wall time; an interrupt ends it at once. `wake` ends it early."""
    if not in_loop:
        pause_here(until, wake)
        return
    while (left := until - time.time()) > 0 and not (wake is not None and wake.is_set()):
        await asyncio.sleep(min(left, 0.2))
