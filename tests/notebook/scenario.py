"""Run All, SIGKILL, Run All: the shape of most tests of the durable kernel, beside the plain kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.notebook.harness import Bench, Run, oracle, run_all


@dataclass
class Twice:
    """Two runs with a kill between them, and what the plain kernel gives for the second notebook."""

    first: Run
    second: Run
    plain: Run

    def expect_equal(self) -> Twice:
        """The second run shows, defines and does what a fresh run of the plain kernel does."""
        assert self.second.visible == self.plain.visible
        return self

    def expect(self, *verdicts: str) -> Twice:
        """What became of each cell in the second run."""
        assert self.second.verdicts == list(verdicts), [cell.durable for cell in self.second.cells]
        return self


def twice(
    bench: Bench,
    cells: Sequence[str],
    *,
    edited: Sequence[str] | None = None,
    probes: Sequence[str] = (),
    **kernel: Any,
) -> Twice:
    """All cells, SIGKILL after the last, then all cells (or the edited ones) on a fresh kernel; `probes` at the end."""
    again = list(edited if edited is not None else cells)
    first = run_all(bench, cells, kill_after=len(cells) - 1, **kernel)
    second = run_all(bench, again, probes=probes, **kernel)
    plain_kernel = {key: value for key, value in kernel.items() if key in ("cwd", "stop_on_error")}
    return Twice(first, second, oracle(bench, again, probes=probes, **plain_kernel))
