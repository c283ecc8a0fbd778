"""State of Python's own: warning filters, paths, the environment, decimal, locale, umask, logging, limits, signals."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import decimal
import locale
import logging
import operator
import os
import re
import signal
import sys
import types
import warnings
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from durable_nb.settings import is_listed_secret
from durable_nb.snapshot._digest import content_digest, digest_text
from durable_nb.snapshot._process_part import Part, Steady, packed, unpacked

_getcwd = os.getcwd
"""Python's own: later there is a function in its place that notes what a cell asks."""

_SECRET = re.compile(
    r"key|token|secret|passw|credential|auth|private|cookie|session|dsn|conn(ection)?_?str", re.IGNORECASE
)

_UMASK = re.compile(rb"Name:[^\n]*\nUmask:\s*([0-7]+)\n")
"""The beginning of a process's status."""

_IGNORED_VARIABLES = re.compile(r"JPY_.*|PYTEST_.*|COLUMNS|LINES|_|OLDPWD|PWD|SHLVL|TERM.*")


def looks_secret(name: str) -> bool:
    """True for names of variables whose values are never written."""
    return _SECRET.search(name) is not None or is_listed_secret(name)


class Warnings(Part):
    name = "<warnings>"
    absent = "never"

    def __init__(self) -> None:
        self._last: tuple[Any, str] = (None, "")
        self._filters: list[Any] = []
        self._found: list[Any] = []
        """What these filters are."""

    def read(self) -> Any:
        now = warnings.filters
        if len(now) != len(self._filters) or not all(map(operator.is_, now, self._filters)):
            self._filters, self._found = list(now), self._plain()
        return self._found

    def _plain(self) -> list[Any]:
        found = []
        for action, message, category, module, line in warnings.filters:
            if category.__module__ == "__main__":
                continue  # a notebook's own class: the cell that defines it runs or restores before it matters
            found.append((action, _pattern(message), category, _pattern(module), line))
        return found

    def version(self, value: Any) -> str:
        # Most cells change nothing: comparing filters is quicker than digesting them.
        if self._last[0] != value:
            plain = [
                (action, message, f"{kind.__module__}.{kind.__qualname__}", module, line)
                for action, message, kind, module, line in value
            ]
            self._last = (value, content_digest([(self.name, plain)]) or "")
        return self._last[1]

    def write(self, value: Any) -> None:
        filters: list[Any] = [
            (action, _compiled(message), category, _compiled(module), line)
            for action, message, category, module, line in unpacked(value)
        ]
        mine = [entry for entry in warnings.filters if entry[2].__module__ == "__main__"]
        warnings.filters[:] = [*mine, *filters]  # type: ignore[index]
        warnings._filters_mutated() if hasattr(warnings, "_filters_mutated") else warnings._filters_mutated_lock_held()  # type: ignore[attr-defined]


def _pattern(value: Any) -> Any:
    return (value.pattern, value.flags) if isinstance(value, re.Pattern) else value


def _compiled(value: Any) -> Any:
    return re.compile(*value) if isinstance(value, tuple) else value


class SysPath(Steady):
    """What a cell added to the import path and took from it, not the whole path: another checkout has others."""

    name = "<sys.path>"
    absent = "never"

    def __init__(self) -> None:
        super().__init__()
        self.start = _cwd()

    def note_start(self) -> None:
        self.start = _cwd()

    def read(self) -> Any:
        return list(map(str, sys.path))

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        old = list(before or ())
        front, added, removed = [], [], []
        for kind, start, stop, first, last in SequenceMatcher(None, old, after, autojunk=False).get_opcodes():
            if kind == "equal":
                continue
            removed += [self._relative(entry) for entry in old[start:stop]]
            new = [self._relative(entry) for entry in after[first:last]]
            if first == 0:
                front = new
            else:
                follower = self._relative(old[stop]) if stop < len(old) else None
                added += [(entry, follower) for entry in new]
        return {"value": packed((front, added, removed))}

    @staticmethod
    def change(entry: Mapping[str, Any]) -> Any:
        """What a stored delta adds and takes away, without the places of this machine."""
        return unpacked(entry["value"])

    def _relative(self, entry: str) -> tuple[bool, str]:
        """Whether an entry lies where the process started, and its path from there."""
        inside = entry == self.start or entry.startswith(self.start.rstrip(os.sep) + os.sep)
        return (True, os.path.relpath(entry, self.start)) if inside else (False, entry)

    def _absolute(self, stored: tuple[bool, str]) -> str:
        inside, entry = stored
        return os.path.normpath(str(Path(self.start) / entry)) if inside else entry

    def write(self, value: Any) -> None:
        front, added, removed = unpacked(value)
        for stored in removed:
            if (entry := self._absolute(stored)) in sys.path:
                sys.path.remove(entry)
        sys.path[:0] = [self._absolute(stored) for stored in front]
        for stored, follower in added:
            before = None if follower is None else self._absolute(follower)
            place = len(sys.path) if before not in sys.path else len(sys.path) - 1 - sys.path[::-1].index(before)
            sys.path.insert(place, self._absolute(stored))


