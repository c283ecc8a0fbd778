"""Executions: names, inputs, results, cancelling, workers, other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from durable_nb import runtime
from durable_nb.events import EventKind, Status
from durable_nb.exceptions import LeaseHeldError
from durable_nb.journal import MemoryJournal, SqliteJournal
from durable_nb.sdk import DurableContext, durable_execution
from durable_nb.sdk._callbacks import CallbackSender
from durable_nb.sdk._driver import Driver
from durable_nb.sdk.exceptions import (
    ExecutionConflictError,
    ExecutionError,
    ExecutionFailedError,
    InvalidStateError,
    InvocationError,
    NonDeterministicExecutionError,
    ValidationError,
)
from durable_nb.testing import ReplayDifference, VirtualClock, check_replay


@durable_execution
def adder(event: Any, context: DurableContext) -> int:
    return context.step(lambda _: event["a"] + 1, name="add")


def test_the_same_name_returns_the_recorded_result(driver: Driver) -> None:
    runs: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        runs.append(1)
        return context.step(lambda _: 42)

    assert handler.start_on(driver, {"a": 1}, name="order-42").result() == 42
    assert handler.start_on(driver, {"a": 1}, name="order-42").result() == 42
    assert runs == [1]


def test_the_same_name_with_another_input_is_refused(driver: Driver) -> None:
    adder.start_on(driver, {"a": 1}, name="one").result()
    with pytest.raises(ExecutionConflictError, match="another input"):
        adder.start_on(driver, {"a": 2}, name="one")


def test_equal_inputs_are_equal_whatever_the_order_of_their_keys(driver: Driver) -> None:
    adder.start_on(driver, {"a": 1, "b": 2}, name="one").result()
    assert adder.start_on(driver, {"b": 2, "a": 1}, name="one").result() == 2


def test_the_same_name_with_another_handler_is_refused(driver: Driver) -> None:
    @durable_execution
    def other(event: Any, context: DurableContext) -> None:
        return None

    adder.start_on(driver, {"a": 1}, name="one").result()
    with pytest.raises(ExecutionConflictError, match="another handler"):
        other.start_on(driver, {"a": 1}, name="one")


def test_an_input_that_is_no_json_is_refused(driver: Driver) -> None:
    with pytest.raises(ValidationError, match="JSON"):
        adder.start_on(driver, {1, 2})


def test_no_input_is_an_empty_object(driver: Driver) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return event

    assert handler.start_on(driver).result() == {}


def test_run_uses_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    assert adder.run({"a": 2}, name="here") == 3
    journal = runtime.default_store().journal
    record = journal.find("here")
    assert record is not None
    assert record.status is Status.SUCCEEDED
    assert adder({"a": 5}) == 6


def test_a_store_can_be_given_as_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    assert adder.run({"a": 1}, name="x", store=tmp_path / "s") == 2
    assert (tmp_path / "s" / "journal.db").exists()


def test_a_time_out_leaves_the_execution_resumable(journal: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.create_callback("later").result()

    driver = Driver(journal)
    handle = handler.start_on(driver, name="slow")
    with pytest.raises(TimeoutError, match="resumed"):
        handle.result(timeout=0.05)
    record = journal.find("slow")
    callback = next(one.event for one in journal.read(record.execution_id) if one.event.name == "later")
    CallbackSender(journal, driver.clock).success(callback.details["callback_id"], "done")
    assert handle.result(timeout=10) == "done"


def test_the_code_must_ask_for_what_the_history_has(driver: Driver) -> None:
    kind = ["wait"]

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        if kind[0] == "wait":
            kind[0] = "step"
            context.wait(5, name="pause")
        else:
            context.step(lambda _: 1, name="work")

    with pytest.raises(NonDeterministicExecutionError) as caught:
        handler.start_on(driver, name="changed").result()
    text = str(caught.value)
    assert "'work' (Step)" in text
    assert "'pause' (Wait)" in text
    assert isinstance(caught.value, ExecutionFailedError)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (lambda c: c.step(lambda _: 1, name="a"), lambda c: c.step(lambda _: 1, name="b"), "name"),
        (
            lambda c: c.step(lambda _: 1),
            lambda c: c.step(lambda _: 1, config=__import__("durable_nb").StepConfig(sub_type="Other")),
            "sub-type",
        ),
        (lambda c: c.create_callback(), lambda c: c.wait(5), "type"),
    ],
    ids=["name", "sub-type", "type"],
)
def test_each_part_of_an_identity_is_compared(driver: Driver, first: Any, second: Any, what: str) -> None:
    calls: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        calls.append(1)
        (first if len(calls) == 1 else second)(context)
        context.wait(1)

    with pytest.raises(NonDeterministicExecutionError, match=f"{what}: recorded"):
        handler.start_on(driver).result()


def test_a_replay_check_names_what_is_asked_for_besides() -> None:
    calls: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: 1, name="first")
        calls.append(1)
        if len(calls) > 1:
            context.step(lambda _: 2, name="second")

    with pytest.raises(ReplayDifference, match="asks for 'second'"):
        check_replay(handler)


def test_a_replay_check_names_what_is_left_out() -> None:
    calls: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        calls.append(1)
        context.step(lambda _: 1, name="first")
        if len(calls) == 1:
            context.step(lambda _: 2, name="second")

    with pytest.raises(ReplayDifference, match="asked for 'second'"):
        check_replay(handler)


def test_a_replay_check_sees_another_result() -> None:
    calls: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        calls.append(1)
        return len(calls)

    with pytest.raises(ReplayDifference, match="returned 1, the replay 2"):
        check_replay(handler)


def test_an_invocation_error_invokes_the_handler_again(journal: Any) -> None:
    calls: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        calls.append(1)
        value = context.step(lambda _: 3)
        if len(calls) < 3:
            raise InvocationError("the network is gone")
        return value

    assert handler.start_on(Driver(journal, VirtualClock())).result() == 3
    assert len(calls) == 3


def test_an_invocation_error_that_stays_fails_the_execution(journal: Any) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        raise InvocationError("the network is gone")

    with pytest.raises(InvocationError, match="network"):
        handler.start_on(Driver(journal, VirtualClock())).result()


def test_an_execution_error_is_not_retried_by_any_strategy(run: Any) -> None:
    attempts: list[int] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        from durable_nb import RetryPresets, StepConfig

        def fatal(step: Any) -> None:
            attempts.append(step.attempt)
            raise ExecutionError("stop")

        context.step(fatal, config=StepConfig(RetryPresets.default()))

    assert run(handler).status is Status.FAILED
    assert attempts == [1]


def test_a_suspension_is_not_seen_by_except_exception_and_runs_finally(run: Any) -> None:
    seen: list[str] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> str:
        try:
            context.wait(5)
        except Exception:
            seen.append("except")
        finally:
            seen.append("finally")
        return "done"

    assert run(handler).result == "done"
    assert seen == ["finally", "finally"]


# --- cancelling --------------------------------------------------------------------------------------------------------


def test_a_cancelled_execution_is_over_and_is_not_resumed(driver: Driver) -> None:
    handle = adder.start_on(driver, {"a": 1}, name="one")
    handle.cancel("not needed")
    assert handle.status is Status.STOPPED
    with pytest.raises(ExecutionFailedError, match="not needed"):
        handle.result()
    with pytest.raises(InvalidStateError, match="has ended"):
        handle.cancel()


def test_a_running_handler_stops_at_its_next_operation(journal: Any) -> None:
    reached, go_on, after = threading.Event(), threading.Event(), []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        def body(_: Any) -> None:
            reached.set()
            go_on.wait(30)

        context.step(body)
        after.append(1)
        context.step(lambda _: after.append(2))

    handle = handler.start_on(Driver(journal), name="long")
    thread = threading.Thread(target=lambda: pytest.raises(ExecutionFailedError, handle.result))
    thread.start()
    reached.wait(30)
    handle.cancel()
    while not any(one.event.kind is EventKind.STOPPED for one in journal.read(handle.execution_id)):
        time.sleep(0.01)
    time.sleep(1.5)  # the keeper looks every second
    go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    assert after == []
    assert handle.status is Status.STOPPED


# --- invoke ------------------------------------------------------------------------------------------------------------


def test_an_invoked_handler_is_an_execution_of_its_own(journal: Any) -> None:
    @durable_execution(name="inner-handler")
    def inner(event: Any, context: DurableContext) -> int:
        context.wait(30)
        return context.step(lambda _: event["n"] * 2)

    @durable_execution
    def outer(event: Any, context: DurableContext) -> Any:
        return context.parallel(
            [
                lambda c: c.invoke("inner-handler", {"n": 1}, name="a"),
                lambda c: c.invoke("inner-handler", {"n": 2}, name="b"),
            ]
        ).get_results()

    driver = Driver(journal, VirtualClock())
    assert outer.start_on(driver, name="parent").result() == [2, 4]
    names = sorted(record.name.rpartition("-")[0] for record in journal.executions() if record.name != "parent")
    assert names == ["parent/a", "parent/b"]


def test_an_invoked_function_s_own_error_comes_back(journal: Any) -> None:
    @durable_execution(name="inner-that-fails")
    def inner(event: Any, context: DurableContext) -> None:
        raise LookupError("nothing here")

    @durable_execution
    def outer(event: Any, context: DurableContext) -> Any:
        try:
            context.invoke("inner-that-fails", None)
        except LookupError as error:
            return [type(error).__name__, str(error), error.error_type]

    assert outer.start_on(Driver(journal, VirtualClock())).result() == ["InvokeError", "nothing here", "LookupError"]


# --- workers -----------------------------------------------------------------------------------------------------------


def test_a_worker_drives_what_was_only_recorded(journal: Any) -> None:
    clock = VirtualClock()
    driver = Driver(journal, clock)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        context.wait(60)
        return context.step(lambda _: 9)

    handle = handler.start_on(driver, name="later")
    worker = runtime.Worker(driver)
    assert worker.run_until_idle() == 1
    assert handle.status is Status.STARTED
    clock.advance(61)
    assert worker.run_until_idle() == 1
    assert handle.status is Status.SUCCEEDED
    assert worker.run_until_idle() == 0


def test_a_callback_makes_an_execution_due(journal: Any) -> None:
    driver = Driver(journal)
    ids: list[str] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        callback = context.create_callback("answer")
        ids.append(callback.callback_id)
        return callback.result()

    handle = handler.start_on(driver, name="asks")
    worker = runtime.Worker(driver)
    worker.run_until_idle()
    assert worker.run_until_idle() == 0
    CallbackSender(journal, driver.clock).success(ids[0], "42")
    assert worker.run_until_idle() == 1
    assert handle.result() == "42"


def test_a_worker_drives_invoked_handlers_to_their_parents(journal: Any) -> None:
    @durable_execution(name="worker-inner")
    def inner(event: Any, context: DurableContext) -> int:
        return context.step(lambda _: event + 1)

    @durable_execution
    def outer(event: Any, context: DurableContext) -> int:
        return context.invoke("worker-inner", 1) + context.invoke("worker-inner", 2)

    driver = Driver(journal)
    handle = outer.start_on(driver, name="outer")
    runtime.Worker(driver).run_until_idle()
    assert handle.status is Status.SUCCEEDED
    assert handle.result() == 5


def test_a_worker_leaves_an_unknown_handler_alone(journal: Any, caplog: pytest.LogCaptureFixture) -> None:
    driver = Driver(journal)
    driver.create("foreign", "nobody:handler", "{}")
    worker = runtime.Worker(driver)
    worker.run_until_idle()
    assert "cannot be driven" in caplog.text
    assert worker.run_until_idle() == 0


# --- other processes ---------------------------------------------------------------------------------------------------

SCRIPT = """
    import os, sys, time
    from durable_nb import durable_execution, durable_step, StepConfig, StepSemantics, RetryPresets

    def note(text):
        with open("log", "a") as file:
            file.write(text + "\\n")
            file.flush()

    @durable_execution
    def handler(event, context):
        total = 0
        for i in range(event["n"]):
            def body(_, i=i):
                note(f"step {i}")
                return i
            total += context.step(body, name=f"s{i}")
            if i == event["die_at"] and os.environ.get("DIE"):
                os.kill(os.getpid(), 9)
        once = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
        context.step(lambda _: note("charged"), name="charge", config=once)
        return total

    if __name__ == "__main__":
        print(handler.run({"n": 20, "die_at": 11}, name="job"))
