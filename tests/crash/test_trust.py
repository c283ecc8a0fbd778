"""Trust: what was not signed with your key is shown and never loaded; whichever byte is changed, it is noticed."""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_nb.cli import main
from durable_nb.events import ErrorInfo, Event, EventKind, OperationType
from durable_nb.exceptions import (
    DamagedBlobError,
    DurableExecutionsError,
    MissingBlobError,
    StoreError,
    ValidationError,
)
from durable_nb.history import History
from durable_nb.journal import FileMarkers, SqliteJournal
from durable_nb.journal._rows import event_of
from durable_nb.runtime import open_store
from durable_nb.settings import Settings
from durable_nb.snapshot import FileBlobStore, KeyFile, Keyring, decode, encode
from tests.crash.evidence import keep
from tests.crash.story import ONCE, PROBES, Case
from tests.fidelity.nursery import Nursery

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
EXAMPLES = 5000 if SOAK else 80

pytestmark = pytest.mark.timeout(3600 if SOAK else 600)

relaxed = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=not SOAK, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("DURABLE_NB_KEY", raising=False)
    monkeypatch.delenv("DURABLE_NB_SECRETS", raising=False)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


# --- a store from elsewhere ---------------------------------------------------------------------------------------------


def test_a_store_from_elsewhere_loads_nothing_until_it_is_trusted(
    nursery: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(nursery, tmp_path / "work")
    assert case.live().finished
    mine = Path(nursery._home.name) / "data"
    key = mine / "durable_nb" / "key"
    kept = key.read_bytes()
    key.unlink()
    try:
        seen = case.live()
        assert "replayed" not in seen.statuses, "nothing that was signed with another key is given back"
        assert case.begun()["pay"] == 1, "and an at-most-once step asks"
        assert seen.cells[ONCE]["ename"] == "StepInterruptedError"
        assert "signed" in seen.cells[ONCE]["evalue"]
        monkeypatch.setenv("JUPYTER_DATA_DIR", str(mine))
        assert main(["show", "--store", str(case.store), "notebook.ipynb"]) == 0
        assert "not trusted" in capsys.readouterr().out, "it can be looked at"
        assert main(["trust", str(case.folder / "store")]) == 2, "trusting needs a person's word"
        assert main(["trust", "--yes", str(case.folder / "store")]) == 0
        assert "signed with your key now" in capsys.readouterr().out
        seen = case.live()
        assert seen.probes == PROBES
        assert set(seen.statuses[1:]) == {"replayed"}
        assert case.begun()["pay"] == 1
    finally:
        key.write_bytes(kept)
        key.chmod(0o600)


def test_a_team_key_makes_each_others_checkpoints_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "team.key"
    assert main(["key", "export", str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["key", "export", str(file)]) == 2, "nothing is overwritten"
    write(tmp_path / "store")
    os.environ["JUPYTER_DATA_DIR"] = str(tmp_path / "other")
    assert not trusted(tmp_path / "store")
    assert main(["key", "import", str(file)]) == 0
    assert trusted(tmp_path / "store")
    own = Keyring().key
    assert main(["key", "import", "--sign", str(file)]) == 0
    assert Keyring().key != own
    assert own in Keyring().trusted
    assert "is trusted" in capsys.readouterr().out


def test_a_rotated_key_still_vouches_for_its_records_until_it_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path / "store")
    assert main(["key", "rotate"]) == 0
    assert trusted(tmp_path / "store")
    assert main(["key", "rotate", "--forget"]) == 0
    assert not trusted(tmp_path / "store")


def test_a_key_from_the_environment_signs_and_the_users_own_is_trusted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "store")
    monkeypatch.setenv("DURABLE_NB_KEY", "a secret of the team")
    assert trusted(tmp_path / "store")
    write(tmp_path / "team")
    monkeypatch.delenv("DURABLE_NB_KEY")
    assert not trusted(tmp_path / "team")


