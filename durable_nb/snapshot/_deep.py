"""Run something recursive on a stack of its own, so that no depth of a user's data ends in a RecursionError.

The limit is the interpreter's, not the thread's: it is raised only while the call runs and only after an attempt with
the ordinary one failed, and the caller waits, so that no user code of the main thread runs meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

_STACK = 512 << 20
_LIMIT = 400_000
_lock = threading.Lock()


def deeply(call: Callable[[], Result]) -> Result:
    """`call()` with room for some 100,000 nested levels; its exception is raised here."""
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome.append((True, call()))
        except BaseException as exc:  # noqa: BLE001 - handed over to the waiting thread, whatever it is
            outcome.append((False, exc))

    with _lock:
        size, limit = threading.stack_size(_STACK), sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, _LIMIT))
        try:
            worker = threading.Thread(target=body, name="durable_nb deep")
            worker.start()
            _wait(worker)
        finally:
            sys.setrecursionlimit(limit)
            threading.stack_size(size)
    good, value = outcome[0]
    if good:
        result: Result = value
        return result
    raise value


def _wait(worker: threading.Thread) -> None:
    """Join to the end even when interrupted: the limit must not fall while the worker is deep."""
    interrupted: BaseException | None = None
    while worker.is_alive():
        try:
            worker.join()
        except KeyboardInterrupt as exc:
            interrupted = exc
    if interrupted is not None:
        raise interrupted
