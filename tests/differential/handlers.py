"""Handlers of our own, written once and built over either implementation."""

from __future__ import annotations

import datetime as dt
import importlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any


@dataclass
class Case:
    """A handler and how to run it."""

    handler: Callable[..., Any]
    input: Any = None
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    durable: dict[str, Callable[..., Any]] = field(default_factory=dict)
    send: Callable[[Any, str, Any], None] | None = None
    """Completes the execution's callback."""
    callback: str | None = None


def namespace(root: str) -> SimpleNamespace:
    """The names that the handlers use, from one implementation."""
    names: dict[str, Any] = {}
    for module in (
        "",
        ".config",
        ".retries",
        ".waits",
        ".exceptions",
        ".serdes",
        ".lambda_service",
        ".concurrency.models",
    ):
        loaded = importlib.import_module(root + module)
        names |= {key: value for key, value in vars(loaded).items() if not key.startswith("_")}
    return SimpleNamespace(**names)


def attempt_of(call: Callable[[], Any]) -> list[Any]:
    """A result, or what is comparable of an error."""
    try:
        return ["ok", call()]
    except Exception as error:
        return [
            type(error).__name__,
            str(error),
            short(getattr(error, "error_type", None)),
            getattr(error, "data", None),
        ]


def short(name: str | None) -> str | None:
    """A wire type without the name of the implementation."""
    if name is None:
        return None
    for root in ("aws_durable_execution_sdk_python", "durable_nb.sdk"):
        name = name.replace(root, "SDK")
    return name


