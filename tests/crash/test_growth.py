"""Growth: what nothing names goes, what somebody needs stays, and a budget is kept, also when collection is killed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_nb import maintenance
from durable_nb.cli import main
from durable_nb.events import CELL, Event, EventKind, OperationType, Status
from durable_nb.exceptions import MissingBlobError, ValidationError
from durable_nb.maintenance import Budget, budget_of, check, collect, size_of, store_size
from durable_nb.runtime import Store, open_store
from durable_nb.sdk import DurableContext, durable_execution
from durable_nb.sdk._local import SystemClock
from durable_nb.sdk.pickle_serdes import PickleSerDes
from durable_nb.settings import Settings
from durable_nb.testing.faults_store import Fault, StoreFaults, faults_at
from tests.crash import handler_story
from tests.crash.evidence import keep
from tests.crash.story import Case, cells
from tests.fidelity.nursery import Job, Nursery

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))

pytestmark = pytest.mark.timeout(3600 if SOAK else 600)


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    for name in ("DURABLE_NB_KEY", "DURABLE_NB_STORE_LIMIT", "DURABLE_NB_STORE_DAYS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()


def execution(store: Store, name: str = "n") -> str:
    return store.journal.create(name, kind="notebook", at=1.0, details={}).execution_id


def done(operation: str, at: float, nbytes: int, **details: Any) -> Event:
    return Event(
        operation_id=operation,
        kind=EventKind.SUCCEEDED,
        type=OperationType.CONTEXT,
        sub_type=CELL,
        at=at,
        details={"bytes": nbytes, **details},
    )


def commit(store: Store, owner: str, operation: str, at: float, data: bytes, **details: Any) -> str:
    """A record with one blob."""
    address = store.blobs.put(data)
    store.journal.append(owner, [done(operation, at, len(data), **details)], payload_refs=[address])
    return address


def test_what_no_record_names_goes_when_nobody_else_has_the_store_open(store: Store) -> None:
    kept = commit(store, execution(store), "a", 1.0, b"kept" * 1000)
    store.blobs.put(b"not named" * 1000)
    (store.place / "blobs" / "tmp-1-dead").write_bytes(b"half")
    found = collect(store)
    assert (found.records, found.blobs, found.waiting) == (0, 1, 0)
    assert list(store.blobs.addresses()) == [kept]
    assert store.blobs.get(kept) == b"kept" * 1000
    assert not list((store.place / "blobs").glob("tmp-*"))


def test_while_another_process_has_it_open_a_blob_is_only_moved_aside_and_still_read(store: Store) -> None:
    address = store.blobs.put(b"not named" * 1000)
    other = open_store(store.place)
    found = collect(store)
    assert (found.blobs, found.waiting) == (0, 1)
    assert not store.blobs.has(address), "a writer writes it again"
    assert other.blobs.get(address) == b"not named" * 1000, "a reader finds it"
    other.close()
    assert collect(store).blobs == 1
    with pytest.raises(MissingBlobError):
        store.blobs.get(address)


def test_what_a_process_has_still_to_read_stays_in_place(store: Store) -> None:
    address = store.blobs.put(b"not named" * 1000)
    other = open_store(store.place)
    other.hold([address])
    assert (collect(store).blobs, collect(store).waiting) == (0, 0)
    assert store.blobs.has(address)
    other.close()
    assert not list((store.place / "held").iterdir())
    assert collect(store).blobs == 1


def test_a_list_of_a_process_that_is_gone_holds_nothing(store: Store) -> None:
    address = store.blobs.put(b"not named" * 1000)
    (store.place / "held").mkdir()
    (store.place / "held" / "1-dead").write_text(f"{address}\n")
    assert collect(store).blobs == 1
    assert not list((store.place / "held").iterdir())


def test_a_row_that_is_committed_late_gets_its_blob_back(store: Store) -> None:
    """A writer found the blob in place, collection came, and only then did the writer commit."""
    owner = execution(store)
    other = open_store(store.place)
    address = other.blobs.put(b"shared" * 1000)
    collect(store)
    other.journal.append(owner, [done("a", 1.0, 6000)], payload_refs=[address])
    assert other.blobs.get(address) == b"shared" * 1000
    collect(store)
    assert store.blobs.has(address)
    other.close()
    collect(store)
    assert store.blobs.get(address) == b"shared" * 1000
    assert check(store).good


def test_a_condemned_blob_goes_after_a_while_even_under_a_kernel_that_never_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.blobs.put(b"not named" * 1000)
    other = open_store(store.place)
    assert collect(store).waiting == 1
    monkeypatch.setattr(maintenance, "_GRACE_SECONDS", -1.0)
    assert collect(store).blobs == 1
    other.close()


def test_a_map_outlives_its_blob(store: Store) -> None:
    data = os.urandom(2 << 20)
    address = store.blobs.put(data)
    view = store.blobs.map(address)
    collect(store)
    with pytest.raises(MissingBlobError):
        store.blobs.get(address)
    assert bytes(view) == data


def test_a_budget_takes_superseded_records_first_then_the_oldest_and_never_an_at_most_once_step(store: Store) -> None:
    owner = execution(store)
    commit(store, owner, "pay", 1.0, os.urandom(300_000), at_most_once=True)
    commit(store, owner, "old", 2.0, os.urandom(300_000))
    commit(store, owner, "edited", 5.0, os.urandom(300_000))
    commit(store, owner, "edited", 6.0, os.urandom(300_000))
    limit = store_size(store) - 250_000
    collect(store, Budget(max_bytes=limit))
    assert [each.event.at for each in store.journal.read(owner)] == [1.0, 2.0, 6.0]
    collect(store, Budget(max_bytes=limit - 300_000))
    assert [each.event.at for each in store.journal.read(owner)] == [1.0, 6.0]
    collect(store, Budget(max_bytes=0))
    assert [each.event.operation_id for each in store.journal.read(owner)] == ["pay"]
    assert check(store).good
    assert store_size(store) < 500_000


def test_only_so_many_runs_of_one_cell_are_kept_and_old_ones_go_by_age(store: Store) -> None:
    owner = execution(store)
    for number in range(30):
        commit(store, owner, "a", float(number), os.urandom(100))
    collect(store, Budget(keep=20))
    assert [each.event.at for each in store.journal.read(owner)] == [float(n) for n in range(10, 30)]
    collect(store, Budget(max_days=1))
    assert [each.event.at for each in store.journal.read(owner)] == [29.0], "the newest stays, however old it is"


def test_what_a_kernel_holds_is_left_alone(store: Store) -> None:
    owner = execution(store)
    commit(store, owner, "a", 1.0, b"x" * 50_000)
    lease = store.journal.acquire(owner, ttl=60)
    found = collect(store, Budget(max_bytes=0))
    assert (found.records, found.held) == (0, ("n",))
    store.journal.release(lease)
    assert collect(store, Budget(max_bytes=0)).records == 1


def handled(store: Store, name: str, at: float = 0.0) -> Any:
    """A finished handler with a large step, a small one, and a payment."""

    @durable_execution(name="made", serdes=PickleSerDes(store.blobs))
    def made(event: Any, context: DurableContext) -> Any:
        RUNS.append(name)
        context.step(lambda _: bytearray(os.urandom(400_000)), name="large")
        context.step(lambda _: 1, name="small")
        return context.step(lambda _: f"paid {event}", name="pay", config=handler_story.ONCE)

    with pytest.MonkeyPatch.context() as patch:
        if at:
            patch.setattr(SystemClock, "now", lambda _: at)
        return made.run(name, name=name, store=store)


RUNS: list[str] = []


def kinds_of(store: Store, name: str) -> list[str]:
    record = store.journal.find(name)
    assert record is not None
    return [f"{each.event.name} {each.event.kind.value}" for each in store.journal.read(record.execution_id)]


def test_the_steps_of_finished_handlers_go_and_their_names_still_give_the_result(store: Store) -> None:
    RUNS.clear()
    for number in range(3):
        assert handled(store, f"order-{number}") == f"paid order-{number}"
    before = store_size(store)
    found = collect(store, Budget(max_bytes=before - 100_000))
    assert before - store_size(store) > 300_000, "the bytes are given back, not only the records"
    assert found.records >= 1
    assert "large SUCCEEDED" not in kinds_of(store, "order-0"), "the oldest first"
    assert "large SUCCEEDED" in kinds_of(store, "order-2")
    collect(store, Budget(max_bytes=0))
    for number in range(3):
        assert kinds_of(store, f"order-{number}") == [
            f"order-{number} STARTED",
            "pay STARTED",
            "pay SUCCEEDED",
            f"order-{number} SUCCEEDED",
        ]
        assert handled(store, f"order-{number}") == f"paid order-{number}"
    assert RUNS == ["order-0", "order-1", "order-2"], "none ran again"
    assert check(store).good
    assert store_size(store) < 200_000


def test_finished_handlers_go_by_age(store: Store) -> None:
    now = time.time()
    handled(store, "old", at=now - 10 * 86400)
    handled(store, "new")
    collect(store, Budget(max_days=5))
    assert "large SUCCEEDED" not in kinds_of(store, "old")
    assert "large SUCCEEDED" in kinds_of(store, "new")


def test_cells_stay_while_finished_handlers_have_something_to_give(store: Store) -> None:
    owner = execution(store)
    commit(store, owner, "a", 1.0, os.urandom(300_000))
    handled(store, "order")
    collect(store, Budget(max_bytes=store_size(store) - 100_000))
    assert [each.event.operation_id for each in store.journal.read(owner)] == ["a"], "although it is older"


def test_a_handler_that_is_not_over_loses_nothing(store: Store) -> None:
    @durable_execution(name="waiting")
    def waiting(event: Any, context: DurableContext) -> Any:
        RUNS.append("step")
        value = context.step(lambda _: os.urandom(100_000).hex(), name="large")
        context.wait(60)
        return len(value)

    handle = waiting.start(1, name="waiting", store=store)
    handle.step()
    RUNS.clear()
    collect(store, Budget(max_bytes=0, max_days=0))
    assert "large SUCCEEDED" in kinds_of(store, "waiting")
    # Its row is not signed: one that says that it is over changes nothing.
    store.journal.update(handle.execution_id, status=Status.SUCCEEDED)
    collect(store, Budget(max_bytes=0, max_days=0))
    assert "large SUCCEEDED" in kinds_of(store, "waiting")


def test_a_handler_that_a_live_process_holds_is_left_alone(store: Store) -> None:
    handled(store, "order")
    record = store.journal.find("order")
    assert record is not None
    lease = store.journal.acquire(record.execution_id, ttl=60)
    found = collect(store, Budget(max_bytes=0))
    assert found.held == ("order",)
    assert "large SUCCEEDED" in kinds_of(store, "order")
    store.journal.release(lease)


def test_the_size_of_the_store_is_told(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handled(store, "order")
    monkeypatch.setenv("DURABLE_NB_STORE_LIMIT", "20GB")
    assert main(["ls", "--store", str(store.place)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{store.place} has ")
    assert last.endswith("kB of 20GB")


def test_a_dry_run_says_what_would_go_and_takes_nothing(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    commit(store, execution(store), "a", 1.0, b"x" * 50_000)
    store.blobs.put(b"y" * 70_000)
    assert main(["gc", "--dry-run", "--max-size", "0", "--store", str(store.place)]) == 0
    assert capsys.readouterr().out.startswith("1 records and 1 blobs would go (120.0 kB)")
    assert len(list(store.blobs.addresses())) == 2
    assert main(["gc", "--max-size", "nonsense", "--store", str(store.place)]) == 2


@pytest.mark.parametrize(
    ("text", "nbytes"), [("1000", 1000), ("500 MB", 500 * 10**6), ("1.5g", 1_500_000_000), ("2T", 2 * 10**12)]
)
def test_sizes_are_read_as_people_write_them(text: str, nbytes: int) -> None:
    assert size_of(text) == nbytes


@pytest.mark.parametrize("settings", [Settings(store_limit="lots"), Settings(store_days="a week")])
def test_a_limit_that_is_none_is_refused(settings: Settings) -> None:
    with pytest.raises(ValidationError):
        budget_of(settings)


def test_a_kernel_brings_its_store_into_the_budget_when_it_opens_it(tmp_path: Path) -> None:
    with Nursery() as nursery:
        case = Case(nursery, tmp_path / "work")
        assert case.live().finished
        job = Job(
            cells=cells(case.ledger),
            folder=case.folder,
            store=case.store,
            durable=True,
            env=(("DURABLE_NB_STORE_LIMIT", "1kB"),),
            stop_on_error=False,
            portrait=False,
        )
        seen = nursery.run(job)
        assert seen.finished, seen.log
        assert seen.statuses[1] == "executed", "its checkpoint went"
        assert seen.statuses[3] == "replayed", "the at-most-once step's stayed"
        assert case.begun()["pay"] == 1


# --- killed collections and repairs --------------------------------------------------------------------------------------


def _life(verb: str, folder: str, faults: StoreFaults) -> None:
    os.environ["JUPYTER_DATA_DIR"] = str(Path(folder) / "data")
    place = Path(folder) / "store"
    faults.install()
    try:
        if verb == "gc":
            store = open_store(place)
            collect(store, Budget(max_bytes=0))
            store.close()
        else:
            for _ in maintenance.repair(place):
                pass
    finally:
        (Path(folder) / "points").write_text("\n".join(faults.names))
    os._exit(0)


@pytest.mark.parametrize("verb", ["gc", "repair"])
def test_a_collection_or_repair_that_is_killed_anywhere_loses_nothing(tmp_path: Path, verb: str) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    os.environ["JUPYTER_DATA_DIR"] = str(whole / "data")
    store = open_store(whole / "store")
    owner = execution(store)
    needed = [commit(store, owner, "pay", 1.0, os.urandom(50_000), at_most_once=True)]
    commit(store, owner, "a", 2.0, os.urandom(50_000))
    store.blobs.put(os.urandom(50_000))
    store.markers.claim("n", "pay", {})
    store.close()
    if verb == "repair":
        path = whole / "store" / "blobs" / needed[0][:2] / needed[0]
        path.chmod(0o600)
        path.write_bytes(b"damaged")
        with (whole / "store" / "journal.db").open("r+b") as file:
            file.seek(4096 * 5)
            file.write(b"\xaa" * 512)
    context = handler_story.server()

    def live(faults: StoreFaults) -> Path:
        folder = tmp_path / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        process = context.Process(target=_life, args=(verb, str(folder), faults))
        process.start()
        process.join(60)
        return folder

    names = (live(StoreFaults()) / "points").read_text().splitlines()
    kinds = ("kill", "kill_after", "power_after")
    faults = [Fault(kind, place) for place, name in enumerate(names, 1) for kind in kinds if kind in faults_at(name)]
    assert len(faults) > 10
    chosen = faults if SOAK else faults[:: max(len(faults) // 12, 1)]
    for fault in chosen:
        folder = live(StoreFaults(fault))
        os.environ["JUPYTER_DATA_DIR"] = str(folder / "data")
        assert main(["verify", "--repair", "--store", str(folder / "store")]) in (0, 1), fault
        opened = open_store(folder / "store")
        assert opened.markers.read("n", "pay") is not None, fault
        if verb == "gc":
            found = check(opened)
            assert found.good, (fault, found)
            assert {each.event.operation_id for each in opened.journal.read(owner)} >= {"pay"}, fault
            assert opened.blobs.get(needed[0]), fault
        opened.close()
    keep(f"killed {verb}", cases=len(chosen))
