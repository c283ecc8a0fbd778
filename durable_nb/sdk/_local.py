"""Time, and news from outside, inside one process."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from durable_nb.abc import Buffer, Clock, Executor, Line

POLL_SECONDS = 0.2
"""How often a waiting execution looks for what another process has written."""


class Bell:
    """Rings when something happened to an execution: a callback completed, a cancel was asked for.

    A waiter remembers the number of rings it has seen, so that none between two waits is lost.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0
        self.listeners: set[Callable[[], None]] = set()
        """Called at every ring, in the thread that rings."""

    @property
    def rings(self) -> int:
        """How often it has rung."""
        return self._rings

    def ring(self) -> None:
        """Wake every waiter."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()
        for listener in tuple(self.listeners):
            listener()

    def wait(self, seen: int, timeout: float | None) -> bool:
        """Wait until it has rung more than `seen` times; False when `timeout` passed first."""
        with self._condition:
            return self._condition.wait_for(lambda: self._rings != seen, timeout)


_bells: weakref.WeakValueDictionary[str, Bell] = weakref.WeakValueDictionary()
_bells_lock = threading.Lock()


def bell_of(execution_id: str) -> Bell:
    """The bell of an execution, shared by everybody in this process."""
    with _bells_lock:
        bell = _bells.get(execution_id)
        if bell is None:
            bell = _bells[execution_id] = Bell()
        return bell


class EngineClock(Clock):
    """The time of an engine. Waits and retries use `now`; limits on the outside world (callbacks) use `real`."""

    def now(self) -> float:
        return time.time()

    def real(self) -> float:
        """The wall clock, also where `now` is skipped ahead."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Held while code runs: a clock that skips must not do so meanwhile."""
        yield

    def wait(self, bell: Bell, seen: int, *, until: float | None, real_until: float | None, poll: bool) -> None:
        """Return when the bell has rung, a time has come, or (with `poll`) it is time to look at the journal."""
        limits = [POLL_SECONDS] if poll else []
        if until is not None:
            limits.append(until - self.now())
        if real_until is not None:
            limits.append(real_until - self.real())
        bell.wait(seen, max(0.0, min(limits)) if limits else None)


class SystemClock(EngineClock):
    """The machine's time."""


@dataclass(frozen=True, slots=True)
class Wake:
    """What a suspended piece of code waits for; the first of these wakes it."""

    at: float | None = None
    """A moment of `EngineClock.now`."""
    real_at: float | None = None
    """A moment of `EngineClock.real`."""
    operations: frozenset[str] = frozenset()
    """Operations that the outside completes."""

    def join(self, other: Wake) -> Wake:
        """Whichever comes first."""
        return Wake(
            _earliest(self.at, other.at), _earliest(self.real_at, other.real_at), self.operations | other.operations
        )

    @property
    def due(self) -> float | None:
        """The earliest moment of either clock; equal clocks everywhere but in tests."""
        return _earliest(self.at, self.real_at)


def _earliest(one: float | None, two: float | None) -> float | None:
    if one is None or two is None:
        return two if one is None else one
    return min(one, two)


class _Worker:
    """A thread of the pool, with a queue of its own: what is given to it is run by it and by nobody else."""

    def __init__(self, pool: ThreadPool, name: str) -> None:
        self._pool = pool
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon: a body that is blocked for ever must not keep the process.
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self.thread.start()

    def give(self, task: Callable[[], None] | None) -> None:
        self._tasks.put(task)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            if not self._pool.takes_back(self):
                return


class _Line(Line):
    """The one who waits is in this process."""

    def __init__(self, hear: Callable[[bytes], None], future: Future[Any]) -> None:
        self._hear, self._future = hear, future

    def say(self, data: bytes) -> None:
        self._hear(data)

    def wanted(self) -> bool:
        return not self._future.cancelled()


class ThreadPool(Executor):
    """Threads that are started when none is idle: a batch inside a batch must never wait for a free one."""

    def __init__(self, name: str = "durable_nb branch") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._workers: list[_Worker] = []
        self._closed = False

    def submit(
        self,
        call: Callable[..., Any],
        parts: Sequence[Buffer] = (),
        *,
        name: str = "",  # noqa: ARG002 - threads are shown by the pool's name
        once: bool = False,  # noqa: ARG002 - a thread is lost with the process, and nothing begins again here
        hear: Callable[[bytes], None] | None = None,
    ) -> Future[Any]:
        """Run `call` in a thread, with the caller's context variables."""
        future: Future[Any] = Future()
        context = copy_context()
        given: list[Any] = list(parts) if hear is None else [_Line(hear, future), *parts]

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(call, *given)
            except BaseException as error:  # noqa: BLE001 - the future carries it
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = _Worker(self, f"{self._name} {len(self._workers)}")
                self._workers.append(worker)
        worker.give(task)
        return future

    def takes_back(self, worker: _Worker) -> bool:
        """Keep a thread that has done its task for the next one; False when there is none to come."""
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
            return not self._closed

    def abandon(self) -> None:
        """Let the threads end by themselves: nobody will wait for them."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._workers.clear()
        for worker in idle:
            worker.give(None)

    def shutdown(self) -> None:
        """Let the threads end, and wait for them and for those that they start meanwhile."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.give(None)
        while True:
            with self._lock:
                workers, self._workers = self._workers, []
            if not workers:
                return
            for worker in workers:
                worker.thread.join()


__all__ = ["POLL_SECONDS", "Bell", "EngineClock", "SystemClock", "ThreadPool", "Wake", "bell_of"]
