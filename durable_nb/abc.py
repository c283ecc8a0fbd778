"""Ports: what the engine asks of the world. Each docstring is the promise an implementer must keep."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from types import EllipsisType
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.events import Event, ExecutionRecord, Status, StoredEvent
from durable_nb.exceptions import LeaseHeldError, StoreError, ValidationError

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write to one execution. `token` grows with every change of owner (a fencing token)."""

    execution_id: str
    token: int
    owner: str
    """For people: program, process and host."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An execution that is due, and the right to drive it."""

    record: ExecutionRecord
    lease: Lease


class Journal(ABC):
    """Append-only record of executions.

    When `append` returns with `durable=True`, power loss keeps the events. Events of one execution are totally ordered.
    """

    @abstractmethod
    def create(self, name: str, *, kind: str, at: float, details: Mapping[str, Any]) -> ExecutionRecord:
        """The execution called `name`, made if there is none; an existing one comes back unchanged."""

    @abstractmethod
    def find(self, name: str) -> ExecutionRecord | None:
        """The execution called `name`, or None."""

    @abstractmethod
    def get(self, execution_id: str) -> ExecutionRecord | None: ...

    @abstractmethod
    def executions(self) -> list[ExecutionRecord]:
        """All executions, oldest first."""

    @abstractmethod
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
        """Add events in one transaction; returns the last sequence number.

        Args:
            lease: fencing; `LeaseLostError` when another owner has taken the execution since.
            after: when given, `JournalConflictError` unless the last sequence number is this one.
            durable: False lets the commit skip the fsync: a crash of the machine may lose it, one of the process not.
            payload_refs: addresses of blobs that these events name, for garbage collection.
            status: the execution's new status, in the same transaction; None leaves it.
            due: the execution's next due time, in the same transaction; `...` leaves it.
        """

    @abstractmethod
    def read(self, execution_id: str, *, after: int = 0) -> Iterator[StoredEvent]:
        """Events in order, in one query; nothing for an unknown execution."""

    @abstractmethod
    def read_operation(self, execution_id: str, operation_id: str) -> list[StoredEvent]:
        """Events of an operation in one execution, in order."""

    @abstractmethod
    def find_cell(self, operation_id: str) -> list[StoredEvent]:
        """Events of a cell (sub-type `CELL`) in whatever executions have it, ordered by execution and sequence.

        Other operations, which are many more, are only ever looked for in their execution.
        """

    @abstractmethod
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
        """Change the execution's own row; an omitted field stays."""

    @abstractmethod
    def due(self, now: float) -> list[ExecutionRecord]:
        """Unfinished executions whose `due` is at or before `now`, earliest first."""

    @abstractmethod
    def forget(self, execution_id: str, operation_id: str | None = None) -> int:
        """Remove an execution, or one operation's events from it; returns how many events went."""

    @abstractmethod
    def prune(self, execution_id: str, sequences: Iterable[int]) -> int:
        """Remove single events, whose numbers are not given again; returns how many went."""

    @abstractmethod
    def acquire(self, execution_id: str, *, ttl: float) -> Lease:
        """Take the lease, or raise `LeaseHeldError` naming the live holder. A dead holder is replaced."""

    @abstractmethod
    def renew(self, lease: Lease, *, ttl: float) -> None:
        """Keep it; `LeaseLostError` when another owner has taken it."""

    @abstractmethod
    def release(self, lease: Lease) -> None: ...

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
        """Take up to `limit` due executions of a kind that nobody holds, earliest first; each comes with its lease.

        What another process is just taking is passed over, not waited for.

        Args:
            now: seconds since the epoch.
            kind: of the executions.
            limit: how many at most.
            ttl: seconds of their leases.
            without: executions that are not wanted.
            limits: of handlers: how many of their executions all that claim with limits may hold together.

        Raises:
            ValidationError: there are limits, and this journal cannot keep them.
        """
        if limits:
            raise ValidationError("limits of concurrency need a store on a server (postgresql://…)")
        found: list[Claimed] = []
        left = set(without)
        for record in self.due(now):
            if len(found) >= limit:
                break
            if record.kind == kind and record.execution_id not in left:
                with suppress(LeaseHeldError):
                    found.append(Claimed(record, self.acquire(record.execution_id, ttl=ttl)))
        return found

    def await_due(self, stop: threading.Event, timeout: float) -> None:
        """Return when something may have become due, when `stop` is set, or after `timeout` seconds."""
        stop.wait(timeout)

    @abstractmethod
    def blob_refs(self) -> set[str]:
        """Addresses that any event names."""

    def resign(self, execution_id: str, sequences: Iterable[int]) -> int:  # noqa: ARG002 - not every journal signs
        """Sign events as they stand, because a person has decided to trust them; returns how many.

        Rows that are no events are left as they are.
        """
        raise StoreError("this journal does not sign")

    def complaints(self) -> list[str]:
        """What the database itself finds wrong with what it keeps; empty when all is well."""
        return []

    def shrink(self) -> None:
        """Give the space of removed rows back; nobody else may have the journal open."""

    @abstractmethod
    def close(self) -> None: ...


