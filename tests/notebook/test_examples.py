"""The example notebooks agree with their saved outputs: on a fresh store, on a full one, and after a kill in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.harness import Bench
from tests.notebook.runners import Ran, durable_nb, nbval, nbval_command
from tests.notebook.stores import completed, undecided

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

EXAMPLES = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in EXAMPLES if path.stem != "digits"]  # the demo runs that one


def copied(bench: Bench, name: str) -> Path:
    source = next(path for path in EXAMPLES if path.stem == name)
    return Path(shutil.copy(source, bench.root / source.name))


def passes(ran: Ran) -> bool:
    assert ran.code == 0, f"{ran.stdout}\n{ran.stderr}"
    return True


@pytest.mark.parametrize("name", NAMES)
def test_an_example_agrees_with_its_saved_outputs_when_run_and_when_replayed(bench: Bench, name: str) -> None:
    book = copied(bench, name)
    assert passes(nbval(bench, book))
    assert passes(nbval(bench, book))
    cells = json.loads(durable_nb(bench, "run", str(book), "--json").stdout)["cells"]
    assert any(cell["status"] == "replayed" for cell in cells)
    assert [cell["label"] for cell in cells if cell["status"] == "failed"] == []


def test_after_a_kill_in_the_middle_an_example_resumes_and_agrees(bench: Bench) -> None:
    book = copied(bench, "training")
    argv = [sys.executable, "-m", "durable_nb.cli", "run", str(book), "--execution", "training.ipynb"]
    process = subprocess.Popen(
        argv, cwd=bench.root, env=bench.environment(), start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        while len(epochs(bench)) < 5:
            assert process.poll() is None, "the run ended before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = epochs(bench)
    assert 5 <= len(done) < 30
    assert passes(nbval(bench, book))
    assert epochs(bench)[: len(done)] == done


@pytest.mark.soak
def test_the_folder_passes_on_a_fresh_store_and_again_with_nothing_run(bench: Bench) -> None:
    for path in EXAMPLES:
        copied(bench, path.stem)
    assert passes(nbval(bench, bench.root, limit=600))
    done = completed(bench)
    assert done
    assert passes(nbval(bench, bench.root, limit=600))
    assert completed(bench) == done


@pytest.mark.soak
@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_an_example_whose_kernel_is_killed_under_nbval_passes_and_keeps_what_was_done(bench: Bench, name: str) -> None:
    book = copied(bench, name)
    process = subprocess.Popen(
        [sys.executable, *nbval_command(bench, book)],
        cwd=bench.root,
        env=bench.environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    kill_when(process, lambda: bool(completed(bench)) and not undecided(bench))
    done = completed(bench)
    assert passes(nbval(bench, book))
    assert done <= completed(bench)


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """SIGKILL for the process and its kernels, in a moment in which the condition holds."""
    while True:
        while not reached():
            assert process.poll() is None, "it ended before it could be killed"
        # Stopped, nothing moves on: the condition that holds now holds at the kill.
        os.kill(process.pid, signal.SIGSTOP)
        kernels = children(process.pid)
        for pid in kernels:
            os.kill(pid, signal.SIGSTOP)
        if reached():
            break
        for pid in (*kernels, process.pid):
            os.kill(pid, signal.SIGCONT)
    for pid in (*kernels, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def epochs(bench: Bench) -> list[Any]:
    """The recorded epochs: operation, and when it was done."""
    from durable_nb.runtime import open_store

    if not (bench.store / "journal.db").exists():
        return []
    store = open_store(bench.store, create=False)
    try:
        return [
            (stored.event.operation_id, stored.event.at)
            for record in store.journal.executions()
            for stored in store.journal.read(record.execution_id)
            if (stored.event.name or "").startswith("epoch") and stored.event.kind.value == "SUCCEEDED"
        ]
    finally:
        store.close()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_saved_example_tells_nothing_of_the_machine_and_needs_no_kernel_to_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    book = json.loads(text)
    assert "widget-view" not in text
    assert "http" not in "".join(str(cell.get("outputs")) for cell in book["cells"])
    assert str(Path.home()) not in text
    outputs = [o for cell in book["cells"] for o in cell.get("outputs", [])]
    assert all(output["output_type"] != "error" for output in outputs)
