"""Values to text and back.

Every result is round-tripped on the first run, so what a serdes loses shows at once and not at a replay. A serdes that
also has `dump`/`load` (`BytesSerDes`) writes bytes: the engine then keeps them as they are, and large buffers as blobs.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar, cast

from durable_nb.exceptions import DurableExecutionsError, SerDesError
from durable_nb.sdk._qualify import qualified_name

logger = logging.getLogger(__name__)

T = TypeVar("T")

TYPE_TOKEN = "t"  # noqa: S105 - a key of the envelope
VALUE_TOKEN = "v"  # noqa: S105


class TypeTag(StrEnum):
    """The `t` of an envelope."""

    NONE = "n"
    STR = "s"
    INT = "i"
    FLOAT = "f"
    BOOL = "b"
    BYTES = "B"
    UUID = "u"
    DECIMAL = "d"
    DATETIME = "dt"
    DATE = "D"
    TUPLE = "t"
    LIST = "l"
    DICT = "m"
    BATCH_RESULT = "br"


@dataclass(frozen=True)
class SerDesContext:
    """Where a payload belongs."""

    operation_id: str = ""
    durable_execution_arn: str = ""
    name: str | None = None
    """The operation's name."""
    type: str | None = None
    """The operation's type, as `OperationType` spells it."""
    attempt: int = 1


class SerDes(ABC, Generic[T]):
    """Values of one kind to text and back; what it cannot do it refuses with an error, never with a loss."""

    @abstractmethod
    def serialize(self, value: T, serdes_context: SerDesContext) -> str:
        """The value as text."""

    @abstractmethod
    def deserialize(self, data: str, serdes_context: SerDesContext) -> T:
        """The value that `serialize` wrote."""

    @staticmethod
    def is_primitive(obj: Any) -> bool:
        """True for what plain JSON keeps exactly: None, text, numbers, booleans and lists of only those."""
        if obj is None or isinstance(obj, (str, int, float)):
            return True
        return isinstance(obj, list) and all(SerDes.is_primitive(item) for item in obj)


class BytesSerDes(SerDes[Any]):
    """A serdes whose natural form is bytes. As text (for a remote service) they are base64."""

    @abstractmethod
    def dump(self, value: Any, serdes_context: SerDesContext) -> tuple[bytes, tuple[str, ...]]:
        """The value as bytes, and the addresses of the blobs that these name."""

    @abstractmethod
    def load(self, data: bytes, serdes_context: SerDesContext) -> Any:
        """The value that `dump` wrote. Only called with bytes whose origin the journal vouches for."""

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
        return base64.b64encode(self.dump(value, serdes_context)[0]).decode("ascii")

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
        return self.load(base64.b64decode(data), serdes_context)


class AsText(SerDes[Any]):
    """A serdes of bytes where only text can be kept."""

    def __init__(self, serdes: BytesSerDes) -> None:
        self._serdes = serdes

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
        return self._serdes.serialize(value, serdes_context)

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
        return self._serdes.deserialize(data, serdes_context)


class PassThroughSerDes(SerDes[Any]):
    """Text stays as it is."""

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:  # noqa: ARG002
        return cast("str", value)

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:  # noqa: ARG002
        return data


class JsonSerDes(SerDes[Any]):
    """Plain JSON."""

    def serialize(self, value: Any, serdes_context: SerDesContext | None = None) -> str:  # noqa: ARG002
        return json.dumps(value)

    def deserialize(self, data: str, serdes_context: SerDesContext | None = None) -> Any:  # noqa: ARG002
        return json.loads(data)


@dataclass(frozen=True)
class EncodedValue:
    """A tag and what it tags."""

    tag: TypeTag
    value: Any


def _encode_dict(obj: Mapping[Any, Any]) -> EncodedValue:
    pairs = {}
    for key, item in obj.items():
        if isinstance(key, tuple):
            raise SerDesError(f"a dict with the tuple key {key!r} cannot be serialized", _SERDES_ERROR)
        pairs[key] = TYPE_CODEC.encode(item)
    return EncodedValue(TypeTag.DICT, pairs)


