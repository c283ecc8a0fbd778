"""The state of one execution while code runs over it.

`ExecutionState` keeps what the history says of each operation, records what happens, and knows how this execution
waits. It is shared by all threads of an invocation.

How a record is written. `record` returns when its events are on disk; concurrent branches share a commit (the journal
groups them). `defer` keeps an event for the next commit: used for what a crash may lose without harm (the start of a
context, the end of a wait whose time is known). A start that is still waiting there when its end is recorded is
dropped.

Invariants:
- An event is applied to `operations` after the journal has it; a deferred one when it is deferred.
- Every event of this execution that this process did not write (callbacks, cancel) is applied by `refresh`, once.
- After `close`, nothing is written: a thread that outlived its invocation gets `OrphanedChildException`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from durable_nb.abc import Journal, Lease
from durable_nb.events import Event, EventKind, OperationType, Status, StoredEvent
from durable_nb.exceptions import (
    BackgroundThreadError,
    BotoClientError,
    OrphanedChildException,
    StoreError,
    SuspendExecution,
    TimedSuspendExecution,
    UntrustedCheckpointError,
)
from durable_nb.sdk._local import Bell, EngineClock, SystemClock, ThreadPool, Wake, bell_of
from durable_nb.sdk._machine import OperationState, advance
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES, SerDes

if TYPE_CHECKING:
    from durable_nb.sdk._once import Starts
    from durable_nb.sdk.plugin import PluginExecutor


# Kept by name: asking an enum's class for a member calls a function in Python 3.11, and every event asks.
_EXECUTION, _STARTED, _NOTE = OperationType.EXECUTION, EventKind.STARTED, EventKind.NOTE

DEFERRED = "deferred"
"""The key of `Event.details` of a start that may land behind the end of its own operation."""


class ReplayStatus(Enum):
    """Whether a context still walks over its history."""

    REPLAY = "replay"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is; for progress bars."""

    operation_id: str
    name: str | None
    sub_type: str
    total: int
    done: int
    failed: int
    over: bool


class Scope:
    """A context's right to write. Closing it orphans everything that still runs below."""

    __slots__ = ("_closed", "_parent", "operation_id")

    def __init__(self, operation_id: str | None, parent: Scope | None) -> None:
        self.operation_id = operation_id
        self._parent = parent
        self._closed = False

    def close(self) -> None:
        """Nothing below may write any more."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether this or a scope around it is closed."""
        return self._is_closed()

    def _is_closed(self) -> bool:
        scope: Scope | None = self
        while scope is not None:
            if scope._closed:
                return True
            scope = scope._parent
        return False

    def check(self, operation_id: str) -> None:
        """Raise `OrphanedChildException` when the operation around has finished without this code."""
        if self._is_closed():
            raise OrphanedChildException("the operation around this one has finished already", operation_id)


@dataclass(frozen=True, slots=True)
class News:
    """What others did to an execution."""

    events: Sequence[StoredEvent] = ()
    states: Mapping[str, OperationState] = field(default_factory=dict)
    """Whole states, where a service keeps them."""
    order: int = 0
    """Of the answer that told `states`: threads may take answers out of order, and an older one must not win."""


NO_NEWS = News()


class Recorder(ABC):
    """Where an execution's events go."""

    completes_waits: bool = True
    """False where a service decides when a wait is over and what a callback is called."""
    elides_starts: bool = True
    """False where every attempt must be announced before it ends."""

    @abstractmethod
    def write(self, events: Sequence[Event], *, durable: bool, refs: Iterable[str]) -> News:
        """Record events; returns what else became known."""

    @abstractmethod
    def news(self) -> News:
        """What others did since."""


