"""The benchmark of workers runs, small; and what its figures rest on: round trips of a call, and the way to what is due."""

from __future__ import annotations

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
from tests.benchmarks.load import Load, Ours, run_round, table
from tests.servers.postgres import Cluster
from tests.servers.proxy import Proxy


@pytest.fixture(scope="module")
def side(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    side = Ours(postgres, threads=2, steps=4, folder=tmp_path_factory.mktemp("load"))
    side.prepare(0)
    yield side
    side.sql(f"DROP SCHEMA {side.schema} CASCADE")


def test_workers_drive_all_and_the_table_tells_it(side: Ours) -> None:
    timed, counted = run_round(side, 2, 6), run_round(side, 1, 3, counts=True)
    assert side.left() == 0
    assert side.wrong() == 0
    assert side.finished() == 9
    assert timed.steps == 24
    assert counted.round_trips is not None
    assert counted.round_trips >= counted.steps, "each step commits"
    text = table(Load(100.0, [timed, counted]), [side.name], [1, 2], [0])
    (row,) = [line.split("|") for line in text.splitlines() if line.startswith("| 0 | 2 |")]
    assert float(row[3].replace(",", "")) > 0
    assert row[4].strip() == "", "round trips were counted with one worker only"
    assert "100 commits a second" in text


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
    run_round(side, 1, 1)
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
