"""Every journal of ours keeps the promises of the port."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from durable_nb.abc import Journal
from durable_nb.events import CELL, OperationType
from durable_nb.exceptions import LeaseHeldError, StoreError, StoreUnreadableError, StoreVersionError
from durable_nb.journal import (
    FileMarkers,
    JournalWrapper,
    MemoryJournal,
    PostgresJournal,
    PostgresServer,
    SqliteJournal,
    _postgres_server,
)
from durable_nb.journal._sql import queries
from durable_nb.settings import StoreUrl
from durable_nb.testing.conformance import JournalTests, event
from tests.servers.postgres import Cluster


def sign(data: bytes) -> bytes:
    return hashlib.blake2b(data, key=b"one", digest_size=16).digest()


def other_sign(data: bytes) -> bytes:
    return hashlib.blake2b(data, key=b"two", digest_size=16).digest()


class TestMemoryJournal(JournalTests):
    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()


class TestSqliteJournal(JournalTests):
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[Journal]:
        journal = SqliteJournal(tmp_path / "store" / "journal.db", signer=sign)
        yield journal
        journal.close()


class TestPostgresJournal(JournalTests):
    @pytest.fixture
    def journal(self, postgres: Cluster) -> Iterator[Journal]:
        server = PostgresServer(StoreUrl(postgres.new_store()))
        journal = PostgresJournal(server, signer=sign)
        yield journal
        journal.close()
        server.close()


def test_a_store_on_a_server_of_the_first_format_is_brought_up_to_date(
    postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_store()
    schema = StoreUrl(url).text.rpartition("=")[2]
    made = _postgres_server.migrations("postgres")
    with monkeypatch.context() as patch:
        patch.setattr(_postgres_server, "migrations", lambda _: made[:1])
        server = PostgresServer(StoreUrl(url))
        assert server.query("list_executions") == []
        old = PostgresJournal(server, signer=sign)
        execution = old.create("a", kind="notebook", at=1.0, details={}).execution_id
        cell = replace(event("x", payload=b"good"), type=OperationType.CONTEXT, sub_type=CELL)
        old.append(execution, [event("s"), cell])
        old.close()
        server.close()
    assert postgres.sql(f"SELECT format FROM {schema}.store") == [(1,)]
    server = PostgresServer(StoreUrl(url))
    journal = PostgresJournal(server, signer=sign)
    assert postgres.sql(f"SELECT format FROM {schema}.store") == [(len(made),)]
    journal.append(execution, [event("s")])
    assert [(each.sequence, each.trusted) for each in journal.read_operation(execution, "s")] == [(1, True), (3, True)]
    assert [each.event for each in journal.find_cell("x")] == [cell]
    assert journal.forget(execution, "s") == 2
    journal.close()
    with monkeypatch.context() as patch:
        patch.setattr(_postgres_server, "migrations", lambda _: made[:1])
        with pytest.raises(StoreVersionError, match=f"format {len(made)}"):
            PostgresServer(StoreUrl(url))
    server.close()


def test_each_search_of_operations_on_a_server_has_its_index(postgres: Cluster) -> None:
    server = PostgresServer(StoreUrl(postgres.new_store()))
    with server.connect() as db:
        db.execute(
            "INSERT INTO events (execution_id, sequence, operation_id, kind, type, sub_type, at, attempt)"
            " SELECT 'e', n, n, 'SUCCEEDED', 'STEP', CASE WHEN n % 9 = 0 THEN 'Cell' END, 0, 1"
            " FROM generate_series(1, 3000) n"
        )
        db.execute("ANALYZE events")
        for name, values, index in (
            ("read_operation", ["e", "9", "9"], "events_operation"),
            ("forget_operation_events", ["e", "9", "9"], "events_operation"),
            ("find_cell", ["9"], "events_cell"),
        ):
            plan = "\n".join(row[0] for row in db.execute("EXPLAIN " + queries("postgres")[name], values))
            assert index in plan, plan
    server.close()


class TestJournalWrapper(JournalTests):
    @pytest.fixture
    def journal(self) -> Journal:
        return JournalWrapper(MemoryJournal())


def test_a_row_signed_with_another_key_is_not_trusted(tmp_path: Path) -> None:
    ours = SqliteJournal(tmp_path / "journal.db", signer=sign)
    execution = ours.create("a", kind="handler", at=1.0, details={}).execution_id
    ours.append(execution, [event()])
    ours.close()
    theirs = SqliteJournal(tmp_path / "journal.db", signer=other_sign)
    assert [stored.trusted for stored in theirs.read(execution)] == [False]
    theirs.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [("payload", b"evil"), ("name", "pay"), ("details", '{"seconds": 1}'), ("attempt", 2), ("operation_id", "x")],
)
def test_changing_any_column_of_a_row_loses_trust(tmp_path: Path, column: str, value: object) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", signer=sign)
    execution = journal.create("a", kind="handler", at=1.0, details={}).execution_id
    journal.append(execution, [event(payload=b"good")])
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute(f"UPDATE events SET {column} = ?", (value,))
    db.close()
    again = SqliteJournal(tmp_path / "journal.db", signer=sign)
    assert [stored.trusted for stored in again.read(execution)] == [False]
    again.close()


def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "journal.db"
    SqliteJournal(place).close()
    with sqlite3.connect(place) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = place.read_bytes()
    with pytest.raises(StoreVersionError, match="format 99"):
        SqliteJournal(place)
    assert place.read_bytes() == before


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is not a database, it only has its name " * 50)
    with pytest.raises(StoreUnreadableError):
        SqliteJournal(text)
    assert text.read_text().startswith("this is not a database")
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(StoreUnreadableError, match="another program"):
        SqliteJournal(foreign)


def test_store_and_database_are_for_their_owner_only(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "store" / "journal.db").close()
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "store" / "journal.db").stat().st_mode & 0o777 == 0o600


_HOLDER = """
import sys
from durable_nb.journal import SqliteJournal
journal = SqliteJournal(sys.argv[1])
execution = journal.create("a", kind="notebook", at=1.0, details={}).execution_id
lease = journal.acquire(execution, ttl=3600)
from durable_nb.testing.conformance import event
journal.append(execution, [event("committed")], lease=lease)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_holder_is_replaced_and_what_it_committed_is_there(tmp_path: Path) -> None:
    place = tmp_path / "journal.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    journal = SqliteJournal(place)
    record = journal.find("a")
    assert record is not None
    with pytest.raises(LeaseHeldError, match=str(holder.pid)):
        journal.acquire(record.execution_id, ttl=60)
    holder.send_signal(signal.SIGSTOP)  # stopped is not dead
    with pytest.raises(LeaseHeldError):
        journal.acquire(record.execution_id, ttl=60)
    holder.kill()
    holder.wait()
    assert journal.acquire(record.execution_id, ttl=60).token == 2
    assert [stored.event.operation_id for stored in journal.read(record.execution_id)] == ["committed"]
    journal.close()
    holder.stdout.close()
    assert holder.stdin is not None
    holder.stdin.close()


