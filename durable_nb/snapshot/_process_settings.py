"""Settings behind functions: of the interpreter, of the standard library, of scikit-learn, of the shell and of pyplot.

A setting is a value that one function reads and another sets (`socket.setdefaulttimeout`). All of one table are one
part. What a cell registers with the shell or with `copyreg` is code, not data: such a cell runs again.
"""

from __future__ import annotations

import copyreg
import functools
import gc
import importlib
import operator
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._process_part import Part, Steady, packed, unpacked

try:
    _resource: Any = importlib.import_module("resource")
except ImportError:  # not a POSIX system
    _resource = None


def _loaded(module: str) -> Any:
    return sys.modules.get(module)


def _socket_timeout() -> Any:
    socket = _loaded("socket")
    return None if socket is None else socket.getdefaulttimeout()


def _set_socket_timeout(value: Any) -> None:
    import socket

    socket.setdefaulttimeout(value)


_CSV_LIMIT = 128 * 1024  # the module's own default
_CSV_DIALECTS = frozenset({"excel", "excel-tab", "unix"})
_CSV_FIELDS = ("delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting", "skipinitialspace")


def _csv_limit() -> Any:
    csv = _loaded("csv")
    return _CSV_LIMIT if csv is None else csv.field_size_limit()


def _set_csv_limit(value: Any) -> None:
    import csv

    csv.field_size_limit(value)


def _csv_dialects() -> Any:
    csv = _loaded("csv")
    names = () if csv is None else sorted(_CSV_DIALECTS.symmetric_difference(csv.list_dialects()))
    return tuple((name, _dialect(csv, name)) for name in names)


def _dialect(csv: Any, name: str) -> Any:
    if name not in csv.list_dialects():
        return None
    return tuple((field, getattr(csv.get_dialect(name), field)) for field in _CSV_FIELDS)


def _set_csv_dialects(value: Any) -> None:
    import csv

    for name in set(csv.list_dialects()) - _CSV_DIALECTS:
        csv.unregister_dialect(name)
    for name, fields in value:
        if fields is None:
            csv.unregister_dialect(name)
        else:
            csv.register_dialect(name, **dict(fields))


def _collector() -> Any:
    return gc.isenabled(), gc.get_threshold()


def _set_collector(value: Any) -> None:
    enabled, thresholds = value
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*thresholds)


def _set_time_zone(value: Any) -> None:  # noqa: ARG001 - it follows from the environment, which is put back before
    time.tzset()


def _sklearn() -> Any:
    config = _loaded("sklearn._config")
    if config is None or not hasattr(config, "get_config"):
        return None
    now = config.get_config()
    return None if now == config._global_config else now


def _set_sklearn(value: Any) -> None:
    config: Any = importlib.import_module("sklearn._config")
    config.set_config(**(value or config._global_config))


def _statements() -> Any:
    shell = _shell()
    return None if shell is None else _trait(shell, "ast_node_interactivity")


def _set_statements(value: Any) -> None:
    shell = _shell()
    if shell is not None and value is not None:
        shell.ast_node_interactivity = value


def _shell() -> Any:
    module = _loaded("IPython.core.interactiveshell")
    return None if module is None else getattr(module.InteractiveShell, "_instance", None)


_LIMITS: dict[str, int] = {
    name: getattr(_resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "RSS", "STACK")
    if hasattr(_resource, f"RLIMIT_{name}")
}
"""The limits that this system has, and their numbers."""


def _limits() -> Any:
    # Imported, not only looked for: whoever loads it first changes nothing.
    return () if _resource is None else tuple(zip(_LIMITS, map(_resource.getrlimit, _LIMITS.values()), strict=True))


def _set_limits(value: Any) -> None:
    for name, limits in value:
        number = _LIMITS[name]
        if _resource.getrlimit(number) != tuple(limits):
            _resource.setrlimit(number, limits)


_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "sys.switchinterval": (sys.getswitchinterval, sys.setswitchinterval),
    "socket.defaulttimeout": (_socket_timeout, _set_socket_timeout),
    "csv.field_size_limit": (_csv_limit, _set_csv_limit),
    "csv.dialects": (_csv_dialects, _set_csv_dialects),
    "sys.int_max_str_digits": (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    "resource.limits": (_limits, _set_limits),
    "gc": (_collector, _set_collector),
    "time.tzname": (lambda: time.tzname, _set_time_zone),
    "sklearn.config": (_sklearn, _set_sklearn),
    "shell.ast_node_interactivity": (_statements, _set_statements),
}


