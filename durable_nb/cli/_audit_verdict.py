"""What an audit found out about one notebook.

A notebook has cells that differ by themselves (clocks, draws without a seed, addresses): two plain runs tell which. All
others have to be equal between a plain run and a replay. A cell that was replayed and shows, or leaves, something else
than a plain run is a *false hit*; there must be none.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from durable_nb.cli._audit_lives import Life

__all__ = ["Finding", "Report", "compare", "edited"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference."""

    stage: str
    """`resumed`, `replayed` or `edited`."""
    where: str
    expected: str
    got: str
    false_hit: bool
    """The cell was replayed, or no cell ran that could explain it."""


@dataclass(slots=True)
class Report:
    """One notebook's audit."""

    notebook: str
    cells: int
    unsteady: list[str] = field(default_factory=list)
    """Cells and names that differ between two plain runs."""
    findings: list[Finding] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    compared: int = 0
    replayed: int = 0
    steps: int = 0
    """Cells that a second run could have replayed: all but declarations."""
    plain_seconds: float = 0.0
    replay_seconds: float = 0.0
    saved_seconds: float = 0.0
    failed: str = ""
    """Where the audit ends before the notebook does, and why."""

    @property
    def false_hits(self) -> int:
        """Replays that were not what a run would have given."""
        return sum(finding.false_hit for finding in self.findings)

    @property
    def verdict(self) -> str:
        """`equal`, `different` (something ran and gave something else) or `wrong`."""
        if self.false_hits:
            return "wrong"
        return "different" if self.findings else "equal"

    @property
    def fidelity(self) -> float:
        """Share of what was compared that was equal."""
        return 1.0 - len(self.findings) / self.compared if self.compared else 1.0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "notebook": self.notebook,
            "verdict": self.verdict,
            "cells": self.cells,
            "compared": self.compared,
            "fidelity": round(self.fidelity, 6),
            "false_hits": self.false_hits,
            "replayed": self.replayed,
            "steps": self.steps,
            "plain_seconds": round(self.plain_seconds, 3),
            "replay_seconds": round(self.replay_seconds, 3),
            "saved_seconds": round(self.saved_seconds, 3),
            "differs_by_itself": self.unsteady,
            "told": self.told,
            "findings": [
                {"stage": each.stage, "where": each.where, "expected": each.expected, "got": each.got}
                for each in self.findings
            ],
            **({"stops_at": self.failed} if self.failed else {}),
        }


def differing(one: Life, other: Life) -> tuple[set[int], set[str]]:
    """Cells and names in which two lives differ."""
    cells = {
        number
        for number in range(max(len(one.cells), len(other.cells)))
        if number >= min(len(one.cells), len(other.cells))
        or (one.cells[number].outputs, one.cells[number].failed)
        != (other.cells[number].outputs, other.cells[number].failed)
    }
    names = {name for name in {*one.names, *other.names} if one.names.get(name) != other.names.get(name)}
    return cells, names


def compare(report: Report, stage: str, plain: Life, durable: Life, unsteady: tuple[set[int], set[str]]) -> None:
    """Add to the report where a durable life is not as the plain one."""
    cells, names = differing(plain, durable)
    report.compared += len(plain.cells) - len(unsteady[0]) + len(set(plain.names) - unsteady[1])
    for number in sorted(cells - unsteady[0]):
        expected = _cell(plain, number)
        got = _cell(durable, number)
        hit = number < len(durable.cells) and durable.cells[number].status == "replayed"
        report.findings.append(Finding(stage, f"cell {number + 1}", expected, got, hit))
    ran = any(cell.status in ("executed", "not_durable", "failed") for cell in durable.cells)
    for name in sorted(names - unsteady[1]):
        expected, got = _apart(plain.names.get(name, "(absent)"), durable.names.get(name, "(absent)"))
        report.findings.append(Finding(stage, f"name {name}", expected, got, not ran or stage != "resumed"))


def _cell(life: Life, number: int) -> str:
    if number >= len(life.cells):
        return "(did not run)"
    return _short(repr(life.cells[number].outputs))


def _apart(one: str, other: str) -> tuple[str, str]:
    """Two long texts from where they begin to differ."""
    place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, place - 80)
    lead = "…" if start else ""
    return lead + _short(one[start:]), lead + _short(other[start:])


def _short(text: str, width: int = 240) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def edited(cells: Sequence[str]) -> tuple[int, str] | None:
    """An edit that changes what a cell does: the first number in the middle-most cell that has one, plus one.

    Returns its index and new source; None when no cell has a number to change.
    """
    middle = len(cells) // 2
    for index in sorted(range(len(cells)), key=lambda each: abs(each - middle)):
        source = cells[index]
        place = _first_number(source)
        if place is not None:
            line, start, end, value = place
            lines = source.split("\n")
            lines[line] = f"{lines[line][:start]}{value}{lines[line][end:]}"
            return index, "\n".join(lines)
    return None


def _first_number(source: str) -> tuple[int, int, int, str] | None:
    """Line, columns and replacement of the first number on a line that is ASCII (columns count bytes)."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # magics: another cell will do
        return None
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or node.lineno != node.end_lineno or node.end_col_offset is None:
            continue
        value = node.value
        # A bool is an int, and `True + 1` no edit.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and lines[node.lineno - 1].isascii():
            return node.lineno - 1, node.col_offset, node.end_col_offset, repr(value + 1)
    return None
