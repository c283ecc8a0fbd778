"""SQLite's own files, cut in the middle: nothing that was committed before the cut is lost, and nothing is invented.

The log of a journal is a row of frames, some of which end a commit. Its frames are counted here, by its published
format, so that what must be there after a cut is known without asking SQLite.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from durable_nb.events import Event, EventKind, OperationType
from durable_nb.exceptions import StoreError
from durable_nb.journal import SqliteJournal, complaints, salvage
from tests.crash import handler_story
from tests.crash.evidence import keep

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
CUTS = 400 if SOAK else 8
LIVES = 40 if SOAK else 2

pytestmark = pytest.mark.timeout(3600 if SOAK else 600)
THREADS = 4


def sign(data: bytes) -> bytes:
    return hashlib.blake2b(data, key=b"k", digest_size=32).digest()


def payload_of(number: int) -> bytes:
    """What record `number` holds: of many lengths, and known without the record."""
    return hashlib.shake_128(str(number).encode()).digest(number * 37 % 3000)


def record(number: int) -> Event:
    return Event(
        operation_id=f"op-{number}",
        kind=EventKind.SUCCEEDED,
        type=OperationType.STEP,
        at=float(number),
        payload=payload_of(number),
        details={"number": number},
    )


def opened(place: Path) -> SqliteJournal:
    return SqliteJournal(place, signer=sign)


def numbers_in(place: Path) -> list[int]:
    """The records of a journal; each is whole and signed."""
    journal = opened(place)
    try:
        execution = journal.find("load")
        assert execution is not None
        found = []
        for stored in journal.read(execution.execution_id):
            number = stored.event.details["number"]
            assert stored.trusted
            assert stored.event.payload == payload_of(number)
            found.append(number)
        return found
    finally:
        journal.close()


def frames_of(log: bytes) -> list[tuple[int, bool]]:
    """Where each valid frame ends, and whether it ends a commit."""
    if len(log) < 32:
        return []
    page = struct.unpack(">I", log[8:12])[0]
    salts = log[16:24]
    found, at = [], 32
    while at + 24 + page <= len(log) and log[at + 8 : at + 16] == salts:
        found.append((at + 24 + page, struct.unpack(">I", log[at + 4 : at + 8])[0] > 0))
        at += 24 + page
    return found


def copied(source: Path, target: Path) -> Path:
    """The database and its log as a crash leaves them: without the shared memory."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    return target / "journal.db"


# --- a log that is cut --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal whose records are all in its log: one commit each."""
    folder = tmp_path_factory.mktemp("logged")
    journal = opened(folder / "journal.db")
    execution = journal.create("load", kind="handler", at=1.0, details={}).execution_id
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal._db.execute("PRAGMA wal_autocheckpoint = 0")
    for number in range(120):
        journal.append(execution, [record(number)])
    copy = folder / "copy"
    copied(folder, copy)
    journal.close()
    return copy


def test_the_frames_are_counted_right(logged: Path, tmp_path: Path) -> None:
    frames = frames_of((logged / "journal.db-wal").read_bytes())
    assert sum(ends for _, ends in frames) == 120
    assert numbers_in(copied(logged, tmp_path / "case")) == list(range(120))


@pytest.mark.parametrize("tail", ["cut", "zeros", "noise", "one sector"])
def test_a_log_that_is_torn_anywhere_keeps_every_commit_before_it_and_no_other(
    logged: Path, tmp_path: Path, tail: str
) -> None:
    rng = random.Random(SEED)
    log = (logged / "journal.db-wal").read_bytes()
    frames = frames_of(log)
    edges = [end for end, _ in frames]
    for number in range(CUTS):
        # Anywhere, and often near the end of a frame, where a mistake of one byte would show.
        at = rng.randrange(len(log)) if number % 2 else min(rng.choice(edges) + rng.randrange(-3, 4), len(log) - 1)
        rest = {
            "cut": b"",
            "zeros": bytes(len(log) - at),
            "noise": rng.randbytes(len(log) - at),
            "one sector": rng.randbytes(min(512, len(log) - at)) + log[at + 512 :],
        }[tail]
        place = copied(logged, tmp_path / "case")
        torn = log[:at] + rest
        (tmp_path / "case" / "journal.db-wal").write_bytes(torn)
        # A frame counts when all of it is as it was, and all before it.
        same = next(
            (index for index, (a, b) in enumerate(zip(log, torn, strict=False)) if a != b), min(len(log), len(torn))
        )
        expected = sum(ends for end, ends in frames if end <= same)
        assert numbers_in(place) == list(range(expected)), f"{tail} at {at}"
        assert complaints(place) == []
        journal = opened(place)
        execution = journal.find("load")
        assert execution is not None
        journal.append(execution.execution_id, [record(10_000)])
        journal.close()
        assert numbers_in(place) == [*range(expected), 10_000], "and it goes on"
    keep("torn logs", cases=CUTS)


