"""Calls as tasks of a Dask cluster.

One task is one call; its key begins with the name of the step, so Dask's dashboard groups tasks by steps. A task whose
worker is lost is begun again on another one by Dask, until its limit (`distributed.scheduler.allowed-failures`) says
that the task itself is what kills workers. A call that must not begin twice is guarded by a token (see `_worker`).

Large parts are scattered: equal bytes are sent to the cluster once, and workers get them from each other. Dask cannot
make lost parts again, so the call whose part is lost sends it and its task again.

A future's life is one coroutine on the client's loop. The connection is made at the first call, once per address and
process.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from typing import Any

from durable_nb.abc import Buffer, Executor
from durable_nb.distributed._worker import ALREADY_BEGUN, Raised, run, stop
from durable_nb.exceptions import ExecutorError, ValidationError, WorkerLostError

__all__ = ["DaskExecutor", "disconnect"]

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
_KEPT_PARTS = 8
"""How many parts stay on the cluster when no call needs them, for the next call with the same."""
_SENDINGS = 5
"""How often a call whose parts are lost is sent before that counts as the cluster's failure."""
_MESSAGES = 1000
"""How many messages of a call wait in the scheduler at most."""
_GATHER_SECONDS = 0.05
"""How long calls that are cancelled together are collected, to be stopped by one message."""

_clients: dict[tuple[int, str], Any] = {}
_clients_lock = threading.Lock()


def disconnect(where: str) -> None:
    """Close this process's connection to the scheduler at `dask://host:port`; the next call makes a new one."""
    with _clients_lock:
        client = _clients.pop((os.getpid(), where), None)
    if client is not None:
        client.close()


