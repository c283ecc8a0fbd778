"""Which functions of a batch leave their context alone, and what of a body travels: without a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from durable_nb.abc import Buffer, Executor
from durable_nb.exceptions import CannotTravelError, RemoteBodyError, ValidationError
from durable_nb.journal import MemoryJournal
from durable_nb.sdk import DurableContext, durable_execution, durable_with_child_context
from durable_nb.sdk._local import ThreadPool
from durable_nb.sdk._packing import PART_BYTES, pack, unpack
from durable_nb.sdk.config import MapConfig, ParallelConfig
from durable_nb.sdk.operation._alone import uses


class Callable_:  # noqa: N801
    def __call__(self, context: Any, item: int) -> int:
        return item

    def method(self, context: Any, item: int) -> Any:
        return context.step(item)


class Opaque:
    """Callable by an attribute that no code shows."""

    __call__ = max


def with_defaults(context: Any, item: int = 1) -> int:
    return item


@durable_with_child_context
def child_body(context: Any, item: int) -> Any:
    return context.step(item)


@durable_with_child_context
def light_child_body(context: Any, item: int) -> Any:
    return item


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (lambda c, x: x, False),
        (lambda c, x: c.step(x), True),
        (lambda c, x: [c for _ in range(x)], True),
        (lambda c, x: lambda: c, True),
        (lambda c, x: locals(), True),
        (lambda c, x: eval("c"), True),
        (lambda *args: args[1], True),
        (with_defaults, False),
        (functools.partial(with_defaults, item=2), False),
        (functools.partial(lambda a, c, x: x, 1), False),
        (functools.partial(lambda a, c, x: c, 1), True),
        (Callable_(), False),
        (Callable_().method, True),
        (Opaque(), True),
        (print, True),
        (child_body(1), True),
        (light_child_body(1), False),
    ],
)
def test_whether_a_function_uses_its_context_is_told_from_its_code(func: Callable[..., Any], expected: bool) -> None:
    assert uses(func, 0) is expected


def test_what_is_packed_comes_back_with_buffers_of_its_own() -> None:
    import numpy as np

    big, small = np.arange(PART_BYTES // 8), np.arange(4)
    turned = np.asfortranarray(np.ones((60, 60)))[::2]
    packed = pack({"big": big, "small": small, "turned": turned, "again": big}, "it", "there")
    assert len(packed.parts) == 1
    assert len(packed.head) < PART_BYTES * 2
    back = unpack(packed.head, packed.parts)
    assert back["again"] is back["big"]
    back["big"][0] = 7
    assert big[0] == 0
    other = unpack(packed.head, packed.parts)
    assert other["big"][0] == 0
    assert (other["turned"] == turned).all()


def test_a_large_pickle_is_a_part_itself() -> None:
    value = ["x" * 100 + str(n) for n in range(20_000)]
    packed = pack(value, "it", "there")
    assert packed.head == b""
    assert len(packed.parts) == 1
    assert unpack(packed.head, packed.parts) == value


def test_what_cannot_travel_is_named() -> None:
    with Path(__file__).open() as stream:
        with pytest.raises(CannotTravelError, match=r"'it' cannot run on there: stream \(TextIOWrapper\)"):
            pack(lambda: stream.read(), "it", "there", blame=lambda: stream.read())


def test_contexts_are_refused_wherever_they_are() -> None:
    import durable_nb

    context = DurableContext.__new__(DurableContext)
    for value in (context, [context], functools.partial(print, context), lambda: context, {"c": durable_nb.context}):
        with pytest.raises(RemoteBodyError, match="cannot be used in the body of 'it'"):
            pack(value, "it", "there")


class Threads(Executor):
    """An executor of somebody else: it needs to know nothing of the engine."""

    place = "threads"

    def __init__(self) -> None:
        self.pool = ThreadPool("executor")
        self.names: list[str] = []

    def submit(
        self, call: Callable[..., Any], parts: Sequence[Buffer] = (), *, name: str = "", once: bool = False
    ) -> Future[Any]:
        self.names.append(name)
        return self.pool.submit(call, parts)

    def shutdown(self) -> None:
        self.pool.shutdown()


def test_any_executor_of_the_port_serves() -> None:
    threads = Threads()

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        inner = MapConfig[Any](executor=threads)
        config = ParallelConfig(executor=threads)
        first = context.map([1, 2], lambda c, x, i, every: c.step(lambda _: x * 2, name="double"), config=inner)
        second = context.parallel([lambda c: c.step(lambda _: 5, name="five"), lambda c: 6], config=config)
        return first.get_results() + second.get_results()

    assert handler.run(store=MemoryJournal()) == [2, 4, 5, 6]
    threads.shutdown()
    assert sorted(name.partition("-")[0] for name in threads.names) == ["double", "double", "five", "parallel"]


@pytest.mark.parametrize("executor", ["localhost", "dask:/x", 7])
def test_what_can_be_no_executor_is_refused_by_the_config(executor: Any) -> None:
    for config in (MapConfig[Any], ParallelConfig):
        with pytest.raises(ValidationError, match="dask://host:port"):
            config(executor=executor)
