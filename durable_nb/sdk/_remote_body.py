"""A body in a worker of a cluster: what is sent there, what runs there, what comes back.

A worker has no journal and no context. The body gets what it was given, its attempt, and a logger; what it logs and
prints comes back with its end and is logged and printed where the handler or the cell runs. An error comes back as
itself, with its traceback; one that does not survive pickling is rebuilt from its class, arguments and attributes, as
records of errors are.

The answer is always bytes made here, so that what a cluster raises is never mistaken for what a body raised.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle

from durable_nb.abc import Buffer
from durable_nb.exceptions import CannotTravelError
from durable_nb.running import running_remotely
from durable_nb.sdk._errors import Failure, capture, rebuild
from durable_nb.sdk._packing import Packed, pack, unpack

_PACKAGE = str(Path(__file__).parents[1])


@dataclass(frozen=True, slots=True)
class Body:
    """What a worker calls."""

    func: Callable[..., Any]
    kind: type[Any] | None
    """Of its argument, built of a logger and the attempt; None calls it without any."""
    attempt: int
    timeout: float
    """Seconds; 0 is none. Counted from the moment at which the body begins, not from that at which it was sent."""
    name: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A body as an executor gets it."""

    head: bytes

    def __call__(self, *parts: Buffer) -> bytes:
        """Run it; returns an answer."""
        return _answer(self.head, parts)


def send(body: Body, place: str) -> tuple[Sent, tuple[Buffer, ...]]:
    """A body and the large parts of it.

    Raises:
        RemoteBodyError: it holds a context of the running execution.
        CannotTravelError: it cannot be pickled.
    """
    packed: Packed = pack(body, body.name, place, blame=body.func)
    return Sent(packed.head), packed.parts


@dataclass(slots=True)
class Said:
    """What a body logged and printed."""

    logged: list[tuple[str, str, tuple[Any, ...], dict[str, Any] | None]] = field(default_factory=list)
    printed: list[tuple[str, str]] = field(default_factory=list)
    """(`stdout` or `stderr`, text) in order."""

    def repeat(self, logger: Any) -> None:
        """Print and log it here."""
        for stream, text in self.printed:
            getattr(sys, stream).write(text)
        for level, message, args, extra in self.logged:
            getattr(logger, level)(message, *args, extra=extra)


# --- In the worker ----------------------------------------------------------------------------------------------------


class _Logger:
    """The logger of a body."""

    def __init__(self, said: Said) -> None:
        self._said = said

    def _log(self, level: str, msg: object, args: tuple[object, ...], extra: Mapping[str, object] | None) -> None:
        facts = None if extra is None else dict(extra)
        try:
            pickle.dumps((args, facts))
        except Exception:  # noqa: BLE001 - whatever cannot travel is told by its text
            args = tuple(str(arg) for arg in args)
            facts = None if facts is None else {key: str(value) for key, value in facts.items()}
        self._said.logged.append((level, str(msg), args, facts))

    def debug(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log("debug", msg, args, extra)

    def info(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log("info", msg, args, extra)

    def warning(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log("warning", msg, args, extra)

    def error(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log("error", msg, args, extra)

    def exception(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log("error", f"{msg}\n{traceback.format_exc()}".replace("%", "%%") if not args else msg, args, extra)


_printing: ContextVar[Said | None] = ContextVar("durable_nb_printing", default=None)


class _Stream(io.TextIOBase):
    """Stands for a stream of the worker: what a body prints goes to its answer, the rest where it went before."""

    def __init__(self, name: str, before: Any) -> None:
        self._name = name
        self._before = before

    def write(self, text: str) -> int:
        said = _printing.get()
        if said is None:
            return int(self._before.write(text))
        said.printed.append((self._name, text))
        return len(text)

    def flush(self) -> None:
        if _printing.get() is None:
            self._before.flush()

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._before, name)


_streams = threading.Lock()


@contextmanager
def _heard(said: Said) -> Iterator[None]:
    """Collect what this body prints, and no other that runs in the same process."""
    with _streams:
        for name in ("stdout", "stderr"):
            now = getattr(sys, name)
            if not isinstance(now, _Stream):
                setattr(sys, name, _Stream(name, now))
    token = _printing.set(said)
    try:
        yield
    finally:
        _printing.reset(token)


def _answer(head: bytes, parts: tuple[Buffer, ...]) -> bytes:
    said = Said()
    try:
        body: Body = unpack(head, parts)
    except Exception as error:  # noqa: BLE001 - any import or constructor of user code may fail here
        return _pickled(("unloadable", f"{type(error).__name__}: {error}", said))
    try:
        with running_remotely(body.name), _heard(said):
            value = _call(body, said)
    except BaseException as error:  # noqa: BLE001 - the answer carries it
        return _pickled(("error", _error(error), said))
    try:
        return _pickled(("value", _value(value), said))
    except Exception as error:  # noqa: BLE001 - any type may refuse to be pickled, in any way
        why = f"its result ({type(value).__qualname__}) cannot be sent back: {type(error).__name__}: {error}"
        return _pickled(("unsendable", why, said))


def _call(body: Body, said: Said) -> Any:
    from durable_nb.sdk.operation._body import limited, run_coroutine

    def call() -> Any:
        given = () if body.kind is None else (body.kind(_Logger(said), body.attempt),)
        value = body.func(*given)
        return run_coroutine(value, body.timeout, body.name) if inspect.iscoroutine(value) else value

    return limited(call, body.timeout, body.name)


def _pickled(answer: tuple[str, Any, Said]) -> bytes:
    data: bytes = cloudpickle.dumps(answer, protocol=5)
    return data


def _value(value: Any) -> bytes:
    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data


def _error(error: BaseException) -> dict[str, Any]:
    import tblib

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next  # the reader's code begins below the frames of this package
    found: dict[str, Any] = {"failure": capture(error).to_json(), "pickle": None, "traceback": None}
    if trace is not None:
        found["traceback"] = tblib.Traceback(trace).to_dict()
    try:
        data: bytes = cloudpickle.dumps(error, protocol=5)
        pickle.loads(data)
        found["pickle"] = data
    except Exception:  # noqa: BLE001 - constructors of user code; the record of the error remains
        return found
    return found


# --- Where the handler or the cell runs -------------------------------------------------------------------------------


def take(answer: bytes, name: str, place: str, logger: Any) -> tuple[Any, BaseException | None]:
    """The value of an answer, or its error; what the body said is said again first."""
    kind, content, said = pickle.loads(answer)
    said.repeat(logger)
    if kind == "value":
        return pickle.loads(content), None
    if kind == "error":
        return None, _raised(content)
    if kind == "unloadable":
        content = f"a worker cannot load it: {content}; what it imports must be installed on the workers"
    return None, CannotTravelError(name, place, content)


def _raised(found: Mapping[str, Any]) -> BaseException:
    error: BaseException | None = None
    if found["pickle"] is not None:
        try:
            error = pickle.loads(found["pickle"])
        except Exception:  # noqa: BLE001 - constructors of user code; the record of the error remains
            error = None
    if error is None:
        error = rebuild(Failure.from_json(found["failure"], trusted=True))
    return error.with_traceback(_trace(found["traceback"]))


def _trace(data: Mapping[str, Any] | None) -> TracebackType | None:
    if data is None:
        return None
    import tblib

    trace: TracebackType = tblib.Traceback.from_dict(dict(data)).as_traceback()
    return trace


__all__ = ["Body", "Said", "Sent", "send", "take"]
