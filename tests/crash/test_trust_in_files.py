"""Files that cells wrote are put back from records that are signed, and from no others."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from durable_nb.runtime import Store, open_store
from tests.fidelity.nursery import Job, Nursery, Seen

pytestmark = pytest.mark.kernel

EVIL = b"evil\n"
CELLS = (
    "from pathlib import Path\nPath('data.txt').write_text('right\\n')",
    "text = Path('data.txt').read_text()\nprint(text)",
)
READER = "again = Path('data.txt').read_text()\nprint(again)"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


def live(nursery: Nursery, folder: Path, *more: str) -> Seen:
    seen = nursery.run(
        Job(
            cells=(*CELLS, *more),
            folder=folder,
            store=folder / "store",
            durable=True,
            stop_on_error=False,
            portrait=False,
        )
    )
    assert seen.finished, seen.log
    return seen


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Store]:
    store = open_store(folder / "store")
    try:
        yield store
    finally:
        store.close()


def plant(folder: Path, *, beside: bool) -> None:
    """Let the record of the cell that wrote the file name other bytes; or add such a record beside it."""
    with opened(folder) as store:
        address = store.blobs.put(EVIL)
    with contextlib.closing(sqlite3.connect(folder / "store" / "journal.db")) as db:
        rows = db.execute("SELECT execution_id, sequence, details FROM events WHERE kind = 'SUCCEEDED'").fetchall()
        ((execution, sequence, text),) = [row for row in rows if json.loads(row[2]).get("files", {}).get("blobs")]
        details = json.loads(text)
        details["files"]["blobs"] = dict.fromkeys(details["files"]["blobs"], address)
        if beside:
            columns = [row[1] for row in db.execute("PRAGMA table_info(events)")]
            chosen = ", ".join("9000" if name == "sequence" else name for name in columns)
            db.execute(f"INSERT INTO events SELECT {chosen} FROM events WHERE sequence = ?", (sequence,))
            sequence = 9000
        db.execute(
            "UPDATE events SET details = ? WHERE execution_id = ? AND sequence = ?",
            (json.dumps(details, ensure_ascii=False), execution, sequence),
        )
        db.commit()


def sign(folder: Path) -> None:
    with opened(folder) as store:
        for record in store.journal.executions():
            numbers = [stored.sequence for stored in store.journal.read(record.execution_id)]
            store.journal.resign(record.execution_id, numbers)  # type: ignore[attr-defined]


def gone(path: Path) -> None:
    path.unlink()


def changed(path: Path) -> None:
    path.write_text("something else\n")


@pytest.mark.parametrize("lost", [gone, changed])
@pytest.mark.parametrize("beside", [False, True], ids=["changed record", "added record"])
def test_a_file_is_never_put_back_from_a_record_that_is_not_signed(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool, lost: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(Path(nursery._home.name) / "data"))
    live(nursery, tmp_path)
    plant(tmp_path, beside=beside)
    lost(tmp_path / "data.txt")
    seen = live(nursery, tmp_path, READER)
    assert [cell["status"] for cell in seen.cells] == ["ok"] * 3
    assert (tmp_path / "data.txt").read_bytes() == b"right\n"
    assert "right" in str(seen.cells[2]["outputs"])
    assert "evil" not in str(seen.cells)
    if beside and lost is gone:
        assert seen.statuses[0] == "replayed", "the signed record beside it still serves"


def test_from_a_signed_record_it_is(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes with a signature come back: the tests above look in the right place."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(Path(nursery._home.name) / "data"))
    live(nursery, tmp_path)
    plant(tmp_path, beside=False)
    sign(tmp_path)
    gone(tmp_path / "data.txt")
    live(nursery, tmp_path, READER)
    assert (tmp_path / "data.txt").read_bytes() == EVIL
