"""Calling user functions: synchronous or not, with a time-out or not, seen by plugins or not."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import CoroutineType
from typing import Any

from durable_nb.exceptions import StepTimeoutError
from durable_nb.sdk.config import StepConfig
from durable_nb.sdk.operation._frame import Frame, call_inside_body

_home_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("durable_nb_home_loop", default=None)
"""Where coroutines of an async handler belong: its clients and locks are bound to that loop."""


@contextmanager
def home_loop(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Run coroutines of this thread's operations on `loop`, which another thread runs."""
    token = _home_loop.set(loop)
    try:
        yield
    finally:
        _home_loop.reset(token)


def prepare_body(
    frame: Frame, func: Callable[[Any], Any], argument: Any, attempt: int, config: StepConfig, *, once: bool = False
) -> Callable[[], Any]:
    """What runs the body of a step when it is called: here, or on the executor of the batch around.

    What cannot travel there is found out now, before anything is recorded.

    Raises:
        RemoteBodyError: the body holds a context, and is to run on an executor.
        CannotTravelError: it cannot be sent there.
    """
    timeout = config.timeout_seconds
    if frame.calls is not None:
        sent = frame.calls.prepare(frame, func, argument, attempt, timeout, once=once)
        return lambda: observed(frame, sent, attempt=attempt)

    body = partial(_run_here, frame, func, argument, timeout)
    if not timeout and not _is_observed(frame):
        return body
    return partial(observed, frame, partial(limited, body, timeout, _name(frame)), attempt=attempt)


def _run_here(frame: Frame, func: Callable[[Any], Any], argument: Any, timeout: float) -> Any:
    value = call_inside_body(frame.state, frame.identifier.name, func, argument)
    if not isinstance(value, CoroutineType):
        return value
    return call_inside_body(
        frame.state, frame.identifier.name, lambda given: run_coroutine(given, timeout, _name(frame)), value
    )


def call_body(frame: Frame, func: Callable[[Any], Any], argument: Any, attempt: int, config: StepConfig) -> Any:
    """Run the body of a step."""
    return prepare_body(frame, func, argument, attempt, config)()


def observed(frame: Frame, call: Callable[[], Any], *, attempt: int | None, replay_children: bool = False) -> Any:
    """Run a user function between the plugins' user-function hooks."""
    plugins = frame.state.plugins
    if plugins is None or not _is_observed(frame):
        return call()
    return plugins.around_user_function(frame, call, attempt=attempt, is_replay_children=replay_children)


def _is_observed(frame: Frame) -> bool:
    plugins = frame.state.plugins
    return plugins is not None and plugins.has_plugins


def _name(frame: Frame) -> str:
    return frame.identifier.name or f"step {frame.identifier.operation_id[:8]}"


def run_coroutine(coroutine: Coroutine[Any, Any, Any], timeout: float = 0.0, name: str = "") -> Any:
    """The result of a coroutine, from synchronous code, also where a loop runs in this thread already (notebooks)."""

    async def limited() -> Any:
        if not timeout:
            return await coroutine
        task = asyncio.ensure_future(coroutine)
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            task.cancel()
            raise StepTimeoutError(name, timeout)
        return task.result()

    home = _home_loop.get()
    if home is not None:
        return asyncio.run_coroutine_threadsafe(limited(), home).result()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(limited())
    return _in_thread(lambda: asyncio.run(limited()), f"durable_nb {name}").wait(None)


class _Call:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any], name: str) -> None:
        self._done = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        # A daemon, because a body that exceeded its time-out may be blocked in C for ever.
        self.thread = threading.Thread(target=context.run, args=(self._run, call), name=name, daemon=True)
        self.thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            self._error = error
        finally:
            self._done.set()

    def over(self, timeout: float | None) -> bool:
        return self._done.wait(timeout)

    def wait(self, timeout: float | None) -> Any:
        self._done.wait(timeout)
        if self._error is not None:
            raise self._error
        return self._value


def _in_thread(call: Callable[[], Any], name: str) -> _Call:
    return _Call(call, name)


def limited(body: Callable[[], Any], timeout: float, name: str) -> Any:
    """Run the body; with a `timeout` (in seconds, 0 is none) in a thread, which is waited for no longer than that.

    Python cannot kill a thread. The error is also raised inside the body at its next instruction, which ends anything
    that is not blocked in C; what the body returns afterwards is dropped.
    """
    if not timeout:
        return body()
    call = _in_thread(body, f"durable_nb {name}")
    if not call.over(timeout):
        _raise_in(call.thread)
        raise StepTimeoutError(name, timeout)
    return call.wait(None)


class _TimedOutError(StepTimeoutError):
    """What is raised inside a body: built without arguments, as the interpreter builds it."""

    def __init__(self) -> None:
        super().__init__("step", 0.0)


def _raise_in(thread: threading.Thread) -> None:
    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_TimedOutError))
