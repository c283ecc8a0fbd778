"""`check_replay`: run a handler, run it again over its history, and fail with the first difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from durable_nb.events import Event, Status
from durable_nb.exceptions import NonDeterministicExecutionError
from durable_nb.sdk._invocation import invoke_handler, parse_event
from durable_nb.sdk.serdes import EXTENDED_TYPES_SERDES
from durable_nb.sdk.state import ExecutionState, JournalRecorder, Modes, News
from durable_nb.testing.runner import DurableFunctionTestResult, DurableFunctionTestRunner


class ReplayDifference(AssertionError):  # noqa: N818 - reads as what the test failed on
    """The second run over the history was not what the first one was."""


class _ReadOnly(JournalRecorder):
    """Refuses everything: a replay of a complete history has nothing to record."""

    def write(self, events: Sequence[Event], *, durable: bool, refs: Iterable[str]) -> News:  # noqa: ARG002
        event = events[-1]
        what = event.name or f"unnamed {event.sub_type or event.type.value}"
        raise _Asked(f"the replay asks for {what!r} (operation {event.operation_id[:12]}), which the first run did not")


class _Asked(BaseException):
    """Passes through the handler's own `except Exception`."""


def check_replay(handler: Callable[..., Any], input: Any = None, **run: Any) -> DurableFunctionTestResult:  # noqa: A002
    """Run the handler twice and compare; returns the first run's result.

    Args:
        handler: a durable handler.
        input: as for `DurableFunctionTestRunner.run`.
        run: further arguments of `run`, such as `callbacks`.

    Raises:
        ReplayDifference: the second run asked for something else, left something out or returned something else.
    """
    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run(input, **run)
        _replay(runner, result)
        return result


def _replay(runner: DurableFunctionTestRunner, result: DurableFunctionTestResult) -> None:
    arn = next(reversed(runner._places))
    record = runner._record(arn)
    modes = Modes(
        serdes=runner.handler.serdes or EXTENDED_TYPES_SERDES,
        payload_limit=runner.driver.payload_limit,
    )
    recorder = _ReadOnly(runner.journal, record.execution_id, None)
    state = _Watched(arn, recorder, clock=runner.clock, modes=modes)
    state.callback_scope = record.execution_id
    state.load(recorder.history())
    state.cancelled = None
    expected = set(state.operations)
    try:
        outcome = invoke_handler(
            runner.handler.func, parse_event(state.input_payload), state, serdes=runner.handler.serdes
        )
    except _Asked as asked:
        raise ReplayDifference(str(asked)) from None
    error = outcome.failure.error if outcome.failure else None
    if error is not None and error.type is not None and error.type.endswith(NonDeterministicExecutionError.__name__):
        raise ReplayDifference(error.message or "the replay asks for other operations")
    if outcome.status is not result.status:
        detail = f" ({error})" if error else ""
        raise ReplayDifference(f"the first run ended {result.status}, the replay {outcome.status}{detail}")
    if outcome.status is Status.SUCCEEDED and outcome.encoded is not None and outcome.encoded.text != result.payload:
        raise ReplayDifference(f"the first run returned {result.payload}, the replay {outcome.encoded.text}")
    if error is not None and result.error is not None and error.to_dict() != result.error.to_dict():
        raise ReplayDifference(f"the first run failed with {result.error}, the replay with {error}")
    _check_left_out(state, expected)


class _Watched(ExecutionState):
    """Notes which operations of the history were asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: set[str] = set()
        self.on_lookup = self.asked.add


def _check_left_out(state: _Watched, expected: set[str]) -> None:
    # Operations inside a context that has its result are rightly not asked for again.
    reachable = [
        state.operations[key]
        for key in expected
        if state.operations[key].parent_id is None or state.operations[key].parent_id not in state.operations
    ]
    for operation in reachable:
        if operation.operation_id not in state.asked:
            what = operation.name or f"unnamed {operation.sub_type}"
            raise ReplayDifference(f"the first run asked for {what!r}, the replay did not")


__all__ = ["ReplayDifference", "check_replay"]
