"""Steps: what is run, how often, what is recorded, and what its callers see."""

# ruff: noqa: PT017 - handlers catch, as users do

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from durable_nb.events import EventKind, Status
from durable_nb.journal import MemoryJournal
from durable_nb.sdk import DurableContext, StepContext, StepError, durable_execution, durable_step
from durable_nb.sdk.config import Duration, JitterStrategy, StepConfig, StepSemantics
from durable_nb.sdk.exceptions import (
    ExecutionFailedError,
    NestedOperationError,
    SerDesError,
    StepInterruptedError,
    StepTimeoutError,
    ValidationError,
)
from durable_nb.sdk.retries import RetryDecision, RetryPresets, RetryStrategyConfig, create_retry_strategy
from durable_nb.sdk.serdes import SerDes
from durable_nb.testing import DurableFunctionTestRunner, SimulatedCrash, check_replay, crash_after

QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)
AT_MOST_ONCE = StepConfig(QUICK, StepSemantics.AT_MOST_ONCE_PER_RETRY)
AT_MOST_ONCE_NEVER_AGAIN = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)


class PaymentError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


def test_a_completed_step_does_not_run_again() -> None:
    runs: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        value = context.step(lambda _: runs.append(1) or len(runs))
        context.wait(1)
        return value

    check_replay(handler)
    assert runs == [1]


def test_the_result_is_the_round_tripped_one_on_the_first_run_too(run: Any) -> None:
    class Lossy(SerDes[Any]):
        def serialize(self, value: Any, serdes_context: Any) -> str:
            return "always this"

        def deserialize(self, data: str, serdes_context: Any) -> Any:
            return data

    live: list[Any] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        value = context.step(lambda _: [1, 2], config=StepConfig(serdes=Lossy()))
        live.append(value)
        return value

    assert run(handler).result == "always this"
    assert live == ["always this"]


def test_mutating_a_result_does_not_change_what_is_replayed(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        value = context.step(lambda _: [1])
        value.append(2)
        context.wait(1)
        return value

    assert run(handler).result == [1, 2]


def test_the_error_of_a_step_is_of_both_types_live_and_on_replay() -> None:
    seen: list[tuple[Any, ...]] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> str:
        def pay(_: StepContext) -> None:
            raise PaymentError(402, "no money")

        try:
            context.step(pay, name="pay")
        except PaymentError as error:
            assert isinstance(error, StepError)
            seen.append((error.args, error.code, error.reason, error.error_type, str(error), error.__notes__))
        context.wait(1)
        return "handled"

    assert check_replay(handler).result == "handled"
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    args, code, reason, error_type, _, notes = seen[0]
    assert (args, code, reason) == ((402, "no money"), 402, "no money")
    assert error_type == f"{__name__}.PaymentError"
    assert "in pay" in notes[0]
    assert "PaymentError: (402, 'no money')" in notes[0]


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        FileNotFoundError(2, "gone", "file.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ImportError("no", name="module"),
        ValueError({1, 2}, object),
        StopIteration(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_built_in_errors_come_back_whole(error: Exception) -> None:
    attributes = ("args", "errno", "filename", "name", "object", "start", "value")
    seen: list[dict[str, Any]] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def fail(_: StepContext) -> None:
            raise error

        try:
            context.step(fail)
        except StepError as raised:
            assert isinstance(raised, type(error))
            assert str(raised) == str(error)
            seen.append({name: getattr(raised, name) for name in attributes if hasattr(error, name)})

    check_replay(handler)
    assert seen == [{name: getattr(error, name) for name in attributes if hasattr(error, name)}] * 2


def test_an_error_whose_class_is_final_is_a_plain_step_error_that_names_it() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        x: int

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            context.step(lambda _: Model(x="no"))
        except StepError as error:
            return [type(error) is StepError, error.original_type, "x" in str(error)]

    assert check_replay(handler).result == [True, "pydantic_core._pydantic_core.ValidationError", True]


def test_without_a_strategy_there_is_one_attempt(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: 1 / 0, name="divide")

    result = run(handler)
    assert result.status is Status.FAILED
    assert result.get_step("divide").attempt == 1


def test_attempts_are_counted_from_one_and_shown_to_the_body(run: Any) -> None:
    attempts: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        def flaky(step: StepContext) -> int:
            attempts.append(step.attempt)
            if step.attempt < 3:
                raise OSError
            return step.attempt

        return context.step(flaky, config=StepConfig(QUICK))

    assert run(handler).result == 3
    assert attempts == [1, 2, 3]


def test_the_strategy_sees_the_error_and_the_attempts_made(run: Any) -> None:
    asked: list[tuple[str, int]] = []

    def strategy(error: Exception, attempts_made: int) -> RetryDecision:
        asked.append((type(error).__name__, attempts_made))
        return RetryDecision.retry(Duration(0)) if attempts_made < 2 else RetryDecision.no_retry()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: 1 / 0, config=StepConfig(strategy))

    run(handler)
    assert asked == [("ZeroDivisionError", 1), ("ZeroDivisionError", 2)]


def test_a_retry_counter_survives_a_crash() -> None:
    attempts: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        def flaky(step: StepContext) -> int:
            attempts.append(step.attempt)
            if step.attempt < 3:
                raise OSError
            return step.attempt

        return context.step(flaky, config=StepConfig(QUICK))

    with DurableFunctionTestRunner(handler) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(0))  # attempt 1 ran, its failure was not recorded
        with pytest.raises(SimulatedCrash):
            runner.resume(fault=crash_after(2))  # the failure and the suspension are recorded, attempt 2 is not
        assert runner.resume().result == 3
    assert attempts == [1, 1, 2, 2, 3]


def test_at_least_once_runs_again_after_a_crash_and_costs_one_record() -> None:
    runs: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        return context.step(lambda _: runs.append(1) or 7)

    with DurableFunctionTestRunner(handler) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(0))
        result = runner.resume()
        assert result.result == 7
        record = runner.journal.executions()[0]
        kinds = [stored.event.kind for stored in runner.journal.read(record.execution_id)]
    assert runs == [1, 1]
    assert kinds == [EventKind.STARTED, EventKind.SUCCEEDED, EventKind.SUCCEEDED]


