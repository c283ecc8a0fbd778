"""Durable calls inside a notebook cell: `durable_nb.context`, without a kernel."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import durable_nb
from durable_nb.abc import Journal, Lease
from durable_nb.events import OperationType, Status
from durable_nb.exceptions import InvalidStateError, OrphanedChildException, StoreError, UntrustedCheckpointError
from durable_nb.journal import MemoryJournal, SqliteJournal
from durable_nb.sdk import DurableContext, InvokeError, StepContext, durable_execution, durable_step
from durable_nb.sdk._callbacks import CallbackSender
from durable_nb.sdk._engine import enter_cell
from durable_nb.sdk._local import SystemClock
from durable_nb.sdk.cell import CellContext
from durable_nb.sdk.config import Duration, JitterStrategy, StepConfig
from durable_nb.sdk.retries import RetryStrategyConfig, create_retry_strategy
from durable_nb.snapshot import MemoryBlobStore
from durable_nb.testing import VirtualClock

QUICK = create_retry_strategy(
    RetryStrategyConfig(max_attempts=3, initial_delay=Duration(1), jitter_strategy=JitterStrategy.NONE)
)


class Notebook:
    """An execution of kind notebook, whose cells are run by hand."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.record = journal.create("nb.ipynb", kind="notebook", at=0.0, details={})
        self.lease: Lease = journal.acquire(self.record.execution_id, ttl=30)
        self.blobs = MemoryBlobStore()

    @contextmanager
    def cell(self, parent: str = "cell-1", **options: Any) -> Iterator[CellContext]:
        options.setdefault("clock", VirtualClock())
        context = CellContext.for_cell(
            self.journal, self.record.execution_id, self.lease, parent, blobs=self.blobs, **options
        )
        leave = enter_cell(context)
        try:
            yield context
        finally:
            leave()
            context.close()


@pytest.fixture
def notebook(journal: Journal) -> Notebook:
    return Notebook(journal)


def test_a_loop_of_steps_goes_on_where_it_was_killed(notebook: Notebook) -> None:
    runs: list[int] = []

    @durable_step
    def fetch(_: StepContext, number: int) -> int:
        if number == 57 and len(runs) == 57:
            raise KeyboardInterrupt
        runs.append(number)
        return number * 2

    with pytest.raises(KeyboardInterrupt), notebook.cell():
        for number in range(100):
            durable_nb.context.step(fetch(number))
    runs.append(-1)
    with notebook.cell():
        values = [durable_nb.context.step(fetch(number)) for number in range(100)]
    assert values == [number * 2 for number in range(100)]
    assert runs == [*range(57), -1, *range(57, 100)]


def test_a_cell_of_another_identity_has_children_of_its_own(notebook: Notebook) -> None:
    runs: list[str] = []
    for parent in ("cell-1", "cell-2", "cell-1"):
        with notebook.cell(parent) as context:
            context.step(lambda _, p=parent: runs.append(p))
    assert runs == ["cell-1", "cell-2"]
    parents = {one.event.parent_id for one in notebook.journal.read(notebook.record.execution_id)}
    assert parents == {"cell-1", "cell-2"}


def test_any_value_may_be_a_result_and_large_arrays_are_blobs(notebook: Notebook) -> None:
    array = np.arange(100_000)
    for _ in range(2):
        with notebook.cell() as context:
            got = context.step(lambda _: {"a": array, "f": lambda x: x + 1, "s": {1, 2}})
            assert np.array_equal(got["a"], array)
            assert got["a"].flags.writeable
            got["a"][0] = 99
            assert got["f"](1) == 2
            assert got["s"] == {1, 2}
    assert notebook.journal.blob_refs() == set(notebook.blobs.addresses())
    assert len(notebook.journal.blob_refs()) == 1


def test_a_cell_waits_in_the_kernel_and_retries_there(notebook: Notebook) -> None:
    attempts: list[int] = []

    def flaky(step: StepContext) -> int:
        attempts.append(step.attempt)
        if step.attempt < 3:
            raise OSError
        return step.attempt

    with notebook.cell() as context:
        context.wait(Duration.from_hours(1))
        assert context.step(flaky, config=StepConfig(QUICK)) == 3
    with notebook.cell() as context:
        context.wait(Duration.from_hours(1))
        assert context.step(flaky, config=StepConfig(QUICK)) == 3
    assert attempts == [1, 2, 3]


def test_an_interrupt_ends_a_wait_and_its_deadline_stays(notebook: Notebook) -> None:
    interrupted = threading.Event()
    with (
        pytest.raises(KeyboardInterrupt),
        notebook.cell(clock=SystemClock(), interrupted=interrupted.is_set) as context,
    ):
        threading.Timer(0.1, interrupted.set).start()
        context.wait(3600, name="long")
    event = next(iter(notebook.journal.read(notebook.record.execution_id))).event
    assert event.type is OperationType.WAIT
    assert event.due is not None
    with notebook.cell() as context:
        context.wait(3600, name="long")


def test_a_wait_can_be_ended_by_hand(notebook: Notebook) -> None:
    with notebook.cell(clock=SystemClock()) as context:
        operation = context._peek_next_operation_id()
        threading.Timer(0.1, lambda: context.retry_now(operation)).start()
        context.wait(3600)


