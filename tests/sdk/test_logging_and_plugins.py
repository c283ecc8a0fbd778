"""Logs are silent on replay; plugins see everything once."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from durable_nb.sdk import DurableContext, StepContext, durable_execution
from durable_nb.sdk.config import Duration, JitterStrategy, StepConfig
from durable_nb.sdk.execution import DurableHandler
from durable_nb.sdk.logger import Logger
from durable_nb.sdk.plugin import DurableInstrumentationPlugin, UserFunctionOutcome
from durable_nb.sdk.retries import RetryStrategyConfig, create_retry_strategy

QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO)

    def read() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "root"]

    return read


def test_each_line_is_logged_once_over_all_invocations(run: Any, lines: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.logger.info("begin")
        context.step(lambda step: step.logger.info("in step"), name="a")
        context.logger.info("after step")
        context.wait(5)
        context.logger.info("after wait")
        context.run_in_child_context(child, name="child")
        context.logger.info("end")

    def child(c: DurableContext) -> None:
        c.logger.info("in child")
        c.wait(5)
        c.logger.info("child after wait")

    run(handler)
    assert lines() == [
        "begin",
        "in step",
        "after step",
        "after wait",
        "in child",
        "child after wait",
        "end",
    ]


def test_a_retried_step_logs_each_attempt(run: Any, lines: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def flaky(step: StepContext) -> None:
            step.logger.info("attempt %s", step.attempt)
            if step.attempt < 3:
                raise OSError

        context.step(flaky, config=StepConfig(QUICK))
        context.logger.info("done")

    run(handler)
    assert lines() == ["attempt 1", "attempt 2", "attempt 3", "done"]


def test_records_say_where_they_belong(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> str:
        context.step(lambda step: step.logger.info("here", extra={"mine": 1}), name="named")
        return context.execution_context.durable_execution_arn

    arn = run(handler).result
    record: Any = next(record for record in caplog.records if record.getMessage() == "here")
    assert record.executionArn == arn
    assert record.operationName == "named"
    assert record.attempt == 1
    assert record.mine == 1
    assert record.operationId
    assert not hasattr(record, "parentId")


def test_another_logger_can_be_set(run: Any) -> None:
    class Mine:
        def __init__(self) -> None:
            self.said: list[Any] = []

        def info(self, msg: object, *args: object, extra: Any = None) -> None:
            self.said.append((msg, args, sorted(extra)))

        debug = warning = error = exception = info

    mine = Mine()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.set_logger(mine)
        context.logger.info("hello %s", 1)
        context.step(lambda step: step.logger.warning("in step"))

    run(handler)
    assert mine.said[0] == ("hello %s", (1,), ["executionArn"])
    assert mine.said[1][0] == "in step"


def test_a_replaying_logger_says_nothing() -> None:
    said: list[Any] = []

    class Sink:
        def info(self, *args: Any, **kwargs: Any) -> None:
            said.append(args)

        debug = warning = error = exception = info

    logger = Logger(Sink(), {}, lambda: True)
    for write in (logger.debug, logger.info, logger.warning, logger.error, logger.exception):
        write("x")
    assert said == []
    logger.with_is_replaying(lambda: False).info("y")
    assert said == [("y",)]


class Recorder(DurableInstrumentationPlugin):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.threads: dict[str, set[str]] = {}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def hook(info: Any) -> None:
            self.seen.append((name, info))
            self.threads.setdefault(name, set()).add(threading.current_thread().name)

        return hook


def handler_with(plugin: Any, body: Any) -> Any:
    return DurableHandler(body, plugins=[plugin])


def test_plugins_see_invocations_operations_and_functions(run: Any) -> None:
    plugin = Recorder()

    def body(event: Any, context: DurableContext) -> int:
        context.step(lambda _: 1, name="a")
        context.wait(5, name="pause")
        return context.run_in_child_context(lambda c: c.step(lambda _: 2, name="b"), name="child")

    run(handler_with(plugin, body), {"x": 1})
    invocations = [(name, info.is_first_invocation) for name, info in plugin.seen if "invocation" in name]
    assert invocations == [
        ("on_invocation_start", True),
        ("on_invocation_end", True),
        ("on_invocation_start", False),
        ("on_invocation_end", False),
    ]
    assert plugin.seen[0][1].execution_input == {"x": 1}
    assert [info.status.value for name, info in plugin.seen if name == "on_invocation_end"] == ["PENDING", "SUCCEEDED"]
    ends = [info.name for name, info in plugin.seen if name == "on_operation_end"]
    assert sorted(ends) == ["a", "b", "child", "pause"]
    starts = [(info.name, info.is_replayed) for name, info in plugin.seen if name == "on_operation_start"]
    assert ("a", False) in starts
    assert len([name for name, _ in starts if name == "a"]) == 1
    functions = [(info.name, info.outcome) for name, info in plugin.seen if name == "on_user_function_end"]
    assert functions == [
        ("a", UserFunctionOutcome.SUCCEEDED),
        ("b", UserFunctionOutcome.SUCCEEDED),
        ("child", UserFunctionOutcome.SUCCEEDED),
    ]
    assert plugin.threads["on_operation_end"] == {"durable_nb plugins"}
    assert plugin.threads["on_user_function_start"] == {threading.current_thread().name}


def test_a_function_that_suspends_is_incomplete_and_one_that_raises_failed(run: Any) -> None:
    plugin = Recorder()

    def body(event: Any, context: DurableContext) -> None:
        context.run_in_child_context(lambda c: c.wait(5), name="waits")
        context.step(lambda _: 1 / 0, name="fails")

    run(handler_with(plugin, body))
    outcomes = [(info.name, info.outcome.value) for name, info in plugin.seen if name == "on_user_function_end"]
    assert outcomes == [("waits", "INCOMPLETE"), ("waits", "SUCCEEDED"), ("fails", "FAILED")]
    error = next(info.error for name, info in plugin.seen if name == "on_user_function_end" and info.error)
    assert error.type == "ZeroDivisionError"


def test_a_plugin_that_raises_is_logged_and_harms_nobody(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(DurableInstrumentationPlugin):
        def on_invocation_start(self, info: Any) -> None:
            raise RuntimeError("broken")

        def on_operation_end(self, info: Any) -> None:
            raise RuntimeError("broken")

    assert run(handler_with(Broken(), lambda event, context: context.step(lambda _: 1))).result == 1
    assert "failed in on_operation_end" in caplog.text


def test_factories_make_a_plugin_for_each_invocation(run: Any) -> None:
    made: list[Any] = []

    class Factory:
        def create_plugin(self, info: Any) -> DurableInstrumentationPlugin:
            made.append(info.is_first_invocation)
            return DurableInstrumentationPlugin()

    run(handler_with(Factory(), lambda event, context: context.wait(5)))
    assert made == [True, False]


def test_the_plugin_interface_is_announced_as_provisional() -> None:
    with pytest.warns(FutureWarning, match="provisional"):
        durable_execution(plugins=[Recorder()])
