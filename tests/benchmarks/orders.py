"""Saving before the reply goes out, as durable_nb does, and after it: what the promise costs the one who waits.

    python -m tests.benchmarks.orders WORKLOAD before|after FOLDER

`after` is no mode of durable_nb: it is made here, by ending each cell once its reply has been sent. The last line
printed is JSON: per cell, the seconds to the reply and those until the kernel takes the next request.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.life import begin
from tests.benchmarks.workloads import WORKLOADS, Workload, scale

ORDERS = ("before", "after")
COMPARED = ("trivial", "row", "array")
"""A cell that saves next to nothing, one that saves a megabyte, one that saves a gigabyte."""


class _Replies:
    """Notes when replies go out."""

    def __init__(self, shell: Any) -> None:
        self.at = 0.0
        self._receiver = shell.session.receiver
        shell.session.receiver = self._take

    def _take(self, message: dict[str, Any]) -> None:
        if message["header"]["msg_type"] == "execute_reply":
            self.at = time.perf_counter()
        self._receiver(message)


def reply_first(shell: Any) -> None:
    """Have cells end after their reply; ipykernel's pause before it is then its full one."""
    hooks = shell.shell._durable_nb_hooks
    end, execute_request = hooks._end, shell.kernel.execute_request
    hooks._end, hooks._sleep = lambda: None, lambda _: None

    async def ending_later(*args: Any) -> None:
        await execute_request(*args)
        end()

    shell.kernel.execute_request = ending_later


def live(workload: Workload, order: str, folder: Path) -> dict[str, list[float]]:
    """Run the cells for the first time, in one order."""
    shell = begin(workload, folder, durable=True)
    if order == "after":
        reply_first(shell)
    replies = _Replies(shell)
    found: dict[str, list[float]] = {"reply": [], "whole": []}
    for source in workload.cells:
        start = time.perf_counter()
        seen = shell.run(source)
        end = time.perf_counter()
        if seen["status"] != "ok":
            raise RuntimeError(f"{source}: {seen['ename']}: {seen['evalue']}")
        found["reply"].append(replies.at - start)
        found["whole"].append(end - start)
    return found


def main() -> None:
    """One life, as the arguments say."""
    name, order, folder = sys.argv[1:4]
    out = os.fdopen(os.dup(1), "w")
    found = live(WORKLOADS[name](scale()), order, Path(folder))
    out.write(json.dumps(found) + "\n")
    out.flush()
    os._exit(0)  # what a kernel's end costs is nobody's cell


if __name__ == "__main__":
    main()
