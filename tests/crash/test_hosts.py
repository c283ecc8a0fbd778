"""Three hosts as network namespaces: PostgreSQL over TCP on one, a worker on each of two, and a link that goes down.

Each worker has a network, processes, a home, a cache, a boot id and a machine id of its own. What they share is the
database, and here the files in which bodies leave word: a test has to know what began where.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from durable_nb.events import EventKind
from durable_nb.maintenance import check
from durable_nb.runtime import open_store
from durable_nb.settings import Settings
from tests.crash.evidence import Toll
from tests.notebook.harness import LIMIT, Bench
from tests.servers.hosts import Host, Network
from tests.servers.postgres import Cluster

pytestmark = pytest.mark.xdist_group("hosts")

SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
KEY = "of the team"
EXECUTIONS = 6

_MODULE = """
import os, time
from pathlib import Path
from durable_nb.sdk import DurableContext, StepError, durable_execution
from durable_nb.sdk.config import StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets

ONCE = StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
HOST = os.environ["HOST"]
ledger = os.open(Path(__file__).with_name("ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
gate = Path(__file__).with_name("gate")


def say(word):
    os.write(ledger, f"{HOST} {word}\\n".encode())


@durable_execution(name="order")
def order(event, context: DurableContext):
    number = event["number"]

    def first(_):
        say(f"first {number}")
        if event["waits"] and HOST == event["cut"]:
            while not gate.exists():  # the link goes down meanwhile, and comes back before it ends
                time.sleep(0.02)
        return HOST

    def pay(_):
        say(f"pay {number}")
        if event["pays"] and HOST == event["cut"]:
            while not gate.exists():
                time.sleep(0.02)
        return "paid"

    began = context.step(first, name="first")
    try:
        return [began, context.step(pay, name="pay", config=ONCE)]
    except StepError:
        return [began, "interrupted"]
"""

_WORKER = """
import sys
from durable_nb import runtime
from durable_nb.cli import main
from durable_nb.sdk import _keeper
runtime.LEASE_SECONDS = _keeper.LEASE_SECONDS = float(sys.argv[1])
sys.exit(main(["worker", "orders", "--threads", "3", "--poll", "0.1"]))
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network.made() as network:
        yield network


@pytest.fixture(scope="module")
def hosts(network: Network) -> tuple[Host, Host]:
    left, right = network.add("left"), network.add("right")
    folder = network.folder
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname"):
        seen = {host.run(["cat", path], env=dict(os.environ), cwd=folder) for host in (left, right)}
        assert len(seen | {Path(path).read_text()}) == 3, f"{path} is not a host's own"
    return left, right


@pytest.fixture(scope="module")
def server(network: Network) -> Iterator[tuple[Cluster, Host]]:
    host = network.add("db")
    where: dict[str, Any] = {"inside": host.inside, "subnet": network.subnet}
    with Cluster.started({"listen_addresses": host.address}, **where) as cluster:
        yield cluster, host


def _urls(server: tuple[Cluster, Host]) -> tuple[str, str]:
    """A new store: as the test sees it, through the socket, and as hosts do."""
    cluster, host = server
    near = cluster.new_store()
    return near, near.replace("@/", f"@{host.address}/").replace(f"host={cluster.folder}&", "")


def _environment(host: Host, url: str) -> dict[str, str]:
    home = host.folder / "home"
    home.mkdir(exist_ok=True)
    bench = Bench(host.folder / "project")
    more = {"HOME": str(home), "DURABLE_NB_CACHE": str(host.folder / "cache"), "HOST": host.name}
    return bench.environment(DURABLE_NB_STORE=url, DURABLE_NB_KEY=KEY, **more)


def _worker(host: Host, url: str, folder: Path, lease: float) -> subprocess.Popen[str]:
    return host.popen([sys.executable, "-c", _WORKER, str(lease)], env=_environment(host, url), cwd=folder)


def _until(true: Any) -> None:
    deadline = time.monotonic() + 2 * LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "lease"),
    [(0, 2.0), *(pytest.param(n, 2.0 if n < 8 else 30.0, marks=pytest.mark.soak) for n in range(1, 10))],
)
def test_a_host_that_is_cut_off_in_a_step_is_replaced_by_another_and_cannot_write_any_more(
    server: tuple[Cluster, Host],
    hosts: tuple[Host, Host],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    lease: float,
) -> None:
    draw = random.Random(f"{SEED} {number}")
    gone, other = draw.sample(hosts, 2)
    near, far = _urls(server)
    (tmp_path / "orders.py").write_text(_MODULE)
    monkeypatch.setenv("HOST", "nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "orders", raising=False)
    from importlib import import_module

    order = import_module("orders").order
    inputs = []
    for n in range(EXECUTIONS):
        kind = draw.choice(("waits", "pays", "none"))
        inputs.append({"number": n, "cut": gone.name, "waits": kind == "waits", "pays": kind == "pays"})
    inputs[0] |= {"waits": True, "pays": False}
    inputs[1] |= {"waits": False, "pays": True}

    def said() -> list[list[str]]:
        return [line.split(" ", 1) for line in (tmp_path / "ledger").read_text().splitlines()]

    settings = Settings(key=KEY, cache=str(tmp_path / "cache"))
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(near, settings=settings)))
        first = stack.enter_context(_killed(_worker(gone, far, tmp_path, lease)))
        handles = [order.start(each, name=f"order-{each['number']}", store=store) for each in inputs]
        _until(lambda: {"first 0", "pay 1"} <= {word for _, word in said()})
        gone.cut()
        stack.callback(gone.join)
        caught = sum(not handle.status.is_terminal for handle in handles)
        stack.enter_context(_killed(_worker(other, far, tmp_path, lease)))
        _until(lambda: all(handle.status.is_terminal for handle in handles))
        results = [handle.result(0) for handle in handles]
        (tmp_path / "gate").touch()  # its bodies end, and it has results that it cannot send
        gone.join()
        _until(lambda: _is_back(store, gone, first, order, inputs[0]))
        toll = Toll()
        for handle, result in zip(handles, results, strict=True):
            toll.wrong += [f"{result} became {now}" for now in [handle.result(0)] if now != result]
            ends = [
                s.event.operation_id
                for s in store.journal.read(handle.execution_id)
                if s.event.kind is EventKind.SUCCEEDED
            ]
            toll.doubled += [operation for operation in set(ends) if ends.count(operation) > 1]
        toll.lost += [] if check(store).good else ["verify finds damage"]
    words = [word for _, word in said()]
    for n, (began, paid) in enumerate(results):
        times = words.count(f"pay {n}")
        toll.doubled += [f"pay {n}: {times} times"] * (times > 1)
        toll.lost += [f"pay {n}: {paid}"] * (paid == "paid" and times == 0)
        if inputs[n]["waits"] and began != other.name:
            toll.wrong.append(f"first {n} was ended by {began}, which was cut off")
    assert results[0] == [other.name, "paid"]
    assert results[1][1] == "interrupted", "it began on the host that was cut off, and must not begin again"
    toll.require_none("partition between hosts", cases=1, seed=number, executions_cut_off=caught)