def _encode_sequence(tag: TypeTag) -> Callable[[Any], EncodedValue]:
    return lambda obj: EncodedValue(tag, [TYPE_CODEC.encode(item) for item in obj])


def _encode_bytes(obj: bytes | bytearray | memoryview) -> EncodedValue:
    return EncodedValue(TypeTag.BYTES, base64.b64encode(bytes(obj)).decode("ascii"))


# Exact types first: bool is an int and datetime is a date, so order would decide in a chain of isinstance.
_ENCODERS: dict[type, Callable[[Any], EncodedValue]] = {
    type(None): lambda obj: EncodedValue(TypeTag.NONE, obj),
    bool: lambda obj: EncodedValue(TypeTag.BOOL, obj),
    int: lambda obj: EncodedValue(TypeTag.INT, obj),
    float: lambda obj: EncodedValue(TypeTag.FLOAT, obj),
    str: lambda obj: EncodedValue(TypeTag.STR, obj),
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    memoryview: _encode_bytes,
    uuid.UUID: lambda obj: EncodedValue(TypeTag.UUID, str(obj)),
    Decimal: lambda obj: EncodedValue(TypeTag.DECIMAL, str(obj)),
    dt.datetime: lambda obj: EncodedValue(TypeTag.DATETIME, obj.isoformat()),
    dt.date: lambda obj: EncodedValue(TypeTag.DATE, obj.isoformat()),
    tuple: _encode_sequence(TypeTag.TUPLE),
    list: _encode_sequence(TypeTag.LIST),
    dict: _encode_dict,
}

_PLAIN_TAGS = (TypeTag.NONE, TypeTag.BOOL, TypeTag.INT, TypeTag.FLOAT, TypeTag.STR)


class Codec(Protocol):
    """Encodes values of some types, decodes values of some tags."""

    def encode(self, obj: Any) -> EncodedValue: ...

    def decode(self, tag: TypeTag, value: Any) -> Any: ...


class _TagCodec:
    """The part of the tables below that belongs to some tags."""

    _kind = "value"
    _types: tuple[type, ...] = ()
    _tags: tuple[TypeTag, ...] = ()

    def encode(self, obj: Any) -> EncodedValue:
        """The value with its tag."""
        if not isinstance(obj, self._types) and obj is not None:
            raise SerDesError(f"Unsupported {self._kind} type: {type(obj)}", _SERDES_ERROR)
        return TYPE_CODEC.encode(obj)

    def decode(self, tag: TypeTag, value: Any) -> Any:
        """What `encode` was given."""
        if tag not in self._tags:
            raise SerDesError(f"Unknown {self._kind} tag: {tag}", _SERDES_ERROR)
        return TYPE_CODEC.decode(tag, value)


class PrimitiveCodec(_TagCodec):
    """None, text, numbers and booleans."""

    _kind = "primitive"
    _types = (str, int, float, bool)
    _tags = (TypeTag.NONE, TypeTag.STR, TypeTag.INT, TypeTag.FLOAT, TypeTag.BOOL)


class BytesCodec(_TagCodec):
    """Bytes, and what has a buffer: all come back as bytes."""

    _kind = "bytes"
    _types = (bytes, bytearray, memoryview)
    _tags = (TypeTag.BYTES,)


class UuidCodec(_TagCodec):
    """UUIDs."""

    _kind = "UUID"
    _types = (uuid.UUID,)
    _tags = (TypeTag.UUID,)


class DecimalCodec(_TagCodec):
    """Decimals."""

    _kind = "decimal"
    _types = (Decimal,)
    _tags = (TypeTag.DECIMAL,)


class DateTimeCodec(_TagCodec):
    """Moments and dates."""

    _kind = "datetime"
    _types = (dt.date,)
    _tags = (TypeTag.DATETIME, TypeTag.DATE)


