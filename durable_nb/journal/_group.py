"""Group commit: concurrent appends share a transaction, a single one pays no hand-over to another thread.

`submit` puts its request in a queue, then takes the lock. Whoever holds the lock commits all that is queued. A request
that must be refused (conflict, lost lease) is refused alone; the others of the batch commit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import EllipsisType
from uuid import UUID, uuid4

from durable_nb.abc import Lease
from durable_nb.events import Event, Status

__all__ = ["GroupCommit", "Request"]


class Request:
    """One `append` on its way into a transaction."""

    __slots__ = (
        "_token",
        "after",
        "done",
        "due",
        "durable",
        "error",
        "events",
        "execution_id",
        "last",
        "lease",
        "refs",
        "status",
        "unsure",
    )

    def __init__(
        self,
        execution_id: str,
        events: Sequence[Event],
        lease: Lease | None,
        after: int | None,
        durable: bool,
        refs: Iterable[str],
        status: Status | None,
        due: float | None | EllipsisType,
    ) -> None:
        self.execution_id, self.events, self.lease, self.after = execution_id, events, lease, after
        self.durable, self.refs, self.status, self.due = durable, tuple(refs), status, due
        self.done = False
        self.last = 0
        """The last number that its events were given, also by a transaction whose outcome is not known."""
        self.error: Exception | None = None
        self._token: UUID | None = None
        self.unsure = False
        """Whether it was in a transaction whose outcome is not known."""

    @property
    def token(self) -> UUID:
        """Tells this request's events from equal ones of another."""
        if self._token is None:
            self._token = uuid4()
        return self._token

    @property
    def first(self) -> int:
        """The number of its first event."""
        return self.last - len(self.events) + 1


class GroupCommit:
    """The queue in front of a transaction.

    Args:
        lock: held while a batch is committed.
        commit: commits a batch. It sets `error` on a request that is refused alone; what it raises is the answer to
            every request that has none.
    """

    def __init__(self, lock: threading.RLock, commit: Callable[[list[Request]], None]) -> None:
        self._lock, self._commit = lock, commit
        self._queue: deque[Request] = deque()

    def submit(self, request: Request) -> int:
        """Commit a request; returns the last sequence number."""
        self._queue.append(request)
        while not request.done:
            with self._lock:
                if not request.done:
                    self._commit_queued()
        if request.error is not None:
            raise request.error
        return request.last

    def _commit_queued(self) -> None:
        """Commit all that is queued. A failure of the transaction itself is every request's failure."""
        batch: list[Request] = []
        while self._queue:
            batch.append(self._queue.popleft())
        try:
            self._commit(batch)
        except Exception as exc:  # noqa: BLE001 - the transaction itself failed: that is each request's answer
            for request in batch:
                request.error = request.error or exc
        except BaseException:  # an interrupt of this thread: the others' requests go to the next leader
            self._queue.extend(batch)
            raise
        for request in batch:
            request.done = True
