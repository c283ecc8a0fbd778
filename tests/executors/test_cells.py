"""Whole cells on a cluster: `%%durable_step --on dask://…` in real kernels, with real workers."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.executors.cluster import Cluster
from tests.notebook.harness import LIMIT, Bench, CellResult, Kernel, run_all

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("dask")]

NOWHERE = "dask://127.0.0.1:9"
"""Nothing listens there."""


def on(cluster: Cluster | str, body: str, options: str = "") -> str:
    place = cluster if isinstance(cluster, str) else cluster.place
    return f"%%durable_step --on {place} {options}\n{body}"


def plain(result: CellResult) -> str:
    """The traceback as text."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(result.traceback))


# --- what comes back, and what it shows -------------------------------------------------------------------------------

CHANGES = """\
import os
a.append(2)
new = [a]
del gone
elsewhere = os.getpid() != here
for one in range(3):
    pass
del one
a"""

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

SHOWS = """\
import os, sys, asyncio
from IPython.display import HTML, display, clear_output
print('old'); clear_output()
print('go', flush=True)
open(PIPE).read()
print('err', file=sys.stderr)
display(HTML('<b>x</b>'))
print('end')
os.write(1, b'raw\\n')
shown = display('one', display_id=True)
shown.update('two')
!echo shell $WORD
words = !echo words
await asyncio.sleep(0)
words"""


def notebook(remote: Callable[[str], str], pipe: Path) -> list[str]:
    return [
        "import os\na = [1]\nb = a\ngone = one = 1\npair = {'a': a}\nhere = os.getpid()",
        remote(CHANGES),
        "print(a, b is a, pair['a'] is a, new[0] is a, 'gone' in dir(), 'one' in dir(), elsewhere, _ is a)",
        "import random\nfrom dataclasses import dataclass\nimport numpy as np\nbase = np.arange(6.)\nview = base[2:5]\n"
        "holder = {'v': view}\nK = 5\n@dataclass\nclass P:\n    x: int\n    seen = []\n    def grow(self):\n"
        "        self.x += K\ndef f(z):\n    return P(z * K)\np = P(1)\nps = [p]\nrandom.seed(1)",
        remote(USES),
        "print(base.tolist(), holder['v'] is view, view.base is base)\n"
        "print(p, ps[0] is p, type(q) is P, q == P(15), P.seen, isinstance(w, P))\nK = 7\nthen = random.random()\n"
        "random.seed(1)\nprint(w.hi(), g(), drawn == random.random(), then == random.random())",
        f"WORD = 'me'\nPIPE = {str(pipe)!r}",
        remote(SHOWS),
    ]


@dataclass
class Lives:
    """One notebook, run on the cluster, again where there is none, and again without `--on`."""

    place: str
    first: list[CellResult]
    again: list[CellResult]
    here: list[CellResult]
    tasks: int
    """How many the cluster got after the first life."""


