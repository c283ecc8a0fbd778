"""A journal that is damaged: what it is, and what of it can be kept.

Salvage reads the old file row by row, from both ends of each table, so that one bad page costs the rows on it and no
others; rows go into a new journal as they are, with their sequence numbers and signatures. A row that was damaged in a
way that SQLite does not see has no valid signature: it is shown and never given back.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.exceptions import StoreError
from durable_nb.journal._sqlite import SqliteJournal

__all__ = ["Salvage", "complaints", "counts", "salvage"]

_TABLES = (
    ("executions", "rowid"),
    ("events", "execution_id {0}, sequence {0}"),
    ("blob_refs", "execution_id {0}, sequence {0}, address {0}"),
)


@dataclass(frozen=True, slots=True)
class Salvage:
    """What came out of a damaged journal."""

    executions: int
    events: int


def complaints(place: str | os.PathLike[str], *, limit: int = 5) -> list[str]:
    """What SQLite finds wrong with a database file; empty when all is well."""
    try:
        with contextlib.closing(_reader(Path(place))) as db:
            found = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({int(limit)})")]
    except sqlite3.Error as exc:
        return [str(exc)]
    return [] if found == ["ok"] else found


def counts(place: str | os.PathLike[str]) -> Salvage:
    """How much a journal holds."""
    with contextlib.closing(_reader(Path(place))) as db:
        found = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("executions", "events")]
    return Salvage(*found)


def salvage(damaged: str | os.PathLike[str], fresh: str | os.PathLike[str], *, encrypted: bool = False) -> None:
    """Copy what can be read of a damaged database into a new journal, of the same kind.

    Raises:
        StoreError: there is a file where the new one is to be.
    """
    if Path(fresh).exists():
        raise StoreError(f"{fresh} exists already")
    journal = SqliteJournal(fresh, encrypted=encrypted)
    try:
        with journal.transaction() as db:
            _copy(Path(damaged), db)
    finally:
        journal.close()


def _copy(damaged: Path, db: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_reader(damaged)) as old:
        for table, order in _TABLES:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            for row in _rows(old, table, columns, order):
                # A row that breaks a constraint (an event of an execution that is lost) is not kept.
                with contextlib.suppress(sqlite3.IntegrityError):
                    db.execute(insert, [_storable(value) for value in row])
    db.execute(
        "UPDATE executions SET last_sequence = max(last_sequence, coalesce("
        "(SELECT max(sequence) FROM events WHERE events.execution_id = executions.execution_id), 0))"
    )


def _rows(old: sqlite3.Connection, table: str, columns: list[str], order: str) -> Iterator[tuple[Any, ...]]:
    """Rows from the front until one cannot be read, then from the back."""
    for direction in ("ASC", "DESC"):
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order.format(direction)}"
        if direction == "DESC" and "{0}" not in order:
            query += " DESC"
        try:
            yield from old.execute(query)
        except sqlite3.Error:
            continue
        return


def _storable(value: Any) -> Any:
    """Text that is no text (its bytes were damaged) is kept as the bytes that it was read as."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogateescape")
    return value


def _reader(place: Path) -> sqlite3.Connection:
    """A connection that only reads, and that text of another encoding does not stop."""
    db = sqlite3.connect(f"{place.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA trusted_schema = OFF")
    db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return db
