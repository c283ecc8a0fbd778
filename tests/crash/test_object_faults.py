"""Random lives of a shared store whose bucket answers 500, slowly, with what was there before, half, or not at all.

Each seed is a program of writes, reads and at-most-once steps by two machines. A model knows what was acknowledged. While
the bucket fails everything may be refused, and nothing false may be given back; when it is well again, what was
acknowledged is there.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from durable_nb.exceptions import DamagedBlobError, MissingBlobError, StoreError
from durable_nb.maintenance import Budget, check, collect
from durable_nb.runtime import Store, open_store
from durable_nb.settings import Settings
from durable_nb.snapshot import _objects
from durable_nb.testing.conformance import event
from tests.crash.evidence import Toll
from tests.servers import s3
from tests.servers.postgres import Cluster

SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
OPERATIONS = 24
FAULTS = ("500", "503", "slow", "refused", "unknown", "cut", "stale")
MACHINES = ("one", "two")


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Bucket]:
    with s3.started() as bucket:
        yield bucket


@pytest.fixture
def bucket(server: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Bucket]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_objects, "PATIENCE", 0.5)
    monkeypatch.setattr(_objects, "_PAUSE", 0.1)
    yield server
    server.draw = lambda _: None


@contextmanager
def _opened(url: str, cache: Path, bucket: s3.Bucket) -> Iterator[Store]:
    store = open_store(url, settings=Settings(key="team", cache=str(cache), blobs=bucket.url))
    try:
        yield store
    finally:
        store.close()


class _Life:
    """One seed: the machines, the model, and what was found wrong."""

    def __init__(self, postgres: Cluster, bucket: s3.Bucket, folder: Path, draw: random.Random) -> None:
        self.postgres, self.bucket, self.folder, self.draw = postgres, bucket, folder, draw
        self.url = postgres.new_store()
        self.stores: dict[str, Store] = {}
        self.open = ExitStack()
        self.data: dict[str, bytes] = {}
        """What each address stands for, acknowledged or not."""
        self.acknowledged: set[str] = set()
        self.begun: Counter[str] = Counter()
        self.ended: dict[str, str] = {}
        """At-most-once steps whose end was acknowledged, and the blob of their result."""
        self.refused = 0
        self.faults = 0
        self.toll = Toll()
        self.rate = 0.0
        self.fate = random.Random(draw.random())
        """Draws faults, in the threads of the bucket."""

    def fault(self, method: str) -> str | None:
        """What happens to a request of the bucket."""
        if self.fate.random() >= self.rate:
            return None
        self.faults += 1
        return self.fate.choice(FAULTS)

    def start(self, machine: str) -> None:
        """Open the store on a machine, which may have lost its copies."""
        if self.draw.random() < 0.7:
            shutil.rmtree(self.folder / machine, ignore_errors=True)
        self.stores[machine] = self.open.enter_context(_opened(self.url, self.folder / machine, self.bucket))

    def blob(self) -> bytes:
        """New bytes, most of them for the bucket, some in several parts, some for the database."""
        return self.draw.randbytes(self.draw.choice((1000, 300_000, 300_000, 400_000, 5_500_000)))

    def step(self) -> None:
        """One operation; what it is refused is counted."""
        store = self.stores[self.draw.choice(MACHINES)]
        try:
            self.draw.choice((self.write, self.write, self.write_again, self.read, self.read, self.once))(store)
        except StoreError:
            self.refused += 1

    def write(self, store: Store) -> None:
        self._write(store, self.blob())

    def write_again(self, store: Store) -> None:
        if self.data:
            self._write(store, self.data[self.draw.choice(list(self.data))])

    def _write(self, store: Store, data: bytes, name: str | None = None) -> None:
        address = store.blobs.put(data)
        self.data[address] = data
        record = store.journal.create("book", kind="notebook", at=1.0, details={})
        store.journal.append(record.execution_id, [event(name or address[:16])], payload_refs=[address])
        self.acknowledged.add(address)
        if name is not None:
            self.ended[name] = address

    def read(self, store: Store) -> None:
        if self.data:
            address = self.draw.choice(list(self.data))
            if self.draw.random() < 0.7:
                store.blobs.cache.delete(address)
            found = bytes(self.draw.choice((store.blobs.get, store.blobs.map))(address))
            if found != self.data[address]:
                self.toll.wrong.append(f"{address[:8]} was given back as something else")

    def once(self, store: Store) -> None:
        """An at-most-once step: its start is claimed, its body begins, its result is written."""
        name = f"pay{self.draw.randrange(4)}"
        if store.markers.claim("book", name, {"at": 1.0}):
            self.begun[name] += 1
            self._write(store, self.blob(), name)

    def require_whole(self) -> None:
        """A machine that has no copies finds everything."""
        with _opened(self.url, self.folder / "third", self.bucket) as store:
            for address in self.acknowledged:
                try:
                    if store.blobs.get(address) != self.data[address]:
                        self.toll.wrong.append(address)
                except (DamagedBlobError, MissingBlobError) as exc:
                    self.toll.lost.append(str(exc))
            report = check(store)
            self.toll.lost += report.of("missing blob") + report.of("damaged blob")
            record = store.journal.find("book")
            rows = (
                {} if record is None else Counter(s.event.operation_id for s in store.journal.read(record.execution_id))
            )
            self.toll.lost += [name for name in self.ended if name not in rows]
            self.toll.doubled += [name for name in self.ended if rows[name] > 1]
            self.toll.doubled += [name for name, times in self.begun.items() if times > 1]
            self.toll.lost += [name for name in self.begun if store.markers.read("book", name) is None]
            schema = self.url.rpartition("schema=")[2]
            for _ in range(2):
                self.postgres.sql(
                    f"UPDATE {schema}.blobs SET touched = touched - interval '2h', condemned = condemned - interval '2h'"
                )
                collect(store, Budget())
            self.toll.lost += [a for a in self.acknowledged if bytes(store.blobs.map(a)) != self.data[a]]


@pytest.mark.parametrize("number", [*range(2), *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 100))])
def test_a_bucket_that_fails_in_any_way_loses_and_falsifies_nothing(
    postgres: Cluster, bucket: s3.Bucket, tmp_path: Path, number: int
) -> None:
    draw = random.Random(f"{SEED} {number}")
    life = _Life(postgres, bucket, tmp_path, draw)
    bucket.draw = life.fault
    with life.open:
        for machine in MACHINES:
            life.start(machine)
        for _ in range(OPERATIONS):
            # Well, restless, or as good as gone for a while.
            life.rate = draw.choice((0.0, 0.3, 0.6, 0.95))
            if draw.random() < 0.2:
                life.start(draw.choice(MACHINES))
            life.step()
    life.rate = 0.0
    life.require_whole()
    life.toll.require_none(
        "object store answering 500, slow, stale, half or not",
        cases=int(life.faults > 0),
        seed=number,
        operations=OPERATIONS,
        faults=life.faults,
        refused=life.refused,
        blobs=len(life.acknowledged),
        at_most_once_starts=len(life.begun),
    )
