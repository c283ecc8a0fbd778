"""`context.step`: run a function once, keep its result.

At least once: the body runs, then its result is recorded; a crash in between means that it runs again. No start is
written before (see `_machine`), so a step costs one commit.

At most once: the start is on disk before the body, in the journal and as a marker outside it (see `_once`). Whoever
finds that start without an end does not run the body: the attempt counts as failed with `StepInterruptedError`, and the
strategy decides whether there is another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from durable_nb.events import EventKind, Status
from durable_nb.exceptions import (
    BackgroundThreadError,
    CannotTravelError,
    SerDesError,
    StepError,
    StepInterruptedError,
    StoreError,
    UntrustedCheckpointError,
    WorkerLostError,
)
from durable_nb.sdk._errors import Failure, build, capture, is_unrecoverable
from durable_nb.sdk._local import Wake
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk._once import REFUSED, Starts
from durable_nb.sdk._qualify import qualified_name
from durable_nb.sdk.config import StepConfig, StepSemantics
from durable_nb.sdk.operation._body import prepare_body
from durable_nb.sdk.operation._frame import Frame, failure_of
from durable_nb.sdk.serdes import SerDes
from durable_nb.sdk.types import StepContext, step_context

T = TypeVar("T")

_NEVER_RETRIED = (SerDesError, UntrustedCheckpointError, CannotTravelError)
_SERDES_ERROR = qualified_name(SerDesError)


_DEFAULT = StepConfig()
_AT_MOST_ONCE = StepSemantics.AT_MOST_ONCE_PER_RETRY
_SUCCEEDED = Status.SUCCEEDED


class _Step:
    __slots__ = ("at_most_once", "config", "frame", "func", "serdes")

    def __init__(self, frame: Frame, func: Callable[[StepContext], Any], config: StepConfig) -> None:
        self.frame = frame
        self.func = func
        self.config = config
        self.serdes: SerDes[Any] = frame.serdes(config.serdes)
        self.at_most_once = config.step_semantics is _AT_MOST_ONCE

    def run(self) -> Any:
        recorded = self.frame.recorded()
        while True:
            if recorded is not None and recorded.status.is_terminal:
                return self.replay(recorded)
            attempt = self.next_attempt(recorded)
            if attempt is not None:
                done, value = self.attempt(attempt)
                if done:
                    return value
            recorded = self.frame.recorded()

    def replay(self, recorded: OperationState) -> Any:
        if recorded.status is _SUCCEEDED:
            return self.frame.result(self.serdes, recorded)
        raise _final_error(failure_of(recorded))

    def next_attempt(self, recorded: OperationState | None) -> int | None:
        """The attempt to run now; None when there was something else to do, and the history is to be read again."""
        if recorded is None:
            return 1
        if recorded.status is Status.PENDING:
            state = self.frame.state
            asked_for = recorded.operation_id in state.retry_now
            early = recorded.due is not None and recorded.due > state.clock.now() and not asked_for
            if early or not state.recorder.completes_waits:
                self.frame.pause(Wake(at=recorded.due))
                return None
            state.retry_now.discard(recorded.operation_id)
            return recorded.attempt + 1
        if recorded.status is Status.READY:
            return recorded.attempt + 1
        if not self.at_most_once:
            return max(recorded.attempt, 1)
        with self.refusing() as starts:
            if starts is not None:
                starts.interrupted(self.frame.identifier, max(recorded.attempt, 1))
        self.interrupted(recorded.attempt, recorded.started_at)
        return None

    def interrupted(self, attempt: int, started: float, cause: Exception | None = None) -> None:
        """Count an attempt that was started as failed: nobody knows its end."""
        name = self.frame.identifier.name or self.frame.identifier.operation_id
        told = "" if cause is None else f": {cause}"
        error = StepInterruptedError(
            f"step {name!r}: attempt {attempt} was started and its end is not known{told}",
            self.frame.identifier.operation_id,
        )
        self.failed(error, max(attempt, 1), started)

    def attempt(self, attempt: int) -> tuple[bool, Any]:
        """Run the body. True and the value when the step is done, False when another attempt follows."""
        frame, state = self.frame, self.frame.state
        frame.scope.check(frame.identifier.operation_id)
        if attempt > 1:
            frame.tell_wait(over=True)
        started = state.clock.now()
        given = step_context(frame.logger.of_operation(state, frame.identifier, attempt), attempt)
        try:
            body = prepare_body(frame, self.func, given, attempt, self.config, once=self.at_most_once)
        except CannotTravelError as error:
            self.failed(error, attempt, started)
            return False, None
        if self.at_most_once:
            self.begin_once(attempt)
        elif not state.recorder.elides_starts:
            state.defer(frame.event(EventKind.STARTED, attempt=attempt), frame.scope)
        try:
            value = body()
            encoded, value = frame.encode(self.serdes, value, attempt)
        except Exception as error:
            if self.at_most_once and isinstance(error, WorkerLostError):
                # What a restart would find: a start without an end.
                self.interrupted(attempt, started, error)
                return False, None
            if is_unrecoverable(error):
                # Not this step's failure. The attempt has begun, and has no end.
                if not self.at_most_once and state.recorder.elides_starts:
                    state.defer(frame.event(EventKind.STARTED, attempt=attempt), frame.scope)
                raise
            self.failed(error, attempt, started)
            return False, None
        frame.succeed(encoded, attempt=attempt, started=started)
        return True, value

    def begin_once(self, attempt: int) -> None:
        """Record the start of an attempt, in the journal and outside it, before its body."""
        frame = self.frame
        with self.refusing() as starts:
            if starts is not None:
                self.refuse_what_is_forgotten(starts, attempt)
            frame.record(frame.event(EventKind.STARTED, attempt=attempt, details={"at_most_once": True}))
            if starts is not None:
                starts.claim(frame.identifier, attempt)

    def refuse_what_is_forgotten(self, starts: Starts, attempt: int) -> None:
        frame = self.frame
        found = starts.forgotten(frame.identifier, attempt)
        if found is None:
            return
        # Noted, so that a person can decide about it without the handler.
        details = {REFUSED: True, "at_most_once": True}
        frame.record(frame.event(EventKind.NOTE, attempt=found.last, details=details))
        raise StepInterruptedError(found.message, frame.identifier.operation_id)

    @contextmanager
    def refusing(self) -> Iterator[Starts | None]:
        """What only a person can decide is no failure of the step: it ends the invocation, and nothing is recorded."""
        try:
            yield self.frame.state.starts
        except (StepInterruptedError, StoreError) as error:
            if self.frame.state.modes.blocks:
                raise  # a cell shows it as any error; a handler must not go on over it
            raise BackgroundThreadError(str(error), error) from error

    def failed(self, error: Exception, attempt: int, started: float) -> None:
        """Record the end of an attempt; raises when it was the last."""
        failure: Failure = capture(error)
        delay = self.delay(error, attempt)
        if delay is None:
            self.frame.fail(failure, attempt=attempt, started=started)
            raise _final_error(failure)
        self.frame.retry(failure, delay, attempt=attempt, started=started)

    def delay(self, error: Exception, attempt: int) -> int | None:
        """Seconds until the next attempt; None when there is none."""
        if isinstance(error, _NEVER_RETRIED) or self.config.retry_strategy is None:
            return None
        decision = self.config.retry_strategy(error, attempt)
        return max(1, decision.delay_seconds) if decision.should_retry else None


def _final_error(failure: Failure) -> Exception:
    """What callers see: a `StepError`, but a value that cannot be serialized is the caller's mistake and no failed
    body.
    """
    wire = failure.error
    if wire.type == _SERDES_ERROR:
        return SerDesError(wire.message, wire.type, wire.data, wire.stack_trace)
    return build(StepError, failure)


def step(frame: Frame, func: Callable[[StepContext], T], config: StepConfig | None) -> T:
    """Run a step, or give its recorded result back."""
    result: T = _Step(frame, func, config or _DEFAULT).run()
    return result


__all__ = ["step"]
