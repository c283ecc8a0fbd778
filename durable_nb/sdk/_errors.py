"""Errors to records and back.

What a step raises must be what its callers see, on the first run and at every replay: the same type for `except`, the
same `args` and attributes, the traceback for people. The record therefore holds enough to rebuild the error, and the
error that is raised is *always* the rebuilt one, so that the first run cannot differ from a replay.

A rebuilt error is an instance of two classes: the operation's (`StepError`, `ChildContextError`…) and the one that user
code raised. The second is looked up by name, in the modules that are loaded and then by import. Where there is no such
class any more, or none that can be a base class (pydantic's `ValidationError`), the operation's class remains, with
`original_type` to ask.

Values in `args` and attributes are kept as JSON where that is exact, else pickled; pickles are only read from records
that the journal vouches for. What cannot be pickled is kept as its `repr`.
"""

from __future__ import annotations

import base64
import importlib
import logging
import pickle
import sys
import threading
import traceback
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from durable_nb.events import ErrorInfo
from durable_nb.exceptions import DurableOperationError, SerDesError, UnrecoverableError
from durable_nb.sdk._qualify import qualified_name
from durable_nb.sdk.constants import ERROR_SIZE_LIMIT_BYTES
from durable_nb.sdk.lambda_service import ErrorObject
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, SerDesContext

logger = logging.getLogger(__name__)

_NO_CONTEXT = SerDesContext()
_VALUE_LIMIT = 8 * 1024
_ENGINE = str(Path(__file__).parent)
_WIRE_FIELDS = ("message", "error_type", "data", "stack_trace")
_seen: weakref.WeakValueDictionary[str, type[BaseException]] = weakref.WeakValueDictionary()
_twins: dict[tuple[type, type], type[DurableOperationError] | None] = {}
_twins_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is recorded."""

    error: ErrorObject
    """The wire form: type, message, data."""
    raised: Mapping[str, Any] | None = None
    """How to rebuild what user code raised: type, args, state. JSON values."""
    traceback: tuple[str, ...] = ()
    trusted: bool = True
    """Whether pickles in `raised` may be read."""

    @classmethod
    def of(cls, error: ErrorObject) -> Failure:
        """The failure behind a wire error, as far as it is known."""
        return error.failure if isinstance(error, RecordedError) else cls(error)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "error": self.error.to_dict(),
            "raised": dict(self.raised) if self.raised else None,
            "traceback": list(self.traceback),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, trusted: bool) -> Failure:
        """From `to_json`."""
        error = ErrorObject.from_dict(data["error"])
        return cls(error, data.get("raised"), tuple(data.get("traceback") or ()), trusted)

    def info(self) -> ErrorInfo:
        """For `Event.error`."""
        return ErrorInfo(
            type=self.error.type or "",
            message=self.error.message or "",
            traceback=self.traceback,
            data=self.error.data,
        )

    def details(self) -> dict[str, Any]:
        """For `Event.details`: what `ErrorInfo` has no field for."""
        details: dict[str, Any] = {}
        if self.raised:
            details["raised"] = dict(self.raised)
        if self.error.stack_trace is not None:
            details["stack_trace"] = self.error.stack_trace
        absent = [name for name in ("type", "message") if getattr(self.error, name) is None]
        if absent:
            details["absent"] = absent
        return details

    @classmethod
    def from_event(cls, info: ErrorInfo, details: Mapping[str, Any], *, trusted: bool) -> Failure:
        """From an event's error and details."""
        absent = details.get("absent", ())
        error = ErrorObject(
            message=None if "message" in absent else info.message,
            type=None if "type" in absent else info.type,
            data=info.data,
            stack_trace=details.get("stack_trace"),
        )
        return cls(error, details.get("raised"), info.traceback, trusted)

    def to_error_object(self) -> ErrorObject:
        """The wire form, which still knows how to rebuild the error."""
        return RecordedError(
            self.error.message,
            self.error.type,
            self.error.data,
            self.error.stack_trace,
            original_type=self.raised["type"] if self.raised else None,
            failure=self,
        )


@dataclass(frozen=True)
class RecordedError(ErrorObject):
    """An `ErrorObject` that carries its record."""

    failure: Failure = field(kw_only=True, compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ErrorObject):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.message, self.type, self.data))

    def __reduce__(self) -> tuple[Any, ...]:
        return ErrorObject, (self.message, self.type, self.data, self.stack_trace, self.original_type)


def capture(error: BaseException) -> Failure:
    """The record of an error that user code let escape."""
    known: Failure | None = getattr(error, "_durable_failure", None)
    wire = _wire(error)
    if known is not None:
        # The error of an inner operation on its way out: its wire form names that operation, its origin stays.
        return replace(known, error=wire)
    cls = type(error)
    _seen[qualified_name(cls)] = cls
    init, state = _reduced(error)
    raised: dict[str, Any] = {"type": qualified_name(cls), "args": [_encode(arg) for arg in error.args]}
    if init != error.args:
        raised["init"] = [_encode(arg) for arg in init]
    if state:
        raised["state"] = {str(key): _encode(value) for key, value in state.items()}
    return Failure(wire, raised, _lines(error))


