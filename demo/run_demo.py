"""Run a notebook, kill its kernel half-way with SIGKILL, run it again, and show what the second run had to do.

The notebook is copied to `out/demo/`, with a store of its own that starts empty, so the demo is the same every time.
The two runs are what `durable-nb run` does; the demo only adds the kill.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from durable_nb.amounts import duration
from durable_nb.cli._execute import CellReport, NotebookRun, Outcome
from durable_nb.cli._exit import ExitCode
from durable_nb.cli._progress import Progress
from durable_nb.cli._save import clear_outputs, read_notebook

ROOT = Path(__file__).resolve().parent.parent
# These say nothing new: a declaration is run every time, since running it is cheaper than storing it.
REASONS = {"replayed": "", "declared": "only declares"}
STYLES = {"replayed": "green", "executed": "cyan", "failed": "red", "not_durable": "yellow"}


class Killer:
    """Sends SIGKILL to the kernel some time after a cell has begun."""

    def __init__(self, number: int, after: float) -> None:
        self.number, self.after = number, after
        self.run: NotebookRun | None = None

    def cell_begins(self, number: int) -> None:
        """Kill soon, when this is the cell."""
        if number == self.number:
            # The cell is still at work then: it takes far longer than this delay.
            threading.Timer(self.after, self._kill).start()

    def _kill(self) -> None:
        assert self.run is not None
        os.kill(self.run.kernel_pid, signal.SIGKILL)


def run_once(notebook: Path, store: Path, progress: Progress, killer: Killer | None = None) -> Outcome:
    """One run of the notebook over the store; `killer` ends it early."""

    def on_start(number: int, total: int, label: str) -> None:
        progress.start(number, total, label)
        if killer is not None:
            killer.cell_begins(number)

    book = read_notebook(notebook)
    clear_outputs(book)
    run = NotebookRun(
        book,
        path=notebook,
        out=notebook.with_name(f"{notebook.stem}.out.ipynb"),
        kernel="durable_nb",
        environment={"DURABLE_NB_STORE": str(store)},
        timeout=None,
        on_start=on_start,
        on_end=progress.end,
    )
    if killer is not None:
        killer.run = run
    return run.run()


def table(first: Outcome, second: Outcome, killed_in: int) -> Table:
    """Per cell: what each run did, how long it took, and why the second one ran what it ran."""
    shown = Table(title="The same notebook, before and after the kill", title_justify="left")
    shown.add_column("#", justify="right")
    shown.add_column("cell", no_wrap=True, overflow="ellipsis", max_width=34)
    shown.add_column("first run", no_wrap=True)
    shown.add_column("then", justify="right", no_wrap=True)
    shown.add_column("second run", no_wrap=True)
    shown.add_column("now", justify="right", no_wrap=True)
    shown.add_column("why it ran")
    before = {cell.number: cell for cell in first.cells}
    for cell in second.cells:
        was = before.get(cell.number)
        missing = "killed here" if cell.number == killed_in else "not reached"
        shown.add_row(
            str(cell.number),
            Text(cell.label),
            _word(was) if was else Text(missing, style="bold red" if cell.number == killed_in else "dim"),
            duration(was.wall) if was else "–",
            _word(cell),
            duration(cell.wall),
            Text(REASONS.get(cell.status, cell.reason)),
        )
    return shown


def _word(cell: CellReport) -> Text:
    word = cell.status.replace("_", " ") + (f", {cell.attempt} attempts" if cell.attempt > 1 else "")
    return Text(word, style=STYLES.get(cell.status, "dim"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", nargs="?", type=Path, default=ROOT / "notebooks" / "digits.ipynb")
    parser.add_argument("--kill-in", type=int, metavar="N", default=8, help="code cell in which the kernel is killed")
    parser.add_argument("--kill-after", type=float, metavar="SECONDS", default=0.5, help="how long after its start")
    options = parser.parse_args(arguments)

    place = ROOT / "out" / "demo"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    notebook = place / options.notebook.name
    shutil.copy(options.notebook, notebook)

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=150)  # a log file has no width: do not fold the table at 80 columns
    console.print(f"First run of {notebook.name}: its kernel is killed in cell {options.kill_in}.", style="bold")
    with Progress(quiet=False, to_stderr=False) as progress:
        first = run_once(notebook, place / ".durable", progress, Killer(options.kill_in, options.kill_after))
    killed_in = len(first.cells) + 1
    if first.code is not ExitCode.FAILED or not first.died:
        console.print(f"The kernel was not killed: {first.message or 'the notebook was done before'}", style="red")
        return 1
    console.print(f"SIGKILL in cell {killed_in}.\n", style="bold red")

    console.print("Second run, a new kernel:", style="bold")
    with Progress(quiet=False, to_stderr=False) as progress:
        second = run_once(notebook, place / ".durable", progress)
        progress.summary(second, notebook.with_name(f"{notebook.stem}.out.ipynb"))
    console.print()
    console.print(table(first, second, killed_in))
    then = sum(cell.wall for cell in first.cells)
    again = [cell for cell in second.cells if cell.number < killed_in]
    now = sum(cell.wall for cell in again)
    console.print(
        f"The {len(again)} cells that were done before the kill took {duration(then)} then and {duration(now)} now; "
        f"{sum(cell.status == 'replayed' for cell in again)} of them were replayed."
    )
    return int(second.code)


if __name__ == "__main__":
    sys.exit(main())
