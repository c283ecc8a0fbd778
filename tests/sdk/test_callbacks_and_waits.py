"""Waits, callbacks and polling: what is recorded, what wakes them, and who wins."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from durable_nb.events import Status
from durable_nb.sdk import (
    CallbackExternalError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    DurableContext,
    WaitForConditionError,
    durable_execution,
    durable_wait_for_callback,
)
from durable_nb.sdk._callbacks import CallbackSender
from durable_nb.sdk._driver import Driver
from durable_nb.sdk.config import CallbackConfig, Duration, JitterStrategy, WaitForCallbackConfig
from durable_nb.sdk.exceptions import InvalidStateError, ValidationError
from durable_nb.sdk.lambda_service import ErrorObject
from durable_nb.sdk.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy
from durable_nb.sdk.serdes import JsonSerDes
from durable_nb.sdk.waits import (
    WaitForConditionConfig,
    WaitForConditionDecision,
    WaitStrategyConfig,
    create_wait_strategy,
)
from durable_nb.testing import DurableFunctionTestRunner, SimulatedCrash, VirtualClock, check_replay, crash_after
from durable_nb.testing.exceptions import DurableFunctionsTestError, ResourceNotFoundException


def test_a_wait_s_deadline_survives_the_process() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> str:
        context.wait(Duration.from_days(3), name="long")
        return "over"

    with DurableFunctionTestRunner(handler) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(1, before_write=False))
        before = runner.result_of(next(iter(runner._places))).get_wait("long").scheduled_end_timestamp
        result = runner.resume()
    assert result.result == "over"
    assert result.get_wait("long").scheduled_end_timestamp == before
    assert result.get_wait("long").status is Status.SUCCEEDED


def test_real_time_passes_where_it_is_not_skipped(journal: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.wait(1)

    started = time.monotonic()
    handler.start_on(Driver(journal)).result()
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize("seconds", [0, 0.0, 31_622_401])
def test_a_wait_out_of_range_is_refused(run: Any, seconds: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.wait(seconds)

    assert run(handler).error.type == "durable_nb.sdk.exceptions.ValidationError"


def test_a_callback_s_result_is_raw_text_unless_it_has_a_serdes() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        raw = context.create_callback("raw").result()
        decoded = context.create_callback("json", CallbackConfig(serdes=JsonSerDes())).result()
        return [raw, decoded]

    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run(callbacks={"raw": lambda: b'{"a": 1}', "json": lambda: {"a": 1}})
    assert result.result == ['{"a": 1}', {"a": 1}]


def test_creating_a_failed_callback_never_raises_and_the_code_between_runs() -> None:
    between: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        callback = context.create_callback("cb")
        between.append(1)
        try:
            callback.result()
        except CallbackExternalError as error:
            context.wait(1)
            return [str(error), error.data, error.original_type]

    def deny() -> None:
        raise PermissionError("denied")

    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run(callbacks={"cb": deny})
    assert result.result == ["denied", None, "PermissionError"]
    assert len(between) == 3
    assert result.get_callback("cb").status is Status.FAILED


def test_limits_of_callbacks_pass_in_real_time_unless_they_are_skipped_too() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.wait(Duration.from_days(30))
        try:
            context.create_callback("cb", CallbackConfig(timeout=Duration.from_hours(5))).result()
        except CallbackTimeoutError as error:
            return str(error)

    with DurableFunctionTestRunner(handler, skip_callback_timeouts=True) as runner:
        assert runner.run(timeout=20).result == "Callback timed out"
    with DurableFunctionTestRunner(handler) as runner, pytest.raises(TimeoutError):
        runner.run(timeout=0.2)


def test_a_jump_over_a_wait_does_not_time_a_callback_out() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        callback = context.create_callback("cb", CallbackConfig(timeout=Duration(60)))
        context.wait(Duration.from_days(1))
        return callback.result()

    with DurableFunctionTestRunner(handler) as runner:
        assert runner.run(callbacks={"cb": lambda: "in time"}).result == "in time"


def test_heartbeats_keep_a_callback_open() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.create_callback("cb", CallbackConfig(heartbeat_timeout=Duration(1))).result()

    with DurableFunctionTestRunner(handler) as runner:
        arn = runner.run_async()
        callback_id = runner.wait_for_callback(arn, "cb")
        until = time.monotonic() + 1.4
        while time.monotonic() < until:
            runner.send_callback_heartbeat(callback_id)
            time.sleep(0.1)
        runner.send_callback_success(callback_id, b"alive")
        assert runner.wait_for_result(arn).result == "alive"


def test_a_missing_heartbeat_times_the_callback_out(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            config = CallbackConfig(heartbeat_timeout=Duration(1), timeout=Duration(600))
            context.create_callback("cb", config).result()
        except CallbackTimeoutError as error:
            return str(error)

    assert run(handler).result == "Callback timed out on heartbeat"


def test_exactly_one_of_many_senders_wins(driver: Driver) -> None:
    ids: list[str] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        callback = context.create_callback()
        ids.append(callback.callback_id)
        return callback.result()

    handle = handler.start_on(driver, name="raced")
    handle.step()
    outcomes: list[str] = []

    def send(number: int) -> None:
        try:
            CallbackSender(driver.journal, driver.clock).success(ids[0], str(number))
            outcomes.append(f"won {number}")
        except InvalidStateError:
            outcomes.append("late")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [one for one in outcomes if one != "late"]
    assert len(winners) == 1
    assert handle.result() == winners[0].split()[1]


def test_an_id_of_no_callback_is_refused(driver: Driver) -> None:
    sender = CallbackSender(driver.journal, driver.clock)
    for bad in ("bogus", "x.y"):
        with pytest.raises(ValidationError, match="callback"):
            sender.success(bad)


def test_wait_for_callback_is_a_context_with_a_callback_and_a_submitter() -> None:
    @durable_wait_for_callback
    def ask(callback_id: str, context: Any, who: str) -> None:
        context.logger.info("asked %s", who)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return [context.wait_for_callback(ask("boss"), name="approval"), context.wait_for_callback(lambda i, c: None)]

    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run(callbacks={"approval": lambda: "yes", "create callback id": lambda: "no"})
    assert result.result == ["yes", "no"]
    approval = result.get_context("approval")
    assert approval.sub_type == "WaitForCallback"
    assert [one.name for one in approval.child_operations] == ["approval create callback id", "approval submitter"]


def test_the_submitter_is_retried_and_its_failure_has_its_own_type(run: Any) -> None:
    attempts: list[str] = []

    def submit(callback_id: str, context: Any) -> None:
        attempts.append(callback_id)
        raise ConnectionError("no line")

    strategy = create_retry_strategy(
        RetryStrategyConfig(max_attempts=2, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
    )

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            context.wait_for_callback(submit, name="cb", config=WaitForCallbackConfig(retry_strategy=strategy))
        except CallbackSubmitterError as error:
            return [str(error), isinstance(error, ConnectionError)]

    assert run(handler).result == ["no line", True]
    assert len(attempts) == 2
    assert len(set(attempts)) == 1


def test_sending_to_an_ended_callback_is_an_error_in_tests() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.create_callback("cb").result()

    with DurableFunctionTestRunner(handler) as runner:
        arn = runner.run_async()
        callback_id = runner.wait_for_callback(arn)
        runner.send_callback_failure(callback_id, ErrorObject("m", "T", None, None))
        assert runner.wait_for_result(arn).status is Status.FAILED
        with pytest.raises(ResourceNotFoundException):
            runner.send_callback_success(callback_id)
        with pytest.raises(DurableFunctionsTestError):
            runner.wait_for_callback(arn, timeout=1)


def test_a_branch_that_waits_for_a_callback_goes_on_in_the_process_when_it_comes() -> None:
    invocations: list[int] = []
    ids: list[str] = []
    answered = threading.Event()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        invocations.append(1)

        def asks(c: DurableContext) -> Any:
            callback = c.create_callback("cb")
            ids.append(callback.callback_id)
            value = callback.result()
            answered.set()
            return value

        return context.parallel([asks, lambda c: c.step(lambda _: answered.wait(30))]).get_results()

    with DurableFunctionTestRunner(handler) as runner:
        arn = runner.run_async()
        while not ids:
            time.sleep(0.005)
        while True:
            try:
                runner.send_callback_success(ids[0], b"hello")
                break
            except ResourceNotFoundException:
                time.sleep(0.005)
        assert runner.wait_for_result(arn, timeout=30).result == ["hello", True]
    assert invocations == [1]


# --- wait_for_condition ------------------------------------------------------------------------------------------------


def polling(max_attempts: int = 60, **options: Any) -> Any:
    config = WaitStrategyConfig(lambda state: state < 3, max_attempts=max_attempts, **options)
    return create_wait_strategy(config)


def test_polling_carries_its_state_over_a_crash() -> None:
    seen: list[tuple[int, int]] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        def check(state: int, c: Any) -> int:
            seen.append((state, c.attempt))
            return state + 1

        return context.wait_for_condition(check, WaitForConditionConfig(polling(), 0), name="poll")

    with DurableFunctionTestRunner(handler) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(2))
        result = runner.resume()
    assert result.result == 3
    assert seen == [(0, 1), (1, 2), (1, 2), (2, 3)] or seen == [(0, 1), (1, 2), (2, 3)]
    assert result.get_step("poll").attempt == 3


def test_a_condition_met_at_the_last_attempt_is_met(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        return context.wait_for_condition(lambda s, c: s + 1, WaitForConditionConfig(polling(3), 0))

    assert run(handler).result == 3


def test_exhausted_polling_raises(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            context.wait_for_condition(lambda s, c: s + 1, WaitForConditionConfig(polling(2), 0), name="poll")
        except WaitForConditionError as error:
            return str(error)

    assert "2 times" in run(handler).result


def test_the_initial_state_and_every_state_are_round_tripped(run: Any) -> None:
    states: list[Any] = []

    def strategy(state: Any, attempts: int) -> WaitForConditionDecision:
        if attempts < 2:
            return WaitForConditionDecision.continue_waiting(Duration(1))
        return WaitForConditionDecision.stop_polling()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def check(state: Any, c: Any) -> Any:
            states.append(state)
            return {1: (1, 2)}

        return repr(context.wait_for_condition(check, WaitForConditionConfig(strategy, {5: 6})))

    assert run(handler).result == "{'1': (1, 2)}"
    assert states == [{"5": 6}, {"1": (1, 2)}]


def test_a_config_is_needed(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.wait_for_condition(lambda s, c: s, None)  # type: ignore[arg-type]

    assert run(handler).error.type == "durable_nb.sdk.exceptions.ValidationError"


def test_everything_that_waits_replays(driver: Driver) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.wait(2)
        polled = context.wait_for_condition(lambda s, c: s + 1, WaitForConditionConfig(polling(), 0))
        return [polled, context.wait_for_callback(lambda i, c: None, name="cb"), context.invoke("double", 4)]

    from durable_nb.sdk._registry import HANDLERS

    HANDLERS.register("double", lambda event, c: event * 2)
    assert check_replay(handler, callbacks={"cb": lambda: "x"}).result == [3, "x", 8]
    assert RetryPresets.none() is not None
    assert VirtualClock().now() > 0
