"""The command line without a kernel: values, files, stores, and one clear line for each misuse."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from durable_nb.amounts import duration, size
from durable_nb.cli import main
from durable_nb.cli._exit import Complaint
from durable_nb.cli._format import one_line
from durable_nb.cli._parameters import inject, join_pairs, parse, source_of
from durable_nb.cli._save import read_notebook, write_notebook
from durable_nb.events import CELL, Event, EventKind, OperationType
from durable_nb.runtime import open_store


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    for name in ("DURABLE_NB_STORE", "DURABLE_NB_EXECUTION", "DURABLE_NB_KEY"):
        monkeypatch.delenv(name, raising=False)


def cell(*, at: float = 2.0, kind: EventKind = EventKind.SUCCEEDED, name: str | None = None, **details: Any) -> Event:
    found = {"source": "x = 1", "ordinal": 0, **details}
    return Event(
        operation_id=f"{name}{found['source']}{found['ordinal']}",
        kind=kind,
        type=OperationType.CONTEXT,
        sub_type=CELL,
        at=at,
        name=name,
        details=found,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of a notebook with four code cells: one that is never stored, two stored, one interrupted."""
    pay = "# durable: name=pay at-most-once\npay()"
    sources = ["import os", "x = 1", "y = f(x)", pay]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    write_notebook(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    opened = open_store(tmp_path / ".durable")
    details = {"path": str(tmp_path / "a.ipynb")}
    record = opened.journal.create("a.ipynb", kind="notebook", at=1.0, details=details)
    once = {"source": pay, "at_most_once": True}
    inputs = [{"kind": "name", "key": "raw", "version": "ab" * 16, "origin": "cell 1"}]
    reason = "the source changed"
    opened.journal.append(
        record.execution_id,
        [
            cell(seconds=1.5, bytes=2048),
            cell(source="y = f(x)", reason=reason, diff=["-y = g(x)", "+y = f(x)"], inputs=inputs),
            cell(kind=EventKind.STARTED, name="pay", **once),
        ],
    )
    opened.close()
    return tmp_path / ".durable"


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0851, "85 ms"),
        (0.9999, "1.0 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (192, "3 min 12 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (999, "999 B"), (999_999, "1.0 MB"), (3_400, "3.4 kB"), (10**13, "10000.0 GB")]
)
def test_sizes_have_a_unit_that_fits(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


def test_a_long_line_is_cut_and_says_so() -> None:
    assert one_line("\n  abcdef\nx", 4) == "abc…"


# --- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_have_the_types_that_papermill_gives_them() -> None:
    words = [
        "-p",
        "a",
        "3",
        "--parameter",
        "b",
        "0.5",
        "-p",
        "c",
        "True",
        "-p",
        "d",
        "None",
        "-p",
        "e",
        "-7x",
        "-p",
        "f",
        "1e3",
    ]
    given = join_pairs(["run", *words])[2::2]
    assert parse(given) == {"a": 3, "b": 0.5, "c": True, "d": None, "e": "-7x", "f": 1000.0}


def test_injected_source_is_what_papermill_writes() -> None:
    translators = pytest.importorskip("papermill.translators")
    values = {"n": 3, "x": -0.5, "s": 'a "q" \\ \n é', "t": False, "none": None, "inf": -math.inf, "nan": math.nan}
    assert source_of(values) == translators.PythonTranslator.codify(values)


def _book(*tags: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(source=f"cell {n}", metadata={"tags": [tag]}) for n, tag in enumerate(tags)]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("tags", "place", "count"),
    [(("x", "parameters", "y"), 2, 4), (("parameters", "injected-parameters"), 1, 2), (("x",), 0, 2)],
)
def test_parameters_stand_after_the_tagged_cell_replace_the_injected_one_or_come_first(
    tags: tuple[str, ...], place: int, count: int
) -> None:
    book = _book(*tags)
    remark = inject(book, {"a": 1})
    assert book.cells[place].source == "# Parameters\na = 1\n"
    assert book.cells[place].metadata["tags"] == ["injected-parameters"]
    assert len(book.cells) == count
    assert (remark is None) == ("parameters" in tags)
    nbformat.validate(book)


@pytest.mark.parametrize("words", [["-p", "a"], ["-p"], ["--parameter", "a"]])
def test_a_parameter_without_a_value_is_refused(words: list[str]) -> None:
    with pytest.raises(Complaint, match="NAME VALUE"):
        join_pairs(["run", "a.ipynb", *words])


