"""Ordinary cells stay ordinary: what works in the plain kernel works in the durable one."""

from __future__ import annotations

import json

import pytest

from tests.acceptance.story import EXECUTED, NOT_DURABLE, REPLAYED
from tests.notebook.harness import Bench, Kernel

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]


@pytest.fixture
def kernel(bench: Bench):
    bench.notebook("a.ipynb", ["x"])
    with Kernel(bench, notebook="a.ipynb") as started:
        yield started


def test_completion_inspection_history_and_completeness_answer(kernel: Kernel) -> None:
    kernel.run("some_name = [1]").expect_ok()
    assert "some_name" in kernel.request("complete_request", {"code": "some_n", "cursor_pos": 6})["matches"]
    found = kernel.request("inspect_request", {"code": "some_name", "cursor_pos": 3, "detail_level": 0})
    assert found["found"]
    asked = {"hist_access_type": "tail", "n": 5, "output": False, "raw": True}
    assert kernel.request("history_request", asked)["history"][-1][2] == "some_name = [1]"
    assert kernel.request("is_complete_request", {"code": "for x in y:"})["status"] == "incomplete"


@pytest.mark.parametrize(
    "source",
    [
        "%timeit -n 1 -r 1 sum(range(10))",
        "%time x = max(1, 2)",
        "%%time\nx = max(1, 2)",
        "%%capture out\nprint('caught')",
        "!true",
        "files = !ls\nlen(files) > 0",
        "%%bash\necho hi",
        "%who_ls",
        "%pwd",
        "?len",
        "import this as _t; del _t",
        "%%writefile made.txt\nsome text",
        "%run made.py",
        "from __future__ import annotations",
        "x: int = 3",
        "",
        "# only a comment",
        "print('é', '\\N{SNOWMAN}')",
        "%config InlineBackend.figure_format = 'png'",
        "%load_ext autoreload\n%autoreload 2",
        "async def f():\n    return 1\nawait f()",
        "[x async for x in __import__('contextlib').aclosing.__init__ and g()] if False else None",
    ],
)
def test_a_cell_that_the_plain_kernel_runs_runs(bench: Bench, kernel: Kernel, source: str) -> None:
    bench.write("made.py", "made = 1\nprint(made)\n")
    first = kernel.run(source)
    assert first.status == "ok", (first.traceback, first.stderr)
    kernel.restart(kill=True)
    assert kernel.run(source).status == "ok"


def test_input_is_asked_once_and_its_answer_is_kept(kernel: Kernel) -> None:
    source = "name = input('who? ')\nprint('hello', name)"
    assert kernel.run(source, answers=["me"]).expect_ok().stdout == "hello me\n"
    kernel.restart()
    again = kernel.run(source)
    assert again.stdout == "hello me\n"
    assert again.verdict == REPLAYED


def test_a_password_is_never_kept(bench: Bench, kernel: Kernel) -> None:
    kernel.run("import getpass\nword = getpass.getpass('? ')", answers=["open-sesame"]).expect_ok()
    kernel.close()
    for path in bench.store.rglob("*"):
        if path.is_file():
            assert b"open-sesame" not in path.read_bytes(), path


def test_silent_requests_are_no_steps_and_see_every_name(kernel: Kernel) -> None:
    kernel.run("x = max(1, 2)").expect_ok()
    assert kernel.value("x") == "2"
    silent = kernel.run("x = 10", silent=True)
    assert silent.verdict is None
    assert kernel.run("y = x + 1\ny").result == "11"


def test_a_change_by_a_silent_request_is_an_input(kernel: Kernel) -> None:
    kernel.run("x = sorted([1])").expect_ok()
    assert kernel.run("y = sum(x)\ny").result == "1"
    kernel.run("x.append(5)", silent=True)
    assert kernel.run("y = sum(x)\ny").result == "6"


def test_a_subshell_runs_beside_a_durable_cell(kernel: Kernel) -> None:
    side = kernel.create_subshell()
    busy = kernel.execute(
        "import threading\ngo = threading.Event()\nprint('wait', flush=True)\nwent = go.wait()"
    ).wait_for("wait")
    kernel.run("go.set()", subshell=side).expect_ok()
    assert busy.result().status == "ok"


def test_a_full_disk_or_unwritable_store_costs_the_checkpoint_and_not_the_cell(bench: Bench) -> None:
    blocked = bench.write("blocked", "a file where the store should be")
    bench.notebook("a.ipynb", ["x"])
    with Kernel(bench, notebook="a.ipynb", env={"DURABLE_NB_STORE": str(blocked / "store")}) as kernel:
        result = kernel.run("x = max(1, 2)\nx").expect_ok()
        assert result.result == "2"
        assert result.verdict == NOT_DURABLE
        assert "store" in result.stderr
        assert kernel.run("y = x").stderr == "", "said once"


def test_a_newer_store_is_left_alone_and_cells_run(bench: Bench) -> None:
    import sqlite3

    bench.notebook("a.ipynb", ["x"])
    with Kernel(bench, notebook="a.ipynb") as kernel:
        kernel.run("x = max(1, 2)").expect_ok()
    db = sqlite3.connect(bench.store / "journal.db")
    db.execute("PRAGMA user_version = 999")
    db.close()
    with Kernel(bench, notebook="a.ipynb") as kernel:
        result = kernel.run("x = max(1, 2)\nx").expect_ok()
    assert result.verdict == NOT_DURABLE
    assert "upgrade durable_nb" in result.stderr


def test_exit_codes_and_system_exit_are_as_in_the_plain_kernel(kernel: Kernel) -> None:
    result = kernel.run("import sys\nsys.exit(3)")
    assert (result.status, result.ename) == ("error", "SystemExit")
    assert kernel.run("max(1, 2)").verdict == EXECUTED


def test_work_left_running_is_said(kernel: Kernel) -> None:
    source = "import threading, time\nstop = threading.Event()\nt = threading.Thread(target=stop.wait, daemon=True)\nt.start()"
    assert kernel.run(source).verdict == NOT_DURABLE


def test_metadata_of_every_reply_is_json(kernel: Kernel) -> None:
    for source in ("x = max(1, 2)", "import math", "1 / 0", "# durable: off\ny = 1"):
        json.dumps(kernel.run(source).metadata)


def test_line_magic_stores_one_statement(bench: Bench) -> None:
    options = {"spec": "python3", "extension": True, "notebook": "a.ipynb"}
    bench.notebook("a.ipynb", ["x"])
    shown = []
    for _ in range(2):
        with Kernel(bench, **options) as kernel:
            kernel.run("import uuid")
            kernel.run("%durable_step value = uuid.uuid4().hex").expect_ok()
            shown.append(kernel.value("value"))
    assert shown[0] == shown[1]
