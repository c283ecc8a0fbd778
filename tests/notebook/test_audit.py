"""`durable-nb audit`: says equal where replay is right, names what differs by itself, and finds a false hit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from durable_nb.cli import _audit_verdict as verdict
from durable_nb.cli import main
from durable_nb.cli._audit_lives import CellLife, Life
from durable_nb.cli.audit import _at_most_once, _manages, _unmarked
from tests.notebook.harness import Bench

CELLS = (
    "import random, uuid",
    "random.seed(4)\nitems = [random.random() for _ in range(3)]\nalias = items",
    "stamp = uuid.uuid4()\nprint(stamp)",
    "alias.append(7)\nprint(len(items))",
    "%%durable_step total\ntotal = sum(items)\nprint(round(total, 3))",
)


@pytest.mark.kernel
def test_a_notebook_that_replays_is_equal_and_what_differs_by_itself_is_named(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bench.notebook("n.ipynb", CELLS)
    assert main(["audit", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)[0]
    assert report["verdict"] == "equal"
    assert report["false_hits"] == 0
    assert report["differs_by_itself"] == ["cell 3", "stamp"]
    assert report["replayed"] == report["steps"] == 4
    assert not bench.store.exists(), "an audit works in copies"


def test_a_replayed_cell_that_shows_something_else_is_a_false_hit() -> None:
    plain = Life([CellLife([{"text": "1"}], False, 0.1)], {"x": "1", "y": "2"})
    durable = Life([CellLife([{"text": "2"}], False, 0.1, "replayed")], {"x": "1", "y": "3"})
    report = verdict.Report("n.ipynb", 1)
    verdict.compare(report, "replayed", plain, durable, (set(), set()))
    assert report.verdict == "wrong"
    assert [finding.where for finding in report.findings] == ["cell 1", "name y"]
    assert report.false_hits == 2


def test_what_differs_by_itself_is_not_compared() -> None:
    plain = Life([CellLife([{"text": "1"}], False, 0.1)], {"x": "1"})
    durable = Life([CellLife([{"text": "2"}], False, 0.1, "replayed")], {"x": "9"})
    report = verdict.Report("n.ipynb", 1)
    verdict.compare(report, "replayed", plain, durable, ({0}, {"x"}))
    assert report.verdict == "equal"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("a = 'x'", "b = 10", "c = a"), (1, "b = 11")),
        (("f(1.5)",), (0, "f(2.5)")),
        (("x = 'ä' + str(3)",), None),
        (("%time x = 3", "print('no number')"), None),
        (("flag = True",), None),
    ],
)
def test_the_edit_changes_one_number(cells: tuple[str, ...], expected: tuple[int, str] | None) -> None:
    assert verdict.edited(cells) == expected


def test_marks_are_taken_off_for_the_plain_kernel_and_cells_about_us_are_left_out() -> None:
    assert _unmarked("%%durable_step name --max-attempts 2\nx = 1") == "\nx = 1"
    assert _unmarked("x = 1") == "x = 1"
    assert _manages("%durable status\n# a comment")
    assert not _manages("%durable status\nx = 1")
    assert _at_most_once("# durable: name=pay at-most-once\npay()")
    assert _at_most_once("%%durable_step pay --at-most-once\npay()")
    assert not _at_most_once("pay()")


def test_misuse_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path / "none.ipynb")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
