"""What the workers of `load.py` drive: an execution of many steps that do nothing."""

from __future__ import annotations

from durable_nb.sdk import DurableContext, StepContext, durable_execution, durable_step


@durable_step
def add(_: StepContext, a: int, b: int) -> int:
    return a + b


@durable_execution(name="load")
def load(event: dict[str, int], context: DurableContext) -> int:
    return sum(context.step(add(number, 1)) for number in range(event["steps"]))