def test_words_after_two_dashes_are_left_alone() -> None:
    assert join_pairs(["run", "--", "-p"]) == ["run", "--", "-p"]


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_notebook_is_replaced_in_one_step_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text("old")
    path.chmod(0o640)
    write_notebook(_book("x"), path)
    assert read_notebook(path).cells[0].source == "cell 0"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["a.ipynb"]


def test_a_failed_write_leaves_the_old_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_notebook(_book("x"), path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["a.ipynb"]


# --- misuse: one line, exit 2, nothing lost ---------------------------------------------------------------------------


def complaint(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("durable-nb: ")
    assert err.count("\n") == 1, "an error is one line"
    return err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run"], "NOTEBOOK"),
        (["run", "gone.ipynb"], "there is no notebook"),
        (["run", "."], "is a folder"),
        (["run", "text.ipynb"], "it is not JSON"),
        (["run", "list.ipynb"], "has no nbformat"),
        (["run", "latin.ipynb"], "not UTF-8"),
        (["run", "good.ipynb", "--kernel", "no-such"], "there is no kernel 'no-such'"),
        (["run", "good.ipynb", "-o", "gone/out.ipynb"], "there is no folder"),
        (["run", "good.ipynb", "-p", "not-a-name", "1"], "must be a Python name"),
        (["run", "good.ipynb", "--timeout", "soon"], "--timeout soon"),
        (["run", "good.ipynb", "--timeout", "0"], "more than zero"),
        (["run", "good.ipynb", "--store", "ftp://x"], "kind that is not known"),
        (["run", "good.ipynb", "--bad"], "--bad"),
        (["fly"], "fly"),
        (["ls"], "there is no store"),
        (["ls", "--store", "gone"], "there is no store"),
        (["show"], "EXECUTION"),
        (["verify", "--store", "gone"], "there is no store"),
    ],
)
def test_misuse_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    (tmp_path / "text.ipynb").write_text("print(1)")
    (tmp_path / "list.ipynb").write_text("[1]")
    (tmp_path / "latin.ipynb").write_bytes(b'{"a": "\xe9"}')
    write_notebook(_book("x"), tmp_path / "good.ipynb")
    before = sorted(each.name for each in tmp_path.iterdir())
    assert says in complaint(capsys, *words)
    assert sorted(each.name for each in tmp_path.iterdir()) == before, "a refused command leaves nothing behind"


def test_a_store_that_is_none_or_damaged_is_refused_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / ".durable"
    place.mkdir()
    assert "there is no store here" in complaint(capsys, "ls")
    (place / "journal.db").write_bytes(b"not a database" * 100)
    assert "cannot open the store" in complaint(capsys, "ls")
    assert (place / "journal.db").read_bytes() == b"not a database" * 100


