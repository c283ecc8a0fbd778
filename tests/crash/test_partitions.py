"""A worker that is cut off from the database for longer than its leases, in the middle of whatever it does.

Each seed draws executions, the moment of the cut and what runs just then. Nothing is closed: the connections hang, as in a
network that is gone, and deliver what was on its way when it is back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from durable_nb import runtime
from durable_nb.events import EventKind
from durable_nb.journal import _postgres_server
from durable_nb.runtime import Store, Worker, driver_for, open_store
from durable_nb.sdk import DurableContext, StepContext, StepError, _keeper, durable_execution
from durable_nb.sdk.config import StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets
from durable_nb.settings import Settings
from tests.crash.evidence import Toll
from tests.notebook.harness import LIMIT
from tests.servers.postgres import Cluster
from tests.servers.proxy import Proxy

SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
EXECUTIONS = 8
STEPS = 5
LEASE = 1.5
ONCE = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)

_lock = threading.Lock()
_begun: Counter[tuple[str, bool]] = Counter()
"""Bodies that began, by their name and whether they are at-most-once."""


def _body(name: str, seconds: float, value: Any, *, once: bool) -> Any:
    def run(_: StepContext) -> Any:
        with _lock:
            _begun[name, once] += 1
        time.sleep(seconds)
        return value

    return run


@durable_execution(name="cut-off")
def cut_off(event: Any, context: DurableContext) -> Any:
    found: list[Any] = []
    for part, (seconds, once) in enumerate(event["steps"]):
        body = _body(f"{event['name']}.{part}", seconds, part, once=once)
        try:
            found.append(context.step(body, name=f"part{part}", config=ONCE if once else None))
        except StepError:
            found.append("interrupted")
    return found


@contextmanager
def _opened(url: str, cache: Path) -> Iterator[Store]:
    store = open_store(url, settings=Settings(key="team", cache=str(cache)))
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _working(store: Store) -> Iterator[Worker]:
    worker = Worker(driver_for(store), threads=EXECUTIONS)
    thread = threading.Thread(target=worker.run_forever, kwargs={"poll_seconds": 0.1})
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join()


def _until(true: Any) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 60))])
def test_what_a_worker_that_is_cut_off_was_driving_is_driven_by_another_and_nothing_twice(
    postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(runtime, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(_keeper, "LEASE_SECONDS", LEASE)
    # One that is cut off in the middle of a transaction keeps its rows until the server ends that, half a minute else.
    monkeypatch.setitem(_postgres_server._SESSION, "idle_in_transaction_session_timeout", "2s")
    draw = random.Random(f"{SEED} {number}")
    programs = {
        f"e{n}": [(draw.choice((0.0, 0.02, 0.1, 0.4)), draw.random() < 0.4) for _ in range(STEPS)]
        for n in range(EXECUTIONS)
    }
    mark = draw.randrange(1, EXECUTIONS * STEPS * 3 // 4)
    _begun.clear()
    url = postgres.new_store()
    with Proxy(postgres.socket) as proxy:
        far_url = url.replace(str(postgres.folder), str(proxy.folder))
        with _opened(url, tmp_path / "near") as near, _opened(far_url, tmp_path / "far") as far:
            handles = {
                name: cut_off.start({"name": name, "steps": steps}, name=name, store=near)
                for name, steps in programs.items()
            }
            with _working(far):
                _until(lambda: _begun.total() >= mark)
                time.sleep(draw.uniform(0.0, 0.02))
                # What has come in half keeps its rows locked until the server notices.
                proxy.pause(noticed_after=draw.uniform(LEASE, 2 * LEASE))
                caught = sum(not handle.status.is_terminal for handle in handles.values())
                with _working(near):
                    _until(lambda: all(handle.status.is_terminal for handle in handles.values()))
                results = {name: handle.result(0) for name, handle in handles.items()}
                proxy.resume()  # what was cut off goes on, and writes what it has
            toll = Toll()
            for name, handle in handles.items():
                events = list(near.journal.read(handle.execution_id))
                ends = Counter(s.event.operation_id for s in events if s.event.kind is EventKind.SUCCEEDED)
                toll.doubled += [f"{name}: {operation}" for operation, count in ends.items() if count > 1]
                if handle.result(0) != results[name]:
                    toll.wrong.append(f"{name}: {results[name]} became {handle.result(0)}")
    for name, steps in programs.items():
        for part, (_, once) in enumerate(steps):
            found, times = results[name][part], _begun[f"{name}.{part}", once]
            if found == "interrupted" and once:
                continue
            if found != part:
                toll.wrong.append(f"{name}.{part}: {found}")
            if not times:
                toll.lost.append(f"{name}.{part}")
    toll.doubled += [name for (name, once), times in _begun.items() if once and times > 1]
    steps_once = sum(once for steps in programs.values() for _, once in steps)
    toll.require_none(
        "partition longer than the lease",
        cases=1,
        seed=number,
        executions_cut_off=caught,
        at_most_once_steps=steps_once,
    )