def write(place: Path, **facts: Any) -> None:
    store = open_store(place)
    record = store.journal.create("n", kind="notebook", at=1.0, details={})
    store.journal.append(record.execution_id, [event(**facts)])
    store.close()


def event(**facts: Any) -> Event:
    return Event(
        **{
            "operation_id": "op",
            "kind": EventKind.SUCCEEDED,
            "type": OperationType.CONTEXT,
            "sub_type": "Cell",
            "name": "load",
            "parent_id": "p",
            "at": 12.5,
            "attempt": 2,
            "payload": b"payload",
            "error": ErrorInfo(type="ValueError", message="m"),
            "due": 3.5,
            "details": {"a": 1},
            **facts,
        }
    )


def trusted(place: Path) -> bool:
    store = open_store(place, settings=Settings.from_environment())
    try:
        record = store.journal.find("n")
        assert record is not None
        return all(stored.trusted for stored in store.journal.read(record.execution_id))
    finally:
        store.close()


# --- the key file -------------------------------------------------------------------------------------------------------


def test_the_key_file_is_only_for_its_owner_and_replaced_whole(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "durable_nb" / "key")
    (key,) = file.keys(create=True)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.rotate()
    assert file.keys()[1:] == [key]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["key"], "no temporary file is left"


def test_a_key_that_others_could_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "key")
    file.keys(create=True)
    file.path.chmod(0o644)
    with pytest.raises(StoreError, match="key rotate --forget"):
        file.keys()
    file.rotate(forget=True)
    assert len(file.keys()) == 1


@pytest.mark.parametrize("text", ["", "zz", "00ff", "\0\0", "é" * 40])
def test_a_damaged_key_file_is_named_and_never_overwritten(tmp_path: Path, text: str) -> None:
    file = KeyFile(tmp_path / "key")
    file.path.write_text(text, encoding="utf-8")
    file.path.chmod(0o600)
    with pytest.raises(StoreError, match="damaged"):
        file.keys(create=True)
    assert file.path.read_text(encoding="utf-8") == text


# --- tampering ----------------------------------------------------------------------------------------------------------

SIGNERS = (lambda row: Keyring("k").sign(row, "journal"),)
COLUMNS = (
    *("execution_id", "sequence", "operation_id", "kind", "type", "sub_type", "name", "parent_id", "at", "attempt"),
    *("payload", "error", "due", "details", "mac"),
)
OTHER = {"sequence": 7, "at": 1.0, "attempt": 9, "due": 1.0, "payload": b"other", "mac": b"0" * 32, "kind": "FAILED"}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_change_of_any_column_is_noticed(tmp_path: Path, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NB_KEY", "k")
    write(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute(f"UPDATE events SET {column} = ?", (OTHER.get(column, "other"),))
        db.commit()
        (row,) = db.execute(f"SELECT {', '.join(COLUMNS)} FROM events").fetchall()
    assert not event_of(row, SIGNERS).trusted


@relaxed
@given(
    row=st.tuples(
        *[
            st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(), st.binary())
            for _ in range(15)
        ]
    )
)
def test_no_row_whatever_it_holds_stops_a_reader_or_is_believed(row: tuple[Any, ...]) -> None:
    stored = event_of(row, SIGNERS)
    assert not stored.trusted
    assert isinstance(stored.event, Event)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "\0bytes"), inner),
)


@relaxed
@given(value=st.dictionaries(st.text().filter(lambda key: key != "\0bytes"), VALUE))
def test_a_manifest_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert decode(encode(value)) == value


@relaxed
@given(value=st.dictionaries(st.text(), st.binary() | st.integers()), data=st.data())
def test_a_manifest_that_was_changed_anywhere_is_read_or_refused_with_one_error(
    value: dict[str, Any], data: st.DataObject
) -> None:
    whole = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    for text in (whole, cut):
        try:
            assert isinstance(decode(bytes(text)), dict)
        except StoreError:
            pass


@relaxed
@given(data=st.binary())
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    for text in (data, b"DNB1" + data):
        try:
            assert isinstance(decode(text), dict)
        except StoreError:
            pass


