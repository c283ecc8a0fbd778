"""Resources whose use is over: closed files and archives, executors and pools that were shut down, ended generators.

A `with` statement leaves its name behind (`with ThreadPoolExecutor() as pool: …`). What it is bound to then stands for
nothing outside any more, so it can be stored: as an object of its type that is over as well, and remembers what could
still be asked of it.
"""

from __future__ import annotations

import gc
import io
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durable_nb.snapshot import _rebuild
from durable_nb.snapshot._kinds import full_name

if TYPE_CHECKING:
    from durable_nb.snapshot._pickle import GroupPickler

_FILES = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)


def is_over(value: Any) -> bool:
    """Whether nothing can be done with a stream or handle any more."""
    kind = type(value)
    if kind in _FILES:
        return bool(value.closed)
    entry = _OVER.get(full_name(kind))
    return entry is not None and bool(entry[0](value))


def can_be_over(kind: type) -> bool:
    """Whether `is_over` may be true of instances of a type."""
    return kind in _FILES or full_name(kind) in _OVER


def reduce_over(self: GroupPickler, value: Any) -> Any:  # noqa: ARG001 - the signature of a rule
    """What `__reduce__` would give for a resource whose use is over."""
    kind = type(value)
    return _file(value) if kind in _FILES else _OVER[full_name(kind)][1](value)


def _file(value: Any) -> Any:
    name = value.name if isinstance(getattr(value, "name", None), (str, bytes, int)) else None
    mode = value.mode if isinstance(getattr(value, "mode", None), str) else None
    encoding = value.encoding if type(value) is io.TextIOWrapper else None
    return _rebuild.closed_file, (type(value), name, mode, encoding)


def _generator(value: types.GeneratorType[Any, Any, Any]) -> Any:
    return _rebuild.ended_generator, (value.__name__, value.__qualname__)


def _threads_over(value: Any) -> bool:
    return bool(value._shutdown) and not any(thread.is_alive() for thread in value._threads)


def _processes_over(value: Any) -> bool:
    return bool(value._shutdown_thread) and value._executor_manager_thread is None


def _pool_over(value: Any) -> bool:
    ended: Any = sys.modules["multiprocessing.pool"]
    return value._state in (ended.CLOSE, ended.TERMINATE) and not any(worker.is_alive() for worker in value._pool)


def _zip(value: Any) -> Any:
    return _rebuild.closed_zip, (
        type(value),
        {key: part for key, part in vars(value).items() if key not in ("_lock", "fp")},
    )


def _csv_over(value: Any) -> bool:
    """Whether the file that is read or written is closed; only the interpreter knows which one it is."""
    held = [getattr(item, "__self__", item) for item in gc.get_referents(value)]
    return any(isinstance(item, io.IOBase) and item.closed for item in held)


def _csv(value: Any) -> Any:
    dialect = {name: getattr(value.dialect, name) for name in _DIALECT}
    lines = getattr(value, "line_num", None)
    return (_rebuild.ended_csv_writer, (dialect,)) if lines is None else (_rebuild.ended_csv_reader, (dialect, lines))


_DIALECT = (
    "delimiter",
    "doublequote",
    "escapechar",
    "lineterminator",
    "quotechar",
    "quoting",
    "skipinitialspace",
    "strict",
)


def _compressed(value: Any) -> Any:
    return _rebuild.closed_compressed, (
        type(value),
        {"mode": value.mode, "name": value.name} if type(value).__name__ == "GzipFile" else {},
    )


def _thread(value: Any) -> Any:
    return _rebuild.ended_thread, (value.name, value.daemon)


_OVER: dict[str, tuple[Callable[[Any], bool], Callable[[Any], Any]]] = {
    "builtins.generator": (lambda value: value.gi_frame is None, _generator),
    "concurrent.futures.thread.ThreadPoolExecutor": (
        _threads_over,
        lambda value: (_rebuild.ended_executor, (type(value), value._max_workers)),
    ),
    "concurrent.futures.process.ProcessPoolExecutor": (
        _processes_over,
        lambda value: (_rebuild.ended_executor, (type(value), value._max_workers)),
    ),
    "multiprocessing.pool.Pool": (
        _pool_over,
        lambda value: (_rebuild.ended_pool, (type(value), value._processes)),
    ),
    "multiprocessing.pool.ThreadPool": (
        _pool_over,
        lambda value: (_rebuild.ended_pool, (type(value), value._processes)),
    ),
    "_csv.reader": (_csv_over, _csv),
    "_csv.writer": (_csv_over, _csv),
    "bz2.BZ2File": (lambda value: value.closed, _compressed),
    "gzip.GzipFile": (lambda value: value.closed, _compressed),
    "lzma.LZMAFile": (lambda value: value.closed, _compressed),
    "tarfile.TarFile": (lambda value: value.closed, lambda value: (_rebuild.bare, (type(value),), vars(value))),
    "threading.Thread": (lambda value: value.ident is not None and not value.is_alive(), _thread),
    "zipfile.ZipFile": (lambda value: value.fp is None, _zip),
    "h5py._hl.files.File": (lambda value: not value, lambda value: (_rebuild.closed_h5, ())),
}
"""By full name: whether a value is over, and what it is then reduced to."""
