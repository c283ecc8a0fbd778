"""What the machine itself can do: the same bytes written and synced, copied, hashed, read; rows committed.

python -m tests.benchmarks.limits FOLDER BYTES COMMITS
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def of_bytes(folder: Path, size: int) -> dict[str, float]:
    """Seconds for writing, syncing, copying, hashing and reading `size` bytes."""
    import numpy as np
    import xxhash
    from blake3 import blake3

    data = np.arange(size // 8, dtype="float64")
    view = memoryview(data).cast("B")
    path = folder / "limit.bin"
    found = {"write_fsync": timed(lambda: _write(path, view)), "copy": timed(data.copy)}
    found["xxh3"] = timed(lambda: xxhash.xxh3_128_digest(view))
    found["blake3"] = timed(lambda: blake3(view).digest())
    found["read_sum"] = timed(lambda: float(np.memmap(path, dtype="float64", mode="c").sum()))
    path.unlink()
    return found


def _write(path: Path, view: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    start = 0
    while start < view.nbytes:
        start += os.write(descriptor, view[start : start + (64 << 20)])
    os.fsync(descriptor)
    os.close(descriptor)


def commit(folder: Path, count: int) -> float:
    """The median of a synced SQLite commit of one row of 1 KB, in seconds."""
    path = folder / "limit.db"
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)")
        insert = "INSERT INTO rows (data) VALUES (?)"
        row = (b"x" * 1000,)
        seconds = statistics.median(timed(lambda: database.execute(insert, row)) for _ in range(count))
    database.close()
    return seconds


def main() -> None:
    """As the arguments say."""
    folder, size, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    found = of_bytes(folder, size) if size else {}
    found["commit"] = commit(folder, count)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