class Share(ABC):
    """A process's share in a store: who else uses it, what must not be collected, how much there is."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[bool]:
        """Whether no other process has the store open; while True nobody else can open it."""

    @abstractmethod
    def hold(self, addresses: Iterable[str]) -> None:
        """This process has still to read these blobs: nobody may collect them until it has closed the store."""

    @abstractmethod
    def held(self) -> set[str]:
        """Blobs that living processes have still to read."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of everything in the store."""

    @abstractmethod
    def close(self) -> None:
        """Let the share go."""


class BlobPlace(ABC):
    """Where the blobs of a store on a server are. Far away: what is read is verified by whoever reads it."""

    @abstractmethod
    def find(self, address: str) -> int | None:
        """The size of a blob that is there to stay for whoever names it soon; None when there is none."""

    @abstractmethod
    def size(self, address: str) -> int | None:
        """The size of a blob; None when there is none."""

    @abstractmethod
    def write(self, address: str, parts: Sequence[Buffer]) -> None:
        """Keep bytes under their address, in place of what may be there. When it returns, power loss keeps them."""

    @abstractmethod
    def read(self, address: str) -> Iterator[bytes]:
        """The bytes of a blob, piece by piece. `MissingBlobError` when there is none."""

    @abstractmethod
    def addresses(self) -> Iterator[str]:
        """All blobs that are not condemned."""

    @abstractmethod
    def condemn(self, addresses: Sequence[str]) -> None:
        """Say that nothing names these blobs. One that was found a short time ago is passed over."""

    @abstractmethod
    def condemned(self) -> Iterator[tuple[str, float]]:
        """Condemned blobs, and since when (seconds since the epoch)."""

    @abstractmethod
    def spare(self, address: str) -> None:
        """Something names a condemned blob after all."""

    @abstractmethod
    def purge(self, address: str) -> int:
        """Remove a blob that is still condemned; returns its size, 0 when it stays."""

    @abstractmethod
    def delete(self, address: str) -> None: ...


class ObjectPlace(ABC):
    """An object store: whole objects under names, each written once."""

    @abstractmethod
    def write(self, name: str, parts: Sequence[Buffer]) -> None:
        """Keep an object. When it returns, every reader sees it whole."""

    @abstractmethod
    def read(self, name: str) -> Iterator[bytes]:
        """An object's bytes, piece by piece. `MissingBlobError` when there is none."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""


class BlobStore(ABC):
    """Content-addressed bytes. When `put` returns, power loss keeps them; a blob never changes."""

    written = 0
    """Bytes that were really written through this object, those of a blob that is being written included."""

    @abstractmethod
    def put(self, data: Buffer | Sequence[Buffer]) -> str:
        """Write once; returns the address. Bytes that are already there cost no write."""

    @abstractmethod
    def get(self, address: str) -> bytes:
        """Verified bytes. `DamagedBlobError` or `MissingBlobError` otherwise."""

    @abstractmethod
    def map(self, address: str) -> memoryview:
        """A private, writable, copy-on-write view of verified bytes; writing to it never reaches the store."""

    def settle(self, timeout: float | None = None) -> tuple[str, ...]:  # noqa: ARG002 - for stores that verify later
        """Wait until all that was mapped is verified; the damaged addresses. A store that verifies first has none."""
        return ()

    def check(self, address: str) -> int:
        """Read a blob where it is kept, past any cache; returns its size. Errors as those of `get`."""
        self.get(address)
        return self.size(address)

    @abstractmethod
    def has(self, address: str) -> bool: ...

    @abstractmethod
    def size(self, address: str) -> int: ...

    def vouches(self, address: str, size: int) -> bool:  # noqa: ARG002 - a store that cannot tell vouches for nothing
        """Whether a blob of this size (-1: any) is there, untouched since it was verified. Nothing is read."""
        return False

    @abstractmethod
    def addresses(self) -> Iterator[str]: ...

    @abstractmethod
    def delete(self, address: str) -> None: ...

    def trim(self) -> int:
        """Bring copies that this machine keeps of a store elsewhere into their size; returns the bytes given back."""
        return 0


class Markers(ABC):
    """Proof, outside the journal, that an at-most-once body was started. Never collected, never overwritten."""

    @abstractmethod
    def claim(self, execution: str, name: str, facts: Mapping[str, Any]) -> bool:
        """Create the marker exclusively and durably. False when it exists: the body must not start.

        One that a crash tore exists, and is completed with these facts.
        """

    @abstractmethod
    def read(self, execution: str, name: str) -> Mapping[str, Any] | None: ...

    @abstractmethod
    def called(self, name: str) -> Iterator[Mapping[str, Any]]:
        """The markers of this name in all executions: their facts, `execution` among them."""

    @abstractmethod
    def of(self, execution: str) -> Iterator[Mapping[str, Any]]:
        """The markers of one execution: their facts, `name` among them. One that was torn may be missing here."""

    @abstractmethod
    def clear(self, execution: str, name: str) -> None:
        """Only by a person's decision: the next attempt may start."""


