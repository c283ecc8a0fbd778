"""`durable-nb run NOTEBOOK`: execute it in the durable kernel, resume it after any kill."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from durable_nb.cli._exit import Complaint, ExitCode
from durable_nb.cli._format import as_json
from durable_nb.cli._places import forget_ordinary, store_environment

__all__ = ["register", "run"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="run")(run)


def run(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK", help="The notebook to execute.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Where the executed notebook goes [NOTEBOOK.out.ipynb]."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME VALUE", help="Set a parameter, as papermill does; repeatable."),
    ] = None,
    execution: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the execution [the notebook's path].")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Folder or URL of the store [$DURABLE_NB_STORE, else .durable beside NOTEBOOK]."
        ),
    ] = None,
    kernel: Annotated[str, typer.Option(metavar="NAME", help="The kernel to use.")] = "durable_nb",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what ordinary cells did; at-most-once cells keep their results.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Limit for each cell: 90, 10m, 1h [none].")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")] = False,
) -> int:
    """Execute a notebook; cells that were completed before are replayed.

    Exit status: 0 done, 1 a cell failed or the kernel died, 2 bad use, 3 an at-most-once cell needs a decision.
    """
    # nbclient and its friends take half a second to import: not for `durable-nb --help`.
    from durable_nb.cli._execute import NotebookRun
    from durable_nb.cli._parameters import inject, parse
    from durable_nb.cli._progress import Progress
    from durable_nb.cli._save import clear_outputs, read_notebook

    parameters = parse(parameter or [])
    limit = _seconds(timeout)
    path = notebook.absolute()
    out = (output or path.with_name(f"{path.stem}.out.ipynb")).absolute()
    book = read_notebook(path)
    if not out.parent.is_dir():
        raise Complaint(f"cannot write {output}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise Complaint(f"cannot write {output}: the folder {out.parent} is read-only")
    remark = inject(book, parameters)
    if out != path:
        clear_outputs(book)
    environment = store_environment(store)
    if execution is not None:
        environment["DURABLE_NB_EXECUTION"] = execution
    if fresh:
        forget_ordinary(store, path, execution)
    with Progress(quiet=quiet, to_stderr=json_output) as progress:
        if remark:
            progress.remark(remark)
        outcome = NotebookRun(
            book,
            path=path,
            out=out,
            kernel=kernel,
            environment=environment,
            timeout=limit,
            on_start=progress.start,
            on_end=progress.end,
        ).run()
        progress.summary(outcome, out)
    if json_output:
        sys.stdout.write(as_json({"notebook": str(path), "output": str(out), **outcome.as_json()}) + "\n")
    return outcome.code


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    from durable_nb.cells import parse_duration
    from durable_nb.exceptions import ValidationError

    try:
        seconds = float(parse_duration(text))
    except (ValidationError, ValueError):
        raise Complaint(f"--timeout {text}: write a duration such as 90, 90s, 10m or 1h30m") from None
    if seconds <= 0:
        raise Complaint(f"--timeout {text}: the limit must be more than zero", ExitCode.USAGE)
    return seconds
