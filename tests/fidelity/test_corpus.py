"""Replay equals a fresh run of the plain kernel, or says aloud that it cannot: each row of the hard cases, in five modes.

`make test` runs every notebook fresh and replayed, and a seeded part of the edits and kill points; `make soak` runs all.
Run one by hand: `python -m tests.fidelity.run --case 5-array-view --mode killed`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.fidelity.case import MODES, Case
from tests.fidelity.corpus import all_cases
from tests.fidelity.known import ELSEWHERE, KNOWN
from tests.fidelity.nursery import ROOT
from tests.fidelity.run import Nurseries, verdicts

CASES = tuple(all_cases())
SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))

pytestmark = pytest.mark.xdist_group("fidelity")


@pytest.fixture(scope="session")
def nurseries() -> Iterator[Nurseries]:
    made = Nurseries()
    yield made
    made.close()


def check(case: Case, modes: tuple[str, ...], nurseries: Nurseries, sample: random.Random | None) -> None:
    wrong = [each for each in verdicts(case, modes, nurseries.of(case.needs), sample) if each.verdict == "wrong"]
    if wrong and case.id in KNOWN:
        pytest.xfail(KNOWN[case.id])
    texts = [f"[{each.mode} {each.detail}] {each.statuses}\n    " + "\n    ".join(each.differences) for each in wrong]
    assert not wrong, f"{case.id}\n" + "\n".join(texts)


_SHUFFLED = random.Random(SEED).sample(CASES, len(CASES))
KILLED = {case.id for case in _SHUFFLED[: len(CASES) // 8]}
EDITED = {case.id for case in _SHUFFLED[: len(CASES) // 4]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_run_all_after_any_history_is_as_a_fresh_plain_one(case: Case, nurseries: Nurseries) -> None:
    """Fresh and replayed twice; of the notebooks, the seed chooses a quarter that are edited, and an eighth that are killed too."""
    modes = MODES if case.id in KILLED else ("fresh", "edited", "twice") if case.id in EDITED else ("fresh", "twice")
    check(case, modes, nurseries, random.Random(f"{SEED} {case.id}"))


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_run_all_after_every_edit_and_kill_is_as_a_fresh_plain_one(case: Case, nurseries: Nurseries) -> None:
    check(case, MODES, nurseries, None)


def test_every_row_of_the_list_has_a_notebook() -> None:
    """Rows that need more than one kernel are tested where two kernels are: see `ELSEWHERE`."""
    rows = {case.row for case in CASES} | set(ELSEWHERE)
    wanted = {str(number) for number in range(1, 61)} | {f"F{number}" for number in range(1, 13)}
    assert wanted <= rows, sorted(wanted - rows)


def test_names_of_cases_are_unique() -> None:
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", sorted(ELSEWHERE))
def test_what_is_proved_elsewhere_is_there(row: str) -> None:
    for place in ELSEWHERE[row]:
        name, _, test = place.partition("::")
        path = ROOT / name
        assert path.exists(), f"row {row}: there is no {name}"
        assert not test or f"def {test}(" in path.read_text(encoding="utf-8"), f"row {row}: there is no {place}"