def test_a_callback_s_result_reaches_a_waiting_cell(notebook: Notebook) -> None:
    with notebook.cell(clock=SystemClock()) as context:
        callback = context.create_callback("answer")
        sender = CallbackSender(notebook.journal, SystemClock())
        threading.Timer(0.1, lambda: sender.success(callback.callback_id, "42")).start()
        assert callback.result() == "42"
    with notebook.cell() as context:
        assert context.create_callback("answer").result() == "42"


def test_map_and_parallel_report_their_progress(notebook: Notebook) -> None:
    told: list[Any] = []
    with notebook.cell(on_progress=told.append) as context:
        assert context.map([1, 2], lambda c, x, i, every: c.step(lambda _: x), name="work").get_results() == [1, 2]
    assert told[-1].over
    assert (told[-1].total, told[-1].done, told[-1].failed, told[-1].name) == (2, 2, 0, "work")
    told.clear()
    with notebook.cell(on_progress=told.append) as context:
        context.map([1, 2], lambda c, x, i, every: c.step(lambda _: x), name="work")
    assert [(one.total, one.done, one.over) for one in told] == [(2, 2, True)]


def test_events_are_told_as_they_are_recorded(notebook: Notebook) -> None:
    told: list[str | None] = []
    with notebook.cell(on_event=lambda event: told.append(event.name)) as context:
        context.step(lambda _: 1, name="one")
        context.step(lambda _: 1, name="two")
    assert told == ["one", "two"]


def test_a_handler_called_in_a_cell_is_a_nested_execution(notebook: Notebook) -> None:
    runs: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.wait(60)
        return context.step(lambda _: runs.append(event["n"]) or event["n"] + 1)

    for _ in range(2):
        with notebook.cell():
            assert handler({"n": 1}) == 2
            assert handler.run({"n": 5}, name="by name") == 6
    assert runs == [1, 5]
    names = [record.name for record in notebook.journal.executions()]
    assert names[0] == "nb.ipynb"
    assert names[1].startswith("nb.ipynb/handler-")
    assert names[2] == "by name"


def test_the_error_of_a_nested_handler_has_its_own_type(notebook: Notebook) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        raise LookupError("gone")

    for _ in range(2):
        with notebook.cell(), pytest.raises(LookupError, match="gone") as caught:
            handler()
        assert isinstance(caught.value, InvokeError)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """An interrupt raises, as in a kernel; a process that was started in the background ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_batch_whose_branches_are_blocked(notebook: Notebook) -> None:
    release, ended = threading.Event(), threading.Event()

    def blocked(c: DurableContext, x: int, i: int, every: Any) -> None:
        try:
            c.step(lambda _: release.wait(60), name=f"blocked {x}")
        finally:
            ended.set()

    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt), notebook.cell(clock=SystemClock()) as context:
        context.map([1], blocked)
    assert not ended.is_set()
    release.set()
    assert ended.wait(30)
    names = {one.event.name for one in notebook.journal.read(notebook.record.execution_id)}
    assert "blocked 1" not in names, "an orphan writes nothing"


def test_outside_a_cell_there_is_no_context() -> None:
    with pytest.raises(InvalidStateError, match="durable cell"):
        durable_nb.context.step(lambda _: 1)


def test_threads_of_a_cell_find_its_context(notebook: Notebook) -> None:
    found: list[Any] = []
    with notebook.cell() as context:
        thread = threading.Thread(target=lambda: found.append(durable_nb.context.step(lambda _: 5, name="there")))
        thread.start()
        thread.join()
        assert found == [5]
        assert context.state.get(context._namespace.create_id_for_step(1)).name == "there"


def test_a_context_that_is_used_after_its_cell_is_refused(notebook: Notebook) -> None:
    with notebook.cell() as context:
        pass
    with pytest.raises(OrphanedChildException):
        context.step(lambda _: 1)


def test_values_that_are_not_signed_with_our_key_are_not_loaded(tmp_path: Any) -> None:
    place = tmp_path / "journal.db"
    first = Notebook(SqliteJournal(place, signer=lambda row: b"theirs" + row[:1]))
    with first.cell() as context:
        context.step(lambda _: 1, name="value")
    first.journal.release(first.lease)
    first.journal.close()
    second = Notebook(SqliteJournal(place, signer=lambda row: b"ours" + row[:1]))
    with second.cell() as context, pytest.raises(UntrustedCheckpointError):
        context.step(lambda _: 1, name="value")
    second.journal.close()


def test_a_store_that_fails_is_an_ordinary_error_in_a_cell() -> None:
    class Full(MemoryJournal):
        def append(self, *args: Any, **kwargs: Any) -> int:
            raise StoreError("the disk is full")

    notebook = Notebook(MemoryJournal())
    context = CellContext.for_cell(Full(), notebook.record.execution_id, None, "cell")
    with pytest.raises(StoreError, match="full"):
        context.step(lambda _: 1)
    assert time.time() > 0
    assert Status.SUCCEEDED.is_terminal
