"""Durable calls inside a cell: item-level progress, and one statement as a step."""

from __future__ import annotations

import pytest

from tests.notebook.harness import Bench, run_all

pytestmark = pytest.mark.kernel

LOOP = """\
total = 0
for i in range(6):
    total += context.step(lambda _, i=i: counting.attempt_number() and i, name=f'item-{i}')
    print(i, flush=True)
    if i == WAIT_AT:
        time.sleep(600)
"""


@pytest.fixture
def counter(bench: Bench) -> str:
    """A module that counts calls in a file."""
    path = str(bench.private / "count")
    bench.write(
        "counting.py",
        "from pathlib import Path\n"
        "def attempt_number():\n"
        f"    path = Path({path!r})\n"
        "    n = int(path.read_text()) + 1 if path.exists() else 1\n"
        "    path.write_text(str(n))\n"
        "    return n\n",
    )
    return "import counting, time\nfrom durable_nb import context"


def test_a_loop_of_steps_goes_on_where_the_kernel_died(bench: Bench, counter: str) -> None:
    import os

    # How far the loop gets before it hangs is no input of the cell: a module outside the notebook's names tells it.
    cells = [counter, "import os", LOOP.replace("WAIT_AT", "int(os.environ.get('JPY_WAIT_AT', -1))")]
    killed = run_all(bench, cells, kill_inside=(2, "3\n"), env={"JPY_WAIT_AT": "3", "DURABLE_NB_EXECUTION": "a"})
    assert killed.killed
    run = run_all(bench, cells, probes=["total"], env={"DURABLE_NB_EXECUTION": "a"})
    assert run.probes == {"total": "15"}
    assert run.cells[2].expect_ok().stdout == "0\n1\n2\n3\n4\n5\n"
    assert (bench.private / "count").read_text() == "6", "each item was made once"
    del os


def test_one_statement_is_a_step_of_its_own_in_an_unmarked_cell(bench: Bench, counter: str) -> None:
    cells = [
        "%load_ext durable_nb",
        counter,
        "a = len('abc')\n%durable_step n = counting.attempt_number()\nm = n\nv = %durable_step counting.attempt_number() + a",
        "%durable_step counting.attempt_number()",
    ]
    first = run_all(bench, cells, spec="python3", probes=["n", "v"])
    assert all(cell.status == "ok" for cell in first.cells), [cell.evalue for cell in first.cells]
    assert first.probes == {"n": "1", "v": "5"}
    again = run_all(
        bench, cells, spec="python3", probes=["n", "m", "v", "[x for x in globals() if 'durable_value' in x]"]
    )
    assert list(again.probes.values()) == ["1", "1", "5", "[]"]
    assert again.cells[3].result == first.cells[3].result == "3"


def test_a_statement_that_is_a_step_leaves_the_same_outputs_when_it_is_replayed(bench: Bench) -> None:
    cells = ["%load_ext durable_nb", "print('before')\n%durable_step n = len('abcd')\nprint(n)"]
    first, again = (run_all(bench, cells, spec="python3", env={"DURABLE_NB_EXECUTION": "a"}) for _ in range(2))
    told = [output.get("text") or output["data"]["text/plain"] for output in first.cells[1].outputs]
    assert told == ["before\n", "Durable step n = len('abcd').", "4\n"]
    assert again.cells[1].outputs == first.cells[1].outputs
