"""What a Dask worker runs for `durable_nb.distributed.dask`.

At most once. Dask begins a task again whenever its worker, or the worker that held its result, is gone. So a call that
must not begin twice takes a token first: one entry of a queue that the scheduler keeps and that is filled once, before
the task is sent. Taking it is one step in the scheduler's only thread, so of all the beginnings of a task one gets it;
a scheduler that is started again has no token left. Whoever finds none does not begin.

Telling. What a call says goes through a queue that the scheduler keeps, so that workers need no way to the one who
waits. It holds a limited number of messages: who says more than is listened to is slowed down.

Stopping. A thread cannot be ended from outside; an exception is raised in it at its next instruction. That happens
under a lock that the call holds when it says that it has ended, so it never hits what Dask does next in that thread.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from durable_nb.abc import Line

__all__ = ["ALREADY_BEGUN", "Raised", "run", "stop"]

ALREADY_BEGUN = "already begun"
"""The answer of a task whose call another beginning of it has, or may have, made."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The answer of a task whose call raised: what Dask itself raises is told apart from it."""

    error: Exception


_lock = threading.Lock()
_threads: dict[str, int] = {}


class _StoppedError(BaseException):
    """Raised in a call that nobody waits for any more."""


def run(call: Callable[..., Any], name: str, token: str | None, line: str | None, *parts: Any) -> Any:
    """Make the call, unless its token is taken; returns its result, or a word of this module.

    Args:
        call: the call.
        name: of this task.
        token: of a call that must not begin twice.
        line: the queue for what the call says; None for a call that says nothing.
        parts: the call's arguments.
    """
    given = parts if line is None else (_Line(line), *parts)
    if token is not None and not _take(token):
        return ALREADY_BEGUN
    try:
        with _lock:
            _threads[name] = threading.get_ident()
        try:
            return call(*given)
        finally:
            with _lock:
                del _threads[name]
                _raise_in(threading.get_ident(), None)
    except _StoppedError:
        return None  # nobody reads it: the task was cancelled
    except Exception as error:  # noqa: BLE001 - the answer carries it
        return Raised(error)


def stop(names: Collection[str]) -> None:
    """End those of these calls that run here."""
    with _lock:
        for name in names:
            thread = _threads.get(name)
            if thread is not None:
                _raise_in(thread, _StoppedError)


_SAYING_SECONDS = 2.0
"""How long a message waits for room in the queue before it is asked whether anybody listens."""

_DONE_WITH = frozenset({"cancelled", "released", "forgotten", "error", "missing"})
"""States of a running task that say that its result is not wanted any more."""


class _Line(Line):
    def __init__(self, queue: str) -> None:
        from distributed import get_worker

        self._worker = get_worker()
        self._key = self._worker.get_current_task()
        self._queue = queue

    def say(self, data: bytes) -> None:
        from distributed.utils import sync

        put = self._worker.scheduler.queue_put
        while True:
            try:
                sync(self._worker.loop, put, name=self._queue, data=data, key=None, timeout=_SAYING_SECONDS)
            except TimeoutError:
                if self.wanted():
                    continue
            except KeyError:  # the queue is gone: nobody listens
                pass
            return

    def wanted(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state not in _DONE_WITH


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in a thread at its next instruction; None takes back one that was not raised yet."""
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def _take(token: str) -> bool:
    from distributed import get_worker
    from distributed.utils import sync

    worker = get_worker()
    try:
        found = sync(worker.loop, worker.scheduler.queue_get, name=token, batch=True)
    except KeyError:
        return False  # the queue is gone: the batch is over, or the scheduler is a new one
    return bool(found)
