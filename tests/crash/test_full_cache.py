"""Random lives of a shared store on a machine whose disk for copies is full, filling, or free again.

The disk is a real one, of a megabyte and a half (a tmpfs), where root may mount it; else no file can grow. Each seed is a
program of writes, reads, at-most-once steps and copies that are trimmed; a model knows what was acknowledged. A full disk of copies is nobody's
concern: nothing may be refused, lost or falsified.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable_nb.maintenance import check
from durable_nb.runtime import Store, open_store
from durable_nb.settings import Settings
from durable_nb.testing.conformance import event
from tests.crash.evidence import Toll
from tests.servers.disk import Disk, is_full, small_disk
from tests.servers.postgres import Cluster

SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
OPERATIONS = 25
DISK = 1_500_000
SIZES = (100, 5000, 60_000, 300_000, 1_100_000)


@contextmanager
def _opened(url: str, cache: Path, size: str = "20GB") -> Iterator[Store]:
    store = open_store(url, settings=Settings(key="team", cache=str(cache), cache_size=size))
    try:
        yield store
    finally:
        store.close()


class _Life:
    """One seed."""

    def __init__(self, url: str, disk: Disk, draw: random.Random) -> None:
        self.url, self.disk, self.draw = url, disk, draw
        self.cache = disk.folder / "cache"
        self.data: dict[str, bytes] = {}
        self.views: list[tuple[memoryview, bytes]] = []
        self.begun: Counter[str] = Counter()
        self.ended: list[str] = []
        self.full = 0
        self.toll = Toll()

    def run(self) -> None:
        """Several sessions, one after the other; before some of them the copies are lost."""
        for _ in range(5):
            if self.draw.random() < 0.3:
                shutil.rmtree(self.cache, ignore_errors=True)
            if self.draw.random() < 0.5:
                self.disk.fill(names=self.draw.random() < 0.5)
            with _opened(self.url, self.cache, self.draw.choice(("20GB", "400KB"))) as store:
                for _ in range(OPERATIONS // 5):
                    self.change_disk()
                    self.full += is_full(self.disk.folder)
                    self.draw.choice((self.write, self.write, self.read, self.read, self.look, self.once))(store)
                self.toll.wrong += [f"damaged: {address[:8]}" for address in store.blobs.settle()]
            if self.draw.random() < 0.5:
                self.disk.free()

    def change_disk(self) -> None:
        chance = self.draw.random()
        if chance < 0.3:
            self.disk.fill(leave=self.draw.choice((0, 0, 4096, 100_000)), names=self.draw.random() < 0.3)
        elif chance < 0.45:
            self.disk.free()

    def write(self, store: Store, name: str | None = None) -> None:
        data = self.draw.randbytes(self.draw.choice(SIZES))
        address = store.blobs.put(data)
        record = store.journal.create("book", kind="notebook", at=1.0, details={})
        store.journal.append(record.execution_id, [event(name or address[:16])], payload_refs=[address])
        self.data[address] = data

    def once(self, store: Store) -> None:
        name = f"pay{self.draw.randrange(4)}"
        if store.markers.claim("book", name, {"at": 1.0}):
            self.begun[name] += 1
            self.write(store, name)
            self.ended.append(name)

    def read(self, store: Store) -> None:
        if self.data:
            address = self.draw.choice(list(self.data))
            if store.blobs.get(address) != self.data[address]:
                self.toll.wrong.append(address)

    def look(self, store: Store) -> None:
        """Map one, and keep the map while the disk changes."""
        if self.data:
            address = self.draw.choice(list(self.data))
            self.views.append((store.blobs.map(address), self.data[address]))

    def require_whole(self, elsewhere: Path) -> None:
        """Another machine finds everything, and what was mapped has not changed."""
        self.toll.wrong += ["a map" for view, data in self.views if view != data]
        with _opened(self.url, elsewhere) as store:
            for address, data in self.data.items():
                if not store.blobs.has(address):
                    self.toll.lost.append(address)
                elif store.blobs.get(address) != data:
                    self.toll.wrong.append(address)
            report = check(store)
            self.toll.lost += report.of("missing blob") + report.of("damaged blob")
            record = store.journal.find("book")
            rows = (
                Counter()
                if record is None
                else Counter(stored.event.operation_id for stored in store.journal.read(record.execution_id))
            )
            self.toll.lost += [name for name in self.ended if not rows[name]]
            self.toll.doubled += [name for name in self.ended if rows[name] > 1]
            self.toll.doubled += [name for name, times in self.begun.items() if times > 1]


@pytest.mark.parametrize("number", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 120))])
def test_a_full_disk_of_copies_loses_and_refuses_nothing(postgres: Cluster, tmp_path: Path, number: int) -> None:
    draw = random.Random(f"{SEED} {number}")
    with small_disk(tmp_path / "disk", DISK) as disk:
        life = _Life(postgres.new_store(), disk, draw)
        life.run()
        disk.free()
        life.require_whole(tmp_path / "elsewhere")
        life.views.clear()
    life.toll.require_none(
        "disk of the cache full" if disk.real else "disk of the cache full (files that cannot grow)",
        cases=int(life.full > 0),
        seed=number,
        operations_on_a_full_disk=life.full,
        blobs=len(life.data),
        at_most_once_starts=len(life.begun),
    )
