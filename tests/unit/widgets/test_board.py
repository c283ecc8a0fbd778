"""The board: what it says, that it escapes, and how its bars are in scale."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from durable_nb.amounts import duration, size
from durable_nb.events import CELL, ErrorInfo, Event, EventKind, ExecutionRecord, OperationType, StoredEvent
from durable_nb.history import ExecutionView, fold
from durable_nb.widgets.board import Board, Row, board_html, board_of, board_text, totals


def stored(number: int, operation: str, kind: EventKind, at: float, **more: Any) -> StoredEvent:
    given = {"type": OperationType.CONTEXT, "sub_type": CELL, "details": {}, **more}
    event = Event(operation_id=operation, kind=kind, at=at, **given)
    return StoredEvent(execution_id="e", sequence=number, event=event, trusted=True)


def view(*events: StoredEvent, kind: str = "notebook") -> ExecutionView:
    record = ExecutionRecord(execution_id="e", name="a.ipynb", kind=kind, created_at=0.0)
    return ExecutionView(record=record, operations=fold(events))


FLAKY = (
    stored(1, "x", EventKind.STARTED, 10.0, name="load", attempt=1, details={"label": "load"}),
    stored(
        2,
        "x",
        EventKind.RETRY_SCHEDULED,
        11.0,
        name="load",
        attempt=1,
        error=ErrorInfo(type="ConnectionError", message="refused <now>", traceback=()),
        due=12.0,
    ),
    stored(3, "x", EventKind.STARTED, 12.0, name="load", attempt=2),
    stored(4, "x", EventKind.SUCCEEDED, 15.0, name="load", attempt=2, details={"seconds": 3.0, "bytes": 2048}),
)


class Tags(HTMLParser):
    """Fails nowhere; notes what is open and what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def test_a_step_that_needed_attempts_shows_them_with_their_errors() -> None:
    page = parsed(board_html(board_of(view(*FLAKY))))
    assert "attempt 1: failed, 1.0 s: ConnectionError: refused <now>" in page.text
    assert "stored" in page.text


def test_nothing_of_the_notebook_becomes_markup() -> None:
    nasty = "<script>alert('x')</script>&\"'"
    row = Row(key="k", label=nasty, state=nasty, reason=nasty, difference=(nasty,), prompt=nasty)
    page = parsed(board_html(Board(title=nasty, subtitle=nasty, rows=[row])))
    assert "script" not in page.seen
    assert page.text.count(nasty) >= 5


def test_a_page_needs_no_network_and_no_script() -> None:
    html = board_html(board_of(view(*FLAKY)))
    assert "http" not in html
    assert "url(" not in html


def test_bars_of_a_notebook_follow_each_other_and_fill_the_width() -> None:
    rows = [
        Row(key="a", label="a", state="executed", seconds=1.0),
        Row(key="b", label="b", state="replayed", seconds=3.0),
    ]
    html = board_html(Board(title="t", rows=rows))
    assert "margin-left: 0.00%; width: 25.00%" in html
    assert "margin-left: 25.00%; width: 75.00%" in html


def test_branches_of_a_handler_stand_where_they_happened_under_what_they_belong_to() -> None:
    step = {"type": OperationType.STEP, "sub_type": None}
    events = [
        stored(1, "map", EventKind.STARTED, 0.0, name="map", sub_type=None),
        stored(2, "one", EventKind.STARTED, 0.0, name="one", parent_id="map", **step),
        stored(3, "two", EventKind.STARTED, 2.0, name="two", parent_id="map", **step),
        stored(4, "one", EventKind.SUCCEEDED, 4.0, name="one", parent_id="map", **step),
        stored(5, "two", EventKind.SUCCEEDED, 4.0, name="two", parent_id="map", **step),
        stored(6, "map", EventKind.SUCCEEDED, 4.0, name="map", sub_type=None),
    ]
    board = board_of(view(*events, kind="handler"))
    assert [(row.label, row.depth) for row in board.rows] == [("map", 0), ("one", 1), ("two", 1)]
    html = board_html(board)
    assert "margin-left: 50.00%; width: 50.00%" in html


def test_calls_inside_a_cell_stand_where_they_happened_in_its_bar() -> None:
    step = {"type": OperationType.STEP, "sub_type": None, "parent_id": "x"}
    events = [
        *FLAKY,
        stored(5, "one", EventKind.STARTED, 12.0, name="one", **step),
        stored(6, "one", EventKind.SUCCEEDED, 13.5, name="one", **step),
        stored(7, "old", EventKind.STARTED, 2.0, name="old", **step),
        stored(8, "old", EventKind.SUCCEEDED, 3.0, name="old", **step),
    ]
    html = board_html(board_of(view(*events)))
    # The cell: its start to its end, 3 s of work from second 10 on; the first call began 2 s later, and the other one in
    # an earlier run.
    assert [part.partition(";")[0] for part in html.split("margin-left: ")[1:]] == ["0.00%", "66.67%", "0.00%"]


def test_of_very_many_calls_those_that_are_done_are_one_row() -> None:
    step = {"type": OperationType.STEP, "sub_type": None, "parent_id": "x"}
    calls = [
        stored(5 + n, f"c{n}", EventKind.FAILED if n == 15 else EventKind.SUCCEEDED, 12.0, name=f"call {n}", **step)
        for n in range(10_000)
    ]
    board = board_of(view(*FLAKY, *calls))
    labels = [row.label for row in board.rows]
    assert labels[1:] == [*(f"call {n}" for n in range(8)), "call 15", "… and 9991 more (durable-nb show lists them)"]


def test_an_attempt_of_an_earlier_run_is_not_counted() -> None:
    later = [
        stored(5, "x", EventKind.STARTED, 20.0, name="load", attempt=1),
        stored(6, "x", EventKind.SUCCEEDED, 21.0, name="load", attempt=1),
    ]
    assert len(board_of(view(*FLAKY, *later)).rows[0].attempts) == 1


def test_an_open_notebook_shows_its_own_cells_with_what_is_recorded_of_them() -> None:
    now = {
        "x": Row(key="x", prompt="[3]", label="load", state="replayed", saved=2.9),
        "y": Row(key="y", prompt="[4]", label="new", state="running"),
    }
    board = board_of(view(*FLAKY), now=now)
    assert [(row.prompt, row.state, len(row.attempts)) for row in board.rows] == [
        ("[3]", "replayed", 2),
        ("[4]", "running", 0),
    ]
    assert board.rows[0].seconds == 3.0


def test_the_text_says_the_same_in_columns() -> None:
    lines = board_text(board_of(view(*FLAKY))).splitlines()
    assert lines[1] == "1 step, 1 stored, 2.0 kB of results"
    assert lines[3].split() == ["stored", "2", "3.0", "s", "2.0", "kB", "load"]


def test_an_empty_board_says_so() -> None:
    assert totals(Board(title="t")) == "0 steps"
    parsed(board_html(Board(title="t")))
    assert board_text(Board(title="t")) == "t\n0 steps"


def test_figures_are_written_as_people_read_them() -> None:
    assert [duration(s) for s in (0.0853, 12.34, 192, 7500)] == ["85 ms", "12.3 s", "3 min 12 s", "2 h 05 min"]
    assert [size(n) for n in (812, 3400, 1_200_000_000)] == ["812 B", "3.4 kB", "1.2 GB"]