def _wire(error: BaseException) -> ErrorObject:
    known: Failure | None = getattr(error, "_durable_failure", None)
    if known is not None:
        # Attributes of the original may shadow `message` or `data`: the record knows better.
        recorded = known.error
        return ErrorObject(recorded.message, qualified_name(type(error)), recorded.data, recorded.stack_trace)
    wire = ErrorObject.from_exception(error)
    message = wire.message
    if message is not None and len(message.encode("utf-8", "replace")) > ERROR_SIZE_LIMIT_BYTES:
        cut = message.encode("utf-8", "replace")[:ERROR_SIZE_LIMIT_BYTES].decode("utf-8", "ignore")
        message = f"{cut}… (cut at {ERROR_SIZE_LIMIT_BYTES} bytes)"
    return replace(wire, message=message)


def _reduced(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Constructor arguments and attributes, as pickling sees them: C attributes are in these and nowhere else."""
    state: dict[str, Any] = {}
    init: tuple[Any, ...] = error.args
    try:
        reduced = error.__reduce__()
    except Exception:  # noqa: BLE001 - a broken __reduce__ of user code loses nothing that __dict__ has not
        reduced = ()
    if isinstance(reduced, tuple) and len(reduced) > 1 and reduced[0] is type(error):
        init = reduced[1]
        if len(reduced) > 2 and isinstance(reduced[2], Mapping):
            state.update(reduced[2])
    state.update(error.__dict__)
    hidden = {"__notes__", *(_WIRE_FIELDS if isinstance(error, DurableOperationError) else ())}
    return init, {key: value for key, value in state.items() if key not in hidden}


def _lines(error: BaseException) -> tuple[str, ...]:
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_ENGINE):
        found = found.tb_next  # the reader's code begins below the engine's frames
    text = "".join(traceback.format_exception(type(error), error, found or error.__traceback__))
    if len(text) > ERROR_SIZE_LIMIT_BYTES:
        text = f"{text[: ERROR_SIZE_LIMIT_BYTES // 2]}\n…\n{text[-ERROR_SIZE_LIMIT_BYTES // 2 :]}"
    return tuple(text.splitlines())


def _encode(value: Any) -> dict[str, str]:
    try:
        text = EXTENDED_TYPES_SERDES.serialize(value, _NO_CONTEXT)
        if len(text) <= _VALUE_LIMIT and _same(EXTENDED_TYPES_SERDES.deserialize(text, _NO_CONTEXT), value):
            return {"x": text}
    except (SerDesError, ValueError, TypeError, RecursionError):
        pass
    try:
        import cloudpickle

        data: bytes = cloudpickle.dumps(value)
        if len(data) <= _VALUE_LIMIT:
            return {"p": base64.b64encode(data).decode("ascii")}
    except Exception:  # noqa: BLE001 - any type may refuse to be pickled, in any way
        logger.debug("an argument of an error cannot be pickled; its repr is kept", exc_info=True)
    try:
        return {"r": repr(value)[:_VALUE_LIMIT]}
    except Exception:  # noqa: BLE001 - nor is a repr certain
        return {"r": f"<{type(value).__name__}>"}


def _same(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(item, two[key]) for key, item in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(_same(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two) or one != one  # noqa: PLR0124 - NaN


def _decode(data: Mapping[str, str], *, trusted: bool) -> Any:
    if "x" in data:
        return EXTENDED_TYPES_SERDES.deserialize(data["x"], _NO_CONTEXT)
    if "p" in data:
        if not trusted:
            return "<not loaded: the record is not signed with your key>"
        try:
            return pickle.loads(base64.b64decode(data["p"]))
        except Exception as exc:  # noqa: BLE001 - the class may be gone; the error must still be raised
            return f"<cannot be loaded: {type(exc).__name__}: {exc}>"
    return data.get("r")


# --- Records to errors ---------------------------------------------------------------------------------------------


def build(cls: type[DurableOperationError], failure: Failure) -> DurableOperationError:
    """The error that callers see, caused by a stand-in for what was recorded."""
    error = _twin_instance(cls, failure)
    if error is None:
        wire = failure.error
        error = cls.from_error_fields(wire.type, wire.message, wire.data, wire.stack_trace)
    vars(error)["_durable_failure"] = failure
    vars(error)["original_type"] = failure.raised["type"] if failure.raised else failure.error.type
    if failure.traceback:
        error.add_note("\n".join(["Recorded traceback:", *failure.traceback]))
    error.__cause__ = failure.error.to_durable_operation_error()
    return error


def is_unrecoverable(error: BaseException) -> bool:
    """Whether an error ends more than the operation that it escapes from: the execution, or the invocation.

    The recorded failure of an operation never does, although it is also an instance of the type that was raised: an
    interrupted at-most-once step is a `StepError` like any other.
    """
    return isinstance(error, UnrecoverableError) and not isinstance(error, DurableOperationError)


def raise_recorded(cls: type[DurableOperationError], error: ErrorObject) -> NoReturn:
    """Raise a wire error as an operation error."""
    raise build(cls, Failure.of(error))


def rebuild(failure: Failure) -> BaseException:
    """What was raised, as itself and no operation's error; `RuntimeError` that tells of it where its class is gone."""
    raised = failure.raised
    original = _resolve(raised["type"], trusted=failure.trusted) if raised else None
    if raised is not None and original is not None:
        try:
            return _filled(original.__new__(original), original, failure)
        except Exception:  # noqa: BLE001 - a class of user code that cannot be made; what is known is told
            logger.debug("an error cannot be made again as itself; it is told", exc_info=True)
    return RuntimeError(f"{raised['type'] if raised else failure.error.type}: {failure.error.message}")


def _filled(error: BaseException, original: type[BaseException], failure: Failure) -> BaseException:
    """`error`, which is new, with the arguments and attributes that were recorded."""
    assert failure.raised is not None
    args = tuple(_decode(arg, trusted=failure.trusted) for arg in failure.raised["args"])
    init = failure.raised.get("init")
    given = args if init is None else tuple(_decode(arg, trusted=failure.trusted) for arg in init)
    _fill_c_attributes(error, original, given)
    error.args = args
    for key, value in (failure.raised.get("state") or {}).items():
        setattr(error, key, _decode(value, trusted=failure.trusted))
    return error


def _twin_instance(cls: type[DurableOperationError], failure: Failure) -> DurableOperationError | None:
    original = _resolve(failure.raised["type"], trusted=failure.trusted) if failure.raised else None
    twin = _twin(cls, original) if original is not None else None
    if twin is None or original is None or failure.raised is None:
        return None
    args = tuple(_decode(arg, trusted=failure.trusted) for arg in failure.raised["args"])
    try:
        error = twin.__new__(twin, *args)
        init = failure.raised.get("init")
        given = args if init is None else tuple(_decode(arg, trusted=failure.trusted) for arg in init)
        _fill_c_attributes(error, original, given)
        error.args = args
    except Exception:  # noqa: BLE001 - a constructor of user code that refuses its own args; the plain class remains
        return None
    wire = failure.error
    values = (wire.message, wire.type, wire.data, wire.stack_trace)
    vars(error).update(zip(_WIRE_FIELDS, values, strict=True))
    for key, value in (failure.raised.get("state") or {}).items():
        try:
            setattr(error, key, _decode(value, trusted=failure.trusted))
        except (AttributeError, TypeError):
            vars(error)[key] = _decode(value, trusted=failure.trusted)
    return error


def _fill_c_attributes(error: BaseException, original: type[BaseException], args: tuple[Any, ...]) -> None:
    """Run the constructor of the built-in base: `OSError.errno` and its like live in C and are set nowhere else."""
    for base in original.__mro__:
        if base.__module__ == "builtins" and "__init__" in base.__dict__:
            try:
                constructor: Any = base.__dict__["__init__"]
                constructor(error, *args)
            except TypeError:  # its subclass passes other arguments up; then it has kept them in its own attributes
                return
            return


def _twin(cls: type[DurableOperationError], original: type[BaseException]) -> type[DurableOperationError] | None:
    if issubclass(cls, original):
        return cls
    with _twins_lock:
        if (cls, original) not in _twins:
            _twins[cls, original] = _make_twin(cls, original)
        return _twins[cls, original]


def _make_twin(cls: type[DurableOperationError], original: type[BaseException]) -> type[DurableOperationError] | None:
    bases = (original,) if issubclass(original, cls) else (cls, original)
    body = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__durable_type__": qualified_name(cls),
        "__reduce__": _reduce,
        "__str__": _text,
    }
    try:
        # The operation's name: code that was ported may look at it. What was raised is in the note and in
        # `original_type`.
        return type(cls.__name__, bases, body)
    except TypeError:  # a final class, or a layout that cannot be shared
        return None