def test_a_manifest_that_claims_to_be_a_giant_allocates_nothing() -> None:
    with pytest.raises(StoreError, match="cut short"):
        decode(b"DNB1" + (2**62).to_bytes(8, "big") + b"{}")
    with pytest.raises(StoreError, match="damaged"):
        head = b'{"a":{"\\u0000bytes":[0,1152921504606846976]}}'
        decode(b"DNB1" + len(head).to_bytes(8, "big") + head)
    with pytest.raises(StoreError, match="damaged"):
        head = b"[" * 200_000
        decode(b"DNB1" + len(head).to_bytes(8, "big") + head)


@relaxed
@given(data=st.binary(max_size=200), change=st.data())
def test_a_blob_that_was_changed_anywhere_is_never_given_back(data: bytes, change: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        blobs = FileBlobStore(folder)
        address = blobs.put(data)
        path = next(blobs.places(address))
        other = change.draw(st.binary(max_size=200).filter(lambda found: found != data))
        path.chmod(0o600)
        path.write_bytes(other)
        for read in (blobs.get, lambda name: bytes(FileBlobStore(folder).map(name))):
            with pytest.raises(DamagedBlobError):
                read(address)


# --- paths --------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 63,
    "a" * 65,
    "A" * 64,
    "..".ljust(64, "a"),
    "a/" * 32,
    "\0" * 64,
    "",
    "é" * 64,
]


@pytest.mark.parametrize("address", HOSTILE)
def test_an_address_that_is_no_address_never_becomes_a_path(tmp_path: Path, address: str) -> None:
    blobs = FileBlobStore(tmp_path / "blobs")
    for call in (blobs.get, blobs.map, blobs.has, blobs.size, blobs.delete, blobs.condemn, blobs.purge, blobs.spare):
        with pytest.raises(ValidationError):
            call(address)


@pytest.mark.parametrize("name", ["../../x", "a/b", "\0", "x" * 5000, "'; DROP TABLE events; --", "<script>", "é\n"])
def test_a_name_that_looks_like_a_path_or_like_sql_is_a_name(tmp_path: Path, name: str) -> None:
    markers = FileMarkers(tmp_path / "store" / "started")
    (tmp_path / "store").mkdir()
    assert markers.claim(name, name, {})
    assert not markers.claim(name, name, {})
    (file,) = (tmp_path / "store" / "started").iterdir()
    assert set(file.stem) <= set("0123456789abcdef")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    journal = SqliteJournal(tmp_path / "j.db")
    record = journal.create(name, kind="notebook", at=1.0, details={})
    journal.append(record.execution_id, [event(name=name, operation_id=name)])
    found = journal.find(name)
    assert found is not None
    assert journal.read_operation(found.execution_id, name)[0].event.name == name
    journal.close()


def test_a_marker_that_is_a_link_counts_and_is_not_followed(tmp_path: Path) -> None:
    markers = FileMarkers(tmp_path / "started")
    markers.claim("n", "pay", {})
    (file,) = (tmp_path / "started").iterdir()
    file.unlink()
    target = tmp_path / "victim"
    file.symlink_to(target)
    assert not markers.claim("n", "pay", {})
    assert not target.exists(), "nothing is written through it"
    assert markers.read("n", "pay") is not None


def test_a_missing_blob_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(MissingBlobError):
        FileBlobStore(tmp_path).get("0" * 64)


def test_a_hostile_execution_row_does_not_stop_a_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        bad = ("x", b"\xff\xfe", "notebook", "then", "NO STATUS", "soon", 0, "[" * 100_000)
        db.execute("INSERT INTO executions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", bad)
        db.execute("UPDATE executions SET details = '{' WHERE name = 'n'")
        db.execute("UPDATE events SET name = CAST(x'ff41' AS TEXT)")
        db.commit()
    store = open_store(tmp_path)
    views = History(store.journal).executions()
    assert len(views) == 2
    assert not any(op.trusted for view in views for op in view.operations)
    store.close()