"""


def test_after_kill_9_the_same_name_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    environment = {
        **os.environ,
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "DURABLE_NB_STORE": str(tmp_path / "store"),
    }
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "job.py"]
    killed = subprocess.run(command, cwd=tmp_path, env={**environment, "DIE": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert resumed.stdout.strip() == str(sum(range(20))), resumed.stderr
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert lines == [f"step {i}" for i in range(20)] + ["charged"]


def test_a_worker_in_another_process_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    environment = {
        **os.environ,
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "DURABLE_NB_STORE": str(tmp_path / "store"),
    }
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    invoke = [sys.executable, "-m", "durable_nb.cli", "invoke", "job:handler"]
    invoke += ["--name", "job", "--input", '{"n": 20, "die_at": 11}']
    killed = subprocess.run(invoke, cwd=tmp_path, env={**environment, "DIE": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    work = [sys.executable, "-m", "durable_nb.cli", "worker", "job", "--once"]
    done = subprocess.run(work, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    journal = SqliteJournal(tmp_path / "store" / "journal.db")
    record = journal.find("job")
    journal.close()
    assert record is not None
    assert record.status is Status.SUCCEEDED
    assert (tmp_path / "log").read_text(encoding="utf-8").count("step") == 20


def test_memory_journals_do_not_share_executions() -> None:
    one, two = Driver(MemoryJournal()), Driver(MemoryJournal())
    assert adder.start_on(one, {"a": 1}, name="x").result() == 2
    assert adder.start_on(two, {"a": 5}, name="x").result() == 6


def test_an_invoked_handler_whose_driver_died_elsewhere_is_run_again(
    journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @durable_execution(name="inner-held-elsewhere")
    def inner(event: Any, context: DurableContext) -> int:
        return context.step(lambda _: 5)

    @durable_execution
    def outer(event: Any, context: DurableContext) -> int:
        return context.invoke("inner-held-elsewhere", {})

    drive, refused = Driver.drive, []

    def once_held(self: Driver, record: Any, handler: Any, **options: Any) -> Any:
        if handler is inner and not refused:
            refused.append(record.name)
            raise LeaseHeldError(record.execution_id, "a process that dies now")
        return drive(self, record, handler, **options)

    monkeypatch.setattr(Driver, "drive", once_held)
    assert outer.start_on(Driver(journal), name="parent").result(timeout=60) == 5
    assert len(refused) == 1
