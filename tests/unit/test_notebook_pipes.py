"""Tests for what C code and child processes print."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_nb.notebook import _pipes


class Stream:
    """What a `WatchedPipe` uses of ipykernel's stream."""

    watch_fd_thread: threading.Thread

    def __init__(self, folder: Path) -> None:
        self.name = "out"
        self.written: list[str] = []
        self._should_watch = True
        self._original_stdstream_fd = os.open(folder / "out", os.O_WRONLY | os.O_CREAT)
        self._original_stdstream_copy = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)

    def write(self, text: str) -> None:
        self.written.append(text)

    @property
    def text(self) -> str:
        return "".join(self.written)

    def close(self) -> None:
        """As `OutStream.close` does it."""
        self._should_watch = False
        os.write(self._original_stdstream_fd, b"\0")
        self.watch_fd_thread.join(10)
        assert not self.watch_fd_thread.is_alive()
        os.close(self._original_stdstream_fd)
        os.close(self._original_stdstream_copy)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    stream = Stream(tmp_path)
    yield stream
    stream.close()


def test_what_was_written_before_a_drain_is_in_the_stream_after_it(stream: Stream) -> None:
    """However the watching thread and this one meet: a thousand tries."""
    pipe = _pipes.WatchedPipe(stream)
    for size in range(1, 1001):
        os.write(stream._original_stdstream_fd, b"a" * size)
        pipe.drain()
        assert len(stream.text) == size
        stream.written.clear()


def test_a_childs_last_words_are_there(stream: Stream, tmp_path: Path) -> None:
    pipe = _pipes.WatchedPipe(stream)
    code = "print('\\u00e9' * 20_000)"
    subprocess.run([sys.executable, "-X", "utf8", "-c", code], stdout=stream._original_stdstream_fd, check=True)
    pipe.drain()
    assert stream.text == "\u00e9" * 20_000 + "\n"
    assert (tmp_path / "log").read_text(encoding="utf-8") == stream.text


def test_streams_that_ipykernel_does_not_watch_are_left_alone() -> None:
    watched = dict(_pipes._watched)
    _pipes.watch(sys.stdout, sys.stderr)
    assert _pipes._watched == watched
