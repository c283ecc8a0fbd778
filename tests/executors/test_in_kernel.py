"""Batches on a cluster in real kernels: what a cell shows, what is replayed, what an interrupt ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.executors.cluster import Cluster
from tests.notebook.harness import Bench, Kernel, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("dask")]


def cell(place: str, begun: Path) -> str:
    return (
        "from durable_nb import context, MapConfig\n"
        "import os, time\n"
        "def work(x):\n"
        f"    open({str(begun)!r} + f'/{{x}}.{{os.getpid()}}.{{time.monotonic_ns()}}', 'w').close()\n"
        "    print('worked on', x)\n"
        "    return Point(x * x)\n"
        "r = context.map(range(4), lambda c, x, i, every: c.step(lambda _: work(x)), name='squares',\n"
        f"                config=MapConfig(executor={place!r}, max_concurrency=1))\n"
        "print(sum(p.x for p in r.get_results()), all(isinstance(p, Point) for p in r.get_results()))"
    )


POINT = "class Point:\n    def __init__(self, x):\n        self.x = x"


def test_a_cell_shows_progress_and_output_and_is_replayed_without_a_cluster(
    bench: Bench, cluster: Cluster, begun: Path
) -> None:
    cells = [POINT, cell(cluster.place, begun), "total = sum(p.x for p in r.get_results())\nprint(f'{total:.1f}')"]
    first = run_all(bench, cells)
    shown = first.cells[1].expect_ok()
    assert shown.stdout == "".join(f"worked on {x}\n" for x in range(4)) + "14 True\n"
    lines = [one["data"]["text/plain"] for one in shown.outputs if one["output_type"] == "display_data"]
    assert lines == ["squares: 4 of 4"]
    assert {int(path.name.split(".")[1]) for path in begun.iterdir()} <= {worker.pid for worker in cluster.workers}
    again = run_all(bench, cells)
    assert again.verdicts[1:] == ["replayed", "replayed"]
    assert again.outputs[1] == first.outputs[1]
    assert len(list(begun.iterdir())) == 4


def test_an_interrupted_cell_keeps_what_was_done_and_cancels_the_rest(
    bench: Bench, cluster: Cluster, begun: Path
) -> None:
    definitions = (
        "from durable_nb import context, MapConfig\n"
        "import os, time\n"
        f"folder = {str(begun)!r}\n"
        "def work(x):\n"
        "    open(f'{folder}/{x}.{time.monotonic_ns()}', 'w').close()\n"
        "    while x == 2 and not os.path.exists(folder + '/go'):\n"
        "        time.sleep(0.01)\n"
        "    return x"
    )
    source = (
        "r = context.map(range(4), lambda c, x, i, every: c.step(lambda _: work(x), name='endless'),\n"
        f"                config=MapConfig(executor={cluster.place!r}, max_concurrency=1))\n"
        "print(r.get_results())"
    )
    with Kernel(bench) as kernel:
        kernel.run(definitions, cell_id="a").expect_ok()
        pending = kernel.execute(source, cell_id="b")
        while not list(begun.glob("2.*")):
            assert not pending.ended_within(0.05)
        kernel.interrupt()
        assert pending.result().ename == "KeyboardInterrupt"
        assert not list(begun.glob("3.*"))
        (begun / "go").touch()
        assert kernel.run(source, cell_id="b").expect_ok().stdout == "[0, 1, 2, 3]\n"
    assert [len(list(begun.glob(f"{x}.*"))) for x in range(4)] == [1, 1, 2, 1]
