"""What Run All would do, cell by cell, on a fresh kernel: replay, run, and why. Nothing of the notebook is run.

The answer comes from a process of its own (`durable_nb.notebook._dry_run`), which goes through the cells as a fresh
kernel would: checkpoints that are valid are given back to it, cells that only declare are declared, and a cell that
would run is left out. What such a cell would have made is *unknown* from there on, so every cell that reads it is
expected to run as well, but not for sure: an equal value keeps its readers valid.

The process has no channels, writes nothing to the store and is gone when it has answered. Being separate, it cannot
disturb the kernel of a person who asks, and it can be asked while that kernel is busy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from durable_nb.exceptions import DurableExecutionsError, ValidationError

__all__ = ["Action", "Cause", "Foreseen", "cells_of", "foresee"]

Action = Literal["replay", "run", "declare", "ordinary", "decide", "manage"]
"""`declare`: it only declares, and is run in no time. `ordinary`: no durable step. `decide`: an at-most-once step that
needs a person's decision, where Run All stops. `manage`: a cell of `%durable` lines."""

Cause = Literal["", "new", "changed", "not storable"]

_TOLD_BY_OTHERS = ("PYTEST_CURRENT_TEST", "JPY_PARENT_PID")
"""Variables that would tell the process about another kernel."""

_LIMIT = 600.0
"""Seconds. Imports of a notebook may take long; a process that hangs must not hang its asker for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What Run All would do with one code cell."""

    number: int
    """1, 2, 3… among the code cells."""
    cell_id: str | None
    label: str
    action: Action
    cause: Cause = ""
    """Of a cell that would run: it never did, something has changed, or what it makes cannot be stored."""
    sure: bool = True
    """False when it depends on what an earlier cell makes when it runs."""
    reason: str = ""
    difference: tuple[str, ...] = ()
    """Lines of a diff that shows the reason."""
    seconds: float | None = None
    """How long it took when it last ran; None when that is not known."""


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file.

    Raises:
        ValidationError: it cannot be read as one.
    """
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        cells = book["cells"]
        return [dict(cell) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ValidationError(f"{path} cannot be read as a notebook: {exc}") from exc


def foresee(
    path: Path,
    cells: Sequence[Mapping[str, Any]] | None = None,
    *,
    every_cell: bool | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Foreseen]:
    """What Run All would do.

    Args:
        path: the notebook; it says which history is meant, and its folder is the working directory.
        cells: its cells in notebook format, where they are newer than the file.
        every_cell: whether every cell is a step; None: unless the notebook loads the extension.
        environment: added to this process's, as a kernel would get it.

    Raises:
        ValidationError: the notebook cannot be read.
        DurableExecutionsError: the process failed.
    """
    found = [dict(cell) for cell in cells] if cells is not None else cells_of(path)
    code = [cell for cell in found if cell.get("cell_type", "code") == "code"]
    task = {
        "every_cell": _every_cell(code) if every_cell is None else every_cell,
        "cells": [
            {"source": _text(cell.get("source", "")), "id": cell.get("id"), "metadata": cell.get("metadata") or {}}
            for cell in code
        ],
    }
    inherited = {key: value for key, value in os.environ.items() if key not in _TOLD_BY_OTHERS}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "durable_nb.notebook._dry_run"],
            input=json.dumps(task).encode(),
            capture_output=True,
            cwd=path.parent,
            env={**inherited, "PYTHONHASHSEED": "0", **(environment or {}), "JPY_SESSION_NAME": str(path.absolute())},
            timeout=_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DurableExecutionsError(f"the plan could not be made: {exc}") from exc
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise DurableExecutionsError(f"the plan could not be made: {lines[-1] if lines else 'its process ended'}")
    return [
        Foreseen(**{**row, "difference": tuple(row["difference"])})
        for row in _answers(json.loads(done.stdout.decode()))
    ]


def _answers(found: Iterable[Any]) -> Iterable[dict[str, Any]]:
    for row in found:
        yield dict(row)


def _text(source: Any) -> str:
    return source if isinstance(source, str) else "".join(source)


def _every_cell(cells: Iterable[Mapping[str, Any]]) -> bool:
    """A notebook that loads the extension has marked cells; any other one is meant for the durable kernel."""
    return not any("%load_ext durable_nb" in _text(cell.get("source", "")) for cell in cells)
