"""Two owners: one lease, one writer; no record is lost, doubled or woven into another owner's."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from durable_nb.abc import Lease
from durable_nb.events import Event, EventKind, OperationType
from durable_nb.exceptions import LeaseHeldError, LeaseLostError
from durable_nb.journal import FileMarkers, SqliteJournal, _owner, _sqlite
from durable_nb.notebook._execution import Ownership
from tests.crash.evidence import keep

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))


def note(text: str, **details: Any) -> Event:
    return Event(operation_id=text, kind=EventKind.SUCCEEDED, type=OperationType.STEP, at=1.0, details=details)


# --- eight processes ---------------------------------------------------------------------------------------------------


def _worker(place: str, execution: str, number: int, seed: int, until: float) -> None:
    """Own, write, let go, die while owning, or hold a lease that is an old one."""
    rng = random.Random(seed * 100 + number)
    journal = SqliteJournal(place)
    old: Lease | None = None
    count = 0
    while time.monotonic() < until:
        try:
            lease = journal.acquire(execution, ttl=60)
        except LeaseHeldError:
            os.sched_yield()
            continue
        for _ in range(rng.randrange(1, 5)):
            count += 1
            journal.append(
                execution, [note(f"{number}.{count}.{part}", token=lease.token) for part in range(2)], lease=lease
            )
        if old is not None:
            with pytest.raises(LeaseLostError):
                journal.append(execution, [note("late", token=old.token)], lease=old)
        if rng.random() < 0.1:
            os._exit(9)  # dead while it owns: the others take over
        journal.release(lease)
        old = lease
    journal.close()


def test_eight_processes_write_in_turns_and_lose_nothing(tmp_path: Path) -> None:
    seconds = 20.0 if SOAK else 3.0
    place = tmp_path / "journal.db"
    journal = SqliteJournal(place)
    execution = journal.create("shared", kind="notebook", at=1.0, details={}).execution_id
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crash.test_owners"])
    until = time.monotonic() + seconds
    started = 0

    def start(number: int) -> Any:
        process = context.Process(target=_worker, args=(str(place), execution, number, started, until))
        process.start()
        return process

    running = {}
    for number in range(8):
        running[number] = start(number)
        started += 1
    while time.monotonic() < until:
        for number, process in list(running.items()):
            process.join(0.02)
            if process.exitcode == 9 and time.monotonic() < until:
                started += 1
                running[number] = start(started)
    for process in running.values():
        process.join(60)
        assert process.exitcode in (0, 9)
    stored = list(journal.read(execution))
    journal.close()
    assert [each.sequence for each in stored] == list(range(1, len(stored) + 1)), "no gap, no number twice"
    tokens = [each.event.details["token"] for each in stored]
    assert tokens == sorted(tokens), "the writes of two owners are never woven into each other"
    assert all(count == 1 for count in Counter(each.event.operation_id for each in stored).values())
    parts = [each.event.operation_id.rpartition(".") for each in stored]
    assert all(first[0] == second[0] for first, second in zip(parts[::2], parts[1::2], strict=True)), "a batch is whole"
    assert "late" not in {each.event.operation_id for each in stored}
    assert len(set(tokens)) > 8
    keep("owners", processes=started, leases=len(set(tokens)), records=len(stored))


# --- one stopped, one takes over ----------------------------------------------------------------------------------------


def _stopped_owner(place: str, execution: str, folder: str, where: str, ledger: str) -> None:
    """An at-most-once start in one process, which is stopped somewhere in it."""
    journal, markers = SqliteJournal(place), FileMarkers(folder)
    lease = journal.acquire(execution, ttl=0.0)

    def stop(at: str) -> None:
        if at == where:
            os.kill(os.getpid(), signal.SIGSTOP)

    stop("before the marker")
    if not markers.claim(execution, "pay", {}):
        os._exit(3)
    stop("after the marker")
    try:
        journal.append(execution, [note("started", token=lease.token)], lease=lease)
    except LeaseLostError:
        os._exit(4)
    stop("before the body")
    with Path(ledger).open("a") as file:
        file.write("body\n")
    stop("after the body")
    try:
        journal.append(execution, [note("done", token=lease.token)], lease=lease)
    except LeaseLostError:
        os._exit(5)


@pytest.mark.parametrize(
    ("where", "exit_code", "bodies"),
    [
        ("before the marker", 3, 1),
        ("after the marker", 4, 0),
        ("before the body", 5, 1),
        ("after the body", 5, 1),
    ],
)
def test_an_owner_that_wakes_after_a_take_over_is_fenced_and_no_body_begins_twice(
    tmp_path: Path, where: str, exit_code: int, bodies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second owner is on another host, where only the lease's time speaks; on the same host a stopped one keeps it."""
    place, ledger = tmp_path / "journal.db", tmp_path / "ledger"
    journal, markers = SqliteJournal(place), FileMarkers(tmp_path / "started")
    execution = journal.create("n", kind="notebook", at=1.0, details={}).execution_id
    context = multiprocessing.get_context("forkserver")
    arguments = (str(place), execution, str(tmp_path / "started"), where, str(ledger))
    process = context.Process(target=_stopped_owner, args=arguments)
    process.start()
    assert process.pid is not None
    _until_stopped(process.pid)
    with pytest.raises(LeaseHeldError):
        journal.acquire(execution, ttl=60)
    monkeypatch.setattr(_owner, "_host", lambda: "another host")
    lease = journal.acquire(execution, ttl=60)
    if markers.claim(execution, "pay", {}):
        journal.append(execution, [note("started", token=lease.token)], lease=lease)
        with ledger.open("a") as file:
            file.write("body\n")
        journal.append(execution, [note("done", token=lease.token)], lease=lease)
    os.kill(process.pid, signal.SIGCONT)
    process.join(30)
    assert process.exitcode == exit_code
    assert (ledger.read_text() if ledger.exists() else "").count("body") == bodies
    done = [each.event.details["token"] for each in journal.read(execution) if each.event.operation_id == "done"]
    assert done == ([lease.token] if where == "before the marker" else [])
    journal.close()


