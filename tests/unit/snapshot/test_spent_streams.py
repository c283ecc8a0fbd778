"""A stream from which nothing can be read any more is a value like another: `with open(…) as f:` leaves one in every notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from durable_nb.snapshot import MemoryBlobStore, Tracker, load, save


def there_and_back(value: object) -> Any:
    namespace: dict[str, Any] = {}
    tracker = Tracker(namespace)
    before = tracker.before(())
    namespace["v"] = value
    blobs = MemoryBlobStore()
    manifest = save(tracker.after(before, (), fingerprint="f"), blobs)
    assert manifest["problems"] == []
    other: dict[str, Any] = {}
    load(manifest, Tracker(other), blobs)
    return other["v"]


@pytest.mark.parametrize("mode", ["r", "w", "a", "rb", "wb", "r+b", "r+"])
def test_a_closed_file_comes_back_closed_and_remembers_its_name(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "data.txt"
    path.write_text("content")
    with path.open(mode) as file:
        pass
    content = path.read_text()
    back = there_and_back(file)
    assert type(back) is type(file)
    assert back.closed
    assert back.name == file.name
    assert path.read_text() == content
    with pytest.raises(ValueError, match="closed"):
        back.seek(0)


def test_an_ended_generator_comes_back_ended() -> None:
    made = (number for number in range(2))
    assert list(made) == [0, 1]
    back = there_and_back(made)
    assert list(back) == []
    assert back.__name__ == made.__name__


def test_an_open_file_is_a_problem(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    tracker = Tracker(namespace)
    before = tracker.before(())
    with (tmp_path / "data.txt").open("w") as namespace["f"]:
        delta = tracker.after(before, (), fingerprint="f")
        assert [problem.name for problem in delta.problems] == ["f"]
