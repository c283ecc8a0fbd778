"""The two oracles of the project, as helpers: what a durable run shows is compared with the plain kernel.

A *story* is a notebook that is run, killed, edited and run again. `Story.run` is one Run All in a fresh kernel; it
checks at once that everything a person can see equals a fresh run of the same cells in the plain kernel, so that a test
only states which cells were replayed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from tests.notebook.harness import Bench, Run, oracle, run_all

REPLAYED, EXECUTED, DECLARED, NOT_DURABLE, FAILED = "replayed", "executed", "declared", "not_durable", "failed"

_OF_THE_PROCESS = re.compile(r"0x[0-9a-f]{6,}|/ipykernel_\d+/")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")


def comparable(run: Run) -> tuple[list[Any], dict[str, str]]:
    """What is visible, without what differs between any two processes.

    That is addresses and the process id in the file names of cells. Of a line that was overwritten (a progress bar) only
    the last state counts, as on the screen.
    """
    cells, probes = copy.deepcopy(run.visible)
    return _scrub(cells), _scrub(probes)


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return _OVERWRITTEN.sub("", _OF_THE_PROCESS.sub("…", value))
    if isinstance(value, dict):
        return {key: _scrub(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub(each) for each in value]
    return value


class Story:
    """One notebook in one folder, through several kernels."""

    def __init__(self, bench: Bench, *, notebook: str | None = "a.ipynb", probes: Sequence[str] = ()) -> None:
        self.bench, self.notebook, self.probes = bench, notebook, list(probes)

    def run(self, cells: Sequence[str], *, compare: bool | None = None, **options: Any) -> Run:
        """Run All in a fresh durable kernel.

        It is compared with the plain kernel when something was replayed, or `compare` says so: a plain kernel for each
        first run would double the time of the suite and tell what the second comparison tells.
        """
        if self.notebook is not None:
            # A client that tells a path has the file on disk; the kernel may look at it.
            self.bench.notebook(self.notebook, list(cells))
        run = run_all(self.bench, cells, probes=self.probes, notebook=self.notebook, **options)
        if compare is None:
            compare = REPLAYED in run.verdicts
        if compare and not run.killed:
            plain = oracle(self.bench, cells, probes=self.probes)
            assert comparable(run) == comparable(plain)
        return run

    def verdicts(self, cells: Sequence[str], **options: Any) -> list[str | None]:
        """Of a run; see `run`."""
        return self.run(cells, **options).verdicts