def build(root: str) -> dict[str, Case]:  # noqa: C901 - one case after the other
    """Every case, over the implementation at `root`."""
    s = namespace(root)
    cases: dict[str, Case] = {}
    once = s.StepConfig(s.RetryPresets.none())
    quick = s.create_retry_strategy(
        s.RetryStrategyConfig(max_attempts=3, initial_delay=s.Duration(1), jitter_strategy=s.JitterStrategy.NONE)
    )

    def case(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(func: Callable[..., Any]) -> Callable[..., Any]:
            cases[func.__name__] = Case(s.durable_execution(func), **options)
            return func

        return add

    def boom(*_: Any) -> Any:
        raise ValueError("boom")

    @s.durable_step
    def add(context: Any, a: int, b: int) -> int:
        return a + b

    # --- steps -----------------------------------------------------------------------------------------------------

    @case(input={"a": 1})
    def returns_its_event(event: Any, ctx: Any) -> Any:
        return event

    @case()
    def one_step(event: Any, ctx: Any) -> Any:
        return ctx.step(add(5, 3))

    @case()
    def named_and_unnamed_steps(event: Any, ctx: Any) -> Any:
        ctx.step(add(1, 2), name="mine")
        ctx.step(add(1, 2), name="")
        return ctx.step(lambda c: c.attempt)

    @case()
    def step_of_nothing(event: Any, ctx: Any) -> Any:
        return ctx.step(lambda c: None, name="none")

    @case()
    def step_with_sub_type(event: Any, ctx: Any) -> Any:
        return ctx.step(lambda c: 1, name="x", config=s.StepConfig(sub_type="Mine"))

    @case()
    def values_that_json_has_not(event: Any, ctx: Any) -> Any:
        value = (1, b"x", Decimal("1.50"), uuid.UUID(int=5), dt.date(2020, 1, 2), {"t": "i", "v": [1, (2,)]})
        return repr(ctx.step(lambda c: value, name="value"))

    @case()
    def dict_with_int_keys(event: Any, ctx: Any) -> Any:
        return ctx.step(lambda c: {1: 2, None: 3}, name="value")

    @case()
    def unsupported_value(event: Any, ctx: Any) -> Any:
        return ctx.step(lambda c: {1, 2}, name="set", config=once)

    @case()
    def failing_step(event: Any, ctx: Any) -> Any:
        return ctx.step(boom, name="bad", config=once)

    @case()
    def caught_step_error(event: Any, ctx: Any) -> Any:
        return attempt_of(lambda: ctx.step(boom, name="bad", config=once))

    @case()
    def step_that_is_retried(event: Any, ctx: Any) -> Any:
        def flaky(context: Any) -> int:
            if context.attempt < 3:
                raise OSError("not yet")
            return int(context.attempt)

        return ctx.step(flaky, name="flaky", config=s.StepConfig(quick))

    @case()
    def step_that_is_retried_in_vain(event: Any, ctx: Any) -> Any:
        return attempt_of(lambda: ctx.step(boom, name="bad", config=s.StepConfig(quick)))

    @case()
    def at_most_once_step(event: Any, ctx: Any) -> Any:
        config = s.StepConfig(s.RetryPresets.none(), s.StepSemantics.AT_MOST_ONCE_PER_RETRY)
        return ctx.step(lambda c: "charged", name="charge", config=config)

    @case()
    def execution_error_in_a_step(event: Any, ctx: Any) -> Any:
        def fatal(_: Any) -> None:
            raise s.ExecutionError("fatal")

        return ctx.step(fatal, name="fatal")

    # --- the handler itself ----------------------------------------------------------------------------------------

    @case()
    def handler_error(event: Any, ctx: Any) -> Any:
        raise KeyError("missing")

    @case()
    def result_that_is_no_json(event: Any, ctx: Any) -> Any:
        return [b"x"]

    # --- waiting ---------------------------------------------------------------------------------------------------

    @case()
    def waits(event: Any, ctx: Any) -> Any:
        ctx.wait(s.Duration.from_hours(2), name="long")
        return ctx.step(add(1, 1))

    @case()
    def wait_that_is_too_short(event: Any, ctx: Any) -> Any:
        return attempt_of(lambda: ctx.wait(s.Duration(0)))[0]

    @case()
    def condition_that_comes_true(event: Any, ctx: Any) -> Any:
        strategy = s.create_wait_strategy(s.WaitStrategyConfig(lambda state: state < 3, max_attempts=3))
        return ctx.wait_for_condition(lambda state, c: state + 1, s.WaitForConditionConfig(strategy, 0), name="poll")

    @case()
    def condition_with_failing_check(event: Any, ctx: Any) -> Any:
        strategy = s.create_wait_strategy(s.WaitStrategyConfig(lambda state: True))
        return attempt_of(lambda: ctx.wait_for_condition(boom, s.WaitForConditionConfig(strategy, 0), name="poll"))

    # --- contexts --------------------------------------------------------------------------------------------------

    @case()
    def child_context(event: Any, ctx: Any) -> Any:
        return ctx.run_in_child_context(lambda c: c.step(add(1, 2)) + c.step(add(3, 4)), name="child")

    @case()
    def nested_children(event: Any, ctx: Any) -> Any:
        return ctx.run_in_child_context(
            lambda c: c.run_in_child_context(lambda d: d.step(add(1, 1)), name="inner"), name="outer"
        )

    @case()
    def failing_child(event: Any, ctx: Any) -> Any:
        return attempt_of(
            lambda: ctx.run_in_child_context(lambda c: c.step(boom, name="bad", config=once), name="child")
        )

    @case()
    def virtual_child(event: Any, ctx: Any) -> Any:
        config = s.ChildConfig(is_virtual=True)
        return ctx.run_in_child_context(lambda c: c.step(add(1, 2)), name="virtual", config=config)

    @case()
    def large_child_result(event: Any, ctx: Any) -> Any:
        config = s.ChildConfig(summary_generator=lambda value: f"{len(value)} letters")
        return len(ctx.run_in_child_context(lambda c: "x" * 300_000, name="large", config=config))

    @case()
    def large_child_over_a_wait(event: Any, ctx: Any) -> Any:
        def body(c: Any) -> str:
            return str(c.step(lambda _: "y", name="letter")) * 300_000

        first = ctx.run_in_child_context(body, name="large")
        ctx.wait(s.Duration(1))
        return [len(first), first[0]]

    # --- batches ---------------------------------------------------------------------------------------------------

    @case()
    def map_over_items(event: Any, ctx: Any) -> Any:
        result = ctx.map([1, 2, 3], lambda c, x, i, every: c.step(add(x, i)), name="double")
        return [result.get_results(), result.completion_reason.value, result.status.value, result.total_count]

    @case()
    def empty_map(event: Any, ctx: Any) -> Any:
        return ctx.map([], lambda c, x, i, every: x).to_dict()

    @case()
    def map_with_item_names(event: Any, ctx: Any) -> Any:
        config = s.MapConfig(item_namer=lambda item, index: f"item-{item}")
        return ctx.map(["a", "b"], lambda c, x, i, every: x, name="named", config=config).get_results()

    @case()
    def map_that_keeps_none(event: Any, ctx: Any) -> Any:
        return ctx.map([1, 2], lambda c, x, i, every: None).get_results()

    @case()
    def map_fails_fast(event: Any, ctx: Any) -> Any:
        def body(c: Any, x: int, i: int, every: Any) -> Any:
            return boom() if x == 2 else c.step(add(x, 0))

        result = ctx.map([1, 2, 3, 4], body, config=s.MapConfig(max_concurrency=1))
        return [result.completion_reason.value, [item.status.value for item in result.all]]

    @case()
    def map_that_tolerates(event: Any, ctx: Any) -> Any:
        def body(c: Any, x: int, i: int, every: Any) -> Any:
            return boom() if x % 2 else x

        result = ctx.map([1, 2, 3, 4], body, config=s.MapConfig(completion_config=s.CompletionConfig.all_completed()))
        errors = [[error.message, short(error.type)] for error in result.get_errors()]
        return [result.completion_reason.value, result.success_count, result.failure_count, errors]

    @case()
    def map_whose_error_is_thrown(event: Any, ctx: Any) -> Any:
        result = ctx.map([1], lambda c, x, i, every: c.step(boom, name="bad", config=once), name="thrown")
        result.throw_if_error()

    @case()
    def map_with_impossible_minimum(event: Any, ctx: Any) -> Any:
        config = s.MapConfig(completion_config=s.CompletionConfig(min_successful=3))
        return attempt_of(lambda: ctx.map([1, 2], lambda c, x, i, every: x, config=config))[0]

    @case()
    def large_map(event: Any, ctx: Any) -> Any:
        result = ctx.map([1, 2], lambda c, x, i, every: str(x) * 200_000, name="large")
        ctx.wait(s.Duration(1))
        return [[len(one) for one in result.get_results()], result.completion_reason.value]

    @case()
    def flat_map(event: Any, ctx: Any) -> Any:
        config = s.MapConfig(nesting_type=s.NestingType.FLAT, max_concurrency=1)
        return ctx.map([1, 2], lambda c, x, i, every: c.step(add(x, 1)), name="flat", config=config).get_results()

    @case()
    def parallel_branches(event: Any, ctx: Any) -> Any:
        return ctx.parallel([lambda c: c.step(add(1, 1)), lambda c: "two"], name="both").get_results()

    @case()
    def named_branches(event: Any, ctx: Any) -> Any:
        @s.durable_parallel_branch(name="second")
        def second(c: Any, value: int) -> int:
            return value

        @s.durable_parallel_branch()
        def first(c: Any) -> int:
            return 1

        return ctx.parallel([first(), second(5), s.ParallelBranch(lambda c: 3, "third")]).get_results()

    @case()
    def branches_that_wait(event: Any, ctx: Any) -> Any:
        def slow(c: Any) -> int:
            c.wait(s.Duration(30), name="slow")
            return int(c.step(add(1, 1)))

        return ctx.parallel([slow, slow], name="slow ones").get_results()

    @case()
    def branches_that_retry(event: Any, ctx: Any) -> Any:
        def body(c: Any, x: int, i: int, every: Any) -> Any:
            def flaky(context: Any) -> int:
                if context.attempt <= x:
                    raise OSError("not yet")
                return int(context.attempt)

            return c.step(flaky, name="flaky", config=s.StepConfig(quick))

        return ctx.map([0, 1, 2], body, name="flaky ones").get_results()

    @case()
    def custom_completion(event: Any, ctx: Any) -> Any:
        def rule(status: Any) -> Any:
            if status.success_count:
                return s.complete_batch(s.CompletionOutcome.FAILED)
            return s.continue_batch()

        completion = s.CompletionConfig(should_complete=rule)
        config = s.MapConfig(max_concurrency=1, completion_config=completion)
        result = ctx.map([1, 2, 3], lambda c, x, i, every: x, config=config)
        return [result.completion_reason.value, result.status.value, attempt_of(result.throw_if_error)[0]]

    # --- callbacks -------------------------------------------------------------------------------------------------

    @case(callback="cb", send=lambda runner, callback_id, s_: runner.send_callback_success(callback_id, b'{"a": 1}'))
    def callback_with_result(event: Any, ctx: Any) -> Any:
        callback = ctx.create_callback("cb", s.CallbackConfig(timeout=s.Duration(60)))
        return callback.result()

    @case(
        callback="cb",
        send=lambda runner, callback_id, s_: runner.send_callback_failure(
            callback_id, s_.ErrorObject("denied", "Denied", "why", None)
        ),
    )
    def callback_that_fails(event: Any, ctx: Any) -> Any:
        callback = ctx.create_callback("cb")
        between = ctx.step(add(1, 1))
        return [between, attempt_of(callback.result)]

    @case()
    def callback_that_times_out(event: Any, ctx: Any) -> Any:
        callback = ctx.create_callback("cb", s.CallbackConfig(timeout=s.Duration(1)))
        return attempt_of(callback.result)

    @case(callback=None, send=lambda runner, callback_id, s_: runner.send_callback_success(callback_id, b"yes"))
    def wait_for_callback(event: Any, ctx: Any) -> Any:
        return ctx.wait_for_callback(lambda callback_id, c: None, name="approval")

    @case()
    def submitter_that_fails(event: Any, ctx: Any) -> Any:
        config = s.WaitForCallbackConfig(retry_strategy=s.RetryPresets.none())
        return attempt_of(lambda: ctx.wait_for_callback(boom, name="approval", config=config))

    # --- invoke ----------------------------------------------------------------------------------------------------

    @case(functions={"double": lambda event, c: {"twice": event["n"] * 2}})
    def invoke_plain(event: Any, ctx: Any) -> Any:
        return ctx.invoke("double", {"n": 4}, name="call")

    @case(functions={"bad": boom})
    def invoke_that_fails(event: Any, ctx: Any) -> Any:
        return attempt_of(lambda: ctx.invoke("bad", {}, name="call"))

    def inner_handler(event: Any, ctx: Any) -> Any:
        ctx.wait(s.Duration(5))
        return ctx.step(add(event["n"], 1))

    @case(durable={"inner": s.durable_execution(inner_handler)})
    def invoke_durable(event: Any, ctx: Any) -> Any:
        return ctx.invoke("inner", {"n": 4}, name="call")

    @case()
    def invoke_unknown(event: Any, ctx: Any) -> Any:
        return [attempt_of(lambda: ctx.invoke("nobody", {}, name="call"))[i] for i in (0, 2)]

    # --- retrying a group ------------------------------------------------------------------------------------------

    @case()
    def group_that_is_retried(event: Any, ctx: Any) -> Any:
        def group(c: Any, attempt: int) -> Any:
            if attempt < 2:
                c.step(boom, name="bad", config=once)
            return c.step(add(attempt, 0))

        return s.with_retry(ctx, group, s.WithRetryConfig(quick), name="group")

    @case()
    def group_that_fails_unwrapped(event: Any, ctx: Any) -> Any:
        config = s.WithRetryConfig(quick, wrap_with_run_in_child_context=False)
        return attempt_of(
            lambda: s.with_retry(ctx, lambda c, a: c.step(boom, name="bad", config=once), config, name="g")
        )

    # --- history and code disagree -----------------------------------------------------------------------------------

    @case()
    def other_operation_at_a_replay(event: Any, ctx: Any) -> Any:
        if ctx.is_replaying():
            return ctx.step(add(1, 1), name="other")
        return ctx.wait(s.Duration(1), name="first")

    @case()
    def nested_step(event: Any, ctx: Any) -> Any:
        return ctx.step(lambda c: ctx.step(lambda d: 1), name="outer")

    @case()
    def step_without_strategy(event: Any, ctx: Any) -> Any:
        return ctx.step(boom, name="bad")

    return cases


NAMES = sorted(build("durable_nb.sdk"))
