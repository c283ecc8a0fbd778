"""What else a store in PostgreSQL keeps there: at-most-once markers, blobs, and who has still to read some."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from durable_nb.abc import BlobPlace, Buffer, Markers, ObjectPlace, Share
from durable_nb.exceptions import MissingBlobError, StoreError
from durable_nb.journal._postgres_server import PostgresServer
from durable_nb.journal._postgres_text import plain, storable
from durable_nb.journal._sql import queries

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresBlobs", "PostgresMarkers", "PostgresShare"]

_Q = queries("postgres")

_CHUNK = 1 << 20
"""Bytes in one row: the server reads and sends rows whole."""

_AT_ONCE = 8
"""Rows that are fetched in one go."""

_OBJECT_FROM = 256 * 1024
"""Bytes from which on a blob goes to the object store, where there is one."""

_STALE_PAUSES = (0.05, 0.2, 0.75)
"""Seconds between looks at an object that the row names and the object store does not show."""

_YOUNG_SECONDS = 3600.0
"""A blob that was found or written in this time is not condemned: the row that names it may be on its way."""

_HOLD_SECONDS = 7 * 86400.0
"""How long a session may keep blobs that it has still to read; it gives them back when it closes the store."""


class PostgresMarkers(Markers):
    """At-most-once markers as rows of the table `started`, which nothing but a person's decision removes."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def claim(self, execution: str, name: str, facts: Mapping[str, Any]) -> bool:
        claim = uuid.uuid4().hex
        text = storable(json.dumps(dict(facts), ensure_ascii=False))
        values = [storable(execution), storable(name), text, claim]
        if self._server.count("claim_start", values):
            return True
        # There already: of somebody else, or by our own try whose answer was lost.
        return self._server.query("start_claim", values[:2]) == [(claim,)]

    def read(self, execution: str, name: str) -> Mapping[str, Any] | None:
        found = self._server.query("read_start", [storable(execution), storable(name)])
        return _facts(found[0]) if found else None

    def called(self, name: str) -> Iterator[Mapping[str, Any]]:
        return iter([_facts(row) for row in self._server.query("starts_called", [storable(name)])])

    def of(self, execution: str) -> Iterator[Mapping[str, Any]]:
        return iter([_facts(row) for row in self._server.query("starts_of", [storable(execution)])])

    def clear(self, execution: str, name: str) -> None:
        self._server.count("clear_start", [storable(execution), storable(name)])


def _facts(row: tuple[Any, ...]) -> dict[str, Any]:
    execution, name, text = plain(row)
    found: Any = {}
    with contextlib.suppress(ValueError, RecursionError):  # damaged: it exists, and that is what counts
        found = json.loads(text)
    return {**(found if isinstance(found, dict) else {}), "execution": execution, "name": name}


class PostgresShare(Share):
    """A process's share in a store that any number of hosts may use: nobody can know to be alone."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._session = uuid.uuid4().hex
        self._holds = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        yield False

    def hold(self, addresses: Iterable[str]) -> None:
        chosen = list(addresses)
        if chosen:
            self._holds = True
            self._server.count("hold", [self._session, chosen, _HOLD_SECONDS])

    def held(self) -> set[str]:
        return {row[0] for row in self._server.query("held")}

    def nbytes(self) -> int:
        """Bytes on the server's disk; blobs in an object store are not counted."""
        return int(self._server.query("nbytes", [self._server.schema])[0][0])

    def close(self) -> None:
        """Give back what was held, and close the connections to the server."""
        if self._holds and not self._server.is_forked:
            self._holds = False
            # A server that is away just now keeps the list until it runs out.
            with contextlib.suppress(StoreError):
                self._server.count("let_go", [self._session])
        self._server.close()


