"""`pytest --durable`: every cell is a test; hits cost little, differences are told, and may be accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.harness import Bench
from tests.notebook.runners import Ran, _run

pytestmark = pytest.mark.kernel


def durable(bench: Bench, *options: str) -> Ran:
    argv = ["-m", "pytest", "--durable", "-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:benchmark"]
    return _run(bench, [*argv, f"--rootdir={bench.root}", *options, "."], out=None, cwd=bench.root, env=None)


def outcome(ran: Ran) -> str:
    """The last line without its time."""
    return ran.stdout.strip().splitlines()[-1].strip("= ").partition(" in ")[0]


def cell(source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"source": source, "outputs": list(outputs), "metadata": {"tags": list(tags)} if tags else {}}


def text(value: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": value}


def test_cells_pass_when_they_show_what_is_saved_and_are_replayed_the_second_time(bench: Bench) -> None:
    bench.notebook("a.ipynb", [cell("a = len('abc')\nprint(a)", text("3\n")), cell("print(a + 1)", text("4\n"))])
    first, second = durable(bench), durable(bench)
    assert (first.code, second.code) == (0, 0), first.stdout
    assert "2 cells in" in first.stdout
    assert ", 0 replayed" in first.stdout
    assert ", 2 replayed" in second.stdout


def test_another_output_fails_with_a_diff_and_can_be_accepted(bench: Bench) -> None:
    book = bench.notebook("a.ipynb", [cell("print('now')", text("then\n")), cell("print('b')", text("b\n"))])
    failed = durable(bench)
    assert outcome(failed) == "1 failed, 1 passed"
    assert "-then" in failed.stdout
    assert "+now" in failed.stdout
    assert durable(bench, "--durable-update").code == 0
    assert durable(bench).code == 0
    assert json.loads(book.read_text())["cells"][0]["outputs"][0]["text"] == ["now\n"]


def test_after_a_cell_that_fails_the_rest_is_not_run(bench: Bench) -> None:
    bench.notebook("a.ipynb", [cell("1 / 0"), cell("from pathlib import Path\nn = Path('ran').write_text('x')")])
    failed = durable(bench)
    assert outcome(failed) == "1 failed, 1 skipped"
    assert "ZeroDivisionError" in failed.stdout
    assert not (bench.root / "ran").exists()


def test_marks_and_tags_of_nbval_mean_the_same(bench: Bench) -> None:
    bench.notebook(
        "a.ipynb",
        [
            cell("# NBVAL_IGNORE_OUTPUT\nprint('x')", text("y\n")),
            cell("print('x')", text("y\n"), tags=("nbval-ignore-output",)),
            cell("1 / 0", tags=("nbval-skip",)),
            cell("# NBVAL_RAISES_EXCEPTION\n# NBVAL_IGNORE_OUTPUT\n1 / 0"),
            cell("# NBVAL_TEST_NAME: the last one\nprint('z')", text("z\n")),
        ],
    )
    ran = durable(bench, "-vv")
    assert outcome(ran) == "4 passed, 1 skipped", ran.stdout
    assert "the last one" in ran.stdout


def test_a_single_cell_can_be_asked_for_and_finds_what_is_before_it(bench: Bench) -> None:
    bench.notebook("a.ipynb", [cell("a = len('abc')"), cell("print(a)", text("3\n"))])
    ran = durable(bench, "-k", "print")
    assert outcome(ran) == "1 passed, 1 deselected", ran.stdout


def test_tolerances_are_set_in_the_configuration(bench: Bench) -> None:
    bench.notebook("a.ipynb", [cell("print(len('abc') / 3.0000001)", text("1.0\n"))])
    assert durable(bench).code == 1
    bench.write("pytest.ini", "[pytest]\ndurable_rtol = 1e-6\n")
    assert durable(bench).code == 0


def test_tags_set_what_a_step_needs(bench: Bench) -> None:
    source = "from pathlib import Path\nn = Path('n').read_text() if Path('n').exists() else ''\n"
    source += "m = Path('n').write_text(n + 'x')\nassert len(n) > 0"
    bench.notebook("a.ipynb", [cell(source, tags=("durable: max-attempts=3 initial-delay=1ms",))])
    ran = durable(bench, "--durable-update")
    assert ran.code == 0, ran.stdout


def test_without_the_option_notebooks_are_left_alone(bench: Bench) -> None:
    bench.notebook("a.ipynb", [cell("1 / 0")])
    argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={bench.root}", "."]
    assert _run(bench, argv, out=None, cwd=bench.root, env=None).code == 5  # nothing collected


def test_the_saved_notebook_changes_only_when_asked_to(bench: Bench) -> None:
    book: Path = bench.notebook("a.ipynb", [cell("print('now')", text("then\n"))])
    before = book.read_bytes()
    durable(bench)
    assert book.read_bytes() == before