class DaskExecutor(Executor):
    """Runs calls on a Dask cluster.

    Args:
        where: `dask://host:port` of the scheduler, `dask://` for the one that Dask's settings name, or a
            `distributed.Client`, which stays the caller's.
        kept: how many parts stay on the cluster for later calls; None: all, until `let_go` or the end of the client.
    """

    def __init__(self, where: Any, *, kept: int | None = _KEPT_PARTS) -> None:
        if not isinstance(where, str):
            if where.asynchronous:
                raise ValidationError(
                    "an asynchronous Dask client runs on the loop that waits for the batch: give the scheduler's "
                    "address (dask://host:port) instead"
                )
            self.place = f"Dask at {_address(where)}"
        else:
            self.place = f"Dask at {where}"
        self._where, self._kept = where, kept
        self._lock = threading.Lock()
        self._calls: set[Future[Any]] = set()
        self._parts: OrderedDict[str, Any] = OrderedDict()
        self._connecting = threading.Lock()
        self._refused: tuple[float, ExecutorError] | None = None
        self._stopping: list[str] = []
        self._stopper: asyncio.Task[None] | None = None
        self._hanging_up: set[asyncio.Task[None]] = set()

    # --- the port --------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Make the connection now.

        Raises:
            ExecutorError: no scheduler answers.
        """
        self._client()

    def submit(
        self,
        call: Callable[..., Any],
        parts: Sequence[Buffer] = (),
        *,
        name: str = "",
        once: bool = False,
        hear: Callable[[bytes], None] | None = None,
    ) -> Future[Any]:
        """As `Executor.submit`.

        Raises:
            ExecutorError: no scheduler answers.
        """
        client = self._client()
        pairs = [(self.key_of(part), part) for part in parts]
        coroutine = self._perform(client, call, pairs, name or "call", once=once, hear=hear)
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, client.loop.asyncio_loop)
        with self._lock:
            self._calls.add(future)
        future.add_done_callback(self._forget)
        return future

    def let_go(self, keys: Collection[str]) -> None:
        for key in keys:
            self._parts.pop(key, None)

    def shutdown(self) -> None:
        with self._lock:
            calls = list(self._calls)
        wait(calls)
        self._parts.clear()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._calls.discard(future)

    # --- the connection --------------------------------------------------------------------------------------------

    def _client(self) -> Any:
        if not isinstance(self._where, str):
            if self._where.status != "running":
                raise ExecutorError(self.place, f"its client is {self._where.status}")
            return self._where
        key = (os.getpid(), self._where)
        with self._connecting:
            with _clients_lock:
                client = _clients.get(key)
            if client is None or client.status in ("closed", "closing"):
                client = self._first_client(key)
        return client

    def _first_client(self, key: tuple[int, str]) -> Any:
        # All branches of a batch come here at once: one of them waits for a scheduler that does not answer.
        if self._refused is not None and time.monotonic() < self._refused[0] + CONNECT_SECONDS:
            raise self._refused[1]
        try:
            made = self._connect(key[1])
        except ExecutorError as error:
            self._refused = (time.monotonic(), error)
            raise
        with _clients_lock:
            known = _clients.setdefault(key, made)
            if known is not made and known.status in ("closed", "closing"):
                known = _clients[key] = made
        if known is not made:  # another batch was quicker
            made.close()
        return known

    def _connect(self, where: str) -> Any:
        try:
            distributed = _import_distributed()
        except ImportError as exc:
            raise ExecutorError(self.place, "Dask is not installed: pip install 'durable_nb[dask]'") from exc
        address = self._address(where)
        try:
            client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="durable_nb")
        except (OSError, ValueError) as exc:
            raise ExecutorError(self.place, f"no scheduler answers there ({exc}); dask scheduler starts one") from exc
        atexit.register(client.close)
        if not client.scheduler_info()["workers"]:
            logger.warning("%s has no workers yet: what is submitted waits for one", self.place)
        return client

    def _address(self, where: str) -> str:
        """`tcp://host:port`; that of Dask's own settings where only `dask://` is given."""
        given = where.removeprefix("dask://")
        if given:
            return f"tcp://{given}"
        import dask.config

        address = dask.config.get("scheduler-address", None)
        if not address:
            raise ExecutorError(self.place, "it names no scheduler, and neither does DASK_SCHEDULER_ADDRESS")
        return str(address)

    # --- one call, on the client's loop ----------------------------------------------------------------------------

    async def _perform(
        self,
        client: Any,
        call: Callable[..., Any],
        parts: list[tuple[str, Buffer]],
        name: str,
        *,
        once: bool,
        hear: Callable[[bytes], None] | None,
    ) -> Any:
        try:
            if hear is None:
                answer = await self._task(client, call, parts, name, once=once, line=None)
            else:
                answer = await self._heard(client, call, parts, name, once=once, hear=hear)
        except (ExecutorError, WorkerLostError):
            raise
        except Exception as exc:  # whatever Dask raises is about the cluster: what the call raises is an answer
            raise ExecutorError(self.place, f"{type(exc).__name__}: {exc}") from exc
        if isinstance(answer, Raised):
            raise answer.error
        return answer

    async def _heard(
        self,
        client: Any,
        call: Callable[..., Any],
        parts: list[tuple[str, Buffer]],
        name: str,
        *,
        once: bool,
        hear: Callable[[bytes], None],
    ) -> Any:
        """As `_task`, while somebody listens to the call."""
        line = f"durable_nb-line-{uuid.uuid4().hex}"
        await client.scheduler.queue_create(name=line, maxsize=_MESSAGES)
        listening = asyncio.ensure_future(_listen(client, line, hear))
        try:
            answer = await self._task(client, call, parts, name, once=once, line=line)
        except asyncio.CancelledError:
            # Never cancelled: what asks the scheduler for a message and goes away still takes the next one.
            self._hanging_up.add(ended := asyncio.ensure_future(_hang_up(client, line, listening)))
            ended.add_done_callback(self._hanging_up.discard)
            raise
        except Exception:
            await _hang_up(client, line, listening)
            raise
        await _hang_up(client, line, listening)
        return answer

    async def _task(
        self,
        client: Any,
        call: Callable[..., Any],
        parts: list[tuple[str, Buffer]],
        name: str,
        *,
        once: bool,
        line: str | None,
    ) -> Any:
        token = await _new_token(client) if once else None
        try:
            for _ in range(_SENDINGS):
                sent = [await self._sent(client, digest, part) for digest, part in parts]
                key = f"{name}-{uuid.uuid4().hex[:8]}"
                task = client.submit(run, call, _name_of(key), token, line, *sent, key=key, pure=False, retries=0)
                try:
                    answer = await self._answer(client, task, name)
                except asyncio.CancelledError:
                    await client.cancel([task], reason="the batch is over")
                    self._stop_soon(client, key)
                    raise
                if answer is not _LOST:
                    return answer
                for digest, _part in parts:
                    self._parts.pop(digest, None)
                if not parts:
                    raise ExecutorError(self.place, f"the task {key!r} was cancelled or lost there")
            raise ExecutorError(self.place, f"the data of {name!r} was lost {_SENDINGS} times")
        finally:
            if token is not None and client.status == "running":
                client._send_to_scheduler({"op": "queue_release", "name": token})  # as `distributed.Queue.close` does

    async def _answer(self, client: Any, task: Any, name: str) -> Any:
        from distributed import KilledWorker

        error = await task.exception()
        if task.status == "finished":
            answer = (await client.gather([task], errors="skip") or [_LOST])[0]
            if isinstance(answer, str) and answer == ALREADY_BEGUN:
                raise WorkerLostError(name, self.place, "it had begun, and must not begin twice")
            return answer
        if task.status != "error":
            return _LOST
        if isinstance(error, KilledWorker):
            raise WorkerLostError(name, self.place, str(error))
        raise ExecutorError(
            self.place,
            f"a worker could not begin {name!r} ({type(error).__name__}: {error}); "
            "workers need the same durable_nb and Python as this process",
        )

    async def _sent(self, client: Any, digest: str, part: Buffer) -> Any:
        """The part, on the cluster."""
        known = self._parts.get(digest)
        if known is not None:
            self._parts.move_to_end(digest)
            return await asyncio.shield(known)
        # Kept as a task, so that calls which need it meanwhile wait for the one sending.
        sending = self._parts[digest] = asyncio.ensure_future(self._scatter(client, part))
        while self._kept is not None and len(self._parts) > self._kept:
            self._parts.popitem(last=False)
        try:
            return await asyncio.shield(sending)
        except Exception:
            self._parts.pop(digest, None)
            raise

    async def _scatter(self, client: Any, part: Buffer) -> Any:
        try:
            (future,) = await client.scatter([bytes(part)], hash=False)
        except TimeoutError as exc:
            raise ExecutorError(self.place, f"no worker takes data ({exc})") from exc
        return future

    def _stop_soon(self, client: Any, key: str) -> None:
        self._stopping.append(_name_of(key))
        if self._stopper is None:
            self._stopper = asyncio.ensure_future(self._stop_all(client))

    async def _stop_all(self, client: Any) -> None:
        """Stop what may still run of the calls that were cancelled in this moment: one message to each worker."""
        while self._stopping:
            await asyncio.sleep(_GATHER_SECONDS)
            names, self._stopping = self._stopping, []
            try:
                await client.run(stop, names, on_error="ignore")
            except Exception:  # noqa: BLE001 - the cluster is going away: then what runs there goes with it
                logger.debug("calls on %s could not be stopped", self.place, exc_info=True)
        self._stopper = None


