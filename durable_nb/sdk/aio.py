"""`await context.step(...)`: the context of `async def` handlers.

Operations run in threads of the execution's pool; what they call as coroutines runs on the handler's own loop. Ids are
given when an operation is *asked for*, not when it is awaited, so `asyncio.gather` over several operations is
deterministic.

An operation that has to wait parks: the invocation only suspends when every durable operation in flight is parked, so
one that waits never cuts another off in the middle.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, overload

from durable_nb.exceptions import SuspendExecution
from durable_nb.sdk._local import Wake
from durable_nb.sdk.concurrency.models import BatchResult
from durable_nb.sdk.config import (
    CallbackConfig,
    ChildConfig,
    InvokeConfig,
    MapConfig,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
    WaitForCallbackConfig,
)
from durable_nb.sdk.context import DurableContext, ExecutionContext, Wait
from durable_nb.sdk.logger import Logger
from durable_nb.sdk.operation._body import home_loop
from durable_nb.sdk.operation.callback import Callback
from durable_nb.sdk.state import suspension, wake_of
from durable_nb.sdk.types import (
    LambdaContext,
    LoggerInterface,
    StepContext,
    WaitForCallbackContext,
    WaitForConditionCheckContext,
)
from durable_nb.sdk.waits import WaitForConditionConfig

T = TypeVar("T")
U = TypeVar("U")


def run_async(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, also from a thread in which a loop runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    result: list[T] = []
    error: list[BaseException] = []

    def work() -> None:
        try:
            result.append(asyncio.run(make()))
        except BaseException as raised:  # noqa: BLE001 - raised again below, in the caller's thread
            error.append(raised)

    thread = threading.Thread(target=work, name="durable_nb handler")
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


_TURNS = 16
"""Loop turns between the end of an operation and the look whether all others wait."""


class _Lot:
    """Where operations of one invocation park until all of them do."""

    def __init__(self) -> None:
        self._running = 0
        self._parked: list[tuple[asyncio.Future[None], Wake]] = []

    def enter(self) -> None:
        """An operation runs."""
        self._running += 1

    def leave(self) -> None:
        """It does not any more."""
        self._running -= 1
        self._look_later(_TURNS)

    def _look_later(self, turns: int) -> None:
        # What awaited the operation that ended has not run yet, and will ask for its next one in a few turns of the
        # loop.
        if self._running or not self._parked:
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._look_later, turns - 1)
        else:
            self._release_if_all_wait()

    async def park(self, wake: Wake) -> Wake:
        """Wait until nothing runs; returns what all together wait for."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked.append((future, wake))
        self.leave()
        await future
        joint = wake
        for _, other in self._parked:
            joint = joint.join(other)
        return joint

    def _release_if_all_wait(self) -> None:
        if self._running == 0:
            for future, _ in self._parked:
                if not future.done():
                    future.set_result(None)


class AsyncCallback:
    """A result that somebody outside will give."""

    def __init__(self, context: AsyncDurableContext, callback: Callback[Any]) -> None:
        self._context = context
        self._callback = callback
        self.callback_id = callback.callback_id

    def result(self) -> Awaitable[Any]:
        """The result; waits for it."""
        return self._context._ask(self._callback.result, numbered=False)


