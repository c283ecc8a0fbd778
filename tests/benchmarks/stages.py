"""Where the time of a trivial cell goes: py-spy's samples, each given to the stage whose function was running.

    python -m tests.benchmarks.stages first|replay FOLDER

A sample belongs to the innermost function of its stack that is listed here; what belongs to none is IPython's and
ipykernel's own.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

PLACES = (str(Path(sys.executable).parent), str(Path(__file__).parents[2] / ".make" / "peers" / "bin"), None)
"""Where py-spy may be: beside this Python, where `make bench` puts it, on the path."""

LIVES = 3
"""Kernels that are sampled, so that there are about as many samples as microseconds matter."""

STAGES: dict[str, str] = {
    "prepare (_session.py": "which cell it is: canonical source, identity, lease",
    "left_by (_left.py": "threads and tasks that still run",
    "plan (_plan.py": "deciding",
    "candidates (_records.py": "looking its checkpoints up",
    "differs (_plan.py": "comparing recorded inputs with what is there",
    "analyse (_session.py": "what it may read: static analysis, versions of inputs",
    "start (_session.py": "before it runs: other",
    "touched (_session.py": "names it may touch",
    "before (_tracker.py": "names before it runs",
    "module_states (_world.py": "modules it can reach",
    "changed_modules (_world.py": "modules it can reach",
    "foresee (_files.py": "files: before and after",
    "settle (_files.py": "files: before and after",
    "seen (_world.py": "files: before and after",
    "wrote (_files.py": "files: before and after",
    "begin (_observe.py": "files: before and after",
    "end (_observe.py": "files: before and after",
    "_record_start (_session.py": "recording that it starts",
    "finish (_commit.py": "after it ran: other",
    "code (_world.py": "versions of modules and packages",
    "after (_tracker.py": "names after it ran",
    "capture (_process.py": "process state (generators, options, signals…)",
    "end (_capture.py": "collecting its outputs",
    "save (_manifest.py": "writing the manifest",
    "_commit_result (_commit.py": "building the record",
    "append (_sqlite.py": "the commit, with its fsync",
    "replay (_replay.py": "giving back: other",
    "load (_manifest.py": "giving names back",
    "replay (_capture.py": "giving outputs back",
    "show_final (_steps_view.py": "giving outputs back",
    "_end (_shell.py": "the cell's end: badge, audit, report",
    "consider (_audits.py": "the cell's end: badge, audit, report",
    "ended (_badge.py": "the cell's end: badge, audit, report",
}

OTHER = "IPython and ipykernel"


def stage_of(stack: str) -> str:
    """The stage of one stack, outermost frame first, as py-spy writes it."""
    for frame in reversed(stack.split(";")):
        name, _, place = frame.partition(" (")
        if "durable_nb/" in place:
            found = STAGES.get(f"{name.rpartition('.')[2]} ({Path(place.partition(':')[0]).name}")
            if found is not None:
                return found
    return OTHER


def stages(lines: list[str]) -> Counter[str]:
    """Samples per stage, of the stacks in which a cell ran."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if "timed_cell (benchmarks/life.py" in stack:
            found[stage_of(stack)] += int(count)
    return found


def profile(side: str, folder: Path) -> dict[str, float]:
    """Milliseconds of the processor a cell per stage: the shares of the samples times what an unsampled cell takes."""
    spy = next(filter(None, (shutil.which("py-spy", path=place) for place in PLACES)), None)
    if spy is None:
        raise RuntimeError("py-spy is not installed")
    samples: Counter[str] = Counter()
    cells: list[float] = []
    for number in range(LIVES):
        place = folder / f"{side}-{number}"
        place.mkdir()
        if side == "replay":
            _life(place)
        out = place / "samples.txt"
        subprocess.run(
            [spy, "record", "--rate", "500", "--format", "raw", "--output", str(out), "--", *_command(place)],
            check=True,
            capture_output=True,
        )
        samples += stages(out.read_text(encoding="utf-8").splitlines())
        cells.append(_life(place) if side == "replay" else _life(_fresh(folder, number)))
    cell = statistics.median(cells) * 1000
    whole = sum(samples.values())
    return {stage: cell * count / whole for stage, count in samples.most_common()}


def _fresh(folder: Path, number: int) -> Path:
    place = folder / f"unsampled-{number}"
    place.mkdir()
    return place


def _command(place: Path) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.life", "trivial", "durable", str(place)]


def _life(place: Path) -> float:
    """Processor time of a cell in a life that nobody samples, in seconds."""
    done = subprocess.run(_command(place), capture_output=True, text=True, check=True, env=os.environ.copy())
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return float(found["cpu"]) / len(found["seconds"])


def main() -> None:
    """As the arguments say."""
    sys.stdout.write(json.dumps({"stages": profile(sys.argv[1], Path(sys.argv[2]))}) + "\n")


if __name__ == "__main__":
    main()