def test_at_most_once_records_its_start_before_the_body() -> None:
    started: list[list[str]] = []
    journal = MemoryJournal()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def body(_: StepContext) -> None:
            record = journal.executions()[0]
            started.append(
                [one.event.kind.value for one in journal.read(record.execution_id) if one.event.name == "charge"]
            )

        context.step(body, name="charge", config=AT_MOST_ONCE)

    DurableFunctionTestRunner(handler, store=journal).run()
    assert started == [["STARTED"]]


def test_an_interrupted_at_most_once_step_consults_the_strategy_and_does_not_run_that_attempt() -> None:
    attempts: list[int] = []
    asked: list[tuple[type, int]] = []

    def strategy(error: Exception, attempts_made: int) -> RetryDecision:
        asked.append((type(error), attempts_made))
        return RetryDecision.retry(Duration(1))

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        def charge(step: StepContext) -> int:
            attempts.append(step.attempt)
            return step.attempt

        return context.step(charge, config=StepConfig(strategy, StepSemantics.AT_MOST_ONCE_PER_RETRY))

    with DurableFunctionTestRunner(handler) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(1))  # the start is recorded, the result is not
        assert runner.resume().result == 2
    assert attempts == [1, 2]
    assert asked == [(StepInterruptedError, 1)]


def test_an_interrupted_at_most_once_step_without_retry_is_a_step_error_of_that_type() -> None:
    bodies: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            context.step(lambda _: bodies.append(1), name="charge", config=AT_MOST_ONCE_NEVER_AGAIN)
        except StepError as error:
            return [error.error_type, isinstance(error, StepInterruptedError)]

    with DurableFunctionTestRunner(handler) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(1))
        result = runner.resume()
    assert result.status is Status.SUCCEEDED
    assert result.result == ["durable_nb.sdk.exceptions.StepInterruptedError", True]
    assert result.get_step("charge").status is Status.FAILED
    assert bodies == [1]


def test_a_step_inside_a_step_is_refused_by_name(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: context.step(lambda _: 1), name="outer")

    result = run(handler)
    assert result.status is Status.FAILED
    assert "inside the step 'outer'" in str(result.error)
    assert issubclass(NestedOperationError, Exception)


def test_another_handler_may_run_inside_a_step(run: Any) -> None:
    @durable_execution
    def inner(event: Any, context: DurableContext) -> int:
        return context.step(lambda _: 5)

    @durable_execution
    def outer(event: Any, context: DurableContext) -> int:
        return context.step(lambda _: inner.run(store=MemoryJournal()))

    assert run(outer).result == 5


def test_a_value_that_cannot_be_serialized_fails_the_step_for_good(run: Any) -> None:
    attempts: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            context.step(lambda step: attempts.append(step.attempt) or {1, 2}, name="set", config=StepConfig(QUICK))
        except SerDesError as error:
            return str(error)

    result = run(handler)
    assert result.result == "Unsupported type: <class 'set'>"
    assert attempts == [1]
    assert result.get_step("set").status is Status.FAILED


def test_a_step_that_takes_too_long_times_out_and_can_be_retried(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def slow(step: StepContext) -> int:
            while step.attempt == 1:
                time.sleep(0.005)
            return step.attempt

        return context.step(slow, name="slow", config=StepConfig(QUICK, timeout=0.05))

    assert run(handler).result == 2


def test_a_time_out_without_retry_is_the_step_s_error(run: Any) -> None:
    release = threading.Event()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            context.step(lambda _: release.wait(30), name="blocked", config=StepConfig(timeout=0.05))
        except StepTimeoutError as error:
            return str(error)

    try:
        assert run(handler).result == "blocked took longer than its time-out of 0.05 s"
    finally:
        release.set()


@pytest.mark.parametrize("timeout", [0, -1, Duration(0)])
def test_a_time_out_that_is_no_time_is_refused(timeout: Any) -> None:
    with pytest.raises(ValidationError, match="timeout"):
        StepConfig(timeout=timeout)


def test_names_come_from_the_argument_or_the_decorated_function_only(run: Any) -> None:
    @durable_step
    def decorated(_: StepContext) -> int:
        return 1

    def plain(_: StepContext) -> int:
        return 1

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(decorated())
        context.step(decorated(), name="mine")
        context.step(decorated(), name="")
        context.step(plain)
        context.step(lambda _: 1)

    names = [one.name for one in run(handler).operations]
    assert names == ["decorated", "mine", "decorated", None, None]


def test_the_handler_s_caller_gets_the_original_type(driver: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: {}["x"])

    handle = handler.start_on(driver, name="fails")
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            handle.result()
        assert isinstance(caught.value, ExecutionFailedError)
        assert caught.value.execution_name == "fails"
