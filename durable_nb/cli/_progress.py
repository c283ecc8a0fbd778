"""What `run` says while it runs: a line for each cell, a bar below them on a terminal, a summary."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from durable_nb.amounts import duration, size
from durable_nb.cli._execute import CellReport, Outcome
from durable_nb.cli._exit import ExitCode
from durable_nb.cli._format import one_line

__all__ = ["Progress"]

_STYLES = {"replayed": "green", "executed": "cyan", "declared": "dim", "not_durable": "yellow", "failed": "bold red"}
_WORTH_SAYING = 0.01
"""Seconds. A replay that saved less is no news."""

_WORDS = {"not_durable": "not durable"}


class Progress:
    """Lines and a bar on one console, so that neither writes into the other.

    Args:
        quiet: say only what went wrong.
        to_stderr: leave stdout to JSON.
    """

    def __init__(self, *, quiet: bool, to_stderr: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=to_stderr, highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._total = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._bar = Bar(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def remark(self, text: str) -> None:
        """Something the user should know before the run."""
        self._errors.print(f"durable-nb: {text}", markup=False)

    def start(self, number: int, total: int, label: str) -> None:
        """A cell begins."""
        self._total = total
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=total)
            self._bar.update(self._task, completed=number - 1, description=one_line(label, 50))

    def end(self, cell: CellReport) -> None:
        """A cell has ended."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=cell.number)
        if not self._quiet:
            self._console.print(self._line(cell))

    def _line(self, cell: CellReport) -> Text:
        width = len(str(self._total))
        word = _WORDS.get(cell.status, cell.status)
        line = Text(f"[{cell.number:>{width}}/{self._total}] ")
        line.append(f"{word:<11} ", style=_STYLES.get(cell.status, ""))
        line.append(f"{duration(cell.wall):>12}  ")
        line.append(one_line(cell.label, 44))
        notes = []
        if cell.status == "replayed":
            notes += [f"saved {duration(cell.saved)}"] if cell.saved >= _WORTH_SAYING else []
        elif cell.status != "declared" and cell.reason:
            notes.append(cell.reason)
        if cell.attempt > 1:
            notes.append(f"attempt {cell.attempt}")
        if notes:
            line.append("  " + "; ".join(notes), style="dim")
        return line

    def summary(self, outcome: Outcome, out: Path) -> None:
        """The end of the run, good or bad."""
        self._stop()
        if outcome.traceback:
            self._errors.print(Text.from_ansi(outcome.traceback.rstrip()))
        if outcome.message:
            self._errors.print(f"durable-nb: {outcome.message}", markup=False)
        if self._quiet:
            return
        counts = [
            f"{outcome.count(status)} {_WORDS.get(status, status)}" for status in _STYLES if outcome.count(status)
        ]
        saved = f" (saved {duration(outcome.saved)})" if outcome.saved else ""
        stored = sum(cell.nbytes for cell in outcome.cells if cell.status == "executed")
        parts = [f"{', '.join(counts) or 'no cell to run'}{saved}", duration(outcome.seconds)]
        if stored:
            parts.append(f"{size(stored)} stored")
        parts.append(f"written to {_short(out)}")
        self._console.print("; ".join(parts), markup=False, style="bold" if outcome.code is ExitCode.OK else "")
        sys.stdout.flush()


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
