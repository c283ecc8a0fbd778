"""Workers on one PostgreSQL: they share what is due, and one that is killed or cut off loses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from durable_nb import runtime
from durable_nb.exceptions import LeaseHeldError, ValidationError
from durable_nb.maintenance import check
from durable_nb.runtime import Store, Worker, driver_for, open_store
from durable_nb.sdk import DurableContext, StepContext, StepError, _keeper, durable_execution
from durable_nb.sdk._callbacks import CallbackSender
from durable_nb.sdk._local import SystemClock
from durable_nb.sdk.config import StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets
from durable_nb.settings import Settings
from tests.crash.evidence import Toll
from tests.notebook.harness import LIMIT, clean_environment
from tests.servers.postgres import Cluster
from tests.servers.proxy import Proxy

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
EXECUTIONS = 300 if SOAK else 24
STEPS = 6
WORKERS = 3
KILLS = 30 if SOAK else 3
KEY = "of the team"
ONCE = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)


@contextmanager
def opened(url: str, cache: Path) -> Iterator[Store]:
    store = open_store(url, settings=Settings(key=KEY, cache=str(cache)))
    try:
        yield store
    finally:
        store.close()


# --- killed ----------------------------------------------------------------------------------------------------------

_MODULE = """
import os
import time
from pathlib import Path
from durable_nb.sdk import DurableContext, StepError, durable_execution
from durable_nb.sdk.config import StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets

ONCE = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
ledger = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(word, value):
    def body(_):
        os.write(ledger, f"{os.getpid()} {word}\\n".encode())  # one write, so that no kill tears it
        while Path("ledger").read_text().count("\\n") >= int(Path("allowed").read_text()):
            time.sleep(0.002)  # a worker is about to be killed: nobody is done before
        return value
    return body


@durable_execution(name="order")
def order(event, context: DurableContext):
    number = event["number"]
    total = sum(context.step(note(f"{number}.{part}", part)) for part in range(event["steps"]))
    try:
        paid = context.step(note(f"pay {number}", "paid"), name="pay", config=ONCE)
    except StepError:
        paid = "interrupted"
    return [total, paid]
