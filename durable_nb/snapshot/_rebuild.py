"""Constructors that pickles call: each undoes one rule of `_pickle`.

Their names are part of the stored format. Change one only by adding a new one beside it.
"""

from __future__ import annotations

import csv
import functools
import importlib
import io
import itertools
import os
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any

OWN_BELOW = 1 << 20
"""Bytes. A smaller array is copied out of the pickle, so that it owns its data and can be resized."""


# --- code --------------------------------------------------------------------------------------------------------


def code(*arguments: Any) -> CodeType:
    return CodeType(*arguments)


def empty_cell() -> CellType:
    return CellType()


def fill_cell(cell: CellType, contents: tuple[Any, ...]) -> None:
    if contents:
        cell.cell_contents = contents[0]


def function(
    code: CodeType, namespace: dict[str, Any], name: str, closure: tuple[CellType, ...] | None
) -> FunctionType:
    return FunctionType(code, namespace, name, None, closure)


def dress_function(made: FunctionType, state: Mapping[str, Any]) -> None:
    made.__defaults__ = state["defaults"]
    made.__kwdefaults__ = state["kwdefaults"]
    made.__qualname__ = state["qualname"]
    made.__module__ = state["module"]
    made.__doc__ = state["doc"]
    if state["annotations"]:
        made.__annotations__ = state["annotations"]
    made.__dict__.update(state["dict"])
    if state.get("type_params"):
        made.__type_params__ = state["type_params"]  # type: ignore[attr-defined]


def dress_instance(made: Any, state: Mapping[str, Any]) -> None:
    made.__dict__.update(state)


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool, attributes: dict[str, Any]) -> Any:
    """An `lru_cache` around the function, cold."""
    made = functools.lru_cache(maxsize=maxsize, typed=typed)(function)
    made.__dict__.clear()
    made.__dict__.update(attributes)
    return made


# --- memory ------------------------------------------------------------------------------------------------------


def memory(buffer: Any) -> Any:
    """A block that arrays share and no name holds."""
    view = memoryview(buffer)
    owner: Any = view.obj
    return owner if owner is not None and view.nbytes == memoryview(owner).nbytes else view


def array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: str, writeable: bool) -> Any:
    import numpy as np

    made: Any = np.ndarray(shape, dtype=dtype, buffer=buffer, order="F" if order == "F" else "C")
    if made.nbytes < OWN_BELOW or not made.flags.writeable:
        made = made.copy(order="F" if order == "F" else "C")
    if not writeable:
        made.flags.writeable = False
    return made


def object_array(items: list[Any], dtype: Any, shape: tuple[int, ...], order: str, writeable: bool) -> Any:
    import numpy as np

    made: Any = np.empty(shape, dtype=dtype, order="F" if order == "F" else "C")
    flat = made.reshape(-1, order="F" if order == "F" else "C")
    for position, item in enumerate(items):
        flat[position] = item
    made.flags.writeable = writeable
    return made


