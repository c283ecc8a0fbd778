"""Random programs of durable operations: replayed, and cut off anywhere, they give what the plain program gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_nb.events import Status
from durable_nb.sdk import DurableContext, StepContext
from durable_nb.sdk.config import CompletionConfig, Duration, JitterStrategy, MapConfig, NestingType, StepConfig
from durable_nb.sdk.execution import DurableHandler
from durable_nb.sdk.retries import RetryStrategyConfig, create_retry_strategy
from durable_nb.testing import DurableFunctionTestRunner, SimulatedCrash, check_replay, crash_after

QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)


@dataclass(frozen=True)
class Node:
    """An operation; what it gives follows from its kind, its number and its children."""

    kind: str
    number: int
    children: tuple[Node, ...] = ()


def nodes() -> st.SearchStrategy[Node]:
    leaves = st.builds(
        Node, st.sampled_from(["step", "retried", "failing", "wait", "value"]), st.integers(min_value=1, max_value=5)
    )

    def grown(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        children = st.lists(inner, max_size=4).map(tuple)
        return st.builds(Node, st.sampled_from(["child", "map", "flat", "parallel"]), st.integers(1, 3), children)

    return st.recursive(leaves, grown, max_leaves=10)


def plain(node: Node) -> Any:
    """What the program gives without any engine."""
    if node.kind in ("map", "flat", "parallel"):
        return [plain(child) for child in node.children]
    if node.kind == "child":
        return {"child": [plain(child) for child in node.children]}
    return {"step": node.number, "retried": 2, "failing": "ValueError", "wait": None, "value": (node.number, b"x")}[
        node.kind
    ]


def durable(node: Node, context: DurableContext) -> Any:
    """The same through the engine."""
    return _DURABLE[node.kind](node, context)


def _step(node: Node, context: DurableContext) -> Any:
    return context.step(lambda _: node.number, name=f"step {node.number}")


def _value(node: Node, context: DurableContext) -> Any:
    return context.step(lambda _: (node.number, b"x"))


def _retried(node: Node, context: DurableContext) -> Any:
    def body(step: StepContext) -> int:
        if step.attempt < 2:
            raise OSError
        return step.attempt

    return context.step(body, config=StepConfig(QUICK))


def _failing(node: Node, context: DurableContext) -> Any:
    def body(_: StepContext) -> None:
        raise ValueError(node.number)

    try:
        context.step(body)
    except ValueError as error:
        return "ValueError" if error.args == (node.number,) else repr(error)


def _wait(node: Node, context: DurableContext) -> Any:
    return context.wait(node.number)


def _child(node: Node, context: DurableContext) -> Any:
    return context.run_in_child_context(lambda c: {"child": [durable(child, c) for child in node.children]})


def _map(node: Node, context: DurableContext) -> Any:
    config = MapConfig(
        max_concurrency=node.number,
        completion_config=CompletionConfig.all_completed(),
        nesting_type=NestingType.FLAT if node.kind == "flat" else NestingType.NESTED,
    )
    return context.map(node.children, lambda c, child, i, every: durable(child, c), config=config).get_results()


def _parallel(node: Node, context: DurableContext) -> Any:
    branches = [lambda c, child=child: durable(child, c) for child in node.children]
    return context.parallel(branches).get_results()


_DURABLE = {
    "step": _step,
    "value": _value,
    "retried": _retried,
    "failing": _failing,
    "wait": _wait,
    "child": _child,
    "map": _map,
    "flat": _map,
    "parallel": _parallel,
}

quiet = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def handler_of(program: tuple[Node, ...], seen: list[Any]) -> DurableHandler[Any, Any]:
    def handler(event: Any, context: DurableContext) -> str:
        found = [durable(node, context) for node in program]
        seen.append(found)
        return repr(found)

    return DurableHandler(handler)


programs = st.lists(nodes(), max_size=4).map(tuple)


@quiet
@given(programs)
def test_a_program_gives_what_it_gives_without_an_engine_live_and_on_replay(program: tuple[Node, ...]) -> None:
    seen: list[Any] = []
    check_replay(handler_of(program, seen))
    expected = [plain(node) for node in program]
    assert seen == [expected] * len(seen)


@quiet
@given(programs, st.integers(min_value=0, max_value=30), st.booleans())
def test_a_program_that_was_cut_off_anywhere_ends_the_same(
    program: tuple[Node, ...], checkpoints: int, before_write: bool
) -> None:
    with DurableFunctionTestRunner(handler_of(program, [])) as runner:
        try:
            result = runner.run(fault=crash_after(checkpoints, before_write=before_write))
        except SimulatedCrash:
            result = runner.resume()
    assert result.status is Status.SUCCEEDED
    assert result.result == repr([plain(node) for node in program])
