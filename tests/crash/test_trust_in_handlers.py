"""Executions whose rows somebody changed: nothing is imported, and no result comes under another name or input."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_nb.cli import main
from durable_nb.events import Status
from durable_nb.exceptions import (
    DurableExecutionsError,
    ExecutionConflictError,
    UntrustedCheckpointError,
    ValidationError,
)
from durable_nb.runtime import Store, Worker, driver_for, open_store
from durable_nb.sdk import DurableContext, durable_execution

EVIL = "evil_module_of_a_stranger"


@durable_execution
def charge(event: Any, context: DurableContext) -> Any:
    return context.step(lambda _: f"paid {event}", name="charge")


@durable_execution(name="refund-by-name")
def refund(event: Any, context: DurableContext) -> Any:
    return context.step(lambda _: f"refunded {event}", name="refund")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Comes to be when the stranger's module is imported."""
    proof = tmp_path / "imported"
    (tmp_path / f"{EVIL}.py").write_text(f"open({str(proof)!r}, 'w').close()\ndef handler(event, context): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield proof
    sys.modules.pop(EVIL, None)


def change(store: Store, statement: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(store.place / "journal.db")) as db:
        assert db.execute(statement, values).rowcount > 0
        db.commit()


def details_of(store: Store, name: str, **changed: Any) -> None:
    record = store.journal.find(name)
    assert record is not None
    change(
        store,
        "UPDATE executions SET details = ? WHERE name = ?",
        json.dumps({**record.details, **changed}),
        name,
    )


@pytest.mark.parametrize("who", ["worker", "command"])
def test_a_module_that_a_strangers_row_names_is_not_imported(
    store: Store, imported: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLE_NB_KEY", "a stranger's")
    foreign = open_store(store.place)
    driver_for(foreign).create("theirs", f"{EVIL}:handler", "{}")
    foreign.close()
    monkeypatch.delenv("DURABLE_NB_KEY")
    if who == "worker":
        Worker(driver_for(store)).run_until_idle()
    else:
        assert main(["worker", "--once", "--store", str(store.place)]) == 0
    assert not imported.exists()
    assert EVIL not in sys.modules


def test_a_module_that_was_written_into_the_row_of_a_signed_execution_is_not_imported(
    store: Store, imported: Path
) -> None:
    handle = charge.start(30, name="order-42", store=store)
    details_of(store, "order-42", handler=f"{EVIL}:handler")
    Worker(driver_for(store)).run_until_idle()
    assert not imported.exists()
    assert handle.status is Status.SUCCEEDED, "the signed beginning says which handler it is"
    with pytest.raises(ExecutionConflictError):
        charge.run(30, name="order-42", store=store)


def test_a_row_that_begins_nothing_names_no_module(store: Store, imported: Path) -> None:
    """A stranger can always add a row; without a signed beginning only a handler that is known already may answer."""
    store.journal.create("theirs", kind="handler", at=1.0, details={"handler": f"{EVIL}:handler"})
    change(store, "UPDATE executions SET due = 1.0 WHERE name = 'theirs'")
    record = store.journal.find("theirs")
    assert record is not None
    with pytest.raises(ValidationError, match="not registered"):
        driver_for(store).handler_of(record)
    Worker(driver_for(store)).run_until_idle()
    assert not imported.exists()


def test_a_module_that_the_user_signed_is_imported_as_ever(store: Store, tmp_path: Path, imported: Path) -> None:
    driver_for(store).create("mine", f"{EVIL}:handler", "{}")
    Worker(driver_for(store)).run_until_idle()
    assert imported.exists()


def test_results_do_not_change_hands_when_names_are_swapped(store: Store) -> None:
    charge.run(1, name="a", store=store)
    charge.run(2, name="b", store=store)
    details = {name: dict(store.journal.find(name).details) for name in "ab"}  # type: ignore[union-attr]
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        change(store, "UPDATE executions SET name = ? WHERE name = ?", new, old)
    details_of(store, "a", **details["a"])
    details_of(store, "b", **details["b"])
    for event, name in ((1, "a"), (2, "b")):
        with pytest.raises(UntrustedCheckpointError):
            charge.run(event, name=name, store=store)


def test_another_input_does_not_get_the_result_of_the_first_one(store: Store) -> None:
    charge.run(30, name="order-42", store=store)
    charge.run(500, name="other", store=store)
    other = store.journal.find("other")
    assert other is not None
    details_of(store, "order-42", input_digest=other.details["input_digest"])
    with pytest.raises(ExecutionConflictError, match="another input"):
        charge.run(500, name="order-42", store=store)


def test_another_handler_does_not_get_the_result_of_the_first_one(store: Store) -> None:
    charge.run(30, name="order-42", store=store)
    details_of(store, "order-42", handler="refund-by-name")
    with pytest.raises(ExecutionConflictError, match="another handler"):
        refund.run(30, name="order-42", store=store)


def test_a_result_is_not_led_into_another_executions_callback(store: Store) -> None:
    @durable_execution(name="waits")
    def waits(event: Any, context: DurableContext) -> Any:
        return context.create_callback(name="approval").result()

    waiting = waits.start(1, name="waits", store=store)
    waiting.step()
    (callback,) = {
        stored.event.operation_id
        for stored in store.journal.read(waiting.execution_id)
        if stored.event.name == "approval"
    }
    handle = charge.start(30, name="order-42", store=store)
    details_of(store, "order-42", parent={"execution": waiting.execution_id, "operation": callback})
    assert handle.result() == "paid 30"
    assert waiting.status is Status.STARTED
    assert waiting.step() is Status.STARTED


def test_a_finished_execution_without_its_beginning_gives_nothing_back(store: Store) -> None:
    charge.run(30, name="order-42", store=store)
    change(store, "DELETE FROM events WHERE type = 'EXECUTION' AND kind = 'STARTED'")
    with pytest.raises(DurableExecutionsError):
        charge.run(30, name="order-42", store=store)


def test_an_invoke_of_an_older_store_still_gets_its_result(store: Store) -> None:
    """Beginnings that were written before they named handler and parent: who invokes knows what for."""

    @durable_execution(name="child-of-then")
    def child(event: Any, context: DurableContext) -> Any:
        context.wait(1)
        return event + 1

    @durable_execution(name="parent-of-then")
    def parent(event: Any, context: DurableContext) -> Any:
        return context.invoke("child-of-then", event)

    handle = parent.start(1, name="then", store=store)
    handle.step()
    with contextlib.closing(sqlite3.connect(store.place / "journal.db")) as db:
        rows = db.execute("SELECT execution_id, sequence FROM events WHERE type = 'EXECUTION'").fetchall()
        assert len(rows) == 2
        db.execute("UPDATE events SET details = NULL WHERE type = 'EXECUTION'")
        db.commit()
    for execution, sequence in rows:
        store.journal.resign(execution, [sequence])  # type: ignore[attr-defined]
    assert handle.result(30) == 2
