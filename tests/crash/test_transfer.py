"""Push and pull: what is copied is whole, trusted, written once and readable by the right people, wherever a copy is cut
off and whoever else is at the target."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from durable_nb import codecs
from durable_nb.cli import main
from durable_nb.events import CELL, Event, EventKind, OperationType
from durable_nb.exceptions import StepInterruptedError, StoreUnreadableError, ValidationError
from durable_nb.maintenance import check, collect
from durable_nb.notebook._once import OnceSteps
from durable_nb.notebook._records import CellJournal
from durable_nb.runtime import Store, open_store
from durable_nb.sdk import DurableContext, durable_execution
from durable_nb.sdk._driver import Driver
from durable_nb.sdk._once import resolve
from durable_nb.sdk.cell import CellContext
from durable_nb.settings import Settings
from durable_nb.snapshot import decode, encode
from durable_nb.testing.faults_store import Fault, StoreFaults, faults_at
from durable_nb.transfer import _copy, transfer
from durable_nb.transfer._merge import identity_of
from tests.crash.evidence import keep
from tests.crash.handler_story import ONCE
from tests.crash.test_encryption import keep_secrets_in
from tests.servers.postgres import Cluster

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
NAME = "n.ipynb"
KEY = Settings(encryption_key="correct horse battery staple")
PLAIN = Settings()

pytestmark = pytest.mark.timeout(3600 if SOAK else 600)


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    for name in ("DURABLE_NB_STORE", "DURABLE_NB_EXECUTION", "DURABLE_NB_KEY", "DURABLE_NB_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    keep_secrets_in(monkeypatch, {})
    monkeypatch.setattr(codecs, "_COST", 1 << 4)  # what is slow on purpose need not be slow here


@contextmanager
def opened(*places: Path | str, settings: Settings = PLAIN) -> Iterator[Any]:
    stores = [open_store(place, settings=settings) for place in places]
    try:
        yield stores if len(stores) > 1 else stores[0]
    finally:
        for store in stores:
            store.close()


# --- a history with all kinds of things in it ---------------------------------------------------------------------------


def cell(operation: str, kind: EventKind = EventKind.SUCCEEDED, *, at: float, **fields: Any) -> Event:
    return Event(operation_id=operation, kind=kind, type=OperationType.CONTEXT, sub_type=CELL, at=at, **fields)


def big(text: str) -> bytes:
    return (text * 20_000).encode()


def fill(store: Store, *, at: float = 100.0, once_only: bool = True) -> None:
    """Ordinary cells with blobs, a manifest that is a blob, durable steps, an at-most-once cell, a finished handler."""
    record = store.journal.create(NAME, kind="notebook", at=at, details={"cells": ["aa", "bb"]})
    own = record.execution_id
    for number in range(3):
        address = store.blobs.put(big(f"value {number} of {at}"))
        manifest = encode({"names": {"x": {"blob": address}}, "raw": b"\0\1"})
        details: dict[str, Any] = {"label": f"c{number}", "ordinal": 0, "files": {"blobs": {"out.txt": address}}}
        refs, payload = [address], manifest
        if number == 2:
            details["payload_blob"] = store.blobs.put(manifest)
            refs, payload = [address, details["payload_blob"]], None
        store.journal.append(own, [cell(f"c{number}", EventKind.STARTED, at=at + number)], durable=False)
        event = cell(f"c{number}", at=at + number + 0.5, payload=payload, details=details)
        store.journal.append(own, [event], payload_refs=refs)
    with context_of(store) as context:
        context.step(lambda _: big("step 1"), name="one")
        context.step(lambda _: 2, name="two", config=ONCE)
    if not once_only:
        return
    steps, cells = once(store)
    steps.start("pay", rounds=0, attempt=1, label="pay", lease=None, details={"at_most_once": True})
    done = cell(steps.operation("pay"), at=time.time(), name="pay", details={"at_most_once": True})
    cells.write([done], lease=None)
    Driver(store.journal, markers=store.markers).drive(
        Driver(store.journal).create("order-1", greet.name, '{"amount": 1}'), greet
    )


@contextmanager
def context_of(store: Store, parent: str = "run of c1") -> Iterator[CellContext]:
    record = store.journal.find(NAME)
    assert record is not None
    context = CellContext.for_cell(
        store.journal, record.execution_id, None, parent, blobs=store.blobs, markers=store.markers
    )
    try:
        yield context
    finally:
        context.close()


@durable_execution
def greet(event: Any, context: DurableContext) -> Any:
    return context.step(lambda _: ["greeted", event])


def once(store: Store) -> tuple[OnceSteps, CellJournal]:
    record = store.journal.find(NAME)
    assert record is not None
    cells = CellJournal(store.journal, store.blobs, record.execution_id, None)
    return OnceSteps(cells, store.markers, NAME), cells


def require_whole(store: Store, *, at: float = 100.0) -> None:
    """Everything that `fill` made can be given back."""
    found = check(store)
    assert found.good, found.findings
    record = store.journal.find(NAME)
    assert record is not None
    ends = {
        s.event.operation_id: s.event
        for s in store.journal.read(record.execution_id)
        if s.event.kind is EventKind.SUCCEEDED and at <= s.event.at < at + 50
    }
    for number in range(3):
        details = ends[f"c{number}"].details
        payload = ends[f"c{number}"].payload
        if payload is None:
            payload = store.blobs.get(details["payload_blob"])
        manifest = decode(payload)
        assert manifest["raw"] == b"\0\1"
        for address in (manifest["names"]["x"]["blob"], details["files"]["blobs"]["out.txt"]):
            assert store.blobs.get(address) == big(f"value {number} of {at}")
            assert address in store.journal.blob_refs()
    assert once(store)[0].judge("pay", lambda record: None).answer == "replay"
    assert store.markers.read(NAME, "pay") is not None
    with context_of(store) as context:
        assert context.step(never, name="one") == big("step 1")
        assert context.step(never, name="two", config=ONCE) == 2
    driver = Driver(store.journal, markers=store.markers)
    done = driver.drive(driver.create("order-1", greet.name, '{"amount": 1}'), greet)
    assert greet.value_of(done) == ["greeted", {"amount": 1}]


def never(_: Any) -> Any:
    raise AssertionError("the body must not run")


def require_nothing_doubled(store: Store) -> None:
    for record in store.journal.executions():
        counts = Counter(identity_of(stored) for stored in store.journal.read(record.execution_id))
        assert max(counts.values()) == 1


# --- whole copies --------------------------------------------------------------------------------------------------------


def test_what_is_pushed_and_pulled_is_given_back_and_copied_once(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("a") as a:
        fill(a)
    assert main(["push", "hub", "--store", "a"]) == 0
    out = capsys.readouterr().out
    assert "n.ipynb: 11 records (4 cells)" in out
    assert "1 start of" not in out
    assert "2 starts of at-most-once steps" in out
    assert "signed with your own key" in out
    assert main(["pull", "hub", "--store", "b"]) == 0
    with opened("b", "hub") as (b, hub):
        require_whole(b)
        require_whole(hub)
        rows = [len(list(b.journal.read(record.execution_id))) for record in b.journal.executions()]
    capsys.readouterr()
    assert main(["pull", "hub", "--store", "b", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert [(e["name"], e["records"], e["blobs"], e["markers"]) for e in told["executions"]] == [
        (NAME, 0, 0, 0),
        ("order-1", 0, 0, 0),
    ]
    with opened("b") as b:
        assert rows == [len(list(b.journal.read(record.execution_id))) for record in b.journal.executions()]


def test_a_store_on_a_server_is_a_hub_as_any_folder(
    postgres: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DURABLE_NB_CACHE", str(tmp_path / "cache"))
    hub = postgres.new_store()
    with opened("a") as a:
        fill(a)
        with pytest.raises(ValidationError, match="no execution"), opened(hub) as target:
            transfer(a, target, ["other.ipynb"])
    assert main(["push", hub, "--store", "a"]) == 0
    assert "2 starts of at-most-once steps" in capsys.readouterr().out
    assert main(["push", hub, "--store", "a", "--json"]) == 0
    assert [each["records"] for each in json.loads(capsys.readouterr().out)["executions"]] == [0, 0]
    assert main(["pull", hub, "--store", "b"]) == 0
    with opened("a", "b", hub) as (a, b, server):
        require_whole(b)
        require_whole(server)
        require_nothing_doubled(server)
        for record in a.journal.executions():
            there = [store.journal.find(record.name).execution_id for store in (b, server)]
            mine = Counter(map(identity_of, a.journal.read(record.execution_id)))
            for store, execution in zip((b, server), there, strict=True):
                assert Counter(map(identity_of, store.journal.read(execution))) == mine
        for facts in a.markers.of(NAME):
            assert dict(server.markers.read(NAME, facts["name"])) == dict(facts)
            assert not server.markers.claim(NAME, facts["name"], {})


def test_what_is_encrypted_is_not_pushed_to_a_server_unless_it_is_said(
    postgres: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DURABLE_NB_CACHE", str(tmp_path / "cache"))
    hub = postgres.new_store()
    with opened("a", settings=KEY) as a:
        fill(a)
    monkeypatch.setenv("DURABLE_NB_ENCRYPTION_KEY", str(KEY.encryption_key))
    assert main(["push", hub, "--store", "a"]) != 0
    assert "is encrypted" in capsys.readouterr().err
    assert main(["push", hub, "--store", "a", "--in-the-open"]) == 0
    monkeypatch.delenv("DURABLE_NB_ENCRYPTION_KEY")
    with opened(hub) as server:
        require_whole(server)


def test_runs_of_both_sides_are_joined_and_nobody_loses_theirs() -> None:
    with opened("a", "b", "hub") as (a, b, hub):
        fill(a, at=100.0)
        fill(b, at=200.0, once_only=False)
        for source, target in ((a, hub), (b, hub), (hub, a), (hub, b)):
            transfer(source, target)
        for store in (a, b, hub):
            require_nothing_doubled(store)
            require_whole(store, at=100.0)
        done = sum(copied.records for s, t in ((a, hub), (hub, b), (b, a)) for copied in transfer(s, t).executions)
        assert done == 0


def test_a_notebook_brings_the_handlers_that_it_called_and_no_others() -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        driver = Driver(a.journal, markers=a.markers)
        driver.drive(driver.create(f"{NAME}/greet-1", greet.name, "{}"), greet)
        transfer(a, b, [NAME])
        assert {record.name for record in b.journal.executions()} == {NAME, f"{NAME}/greet-1"}
        with pytest.raises(ValidationError, match="no execution 'other'"):
            transfer(a, b, ["other"])


def test_another_notebook_of_the_same_name_is_refused_and_can_have_another_name() -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        b.journal.create(NAME, kind="notebook", at=1.0, details={"cells": ["xx", "yy"]})
        done = transfer(a, b, [NAME])
        assert [str(left) for left in done.executions[0].left] == [
            "n.ipynb is another notebook in the target: give the copy another name with --as NAME"
        ]
        assert not done.good
        assert b.markers.read(NAME, "pay") is None, "which is another step than that notebook's"
        assert transfer(a, b, [NAME], rename="theirs.ipynb").good
        copied = b.journal.find("theirs.ipynb")
        assert copied is not None
        assert copied.details["markers"] == NAME, "so that its at-most-once steps are found again"
    assert main(["pull", "b", "theirs.ipynb", "--as", "here/mine.ipynb"]) == 0
    with opened("here/.durable") as here:
        found = [(record.name, record.details["markers"]) for record in here.journal.executions()]
        assert found == [("mine.ipynb", NAME)], "where and as a kernel of that notebook looks for it"
    with pytest.raises(ValidationError, match="both the source and the target"), opened("a") as a:
        transfer(a, a)


def test_the_same_notebook_stays_the_same_while_its_cells_change() -> None:
    with opened("a", "b") as (a, b):
        for cells in (["1", "2"], ["2", "3"], ["3", "4"], ["4", "5"]):
            record = a.journal.create(NAME, kind="notebook", at=1.0, details={})
            a.journal.update(record.execution_id, details={"cells": cells})
            a.journal.append(record.execution_id, [cell(cells[1], at=float(cells[1]))])
            assert transfer(a, b).good


def test_blobs_that_the_target_has_lost_come_back_with_the_next_copy() -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        transfer(a, b)
    shutil.rmtree("b/blobs")
    with opened("a", "b") as (a, b):
        transfer(a, b)
        require_whole(b)


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("a", "b") as (a, _):
        fill(a)
    before = sorted(path.name for path in Path("b").rglob("*"))
    assert main(["push", "b", "--store", "a", "--dry-run"]) == 0
    assert "would copy 14 records (4 cells)" in capsys.readouterr().out
    assert [name for name in sorted(path.name for path in Path("b").rglob("*")) if "journal" not in name] == [
        name for name in before if "journal" not in name
    ]
    with opened("b") as b:
        assert not [record for record in b.journal.executions() if record.details]


def test_misuse_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("a") as a:
        fill(a)
    for line, told in (
        (["pull", "nowhere", "--store", "a"], "there is no store here"),
        (["push", "hub", "--store", "nowhere"], "there is no store here"),
        (["push", "ftp://hub", "--store", "a"], "of a kind that is not known"),
        (["push", "a", "--store", "a"], "is both the source and the target"),
        (["push", "hub", "other.ipynb", "--store", "a"], "there is no execution 'other.ipynb'"),
        (["push", "hub", "--as", "x", "--store", "a"], "only when one notebook is named"),
    ):
        assert main(line) == 2, line
        found = capsys.readouterr().err
        assert told in found
        assert found.count("\n") == 1, found


# --- trust and damage ----------------------------------------------------------------------------------------------------


def test_records_of_a_foreign_key_are_not_copied_and_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("theirs", settings=Settings(key="theirs")) as theirs:
        fill(theirs)
    assert main(["pull", "theirs", "--store", "mine"]) == 1
    told = capsys.readouterr().err
    assert "n.ipynb has 11 records that are not signed with a key that you trust (see durable-nb trust)" in told
    with opened("mine") as mine:
        assert [list(mine.journal.read(record.execution_id)) for record in mine.journal.executions()] == [[]]
        assert once(mine)[0].judge("pay", lambda record: None).answer == "interrupted", "it was begun, and asks"


def test_a_team_key_makes_one_trust_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NB_KEY", "team")
    monkeypatch.setenv("JUPYTER_DATA_DIR", "data of one")
    with opened("a", settings=Settings.from_environment()) as a:
        fill(a)
    assert main(["push", "hub", "--store", "a"]) == 0
    monkeypatch.setenv("JUPYTER_DATA_DIR", "data of another")
    assert main(["pull", "hub", "--store", "b"]) == 0
    with opened("b", settings=Settings.from_environment()) as b:
        require_whole(b)


def test_a_changed_row_is_not_copied_and_the_others_are() -> None:
    with opened("a") as a:
        fill(a)
    with sqlite3.connect("a/journal.db") as db:
        db.execute("UPDATE events SET payload = payload || 'x' WHERE operation_id = 'c0' AND kind = 'SUCCEEDED'")
    db.close()
    with opened("a", "b") as (a, b):
        done = transfer(a, b, [NAME])
        assert ["has 1 records that are not" in left.why for left in done.executions[0].left] == [True]
        assert not done.good
        operations = {stored.event.operation_id for stored in b.journal.find_cell("c0")}
        record = b.journal.find(NAME)
        assert record is not None
        ends = {
            s.event.operation_id for s in b.journal.read(record.execution_id) if s.event.kind is EventKind.SUCCEEDED
        }
        assert operations == {"c0"}, "its start was not changed"
        assert {"c1", "c2"} <= ends
        assert "c0" not in ends
        assert check(b).good


@pytest.mark.parametrize("number", [0, 2])
def test_a_flipped_bit_in_a_blob_is_found_and_nothing_is_copied_that_needs_it(number: int) -> None:
    with opened("a") as a:
        fill(a)
        address = a.blobs.put(big(f"value {number} of 100.0"))
    path = Path("a/blobs", address[:2], address)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with opened("a", "b") as (a, b):
        done = transfer(a, b, [NAME])
        assert [str(left) for left in done.executions[0].left] == [
            f"n.ipynb: c{number} names a blob that is damaged or missing"
        ]
        assert not done.good
        ends = {
            s.event.operation_id
            for k in range(3)
            for s in b.journal.find_cell(f"c{k}")
            if s.event.payload or s.event.details.get("payload_blob")
        }
        assert ends == {f"c{k}" for k in range(3) if k != number}
        assert check(b).good


# --- encryption ----------------------------------------------------------------------------------------------------------


def test_what_is_encrypted_is_not_copied_in_the_open_unless_it_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("sealed", settings=KEY) as sealed:
        fill(sealed)
    opened("open").__enter__().close()
    monkeypatch.setenv("DURABLE_NB_ENCRYPTION_KEY", str(KEY.encryption_key))
    assert main(["push", "open", "--store", "sealed"]) == 2
    assert "is encrypted and" in capsys.readouterr().err
    with opened("open") as target:
        assert not target.journal.executions()
        assert not list(target.blobs.addresses())
    assert main(["push", "open", "--store", "sealed", "--in-the-open"]) == 0
    with opened("open") as target:
        require_whole(target)
    assert main(["push", "new", "--store", "sealed"]) == 0, "a new target is encrypted as the source is"
    with pytest.raises(StoreUnreadableError, match="encrypted"):
        open_store("new", settings=PLAIN)


def test_blobs_are_named_anew_between_stores_with_other_keys() -> None:
    with opened("a") as a, opened("b", settings=KEY) as b, opened("c", settings=Settings(encryption_key="c")) as c:
        fill(a)
        transfer(a, b)
        require_whole(b)
        assert not set(a.blobs.addresses()) & set(b.blobs.addresses())
        transfer(b, c)
        require_whole(c)
        assert not set(b.blobs.addresses()) & set(c.blobs.addresses())
        with opened("d") as d:
            transfer(c, d, in_the_open=True)
            require_whole(d)
            assert set(d.blobs.addresses()) == set(a.blobs.addresses())
        for source, target in ((a, b), (b, c), (c, b)):
            assert sum(copied.records for copied in transfer(source, target).executions) == 0


# --- others at the target ------------------------------------------------------------------------------------------------


def test_a_target_that_is_in_use_is_left_alone_and_the_holder_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_copy, "_PATIENCE", 0.1)
    with opened("a", "b") as (a, b):
        fill(a)
        own = b.journal.create(NAME, kind="notebook", at=1.0, details={}).execution_id
        lease = b.journal.acquire(own, ttl=60)
        assert main(["push", "b", NAME, "--store", "a"]) == 1
        said = capsys.readouterr().err
        assert f"n.ipynb is held by {lease.owner} in the target: waiting" in said
        assert f"n.ipynb is in use by {lease.owner} in the target" in said
        assert not list(b.journal.read(own))
        assert b.markers.read(NAME, "pay") is not None, "that a body was begun is told all the same"
        b.journal.release(lease)
        assert main(["push", "b", NAME, "--store", "a"]) == 0


def test_a_push_waits_for_another_one_and_then_copies_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        own = b.journal.create(NAME, kind="notebook", at=1.0, details={}).execution_id
        lease = b.journal.acquire(own, ttl=60)
        waits: list[str] = []

        def let_go(_: object, holder: str) -> None:
            waits.append(holder)
            b.journal.release(lease)

        assert transfer(a, b, on_wait=let_go).good
        assert waits == [lease.owner]
        require_whole(b)
    assert main(["push", "b", NAME, "--store", "a"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_somebody_who_writes_between_two_looks_loses_nothing() -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        own = b.journal.create(NAME, kind="notebook", at=1.0, details={}).execution_id
        mine = iter([cell("c0", at=1.0), cell("c9", at=2.0)])

        def write(_: Any) -> None:
            for event in mine:
                b.journal.append(own, [event])
                break

        transfer(a, b, on_progress=write)
        require_nothing_doubled(b)
        require_whole(b)
        assert [stored.event.at for stored in b.journal.read(own)][:2] == [1.0, 2.0]


def test_a_collection_at_any_moment_takes_no_blob_whose_row_is_still_to_come() -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        collections = []
        transfer(a, b, on_progress=lambda _: collections.append(collect(b)))
        assert len(collections) > 5
        require_whole(b)
    with opened("b") as b:
        collect(b)
        require_whole(b)


def test_two_pushes_at_once_double_nothing() -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        fill(b, at=200.0, once_only=False)
    processes = [pushing(["push", "hub", "--store", store]) for store in ("a", "a", "b")]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0], "who meets another's lease waits for it"
    with opened("hub") as hub:
        require_nothing_doubled(hub)
        require_whole(hub)
        require_whole_cells(hub, 200.0)


def require_whole_cells(store: Store, at: float) -> None:
    found = [s.event.at for number in range(3) for s in store.journal.find_cell(f"c{number}")]
    assert [at + number + 0.5 in found for number in range(3)] == [True] * 3


# --- at most once --------------------------------------------------------------------------------------------------------


def test_a_step_that_was_begun_at_the_source_is_refused_at_the_target_until_its_end_is_copied() -> None:
    began = []

    def body(_: Any) -> str:
        began.append(1)
        if len(began) == 1:
            raise SystemExit  # as a kernel that is killed: no end is recorded
        return "paid"

    with opened("a", "b") as (a, b):
        a.journal.create(NAME, kind="notebook", at=1.0, details={})
        with context_of(a) as context:
            context.step(lambda _: 1, name="first")
            with pytest.raises(SystemExit):
                context.step(body, name="pay", config=ONCE)
        transfer(a, b)
        with context_of(b) as context:
            assert context.step(never, name="first") == 1
            with pytest.raises(StepInterruptedError, match="was started"):
                context.step(body, name="pay", config=ONCE)
        own = a.journal.find(NAME)
        assert own is not None
        with context_of(a) as context, pytest.raises(Exception, match="its end is not known"):
            assert context.step(never, name="first") == 1
            context.step(body, name="pay", config=ONCE)
        assert len(began) == 1
        transfer(a, b)
        with context_of(b) as context, pytest.raises(Exception, match="its end is not known"):
            assert context.step(never, name="first") == 1
            context.step(body, name="pay", config=ONCE)
        assert len(began) == 1


def test_a_decision_to_run_it_again_is_no_decision_for_two_stores() -> None:
    with opened("a", "b") as (a, b):
        a.journal.create(NAME, kind="notebook", at=1.0, details={})
        steps, _ = once(a)
        steps.start("pay", rounds=0, attempt=1, label="pay", lease=None, details={"at_most_once": True})
        steps.resolve("pay", "again", lease=None)
        transfer(a, b)
        assert steps.judge("pay", lambda record: None).answer == "run"
        assert once(b)[0].judge("pay", lambda record: None).answer == "interrupted"
        steps.start("pay", rounds=1, attempt=1, label="pay", lease=None, details={"at_most_once": True})
        once(a)[1].write([cell(steps.operation("pay"), at=time.time(), name="pay")], lease=None)
        transfer(a, b)
        assert once(b)[0].judge("pay", lambda record: None).answer == "replay"


def test_a_start_whose_marker_cannot_be_read_is_known_from_its_row() -> None:
    with opened("a", "b") as (a, b):
        a.journal.create(NAME, kind="notebook", at=1.0, details={})
        once(a)[0].start("pay", rounds=0, attempt=1, label="pay", lease=None, details={"at_most_once": True})
        for path in Path("a/started").iterdir():
            path.chmod(0o600)
            path.write_text("{")
        transfer(a, b)
        assert once(b)[0].judge("pay", lambda record: None).answer == "interrupted"


def test_a_marker_that_a_killed_copy_tore_is_made_whole_and_travels_on() -> None:
    with opened("a", "b", "c") as (a, b, c):
        a.journal.create(NAME, kind="notebook", at=1.0, details={})
        once(a)[0].start("pay", rounds=0, attempt=1, label="pay", lease=None, details={"at_most_once": True})
        transfer(a, b)
        for path in Path("b/started").iterdir():
            path.chmod(0o600)
            path.write_text("")
        transfer(a, b)
        transfer(b, c)
        assert once(c)[0].judge("pay", lambda record: None).answer == "interrupted"
        once(a)[1].write([cell(once(a)[0].operation("pay"), at=time.time(), name="pay")], lease=None)
        transfer(a, b)
        transfer(b, c)
        for store in (b, c):
            assert once(store)[0].judge("pay", lambda record: None).answer == "replay"


def test_a_step_that_both_sides_began_stays_a_question_where_it_is_one() -> None:
    with opened("a", "b") as (a, b):
        fill(a)
        b.journal.create(NAME, kind="notebook", at=1.0, details={})
        once(b)[0].start("pay", rounds=0, attempt=1, label="pay", lease=None, details={"at_most_once": True})
        done = transfer(a, b, [NAME])
        assert any(
            "was begun on both sides: each keeps its own record" in str(left) for left in done.executions[0].left
        )
        assert done.good, "nothing is wrong with the copy"
        assert once(b)[0].judge("pay", lambda record: None).answer == "interrupted"
        assert once(a)[0].judge("pay", lambda record: None).answer == "replay"


@durable_execution
def unfinished(event: Any, context: DurableContext) -> Any:
    context.step(lambda _: "charged", name="charge", config=ONCE)
    context.create_callback(name="answer").result()


def test_a_handler_that_has_not_ended_is_driven_by_one_store_only(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("a", "b") as (a, b):
        driver = Driver(a.journal, markers=a.markers)
        driver.drive(driver.create("order-2", unfinished.name, "{}"), unfinished, wait=False)
        assert main(["push", "b", "--store", "a"]) == 0
        assert "note: order-2 has not ended, and stays where it is driven" in capsys.readouterr().err
        assert not b.journal.due(time.time() + 1e9), "no worker of the target takes it up"
        other = Driver(b.journal, markers=b.markers)
        record = other.create("order-2", unfinished.name, "{}")
        with pytest.raises(StepInterruptedError, match="was started"):
            other.drive(record, unfinished, wait=False)
        waiting = [stored.event for stored in b.journal.read(record.execution_id) if stored.event.name == "charge"]
        assert [event.kind for event in waiting] == [EventKind.NOTE], "it was refused, and its body did not run"
        resolve(b.journal, record.execution_id, "charge", "failed", lease=None)


def test_two_results_of_one_name_stay_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("a", "b") as (a, b):
        for store in (a, b):
            driver = Driver(store.journal, markers=store.markers)
            driver.drive(driver.create("order-1", greet.name, "{}"), greet)
        before = [
            list(store.journal.read(record.execution_id)) for store in (a, b) for record in store.journal.executions()
        ]
        assert main(["push", "b", "--store", "a"]) == 1
        assert "order-1 has another history in the target" in capsys.readouterr().err
        assert before == [
            list(store.journal.read(record.execution_id)) for store in (a, b) for record in store.journal.executions()
        ]


# --- killed anywhere -----------------------------------------------------------------------------------------------------


def _pushing(data: str, arguments: list[str], faults: StoreFaults | None, answer: str | None) -> None:
    """A process that pushes, with a fault in its store."""
    os.environ["JUPYTER_DATA_DIR"] = data  # the server of these processes has the environment of an earlier test
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    if faults is not None:
        faults.install()
    code = main(arguments)
    if faults is not None and answer is not None:
        Path(answer).write_text(json.dumps({"code": code, "names": faults.names}))
    sys.exit(code)


def pushing(arguments: list[str], faults: StoreFaults | None = None, answer: Path | None = None) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crash.test_transfer", "durable_nb.cli._transfer", "durable_nb.journal"])
    here = [arg if arg.startswith("-") or arg == "push" else str(Path(arg).absolute()) for arg in arguments]
    process = context.Process(target=_pushing, args=(os.environ["JUPYTER_DATA_DIR"], here, faults, answer))
    process.start()
    return process


def push_with(faults: StoreFaults, arguments: list[str], answer: Path) -> tuple[int | None, dict[str, Any]]:
    answer.unlink(missing_ok=True)
    process = pushing(arguments, faults, answer)
    process.join(60)
    return process.exitcode, json.loads(answer.read_text()) if answer.exists() else {}


def test_a_push_that_meets_any_fault_at_any_point_is_completed_by_the_next_one(tmp_path: Path) -> None:
    with opened("a", "seed") as (a, seed):
        fill(a)
        fill(seed, at=200.0, once_only=False)  # the target has a history of its own
    answer = tmp_path / "answer"

    def fresh() -> list[str]:
        shutil.rmtree("hub", ignore_errors=True)
        shutil.copytree("seed", "hub")
        return ["push", "hub", "--store", "a"]

    code, told = push_with(StoreFaults(), fresh(), answer)
    assert (code, told["code"]) == (0, 0)
    every = [
        (name, Fault(kind, place))
        for place, name in enumerate(told["names"], 1)
        for kind in faults_at(name)
        if not (name.endswith("mkdir") and kind.endswith("after"))  # a folder that is there already raises first
    ]
    rng = random.Random(os.environ.get("DURABLE_NB_SEED", "1"))
    chosen = every if SOAK else rng.sample(every, 9)
    for name, fault in chosen:
        arguments = fresh()
        code, told = push_with(StoreFaults(fault), arguments, answer)
        if fault.kind in ("enospc", "eio", "busy"):
            assert told["code"] in (0, 2), f"{name}, {fault}: an error of the disk is one line, or does not matter"
        else:
            assert code == -signal.SIGKILL, f"{name}, {fault}"
        assert main(arguments) == 0, f"{name}, {fault}"
        with opened("hub") as hub:
            require_nothing_doubled(hub)
            require_whole(hub)
            require_whole_cells(hub, 200.0)
    keep("a push that meets a fault", cases=len(chosen), points=len(every))


def test_a_real_push_that_is_killed_at_random_moments_is_completed_by_the_next_one(tmp_path: Path) -> None:
    with opened("a") as a:
        for number in range(8):
            fill(a, at=100.0 * (number + 1), once_only=number == 0)
    command = [sys.executable, "-m", "durable_nb.cli", "push", "hub", "--store", "a"]
    rng = random.Random(os.environ.get("DURABLE_NB_SEED", "1"))
    killed = 0
    for _ in range(40 if SOAK else 2):
        shutil.rmtree("hub", ignore_errors=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: Path("hub/journal.db").exists() or process.poll() is not None)
        time.sleep(rng.random() * 0.4)  # the moment is what is drawn here; nothing is waited for
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert main(["push", "hub", "--store", "a"]) == 0
        with opened("hub") as hub:
            require_nothing_doubled(hub)
            require_whole(hub)
    assert killed
    keep("a real push that is killed", cases=killed)


def wait_until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.005)
