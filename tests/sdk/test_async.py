"""Coroutines: handlers, steps, children and branches."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from durable_nb.events import Status
from durable_nb.sdk import AsyncDurableContext, DurableContext, StepContext, StepError, durable_execution, durable_step
from durable_nb.sdk.config import Duration, JitterStrategy, StepConfig
from durable_nb.sdk.exceptions import StepTimeoutError
from durable_nb.sdk.retries import RetryStrategyConfig, create_retry_strategy
from durable_nb.testing import check_replay

QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)


@durable_step
async def fetch(step: StepContext, value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


def test_an_async_handler_awaits_its_operations() -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        first = await context.step(fetch(1))
        await context.wait(60)
        second = await context.step(lambda _: 5, name="plain")
        return [first, second]

    result = check_replay(handler)
    assert result.result == [2, 5]
    assert [one.name for one in result.operations] == ["fetch", None, "plain"]


def test_an_async_step_works_in_a_plain_handler(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        return context.step(fetch(21))

    assert run(handler).result == 42


def test_gathered_operations_are_numbered_in_the_order_of_asking() -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        async def slow(_: StepContext) -> str:
            await asyncio.sleep(0.02)
            return "slow"

        return await asyncio.gather(context.step(slow, name="a"), context.step(fetch(1), name="b"))

    result = check_replay(handler)
    assert result.result == ["slow", 2]


def test_steps_of_a_handler_run_on_its_loop(run: Any) -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> bool:
        home = asyncio.get_running_loop()

        async def same(_: StepContext) -> bool:
            return asyncio.get_running_loop() is home

        return await context.step(same)

    assert run(handler).result is True


def test_an_operation_that_waits_does_not_cut_off_one_that_runs(run: Any) -> None:
    runs: list[str] = []

    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        async def chain() -> int:
            total = 0
            for number in range(4):
                total += await context.step(lambda _, n=number: runs.append(f"s{n}") or n)
            return total

        return await asyncio.gather(context.wait(3600), chain())

    assert run(handler).result == [None, 6]
    assert runs == ["s0", "s1", "s2", "s3"]


def test_errors_and_retries_are_as_in_plain_handlers() -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        async def flaky(step: StepContext) -> int:
            if step.attempt < 3:
                raise ConnectionError("no")
            return step.attempt

        async def fails(step: StepContext) -> None:
            raise LookupError("gone")

        value = await context.step(flaky, config=StepConfig(QUICK))
        try:
            await context.step(fails)
        except LookupError as error:
            return [value, isinstance(error, StepError), str(error)]

    assert check_replay(handler).result == [3, True, "gone"]


def test_children_maps_and_branches_may_be_coroutines() -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        async def child(c: AsyncDurableContext) -> int:
            return await c.step(fetch(1))

        async def item(c: AsyncDurableContext, x: int, i: int, every: Any) -> int:
            await c.wait(5)
            return await c.step(fetch(x))

        one = await context.run_in_child_context(child, name="child")
        many = await context.map([1, 2], item, name="map")
        both = await context.parallel([child, child], name="both")
        return [one, many.get_results(), both.get_results()]

    assert check_replay(handler).result == [2, [2, 4], [2, 2]]


def test_callbacks_invokes_and_polling_may_be_awaited() -> None:
    from durable_nb.sdk._registry import HANDLERS
    from durable_nb.sdk.waits import WaitForConditionConfig, WaitStrategyConfig, create_wait_strategy

    HANDLERS.register("triple", lambda event, c: event * 3)

    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        callback = await context.create_callback("cb")
        answer = await callback.result()
        strategy = create_wait_strategy(WaitStrategyConfig(lambda state: state < 2))

        async def check(state: int, c: Any) -> int:
            return state + 1

        polled = await context.wait_for_condition(check, WaitForConditionConfig(strategy, 0))
        return [
            answer,
            polled,
            await context.invoke("triple", 2),
            await context.wait_for_callback(lambda i, c: None, "w"),
        ]

    assert check_replay(handler, callbacks={"cb": lambda: "yes", "w": lambda: "w!"}).result == ["yes", 2, 6, "w!"]


def test_an_async_step_has_a_time_out(run: Any) -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        cancelled = threading.Event()

        async def hangs(_: StepContext) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

        try:
            await context.step(hangs, name="hangs", config=StepConfig(timeout=0.05))
        except StepTimeoutError:
            await asyncio.sleep(0.05)
            return cancelled.is_set()

    assert run(handler).result is True


def test_async_functions_may_be_children_of_plain_handlers(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        async def body(c: DurableContext) -> int:
            return c.step(fetch(3))

        return context.run_in_child_context(body)

    assert run(handler).result == 6


def test_a_handler_s_error_is_its_own(run: Any) -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> None:
        raise ValueError("async")

    result = run(handler)
    assert result.status is Status.FAILED
    assert str(result.error) == "ValueError: async"
