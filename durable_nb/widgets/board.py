"""The board: every step of an execution as a table with a bar for its work, in HTML and in text.

Plain HTML with inline styles, no script and no widget: what is shown live is what is saved, an untrusted or printed
page has it too, and a row unfolds (`<details>`) without a kernel. A page is kept up to date by sending it again.

Words have the page's own colour, since no tone is readable on a light page and on a dark one; a dot has the tone.

The bars are in scale with each other. In a notebook they stand one after the other, in the order of the cells: a hollow
bar is work that was not done again. In a handler they stand where they happened, since branches run side by side. A
failed attempt is a red part of its bar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape

from durable_nb.amounts import duration, size
from durable_nb.history import AttemptView, ExecutionView, OperationView

__all__ = ["Board", "Row", "board_html", "board_of", "board_text", "totals"]

_TONES = {
    "replayed": "#1976d2",
    "executed": "#2e7d6b",
    "stored": "#2e7d6b",
    "running": "#1976d2",
    "waiting": "#c77700",
    "not stored": "#c77700",
    "runs again": "#c77700",
    "failed": "#d32f2f",
    "asks you": "#d32f2f",
}
_GREY = "#808080"
_FEW = 8
"""Calls inside a cell or a batch that are shown whatever became of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step."""

    key: str
    """Of its operation."""
    inside: str = ""
    """What its children name as their parent, where that is not the operation: calls in a cell are recorded under the
    cell and its inputs."""
    prompt: str = ""
    label: str
    state: str
    reason: str = ""
    difference: Sequence[str] = ()
    seconds: float | None = None
    """How long the work took, now or when the result was made."""
    saved: float = 0.0
    nbytes: int = 0
    attempts: Sequence[AttemptView] = ()
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What is shown."""

    title: str
    subtitle: str = ""
    rows: Sequence[Row] = field(default_factory=tuple)
    store_bytes: int = 0
    """Of all checkpoints of the execution, also of cells that are not shown."""
    side_by_side: bool = False
    """Bars stand where they happened."""

    @property
    def saved(self) -> float:
        """Seconds of work that replays have saved."""
        return sum(row.saved for row in self.rows)


def board_of(view: ExecutionView, *, subtitle: str = "", now: Mapping[str, Row] | None = None) -> Board:
    """The board of an execution.

    Args:
        view: what is recorded.
        subtitle: where it is kept.
        now: for a notebook that is open: its cells of this session in their order, by operation; others are left out.
    """
    by_id = {op.operation_id: op for op in view.operations}
    if now is None:
        tops = [
            op for op in view.operations if not op.superseded and (op.parent_id is None or op.parent_id not in by_id)
        ]
        shown = [_recorded(op) for op in tops if op.type.value != "EXECUTION"]
    else:
        shown = [_with_attempts(row, by_id.get(row.key)) for row in now.values()]
    inside: dict[str | None, list[OperationView]] = {}
    for op in view.operations:
        inside.setdefault(op.parent_id, []).append(op)
    rows: list[Row] = []
    for row in shown:
        rows += [row, *_below(inside, row.inside or row.key, 1)]
    return Board(
        title=view.name,
        subtitle=subtitle,
        rows=rows,
        store_bytes=view.nbytes,
        side_by_side=view.record.kind != "notebook",
    )


def _with_attempts(row: Row, op: OperationView | None) -> Row:
    if op is None or row.attempts:
        return row
    return replace(
        row,
        seconds=row.seconds if row.seconds is not None else op.seconds,
        nbytes=row.nbytes or op.nbytes,
        attempts=_last_run(op.attempts),
    )


def _last_run(attempts: Sequence[AttemptView]) -> Sequence[AttemptView]:
    """The attempts of the latest run: an operation that is run again starts with attempt 1."""
    starts = [index for index, attempt in enumerate(attempts) if attempt.number == 1]
    return attempts[starts[-1] :] if starts else attempts


def _below(inside: Mapping[str | None, Sequence[OperationView]], key: str, depth: int) -> Iterable[Row]:
    """The calls inside an operation. Of very many, those that are done are one row: who looks wants the others."""
    calls = inside.get(key, ())
    rest = [op for op in calls[_FEW:] if _state(op) == "stored"] if len(calls) > _FEW + 2 else []
    left_out = {op.operation_id for op in rest}
    for op in calls:
        if op.operation_id not in left_out:
            yield _recorded(op, depth)
            yield from _below(inside, op.operation_id, depth + 1)
    if rest:
        size_of_all = sum(op.nbytes for op in rest)
        label = f"… and {len(rest)} more (durable-nb show lists them)"
        yield Row(key="", label=label, state="stored", nbytes=size_of_all, depth=depth)


