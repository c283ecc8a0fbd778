"""Interleaved rounds: in each round every side does the same work once, one process after the other.

A machine that is busy for a minute then slows all sides of one round, and the medians over the rounds stay comparable.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.orders import COMPARED as ORDERED
from tests.benchmarks.orders import ORDERS
from tests.benchmarks.peers import COMPARED
from tests.benchmarks.workloads import SCALE, WORKLOADS, Workload

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0
"""Seconds after which a side is stopped and reported as such."""

Figures = dict[str, Any]
Note = Callable[[str], None]


@dataclass(slots=True)
class Sides:
    """What the sides of one workload took: per side one entry a round, or why there is none."""

    workload: Workload
    figures: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Runner:
    """Starts the processes of the sides.

    Args:
        size: share of the full size.
        peers: an interpreter that has the neighbours; None leaves them out.
    """

    def __init__(self, size: float, peers: str | None, folder: Path) -> None:
        self.size, self.peers, self.folder = size, peers, folder

    def _environment(self, home: Path) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JPY_", "PYTEST_", "DURABLE_NB_", "COV_"))}
        env.pop("PYTHONPATH", None)
        return env | {
            SCALE: str(self.size),
            "PYTHONHASHSEED": "0",
            "HOME": str(home),
            "IPYTHONDIR": f"{home}/ipython",
            "JUPYTER_DATA_DIR": f"{home}/data",
            "JUPYTER_CONFIG_DIR": f"{home}/config",
            "JUPYTER_RUNTIME_DIR": f"{home}/runtime",
            "JUPYTER_PLATFORM_DIRS": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "PYTHONPATH": str(ROOT),
        }

    def process(self, module: str, *arguments: object, python: str = sys.executable, home: Path) -> Figures:
        """Run a module; its last line is JSON.

        Raises:
            RuntimeError: it failed; says how.
        """
        command = [python, "-W", "ignore", "-m", f"tests.benchmarks.{module}", *map(str, arguments)]
        home.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self._environment(home),
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"stopped after {LIMIT:.0f} s") from None
        except OSError as exc:
            raise RuntimeError(f"{python} cannot be started: {exc.strerror}") from None
        if done.returncode or not done.stdout.strip():
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        found: Figures = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    def workload(self, name: str, *, rounds: int | None = None, peer_rounds: int | None = None, note: Note) -> Sides:
        """All sides of one workload, round after round; the neighbours in the first `peer_rounds` of them."""
        workload = WORKLOADS[name](self.size)
        sides = Sides(workload)
        theirs = 0 if self.peers is None else workload.peer_rounds if peer_rounds is None else peer_rounds
        for number in range(workload.rounds if rounds is None else rounds):
            note(f"{name}, round {number + 1}")
            with self.place() as place:
                self._round(sides, place, peers=number < theirs)
        return sides

    def _round(self, sides: Sides, place: Path, *, peers: bool) -> None:
        workload, home = sides.workload, place / "home"
        folders = {side: place / side for side in ("plain", "durable", *PEER_NAMES)}
        for folder in folders.values():
            folder.mkdir()
        steps: list[tuple[str, Callable[[], Figures]]] = [
            ("plain", lambda: self.process("life", workload.name, "plain", folders["plain"], home=home)),
            ("first", lambda: self.process("life", workload.name, "durable", folders["durable"], home=home)),
            ("replay", lambda: self.process("life", workload.name, "durable", folders["durable"], home=home)),
            ("machine", lambda: self.process("limits", place, workload.nbytes, 200, home=home)),
        ]
        for peer in COMPARED.get(workload.name, ()) if peers else ():
            for phase in ("first", "second"):
                steps.append((f"{peer} {phase}", self._peer(peer, workload.name, phase, folders[peer], home)))
        for side, step in steps:
            if any(side.startswith(failed.partition(" ")[0] + " ") for failed in sides.failures):
                continue
            try:
                found = step()
                sides.figures.setdefault(side, []).append(found)
            except RuntimeError as exc:
                sides.failures[side] = str(exc)

    def _peer(self, peer: str, name: str, phase: str, folder: Path, home: Path) -> Callable[[], Figures]:
        assert self.peers is not None
        python = self.peers
        return lambda: self.process("peers", peer, name, phase, folder, python=python, home=home)

    def wire(self, rounds: int, *, note: Note) -> Sides:
        """Trivial cells through real kernels."""
        sides = Sides(WORKLOADS["trivial"](self.size))
        for number in range(rounds):
            note(f"real kernels, round {number + 1}")
            with self.place() as place:
                for side, kind in (("plain", "plain"), ("first", "durable"), ("replay", "durable")):
                    found = self.process("wire", kind, place / kind, home=place / "home")
                    sides.figures.setdefault(side, []).append(found)
        return sides

    def startup(self, rounds: int, *, note: Note) -> dict[str, list[float]]:
        """Seconds of the import and of the extension, per round."""
        found: dict[str, list[float]] = {"import": [], "extension": []}
        for number in range(rounds):
            note(f"start-up, round {number + 1}")
            with self.place() as place:
                for what, seconds in found.items():
                    seconds += self.process("startup", what, place, home=place / "home")["seconds"]
        return found

    def orders(self, rounds: int, *, note: Note) -> dict[str, dict[str, list[Figures]]]:
        """Per workload and order of saving and replying, the seconds of each round's cells."""
        found: dict[str, dict[str, list[Figures]]] = {name: {order: [] for order in ORDERS} for name in ORDERED}
        for number in range(rounds):
            note(f"saving before and after the reply, round {number + 1}")
            for name, sides in found.items():
                with self.place() as place:
                    for order, figures in sides.items():
                        folder = place / order
                        folder.mkdir()
                        figures.append(self.process("orders", name, order, folder, home=place / "home"))
        return found

    def place(self) -> Place:
        """A folder of one round, on the disk that is measured."""
        return Place(self.folder)


PEER_NAMES = ("joblib", "marimo", "dill", "kishu")


class Place:
    """A folder that is gone afterwards; read-only blobs too."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix=".bench-", dir=self._parent))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def median_of(rounds: Sequence[Figures], value: Callable[[Figures], float]) -> float:
    """The median over the rounds."""
    return statistics.median(value(figures) for figures in rounds)


def per_cell(figures: Figures) -> float:
    """The median cell of one life, in seconds."""
    return statistics.median(figures["seconds"])


def total(figures: Figures) -> float:
    """All cells of one life, in seconds."""
    return float(sum(figures["seconds"]))


def halves(figures: Figures) -> Iterator[float]:
    """The median cell of the first and of the last quarter of one life."""
    seconds = figures["seconds"]
    quarter = max(1, len(seconds) // 4)
    yield statistics.median(seconds[:quarter])
    yield statistics.median(seconds[-quarter:])
