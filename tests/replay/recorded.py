"""The handler whose history is kept, and how a history is written down.

python -m tests.replay.recorded tests/replay/handlers-1.json.gz
"""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

from durable_nb.events import ErrorInfo, Event, EventKind, OperationType
from durable_nb.sdk import DurableContext, StepContext, durable_execution
from durable_nb.sdk.config import Duration, JitterStrategy, MapConfig, NestingType, StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy
from durable_nb.sdk.waits import WaitForConditionConfig, WaitStrategyConfig, create_wait_strategy
from durable_nb.testing import DurableFunctionTestRunner

FORBIDDEN = [False]
"""True where no body may run."""
QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)


def body(value: Any) -> Any:
    def run(step: StepContext) -> Any:
        assert not FORBIDDEN[0], "a recorded step runs again"
        if isinstance(value, Exception):
            raise value
        if value == "flaky" and step.attempt < 2:
            raise OSError("again")
        return value

    return run


@durable_execution(name="recorded-handler")
def recorded(event: Any, context: DurableContext) -> Any:
    found: list[Any] = [context.step(body((1, b"x")), name="value")]
    once = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
    found.append(context.step(body("charged"), name="charge", config=once))
    found.append(context.step(body("flaky"), name="flaky", config=StepConfig(QUICK)))
    try:
        context.step(body(KeyError("k")), name="fails")
    except KeyError as error:
        found.append(["KeyError", list(error.args)])
    context.wait(60, name="pause")
    found.append(context.run_in_child_context(lambda c: c.step(body(3), name="in child"), name="child"))
    for nesting in NestingType:
        config = MapConfig(nesting_type=nesting, max_concurrency=1)
        result = context.map([1, 2], lambda c, x, i, every: c.step(body(x)), name=f"map {nesting.value}", config=config)
        found.append(result.get_results())
    large = context.map(
        [1, 2], lambda c, x, i, every: str(x) * 140_000, name="large", config=MapConfig(max_concurrency=1)
    )
    found.append([len(one) for one in large.get_results()])
    strategy = create_wait_strategy(WaitStrategyConfig(lambda state: state < 2))
    found.append(context.wait_for_condition(lambda s, c: s + 1, WaitForConditionConfig(strategy, 0), name="poll"))
    found.append(context.wait_for_callback(lambda callback_id, c: None, name="answer"))
    found.append(context.invoke("recorded-double", 4, name="call"))
    return repr(found)


def to_json(event: Event) -> dict[str, Any]:
    error = event.error
    return {
        "operation_id": event.operation_id,
        "kind": event.kind.value,
        "type": event.type.value,
        "at": event.at,
        "sub_type": event.sub_type,
        "name": event.name,
        "parent_id": event.parent_id,
        "attempt": event.attempt,
        "payload": None if event.payload is None else event.payload.decode("utf-8"),
        "error": None if error is None else [error.type, error.message, list(error.traceback), error.data],
        "due": event.due,
        "details": dict(event.details),
    }


def from_json(data: dict[str, Any]) -> Event:
    error = data.pop("error")
    payload = data.pop("payload")
    kind, type_ = EventKind(data.pop("kind")), OperationType(data.pop("type"))
    return Event(
        **data,
        kind=kind,
        type=type_,
        payload=None if payload is None else payload.encode("utf-8"),
        error=None
        if error is None
        else ErrorInfo(type=error[0], message=error[1], traceback=tuple(error[2]), data=error[3]),
    )


def record() -> dict[str, Any]:
    """Run the handler and write its history down."""
    with DurableFunctionTestRunner(recorded) as runner:
        runner.register_function("recorded-double", lambda event, c: event * 2)
        result = runner.run({"n": 1}, callbacks={"answer": lambda: "yes"})
        execution = runner.journal.executions()[0]
        events = [to_json(stored.event) for stored in runner.journal.read(execution.execution_id)]
    for event in events:
        if event["error"]:
            event["error"][2] = []  # paths of whoever recorded it
    return {"result": result.result, "details": dict(execution.details), "events": events}


if __name__ == "__main__":
    from tests.replay import recorded as module

    with gzip.GzipFile(sys.argv[1], "wb", mtime=0) as file:
        file.write(json.dumps(module.record(), indent=1).encode("utf-8"))
