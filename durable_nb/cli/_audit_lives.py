"""Kernels for an audit: a notebook's cells run in a copy of its folder, watched from outside.

Each life is a kernel process of its own: plain or durable, to the end or to a SIGKILL. What a front end sees of each
cell is kept, and at the end a picture of all names (`durable_nb.testing._portrait`), asked silently: a notebook under
audit is not changed by being looked at.
"""

from __future__ import annotations

import ast
import asyncio
import atexit
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from durable_nb.cli._exit import Complaint
from durable_nb.cli._kernels import own_sockets
from durable_nb.testing import _portrait

__all__ = ["CellLife", "Life", "copy_folder", "live"]

_LEFT_OUT = shutil.ignore_patterns(".durable", ".ipynb_checkpoints", ".git", ".venv", "node_modules", "__pycache__")
_LARGEST = 2 << 30
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_CELL_FILE = re.compile(r"/ipykernel_\d+/")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_OURS = re.compile(r"^durable_nb: .*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CellLife:
    """What a front end saw of one cell."""

    outputs: list[dict[str, Any]]
    failed: bool
    seconds: float
    status: str = ""
    """What the durable kernel said became of it."""
    saved: float = 0.0
    told: tuple[str, ...] = ()


@dataclass(slots=True)
class Life:
    """What was seen of one kernel."""

    cells: list[CellLife] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, status: str) -> int:
        """How many cells ended so."""
        return sum(cell.status == status for cell in self.cells)


def copy_folder(source: Path, target: Path) -> None:
    """A copy of a notebook's folder, without stores and environments.

    Raises:
        Complaint: it holds too much to be copied for each life.
    """
    total = 0
    for folder, folders, names in os.walk(source):
        ignored = _LEFT_OUT(folder, [*folders, *names])
        folders[:] = [name for name in folders if name not in ignored]
        total += sum((Path(folder) / name).lstat().st_size for name in names if name not in ignored)
        if total > _LARGEST:
            raise Complaint(
                f"{source} holds more than 2 GB, and an audit copies it: move the notebook to a folder of its own"
            )
    shutil.copytree(source, target, ignore=_LEFT_OUT, symlinks=True)


def live(
    cells: Sequence[str],
    path: Path,
    *,
    kernel: str,
    environment: Mapping[str, str],
    timeout: float | None = None,
    kill_after: int | None = None,
) -> Life:
    """Run code cells in a fresh kernel, as the notebook at `path`, up to the first that fails.

    Args:
        cells: sources.
        path: the notebook's; its folder is the working directory.
        kernel: name of the kernelspec.
        environment: added to this process's.
        timeout: seconds for each cell.
        kill_after: index of the cell after whose reply the process gets SIGKILL.
    """
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])  # type: ignore[no-untyped-call]
    path.write_text(nbformat.writes(book), encoding="utf-8")  # type: ignore[no-untyped-call]
    return asyncio.run(_Living(book, path, kernel, environment, timeout, kill_after).run())


class _Living:
    def __init__(
        self,
        book: Any,
        path: Path,
        kernel: str,
        environment: Mapping[str, str],
        timeout: float | None,
        kill_after: int | None,
    ) -> None:
        self._book, self._path, self._kill_after = book, path, kill_after
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JPY_", "PYTEST_", "DURABLE_NB_"))}
        self._environment = {**inherited, "PYTHONHASHSEED": "0", **environment, "JPY_SESSION_NAME": str(path)}
        self._client = NotebookClient(
            book,
            kernel_name=kernel,
            timeout=None if timeout is None else int(timeout) + 1,
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_executed=self._note,
        )
        self._life = Life()
        self._sent_at = 0.0

    async def run(self) -> Life:
        client, began = self._client, time.monotonic()
        try:
            # What kernels say about themselves is of no interest here.
            with Path(os.devnull).open("wb") as log, own_sockets(client):
                async with client.async_setup_kernel(env=self._environment, stdout=log, stderr=log):
                    await self._cells()
                    if self._kill_after is None:
                        self._life.names = await self._names()
        finally:
            atexit.unregister(client._cleanup_kernel)
        self._life.seconds = time.monotonic() - began
        return self._life

    async def _cells(self) -> None:
        client = self._client
        for index, cell in enumerate(self._book.cells):
            self._sent_at = time.monotonic()
            try:
                await client.async_execute_cell(cell, index, execution_count=index + 1)
            except CellExecutionError:
                return
            except (CellTimeoutError, DeadKernelError) as exc:
                raise Complaint(f"{self._path.name}: cell {index + 1} ended the audit: {type(exc).__name__}") from exc
            if index == self._kill_after:
                provisioner: Any = client.km.provisioner if client.km is not None else None
                os.kill(provisioner.pid, signal.SIGKILL)
                return

    def _note(self, cell: Any, cell_index: int, execute_reply: Mapping[str, Any]) -> None:  # noqa: ARG002 - nbclient's
        said = (execute_reply.get("metadata") or {}).get("durable_nb") or {}
        outputs, told = _steady(cell.outputs, self._path.parent)
        self._life.cells.append(
            CellLife(
                outputs=outputs,
                failed=execute_reply["content"].get("status") != "ok",
                seconds=time.monotonic() - self._sent_at,
                status=str(said.get("status") or ""),
                saved=float(said.get("saved_seconds") or 0.0),
                told=told,
            )
        )

    async def _names(self) -> dict[str, str]:
        client = self._client
        assert client.kc is not None
        look = f"__import__('runpy').run_path({_portrait.__file__!r})['portraits'](globals())"
        message = client.kc.execute("", silent=True, user_expressions={"names": f"repr({look})"})
        reply = await client.async_wait_for_reply(message)
        answer = ((reply or {}).get("content", {}).get("user_expressions") or {}).get("names", {})
        if answer.get("status") != "ok":
            return {}
        found: dict[str, str] = ast.literal_eval(ast.literal_eval(answer["data"]["text/plain"]))
        return {name: _plain(text, self._path.parent) for name, text in found.items()}


def _steady(outputs: Sequence[Any], folder: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Outputs without what differs in every process, and what durable_nb itself said among them."""
    found: list[dict[str, Any]] = []
    told: list[str] = []
    for output in outputs:
        if _is_step_line(output):
            continue
        made = _walk(dict(output), folder)
        if made.get("output_type") == "stream" and made.get("name") == "stderr":
            told += [line.strip() for line in _OURS.findall(made["text"])]
            made["text"] = _OURS.sub("", made["text"])
            if not made["text"]:
                continue
        last = found[-1] if found else {}
        if made.get("output_type") == last.get("output_type") == "stream" and made["name"] == last["name"]:
            last["text"] += made["text"]
        else:
            found.append(made)
    return found, tuple(told)


def _is_step_line(output: Any) -> bool:
    """Whether an output is the line that durable_nb shows of a marked step."""
    data = output.get("data", {})
    return "&middot; durable step" in data.get("text/html", "") and data.get("text/plain", "").startswith(
        "Durable step "
    )


def _walk(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return _plain(value, folder)
    if isinstance(value, Mapping):
        return {key: _walk(item, folder) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item, folder) for item in value]
    return value


def _plain(text: str, folder: Path) -> str:
    return _CELL_FILE.sub("/ipykernel/", _ADDRESS.sub("0x?", _ANSI.sub("", text).replace(str(folder), "<folder>")))