@pytest.mark.parametrize("command", [["verify"], ["trust", "--yes"], ["ls"], ["show", "n"]])
def test_names_from_a_strangers_store_do_not_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jboo"
    monkeypatch.setenv("DURABLE_NB_KEY", "a stranger's")
    write(tmp_path / "store", name=evil, details={"label": evil, "source": evil})
    store = open_store(tmp_path / "store")
    store.journal.create(evil, kind="notebook", at=2.0, details={})
    store.close()
    monkeypatch.delenv("DURABLE_NB_KEY")
    place = [str(tmp_path / "store")] if command[0] == "trust" else ["--store", str(tmp_path / "store")]
    main([*command, *place])
    said = capsys.readouterr().out
    assert said
    assert "\x1b]" not in said
    assert "\x1b[2J" not in said


@pytest.mark.parametrize("column", ["payload", "kind", "name"])
def test_a_handler_does_not_go_on_from_a_history_that_somebody_changed(tmp_path: Path, column: str) -> None:
    from durable_nb.sdk import DurableContext, durable_execution

    @durable_execution
    def order(event_: Any, context: DurableContext) -> Any:
        return context.step(lambda _: "real", name="a")

    first = open_store(tmp_path / "store")
    assert order.run(1, name="x", store=first) == "real"
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "journal.db")) as db:
        value = {"payload": b'"fake"', "kind": "FAILED", "name": "b"}[column]
        db.execute(f"UPDATE events SET {column} = ? WHERE type = 'EXECUTION' AND kind = 'SUCCEEDED'", (value,))
        db.execute(f"UPDATE events SET {column} = ? WHERE type = 'STEP'", (value,))
        db.commit()
    with pytest.raises(DurableExecutionsError):
        order.run(1, name="x", store=first)
    first.close()


# --- secrets ------------------------------------------------------------------------------------------------------------


def test_names_and_variables_that_the_user_lists_are_never_written(nursery: Nursery, tmp_path: Path) -> None:
    value = "hush-hush-7391"
    case = Case(nursery, tmp_path / "work")
    from tests.fidelity.nursery import Job

    cells = (
        f"plain_dsn = {value!r} + str(len('abc'))",
        f"import os\nos.environ['BACKEND_DSN'] = {value!r} + str(len('abc'))",
        "harmless = len(plain_dsn)",
    )
    # The sources hold the first half; only the values made of it would hold the whole.
    job = Job(
        cells=tuple(cell.replace(repr(value), "'hush-' + 'hush-7391'") for cell in cells),
        folder=case.folder,
        store=case.store,
        durable=True,
        env=(("DURABLE_NB_SECRETS", "plain_*, backend_dsn"),),
        stop_on_error=False,
        portrait=False,
    )
    seen = nursery.run(job)
    assert seen.finished, seen.log
    assert seen.statuses[:2] == ["not_durable", "not_durable"], [cell["durable"] for cell in seen.cells]
    written = b"".join(path.read_bytes() for path in case.store.rglob("*") if path.is_file())
    assert value.encode() not in written


class _Explodes:
    def __reduce__(self) -> Any:
        return os.abort, ()


def test_a_pickle_that_a_stranger_wrote_into_a_row_is_never_loaded(nursery: Nursery, tmp_path: Path) -> None:
    case = Case(nursery, tmp_path / "work")
    assert case.live().finished
    with contextlib.closing(sqlite3.connect(case.store / "journal.db")) as db:
        bomb = pickle.dumps(_Explodes())
        db.execute("UPDATE events SET payload = ? WHERE payload IS NOT NULL", (encode({"names": {"groups": [bomb]}}),))
        db.commit()
    for path in (case.store / "blobs").glob("??/*"):
        path.chmod(0o600)
        path.write_bytes(bomb)
    seen = case.live()
    assert seen.finished, "it was loaded"
    assert case.begun()["pay"] == 1
    keep("fuzz", cases=EXAMPLES * 5)
