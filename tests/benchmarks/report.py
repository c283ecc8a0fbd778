"""The benchmarks in full: prints the table of numbers to hold and writes `docs/performance.md`.

python -m tests.benchmarks.report [--scale S] [--only NAME…] [--rounds N] [--peers PYTHON] [--docs FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.measure import ROOT, Runner, Sides
from tests.benchmarks.page import Run, page, table
from tests.benchmarks.sdk_compare import SIDES, Figures, run_side
from tests.benchmarks.workloads import SCALE, WORKLOADS

OURS = ("disk", "ours")
PARTS = (*WORKLOADS, "wire", "orders", "startup", "sdk", "stages")


def machine() -> dict[str, str]:
    """What this machine is, in words."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": f"{os.cpu_count()} cores, {model}",
        "its speed": f"{1000 * min(_loop() for _ in range(5)):.0f} ms for a loop of a million additions in Python",
        "memory": f"{memory:.0f} GB",
        "system": f"{platform.system()} {platform.release()}, a shared virtual machine: what counts are ratios",
        "Python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in ("numpy", "pandas", "ipykernel", "ipython")),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "other work on it": f"a load of {os.getloadavg()[1]:.1f} before the last part of the run began",
    }


def _loop() -> float:
    """Seconds of a fixed amount of work in the interpreter: milliseconds of one machine mean little on another."""
    start, total = time.perf_counter(), 0
    for number in range(1_000_000):
        total += number
    return time.perf_counter() - start


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def install_peers() -> tuple[str | None, str]:
    """An interpreter with the neighbours, made when there is none; else why there is none."""
    place = ROOT / ".make" / "peers"
    python, stamp = place / "bin" / "python", place / "installed"
    wanted = Path(__file__).with_name("requirements-peers.txt")
    if stamp.exists() and stamp.stat().st_mtime >= wanted.stat().st_mtime:
        return str(python), ""
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    stamp.touch()
    return str(python), ""


def measured(options: argparse.Namespace) -> Run:
    """Run what was asked for."""
    run = Run(machine(), options.scale)
    peers, why = (options.peers, "") if options.peers else (None, "left out") if options.alone else install_peers()
    if peers is None:
        run.missing["the neighbours"] = why
    runner = Runner(options.scale, peers, ROOT)
    for name in options.only:
        if name in WORKLOADS:
            run.sides[name] = runner.workload(name, rounds=options.rounds, peer_rounds=options.peer_rounds, note=_note)
            _note(_short(run.sides[name]))
    if "wire" in options.only:
        run.wire = runner.wire(options.rounds or 3, note=_note)
    if "orders" in options.only:
        run.orders = runner.orders(options.rounds or 3, note=_note)
    if "startup" in options.only:
        run.startup = runner.startup(options.rounds or 5, note=_note)
    if "sdk" in options.only:
        run.sdk = _durable_functions(options, peers)
    if "stages" in options.only:
        for side in ("first", "replay"):
            _note(f"profile of a trivial cell, {side}")
            with runner.place() as place:
                try:
                    run.stages[side] = runner.process("stages", side, place, home=place / "home")["stages"]
                except RuntimeError as exc:
                    run.missing[f"the profile of a trivial cell, {side}"] = str(exc)
    return run


def _durable_functions(options: argparse.Namespace, peers: str | None) -> dict[str, list[Figures]]:
    """Per side, the figures of each round; the neighbours take part in the first rounds."""
    steps = max(50, int(3000 * min(options.scale, 1)))
    sizes = argparse.Namespace(steps=steps, replay=10_000, items=1000, dbos_python=peers or sys.executable)
    theirs = 2 if options.peer_rounds is None else options.peer_rounds
    found: dict[str, list[Figures]] = {}
    for number in range(options.rounds or 5):
        _note(f"durable functions, round {number + 1}")
        for side in SIDES if number < theirs else OURS:
            figures = run_side(side, sizes)
            if figures is not None:
                found.setdefault(side, []).append(figures)
    return found


def _note(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def _short(sides: Sides) -> str:
    found = {side: [round(sum(one.get("seconds", [])), 4) for one in rounds] for side, rounds in sides.figures.items()}
    return f"{found} {sides.failures or ''}"


def main() -> None:
    """As the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=float(os.environ.get(SCALE, "1")))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peer-rounds", type=int, help="rounds in which the neighbours take part")
    parser.add_argument("--peers", help="an interpreter that has the neighbours")
    parser.add_argument("--alone", action="store_true", help="without the neighbours")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    run, kept = measured(options), options.docs / "performance.json"
    if set(options.only) != set(PARTS) and kept.exists():
        run.keep(json.loads(kept.read_text(encoding="utf-8")))
    (options.docs / "performance.md").write_text(page(run), encoding="utf-8")
    kept.write_text(json.dumps(run.raw()) + "\n", encoding="utf-8")
    sys.stdout.write(table(run) + "\n")


if __name__ == "__main__":
    main()
