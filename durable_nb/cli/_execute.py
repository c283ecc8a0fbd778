"""One notebook through one kernel: nbclient, with the durable verdict of every cell and a notebook always on disk.

The kernel is told the notebook's path in the way of the Jupyter server, so that a run from the command line and a run
in JupyterLab are the same execution. It is sent each cell's metadata (tags set step options) but no cell id: a cell id
means that somebody is looking, and brings live widgets.

Ctrl-C goes to the kernel first: the running cell ends as with the stop button, and the notebook is saved with it.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from durable_nb.cells import parse_comment
from durable_nb.cli._exit import Complaint, ExitCode
from durable_nb.cli._format import one_line
from durable_nb.cli._kernels import own_sockets
from durable_nb.cli._save import write_notebook
from durable_nb.exceptions import InvalidStateError, ValidationError
from durable_nb.history import first_line

__all__ = ["CellReport", "NotebookRun", "Outcome"]

_WRITE_SHARE = 20
"""After a replayed cell the notebook is written only when this many times the cost of a write has passed: writing 500
replayed cells one by one would cost more than replaying them, and the store has their outputs anyway."""

_PR_SET_PDEATHSIG = 1

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReport:
    """How one code cell went."""

    number: int
    """1, 2, 3… among the code cells."""
    label: str
    status: str
    """As the kernel says it (`replayed`, `executed`, `declared`, `not_durable`, `failed`); `executed` or `failed` of a
    kernel that says nothing."""
    reason: str = ""
    wall: float = 0.0
    """Seconds between sending the cell and its reply."""
    seconds: float | None = None
    """Seconds the cell's work took when it last ran."""
    saved: float = 0.0
    """Seconds that the replay saved."""
    attempt: int = 1
    nbytes: int = 0
    decision: bool = False
    """A person has to decide how an at-most-once cell goes on."""


@dataclass(slots=True)
class Outcome:
    """The whole run."""

    code: ExitCode = ExitCode.OK
    cells: list[CellReport] = field(default_factory=list)
    message: str = ""
    """One line about the end, when it is not the good one."""
    traceback: str = ""
    seconds: float = 0.0
    died: bool = False
    """Whether the kernel's process ended by itself or was killed."""

    def count(self, status: str) -> int:
        """How many cells ended so."""
        return sum(cell.status == status for cell in self.cells)

    @property
    def saved(self) -> float:
        """Seconds that replays saved."""
        return sum(cell.saved for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "exit": int(self.code),
            "message": self.message,
            "seconds": round(self.seconds, 3),
            "saved_seconds": round(self.saved, 3),
            "cells": [asdict(cell) for cell in self.cells],
        }


