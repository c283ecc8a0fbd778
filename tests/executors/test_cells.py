"""Whole cells on a cluster: `%%durable_step --on dask://…` in real kernels, with real workers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.executors.cluster import Cluster
from tests.notebook.harness import Bench, CellResult, Kernel, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("dask")]

NOWHERE = "dask://127.0.0.1:9"
"""Nothing listens there."""


def on(cluster: Cluster | str, body: str, options: str = "") -> str:
    place = cluster if isinstance(cluster, str) else cluster.place
    return f"%%durable_step --on {place} {options}\n{body}"


def plain(result: CellResult) -> str:
    """The traceback as text."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(result.traceback))


# --- what comes back --------------------------------------------------------------------------------------------------


def test_a_cell_binds_changes_and_deletes_and_is_replayed_without_a_cluster(bench: Bench, cluster: Cluster) -> None:
    body = (
        "import os\na.append(2)\nnew = [a]\ndel gone\nelsewhere = os.getpid() != here\n"
        "for one in range(3):\n    pass\ndel one\nprint('hello')\na"
    )
    before = "import os\na = [1]\nb = a\ngone = one = 1\npair = {'a': a}\nhere = os.getpid()"
    after = "print(a, b is a, pair['a'] is a, new[0] is a, 'gone' in dir(), 'one' in dir(), elsewhere, _ is a)"
    first = run_all(bench, [before, on(cluster, body), after])
    shown = first.cells[1].expect_ok()
    assert (shown.verdict, shown.stdout, shown.result) == ("executed", "hello\n", "[1, 2]")
    assert first.stdout[2] == "[1, 2] True True True False False True True\n"
    assert f"on {cluster.place}" in shown.outputs[0]["data"]["text/plain"]
    again = run_all(bench, [before, on(NOWHERE, body), after])
    assert again.verdicts == ["replayed"] * 3
    assert again.outputs[1][1:] == first.outputs[1][1:]
    assert again.stdout[2] == first.stdout[2]
    here = run_all(bench, [before, f"%%durable_step\n{body}", after])
    assert here.verdicts == ["replayed"] * 3


DEFINITIONS = """\
import random
from dataclasses import dataclass
import numpy as np
base = np.arange(6.)
view = base[2:5]
holder = {'v': view}
K = 5
@dataclass
class P:
    x: int
    seen = []
    def grow(self):
        self.x += K
def f(z):
    return P(z * K)
p = P(1)
ps = [p]
random.seed(1)"""

USES = """\
view[0] = 99
p.grow()
q = f(3)
P.seen.append(1)
class Q(P):
    def hi(self):
        return K
w = Q(2)
def g():
    return K + 1
drawn = random.random()"""

LOOKS = """\
print(base.tolist(), holder['v'] is view, view.base is base)
print(p, ps[0] is p, type(q) is P, q == P(15), P.seen, isinstance(w, P))
K = 7
random_now = random.random()
random.seed(1)
print(w.hi(), g(), drawn == random.random(), random_now == random.random())"""


def test_views_instances_classes_functions_and_generators_come_back_as_a_cell_leaves_them(
    bench: Bench, cluster: Cluster
) -> None:
    first = run_all(bench, [DEFINITIONS, on(cluster, USES), LOOKS])
    for cell in first.cells:
        cell.expect_ok()
    assert first.stdout[2].splitlines() == [
        "[0.0, 1.0, 99.0, 3.0, 4.0, 5.0] True True",
        "P(x=6) True True True [1] True",
        "7 8 True True",
    ]
    again = run_all(bench, [DEFINITIONS, on(NOWHERE, USES), LOOKS])
    assert again.verdicts == ["replayed"] * 3
    assert again.stdout == first.stdout


# --- what it shows ----------------------------------------------------------------------------------------------------


