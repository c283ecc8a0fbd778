"""The benchmark of workers runs, small; and what its figures rest on: round trips of a call, and the way to what is due."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable_nb.events import Event, EventKind, OperationType
from durable_nb.journal._sql import queries
from durable_nb.runtime import open_store
from durable_nb.settings import Settings
from tests.benchmarks.load import Clock, Ours, run_round
from tests.benchmarks.load_figures import BEGIN, END, Load, Round, growth, put, rounds_told, table
from tests.servers.postgres import Cluster
from tests.servers.proxy import Proxy


@pytest.fixture(scope="module")
def side(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    side = Ours(postgres, threads=2, steps=4, folder=tmp_path_factory.mktemp("load"))
    side.prepare(0)
    yield side
    side.sql(f"DROP SCHEMA IF EXISTS kept, {side.schema} CASCADE")


def test_workers_drive_all_and_the_page_tells_it(side: Ours) -> None:
    run_round(side, 1, 1)
    side.keep_one()
    side.empty()
    side.multiply(7)
    timed, counted = run_round(side, 2, 6, level=7), run_round(side, 2, 3, level=7, counts=True)
    assert side.left() == side.wrong() == 0
    assert (timed.finished, timed.steps, counted.finished, side.finished()) == (7, 24, 13, 16)
    assert counted.round_trips is not None
    assert counted.round_trips >= counted.steps, "each step commits"
    load = Load({"processor": "a slow one"}, [timed, counted])
    assert Load.of(json.loads(json.dumps(load.raw()))) == load
    page = put(f"above\n{BEGIN}\nold\n{END}\nbelow", load)
    assert put(page, load) == page
    assert (page.startswith(f"above\n{BEGIN}"), page.endswith(f"{END}\nbelow"), "old" in page) == (True, True, False)
    (row,) = [line for line in page.splitlines() if line.startswith("| 7 | 2 |")]
    rate, processor, trips, commits, _, log = (float(cell.replace(",", "")) for cell in row.split("|")[3:-1])
    assert min(rate, processor, trips, commits, log) > 0
    assert timed.processor < 100, "seconds, of a round that takes a few"
    assert "1 timed rounds of 6 executions of 4 steps" in page
    assert "- processor: a slow one" in page


def test_what_was_not_run_is_not_left_blank() -> None:
    def done(side: str, workers: int, level: int, executions: int = 1000, trips: int | None = None) -> Round:
        return Round(
            side=side, workers=workers, level=level, finished=level, executions=executions, steps=executions * 20,
            seconds=executions / 50, commits=executions * 20, syncs=1, wal=executions * 20_000, pages=1, stored=10**9,
            processor=executions * 0.04, others=0.25, round_trips=trips,
        )  # fmt: skip

    load = Load({}, [done("a", 1, 0), done("a", 1, 0, 50, 1500), done("b", 2, 0), done("a", 1, 100, 300)])
    text = table(load)
    assert "| 0 | 1 | 1,000 | 2.00 | 1.50 | 1.00 | 0.00 | 1.00 | not run |" in text
    assert "|  |" not in text
    assert "a with 1 at 100: 300" in rounds_told(load)
    assert "| 1 | 1.00 | 1.00 | not run | 1.00 | 1.00 GB | not run |" in growth(load)
    assert "others used 25 to 25 % of the processors" in rounds_told(load)
    with pytest.raises(ValueError, match="no place"):
        put("nothing", load)


def test_a_run_that_comes_late_has_shorter_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(10, 1000, {"a": 3, "b": 2})
    assert clock.executions("a") == 1000
    clock.took("a", 60, 1000)
    assert clock.executions("b") == 1000, "nobody knows how long it takes"
    clock.took("b", 180, 1000)
    now += 240
    assert clock.executions("a") == 1000, "300 seconds are needed, and 360 left"
    now += 210
    assert clock.executions("a") == 500
    now += 10_000
    assert clock.executions("b") == Clock.LEAST


def test_what_an_execution_writes_lies_together(postgres: Cluster, tmp_path: Path) -> None:
    """After a checkpoint the log has each page whole that is changed for the first time: they are few."""
    url = postgres.new_store()
    store = open_store(url, settings=Settings(key="k", cache=str(tmp_path)))
    schema = url.rpartition("=")[2]
    try:
        # Ids of operations are the same in all executions of a handler: here 300, in 200 executions that have ended.
        made = [store.journal.create(str(number), kind="handler", at=0.0, details={}) for number in range(201)]
        assert {one.execution_id[12] for one in made} == {"7"}, "the version of the UUID"
        postgres.sql(
            f"INSERT INTO {schema}.events (execution_id, sequence, operation_id, kind, type, at, attempt)"
            f" SELECT execution_id, n, md5(n::text) || md5(n::text), 'SUCCEEDED', 'STEP', 0, 1"
            f" FROM {schema}.executions, generate_series(1, 300) n WHERE name <> '200' ORDER BY number, n"
        )
        postgres.sql("CHECKPOINT")

        def pages() -> int:
            postgres.sql("SELECT pg_stat_force_next_flush()")
            return int(str(postgres.sql("SELECT wal_fpi FROM pg_stat_wal")[0][0]))

        before = pages()
        steps = [hashlib.md5(str(n).encode()).hexdigest() * 2 for n in range(1, 301)]
        events = [Event(operation_id=step, kind=EventKind.SUCCEEDED, type=OperationType.STEP, at=0.0) for step in steps]
        store.journal.append(made[-1].execution_id, events)
        store.close()  # the server counts what a connection did when it ends
        assert postgres.sql("SHOW full_page_writes") == [("on",)]
        assert 0 < pages() - before < 30
    finally:
        store.close()


def test_each_call_costs_the_round_trips_that_are_told(postgres: Cluster, tmp_path: Path) -> None:
    with Proxy(postgres.socket) as proxy:
        settings = Settings(key="k", cache=str(tmp_path))
        store = open_store(postgres.new_store(host=proxy.folder), settings=settings)
        try:
            journal = store.journal

            def cost(call: Callable[[], object]) -> int:
                """The least of several times: at first connections are made, and statements prepared."""
                counts = []
                for _ in range(8):
                    before = proxy.round_trips
                    call()
                    counts.append(proxy.round_trips - before)
                return min(counts)

            def add() -> None:
                event = Event(operation_id="step", kind=EventKind.SUCCEEDED, type=OperationType.STEP, at=0.0)
                journal.append(record.execution_id, [event], lease=lease)

            record = journal.create("one", kind="handler", at=0.0, details={})
            other = journal.create("other", kind="handler", at=0.0, details={})
            lease = journal.acquire(record.execution_id, ttl=60)
            assert cost(add) == 2
            assert cost(lambda: journal.renew(lease, ttl=60)) == 1
            assert cost(lambda: list(journal.read(record.execution_id))) == 1
            assert cost(lambda: journal.release(journal.acquire(other.execution_id, ttl=60))) == 2
        finally:
            store.close()


@pytest.mark.soak  # which way the planner takes depends on its statistics, so that it is looked at with time at hand
def test_finished_executions_do_not_lengthen_a_claim(side: Ours) -> None:
    if not side.sql("SELECT 1 FROM pg_namespace WHERE nspname = 'kept'"):
        run_round(side, 1, 1)
        side.keep_one()
    side.prepare(40)
    looked = []
    for _ in range(2):
        side.multiply(1500)
        side.settle()
        looked.append(_blocks_of_a_claim(side))
    assert looked[1] <= looked[0] + 2


def _blocks_of_a_claim(side: Ours) -> int:
    """How many blocks the search for due executions looks at."""
    values = {
        "owner": "o", "host": "h", "pid": 1, "started": "s", "claim": "c", "ttl": 30.0, "now": 2e18, "kind": "handler",
        "without": [], "queue": None, "other_queues": [], "limit": 5,
    }  # fmt: skip
    with psycopg.connect(side.dsn) as db:
        db.execute(f"SET search_path = {side.schema}".encode())
        found = db.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + queries("postgres")["claim_due"], values)
        plan = found.fetchall()[0][0][0]["Plan"]
        db.rollback()
    nodes = list(_nodes(plan))
    search = [node for node in nodes if node.get("Index Name") == "executions_due"]
    assert search, json.dumps(plan)
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"], json.dumps(plan)
    return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in search)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
