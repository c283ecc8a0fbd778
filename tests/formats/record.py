"""Records the corpus of the present format: `python -m tests.formats.record`. Old folders are never written again."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from tests.fidelity.nursery import Job, Nursery

HERE = Path(__file__).parent
KEY = "the key of the corpus"
NAME = "corpus.ipynb"

CELLS = (
    "import random\nlimit = 3",
    "class Point:\n    def __init__(self, x):\n        self.x = x\n\ndef double(n):\n    return n * 2",
    "random.seed(7)\nnumbers = [random.random() for _ in range(limit)]\nprint(len(numbers))",
    "# durable: name=pay at-most-once\nreceipt = {'paid': 42}",
    "points = [Point(double(n)) for n in range(limit)]\nalias = points\nsum(p.x for p in points)",
    "block = bytearray(range(256)) * 400",
    "from durable_nb import context\nparts = [context.step(lambda _, i=i: i * i, name=f's{i}') for i in range(3)]",
    "words = {1.5: 'ä', (1, 2): {3, 4}, None: b'\\x00'}\ndel limit",
)

PROBES = (
    "len(numbers), all(0 <= n < 1 for n in numbers)",
    "[p.x for p in points], alias is points, type(points[0]) is Point",
    "receipt, parts, len(block), block[255]",
    "words, 'limit' in globals()",
)

ANSWERS = (
    "(3, True)",
    "([0, 2, 4], True, True)",
    "({'paid': 42}, [0, 1, 4], 102400, 255)",
    "({1.5: 'ä', (1, 2): {3, 4}, None: b'\\x00'}, False)",
)


def job(folder: Path) -> Job:
    """A Run All of the corpus's notebook."""
    return Job(
        cells=CELLS,
        folder=folder,
        store=folder / "store",
        durable=True,
        probes=PROBES,
        env=(("DURABLE_NB_KEY", KEY),),
        name=NAME,
        portrait=False,
        stop_on_error=False,
    )


def record(version: int) -> None:
    """Make the folder of a format."""
    target = HERE / str(version)
    target.mkdir()
    work = Path("/tmp/durable_nb-corpus")
    work.mkdir()
    try:
        with Nursery() as nursery:
            seen = nursery.run(job(work))
        assert seen.finished, seen.log
        with contextlib.closing(sqlite3.connect(work / "store" / "journal.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("VACUUM")
        shutil.copytree(work / "store", target / "store", ignore=shutil.ignore_patterns("lock", "*-wal", "*-shm"))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    from durable_nb.journal._sql import migrations

    record(len(migrations("sqlite")))