def _recorded(op: OperationView, depth: int = 0) -> Row:
    return Row(
        key=op.operation_id,
        label=op.label,
        state=_state(op),
        reason=op.reason,
        # Small operations are recorded at their end only: how long they took is not known then.
        seconds=op.seconds or None,
        nbytes=op.nbytes,
        attempts=_last_run(op.attempts),
        depth=depth,
    )


def _state(op: OperationView) -> str:
    if op.needs_decision:
        return "asks you"
    if op.status.value == "SUCCEEDED":
        return "runs again" if op.details.get("runs_again") else "stored"
    if op.status.value == "STARTED" and op.type.value in ("WAIT", "CALLBACK"):
        return "waiting"
    words = {"STARTED": "running", "PENDING": "waiting", "FAILED": "failed", "TIMED_OUT": "failed"}
    return words.get(op.status.value, op.status.value.lower().replace("_", " "))


# --- HTML -------------------------------------------------------------------------------------------------------------

_CELL = (
    "padding: 3px 10px 3px 0; text-align: left; vertical-align: top; border-top: 1px solid rgba(128, 128, 128, .25);"
)
_NUMBER = _CELL.replace("left", "right", 1) + " white-space: nowrap;"
_HEADS = ("", "step", "state", "tries", "took", "size", "work")