class Settings(Part):
    """All settings of the table that are not as they were when the first cell ran."""

    name = "<settings>"

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}

    def note_start(self) -> None:
        self.start = _settings()

    def read(self) -> Any:
        now = _settings()
        if now == self.start:
            return None
        return {name: value for name, value in now.items() if value != self.start.get(name)}

    def write(self, value: Any) -> None:
        chosen = unpacked(value)
        for name in self.read() or {}:
            if name not in chosen and name in self.start:
                _SETTINGS[name][1](self.start[name])
        for name, setting in chosen.items():
            _SETTINGS[name][1](setting)

    def reset(self) -> None:
        self.write(packed({}))


def _settings() -> dict[str, Any]:
    return {name: read() for name, (read, _) in _SETTINGS.items()}


# --- code that is registered -----------------------------------------------------------------------------------------


class Registered(Steady):
    """What cells registered with the shell (printers, magics, handlers of errors) and with `copyreg`.

    These are functions, which only running brings about.
    """

    name = "<registered>"

    def __init__(self) -> None:
        super().__init__()
        self._tables = _Tables()
        self._sizes: list[int] = []
        self._functions: list[Any] = []
        """All that the tables hold, and the length of each, as they were when `_found` was made."""
        self._found: list[tuple[str, int]] = []
        self._known: dict[int, Any] = {}
        """Registered functions by their identity, kept so that no other gets it."""

    def read(self) -> Any:
        if not self._tables.are_current():
            self._tables = _Tables(_shell())
        tables = self._tables.tables
        sizes, functions = list(map(len, tables)), list(chain.from_iterable(map(dict.values, tables)))
        if sizes != self._sizes or not _are_same(functions, self._functions):
            shown = self._tables.shown
            foreign = [each for n, table in enumerate(tables) for each in _foreign(table, shown=n < shown)]
            self._known.update((ident(function), function) for _, function in foreign)
            self._sizes, self._functions = sizes, functions
            self._found = sorted((told, ident(function)) for told, function in foreign)
        return self._found

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        was, now = before or (), after or ()
        new = [told for told, function in now if (told, function) not in was]
        gone = [told for told, function in was if (told, function) not in now]
        if new:
            return {"again": f"it registers {new[0]}, which only running it again brings about"}
        return {"again": f"it takes {gone[0]} away, which only running it again brings about"} if gone else {}

    def write(self, value: Any) -> None:
        """Nothing: the cell runs again."""

    def reset(self) -> None:
        """Nothing: the cell runs again."""


def _are_same(functions: list[Any], known: list[Any]) -> bool:
    """Whether the functions are those that were there; a list compares its members by identity first, in C."""
    try:
        return functions == known
    except Exception:  # noqa: BLE001 - a callable of the user's that compares in its own way
        return False


class _Tables:
    """The tables that functions are registered in, and the way to each, to tell whether it is still the same.

    Args:
        shell: whose; without one there is only the table of `copyreg`.
    """

    def __init__(self, shell: Any = None) -> None:
        self._shell = shell
        self._holders: list[dict[Any, Any]] = []
        self._keys: list[Any] = []
        self._held: list[Any] = []
        """What each holder has under its key."""
        self._containers: list[dict[Any, Any]] = []
        self._sizes: list[int] = []
        """How many tables each container has."""
        self.tables: list[dict[Any, Any]] = []
        if shell is not None:
            self._of_display(shell)
        self.shown = len(self.tables)
        """How many of them, the first ones, are the display's."""
        if shell is not None:
            self._of_shell(shell)
        self.tables.append(copyreg.dispatch_table)

    def are_current(self) -> bool:
        """Whether the shell still has these very tables. Every cell asks twice: it is one pass in C."""
        held = map(dict.get, self._holders, self._keys)
        return (
            _shell() is self._shell
            and list(map(len, self._containers)) == self._sizes
            and all(map(operator.is_, held, self._held))
        )

    def _of_display(self, shell: Any) -> None:
        for formatter in self._each(self._trait(self._trait(shell, "display_formatter"), "formatters")):
            for name in ("type_printers", "deferred_printers", "singleton_printers"):
                self.tables.append(self._trait(formatter, name))

    def _of_shell(self, shell: Any) -> None:
        """Magics by name, and the handler of each class of errors that a notebook treats itself."""
        self.tables += self._each(self._trait(self._trait(shell, "magics_manager"), "magics"))
        errors = self._trait(shell, "custom_exceptions") or ()
        wrapped = getattr(self._noted(vars(shell), "CustomTB"), "__func__", None)
        held = [cell.cell_contents for cell in getattr(wrapped, "__closure__", None) or ()]
        handlers = [
            handler for handler in held if str(getattr(handler, "__module__", "IPython")).partition(".")[0] != "IPython"
        ]
        self.tables.append({error: handler for error in errors for handler in handlers})

    def _noted(self, holder: dict[Any, Any], key: Any) -> Any:
        found = holder.get(key)
        self._holders.append(holder)
        self._keys.append(key)
        self._held.append(found)
        return found

    def _each(self, table: dict[Any, Any]) -> list[Any]:
        """The values of a container."""
        self._containers.append(table)
        self._sizes.append(len(table))
        return [self._noted(table, key) for key in list(table)]

    def _trait(self, holder: Any, name: str) -> Any:
        """A trait's value, from where traitlets keeps it: its own way there is ten times as long."""
        value = _trait(holder, name)
        self._noted(getattr(holder, "_trait_values", vars(holder)), name)
        return value