class NotebookRun:
    """Executes a notebook and keeps `out` up to date.

    Args:
        book: changed in place.
        path: where the notebook is; its folder is the kernel's working directory.
        out: where the executed notebook goes, after every cell.
        kernel: name of the kernelspec.
        environment: added to the kernel's.
        timeout: seconds for each cell; None for no limit.
        on_start: told the number, the count of code cells and the label of a cell that begins.
        on_end: told how a cell went.
    """

    def __init__(
        self,
        book: NotebookNode,
        *,
        path: Path,
        out: Path,
        kernel: str,
        environment: Mapping[str, str],
        timeout: float | None,
        on_start: Callable[[int, int, str], None],
        on_end: Callable[[CellReport], None],
    ) -> None:
        self._book, self._path, self._out = book, path, out
        self._environment, self._on_start, self._on_end = dict(environment), on_start, on_end
        self._numbers = {index: n for n, index in enumerate(_code_cells(book), start=1)}
        self._outcome = Outcome()
        self._current = 0
        self._sent_at = self._written_at = self._write_cost = 0.0
        self._interrupted = False
        self._client = NotebookClient(
            book,
            kernel_name=kernel,
            timeout=None if timeout is None else math.ceil(timeout),  # it counts whole seconds
            record_timing=False,  # times would make two equal runs differ on disk
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_execute=self._before,
            on_cell_executed=self._after,
        )

    @property
    def kernel_pid(self) -> int:
        """Of the running kernel.

        Raises:
            InvalidStateError: no kernel is running.
        """
        manager = self._client.km
        pid = getattr(manager.provisioner, "pid", None) if manager is not None else None
        if not isinstance(pid, int):
            raise InvalidStateError("no kernel is running")
        return pid

    def run(self) -> Outcome:
        """Execute all cells, or up to the first that fails."""
        began = time.monotonic()
        # The kernel's own stderr (warnings of libraries before any cell) is of interest only when it does not come up.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            try:
                with own_sockets(self._client):
                    asyncio.run(self._execute(log))
            except NoSuchKernel as exc:
                raise Complaint(_no_kernel(exc.name)) from None
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as exc:
                self._explain(exc)
            except (RuntimeError, TimeoutError) as exc:
                # nbclient and jupyter_client say so when the process ended, or said nothing, before it was ready.
                log.seek(0)
                last = one_line("\n".join(log.read().strip().splitlines()[-1:]), 200)
                raise Complaint(f"the kernel did not start: {last or exc}", ExitCode.FAILED) from exc
            finally:
                # nbclient leaves it behind when the kernel did not come up, to fail at interpreter exit.
                atexit.unregister(self._client._cleanup_kernel)
        self._save()
        self._outcome.seconds = time.monotonic() - began
        return self._outcome

    async def _execute(self, log: Any) -> None:
        environment = {**_inherited(), **self._environment, "JPY_SESSION_NAME": str(self._path)}
        client = self._client
        async with client.async_setup_kernel(env=environment, stdout=log, stderr=log, **_bound_to_us()):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
            assert client.kc is not None
            info = await client.async_wait_for_reply(await _resolved(client.kc.kernel_info()))
            if info is not None and "language_info" in info["content"]:
                self._book.metadata["language_info"] = info["content"]["language_info"]
            for index, cell in enumerate(self._book.cells):
                await client.async_execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
            client.set_widgets_metadata()

    def _interrupt(self) -> None:
        self._interrupted = True
        if self._client.km is not None:
            self._pending_interrupt = asyncio.ensure_future(_resolved(self._client.km.interrupt_kernel()))

    # --- hooks ----------------------------------------------------------------------------------------------------

    def _before(self, cell: NotebookNode, cell_index: int) -> None:
        self._current = cell_index
        assert self._client.kc is not None
        # nbclient has no argument for it: the session's default metadata goes with the next message.
        self._client.kc.session.metadata = dict(cell.metadata)
        self._on_start(self._numbers[cell_index], len(self._numbers), _label(cell.source))
        self._sent_at = time.monotonic()

    def _after(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        wall = time.monotonic() - self._sent_at
        report = _report(self._numbers[cell_index], cell, execute_reply, wall)
        self._outcome.cells.append(report)
        replayed = report.status == "replayed"
        if not replayed or time.monotonic() - self._written_at > _WRITE_SHARE * self._write_cost:
            self._save()
        self._on_end(report)

    def _save(self) -> None:
        began = time.monotonic()
        write_notebook(self._book, self._out)
        self._written_at = time.monotonic()
        self._write_cost = self._written_at - began

    # --- the end --------------------------------------------------------------------------------------------------

    def _explain(self, exc: Exception) -> None:
        outcome, number = self._outcome, self._numbers.get(self._current, 0)
        last = outcome.cells[-1] if outcome.cells and outcome.cells[-1].number == number else None
        outcome.code = ExitCode.FAILED
        if isinstance(exc, DeadKernelError):
            outcome.died = True
            outcome.message = (
                f"the kernel died in cell {number}: run the same command again, completed cells are replayed"
            )
        elif isinstance(exc, CellTimeoutError):
            outcome.message = f"cell {number} took longer than the time-out"
        elif isinstance(exc, CellExecutionError):
            if self._interrupted:
                outcome.code, outcome.message = ExitCode.INTERRUPTED, f"interrupted in cell {number}"
                return
            outcome.message = f"cell {number} failed: {_plain(exc.ename)}: {one_line(_plain(exc.evalue), 300)}"
            outcome.traceback = _traceback(self._book.cells[self._current])
            if last is not None and last.decision:
                outcome.code = ExitCode.DECISION
                outcome.message = f"cell {number} needs a decision: {last.reason or one_line(_plain(exc.evalue), 300)}"


def _code_cells(book: NotebookNode) -> list[int]:
    """Indexes of the cells that nbclient sends."""
    return [index for index, cell in enumerate(book.cells) if cell.cell_type == "code" and cell.source.strip()]


def _report(number: int, cell: NotebookNode, reply: Mapping[str, Any], wall: float) -> CellReport:
    said = (reply.get("metadata") or {}).get("durable_nb") or {}
    failed = reply["content"].get("status") != "ok"
    return CellReport(
        number=number,
        label=one_line(_label(cell.source)),
        status=str(said.get("status") or ("failed" if failed else "executed")),
        reason=str(said.get("reason") or ""),
        wall=round(wall, 6),
        seconds=said.get("seconds"),
        saved=float(said.get("saved_seconds") or 0.0),
        attempt=int(said.get("attempt") or 1),
        nbytes=int(said.get("bytes") or 0),
        decision=bool(said.get("decision")),
    )


def _label(source: str) -> str:
    """The step's name where its first line gives one, else the first line of code."""
    try:
        options = parse_comment(source)
    except ValidationError:  # the kernel tells the user what is wrong with it
        options = None
    return (options.name if options is not None else None) or first_line(source)


def _traceback(cell: NotebookNode) -> str:
    """What the notebook shows of the error; some errors are only a line on stderr, and that is shown already."""
    shown = [output for output in cell.outputs if output.output_type == "error"]
    if shown:
        return "\n".join(shown[-1].traceback)
    return "".join(output.text for output in cell.outputs if output.get("name") == "stderr")


def _plain(text: str | None) -> str:
    return _ANSI.sub("", text or "")


def _no_kernel(name: str) -> str:
    from jupyter_client.kernelspec import KernelSpecManager

    known = ", ".join(sorted(KernelSpecManager().find_kernel_specs())) or "none"
    return f"there is no kernel {name!r} here (installed: {known})"


def _inherited() -> dict[str, str]:
    """Our environment, less what tells a kernel that somebody else started it."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("JPY_", "PYTEST_"))}


def _bound_to_us() -> dict[str, Any]:
    """Let the kernel die with this process, however it dies.

    ipykernel looks for its parent once a second, and not at all while a cell is blocked in C code. A kernel that
    outlives us holds the notebook: the next run, started at once, could replay but not save.
    """
    if sys.platform != "linux":
        return {}
    prctl = ctypes.CDLL(None).prctl

    def preexec() -> None:  # between fork and exec: nothing but the call
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return {"preexec_fn": preexec}


async def _resolved(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) or isinstance(value, asyncio.Future) else value