def test_a_newer_store_is_refused_and_says_what_to_do(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sqlite3

    db = sqlite3.connect(store / "journal.db")
    db.execute("PRAGMA user_version = 999")
    db.close()
    assert "upgrade durable_nb" in complaint(capsys, "ls")


def test_an_unknown_execution_or_cell_names_what_there_is(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'b.ipynb'" in (line := complaint(capsys, "show", "b.ipynb"))
    assert "a.ipynb" in line
    assert "no cell 'nowhere'" in complaint(capsys, "show", "a.ipynb", "nowhere")


# --- reading ---------------------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_ls_lists_executions_as_table_and_json(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a.ipynb" in printed(capsys, "ls")
    (row,) = json.loads(printed(capsys, "ls", "--json"))
    assert (row["execution"], row["kind"], row["succeeded"]) == ("a.ipynb", "notebook", 2)


def test_the_store_is_found_from_a_folder_below_and_beside_a_named_notebook(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert "a.ipynb" in printed(capsys, "ls")
    monkeypatch.chdir("/")
    assert "pay" in printed(capsys, "show", str(tmp_path / "a.ipynb"))


def test_show_gives_cells_by_number_and_one_cell_in_full(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overview = printed(capsys, "show", "a.ipynb")
    assert "needs a decision" in overview
    assert "2.0 kB" in overview
    one = printed(capsys, "show", "a.ipynb", "2")
    assert "x = 1" in one
    assert "took 1.5 s" in one
    found = json.loads(printed(capsys, "show", "a.ipynb", "pay", "--json"))
    assert [(op["number"], op["needs_decision"]) for op in found["operations"]] == [(4, True)]


def test_show_follows_the_notebook_as_it_is_now(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers are those of the cells; records of cells that are gone are shown on request."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("y = f( x )", "new", "x = 1")]
    write_notebook(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    listed = json.loads(printed(capsys, "show", "a.ipynb", "--json"))["operations"]
    assert [(op["number"], op["label"]) for op in listed] == [(1, "y = f(x)"), (3, "x = 1")]
    assert "1 more" in printed(capsys, "show", "a.ipynb")
    listed = json.loads(printed(capsys, "show", "a.ipynb", "--all", "--json"))["operations"]
    assert [op["number"] for op in listed] == [1, 3, None]
    assert "nothing is recorded for cell 2" in complaint(capsys, "why", "a.ipynb", "2")


def test_history_is_shown_when_the_notebook_is_gone(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.ipynb").unlink()
    listed = json.loads(printed(capsys, "show", "a.ipynb", "--json"))["operations"]
    assert [op["number"] for op in listed] == [1, 2, 3]


def test_resolve_records_a_decision_that_fits(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say one of" in complaint(capsys, "resolve", "a.ipynb", "pay")
    assert "no at-most-once step 'x'" in complaint(capsys, "resolve", "a.ipynb", "x", "--again")
    assert "has no result to keep" in complaint(capsys, "resolve", "a.ipynb", "pay", "--keep")
    assert "runs once more" in printed(capsys, "resolve", "a.ipynb", "pay", "--again")
    assert "decided: again" in printed(capsys, "show", "a.ipynb")
    opened = open_store(store)
    (record,) = opened.journal.executions()
    last = list(opened.journal.read(record.execution_id))[-1].event
    done = cell(name="pay", source=last.operation_id.removeprefix("pay")[:-1], at_most_once=True)
    opened.journal.append(record.execution_id, [done])
    opened.close()
    assert "needs no such decision" in complaint(capsys, "resolve", "a.ipynb", "pay", "--failed")
    assert "stays valid" in printed(capsys, "resolve", "a.ipynb", "pay", "--keep")


def test_why_shows_the_cause_as_a_diff_and_what_a_cell_depends_on(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, "why", "a.ipynb", "3")
    for part in ("the source changed", "-y = g(x)", "+y = f(x)", "depends on name raw", "cell 1"):
        assert part in said
    (row,) = json.loads(printed(capsys, "why", "a.ipynb", "3", "--json"))
    assert row["diff"] == ["-y = g(x)", "+y = f(x)"]


def test_forget_keeps_what_ran_at_most_once_unless_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 at-most-once kept" in printed(capsys, "forget", "a.ipynb", "--yes")
    assert [op["name"] for op in json.loads(printed(capsys, "show", "a.ipynb", "--json"))["operations"]] == ["pay"]
    assert "at-most-once" in complaint(capsys, "forget", "a.ipynb", "pay", "--yes")
    printed(capsys, "forget", "a.ipynb", "--at-most-once", "--yes")
    assert "nothing has run" in printed(capsys, "ls")


def test_forget_of_one_cell_leaves_the_others(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "forget", "a.ipynb", "3", "--yes")
    found = json.loads(printed(capsys, "show", "a.ipynb", "--json"))["operations"]
    assert [op["label"] for op in found] == ["x = 1", "pay"]


def test_forget_refuses_while_a_kernel_holds_the_notebook(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_store(store)
    record = opened.journal.find("a.ipynb")
    assert record is not None
    opened.journal.acquire(record.execution_id, ttl=60)
    try:
        assert "in use by" in complaint(capsys, "forget", "a.ipynb", "--yes")
    finally:
        opened.close()


def test_verify_names_damaged_missing_and_unsigned(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "all right" in printed(capsys, "verify")
    opened = open_store(store)
    record = opened.journal.find("a.ipynb")
    assert record is not None
    good = opened.blobs.put(b"x" * 100_000)
    opened.journal.append(record.execution_id, [cell(source="z")], payload_refs=[good, "0" * 64])
    opened.close()
    said = printed(capsys, "verify", code=1)
    assert f"missing blob {'0' * 64}" in said
    assert "damaged blob" not in said
    (file,) = [path for path in (store / "blobs").rglob("*") if path.is_file() and good[-8:] in path.name]
    file.chmod(0o600)
    file.write_bytes(b"y" * 100_000)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "another user"))
    found = json.loads(printed(capsys, "verify", "--json", code=1))
    assert found["damaged"] == [good]
    assert len(found["untrusted"]) == 4


def test_version_and_help_need_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version").startswith("durable-nb ")
    for verb in ("run", "ls", "show", "why", "forget", "verify"):
        assert verb in printed(capsys)
