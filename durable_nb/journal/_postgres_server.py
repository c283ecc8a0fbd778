"""The connections to a PostgreSQL server, and what happens when one is cut.

A connection that breaks before COMMIT was sent has changed nothing: its work is done again on the next one. One that
breaks after that leaves a transaction whose outcome is not known. It is never guessed: what is done again has to be
safe to do twice, by a token or a claim that the first time has written into its rows (see `PostgresJournal`, `claim` of
markers), or because it sets what it sets. Doing it again waits for the locks of the first time, whose end decides.

`pg_xact_status` is not asked: a server that crashed gives numbers of transactions that it never wrote down to others.

While the server is away everybody waits for it for `patience` seconds, asking it again and again: the pool itself would
ask less and less often, and come late when it is back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from durable_nb.exceptions import (
    StoreError,
    StoreMissingError,
    StoreUnreadableError,
    StoreVersionError,
    ValidationError,
)
from durable_nb.journal._sql import migrations, queries
from durable_nb.settings import StoreUrl

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

__all__ = ["PostgresServer"]

T = TypeVar("T")
Work = Callable[["psycopg.Connection[Any]"], T]

PATIENCE = 30.0
"""Seconds that a call waits for a server that has gone away."""

_DEFAULT_SCHEMA = "durable_nb"
_CONNECTIONS = 8
_POOL = "durable_nb"
_POOL_SECONDS = 2.0
"""A pool that has given no connection for this long is not waited for: the server itself is asked."""

_Q = queries("postgres")

_SESSION = {
    # A client that is gone must not keep the row of an execution locked.
    "idle_in_transaction_session_timeout": "30s",
    # That one does not run while a pipeline has come in half: the server itself has to notice that nobody is there.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
    "lock_timeout": "25s",
    "default_transaction_isolation": "read\\ committed",
    "client_encoding": "UTF8",
}


def split_url(url: StoreUrl) -> tuple[str, str]:
    """What libpq is given, and the schema: `postgresql://host/db?schema=name` puts several stores into a database.

    Raises:
        ValidationError: the schema's name is none.
    """
    address, _, query = url.text.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    schema = dict(options).get("schema", _DEFAULT_SCHEMA)
    if not schema.isidentifier() or not schema.isascii() or len(schema) > 63 or schema.startswith("pg_"):
        raise ValidationError(f"{schema!r} in the store's URL is no name of a schema: use letters, digits and _")
    rest = urlencode([(key, value) for key, value in options if key != "schema"])
    return f"{address}?{rest}" if rest else address, schema.lower()


class PostgresServer:
    """One schema of one database.

    Args:
        url: `postgresql://user:password@host:port/database?schema=durable_nb`; what it leaves out comes from libpq's
            environment variables and password file.
        create: make the tables when they are missing.
        patience: seconds that a call waits for a server that has gone away, half a minute by default.

    Raises:
        StoreUnreadableError: the server cannot be reached or refuses; the schema is another program's.
        StoreMissingError: there is none, and `create` is False.
        StoreVersionError: a newer durable_nb wrote it.
    """

    def __init__(self, url: StoreUrl, *, create: bool = True, patience: float | None = None) -> None:
        _driver()
        self.place = str(url)
        self.patience = PATIENCE if patience is None else patience
        self._conninfo, self.schema = split_url(url)
        self.channel = f"durable_nb_{self.schema}"
        """Where workers are told that something is due."""
        session = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        self._options: dict[str, Any] = {
            "autocommit": True,
            "connect_timeout": 10,
            "application_name": "durable_nb",
            "options": f"{session} -c search_path={self.schema}",
            # A server that is cut off is noticed in half a minute, not in two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20000,
        }
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Any] | None = None
        self._prepare(create)

    # --- opening ---------------------------------------------------------------------------------------------------

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection, in autocommit mode, whose commits are on the server's disk."""
        import psycopg

        self.refuse_fork()
        connection = psycopg.connect(self._conninfo, **self._options)
        try:
            configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, create: bool) -> None:
        with self._translated():
            connection = self._first_connection()
            with connection:
                if connection.info.parameter_status("server_encoding") != "UTF8":
                    raise StoreUnreadableError(self.place, "the database is not in UTF8: create one that is")
                version = self._version(connection)
                known = len(migrations("postgres"))
                if version is None and not create:
                    raise StoreMissingError(self.place, f"there is no store in its schema {self.schema!r}")
                if version is not None and version > known:
                    raise StoreVersionError(self.place, version, known)
                if version != known:
                    self._migrate(connection)

    def _first_connection(self) -> psycopg.Connection[Any]:
        """A wrong address is told at once; a server that is just starting is waited for."""
        import psycopg

        deadline = time.monotonic() + self.patience
        while True:
            try:
                return self.connect()
            except psycopg.OperationalError as exc:
                starting = "starting up" in str(exc) or "shutting down" in str(exc) or "recovery" in str(exc)
                if not starting or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _version(self, connection: psycopg.Connection[Any]) -> int | None:
        found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [f"{self.schema}.store"]).fetchone()
        if found is None or not found[0]:
            return None
        row = connection.execute("SELECT format FROM store").fetchone()
        return None if row is None else int(row[0])

    def _migrate(self, connection: psycopg.Connection[Any]) -> None:
        from psycopg import sql

        with connection.transaction():
            # Two that open a new store at once: one makes it, the other waits and finds it.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [self.channel])
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.schema)))
            version = self._version(connection)
            if version is None:
                row = connection.execute(
                    "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace(%s)", [self.schema]
                ).fetchone()
                if row is None or row[0]:
                    raise StoreUnreadableError(self.place, f"its schema {self.schema!r} is another program's")
                connection.execute("CREATE TABLE store (format integer NOT NULL, facts text)")
                connection.execute("INSERT INTO store (format) VALUES (0)")
                version = 0
            for number, script in enumerate(migrations("postgres")[version:], start=version + 1):
                connection.execute(script.encode())
                connection.execute("UPDATE store SET format = %s", [number])

    # --- work ------------------------------------------------------------------------------------------------------

    def query(self, name: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own, which is safe to do twice; returns its rows."""
        return self.run(lambda connection: rows_of(connection.execute(_Q[name], params, binary=True)))

    def count(self, name: str, params: Sequence[Any] = ()) -> int:
        """Like `query`; returns how many rows were changed."""
        return self.run(lambda connection: connection.execute(_Q[name], params).rowcount)

    def transaction(self, work: Work[T], *, durable: bool = True) -> T:
        """`work` in a transaction; it has to be safe to do twice."""

        def whole(connection: psycopg.Connection[Any]) -> T:
            with connection.transaction():
                if not durable:
                    connection.execute("SET LOCAL synchronous_commit = off")
                return work(connection)

        return self.run(whole)

    def run(self, work: Work[T]) -> T:
        """`work` with a connection of the pool, again on another one as often as the connection is lost.

        Raises:
            StoreUnreadableError: the server has not come back in time, or it refuses.
        """
        import psycopg
        from psycopg_pool import PoolClosed, PoolTimeout

        deadline = 0.0
        with self._translated():
            while True:
                pool = self._open_pool()
                try:
                    connection = pool.getconn(timeout=_POOL_SECONDS)
                except PoolClosed:
                    continue  # by a thread that has found the server again
                except PoolTimeout:
                    deadline = deadline or time.monotonic() + self.patience
                    self.wait_for_server(deadline, pool)
                    continue
                try:
                    return work(connection)
                except psycopg.OperationalError as exc:
                    # Counted from the first failure: what was cut after a minute of work is done again too.
                    deadline = deadline or time.monotonic() + self.patience
                    if not is_passing(exc, connection) or time.monotonic() > deadline:
                        raise
                    lost = connection.closed
                finally:
                    pool.putconn(connection)
                if lost:
                    self.wait_for_server(deadline, pool)

    def wait_for_server(self, deadline: float, pool: ConnectionPool[Any] | None = None) -> None:
        """Return when the server answers, with a fresh pool in place of `pool`.

        Raises:
            psycopg.OperationalError: it does not until the deadline (of `time.monotonic`).
        """
        import psycopg

        pause = 0.02
        while True:
            try:
                self.connect().close()
                break
            except psycopg.OperationalError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 0.5)
        with self._lock:
            old = self._pool
            if pool is None or old is not pool:
                return
            self._pool = None
        pool.close(timeout=0)

    def _open_pool(self) -> ConnectionPool[Any]:
        from psycopg_pool import ConnectionPool

        self.refuse_fork()
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._conninfo,
                    kwargs=self._options,
                    configure=configure,
                    min_size=0,
                    max_size=_CONNECTIONS,
                    max_idle=60.0,
                    open=True,
                    name=_POOL,
                )
                logger = logging.getLogger("psycopg.pool")
                if not any(isinstance(each, _Quiet) for each in logger.filters):
                    logger.addFilter(_Quiet())
            return self._pool

    def listen(self) -> psycopg.Connection[Any]:
        """A connection that is told what is announced on the store's channel."""
        from psycopg import sql

        connection = self.connect()
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self.channel)))
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as exc:
            raise self.failure(exc) from exc

    def failure(self, exc: Exception) -> StoreError:
        """What went wrong, in one line."""
        text = str(exc).strip() or type(exc).__name__
        return StoreUnreadableError(self.place, text.splitlines()[0])

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process that opened the store: its connections are its parent's."""
        return os.getpid() != self._pid

    def refuse_fork(self) -> None:
        """A child that talked over its parent's connections would mix up both."""
        if self.is_forked:
            raise StoreError(
                f"a forked process does not use the store {self.place}; only the process that opened it does"
            )

    def close(self) -> None:
        """Close all connections; a forked child leaves its parent's alone."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and not self.is_forked:
            pool.close(timeout=1.0)


def configure(connection: psycopg.Connection[Any]) -> None:
    """A commit is on disk when it returns, whatever the server's default is; a stricter one stays."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )


def rows_of(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement; none of one that gives none."""
    return cursor.fetchall() if cursor.description is not None else []


_ENDED = ("08", "57P", "25P03")
"""Beginnings of the codes with which the server ends a connection."""


def is_passing(exc: psycopg.OperationalError, connection: psycopg.Connection[Any]) -> bool:
    """Whether the same work may succeed on the next try. A connection that is lost and does not know it is closed."""
    from psycopg import errors

    # Without a code it is no answer of the server: the client has lost it, in the middle of whatever it did.
    if connection.closed or exc.sqlstate is None or exc.sqlstate.startswith(_ENDED):
        connection.close()
        return True
    return isinstance(exc, errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable)


def _driver() -> None:
    try:
        import psycopg
        import psycopg_pool  # noqa: F401 - only whether it is there
    except ImportError as exc:
        raise ValidationError(
            f"a store in PostgreSQL needs psycopg ({exc.name} is missing): pip install 'durable_nb[postgres]'"
        ) from None
    del psycopg


class _Quiet(logging.Filter):
    """Lost connections of our own pool are dealt with here: the user of a kernel need not read of each."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is of another pool."""
        named = record.args if isinstance(record.args, tuple) else ()
        return not any(_POOL in (each, getattr(getattr(each, "_pool", None), "name", None)) for each in named)