def _until_stopped(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_lease_that_was_lost_fences_the_session_that_still_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the renewing thread finds out first, a write never goes out without a token."""
    journal = SqliteJournal(tmp_path / "journal.db")
    record = journal.create("n", kind="notebook", at=1.0, details={})
    first = Ownership(journal, record)
    assert first.ensure()
    lease = first.lease
    assert lease is not None
    monkeypatch.setattr(_sqlite, "is_alive", lambda *_: False)
    other = journal.acquire(record.execution_id, ttl=60)
    first.lost()
    assert first.lease is lease, "it is kept, so that its token is compared"
    with pytest.raises(LeaseLostError):
        journal.append(record.execution_id, [note("late")], lease=first.lease)
    monkeypatch.setattr(_sqlite, "is_alive", lambda *_: True)
    assert not first.ensure()
    journal.release(other)
    assert first.ensure()
    assert first.lease is not None
    assert first.lease.token > other.token
    first.close()
    journal.close()


# --- the protocol, as a model --------------------------------------------------------------------------------------------


class Leases(RuleBasedStateMachine):
    """Processes on three hosts (two of them containers on one machine), clocks that jump, deaths and stops.

    The model is a few lines: a lease may be taken when it is free, when its holder is on the same host and dead, or when
    it is on another host and its time is over by the taker's clock. Only the last token may write.
    """

    TTL = 60.0

    def __init__(self) -> None:
        super().__init__()
        self.now, self.pids, self.alive = 1000.0, 0, {}
        self.asking: tuple[str, int] = ("a", 0)
        self.holder: tuple[str, int] | None = None
        self.expires, self.token, self.written = 0.0, 0, 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(_sqlite, "this_process", lambda: _owner.Owner(str(self.asking), *self.asking, "1"))
        self.patch.setattr(_sqlite, "is_alive", self.judged)
        self.patch.setattr(_sqlite.time, "time", lambda: self.now)
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.journal = SqliteJournal(Path(self.folder.name) / "journal.db")
        self.execution = self.journal.create("n", kind="notebook", at=1.0, details={}).execution_id

    def judged(self, host: str, pid: int, started: str) -> bool | None:
        return self.alive[host, pid] if host == self.asking[0] else None

    processes = Bundle("processes")
    leases = Bundle("leases")

    @initialize(target=processes)
    def first(self) -> tuple[str, int]:
        return self.born("a")

    @rule(target=processes, host=st.sampled_from(["a", "machine/container 1", "machine/container 2"]))
    def born(self, host: str) -> tuple[str, int]:
        self.pids += 1
        self.alive[host, self.pids] = True
        return host, self.pids

    @rule(process=processes)
    def dies(self, process: tuple[str, int]) -> None:
        self.alive[process] = False

    @rule(seconds=st.sampled_from([-86400.0, -30.0, 1.0, 59.0, 61.0, 86400.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=leases, process=processes)
    def acquires(self, process: tuple[str, int]) -> Any:
        self.asking = process
        free = self.holder is None or (
            not self.alive[self.holder] if self.holder[0] == process[0] else self.expires <= self.now
        )
        try:
            lease = self.journal.acquire(self.execution, ttl=self.TTL)
        except LeaseHeldError:
            assert not free, "a free lease was refused"
            return None
        assert free, "a lease was taken from its holder"
        assert lease.token == self.token + 1, "tokens grow by one"
        self.holder, self.token, self.expires = process, lease.token, self.now + self.TTL
        return lease

    @rule(lease=leases)
    def writes(self, lease: Lease | None) -> None:
        if lease is None:
            return
        try:
            self.journal.append(self.execution, [note("x", token=lease.token)], lease=lease)
        except LeaseLostError:
            assert lease.token != self.token, "the owner was refused"
            return
        assert lease.token == self.token, "a late owner has written"
        self.written += 1

    @rule(lease=leases)
    def renews(self, lease: Lease | None) -> None:
        if lease is None:
            return
        try:
            self.journal.renew(lease, ttl=self.TTL)
        except LeaseLostError:
            assert lease.token != self.token or self.holder is None
            return
        assert lease.token == self.token
        assert self.holder is not None
        self.expires = self.now + self.TTL

    @rule(lease=consumes(leases))
    def releases(self, lease: Lease | None) -> None:
        if lease is None:
            return
        self.journal.release(lease)
        if lease.token == self.token:
            self.holder = None

    @invariant()
    def what_was_written_is_in_the_order_of_owners(self) -> None:
        tokens = [each.event.details["token"] for each in self.journal.read(self.execution)]
        assert len(tokens) == self.written
        assert tokens == sorted(tokens)

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()
        self.patch.undo()


def test_the_protocol_of_leases_holds_for_any_order_of_events() -> None:
    examples = 2000 if SOAK else 60
    run_state_machine_as_test(
        Leases,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=not SOAK,
            suppress_health_check=list(HealthCheck),
        ),
    )
    keep("lease protocol", cases=examples)


def test_two_containers_on_one_machine_do_not_judge_each_others_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a boot id; a pid of one means nothing in the other."""
    own = _owner.this_process()
    boot, _, namespace = own.host.partition("/")
    assert namespace.startswith("pid:")
    assert _owner.is_alive(own.host, own.pid, own.started) is True
    assert _owner.is_alive(f"{boot}/pid:[1]", own.pid, own.started) is None
    assert _owner.is_alive(own.host, own.pid, "another start") is False


def test_of_two_that_claim_a_marker_one_wins(tmp_path: Path) -> None:
    first, second = FileMarkers(tmp_path / "started"), FileMarkers(tmp_path / "started")
    assert first.claim("n", "pay", {"at": 1})
    assert not second.claim("n", "pay", {"at": 2})
    assert second.read("n", "pay") == {"execution": "n", "name": "pay", "at": 1}
    assert list(second.called("pay")) == [{"execution": "n", "name": "pay", "at": 1}]


@pytest.fixture(autouse=True)
def _no_strays() -> Iterator[None]:
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
