"""A store on a PostgreSQL that is cut off, killed and shared: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from durable_nb.abc import Journal, Lease
from durable_nb.events import Status
from durable_nb.exceptions import JournalConflictError, LeaseHeldError, LeaseLostError, StoreError, StoreUnreadableError
from durable_nb.journal import PostgresBlobs, PostgresJournal, PostgresMarkers, PostgresServer, _postgres
from durable_nb.settings import StoreUrl
from durable_nb.testing.conformance import event
from tests.crash.evidence import Toll
from tests.servers.postgres import Cluster
from tests.servers.proxy import Proxy

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(postgres.socket) as proxy:
        yield proxy


def sign(data: bytes) -> bytes:
    return data[:1]


# --- a connection that is cut ----------------------------------------------------------------------------------------


def _story(server: PostgresServer) -> list[object]:
    """Everything that a store is asked to write, once; what it answered."""
    journal, markers, blobs = PostgresJournal(server), PostgresMarkers(server), PostgresBlobs(server)
    try:
        execution = journal.create("orders", kind="handler", at=1.0, details={}).execution_id
        lease = journal.acquire(execution, ttl=60)
        said: list[object] = [lease.token > 0]
        said.append(journal.append(execution, [event("a"), event("b")], lease=lease, after=0, due=5.0))
        said.append(journal.append(execution, [event("soft")], lease=lease, durable=False))
        said.append(markers.claim("orders", "pay", {"at": 1.0}))
        blobs.write("ab" * 32, [b"x" * 10])
        said.append(blobs.find("ab" * 32))
        said.append(journal.append(execution, [event("c")], lease=lease, payload_refs=["ab" * 32]))
        said.append(journal.prune(execution, [2]))
        journal.renew(lease, ttl=60)
        said.append(journal.append(execution, [event("d")], lease=lease, status=Status.SUCCEEDED, due=None))
        said.append(markers.claim("orders", "pay", {"at": 2.0}))
        journal.release(lease)
        return said
    finally:
        journal.close()


EXPECTED = [True, 2, 3, True, 10, 4, 1, 5, False]
STORED = [(1, "a"), (3, "soft"), (4, "c"), (5, "d")]


def _messages(proxy: Proxy, postgres: Cluster) -> int:
    """How many messages the story takes when nothing happens."""
    server = PostgresServer(StoreUrl(postgres.new_store(host=proxy.folder)))
    try:
        proxy.cut_at(None)
        assert _story(server) == EXPECTED
        return proxy.seen
    finally:
        server.close()


def test_a_connection_that_is_cut_at_any_message_loses_and_doubles_nothing(postgres: Cluster, proxy: Proxy) -> None:
    count = _messages(proxy, postgres)
    points = list(range(1, count + 1))
    if not SOAK:
        points = random.Random(SEED).sample(points, 20)
    toll = Toll()
    for number in points:
        server = PostgresServer(StoreUrl(postgres.new_store(host=proxy.folder)))
        journal = PostgresJournal(server)
        try:
            proxy.cut_at(number)
            said = _story(server)
            assert proxy.has_cut or number > count - 5, "the connections of the pool are made in another order"
            proxy.cut_at(None)
            where = f"cut at message {number} of {count}"
            record = journal.find("orders")
            assert record is not None
            stored = [(each.sequence, each.event.operation_id) for each in journal.read(record.execution_id)]
            toll.lost += [f"{where}: {row}" for row in STORED if row not in stored]
            toll.doubled += [f"{where}: {row}" for row in stored if stored.count(row) > 1 or row not in STORED]
            toll.doubled += [where] * (said[-1] is True)
            assert said == EXPECTED, where
            assert (record.status, record.due) == (Status.SUCCEEDED, None)
            assert journal.blob_refs() == {"ab" * 32}
        finally:
            journal.close()
            server.close()
    toll.require_none("connection cut, at each message of the protocol", cases=len(points), seed=SEED)


def test_what_cannot_be_found_out_is_said_and_not_guessed(postgres: Cluster, proxy: Proxy) -> None:
    server = PostgresServer(StoreUrl(postgres.new_store(host=proxy.folder)), patience=0.5)
    journal = PostgresJournal(server)
    try:
        execution = journal.create("orders", kind="handler", at=1.0, details={}).execution_id
        journal.append(execution, [event("before")])
        proxy.cut_at(None)
        journal.append(execution, [event("counted")])
        # The last message is the server's word that it has committed.
        proxy.cut_at(proxy.seen, for_good=True)
        with pytest.raises(StoreUnreadableError, match="whether its records are there is not known"):
            journal.append(execution, [event("unknown")])
        assert proxy.has_cut
    finally:
        journal.close()
        server.close()


# --- a server that is killed -----------------------------------------------------------------------------------------


KILLS = 12 if SOAK else 3


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 5))])
def test_a_server_that_is_killed_under_load_loses_nothing_acknowledged_and_doubles_nothing(
    postgres: Cluster, number: int
) -> None:
    server = PostgresServer(StoreUrl(postgres.new_store()))
    journal, markers = PostgresJournal(server), PostgresMarkers(server)
    executions = [journal.create(f"e{n}", kind="handler", at=1.0, details={}).execution_id for n in range(3)]
    told: list[tuple[str, int, str]] = []
    begun: list[tuple[str, bool]] = []
    ended = threading.Event()
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        draw = random.Random(f"{SEED} {number} {writer}")
        count = 0
        try:
            while not ended.is_set():
                execution = draw.choice(executions)
                names = [f"{writer}.{count}.{part}" for part in range(draw.choice((1, 1, 3)))]
                last = journal.append(execution, [event(name) for name in names], durable=draw.random() < 0.5)
                told.extend((execution, last - len(names) + 1 + n, name) for n, name in enumerate(names))
                if draw.random() < 0.3:
                    # Others ask for the same ones.
                    begun.append((f"pay {count // 4}", markers.claim("orders", f"pay {count // 4}", {"by": writer})))
                count += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        before = len(told)
        while len(told) < before + 150 and not failures:
            time.sleep(0.005)
        postgres.kill()
        postgres.start()
    before = len(told)
    while len(told) < before + 100 and not failures:
        time.sleep(0.005)
    ended.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    found = [(e, s.sequence, s.event.operation_id) for e in executions for s in journal.read(e)]
    toll = Toll()
    toll.lost += map(str, set(told) - set(found))
    toll.doubled += map(str, Counter(found) - Counter(told))
    for name in {name for name, _ in begun}:
        winners = begun.count((name, True))
        toll.doubled += [name] * (winners - 1)
        toll.lost += [name] * (winners == 0 or markers.read("orders", name) is None)
    claims = len({name for name, _ in begun})
    assert claims > KILLS
    toll.require_none(
        "PostgreSQL killed under load", cases=KILLS, seed=number, records=len(told), at_most_once_starts=claims
    )
    journal.close()
    server.close()


def test_what_was_acknowledged_without_the_disk_is_written_again_or_its_writer_is_told(postgres: Cluster) -> None:
    """The server forgets an append; nobody, or somebody else, has its number by then."""
    url = StoreUrl(postgres.new_store())
    server = PostgresServer(url)
    journal = PostgresJournal(server)
    quiet, taken = (journal.create(name, kind="handler", at=1.0, details={}).execution_id for name in "ab")
    journal.append(quiet, [event("first")])
    for execution in (quiet, taken):
        journal.append(execution, [event("soft")], durable=False)
    # What a kill does when the log was not written: done by hand, since the log may have been.
    postgres.sql(f"DELETE FROM {_schema(url)}.events WHERE operation_id = 'soft'")
    postgres.sql(f"UPDATE {_schema(url)}.executions SET last_sequence = last_sequence - 1")
    other = PostgresJournal(server)
    assert other.append(taken, [event("other")]) == 1
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'durable_nb'")
    with pytest.raises(JournalConflictError):
        journal.append(taken, [event("next")])
    assert journal.append(quiet, [event("next")]) == 3
    assert [each.event.operation_id for each in journal.read(quiet)] == ["first", "soft", "next"]
    assert journal.append(taken, [event("again")]) == 2
    journal.close()
    other.close()
    server.close()


def _schema(url: StoreUrl) -> str:
    return url.text.rpartition("schema=")[2]


# --- leases ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(postgres: Cluster) -> Iterator[PostgresJournal]:
    server = PostgresServer(StoreUrl(postgres.new_store()))
    journal = PostgresJournal(server)
    yield journal
    journal.close()
    server.close()


def _pretend_host(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Ask for leases as a process of another machine does, whose processes nobody here can see."""
    here = _postgres.this_process()
    monkeypatch.setattr(_postgres, "this_process", lambda: replace(here, host=host))


