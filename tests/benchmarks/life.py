"""One kernel's life, in a process of its own: run a workload's cells, time each, say what it cost.

    python -m tests.benchmarks.life WORKLOAD SIDE FOLDER

The kernel is the real one without its sockets (`tests/fidelity/inprocess.py`), the same for both sides: what is
compared is a difference of milliseconds, and the transport only adds noise to it. `SIDE` is `plain` or `durable`; a
second durable life in the same folder replays. The last line printed is JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.workloads import WORKLOADS, Workload, scale


def peak() -> int:
    """The largest resident memory of this process since `forget_peak`, in bytes."""
    return _status("VmHWM")


def resident() -> int:
    """The resident memory of this process now, in bytes."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let the peak begin at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def stored(folder: Path) -> int:
    """Bytes of the blobs that a store holds."""
    return sum(path.stat().st_size for path in folder.glob("blobs/??/*"))


def begin(workload: Workload, folder: Path, *, durable: bool) -> Any:
    """A kernel in this folder, in which the workload's ground is made; its store is `store` in it."""
    os.chdir(folder)
    os.environ.update(JPY_SESSION_NAME=str(folder / "notebook.ipynb"), DURABLE_NB_STORE=str(folder / "store"))
    from tests.fidelity.inprocess import Shell

    shell = Shell(durable=durable)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # in a kernel there are none: they would count as the notebook's local modules
    for source in ("sum(range(3))", *workload.setup):
        _checked(shell.run(source))
    return shell


def live(workload: Workload, side: str, folder: Path) -> dict[str, Any]:
    """Run the cells; seconds per cell, what was stored and the memory that it took."""
    shell, store = begin(workload, folder, durable=side != "plain"), folder / "store"
    held = stored(store)
    before = resident()
    forget_peak()
    seconds, statuses, inside = [], [], 0.0
    cpu = time.process_time()
    for source in workload.cells:
        took, seen = timed_cell(shell, source)
        seconds.append(took)
        report = _checked(seen)["durable"]
        statuses.append(str(report.get("status")))
        inside += float(report.get("seconds", 0.0))
    found = {
        "seconds": seconds,
        "inside": inside,
        "cpu": time.process_time() - cpu,
        "statuses": sorted(set(statuses)),
        "stored": stored(store) - held,
        "peak": peak() - before,
        "looks": [],
        "peak_first_look": 0,
    }
    for look in workload.looks:
        start = time.perf_counter()
        _checked(shell.run("", silent=True, user_expressions={"v": look}))
        found["looks"].append(time.perf_counter() - start)
        found["peak_first_look"] = found["peak_first_look"] or peak() - before
    return found


def timed_cell(shell: Any, source: str) -> tuple[float, dict[str, Any]]:
    """One cell: seconds, and what a front end has seen. A profile knows the cells by this function's name."""
    start = time.perf_counter()
    seen = shell.run(source)
    return time.perf_counter() - start, seen


def _checked(seen: dict[str, Any]) -> dict[str, Any]:
    bad = [value for value in seen["expressions"].values() if value["status"] != "ok"]
    if seen["status"] != "ok" or bad:
        raise RuntimeError(f"{seen['source']}: {seen['ename']}: {seen['evalue']} {bad}")
    return seen


def main() -> None:
    """One life, as the arguments say."""
    name, side, folder = sys.argv[1:4]
    out = os.fdopen(os.dup(1), "w")
    found = live(WORKLOADS[name](scale()), side, Path(folder))
    out.write(json.dumps(found) + "\n")
    out.flush()
    os._exit(0)  # what a kernel's end costs is nobody's cell


if __name__ == "__main__":
    main()
