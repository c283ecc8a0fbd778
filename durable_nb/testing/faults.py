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


class CrashingRecorder(JournalRecorder):
    """Records until it has written so many checkpoints, then dies.

    Args:
        recorder: what it replaces.
        after: checkpoints that are still written.
        before_write: die before the commit of the next one (True) or after the commit of the last one.
    """

    def __init__(self, recorder: JournalRecorder, after: int, *, before_write: bool = True) -> None:
        super().__init__(recorder.journal, recorder.execution_id, recorder.lease)
        self._left = after
        self._before_write = before_write
        self._count_lock = threading.Lock()

    def _count(self) -> bool:
        with self._count_lock:
            self._left -= 1
            return self._left < (0 if self._before_write else 1)

    def write(self, events: Sequence[Event], *, durable: bool, refs: Iterable[str]) -> News:
        dies = self._count()
        if dies and (self._before_write or self._left < 0):
            raise SimulatedCrash("the process died before this checkpoint")
        news = super().write(events, durable=durable, refs=refs)
        if dies:
            raise SimulatedCrash("the process died after this checkpoint")
        return news

    def write_end(self, deferred: Sequence[Event], event: Event, refs: Iterable[str] = ()) -> None:
        dies = self._count()
        if dies and (self._before_write or self._left < 0):
            raise SimulatedCrash("the process died before the end was recorded")
        super().write_end(deferred, event, refs)
        if dies:
            raise SimulatedCrash("the process died after the end was recorded")


def crash_after(checkpoints: int, *, before_write: bool = True) -> Callable[[JournalRecorder], JournalRecorder]:
    """For `run(fault=...)`: the process dies when it would write the checkpoint after the first so many."""
    return lambda recorder: CrashingRecorder(recorder, checkpoints, before_write=before_write)


__all__ = ["CrashingRecorder", "SimulatedCrash", "crash_after"]
