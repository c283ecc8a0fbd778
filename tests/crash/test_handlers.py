"""A handler that dies at each of its checkpoints in turn ends as if nothing had happened."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from durable_nb.events import Status
from durable_nb.sdk import DurableContext, StepContext, StepError, durable_execution
from durable_nb.sdk.config import Duration, JitterStrategy, MapConfig, StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy
from durable_nb.sdk.waits import WaitForConditionConfig, WaitStrategyConfig, create_wait_strategy
from durable_nb.testing import DurableFunctionTestRunner, SimulatedCrash, crash_after

RUNS: Counter[str] = Counter()
ONCE = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
QUICK = StepConfig(
    create_retry_strategy(
        RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
    )
)


def counted(name: str, value: Any) -> Any:
    def body(_: StepContext) -> Any:
        RUNS[name] += 1
        return value

    return body


def flaky(step: StepContext) -> int:
    RUNS[f"flaky {step.attempt}"] += 1
    if step.attempt < 3:
        raise OSError("not yet")
    return step.attempt


@durable_execution
def inner(event: Any, context: DurableContext) -> Any:
    context.wait(5)
    return context.step(counted("inner", event + 1))


@durable_execution
def everything(event: Any, context: DurableContext) -> Any:
    found: list[Any] = [context.step(counted("first", (1, 2)))]
    try:
        found.append(context.step(counted("charge", "charged"), config=ONCE))
    except StepError:
        found.append("interrupted")
    found.append(context.step(flaky, config=QUICK))
    context.wait(60)
    found.append(context.run_in_child_context(lambda c: c.step(counted("child", 3)) + 1))

    def item(c: DurableContext, x: int, i: int, every: Any) -> int:
        c.wait(x + 1)
        return c.step(counted(f"item {x}", x * 10))

    found.append(context.map([0, 1, 2], item, config=MapConfig(max_concurrency=2)).get_results())
    strategy = create_wait_strategy(WaitStrategyConfig(lambda state: state < 2))
    found.append(context.wait_for_condition(lambda state, c: state + 1, WaitForConditionConfig(strategy, 0)))
    found.append(context.invoke("crash-inner", 6))
    found.append(context.wait_for_callback(lambda callback_id, c: answers.append(callback_id), name="answer"))
    return found


answers: list[str] = []
EXPECTED = [[1, 2], "charged", 3, 4, [0, 10, 20], 2, 7, "yes"]


def drive(runner: DurableFunctionTestRunner, arn: str | None, fault: Any) -> Any:
    """Run, or go on, answering the callback whenever it is open; a crash comes out as it is."""
    import threading

    stop = threading.Event()

    def answer() -> None:
        while not stop.wait(0.005):
            for callback_id in list(answers):
                try:
                    runner.send_callback_success(callback_id, b"yes")
                except Exception:
                    continue

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        return runner.run(1, fault=fault) if arn is None else runner.resume(arn, fault=fault)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("before_write", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("checkpoints", range(0, 44, 1))
def test_a_crash_at_any_checkpoint_changes_nothing(checkpoints: int, before_write: bool) -> None:
    RUNS.clear()
    answers.clear()
    with DurableFunctionTestRunner(everything) as runner:
        runner.register_durable_function("crash-inner", inner)
        try:
            result = drive(runner, None, crash_after(checkpoints, before_write=before_write))
            crashed = False
        except SimulatedCrash:
            crashed = True
            result = drive(runner, next(iter(runner._places)), None)
    assert result.status is Status.SUCCEEDED, result.error
    assert RUNS["charge"] <= 1
    if result.result[1] == "interrupted":
        assert crashed
        result.result[1] = "charged"
    assert result.result == EXPECTED
    # at least once: only what the crash caught in the middle ran a second time
    again = [name for name, count in RUNS.items() if count > 1]
    assert len(again) <= (2 if crashed else 0), again
