"""Typical user code. Type-checked under `mypy --strict`, never run."""

from __future__ import annotations

from typing import Any, assert_type

import durable_nb
from durable_nb.sdk import (
    AsyncDurableContext,
    BatchResult,
    DurableContext,
    ParallelBranch,
    StepContext,
    WithRetryConfig,
    durable_execution,
    durable_parallel_branch,
    durable_step,
    durable_wait_for_callback,
    durable_with_child_context,
    with_retry,
)
from durable_nb.sdk.config import Duration, MapConfig, StepConfig, StepSemantics
from durable_nb.sdk.execution import DurableHandler, ExecutionHandle
from durable_nb.sdk.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy
from durable_nb.sdk.saga import Saga
from durable_nb.sdk.types import WaitForCallbackContext
from durable_nb.sdk.waits import WaitForConditionConfig, WaitStrategyConfig, create_wait_strategy
from durable_nb.testing import DurableFunctionTestRunner


@durable_step
def add(step: StepContext, a: int, b: int = 0) -> int:
    return a + b


@durable_step
async def fetch(step: StepContext, url: str) -> bytes:
    return url.encode()


@durable_with_child_context
def total(context: DurableContext, numbers: list[int]) -> int:
    return sum(context.step(add(number)) for number in numbers)


@durable_parallel_branch(name="left")
def left(context: DurableContext, value: str) -> str:
    return value


@durable_wait_for_callback
def ask(callback_id: str, context: WaitForCallbackContext, who: str) -> None:
    context.logger.info("ask %s", who)


@durable_execution
def handler(event: dict[str, int], context: DurableContext) -> str:
    assert_type(context.step(add(5, 3)), int)
    assert_type(context.step(add(5, b=3), name="named"), int)
    assert_type(context.step(fetch("http://localhost")), bytes)
    assert_type(context.step(lambda step: step.attempt), int)
    assert_type(context.run_in_child_context(total([1, 2])), int)
    assert_type(context.map([1, 2], lambda c, x, i, every: str(x)), BatchResult[str])
    assert_type(context.map(["a"], item, config=MapConfig(max_concurrency=2)).get_results(), list[bytes])
    assert_type(left("x"), ParallelBranch[str])
    assert_type(context.parallel([left("x"), left("y")]), BatchResult[str])
    assert_type(context.wait_for_condition(check, WaitForConditionConfig(strategy, 0)), int)
    context.wait(Duration.from_minutes(1), name="pause")
    context.wait_for_callback(ask("boss"), name="approval")
    retry = create_retry_strategy(RetryStrategyConfig(max_attempts=3, initial_delay_seconds=1))
    context.step(add(1), config=StepConfig(retry, StepSemantics.AT_MOST_ONCE_PER_RETRY, timeout=Duration(5)))
    assert_type(with_retry(context, group, WithRetryConfig(RetryPresets.transient())), float)
    with Saga(context) as saga:
        assert_type(saga.step(add(1), undo=lambda value: add(value)), int)
    return "done"


def item(context: DurableContext, value: str, index: int, values: Any) -> bytes:
    return value.encode()


def check(state: int, context: object) -> int:
    return state + 1


def group(context: DurableContext, attempt: int) -> float:
    return context.step(add(attempt)) / 2


strategy = create_wait_strategy(WaitStrategyConfig[int](lambda state: state < 3))


@durable_execution
async def async_handler(event: dict[str, str], context: AsyncDurableContext) -> int:
    assert_type(await context.step(fetch("x")), bytes)
    assert_type(await context.step(add(1)), int)
    await context.wait(5)
    return 1


@durable_execution(name="given", serdes=None)
def named(event: int, context: DurableContext) -> float:
    return event / 2


assert_type(handler, DurableHandler[dict[str, int], str])
assert_type(handler.run({"a": 1}, name="order-42"), str)
assert_type(handler.start({"a": 1}), ExecutionHandle[str])
assert_type(async_handler.run({"a": "b"}), int)
assert_type(named.run(5), float)
assert_type(durable_nb.context.step(add(1)), int)

with DurableFunctionTestRunner(handler) as runner:
    result = runner.run(input={"a": 1}, timeout=10)
    assert_type(result.get_step("add").attempt, int)
