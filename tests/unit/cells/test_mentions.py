"""Files that are named but not seen opened: Arrow, HDF5 and other programs open on their own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_nb.cells import MISSING, FileLedger, FileState, Input, Observed, Observer, Places, opens_by_itself

_LIBC = ctypes.CDLL(None)


def silent_write(path: str, text: str) -> None:
    """Write a file as a C library does: without any event."""
    fd = _LIBC.open(path.encode(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    _LIBC.write(fd, text.encode(), len(text))
    _LIBC.close(fd)


class Cell:
    """A cell that runs once with some literals and values, and its record."""

    def __init__(self, project: Path, *, engines: bool = True) -> None:
        self.ledger = FileLedger(Places(project))
        self.engines = engines
        self.inputs: list[Input] = []
        self.states: list[FileState] = []

    def run(
        self, body: Callable[[], Any], literals: set[str], reads: dict[str, Any], binds: dict[str, Any]
    ) -> Observed:
        observer = Observer(Places(self.ledger.path(".")), version_of=self.ledger.digest)
        observer.install()
        foreseen = self.ledger.foresee(literals, reads, engines=self.engines)
        observer.begin(lambda filename: filename == __file__)
        body()
        observed = observer.end()
        self.ledger.settle(observed, foreseen, literals, {**reads, **binds})
        self.inputs = self.ledger.inputs(observed)
        self.states = self.ledger.wrote(observed, "cell")
        return observed

    def differences(self) -> set[str]:
        fresh = FileLedger(Places(self.ledger.path(".")))
        fresh.remember(self.states, "cell")
        return {i.key for i in self.inputs if fresh.version(i.kind, i.key) != i.version}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "a.parquet").write_text("a")
    (folder / "data" / "b.parquet").write_text("b")
    (folder / "data" / "deep" / "c.parquet").write_text("c")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("literals", "reads", "binds"),
    [
        ({"a.parquet"}, {}, {}),
        (set(), {"p": "a.parquet"}, {}),
        (set(), {"p": Path("a.parquet")}, {}),
        (set(), {}, {"p": "a.parquet"}),
        ({"select * from 'a.parquet' where x"}, {}, {}),
        ({"sort a.parquet -o out"}, {}, {}),
        (set(), {"all": ["a.parquet"]}, {}),
    ],
)
def test_a_named_file_is_an_input(literals: set[str], reads: Any, binds: Any, project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: None, literals, reads, binds)
    assert cell.differences() == set()
    (project / "a.parquet").write_text("other")
    assert cell.differences() == {"a.parquet"}


def test_a_file_that_is_written_unseen_is_a_state_and_no_input(project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: silent_write("new.parquet", "n"), {"new.parquet"}, {}, {})
    assert [(s.key, s.origin) for s in cell.states] == [("new.parquet", MISSING)]
    assert cell.differences() == set()
    (project / "new.parquet").write_text("edited")
    assert FileLedger(Places(project)).problem(cell.states)


def test_a_file_with_a_name_made_in_the_cell_and_written_unseen_is_a_state(project: Path) -> None:
    def write_in_a_later_tick() -> None:
        os.utime("tick")  # the cell has begun by now, at most one tick later than this stamp says
        start = os.stat("tick").st_ctime_ns
        while os.stat("tick").st_ctime_ns <= start + 20_000_000:
            os.utime("tick")
        silent_write("made.parquet", "n")

    Path("tick").touch()
    cell = Cell(project)
    cell.run(write_in_a_later_tick, set(), {}, {"path": "made.parquet"})
    assert "made.parquet" in [s.key for s in cell.states]
    assert "made.parquet" not in [i.key for i in cell.inputs]


def test_a_file_that_is_read_and_overwritten_unseen_keeps_its_version_from_before(project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: silent_write("a.parquet", "changed"), {"a.parquet"}, {}, {})
    assert [s.key for s in cell.states] == ["a.parquet"]
    assert cell.differences() == set()
    (project / "a.parquet").write_text("from outside")
    assert cell.differences() == {"a.parquet"}


def test_a_file_that_is_removed_unseen_is_a_state(project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: _LIBC.unlink(b"a.parquet"), {"a.parquet"}, {}, {})
    assert [(s.key, s.version) for s in cell.states] == [("a.parquet", MISSING)]


def test_a_folder_counts_with_all_its_files(project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: None, {"data"}, {}, {})
    assert {i.key for i in cell.inputs} == {"data/"}
    assert cell.differences() == set()
    (project / "data" / "deep" / "c.parquet").write_text("other")
    assert cell.differences() == {"data/"}


def test_a_pattern_counts_with_the_files_it_matches(project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: None, {"data/**/*.parquet"}, {}, {})
    assert {i.key for i in cell.inputs} == {"data/**/*.parquet"}
    assert cell.differences() == set()
    (project / "data" / "d.parquet").write_text("one more")
    assert cell.differences() == {"data/**/*.parquet"}


def test_a_folder_does_not_count_when_python_was_seen_to_read_in_it(project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: Path("data/b.parquet").read_text(), {"data/"}, {}, {})
    assert {i.key for i in cell.inputs if i.kind == "file"} == {"data/b.parquet"}


def test_folders_do_not_count_for_cells_that_reach_no_such_library(project: Path) -> None:
    cell = Cell(project, engines=False)
    cell.run(lambda: None, {"data", "data/*.parquet"}, {}, {})
    assert cell.inputs == []


@pytest.mark.parametrize("text", ["", ".", "..", "/", "~", "x" * 5000, "a\0b", "no such file", "*", "http://a.b/c"])
def test_texts_that_name_nothing_of_the_project_are_no_inputs(text: str, project: Path) -> None:
    cell = Cell(project)
    cell.run(lambda: None, {text}, {"v": text}, {})
    assert cell.inputs == []


def test_a_long_list_of_words_is_no_list_of_paths(project: Path) -> None:
    looked = FileLedger(Places(project)).foresee(set(), {"words": ["data", "a word", "x"] * 100, "n": [1] * 100})
    assert looked.looked_at == set()


def test_what_another_program_reads_and_writes_is_noticed(project: Path) -> None:
    command = "open('out.txt', 'w').write(open('a.parquet').read())"
    cell = Cell(project)
    cell.run(
        lambda: subprocess.run([sys.executable, "-c", command], check=True), {command, "a.parquet", "out.txt"}, {}, {}
    )
    assert [s.key for s in cell.states] == ["out.txt"]
    (project / "a.parquet").write_text("other")
    assert "a.parquet" in cell.differences()


def test_arrow_files_are_found_through_pandas(project: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pd.DataFrame({"x": [1]}).to_parquet("t.parquet")
    cell = Cell(project)
    cell.run(lambda: pd.read_parquet("t.parquet"), {"t.parquet"}, {}, {})
    assert "t.parquet" in {i.key for i in cell.inputs}


def test_libraries_that_open_files_by_themselves_are_known() -> None:
    assert opens_by_itself({"pandas.core.frame"})
    assert opens_by_itself({"subprocess"})
    assert not opens_by_itself({"math", "numpy.random"})


def test_a_large_folder_is_judged_by_sizes_and_times(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durable_nb.cells._files._LARGE", 1)
    ledger = FileLedger(Places(project))
    before = ledger.tree(str(project / "data"))
    assert FileLedger(Places(project)).tree(str(project / "data")) == before
    (project / "data" / "b.parquet").write_text("longer than before")
    assert ledger.tree(str(project / "data")) != before
