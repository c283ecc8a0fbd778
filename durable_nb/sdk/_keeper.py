"""One thread that keeps the leases of this process, and looks after executions whose code runs.

Every second it brings in what others wrote (so a cancel stops a handler at its next operation, and a branch that waits
for a callback sees it), and writes what was deferred: a step that runs for minutes is then visible to other processes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from durable_nb.abc import Journal, Lease
from durable_nb.exceptions import BackgroundThreadError, StoreError
from durable_nb.sdk.state import ExecutionState

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
_TICK_SECONDS = 1.0


class Keeper:
    """Started with the first lease; a daemon, so it never keeps a process alive."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._watched: dict[int, tuple[Journal, Lease, ExecutionState]] = {}
        self._thread: threading.Thread | None = None
        self._renewed: dict[int, float] = {}

    @contextmanager
    def watching(self, journal: Journal, lease: Lease, state: ExecutionState) -> Iterator[None]:
        """Look after an execution for as long as its code runs."""
        key = id(state)
        with self._lock:
            self._watched[key] = (journal, lease, state)
            self._renewed[key] = time.monotonic()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="durable_nb keeper", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(key, None)
                self._renewed.pop(key, None)

    def _run(self) -> None:
        while True:
            time.sleep(_TICK_SECONDS)
            with self._lock:
                watched = list(self._watched.items())
            for key, (journal, lease, state) in watched:
                self._look_after(key, journal, lease, state)

    def _look_after(self, key: int, journal: Journal, lease: Lease, state: ExecutionState) -> None:
        try:
            if time.monotonic() - self._renewed.get(key, 0.0) > LEASE_SECONDS / 3:
                journal.renew(lease, ttl=LEASE_SECONDS)
                self._renewed[key] = time.monotonic()
            before = state.cancelled
            news = state.refresh()
            state.flush()
            if state.cancelled is not None and before is None:
                state.close()
            if news:
                state.bell.ring()
        except (StoreError, BackgroundThreadError) as error:
            # Whoever runs the execution meets the same failure at its next record, and reports it there.
            logger.warning("the journal failed under execution %s: %s", lease.execution_id, error)
        except BaseException:
            # This thread keeps the leases of all executions: it must not end with what one of them met.
            logger.exception("execution %s could not be looked after", lease.execution_id)


KEEPER = Keeper()
"""The keeper of this process."""
