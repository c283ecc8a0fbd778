"""`durable-nb audit NOTEBOOK…`: may this notebook be trusted to replay?

It runs in copies of the notebook's folder, in kernels of its own: plainly twice (what differs by itself), durably up to
a SIGKILL, durably to the end, once more from the checkpoints alone, and once with an edit. Everything that the plain
kernel gives twice has to come back equal.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from durable_nb.amounts import duration
from durable_nb.cli._exit import Complaint, ExitCode
from durable_nb.cli._format import as_json
from durable_nb.cli._options import AsJson

if TYPE_CHECKING:
    from durable_nb.cli._audit_verdict import Report

__all__ = ["audit", "register"]

_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="audit")(audit)


def audit(
    notebooks: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK...", help="The notebooks to audit.")],
    kernel: Annotated[str, typer.Option(metavar="NAME", help="The durable kernel.")] = "durable_nb",
    plain: Annotated[str, typer.Option(metavar="NAME", help="The kernel to compare with.")] = "python3",
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Limit for each cell [none].")] = None,
    json_output: AsJson = False,
) -> int:
    """Prove that a notebook replays as it runs: plain twice, killed, resumed, replayed and edited, in copies.

    The cells run several times, up to the first at-most-once cell: what a cell does outside of its folder (services,
    databases) happens each time.

    Exit status: 0 equal, 1 something differs, 2 bad use.
    """
    reports: list[Report] = []
    for notebook in notebooks:
        report = _audit_notebook(notebook.absolute(), kernel=kernel, plain=plain, timeout=timeout)
        reports.append(report)
        if not json_output:
            _show(report)
    if json_output:
        sys.stdout.write(as_json([report.as_json() for report in reports]) + "\n")
    return ExitCode.FAILED if any(report.findings for report in reports) else ExitCode.OK


def _audit_notebook(path: Path, *, kernel: str, plain: str, timeout: float | None) -> Report:
    """Audit one notebook; see `audit`."""
    from durable_nb.cli._audit_lives import Life, copy_folder, live
    from durable_nb.cli._audit_verdict import Report, compare, differing, edited
    from durable_nb.cli._save import read_notebook

    book = read_notebook(path)
    cells = [cell.source for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]
    once = next((n for n, source in enumerate(cells) if _at_most_once(source)), None)
    cells = [source for source in cells[:once] if not _manages(source)]
    if not cells:
        raise Complaint(f"{path.name} has nothing to audit before its first at-most-once cell")
    report = Report(str(path), len(cells))
    if once is not None:
        report.failed = f"cell {once + 1}, which runs at most once: an audit would run it several times"
    with tempfile.TemporaryDirectory(prefix="durable-nb-audit-", ignore_cleanup_errors=True) as root:

        def place(name: str) -> Path:
            folder = Path(root) / name / path.parent.name
            copy_folder(path.parent, folder)
            return folder / path.name

        def plainly(name: str, sources: list[str]) -> Life:
            return live(list(map(_unmarked, sources)), place(name), kernel=plain, environment={}, timeout=timeout)

        first = plainly("p1", cells)
        if first.cells and first.cells[-1].failed:
            # What fails plainly proves nothing: the cells before it do.
            report.failed = f"cell {len(first.cells)}, in the plain kernel too"
            cells = cells[: len(first.cells) - 1]
            report.cells = len(cells)
            if not cells:
                return report
            first = plainly("p0", cells)
        second = plainly("p2", cells)
        unsteady = differing(first, second)
        report.unsteady = [*(f"cell {n + 1}" for n in sorted(unsteady[0])), *sorted(unsteady[1])]
        report.plain_seconds = sum(cell.seconds for cell in first.cells)

        durable = place("d1")
        environment = {"DURABLE_NB_STORE": str(Path(root) / "d1" / "store")}

        def durably(sources: list[str], kill_after: int | None = None) -> Life:
            return live(
                sources, durable, kernel=kernel, environment=environment, timeout=timeout, kill_after=kill_after
            )

        durably(cells, kill_after=(len(cells) - 1) // 2)
        compare(report, "resumed", first, durably(cells), unsteady)
        replayed = durably(cells)
        compare(report, "replayed", first, replayed, unsteady)
        report.replayed = replayed.count("replayed")
        report.steps = len(replayed.cells) - replayed.count("declared")
        report.saved_seconds = sum(cell.saved for cell in replayed.cells)
        report.replay_seconds = sum(cell.seconds for cell in replayed.cells)
        report.told = sorted({line for cell in replayed.cells for line in cell.told})
        change = edited(cells)
        if change is not None:
            index, source = change
            other = [*cells[:index], source, *cells[index + 1 :]]
            one, two = plainly("e1", other), plainly("e2", other)
            compare(report, "edited", one, durably(other), differing(one, two))
    return report


_STEP_MAGIC = "%%durable_step"


def _manages(source: str) -> bool:
    """Whether a cell is about durable_nb itself (`%durable status`), which the plain kernel knows nothing of."""
    lines = [line.strip() for line in source.strip().splitlines() if line.strip() and not line.strip().startswith("#")]
    return all(line.split()[0] in ("%durable", "%load_ext") and "durable" in line for line in lines)


def _unmarked(source: str) -> str:
    """A cell as the plain kernel knows it: without the mark of a step, on the same lines."""
    first, newline, rest = source.partition("\n")
    return f"{newline}{rest}" if first.strip().split(" ")[0] == _STEP_MAGIC else source


def _at_most_once(source: str) -> bool:
    from durable_nb.cells import parse_comment
    from durable_nb.exceptions import ValidationError

    first = source.strip().splitlines()[0]
    try:
        options = parse_comment(source)
    except ValidationError:  # the kernel tells the user what is wrong with it
        options = None
    marked = first.startswith((_STEP_MAGIC, _STEP_MAGIC[1:])) and "--at-most-once" in first
    return marked or (options is not None and options.at_most_once)


def _show(report: Report) -> None:
    share = report.replayed / report.steps if report.steps else 1.0
    work = duration(report.saved_seconds)
    equal = f"{report.fidelity:.1%}"
    plain, replayed = duration(report.plain_seconds), duration(report.replay_seconds)
    lines = [
        f"{report.notebook}: {report.verdict}",
        f"  compared     {report.compared} outputs and names: {equal} equal, {report.false_hits} false hits",
        f"  replayed     {report.replayed} of {report.steps} cells ({share:.0%})",
        f"  time         {plain} plain, {replayed} replayed; {work} of work were not done again",
    ]
    if report.failed:
        lines.append(f"  stops at     {report.failed}")
    if report.unsteady:
        lines.append(f"  by itself    two plain runs differ in {', '.join(report.unsteady[:12])}")
    lines += [f"  told         {line}" for line in report.told]
    for finding in report.findings[:_SHOWN]:
        mark = "FALSE HIT" if finding.false_hit else "differs"
        lines += [
            f"  {mark}: {finding.where} when {finding.stage}",
            f"    plain      {finding.expected}",
            f"    durable    {finding.got}",
        ]
    if len(report.findings) > _SHOWN:
        lines.append(f"  … and {len(report.findings) - _SHOWN} more (--json shows all)")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
