"""The bodies of a batch on an executor.

What travels is decided by what a local branch promises: replay, retries, waits, completion rules and errors are those
of the branch, which goes on running here, over the journal. Away go the *bodies*: the functions that its operations
call (steps, checks, submitters), and the whole function of a branch that never looks at its context. A body is begun
after everything that must be on disk before it (the start of an at-most-once attempt, and its marker) is there, and
what it returns is recorded by the branch that asked for it.

The alternative, a context in the worker that asks the driver for every operation, would let the code between operations
run there too. It would also make each operation a conversation between two processes that may both be lost, with a
suspension, a retry or a closed scope in the middle of it. Code between operations is run again at every replay and is
to be light; what is heavy belongs into a step, and a step travels.

A closed batch cancels what it gave away: a body that has not begun never does, one that has is asked to stop, and
nothing of it is recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, NoReturn

from durable_nb.abc import Executor
from durable_nb.exceptions import BackgroundThreadError, ExecutorError, WorkerLostError
from durable_nb.sdk._remote_body import Body, send, take

if TYPE_CHECKING:
    from durable_nb.sdk.operation._frame import Frame


class Calls:
    """What the branches of a batch have given to an executor, those of batches inside it included."""

    def __init__(self, executor: Executor, label: str, around: Calls | None = None, *, owns: bool = False) -> None:
        self.executor = executor
        self.label = label
        self._owns = owns
        self.sent = 0
        """How many bodies were submitted, ever."""
        self._around = around
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._closed = False

    def prepare(
        self,
        frame: Frame,
        func: Callable[..., Any],
        argument: Any = None,
        attempt: int = 1,
        timeout: float = 0.0,
        *,
        once: bool = False,
        name: str | None = None,
    ) -> Callable[[], Any]:
        """What runs `func` on the executor when it is called, and waits for its end.

        Args:
            frame: of the operation.
            func: the user's function.
            argument: its argument here; in the worker it gets one of the same type. None: it has none.
            attempt: counted from 1.
            timeout: seconds that the body may take; 0 is no limit.
            once: it must not be begun a second time, whatever is lost.
            name: for people; None is the operation's, or that of the batch.

        Raises:
            RemoteBodyError: the function holds a context.
            CannotTravelError: it cannot be sent.
        """
        name = name or frame.identifier.name or self.label
        kind = None if argument is None else type(argument)
        call, parts = send(Body(func, kind, attempt, timeout, name), self.executor.place)
        task = f"{name}-{frame.identifier.operation_id[:12]}-{attempt}"

        def run() -> Any:
            future = self._submit(frame, lambda: self.executor.submit(call, parts, name=task, once=once))
            answer = self._answer(frame, future, name)
            value, error = take(answer, name, self.executor.place, _logger_of(argument, frame))
            if error is not None:
                raise error
            return value

        return run

    def cancel(self) -> None:
        """Give up what is not done: the batch is over."""
        with self._lock:
            self._closed = True
            futures, self._open = self._open, set()
        for future in futures:
            future.cancel()
        if self._owns:
            self.executor.shutdown()

    def _submit(self, frame: Frame, start: Callable[[], Future[Any]]) -> Future[Any]:
        frame.scope.check(frame.identifier.operation_id)
        try:
            future = start()
        except ExecutorError as error:
            _give_up(frame, error)
        self._hold(future)
        return future

    def _hold(self, future: Future[Any]) -> None:
        calls: Calls | None = self
        while calls is not None:
            with calls._lock:
                calls.sent += 1
                closed = calls._closed
                if not closed:
                    calls._open.add(future)
            if closed:
                future.cancel()
            future.add_done_callback(calls._drop)
            calls = calls._around

    def _drop(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def _answer(self, frame: Frame, future: Future[Any], name: str) -> bytes:
        try:
            error = future.exception()
        except CancelledError:
            frame.scope.check(frame.identifier.operation_id)
            _give_up(frame, ExecutorError(self.executor.place, f"the task of {name!r} was cancelled"))
        if isinstance(error, ExecutorError):
            _give_up(frame, error)
        if isinstance(error, WorkerLostError):
            raise WorkerLostError(name, self.executor.place, error.why)
        if error is not None:
            raise error
        answer: bytes = future.result()
        return answer


def _give_up(frame: Frame, error: ExecutorError) -> NoReturn:
    """End the invocation, not the operation: the execution stays as it is, and can be resumed."""
    if frame.state.modes.blocks:
        raise error
    raise BackgroundThreadError(str(error), error) from error


def _logger_of(argument: Any, frame: Frame) -> Any:
    return getattr(argument, "logger", frame.logger)


__all__ = ["Calls"]
