"""`%durable status` in a notebook: the board of `durable_nb.widgets.board`, kept up to date while a person looks.

A board is an ordinary display, sent again under its display id as cells begin and end. That is all that "live" needs:
the saved notebook holds the last state, and no widget. Sending is put off a little while cells follow each other
quickly, in proportion to what it costs, so a long notebook is not slowed down by its board.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from durable_nb.exceptions import ValidationError
from durable_nb.history import History
from durable_nb.notebook._cell import Cell, children_of
from durable_nb.widgets.board import Board, Row, board_html, board_of, board_text

if TYPE_CHECKING:
    from durable_nb.notebook._session import Session

_LEAST_PAUSE = 0.2
"""Seconds between two updates."""
_SHARE = 10
"""An update that costs this long waits that many times as long for the next one."""

_STATES = {"not_durable": "not stored", "declared": "declared", "executed": "executed", "replayed": "replayed"}


def show_board(session: Session, which: str | None, where: str) -> None:
    """Display the board of this session, or of the execution called `which`."""
    live = BoardView(session, which, where)
    live.show()


def session_board(session: Session, which: str | None, where: str) -> Board:
    """The board as things are now.

    Raises:
        ValidationError: there is no execution of that name.
    """
    home = session.home
    history = History(home.store.journal) if home is not None else None
    if which is not None:
        found = history.find(which) if history is not None else None
        if found is None:
            known = ", ".join(history.names()[:5]) if history is not None else ""
            raise ValidationError(f"there is no execution {which!r} in this store{f' ({known})' if known else ''}")
        return board_of(found, subtitle=f"({found.record.kind})")
    cells = [*session.done, *([session.current] if session.current is not None else [])]
    rows = {cell.operation: _row(cell) for cell in cells if cell.managed or session.every_cell}
    view = history.find(home.record.name) if home is not None and history is not None else None
    if view is None:
        return Board(title=where, rows=list(rows.values()))
    return board_of(view, subtitle=where.removeprefix(view.name).strip(), now=rows)


def _row(cell: Cell) -> Row:
    report = cell.report
    number = f"[{cell.number}]" if cell.number is not None else ""
    label = f"{cell.label} (on {cell.options.on})" if cell.options.on else cell.label
    if report is None:
        return Row(key=cell.operation, inside=cell.inside, prompt=number, label=label, state="running")
    state = "asks you" if report.decision else _STATES.get(report.status, report.status)
    record = cell.plan.record if cell.plan is not None else None
    made = record if report.status == "replayed" else None
    return Row(
        key=cell.operation,
        inside=cell.inside or (children_of(cell.operation, made.inputs) if made is not None else ""),
        prompt=number,
        label=label,
        state=state,
        reason=report.reason,
        difference=report.difference or cell.difference,
        seconds=made.seconds if made is not None else report.seconds,
        saved=report.saved_seconds,
        nbytes=report.nbytes,
    )


class BoardView:
    """One board in the page."""

    def __init__(self, session: Session, which: str | None, where: str) -> None:
        self._session, self._which, self._where = session, which, where
        self._parent = session.kernel.get_parent("shell")
        self._live = bool((self._parent.get("metadata") or {}).get("cellId"))
        self._display_id = uuid.uuid4().hex if self._live else ""
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._cost = 0.0

    def show(self) -> None:
        """Display it; in a page, follow the cells from now on. A newer board takes over."""
        self._send("display_data")
        if self._live:
            self._session.changed = self.refresh

    def refresh(self) -> None:
        """Something has changed: send it again soon."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(max(_LEAST_PAUSE, self._cost * _SHARE), self._update)
                self._timer.daemon = True
                self._timer.start()

    def _update(self) -> None:
        with self._lock:
            self._timer = None
        if self._session.home is not None:
            self._send("update_display_data")

    def _send(self, kind: str) -> None:
        clock = time.perf_counter()
        board = session_board(self._session, self._which, self._where)
        content: dict[str, Any] = {
            "data": {"text/html": board_html(board), "text/plain": board_text(board)},
            "metadata": {},
        }
        if self._live:
            content["transient"] = {"display_id": self._display_id}
        self._session.tee.show(kind, content, self._parent)
        self._cost = time.perf_counter() - clock
