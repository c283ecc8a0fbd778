"""A small disk that can be filled, for tests: a tmpfs of its own where root may mount one, else files that cannot grow."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

_NAMES = 100


class Disk:
    """A folder, and how to fill what it is on."""

    real = True
    """Whether it is a file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, *, leave: int = 0, names: bool = False) -> None:
        """Use all of it, but for `leave` bytes; or all names that it has room for (its inodes)."""
        self.free()
        if names:
            self._fill_names()
            return
        junk = os.open(self.folder / "junk", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with contextlib.suppress(OSError):
                while True:
                    os.write(junk, bytes(4096))
            os.ftruncate(junk, max(os.fstat(junk).st_size - leave, 0))
        finally:
            os.close(junk)

    def _fill_names(self) -> None:
        (self.folder / "names").mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (self.folder / "names" / str(number)).touch()

    def free(self) -> None:
        """Give it back."""
        (self.folder / "junk").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "names", ignore_errors=True)


class LimitedFiles(Disk):
    """No file of this process can grow beyond what is left: what stands in for a full disk without root."""

    real = False

    def fill(self, *, leave: int = 0, names: bool = False) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (leave, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def free(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextlib.contextmanager
def small_disk(folder: Path, nbytes: int) -> Iterator[Disk]:
    """A disk of so many bytes, mounted at `folder`."""
    folder.mkdir()
    command = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={nbytes},nr_inodes={_NAMES},mode=700",
        "durable_nb-test",
        str(folder),
    ]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
    if mounted:
        try:
            yield Disk(folder)
        finally:
            # Lazily: what a test that failed has still mapped goes with its process.
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error for the writer instead
    disk = LimitedFiles(folder)
    try:
        yield disk
    finally:
        disk.free()
        signal.signal(signal.SIGXFSZ, handler)


def is_full(folder: Path) -> bool:
    """Whether nothing can be written there."""
    probe = folder / "probe"
    try:
        probe.write_bytes(bytes(4096))
    except OSError as exc:
        return exc.errno in (errno.ENOSPC, errno.EFBIG)
    finally:
        probe.unlink(missing_ok=True)
    return False
