"""The test kit itself: the pytest plugin, the runner, the clock, leases between drivers."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from durable_nb.events import OperationType, Status
from durable_nb.exceptions import LeaseHeldError
from durable_nb.sdk import DurableContext, durable_execution, durable_step, durable_with_child_context
from durable_nb.sdk._driver import Driver
from durable_nb.sdk.config import Duration
from durable_nb.testing import DurableChildContextTestRunner, DurableFunctionTestRunner, InvocationStatus, VirtualClock
from durable_nb.testing.exceptions import DurableFunctionsTestError, ResourceNotFoundException

pytest_plugins = ["pytester"]


@durable_execution
def echo(event: Any, context: DurableContext) -> Any:
    return event


@pytest.mark.parametrize(
    ("given", "event"),
    [
        ({"data": "test"}, {"data": "test"}),
        ('{"data": "test"}', {"data": "test"}),
        ("test", "test"),
        ('"test"', "test"),
        (None, {}),
        ("", {}),
        (5, 5),
        ("[1]", [1]),
    ],
)
def test_input_is_a_value_or_json_text(given: Any, event: Any) -> None:
    with DurableFunctionTestRunner(echo) as runner:
        result = runner.run(given)
    assert result.result == event
    assert result.execution_status is Status.SUCCEEDED


def test_a_plain_function_can_be_run() -> None:
    with DurableFunctionTestRunner(lambda event, context: context.step(lambda _: event)) as runner:
        assert runner.run(3).result == 3


def test_a_function_of_a_child_context_can_be_run() -> None:
    @durable_with_child_context
    def child(context: DurableContext, number: int) -> int:
        return context.step(lambda _: number + 1, name="add")

    with DurableChildContextTestRunner(child, 4) as runner:
        result = runner.run()
    assert result.result == 5
    assert result.get_step("add").result == 5


def test_operations_are_found_by_name_at_their_level() -> None:
    @durable_step
    def inner(_: Any) -> tuple[int, int]:
        return 1, 2

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.step(inner(), name="same")
        context.wait(1, name="pause")
        return context.run_in_child_context(lambda c: c.step(inner(), name="same"), name="child")

    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run()
    assert result.get_step("same").result == (1, 2)
    assert result.get_step("same").payload == '{"t":"t","v":[{"t":"i","v":1},{"t":"i","v":2}]}'
    assert result.get_context("child").get_step("same").result == (1, 2)
    assert [one.name for one in result.get_all_operations()] == ["same", "pause", "child", "same"]
    assert result.get_wait("pause").operation_type is OperationType.WAIT
    with pytest.raises(DurableFunctionsTestError, match="'nothing' not found"):
        result.get_step("nothing")


def test_statuses_of_all_kinds_are_one_enum() -> None:
    from durable_nb import testing
    from durable_nb.sdk import execution, lambda_service, plugin

    for home in (testing, execution, plugin, lambda_service):
        assert home.InvocationStatus is InvocationStatus
    assert lambda_service.OperationStatus.SUCCEEDED is InvocationStatus.SUCCEEDED


def test_an_execution_in_the_background_is_waited_for() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> str:
        context.wait(Duration.from_days(2))
        return "over"

    with DurableFunctionTestRunner(handler) as runner:
        arn = runner.run_async({"a": 1}, function_name="fn", execution_name="name")
        assert runner.wait_for_result(arn).result == "over"
        assert ":function:fn:" in arn
        assert "/durable-execution/name/" in arn
        with pytest.raises(ResourceNotFoundException):
            runner.wait_for_result("arn:nothing")


def test_closing_a_runner_ends_what_waits() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.create_callback().result()

    runner = DurableFunctionTestRunner(handler)
    arn = runner.run_async()
    runner.wait_for_callback(arn)
    thread = runner._threads[arn]
    runner.close()
    assert not thread.is_alive()


def test_a_store_keeps_what_a_runner_did(tmp_path: Path) -> None:
    with DurableFunctionTestRunner(echo, store=tmp_path) as runner:
        arn = runner.run_async({"a": 1})
        runner.wait_for_result(arn)
    with DurableFunctionTestRunner(echo, store=tmp_path) as runner:
        assert runner.result_of(arn).result == {"a": 1}


def test_the_clock_jumps_only_when_nobody_is_busy() -> None:
    clock = VirtualClock()
    order: list[str] = []
    from durable_nb.sdk._local import Bell

    bell = Bell()

    def sleeper() -> None:
        clock.wait(bell, bell.rings, until=clock.now() + 1000, real_until=None, poll=False)
        order.append("jumped")

    with clock.busy():
        thread = threading.Thread(target=sleeper)
        thread.start()
        time.sleep(0.1)
        order.append("busy over")
    thread.join(5)
    assert order == ["busy over", "jumped"]
    assert clock.now() - time.time() > 900


def test_an_execution_has_one_driver_at_a_time(journal: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> str:
        def body(_: Any) -> str:
            entered.set()
            go_on.wait(30)
            return "done"

        return context.step(body)

    driver = Driver(journal)
    handle = handler.start_on(driver, name="one")
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(handle.result()))
    thread.start()
    assert entered.wait(30)
    with pytest.raises(LeaseHeldError):
        handler.start_on(driver, name="one").result()
    go_on.set()
    thread.join(30)
    assert results == ["done"]


PLUGIN_TEST = """
    import pytest
    from durable_nb import durable_execution

    @durable_execution
    def handler(event, context):
        context.wait(3600)
        return context.step(lambda _: event["n"] + 1, name="add")

    @pytest.mark.durable_execution(handler=handler, lambda_function_name="any")
    def test_marked(durable_runner):
        with durable_runner:
            result = durable_runner.run(input={"n": 1}, timeout=10)
        assert result.result == 2
        assert result.get_step("add").result == 2

    def test_unmarked(durable_runner):
        pass

    @pytest.mark.durable_execution()
    def test_without_handler(durable_runner):
        pass

    @pytest.mark.durable_execution(handler=handler, skiptime=True)
    def test_misspelled(durable_runner):
        pass
"""


def test_the_plugin_gives_a_runner_and_says_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLUGIN_TEST)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")
    result.assert_outcomes(passed=1, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*has no @pytest.mark.durable_execution(handler=...)*",
            "*needs the handler*",
            "*does not know skiptime*",
        ]
    )
