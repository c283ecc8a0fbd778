"""A real Dask cluster for tests: a scheduler and workers, each a process of its own on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0


class Process:
    """A process that says something when it is ready, and whose later words are kept."""

    def __init__(self, command: list[str], folder: Path, ready: str) -> None:
        # The repository comes first on the path of workers: bodies may use modules of the tests.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.found = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(re.compile(ready),), daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or not self.found:
            self.kill()
            raise RuntimeError(f"{command} did not start:\n" + "".join(self.lines))

    def _read(self, ready: re.Pattern[str]) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found = ready.search(line)
            if found and not self.found:
                self.found = found[1]
                self._ready.set()
        self._ready.set()

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()


class Cluster:
    """A scheduler on a free port, and workers with one thread each."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        command = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        command += ["--idle-timeout", "600"]  # neither outlives a test process that was killed
        self.scheduler = Process(command, folder, r"Scheduler at:\s+(tcp://\S+)")
        self.address = self.scheduler.found
        self.workers: list[Process] = []
        self.ask: Any = None
        """A client of the test's own, for questions to the scheduler."""
        try:
            # Side by side: most of the time that a worker takes to start is spent on imports.
            threads = [threading.Thread(target=self.add_worker) for _ in range(workers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(self.workers) == workers
            from distributed import Client

            self.ask = Client(self.address, set_as_default=False)
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """As a config names it."""
        return self.address.replace("tcp://", "dask://")

    def add_worker(self) -> Process:
        command = ["distributed.cli.dask_worker", self.address, "--host", "127.0.0.1", "--no-nanny", "--no-dashboard"]
        command += [
            "--death-timeout",
            "60",
            "--nthreads",
            "1",
            "--memory-limit",
            "0",
            "--local-directory",
            str(self.folder),
        ]
        worker = Process(command, self.folder, r"Registered to:\s+(tcp://\S+)")
        self.workers.append(worker)
        return worker

    def kill_worker(self, pid: int) -> None:
        """SIGKILL the worker whose process this is; it is none of the cluster any more."""
        (worker,) = [worker for worker in self.workers if worker.pid == pid]
        self.workers.remove(worker)
        worker.kill()

    def bury(self) -> int:
        """Forget the workers that died by themselves; returns how many there were."""
        dead = [worker for worker in self.workers if worker.process.poll() is not None]
        for worker in dead:
            self.kill_worker(worker.pid)
        return len(dead)

    def at_least(self, count: int) -> None:
        """Replace workers that are gone."""
        self.bury()
        while len(self.workers) < count:
            self.add_worker()
        self.ask.wait_for_workers(count, timeout=START_SECONDS)

    def on_scheduler(self, look: Callable[[Any], T]) -> T:
        """What a function finds in the scheduler."""

        def run(dask_scheduler: Any) -> T:
            return look(dask_scheduler)

        found: T = self.ask.run_on_scheduler(run)
        return found

    def tasks(self) -> int:
        """How many tasks the scheduler has ever been given."""
        return self.on_scheduler(
            lambda scheduler: sum(
                len(group.states) and sum(group.states.values()) for group in scheduler.task_groups.values()
            )
        )

    def close(self) -> None:
        from durable_nb.distributed.dask import disconnect

        disconnect(self.place)
        if self.ask is not None:
            self.ask.close()
        for process in (*self.workers, self.scheduler):
            process.kill()
