"""Old bytes stay readable: a store of each released format opens, is verified, and replays."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_nb.exceptions import StoreVersionError
from durable_nb.journal import SqliteJournal
from durable_nb.journal._sql import migrations
from durable_nb.maintenance import check
from durable_nb.runtime import open_store
from durable_nb.sdk.pickle_serdes import PickleSerDes
from durable_nb.sdk.serdes import SerDesContext
from durable_nb.settings import Settings
from tests.fidelity.nursery import Nursery
from tests.formats import record_encrypted
from tests.formats.record import ANSWERS, HERE, KEY, job

FORMATS = sorted(path.name for path in HERE.iterdir() if path.name.isdigit())
RECORDED_WITH = (3, 11)
"""The Python of the corpus: its minor version is an input of every cell."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    shutil.copytree(HERE / request.param / "store", tmp_path / "work" / "store")
    return tmp_path / "work"


def test_there_is_a_corpus_of_the_present_format() -> None:
    assert FORMATS[-1] == str(len(migrations("sqlite"))), "record it: python -m tests.formats.record"


@pytest.mark.parametrize("folder", FORMATS, indirect=True)
def test_a_store_of_a_released_format_opens_and_every_byte_of_it_is_good(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    store = open_store(folder / "store", settings=Settings(key=KEY), create=False)
    found = check(store)
    assert found.good, [str(each) for each in found.findings]
    assert found.records > 10
    assert found.blobs > 0
    store.close()


@pytest.mark.parametrize("folder", FORMATS, indirect=True)
def test_a_store_of_a_released_format_replays(folder: Path, nursery: Nursery) -> None:
    seen = nursery.run(job(folder))
    assert seen.finished, seen.log
    assert [repr(eval(literal_eval(text))) for text in seen.probes.values()] == [repr(eval(text)) for text in ANSWERS]
    if sys.version_info[:2] == RECORDED_WITH:
        # The cell that imports durable_nb depends on its version, and runs again under another one.
        statuses = seen.statuses[:6] + seen.statuses[7:]
        assert statuses == ["declared", "declared", *["replayed"] * 5], [cell["durable"] for cell in seen.cells]
    else:
        assert seen.statuses[3] == "replayed" or seen.cells[3]["ename"] == "StepInterruptedError"


def test_a_newer_format_is_refused_with_a_message_and_left_as_it_is(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "journal.db").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute("PRAGMA user_version = 999")
    before = (tmp_path / "journal.db").read_bytes()
    with pytest.raises(StoreVersionError, match="upgrade durable_nb"):
        SqliteJournal(tmp_path / "journal.db")
    assert (tmp_path / "journal.db").read_bytes() == before


def test_an_encrypted_store_of_a_released_format_opens_and_gives_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    shutil.copytree(record_encrypted.FOLDER / "store", tmp_path / "store")
    store = open_store(tmp_path / "store", settings=record_encrypted.SETTINGS, create=False)
    found = check(store)
    assert found.good, [str(each) for each in found.findings]
    assert found.blobs > 0
    assert record_encrypted.run(store) == record_encrypted.RESULT
    assert check(store).records == found.records, "nothing ran again"
    record = store.journal.find("corpus")
    assert record is not None
    (large,) = [s.event for s in store.journal.read(record.execution_id) if s.event.name == "large"]
    value = PickleSerDes(store.blobs).load(large.payload or b"", SerDesContext())
    assert value == bytearray(range(256)) * 700
    store.close()
