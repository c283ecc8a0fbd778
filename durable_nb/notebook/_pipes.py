"""What C code and child processes print: read to its end before a cell is recorded.

ipykernel puts a pipe in the place of file descriptors 1 and 2 and copies what arrives there to the cell's output from
a thread of its own. Nobody can tell whether that thread has passed on what it has read, so the last words of a child
that has ended may appear after the cell's end, when the cell's outputs are already kept without them. A pipe and a
thread of ours in the same place can be asked: `drain` returns when everything written before the call is in the
stream. ipykernel's own thread stays, for processes that were started earlier and still write to its pipe.
"""

from __future__ import annotations

import array
import codecs
import contextvars
import fcntl
import os
import select
import termios
import threading
from typing import Any

_CHUNK = 1 << 16


class WatchedPipe:
    """Stands behind one of the kernel's streams (an `ipykernel.iostream.OutStream` that watches its descriptor)."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._lock = threading.Lock()
        self._source, sink = os.pipe()
        os.set_blocking(self._source, False)
        os.dup2(sink, stream._original_stdstream_fd)  # inheritable, so that children write here
        os.close(sink)
        # The stream's `close` joins the thread it finds here after writing one byte to wake it.
        stream.watch_fd_thread = threading.Thread(
            target=contextvars.Context().run, args=(self._watch,), name=f"durable_nb-{stream.name}", daemon=True
        )
        stream.watch_fd_thread.start()

    def drain(self) -> None:
        """Pass on what was written before this call. What a background process writes meanwhile can wait."""
        with self._lock:
            waiting = self._waiting()
            while waiting > 0:
                chunk = os.read(self._source, min(waiting, _CHUNK))
                waiting -= len(chunk)
                self._stream.write(self._decoder.decode(chunk))
                os.write(self._stream._original_stdstream_copy, chunk)  # the terminal or log of the kernel

    def _waiting(self) -> int:
        """Bytes in the pipe."""
        size = array.array("i", [0])
        fcntl.ioctl(self._source, termios.FIONREAD, size)
        return size[0]

    def _watch(self) -> None:
        ready = select.poll()
        ready.register(self._source, select.POLLIN)
        while self._stream._should_watch:  # `close` ends it and writes a byte to be seen here
            ready.poll()
            if not self._stream._should_watch:
                return
            try:
                self.drain()
            except (OSError, ValueError):  # the kernel is shutting down, or its terminal is gone
                return


_watched: dict[int, WatchedPipe] = {}


def watch(*streams: Any) -> None:
    """Watch the descriptors behind these streams; those that ipykernel does not watch are left alone."""
    for stream in streams:
        if getattr(stream, "_should_watch", False) and hasattr(stream, "_original_stdstream_copy"):
            descriptor = stream._original_stdstream_fd
            if descriptor not in _watched:
                _watched[descriptor] = WatchedPipe(stream)


def drain() -> None:
    """Everything written to the watched descriptors before this call is in their streams when it returns."""
    for pipe in _watched.values():
        pipe.drain()
