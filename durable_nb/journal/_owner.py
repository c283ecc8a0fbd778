"""Who holds a lease, and whether that process still lives.

A process is told apart by host, pid and start time: a pid alone is used again by the kernel. The host is the boot id
plus the pid namespace, since two containers share a boot id but cannot see each other's processes. On the same host a
lease never expires while its process lives, so a stopped (SIGSTOP) owner keeps it; on another host only the expiry
speaks, and the fencing token keeps a late owner from writing.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path

from durable_nb._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that asks for a lease."""

    label: str
    host: str
    pid: int
    started: str


@cache
def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return socket.gethostname()
    return f"{boot}/{namespace}"


def _process(pid: int) -> tuple[str, str] | None:
    """State letter and start time of a process, or None when there is none (or no way to ask)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command name may hold spaces and brackets
    return fields[0], fields[19]


def this_process() -> Owner:
    """The calling process as an owner."""
    pid = os.getpid()
    found = _process(pid)
    program = Path(sys.argv[0] or sys.executable).name
    return Owner(f"{program} (pid {pid} on {socket.gethostname()})", _host(), pid, found[1] if found else "")


def is_alive(host: str, pid: int, started: str) -> bool | None:
    """Whether that process lives; None when only its lease's expiry can tell (another host)."""
    if host != _host():
        return None
    if not started:  # no /proc: only existence can be asked
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    found = _process(pid)
    return found is not None and found[0] not in "ZX" and found[1] == started