class JournalRecorder(Recorder):
    """Records in the journal.

    Own and foreign events share one numbering. `_contiguous` is the last number up to which everything is known;
    `_ahead` holds known numbers above it, from threads whose commits finished out of order.
    """

    def __init__(self, journal: Journal, execution_id: str, lease: Lease | None, *, after: int = 0) -> None:
        self.journal = journal
        self.execution_id = execution_id
        self.lease = lease
        self._lock = threading.Lock()
        self._contiguous = after
        self._ahead: set[int] = set()

    def history(self) -> list[StoredEvent]:
        """The whole history; what is read here is no news later."""
        events = list(self.journal.read(self.execution_id))
        if events:
            self._contiguous = events[-1].sequence
        return events

    def write_end(self, deferred: Sequence[Event], event: Event, refs: Iterable[str] = ()) -> None:
        """Record the end of the execution, in its row too."""
        status = Status(event.kind.value)
        self.journal.append(
            self.execution_id, [*deferred, event], lease=self.lease, payload_refs=refs, status=status, due=None
        )

    def write_rest(self, deferred: Sequence[Event], due: float | None) -> None:
        """Record when the execution wants attention."""
        self.journal.append(self.execution_id, deferred, lease=self.lease, due=due)

    def write(self, events: Sequence[Event], *, durable: bool, refs: Iterable[str]) -> News:
        last = self.journal.append(self.execution_id, events, lease=self.lease, durable=durable, payload_refs=refs)
        first = last - len(events) + 1
        with self._lock:
            if first == self._contiguous + 1 and not self._ahead:
                self._contiguous = last
            else:
                self._note(range(first, last + 1))
        return NO_NEWS

    def _note(self, sequences: Iterable[int]) -> None:
        self._ahead.update(number for number in sequences if number > self._contiguous)
        while self._contiguous + 1 in self._ahead:
            self._contiguous += 1
            self._ahead.remove(self._contiguous)

    def news(self) -> News:
        with self._lock:
            found = [
                stored
                for stored in self.journal.read(self.execution_id, after=self._contiguous)
                if stored.sequence not in self._ahead
            ]
            # An own event may be on disk before its writer has noted it. Only what the outside can have written is
            # news; applying one of those twice changes nothing.
            outside = [stored for stored in found if is_outside(stored.event)]
            self._note(stored.sequence for stored in outside)
        return News(outside)


def is_outside(event: Event) -> bool:
    """Whether an event is one that others than the invocation write."""
    if event.type is OperationType.EXECUTION:
        return event.kind is not EventKind.STARTED
    completes = event.kind is not EventKind.STARTED
    return completes and event.type in (OperationType.CALLBACK, OperationType.CHAINED_INVOKE)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An operation that waits, for whoever shows the execution."""

    operation_id: str
    name: str
    kind: str
    """`wait`, `condition`, `callback`: it is there to wait. `retry`: a step has failed and is tried again."""
    due: float | None = None
    """When it goes on by itself; None when only the outside can end it, or when that is not known yet."""
    over: bool = False


@dataclass(slots=True)
class Modes:
    """How operations of this execution behave."""

    blocks: bool = False
    """True waits in the process (cells); False suspends (handlers)."""
    serdes: SerDes[Any] = EXTENDED_TYPES_SERDES
    """The default for results."""
    text_only: bool = False
    """True where payloads have to be text (a service)."""
    payload_limit: int | None = None
    """Bytes above which a context's result is rebuilt from its children instead of kept; None keeps it."""
    on_progress: Callable[[Progress], None] | None = None
    on_event: Callable[[Event], None] | None = None
    on_wait: Callable[[Waiting], None] | None = None
    """Told when an operation comes to a wait, how long that takes, and when it is over; in the thread that waits."""
    on_invoke: Callable[[OperationState], None] | None = None
    """Told of an invoke whose function has to be run."""
    interrupted: Callable[[], bool] = field(default=lambda: False)
    """Asked while waiting in the process: True ends the wait with `KeyboardInterrupt`."""