# --- a database that is cut ---------------------------------------------------------------------------------------------


def test_a_database_that_is_torn_anywhere_gives_back_what_was_recorded_or_nothing(logged: Path, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    whole = copied(logged, tmp_path / "whole")
    with contextlib.closing(sqlite3.connect(whole)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = whole.read_bytes()
    kept = 0
    for number in range(CUTS):
        at = rng.randrange(len(data))
        length = rng.choice((1, 16, 512, 4096, 40_000))
        torn = data[:at] if number % 4 == 0 else data[:at] + rng.randbytes(length) + data[at + length :]
        place = copied(tmp_path / "whole", tmp_path / "case")
        place.write_bytes(torn[: len(data)])
        (tmp_path / "case" / "journal.db-wal").unlink(missing_ok=True)
        assert _right_or_nothing(place) is not None
        fresh = tmp_path / "case" / "salvaged.db"
        salvage(place, fresh)
        found = _right_or_nothing(fresh)
        assert found is not None, "what is salvaged can be opened"
        assert complaints(fresh) == []
        kept += found
    assert kept > 0
    keep("torn databases", cases=CUTS, records_kept=kept)


def _right_or_nothing(place: Path) -> int:
    """How many records are given back as signed; each is one that was written, with what it held."""
    found = 0
    try:
        journal = opened(place)
    except StoreError:
        return 0
    try:
        for execution in journal.executions():
            for stored in journal.read(execution.execution_id):
                if stored.trusted:
                    number = stored.event.details["number"]
                    assert stored.event == record(number)
                    found += 1
    except StoreError:
        pass  # told, not guessed
    finally:
        journal.close()
    return found


# --- killed while it writes -----------------------------------------------------------------------------------------------


def _write(folder: str, thread_count: int, first: int) -> None:
    """Commit as fast as it goes; tell each commit that has returned."""
    journal = opened(Path(folder) / "journal.db")
    # Many more turns of the log than in life, so that kills fall into them too.
    journal._db.execute("PRAGMA wal_autocheckpoint = 5")
    execution = journal.find("load")
    assert execution is not None
    told = os.open(Path(folder) / "told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def work(lane: int) -> None:
        number = first + lane
        while True:
            journal.append(execution.execution_id, [record(number)])
            os.write(told, f"{number}\n".encode())
            number += thread_count

    for lane in range(thread_count):
        threading.Thread(target=work, args=(lane,), daemon=True).start()
    threading.Event().wait()


def test_a_journal_whose_writers_are_killed_again_and_again_keeps_what_it_told(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    journal = opened(tmp_path / "journal.db")
    journal.create("load", kind="handler", at=1.0, details={})
    journal.close()
    told = tmp_path / "told"
    told.touch()
    context = handler_story.server()
    for life in range(LIVES):
        process: Any = context.Process(target=_write, args=(str(tmp_path), THREADS, life * 1_000_000))
        process.start()
        enough = told.read_text().count("\n") + rng.randrange(1, 120)
        while told.read_text().count("\n") < enough:
            assert process.is_alive()
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        # What a crash of the machine can leave behind the end of a log that is synced.
        with (tmp_path / "journal.db-wal").open("ab") as log:
            log.write(rng.randbytes(rng.randrange(5000)))
        place = copied(tmp_path, tmp_path / "case")
        found = numbers_in(place)
        said = [int(line) for line in told.read_text().split()]
        assert set(said) <= set(found), "what was told is there"
        assert len(found) == len(set(found))
        assert len(set(found) - set(said)) <= THREADS * (life + 1), "beside it only what was under way"
        assert complaints(place) == []
    keep("journals killed while they write", cases=LIVES, records=len(said))