def _import_distributed() -> Any:
    """Dask, imported as by a guest: the handlers and levels that it gives to loggers are taken away again.

    A notebook's cell would else be the one that has set up logging, and such cells run every time.
    """
    if "distributed" in sys.modules:
        return sys.modules["distributed"]
    before = {logger: _setup_of(logger) for logger in _loggers()}
    import distributed

    for logger in _loggers():
        handlers, level, propagate = before.get(logger, ([], logging.NOTSET, True))
        logger.handlers[:] = handlers
        logger.propagate = propagate
        if logger.level != level:
            logger.setLevel(level)
    return distributed


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]


def _setup_of(logger: logging.Logger) -> tuple[list[logging.Handler], int, bool]:
    return list(logger.handlers), logger.level, logger.propagate


class _Lost:
    """The task is gone, and nobody here asked for that."""


_LOST = _Lost()


def _name_of(key: str) -> str:
    """The name of a task's call: Dask takes an argument that equals a key for the key's result."""
    return f"call of {key}"


def _address(client: Any) -> str:
    return str(client.scheduler.address) if client.scheduler is not None else "nowhere"


async def _new_token(client: Any) -> str:
    """A queue with one entry: whoever takes it may begin."""
    token = f"durable_nb-{uuid.uuid4().hex}"
    await client.scheduler.queue_create(name=token, maxsize=1)
    await client.scheduler.queue_put(name=token, data=1, key=None, timeout=None)
    return token


_END = b""
"""The last message of a line; nobody says nothing."""


async def _listen(client: Any, line: str, hear: Callable[[bytes], None]) -> None:
    """Pass on what is said, until the line's end."""
    while True:
        first = await client.scheduler.queue_get(name=line, timeout=None, batch=False)
        for record in (first, *await client.scheduler.queue_get(name=line, timeout=None, batch=True)):
            if record["value"] == _END:
                return
            hear(record["value"])


async def _hang_up(client: Any, line: str, listening: asyncio.Future[None]) -> None:
    """End a line, when all that was said until now has been heard."""
    try:
        await client.scheduler.queue_put(name=line, data=_END, key=None, timeout=None)
        await listening
        client._send_to_scheduler({"op": "queue_release", "name": line})
    except Exception:  # noqa: BLE001 - the connection is gone, and the line with it: what ended the call tells of it
        listening.cancel()
        logger.debug("the line %s could not be ended", line, exc_info=True)
