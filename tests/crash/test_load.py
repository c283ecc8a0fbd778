"""Load: many executions with many branches under a worker that is killed at random; everything stays flat.

The short run is a sample of the long one: fewer executions, the same claims.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from durable_nb.maintenance import Budget, check, collect, store_size
from durable_nb.runtime import Store, Worker, driver_for, open_store
from durable_nb.sdk import DurableContext, StepError, durable_execution
from durable_nb.sdk.config import MapConfig
from tests.crash import handler_story
from tests.crash.evidence import keep

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
EXECUTIONS = 200 if SOAK else 8
ITEMS = 25 if SOAK else 20
STEPS = 10 if SOAK else 4
KILLS = 60 if SOAK else 3
BRANCHES = 16
THREADS = 4
LIMIT = 12_000_000 if SOAK else 2_000_000
"""Bytes that the store may have: a part of what all steps together take."""

_ledger = -1


def begin(text: str) -> None:
    """A body tells that it began: one write, so that no kill tears it."""
    os.write(_ledger, f"{text}\n".encode())


def step_of(name: str, value: Any) -> Any:
    def body(_: Any) -> Any:
        begin(name)
        return value

    return body


@durable_execution(name="loaded")
def loaded(event: Any, context: DurableContext) -> Any:
    number = event["number"]

    def item(c: DurableContext, x: int, i: int, every: Any) -> int:
        total = 0
        for part in range(STEPS):
            total += len(c.step(step_of(f"{number}.{x}.{part}", "v" * (x * 10 + part))))
        return total

    found = context.map(range(ITEMS), item, config=MapConfig(max_concurrency=BRANCHES))
    try:
        paid = context.step(step_of(f"pay {number}", "paid"), name="pay", config=handler_story.ONCE)
    except StepError:
        paid = "interrupted"
    return [sum(found.get_results()), paid]


EXPECTED = sum(x * 10 + part for x in range(ITEMS) for part in range(STEPS))


def _sample(store: Store) -> dict[str, int]:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "pid": os.getpid(),
        "memory": resident,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "store": store_size(store),
    }


def _work(folder: str) -> None:
    """One worker's life, until nothing is due."""
    global _ledger
    os.environ["JUPYTER_DATA_DIR"] = str(Path(folder) / "data")
    _ledger = os.open(Path(folder) / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    samples = os.open(Path(folder) / "samples", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    place = Path(folder) / "store"
    store = open_store(place)
    worker = Worker(driver_for(store), threads=THREADS)
    while worker.start_due():
        worker._join()
        collect(store, Budget(max_bytes=LIMIT))
        os.write(samples, (json.dumps(_sample(store)) + "\n").encode())
    store.close()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.timeout(3600)
def test_many_executions_under_a_worker_that_is_killed_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    rng = random.Random(int(os.environ.get("DURABLE_NB_SEED", "1")))
    store = open_store(tmp_path / "store")
    handles = [loaded.start({"number": n}, name=f"e-{n}", store=store) for n in range(EXECUTIONS)]
    context = handler_story.server()
    every = EXECUTIONS * ITEMS * STEPS
    # Killed at moments of the work, not of the clock: after so many further bodies have begun.
    marks = sorted(rng.sample(range(every // 50, every * 6 // 10), KILLS))
    killed = 0
    while True:
        process = context.Process(target=_work, args=(str(tmp_path),))
        process.start()
        while process.is_alive() and killed < KILLS:
            if (tmp_path / "ledger").exists() and len(_lines(tmp_path / "ledger")) >= marks[killed]:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.005)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert killed == KILLS
    results = [handle.result(0) for handle in handles]
    assert [total for total, _ in results] == [EXPECTED] * EXECUTIONS
    interrupted = [paid for _, paid in results].count("interrupted")
    assert interrupted <= KILLS * THREADS
    begun = Counter(_lines(tmp_path / "ledger"))
    payments = {name: count for name, count in begun.items() if name.startswith("pay")}
    steps = begun.total() - sum(payments.values())
    assert max(payments.values()) == 1, "no payment twice"
    assert len(payments) >= EXECUTIONS - interrupted
    again = steps - every
    assert len(begun) - len(payments) == every
    assert 0 <= again <= KILLS * BRANCHES * THREADS, "only what a kill caught in the middle began again"
    found = check(store)
    assert found.good, found.findings
    store.close()
    _stays_flat([json.loads(line) for line in _lines(tmp_path / "samples")])
    keep("load", executions=EXECUTIONS, steps=every, kills=killed, repeated=again)


def _stays_flat(samples: list[dict[str, int]]) -> None:
    """The last worker is not killed: what it holds after a tenth of its life is what it holds at the end."""
    last = [sample for sample in samples if sample["pid"] == samples[-1]["pid"]]
    warm = last[max(len(last) // 10, 1) : -1] or last
    first, end = warm[0], last[-1]
    assert end["files"] <= first["files"], (first, end)
    assert end["threads"] <= first["threads"] + BRANCHES, (first, end)
    assert end["memory"] <= first["memory"] + 24_000_000, (first, end)
    # Rows of one round of work come on top of the limit, and at-most-once steps and results are never collected.
    kept = EXECUTIONS * 3_000
    assert max(sample["store"] for sample in samples) <= LIMIT + kept + 8_000_000, samples[-1]
