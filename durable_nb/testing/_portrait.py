"""A picture of a namespace that two kernels can compare: content, types and sharing, as text.

Replay is right when nobody can tell it from a run. `==` cannot say that: it calls `1` and `True`, a list and its copy
equal, and an instance of a class unequal to one of the class defined anew; and it runs the user's code. So each name is
drawn as a text that holds

- the exact type and the content of every object that can be reached, in order (also of dictionaries and sets);
- a number for each mutable object, given at first sight: two names with one number are one object;
- for arrays the memory they share, and where they lie in it;
- for functions the code, defaults, closure cells and whether their globals are the notebook's own namespace.

The picture never runs the user's code on purpose, except what pickling would run too (`__reduce_ex__`), and never keeps
a reference to what it saw. This module imports nothing but the standard library, so that a plain kernel can run it from
its file.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import os
import pathlib
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

HIDDEN = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})
"""Names that IPython puts into a namespace."""

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented), range)
_DEEPEST = 150
_LONG = 200
_FOREIGN = frozenset(
    {
        "matplotlib",
        "sqlite3",
        "_sqlite3",
        "socket",
        "_socket",
        "ssl",
        "subprocess",
        "threading",
        "_thread",
        "concurrent",
        "asyncio",
        "_asyncio",
        "ipywidgets",
        "traitlets",
        "IPython",
        "logging",
        "tqdm",
        "durable_nb",
    }
)
"""Packages whose objects hold machinery of the process: type and sharing are drawn, the inside is left to probes."""


def portrait(namespace: Mapping[str, Any]) -> dict[str, str]:
    """One text per name of the user's."""
    painter = Painter(namespace)
    names = sorted(name for name in namespace if not name.startswith("_") and name not in HIDDEN)
    return {name: painter.draw(namespace[name]) for name in names}


def portraits(namespace: Mapping[str, Any]) -> dict[str, str]:
    """One text per name that does not depend on other names' content, only on what it shares with which.

    A name that differs by itself (a clock, a draw) leaves the texts of all others as they are.
    """
    painters: dict[str, Painter] = {}
    found = {}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _DEEPEST * 20)
    try:
        for name in sorted(each for each in namespace if not each.startswith("_") and each not in HIDDEN):
            painter = painters[name] = Painter(namespace)
            text = painter.draw(namespace[name])
            shares = [
                f"{other}:{n}"
                for other, each in painters.items()
                if each is not painter and (n := painter.shares(each))
            ]
            found[name] = text + (f" shares {' '.join(shares)}" if shares else "")
    finally:
        sys.setrecursionlimit(limit)
    return found


