"""Recorded cells in the order of the notebook, numbered as `run` numbers them.

The journal knows cells by what they say; only the notebook's file knows where they stand. While the file is there, a
record is *current* when a cell says what it says (white space aside), and gets that cell's number. Records of earlier
versions of a cell, and of injected parameters, stay without a number. Without the file, and for handlers, records are
numbered as they came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from durable_nb.cli._exit import Complaint
from durable_nb.cli._format import one_line
from durable_nb.history import ExecutionView, History, OperationView

__all__ = ["Listed", "choose", "listing"]

_MAGIC = re.compile(r"\s*%%durable_step\b[^\n]*\n?")


@dataclass(frozen=True, slots=True)
class Listed:
    """A record with its cell's number; None when no cell of the notebook says this now."""

    number: int | None
    op: OperationView


def listing(view: ExecutionView) -> list[Listed]:
    """The top operations of an execution: current ones by number, then the others as they came."""
    tops = [op for op in view.operations if op.is_cell] or list(view.children(None))
    places = _places(view)
    if places is None:
        current = [op for op in tops if not op.superseded]
        rest = [op for op in tops if op.superseded]
        return [Listed(n, op) for n, op in enumerate(current, start=1)] + [Listed(None, op) for op in rest]
    found = [Listed(_number(op, places), op) for op in tops]
    return sorted(found, key=lambda each: (each.number is None, each.number or each.op.first_sequence))


def _places(view: ExecutionView) -> dict[str, list[int]] | None:
    """Stripped source to the numbers of the code cells that have it; None when the notebook cannot be read."""
    path = view.record.details.get("path")
    if not isinstance(path, str) or not Path(path).is_file():
        return None
    from durable_nb.cli._save import read_notebook

    try:
        book = read_notebook(Path(path))
    except Complaint:
        return None  # the history is of interest even when its notebook is broken
    sources = [cell.source for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]
    places: dict[str, list[int]] = {}
    for number, source in enumerate(sources, start=1):
        places.setdefault(_stripped(source), []).append(number)
    return places


def _number(op: OperationView, places: dict[str, list[int]]) -> int | None:
    numbers = places.get(_stripped(op.source), [])
    ordinal = op.ordinal or 0
    if not numbers or (not op.name and ordinal >= len(numbers)):
        return None
    return numbers[min(ordinal, len(numbers) - 1)]


def _stripped(source: str) -> str:
    return re.sub(r"\s+", "", _MAGIC.sub("", source, count=1))


def choose(history: History, view: ExecutionView, listed: Sequence[Listed], which: str) -> list[Listed]:
    """The records that `which` means: a step's name, a number of the list, or part of a first line."""
    named = [each for each in listed if each.op.name == which]
    if named:
        return named
    if which.isdecimal():
        numbered = [each for each in listed if each.number == int(which)]
        if not numbered:
            raise Complaint(f"nothing is recorded for cell {which} of {view.name}: see `durable-nb show {view.name}`")
        return numbered
    selected = {op.operation_id for op in history.select(view, which)}
    by_label = [each for each in listed if each.op.operation_id in selected]
    if not by_label:
        raise Complaint(f"{view.name} has no cell {one_line(which)!r}: see `durable-nb show {view.name}`")
    return by_label