class BytesCodec(ABC):
    """Bytes to bytes and back: compression, encryption. `name` is written beside the payload."""

    name: str

    @abstractmethod
    def encode(self, data: bytes) -> bytes: ...

    @abstractmethod
    def decode(self, data: bytes) -> bytes: ...


class Clock(ABC):
    """Wall time for deadlines that survive the process, and a way to wait that a signal can end."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    @abstractmethod
    def sleep(self, seconds: float) -> None: ...


class Line(ABC):
    """What a call that runs elsewhere has of the one who waits for it."""

    @abstractmethod
    def say(self, data: bytes) -> None:
        """Send bytes to the one who waits, in order. They are heard before the call is known to have ended."""

    @abstractmethod
    def wanted(self) -> bool:
        """Whether somebody still waits; cheap."""


class Executor(ABC):
    """Where calls run: threads of this process, or processes of a cluster.

    The branches of `map` and `parallel` run in threads of the engine's own pool. An executor that a config names gets
    the bodies of their operations: picklable calls, which share nothing with their caller.
    """

    place = "this process"
    """For people."""

    @abstractmethod
    def submit(
        self,
        call: Callable[..., Any],
        parts: Sequence[Buffer] = (),
        *,
        name: str = "",
        once: bool = False,
        hear: Callable[[bytes], None] | None = None,
    ) -> Future[Any]:
        """Start `call(*parts)`; never blocks for its end.

        The future ends with the result or what `call` raised; with `WorkerLostError` when the process that ran it was
        lost and it is not begun again; with `ExecutorError` when nothing can run it now. Cancelling it keeps a call
        from beginning, and asks one that has begun to stop.

        Args:
            call: to be called once or, where the process that ran it was lost, again in another one.
            parts: large bytes that it needs. Equal parts of several calls travel once to where they are used.
            name: for people, in whatever shows the work of the executor.
            once: never begin it a second time, whatever is lost.
            hear: gets what the call says while it runs, in another thread; the call is then `call(line, *parts)` with
                a `Line`. Of a call that is begun again, what both say is heard.
        """

    def key_of(self, part: Buffer) -> str:
        """What equal parts have in common."""
        import xxhash

        return f"{xxhash.xxh3_128_hexdigest(part)}-{memoryview(part).nbytes}"

    def let_go(self, keys: Collection[str]) -> None:  # noqa: B027, ARG002 - most executors hold nothing for later
        """These parts are not needed by later calls; those that run keep them."""

    @abstractmethod
    def shutdown(self) -> None:
        """Wait for what was submitted, and let go of what is held for it."""


class Commands(ABC):
    """What a button or a command line verb may ask of a running step."""

    @abstractmethod
    def cancel(self, operation_id: str) -> None: ...

    @abstractmethod
    def retry_now(self, operation_id: str) -> None: ...

    @abstractmethod
    def resolve(self, operation_id: str, decision: str) -> None: ...
