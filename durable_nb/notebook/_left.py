"""Work that a cell leaves running: a checkpoint of an unfinished cell would promise too much.

Only work whose code the user wrote counts: libraries keep idle threads (pools, monitors, history savers) for good.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from durable_nb._ident import ident

IsUserFile = Callable[[str], bool]


def running_work() -> frozenset[int]:
    """Identities of the threads and tasks that run now."""
    return frozenset(ident(item) for item in (*threading.enumerate(), *_tasks()))


def left_by(before: frozenset[int], is_user_file: IsUserFile) -> str | None:
    """What was started since and still runs, for people; None when nothing does."""
    for thread in _user_threads(is_user_file):
        if ident(thread) not in before and thread.is_alive():
            return f"thread {thread.name!r} that it started is still running"
    for task in _tasks():
        if ident(task) not in before and not task.done() and _is_user_task(task, is_user_file):
            return f"task {task.get_name()!r} that it started is still running"
    return None


class _Seen:
    """The threads that ran when it was asked last, and those of them that run the user's code."""

    judge: IsUserFile | None = None
    threads: Sequence[threading.Thread] = ()
    users: Sequence[threading.Thread] = ()


def _user_threads(is_user_file: IsUserFile) -> Sequence[threading.Thread]:
    threads = threading.enumerate()
    if threads != _Seen.threads or is_user_file != _Seen.judge:  # each cell asks twice, nearly always of the same ones
        _Seen.judge, _Seen.threads = is_user_file, threads
        _Seen.users = [thread for thread in threads if _runs_user_code(thread, is_user_file)]
    return _Seen.users


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:  # no loop runs in this thread
        return set()


def _runs_user_code(thread: threading.Thread, is_user_file: IsUserFile) -> bool:
    target = getattr(thread, "_target", None)
    code = getattr(getattr(target, "__func__", target), "__code__", None)
    if code is None and type(thread).run is not threading.Thread.run:
        code = getattr(type(thread).run, "__code__", None)
    return code is not None and is_user_file(code.co_filename)


def _is_user_task(task: asyncio.Task[Any], is_user_file: IsUserFile) -> bool:
    coroutine = task.get_coro()
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    return code is not None and is_user_file(code.co_filename)