"""


def _lines(folder: Path) -> list[list[str]]:
    path = folder / "ledger"
    return [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []


def _allow(folder: Path, lines: int) -> None:
    """Let bodies go on until the ledger has so many lines."""
    (folder / "allowed.new").write_text(str(lines))
    (folder / "allowed.new").replace(folder / "allowed")


def _worker(folder: Path, url: str) -> subprocess.Popen[bytes]:
    env = clean_environment(DURABLE_NB_STORE=url, DURABLE_NB_KEY=KEY, DURABLE_NB_CACHE=str(folder / "cache"))
    command = [sys.executable, "-m", "durable_nb.cli", "worker", "orders", "--threads", "3"]
    return subprocess.Popen(command, cwd=folder, env=env)


def test_workers_that_are_killed_at_random_lose_nothing_and_pay_nothing_twice(
    postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_store()
    (tmp_path / "orders.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from importlib import import_module

    order = import_module("orders").order
    draw = random.Random(SEED)
    every = EXECUTIONS * (STEPS + 1)
    marks = sorted(draw.sample(range(every // 20, every * 3 // 4), KILLS))
    _allow(tmp_path, marks[0])
    workers = [_worker(tmp_path, url) for _ in range(WORKERS)]
    try:
        with opened(url, tmp_path / "cache") as store:
            handles = [
                order.start({"number": n, "steps": STEPS}, name=f"order-{n}", store=store) for n in range(EXECUTIONS)
            ]
            for mark, following in zip(marks, [*marks[1:], sys.maxsize], strict=True):
                _until(lambda mark=mark: len(_lines(tmp_path)) >= mark)
                alive = {str(worker.pid): number for number, worker in enumerate(workers)}
                busy = (alive[pid] for pid, _ in reversed(_lines(tmp_path)) if pid in alive)
                victim = next(busy, draw.randrange(WORKERS))
                workers[victim].kill()
                workers[victim].wait()
                workers[victim] = _worker(tmp_path, url)
                _allow(tmp_path, following)
            _until(lambda: all(handle.status.is_terminal for handle in handles))
            results = [handle.result(0) for handle in handles]
            assert check(store).good
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        codes = [worker.wait(timeout=LIMIT) for worker in workers]
    assert set(codes) <= {0, -signal.SIGTERM}, "one that has just been started does not know the signal yet"
    lines = _lines(tmp_path)
    assert len({pid for pid, _ in lines}) >= 2, "what a worker left when it was killed, another one did"
    begun = Counter(word for _, word in lines)
    payments = {word: count for word, count in begun.items() if word.startswith("pay")}
    interrupted = [paid for _, paid in results].count("interrupted")
    toll = Toll()
    toll.wrong += [f"order {n}: {total}" for n, (total, _) in enumerate(results) if total != sum(range(STEPS))]
    toll.lost += [f"pay {n}" for n, (_, paid) in enumerate(results) if paid == "paid" and f"pay {n}" not in payments]
    toll.doubled += [word for word, count in payments.items() if count > 1]
    toll.require_none("workers killed under load", cases=KILLS, seed=SEED, executions=EXECUTIONS, steps=every)
    assert interrupted <= KILLS * 3
    again = begun.total() - len(begun)
    assert again <= KILLS * 3, "only what a kill caught in the middle began again"


def _until(true: Any) -> None:
    deadline = time.monotonic() + 10 * LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- cut off ---------------------------------------------------------------------------------------------------------

_begun: Counter[str] = Counter()
_gate = threading.Event()
_reached = threading.Event()


@durable_execution(name="partitioned")
def partitioned(event: Any, context: DurableContext) -> Any:
    def slow(_: StepContext) -> str:
        _begun["slow"] += 1
        if _begun["slow"] == 1:
            _reached.set()
            assert _gate.wait(LIMIT)
            return "of the worker that was cut off"
        return "of the other"

    def once(_: StepContext) -> int:
        _begun["once"] += 1
        return _begun["once"]

    found = context.step(slow)
    try:
        return [found, context.step(once, name="pay", config=ONCE)]
    except StepError:
        return [found, "interrupted"]


def test_a_worker_that_is_cut_off_for_longer_than_its_lease_is_replaced_and_cannot_write_any_more(
    postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(_keeper, "LEASE_SECONDS", 2.0)
    _begun.clear()
    _gate.clear()
    _reached.clear()
    url = postgres.new_store()
    with Proxy(postgres.socket) as proxy:
        far = url.replace(str(postgres.folder), str(proxy.folder))
        with opened(url, tmp_path / "near") as near, opened(far, tmp_path / "far") as cut_off:
            handle = partitioned.start({}, name="p", store=near)
            late = Worker(driver_for(cut_off))
            assert late.start_due() == 1
            assert _reached.wait(LIMIT)
            proxy.pause()
            other = Worker(driver_for(near))
            _until(lambda: other.run_until_idle() > 0)
            assert handle.result(0) == ["of the other", 1]
            _gate.set()  # the one that was cut off has its result now, and tries to write it
            proxy.resume()
            late.stop()
            late._join()
            events = list(near.journal.read(handle.execution_id))
            assert handle.result(0) == ["of the other", 1]
    assert _begun == {"slow": 2, "once": 1}
    ends = [stored for stored in events if stored.event.kind.value == "SUCCEEDED"]
    assert len({stored.event.operation_id for stored in ends}) == len(ends), "an operation has ended twice"


# --- limits ----------------------------------------------------------------------------------------------------------

_inside = 0
_most = 0
_count_lock = threading.Lock()


@durable_execution(name="narrow")
def narrow(event: Any, context: DurableContext) -> Any:
    def body(_: StepContext) -> int:
        global _inside, _most
        with _count_lock:
            _inside += 1
            _most = max(_most, _inside)
        time.sleep(0.02)
        with _count_lock:
            _inside -= 1
        return event["n"]

    return context.step(body, name="only")


def test_all_workers_together_keep_the_limit_of_a_handler_and_the_others_go_on(
    postgres: Cluster, tmp_path: Path
) -> None:
    global _most
    _most = 0
    url = postgres.new_store()
    with opened(url, tmp_path / "one") as one, opened(url, tmp_path / "two") as two:
        handles = [narrow.start({"n": n}, name=f"n{n}", store=one) for n in range(20)]
        free = [quick.start({}, name=f"q{n}", store=one) for n in range(5)]
        with pytest.raises(LeaseHeldError):
            # One of the two places is taken: whoever drives without a worker counts too.
            lease = one.journal.acquire(handles[0].execution_id, ttl=60)
            assert len(two.journal.claim(time.time(), kind="handler", limit=99, ttl=0.0, limits={"narrow": 2})) == 6
            one.journal.acquire(handles[0].execution_id, ttl=60)
        one.journal.release(lease)
        workers = [Worker(driver_for(store), threads=6, limits={"narrow": 2}) for store in (one, two)]
        threads = [threading.Thread(target=worker.run_forever, kwargs={"poll_seconds": 0.01}) for worker in workers]
        for thread in threads:
            thread.start()
        _until(lambda: all(handle.status.is_terminal for handle in [*handles, *free]))
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()
    assert 1 <= _most <= 2


def test_an_embedded_store_says_that_it_keeps_no_limits(tmp_path: Path) -> None:
    with opened(str(tmp_path / "store"), tmp_path) as store:
        worker = Worker(driver_for(store), limits={"narrow": 2})
        with pytest.raises(ValidationError, match="store on a server"):
            worker.run_until_idle()


# --- woken -----------------------------------------------------------------------------------------------------------


_callbacks: list[str] = []


@durable_execution(name="asked")
def asked(event: Any, context: DurableContext) -> Any:
    callback = context.create_callback(name="answer")
    _callbacks.append(callback.callback_id)
    return callback.result()


@durable_execution(name="quick")
def quick(event: Any, context: DurableContext) -> Any:
    return context.step(lambda _: "done", name="only")


def test_a_worker_is_told_of_new_executions_and_of_callbacks_and_need_not_look(
    postgres: Cluster, tmp_path: Path
) -> None:
    url = postgres.new_store()
    with opened(url, tmp_path / "one") as store, opened(url, tmp_path / "two") as other:
        worker = Worker(driver_for(store))
        # It looks by itself once in an hour: whatever comes to an end here came by its being told.
        thread = threading.Thread(target=worker.run_forever, kwargs={"poll_seconds": 3600.0})
        thread.start()
        try:
            first = quick.start({}, name="q", store=other)
            _until(lambda: first.status.is_terminal)
            assert first.result(0) == "done"
            second = asked.start({}, name="a", store=other)
            _until(lambda: _callbacks)
            CallbackSender(other.journal, SystemClock()).success(_callbacks[0], '"yes"')
            _until(lambda: second.status.is_terminal)
            assert second.result(0) == '"yes"'
        finally:
            worker.stop()
            thread.join()


def test_a_worker_outlives_a_server_that_is_away(
    postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from durable_nb.journal import _postgres_server

    monkeypatch.setattr(_postgres_server, "PATIENCE", 0.5)
    url = postgres.new_store()
    with opened(url, tmp_path) as store:
        worker = Worker(driver_for(store))
        thread = threading.Thread(target=worker.run_forever, kwargs={"poll_seconds": 0.1})
        thread.start()
        try:
            postgres.kill()
            time.sleep(1.0)  # longer than a call waits
            postgres.start()
            handle = quick.start({}, name="q", store=store)
            _until(lambda: handle.status.is_terminal)
        finally:
            worker.stop()
            thread.join()