def board_html(board: Board) -> str:
    """The board as HTML; everything that comes from the notebook is escaped."""
    spans = _spans(board)
    heads = "".join(
        f'<th style="{_NUMBER if head in ("tries", "took", "size") else _CELL} border-top: 0; color: {_GREY}; '
        f'font-weight: normal;">{head}</th>'
        for head in _HEADS
    )
    body = "".join(_row_html(row, span) for row, span in zip(board.rows, spans, strict=True))
    under = f'<span style="color: {_GREY};"> {escape(board.subtitle)}</span>' if board.subtitle else ""
    return (
        '<div style="font-size: 90%; line-height: 1.5; max-width: 100%; overflow-x: auto;">'
        f"<div><b>{escape(board.title)}</b>{under}</div>"
        f'<div style="margin-bottom: 4px;">{escape(totals(board))}</div>'
        '<table style="border-collapse: collapse; table-layout: auto; width: 100%; margin: 0;">'
        f"<thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _row_html(row: Row, span: tuple[float, float]) -> str:
    tone = _TONES.get(row.state, _GREY)
    indent = f"padding-left: {row.depth * 16}px; " if row.depth else ""
    tries = str(len(row.attempts)) if len(row.attempts) > 1 else ""
    cells = (
        (_NUMBER + f" color: {_GREY};", escape(row.prompt)),
        (_CELL + f" {indent}width: 50%;", _told(row)),
        (_CELL + " white-space: nowrap;", f'<span style="color: {tone};">&#9679;</span> {escape(row.state)}'),
        (_NUMBER, tries),
        (_NUMBER, "" if row.seconds is None else escape(duration(row.seconds))),
        (_NUMBER, escape(size(row.nbytes)) if row.nbytes else ""),
        (_CELL + " width: 25%; min-width: 120px;", _bar(row, span, tone)),
    )
    return "<tr>" + "".join(f'<td style="{style}">{content}</td>' for style, content in cells) + "</tr>"


def _told(row: Row) -> str:
    """The label, which unfolds to why and to the history."""
    label = f'<code style="background: none; padding: 0; overflow-wrap: anywhere;">{escape(row.label)}</code>'
    lines = []
    if row.reason:
        lines.append(f"<div>{escape(row.state)} because {escape(row.reason)}</div>")
    if row.difference:
        lines.append(f'<pre style="margin: 2px 0;">{escape(chr(10).join(row.difference))}</pre>')
    for attempt in row.attempts if len(row.attempts) > 1 or row.state == "failed" else ():
        took = f", {duration(attempt.seconds)}" if attempt.seconds is not None else ""
        error = f": {attempt.error}" if attempt.error is not None else ""
        told = f"attempt {attempt.number}: {attempt.status.value.lower()}{took}{error}"
        lines.append(f"<div>{escape(told)}</div>")
    if row.saved >= 0.001:
        lines.append(f"<div>saved {escape(duration(row.saved))}</div>")
    if not lines:
        return label
    return f"<details><summary>{label}</summary>{''.join(lines)}</details>"


def _bar(row: Row, span: tuple[float, float], tone: str) -> str:
    start, width = span
    place = f"margin-left: {start * 100:.2f}%; width: {max(width * 100, 0.6):.2f}%; height: 10px; margin-top: 5px;"
    if row.state == "replayed":
        return f'<div style="{place} border: 1px solid {tone}; box-sizing: border-box;"></div>'
    total = sum(attempt.seconds or 0.0 for attempt in row.attempts)
    failed = sum(attempt.seconds or 0.0 for attempt in row.attempts[:-1])
    if len(row.attempts) < 2 or total <= 0:
        return f'<div style="{place} background-color: {tone};"></div>'
    share = min(max(failed / total, 0.1), 0.9) * 100
    return (
        f'<div style="{place} background-color: {tone};">'
        f'<div style="width: {share:.1f}%; height: 10px; background-color: #d32f2f;"></div></div>'
    )


def _spans(board: Board) -> list[tuple[float, float]]:
    """Start and width of each bar, as shares of the whole."""
    if board.side_by_side:
        return _by_the_clock(board.rows)
    spans: list[tuple[float, float]] = []
    at = begin = 0.0
    cell: Row | None = None
    for row in board.rows:
        length = row.seconds or 0.0
        if row.depth:
            spans.append(_inside(row, cell, begin, at))
            continue
        cell, begin = row, at
        spans.append((at, length))
        at += length
    whole = at or 1.0
    return [(start / whole, length / whole) for start, length in spans]


def _inside(row: Row, cell: Row | None, begin: float, end: float) -> tuple[float, float]:
    """Where a call stands in the bar of its cell; one of an earlier run stands at its start."""
    times, around = _times(row), _times(cell) if cell is not None else None
    if times is None or around is None or times[0] < around[0]:
        return begin, 0.0
    start = min(begin + times[0] - around[0], end)
    return start, min(row.seconds or times[1] - times[0], end - start)


def _by_the_clock(rows: Sequence[Row]) -> list[tuple[float, float]]:
    times = [_times(row) for row in rows]
    known = [each for each in times if each is not None]
    first = min((start for start, _ in known), default=0.0)
    whole = max((end for _, end in known), default=1.0) - first or 1.0
    return [(0.0, 0.0) if t is None else ((t[0] - first) / whole, (t[1] - t[0]) / whole) for t in times]


def _times(row: Row) -> tuple[float, float] | None:
    if not row.attempts:
        return None
    start = row.attempts[0].started_at
    return start, row.attempts[-1].ended_at or start


# --- text -------------------------------------------------------------------------------------------------------------


def board_text(board: Board) -> str:
    """The board as plain text, for terminals and for pages without HTML."""
    lines = [f"{board.title} {board.subtitle}".rstrip(), totals(board)]
    heads = ("", "state", "tries", "took", "size", "step")
    table = [
        (
            row.prompt,
            row.state,
            str(len(row.attempts)) if len(row.attempts) > 1 else "",
            "" if row.seconds is None else duration(row.seconds),
            size(row.nbytes) if row.nbytes else "",
            "  " * row.depth + row.label,
        )
        for row in board.rows
    ]
    widths = [max(len(row[column]) for row in (heads, *table)) for column in range(len(heads))]
    shown = (heads, *table) if table else ()
    lines += ["  ".join(text.ljust(n) for text, n in zip(each, widths, strict=True)).rstrip() for each in shown]
    return "\n".join(lines)


def totals(board: Board) -> str:
    """One line: how many steps, how they went, what was saved, what is kept."""
    tops = [row for row in board.rows if not row.depth]
    counts: dict[str, int] = {}
    for row in tops:
        counts[row.state] = counts.get(row.state, 0) + 1
    parts = [f"{len(tops)} {'step' if len(tops) == 1 else 'steps'}"]
    parts += [f"{count} {state}" for state, count in counts.items()]
    if board.saved >= 0.001:
        parts.append(f"{duration(board.saved)} saved")
    if board.store_bytes:
        parts.append(f"{size(board.store_bytes)} of results")
    return ", ".join(parts)
