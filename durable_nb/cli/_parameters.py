"""Notebook parameters, in papermill's way, so that a notebook made for one runs with the other.

A cell tagged `parameters` holds the defaults; a cell tagged `injected-parameters` after it overrides them. The injected
source is the same text that papermill writes, so that the checkpoints of the two runners are the same checkpoints.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from durable_nb.cli._exit import Complaint

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["Value", "inject", "join_pairs", "parse", "source_of"]

Value = bool | int | float | str | None

_TAG, _INJECTED = "parameters", "injected-parameters"
_WORDS: Mapping[str, Value] = {"True": True, "False": False, "None": None}


_OPTIONS = ("-p", "--parameter")
_BETWEEN = "\x1f"


def join_pairs(arguments: Sequence[str]) -> list[str]:
    """`-p NAME VALUE` as one argument with a separator inside.

    The parser has repeatable options and options of two values, but none that are both.
    """
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*joined, word, *rest]
        if word not in _OPTIONS:
            joined.append(word)
            continue
        if len(rest) < 2:
            raise Complaint(f"{word} needs two arguments, NAME VALUE")
        joined += ["--parameter", f"{rest.pop(0)}{_BETWEEN}{rest.pop(0)}"]
    return joined


def parse(pairs: Sequence[str]) -> dict[str, Value]:
    """Values of `--parameter` after `join_pairs`; how one looks tells its type, as papermill's `-p` does it."""
    found: dict[str, Value] = {}
    for pair in pairs:
        name, between, text = pair.partition(_BETWEEN)
        if not between:
            raise Complaint(f"--parameter {name}: write -p NAME VALUE")
        if not name.isidentifier() or keyword.iskeyword(name):
            raise Complaint(f"-p {name}: a parameter's name must be a Python name")
        found[name] = _value(text)
    return found


def _value(text: str) -> Value:
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def source_of(parameters: Mapping[str, Value]) -> str:
    """The injected cell's source."""
    lines = [f"{name} = {_literal(value)}" for name, value in parameters.items()]
    return "\n".join(["# Parameters", *lines]) + "\n"


def _literal(value: Value) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "float('nan')" if math.isnan(value) else f"float('{'-' if value < 0 else ''}inf')"
    if isinstance(value, str):
        escaped = value.encode("unicode_escape").decode("ascii").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)


def inject(book: NotebookNode, parameters: Mapping[str, Value]) -> str | None:
    """Put the parameters into the notebook; returns a remark for the user when there was no tagged cell."""
    if not parameters:
        return None
    import nbformat

    cell: NotebookNode = nbformat.v4.new_code_cell(source=source_of(parameters))  # type: ignore[no-untyped-call]
    cell.metadata["tags"] = [_INJECTED]
    if (book.nbformat, book.nbformat_minor) < (4, 5):
        cell.pop("id", None)
    injected, tagged = _find(book, _INJECTED), _find(book, _TAG)
    if injected is not None:
        if "id" in book.cells[injected]:
            cell["id"] = book.cells[injected]["id"]
        book.cells[injected] = cell
    elif tagged is not None:
        book.cells.insert(tagged + 1, cell)
    else:
        book.cells.insert(0, cell)
        return "the notebook has no cell tagged 'parameters': the values stand in a new first cell"
    return None


def _find(book: NotebookNode, tag: str) -> int | None:
    for index, cell in enumerate(book.cells):
        if tag in cell.metadata.get("tags", []):
            return index
    return None