class ContainerCodec:
    """Lists, tuples, dicts and batch results; what is inside goes to a dispatcher."""

    def __init__(self) -> None:
        self._dispatcher: Codec | None = None

    def set_dispatcher(self, dispatcher: Codec) -> None:
        """Say who encodes what is inside."""
        self._dispatcher = dispatcher

    @property
    def dispatcher(self) -> Codec:
        """Who encodes what is inside."""
        if self._dispatcher is None:
            raise DurableExecutionsError("ContainerCodec has no dispatcher: call set_dispatcher first")
        return self._dispatcher

    def encode(self, obj: Any) -> EncodedValue:
        """The container with its tag."""
        return self.dispatcher.encode(obj)

    def decode(self, tag: TypeTag, value: Any) -> Any:
        """What `encode` was given."""
        return self.dispatcher.decode(tag, value)


class TypeCodec:
    """Encodes by type, decodes by tag."""

    def encode(self, obj: Any) -> EncodedValue:
        """The value with its tag; `SerDesError` for a type that has none."""
        encoder = _ENCODERS.get(type(obj))
        if encoder is not None:
            return encoder(obj)
        from durable_nb.sdk.concurrency.models import BatchResult

        if isinstance(obj, BatchResult):
            return EncodedValue(TypeTag.BATCH_RESULT, _encode_dict(obj.to_dict()).value)
        # A subclass comes back as its base, as the mirrored SDK has it: the round trip shows that on the first run.
        for base in type(obj).__mro__[1:-1]:
            if base in _ENCODERS:
                return _ENCODERS[base](obj)
        raise SerDesError(f"Unsupported type: {type(obj)}", _SERDES_ERROR)

    def decode(self, tag: TypeTag, value: Any) -> Any:
        """What `encode` was given."""
        if tag in _PLAIN_TAGS:
            return value
        decoder = _DECODERS.get(tag)
        if decoder is None:
            raise SerDesError(f"Unknown type tag: {tag!r}", _SERDES_ERROR)
        try:
            return decoder(value)
        except SerDesError:
            raise
        except Exception as exc:
            raise SerDesError(f"the value under tag {tag!r} is not well formed: {exc}", _SERDES_ERROR) from exc


def _decode_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise SerDesError(f"a list was expected, found {type(value)}", _SERDES_ERROR)
    return [_from_envelope(item) for item in value]


def _decode_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SerDesError(f"a dict was expected, found {type(value)}", _SERDES_ERROR)
    return {key: _from_envelope(item) for key, item in value.items()}


def _decode_batch(value: Any) -> Any:
    from durable_nb.sdk.concurrency.models import BatchResult

    return BatchResult.from_dict(_decode_dict(value))


_DECODERS: dict[TypeTag, Callable[[Any], Any]] = {
    TypeTag.BYTES: base64.b64decode,
    TypeTag.UUID: uuid.UUID,
    TypeTag.DECIMAL: Decimal,
    TypeTag.DATETIME: dt.datetime.fromisoformat,
    TypeTag.DATE: dt.date.fromisoformat,
    TypeTag.TUPLE: lambda value: tuple(_decode_list(value)),
    TypeTag.LIST: _decode_list,
    TypeTag.DICT: _decode_dict,
    TypeTag.BATCH_RESULT: _decode_batch,
}

_SERDES_ERROR = qualified_name(SerDesError)
TYPE_CODEC = TypeCodec()


def _from_envelope(data: Any) -> Any:
    if isinstance(data, EncodedValue):
        return TYPE_CODEC.decode(data.tag, data.value)
    if not isinstance(data, dict) or TYPE_TOKEN not in data or VALUE_TOKEN not in data:
        raise SerDesError('Malformed envelope: it has no "t" or no "v"', _SERDES_ERROR)
    try:
        tag = TypeTag(data[TYPE_TOKEN])
    except ValueError:
        raise SerDesError(f'Unknown type tag: "{data[TYPE_TOKEN]}"', _SERDES_ERROR) from None
    return TYPE_CODEC.decode(tag, data[VALUE_TOKEN])


