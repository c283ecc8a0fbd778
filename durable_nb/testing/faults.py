"""Failures to rehearse: a process that dies at a checkpoint.

with pytest.raises(SimulatedCrash):
runner.run(input=..., fault=crash_after(3))
result = runner.resume()
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from durable_nb.events import Event
from durable_nb.sdk.state import JournalRecorder, News


class SimulatedCrash(BaseException):  # noqa: N818 - no error of the code under test, which must not be able to catch it
    """Stands for the death of the process: nothing is written after it."""


class _Countdown:
    """Counts the checkpoints of an execution, over its invocations."""

    def __init__(self, checkpoints: int, *, before_write: bool) -> None:
        self._left = checkpoints
        self._before_write = before_write
        self._lock = threading.Lock()

    def before(self) -> None:
        """A checkpoint is about to be written."""
        with self._lock:
            if self._left <= 0:
                raise SimulatedCrash("the process died before this checkpoint")
            self._left -= 1

    def after(self) -> None:
        """It is written."""
        with self._lock:
            if self._left <= 0 and not self._before_write:
                raise SimulatedCrash("the process died after this checkpoint")


class CrashingRecorder(JournalRecorder):
    """Records as its base does, until the countdown is over."""

    def __init__(self, recorder: JournalRecorder, countdown: _Countdown) -> None:
        super().__init__(recorder.journal, recorder.execution_id, recorder.lease)
        self._countdown = countdown

    def write(self, events: Sequence[Event], *, durable: bool, refs: Iterable[str]) -> News:
        self._countdown.before()
        news = super().write(events, durable=durable, refs=refs)
        self._countdown.after()
        return news

    def write_rest(self, deferred: Sequence[Event], due: float | None) -> None:
        self._countdown.before()
        super().write_rest(deferred, due)
        self._countdown.after()

    def write_end(self, deferred: Sequence[Event], event: Event, refs: Iterable[str] = ()) -> None:
        self._countdown.before()
        super().write_end(deferred, event, refs)
        self._countdown.after()


def crash_after(checkpoints: int, *, before_write: bool = True) -> Callable[[JournalRecorder], JournalRecorder]:
    """For `run(fault=...)`: the process dies once it has written so many checkpoints.

    Args:
        checkpoints: steps and other operations, suspensions, and the end; a commit counts as one.
        before_write: die when the next one would be written, after the code before it ran; False dies in the instant
            after the last one is on disk.
    """
    countdown = _Countdown(checkpoints, before_write=before_write)
    return lambda recorder: CrashingRecorder(recorder, countdown)


__all__ = ["CrashingRecorder", "SimulatedCrash", "crash_after"]
