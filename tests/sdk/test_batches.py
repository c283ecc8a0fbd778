"""map and parallel: order, concurrency, completion, orphans, replay."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from durable_nb.events import EventKind, Status
from durable_nb.journal import MemoryJournal
from durable_nb.sdk import (
    BatchResult,
    ChildContextError,
    DurableContext,
    StepContext,
    StepError,
    complete_batch,
    continue_batch,
    durable_execution,
    durable_parallel_branch,
)
from durable_nb.sdk.concurrency.models import BatchItem, BatchItemStatus, CompletionReason
from durable_nb.sdk.config import (
    CompletionConfig,
    CompletionOutcome,
    CompletionStatus,
    Duration,
    JitterStrategy,
    MapConfig,
    NestingType,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
    StepSemantics,
)
from durable_nb.sdk.exceptions import ValidationError
from durable_nb.sdk.identifier import OperationIdNamespace
from durable_nb.sdk.retries import RetryStrategyConfig, create_retry_strategy
from durable_nb.testing import DurableFunctionTestRunner, SimulatedCrash, check_replay, crash_after

QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)


def test_branch_ids_are_numbered_from_zero_below_the_batch(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.map(["a", "b"], lambda c, x, i, every: c.step(lambda _: x), name="m")

    batch = run(handler).get_context("m")
    assert batch.operation_id == OperationIdNamespace().create_id_for_step(1)
    below = OperationIdNamespace(batch.operation_id)
    assert {one.operation_id for one in batch.child_operations} == {below.create_id_for_step(i) for i in (0, 1)}
    for branch in batch.child_operations:
        inner = OperationIdNamespace(branch.operation_id).create_id_for_step(1)
        assert [one.operation_id for one in branch.child_operations] == [inner]


def test_the_function_gets_item_index_and_all_items(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.map(["a", "b"], lambda c, x, i, every: [x, i, list(every)]).get_results()

    assert run(handler).result == [["a", 0, ["a", "b"]], ["b", 1, ["a", "b"]]]


def test_no_more_than_max_concurrency_run_at_once_and_they_start_in_order(run: Any) -> None:
    lock, running, most, order = threading.Lock(), [0], [0], []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        def body(c: DurableContext, x: int, i: int, every: Any) -> int:
            with lock:
                order.append(i)
                running[0] += 1
                most[0] = max(most[0], running[0])
            c.step(lambda _: time.sleep(0.002))
            with lock:
                running[0] -= 1
            return x

        return context.map(range(30), body, config=MapConfig(max_concurrency=3)).success_count

    assert run(handler).result == 30
    assert most[0] <= 3
    assert sorted(order) == list(range(30))


def test_a_suspended_branch_keeps_its_slot(run: Any) -> None:
    started: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(c: DurableContext, x: int, i: int, every: Any) -> int:
            started.append(x)
            c.wait(10)
            return x

        return context.map([0, 1, 2], body, config=MapConfig(max_concurrency=1)).get_results()

    assert run(handler).result == [0, 1, 2]
    # each branch runs twice (before and after its wait), and none starts before the one before it has ended
    assert started == [0, 0, 1, 1, 2, 2]


def test_waiting_branches_suspend_together_and_no_thread_is_held(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.parallel([lambda c: c.wait(3600) or 1, lambda c: c.wait(7200) or 2]).get_results()

    before = threading.active_count()
    assert run(handler).result == [1, 2]
    assert threading.active_count() <= before + 1  # the keeper of leases


def test_a_branch_retries_in_the_process_while_another_runs() -> None:
    invocations: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        invocations.append(1)
        done = threading.Event()

        def flaky(c: DurableContext) -> int:
            def body(step: StepContext) -> int:
                if step.attempt < 2:
                    raise OSError
                done.set()
                return step.attempt

            return c.step(body, config=StepConfig(QUICK))

        def busy(c: DurableContext) -> bool:
            return c.step(lambda _: done.wait(30))

        return context.parallel([flaky, busy]).get_results()

    with DurableFunctionTestRunner(handler, skip_time=False) as runner:
        assert runner.run().result == [2, True]
    assert invocations == [1]


def test_the_first_failure_ends_a_batch_without_criteria(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(c: DurableContext, x: int, i: int, every: Any) -> int:
            if x == 1:
                raise ValueError("no")
            return x

        result = context.map(range(9), body, config=MapConfig(max_concurrency=1))
        return [result.completion_reason.value, [item.index for item in result.all]]

    assert run(handler).result == ["FAILURE_TOLERANCE_EXCEEDED", [0, 1]]


def test_failures_of_items_do_not_raise_until_asked(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        result = context.map([1], lambda c, x, i, every: c.step(lambda _: {}["x"]))
        try:
            result.throw_if_error()
        except ChildContextError as error:
            return [error.error_type, isinstance(error, KeyError), isinstance(error, StepError)]

    assert run(handler).result == ["durable_nb.sdk.exceptions.StepError", True, False]


def test_errors_of_items_are_rebuilt_alike_live_and_on_replay() -> None:
    seen: list[Any] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        for nesting in NestingType:
            config = MapConfig(nesting_type=nesting)
            result = context.map([1], lambda c, x, i, every: c.step(lambda _: int("x")), config=config)
            try:
                result.throw_if_error()
            except ValueError as error:
                seen.append((nesting, error.args, type(error).__mro__[1:3], [str(one) for one in result.get_errors()]))
        context.wait(1)

    check_replay(handler)
    assert len(seen) == 6
    assert seen[0:2] == seen[2:4] == seen[4:6]


def test_first_successful_ends_when_one_has_succeeded(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        result = context.parallel([lambda c: c.wait(3600) or "slow", lambda c: "fast"], config=config)
        return result.to_dict()

    result = run(handler).result
    assert result["completionReason"] == "MIN_SUCCESSFUL_REACHED"
    assert [item["status"] for item in result["all"]] == ["STARTED", "SUCCEEDED"]


def test_branches_that_were_never_started_are_left_out(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        completion = CompletionConfig(min_successful=2)
        config = MapConfig(max_concurrency=1, completion_config=completion)
        return context.map(range(5), lambda c, x, i, every: x, config=config).to_dict()

    assert [item["index"] for item in run(handler).result["all"]] == [0, 1]


def test_tolerance_is_told_before_all_completed(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = MapConfig(completion_config=CompletionConfig(tolerated_failure_count=0))
        return context.map([1], lambda c, x, i, every: 1 / 0, config=config).completion_reason.value

    assert run(handler).result == "FAILURE_TOLERANCE_EXCEEDED"


def test_a_custom_rule_sees_every_branch_and_decides(run: Any) -> None:
    seen: list[CompletionStatus] = []

    def rule(status: CompletionStatus) -> Any:
        seen.append(status)
        return complete_batch(CompletionOutcome.SUCCEEDED) if status.success_count == 2 else continue_batch()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = MapConfig(max_concurrency=1, completion_config=CompletionConfig(should_complete=rule))
        return context.map(range(4), lambda c, x, i, every: x, config=config).completion_reason.value

    assert run(handler).result == "CUSTOM_COMPLETION_SUCCEEDED"
    assert [one.success_count for one in seen[:2]] == [1, 2]
    assert seen[0].total_count == 4
    assert [item.status for item in seen[0].items] == [BatchItemStatus.SUCCEEDED, None, None, None]


def test_an_impossible_minimum_is_refused_before_anything_is_recorded(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.map(
            [1], lambda c, x, i, every: x, config=MapConfig(completion_config=CompletionConfig(min_successful=2))
        )

    result = run(handler)
    assert result.error.type == "durable_nb.sdk.exceptions.ValidationError"
    assert result.operations == []


def test_an_orphan_writes_nothing_after_its_batch_and_ends_before_the_invocation() -> None:
    started, released, ended = threading.Event(), threading.Event(), []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def late(c: DurableContext) -> None:
            started.set()
            try:
                c.step(lambda _: released.wait(30), name="running")
                c.step(lambda _: ended.append("must not run"), name="late")
            finally:
                ended.append("finally")

        def quick(c: DurableContext) -> str:
            started.wait(30)  # a branch that never began would be no orphan
            return "quick"

        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        result = context.parallel([late, quick], name="race", config=config)
        released.set()
        return result.get_results()

    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run()
        record = runner.journal.executions()[0]
        names = [stored.event.name for stored in runner.journal.read(record.execution_id)]
    assert result.result == ["quick"]
    assert ended == ["finally"]
    assert "late" not in names
    assert "running" not in names[names.index("race") :]


def test_each_start_is_recorded_once_under_a_hundred_branches(run: Any) -> None:
    journal = MemoryJournal()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        def body(c: DurableContext, x: int, i: int, every: Any) -> int:
            c.wait(5)
            return c.step(lambda _: x, config=StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY))

        return context.map(range(100), body).success_count

    assert DurableFunctionTestRunner(handler, store=journal).run().result == 100
    record = journal.executions()[0]
    starts: dict[str, int] = {}
    for stored in journal.read(record.execution_id):
        if stored.event.kind is EventKind.STARTED:
            starts[stored.event.operation_id] = starts.get(stored.event.operation_id, 0) + 1
    assert set(starts.values()) == {1}
    assert len(starts) >= 200


@pytest.mark.parametrize("nesting", list(NestingType))
def test_a_large_batch_replays_equal_to_the_live_run(nesting: NestingType) -> None:
    seen: list[Any] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def body(c: DurableContext, x: int, i: int, every: Any) -> Any:
            if x == 2:
                c.step(lambda _: [][1])
            if x == 3:
                c.wait(100_000)
            return (str(x) * 200_000, c.step(lambda _: x))

        config = MapConfig(
            nesting_type=nesting,
            completion_config=CompletionConfig(min_successful=2, tolerated_failure_count=1),
            max_concurrency=4,
        )
        result = context.map([0, 1, 2, 3], body, name="large", config=config)
        seen.append(result)
        context.wait(1)

    result = check_replay(handler)
    assert result.get_context("large").payload.startswith('{"type": "MapResult"')
    assert len(seen) >= 2
    assert all(one == seen[0] for one in seen)
    first: BatchResult[Any] = seen[0]
    assert first.completion_reason is CompletionReason.MIN_SUCCESSFUL_REACHED
    assert isinstance(first.get_results()[0], tuple)


def test_a_batch_that_was_cut_off_goes_on_where_it_was() -> None:
    runs: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(c: DurableContext, x: int, i: int, every: Any) -> int:
            return c.step(lambda _: runs.append(x) or x)

        return context.map(range(6), body, config=MapConfig(max_concurrency=1)).get_results()

    with DurableFunctionTestRunner(handler) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(6))  # a step and its branch are two commits
        done = len(runs)
        assert runner.resume().result == list(range(6))
    assert done < 6
    assert len(runs) <= 7


def test_flat_branches_leave_no_operation_and_their_steps_belong_to_the_batch(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = MapConfig(nesting_type=NestingType.FLAT)

        def body(c: DurableContext, x: int, i: int, every: Any) -> Any:
            return [c.is_virtual, c.step(lambda _: x, name=f"s{x}")]

        return context.map([1, 2], body, name="m", config=config).get_results()

    result = run(handler)
    assert result.result == [[True, 1], [True, 2]]
    assert sorted(one.name for one in result.get_context("m").child_operations) == ["s1", "s2"]


def test_unnamed_branches_are_numbered_and_named_ones_keep_their_name(run: Any) -> None:
    @durable_parallel_branch(name="given")
    def given(c: DurableContext, x: int) -> int:
        return x

    @durable_parallel_branch()
    def unnamed(c: DurableContext) -> int:
        return 2

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.parallel([given(1), unnamed(), ParallelBranch(lambda c: 3, "third")], name="p").get_results()

    result = run(handler)
    assert result.result == [1, 2, 3]
    names = {one.name for one in result.get_context("p").child_operations}
    assert names == {"given", "parallel-branch-1", "third"}


def test_batches_nest(run: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def row(c: DurableContext, y: int, i: int, every: Any) -> Any:
            return c.map([1, 2], lambda d, x, j, all_: (d.wait(2), x * y)[1]).get_results()

        return context.map([10, 20], row).get_results()

    assert run(handler).result == [[10, 20], [20, 40]]


def test_progress_is_told_as_branches_end(driver: Any) -> None:
    told: list[tuple[int, int, bool]] = []
    driver.on_progress = lambda progress: told.append((progress.total, progress.done, progress.over))

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.map([1, 2], lambda c, x, i, every: x, config=MapConfig(max_concurrency=1))

    handler.start_on(driver).result()
    assert told == [(2, 0, False), (2, 1, False), (2, 2, False), (2, 2, True)]


def test_none_results_are_kept() -> None:
    result: BatchResult[None] = BatchResult(
        [BatchItem(0, BatchItemStatus.SUCCEEDED, None)], CompletionReason.ALL_COMPLETED
    )
    assert result.get_results() == [None]
    assert result.success_count == 1
    assert Status.SUCCEEDED.is_terminal


def test_a_bad_concurrency_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_concurrency"):
        MapConfig(max_concurrency=0)