def view(root: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool) -> Any:
    """An array onto memory that other objects of the group use too."""
    import numpy as np

    if isinstance(root, np.ndarray) and root.dtype.hasobject:
        flat = root.reshape(-1, order="C" if root.flags.c_contiguous else "F")[offset // root.itemsize :]
        made: Any = np.lib.stride_tricks.as_strided(flat, shape=shape, strides=strides)
    else:
        made = np.ndarray(shape, dtype=dtype, buffer=root, offset=offset, strides=strides)
    if not writeable and made.flags.writeable:
        made.flags.writeable = False
    return made


def subclass_array(base: Any, kind: type, state: Any) -> Any:
    made = base.view(kind)
    if state:
        made.__dict__.update(state)
    return made


def memory_view(owner: Any, form: str, shape: tuple[int, ...], offset: int, nbytes: int, readonly: bool) -> memoryview:
    made = memoryview(owner).cast("B")[offset : offset + nbytes]
    if form != "B" or len(shape) != 1:
        made = made.cast(form, shape) if shape else made.cast(form)  # type: ignore[call-overload]
    return made.toreadonly() if readonly else made


# --- containers and links ----------------------------------------------------------------------------------------


def dict_view(which: str, owner: dict[Any, Any]) -> Any:
    return getattr(owner, which)()


def proxy(mapping: Any) -> Any:
    return types.MappingProxyType(mapping)


def reference(target: Any) -> Any:
    return weakref.ref(target)


def weak_values(items: Iterable[tuple[Any, Any]]) -> Any:
    return weakref.WeakValueDictionary(items)


def weak_keys(items: Iterable[tuple[Any, Any]]) -> Any:
    return weakref.WeakKeyDictionary(items)


def weak_set(items: Iterable[Any]) -> Any:
    return weakref.WeakSet(items)


def method(function: Any, owner: Any) -> Any:
    return types.MethodType(function, owner)


def exception(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return make(*arguments)


def chain_exception(made: BaseException, state: tuple[Any, Any, Any, bool]) -> None:
    attributes, made.__cause__, made.__context__, made.__suppress_context__ = state
    if attributes is not None:
        made.__setstate__(attributes)


def ordered_set(items: Iterable[Any], plan: list[int], fillers: list[Any], frozen: bool) -> Any:
    """A set whose iteration order is the stored one: see `_sets`.

    Args:
        items: the members.
        plan: in which order they are inserted; a negative number is a filler.
        fillers: for a set, slots that are taken while it is built. A frozen set takes none: there `(how, first)` says
            that its first members make a set of their own, which is united with the others (`"rest"`) or with all
            (`"all"`), as sets grow when they are united.
        frozen: make a frozen set.
    """
    kept = list(items)
    if frozen:
        members = [kept[step] for step in plan]
        if not fillers:
            return frozenset(dict.fromkeys(members))
        how, first = fillers
        start = frozenset(dict.fromkeys(members[:first]))
        return start.union(members[first:] if how == "rest" else dict.fromkeys(members))
    sequence: list[Any] = [kept[step] if step >= 0 else _Filler(fillers[-step - 1]) for step in plan]
    made = set(dict.fromkeys(sequence))
    for item in sequence:
        if type(item) is _Filler:
            made.discard(item)
    return made


class _Filler:
    """Takes one slot of a set's table while it is being built."""

    __slots__ = ("slot",)

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def __hash__(self) -> int:
        return self.slot


# --- classes -----------------------------------------------------------------------------------------------------


def class_skeleton(metaclass: type, name: str, bases: tuple[type, ...], keywords: dict[str, Any]) -> type:
    """A class without its attributes.

    Making it runs the hooks of its bases and its metaclass a second time, in a process where what they have noted comes
    back by itself: `__init_subclass__` may add to a table of the base.
    """
    lines = [getattr(one, "__mro__", ()) for one in (metaclass, *bases)]  # `NamedTuple` is a function
    noted = {base: _held_by(base) for line in lines for base in line if base.__module__ == _MAIN}
    made = types.new_class(name, bases, {"metaclass": metaclass}, lambda body: body.update(keywords))
    for base, held in noted.items():
        for attribute, (value, content) in held.items():
            _put_back(base, attribute, value, content)
    return made


_MAIN = "__main__"


def _held_by(cls: type) -> dict[str, tuple[Any, Any]]:
    """The class's own data, and copies of its tables."""
    tables = (list, dict, set)
    return {
        name: (value, type(value)(value) if type(value) in tables else None)
        for name, value in vars(cls).items()
        if not (name.startswith("__") and name.endswith("__")) and not hasattr(type(value), "__get__")
    }


def _put_back(cls: type, name: str, value: Any, content: Any) -> None:
    if vars(cls).get(name) is not value:
        setattr(cls, name, value)
    if content is not None and (len(content) != len(value) or list(content) != list(value)):
        value.clear()
        value.extend(content) if type(value) is list else value.update(content)


def class_body(made: Any, state: tuple[dict[str, Any], tuple[type, ...]]) -> None:
    attributes, registered = state
    for name, value in attributes.items():
        setattr(made, name, value)
    for subclass in registered:
        made.register(subclass)


def closed_file(kind: type, name: str | bytes | int | None, mode: str | None, encoding: str | None) -> Any:
    """A file object that was closed when it was stored: it remembers what it was, and nothing is opened for it."""
    raw: Any = io.FileIO(os.devnull, "r+" if kind is io.BufferedRandom else "w" if kind is io.BufferedWriter else "r")
    if name is not None:
        raw.name = name
    made: Any = raw
    if kind is io.TextIOWrapper:
        made = io.TextIOWrapper(io.BufferedReader(raw), encoding=encoding)
        made.mode = mode
    elif kind is not io.FileIO:
        made = kind(raw)
    made.close()
    return made


def ended_generator(name: str, qualname: str) -> Any:
    """A generator that has nothing left to give."""
    made: Any = (item for item in list[Any]())
    next(made, None)
    made.__name__, made.__qualname__ = name, qualname
    return made


def counter(start: Any, step: Any = 1) -> Any:
    """An `itertools.count` that goes on where it was."""
    return itertools.count(start, step)


def ended_executor(kind: Any, workers: int) -> Any:
    """An executor after its `shutdown`; none of its threads or processes is started."""
    made = kind(workers)
    made.shutdown()
    return made


class NoThread:
    """Stands for the threads of a pool that is over."""

    def __call__(self) -> None:
        """Nothing is left to terminate."""

    def join(self) -> None:
        """Nothing is left to wait for."""

    def is_alive(self) -> bool:
        """No."""
        return False


def ended_pool(kind: Any, processes: int) -> Any:
    """A pool after its end, as far as its methods tell: each says that the pool is not running."""
    import multiprocessing.pool

    made = kind.__new__(kind)
    made._ctx, made._processes, made._pool, made._cache = multiprocessing.get_context(), processes, [], {}
    made._state = multiprocessing.pool.TERMINATE
    made._terminate = made._worker_handler = made._task_handler = made._result_handler = NoThread()
    return made


def closed_zip(kind: Any, state: dict[str, Any]) -> Any:
    """A `ZipFile` after its `close`: it still tells what is in the archive."""
    made = kind.__new__(kind)
    made.__dict__.update(state, fp=None, _lock=threading.RLock())
    return made


def ended_csv_writer(dialect: dict[str, Any]) -> Any:
    """A `csv.writer` whose file was closed."""
    file = io.StringIO()
    made = csv.writer(file, **dialect)
    file.close()
    return made


def ended_csv_reader(dialect: dict[str, Any], lines: int) -> Any:
    """A `csv.reader` whose file was closed after so many lines."""

    def file() -> Iterator[str]:
        yield from ("x" for _ in range(lines))
        raise ValueError("I/O operation on closed file.")

    made = csv.reader(file(), **dialect)
    for _ in range(lines):
        next(made)
    return made


def closed_compressed(kind: Any, told: dict[str, Any]) -> Any:
    """A file of `gzip`, `bz2` or `lzma` after its `close`."""
    made = kind(fileobj=io.BytesIO(), mode="wb") if told else kind(io.BytesIO(), "wb")
    made.close()
    made.__dict__.update(told)
    return made


def ended_thread(name: str, daemon: bool) -> threading.Thread:
    """A thread that has run to its end."""
    made = threading.Thread(target=NoThread(), name=name, daemon=daemon)
    made.start()
    made.join()
    return made


def bare(kind: Any) -> Any:
    """An object whose constructor was not called."""
    return kind.__new__(kind)


def closed_h5() -> Any:
    """An `h5py.File` after its `close`: it has forgotten even its name."""
    h5py: Any = importlib.import_module("h5py")
    made = h5py.File("closed", "w", driver="core", backing_store=False)
    made.close()
    return made


def plotly_figure(kind: Any, data: list[Any], layout: dict[str, Any], frames: list[Any], noted: dict[str, Any]) -> Any:
    """A Plotly figure with its keys in the order they had, and what Plotly Express and subplots noted in it."""
    made = kind(data=data, layout=layout, frames=frames)
    _order_like(made._data, data)
    _order_like(made._layout, layout)
    made.__dict__.update(noted)
    return made


def dress_image(made: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """Give a Pillow image its pixels, and its attributes."""
    own, rest = state
    made.__setstate__(own)
    made.__dict__.update(rest)


def _order_like(value: Any, pattern: Any) -> None:
    """Bring the keys of nested dicts into the order of the pattern, in place."""
    if isinstance(value, dict) and isinstance(pattern, dict):
        for key in [*pattern, *(key for key in value if key not in pattern)]:
            if key in value:
                value[key] = value.pop(key)
                _order_like(value[key], pattern.get(key))
    elif isinstance(value, (list, tuple)) and isinstance(pattern, (list, tuple)):
        for item, other in zip(value, pattern, strict=False):
            _order_like(item, other)