def _text(error: DurableOperationError) -> str:
    failure: Failure = vars(error)["_durable_failure"]
    return failure.error.message or ""


def _reduce(error: DurableOperationError) -> tuple[Any, ...]:
    failure: Failure = vars(error)["_durable_failure"]
    cls = next(base for base in type(error).__mro__[1:] if issubclass(base, DurableOperationError))
    return _rebuild_twin, (cls, failure.to_json())


def _rebuild_twin(cls: type[DurableOperationError], data: Mapping[str, Any]) -> DurableOperationError:
    return build(cls, Failure.from_json(data, trusted=True))


def _resolve(name: str, *, trusted: bool) -> type[BaseException] | None:
    """The class of that name: the live definition first, then one that was raised in this process."""
    module, _, rest = name.rpartition(".") if "." in name else ("builtins", "", name)
    while module:
        loaded = sys.modules.get(module) or (_import(module) if trusted else None)
        if loaded is not None:
            found: Any = loaded
            for part in rest.split("."):
                found = getattr(found, part, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                return found
            break
        module, _, tail = module.rpartition(".")
        rest = f"{tail}.{rest}"
    return _seen.get(name)


def _import(module: str) -> Any:
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    try:
        return importlib.import_module(module)
    except Exception:  # noqa: BLE001 - a module that cannot be imported now cannot give the class
        return None
