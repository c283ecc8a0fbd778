"""`%durable status`: the board in a kernel, kept up to date for a page, and of handlers too."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.notebook.harness import Bench, Kernel

pytestmark = pytest.mark.kernel

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def kernel(bench: Bench) -> Any:
    with Kernel(bench, notebook="a.ipynb") as started:
        yield started


def board(outputs: list[dict[str, Any]]) -> dict[str, str]:
    (shown,) = [output["data"] for output in outputs if "data" in output]
    return dict(shown)


def test_the_board_is_html_with_the_same_in_text(kernel: Kernel) -> None:
    kernel.run("a = len('abc')")
    kernel.run("b = a + 1")
    kernel.restart()
    kernel.run("a = len('abc')")
    kernel.run("b = a + 2")
    shown = board(kernel.run("%durable status").expect_ok().outputs)
    assert sorted(shown) == ["text/html", "text/plain"]
    lines = shown["text/plain"].splitlines()
    assert lines[0].startswith("a.ipynb in ")
    assert re.search(r"; the store has \d+\.\d kB$", lines[0])
    assert "1 replayed, 1 executed" in lines[1]
    assert [line.split()[:2] for line in lines[3:]] == [["[1]", "replayed"], ["[2]", "executed"]]


def test_a_page_sees_the_board_change_as_cells_run_and_no_widget(kernel: Kernel) -> None:
    kernel.run("a = len('abc')", cell_id="one")
    shown = kernel.execute("%durable status", cell_id="two")
    outputs = shown.result().outputs
    assert "b = a" not in board(outputs)["text/plain"]
    kernel.run("b = a + 1", cell_id="three")
    kernel._until(lambda: "b = a + 1" in board(outputs)["text/plain"], "the new row")
    assert WIDGET not in board(outputs)


def test_updates_of_a_board_are_no_part_of_what_a_cell_has_shown(kernel: Kernel) -> None:
    kernel.run("%durable status", cell_id="one")
    first = kernel.run("import time\ntime.sleep(0.5)\nprint(len('abc'))", cell_id="two")
    kernel.restart()
    again = kernel.run("import time\ntime.sleep(0.5)\nprint(len('abc'))", cell_id="two")
    assert (again.verdict, again.outputs) == ("replayed", first.outputs)


def test_durable_calls_inside_a_cell_are_rows_below_it(kernel: Kernel) -> None:
    kernel.run("import durable_nb").expect_ok()
    kernel.run("sizes = [durable_nb.context.step(lambda _: 1, name=f'part-{n}') for n in range(2)]").expect_ok()
    lines = board(kernel.run("%durable status").expect_ok().outputs)["text/plain"].splitlines()
    assert [line.split()[-1] for line in lines[-2:]] == ["part-0", "part-1"]
    kernel.restart()
    kernel.run("import durable_nb").expect_ok()
    replayed = kernel.run("sizes = [durable_nb.context.step(lambda _: 1, name=f'part-{n}') for n in range(2)]")
    assert replayed.verdict == "replayed"
    lines = board(kernel.run("%durable status").expect_ok().outputs)["text/plain"].splitlines()
    assert [line.split()[-1] for line in lines[-2:]] == ["part-0", "part-1"]


def test_an_unknown_execution_is_one_clear_line(kernel: Kernel) -> None:
    kernel.run("a = len('abc')")
    seen = kernel.run("%durable status nothing")
    assert seen.ename == "UsageError"
    assert "there is no execution 'nothing'" in seen.stderr
