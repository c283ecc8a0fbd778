"""The drive loop: invocation after invocation until an execution is over.

One driver holds the lease of an execution and calls its handler. When the handler suspends, its stack is gone; the
driver records when the execution wants attention (`due`) and waits, or leaves it to whoever drives it next
(`wait=False`, as workers do). What resumes it: a moment that has come, a callback or an invoked function that
completed, in this process (its bell rings) or another one (the journal is looked at).

`due` in the execution's row is the promise to workers. It is set from the creation to the end, also while the handler
runs, so an execution whose process died is found; its lease says whether somebody drives it. Whoever completes
something from outside sets it to now. Order makes this safe: the driver writes `due` first and looks at the journal
after, so a completion in between is either seen, or has set `due` itself.

Invoked functions run in threads of their own as soon as they are asked for: a plain function is called, a durable one
is an execution with a name made from its parent's and the operation's id, so it is found again after a crash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from durable_nb.abc import Journal, Lease, Markers
from durable_nb.events import Event, EventKind, ExecutionRecord, OperationType, Status
from durable_nb.exceptions import (
    ExecutionConflictError,
    InvalidStateError,
    JournalConflictError,
    LeaseHeldError,
    UntrustedCheckpointError,
    ValidationError,
)
from durable_nb.sdk._callbacks import CallbackSender
from durable_nb.sdk._codec import ENCODING, Encoded
from durable_nb.sdk._errors import Failure, capture
from durable_nb.sdk._invocation import Outcome, invoke_handler, parse_event
from durable_nb.sdk._keeper import KEEPER, LEASE_SECONDS
from durable_nb.sdk._local import EngineClock, SystemClock, Wake, bell_of
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk._once import starts_of
from durable_nb.sdk._registry import HANDLERS, Registry, import_handler
from durable_nb.sdk.constants import CHECKPOINT_SIZE_LIMIT_BYTES
from durable_nb.sdk.lambda_service import ErrorObject
from durable_nb.sdk.operation.invoke import FUNCTION
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES
from durable_nb.sdk.state import ExecutionState, JournalRecorder, Modes, Progress

if TYPE_CHECKING:
    from durable_nb.sdk.execution import DurableHandler

logger = logging.getLogger(__name__)

HANDLER_KIND = "handler"
PARENT = "parent"
RETRY_INVOCATION_SECONDS = 5.0
RETRY_INVOCATIONS = 5
_TRY_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """The end of an execution, or where it stands."""

    record: ExecutionRecord
    status: Status
    encoded: Encoded | None = None
    failure: Failure | None = None
    trusted: bool = True


@dataclass(slots=True)
class Driver:
    """Drives executions of one journal."""

    journal: Journal
    clock: EngineClock = field(default_factory=SystemClock)
    registry: Registry = HANDLERS
    payload_limit: int | None = CHECKPOINT_SIZE_LIMIT_BYTES
    on_progress: Callable[[Progress], None] | None = None
    on_invocation: Callable[[str, str], None] | None = None
    """Told (execution id, "start" or "end") around each invocation."""
    arn_of: Callable[[ExecutionRecord], str] | None = None
    """What user code sees as the execution's id; its id in the journal unless told otherwise."""
    lambda_context_of: Callable[[ExecutionRecord], Any] | None = None
    """What user code sees as the platform's context; None unless told otherwise."""
    wrap_recorder: Callable[[JournalRecorder], JournalRecorder] | None = None
    """Puts something around the recorder of each invocation: faults, in tests."""
    retry_seconds: float = RETRY_INVOCATION_SECONDS
    markers: Markers | None = None
    """Where at-most-once steps leave proof of their start outside the journal."""

    # --- executions by name ----------------------------------------------------------------------------------------

    def create(
        self, name: str, handler: str, event_text: str, *, details: Mapping[str, Any] | None = None
    ) -> ExecutionRecord:
        """The execution of that name, begun (on disk) or found.

        What an execution is follows from its signed beginning. Its row is not signed: it finds the execution, and what
        it says is believed only where the beginning says the same.

        Raises:
            ExecutionConflictError: the name belongs to another handler or to another input.
            UntrustedCheckpointError: its beginning was not signed with a key of this user or team.
        """
        facts = {"handler": handler, "input_digest": digest_of(event_text), **(details or {})}
        record = self.journal.create(name, kind=HANDLER_KIND, at=self.clock.now(), details=facts)
        self._check_same(record, {"kind": record.kind, **record.details}, facts)
        begun = self._begun(record)
        if begun is not None:
            self._check_same(record, {**facts, **_signed_facts(begun)}, facts)
        elif record.status.is_terminal:
            raise UntrustedCheckpointError(f"execution {name!r}, whose beginning is missing")
        else:
            origin = {"handler": handler, **{key: facts[key] for key in (PARENT,) if key in facts}}
            event = self._execution_event(record, EventKind.STARTED, payload=event_text.encode("utf-8"), details=origin)
            # Another process may have begun it in this moment.
            with suppress(JournalConflictError):
                self.journal.append(record.execution_id, [event], after=0, due=self.clock.now())
        return record

    @staticmethod
    def _check_same(record: ExecutionRecord, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        if record.kind != HANDLER_KIND:
            raise ExecutionConflictError(record.name, f"the kind {record.kind!r}")
        for key, what in (("handler", "handler"), ("input_digest", "input")):
            if found.get(key) != asked[key]:
                shown = f" ({found.get(key)})" if key == "handler" else ""
                raise ExecutionConflictError(record.name, f"another {what}{shown}")

    def _begun(self, record: ExecutionRecord) -> Event | None:
        """The signed beginning of an execution; None when it has not begun.

        Raises:
            UntrustedCheckpointError: nobody vouches for it, or it is another execution's under this one's name.
        """
        for stored in self.journal.read_operation(record.execution_id, record.execution_id):
            if stored.event.kind is EventKind.STARTED:
                if not stored.trusted or stored.event.name != record.name:
                    raise UntrustedCheckpointError(f"execution {record.name!r}")
                return stored.event
        return None

    def _execution_event(
        self,
        record: ExecutionRecord,
        kind: EventKind,
        *,
        payload: bytes | None = None,
        failure: Failure | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Event:
        facts = {**(failure.details() if failure else {}), **(details or {})}
        return Event(
            operation_id=record.execution_id,
            kind=kind,
            type=OperationType.EXECUTION,
            at=self.clock.now(),
            name=record.name,
            payload=payload,
            error=failure.info() if failure else None,
            details=facts,
        )

    def result(self, execution_id: str) -> Result:
        """Where an execution stands, from the journal."""
        record = self.journal.get(execution_id)
        if record is None:
            raise ValidationError(f"there is no execution {execution_id!r} in this store")
        if record.status.is_terminal:
            for stored in reversed(self.journal.read_operation(execution_id, execution_id)):
                event = stored.event
                if event.kind in (EventKind.STARTED, EventKind.NOTE):
                    continue
                failure = None
                if event.error is not None:
                    failure = Failure.from_event(event.error, event.details, trusted=stored.trusted)
                encoded = Encoded(event.payload or b"null", encoding=event.details.get(ENCODING))
                return Result(record, record.status, encoded, failure, stored.trusted)
        return Result(record, record.status)

    # --- driving ---------------------------------------------------------------------------------------------------

    def drive(
        self,
        record: ExecutionRecord,
        handler: DurableHandler[Any, Any],
        *,
        wait: bool = True,
        timeout: float | None = None,
        lease: Lease | None = None,
    ) -> Result:
        """Drive an execution until it is over; with `wait=False`, until it suspends.

        Args:
            record: the execution.
            handler: its handler.
            wait: drive on when it has suspended.
            timeout: seconds; None waits for ever.
            lease: of whoever has claimed the execution already; it is given back at the end.

        Raises:
            LeaseHeldError: another process (or thread) drives it.
            TimeoutError: it is not over in `timeout` seconds. It stays resumable.
        """
        if lease is None:
            fresh = self.journal.get(record.execution_id)
            if fresh is None or fresh.status.is_terminal:
                return self.result(record.execution_id)
            record, lease = fresh, self.journal.acquire(record.execution_id, ttl=LEASE_SECONDS)
        try:
            run = _Run(self, record, handler, lease, None if timeout is None else time.monotonic() + timeout)
            run.until_over(wait=wait)
        finally:
            self.journal.release(lease)
        return self.result(record.execution_id)

    def handler_of(self, record: ExecutionRecord) -> DurableHandler[Any, Any]:
        """The handler of an execution: registered, or imported when its signed beginning names its module.

        Raises:
            UntrustedCheckpointError: its beginning was not signed with a key of this user or team.
            ValidationError: it is neither registered nor can be imported.
        """
        from durable_nb.sdk.execution import DurableHandler

        begun = self._begun(record)
        signed = begun.details.get("handler") if begun is not None else None
        name = str(signed or record.details.get("handler", ""))
        found = self.registry.find(name)
        if found is None and signed and ":" in name:
            found = import_handler(name)
        if not isinstance(found, DurableHandler):
            raise ValidationError(f"execution {record.name!r} needs the handler {name!r}, which is not registered")
        return found

    def stop(self, record: ExecutionRecord, reason: str | None = None) -> None:
        """End an execution from outside: whoever drives it stops at its next operation."""
        if record.status.is_terminal:
            raise InvalidStateError(f"execution {record.name!r} has ended: {record.status.value}")
        wire = ErrorObject(message=reason or "cancelled", type=None, data=None, stack_trace=None)
        event = self._execution_event(record, EventKind.STOPPED, failure=Failure(wire))
        self.journal.append(record.execution_id, [event], status=Status.STOPPED, due=None)
        bell_of(record.execution_id).ring()
        self._tell_parent(record, Outcome(Status.STOPPED, failure=Failure(wire)))

    def _tell_parent(self, record: ExecutionRecord, outcome: Outcome, parent: Mapping[str, str] | None = None) -> None:
        """Give an invoke its result. Which one is signed: a row must not lead a result to another place."""
        begun = self._begun(record) if parent is None else None
        if begun is not None:
            parent = begun.details.get(PARENT)
        if not parent:
            return
        kind = EventKind.SUCCEEDED if outcome.status is Status.SUCCEEDED else EventKind.FAILED
        payload = outcome.encoded.payload if outcome.encoded else None
        sender = CallbackSender(self.journal, self.clock)
        try:
            sender.end(parent["execution"], parent["operation"], kind, payload=payload, failure=outcome.failure)
        except (InvalidStateError, ValidationError):
            logger.info("execution %s ended, and its parent no longer waits for it", record.name)


class _Run:
    """One execution under one lease."""

    def __init__(
        self,
        driver: Driver,
        record: ExecutionRecord,
        handler: DurableHandler[Any, Any],
        lease: Lease,
        deadline: float | None,
    ) -> None:
        self.driver = driver
        self.record = record
        self.handler = handler
        self.lease = lease
        self.deadline = deadline
        self.bell = bell_of(record.execution_id)
        self.children: dict[str, threading.Thread] = {}
        self.recorder = JournalRecorder(driver.journal, record.execution_id, lease)
        self.tried: dict[str, float] = {}
        self.broken: BaseException | None = None
        """What ended an invoked function's thread, and ends this one too."""
        self.wait = True
        self.retries = 0

    @property
    def journal(self) -> Journal:
        return self.driver.journal

    def until_over(self, *, wait: bool) -> None:
        self.wait = wait
        with self.children_joined():
            while True:
                outcome, state = self.invoke()
                if outcome.status is Status.STOPPED or state.cancelled is not None:
                    return
                if outcome.status.is_terminal:
                    if self.finish(outcome, state):
                        return
                    continue
                wake = outcome.wake
                if outcome.status is Status.RETRY:
                    if self.retries >= RETRY_INVOCATIONS:
                        self.finish(Outcome(Status.FAILED, failure=outcome.failure), state)
                        return
                    self.retries += 1
                    wake = Wake(at=self.driver.clock.now() + self.driver.retry_seconds)
                else:
                    self.retries = 0
                if not self.rest(state, wake):
                    return

    @contextmanager
    def children_joined(self) -> Iterator[None]:
        yield
        # After an interrupt they are left behind: they hold leases of their own, and nothing of this execution's.
        for thread in self.children.values():
            thread.join()

    # --- one invocation --------------------------------------------------------------------------------------------

    def load(self) -> ExecutionState:
        driver = self.driver
        arn = driver.arn_of(self.record) if driver.arn_of else self.record.execution_id
        modes = Modes(
            serdes=self.handler.serdes or EXTENDED_TYPES_SERDES,
            payload_limit=driver.payload_limit,
            on_progress=driver.on_progress,
            on_invoke=self.start_child,
        )
        recorder = JournalRecorder(self.journal, self.record.execution_id, self.lease)
        if driver.wrap_recorder is not None:
            recorder = driver.wrap_recorder(recorder)
        self.recorder = recorder
        state = ExecutionState(arn, recorder, clock=driver.clock, modes=modes, bell=self.bell)
        state.callback_scope = self.record.execution_id
        if driver.markers is not None:
            state.starts = starts_of(driver.markers, self.journal, self.record)
        state.load(recorder.history())
        self.end_waits(state)
        return state

    def end_waits(self, state: ExecutionState) -> None:
        """Record the end of waits whose time has come, also where the code no longer asks for them."""
        now = self.driver.clock.now()
        over = [
            one
            for one in state.operations.values()
            if one.operation_type is OperationType.WAIT and one.due is not None and one.due <= now
        ]
        for one in over:
            state.defer(
                Event(
                    operation_id=one.operation_id,
                    kind=EventKind.SUCCEEDED,
                    type=one.operation_type,
                    at=now,
                    sub_type=one.sub_type,
                    name=one.name,
                    parent_id=one.parent_id,
                )
            )

    def invoke(self) -> tuple[Outcome, ExecutionState]:
        state = self.load()
        if state.cancelled is not None:
            return Outcome(Status.STOPPED), state
        driver = self.driver
        driver_told = driver.on_invocation
        if driver_told is not None:
            driver_told(self.record.execution_id, "start")
        with driver.clock.busy(), KEEPER.watching(self.journal, self.lease, state):
            outcome = invoke_handler(
                self.handler.func,
                parse_event(state.input_payload),
                state,
                serdes=self.handler.serdes,
                plugins=self.handler.plugins,
                started_at=self.record.created_at,
                lambda_context=self.handler.context_for(self.record, driver),
            )
        if driver_told is not None:
            driver_told(self.record.execution_id, "end")
        return outcome, state

    # --- the end ---------------------------------------------------------------------------------------------------

    def finish(self, outcome: Outcome, state: ExecutionState) -> bool:
        """Record the result; False when something came in between and the handler has to be asked again."""
        state.refresh()
        if state.cancelled is not None:
            return True
        encoded = outcome.encoded
        kind = EventKind.SUCCEEDED if outcome.status is Status.SUCCEEDED else EventKind.FAILED
        details = {ENCODING: encoded.encoding} if encoded is not None and encoded.encoding is not None else None
        event = self.driver._execution_event(
            self.record,
            kind,
            payload=encoded.payload if encoded else None,
            failure=outcome.failure,
            details=details,
        )
        state.close()
        self.recorder.write_end(state.take_deferred(), event, encoded.refs if encoded else ())
        self.driver._tell_parent(self.record, outcome)
        self.bell.ring()
        return True

    # --- rest ------------------------------------------------------------------------------------------------------

    def rest(self, state: ExecutionState, wake: Wake) -> bool:
        """Wait until the handler may go on. False when this driver leaves it to others."""
        clock = self.driver.clock
        seen = self.bell.rings
        state.close()
        self.recorder.write_rest(state.take_deferred(), wake.due)
        while True:
            if self.broken is not None:
                raise self.broken
            state.refresh()
            if state.cancelled is not None:
                return True  # the next invocation finds it out
            if state.has_come(wake):
                return True
            if not self.wait and not self.children:
                return False
            if self.deadline is not None and time.monotonic() >= self.deadline:
                raise TimeoutError(f"execution {self.record.name!r} is not over; it can be resumed by its name")
            real_until = wake.real_at
            if self.deadline is not None:
                limit = clock.real() + (self.deadline - time.monotonic())
                real_until = limit if real_until is None else min(real_until, limit)
            clock.wait(self.bell, seen, until=wake.at, real_until=real_until, poll=bool(wake.operations))
            seen = self.bell.rings
            self.forget_ended_children()
            if self.wait:
                self.restart_children(state, wake)

    def restart_children(self, state: ExecutionState, wake: Wake) -> None:
        """Run invoked functions again that nobody here runs: another process had them, and it may have died."""
        now = time.monotonic()
        for key in wake.operations:
            operation = state.get(key)
            if operation is None or operation.operation_type is not OperationType.CHAINED_INVOKE:
                continue
            if key in self.children or state.is_over(key) or now - self.tried.get(key, 0.0) < _TRY_AGAIN_SECONDS:
                continue
            self.start_child(operation)

    def forget_ended_children(self) -> None:
        for key in [key for key, thread in self.children.items() if not thread.is_alive()]:
            del self.children[key]

    # --- invoked functions -----------------------------------------------------------------------------------------

    def start_child(self, operation: OperationState) -> None:
        """Run the function of an invoke in a thread, unless that happens already."""
        running = self.children.get(operation.operation_id)
        if running is not None and running.is_alive():
            return
        name = f"durable_nb invoke {operation.name or operation.operation_id[:8]}"
        thread = threading.Thread(target=self.run_child, args=(operation,), name=name, daemon=True)
        self.children[operation.operation_id] = thread
        self.tried[operation.operation_id] = time.monotonic()
        thread.start()

    def run_child(self, operation: OperationState) -> None:
        driver = self.driver
        function = str(operation.details[FUNCTION])
        sender = CallbackSender(driver.journal, driver.clock)
        target = (self.record.execution_id, operation.operation_id)
        try:
            found = driver.registry.find(function)
            if found is None and ":" in function:
                found = import_handler(function)
            text = (operation.payload or b"null").decode("utf-8")
            with driver.clock.busy():
                if found is None:
                    wire = ErrorObject(
                        f"there is no function {function!r}: register it under this name",
                        "ResourceNotFoundException",
                        None,
                        None,
                    )
                    sender.end(*target, EventKind.FAILED, failure=Failure(wire))
                    return
                from durable_nb.sdk.execution import DurableHandler

                if not isinstance(found, DurableHandler):
                    self.call_plain(found, text, sender, target)
                    return
            self.drive_child(found, function, text, operation)
        except InvalidStateError:
            pass  # it has been completed by another process
        except Exception:
            # The operation stays open: the next driver of the parent starts the function again.
            logger.exception("the invoked function %r could not be run", function)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that drives the parent
            self.broken = error
            self.bell.ring()

    def call_plain(
        self, function: Callable[..., Any], text: str, sender: CallbackSender, target: tuple[str, str]
    ) -> None:
        try:
            value = function(json.loads(text), None)
            payload = json.dumps(value).encode("utf-8")
        except Exception as error:  # noqa: BLE001 - the function's error is the operation's
            sender.end(*target, EventKind.FAILED, failure=capture(error))
            return
        sender.end(*target, EventKind.SUCCEEDED, payload=payload)

    def drive_child(
        self, handler: DurableHandler[Any, Any], function: str, text: str, operation: OperationState
    ) -> None:
        driver = self.driver
        name = f"{self.record.name}/{operation.name or function}-{operation.operation_id[:12]}"
        parent = {"execution": self.record.execution_id, "operation": operation.operation_id}
        child = driver.create(name, function, text, details={PARENT: parent})
        try:
            result = driver.drive(child, handler, wait=self.wait)
        except LeaseHeldError:
            return  # another process drives it, and will tell the parent
        if result.status.is_terminal:
            # Told already, unless the process died between the child's end and the word to its parent.
            driver._tell_parent(child, Outcome(result.status, result.encoded, result.failure), parent)


def _signed_facts(begun: Event) -> dict[str, Any]:
    """What the beginning of an execution says of it."""
    facts: dict[str, Any] = {"input_digest": digest_of((begun.payload or b"").decode("utf-8"))}
    if "handler" in begun.details:
        facts["handler"] = begun.details["handler"]
    return facts


def digest_of(text: str) -> str:
    """What makes two inputs the same: equal JSON, whatever its layout and the order of its keys."""
    try:
        canonical = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    except ValueError:
        canonical = text
    return hashlib.blake2b(canonical.encode("utf-8"), digest_size=16).hexdigest()


__all__ = ["HANDLER_KIND", "Driver", "Result", "digest_of"]