class Painter:
    """Draws values; what it has seen keeps its number."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._namespace = namespace
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []
        self._memory: list[tuple[int, int, int, int]] = []
        self._depth = 0

    def shares(self, other: Painter) -> int:
        """How many mutable objects and pieces of memory this drawing has in common with another."""
        memory = sum(any(a[0] < b[1] and b[0] < a[1] for b in other._memory) for a in self._memory)
        return len(self._seen.keys() & other._seen.keys()) + memory

    def draw(self, value: Any) -> str:
        """The text of one value."""
        if self._depth > _DEEPEST:
            return "<deep>"
        self._depth += 1
        try:
            return self._draw(value)
        finally:
            self._depth -= 1

    def _draw(self, value: Any) -> str:
        kind = type(value)
        if kind in _ATOMS:
            return _atom(value)
        if kind in (tuple, frozenset):
            return f"{kind.__name__}({self._items(value)})"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, type) and value.__module__ != "__main__":
            return f"class {value.__module__}.{value.__qualname__}"
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, (numpy.generic, numpy.dtype)):
            return f"{kind.__name__}:{value.dtype.str if isinstance(value, numpy.generic) else value!r}:{value!r}"
        number = self._seen.get(id(value))
        if number is not None:
            return f"#{number}"
        number = self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        return f"#{number}={self._inside(value, kind)}"

    def _inside(self, value: Any, kind: type) -> str:
        for accepts, draw in _RULES:
            if accepts(value):
                return draw(self, value)
        return f"{_name_of(kind)}{self._object(value, kind)}"

    def _items(self, values: Any) -> str:
        return ", ".join(self.draw(item) for item in values)

    def _pairs(self, values: Mapping[Any, Any]) -> str:
        return ", ".join(f"{self.draw(key)}: {self.draw(item)}" for key, item in values.items())

    # --- kinds of values -------------------------------------------------------------------------------------------

    def _container(self, value: Any) -> str:
        kind = type(value)
        inside = self._pairs(dict.copy(value)) if isinstance(value, dict) else self._items(list(value))
        more = ""
        if isinstance(value, collections.defaultdict):
            more += f" factory={self.draw(value.default_factory)}"
        if isinstance(value, collections.deque):
            more += f" maxlen={value.maxlen}"
        own = getattr(value, "__dict__", None)
        if own:
            more += f" attributes={{{self._pairs(own)}}}"
        return (
            f"{_name_of(kind)}[{inside}]{more}"
            if kind.__module__ != "__main__"
            else (f"{self.draw(kind)}[{inside}]{more}")
        )

    def _function(self, value: types.FunctionType) -> str:
        if value.__module__ != "__main__" and value.__globals__ is not self._namespace:
            return f"function {value.__module__}.{value.__qualname__}"
        cells = []
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            number = self._seen.setdefault(id(cell), len(self._seen))
            self._alive.append(cell)
            try:
                cells.append(f"{name}#{number}={self.draw(cell.cell_contents)}")
            except ValueError:
                cells.append(f"{name}#{number} empty")
        parts = [
            f"function {value.__qualname__} {_code(value.__code__)}",
            f"defaults={self.draw(value.__defaults__)}",
            f"keywords={self.draw(value.__kwdefaults__)}",
            f"closure=({', '.join(cells)})",
            f"attributes={{{self._pairs(value.__dict__)}}}",
            f"live={value.__globals__ is self._namespace}",
            f"doc={value.__doc__!r}",
        ]
        return " ".join(parts)

    def _class(self, value: type) -> str:
        # `__slotnames__` is a memory of copyreg's, made when an instance is first pickled.
        hidden = {
            "__dict__",
            "__weakref__",
            "__module__",
            "_abc_impl",
            "__slotnames__",
            "__firstlineno__",
            "__static_attributes__",
        }
        own = {key: item for key, item in sorted(vars(value).items()) if key not in hidden}
        return f"class {value.__qualname__}({self._items(value.__bases__)}) {{{self._pairs(own)}}}"

    def _array(self, value: Any) -> str:
        shared = f" memory={self._share(value)}" if value.size and not value.dtype.hasobject else ""
        head = f"{_name_of(type(value))} {value.dtype!r} {value.shape} writeable={value.flags.writeable}{shared}"
        if value.dtype.hasobject:
            return f"{head} [{self._items(value.ravel().tolist())}]"
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        if type(value).__module__ == "numpy.ma" or hasattr(value, "mask"):
            head += f" mask={value.mask!r}"
        return f"{head} {order} {_digest(_content(value))} {_shorten(str(value.ravel()[:6]))}"

    def _share(self, value: Any) -> str:
        """Which memory it lies in, and where relative to the array that was seen there first."""
        start = low = high = value.__array_interface__["data"][0]
        for length, stride in zip(value.shape, value.strides, strict=True):
            low, high = low + min(stride * (length - 1), 0), high + max(stride * (length - 1), 0)
        high += value.itemsize
        found = next((each for each in self._memory if each[0] < high and low < each[1]), None)
        number, first = (len(self._memory), start) if found is None else found[2:]
        self._memory.append((low, high, number, first))
        return f"{number}{start - first:+d}"

    def _frame(self, value: Any) -> str:
        name = _name_of(type(value))
        attributes = f" attrs={self.draw(value.attrs)}" if getattr(value, "attrs", None) else ""
        if hasattr(value, "columns"):
            columns = [
                f"{self.draw(value.columns[n])}: {self._series(value.iloc[:, n])}" for n in range(value.shape[1])
            ]
            return f"{name} index={self._series(value.index)} {{{', '.join(columns)}}}{attributes}"
        index = f" index={self._series(value.index)} name={value.name!r}" if hasattr(value, "index") else ""
        return f"{name}{index} {self._series(value)}{attributes}"

    def _series(self, value: Any) -> str:
        if hasattr(value, "levels"):
            return f"{value.dtype!r} {value.names!r} {_shorten(repr(value.tolist()))}"
        return f"{value.dtype!r} {value.name!r} [{self._items(value.tolist())}]"

    def _generator(self, value: Any) -> str:
        frame = getattr(value, "gi_frame", None) or getattr(value, "cr_frame", None)
        if frame is None:
            return f"{type(value).__name__} finished"
        return f"{type(value).__name__} {_code(frame.f_code)} at={frame.f_lasti} {{{self._pairs(frame.f_locals)}}}"

    def _file(self, value: Any) -> str:
        if isinstance(value, (io.StringIO, io.BytesIO)):
            place = "closed" if value.closed else f"at={value.tell()} {value.getvalue()!r}"
            return f"{_name_of(type(value))} {place}"
        if value.closed:
            return f"{_name_of(type(value))} {value.name!r} closed"
        return f"{_name_of(type(value))} {value.name!r} {getattr(value, 'mode', '')} at={_tell(value)}"

    def _resource(self, value: Any) -> str:
        """What can be asked of a pool, a thread or an archive: whether it is over. Its insides are its own."""
        names = {_name_of(base) for base in type(value).__mro__}
        over = next(ask(value) for name, ask in _RESOURCES.items() if name in names)
        return f"{_name_of(type(value))} {'over' if over else 'in use'}"

    def _plotly(self, value: Any) -> str:
        """What is shown; views of it are made when they are first asked for."""
        return f"{_name_of(type(value))} {self.draw(value._data)} {self.draw(value._layout)} {len(value.frames)} frames"

    def _method(self, value: Any) -> str:
        return f"method {self.draw(value.__func__)} of {self.draw(value.__self__)}"

    def _builtin(self, value: Any) -> str:
        owner = getattr(value, "__self__", None)
        bound = "" if owner is None or isinstance(owner, types.ModuleType) else f" of {self.draw(owner)}"
        return f"builtin {value.__qualname__}{bound}"

    def _cached(self, value: Any) -> str:
        """How full the memory is may differ: it starts cold."""
        return f"lru_cache {self.draw(value.__wrapped__)} {value.cache_parameters()}"

    def _wrapper(self, value: Any) -> str:
        parts = [getattr(value, name, None) for name in ("fget", "fset", "fdel", "__func__")]
        return f"{type(value).__name__}({self._items(parts)})"

    def _bytes(self, value: Any) -> str:
        owner = f" of {self.draw(value.obj)}" if isinstance(value, memoryview) else ""
        return f"{type(value).__name__} {_shorten(repr(bytes(value)))}{owner}"

    def _object(self, value: Any, kind: type) -> str:
        top = kind.__module__.partition(".")[0]
        if top in _FOREIGN:
            return ""
        own = f" of {self.draw(kind)}" if kind.__module__ == "__main__" else ""
        try:
            # In the order of their names: pickling may set them in another one than `__init__` did.
            found = dict(sorted(_state(value), key=lambda item: str(item[0])))
        except Exception as exc:  # noqa: BLE001 - whatever a user's property raises is part of the picture
            return f"{own} unreadable: {type(exc).__name__}"
        if found:
            return f"{own} {{{self._pairs(found)}}}"
        looked: Any = kind
        plain = looked.__reduce_ex__ is object.__reduce_ex__ and looked.__reduce__ is object.__reduce__
        if plain and getattr(value, "__dict__", None) is not None:
            return f"{own} {{}}"
        return own + self._reduced(value)

    def _reduced(self, value: Any) -> str:
        try:
            made = value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 - it cannot be pickled: its type and its sharing are what there is to see
            return ""
        if isinstance(made, str):
            return f" global {made}"
        parts = [self.draw(part) for part in made[:3]]
        parts.extend(self._items(list(part)) for part in made[3:5] if part is not None)
        return f" made({'; '.join(parts)})"


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    yield from (getattr(value, "__dict__", None) or {}).items()
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{kind.__name__.lstrip('_')}{slot}" if slot.startswith("__") and not slot.endswith("__") else slot
            if name not in ("__dict__", "__weakref__"):
                try:
                    yield name, object.__getattribute__(value, name)
                except AttributeError:
                    continue


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_frame(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index))


_GENERATORS = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)
_BUILTINS = (types.BuiltinFunctionType, types.MethodWrapperType)

_DESCRIPTORS = (
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
)
_WEAK_TABLES = (weakref.WeakValueDictionary, weakref.WeakKeyDictionary)


def _of_types(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _of_named(*names: str) -> Callable[[Any], bool]:
    return lambda value: any(_name_of(base) in names for base in type(value).__mro__)


_RESOURCES: dict[str, Callable[[Any], Any]] = {
    "concurrent.futures.thread.ThreadPoolExecutor": lambda value: value._shutdown,
    "concurrent.futures.process.ProcessPoolExecutor": lambda value: value._shutdown_thread,
    "multiprocessing.pool.Pool": lambda value: value._state != "RUN",
    "threading.Thread": lambda value: value.ident is not None and not value.is_alive(),
    "zipfile.ZipFile": lambda value: value.fp is None,
    "tarfile.TarFile": lambda value: value.closed,
    "h5py._hl.files.File": lambda value: not value,
}
"""Types that stand for something outside, and how they say that it is over."""

_RULES: tuple[tuple[Callable[[Any], bool], Callable[[Painter, Any], str]], ...] = (
    (_of_types(type), Painter._class),
    (_of_types(types.FunctionType), Painter._function),
    (_of_types(types.MethodType), Painter._method),
    (_of_types(*_BUILTINS), Painter._builtin),
    (_of_types(types.CodeType), lambda _, value: _code(value)),
    (_of_types(weakref.ReferenceType), lambda painter, value: f"weakref {painter.draw(value())}"),
    (_of_types(functools._lru_cache_wrapper), Painter._cached),
    (_of_types(*_GENERATORS), Painter._generator),
    (_of_types(property, classmethod, staticmethod), Painter._wrapper),
    (_of_types(*_DESCRIPTORS), lambda _, value: f"{type(value).__name__} {value.__qualname__}"),
    (_of_types(types.MappingProxyType), lambda painter, value: f"proxy {{{painter._pairs(value)}}}"),
    # They note when they were last cleaned up; their content is what can be told apart.
    (
        _of_types(*_WEAK_TABLES),
        lambda painter, value: f"{type(value).__name__} {{{painter._pairs(dict(value.items()))}}}",
    ),
    # Paths keep their texts once they were asked for.
    (_of_types(pathlib.PurePath), lambda _, value: f"{type(value).__name__} {str(value)!r}"),
    (_is_array, Painter._array),
    (_is_frame, Painter._frame),
    (_of_types(dict, list, set, frozenset, tuple, collections.deque), Painter._container),
    (_of_types(bytearray, memoryview), Painter._bytes),
    (_of_types(io.IOBase), Painter._file),
    (_of_named(*_RESOURCES), Painter._resource),
    (_of_named("plotly.basedatatypes.BaseFigure"), Painter._plotly),
)


def _atom(value: Any) -> str:
    text = repr(value)
    if len(text) > _LONG:
        return f"{type(value).__name__} {_digest(text.encode('utf-8', 'surrogatepass'))} {text[:60]}"
    return text


def _content(array: Any) -> bytes:
    """The bytes of an array; of records only the fields', since what lies between them is nobody's."""
    if not array.dtype.names:
        return bytes(array.tobytes())
    return b"".join(_content(array[name]) for name in array.dtype.names)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:60]}…{_digest(text.encode())}"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _code(code: types.CodeType) -> str:
    constants = [_code(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts]
    text = repr((code.co_name, code.co_names, code.co_varnames, code.co_freevars, constants, code.co_flags))
    return f"code:{_digest(code.co_code + text.encode())}"


def _tell(value: Any) -> int | str:
    try:
        return int(value.tell())
    except (OSError, ValueError) as exc:
        return type(exc).__name__


# --- process state ---------------------------------------------------------------------------------------------------

_UNSTEADY = ("JPY_", "DURABLE_NB_", "PYTEST_", "COLUMNS", "LINES", "IPY", "JUPYTER_", "PYDEVD_")


def surroundings() -> dict[str, str]:
    """What cells may set in the process outside the namespace, part by part."""
    import decimal
    import locale
    import logging
    import random
    import signal
    import warnings

    environment = {key: value for key, value in os.environ.items() if not key.startswith(_UNSTEADY)}
    root = logging.getLogger()
    handlers = {
        name.name: _handler(signal.getsignal(name)) for name in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
    }
    mask = os.umask(0)
    os.umask(mask)
    found = {
        "cwd": os.getcwd(),  # noqa: PTH109 - as the user's code sees it
        "environ": repr(sorted(environment.items())),
        "sys.path": repr(sys.path),
        "random": _digest(repr(random.getstate()).encode()),
        "warnings": repr([(each[0], str(each[1]), str(each[2]), str(each[3]), each[4]) for each in warnings.filters]),
        "decimal": repr(decimal.getcontext()),
        "locale": repr(locale.setlocale(locale.LC_ALL)),
        "logging": f"{root.level} {[type(each).__name__ for each in root.handlers]}",
        "signals": repr(handlers),
        "umask": oct(mask),
    }
    found.update(_of_packages())
    return found


def _of_packages() -> Iterator[tuple[str, str]]:
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        yield "numpy.random", _digest(repr(numpy.random.get_state(legacy=False)).encode())
        yield "numpy.errors", repr(numpy.geterr())
        yield (
            "numpy.print",
            repr({key: numpy.get_printoptions()[key] for key in ("precision", "threshold", "linewidth")}),
        )
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is not None and hasattr(matplotlib, "rcParams"):
        parameters = {key: value for key, value in dict.items(matplotlib.rcParams) if not key.startswith("backend")}
        yield "rcParams", _digest(repr(sorted(parameters.items(), key=lambda item: item[0])).encode())
    pandas = sys.modules.get("pandas")
    if pandas is not None and hasattr(pandas, "describe_option"):
        names = (
            "display.max_rows",
            "display.max_columns",
            "display.precision",
            "mode.chained_assignment",
            "display.width",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some options are deprecated, and the notebook may have made that an error
            options = [(name, pandas.get_option(name)) for name in names]
        yield "pandas", repr(options)


def _handler(found: Any) -> str:
    return getattr(found, "__qualname__", None) or str(found)


def whole(namespace: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Names, prompts and process state: all that two kernels have to agree on."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _DEEPEST * 20)
    try:
        return _whole(namespace)
    finally:
        sys.setrecursionlimit(limit)


def _whole(namespace: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    prompts = {"In": repr(list(namespace.get("In", [])))}
    painter = Painter(namespace)
    for number, value in dict(namespace.get("Out", {})).items():
        prompts[f"Out[{number}]"] = painter.draw(value)
    for name in ("_", "__", "___"):
        if name in namespace:
            prompts[name] = painter.draw(namespace[name])
    return {"names": portrait(namespace), "prompts": prompts, "process": dict(surroundings())}