@pytest.fixture(scope="module")
def lives(started: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Lives:
    folder = tmp_path_factory.mktemp("lives")
    bench, pipe = Bench(folder / "work"), folder / "pipe"
    os.mkfifo(pipe)
    cells = notebook(lambda body: on(started, body), pipe)
    with Kernel(bench) as kernel:
        first = [kernel.run(cell).expect_ok() for cell in cells[:-1]]
        pending = kernel.execute(cells[-1])
        pending.wait_for("go")  # while the body runs
        pipe.write_text("")
        first.append(pending.result().expect_ok())
    tasks = started.tasks()
    again = run_all(bench, notebook(lambda body: on(NOWHERE, body), pipe))
    here = run_all(bench, notebook(lambda body: f"%%durable_step\n{body}", pipe))
    return Lives(started.place, first, again.cells, here.cells, started.tasks() - tasks)


def test_a_cell_binds_changes_and_deletes_as_it_does_here(lives: Lives) -> None:
    assert [cell.verdict for cell in lives.first] == ["executed"] * 6 + ["declared", "executed"]
    assert lives.first[1].result == "[1, 2]"
    assert lives.first[2].stdout == "[1, 2] True True True False False True True\n"


def test_views_instances_classes_functions_and_generators_come_back_as_a_cell_leaves_them(lives: Lives) -> None:
    assert lives.first[5].stdout.splitlines() == [
        "[0.0, 1.0, 99.0, 3.0, 4.0, 5.0] True True",
        "P(x=6) True True True [1] True",
        "7 8 True True",
    ]


def test_outputs_are_shown_in_their_order_while_the_body_runs(lives: Lives) -> None:
    shown = lives.first[7]
    assert f"on {lives.place}" in lives.first[1].outputs[0]["data"]["text/plain"]
    assert "old" not in shown.stdout
    assert [word for word in shown.stdout.split() if word != "raw"] == "go end shell me".split()
    assert "raw\n" in shown.stdout
    assert shown.stderr == "err\n"
    displays = [one["data"] for one in shown.outputs if one["output_type"] == "display_data"]
    assert [one.get("text/html") or one["text/plain"] for one in displays[-2:]] == ["<b>x</b>", "'two'"]
    assert shown.result == "['words']"


def test_a_replay_needs_no_cluster_and_it_does_not_matter_where_a_cell_ran(lives: Lives) -> None:
    for life in (lives.again, lives.here):
        assert [cell.verdict for cell in life] == ["replayed"] * 6 + ["declared", "replayed"]
        assert [cell.stdout for cell in life] == [cell.stdout for cell in lives.first]
        assert [cell.outputs[1:] for cell in life[:-1]] == [cell.outputs[1:] for cell in lives.first[:-1]]
    assert lives.again[7].outputs[-4:] == lives.first[7].outputs[-4:]
    assert lives.tasks == 0


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
        ended = kernel.run(on(cluster, "import os\nos._exit(3)"))
        assert ended.ename == "WorkerLostError"
        assert "with status 3" in str(ended.evalue)
        assert plain(ended).count("\n") == 0


# --- attempts, time, interrupts ---------------------------------------------------------------------------------------


def count(begun: Path, name: str = "*") -> int:
    return len(list(begun.glob(f"{name}.*")))


def begin(begun: Path, name: str = "body") -> str:
    """Statements by which a body leaves word that it has begun, and in which worker."""
    return (
        "import os, time\n"
        "worker = open(f'/proc/{os.getppid()}/stat').read().split()[3]\n"  # its parent is what it was forked from
        f"open(f'{begun}/{name}.{{worker}}.{{time.monotonic_ns()}}', 'w').close()\n"
        f"go = lambda: os.path.exists('{begun}/go')\n"
    )


def test_attempts_time_outs_and_interrupts_are_as_they_are_here(bench: Bench, cluster: Cluster, begun: Path) -> None:
    once_more = begin(begun, "tried") + (
        f"found.append(1)\nif len(os.listdir({str(begun)!r})) < 2:\n    print('no')\n    raise OSError('not yet')\n"
        "print(found)"
    )
    endless = begin(begun) + (
        "try:\n    while not go():\n        time.sleep(0.01)\n"
        f"finally:\n    open('{begun}/ended.' + str(time.monotonic_ns()), 'w').close()\nfound = 2\nprint('done')"
    )
    with Kernel(bench) as kernel:
        kernel.run("found = []").expect_ok()
        options = "--max-attempts 5 --initial-delay 10ms --retry-on OSError"
        done = kernel.run(on(cluster, once_more, options)).expect_ok()
        assert (done.stdout, done.durable["attempt"]) == ("[1]\n", 2)
        assert kernel.value("found") == "[1]"
        late = kernel.run(on(cluster, endless, "--timeout 300ms"))
        assert late.ename == "StepTimeoutError"
        assert kernel.value("found") == "[1]"
        pending = kernel.execute(on(cluster, endless))
        while count(begun, "body") < 2:
            assert not pending.ended_within(0.05)
        kernel.interrupt()
        assert pending.result().ename == "KeyboardInterrupt"
        assert kernel.value("found") == "[1]"
        while count(begun, "ended") < 2:  # both bodies were told
            kernel.run("pass")
        (begun / "go").touch()
        assert kernel.run(on(cluster, endless)).expect_ok().stdout == "done\n"
        assert kernel.value("found") == "2"
    assert (count(begun, "tried"), count(begun, "body")) == (2, 3)


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


def test_a_body_ends_when_its_kernel_has_gone(bench: Bench, cluster: Cluster, begun: Path) -> None:
    body = begin(begun) + (
        "print('here', flush=True)\ntry:\n    while True:\n        time.sleep(0.01)\n"
        f"finally:\n    open('{begun}/ended.1', 'w').close()"
    )
    with Kernel(bench) as kernel:
        kernel.execute(on(cluster, body)).wait_for("here")
        kernel.kill()
    deadline = time.monotonic() + LIMIT
    while not count(begun, "ended"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
    changed = run_all(bench, cells, env={"H_ON_VARIABLE": "x"})  # the worker saw that it is not set
    assert changed.verdicts == ["executed", "executed"]
    assert "data.csv" in changed.cells[0].durable["reason"]
    assert "1 more input" in changed.cells[0].durable["reason"]


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


def test_in_the_ordinary_kernel_local_modules_travel_by_name(bench: Bench, cluster: Cluster) -> None:
    """A module that the worker cannot import keeps the body from beginning, which an at-most-once step may then do."""
    bench.write("helpers.py", "VALUE = 3\nTABLE = {}\ndef twice(x):\n    return 2 * x * VALUE\n")
    away = bench.write("away/other.py", "VALUE = 4\n")
    with Kernel(bench, spec="python3", extension=True, notebook="pay.ipynb") as kernel:
        kernel.run(f"import sys\nsys.path.append({str(away.parent)!r})\nimport helpers, other").expect_ok()
        done = kernel.run(on(cluster, "import logging\nlogging.warning('logged')\nhelpers.twice(2)"))
        assert done.expect_ok().result == "12"
        assert "WARNING:root:logged" in done.stderr
        assert "runs again" in done.durable["reason"] or "handlers" in done.durable["reason"]
        failed = kernel.run(on(cluster, "helpers.TABLE['a'] = 1"))
        assert "helpers" in str(failed.evalue)
        away.rename(away.with_suffix(".txt"))
        once = on(cluster, "paid = other.VALUE", "pay --at-most-once")
        failed = kernel.run(once)
        assert "cannot import other" in str(failed.evalue) or "no module other" in str(failed.evalue)
        away.with_suffix(".txt").rename(away)
        kernel.run(once).expect_ok()
        assert kernel.value("paid") == "4"


def test_the_durable_kernel_takes_it_from_a_comment_or_a_tag(bench: Bench, cluster: Cluster) -> None:
    cells = [
        "import pandas as pd\nframe = pd.DataFrame({'a': [1, 2, 3], 'b': list('xyx')})\nsame = frame",
        f"# durable: on={cluster.place} name=sums\nframe.loc[0, 'a'] = 10\nsums = frame.groupby('b').a.sum()\nsums",
        "print(same is frame, sums.to_dict(), eval('len(sums)'))",
        f"# durable: on={cluster.place}\nn = eval('len(sums)') + len(frame)",
        "n",
    ]
    tag = {"tags": [f"durable: on={cluster.place}"]}
    with Kernel(bench) as kernel:
        results = kernel.run_all(cells)
        endless = kernel.execute(
            "import asyncio\nprint('go')\nwhile True:\n    await asyncio.sleep(0.01)", cell_meta=tag
        )
        endless.wait_for("go")
        kernel.interrupt()
        assert endless.result().ename == "KeyboardInterrupt"
    assert [result.verdict for result in results] == ["executed"] * 5
    assert f"on {cluster.place}" in results[1].outputs[0]["data"]["text/plain"]
    assert results[2].stdout == "True {'x': 13, 'y': 2} 2\n"
    assert results[4].result == "5"


SENSELESS = {
    "%%durable_step --on ray://there\npass": "is no cluster: give dask://host:port",
    "%durable_step --on dask://a:1 x = 1": "--on runs whole cells",
    "# durable: off on=dask://a:1\npass": "--on cannot be combined with durable: off",
}


def test_what_makes_no_sense_is_refused_before_anything_runs(bench: Bench) -> None:
    with Kernel(bench) as kernel:
        for cell, why in SENSELESS.items():
            failed = kernel.run(cell)
            assert failed.ename == "UsageError", cell
            assert why in str(failed.evalue)
