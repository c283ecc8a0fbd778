"""Values to payloads and back, for the engine: one place that knows text from bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durable_nb.exceptions import DurableExecutionsError, SerDesError, UntrustedCheckpointError
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk.identifier import OperationIdentifier
from durable_nb.sdk.serdes import BytesSerDes, SerDes, SerDesContext, deserialize_with, serialize_with

ENCODING = "encoding"
"""The key of `Event.details` that names a payload which is no text."""


@dataclass(slots=True)
class Encoded:
    """A value on its way into the journal. Not frozen, since every step makes one."""

    payload: bytes
    refs: tuple[str, ...] = ()
    encoding: str | None = None
    """None is UTF-8 text."""

    @property
    def text(self) -> str | None:
        """The payload as text, where it is text."""
        return self.payload.decode("utf-8") if self.encoding is None else None


def context_of(identifier: OperationIdentifier, arn: str, attempt: int) -> SerDesContext:
    """What a serdes is told about where a value belongs."""
    return SerDesContext(identifier.operation_id, arn, identifier.name, identifier.operation_type.value, attempt)


def encode(serdes: SerDes[Any], value: Any, context: SerDesContext) -> Encoded:
    """A value as a payload."""
    if not isinstance(serdes, BytesSerDes):
        text = serialize_with(serdes, value, context)
        if not isinstance(text, str):
            raise SerDesError(f"a serdes must return text, {type(serdes).__name__} returned {type(text).__name__}")
        return Encoded(text.encode("utf-8"))
    try:
        data, refs = serdes.dump(value, context)
    except DurableExecutionsError:
        raise
    except Exception as exc:
        raise SerDesError(f"{_what(context)} cannot serialize its value: {exc}") from exc
    return Encoded(data, refs, type(serdes).__name__)


def decode(serdes: SerDes[Any], encoded: Encoded, context: SerDesContext, *, trusted: bool = True) -> Any:
    """The value of a payload."""
    if not trusted:
        raise UntrustedCheckpointError(_what(context))
    if encoded.encoding is None:
        return deserialize_with(serdes, encoded.payload.decode("utf-8"), context)
    if not isinstance(serdes, BytesSerDes):
        raise SerDesError(
            f"{_what(context)} was written by {encoded.encoding} and is read with {type(serdes).__name__}: "
            "give the operation the serdes it had"
        )
    try:
        return serdes.load(encoded.payload, context)
    except DurableExecutionsError:
        raise
    except Exception as exc:
        raise SerDesError(f"{_what(context)} cannot read its payload: {exc}") from exc


def decode_recorded(serdes: SerDes[Any], operation: OperationState, context: SerDesContext) -> Any:
    """The value that an operation's record holds; None where a service kept no payload."""
    if operation.payload is None:
        return None
    encoded = Encoded(operation.payload, encoding=operation.details.get(ENCODING))
    return decode(serdes, encoded, context, trusted=operation.trusted)


def _what(context: SerDesContext) -> str:
    return f"{(context.type or 'operation').lower()} {context.name or context.operation_id!r}"
