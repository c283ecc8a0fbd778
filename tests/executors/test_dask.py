"""Batches whose bodies run on a Dask cluster: the same results as here, whatever is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_nb.abc import Executor
from durable_nb.distributed import dask
from durable_nb.events import EventKind
from durable_nb.exceptions import (
    CannotTravelError,
    ExecutionFailedError,
    ExecutorError,
    RemoteBodyError,
    StepInterruptedError,
    StepTimeoutError,
    ValidationError,
    WorkerLostError,
)
from durable_nb.journal import MemoryJournal
from durable_nb.sdk import (
    AsyncDurableContext,
    DurableContext,
    StepContext,
    durable_execution,
    durable_parallel_branch,
    durable_step,
)
from durable_nb.sdk.concurrency.models import CompletionReason
from durable_nb.sdk.config import (
    CompletionConfig,
    Duration,
    JitterStrategy,
    MapConfig,
    NestingType,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
    StepSemantics,
)
from durable_nb.sdk.retries import RetryStrategyConfig, create_retry_strategy
from durable_nb.sdk.typed_serdes import TypedSerDes
from durable_nb.sdk.waits import WaitForConditionConfig, WaitForConditionDecision
from durable_nb.testing import DurableFunctionTestRunner
from durable_nb.testing.conformance_executors import ExecutorTests
from tests.executors import story
from tests.executors.cluster import ROOT, Cluster

pytestmark = pytest.mark.xdist_group("dask")

QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)
ONCE = StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)


class Odd(Exception):
    """An error whose constructor does not take its `args`."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{number} is odd: {reason}")
        self.number = number


