"""Processes for the bodies of cells, in a worker: forked from one that has imported what each of them needs.

A new interpreter takes about a second to import IPython and durable_nb; a fork of one that has, a few milliseconds. The
process that is forked from, the *nurse*, has one thread and never runs code of a notebook. It is told over a socket
what to bring up, with the descriptors of the new process, and writes that process's id, and later how it ended, to a
pipe. When the worker goes, the socket closes, and the nurse ends; its children watch pipes of their own.

Hash seeds are chosen when an interpreter starts, so there is a nurse for each.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_START = "from durable_nb.notebook._remote_shell import nurse; nurse()"
NURSE = "DURABLE_NB_NURSE"
"""The variable that tells a nurse the descriptor of its socket."""
HASH_SEED = "PYTHONHASHSEED"
_REPORT = struct.Struct("!i")
MOST_PARTS = 200
"""Large values of one cell: a message carries a descriptor for each, and not more than 253."""


class Child:
    """A process that was forked for somebody in this worker."""

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self._status: int | None = None
        data = os.read(reports, _REPORT.size)
        if len(data) < _REPORT.size:
            os.close(reports)
            raise ConnectionError("the process that forks others has ended")
        (self.pid,) = _REPORT.unpack(data)

    def status(self, seconds: float | None = 0.0) -> int | None:
        """How it ended, as `subprocess` tells it; None while it runs. Waits for so long, None for ever."""
        if self._status is None and select.select([self._reports], [], [], seconds)[0]:
            data = os.read(self._reports, _REPORT.size)
            # No word: its nurse was killed, and it with that.
            self._status = _REPORT.unpack(data)[0] if len(data) == _REPORT.size else -int(signal.SIGKILL)
        return self._status

    def end(self, mercy: float) -> None:
        """Interrupt it, and kill it when that does not help in so many seconds. Its nurse ends what it has started."""
        if self.status() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)
            if self.status(mercy) is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                self.status(None)
        os.close(self._reports)


class Nursery:
    """The nurses of one worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nurses: dict[tuple[int, str], Nurse] = {}

    def close(self) -> None:
        """End the nurses, and with them what they have forked."""
        with self._lock:
            nurses = list(self._nurses.values())
            self._nurses.clear()
        for nurse in nurses:
            nurse.connection.close()
            nurse.process.wait()

    def child(self, environ: Mapping[str, str], folder: str, descriptors: Sequence[int]) -> Child:
        """A new process.

        Args:
            environ: its environment.
            folder: the one that it starts in.
            descriptors: its standard output and error, and what `_remote_shell.serve` takes.

        Raises:
            OSError: it cannot be made.
        """
        for _ in range(2):  # somebody may have killed the nurse: then there is another
            try:
                return self._asked(environ, folder, descriptors)
            except ConnectionError:
                with self._lock:
                    gone = self._nurses.pop((os.getpid(), environ.get(HASH_SEED, "random")), None)
                if gone is not None:
                    gone.connection.close()  # which ends it, if it lives
                    gone.process.wait()
        raise OSError("the process that forks others does not start: its standard error says why")

    def _asked(self, environ: Mapping[str, str], folder: str, descriptors: Sequence[int]) -> Child:
        seed = environ.get(HASH_SEED, "random")
        reports, told = os.pipe()
        try:
            with self._lock:
                nurse = self._nurses.get((os.getpid(), seed))
                if nurse is None:
                    nurse = self._nurses[os.getpid(), seed] = _nurse(environ)
                _send(nurse.connection, pickle.dumps((dict(environ), folder)), [told, *descriptors])
        except BaseException:
            os.close(reports)
            raise
        finally:
            os.close(told)
        return Child(reports)


@dataclass(frozen=True, slots=True)
class Nurse:
    """A process that others are forked from, and the line to it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket


def _nurse(environ: Mapping[str, str]) -> Nurse:
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-c", _START],
            env={**environ, NURSE: str(its.fileno())},
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
    return Nurse(process, mine)


def _send(connection: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    socket.send_fds(connection, [struct.pack("!I", len(data))], list(descriptors))
    connection.sendall(data)


# --- in the nurse -----------------------------------------------------------------------------------------------------


def bring_up(serve: Callable[[Sequence[int]], Any]) -> None:
    """Fork a process for each request, which calls `serve` with its descriptors; ends with the worker."""
    connection = socket.socket(fileno=int(os.environ.pop(NURSE)))
    connection.set_inheritable(False)
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, int] = {}
    while True:
        ready: list[Any] = select.select([connection.fileno(), waking], [], [])[0]
        if waking in ready:
            os.read(waking, 512)
        _bury(children)
        if connection.fileno() not in ready:
            continue
        request = _received(connection)
        if request is None:
            os._exit(0)
        (environ, folder), (told, *descriptors) = request
        child = os.fork()
        if child == 0:
            connection.close()
            for descriptor in (waking, wake, told, *children.values()):
                os.close(descriptor)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                _become(environ, folder, descriptors)
                serve(descriptors[2:])
            except BaseException:  # noqa: BLE001 - told to whoever asked; this process ends
                traceback.print_exc()
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        children[child] = told
        _report(told, child)


def _received(connection: socket.socket) -> tuple[Any, list[int]] | None:
    """One request and its descriptors; None when the worker is gone."""
    head, descriptors, _, _ = socket.recv_fds(connection, 4, MOST_PARTS + 10)
    if len(head) < 4:
        return None
    size, data = struct.unpack("!I", head)[0], bytearray()
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return None
        data += more
    return pickle.loads(data), list(descriptors)


def _become(environ: Mapping[str, str], folder: str, descriptors: Sequence[int]) -> None:
    """A process as if it had been started like this."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.dup2(descriptors[0], 1)
    os.dup2(descriptors[1], 2)
    os.close(descriptors[0])
    os.close(descriptors[1])


def _bury(children: dict[int, int]) -> None:
    """Tell how those that have ended did, and end what they have started."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(found.si_pid, signal.SIGKILL)  # before its number can be somebody else's
        _, status = os.waitpid(found.si_pid, 0)
        told = children.pop(found.si_pid, None)
        if told is not None:
            _report(told, os.waitstatus_to_exitcode(status))
            os.close(told)


def _report(told: int, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody asks any more
        os.write(told, _REPORT.pack(number))


__all__ = ["MOST_PARTS", "Child", "Nursery", "bring_up"]