class PostgresBlobs(BlobPlace):
    """Blobs in rows; large ones in an object store, if there is one. Every blob has its row here in any case.

    Args:
        server: where the rows are.
        objects: keeps the bytes of blobs from 256 KiB on; None: the database keeps them all.
    """

    def __init__(self, server: PostgresServer, objects: ObjectPlace | None = None) -> None:
        self._server = server
        self._objects = objects

    def find(self, address: str) -> int | None:
        found = self._server.query("touch_blob", {"address": address})
        return found[0][0] if found else None

    def size(self, address: str) -> int | None:
        found = self._server.query("blob_row", [address])
        return found[0][0] if found else None

    def write(self, address: str, parts: Sequence[Buffer]) -> None:
        size = sum(memoryview(part).nbytes for part in parts)
        name: str | None = None
        if self._objects is not None and size >= _OBJECT_FROM:
            name = f"{address[:2]}/{address}-{uuid.uuid4().hex[:12]}"
            self._objects.write(name, parts)  # before the row that names it

        def work(db: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
            # All in one go, and chunks after it where there are many. Who writes the same large blob is waited for.
            with db.transaction():
                with db.pipeline():
                    db.execute("SET LOCAL lock_timeout = 0")
                    replaced = db.execute(_Q["lock_blob"], [address])
                    db.execute(_Q["add_blob"], [address, size, name])
                    db.execute(_Q["clear_chunks"], [address])
                    if name is None and size <= _CHUNK:
                        for chunk in _chunks(parts):
                            db.execute(_Q["insert_chunk"], [address, 0, chunk])
                    found = replaced.fetchall()
                if name is None and size > _CHUNK:
                    with db.cursor().copy(_Q["copy_chunks"]) as copy:
                        copy.set_types(["text", "int4", "bytea"])
                        for number, chunk in enumerate(_chunks(parts)):
                            copy.write_row([address, number, chunk])
            return found

        for (before,) in self._server.run(work):
            if before is not None and before != name and self._objects is not None:
                # The blob is written: what it replaces may stay in a bucket that refuses just now.
                with contextlib.suppress(StoreError):
                    self._objects.delete(before)

    def read(self, address: str) -> Iterator[bytes]:
        for pause in (*_STALE_PAUSES, None):
            found = self._server.query("blob_row", [address])
            if not found:
                raise MissingBlobError(address)
            size, name = found[0]
            if name is None:
                yield from self._chunks_of(address, size)
                return
            pieces = self._elsewhere(address).read(name)
            try:
                first = next(pieces, b"")
            except MissingBlobError:
                # Written anew under another name since the row was read; or the object store does not show it yet.
                if pause is None:
                    raise
                time.sleep(pause)
                continue
            yield first
            yield from pieces
            return

    def _chunks_of(self, address: str, size: int) -> Iterator[bytes]:
        for start in range(0, -(-size // _CHUNK), _AT_ONCE):
            for (data,) in self._server.query("read_chunks", [address, start, start + _AT_ONCE]):
                yield data

    def _elsewhere(self, address: str) -> ObjectPlace:
        if self._objects is None:
            raise StoreError(f"blob {address[:16]}… is in an object store: set DURABLE_NB_BLOBS to where that is")
        return self._objects

    def addresses(self) -> Iterator[str]:
        return iter([row[0] for row in self._server.query("list_blobs")])

    def condemn(self, addresses: Sequence[str]) -> None:
        self._server.count("condemn_blobs", [list(addresses), _YOUNG_SECONDS])

    def condemned(self) -> Iterator[tuple[str, float]]:
        return iter([(row[0], row[1]) for row in self._server.query("condemned_blobs")])

    def spare(self, address: str) -> None:
        self._server.count("spare_blob", [address])

    def purge(self, address: str) -> int:
        return self._remove("purge_blob", address)

    def delete(self, address: str) -> None:
        self._remove("delete_blob", address)

    def _remove(self, query: str, address: str) -> int:
        removed = self._server.query(query, [address])
        if not removed:
            return 0
        size, name = removed[0]
        if name is not None and self._objects is not None:
            self._objects.delete(name)
        return int(size)


def _chunks(parts: Sequence[Buffer]) -> Iterator[bytes]:
    """The joined parts in pieces of `_CHUNK` bytes."""
    waiting: list[memoryview] = []
    room = _CHUNK
    for part in parts:
        view, start = memoryview(part).cast("B"), 0
        while start < view.nbytes:
            piece = view[start : start + room]
            waiting.append(piece)
            start += piece.nbytes
            room -= piece.nbytes
            if not room:
                yield b"".join(waiting)
                waiting, room = [], _CHUNK
    if waiting:
        yield b"".join(waiting)