def test_outputs_are_shown_while_the_body_runs_and_replayed_as_they_were(
    bench: Bench, cluster: Cluster, begun: Path
) -> None:
    body = (
        "import os, sys, time, asyncio\nfrom IPython.display import HTML, display, clear_output\n"
        "print('old'); clear_output()\nprint('go', flush=True)\n"
        f"open({str(begun / 'pipe')!r}).read()\n"
        "print('err', file=sys.stderr)\ndisplay(HTML('<b>x</b>'))\nprint('end')\nos.write(1, b'raw\\n')\n"
        "shown = display('one', display_id=True)\nshown.update('two')\n!echo shell $HOME_OF\nwords = !echo words\n"
        "await asyncio.sleep(0)\nwords"
    )
    os.mkfifo(begun / "pipe")
    cells = ["import asyncio\nHOME_OF = 'me'", on(cluster, body, "--depends-on nothing.csv")]
    with Kernel(bench) as kernel:
        kernel.run(cells[0]).expect_ok()
        pending = kernel.execute(cells[1])
        pending.wait_for("go")
        (begun / "pipe").write_text("")
        first = pending.result().expect_ok()
    assert "old" not in first.stdout
    assert first.stdout.replace("\r", "").startswith("go\nend\n")
    assert sorted(first.stdout.replace("\r", "").split()) == sorted("go end raw shell me".split())
    assert first.stderr == "err\n"
    shown = [one["data"] for one in first.outputs if one["output_type"] == "display_data"]
    assert [one.get("text/html") or one["text/plain"] for one in shown[-2:]] == ["<b>x</b>", "'two'"]
    assert first.result == "['words']"
    again = run_all(bench, [cells[0], on(NOWHERE, body, "--depends-on nothing.csv")])
    assert again.verdicts[1] == "replayed"
    assert again.outputs[1][-4:] == first.outputs[-4:]


def test_an_error_shows_the_lines_of_the_notebook_and_leaves_what_was_bound(bench: Bench, cluster: Cluster) -> None:
    cells = [
        "class Missing(LookupError):\n    pass\ndone = []",
        "def look(n):\n    raise Missing(n)  # here it is",
        on(cluster, "done.append(1)\ntry:\n    {}['a']\nexcept KeyError as error:\n    look(4)  # and here"),
    ]
    with Kernel(bench) as kernel:
        for cell in cells[:2]:
            kernel.run(cell).expect_ok()
        failed = kernel.run(cells[2])
        assert (failed.ename, failed.evalue) == ("Missing", "4")
        text = plain(failed)
        assert "KeyError" in text
        assert "Cell In[2], line 2" in text
        assert "raise Missing(n)  # here it is" in text
        assert "look(4)  # and here" in text
        assert "durable_nb" not in text
        assert "hidden" not in text
        assert kernel.value("done") == "[1]"
        assert kernel.run("import sys\nisinstance(sys.last_value, Missing)").result == "True"
        assert kernel.run("len(done)").durable["status"] == "not_durable"


# --- attempts, time, interrupts ---------------------------------------------------------------------------------------


def count(begun: Path, name: str = "*") -> int:
    return len(list(begun.glob(f"{name}.*")))


def begin(begun: Path, name: str = "body") -> str:
    """Statements by which a body leaves word that it has begun, and in which worker."""
    return (
        "import os, time\n"
        f"open(f'{begun}/{name}.{{os.getppid()}}.{{time.monotonic_ns()}}', 'w').close()\n"
        f"go = lambda: os.path.exists('{begun}/go')\n"
    )


def test_a_cell_is_tried_again_from_the_names_it_found(bench: Bench, cluster: Cluster, begun: Path) -> None:
    body = begin(begun) + (
        f"found.append(1)\nif len(os.listdir({str(begun)!r})) < 3:\n    print('no')\n    raise OSError('not yet')\n"
        "print(found)"
    )
    options = "--max-attempts 5 --initial-delay 10ms --retry-on OSError"
    with Kernel(bench) as kernel:
        kernel.run("found = []").expect_ok()
        done = kernel.run(on(cluster, body, options)).expect_ok()
        assert (done.stdout, done.durable["attempt"]) == ("[1]\n", 3)
        assert kernel.value("found") == "[1]"
    assert count(begun) == 3


def test_a_time_out_and_an_interrupt_end_the_body(bench: Bench, cluster: Cluster, begun: Path) -> None:
    endless = (
        "try:\n    while not go():\n        time.sleep(0.01)\n"
        f"finally:\n    open('{begun}/ended.' + str(time.monotonic_ns()), 'w').close()\nfound = 2\nprint('done')"
    )
    body = begin(begun) + endless
    with Kernel(bench) as kernel:
        kernel.run("found = 1").expect_ok()
        late = kernel.run(on(cluster, body, "--timeout 300ms"))
        assert late.ename == "StepTimeoutError"
        assert kernel.value("found") == "1"
        pending = kernel.execute(on(cluster, body))
        while count(begun, "body") < 2:
            assert not pending.ended_within(0.05)
        kernel.interrupt()
        assert pending.result().ename == "KeyboardInterrupt"
        while count(begun, "ended") < 2:
            kernel.run("pass")
        (begun / "go").touch()
        assert kernel.run(on(cluster, body)).expect_ok().stdout == "done\n"
        assert kernel.value("found") == "2"
    assert count(begun, "body") == 3