class WorkingDirectory(Part):
    """Kept relative to where the process started, so that a moved project replays."""

    name = "<cwd>"

    def __init__(self) -> None:
        self.start = _cwd()

    def note_start(self) -> None:
        self.start = _cwd()

    def read(self) -> Any:
        now = _cwd()
        return None if now == self.start else os.path.relpath(now, self.start) if _inside(now, self.start) else now

    def write(self, value: Any) -> None:
        os.chdir(Path(self.start) / unpacked(value))

    def reset(self) -> None:
        os.chdir(self.start)


def _cwd() -> str:
    try:
        return _getcwd()
    except FileNotFoundError:
        return ""


def _inside(path: str, folder: str) -> bool:
    return os.path.splitdrive(path)[0] == os.path.splitdrive(folder)[0]


class Environment(Part):
    """Variables that the notebook changed; those that look secret leave only the fact that they were set."""

    name = "<environ>"

    def __init__(self) -> None:
        self.start: dict[str, str] = dict(os.environ)
        self.last: tuple[Any, Any] = (None, None)

    def note_start(self) -> None:
        self.start = dict(os.environ)
        self.last = (None, None)

    def read(self) -> Any:
        # Most cells change nothing: comparing the encoded variables is much quicker than decoding them.
        encoded = getattr(os.environ, "_data", None)
        if encoded is None:
            return self._changed()
        if self.last[0] != encoded:
            self.last = (dict(encoded), self._changed())
        return self.last[1]

    def _changed(self) -> Any:
        now = dict(os.environ)
        if now == self.start:
            return None
        changed: dict[str, Any] = {}
        for name in sorted({*now, *self.start}):
            if now.get(name) != self.start.get(name) and not _IGNORED_VARIABLES.fullmatch(name):
                changed[name] = now.get(name)
        return changed or None

    def version(self, value: Any) -> str:
        # A secret counts by its name only: a digest of a short value could be turned back.
        told = {name: "set" if looks_secret(name) else text for name, text in value.items()}
        return content_digest([(self.name, told)]) or ""

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        secret = sorted(name for name in after if looks_secret(name) and after[name] is not None)
        return {
            "value": {name: text for name, text in after.items() if name not in secret},
            "unstored": [name for name in secret if (before or {}).get(name) != after[name]],
        }

    def write(self, value: Any) -> None:
        for name in self.read() or {}:
            if name not in value and not looks_secret(name):
                if name in self.start:
                    os.environ[name] = self.start[name]
                else:
                    os.environ.pop(name, None)
        for name, text in value.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text

    def reset(self) -> None:
        self.write({})


class Decimal(Part):
    name = "<decimal>"

    def __init__(self) -> None:
        self._seen: tuple[Any, ...] = ()
        """The facts and traps of both contexts, as they were when `_found` was made."""
        self._found: Any = None

    def read(self) -> Any:
        now, standard = decimal.getcontext(), decimal.DefaultContext
        seen = (_FACTS(now), now.traps, _FACTS(standard), standard.traps)
        if seen != self._seen:
            self._seen = (seen[0], now.traps.copy(), seen[2], standard.traps.copy())
            kept, usual = (seen[0], _trapped(now)), (seen[2], _trapped(standard))
            self._found = None if kept == usual else kept
        return self._found

    def write(self, value: Any) -> None:
        (prec, rounding, low, high, capitals, clamp), traps = unpacked(value)
        context = decimal.getcontext()
        context.prec, context.rounding, context.Emin, context.Emax = prec, rounding, low, high
        context.capitals, context.clamp = capitals, clamp
        for condition in context.traps:
            context.traps[condition] = condition.__name__ in traps

    def reset(self) -> None:
        flags = decimal.getcontext().flags
        decimal.setcontext(decimal.DefaultContext.copy())
        decimal.getcontext().flags.update(flags)


