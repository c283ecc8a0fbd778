"""Shadow audit: replays are run again elsewhere, and a cell that gives something else is said not to be deterministic."""

from __future__ import annotations

import time
from typing import Any

import pytest

from durable_nb.events import EventKind
from durable_nb.notebook._audits import share_from
from durable_nb.runtime import open_store
from tests.notebook.harness import LIMIT, Bench, Kernel

pytestmark = pytest.mark.kernel

CELLS = (
    "import random, uuid, pathlib, subprocess, sys",
    "items = sorted([3, 1, 2])\nprint(items)",
    "stamp = uuid.uuid4()",
    "n = pathlib.Path('out.txt').write_text('x')",
    "code = subprocess.call([sys.executable, '-c', ''])",
    "items.append(len(str(stamp)))",
)


def verdicts(bench: Bench) -> dict[str, dict[str, Any]]:
    """First line of the cell to what its audit found."""
    store = open_store(bench.store, create=False)
    try:
        labels, found = {}, {}
        for record in store.journal.executions():
            for stored in store.journal.read(record.execution_id):
                details = stored.event.details
                if stored.event.kind is EventKind.SUCCEEDED:
                    labels[stored.event.operation_id] = str(details["label"])
                elif stored.event.kind is EventKind.NOTE and "audit" in details:
                    found[labels[stored.event.operation_id]] = dict(details["audit"])
        return found
    finally:
        store.close()


def test_replays_are_audited_and_only_those_that_merely_compute(bench: Bench) -> None:
    bench.notebook("n.ipynb", CELLS)
    with Kernel(bench, notebook="n.ipynb") as kernel:
        for cell in kernel.run_all(CELLS):
            cell.expect_ok()
    with Kernel(bench, notebook="n.ipynb", env={"DURABLE_NB_AUDIT": "1"}) as kernel:
        assert [cell.verdict for cell in kernel.run_all(CELLS)[1:4]] == ["replayed"] * 3
        deadline = time.monotonic() + LIMIT
        while len(verdicts(bench)) < 5 and time.monotonic() < deadline:
            kernel.run("pass", silent=True)
    found = verdicts(bench)
    assert found["items = sorted([3, 1, 2])"] == {"verdict": "equal", "differs": []}
    assert found["stamp = uuid.uuid4()"] == {"verdict": "different", "differs": ["stamp"]}
    assert found["n = pathlib.Path('out.txt').write_text('x')"] == {"verdict": "none", "reason": "it writes files"}
    assert found["code = subprocess.call([sys.executable, '-c', ''])"]["verdict"] == "none"
    assert found["items.append(len(str(stamp)))"] == {"verdict": "equal", "differs": []}


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), ("0.05", 0.05), ("7", 1.0), ("-1", 0.0), ("often", 0.0), (None, 0.0)]
)
def test_the_share_is_a_number_between_0_and_1(text: str | None, share: float) -> None:
    assert share_from({} if text is None else {"DURABLE_NB_AUDIT": text}) == share
