"""A real PostgreSQL for tests: initdb and postgres in a temporary folder, on a unix socket.

    with Cluster.started() as cluster:
        url = cluster.new_store()          # a schema of its own
        cluster.kill(); cluster.start()    # SIGKILL of the postmaster, and its recovery

PostgreSQL refuses to run as root: then the server's processes run as the user `postgres` that Debian's package makes.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

LIMIT = 120.0
"""Seconds after which a wait is a failure."""

_SETTINGS = {
    "listen_addresses": "''",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_wal_size": "128MB",
    "autovacuum": "off",
    "logging_collector": "off",
    # A killed process loses what it had not written; only a loss of power would lose what was not synced too.
    "fsync": "off",
    # What is to be lost by a kill must be able to be lost: the writer of the log sleeps longer than by default.
    "wal_writer_delay": "2000ms",
}


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: the newest that Debian's packages have installed, or that of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def why_not() -> str | None:
    """Why no server can be started here; None when one can."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL refuses to run as root, and there is no user postgres"
    return None


class Cluster:
    """One server with one superuser, `durable`.

    Args:
        folder: all that is its own.
        settings: what differs from the settings of tests: a benchmark pays for its disk.
        inside: what commands begin with, to run elsewhere (`ip netns exec …`).
        subnet: addresses that may connect over TCP.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        inside: Sequence[str] = (),
        subnet: str | None = None,
    ) -> None:
        self.folder = folder
        self._inside, self._subnet = tuple(inside), subnet
        self._settings = {**_SETTINGS, **(settings or {})}
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"

    @classmethod
    @contextlib.contextmanager
    def started(
        cls, settings: Mapping[str, str] | None = None, *, folder: Path | None = None, **where: Any
    ) -> Iterator[Self]:
        reason = why_not()
        if reason is not None:
            pytest.skip(reason)
        # The path of a socket has a limit of about 100 characters, which a test's own folder exceeds.
        folder = Path(tempfile.mkdtemp(prefix="dnb-pg-", dir=folder))
        cluster = cls(folder, settings, **where)
        try:
            cluster._make()
            cluster.start()
            yield cluster
        finally:
            cluster.kill()
            shutil.rmtree(folder, ignore_errors=True)

    # --- life ------------------------------------------------------------------------------------------------------

    def _command(self, name: str, *words: str) -> list[str]:
        bin_folder = binaries()
        assert bin_folder is not None
        command = [str(bin_folder / name), *words]
        if os.geteuid() == 0:
            # The kernel ends the server with us, whatever ends us.
            return [
                *self._inside,
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                "--pdeathsig=INT",
                *command,
            ]
        return [*self._inside, *command]

    def _make(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        words = ["-D", str(self.data), "-U", "durable", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(self._command("initdb", *words), check=True, capture_output=True, cwd=self.folder)
        if self._subnet is not None:
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {self._subnet} trust\n")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value.strip(chr(39))}")]
        words = ["-D", str(self.data), "-k", str(self.folder), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", *words), cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                psycopg.connect(self.dsn).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL of the postmaster and of all that it has started, in the middle of whatever they do."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGSTOP)  # it starts nothing more while its children are looked for
        children = list(self._children(process.pid))
        process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.wait()
        # The next server refuses to start while one of them is attached to the shared memory.
        deadline = time.monotonic() + LIMIT
        while any(_state(child) not in (None, "Z") for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _children(self, parent: int) -> Iterator[int]:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    yield int(path.parent.name)

    # --- use -------------------------------------------------------------------------------------------------------

    @property
    def dsn(self) -> str:
        """The database, for psycopg."""
        return f"postgresql://durable@/postgres?host={self.folder}"

    @property
    def socket(self) -> Path:
        """The server's socket."""
        return self.folder / ".s.PGSQL.5432"

    def processes(self) -> list[int]:
        """The server's processes, its first one before those that this one has started."""
        assert self._process is not None
        return [self._process.pid, *self._children(self._process.pid)]

    def new_store(self, *, host: Path | None = None) -> str:
        """The URL of a store that nobody has opened yet."""
        return f"postgresql://durable@/postgres?host={host or self.folder}&schema=s{uuid.uuid4().hex[:12]}"

    def sql(self, text: str) -> list[tuple[object, ...]]:
        """Run a statement."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []


def _state(pid: int) -> str | None:
    """State letter of a process; None when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return None
