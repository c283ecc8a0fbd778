"""The embedded journal: one SQLite file in WAL mode.

Concurrent appends share a transaction and its fsync (see `_group`).

Invariants:
- `append` returns only after COMMIT has returned, with `synchronous=FULL` when any request of the batch is durable.
- Sequence numbers are taken inside the transaction (BEGIN IMMEDIATE), so two processes never share one.
- A forked child never writes: it shares the parent's file descriptors and locks without owning them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import EllipsisType
from typing import Any

from durable_nb.abc import Claimed, Journal, Lease
from durable_nb.events import Event, ExecutionRecord, Status, StoredEvent
from durable_nb.exceptions import (
    JournalConflictError,
    LeaseHeldError,
    LeaseLostError,
    StoreError,
    StoreUnreadableError,
    StoreVersionError,
)
from durable_nb.journal._filesystem import is_network
from durable_nb.journal._group import GroupCommit, Request
from durable_nb.journal._ids import new_execution_id
from durable_nb.journal._owner import is_alive, this_process
from durable_nb.journal._rows import Signer, event_of, execution_of, is_event, mac_of, row_of
from durable_nb.journal._sql import migrations, queries

__all__ = ["SqliteJournal"]

_APPLICATION_ID = 0x64757262  # "durb": tells our file from any other SQLite database
_ENCRYPTED_ID = 0x64757265  # "dure": ours, with sealed rows; an open one in its place would write what must not be read
_BUSY_SECONDS = 30.0
_Q = queries("sqlite")


class SqliteJournal(Journal):
    """Executions in one file. Safe for several threads and several processes.

    Args:
        place: the database file; its folder is created with mode 0700.
        signer: makes the message authentication code of each row; without it rows are neither signed nor checked.
        trusts: signers of other keys whose rows are believed too.
        encrypted: whether rows are sealed (by `EncryptedJournal` above); a file of the other kind is refused.

    Raises:
        StoreUnreadableError: the file is no database of ours, is damaged, or cannot be opened.
        StoreVersionError: a newer durable_nb wrote it.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        signer: Signer | None = None,
        trusts: Iterable[Signer] = (),
        encrypted: bool = False,
    ) -> None:
        self._place = Path(place)
        self._application_id = _ENCRYPTED_ID if encrypted else _APPLICATION_ID
        self._signer = signer
        self._signers = () if signer is None else (signer, *trusts)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._group = GroupCommit(self._lock, self._commit)
        self._durable_now: bool | None = None
        self.is_network = is_network(self._place.parent)
        try:
            self._db = self._open()
        except (sqlite3.Error, OSError) as exc:
            raise StoreUnreadableError(str(self._place), str(exc)) from exc

    # --- opening ---------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not self._place.exists()
        if new:  # created by us first, so that it never exists with a wider mode
            os.close(os.open(self._place, os.O_CREAT | os.O_RDWR, 0o600))
            folder = os.open(self._place.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        db = sqlite3.connect(self._place, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        # A network file system has no shared memory for the WAL index and weaker promises on fsync.
        db.execute(f"PRAGMA journal_mode = {'DELETE' if self.is_network else 'WAL'}")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA trusted_schema = OFF")
        known = len(migrations("sqlite"))
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > known:
            raise StoreVersionError(str(self._place), version, known)
        if version == known:
            self._check_ours(db)
            return
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("BEGIN IMMEDIATE")
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreUnreadableError(str(self._place), "it is a database of another program")
            for number, script in enumerate(migrations("sqlite")[version:], start=version + 1):
                for statement in _statements(script):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
            if version == 0:
                db.execute(f"PRAGMA application_id = {self._application_id}")
            else:
                self._check_ours(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _check_ours(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA application_id").fetchone()[0]
        if found == self._application_id:
            return
        raise StoreUnreadableError(
            str(self._place),
            {
                _ENCRYPTED_ID: "it is encrypted, and the file 'encrypted' beside it, which holds the salt, is missing",
                _APPLICATION_ID: "it is not encrypted, and the file 'encrypted' beside it says that it is",
            }.get(found, "it is a database of another program"),
        )

    # --- reading ---------------------------------------------------------------------------------------------------

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        self._refuse_fork()
        with self._lock, self._translated():
            try:
                return self._db.execute(_Q[query], values).fetchall()
            except sqlite3.OperationalError as exc:
                if "decode" not in str(exc):
                    raise
            # Text that is no text: only damage or a stranger writes it, and its signature will say so.
            self._db.text_factory = lambda data: data.decode("utf-8", "replace")
            return self._db.execute(_Q[query], values).fetchall()

    def find(self, name: str) -> ExecutionRecord | None:
        return next(map(execution_of, self._rows("find_execution", name)), None)

    def get(self, execution_id: str) -> ExecutionRecord | None:
        return next(map(execution_of, self._rows("get_execution", execution_id)), None)

    def executions(self) -> list[ExecutionRecord]:
        return [execution_of(row) for row in self._rows("list_executions")]

    def due(self, now: float) -> list[ExecutionRecord]:
        found = [execution_of(row) for row in self._rows("due_executions", now)]
        return [record for record in found if not record.status.is_terminal]

    def claim(
        self,
        now: float,
        *,
        kind: str,
        limit: int,
        ttl: float,
        without: Iterable[str] = (),
        limits: Mapping[str, int] | None = None,
    ) -> Sequence[Claimed]:
        if limits:
            return super().claim(now, kind=kind, limit=limit, ttl=ttl, limits=limits)  # which says that it cannot
        left = set(without)
        found: list[Claimed] = []
        # First those that nobody holds: a long queue is not read whole for each that is taken from it.
        for row in self._rows("unheld_due", now, kind, limit + len(left)):
            record = execution_of(row)
            if record.execution_id not in left and len(found) < limit:
                left.add(record.execution_id)
                with suppress(LeaseHeldError):
                    found.append(Claimed(record, self.acquire(record.execution_id, ttl=ttl)))
        if len(found) < limit:
            found += super().claim(now, kind=kind, limit=limit - len(found), ttl=ttl, without=left)
        return found

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[StoredEvent]:
        return (event_of(row, self._signers) for row in self._rows("read_events", execution_id, after))

    def read_operation(self, execution_id: str, operation_id: str) -> list[StoredEvent]:
        return [event_of(row, self._signers) for row in self._rows("read_operation", operation_id, execution_id)]

    def find_cell(self, operation_id: str) -> list[StoredEvent]:
        return [event_of(row, self._signers) for row in self._rows("find_cell", operation_id)]

    def blob_refs(self) -> set[str]:
        return {row[0] for row in self._rows("blob_refs")}

    # --- writing ---------------------------------------------------------------------------------------------------

    def create(self, name: str, *, kind: str, at: float, details: Mapping[str, Any]) -> ExecutionRecord:
        text = json.dumps(dict(details), ensure_ascii=False)
        with self._transaction() as db:
            db.execute(_Q["create_execution"], (new_execution_id(), name, kind, at, Status.STARTED.value, text))
            return execution_of(db.execute(_Q["find_execution"], (name,)).fetchone())

    def append(
        self,
        execution_id: str,
        events: Sequence[Event],
        *,
        lease: Lease | None = None,
        after: int | None = None,
        durable: bool = True,
        payload_refs: Iterable[str] = (),
        status: Status | None = None,
        due: float | None | EllipsisType = ...,
    ) -> int:
        self._refuse_fork()
        return self._group.submit(Request(execution_id, events, lease, after, durable, payload_refs, status, due))

    def _commit(self, batch: list[Request]) -> None:
        with self._transaction(durable=any(request.durable for request in batch)) as db:
            for request in batch:
                try:
                    self._write(db, request)
                except (JournalConflictError, LeaseLostError, StoreError) as exc:
                    request.error = exc

    def _write(self, db: sqlite3.Connection, request: Request) -> None:
        request.last = self._advance(db, request)
        first = request.last - len(request.events) + 1
        for sequence, event in enumerate(request.events, start=first):
            db.execute(_Q["insert_event"], row_of(request.execution_id, sequence, event, self._signer))
        for address in request.refs:
            db.execute(_Q["insert_blob_ref"], (request.execution_id, request.last, address))
        if request.status is not None:
            db.execute(_Q["set_status"], (request.status.value, request.execution_id))
        if not isinstance(request.due, EllipsisType):
            db.execute(_Q["set_due"], (request.due, request.execution_id))

    def _advance(self, db: sqlite3.Connection, request: Request) -> int:
        """Take the numbers of the new events; the last one. Refused with the reason."""
        lease, execution, after = request.lease, request.execution_id, request.after
        token = None if lease is None else lease.token
        values = {"count": len(request.events), "execution": execution, "after": after, "token": token}
        advanced = db.execute(_Q["advance_sequence"], values).fetchone()
        if advanced is not None:
            return int(advanced[0])
        self._check_lease(db, execution, lease)
        found = db.execute(_Q["last_sequence"], (execution,)).fetchone()
        if found is None:
            raise StoreError(f"there is no execution {execution!r} in {self._place}")
        raise JournalConflictError(execution, after or 0, found[0])

    def update(
        self,
        execution_id: str,
        *,
        name: str | None = None,
        status: Status | None = None,
        due: float | None | EllipsisType = ...,
        details: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
    ) -> None:
        with self._transaction() as db:
            self._check_lease(db, execution_id, lease)
            if name is not None:
                try:
                    db.execute(_Q["set_name"], (name, execution_id))
                except sqlite3.IntegrityError as exc:
                    raise StoreError(f"there is an execution called {name!r} already") from exc
            if status is not None:
                db.execute(_Q["set_status"], (status.value, execution_id))
            if not isinstance(due, EllipsisType):
                db.execute(_Q["set_due"], (due, execution_id))
            if details is not None:
                db.execute(_Q["set_details"], (json.dumps(dict(details), ensure_ascii=False), execution_id))

    def forget(self, execution_id: str, operation_id: str | None = None) -> int:
        with self._transaction() as db:
            if operation_id is not None:
                return db.execute(_Q["forget_operation_events"], (execution_id, operation_id)).rowcount
            count = db.execute(_Q["forget_execution_events"], (execution_id,)).rowcount
            db.execute(_Q["forget_execution"], (execution_id,))
            return count

    def prune(self, execution_id: str, sequences: Iterable[int]) -> int:
        with self._transaction() as db:
            return sum(db.execute(_Q["prune_event"], (execution_id, number)).rowcount for number in sequences)

    def resign(self, execution_id: str, sequences: Iterable[int]) -> int:
        signer = self._signer
        if signer is None:
            raise StoreError("a journal without a key cannot sign")
        done = 0
        with self._transaction() as db:
            for number in sequences:
                row = db.execute(_Q["read_event"], (execution_id, number)).fetchone()
                if row is not None and is_event(row):
                    done += db.execute(_Q["sign_event"], (mac_of(row, signer), execution_id, number)).rowcount
        return done

    def complaints(self) -> list[str]:
        from durable_nb.journal._repair import complaints  # which reads journals itself

        return complaints(self._place)

    def shrink(self) -> None:
        with self._lock, self._translated():
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- leases ----------------------------------------------------------------------------------------------------

    def acquire(self, execution_id: str, *, ttl: float) -> Lease:
        owner = this_process()
        with self._transaction() as db:
            row = db.execute(_Q["read_lease"], (execution_id,)).fetchone()
            token = 1
            if row is not None:
                token = row[0] + 1
                self._refuse_if_held(execution_id, row)
            values = (execution_id, token, owner.label, owner.host, owner.pid, owner.started, time.time() + ttl)
            db.execute(_Q["write_lease"], values)
        return Lease(execution_id=execution_id, token=token, owner=owner.label)

    @staticmethod
    def _refuse_if_held(execution_id: str, row: tuple[Any, ...]) -> None:
        _, label, host, pid, started, expires_at = row
        if label is None:
            return
        alive = is_alive(host, pid, started)
        if alive or (alive is None and expires_at > time.time()):
            raise LeaseHeldError(execution_id, label)

    def renew(self, lease: Lease, *, ttl: float) -> None:
        with self._transaction(durable=False) as db:
            renewed = db.execute(_Q["renew_lease"], (time.time() + ttl, lease.execution_id, lease.token)).rowcount
        if not renewed:
            raise LeaseLostError(lease.execution_id, lease.token)

    def release(self, lease: Lease) -> None:
        with self._transaction(durable=False) as db:
            db.execute(_Q["release_lease"], (lease.execution_id, lease.token))

    @staticmethod
    def _check_lease(db: sqlite3.Connection, execution_id: str, lease: Lease | None) -> None:
        if lease is None:
            return
        row = db.execute(_Q["lease_token"], (execution_id,)).fetchone()
        if row is None or row[0] != lease.token:
            raise LeaseLostError(execution_id, lease.token)

    # --- plumbing --------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A durable transaction on the file itself, for repair."""
        with self._transaction() as db:
            yield db

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        self._refuse_fork()
        db = self._db
        with self._lock:
            try:
                self._set_durability(durable)
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as exc:
                raise StoreUnreadableError(str(self._place), str(exc)) from exc

    def _set_durability(self, durable: bool) -> None:
        if durable is not self._durable_now:
            level = ("EXTRA" if self.is_network else "FULL") if durable else "NORMAL"
            self._db.execute(f"PRAGMA synchronous = {level}")
            self._durable_now = durable

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise StoreUnreadableError(str(self._place), str(exc)) from exc

    def _refuse_fork(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError(
                f"a forked process does not write to the store {self._place}; only the process that opened it does"
            )

    def close(self) -> None:
        """Close the file; a forked child leaves the parent's connection alone."""
        if os.getpid() == self._pid:
            with self._lock:
                self._db.close()


def _statements(script: str) -> Iterator[str]:
    """The statements of a migration one by one: `executescript` would commit the transaction around it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