# --- workers that are lost --------------------------------------------------------------------------------------------


def test_a_cell_whose_worker_is_lost_runs_elsewhere(bench: Bench, cluster: Cluster, begun: Path) -> None:
    body = (
        begin(begun)
        + "print('first words', flush=True)\nwhile not go():\n    time.sleep(0.01)\nfound = [1]\nlen(found)"
    )
    with Kernel(bench) as kernel:
        pending = kernel.execute(on(cluster, body))
        pending.wait_for("first words")
        (one,) = begun.glob("body.*")
        cluster.kill_worker(int(one.name.split(".")[1]))
        while count(begun) < 2:
            assert not pending.ended_within(0.05)
        (begun / "go").touch()
        done = pending.result().expect_ok()
    assert done.stdout == "first words\n"
    assert "a worker was lost" in done.stderr
    assert (done.verdict, done.result) == ("executed", "1")


def test_an_at_most_once_cell_whose_worker_is_lost_asks(bench: Bench, cluster: Cluster, begun: Path) -> None:
    body = begin(begun) + "print('paying', flush=True)\nwhile not go():\n    time.sleep(0.01)\nreceipt = 7"
    cell = on(cluster, body, "pay --at-most-once --retry-on Exception --max-attempts 3 --initial-delay 0")
    with Kernel(bench, notebook="pay.ipynb") as kernel:
        pending = kernel.execute(cell)
        pending.wait_for("paying")
        (one,) = begun.glob("body.*")
        cluster.kill_worker(int(one.name.split(".")[1]))
        assert pending.result().ename == "WorkerLostError"
        (begun / "go").touch()
        refused = kernel.run(cell)
        assert refused.ename == "StepInterruptedError"
        assert "nobody recorded its end" in refused.evalue
    assert count(begun) == 1
    with Kernel(bench, notebook="pay.ipynb") as kernel:
        assert kernel.run(cell).ename == "StepInterruptedError"
        kernel.run("%durable resolve pay --again").expect_ok()
        kernel.run(cell).expect_ok()
        assert kernel.value("receipt") == "7"
    assert count(begun) == 2


def test_a_body_that_ends_its_process_is_an_error_of_the_cell(bench: Bench, cluster: Cluster) -> None:
    cell = on(cluster, "import os\nos._exit(3)")
    failed = run_all(bench, [cell]).cells[0]
    assert failed.ename == "WorkerLostError"
    assert "with status 3" in failed.evalue
    assert plain(failed).count("\n") == 0


# --- what it depends on -----------------------------------------------------------------------------------------------


def test_files_and_variables_that_the_worker_read_decide_as_those_here_do(bench: Bench, cluster: Cluster) -> None:
    data = bench.write("data.csv", "1")
    body = "import os\nopen('out.txt', 'w').write('made')\nn = open('data.csv').read(), os.environ.get('H_ON_VARIABLE')"
    cells = [on(cluster, body), "print(n, open('out.txt').read())"]
    first = run_all(bench, cells)
    assert first.verdicts == ["executed", "executed"]
    assert first.stdout[1] == "('1', None) made\n"
    (bench.root / "out.txt").unlink()
    again = run_all(bench, cells)
    assert again.verdicts == ["replayed", "replayed"]
    data.write_text("2")
    changed = run_all(bench, cells)
    assert changed.verdicts == ["executed", "executed"]
    assert "data.csv" in changed.cells[0].durable["reason"]
    other = run_all(bench, cells, env={"H_ON_VARIABLE": "x"})
    assert other.verdicts[0] == "executed"  # the worker saw that it is not set
    assert "H_ON_VARIABLE" in other.cells[0].durable["reason"]


def sent(cluster: Cluster) -> int:
    """Bytes of parts on the cluster that are not results of tasks."""
    return cluster.on_scheduler(
        lambda scheduler: sum(task.nbytes for task in scheduler.tasks.values() if task.run_spec is None)
    )