def _is_back(store: Any, host: Host, worker: subprocess.Popen[str], order: Any, event: Any) -> bool:
    """Whether the worker of a host drives again, and so is through with what it had: it takes one of those that come."""
    assert worker.poll() is None
    name = f"back-{time.monotonic_ns()}"
    handle = order.start({**event, "number": 99, "waits": False}, name=name, store=store)
    _until(lambda: handle.status.is_terminal)
    return bool(handle.result(0)[0] == host.name)


_HALF = """
import sys, time
from durable_nb.journal import PostgresServer
from durable_nb.settings import StoreUrl

connection = PostgresServer(StoreUrl(sys.argv[1])).connect()
with connection.pipeline():
    connection.execute("BEGIN")
    connection.execute("SELECT FROM executions WHERE name = 'order' FOR UPDATE").fetchall()
    print("half", flush=True)  # the end of the pipeline is never sent
    time.sleep(3600)
"""


@pytest.mark.soak
def test_what_a_host_has_sent_in_half_when_it_is_cut_off_is_let_go_by_the_server(
    server: tuple[Cluster, Host], hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    near, far = _urls(server)
    gone = hosts[0]
    with ExitStack() as stack:
        settings = Settings(key=KEY, cache=str(tmp_path / "cache"))
        store = stack.enter_context(closing(open_store(near, settings=settings)))
        record = store.journal.create("order", kind="handler", at=1.0, details={})
        half = gone.popen(
            [sys.executable, "-c", _HALF, far], env=_environment(gone, far), cwd=tmp_path, stdout=subprocess.PIPE
        )
        stack.enter_context(_killed(half))
        assert half.stdout is not None
        assert half.stdout.readline() == "half\n"
        gone.cut()
        stack.callback(gone.join)
        schema = near.rpartition("schema=")[2]
        began = time.monotonic()
        server[0].sql(f"UPDATE {schema}.executions SET due = 1 WHERE execution_id = '{record.execution_id}'")
        assert time.monotonic() - began > 1, "nothing was held"


CELLS = [
    "import uuid, numpy as np",
    "mark = uuid.uuid4().hex\nprint(mark)",
    "block = np.arange(300_000.0)\nblock[7] = np.random.random()\nprint(block.sum())",
    "# durable: name=pay at-most-once\nprint('paid', uuid.uuid4())",
]


@pytest.mark.sampled(2)
def test_a_notebook_that_ran_on_one_host_replays_on_another(
    server: tuple[Cluster, Host], hosts: tuple[Host, Host]
) -> None:
    _, far = _urls(server)
    ran = []
    for host in hosts:
        env = _environment(host, far)
        checkout = Bench(host.folder / "project")
        checkout.write("pyproject.toml", "")
        checkout.notebook("report.ipynb", CELLS)
        command = [sys.executable, "-m", "durable_nb.cli", "run", "report.ipynb", "-o", "out.ipynb", "--json"]
        said = json.loads(host.run(command, env=env, cwd=checkout.root))
        book = json.loads((checkout.root / "out.ipynb").read_text())
        shown = ["".join(output["text"]) for cell in book["cells"] for output in cell["outputs"]]
        ran.append(([cell["status"] for cell in said["cells"]], shown))
    (first, before), (second, after) = ran
    assert first == ["declared", "executed", "executed", "executed"]
    assert second == ["declared", "replayed", "replayed", "replayed"]
    assert len(before) == 3
    assert after == before
    assert list(hosts[1].folder.rglob("cache/*/blobs/??/*")), "the array came over"


@contextmanager
def _killed(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        try:
            yield process
        finally:
            process.kill()