def test_a_holder_on_another_host_is_replaced_when_it_does_not_renew(
    journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = journal.create("orders", kind="handler", at=1.0, details={}).execution_id
    _pretend_host(monkeypatch, "elsewhere")
    theirs = journal.acquire(execution, ttl=0.6)
    monkeypatch.undo()
    with pytest.raises(LeaseHeldError):
        journal.acquire(execution, ttl=60)
    journal.renew(theirs, ttl=1.0)
    ours = _acquire_when_free(journal, execution)
    assert ours.token > theirs.token
    with pytest.raises(LeaseLostError):
        journal.append(execution, [event("late")], lease=theirs)
    with pytest.raises(LeaseLostError):
        journal.renew(theirs, ttl=60)
    journal.append(execution, [event("ours")], lease=ours)
    assert [each.event.operation_id for each in journal.read(execution)] == ["ours"]


def _acquire_when_free(journal: Journal, execution: str) -> Lease:
    while True:
        try:
            return journal.acquire(execution, ttl=60)
        except LeaseHeldError:
            time.sleep(0.05)


def test_a_lease_that_ran_out_is_kept_by_renewing_it_while_nobody_wants_it(journal: PostgresJournal) -> None:
    execution = journal.create("orders", kind="handler", at=1.0, details={}).execution_id
    lease = journal.acquire(execution, ttl=0.0)
    journal.renew(lease, ttl=60)  # the server was away for longer than the lease
    with pytest.raises(LeaseHeldError):
        journal.acquire(execution, ttl=60)


_HOLDER = """
import sys
from durable_nb.journal import PostgresJournal, PostgresServer
from durable_nb.settings import StoreUrl
journal = PostgresJournal(PostgresServer(StoreUrl(sys.argv[1])))
execution = journal.create("a", kind="notebook", at=1.0, details={}).execution_id
journal.acquire(execution, ttl=3600)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_holder_on_this_host_is_replaced_at_once(postgres: Cluster) -> None:
    url = postgres.new_store()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _HOLDER, url], **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        server = PostgresServer(StoreUrl(url))
        journal = PostgresJournal(server)
        record = journal.find("a")
        assert record is not None
        with pytest.raises(LeaseHeldError, match=str(holder.pid)):
            journal.acquire(record.execution_id, ttl=60)
        holder.kill()
        holder.wait()
        assert journal.acquire(record.execution_id, ttl=60).token == 2
        journal.close()
        server.close()


_RIVAL = """
import sys, time
from durable_nb.exceptions import LeaseHeldError
from durable_nb.journal import PostgresJournal, PostgresMarkers, PostgresServer
from durable_nb.settings import StoreUrl
from durable_nb.testing.conformance import event
server = PostgresServer(StoreUrl(sys.argv[1]))
journal, markers = PostgresJournal(server), PostgresMarkers(server)
execution = journal.create("a", kind="notebook", at=1.0, details={}).execution_id
turns = 0
while turns < 15:
    try:
        lease = journal.acquire(execution, ttl=60)
    except LeaseHeldError:
        time.sleep(0.001)
        continue
    last = sum(1 for _ in journal.read(execution))
    journal.append(execution, [event(sys.argv[2])], lease=lease, after=last)
    journal.append(execution, [event(sys.argv[2])], lease=lease, after=last + 1)
    journal.release(lease)
    turns += 1
print(sum(markers.claim("a", str(number), {}) for number in range(50)))
"""


def test_two_processes_that_contend_take_turns_and_claim_each_start_once(postgres: Cluster) -> None:
    url = postgres.new_store()
    rivals = [
        subprocess.Popen([sys.executable, "-c", _RIVAL, url, name], stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    claimed = [int(rival.communicate()[0]) for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0]
    assert sum(claimed) == 50
    server = PostgresServer(StoreUrl(url))
    journal = PostgresJournal(server)
    record = journal.find("a")
    assert record is not None
    names = [each.event.operation_id for each in journal.read(record.execution_id)]
    assert len(names) == 60
    assert names[::2] == names[1::2], "two turns ran into each other"
    journal.close()
    server.close()


def test_a_forked_child_leaves_the_connections_of_its_parent_alone(journal: PostgresJournal) -> None:
    execution = journal.create("a", kind="handler", at=1.0, details={}).execution_id
    journal.append(execution, [event("before")])
    child = os.fork()
    if child == 0:
        answers = 0
        for call in (lambda: journal.append(execution, [event("child")]), lambda: journal.find("a")):
            try:
                call()
            except StoreError:
                answers += 1
        journal.close()
        os._exit(answers)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    journal.append(execution, [event("after")])
    assert len(list(journal.read(execution))) == 2


def test_text_comes_back_as_it_was_also_where_the_server_cannot_hold_it(journal: PostgresJournal) -> None:
    name = "a\0b\uf8ff0\uf8ff"
    record = journal.create(name, kind="handler", at=1.0, details={"x": name})
    found = journal.find(name)
    assert found == record
    assert found is not None
    assert (found.name, found.details) == (name, {"x": name})
    journal.append(record.execution_id, [replace(event(name), name=name, sub_type=name, details={"y": name})])
    (stored,) = journal.read_operation(record.execution_id, name)
    assert (stored.event.name, stored.event.details, stored.trusted) == (name, {"y": name}, True)


def test_a_wrong_address_is_told_at_once_and_without_its_password(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnreadableError) as told:
        PostgresServer(StoreUrl(f"postgresql://me:hidden@/db?host={tmp_path}"))
    assert "hidden" not in str(told.value)
    assert "***" in str(told.value)
    assert time.monotonic() - began < 10
