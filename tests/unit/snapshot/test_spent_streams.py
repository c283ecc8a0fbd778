"""What cannot be used any more is a value like another: `with open(…) as f:` leaves one in every notebook."""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import lzma
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
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


def test_a_counter_goes_on_where_it_was() -> None:
    made = itertools.count(3, 2)
    next(made)
    back = there_and_back(made)
    assert [next(back), next(back)] == [5, 7]
    assert next(made) == 5


def test_an_executor_that_was_shut_down_stays_shut_down() -> None:
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(abs, [-1])) == [1]
    back = there_and_back(threads)
    assert type(back) is ThreadPoolExecutor
    assert back._max_workers == 3
    with pytest.raises(RuntimeError, match="after shutdown"):
        back.submit(abs, -1)


def test_a_pool_that_has_ended_is_not_running() -> None:
    with ThreadPool(2) as pool:
        assert pool.map(abs, [-1]) == [1]
    pool.join()
    back = there_and_back(pool)
    with pytest.raises(ValueError, match="not running"):
        back.map(abs, [-1])
    back.close()
    back.terminate()
    back.join()
    assert "state=TERMINATE" in repr(back)


def test_a_closed_archive_still_tells_what_is_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inside.txt", "text")
    back = there_and_back(archive)
    assert back.namelist() == ["inside.txt"]
    with pytest.raises(ValueError, match="closed"):
        back.read("inside.txt")


def test_readers_and_writers_of_closed_files_are_over(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([[1, 2], [3, 4]])
    with (tmp_path / "a.csv").open(newline="") as file:
        reader = csv.reader(file, delimiter=";")
        assert len(list(reader)) == 2
    back = there_and_back(writer)
    assert back.dialect.delimiter == ";"
    with pytest.raises(ValueError, match="closed"):
        back.writerow([5])
    back = there_and_back(reader)
    assert back.line_num == 2
    with pytest.raises(ValueError, match="closed"):
        next(back)


@pytest.mark.parametrize("module", [bz2, gzip, lzma])
def test_a_closed_compressed_file_stays_closed(tmp_path: Path, module: Any) -> None:
    with module.open(tmp_path / "a", "wb") as file:
        file.write(b"content")
    back = there_and_back(file)
    assert type(back) is type(file)
    assert back.closed
    assert getattr(back, "mode", None) == getattr(file, "mode", None)
    with pytest.raises(ValueError, match=r"closed|on None"):
        back.read()


def test_a_closed_tar_archive_still_tells_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "inside.txt").write_text("text")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "inside.txt", "inside.txt")
    back = there_and_back(archive)
    assert [member.name for member in back.members] == ["inside.txt"]
    with pytest.raises(OSError, match="closed"):
        back.getnames()


def test_a_thread_that_has_ended_cannot_be_started_again() -> None:
    thread = threading.Thread(target=abs, args=(1,), name="worker")
    thread.start()
    thread.join()
    back = there_and_back(thread)
    assert back.name == "worker"
    assert not back.is_alive()
    with pytest.raises(RuntimeError, match="once"):
        back.start()


def test_a_csv_writer_of_an_open_file_is_a_problem(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    tracker = Tracker(namespace)
    before = tracker.before(())
    with (tmp_path / "a.csv").open("w", newline="") as file:
        namespace["w"] = csv.writer(file)
        assert [problem.name for problem in tracker.after(before, (), fingerprint="f").problems] == ["w"]


def test_an_executor_in_use_is_a_problem() -> None:
    namespace: dict[str, Any] = {}
    tracker = Tracker(namespace)
    before = tracker.before(())
    with ThreadPoolExecutor(1) as namespace["pool"]:
        assert [problem.name for problem in tracker.after(before, (), fingerprint="f").problems] == ["pool"]
