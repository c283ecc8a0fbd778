"""Random notebooks, edited, moved, run out of order, killed and resumed, against the plain kernel.

Both oracles of the design: (a) *Run All* on a fresh kernel after any history is as one fresh plain *Run All*; (b) any
sequence of executions in one session is as the same sequence in a plain session. Both kernels start unseeded generators
from one seed, so that draws are compared exactly; a run starts with the files that a fresh checkout has (a), or with
those that lie there (b).

Each history ends with a *Run All* on a fresh kernel, so that there is none without a comparison.

`DURABLE_NB_EXAMPLES` sets how many notebooks, `DURABLE_NB_STEPS` how long a history each has at most, `DURABLE_NB_SEED`
which ones.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.fidelity.judge import Outcome, differences, outcome
from tests.fidelity.kills import Kill
from tests.fidelity.nursery import Job, Nursery
from tests.fidelity.run import fast_folder
from tests.fidelity.writing import FILES, HELPER, PREAMBLE, START, sources

SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
STEPS = int(os.environ.get("DURABLE_NB_STEPS", "10"))
EXAMPLES = int(os.environ.get("DURABLE_NB_EXAMPLES", "5000" if SOAK else "60"))

_nursery: list[Nursery] = []


class Notebooks(RuleBasedStateMachine):
    """One notebook's history."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="dnb-machine-", dir=fast_folder()))
        self.work = self.root / "0001" / "work"
        self.work.mkdir(parents=True)
        self.value = 1
        self.cells: list[str] = []
        self.runs = 0

    def teardown(self) -> None:
        try:
            if self.cells:
                self.compare(self.cells, stop=True, fresh=True)
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    # --- writing ------------------------------------------------------------------------------------------------------

    @initialize(cells=st.lists(sources(), min_size=2, max_size=6))
    def begin(self, cells: list[str]) -> None:
        self.cells = [PREAMBLE, START, *cells]
        self.write_helper(self.work)

    def write_helper(self, folder: Path) -> None:
        (folder / "helper.py").write_text(HELPER.format(value=self.value))

    @rule(source=sources(), place=st.integers(0, 99))
    def insert(self, source: str, place: int) -> None:
        if len(self.cells) < 10:
            self.cells.insert(1 + place % len(self.cells), source)

    @rule(source=sources(), place=st.integers(0, 99))
    def edit(self, source: str, place: int) -> None:
        self.cells[1 + place % (len(self.cells) - 1)] = source

    @rule(one=st.integers(0, 99), other=st.integers(0, 99))
    def move(self, one: int, other: int) -> None:
        cell = self.cells.pop(1 + one % (len(self.cells) - 1))
        self.cells.insert(1 + other % len(self.cells), cell)

    @rule(place=st.integers(0, 99), to=st.integers(0, 99))
    def duplicate(self, place: int, to: int) -> None:
        if len(self.cells) < 10:
            self.cells.insert(1 + to % len(self.cells), self.cells[1 + place % (len(self.cells) - 1)])

    @precondition(lambda self: len(self.cells) > 3)
    @rule(place=st.integers(0, 99))
    def remove(self, place: int) -> None:
        del self.cells[1 + place % (len(self.cells) - 1)]

    @rule(value=st.integers(1, 3))
    def edit_module(self, value: int) -> None:
        self.value = value
        self.write_helper(self.work)

    # --- running ------------------------------------------------------------------------------------------------------

    @rule(stop=st.booleans())
    def run_all(self, stop: bool) -> None:
        self.compare(self.cells, stop=stop, fresh=True)

    @rule(stop=st.booleans(), place=st.integers(0, 99), point=st.integers(0, 5))
    def run_all_and_die(self, stop: bool, place: int, point: int) -> None:
        number = place % len(self.cells)
        kill = Kill("after", number) if point == 5 else Kill("inside", number, point)
        self.live(self.work, self.cells, durable=True, stop=stop, kill=kill)

    @rule(stop=st.booleans(), point=st.integers(1, 60))
    def run_all_and_die_while_writing(self, stop: bool, point: int) -> None:
        self.live(self.work, self.cells, durable=True, stop=stop, kill=Kill("write", point=point))

    @rule(order=st.lists(st.integers(0, 99), min_size=2, max_size=9))
    def run_in_any_order(self, order: list[int]) -> None:
        chosen = [self.cells[n % len(self.cells)] for n in order]
        self.compare([self.cells[0], *chosen], stop=False, fresh=False)

    def compare(self, cells: Sequence[str], *, stop: bool, fresh: bool) -> None:
        """Run durably and plainly, and fail where they differ."""
        self.runs += 1
        other = self.root / f"{self.runs + 1:04d}" / "work"
        if fresh:
            other.mkdir(parents=True)
            self.write_helper(other)
            self.remove_leftovers(cells)
        else:
            shutil.copytree(self.work, other)
        durable = self.live(self.work, cells, durable=True, stop=stop)
        plain = self.live(other, cells, durable=False, stop=stop)
        ignore = () if not fresh else ()
        if fresh:  # a cell that no longer runs has left its file behind, as it would have in the plain kernel
            for name in set(durable.files) - set(plain.files):
                del durable.files[name]
        found = differences(plain, durable, ignore=ignore)
        for status in durable.statuses:
            event(status)
        if found:
            shown = "\n---\n".join(cells)
            note(f"statuses {durable.statuses}\ntold {durable.told}\n{shown}")
        assert not found, "\n".join(found)
        shutil.rmtree(other.parent)

    def remove_leftovers(self, cells: Sequence[str]) -> None:
        """A file whose writer was taken out of the notebook is nobody's: a fresh checkout does not have it."""
        for name in FILES:
            if not any(f"'{name}').write_text" in source or f"open('{name}', 'w')" in source for source in cells):
                (self.work / name).unlink(missing_ok=True)

    def live(
        self, folder: Path, cells: Sequence[str], *, durable: bool, stop: bool, kill: Kill | None = None
    ) -> Outcome:
        job = Job(
            cells=tuple(cells),
            folder=folder,
            store=folder.parent / "store",
            durable=durable,
            kill=kill,
            stop_on_error=stop,
            name="random.ipynb",
        )
        seen = _nursery[0].run(job)
        return outcome(seen, folder)


def settings_for(examples: int) -> Any:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )


@pytest.mark.xdist_group("machine")
@pytest.mark.timeout(6 * 3600 if SOAK else 900)
@pytest.mark.soak
def test_random_notebooks_are_replayed_as_the_plain_kernel_runs_them() -> None:
    with Nursery(("numpy", "numpy.random")) as nursery:
        _nursery[:] = [nursery]
        machine = seed(SEED)(Notebooks)
        run_state_machine_as_test(machine, settings=settings_for(EXAMPLES))