def test_a_forked_child_does_not_write(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    execution = journal.create("a", kind="handler", at=1.0, details={}).execution_id
    child = os.fork()
    if child == 0:
        try:
            journal.append(execution, [event()])
        except StoreError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    journal.append(execution, [event()])
    assert len(list(journal.read(execution))) == 1
    journal.close()


def test_the_markers_of_an_execution_are_listed_and_torn_ones_are_not(tmp_path: Path) -> None:
    markers = FileMarkers(tmp_path / "started")
    assert list(markers.of("nb")) == []
    for execution, name in (("nb", "pay"), ("nb", "send"), ("other", "pay")):
        assert markers.claim(execution, name, {"at": 1.0})
    (tmp_path / "started" / "torn.json").write_text("{")
    found = sorted(markers.of("nb"), key=lambda facts: str(facts["name"]))
    assert found == [{"execution": "nb", "name": name, "at": 1.0} for name in ("pay", "send")]


def test_a_marker_is_claimed_once_and_survives_a_torn_write(tmp_path: Path) -> None:
    markers = FileMarkers(tmp_path / "started")
    assert markers.read("nb", "pay") is None
    assert markers.claim("nb", "pay", {"at": 1.0})
    assert not FileMarkers(tmp_path / "started").claim("nb", "pay", {"at": 2.0})
    assert markers.claim("nb", "pay 2", {"at": 1.0})
    assert markers.claim("n", "bpay", {"at": 1.0}), "execution and name must not run into each other"
    found = markers.read("nb", "pay")
    assert found is not None
    assert found["at"] == 1.0
    for path in (tmp_path / "started").iterdir():
        path.chmod(0o600)
        path.write_text("{")
    assert markers.read("nb", "pay") is not None
    assert "pay" not in [facts["name"] for facts in markers.of("nb")]
    assert not markers.claim("nb", "pay", {"at": 4.0}), "a torn one exists"
    assert markers.read("nb", "pay") == {"execution": "nb", "name": "pay", "at": 4.0}, "and is whole from now on"
    assert [path.suffix for path in (tmp_path / "started").iterdir()] == [".json"] * 3
    markers.clear("nb", "pay")
    assert markers.claim("nb", "pay", {"at": 3.0})