_FACTS = operator.attrgetter("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _trapped(context: decimal.Context) -> tuple[str, ...]:
    return tuple(sorted(kind.__name__ for kind, on in context.traps.items() if on))


class Locale(Part):
    name = "<locale>"

    def __init__(self) -> None:
        self.start = locale.setlocale(locale.LC_ALL)

    def read(self) -> Any:
        now = locale.setlocale(locale.LC_ALL)
        return None if now == self.start else now

    def write(self, value: Any) -> None:
        locale.setlocale(locale.LC_ALL, unpacked(value))

    def reset(self) -> None:
        locale.setlocale(locale.LC_ALL, self.start)


class Umask(Part):
    name = "<umask>"

    def __init__(self) -> None:
        self._status: tuple[int, int] | None = None
        """The process and its open status: every cell asks twice, and opening it costs as much as reading it."""
        self.start = self._now()

    def _now(self) -> int | None:
        """Without setting it for a moment, which other threads would see."""
        for _ in range(2):
            try:
                if self._status is None or self._status[0] != os.getpid():
                    self._status = os.getpid(), os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
                found = _UMASK.match(os.pread(self._status[1], 512, 0))
            except OSError:
                found = None
            if found is not None:
                return int(found[1], 8)
            self._status = None  # somebody closed all files, and the number may be another file's by now
        return None

    def read(self) -> Any:
        now = self._now()
        return None if now == self.start else now

    def write(self, value: Any) -> None:
        os.umask(unpacked(value))

    def reset(self) -> None:
        if self.start is not None:
            os.umask(self.start)


class Logging(Part):
    """Levels and switches of loggers; handlers are no data: a cell that adds one of its own runs again."""

    name = "<logging>"

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self._seen: tuple[Any, ...] = ()
        """What every cell looks at, as it was when `_found` was made."""
        self._found: dict[str, Any] | None = None

    def note_start(self) -> None:
        self.start, self._seen = _loggers(), ()

    def read(self) -> Any:
        loggers = list(logging.root.manager.loggerDict.values())
        known = [logging.root, *(logger for logger in loggers if isinstance(logger, logging.Logger))]
        busy = [logger for logger in known if logger.handlers]
        seen = (
            loggers,
            logging.root.manager.disable,
            list(map(_SWITCHES, known)),
            busy,
            [_kinds(logger) for logger in busy],
        )
        if seen != self._seen:
            self._seen = seen
            self._found = self._changed()
        return self._found

    def _changed(self) -> dict[str, Any] | None:
        now = _loggers()
        changed = {}
        for name in {*now, *self.start}:
            usual = self.start.get(name, _USUAL_LOGGER)
            if now.get(name, _USUAL_LOGGER) != usual:
                changed[name] = now.get(name, _USUAL_LOGGER)
        return dict(sorted(changed.items())) or None

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"value": packed(after)}
        for name, state in after.items():
            # Packages set handlers when they are imported, which every process does by itself.
            imported = name.partition(".")[0] in sys.modules
            if not imported and state[3] != (before or self.start).get(name, _USUAL_LOGGER)[3]:
                label = "the root logger" if not name else f"the logger {name!r}"
                found["again"] = f"it changed the handlers of {label}, which only running it again brings about"
        return found

    def write(self, value: Any) -> None:
        chosen = unpacked(value)
        for name in self.read() or {}:
            if name not in chosen:
                _set_logger(name, self.start.get(name, _USUAL_LOGGER))
        for name, state in chosen.items():
            _set_logger(name, state)

    def reset(self) -> None:
        self.write(packed({}))


_USUAL_LOGGER = (logging.NOTSET, True, False, ())
_DISABLE = "\0disable"
_SWITCHES = operator.attrgetter("level", "propagate", "disabled")


def _loggers() -> dict[str, Any]:
    """Level, propagation, switch and kinds of handlers of every logger that is not as a new one is."""
    found: dict[str, Any] = {_DISABLE: (logging.root.manager.disable, True, False, ())}
    for name, logger in [("", logging.root), *logging.root.manager.loggerDict.items()]:
        if isinstance(logger, logging.Logger):
            found[name] = (*_SWITCHES(logger), _kinds(logger))
    return {name: state for name, state in found.items() if state != _USUAL_LOGGER}


def _kinds(logger: logging.Logger) -> tuple[str, ...]:
    return tuple(_kind(each) for each in logger.handlers if not isinstance(each, logging.NullHandler))


