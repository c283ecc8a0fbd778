"""Damage: the cell runs again with one clear line, an at-most-once step asks, and nothing else is affected."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from durable_nb.cli import main
from tests.crash.evidence import keep
from tests.crash.story import ONCE, PROBES, Case
from tests.fidelity.nursery import Nursery, Seen

pytestmark = pytest.mark.timeout(3600 if os.environ.get("DURABLE_NB_SOAK") else 600)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def finished(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A notebook that has run."""
    case = Case(nursery, tmp_path_factory.mktemp("whole") / "work")
    seen = case.live()
    assert seen.finished, seen.log
    # The kernel ended without a word; put the log into the database, which is what is damaged below.
    with contextlib.closing(sqlite3.connect(case.store / "journal.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return case


@pytest.fixture
def case(finished: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """A store of its own in the same place: paths are part of the cells."""
    copy = finished.folder.with_name("copy")
    shutil.copytree(finished.folder, copy)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(Path(finished.nursery._home.name) / "data"))
    yield finished
    shutil.rmtree(finished.folder)
    shutil.move(copy, finished.folder)


def database(case: Case) -> Path:
    return case.store / "journal.db"


def blobs(case: Case) -> list[Path]:
    return sorted(path for path in (case.store / "blobs").glob("??/*") if path.is_file())


def lines(seen: Seen) -> list[str]:
    """What durable_nb said in all cells."""
    texts = [
        output.get("text", "") for cell in seen.cells for output in cell["outputs"] if output.get("name") == "stderr"
    ]
    return [line for text in texts for line in text.splitlines() if line.startswith("durable_nb:")]


def right(seen: Seen) -> None:
    assert seen.finished, seen.log
    assert seen.probes == PROBES, lines(seen)


def asks(seen: Seen) -> bool:
    return seen.cells[ONCE]["status"] == "error" and seen.cells[ONCE]["ename"] == "StepInterruptedError"


def flip(path: Path, place: int, bit: int = 0) -> None:
    os.chmod(path, 0o600)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


def test_a_cell_whose_blob_has_a_flipped_bit_runs_again_with_one_line_and_the_others_replay(case: Case) -> None:
    largest = max(blobs(case), key=lambda path: path.stat().st_size)
    flip(largest, largest.stat().st_size // 2)
    seen = case.live()
    right(seen)
    assert seen.statuses.count("executed") == 1, seen.statuses
    (line,) = lines(seen)
    assert "runs again" in line
    assert "damaged" in line
    assert case.live().statuses.count("executed") == 0, "the blob was written anew"


def test_cells_whose_blobs_are_missing_run_again_and_the_others_replay(case: Case) -> None:
    gone = blobs(case)
    for path in gone:
        path.unlink()
    seen = case.live()
    right(seen)
    assert 1 <= seen.statuses.count("executed") <= len(gone)
    assert len(lines(seen)) == seen.statuses.count("executed")
    assert case.begun()["pay"] == 1


def test_a_link_in_the_place_of_a_blob_is_not_followed(case: Case, tmp_path: Path) -> None:
    largest = max(blobs(case), key=lambda path: path.stat().st_size)
    secret = tmp_path / "elsewhere"
    shutil.copy(largest, secret)
    largest.unlink()
    largest.symlink_to(secret)
    seen = case.live()
    right(seen)
    assert seen.statuses.count("executed") == 1


def test_a_pipe_or_a_giant_in_the_place_of_a_blob_makes_nobody_wait(case: Case) -> None:
    first, second, *_ = sorted(blobs(case), key=lambda path: -path.stat().st_size)
    first.unlink()
    os.mkfifo(first)
    os.chmod(second, 0o600)
    os.truncate(second, 1 << 42)
    seen = case.live()
    right(seen)
    assert case.begun()["pay"] == 1


def truncated(case: Case) -> None:
    os.truncate(database(case), database(case).stat().st_size // 2)


def garbage(case: Case) -> None:
    database(case).write_bytes(b"\0garbage" * 4096)


def no_header(case: Case) -> None:
    with database(case).open("r+b") as file:
        file.write(b"\xff" * 100)


def holes(case: Case) -> None:
    size = database(case).stat().st_size
    with database(case).open("r+b") as file:
        for place in range(8192, size, 4096 * 3):
            file.seek(place)
            file.write(b"\xaa" * 2048)


@pytest.mark.parametrize("damage", [truncated, garbage, no_header, holes])
def test_a_database_that_cannot_be_read_never_starts_an_at_most_once_body(
    case: Case, damage: Callable[[Case], None]
) -> None:
    damage(case)
    seen = case.live()
    assert seen.finished, seen.log
    assert case.begun()["pay"] == 1
    assert asks(seen), seen.cells[ONCE]
    assert seen.cells[1]["status"] == seen.cells[2]["status"] == "ok", "ordinary cells run"
    told = lines(seen)
    assert told, "the user is told"
    assert any("durable-nb verify --repair" in line for line in told), told


@pytest.mark.parametrize("damage", [truncated, garbage, no_header, holes])
def test_repair_keeps_what_can_be_read_and_the_next_run_goes_on(
    case: Case, damage: Callable[[Case], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(case)
    code = main(["verify", "--repair", "--store", str(case.store)])
    said = capsys.readouterr()
    assert "it is in" in said.err, said
    assert "quarantine" in said.err
    assert code in (0, 1)
    assert any((case.store / "quarantine").rglob("journal.db")), "nothing is deleted"
    seen = case.live()
    assert seen.finished, seen.log
    assert case.begun()["pay"] == 1
    if asks(seen):
        right(case.live(before=("%durable resolve pay --again",)))
    else:
        right(seen)


def test_a_database_that_was_lost_leaves_the_marker_which_refuses(case: Case) -> None:
    database(case).unlink()
    seen = case.live()
    assert asks(seen)
    assert case.begun()["pay"] == 1
    right(case.live(before=("%durable resolve pay --again",)))
    assert case.begun()["pay"] == 2, "only a person's word starts it again"


def test_the_marker_of_a_notebook_that_was_renamed_still_refuses_when_the_database_is_lost(case: Case) -> None:
    database(case).unlink()
    job_name = "renamed.ipynb"
    os.rename(case.folder / "notebook.ipynb", case.folder / job_name)
    from tests.crash.story import cells
    from tests.fidelity.nursery import Job

    job = Job(
        cells=cells(case.ledger), folder=case.folder, store=case.store, durable=True, name=job_name, stop_on_error=False
    )
    seen = case.nursery.run(job)
    assert asks(seen), seen.cells[ONCE]
    assert case.begun()["pay"] == 1


def test_the_end_of_the_log_may_be_lost(nursery: Nursery, tmp_path: Path) -> None:
    """A copy of a store without its write-ahead log, as a careless backup makes it."""
    from durable_nb.testing.faults_store import Fault, StoreFaults

    case = Case(nursery, tmp_path / "work")
    count = case.live(StoreFaults())
    shutil.rmtree(case.folder)
    case = Case(nursery, tmp_path / "work")
    # Killed at its last reply: the database is not closed, and most of it is in the log.
    replies = [place for place, name in enumerate(count.point_names, start=1) if name == "message reply"]
    case.live(StoreFaults(Fault("kill", replies[6])))
    log = case.store / "journal.db-wal"
    assert log.stat().st_size > 0
    log.unlink()
    (case.store / "journal.db-shm").unlink(missing_ok=True)
    seen = case.live()
    assert seen.finished, seen.log
    assert case.begun()["pay"] == 1
    assert asks(seen)


def test_flipped_bits_anywhere_in_the_store_change_no_value(case: Case) -> None:
    """Whichever bit flips, in rows, pages, blobs or markers: values are right or the step asks, and no body begins twice."""
    rng = random.Random(int(os.environ.get("DURABLE_NB_SEED", "1")))
    count = 150 if os.environ.get("DURABLE_NB_SOAK") else 10
    whole = case.folder.with_name("copy")
    for number in range(count):
        shutil.rmtree(case.folder)
        shutil.copytree(whole, case.folder)
        files = [database(case), database(case), *blobs(case), *(case.store / "started").glob("*.json")]
        path = rng.choice(files)
        for _ in range(rng.choice((1, 1, 8, 64))):
            flip(path, rng.randrange(path.stat().st_size), rng.randrange(8))
        seen = case.live()
        assert seen.finished, f"{number} {path.name}: {seen.log}"
        assert case.begun()["pay"] == 1, f"{number} {path.name}"
        if seen.cells[ONCE]["status"] == "ok":
            assert seen.probes == PROBES, f"{number} {path.name}: {lines(seen)}"
        else:
            assert asks(seen), f"{number} {path.name}: {seen.cells[ONCE]}"
    keep("flipped bits", cases=count)
