"""Processes that are forked for the bodies of cells, without a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_nb.notebook._remote_nursery import Child, Nursery

pytestmark = pytest.mark.kernel


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


def child(nursery: Nursery, folder: Path, head: bytes) -> tuple[Child, str]:
    """A process that is handed something, and what it writes until it ends."""
    (folder / "head").write_bytes(head)
    pipes = [os.pipe() for _ in range(2)]
    (reading, writing), (life, mine) = pipes
    files = [os.open(folder / name, os.O_RDWR | os.O_CREAT) for name in ("answer", "head")]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        made = nursery.child(dict(os.environ), str(folder), [writing, writing, files[0], life, nothing, files[1]])
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as words:
            return made, words.read()
    finally:
        for descriptor in (life, mine, nothing, *files):
            os.close(descriptor)


def test_what_a_process_says_and_how_it_ends_is_told(nursery: Nursery, tmp_path: Path) -> None:
    made, words = child(nursery, tmp_path, b"no parcel")
    assert "UnpicklingError" in words or "pickle" in words
    assert made.status(None) == 1
    made.end(1.0)


def test_a_nurse_that_was_killed_is_replaced(nursery: Nursery, tmp_path: Path) -> None:
    first, _ = child(nursery, tmp_path, b"no parcel")
    first.end(1.0)
    (nurse,) = nursery._nurses.values()
    nurse.process.kill()
    nurse.process.wait()
    second, _ = child(nursery, tmp_path, b"no parcel")
    assert second.status(None) == 1
    second.end(1.0)
