"""`context.wait_for_condition`: look again and again, with the state that the last look left.

An operation of type STEP. Between two looks the state is in the payload of the scheduled retry, so polling survives the
process and starts again where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from durable_nb.events import EventKind, Status
from durable_nb.exceptions import WaitForConditionError
from durable_nb.sdk._errors import build, capture, is_unrecoverable
from durable_nb.sdk._local import Wake
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk.config import StepConfig
from durable_nb.sdk.logger import LogInfo
from durable_nb.sdk.operation._body import call_body
from durable_nb.sdk.operation._frame import Frame, raise_failure
from durable_nb.sdk.serdes import SerDes
from durable_nb.sdk.types import WaitForConditionCheckContext
from durable_nb.sdk.waits import WaitForConditionConfig

T = TypeVar("T")

_BODY = StepConfig()


class _Poll:
    def __init__(
        self,
        frame: Frame,
        check: Callable[[Any, WaitForConditionCheckContext], Any],
        config: WaitForConditionConfig[Any],
    ) -> None:
        self.frame = frame
        self.check = check
        self.config = config
        self.serdes: SerDes[Any] = frame.serdes(config.serdes)

    def run(self) -> Any:
        recorded = self.frame.recorded()
        while True:
            if recorded is not None and recorded.status is Status.SUCCEEDED:
                return self.frame.result(self.serdes, recorded)
            if recorded is not None and recorded.status.is_terminal:
                raise_failure(WaitForConditionError, recorded)
            if recorded is not None and self.is_early(recorded):
                self.frame.pause(Wake(at=recorded.due))
            else:
                done, value = self.look(recorded)
                if done:
                    return value
            recorded = self.frame.recorded()

    def is_early(self, recorded: OperationState) -> bool:
        state = self.frame.state
        if recorded.operation_id in state.retry_now:
            state.retry_now.discard(recorded.operation_id)
            return False
        if recorded.status is Status.PENDING and not state.recorder.completes_waits:
            return True
        return recorded.status is Status.PENDING and recorded.due is not None and recorded.due > state.clock.now()

    def look(self, recorded: OperationState | None) -> tuple[bool, Any]:
        """Call the check once. True and the state when the condition holds."""
        frame = self.frame
        started = frame.state.clock.now()
        waited = recorded is not None and recorded.status in (Status.PENDING, Status.READY)
        attempt = 1 if recorded is None else recorded.attempt + 1 if waited else max(recorded.attempt, 1)
        frame.scope.check(frame.identifier.operation_id)
        if recorded is None or not frame.state.recorder.elides_starts:
            frame.state.defer(frame.event(EventKind.STARTED, attempt=attempt), frame.scope)
        try:
            before = self.state_before(recorded)
            info = LogInfo.from_operation_identifier(frame.state, frame.identifier, attempt)
            context = WaitForConditionCheckContext(frame.logger.with_log_info(info), attempt)
            value = call_body(frame, partial(self.check, before), context, attempt, _BODY)
            encoded, value = frame.encode(self.serdes, value, attempt)
            decision = self.config.wait_strategy(value, attempt)
        except Exception as error:
            if is_unrecoverable(error):
                raise
            failure = capture(error)
            frame.fail(failure, attempt=attempt, started=started)
            raise build(WaitForConditionError, failure)  # noqa: B904 - built with its cause
        if not decision.should_continue:
            frame.succeed(encoded, attempt=attempt, started=started)
            return True, value
        frame.retry(None, max(1, decision.delay_seconds), attempt=attempt, started=started, encoded=encoded)
        return False, None

    def state_before(self, recorded: OperationState | None) -> Any:
        if recorded is not None and recorded.payload is not None:
            return self.frame.result(self.serdes, recorded)
        return self.frame.encode(self.serdes, self.config.initial_state)[1]


def wait_for_condition(
    frame: Frame, check: Callable[[T, WaitForConditionCheckContext], T], config: WaitForConditionConfig[T]
) -> T:
    """Poll until the strategy says that the condition holds; returns the last state."""
    with frame.waiting():
        result: T = _Poll(frame, check, config).run()
    return result


__all__ = ["wait_for_condition"]