def test_a_large_array_travels_once_until_it_changes_or_goes(bench: Bench, cluster: Cluster) -> None:
    size = 8 << 20
    with Kernel(bench) as kernel:
        kernel.run(f"import numpy as np\nbig = np.ones({size >> 3})\nother = big[:3]").expect_ok()
        assert sent(cluster) == 0
        kernel.run(on(cluster, "a = float(big.sum())")).expect_ok()
        assert size <= sent(cluster) < size + 10_000
        kernel.run(on(cluster, "b = float(big.max()) + other[0]")).expect_ok()
        assert size <= sent(cluster) < size + 10_000
        kernel.run("big[1] = 5").expect_ok()
        assert sent(cluster) == 0
        assert kernel.run(on(cluster, "big[7] = big[1] + 1\nc = float(big.max())\nc")).expect_ok().result == "6.0"
        assert (
            kernel.value("(float(big[1] + big[7]), np.shares_memory(other, big), float(other[1]))")
            == "(11.0, True, 5.0)"
        )
        assert sent(cluster) == 0  # it came back with other content
        kernel.run(on(cluster, "d = float(big.min())")).expect_ok()
        assert size <= sent(cluster) < size + 10_000
        kernel.run("del big, other").expect_ok()
        assert sent(cluster) == 0


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "print(opened.name)": r"opened \(_io.TextIOWrapper\) cannot travel",
    "lock.acquire()": r"lock \(_thread.lock\) cannot travel",
    "[pair[0]]": r"\(_thread.lock\) cannot travel",
    "client.submit(len, [])": r"client \(distributed.client.Client\) cannot travel",
    "context.step(len)": "context is durable_nb.context",
    "%pip list": "%pip belongs to the shell",
    "%time len([])": "%time belongs to the shell",
    "get_ipython().ask_exit()": r"get_ipython\(\) is the shell",
    "print(In[0])": "In is the history",
    "import math\nmath.tau = 3": "it sets math.tau",
    "import colorsys\ncolorsys.rgb_to_hsv(1, 1, 1)": "an earlier cell has changed colorsys",
    "only_here.value": "the workers have no module only_here",
}

REFUSED_AT_THE_END = {
    "made = (n for n in range(3))": r"made \(builtins.generator\) cannot come back",
    "import threading, time\nthreading.Thread(target=lambda: time.sleep(30)).start()": "that it started is still running",
    "input('name?')": "has nobody to ask",
    "import ipywidgets\nipywidgets.IntSlider()": "make widgets in a cell here",
    "from durable_nb import context as c2\nc2.step(lambda _: 1)": "c2|context",
}


def test_what_cannot_travel_is_refused_in_one_line(
    bench: Bench, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("only")
    (elsewhere / "only_here.py").write_text("value = 1")
    setup = (
        "import threading, colorsys\nfrom durable_nb import context\nfrom distributed import Client\n"
        f"opened = open({str(elsewhere / 'a.txt')!r}, 'w')\nlock = threading.Lock()\npair = [1, lock]\n"
        f"client = Client({cluster.address!r}, set_as_default=False)"
    )
    with Kernel(bench) as kernel:
        kernel.run(setup).expect_ok()
        kernel.run("colorsys.rgb_to_hsv = len").expect_ok()
        kernel.run(f"import sys\nsys.path.insert(0, {str(elsewhere)!r})\nimport only_here").expect_ok()
        (elsewhere / "only_here.py").unlink()
        for body, why in REFUSED.items():
            failed = kernel.run(on(cluster, body))
            assert failed.status == "error", body
            assert re.search(why, failed.evalue), f"{body}: {failed.evalue}"
            assert plain(failed).count("\n") == 0, body
        for body, why in REFUSED_AT_THE_END.items():
            failed = kernel.run(on(cluster, body))
            assert failed.status == "error", body
            assert re.search(why, failed.evalue), f"{body}: {failed.evalue}"
        kernel.run("client.close()").expect_ok()


def test_a_scheduler_that_does_not_answer_costs_nothing_but_a_line(bench: Bench, cluster: Cluster) -> None:
    once = "pay --at-most-once"
    with Kernel(bench, notebook="pay.ipynb") as kernel:
        kernel.run("a = [1]").expect_ok()
        for options in ("", once):
            failed = kernel.run(on(NOWHERE, "a.append(2)\na", options))
            assert failed.ename == "ExecutorError"
            assert "no scheduler answers there" in failed.evalue
            assert plain(failed).count("\n") == 0
        assert "nothing is recorded" in str(kernel.run("%durable history pay").evalue)
        assert kernel.run(on(cluster, "a.append(2)\na", once)).expect_ok().result == "[1, 2]"


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("%%durable_step --on ray://there\npass", "is no cluster: give dask://host:port"),
        ("%durable_step --on dask://a:1 x = 1", "--on runs whole cells"),
        ("# durable: off on=dask://a:1\npass", "--on cannot be combined with durable: off"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(bench: Bench, cell: str, why: str) -> None:
    failed = run_all(bench, [cell]).cells[0]
    assert failed.ename == "UsageError"
    assert why in failed.evalue