def _kind(handler: logging.Handler) -> str:
    """What a handler does with a record: where it goes, from which level on, how it is written, what is left out."""
    stream = getattr(handler, "stream", None)
    place = Path(str(getattr(handler, "baseFilename", None) or getattr(stream, "name", None))).name
    written = handler.formatter
    parts = [_made_by(handler), str(handler.level), place]
    if written is not None:
        parts += [_made_by(written), str(getattr(written, "_fmt", None)), str(written.datefmt)]
    return " ".join([*parts, *map(_made_by, handler.filters)])


def _made_by(value: Any) -> str:
    """The class of an object, and its code where it is the notebook's own; of a function, its code."""
    kind = value if isinstance(value, types.FunctionType) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__ != "__main__":
        return name
    functions = [kind] if isinstance(kind, types.FunctionType) else list(vars(kind).values())
    return (
        f"{name} {digest_text(*(_code(each.__code__) for each in functions if isinstance(each, types.FunctionType)))}"
    )


def _code(code: types.CodeType) -> str:
    constants = [_code(part) if isinstance(part, types.CodeType) else repr(part) for part in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names!r} {constants!r}"


def _set_logger(name: str, state: Any) -> None:
    if name == _DISABLE:
        logging.disable(state[0])
        return
    logger = logging.getLogger(name or None)
    logger.setLevel(state[0])
    logger.propagate, logger.disabled = state[1], state[2]


class RecursionLimit(Part):
    name = "<recursionlimit>"

    def __init__(self) -> None:
        self.start = sys.getrecursionlimit()

    def read(self) -> Any:
        now = sys.getrecursionlimit()
        return None if now == self.start else now

    def write(self, value: Any) -> None:
        sys.setrecursionlimit(unpacked(value))

    def reset(self) -> None:
        sys.setrecursionlimit(self.start)


class Signals(Part):
    """Handlers of signals, but for the interrupt, which belongs to the kernel.

    Python functions are no data: a cell that puts one in place runs again.
    """

    name = "<signals>"

    def __init__(self) -> None:
        self.start: dict[str, str] = {}
        self._handlers: list[Any] = []
        """The handlers, as they were when `_found` was made."""
        self._found: dict[str, str] | None = None

    def note_start(self) -> None:
        self.start, self._handlers = _handlers_of(_handlers()), []

    def read(self) -> Any:
        handlers = _handlers()
        if not self._handlers or not all(map(operator.is_, handlers, self._handlers)):
            now = _handlers_of(handlers)
            names = {name for name in {*now, *self.start} if now.get(name) != self.start.get(name)}
            self._handlers = handlers
            self._found = {name: now.get(name, "default") for name in sorted(names)} or None
        return self._found

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        plain = {name: handler for name, handler in after.items() if handler in ("default", "ignore")}
        code = [name for name, handler in after.items() if name not in plain and handler != (before or {}).get(name)]
        found: dict[str, Any] = {"value": packed(plain)}
        if code:
            found["again"] = f"it has a function called on {code[0]}, which only running it again brings about"
        return found

    def write(self, value: Any) -> None:
        for name, handler in unpacked(value).items():
            signal.signal(_number(name), signal.SIG_IGN if handler == "ignore" else signal.SIG_DFL)

    def reset(self) -> None:
        for name in self.read() or {}:
            if self.start.get(name, "default") in ("default", "ignore"):
                ignored = self.start.get(name) == "ignore"
                signal.signal(_number(name), signal.SIG_IGN if ignored else signal.SIG_DFL)


_NUMBERS = tuple(sorted(int(number) for number in signal.valid_signals() if number != signal.SIGINT))
_SIGNALS = frozenset(int(number) for number in signal.Signals)


def _handlers() -> list[Any]:
    """The handlers of `_NUMBERS`, without the enums around them, which cost more than the question."""
    return list(map(_signal.getsignal, _NUMBERS))


def _handlers_of(handlers: list[Any]) -> dict[str, str]:
    """By the signal's name, those that are not the default."""
    return {
        signal.Signals(number).name if number in _SIGNALS else str(number): _handler(handler)
        for number, handler in zip(_NUMBERS, handlers, strict=True)
        if handler not in (signal.SIG_DFL, None)
    }


def _number(name: str) -> int:
    return int(name) if name.isdigit() else int(signal.Signals[name])


def _handler(handler: Any) -> str:
    if handler is signal.SIG_IGN:
        return "ignore"
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    told = (code.co_code.hex(), repr(code.co_names)) if code is not None else ()
    return digest_text(getattr(handler, "__module__", None) or "", getattr(handler, "__qualname__", ""), *told)
