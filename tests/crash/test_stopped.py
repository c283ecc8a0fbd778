"""Owners that are stopped at any point for longer than their lease, and wake when another one has done the work.

On one host a stopped owner keeps its lease. So the lease's row is changed while the owner sleeps: to one of another host
whose time is over. Then another process takes over, finishes, and the sleeper wakes: whatever it believes, it writes
nothing, and no at-most-once body begins a second time.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_nb.runtime import open_store
from durable_nb.testing.faults_store import Fault, StoreFaults
from tests.crash import handler_story
from tests.crash.evidence import keep
from tests.crash.handler_story import EXPECTED, HandlerCase
from tests.crash.story import ONCE, PROBES, SAVED, Case, cells
from tests.fidelity.nursery import Nursery, Seen

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
HANDLER_SAMPLE, NOTEBOOK_SAMPLE = 5, 2
"""Points of each when somebody runs this file by itself; the long run takes all."""
PARTS = range(6 if SOAK else 1)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.fixture
def root() -> Iterator[Path]:
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="dnb-stop-", dir=fast, ignore_cleanup_errors=True) as name:
        yield Path(name)


def chosen(names: list[str], part: int, sample: int) -> list[int]:
    """Points of a run: all of this part, or some."""
    points = list(range(1, len(names) + 1))
    return points[part :: len(PARTS)] if SOAK else random.Random(SEED).sample(points, sample)


def state_of(pid: int) -> str:
    """The letter that the system has for a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_for(happened: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := happened()):
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
    return found


def lose_leases(store: Path) -> bool:
    """The owner is on another host and its time is over. False when the sleeper holds the database itself."""
    database = store / "journal.db"
    if not database.exists():
        return True
    with contextlib.closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as db:
        try:
            db.execute(
                "BEGIN IMMEDIATE"
            )  # asked first: a sleeper that makes the tables holds it too, and none are seen
            if db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'leases'").fetchone()[0]:
                db.execute("UPDATE leases SET host = 'elsewhere', expires_at = 0 WHERE owner IS NOT NULL")
            db.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc):
                raise
            return False
    return True


# --- handlers -----------------------------------------------------------------------------------------------------------


def stopped_handler(context: Any, folder: Path, point: int) -> tuple[bool, list[str]]:
    """Whether another process could take over, and which promises are broken."""
    case = HandlerCase(context, folder)
    sleeper = context.Process(target=handler_story.live, args=(str(folder), StoreFaults(Fault("stop", point))))
    sleeper.start()
    assert sleeper.pid is not None
    wait_for(lambda: state_of(sleeper.pid) in ("T", ""), "it does not come to the point")
    case.require(state_of(sleeper.pid) == "T", "it was not stopped")
    taken = lose_leases(folder / "store")
    second: dict[str, Any] = case.live() if taken else {}
    os.kill(sleeper.pid, signal.SIGCONT)
    sleeper.join(handler_story.LIMIT)
    case.require(sleeper.exitcode == 0, f"the sleeper ended with {sleeper.exitcode}")
    third = case.live()
    expected = [EXPECTED, [EXPECTED[0], "interrupted", *EXPECTED[2:]]]
    case.require(third.get("result") in expected, f"at last it is {third}")
    if taken:
        case.require(second == third, f"the second process had {second}, the third {third}")
    begun = case.begun()
    case.require(begun["charge"] <= 1, f"the at-most-once body began {begun['charge']} times")
    case.require(all(count <= 2 for count in begun.values()), f"bodies began too often: {begun}")
    doubled = _doubled(folder)
    case.require(not doubled, f"recorded twice: {doubled}")
    return taken, case.broken


def _doubled(folder: Path) -> list[str]:
    """Operations with two ends: a late owner wrote."""
    os.environ["JUPYTER_DATA_DIR"] = str(folder / "data")
    store = open_store(folder / "store")
    try:
        ends = Counter(
            (record.name, stored.event.operation_id)
            for record in store.journal.executions()
            for stored in store.journal.read(record.execution_id)
            if stored.event.kind.value in ("SUCCEEDED", "FAILED")
        )
    finally:
        store.close()
    return [f"{name}: {operation}" for (name, operation), count in ends.items() if count > 1]


