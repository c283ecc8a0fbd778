"""`durable-nb run` with real kernels: what it leaves on disk, what it exits with, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.harness import LIMIT, Bench
from tests.notebook.runners import Ran, durable_nb

pytestmark = [pytest.mark.kernel, pytest.mark.sampled(3)]

SLEEP = "import pathlib, time\npathlib.Path(r'{flag}').write_text('x')\ntime.sleep(600)"


def plain(bench: Bench, cells: list[Any], *options: str, name: str = "a.ipynb") -> Ran:
    """Run in the plain kernel, where nothing is replayed: the command by itself."""
    book = bench.notebook(name, cells, kernel="python3")
    out = bench.root / "out.ipynb"
    return durable_nb(bench, "run", str(book), "--kernel", "python3", "-o", str(out), *options, out=out)


@contextmanager
def running(bench: Bench, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own that a test may signal."""
    argv = [sys.executable, "-m", "durable_nb.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(argv, cwd=bench.root, env=bench.environment(), start_new_session=True, **pipes)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(flag: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not flag.exists() or not flag.stat().st_size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{flag} did not appear"
        time.sleep(0.02)


def test_outputs_parameters_and_code_0(bench: Bench) -> None:
    cells = [{"source": "n = 1", "metadata": {"tags": ["parameters"]}}, "print(n * 2)", "n + 1"]
    ran = plain(bench, cells, "-p", "n", "20")
    assert ran.code == 0, ran.stderr
    assert ran.texts() == ["", "", "40\n", ""]
    assert ran.outputs()[3][0]["data"]["text/plain"] == "21"
    assert "4 executed" in ran.stdout


def test_a_failing_cell_gives_code_1_its_traceback_and_a_saved_notebook(bench: Bench) -> None:
    ran = plain(bench, ["print('before')", "1 / 0", "print('after')"])
    assert ran.code == 1
    assert "durable-nb: cell 2 failed: ZeroDivisionError: division by zero" in ran.stderr
    assert "Traceback" in ran.stderr
    assert [[o["output_type"] for o in outputs] for outputs in ran.outputs()] == [["stream"], ["error"], []]


def test_a_cell_that_may_raise_does_not_end_the_run(bench: Bench) -> None:
    ran = plain(bench, [{"source": "1 / 0", "metadata": {"tags": ["raises-exception"]}}, "print('after')"])
    assert ran.code == 0, ran.stderr
    assert ran.texts()[1] == "after\n"


def test_a_dead_kernel_gives_code_1_and_says_how_to_go_on(bench: Bench) -> None:
    ran = plain(bench, ["print('before')", "import os\nos._exit(3)"])
    assert ran.code == 1
    assert "the kernel died in cell 2: run the same command again" in ran.stderr
    assert ran.texts()[0] == "before\n"


def test_a_cell_over_its_time_out_gives_code_1(bench: Bench) -> None:
    ran = plain(bench, ["import time\ntime.sleep(600)"], "--timeout", "1s")
    assert ran.code == 1
    assert "cell 1 took longer than the time-out" in ran.stderr


def test_a_kernel_that_does_not_start_says_its_last_line(bench: Bench) -> None:
    spec = bench.private / "data" / "kernels" / "broken"
    spec.mkdir(parents=True)
    argv = ["python", "-c", "import sys; sys.exit('no such module: reason')"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "broken", "language": "python"}))
    book = bench.notebook("a.ipynb", ["1"], kernel="broken")
    ran = durable_nb(bench, "run", str(book), "--kernel", "broken")
    assert ran.code == 1
    assert ran.stderr == "durable-nb: the kernel did not start: no such module: reason\n"


def test_outcome_as_json_is_alone_on_stdout(bench: Bench) -> None:
    ran = plain(bench, ["x = 1", "1 / 0"], "--json")
    told = json.loads(ran.stdout)
    assert (told["exit"], ran.code) == (1, 1)
    assert [(cell["number"], cell["status"]) for cell in told["cells"]] == [(1, "executed"), (2, "failed")]


def test_the_kernel_is_told_path_folder_and_tags_but_no_cell_id(bench: Bench) -> None:
    source = "import os\nprint(os.environ['JPY_SESSION_NAME'], os.getcwd(), get_ipython().get_parent()['metadata'])"
    ran = plain(bench, [{"source": source, "metadata": {"tags": ["mine"]}}], name="sub/a.ipynb")
    folder = bench.root / "sub"
    assert ran.texts() == [f"{folder / 'a.ipynb'} {folder} {{'tags': ['mine']}}\n"]


def test_without_an_output_the_notebook_itself_stays_as_it_is(bench: Bench) -> None:
    book = bench.notebook("a.ipynb", ["print(1)"], kernel="python3")
    before = book.read_bytes()
    assert durable_nb(bench, "run", "a.ipynb", "--kernel", "python3").code == 0
    assert book.read_bytes() == before
    assert (bench.root / "a.out.ipynb").exists()


def test_in_place_a_run_that_fails_keeps_what_later_cells_showed(bench: Bench) -> None:
    saved = {"output_type": "stream", "name": "stdout", "text": "earlier\n"}
    book = bench.notebook("a.ipynb", ["1 / 0", {"source": "print('x')", "outputs": [saved]}], kernel="python3")
    ran = durable_nb(bench, "run", "a.ipynb", "--kernel", "python3", "-o", "a.ipynb", out=book)
    assert ran.code == 1
    assert ran.texts()[1] == "earlier\n"


def test_ctrl_c_stops_the_cell_saves_the_notebook_and_gives_code_130(bench: Bench, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    bench.notebook("a.ipynb", ["print('done')", SLEEP.format(flag=flag)], kernel="python3")
    with running(bench, "run", "a.ipynb", "--kernel", "python3", "-o", "out.ipynb") as process:
        wait_for(flag, process)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert "interrupted in cell 2" in err
    book = json.loads((bench.root / "out.ipynb").read_text())
    assert book["cells"][0]["outputs"][0]["text"] == ["done\n"]
    assert book["cells"][1]["outputs"][-1]["ename"] == "KeyboardInterrupt"


def test_a_killed_run_leaves_a_whole_notebook_with_all_that_was_done(bench: Bench, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    bench.notebook("a.ipynb", ["print('one')", "print('two')", SLEEP.format(flag=flag)], kernel="python3")
    with running(bench, "run", "a.ipynb", "--kernel", "python3", "-o", "out.ipynb") as process:
        wait_for(flag, process)
        process.kill()
        process.wait()
    book = json.loads((bench.root / "out.ipynb").read_text())
    assert [cell["outputs"][0]["text"] for cell in book["cells"][:2]] == [["one\n"], ["two\n"]]


def test_the_kernel_dies_with_a_killed_run(bench: Bench, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    source = f"import os, pathlib, time\npathlib.Path(r'{flag}').write_text(str(os.getpid()))\ntime.sleep(600)"
    bench.notebook("a.ipynb", [source], kernel="python3")
    with running(bench, "run", "a.ipynb", "--kernel", "python3") as process:
        wait_for(flag, process)
        pid = int(flag.read_text() or 0)
        process.kill()
        process.wait()
    deadline = time.monotonic() + LIMIT
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the kernel outlived the command that started it"
        time.sleep(0.02)
