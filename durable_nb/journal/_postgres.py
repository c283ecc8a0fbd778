"""The journal in PostgreSQL.

How a commit works. Concurrent appends of a process share a transaction (see `_group`), on one connection that is theirs
alone. It locks the rows of its executions in one order, checks leases and numbers, writes and commits: two round trips,
however many appends. Reads, leases and the rest use the pool.

What is acknowledged is never lost and never doubled:
- A connection that is cut once COMMIT may have been sent leaves the outcome unknown. The batch is done again; with the
  rows locked, which waits for the end of the first time, the token on the first event of each append tells whether it
  is there already.
- `durable=False` commits without waiting for the disk, so a server that is killed may lose it although it was
  acknowledged. Until a later commit on the same connection has reached the disk, this process keeps such an append and
  writes it again, under its numbers, when the connection has been replaced and it is not there.

Leases go by the server's clock: whoever does not renew in time can be replaced, also by another host, and is refused by
the token from then on. A holder on the same host that is known to be dead is replaced at once.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from durable_nb.abc import Claimed, Journal, Lease
from durable_nb.events import Event, ExecutionRecord, Status, StoredEvent
from durable_nb.exceptions import (
    JournalConflictError,
    LeaseHeldError,
    LeaseLostError,
    StoreError,
    StoreUnreadableError,
)
from durable_nb.journal._group import GroupCommit, Request
from durable_nb.journal._ids import new_execution_id
from durable_nb.journal._owner import is_alive, this_process
from durable_nb.journal._postgres_server import PostgresServer, is_passing, rows_of
from durable_nb.journal._postgres_text import plain, storable
from durable_nb.journal._rows import Signer, event_of, execution_of, is_event, mac_of, row_of
from durable_nb.journal._sql import queries

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresJournal"]

_KEPT = 64
"""How many appends are kept for writing them again before the next commit waits for the disk."""

_STOP_SECONDS = 0.2
"""How long a wait goes on after somebody has asked for its end."""

_Q = queries("postgres")


class PostgresJournal(Journal):
    """Executions in one schema of a database. Safe for several threads, processes and hosts.

    Args:
        server: where it is.
        signer: makes the message authentication code of each row; without it rows are neither signed nor checked.
        trusts: signers of other keys whose rows are believed too.
    """

    def __init__(self, server: PostgresServer, *, signer: Signer | None = None, trusts: Iterable[Signer] = ()) -> None:
        self._server = server
        self._signer = signer
        self._signers = () if signer is None else (signer, *trusts)
        self._lock = threading.RLock()
        self._group = GroupCommit(self._lock, self._commit)
        self._writer: psycopg.Connection[Any] | None = None
        self._listener: psycopg.Connection[Any] | None = None
        self._kept: list[Request] = []
        """Acknowledged and perhaps not on the server's disk yet."""
        self._kept_by: psycopg.Connection[Any] | None = None
        """The connection that committed them: while it lives, the server has not lost them."""

    # --- reading ---------------------------------------------------------------------------------------------------

    def _executions(self, query: str, *values: Any) -> list[ExecutionRecord]:
        return [execution_of(plain(row)) for row in self._server.query(query, values)]

    def _events(self, query: str, *values: Any) -> list[StoredEvent]:
        return [event_of(plain(row), self._signers) for row in self._server.query(query, values)]

    def find(self, name: str) -> ExecutionRecord | None:
        return next(iter(self._executions("find_execution", storable(name))), None)

    def get(self, execution_id: str) -> ExecutionRecord | None:
        return next(iter(self._executions("get_execution", storable(execution_id))), None)

    def executions(self) -> list[ExecutionRecord]:
        return self._executions("list_executions")

    def due(self, now: float) -> list[ExecutionRecord]:
        return self._executions("due_executions", now)

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[StoredEvent]:
        return iter(self._events("read_events", storable(execution_id), after))

    def read_operation(self, execution_id: str, operation_id: str) -> list[StoredEvent]:
        return self._events("read_operation", *[storable(execution_id), *2 * [storable(operation_id)]])

    def find_cell(self, operation_id: str) -> list[StoredEvent]:
        return self._events("find_cell", storable(operation_id))

    def blob_refs(self) -> set[str]:
        return {row[0] for row in self._server.query("blob_refs")}

    # --- appending -------------------------------------------------------------------------------------------------

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
        self._server.refuse_fork()
        return self._group.submit(Request(execution_id, events, lease, after, durable, payload_refs, status, due))

    def _commit(self, batch: list[Request]) -> None:
        """Commit a batch, on as many connections as it takes."""
        import psycopg

        deadline = 0.0
        while True:
            for request in batch:
                request.error = None
            try:
                writer = self._writer = self._writer or self._server.connect()
                self._transaction(writer, batch)
                return
            except psycopg.OperationalError as exc:
                if self._writer is not None and not is_passing(exc, self._writer):
                    raise self._server.failure(exc) from exc
                writer_lost = self._writer is None or self._writer.closed
                deadline = deadline or time.monotonic() + self._server.patience
                self._give_up_late(batch, exc, deadline)
            except psycopg.Error as exc:
                raise self._server.failure(exc) from exc
            finally:
                self._leave_unfinished()
            if writer_lost:
                self._await_server(batch, deadline)

    def _leave_unfinished(self) -> None:
        """A connection in the middle of something (an error, an interrupt) is not used again."""
        from psycopg.pq import TransactionStatus

        writer = self._writer
        if writer is not None and writer.pgconn.transaction_status != TransactionStatus.IDLE:
            writer.close()
            self._writer = None

    def _await_server(self, batch: list[Request], deadline: float) -> None:
        import psycopg

        try:
            self._server.wait_for_server(deadline)
        except psycopg.OperationalError as exc:
            self._give_up_late(batch, exc, 0.0)

    def _give_up_late(self, batch: list[Request], exc: Exception, deadline: float) -> None:
        if time.monotonic() < deadline:
            return
        why = str(self._server.failure(exc))
        if any(request.unsure for request in batch):
            why += "; the connection broke in a commit: whether its records are there is not known"
        raise StoreUnreadableError(self._server.place, why) from exc

    def _transaction(self, writer: psycopg.Connection[Any], batch: list[Request]) -> None:
        # Of a new connection nobody knows whether the server still has what the old one committed without the disk.
        doubted = self._kept if self._kept_by is not writer else []
        requests = [*doubted, *batch]
        durable = bool(doubted) or len(self._kept) >= _KEPT or any(request.durable for request in batch)
        for request in doubted:
            request.unsure = True
        ids = sorted({storable(request.execution_id) for request in requests})
        with writer.pipeline():
            writer.execute("BEGIN")
            if not durable:
                writer.execute("SET LOCAL synchronous_commit = off")
            locked = writer.execute(_Q["lock_executions"], [ids]).fetchall()
            rows = {plain(row)[0]: _Execution(row[1], row[2]) for row in locked}
            for request in doubted:
                self._place(writer, rows.get(request.execution_id), request)
            # What was acknowledged is lost, and its numbers are others' now: who builds on it has to read again.
            lost = {request.execution_id: request.error for request in doubted if request.error is not None}
            for request in batch:
                request.error = lost.get(request.execution_id)
                if request.error is None:
                    self._place(writer, rows.get(request.execution_id), request)
            accepted = [request for request in requests if request.error is None]
            for request in accepted:
                self._write(writer, request, rows[request.execution_id])
            for execution_id, row in rows.items():
                row.write(writer, execution_id)
            if any(request.due is not ... and _is_now(request.due) for request in accepted):
                writer.execute("SELECT pg_notify(%s, '')", [self._server.channel])
            # From here on the outcome is known only by the answer.
            for request in accepted:
                request.unsure = True
            writer.execute("COMMIT")
        for request in accepted:
            request.unsure = False
        if durable:
            self._kept, self._kept_by = [], None
        else:
            self._kept += [request for request in accepted if request.events]
            self._kept_by = writer

    def _place(self, writer: psycopg.Connection[Any], row: _Execution | None, request: Request) -> None:
        """Give a request its numbers, or an error."""
        request.error = None
        if row is None:
            request.error = StoreError(f"there is no execution {request.execution_id!r} in {self._server.place}")
            return
        if request.unsure and request.events and request.last > 0 and request.first <= row.last:
            found = writer.execute(_Q["token_at"], [storable(request.execution_id), request.first]).fetchall()
            if found and found[0][0] == request.token:
                row.done.add(request.token)
                return
            if request in self._kept:
                request.error = JournalConflictError(request.execution_id, request.first - 1, row.last)
                return
            if not found:
                request.error = StoreError(
                    f"the connection to {self._server.place} broke in a commit, and record {request.first} of "
                    f"execution {request.execution_id!r} has been removed since: was it this one? Nobody knows"
                )
                return
        lease = request.lease
        if lease is not None and lease.token != row.token:
            request.error = LeaseLostError(request.execution_id, lease.token)
        elif request.after is not None and request.after != row.last:
            request.error = JournalConflictError(request.execution_id, request.after, row.last)
        else:
            row.last += len(request.events)
            request.last = row.last

    def _write(self, writer: psycopg.Connection[Any], request: Request, row: _Execution) -> None:
        if request.token in row.done:
            return
        row.change(request)
        token: uuid.UUID | None = request.token
        for sequence, event in enumerate(request.events, start=request.first):
            values = row_of(request.execution_id, sequence, event, self._signer)
            writer.execute(_Q["insert_event"], [*map(storable, values), token], binary=True)
            token = None
        for address in request.refs:
            writer.execute(_Q["insert_blob_ref"], [storable(request.execution_id), request.last, address])
        if request.refs:
            writer.execute(_Q["spare_named"], [list(request.refs)])

    # --- writing ---------------------------------------------------------------------------------------------------

    def create(self, name: str, *, kind: str, at: float, details: Mapping[str, Any]) -> ExecutionRecord:
        found = self.find(name)
        if found is not None:
            return found
        text = storable(json.dumps(dict(details), ensure_ascii=False))
        handler = details.get("handler")
        queue = storable(handler) if isinstance(handler, str) else None
        values = [new_execution_id(), storable(name), kind, queue, float(at), Status.STARTED.value, text]
        made = self._server.query("create_execution", values)
        if made:
            return execution_of(plain(made[0]))
        found = self.find(name)  # by another process in this moment, or by our own try whose answer was lost
        if found is None:
            raise StoreError(f"the execution {name!r} was removed while it was made")
        return found

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
        from psycopg import errors

        values = {
            "execution_id": storable(execution_id),
            "name": storable(name),
            "status": None if status is None else status.value,
            "sets_due": not isinstance(due, EllipsisType),
            "due": None if isinstance(due, EllipsisType) else due,
            "details": None if details is None else storable(json.dumps(dict(details), ensure_ascii=False)),
        }

        def work(db: psycopg.Connection[Any]) -> None:
            found = rows_of(db.execute(_Q["lock_executions"], [[storable(execution_id)]]))
            if lease is not None and (not found or found[0][2] != lease.token):
                raise LeaseLostError(execution_id, lease.token)
            db.execute(_Q["update_execution"], values)
            if _is_now(due):
                db.execute("SELECT pg_notify(%s, '')", [self._server.channel])

        try:
            self._server.transaction(work)
        except StoreUnreadableError as exc:
            if isinstance(exc.__cause__, errors.UniqueViolation):
                raise StoreError(f"there is an execution called {name!r} already") from exc
            raise

    def forget(self, execution_id: str, operation_id: str | None = None) -> int:
        def work(db: psycopg.Connection[Any]) -> int:
            db.execute(_Q["lock_executions"], [[storable(execution_id)]])
            if operation_id is not None:
                values = [storable(execution_id), *2 * [storable(operation_id)]]
                return db.execute(_Q["forget_operation_events"], values).rowcount
            count = db.execute(_Q["forget_execution_events"], [storable(execution_id)]).rowcount
            db.execute(_Q["forget_execution"], [storable(execution_id)])
            return count

        return self._server.transaction(_Counted(work))

    def prune(self, execution_id: str, sequences: Iterable[int]) -> int:
        values = [storable(execution_id), list(sequences)]
        return self._server.transaction(_Counted(lambda db: db.execute(_Q["prune_events"], values).rowcount))

    def resign(self, execution_id: str, sequences: Iterable[int]) -> int:
        signer = self._signer
        if signer is None:
            raise StoreError("a journal without a key cannot sign")
        numbers = list(sequences)

        def work(db: psycopg.Connection[Any]) -> int:
            found = rows_of(db.execute(_Q["read_some"], [storable(execution_id), numbers], binary=True))
            good = [row for row in map(plain, found) if is_event(row)]
            for row in good:
                db.execute(_Q["sign_event"], [mac_of(row, signer), storable(row[0]), row[1]])
            return len(good)

        return self._server.transaction(work)

    # --- leases ----------------------------------------------------------------------------------------------------

    def acquire(self, execution_id: str, *, ttl: float) -> Lease:
        owner = this_process()
        values = {**_owner_values(ttl), "execution_id": storable(execution_id)}
        while True:
            taken = self._server.query("acquire", values)
            if taken:
                return Lease(execution_id=execution_id, token=taken[0][0], owner=owner.label)
            found = self._server.query("holder", [storable(execution_id)])
            if not found:
                raise StoreError(f"there is no execution {execution_id!r} in {self._server.place}")
            label, host, pid, started, claim = found[0]
            if label is None:
                continue  # released in this moment
            if is_alive(host, pid, started) is not False:
                raise LeaseHeldError(execution_id, label)
            self._server.query("evict", [storable(execution_id), claim])

    def renew(self, lease: Lease, *, ttl: float) -> None:
        values = [ttl, storable(lease.execution_id), lease.token]
        if not self._server.query("renew", values):
            raise LeaseLostError(lease.execution_id, lease.token)

    def release(self, lease: Lease) -> None:
        self._server.count("release", [storable(lease.execution_id), lease.token])

    # --- work that is due ------------------------------------------------------------------------------------------

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
        values = {"now": now, "kind": kind, "without": [storable(execution_id) for execution_id in without]}
        rows = self._claim(values, limit, ttl, limits)
        if len(rows) < limit and self._evict_dead(now, kind):
            rows += self._claim(values, limit - len(rows), ttl, limits)
        label = this_process().label
        found = []
        for row in rows:
            record = execution_of(plain(row))
            found.append(Claimed(record, Lease(execution_id=record.execution_id, token=row[7], owner=label)))
        return sorted(found, key=lambda claimed: claimed.record.due or 0.0)

    def _claim(
        self, values: dict[str, Any], limit: int, ttl: float, limits: Mapping[str, int] | None
    ) -> list[tuple[Any, ...]]:
        chosen = {**values, **_owner_values(ttl)}
        if limits:
            return self._server.transaction(lambda db: self._claim_limited(db, limits, limit, chosen))
        return self._server.query("claim_due", {**chosen, "limit": limit, "queue": None, "other_queues": []})

    def _evict_dead(self, now: float, kind: str) -> bool:
        """Take the leases of dead processes of this host away, whose end need not be waited for."""
        host = this_process().host
        dead = [
            (execution_id, claim)
            for execution_id, pid, started, claim in self._server.query("neighbours", [host, now, kind])
            if is_alive(host, pid, started) is False
        ]
        for execution_id, claim in dead:
            self._server.query("evict", [execution_id, claim])
        return bool(dead)

    def _claim_limited(
        self, db: psycopg.Connection[Any], limits: Mapping[str, int], limit: int, values: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        """From each limited queue what it has room for, then from the others."""
        names = [storable(name) for name in limits]
        db.execute(_Q["lock_limits"], [self._server.channel])
        held = dict(rows_of(db.execute(_Q["count_held"], [names, values["claim"]])))
        found: list[tuple[Any, ...]] = []
        for name, most in zip(names, limits.values(), strict=True):
            room = min(most - held.get(name, 0), limit - len(found))
            if room > 0:
                chosen = {**values, "limit": room, "queue": name, "other_queues": []}
                found += rows_of(db.execute(_Q["claim_due"], chosen, binary=True))
        if len(found) < limit:
            rest = {**values, "limit": limit - len(found), "queue": None, "other_queues": names}
            found += rows_of(db.execute(_Q["claim_due"], rest, binary=True))
        return found

    def await_due(self, stop: threading.Event, timeout: float) -> None:
        import psycopg

        until = time.monotonic() + timeout
        try:
            if self._listener is None:
                # What came before nobody has told us: the caller looks once more, and we listen from now on.
                self._listener = self._server.listen()
                return
            while not stop.is_set() and (left := until - time.monotonic()) > 0:
                for _ in self._listener.notifies(timeout=min(left, _STOP_SECONDS), stop_after=1):
                    return
        except psycopg.OperationalError:
            self._listener = None
            stop.wait(max(0.0, until - time.monotonic()))  # the next look at the store waits for the server

    # --- plumbing --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what is the journal's alone; the server is closed by whoever opened it."""
        if self._server.is_forked:
            return
        with self._lock:
            for connection in (self._writer, self._listener):
                if connection is not None:
                    connection.close()
            self._writer = self._listener = None


class _Execution:
    """The row of an execution while a batch is written: locked, and changed once at the end."""

    __slots__ = ("_changed", "done", "due", "last", "sets_due", "status", "token")

    def __init__(self, last: int, token: int) -> None:
        self.last, self.token = last, token
        self.status: Status | None = None
        self.due: float | None = None
        self.sets_due = self._changed = False
        self.done: set[uuid.UUID] = set()
        """Requests that turned out to be committed already."""

    def change(self, request: Request) -> None:
        """What a request wants of the row."""
        if request.status is not None:
            self.status = request.status
        if not isinstance(request.due, EllipsisType):
            self.due, self.sets_due = request.due, True
        self._changed = self._changed or bool(request.events) or self.sets_due or self.status is not None

    def write(self, writer: psycopg.Connection[Any], execution_id: str) -> None:
        """Write the row, if anything has changed."""
        if self._changed:
            values = {
                "execution_id": storable(execution_id),
                "last": self.last,
                "status": None if self.status is None else self.status.value,
                "sets_due": self.sets_due,
                "due": self.due,
            }
            writer.execute(_Q["advance"], values)


def _owner_values(ttl: float) -> dict[str, Any]:
    owner = this_process()
    return {
        "owner": owner.label,
        "host": owner.host,
        "pid": owner.pid,
        "started": owner.started,
        "claim": uuid.uuid4().hex,
        "ttl": float(ttl),
    }


def _is_now(due: float | None | EllipsisType) -> bool:
    """Whether somebody may be waiting for this: what is due later is found by looking."""
    return not isinstance(due, EllipsisType) and due is not None and due <= time.time()


class _Counted:
    """Work that counts what it removes; done a second time it would count nothing."""

    def __init__(self, work: Callable[[psycopg.Connection[Any]], int]) -> None:
        self._work = work
        self._count = 0

    def __call__(self, db: psycopg.Connection[Any]) -> int:
        self._count = max(self._count, self._work(db))
        return self._count