def _trait(holder: Any, name: str) -> Any:
    found = getattr(holder, "_trait_values", {}).get(name)
    return getattr(holder, name) if found is None else found


_OF_THE_SHELL = frozenset({"IPython", "matplotlib_inline", "ipykernel"})


def _foreign(table: dict[Any, Any], *, shown: bool) -> Iterator[tuple[str, Any]]:
    """Functions that neither the shell nor the package of their type has registered.

    Args:
        shown: the table is one of the display's. In the others only the notebook's own functions count: with `copyreg`,
            packages register reducers of each other's types, and their magics are there when they are loaded.
    """
    for key, function in table.items():
        if not callable(function):
            continue
        plain = function
        while isinstance(plain, functools.partial):
            plain = plain.func
        place = (getattr(plain, "__module__", None) or type(plain).__module__).partition(".")[0]
        origin = key if isinstance(key, type) else None
        owner = (key[0] if isinstance(key, tuple) else getattr(origin, "__module__", "") or "").partition(".")[0]
        if place == "__main__" or (place != owner and place not in _OF_THE_SHELL and shown):
            yield f"a function for {getattr(origin, '__qualname__', key)}", function


# --- pyplot ----------------------------------------------------------------------------------------------------------


class Backend(Part):
    """That pyplot has chosen its back end, which it does at the first figure; and which one, if a cell chose it.

    What the environment chose is left to the environment of the replay: another front end may have another.
    """

    name = "<matplotlib.backend>"

    def read(self) -> Any:
        if not _is_chosen():
            return None
        backend = str(_parameter("backend"))
        return _BY_ENVIRONMENT if _is_same_backend(backend, os.environ.get("MPLBACKEND", "")) else backend

    def write(self, value: Any) -> None:
        import matplotlib.pyplot as plt

        backend = unpacked(value)
        if backend != _BY_ENVIRONMENT:
            plt.switch_backend(backend)
        elif not _is_chosen():
            plt._get_backend_mod()  # as the first figure does

    def reset(self) -> None:
        """Nothing: a back end once chosen stays."""


_BY_ENVIRONMENT = "by the environment"


def _is_chosen() -> bool:
    pyplot = _loaded("matplotlib.pyplot")
    return pyplot is not None and getattr(pyplot, "_backend_mod", None) is not None


def _is_same_backend(one: str, other: str) -> bool:
    """Matplotlib spells the inline back end in two ways."""
    return one == other or ("inline" in one and "inline" in other)


class Interactive(Part):
    """`plt.ion` and `plt.ioff`, where a cell chose otherwise than the back end does."""

    name = "<matplotlib.interactive>"

    def read(self) -> Any:
        if _loaded("matplotlib.pyplot") is None:
            return None
        now = _parameter("interactive")
        return None if now == _usually_interactive() else now

    def write(self, value: Any) -> None:
        self._set(unpacked(value))

    def reset(self) -> None:
        self._set(_usually_interactive())

    @staticmethod
    def _set(value: bool) -> None:
        import matplotlib as mpl

        dict.__setitem__(mpl.rcParams, "interactive", value)


def _usually_interactive() -> bool:
    return _is_chosen() and "inline" in str(_parameter("backend"))


def _parameter(name: str) -> Any:
    return dict.get(sys.modules["matplotlib"].rcParams, name)
