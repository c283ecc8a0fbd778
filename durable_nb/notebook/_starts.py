"""The record that a cell has begun, for cells that take a moment.

It is there for people: `ls` shows what runs, and what a dead kernel was at. Nothing is decided by it. Steps that run at
most once and cells that are tried again are: theirs is written before their first statement, and not here. A cell that
ends at once is recorded by its end, which tells when it began; so most cells write once and not twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from durable_nb.exceptions import DurableExecutionsError
from durable_nb.notebook._cell import Cell

logger = logging.getLogger(__name__)

MOMENT = 0.01
"""Seconds after which the start of a cell that still runs is recorded, within as much again. With none, each start is
recorded before its cell: what a run writes does not depend on how fast it is then, which rehearsals of faults need."""
_REST = 1.0
"""Seconds without a cell after which nobody looks any more, until the next one."""


class Starts:
    """Records starts from a thread of its own.

    Args:
        record: writes the start of a cell.
    """

    def __init__(self, record: Callable[[Cell], None]) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._begun: tuple[Cell, float] | None = None
        """The cell whose start is not recorded, and when it began (of `time.monotonic`)."""
        self._wake = threading.Event()
        self._rests = True
        self._thread: threading.Thread | None = None
        self._ended = False

    def begin(self, cell: Cell) -> None:
        """A cell begins; when it is a step inside of another, that one is visible from now on."""
        self.record_now()
        self._begun = (cell, time.monotonic())
        if not MOMENT:
            self.record_now()
        elif self._rests:  # set by the thread before it looks at `_begun` for the last time
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durable_nb starts", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """The cell has ended, and so it needs no start; one that is being written is waited for."""
        with self._lock:
            self._begun = None

    def record_now(self) -> None:
        """Record the start that is due, if there is one."""
        with self._lock:
            begun, self._begun = self._begun, None
            if begun is not None:
                with suppress(DurableExecutionsError, OSError):  # the record of the end meets it too, and tells
                    self._record(begun[0])

    def close(self) -> None:
        """No cell follows."""
        self.end()
        self._ended = True
        self._wake.set()

    def _run(self) -> None:
        self._rests, looked = False, time.monotonic()
        while not self._ended:
            if self._begun is None and time.monotonic() - looked > _REST:
                self._rests = True
                if self._begun is None:
                    self._wake.wait()
                self._wake.clear()
                self._rests = False
            time.sleep(MOMENT)
            begun = self._begun
            if begun is not None:
                looked = time.monotonic()
                if looked - begun[1] >= MOMENT:
                    try:
                        self.record_now()
                    except Exception:  # the starts of later cells are recorded by this thread too
                        logger.exception("the start of cell %r could not be recorded", begun[0].label)
