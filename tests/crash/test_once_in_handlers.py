"""At-most-once steps of handlers: a journal that forgets does not let a body begin twice."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_nb.cli import main
from durable_nb.events import Status
from durable_nb.exceptions import ChildContextError, ExecutionFailedError, StepInterruptedError, StoreError
from durable_nb.journal import FileMarkers, MemoryJournal
from durable_nb.runtime import Store, Worker, driver_for, open_store
from durable_nb.sdk import DurableContext, StepError, durable_execution
from durable_nb.sdk._once import Starts
from durable_nb.sdk.config import MapConfig, StepConfig, StepSemantics
from durable_nb.sdk.identifier import OperationIdentifier
from durable_nb.sdk.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy
from durable_nb.sdk.saga import Saga
from durable_nb.testing.faults_store import StoreFaults
from tests.crash.evidence import keep
from tests.notebook.harness import Bench, run_all

NEVER_AGAIN = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
AGAIN = StepConfig(
    create_retry_strategy(RetryStrategyConfig(max_attempts=3, initial_delay_seconds=1, backoff_rate=1.0)),
    StepSemantics.AT_MOST_ONCE_PER_RETRY,
)

BEGUN: list[str] = []
DURING: list[Callable[[], None]] = []
"""What happens inside the body of a payment."""


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    BEGUN.clear()
    DURING.clear()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


@contextlib.contextmanager
def opened(place: Path) -> Iterator[Store]:
    store = open_store(place)
    try:
        yield store
    finally:
        store.close()


def pay(step: Any) -> str:
    BEGUN.append(f"pay {step.attempt}")
    for happens in DURING:
        happens()
    return "paid"


@durable_execution
def order(event: Any, context: DurableContext) -> Any:
    first = context.step(lambda _: event, name="load")
    try:
        return [first, context.step(pay, name="charge", config=NEVER_AGAIN)]
    except StepError as error:
        return [first, type(error).__mro__[1].__name__, error.original_type]


@durable_execution
def many(event: Any, context: DurableContext) -> Any:
    def item(c: DurableContext, x: int, i: int, every: Any) -> Any:
        return c.step(pay, name=f"charge {x}", config=NEVER_AGAIN)

    return context.map([1, 2], item, config=MapConfig(max_concurrency=1)).get_results()


@durable_execution
async def later(event: Any, context: Any) -> Any:
    return await context.step(pay, name="charge", config=NEVER_AGAIN)


def lose(place: Path) -> None:
    for path in place.glob("journal.db*"):
        path.unlink()


def put_back(place: Path, copy: Path) -> None:
    """An old copy of the journal; its owner of then has ended."""
    lose(place)
    for path in copy.glob("journal.db*"):
        shutil.copy(path, place / path.name)
    with contextlib.closing(sqlite3.connect(place / "journal.db")) as db:
        db.execute("UPDATE leases SET owner = NULL")
        db.commit()


def attempts(place: Path) -> list[int]:
    """Of all markers."""
    return sorted(json.loads(path.read_text())["attempt"] for path in (place / "started").glob("*.json"))


def run(place: Path, handler: Any = order, event: Any = 30) -> Any:
    with opened(place) as store:
        return handler.run(event, name="order-42", store=store)


# --- a journal that was lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [order, many, later], ids=["handler", "map", "coroutine"])
def test_a_payment_is_not_made_again_when_the_journal_is_gone(place: Path, handler: Any) -> None:
    run(place, handler)
    begun = list(BEGUN)
    lose(place)
    for _ in range(2):  # refusing is no end: it is asked again each time
        with pytest.raises(
            StepInterruptedError, match="durable-nb resolve order-42 'charge|durable-nb resolve order-42 charge"
        ):
            run(place, handler)
        assert begun == BEGUN
    keep("at-most-once steps of handlers", cases=2)


def test_a_payment_that_was_under_way_when_all_was_lost_is_not_made_again(place: Path) -> None:
    DURING.append(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(place)
    lose(place)
    DURING.clear()
    with pytest.raises(StepInterruptedError, match="the journal does not know of it"):
        run(place)
    assert BEGUN == ["pay 1"]


def test_a_journal_that_is_put_back_from_an_old_copy_does_not_pay_again(place: Path, tmp_path: Path) -> None:
    @durable_execution(name="order")
    def copied(event: Any, context: DurableContext) -> Any:
        context.step(lambda _: None, name="before")
        context.step(lambda _: shutil.copytree(place, tmp_path / "copy", dirs_exist_ok=True) and None, name="copy")
        return context.step(pay, name="charge", config=NEVER_AGAIN)

    assert run(place, copied) == "paid"
    put_back(place, tmp_path / "copy")
    with pytest.raises(StepInterruptedError):
        run(place, copied)
    assert BEGUN == ["pay 1"]


def test_an_end_that_was_damaged_is_no_reason_to_pay_again(place: Path) -> None:
    run(place)
    with contextlib.closing(sqlite3.connect(place / "journal.db")) as db:
        db.execute("UPDATE executions SET status = 'STARTED'")
        db.execute("DELETE FROM events WHERE type = 'EXECUTION' AND kind = 'SUCCEEDED'")
        db.execute("DELETE FROM events WHERE name = 'charge'")
        db.commit()
    with pytest.raises(StepInterruptedError):
        run(place)
    assert BEGUN == ["pay 1"]


def test_a_database_that_is_deleted_under_a_running_payment_pays_once(place: Path) -> None:
    """Two processes, as it were: one goes on in the file that has no name any more, the other begins a new one."""
    at_it, go_on = threading.Event(), threading.Event()
    DURING.extend([at_it.set, lambda: go_on.wait(30) and None])
    results: list[Any] = []
    first = threading.Thread(target=lambda: results.append(run(place)))
    first.start()
    assert at_it.wait(30)
    lose(place)
    try:
        with pytest.raises(StepInterruptedError):
            run(place)
    finally:
        go_on.set()
        first.join()
    assert results == [[30, "paid"]]
    assert BEGUN == ["pay 1"]


def test_each_attempt_that_the_strategy_allows_has_a_marker_of_its_own(place: Path, tmp_path: Path) -> None:
    def fail_at_first() -> None:
        if BEGUN == ["pay 1"]:
            raise ConnectionError("not now")
        shutil.copytree(place, tmp_path / "copy")

    DURING.append(fail_at_first)

    @durable_execution(name="retried")
    def retried(event: Any, context: DurableContext) -> Any:
        return context.step(pay, name="charge", config=AGAIN)

    assert run(place, retried) == "paid"
    assert attempts(place) == [1, 2]
    # Back to the moment between the two attempts: the journal says that a second one may begin, its marker that it has.
    put_back(place, tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(place / "journal.db")) as db:
        db.execute("DELETE FROM events WHERE kind = 'STARTED' AND attempt = 2")
        db.commit()
    with pytest.raises(StepInterruptedError):
        run(place, retried)
    assert BEGUN == ["pay 1", "pay 2"]


# --- the cure -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "result", "begun"),
    [
        (["--again"], [30, "paid"], ["pay 1", "pay 2"]),
        (["--failed"], [30, "StepError", "durable_nb.exceptions.StepInterruptedError"], ["pay 1"]),
        (["--succeeded", "--result", '{"receipt": 7}'], [30, {"receipt": 7}], ["pay 1"]),
    ],
    ids=["again", "failed", "succeeded"],
)
def test_a_person_decides_and_the_handler_goes_on(
    place: Path, decision: list[str], result: Any, begun: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(place)
    lose(place)
    resolve = ["resolve", "order-42", "charge", "--store", str(place)]
    with pytest.raises(StepInterruptedError):
        run(place)
    assert main([*resolve, *decision]) == 0, capsys.readouterr().err
    found = run(place)
    assert found[:2] == result[:2]
    assert begun == BEGUN
    assert main([*resolve, "--again"]) == 2, "what is decided is decided"
    assert "no at-most-once step 'charge' that waits" in capsys.readouterr().err


def test_a_decision_is_good_for_one_more_attempt(place: Path) -> None:
    run(place)
    lose(place)
    with pytest.raises(StepInterruptedError):
        run(place)
    main(["resolve", "order-42", "charge", "--again", "--store", str(place)])
    run(place)
    lose(place)
    with pytest.raises(StepInterruptedError):
        run(place)
    assert BEGUN == ["pay 1", "pay 2"]


@pytest.mark.parametrize(
    "wrong", [["--keep"], ["--succeeded"], ["--again", "--result", "1"], ["--succeeded", "--result", "{"]]
)
def test_a_decision_that_makes_no_sense_changes_nothing(
    place: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(place)
    lose(place)
    with pytest.raises(StepInterruptedError):
        run(place)
    assert main(["resolve", "order-42", "charge", *wrong, "--store", str(place)]) == 2
    assert capsys.readouterr().err.startswith("durable-nb: ")
    with pytest.raises(StepInterruptedError):
        run(place)


def test_a_worker_that_was_refused_goes_on_when_a_person_has_decided(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(place)
    lose(place)
    with opened(place) as store:
        handle = order.start(30, name="order-42", store=store)
        worker = Worker(driver_for(store))
        assert worker.run_until_idle() == 1, "it is tried once, and said"
        assert "it does not run until you decide" in caplog.text
        assert main(["resolve", "order-42", "charge", "--again", "--store", str(place)]) == 0
        worker.run_until_idle()
        assert handle.result(0) == [30, "paid"]
    assert BEGUN == ["pay 1", "pay 2"]


# --- crashes around the marker ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [False, True], ids=["before the marker", "after the marker"])
@pytest.mark.parametrize("config", [NEVER_AGAIN, AGAIN], ids=["no strategy", "a strategy"])
def test_a_crash_between_record_and_body_is_an_interrupted_attempt_as_ever(
    place: Path, monkeypatch: pytest.MonkeyPatch, claimed: bool, config: StepConfig
) -> None:
    claim = FileMarkers.claim

    def crash(self: FileMarkers, *given: Any) -> bool:
        if claimed:
            claim(self, *given)
        raise KeyboardInterrupt

    @durable_execution(name="crashing")
    def crashing(event: Any, context: DurableContext) -> Any:
        try:
            return context.step(pay, name="charge", config=config)
        except StepError:
            return "interrupted"

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FileMarkers, "claim", crash)
        run(place, crashing)
    assert BEGUN == []
    assert run(place, crashing) == ("interrupted" if config is NEVER_AGAIN else "paid")
    assert BEGUN == ([] if config is NEVER_AGAIN else ["pay 2"])
    assert 1 in attempts(place), "a late owner of attempt 1 finds it taken"


def test_an_owner_that_slept_before_its_marker_does_not_begin_what_counts_as_interrupted(tmp_path: Path) -> None:
    who = OperationIdentifier("a" * 64, "Step", None, "charge")
    sleeper, other = (Starts(FileMarkers(tmp_path / "started"), "order-42", "j") for _ in range(2))
    assert sleeper.forgotten(who, 1) is None
    other.interrupted(who, 1)
    with pytest.raises(StepInterruptedError):
        sleeper.claim(who, 1)
    other.interrupted(who, 1)  # asked again: still this journal's own affair
    with pytest.raises(StepInterruptedError):
        Starts(FileMarkers(tmp_path / "started"), "order-42", "another journal").interrupted(who, 1)


def test_a_marker_that_cannot_be_written_lets_nothing_begin(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> bool:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="cannot be marked"):
        patch.setattr(FileMarkers, "claim", full)
        run(place)
    assert BEGUN == []


def test_a_torn_marker_still_refuses_and_still_can_be_resolved(place: Path) -> None:
    run(place)
    lose(place)
    (marker,) = (place / "started").glob("*.json")
    marker.chmod(0o600)
    marker.write_text("{")
    with pytest.raises(StepInterruptedError):
        run(place)
    assert main(["resolve", "order-42", "charge", "--again", "--store", str(place)]) == 0
    assert run(place) == [30, "paid"]
    assert BEGUN == ["pay 1", "pay 2"]


# --- what it costs ------------------------------------------------------------------------------------------------------


def test_only_at_most_once_steps_pay_for_a_marker(place: Path) -> None:
    def points(handler: Any, name: str) -> list[str]:
        faults = StoreFaults()
        faults.install()
        try:
            with opened(place) as store:
                store.markers.claim("warm", name, {})
                before = len(faults.names)
                handler.run(1, name=name, store=store)
        finally:
            faults.remove()
        return [point for point in faults.names[before:] if point.startswith("marker") or point == "journal COMMIT"]

    @durable_execution(name="plain")
    def plain(event: Any, context: DurableContext) -> Any:
        return context.step(pay, name="charge")

    @durable_execution(name="once")
    def once(event: Any, context: DurableContext) -> Any:
        return context.step(pay, name="charge", config=NEVER_AGAIN)

    commits, costly = points(plain, "a"), points(once, "b")
    assert set(commits) == {"journal COMMIT"}
    assert len(costly) - costly.count("marker mkdir") == len(commits) + 1 + 4
    assert costly.count("marker fsync") == 2, "the file and its name"


def test_a_journal_without_a_folder_has_no_markers() -> None:
    journal = MemoryJournal()
    assert order.run(30, name="order-42", store=journal) == [30, "paid"]


# --- in cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_a_step_inside_a_cell_is_not_begun_again_by_a_kernel_whose_journal_was_lost(
    bench: Bench, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    cell = (
        "from durable_nb import context, StepConfig, StepSemantics\n"
        "def charge(step):\n"
        f"    with open({str(ledger)!r}, 'a') as file:\n"
        "        file.write('x')\n"
        "    return 'paid'\n"
        "receipt = context.step(charge, name='charge', config=StepConfig(None, StepSemantics.AT_MOST_ONCE_PER_RETRY))"
    )
    first = run_all(bench, [cell], probes=["receipt"])
    assert first.probes == {"receipt": "'paid'"}
    (database,) = bench.root.rglob("journal.db")
    lose(database.parent)
    again = run_all(bench, [cell])
    assert again.cells[0].ename == "StepInterruptedError"
    assert ledger.read_text() == "x"
    decided = run_all(bench, ["%durable resolve charge --again", cell], probes=["receipt"])
    assert decided.probes == {"receipt": "'paid'"}
    assert ledger.read_text() == "xx"


# --- an interrupted step that nobody catches ----------------------------------------------------------------------------


def interrupted(place: Path, handler: Any) -> Any:
    """Killed in the body of the payment, then run again."""
    DURING.append(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(place, handler)
    DURING.clear()
    with opened(place) as store:
        handle = handler.start(30, name="order-42", store=store)
        status = handle.step()
        names = [f"{stored.event.name} {stored.event.kind.value}" for stored in store.journal.read(handle.execution_id)]
        return status, names


def test_an_interrupted_step_that_nobody_catches_ends_the_execution_at_once(place: Path) -> None:
    """It is a failed step like any other, and no reason to make the invocation five times more."""

    @durable_execution(name="bare")
    def bare(event: Any, context: DurableContext) -> Any:
        return context.step(pay, name="charge", config=NEVER_AGAIN)

    status, _ = interrupted(place, bare)
    assert status is Status.FAILED
    with opened(place) as store, pytest.raises(StepInterruptedError) as caught:
        bare.run(30, name="order-42", store=store)
    assert isinstance(caught.value, ExecutionFailedError)


def test_an_interrupted_step_is_the_failure_of_the_context_and_the_branch_around_it(place: Path) -> None:
    @durable_execution(name="around")
    def around(event: Any, context: DurableContext) -> Any:
        def inner(c: DurableContext) -> Any:
            return c.step(pay, name="charge", config=NEVER_AGAIN)

        try:
            context.run_in_child_context(inner, name="child")
        except ChildContextError:
            return [item.status.value for item in context.parallel([inner]).all]

    status, names = interrupted(place, around)
    assert status is Status.SUCCEEDED
    assert "child FAILED" in names


def test_an_interrupted_step_lets_a_saga_undo_what_was_done(place: Path) -> None:
    undone: list[int] = []

    @durable_execution(name="saga")
    def booking(event: Any, context: DurableContext) -> Any:
        with Saga(context) as saga:
            saga.step(lambda _: "seat", name="seat", undo=lambda _: lambda _: undone.append(1))
            context.step(pay, name="charge", config=NEVER_AGAIN)

    status, _ = interrupted(place, booking)
    assert status is Status.FAILED
    assert undone == [1]