@pytest.mark.parametrize("part", PARTS)
def test_a_handler_that_is_stopped_anywhere_is_taken_over_and_writes_nothing_when_it_wakes(
    root: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(root / "data"))
    context = handler_story.server()
    names = HandlerCase(context, root / "count").live(StoreFaults())["points"]
    broken, took, points = [], 0, chosen(names, part, HANDLER_SAMPLE)
    for point in points:
        taken, wrong = stopped_handler(context, root / f"{point:03d}", point)
        took += taken
        broken += [f"{names[point - 1]}, stopped at point {point}: {what}" for what in wrong]
        shutil.rmtree(root / f"{point:03d}", ignore_errors=True)
    keep("stopped longer than the lease, handlers", cases=len(points), taken_over=took, broken=len(broken))
    assert not broken, "\n".join(broken)


# --- notebooks ----------------------------------------------------------------------------------------------------------


def stopped_child(nursery: Nursery) -> int:
    """The kernel of a nursery that is stopped; 0 when there is none."""
    assert nursery._process is not None
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == nursery._process.pid and fields[0] == "T":
                return int(entry.name)
    return 0


def stopped_notebook(sleeping: Nursery, other: Nursery, folder: Path, point: int) -> tuple[bool, list[str]]:
    """The same for a kernel."""
    first, second = Case(sleeping, folder), Case.__new__(Case)
    second.nursery, second.folder, second.broken = other, folder, first.broken
    second.store, second.ledger = first.store, first.ledger
    lives: list[Seen] = []
    life = threading.Thread(target=lambda: lives.append(first.live(StoreFaults(Fault("stop", point)))))
    life.start()
    pid = wait_for(lambda: stopped_child(sleeping) or (not life.is_alive() and -1), "it does not come to the point")
    assert pid > 0, f"it was not stopped: {lives[0].log[-600:]}"
    taken = lose_leases(first.store)
    seen = second.live() if taken else None
    os.kill(pid, signal.SIGCONT)
    life.join(60)
    first.require(bool(lives) and lives[0].finished, "the sleeper did not wake")
    if seen is not None:
        first.require(seen.finished, f"the second kernel died: {seen.log[-600:]}")
    first.require(first.begun()["pay"] <= 1, f"the at-most-once body began {first.begun()['pay']} times")
    last = second.live()
    if last.cells[ONCE]["status"] == "ok":
        first.require(last.probes == PROBES, f"values are {last.probes}")
        if seen is not None and seen.finished:
            for number, (was, now) in enumerate(zip(seen.cells, last.cells, strict=False)):
                if number and was["durable"].get("status") in SAVED:
                    status = now["durable"].get("status")
                    first.require(status == "replayed", f"cell {number} was committed, and then {status}")
    else:
        asks = last.cells[ONCE]["durable"].get("decision") or "resolve" in str(last.cells[ONCE]["evalue"])
        first.require(bool(asks), f"the at-most-once cell failed with {last.cells[ONCE]['evalue']}")
    first.require(first.begun()["pay"] <= 1, "the at-most-once body began again at last")
    return taken, first.broken


@pytest.mark.kernel
@pytest.mark.parametrize("part", PARTS)
def test_a_kernel_that_is_stopped_anywhere_is_taken_over_and_writes_nothing_when_it_wakes(
    root: Path, part: int
) -> None:
    with Nursery() as sleeping, Nursery() as other:
        # One key for both: they are kernels of one user.
        shutil.rmtree(Path(other._home.name) / "data", ignore_errors=True)
        (Path(other._home.name) / "data").symlink_to(Path(sleeping._home.name) / "data")
        count = Case(sleeping, root / "count").live(StoreFaults())
        replies = [place for place, name in enumerate(count.point_names, 1) if name == "message reply"]
        names = count.point_names[: replies[len(cells(root)) - 1]]
        shutil.rmtree(root / "count")
        broken, took, points = [], 0, chosen(names, part, NOTEBOOK_SAMPLE)
        for point in points:
            taken, wrong = stopped_notebook(sleeping, other, root / f"{point:03d}", point)
            took += taken
            broken += [f"{names[point - 1]}, stopped at point {point}: {what}" for what in wrong]
            shutil.rmtree(root / f"{point:03d}", ignore_errors=True)
    keep("stopped longer than the lease, notebooks", cases=len(points), taken_over=took, broken=len(broken))
    assert not broken, "\n".join(broken)
