"""Workers on one PostgreSQL: steps a second, round trips and commits, and how they grow with what is finished.

    python -m tests.benchmarks.load [--executions N] [--workers 1 2 4] [--finished 0 10000 100000] [--minutes M]
                                    [--peers PYTHON] [--docs FOLDER]

A server is started for the run, with fsync. Ours is a schema of one database, DBOS has another database of the same
server. In each round a side drives the same work with as many processes of its own (`durable-nb worker`, or executors
of DBOS that listen to one queue), which have started before. All executions are there and held back; the clock runs
from the transaction that lets them go to the moment when none is left. For each number of workers and of finished
executions the two come one right after the other, now ours first and now DBOS. What else the machine does is told as the
share of the processors that others used; seconds of the processor a step depend least on it.

Before each timed round the tables are emptied and filled with so many finished executions: one that a worker has driven,
copied row by row within the database under ids as that side gives them, in the order of time. Statistics are brought up
to date and all is on the disk before the round begins.

Round trips are counted in rounds of their own, by a proxy between the workers and the server that counts how often a
client asked for answers (a query, the end of a pipeline, a flush in it); it would slow the others down. Commits and
bytes of the log are the server's own counters, over the timed rounds.

The figures are on the disk after each round. A run that would need more than its time has fewer executions in the
rounds that are left, and says so. `--page` makes the page again from the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from tests.benchmarks.load_figures import Load, Round, growth, put, rounds_told, table
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
    tables: Sequence[str]
    """This one, and all others with rows of executions."""
    key: str
    """Their column that says of which."""
    id_of: str
    """An id for the n-th copy, made as those of this side are."""
    changed: Mapping[str, str]
    """What a copy has in the place of a column, where that differs."""

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

    @contextlib.contextmanager
    def workers(self, count: int, socket: Path) -> Iterator[list[int]]:
        """Workers that wait for work; their processes."""
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
                yield [worker.pid for worker in started]
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

    def keep_one(self) -> None:
        """Put a finished execution aside, of which `multiply` makes copies."""
        self.sql("CREATE SCHEMA kept")
        found = self.sql(f"SELECT {self.key} FROM {self.executions} WHERE status LIKE 'SUCCE%' LIMIT 1")[0][0]
        for each in self.tables:
            name = each.rpartition(".")[2]
            self.sql(f"CREATE TABLE kept.{name} AS SELECT * FROM {each} WHERE {self.key} = '{found}'")

    def empty(self) -> None:
        """Forget all executions."""
        self.sql(f"TRUNCATE {', '.join(self.tables)} CASCADE")
        self._made = 0

    def multiply(self, count: int) -> None:
        """Add so many copies of the one that was kept, as if they had been made one after the other until now."""
        first, last = self._made + 1, self._made + count
        numbers = f"SELECT {self.id_of} AS id FROM generate_series({first}, {last}) n ORDER BY n"
        for each in self.tables:
            schema, _, name = each.rpartition(".")
            columns = [
                str(row[0])
                for row in self.sql(
                    "SELECT column_name FROM information_schema.columns"
                    " WHERE table_schema = %s AND table_name = %s AND is_identity = 'NO'",
                    [schema, name],
                )
            ]
            values = ", ".join(self.changed.get(column, f"k.{column}") for column in columns)
            self.sql(
                f"INSERT INTO {each} ({', '.join(columns)})"
                f" SELECT {values} FROM ({numbers}) made CROSS JOIN kept.{name} k"
            )
        self._made = last

    def stored(self) -> int:
        """Bytes of its tables and indexes."""
        return sum(self.one(f"SELECT pg_total_relation_size('{each}')") for each in self.tables)


class Ours(Side):
    """`durable-nb worker` processes over a schema."""

    name = "durable_nb"
    key = "execution_id"
    changed: ClassVar = {
        "execution_id": "made.id",
        "name": "'finished-' || made.id",
        "operation_id": "CASE WHEN operation_id = execution_id THEN made.id ELSE operation_id END",
        "token": "CASE WHEN token IS NULL THEN NULL ELSE gen_random_uuid() END",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schema = "load"
        self.executions = f"{self.schema}.executions"
        self.tables = [self.executions, f"{self.schema}.events"]
        yesterday = int(1000 * (time.time() - 86400))
        self.id_of = f"lpad(to_hex({yesterday} + n), 12, '0') || '7' || substr(md5(n::text), 1, 19)"

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


class Dbos(Side):
    """Processes of DBOS that listen to one queue.

    Args:
        python: an interpreter that has it.
        poll: seconds between two looks of a worker; its default is 1.
    """

    name = "dbos"
    executions = "dbos.workflow_status"
    tables = tuple(
        f"dbos.{name}" for name in ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")
    )
    key = "workflow_uuid"
    id_of = "md5(n::text)::uuid::text"
    changed: ClassVar = {"workflow_uuid": "made.id"}

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


# --- rounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Counters:
    """What the server has counted of the side's database and of its log."""

    commits: int
    syncs: int
    wal: int
    pages: int

    @classmethod
    def of(cls, side: Side) -> _Counters:
        """As they stand."""
        side.sql("SELECT pg_stat_force_next_flush()")
        commits = side.one("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        return cls(commits, *map(int, side.sql("SELECT wal_sync, wal_bytes, wal_fpi FROM pg_stat_wal")[0]))

    def since(self, before: _Counters) -> dict[str, int]:
        """What has come to them."""
        return {name: value - getattr(before, name) for name, value in asdict(self).items()}


_CORES = os.cpu_count() or 1
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Used:
    """Seconds of the machine's processors."""

    ours: float
    """Of workers and server."""
    others: float

    @classmethod
    def by(cls, cluster: Cluster, workers: Sequence[int]) -> _Used:
        """What they and others have used until now."""
        server, *backends = cluster.processes()
        # The server's first process knows what those of its children have used that have ended.
        ours = _ticks(server, 4) + sum(_ticks(pid, 2) for pid in [*backends, *workers])
        user, nice, system, _idle, _waiting, irq, softirq, stolen = map(
            int, Path("/proc/stat").read_text(encoding="ascii").split()[1:9]
        )
        busy = user + nice + system + irq + softirq + stolen
        return cls(ours / _TICKS, (busy - ours) / _TICKS)

    def __sub__(self, before: _Used) -> _Used:
        return _Used(self.ours - before.ours, self.others - before.others)


def _ticks(pid: int, fields: int) -> int:
    """Time in user mode and in the kernel; with four fields that of ended children too. None of a process that ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return sum(map(int, text.rpartition(")")[2].split()[11 : 11 + fields]))


def run_round(side: Side, workers: int, executions: int, *, level: int = 0, counts: bool = False) -> Round:
    """One round; with `counts` behind a proxy that counts round trips.

    Raises:
        RuntimeError: a worker did not start, or an execution did not end as it should.
    """
    finished, stored = side.finished(), side.stored()
    side.prepare(executions)
    side.settle()
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(side.cluster.socket)) if counts else None
        before = _Counters.of(side)
        with side.workers(workers, side.cluster.folder if proxy is None else proxy.folder) as pids:
            before_it = proxy.round_trips if proxy is not None else 0
            used = _Used.by(side.cluster, pids)
            start = time.perf_counter()
            side.let_go()
            while left := side.left():
                if time.perf_counter() > start + LIMIT:
                    raise RuntimeError(f"{side.name}: {left} of {executions} executions have not ended")
                time.sleep(0.2)
            seconds = time.perf_counter() - start
            used = _Used.by(side.cluster, pids) - used
            trips = proxy.round_trips - before_it if proxy is not None else None
        # The server learns of the last transactions of a connection when it ends.
        counted = _Counters.of(side).since(before)
    if wrong := side.wrong():
        raise RuntimeError(f"{side.name}: {wrong} executions ended without all their steps")
    return Round(
        side=side.name, workers=workers, level=level, finished=finished, executions=executions,
        steps=executions * side.steps, seconds=seconds, processor=used.ours,
        others=used.others / seconds / _CORES, stored=stored, round_trips=trips, **counted,
    )  # fmt: skip


def commit_rate(cluster: Cluster, count: int = 300) -> float:
    """Commits a second of one connection, one row each, each on the disk."""
    with psycopg.connect(cluster.dsn, autocommit=True) as db:
        db.execute("CREATE TABLE IF NOT EXISTS commits (number integer)")
        start = time.perf_counter()
        for number in range(count):
            db.execute("INSERT INTO commits VALUES (%s)", [number])
        return count / (time.perf_counter() - start)


# --- the run ---------------------------------------------------------------------------------------------------------


class Clock:
    """How many executions a round may have when the run is to end in time.

    Args:
        minutes: of the run.
        wanted: executions of a round.
        timed: timed rounds of each side that are still to come.
    """

    LEAST = 100
    """Fewer say nothing: then the run takes longer."""

    def __init__(self, minutes: float, wanted: int, timed: Mapping[str, int]) -> None:
        self._end = time.monotonic() + 60 * minutes
        self._wanted = wanted
        self._left = dict(timed)
        self._costs: dict[str, tuple[float, int]] = {}

    def executions(self, side: str) -> int:
        """For the next timed round of this side."""
        if self._left.keys() - self._costs.keys():
            return self._wanted  # until each side has had a round, nobody knows
        whole = sum(self._costs[name][0] * left for name, left in self._left.items())
        share = (self._end - time.monotonic()) / whole if whole else 1.0
        most = int(share * self._costs[side][1])
        return max(min(self._wanted, most), min(self._wanted, self.LEAST))

    def took(self, side: str, seconds: float, executions: int) -> None:
        """A timed round of this side has taken so long, with all that belongs to it."""
        self._left[side] -= 1
        self._costs[side] = seconds, executions


def measured(options: argparse.Namespace, note: Callable[[Load], None]) -> Load:
    """Run what was asked for; `note` is told after each round.

    Raises:
        RuntimeError: a round went wrong.
    """
    from tests.benchmarks.report import machine

    load = Load({**machine(), "other work on it": _busy("when the run began")})
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dnb-load-")))
        cluster = stack.enter_context(Cluster.started(SETTINGS))
        sides: list[Side] = [Ours(cluster, threads=options.threads, steps=options.steps, folder=folder)]
        if options.peers:
            more = {"python": options.peers, "poll": options.poll}
            sides.append(Dbos(cluster, threads=options.threads, steps=options.steps, folder=folder, **more))
        rows = [(level, count) for level in options.finished for count in options.workers]
        clock = Clock(options.minutes, options.executions, {side.name: len(rows) for side in sides})
        load.machine |= {"software": _software(cluster, options.peers), "disk": _disk(cluster)}
        for side in sides:
            side.prepare(0)  # makes the tables
            run_round(side, 1, 5)
            side.keep_one()
        for number, (level, count) in enumerate(rows):
            order = sides if number % 2 == 0 else sides[::-1]
            for side in order:
                begun = time.monotonic()
                side.empty()
                side.multiply(level)
                executions = clock.executions(side.name)
                load.rounds.append(run_round(side, count, executions, level=level))
                clock.took(side.name, time.monotonic() - begun, executions)
                note(load)
            for side in order:
                load.rounds.append(run_round(side, count, options.counted, level=level, counts=True))
                note(load)
    minutes = (time.monotonic() - started) / 60
    load.machine["other work on it"] += f", {_busy('when it ended')}, which includes its own"
    load.machine["the run"] = f"{minutes:.0f} minutes, with all that is not timed"
    if options.note:
        load.machine["other work on it"] += f"; {options.note}"
    note(load)
    return load


def _busy(when: str) -> str:
    return f"a load of {os.getloadavg()[1]:.1f} {when}"


def _disk(cluster: Cluster) -> str:
    return f"{commit_rate(cluster):,.0f} commits a second of one connection that does nothing else"


def _software(cluster: Cluster, peers: str | None) -> str:
    found = [f"PostgreSQL {cluster.sql('SHOW server_version')[0][0]}", f"psycopg {psycopg.__version__}"]
    if peers:
        command = [peers, "-c", "from importlib.metadata import version; print(version('dbos'))"]
        found.append(f"DBOS {subprocess.check_output(command, text=True).strip()}")
    return ", ".join(found)


def options_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=1000, help="of a timed round")
    parser.add_argument("--counted", type=int, default=50, help="executions of a round that counts round trips")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--finished", type=int, nargs="+", default=[0, 10_000, 100_000])
    parser.add_argument("--minutes", type=float, default=40, help="time of the run")
    parser.add_argument(
        "--threads", type=int, default=16, help="executions that a worker drives at once, on both sides"
    )
    parser.add_argument("--poll", type=float, default=0.1, help="seconds between two looks of DBOS at its queue")
    parser.add_argument("--peers", help="an interpreter that has dbos; installed when left out")
    parser.add_argument("--alone", action="store_true", help="without DBOS")
    parser.add_argument("--docs", type=Path, help="folder of scale.md and scale.json; left out, nothing is written")
    parser.add_argument("--page", action="store_true", help="run nothing: make the page from scale.json")
    parser.add_argument("--note", default="", help="what else the machine did")
    return parser.parse_args(words)


def main() -> None:
    """Run what was asked for and print it."""
    from tests.benchmarks.report import install_peers

    options = options_of()
    if options.page:
        kept = (options.docs or ROOT / "docs") / "scale.json"
        _write_page(kept.parent, Load.of(json.loads(kept.read_text(encoding="utf-8"))))
        return
    if not options.alone and not options.peers:
        options.peers, why = install_peers()
        if options.peers is None:
            sys.exit(f"DBOS cannot be installed ({why}): give --peers PYTHON, or --alone to measure without it")

    def note(load: Load) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {json.dumps(asdict(load.rounds[-1]))}\n")
        if options.docs:
            (options.docs / "scale.json").write_text(json.dumps(load.raw(), indent=1) + "\n", encoding="utf-8")

    load = measured(options, note)
    if options.docs:
        _write_page(options.docs, load)
    sys.stdout.write(f"{rounds_told(load)}\n\n{table(load)}\n\n{growth(load)}\n")


def _write_page(folder: Path, load: Load) -> None:
    page = folder / "scale.md"
    page.write_text(put(page.read_text(encoding="utf-8"), load), encoding="utf-8")


if __name__ == "__main__":
    main()
