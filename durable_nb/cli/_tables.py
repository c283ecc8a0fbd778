"""Tables and JSON of the read model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from durable_nb.amounts import duration, moment, size
from durable_nb.cli._format import one_line
from durable_nb.events import Status
from durable_nb.history import ExecutionView, OperationView

__all__ = ["console", "execution_json", "executions_table", "operation_json", "operations_table", "state"]

_STYLES = {
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.STARTED: "yellow",
    Status.PENDING: "yellow",
    Status.TIMED_OUT: "red",
    Status.CANCELLED: "dim",
    Status.STOPPED: "dim",
}


def console() -> Console:
    """Where tables go. Piped output is not folded at 80 columns: other programs read it."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=200)


def state(op: OperationView) -> Text:
    """An operation's status in a word."""
    if op.needs_decision:
        return Text("needs a decision", style="bold red")
    if op.decision is not None and op.status is not Status.SUCCEEDED:
        return Text(f"decided: {op.decision}", style="yellow")
    word = op.status.value.lower().replace("_", " ")
    if op.is_cell and op.status is Status.SUCCEEDED:
        word = "runs again" if op.details.get("runs_again") else "stored"
    if not op.trusted:
        return Text(f"{word}, not trusted", style="red")
    return Text(word, style=_STYLES.get(op.status, ""))


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    rights = set(right)
    for column in columns:
        table.add_column(column, justify="right" if column in rights else "left", overflow="fold")
    return table


def executions_table(views: Iterable[ExecutionView]) -> Table:
    """One row for each execution."""
    table = _table("execution", "kind", "done", "failed", "size", "last", right=("done", "failed", "size"))
    for view in views:
        done, failed = view.count(Status.SUCCEEDED), view.count(Status.FAILED)
        row = (str(done), str(failed or ""), size(view.nbytes), moment(view.last_at))
        table.add_row(Text(view.name), view.record.kind, *row)
    return table


def operations_table(operations: Iterable[tuple[int | None, OperationView]]) -> Table:
    """One row for each operation with its number."""
    table = _table("#", "cell", "state", "attempts", "took", "size", "when", right=("#", "attempts", "took", "size"))
    for number, op in operations:
        table.add_row(
            "–" if number is None else str(number),
            Text(one_line(op.label, 50)),
            state(op),
            str(len(op.attempts) or ""),
            duration(op.seconds),
            size(op.nbytes),
            moment(op.ended_at or op.started_at),
        )
    return table


def execution_json(view: ExecutionView) -> dict[str, Any]:
    """An execution without its operations."""
    return {
        "execution": view.name,
        "id": view.record.execution_id,
        "kind": view.record.kind,
        "status": view.record.status.value,
        "created_at": view.record.created_at,
        "last_at": view.last_at,
        "succeeded": view.count(Status.SUCCEEDED),
        "failed": view.count(Status.FAILED),
        "bytes": view.nbytes,
    }


def operation_json(op: OperationView, number: int | None = None) -> dict[str, Any]:
    """An operation with its attempts; `number` is None when no cell of the notebook says this now."""
    return {
        "number": number,
        "id": op.operation_id,
        "parent": op.parent_id,
        "type": op.type.value,
        "sub_type": op.sub_type,
        "name": op.name,
        "label": op.label,
        "status": op.status.value,
        "needs_decision": op.needs_decision,
        "trusted": op.trusted,
        "runs_again": op.details.get("runs_again"),
        "seconds": op.seconds,
        "bytes": op.nbytes,
        "reason": op.reason,
        "source": op.source,
        "inputs": [dict(each) for each in op.inputs],
        "attempts": [
            {
                "number": attempt.number,
                "status": attempt.status.value,
                "started_at": attempt.started_at,
                "ended_at": attempt.ended_at,
                "error": None if attempt.error is None else str(attempt.error),
            }
            for attempt in op.attempts
        ],
    }
