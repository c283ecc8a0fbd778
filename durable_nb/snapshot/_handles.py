"""What can be told of a handle without using it: enough to see that a cell did more than read it.

A handle is never stored, and a cell that only reads it does not change it. A cell that takes a lock, sets an event,
writes to a database without a file or changes memory that is mapped to one does, and must run again with what made the
handle; it is found by comparing these texts before and after.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from durable_nb.snapshot._digest import hash_bytes
from durable_nb.snapshot._kinds import full_name


def state_of(value: Any) -> str:
    """A text that differs when the handle's own state does; empty where nothing can be told."""
    for base in type(value).__mro__:
        look = _STATES.get(full_name(base))
        if look is not None:
            try:
                return look(value)
            except Exception:  # noqa: BLE001 - closed, of another thread: that it cannot be asked is its state
                return "unknown"
    return ""


def _lock(value: Any) -> str:
    return f"locked {value.locked()}"


def _recursive_lock(value: Any) -> str:
    return repr(value).partition(" at ")[0]


def _event(value: threading.Event) -> str:
    return f"set {value.is_set()}"


def _counter(value: Any) -> str:
    return f"value {value._value}"


def _thread(value: threading.Thread) -> str:
    return f"started {value.ident is not None} alive {value.is_alive()}"


def _executor(value: Any) -> str:
    return f"shut down {getattr(value, '_shutdown', getattr(value, '_shutdown_thread', None))}"


def _future(value: Any) -> str:
    return f"done {value.done()}"


def _sqlite(value: Any) -> str:
    """Databases with a file are the file's matter; one in memory is the connection's own."""
    places = value.execute("PRAGMA database_list").fetchall()
    if all(place[2] for place in places if place[1] != "temp"):
        return f"transaction {value.in_transaction}"
    schema = value.execute("PRAGMA schema_version").fetchone()[0]
    return f"transaction {value.in_transaction} changes {value.total_changes} schema {schema}"


def _memory_map(value: Any) -> str:
    """A map that only reads changes with its file; what a writer did shows in the bytes."""
    numpy: Any = sys.modules["numpy"]
    if not value.flags.writeable:
        return ""
    return hash_bytes(numpy.ascontiguousarray(value).view(numpy.uint8).data)


_STATES: dict[str, Callable[[Any], str]] = {
    "_thread.lock": _lock,
    "_thread.RLock": _recursive_lock,
    "threading.Event": _event,
    "threading.Semaphore": _counter,
    "threading.Thread": _thread,
    "concurrent.futures._base.Executor": _executor,
    "concurrent.futures._base.Future": _future,
    "_asyncio.Future": _future,
    "asyncio.futures.Future": _future,
    "sqlite3.Connection": _sqlite,
    "numpy.memmap": _memory_map,
}
