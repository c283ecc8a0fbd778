"""What every operation needs: its place, its events, its errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from durable_nb.events import ErrorInfo, Event, EventKind, OperationType, new_event
from durable_nb.exceptions import DurableOperationError, NestedOperationError
from durable_nb.sdk._codec import ENCODING, Encoded, context_of, decode, decode_recorded, encode
from durable_nb.sdk._errors import Failure, build
from durable_nb.sdk._local import Wake
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk.identifier import OperationIdentifier
from durable_nb.sdk.lambda_service import OperationSubType
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, AsText, BytesSerDes, SerDes, SerDesContext
from durable_nb.sdk.state import ExecutionState, Scope, Waiting

if TYPE_CHECKING:
    from durable_nb.sdk.logger import Logger
    from durable_nb.sdk.operation._calls import Calls

_body: ContextVar[tuple[ExecutionState, str | None] | None] = ContextVar("durable_nb_step_body", default=None)


def call_inside_body(state: ExecutionState, name: str | None, func: Callable[[Any], Any], argument: Any) -> Any:
    """Call the body of a step, where no durable operation may be asked for."""
    token = _body.set((state, name))
    try:
        return func(argument)
    finally:
        _body.reset(token)


def refuse_in_body(state: ExecutionState, operation: str) -> None:
    """Raise `NestedOperationError` inside the body of a step of the same execution."""
    around = _body.get()
    if around is not None and around[0] is state:
        raise NestedOperationError(operation, around[1])


_SUCCEEDED = EventKind.SUCCEEDED
_EXACT = frozenset({type(None), bool, int, str})
_NO_CONTEXT = SerDesContext()


@dataclass(slots=True, eq=False)
class Frame:
    """An operation of a running execution. Nothing changes it; it is not frozen, since every step makes one."""

    state: ExecutionState
    identifier: OperationIdentifier
    scope: Scope
    logger: Logger
    calls: Calls | None = None
    """Where bodies run instead of here: the executor of the batch around."""

    # --- the history -----------------------------------------------------------------------------------------------

    def recorded(self) -> OperationState | None:
        """What the history has at this place; raises when it is another operation."""
        state, who = self.state, self.identifier
        if state.on_lookup is not None:
            state.on_lookup(who.operation_id)
        found = state.operations.get(who.operation_id)
        if found is not None:
            who.validate_checkpoint(found)
        return found

    # --- events ----------------------------------------------------------------------------------------------------

    def event(
        self,
        kind: EventKind,
        *,
        attempt: int = 1,
        payload: bytes | None = None,
        error: ErrorInfo | None = None,
        due: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Event:
        """An event of this operation, now."""
        who = self.identifier
        return new_event(
            who.operation_id,
            kind,
            who.operation_type,
            self.state.clock.now(),
            None if who.sub_type is None else str(who.sub_type),
            who.name,
            who.parent_id,
            attempt,
            payload,
            error,
            due,
            details or {},
        )

    def record(self, event: Event, *, refs: tuple[str, ...] = (), durable: bool = True) -> None:
        """Write; returns when it is on disk."""
        self.state.record(event, self.scope, refs=refs, durable=durable)

    def succeed(
        self, encoded: Encoded, *, attempt: int = 1, started: float | None = None, details: dict[str, Any] | None = None
    ) -> None:
        """Record a result."""
        facts: dict[str, Any] = {} if details is None else dict(details)
        if started is not None:
            facts["started"] = started
        if encoded.encoding is not None:
            facts[ENCODING] = encoded.encoding
        event = self.event(_SUCCEEDED, attempt=attempt, payload=encoded.payload, details=facts)
        self.state.record(event, self.scope, refs=encoded.refs)

    def fail(
        self,
        failure: Failure,
        *,
        attempt: int = 1,
        started: float | None = None,
        kind: EventKind = EventKind.FAILED,
    ) -> None:
        """Record a final error."""
        facts = failure.details()
        if started is not None:
            facts["started"] = started
        self.record(self.event(kind, attempt=attempt, error=failure.info(), details=facts))

    def retry(
        self,
        failure: Failure | None,
        delay: float,
        *,
        attempt: int,
        started: float | None = None,
        encoded: Encoded | None = None,
    ) -> None:
        """Record that another attempt follows."""
        facts = failure.details() if failure else {}
        facts["delay"] = delay
        if started is not None:
            facts["started"] = started
        if encoded is not None and encoded.encoding is not None:
            facts[ENCODING] = encoded.encoding
        event = self.event(
            EventKind.RETRY_SCHEDULED,
            attempt=attempt,
            error=failure.info() if failure else None,
            payload=encoded.payload if encoded else None,
            due=self.state.clock.now() + delay,
            details=facts,
        )
        self.record(event, refs=encoded.refs if encoded else ())

    # --- waiting ---------------------------------------------------------------------------------------------------

    def pause(self, wake: Wake) -> None:
        """Wait in the way of this execution."""
        name = self.identifier.name or self.identifier.operation_id[:8]
        state = self.state
        self.tell_wait(due=wake.due)
        if not state.recorder.completes_waits:
            # A service says when it is time: what seems due here is only looked at again, not taken as over.
            soonest = state.clock.now() + 1.0
            wake = Wake(None if wake.at is None else max(wake.at, soonest), wake.real_at, wake.operations)
        state.pause(f"{self.identifier.operation_type.value.lower()} {name} waits", wake, self.scope)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around an operation that is there to wait: told also when nothing is left to wait for."""
        self.tell_wait()
        try:
            yield
        finally:
            self.tell_wait(over=True)

    def tell_wait(self, *, due: float | None = None, over: bool = False) -> None:
        """Tell whoever shows the execution that this operation waits, or does so no more."""
        tell = self.state.modes.on_wait
        if tell is not None:
            who = self.identifier
            tell(Waiting(who.operation_id, who.name or "", _kind_of_wait(who), due, over))

    # --- values ----------------------------------------------------------------------------------------------------

    def serdes_context(self, attempt: int = 1) -> SerDesContext:
        """What a serdes is told."""
        return context_of(self.identifier, self.state.durable_execution_arn, attempt)

    def serdes(self, chosen: SerDes[Any] | None) -> SerDes[Any]:
        """The chosen serdes, else the execution's."""
        modes = self.state.modes
        serdes = modes.serdes if chosen is None else chosen
        return AsText(serdes) if modes.text_only and isinstance(serdes, BytesSerDes) else serdes

    def encode(self, serdes: SerDes[Any], value: Any, attempt: int = 1) -> tuple[Encoded, Any]:
        """A value's payload, and the value as a replay will give it."""
        if serdes is EXTENDED_TYPES_SERDES and type(value) in _EXACT:
            # JSON keeps these exactly and nothing can change them: the round trip is known without being made.
            return Encoded(serdes.serialize(value, _NO_CONTEXT).encode()), value
        context = self.serdes_context(attempt)
        encoded = encode(serdes, value, context)
        return encoded, decode(serdes, encoded, context)

    def result(self, serdes: SerDes[Any], recorded: OperationState) -> Any:
        """The recorded result."""
        if serdes is EXTENDED_TYPES_SERDES and recorded.trusted and ENCODING not in recorded.details:
            plain = _plain(recorded.payload)
            if type(plain) in _PLAIN:
                return plain
        return decode_recorded(serdes, recorded, self.serdes_context(recorded.attempt))


def _plain(payload: bytes | None) -> Any:
    """What JSON makes of a payload where that is all that the default serdes does; else what is none of `_PLAIN`."""
    if payload is None:
        return _NOTHING
    try:
        text = payload.decode("utf-8")
        value, end = _raw_decode(text)
    except (ValueError, RecursionError):
        return _NOTHING  # the whole way tells what is wrong
    return value if end == len(text) else _NOTHING


_raw_decode = json.JSONDecoder().raw_decode
_PLAIN = _EXACT | {float}
_NOTHING = object()


def _kind_of_wait(who: OperationIdentifier) -> str:
    if who.operation_type is not OperationType.STEP:
        return who.operation_type.value.lower()
    return "condition" if who.sub_type == OperationSubType.WAIT_FOR_CONDITION else "retry"


def failure_of(recorded: OperationState) -> Failure:
    """The recorded error."""
    info = recorded.error or ErrorInfo(type="", message="")
    return Failure.from_event(info, recorded.details, trusted=recorded.trusted)


def raise_failure(cls: type[DurableOperationError], recorded: OperationState) -> NoReturn:
    """Raise the recorded error as an operation error."""
    raise build(cls, failure_of(recorded))
