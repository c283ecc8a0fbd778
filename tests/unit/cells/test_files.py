"""Versions of files, on disk and at a place of the notebook."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from durable_nb.cells import MISSING, FileLedger, FileState, Input, Observed, Observer, Places


class Notebook:
    """One kernel on one project: runs cells, or replays what an earlier kernel recorded."""

    def __init__(self, project: Path, records: dict[str, tuple[list[Input], list[FileState]]] | None = None) -> None:
        self.records = records if records is not None else {}
        self.ledger = FileLedger(Places(project))
        for owner, (_, states) in self.records.items():
            self.ledger.remember(states, owner)

    def execute(self, owner: str, body: Callable[[], object]) -> None:
        observer = Observer(Places(self.ledger.path(".")), version_of=self.ledger.digest)
        observer.install()
        observer.begin(lambda filename: filename == __file__)
        body()
        observed = observer.end()
        inputs = self.ledger.inputs(observed)
        self.records.pop(owner, None)
        self.records[owner] = (inputs, self.ledger.wrote(observed, owner))

    def differences(self, owner: str) -> list[str]:
        return [i.key for i in self.records[owner][0] if self.ledger.version(i.kind, i.key) != i.version]

    def replay(self, owner: str) -> None:
        assert not self.differences(owner)
        assert self.ledger.problem(self.records[owner][1]) is None
        self.ledger.replayed(self.records[owner][1], owner)

    def fresh(self) -> Notebook:
        return Notebook(Path(self.ledger.path(".")), self.records)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(name: str, text: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(text)


def load(name: str) -> Callable[[], object]:
    return lambda: Path(name).read_text()


def test_a_version_is_the_content_and_not_the_time(project: Path) -> None:
    ledger = FileLedger(Places(project))
    Path("a").write_text("one")
    first = ledger.digest(str(project / "a"))
    os.utime("a", (1, 1))
    assert ledger.digest(str(project / "a")) == first
    Path("a").write_text("two")
    assert ledger.digest(str(project / "a")) != first
    assert ledger.digest(str(project / "b")) == MISSING
    assert ledger.digest(str(project)) == "dir"


def test_a_same_sized_change_within_the_clock_tick_is_seen(project: Path) -> None:
    ledger = FileLedger(Places(project))
    Path("a").write_text("one")
    first, times = ledger.digest(str(project / "a")), os.stat("a")
    Path("a").write_text("two")
    os.utime("a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ledger.digest(str(project / "a")) != first


def test_keys_are_relative_to_the_project_so_that_a_checkout_can_move(project: Path, tmp_path: Path) -> None:
    Path("data").mkdir()
    Path("data/a.csv").write_text("1")
    Path("../shared.csv").write_text("2")
    ledger = FileLedger(Places(project))
    assert ledger.key(str(project / "data/a.csv")) == "data/a.csv"
    assert ledger.key(str(tmp_path / "shared.csv")) == "../shared.csv"
    assert ledger.path("data/a.csv") == str(project / "data/a.csv")
    moved = tmp_path / "elsewhere" / "project"
    shutil.copytree(project, moved)
    assert FileLedger(Places(moved)).current("data/a.csv") == ledger.current("data/a.csv") != MISSING


def test_a_reader_replays_until_the_file_changes(project: Path) -> None:
    Path("in.txt").write_text("one")
    first = Notebook(project)
    first.execute("reader", load("in.txt"))
    assert first.fresh().differences("reader") == []
    Path("in.txt").write_text("two")
    assert first.fresh().differences("reader") == ["in.txt"]
    Path("in.txt").unlink()
    assert first.fresh().differences("reader") == ["in.txt"]


def test_a_reader_between_two_writers_replays_although_the_disk_holds_the_last_state(project: Path) -> None:
    first = Notebook(project)
    first.execute("one", write("f", "first"))
    first.execute("two", load("f"))
    first.execute("five", write("f", "last"))
    second = first.fresh()
    second.replay("one")
    assert second.differences("two") == []
    assert second.ledger.stale("f")
    assert second.ledger.owner("f") == "one"
    second.replay("five")
    assert not second.ledger.stale("f")
    assert second.differences("two") == ["f"]


def test_a_reader_before_the_first_writer_sees_the_origin(project: Path) -> None:
    Path("config").write_text("zero")
    first = Notebook(project)
    first.execute("reader", load("config"))
    first.execute("writer", write("config", "one"))
    second = first.fresh()
    assert second.differences("reader") == []
    second.replay("writer")
    assert second.fresh().differences("reader") == []


def test_a_file_that_was_missing_before_its_writer_stays_missing_for_the_cell_above(project: Path) -> None:
    def look_and_make() -> None:
        if not os.path.exists("cache"):
            Path("cache").write_text("made")

    def folder() -> None:
        if not os.path.exists("out"):
            os.mkdir("out")

    first = Notebook(project)
    first.execute("cache", look_and_make)
    first.execute("folder", folder)
    second = first.fresh()
    assert second.differences("cache") == []
    assert second.differences("folder") == []
    second.replay("cache")
    second.replay("folder")
    Path("cache").write_text("somebody else's")
    assert first.fresh().differences("cache") == ["cache"]


def test_read_then_overwrite_by_one_cell_replays(project: Path) -> None:
    Path("n").write_text("1")

    def increment() -> None:
        Path("n").write_text(str(int(Path("n").read_text()) + 1))

    first = Notebook(project)
    first.execute("count", increment)
    second = first.fresh()
    assert second.differences("count") == []
    second.replay("count")
    Path("n").write_text("7")
    assert first.fresh().differences("count") == ["n"]


def test_a_writer_whose_file_is_gone_or_edited_must_run(project: Path) -> None:
    first = Notebook(project)
    first.execute("writer", write("out", "x"))
    states = first.records["writer"][1]
    assert first.fresh().ledger.problem(states) is None
    Path("out").write_text("edited by hand")
    assert first.fresh().ledger.problem(states) == "out, which it wrote, was changed"
    Path("out").unlink()
    assert first.fresh().ledger.problem(states) == "out, which it wrote, is gone"


def test_a_change_from_outside_after_the_replay_is_seen(project: Path) -> None:
    first = Notebook(project)
    first.execute("writer", write("f", "x"))
    first.execute("reader", load("f"))
    second = first.fresh()
    second.replay("writer")
    Path("f").write_text("edited in between")
    assert second.differences("reader") == ["f"]


def test_a_live_overwrite_is_what_the_next_reader_sees(project: Path) -> None:
    notebook = Notebook(project)
    notebook.execute("writer", write("f", "x"))
    notebook.execute("reader", load("f"))
    notebook.execute("writer", write("f", "y"))
    assert notebook.differences("reader") == ["f"]
    assert not notebook.ledger.stale("f")


def test_a_removed_file_is_a_state_too(project: Path) -> None:
    Path("t").write_text("x")
    first = Notebook(project)
    first.execute("reader", load("t"))
    first.execute("remover", lambda: Path("t").unlink())
    second = first.fresh()
    assert second.differences("reader") == []
    second.replay("remover")
    assert second.ledger.current("t") == MISSING
    assert second.fresh().ledger.stale("t")


def test_the_newest_state_is_what_the_disk_should_hold_at_the_end(project: Path) -> None:
    first = Notebook(project)
    first.execute("one", write("f", "first"))
    first.execute("five", write("f", "last"))
    ledger = first.fresh().ledger
    assert not ledger.is_newest(first.records["one"][1][0])
    assert ledger.is_newest(first.records["five"][1][0])


def test_bytes_put_back_are_no_change_from_outside(project: Path) -> None:
    first = Notebook(project)
    first.execute("one", write("f", "first"))
    first.execute("two", load("f"))
    first.execute("five", write("f", "last"))
    second = first.fresh()
    second.replay("one")
    Path("f").write_text("first")
    second.ledger.restored("f")
    assert not second.ledger.stale("f")
    assert second.differences("two") == []


def test_a_listing_changes_with_names_only(project: Path) -> None:
    Path("data").mkdir()
    Path("data/a").write_text("1")
    notebook = Notebook(project)
    notebook.execute("lister", lambda: os.listdir("data"))
    Path("data/a").write_text("2")
    assert notebook.fresh().differences("lister") == []
    Path("data/b").write_text("2")
    assert notebook.fresh().differences("lister") == ["data"]
    shutil.rmtree("data")
    assert notebook.fresh().differences("lister") == ["data"]


def test_existence_is_an_input_and_content_is_not(project: Path) -> None:
    Path("flag").write_text("1")
    notebook = Notebook(project)
    notebook.execute("asker", lambda: os.path.isfile("flag"))
    Path("flag").write_text("2")
    assert notebook.fresh().differences("asker") == []
    Path("flag").unlink()
    assert notebook.fresh().differences("asker") == ["flag"]


def test_depends_on_counts_content_and_the_set_of_files(project: Path) -> None:
    Path("data").mkdir()
    Path("data/a.csv").write_text("1")
    ledger = FileLedger(Places(project))
    before = ledger.inputs(Observed(), depends_on=["data/**/*.csv"])
    assert {(i.kind, i.key) for i in before} == {("file", "data/a.csv"), ("listing", "glob:data/**/*.csv")}

    def changed() -> set[str]:
        return {i.key for i in before if FileLedger(Places(project)).version(i.kind, i.key) != i.version}

    assert changed() == set()
    Path("data/b.csv").write_text("2")
    assert changed() == {"glob:data/**/*.csv"}
    Path("data/a.csv").write_text("3")
    assert changed() == {"glob:data/**/*.csv", "data/a.csv"}


def test_a_file_that_changes_while_a_cell_reads_it_can_never_be_proved_equal(project: Path) -> None:
    Path("log").write_text("1")

    def read_while_it_grows() -> None:
        Path("log").read_text()
        fd = os.dup(outside)
        os.write(fd, b"more")
        os.close(fd)

    outside = os.open("log", os.O_WRONLY | os.O_APPEND)
    notebook = Notebook(project)
    notebook.execute("reader", read_while_it_grows)
    os.close(outside)
    assert notebook.fresh().differences("reader") == ["log"]


def test_states_survive_json() -> None:
    state = FileState(key="a", version="1", origin=MISSING)
    assert FileState.from_json(state.to_json()) == state


def test_a_listing_leaves_out_what_cells_further_down_make(project: Path) -> None:
    Path("data").mkdir()
    Path("data/a").write_text("1")

    def convert() -> None:
        for name in os.listdir("data"):
            Path("data", f"{name}.out").write_text("x")

    first = Notebook(project)
    first.execute("convert", convert)
    first.execute("report", write("data/report", "r"))
    second = first.fresh()
    assert second.differences("convert") == []
    second.replay("convert")
    second.replay("report")
    Path("data/new").write_text("from outside")
    assert first.fresh().differences("convert") == ["data"]


def test_depends_on_leaves_out_what_cells_further_down_make(project: Path) -> None:
    Path("a.csv").write_text("1")
    notebook = Notebook(project)
    before = notebook.ledger.inputs(Observed(), depends_on=["*.csv"])
    notebook.execute("writer", write("b.csv", "2"))
    ledger = notebook.fresh().ledger
    assert [i.key for i in before if ledger.version(i.kind, i.key) != i.version] == []


def test_asking_whether_a_large_file_is_there_does_not_read_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("large").write_text("x")
    ledger = FileLedger(Places(project))

    def never(path: str, size: int) -> str:
        raise AssertionError

    monkeypatch.setattr("durable_nb.cells._files._digest_file", never)
    assert ledger.version("missing", "large") == "file"
    assert ledger.version("missing", "none") == MISSING


def test_files_in_a_folder_that_is_renamed_move_with_it(project: Path) -> None:
    Path("out").mkdir()
    first = Notebook(project)
    first.execute("writer", write("out/f", "x"))
    first.execute("rename", lambda: Path("out").rename("final"))
    second = first.fresh()
    second.replay("writer")
    second.replay("rename")
    assert second.ledger.current("out/f") == MISSING


def test_a_temporary_file_that_is_gone_again_leaves_no_state(project: Path) -> None:
    def scratch() -> None:
        Path("scratch").write_text("x")
        Path("scratch").unlink()

    notebook = Notebook(project)
    notebook.execute("scratch", scratch)
    assert notebook.records["scratch"][1] == []