class ExecutionState:
    """Operations of one execution, and the way to record more."""

    def __init__(
        self,
        arn: str,
        recorder: Recorder,
        *,
        clock: EngineClock | None = None,
        modes: Modes | None = None,
        plugins: PluginExecutor | None = None,
        bell: Bell | None = None,
    ) -> None:
        self.durable_execution_arn = arn
        self.recorder = recorder
        self.clock = clock or SystemClock()
        self.modes = modes or Modes()
        self.plugins = plugins
        self.bell = bell or bell_of(arn)
        self.callback_scope = arn
        """What a callback id begins with: the execution's id in the journal."""
        self.starts: Starts | None = None
        """Markers of at-most-once steps outside the journal; None where there is no place for them."""
        self.pool = ThreadPool()
        self.operations: dict[str, OperationState] = {}
        self.input_payload: str | None = None
        self._lock = threading.Lock()
        self._deferred: list[Event] = []
        self._orders: dict[str, int] = {}
        self._closed = False
        self.cancelled: Event | None = None
        self.retry_now: set[str] = set()
        """Operations whose delay a person has ended."""
        self.on_lookup: Callable[[str], object] | None = None
        """Told of each operation that the code asks for."""

    # --- reading ---------------------------------------------------------------------------------------------------

    def load(self, events: Iterable[StoredEvent]) -> None:
        """Apply a history."""
        operations, apply = self.operations, self._apply
        for stored in events:
            event = stored.event
            if not stored.trusted or event.type is _EXECUTION or event.kind is _NOTE:
                apply(_vouched(stored))
            else:
                operations[event.operation_id] = advance(operations.get(event.operation_id), event)

    def get(self, operation_id: str) -> OperationState | None:
        """What the history says of an operation."""
        return self.operations.get(operation_id)

    def has_prior_operations(self) -> bool:
        """Whether anything but the execution itself is recorded."""
        return bool(self.operations)

    def refresh(self) -> bool:
        """Apply what others did; True when that was anything."""
        news = self.recorder.news()
        self._take(news)
        return bool(news.events or news.states)

    def _take(self, news: News) -> None:
        with self._lock:
            for stored in news.events:
                self._apply(_vouched(stored), trusted=stored.trusted)
            for key, state in news.states.items():
                if self._orders.get(key, -1) <= news.order:
                    self._orders[key] = news.order
                    self.operations[key] = state

    def _apply(self, event: Event, *, trusted: bool = True) -> None:
        if event.type is _EXECUTION:
            if event.kind is _STARTED:
                self.input_payload = None if event.payload is None else event.payload.decode("utf-8")
            elif event.kind is not _NOTE:
                self.cancelled = event
            return
        current = self.operations.get(event.operation_id)
        if current is None and event.kind is _NOTE:
            return
        self.operations[event.operation_id] = advance(current, event, trusted=trusted)

    # --- writing ---------------------------------------------------------------------------------------------------

    def record(
        self, event: Event, scope: Scope | None = None, *, refs: Iterable[str] = (), durable: bool = True
    ) -> None:
        """Write an event, and what was deferred before it, in one commit."""
        with self._lock:
            self._check_open(event, scope)
            batch, self._deferred = self._deferred, []
        if batch and event.kind is not _STARTED and self.recorder.elides_starts:
            batch, event = _without_start(batch, event)
        batch.append(event)
        self._write(batch, refs, durable=durable)

    def defer(self, event: Event, scope: Scope | None = None) -> None:
        """Apply an event now and write it with the next commit."""
        if event.kind is EventKind.STARTED:
            event = replace(event, details={**event.details, DEFERRED: True})
        with self._lock:
            self._check_open(event, scope)
            self._deferred.append(event)
            self._apply(event)
        self._tell(event)

    @property
    def deferred_ids(self) -> set[str]:
        """Operations with events that are not on disk yet."""
        with self._lock:
            return {event.operation_id for event in self._deferred}

    def flush(self) -> None:
        """Write what was deferred."""
        with self._lock:
            batch, self._deferred = self._deferred, []
        if batch:
            self._write(batch, (), durable=True, applied=True)

    def flush_or_raise(self) -> None:
        """`flush` for who is no user code: the store's own error."""
        try:
            self.flush()
        except BackgroundThreadError as error:
            raise error.source_exception from None

    def take_deferred(self) -> list[Event]:
        """What was deferred, for a caller that commits it together with something else."""
        with self._lock:
            batch, self._deferred = self._deferred, []
            return batch

    def close(self) -> None:
        """Refuse writes from now on."""
        with self._lock:
            self._closed = True

    def _check_open(self, event: Event, scope: Scope | None) -> None:
        if self._closed:
            raise OrphanedChildException("the invocation of this code has ended", event.operation_id)
        if scope is not None:
            scope.check(event.operation_id)

    def _write(self, batch: list[Event], refs: Iterable[str], *, durable: bool, applied: bool = False) -> None:
        try:
            news = self.recorder.write(batch, durable=durable, refs=refs)
        except (StoreError, BotoClientError) as error:
            if self.modes.blocks:
                raise  # a cell shows it as any error; a handler must not go on over it
            raise BackgroundThreadError(f"the journal failed: {error}", error) from error
        if not applied:
            event = batch[-1]
            with self._lock:
                if self.recorder.completes_waits or not self._is_told(event, news):
                    self._apply(event)
            self._tell(event)
        if news is not NO_NEWS:
            self._take(news)

    def _is_told(self, event: Event, news: News) -> bool:
        """Whether a service has said what came of the event, in this answer or in one that another thread got."""
        current = self.operations.get(event.operation_id)
        ended = current is not None and current.status.is_terminal and event.kind is not EventKind.STARTED
        return event.operation_id in news.states or ended

    def _tell(self, event: Event) -> None:
        if self.modes.on_event is not None:
            self.modes.on_event(event)

    # --- waiting ---------------------------------------------------------------------------------------------------

    def pause(self, message: str, wake: Wake, scope: Scope) -> None:
        """Wait in the way of this execution: suspend, or (cells) block and return when it may be time.

        Raises:
            SuspendExecution: carries what to wait for as `wake`.
        """
        if not self.modes.blocks:
            raise suspension(message, wake)
        seen = self.bell.rings
        self.refresh()
        if self._news_for(wake):
            return
        self.clock.wait(self.bell, seen, until=wake.at, real_until=wake.real_at, poll=True)
        if self.modes.interrupted():
            raise KeyboardInterrupt
        scope.check(message)

    def _news_for(self, wake: Wake) -> bool:
        return any(self.is_over(operation_id) for operation_id in wake.operations)

    def is_over(self, operation_id: str) -> bool:
        """Whether an operation has ended."""
        found = self.operations.get(operation_id)
        return found is not None and found.status.is_terminal

    def has_come(self, wake: Wake) -> bool:
        """Whether what was waited for is there."""
        if wake.at is not None and wake.at <= self.clock.now():
            return True
        if wake.real_at is not None and wake.real_at <= self.clock.real():
            return True
        return self._news_for(wake)


