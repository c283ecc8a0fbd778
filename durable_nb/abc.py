"""Ports: what the engine asks of the world. Each docstring is the promise an implementer must keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from durable_nb.events import Event, ExecutionRecord, Status, StoredEvent

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write to one execution. `token` grows with every change of owner (a fencing token)."""

    execution_id: str
    token: int
    owner: str
    """For people: program, process and host."""


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
    def read_operation(self, execution_id: str, operation_id: str) -> list[StoredEvent]: ...

    @abstractmethod
    def find_operation(self, operation_id: str) -> list[StoredEvent]:
        """Events of an operation id in whatever executions have it, ordered by execution and sequence."""

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

    @abstractmethod
    def blob_refs(self) -> set[str]:
        """Addresses that any event names."""

    @abstractmethod
    def close(self) -> None: ...


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


class Executor(ABC):
    """Where the branches of `map` and `parallel` run."""

    @abstractmethod
    def submit(self, call: Callable[[], Any]) -> Any:
        """Start `call`; returns a `concurrent.futures.Future`-like object."""

    @abstractmethod
    def shutdown(self) -> None: ...


class Commands(ABC):
    """What a button or a command line verb may ask of a running step."""

    @abstractmethod
    def cancel(self, operation_id: str) -> None: ...

    @abstractmethod
    def retry_now(self, operation_id: str) -> None: ...

    @abstractmethod
    def resolve(self, operation_id: str, decision: str) -> None: ...