def until(holds: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait until something is true that another process makes true."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.01)
    return found


def mark(folder: Path, name: str) -> None:
    """Leave word, once for each call."""
    (folder / f"{name}.{os.getpid()}.{time.monotonic_ns()}").touch()


def marks(folder: Path, name: str) -> list[int]:
    """The processes that left this word."""
    return [int(path.name.split(".")[1]) for path in folder.glob(f"{name}.*")]


class TestDaskExecutor(ExecutorTests):
    @pytest.fixture
    def executor(self, cluster: Cluster) -> Executor:
        return dask.DaskExecutor(cluster.place)


# --- The same as here --------------------------------------------------------------------------------------------------


def steps(context: DurableContext, where: Any) -> Any:
    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        first = c.step(lambda _: x * x, name="square")
        return [first, c.step(lambda s: [first + s.attempt, every[i]], name="more")]

    return context.map([3, 1, 2], branch, config=MapConfig(executor=where)).to_dict()


def plain_functions(context: DurableContext, where: Any) -> Any:
    config = MapConfig(executor=where, max_concurrency=2)
    one = context.map([3, 1, 2], lambda c, x, i, every: [x + 1, i, list(every)], config=config)
    other = context.parallel(
        [lambda c: "a", ParallelBranch(lambda c: "b", "named")], config=ParallelConfig(executor=where)
    )
    return [one.to_dict(), other.to_dict()]


def retries_and_failures(context: DurableContext, where: Any) -> Any:
    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        def body(step: StepContext) -> Any:
            if x == 2 or step.attempt < 2:
                raise Odd(x, "so it is")
            return [x, step.attempt]

        return c.step(body, config=StepConfig(QUICK))

    config = MapConfig(executor=where, completion_config=CompletionConfig.all_completed())
    return context.map([1, 2, 3], branch, config=config).to_dict()


def the_first_failure_ends_it(context: DurableContext, where: Any) -> Any:
    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        def body(step: StepContext) -> int:
            if x == 1:
                raise ValueError("one")
            return x

        return c.step(body)

    return context.map([0, 1, 2, 3], branch, config=MapConfig(executor=where, max_concurrency=1)).to_dict()


def waits_in_branches(context: DurableContext, where: Any) -> Any:
    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        before = c.step(lambda _: x)
        c.wait(Duration(60 * x))
        return c.step(lambda _: before + 1)

    return context.map([1, 2], branch, config=MapConfig(executor=where)).to_dict()


def conditions(context: DurableContext, where: Any) -> Any:
    def strategy(state: int, attempt: int) -> Any:
        if state >= 3:
            return WaitForConditionDecision.stop_polling()
        return WaitForConditionDecision.continue_waiting(Duration(5))

    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        config = WaitForConditionConfig(initial_state=x, wait_strategy=strategy)
        return c.wait_for_condition(lambda state, check: state + check.attempt, config)

    return context.map([0, 1], branch, config=MapConfig(executor=where)).to_dict()


def batches_inside(context: DurableContext, where: Any) -> Any:
    def inner(c: DurableContext, x: int, i: int, every: Any) -> Any:
        return c.step(lambda _: x * 10)

    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        found = c.map([x, x + 1], inner).get_results()
        return c.run_in_child_context(lambda d: d.step(lambda _: sum(found)))

    return context.map([1, 2], branch, config=MapConfig(executor=where)).to_dict()


def flat(context: DurableContext, where: Any) -> Any:
    config = MapConfig(executor=where, nesting_type=NestingType.FLAT)
    return context.map([1, 2], lambda c, x, i, every: c.step(lambda _: x), config=config).to_dict()


def coroutine_bodies(context: DurableContext, where: Any) -> Any:
    import asyncio

    async def body(step: StepContext) -> int:
        await asyncio.sleep(0)
        return step.attempt

    return context.map([1], lambda c, x, i, every: c.step(body), config=MapConfig(executor=where)).to_dict()


@pytest.mark.parametrize(
    "program",
    [
        steps,
        plain_functions,
        retries_and_failures,
        the_first_failure_ends_it,
        waits_in_branches,
        conditions,
        batches_inside,
        flat,
        coroutine_bodies,
    ],
)
def test_results_and_records_are_those_of_local_branches(program: Callable[..., Any], cluster: Cluster) -> None:
    def run(where: Any) -> tuple[Any, list[Any]]:
        @durable_execution(name=f"compared-{program.__name__}")
        def handler(event: Any, context: DurableContext) -> Any:
            return program(context, where)

        with DurableFunctionTestRunner(handler) as runner:
            result = runner.run()
        assert result.error is None, result.error
        found = [
            (one.operation_id, one.name, one.status, getattr(one, "attempt", None))
            for one in result.get_all_operations()
        ]
        return result.result, sorted(found, key=lambda one: one[0])

    assert run(cluster.place) == run(None)


def test_a_client_is_an_executor_too(cluster: Cluster) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.map(
            [1, 2], lambda c, x, i, every: os.getpid(), config=MapConfig(executor=cluster.ask)
        ).get_results()

    assert set(handler.run(store=MemoryJournal())) <= {worker.pid for worker in cluster.workers}


def test_dask_s_own_settings_can_name_the_scheduler(cluster: Cluster) -> None:
    import dask as settings

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.map([1], lambda c, x, i, every: os.getpid(), config=MapConfig(executor="dask://")).get_results()

    with pytest.raises(ExecutorError, match="it names no scheduler, and neither does DASK_SCHEDULER_ADDRESS"):
        handler.run(store=MemoryJournal())
    with settings.config.set(scheduler_address=cluster.address):
        assert set(handler.run(store=MemoryJournal())) <= {worker.pid for worker in cluster.workers}
    dask.disconnect("dask://")


def test_bodies_run_in_workers_and_branches_here(cluster: Cluster) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            return [os.getpid(), c.step(lambda _: os.getpid())]

        return context.map([1, 2, 3], branch, config=MapConfig(executor=cluster.place)).get_results()

    found = handler.run(store=MemoryJournal())
    assert {here for here, _ in found} == {os.getpid()}
    assert {there for _, there in found} <= {worker.pid for worker in cluster.workers}


def test_coroutine_handlers_use_the_cluster(cluster: Cluster) -> None:
    @durable_execution
    async def handler(event: Any, context: AsyncDurableContext) -> Any:
        async def branch(c: AsyncDurableContext, x: int, i: int, every: Any) -> Any:
            return await c.step(lambda _: [x, os.getpid()])

        return (await context.map([1, 2], branch, config=MapConfig(executor=cluster.place))).get_results()

    found = handler.run(store=MemoryJournal())
    assert [x for x, _ in found] == [1, 2]
    assert {pid for _, pid in found} <= {worker.pid for worker in cluster.workers}


# --- Names, words, values ----------------------------------------------------------------------------------------------


def test_tasks_are_called_as_the_steps_are(cluster: Cluster) -> None:
    @durable_step
    def bake_bread(step: StepContext, x: int) -> int:
        return x

    @durable_parallel_branch(name="eat cake")
    def eat(c: DurableContext) -> int:
        return 1

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.map([1, 2], lambda c, x, i, every: c.step(bake_bread(x)), config=MapConfig(executor=cluster.place))
        context.map([1], lambda c, x, i, every: x, name="buy-milk", config=MapConfig(executor=cluster.place))
        context.map(
            [1], lambda c, x, i, every: c.step(lambda _: x), name="sell", config=MapConfig(executor=cluster.place)
        )
        context.parallel([eat()], config=ParallelConfig(executor=cluster.place))

    handler.run(store=MemoryJournal())
    groups = cluster.on_scheduler(lambda scheduler: list(scheduler.task_prefixes))
    assert {"bake_bread", "buy-milk", "sell", "eat cake"} <= set(groups)


def test_what_a_body_prints_and_logs_is_printed_and_logged_here(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def body(step: StepContext) -> None:
            print("printed there")
            step.logger.warning("logged %s", "there")

        context.map([1], lambda c, x, i, every: c.step(body, name="talk"), config=MapConfig(executor=cluster.place))

    handler.run(store=MemoryJournal())
    assert capsys.readouterr().out == "printed there\n"
    (record,) = [one for one in caplog.records if one.getMessage() == "logged there"]
    assert record.operationName == "talk"  # type: ignore[attr-defined]


def test_an_array_travels_once_and_each_body_has_its_own(cluster: Cluster) -> None:
    import numpy as np

    big = np.arange(1 << 20, dtype=np.int64)  # 8 MiB

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            def body(step: StepContext) -> int:
                big[x] += 1000
                return int(big[:4].sum())

            return c.step(body)

        return context.map([0, 1, 2, 3], branch, config=MapConfig(executor=cluster.place)).get_results()

    def sent() -> int:
        return cluster.on_scheduler(
            lambda scheduler: (
                scheduler.task_prefixes["bytes"].state_counts["memory"] if "bytes" in scheduler.task_prefixes else 0
            )
        )

    before = sent()
    assert handler.run(store=MemoryJournal()) == [1006] * 4
    assert sent() - before == 1
    assert big[:4].sum() == 6


def test_large_results_come_back(cluster: Cluster) -> None:
    import numpy as np

    @durable_execution(serdes=TypedSerDes())
    def handler(event: Any, context: DurableContext) -> Any:
        config = MapConfig(executor=cluster.place)
        found = context.map([1, 2], lambda c, x, i, every: c.step(lambda _: np.full(1 << 18, x)), config=config)
        return [int(one.sum()) for one in found.get_results()]

    assert handler.run(store=MemoryJournal()) == [1 << 18, 2 << 18]


# --- Errors ------------------------------------------------------------------------------------------------------------


def test_an_error_arrives_as_itself_with_its_traceback(cluster: Cluster) -> None:
    caught: list[BaseException] = []

    class Sour(Exception):
        pass

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def odd(step: StepContext) -> None:
            raise Odd(7, "so it is")

        def sour(step: StepContext) -> None:
            raise Sour("plum", 3)

        for body in (odd, sour):
            result = context.map([1], lambda c, x, i, every: c.step(body), config=MapConfig(executor=cluster.place))
            try:
                result.throw_if_error()
            except Exception as error:
                caught.append(error)

    handler.run(store=MemoryJournal())
    first, second = caught
    assert isinstance(first, Odd)
    assert (str(first), first.number) == ("7 is odd: so it is", 7)
    assert "in odd\n    raise Odd(7" in "".join(first.__notes__)
    assert str(Path(__file__)) in "".join(first.__notes__)
    assert isinstance(second, Sour)
    assert second.args == ("plum", 3)


def test_the_strategy_sees_the_error_that_was_raised_there(cluster: Cluster) -> None:
    seen: list[Any] = []

    def strategy(error: Exception, attempt: int) -> Any:
        seen.append((type(error), str(error), attempt))
        return QUICK(error, 3)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def body(step: StepContext) -> None:
            raise Odd(9, "indeed")

        context.map(
            [1],
            lambda c, x, i, every: c.step(body, config=StepConfig(strategy)),
            config=MapConfig(executor=cluster.place),
        )

    handler.run(store=MemoryJournal())
    assert seen == [(Odd, "9 is odd: indeed", 1)]


def test_a_body_that_takes_too_long_is_ended(cluster: Cluster) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(step: StepContext) -> None:
            while True:
                time.sleep(0.01)

        step = StepConfig(timeout=0.3)
        result = context.map(
            [1], lambda c, x, i, every: c.step(body, "slow", step), config=MapConfig(executor=cluster.place)
        )
        return [str(error.message) for error in result.get_errors() if error]

    assert handler.run(store=MemoryJournal()) == [str(StepTimeoutError("slow", 0.3))]


def failing(where: str, body: Callable[..., Any]) -> tuple[BaseException, MemoryJournal]:
    """The error of a handler whose step has this body, and what was recorded."""
    journal = MemoryJournal()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        made = context.map(
            [1], lambda c, x, i, every: c.step(lambda s: body(c, s), "it"), config=MapConfig(executor=where)
        )
        made.throw_if_error()
        return made.get_results()

    with pytest.raises(Exception) as caught:  # noqa: PT011 - each test says which
        handler.run(store=journal, name="failing")
    return caught.value, journal


def test_a_context_in_a_body_is_refused(cluster: Cluster) -> None:
    error, _ = failing(cluster.place, lambda c, s: c.step(lambda _: 1))
    assert isinstance(error, RemoteBodyError)
    assert "a durable context cannot be used in the body of 'it'" in str(error)


def test_the_running_cell_s_context_in_a_body_is_refused(cluster: Cluster) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(step: StepContext) -> Any:
            import durable_nb

            return durable_nb.context.step(lambda _: 1)

        context.map([1], lambda c, x, i, every: c.step(body), config=MapConfig(executor=cluster.place)).throw_if_error()

    with pytest.raises(RemoteBodyError, match=r"durable_nb\.context cannot be used"):
        handler.run(store=MemoryJournal())


def test_a_handler_in_a_body_is_refused_without_a_store(cluster: Cluster) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(step: StepContext) -> Any:
            @durable_execution
            def other(event: Any, context: DurableContext) -> int:
                return 1

            return other.run()

        context.map([1], lambda c, x, i, every: c.step(body), config=MapConfig(executor=cluster.place)).throw_if_error()

    with pytest.raises(RemoteBodyError, match="without a store of its own"):
        handler.run(store=MemoryJournal())
    assert not list(cluster.folder.rglob("journal.db"))


def test_what_cannot_be_pickled_is_named_and_nothing_is_begun(cluster: Cluster) -> None:
    lock = threading.Lock()
    journal = MemoryJournal()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(step: StepContext) -> Any:
            return lock.locked()

        config = MapConfig(executor=cluster.place)
        context.map([1], lambda c, x, i, every: c.step(body, "locked", ONCE), config=config).throw_if_error()

    with pytest.raises(
        CannotTravelError, match=r"'locked' cannot run on Dask at dask://.*: lock \(lock\) cannot be pickled"
    ):
        handler.run(store=journal, name="it")
    record = journal.find("it")
    assert record is not None
    assert not [one for one in journal.read(record.execution_id) if one.event.details.get("at_most_once")]


def test_a_result_that_cannot_be_pickled_is_told(cluster: Cluster) -> None:
    error, _ = failing_result(cluster.place)
    assert isinstance(error, CannotTravelError)
    assert "its result (generator) cannot be sent back" in str(error)


def failing_result(where: str) -> tuple[BaseException, None]:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(step: StepContext) -> Any:
            return (x for x in [1])

        context.map([1], lambda c, x, i, every: c.step(body), config=MapConfig(executor=where)).throw_if_error()

    with pytest.raises(CannotTravelError) as caught:
        handler.run(store=MemoryJournal())
    return caught.value, None


@pytest.mark.parametrize("executor", ["localhost:8786", 8786, "spark://somewhere:1"])
def test_what_is_no_executor_is_refused(executor: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.map([1], lambda c, x, i, every: x, config=MapConfig(executor=executor))

    with pytest.raises(ValidationError, match="dask://host:port"):
        handler.run(store=MemoryJournal())


def test_nothing_that_ran_there_is_told(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = MapConfig(executor=cluster.place)
        return context.map([1], lambda c, x, i, every: [x, c.is_replaying()], name="here", config=config).get_results()

    with caplog.at_level(logging.WARNING):
        assert handler.run(store=MemoryJournal()) == [[1, False]]
    assert "here: nothing ran on Dask" in caplog.text


# --- What is lost ------------------------------------------------------------------------------------------------------


def test_the_items_of_a_killed_worker_run_elsewhere(cluster: Cluster, begun: Path) -> None:
    journal = MemoryJournal()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            def body(step: StepContext) -> int:
                mark(begun, f"item{x}")
                while x == 3 and not (begun / "go").exists():
                    time.sleep(0.01)
                return x * x

            return c.step(body)

        return context.map(list(range(8)), branch, config=MapConfig(executor=cluster.place)).get_results()

    def kill() -> None:
        (pid,) = until(lambda: marks(begun, "item3"))
        cluster.kill_worker(pid)
        (begun / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    assert handler.run(store=journal, name="killed") == [x * x for x in range(8)]
    killer.join()
    assert len(marks(begun, "item3")) == 2
    assert handler.run(store=journal, name="killed") == [x * x for x in range(8)]
    assert len(marks(begun, "item3")) == 2


def test_an_at_most_once_body_whose_worker_is_killed_begins_once(cluster: Cluster, begun: Path) -> None:
    journal = MemoryJournal()
    record_at_begin: list[bool] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            def body(step: StepContext) -> int:
                mark(begun, f"item{x}")
                while x == 1:
                    time.sleep(0.01)
                return x * x

            return c.step(body, f"pay{x}", ONCE)

        config = MapConfig(executor=cluster.place, completion_config=CompletionConfig.all_completed())
        result = context.map([0, 1, 2, 3], branch, config=config)
        with pytest.raises(StepInterruptedError, match="step 'pay1': attempt 1 was started and its end is not known"):
            result.throw_if_error()
        return result.get_results()

    def kill() -> None:
        (pid,) = until(lambda: marks(begun, "item1"))
        record = journal.find("once")
        assert record is not None
        events = [one.event for one in journal.read(record.execution_id)]
        record_at_begin.append(any(one.name == "pay1" and one.kind is EventKind.STARTED for one in events))
        cluster.kill_worker(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    assert handler.run(store=journal, name="once") == [0, 4, 9]
    killer.join()
    assert record_at_begin == [True], "the start is in the journal before the body runs"
    assert [len(marks(begun, f"item{x}")) for x in range(4)] == [1, 1, 1, 1]


def test_an_interrupted_attempt_is_the_strategy_s_to_repeat(cluster: Cluster, begun: Path) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(step: StepContext) -> int:
            mark(begun, f"attempt{step.attempt}")
            while step.attempt == 1:
                time.sleep(0.01)
            return step.attempt

        step = StepConfig(QUICK, StepSemantics.AT_MOST_ONCE_PER_RETRY)
        return context.map(
            [0], lambda c, x, i, every: c.step(body, "pay", step), config=MapConfig(executor=cluster.place)
        ).get_results()

    killer = threading.Thread(target=lambda: cluster.kill_worker(until(lambda: marks(begun, "attempt1"))[0]))
    killer.start()
    assert handler.run(store=MemoryJournal()) == [2]
    killer.join()
    assert [len(marks(begun, f"attempt{n}")) for n in (1, 2)] == [1, 1]


def test_a_lost_part_is_sent_again(cluster: Cluster, begun: Path) -> None:
    import numpy as np

    big = np.ones(1 << 18, dtype=np.int64)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            def body(step: StepContext) -> int:
                mark(begun, "any")
                while not (begun / "go").exists():
                    time.sleep(0.01)
                return int(big.sum())

            return c.step(body)

        return context.map(list(range(4)), branch, config=MapConfig(executor=cluster.place)).get_results()

    def kill() -> None:
        until(lambda: len(marks(begun, "any")) >= 2)
        for pid in set(marks(begun, "any")):  # every worker there is: with them goes what they hold
            cluster.kill_worker(pid)
        (begun / "go").touch()
        cluster.add_worker()

    killer = threading.Thread(target=kill)
    killer.start()
    assert handler.run(store=MemoryJournal()) == [1 << 18] * 4
    killer.join()


# --- Replay and ends ---------------------------------------------------------------------------------------------------


def test_a_replay_submits_nothing_and_needs_no_cluster(cluster: Cluster, begun: Path) -> None:
    journal = MemoryJournal()
    where = [cluster.place]

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            return c.step(lambda _: mark(begun, "it"))

        made = context.map([1, 2, 3], branch, config=MapConfig(executor=where[0]))
        c2 = context.map([1, 2], lambda c, x, i, every: mark(begun, "it"), config=MapConfig(executor=where[0]))
        context.wait(Duration(1))
        return made.success_count + c2.success_count

    handle = handler.start(store=journal, name="replayed")
    handle.step()
    assert len(marks(begun, "it")) == 5
    where[0] = "dask://127.0.0.1:1"  # nobody answers there
    assert handle.result() == 5
    assert len(marks(begun, "it")) == 5


def test_after_the_death_of_the_driver_only_what_is_not_done_is_submitted(cluster: Cluster, tmp_path: Path) -> None:
    begun, store = tmp_path / "begun", tmp_path / "store"
    begun.mkdir()
    command = [sys.executable, "-m", "tests.executors.story", str(store), cluster.place, str(begun)]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    done = [len(list(begun.glob(f"item{x}.*"))) for x in range(story.ITEMS)]
    assert done == [1] * (story.KILLED_AT + 1) + [0] * (story.ITEMS - story.KILLED_AT - 1)
    (begun / "before").mkdir()
    for path in begun.glob("item*"):
        path.rename(begun / "before" / path.name)
    event = {"place": cluster.place, "folder": str(begun)}
    assert story.handler.run(event, name="story", store=store) == [x * x for x in range(story.ITEMS)]
    assert sorted(path.name[:5] for path in begun.glob("item*")) == [
        f"item{x}" for x in range(story.KILLED_AT + 1, story.ITEMS)
    ]


def endless(begun: Path, *, but_one: bool = False) -> Callable[..., Any]:
    """Bodies that never end; with `but_one` the first to begin ends once another has begun."""

    def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
        def body(step: StepContext) -> int:
            first = False
            with contextlib.suppress(FileExistsError):
                (begun / "first").mkdir()
                first = but_one
            mark(begun, f"item{x}")
            while not first or len(list(begun.glob("item*"))) < 2:
                time.sleep(0.01)
            return x

        return c.step(body, name="endless")

    return branch


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises: a process that was started in the background ignores it from the beginning."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def has_nothing_to_do(cluster: Cluster) -> bool:
    return bool(
        cluster.on_scheduler(lambda scheduler: not [key for key in scheduler.tasks if key.startswith("endless")])
    )


def works(cluster: Cluster) -> None:
    """Every worker takes something new: none is kept by what nobody waits for."""
    workers = [worker.pid for worker in cluster.workers]
    assert {
        cluster.ask.submit(os.getpid, pure=False, workers=[name]).result(timeout=30)
        for name in cluster.ask.scheduler_info()["workers"]
    } == set(workers)


def test_the_end_of_a_batch_cancels_what_is_left(cluster: Cluster, begun: Path) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = MapConfig(executor=cluster.place, completion_config=CompletionConfig.first_successful())
        result = context.map(list(range(6)), endless(begun, but_one=True), config=config)
        return [result.completion_reason.value, result.success_count, result.started_count]

    assert handler.run(store=MemoryJournal()) == [CompletionReason.MIN_SUCCESSFUL_REACHED.value, 1, 5]
    until(lambda: has_nothing_to_do(cluster))
    works(cluster)
    assert len(list(begun.glob("item*"))) < 6, "what had not begun never did"


def test_an_interrupt_cancels_what_was_submitted(cluster: Cluster, begun: Path, interruptible: None) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.map(list(range(1, 7)), endless(begun), config=MapConfig(executor=cluster.place)).get_results()

    def interrupt() -> None:
        try:
            until(lambda: len(list(begun.glob("item*"))) >= 2)
        finally:  # where the bodies do not begin, the test fails instead of waiting for ever
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    journal = MemoryJournal()
    with pytest.raises(KeyboardInterrupt):
        handler.run(store=journal, name="interrupted")
    interrupter.join()
    until(lambda: has_nothing_to_do(cluster))
    works(cluster)
    assert len(list(begun.glob("item*"))) == 2, "what had not begun never did"
    record = journal.find("interrupted")
    assert record is not None
    assert not record.status.is_terminal


def test_a_cancelled_execution_cancels_what_was_submitted(cluster: Cluster, begun: Path) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.map(list(range(1, 7)), endless(begun), config=MapConfig(executor=cluster.place)).get_results()

    def cancel() -> None:
        try:
            until(lambda: len(list(begun.glob("item*"))) >= 2)
        finally:
            handle.cancel()

    handle = handler.start(store=MemoryJournal(), name="cancelled")
    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(ExecutionFailedError, match="cancelled"):
        handle.result()
    canceller.join()
    until(lambda: has_nothing_to_do(cluster))
    works(cluster)
    assert len(list(begun.glob("item*"))) == 2, "what had not begun never did"


def test_a_body_that_kills_its_workers_fails(cluster: Cluster, begun: Path) -> None:
    """Dask's own limit ends it: that is an error of the step, which the strategy may look at."""

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def body(step: StepContext) -> None:
            mark(begun, "it")
            os.kill(os.getpid(), signal.SIGKILL)

        context.map(
            [1], lambda c, x, i, every: c.step(body, "deadly"), config=MapConfig(executor=cluster.place)
        ).throw_if_error()

    stop = threading.Event()

    def replace() -> None:
        while not stop.wait(0.1):
            for _ in range(cluster.bury()):
                cluster.add_worker()

    replacer = threading.Thread(target=replace)
    replacer.start()
    try:
        with pytest.raises(WorkerLostError, match="the worker that ran 'deadly' on Dask"):
            handler.run(store=MemoryJournal())
    finally:
        stop.set()
        replacer.join()
    assert len(marks(begun, "it")) == 4, "one, and the three failures that Dask allows"


def test_a_scheduler_that_dies_leaves_the_execution_to_the_next(tmp_path: Path, begun: Path) -> None:
    journal = MemoryJournal()
    where = [""]

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def branch(c: DurableContext, x: int, i: int, every: Any) -> Any:
            def body(step: StepContext) -> int:
                mark(begun, f"item{x}")
                while x == 2 and not (begun / "go").exists():
                    time.sleep(0.01)
                return x

            return c.step(body, f"item{x}", ONCE if x == 2 else None)

        every = CompletionConfig.all_completed()
        config = MapConfig(executor=where[0], max_concurrency=1, completion_config=every)
        result = context.map([0, 1, 2, 3], branch, config=config)
        return [result.get_results(), [str(error.message) for error in result.get_errors() if error]]

    def kill() -> None:
        until(lambda: marks(begun, "item2"))
        first.scheduler.kill()

    first = Cluster(tmp_path, 1)
    try:
        where[0] = first.place
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ExecutorError):
            handler.run(store=journal, name="outlives")
        killer.join()
    finally:
        first.close()
    (begun / "go").touch()
    second = Cluster(tmp_path, 1)
    try:
        where[0] = second.place
        results, errors = handler.run(store=journal, name="outlives")
    finally:
        second.close()
    assert results == [0, 1, 3]
    assert errors == ["step 'item2': attempt 1 was started and its end is not known"]
    assert [len(marks(begun, f"item{x}")) for x in range(4)] == [1, 1, 1, 1]


def test_no_scheduler_is_no_failure_of_the_execution(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 0.5)
    tried: list[str] = []
    connect = dask.DaskExecutor._connect

    def counted(self: dask.DaskExecutor, where: str) -> Any:
        tried.append(where)
        return connect(self, where)

    monkeypatch.setattr(dask.DaskExecutor, "_connect", counted)
    where = ["dask://127.0.0.1:1"]

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = MapConfig(executor=where[0])
        return context.map(list(range(8)), lambda c, x, i, every: c.step(lambda _: x), config=config).get_results()

    journal = MemoryJournal()
    with pytest.raises(ExecutorError, match=r"Dask at dask://127.0.0.1:1 cannot be used: no scheduler answers"):
        handler.run(store=journal, name="later")
    assert len(tried) == 1, "one branch waits for a scheduler that does not answer, and tells the others"
    where[0] = cluster.place
    assert handler.run(store=journal, name="later") == list(range(8))