def _to_envelope(obj: Any) -> Any:
    if isinstance(obj, EncodedValue):
        return {TYPE_TOKEN: obj.tag.value, VALUE_TOKEN: _to_envelope(obj.value)}
    if isinstance(obj, list):
        return [_to_envelope(item) for item in obj]
    if isinstance(obj, dict):
        return {key: _to_envelope(item) for key, item in obj.items()}
    return obj


_compact = json.JSONEncoder(separators=(",", ":")).encode


class ExtendedTypeSerDes(SerDes[Any]):
    """JSON that keeps tuples, bytes, dates, decimals, UUIDs and batch results. The default of handlers.

    What plain JSON keeps exactly is plain JSON; everything else travels in `{"t": tag, "v": value}` envelopes.
    """

    def serialize(self, value: Any, context: SerDesContext | None = None) -> str:  # noqa: ARG002
        if type(value) is int:  # the commonest results, without starting an encoder
            return repr(value)
        if SerDes.is_primitive(value):
            return _compact(value)
        try:
            return _compact(_to_envelope(TYPE_CODEC.encode(value)))
        except (TypeError, ValueError, RecursionError) as exc:
            raise SerDesError(f"the value cannot be serialized: {exc}", _SERDES_ERROR) from exc

    def deserialize(self, data: str, context: SerDesContext | None = None) -> Any:  # noqa: ARG002
        parsed = json.loads(data)
        # A bare object can only be an envelope: user dicts always travel inside one.
        return parsed if SerDes.is_primitive(parsed) else _from_envelope(parsed)


DEFAULT_JSON_SERDES: SerDes[Any] = JsonSerDes()
EXTENDED_TYPES_SERDES: SerDes[Any] = ExtendedTypeSerDes()


def serialize(serdes: SerDes[T] | None, value: T, operation_id: str, durable_execution_arn: str) -> str:
    """`serdes.serialize` (None: the extended default) with every failure as a `SerDesError`."""
    context = SerDesContext(operation_id, durable_execution_arn)
    return serialize_with(serdes or EXTENDED_TYPES_SERDES, value, context)


def deserialize(serdes: SerDes[T] | None, data: str, operation_id: str, durable_execution_arn: str) -> T:
    """`serdes.deserialize` (None: the extended default) with every failure as a `SerDesError`."""
    context = SerDesContext(operation_id, durable_execution_arn)
    return cast("T", deserialize_with(serdes or EXTENDED_TYPES_SERDES, data, context))


def serialize_with(serdes: SerDes[Any], value: Any, context: SerDesContext) -> str:
    """The text of a value; errors of the SDK pass, everything else becomes a `SerDesError`."""
    try:
        return serdes.serialize(value, context)
    except DurableExecutionsError:
        raise
    except Exception as exc:
        raise SerDesError(f"operation {context.operation_id} cannot serialize its value: {exc}", _SERDES_ERROR) from exc


def deserialize_with(serdes: SerDes[Any], data: str, context: SerDesContext) -> Any:
    """The value of a text; errors of the SDK pass, everything else becomes a `SerDesError`."""
    try:
        return serdes.deserialize(data, context)
    except DurableExecutionsError:
        raise
    except Exception as exc:
        raise SerDesError(f"operation {context.operation_id} cannot read its payload: {exc}", _SERDES_ERROR) from exc


__all__ = [
    "DEFAULT_JSON_SERDES",
    "EXTENDED_TYPES_SERDES",
    "TYPE_CODEC",
    "TYPE_TOKEN",
    "VALUE_TOKEN",
    "AsText",
    "BytesCodec",
    "BytesSerDes",
    "Codec",
    "ContainerCodec",
    "DateTimeCodec",
    "DecimalCodec",
    "EncodedValue",
    "ExtendedTypeSerDes",
    "JsonSerDes",
    "PassThroughSerDes",
    "PrimitiveCodec",
    "SerDes",
    "SerDesContext",
    "TypeCodec",
    "TypeTag",
    "UuidCodec",
    "deserialize",
    "deserialize_with",
    "serialize",
    "serialize_with",
]