def _vouched(stored: StoredEvent) -> Event:
    """The event, if a key that the user trusts has signed it.

    A history with one stranger's or one damaged record in it is replayed in no part: what a handler does next follows
    from all of it.
    """
    if not stored.trusted:
        raise UntrustedCheckpointError(f"record {stored.sequence} of this execution")
    return stored.event


def suspension(message: str, wake: Wake) -> SuspendExecution:
    """The exception that ends an invocation until `wake`."""
    due = wake.due
    error = SuspendExecution(message) if due is None else TimedSuspendExecution(message, due)
    error.wake = wake  # type: ignore[attr-defined]
    return error


def wake_of(error: SuspendExecution) -> Wake:
    """What a suspension waits for, also when user code raised it."""
    wake = getattr(error, "wake", None)
    if isinstance(wake, Wake):
        return wake
    return Wake(at=error.scheduled_timestamp) if isinstance(error, TimedSuspendExecution) else Wake()


def _without_start(batch: list[Event], event: Event) -> tuple[list[Event], Event]:
    """Drop the deferred start of the operation that ends here; the end says when it was."""
    for index, waiting in enumerate(batch):
        if waiting.operation_id == event.operation_id and waiting.kind is EventKind.STARTED:
            joined = {**waiting.details, "started": waiting.at, **event.details}
            joined.pop(DEFERRED, None)
            return batch[:index] + batch[index + 1 :], replace(event, details=joined)
    return batch, event


__all__ = [
    "ExecutionState",
    "JournalRecorder",
    "Modes",
    "News",
    "Progress",
    "Recorder",
    "ReplayStatus",
    "Scope",
    "Waiting",
    "is_outside",
    "suspension",
    "wake_of",
]
