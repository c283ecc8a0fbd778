"""The body of a cell in a worker of a cluster: a process of its own, and the thread that speaks for it.

The body gets a process because it needs what a worker shares with everybody: the main thread (for interrupts), the
streams, the working directory, the environment, random generators, the audit hook. It ends with the worker: it
watches a pipe whose other end only the worker holds.

Large parts are handed over as files without a name, which the process maps.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from durable_nb.abc import Buffer, Line
from durable_nb.exceptions import CannotTravelError, WorkerLostError
from durable_nb.notebook._remote_nursery import Nursery

_LOOK_SECONDS = 0.1
"""How often it is asked whether anybody still waits, and the longest that an output waits for others."""
_BATCH_BYTES = 1 << 18
_MERCY_SECONDS = 3.0
"""How long a body that is interrupted may take to end."""

_nursery = Nursery()


@dataclass(frozen=True, slots=True)
class RemoteCell:
    """What a worker calls: returns the pickle of an answer and its large blobs."""

    head: bytes
    """The pickle of a parcel; empty when it is large, and the last of the parts."""
    name: str
    place: str
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables that the process has to have from its start."""

    def __call__(self, line: Line, *parts: Buffer) -> tuple[bytes, list[bytes]]:
        """Run it.

        Raises:
            CannotTravelError: no process can be started for it.
            WorkerLostError: the process ended before the body did.
        """
        *blobs, head = parts if not self.head else (*parts, self.head)
        with contextlib.ExitStack() as stack:
            folder = tempfile.mkdtemp(prefix="durable_nb-cell-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            body = _Body(self, head, blobs, folder, stack)
            line.say(body.message([]))
            body.relay(line)
            return body.answer()


class _Body:
    """One process."""

    def __init__(
        self, cell: RemoteCell, head: Buffer, blobs: Sequence[Buffer], folder: str, stack: contextlib.ExitStack
    ) -> None:
        self._cell, self._unwanted, self._beginning = cell, False, uuid.uuid4().hex
        given = [_file_of(part, stack) for part in (head, *blobs)]
        self._answer = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        pipes = [os.pipe() for _ in range(4)]
        (stdout, its_stdout), (stderr, its_stderr), (self._frames, its_frames), (its_life, life) = pipes
        for descriptor in (stdout, stderr, self._frames, life):
            stack.callback(os.close, descriptor)
        self._raw = {stdout: "stdout", stderr: "stderr"}
        environ = {**os.environ, **cell.environ}
        try:
            descriptors = [its_stdout, its_stderr, self._answer.fileno(), its_life, its_frames, *given]
            self.process = _nursery.child(environ, folder, descriptors)
        except OSError as exc:
            why = f"a worker cannot start a process for it ({exc}); workers need durable_nb[dask]"
            raise CannotTravelError(cell.name, cell.place, why) from exc
        finally:
            for descriptor in (its_stdout, its_stderr, its_frames, its_life):
                os.close(descriptor)
        stack.callback(self.process.end, _MERCY_SECONDS)

    def message(self, frames: list[Any]) -> bytes:
        """Frames, and which of the beginnings of this cell they belong to."""
        return pickle.dumps((self._beginning, frames))

    def relay(self, line: Line) -> None:
        """Pass on what the process says, until it says no more."""
        frames, size = _Frames(), 0
        said: list[Any] = []
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._frames, *self._raw):
                selector.register(descriptor, selectors.EVENT_READ)
            since = looked = time.monotonic()
            while selector.get_map():
                ready = selector.select(_LOOK_SECONDS)
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fd)
                        continue
                    size += len(data)
                    if key.fd == self._frames:
                        said += frames.of(data)
                    else:
                        said.append(("stream", self._raw[key.fd], data.decode(errors="replace")))
                if said and (not ready or size > _BATCH_BYTES or time.monotonic() - since > _LOOK_SECONDS):
                    line.say(self.message(said))
                    said, size = [], 0
                if not said:
                    since = time.monotonic()
                if time.monotonic() - looked > _LOOK_SECONDS:
                    looked = time.monotonic()
                    if not line.wanted():
                        self._unwanted = True
                        return
                if not ready and self.process.status() is not None and self._frames not in selector.get_map():
                    break  # what it has started holds its streams open
        if said:
            line.say(self.message(said))

    def answer(self) -> tuple[bytes, list[bytes]]:
        """What the process has written."""
        if self._unwanted:
            raise WorkerLostError(self._cell.name, self._cell.place, "nobody waits for it any more")
        status = self.process.status(None) or 0
        if status != 0 or self._answer.seek(0, os.SEEK_END) == 0:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise WorkerLostError(self._cell.name, self._cell.place, f"its process ended {how} before the cell did")
        self._answer.seek(0)
        sizes = pickle.load(self._answer)  # noqa: S301 - from the process that runs the same user's code
        head, *blobs = [self._answer.read(size) for size in sizes]
        return head, blobs


class _Frames:
    """Frames out of a stream of bytes: each is the size of a pickle in four bytes, and the pickle."""

    def __init__(self) -> None:
        self._data = bytearray()

    def of(self, data: bytes) -> Iterator[Any]:
        """The frames that end in this piece."""
        self._data += data
        while len(self._data) >= 4 and len(self._data) - 4 >= (size := int.from_bytes(self._data[:4], "big")):
            frame = bytes(self._data[4 : 4 + size])
            del self._data[: 4 + size]
            yield pickle.loads(frame)


def _file_of(part: Buffer, stack: contextlib.ExitStack) -> int:
    """A descriptor of a file without a name that holds the bytes: in memory where that can be had."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("durable_nb")
        stack.callback(os.close, descriptor)
    else:
        descriptor = stack.enter_context(tempfile.TemporaryFile()).fileno()  # noqa: SIM115 - as above
    view = memoryview(part).cast("B")
    while view:
        view = view[os.write(descriptor, view[: 1 << 28]) :]
    return descriptor


__all__ = ["RemoteCell"]