class AsyncDurableContext:
    """`DurableContext` for coroutines: every operation returns an awaitable."""

    def __init__(self, context: DurableContext, lot: _Lot | None = None) -> None:
        self.context = context
        self._lot = lot or _Lot()

    # --- about itself ----------------------------------------------------------------------------------------------

    @property
    def execution_context(self) -> ExecutionContext:
        """The execution as a whole."""
        return self.context.execution_context

    @property
    def lambda_context(self) -> LambdaContext | None:
        """What a hosting platform gave."""
        return self.context.lambda_context

    @property
    def logger(self) -> Logger:
        """Silent while the history is replayed."""
        return self.context.logger

    def set_logger(self, new_logger: LoggerInterface) -> None:
        """Write log records to another logger from now on."""
        self.context.set_logger(new_logger)

    def is_replaying(self) -> bool:
        """Whether this context still walks over its history."""
        return self.context.is_replaying()

    # --- operations ------------------------------------------------------------------------------------------------

    def _ask(self, call: Callable[[], T], *, numbered: bool = True) -> Awaitable[T]:
        """Run `call` in a thread; its operation takes its number now, in the order of asking."""
        loop = asyncio.get_running_loop()
        number = self.context.reserve() if numbered else None

        def work() -> T:
            with home_loop(loop), self.context.numbered(number):
                return call()

        self._lot.enter()
        future: Future[T] = self.context.state.pool.submit(work)
        return _Ask(self._finish(asyncio.wrap_future(future)))

    async def _finish(self, future: asyncio.Future[T]) -> T:
        try:
            value = await future
        except SuspendExecution as suspended:
            wake = await self._lot.park(wake_of(suspended))
            raise suspension(str(suspended), wake) from None
        except BaseException:
            self._lot.leave()
            raise
        self._lot.leave()
        return value

    @overload
    def step(
        self,
        func: Callable[[StepContext], Coroutine[Any, Any, T]],
        name: str | None = None,
        config: StepConfig | None = None,
    ) -> Awaitable[T]: ...

    @overload
    def step(
        self, func: Callable[[StepContext], T], name: str | None = None, config: StepConfig | None = None
    ) -> Awaitable[T]: ...

    def step(
        self, func: Callable[[StepContext], Any], name: str | None = None, config: StepConfig | None = None
    ) -> Awaitable[Any]:
        """As `DurableContext.step`."""
        return self._ask(lambda: self.context.step(func, name, config))

    def wait(self, duration: Wait, name: str | None = None) -> Awaitable[None]:
        """As `DurableContext.wait`."""
        return self._ask(lambda: self.context.wait(duration, name))

    def run_in_child_context(
        self,
        func: Callable[[AsyncDurableContext], Coroutine[Any, Any, T]],
        name: str | None = None,
        config: ChildConfig[Any] | None = None,
    ) -> Awaitable[T]:
        """As `DurableContext.run_in_child_context`, with a coroutine function."""
        name = self.context._resolve_step_name(name, func)
        return self._ask(lambda: self.context.run_in_child_context(self._inner(func), name, config))

    def map(
        self,
        inputs: Sequence[U],
        func: Callable[[AsyncDurableContext, U, int, Sequence[U]], Coroutine[Any, Any, T]],
        name: str | None = None,
        config: MapConfig[Any] | None = None,
    ) -> Awaitable[BatchResult[T]]:
        """As `DurableContext.map`, with a coroutine function."""
        name = self.context._resolve_step_name(name, func)
        return self._ask(lambda: self.context.map(inputs, self._inner(func), name, config))

    def parallel(
        self,
        functions: Sequence[Callable[[AsyncDurableContext], Coroutine[Any, Any, T]] | ParallelBranch[Any]],
        name: str | None = None,
        config: ParallelConfig | None = None,
    ) -> Awaitable[BatchResult[T]]:
        """As `DurableContext.parallel`, with coroutine functions."""
        branches = [
            ParallelBranch(self._inner(func.func), func.name) if isinstance(func, ParallelBranch) else self._inner(func)
            for func in functions
        ]
        return self._ask(lambda: self.context.parallel(branches, name, config))

    async def create_callback(self, name: str | None = None, config: CallbackConfig | None = None) -> AsyncCallback:
        """As `DurableContext.create_callback`."""
        return AsyncCallback(self, await self._ask(lambda: self.context.create_callback(name, config)))

    def wait_for_callback(
        self,
        submitter: Callable[[str, WaitForCallbackContext], Any],
        name: str | None = None,
        config: WaitForCallbackConfig | None = None,
    ) -> Awaitable[Any]:
        """As `DurableContext.wait_for_callback`."""
        return self._ask(lambda: self.context.wait_for_callback(submitter, name, config))

    def wait_for_condition(
        self,
        check: Callable[[T, WaitForConditionCheckContext], T | Coroutine[Any, Any, T]],
        config: WaitForConditionConfig[T],
        name: str | None = None,
    ) -> Awaitable[T]:
        """As `DurableContext.wait_for_condition`."""
        polled: Any = check
        return self._ask(lambda: self.context.wait_for_condition(polled, config, name))

    def invoke(
        self, function_name: str, payload: Any, name: str | None = None, config: InvokeConfig[Any, Any] | None = None
    ) -> Awaitable[Any]:
        """As `DurableContext.invoke`."""
        return self._ask(lambda: self.context.invoke(function_name, payload, name, config))

    def _inner(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """`func` for a thread of the pool: its coroutine runs on a loop of its own, with its own lot."""

        def call(context: DurableContext, *args: Any) -> Any:
            async def body() -> Any:
                return await func(AsyncDurableContext(context), *args)

            return run_async(body)

        return call


class _Ask(Awaitable[T]):
    """An awaitable that may be awaited later than it was asked for, and whose work goes on meanwhile."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.ensure_future(coroutine)
        # A suspension that nobody awaits any more is no mistake to report.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def __await__(self) -> Any:
        return self._task.__await__()


__all__ = ["AsyncCallback", "AsyncDurableContext", "run_async"]
