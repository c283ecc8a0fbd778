"""A kernel for one notebook under test: nbclient, told the notebook's path as the Jupyter server tells it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import os
import time
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

_TOLD_BY_OTHERS = ("PYTEST_CURRENT_TEST", "JPY_PARENT_PID")
"""pytest's variable makes ipykernel stop watching what subprocesses write."""


class NotebookKernel:
    """Runs cells of one notebook, in whatever order it is asked to."""

    def __init__(self, book: Any, path: Path, *, kernel: str | None, timeout: float | None) -> None:
        name = kernel or book.metadata.get("kernelspec", {}).get("name") or "durable_nb"
        self._book, self._path = book, path
        self._loop = asyncio.new_event_loop()
        self._report: dict[str, Any] = {}
        self._client = NotebookClient(
            book.copy(),
            kernel_name=name,
            timeout=None if timeout is None else math.ceil(timeout),
            record_timing=False,
            allow_errors=False,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_executed=self._executed,
        )

    def start(self) -> None:
        """Start the kernel."""
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        env = {key: value for key, value in os.environ.items() if key not in _TOLD_BY_OTHERS}
        client = self._client
        if client.km is None:
            client.create_kernel_manager()
        await client.async_start_new_kernel(env={**env, "JPY_SESSION_NAME": str(self._path)})
        await client.async_start_new_kernel_client()

    def _executed(self, cell: Any, cell_index: int, execute_reply: Any) -> None:  # noqa: ARG002 - nbclient's names
        self._report = dict(execute_reply.get("metadata", {}).get("durable_nb") or {})

    def run(self, index: int) -> dict[str, Any]:
        """Run a cell: its outputs, its error or None, the kernel's report and the seconds it took."""
        cell = copy.deepcopy(self._book.cells[index])
        cell.outputs = []
        self._report = {}
        # nbclient has no argument for it: tags and other settings of the cell go with the next message.
        assert self._client.kc is not None
        self._client.kc.session.metadata = dict(cell.metadata)
        clock = time.perf_counter()
        with contextlib.suppress(CellExecutionError):  # its outputs hold the error
            self._loop.run_until_complete(self._client.async_execute_cell(cell, index))
        errors = [output for output in cell.outputs if output.output_type == "error"]
        return {
            "outputs": list(cell.outputs),
            "error": errors[-1] if errors else None,
            "report": self._report,
            "wall": time.perf_counter() - clock,
        }

    def stop(self) -> None:
        """End the kernel."""
        self._loop.run_until_complete(self._client._async_cleanup_kernel())
        self._loop.close()
