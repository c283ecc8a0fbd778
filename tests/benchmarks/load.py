"""Workers on one PostgreSQL: steps a second, round trips and commits, and how they grow with what is finished.

    python -m tests.benchmarks.load [--executions N] [--workers 1 2 4] [--finished 0 10000 100000] [--peers PYTHON]

A server is started for the run, with fsync. Ours is a schema of one database, DBOS has another database of the same
server. In each round both sides do the same work, one after the other, with as many processes of their own
(`durable-nb worker`, or executors of DBOS that listen to one queue), which have started before. All executions are
there and held back; the clock runs from the transaction that lets them go to the moment when none is left.

Round trips are counted in rounds of their own, by a proxy between the workers and the server that counts how often a
client asked for answers (a query, the end of a pipeline, a flush in it); it would slow the others down. Commits and
bytes of the log are the server's own counters, over the timed rounds.

What is finished was finished by workers too: one execution, which is copied within the database, rows and all, under
names of its own. The statistics are brought up to date afterwards, on both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.benchmarks.measure import ROOT
from tests.servers.postgres import Cluster
from tests.servers.proxy import Proxy

LIMIT = 900.0
"""Seconds after which a round is a failure."""

SETTINGS = {
    "fsync": "on",
    "wal_writer_delay": "200ms",
    "autovacuum": "on",
    "shared_buffers": "512MB",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "track_wal_io_timing": "on",
}
"""A server as one would run it: what tests switch off is on again."""

_KEY = "of the benchmark"


# --- sides -----------------------------------------------------------------------------------------------------------


class Side(ABC):
    """One engine: its place in the server and its workers.

    Args:
        cluster: the server.
        threads: how many executions a worker drives at once.
        steps: of each execution.
    """

    name: str
    executions: str
    """The table of executions."""

    def __init__(self, cluster: Cluster, *, threads: int, steps: int, folder: Path) -> None:
        self.cluster, self.threads, self.steps, self.folder = cluster, threads, steps, folder
        self._made = 0

    @property
    @abstractmethod
    def dsn(self) -> str:
        """Its database, for psycopg."""

    @abstractmethod
    def prepare(self, count: int) -> None:
        """So many executions that nobody takes yet."""

    @abstractmethod
    def let_go(self) -> None:
        """Let workers have them."""

    @abstractmethod
    def command(self, socket: Path) -> list[str]:
        """Of a worker that reaches the server in that folder."""

    @abstractmethod
    def are_ready(self, workers: Sequence[subprocess.Popen[bytes]]) -> bool:
        """Wait until all look for work; False when one has ended instead."""

    @abstractmethod
    def left(self) -> int:
        """Executions that have not ended."""

    @abstractmethod
    def wrong(self) -> int:
        """Executions that ended without all their steps or in an error."""

    @abstractmethod
    def multiply(self, count: int) -> None:
        """Copy a finished execution."""

    @contextlib.contextmanager
    def workers(self, count: int, socket: Path) -> Iterator[None]:
        """Workers that wait for work."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DURABLE_NB_", "PYTEST_", "COV_"))}
        env |= {"DURABLE_NB_KEY": _KEY, "DURABLE_NB_CACHE": str(self.folder / "cache")}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            started = [
                subprocess.Popen(self.command(socket), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log)
                for _ in range(count)
            ]
            try:
                if not self.are_ready(started):
                    raise RuntimeError((self.folder / f"{self.name}.log").read_text(errors="replace")[-2000:])
                yield
            finally:
                for worker in started:
                    worker.kill()  # nothing is left to do
                for worker in started:
                    worker.communicate()

    def sql(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run statements."""
        with psycopg.connect(self.dsn, autocommit=True) as db:
            cursor = db.execute(text.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, text: str) -> int:
        """The number that a statement gives."""
        return int(self.sql(text)[0][0])

    def finished(self) -> int:
        """Executions in the table."""
        return self.one(f"SELECT count(*) FROM {self.executions}")

    def settle(self) -> None:
        """Statistics, hint bits and dirty pages are no part of what comes next."""
        self.sql("VACUUM ANALYZE")
        self.cluster.sql("CHECKPOINT")

    def copy(
        self, table: str, count: int, where: str, changed: dict[str, str], *, left_out: Sequence[str] = ()
    ) -> None:
        """Copy the rows of a table that `where` chooses `count` times, under `id` as the execution's name."""
        schema, _, name = table.rpartition(".")
        columns = [
            str(row[0])
            for row in self.sql(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
                [schema, name],
            )
            if row[0] not in left_out
        ]
        values = ", ".join(changed.get(column, column) for column in columns)
        numbers = (
            f"SELECT md5('{self.name} ' || n) AS id FROM generate_series({self._made + 1}, {self._made + count}) n"
        )
        self.sql(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM ({numbers}) made, {table} WHERE {where}"
        )


class Ours(Side):
    """`durable-nb worker` processes over a schema."""

    name = "durable_nb"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schema = "load"
        self.executions = f"{self.schema}.executions"

    @property
    def dsn(self) -> str:
        return self.cluster.dsn

    def _url(self, socket: Path) -> str:
        return f"postgresql://durable@/postgres?host={socket}&schema={self.schema}"

    def prepare(self, count: int) -> None:
        from durable_nb.runtime import open_store
        from durable_nb.settings import Settings
        from tests.benchmarks.load_handler import load

        settings = Settings(key=_KEY, cache=str(self.folder / "cache"))
        store = open_store(self._url(self.cluster.folder), settings=settings)
        try:
            begun = self.finished()
            for number in range(count):
                load.start({"steps": self.steps}, name=f"load-{begun + number}", store=store)
        finally:
            store.close()
        self.sql(f"UPDATE {self.executions} SET due = 1e18 WHERE due IS NOT NULL")

    def let_go(self) -> None:
        self.sql(
            f"WITH told AS MATERIALIZED (SELECT pg_notify('durable_nb_{self.schema}', ''))"
            f" UPDATE {self.executions} SET due = extract(epoch FROM clock_timestamp()) FROM told WHERE due IS NOT NULL"
        )

    def command(self, socket: Path) -> list[str]:
        words = [
            "worker",
            "tests.benchmarks.load_handler",
            "--store",
            self._url(socket),
            "--threads",
            str(self.threads),
        ]
        return [sys.executable, "-m", "durable_nb.cli", *words]

    def are_ready(self, workers: Sequence[subprocess.Popen[bytes]]) -> bool:
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%durable_nb_{self.schema}%'"
        while all(worker.poll() is None for worker in workers):
            if self.one(asked) >= len(workers):
                return True
            time.sleep(0.05)
        return False

    def left(self) -> int:
        return self.one(
            f"SELECT count(*) FROM {self.executions}"
            " WHERE due IS NOT NULL AND status IN ('STARTED', 'PENDING', 'READY', 'RETRY')"
        )

    def wrong(self) -> int:
        return self.one(
            f"SELECT count(*) FROM {self.executions} e WHERE status <> 'SUCCEEDED' OR {self.steps} <>"
            f" (SELECT count(*) FROM {self.schema}.events v WHERE v.execution_id = e.execution_id"
            " AND v.type = 'STEP' AND v.kind = 'SUCCEEDED')"
        )

    def multiply(self, count: int) -> None:
        found = self.sql(f"SELECT execution_id FROM {self.executions} WHERE status = 'SUCCEEDED' LIMIT 1")[0][0]
        where = f"execution_id = '{found}'"
        names = {"execution_id": "made.id", "name": "made.id"}
        self.copy(self.executions, count, where, names, left_out=["number"])
        changed = {
            "execution_id": "made.id",
            "operation_id": "CASE WHEN operation_id = execution_id THEN made.id ELSE operation_id END",
            "token": "CASE WHEN token IS NULL THEN NULL ELSE gen_random_uuid() END",
        }
        self.copy(f"{self.schema}.events", count, where, changed)
        self._made += count


class Dbos(Side):
    """Processes of DBOS that listen to one queue.

    Args:
        python: an interpreter that has it.
        poll: seconds between two looks of a worker; its default is 1.
    """

    name = "dbos"
    executions = "dbos.workflow_status"

    def __init__(self, *args: Any, python: str, poll: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.python, self.poll = python, poll
        self.cluster.sql("CREATE DATABASE dbos")

    @property
    def dsn(self) -> str:
        return self._url(self.cluster.folder)

    def _url(self, socket: Path) -> str:
        return f"postgresql://durable@/dbos?host={socket}"

    def _run(self, socket: Path, *words: object) -> list[str]:
        return [self.python, "-W", "ignore", "-m", "tests.benchmarks.load_dbos", self._url(socket), *map(str, words)]

    def prepare(self, count: int) -> None:
        command = self._run(self.cluster.folder, "enqueue", count, self.steps)
        subprocess.run(command, cwd=ROOT, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)

    def let_go(self) -> None:
        self.sql(f"UPDATE {self.executions} SET queue_name = 'load' WHERE status = 'ENQUEUED'")

    def command(self, socket: Path) -> list[str]:
        return self._run(socket, "work", self.threads, self.poll)

    def are_ready(self, workers: Sequence[subprocess.Popen[bytes]]) -> bool:
        said = [worker.stdout.readline() for worker in workers if worker.stdout is not None]
        time.sleep(1.5)  # the thread of each that looks for queues does so once a second
        return set(said) == {b"ready\n"}

    def left(self) -> int:
        return self.one(f"SELECT count(*) FROM {self.executions} WHERE status IN ('ENQUEUED', 'PENDING')")

    def wrong(self) -> int:
        return self.one(
            f"SELECT count(*) FROM {self.executions} e WHERE status <> 'SUCCESS' OR {self.steps} <>"
            " (SELECT count(*) FROM dbos.operation_outputs o WHERE o.workflow_uuid = e.workflow_uuid)"
        )

    def multiply(self, count: int) -> None:
        found = self.sql(f"SELECT workflow_uuid FROM {self.executions} WHERE status = 'SUCCESS' LIMIT 1")[0][0]
        for table in ("workflow_status", "workflow_input", "workflow_output", "operation_outputs"):
            self.copy(f"dbos.{table}", count, f"workflow_uuid = '{found}'", {"workflow_uuid": "made.id"})
        self._made += count


# --- rounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """What one side did in one round."""

    side: str
    workers: int
    level: int
    """Finished executions that were asked for."""
    finished: int
    """Those that were in the table when it began: each round leaves its own."""
    steps: int
    seconds: float
    commits: int
    """Transactions that the server has committed, of those that watch too."""
    syncs: int
    """How often the server waited for the disk of its log."""
    wal: int
    """Bytes of its log."""
    round_trips: int | None = None
    """Counted in rounds that are not timed."""

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds


@dataclass(slots=True)
class Load:
    """All rounds of a run."""

    commit_rate: float
    """Commits a second of one connection that does nothing else."""
    rounds: list[Round] = field(default_factory=list)

    def timed(self, side: str, workers: int, level: int) -> Round | None:
        """The round in the middle."""
        chosen = sorted(self._of(side, workers, level, counted=False), key=lambda one: one.rate)
        return chosen[len(chosen) // 2] if chosen else None

    def trips(self, side: str, workers: int, level: int) -> float | None:
        """Round trips a step."""
        counted = [(one.round_trips or 0) / one.steps for one in self._of(side, workers, level, counted=True)]
        return statistics.median(counted) if counted else None

    def _of(self, side: str, workers: int, level: int, *, counted: bool) -> Iterator[Round]:
        for one in self.rounds:
            if (one.side, one.workers, one.level, one.round_trips is not None) == (side, workers, level, counted):
                yield one


def _counters(side: Side) -> tuple[int, int, int]:
    """Transactions of the side's database, syncs and bytes of the server's log."""
    side.sql("SELECT pg_stat_force_next_flush()")
    commits = side.one("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    syncs, wal = side.sql("SELECT wal_sync, wal_bytes FROM pg_stat_wal")[0]
    return commits, int(syncs), int(wal)


def run_round(side: Side, workers: int, executions: int, *, level: int = 0, counts: bool = False) -> Round:
    """One round; with `counts` behind a proxy that counts round trips.

    Raises:
        RuntimeError: a worker did not start, or an execution did not end as it should.
    """
    finished = side.finished()
    side.prepare(executions)
    side.settle()
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(side.cluster.socket)) if counts else None
        before = _counters(side)
        with side.workers(workers, side.cluster.folder if proxy is None else proxy.folder):
            before_it = proxy.round_trips if proxy is not None else 0
            start = time.perf_counter()
            side.let_go()
            while side.left():
                if time.perf_counter() > start + LIMIT:
                    raise RuntimeError(f"{side.name}: {side.left()} of {executions} executions have not ended")
                time.sleep(0.2)
            seconds = time.perf_counter() - start
            trips = proxy.round_trips - before_it if proxy is not None else None
        # The server learns of the last transactions of a connection when it ends.
        commits, syncs, wal = (after - was for after, was in zip(_counters(side), before, strict=True))
    steps = executions * side.steps
    return Round(side.name, workers, level, finished, steps, seconds, commits, syncs, wal, trips)


def commit_rate(cluster: Cluster, count: int = 300) -> float:
    """Commits a second of one connection, one row each, each on the disk."""
    with psycopg.connect(cluster.dsn, autocommit=True) as db:
        db.execute("CREATE TABLE IF NOT EXISTS commits (number integer)")
        start = time.perf_counter()
        for number in range(count):
            db.execute("INSERT INTO commits VALUES (%s)", [number])
        return count / (time.perf_counter() - start)


# --- the table -------------------------------------------------------------------------------------------------------


def table(load: Load, sides: Sequence[str], workers: Sequence[int], levels: Sequence[int]) -> str:
    """The figures, as Markdown."""
    head = ["finished before", "workers"]
    for side in sides:
        head += [f"{side}: steps a second", "round trips a step", "commits a step", "syncs a step", "KB of log a step"]
    lines = [f"| {' | '.join(head)} |", f"|{' ---: |' * len(head)}"]
    for level in levels:
        for count in workers:
            cells = [f"{level:,}", str(count)]
            for side in sides:
                one, trips = load.timed(side, count, level), load.trips(side, count, level)
                if one is None:
                    cells += [""] * 5
                    continue
                cells += [f"{one.rate:,.0f}", "" if trips is None else f"{trips:.2f}", f"{one.commits / one.steps:.2f}"]
                cells += [f"{one.syncs / one.steps:.2f}", f"{one.wal / one.steps / 1000:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"One connection that does nothing but commit: {load.commit_rate:,.0f} commits a second."]
    return "\n".join(lines)


def measured(options: argparse.Namespace) -> Load:
    """Run what was asked for."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dnb-load-")))
        cluster = stack.enter_context(Cluster.started(SETTINGS))
        sides: list[Side] = [Ours(cluster, threads=options.threads, steps=options.steps, folder=folder)]
        if options.peers:
            more = {"python": options.peers, "poll": options.poll}
            sides.append(Dbos(cluster, threads=options.peer_threads, steps=options.steps, folder=folder, **more))
        load = Load(commit_rate(cluster))
        for side in sides:
            side.prepare(0)  # makes the tables
            run_round(side, 1, 5)  # makes what is copied
        for level in options.finished:
            for side in sides:
                side.multiply(max(0, level - side.finished()))
            for number in range(options.rounds):
                for count in options.workers:
                    executions = options.executions if level == options.finished[0] else options.later
                    for side in sides if number % 2 == 0 else reversed(sides):
                        _add(load, run_round(side, count, executions, level=level))
            for count in options.counted_workers:
                for side in sides:
                    _add(load, run_round(side, count, options.counted, level=level, counts=True))
        for side in sides:
            if wrong := side.wrong():
                raise RuntimeError(f"{side.name}: {wrong} executions ended without all their steps")
    return load


def _add(load: Load, one: Round) -> None:
    load.rounds.append(one)
    sys.stderr.write(f"{json.dumps(asdict(one))}\n")


def options_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=1000)
    parser.add_argument("--later", type=int, help="executions of a round at all levels but the first; as many")
    parser.add_argument("--counted", type=int, default=50, help="executions of a round that counts round trips")
    parser.add_argument("--counted-workers", type=int, nargs="+", help="in these rounds; as in the others")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--finished", type=int, nargs="+", default=[0, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=8, help="executions that a worker of ours drives at once")
    parser.add_argument("--peer-threads", type=int, default=8, help="the same for DBOS")
    parser.add_argument("--poll", type=float, default=0.1, help="seconds between two looks of DBOS at its queue")
    parser.add_argument("--peers", help="an interpreter that has dbos; installed when left out")
    parser.add_argument("--alone", action="store_true", help="without DBOS")
    options = parser.parse_args(words)
    options.later = options.later or options.executions
    options.counted_workers = options.counted_workers or options.workers
    return options


def main() -> None:
    """Run what was asked for and print it."""
    from tests.benchmarks.report import install_peers, machine

    options = options_of()
    if not options.alone and not options.peers:
        options.peers, why = install_peers()
        if options.peers is None:
            sys.stderr.write(f"without DBOS: {why}\n")
    load = measured(options)
    sides = [Ours.name, *([Dbos.name] if options.peers else [])]
    facts = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    sys.stdout.write(f"{table(load, sides, options.workers, options.finished)}\n\n{facts}\n")


if __name__ == "__main__":
    main()
