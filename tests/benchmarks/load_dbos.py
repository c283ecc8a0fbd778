"""DBOS's part of `load.py`, for an interpreter that has it.

    PYTHON -m tests.benchmarks.load_dbos URL enqueue EXECUTIONS STEPS
    PYTHON -m tests.benchmarks.load_dbos URL work THREADS POLL

Executions go into a queue that all workers listen to, which is how DBOS shares work between processes; each takes no
more than `THREADS` at once. They are put into the queue of another name first, which nobody listens to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from dbos import DBOS

QUEUE = "load"


def _configure(url: str, name: str, **more: Any) -> None:
    DBOS(
        config={
            "name": "load",
            "system_database_url": url,
            "log_level": "ERROR",
            "run_admin_server": False,
            "application_version": "1",
            "executor_id": name,
            **more,
        }
    )


@DBOS.step()  # type: ignore[misc, unused-ignore]
def add(a: int, b: int) -> int:
    return a + b


@DBOS.workflow()  # type: ignore[misc, unused-ignore]
def load(steps: int) -> int:
    return sum(add(number, 1) for number in range(steps))


def enqueue(executions: int, steps: int) -> None:
    DBOS.listen_queues([])
    DBOS.launch()
    DBOS.register_queue(f"{QUEUE}-later")
    for _ in range(executions):
        DBOS.enqueue_workflow(f"{QUEUE}-later", load, steps)
    DBOS.destroy()


def work(threads: int, poll: float) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    DBOS.listen_queues([QUEUE])
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=threads, polling_interval_sec=poll)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    stop.wait()
    DBOS.destroy(workflow_completion_timeout_sec=5)


def main() -> None:
    url, what, one, two = sys.argv[1:]
    _configure(url, f"{what}-{os.getpid()}")
    if what == "enqueue":
        enqueue(int(one), int(two))
    else:
        work(int(one), float(two))


if __name__ == "__main__":
    main()
