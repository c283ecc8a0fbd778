"""The neighbours on the same work, each in a process of its own and with the interpreter that has it installed.

    PYTHON -m tests.benchmarks.peers PEER WORKLOAD PHASE FOLDER

`joblib` and `marimo` cache what a function returns; `dill` dumps the whole session after each cell, which is what it
takes to lose no more than one; `kishu` checkpoints after each cell by itself. `PHASE` is `first`, or `second` in a new
process in the same folder. None of them syncs what it writes to the disk. The last line printed is JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.workloads import WORKLOADS, Workload, scale

Figures = dict[str, Any]

_CELLS = {"trivial": 50}
"""Cells of a session that are measured, for no cell may take seconds and there be hundreds; five where not said."""


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- functions whose results are cached ------------------------------------------------------------------------------


def _function(workload: Workload, folder: Path) -> Callable[..., Any]:
    """The work as a function of a module, which both phases import."""
    path = folder / "made.py"
    if not path.exists():
        path.write_text(f"def make(number=0):\n    {workload.made}\n", encoding="utf-8")
    sys.path.insert(0, str(folder))
    make: Callable[..., Any] = importlib.import_module("made").make
    return make


def _call(workload: Workload, make: Callable[..., Any]) -> Figures:
    if len(workload.cells) > 1:
        return {"seconds": [timed(lambda number=number: make(number)) for number in range(len(workload.cells))]}
    found: list[Any] = []
    seconds = timed(lambda: found.append(make()))
    names = {workload.cells[0].partition(" = ")[0]: found[0]}
    looks = [timed(lambda look=look: eval(look, dict(names))) for look in workload.looks]
    return {"seconds": [seconds], "looks": looks}


def joblib(workload: Workload, phase: str, folder: Path) -> Figures:  # noqa: ARG001 - both phases call
    """`joblib.Memory`, its results mapped copy-on-write."""
    import joblib as package

    memory = package.Memory(folder / "cache", mmap_mode="c", verbose=0)
    return _call(workload, memory.cache(_function(workload, folder)))


def marimo(workload: Workload, phase: str, folder: Path) -> Figures:  # noqa: ARG001 - both phases call
    """`marimo.persistent_cache` on a function."""
    import marimo as package

    return _call(workload, package.persistent_cache(save_path=str(folder / "cache"))(_function(workload, folder)))


# --- sessions --------------------------------------------------------------------------------------------------------


def _shell() -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    return InteractiveShell.instance(config=config)


def _cells(workload: Workload) -> tuple[str, ...]:
    return workload.cells[: _CELLS.get(workload.name, 5)]


def _run(shell: Any, source: str) -> None:
    result = shell.run_cell(source, store_history=True)
    if result.error_before_exec or result.error_in_exec:
        raise RuntimeError(f"{source}: {result.error_before_exec or result.error_in_exec}")


def _looks(workload: Workload, shell: Any) -> list[float]:
    return [timed(lambda look=look: eval(look, dict(shell.user_ns))) for look in workload.looks]


def dill(workload: Workload, phase: str, folder: Path) -> Figures:
    """The whole session, dumped after each cell."""
    import dill as package

    shell, path = _shell(), folder / "session.pkl"
    module = shell.user_module
    for hidden in ("In", "Out", "_ih", "_oh", "_dh", "get_ipython", "exit", "quit", "open"):
        shell.user_ns.pop(hidden, None)  # what dill cannot dump is no part of the notebook's work
    if phase == "second":
        seconds = [timed(lambda: package.load_module(str(path), module=module))]
        return {"seconds": seconds, "looks": _looks(workload, shell)}

    def run(source: str) -> None:
        exec(compile(source, "<cell>", "exec"), shell.user_ns)
        package.dump_module(str(path), module=module)

    for source in workload.setup:
        exec(compile(source, "<cell>", "exec"), shell.user_ns)
    return {"seconds": [timed(lambda source=source: run(source)) for source in _cells(workload)]}


def kishu(workload: Workload, phase: str, folder: Path) -> Figures:
    """Kishu, which checkpoints after each cell; the second process checks the last commit out."""
    import nbformat

    notebook = folder / "peer.ipynb"
    if not notebook.exists():
        nbformat.write(nbformat.v4.new_notebook(), notebook)
    os.environ.update(TEST_NOTEBOOK_PATH=str(notebook), ENV_KISHU_TEST_MODE="1", KISHU_PATH_ROOT=str(folder))
    shell = _shell()
    _run(shell, f"from kishu.jupyterint import init_kishu\ninit_kishu({str(notebook)!r})")
    instrument = shell.user_ns["_kishu"]
    commits = folder / "commit.txt"
    if phase == "second":
        seconds = [timed(lambda: instrument.checkout(commits.read_text(encoding="utf-8"), skip_notebook=True))]
        return {"seconds": seconds, "looks": _looks(workload, shell)}
    for source in workload.setup:
        _run(shell, source)
    seconds = [timed(lambda source=source: _run(shell, source)) for source in _cells(workload)]
    commits.write_text(instrument._kishu_branch.get_head().commit_id, encoding="utf-8")
    return {"seconds": seconds}


PEERS: dict[str, Callable[[Workload, str, Path], Figures]] = {
    "joblib": joblib,
    "marimo": marimo,
    "dill": dill,
    "kishu": kishu,
}

COMPARED: dict[str, tuple[str, ...]] = {
    "trivial": ("joblib", "marimo", "dill", "kishu"),
    "array": ("joblib", "marimo", "dill", "kishu"),
    "frame": ("joblib", "marimo", "dill", "kishu"),
    "row": ("dill", "kishu"),
    "small": ("dill", "kishu"),
    "reader": ("dill", "kishu"),
    "objects": ("joblib", "marimo", "dill", "kishu"),
}
"""Which neighbours can do a workload: functions whose results are cached do not change things in place."""


def held(folder: Path) -> int:
    """Bytes of all that a neighbour has written."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """One process's part, as the arguments say."""
    peer, name, phase, folder = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
    os.chdir(folder)
    out = os.fdopen(os.dup(1), "w")
    found = PEERS[peer](WORKLOADS[name](scale()), phase, folder)
    out.write(json.dumps({"looks": [], "stored": held(folder), **found}) + "\n")
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
