"""What every executor must do, as a test class: subclass it and give it an `executor` fixture; pytest does the rest."""

from __future__ import annotations

import time
from functools import partial

from durable_nb.abc import Buffer, Executor, Line

__all__ = ["ExecutorTests"]


class ExecutorTests:
    """The promises of `durable_nb.abc.Executor`. A subclass provides the `executor` fixture."""

    def test_a_call_gives_its_result(self, executor: Executor) -> None:
        assert executor.submit(partial(sum, [1, 2, 3]), name="add up").result(timeout=60) == 6

    def test_calls_get_their_parts_in_order(self, executor: Executor) -> None:
        big = bytes(2 << 20)
        calls = [executor.submit(_sizes, [big, memoryview(b"abc"), big], name="measure") for _ in range(3)]
        assert [call.result(timeout=60) for call in calls] == [[2 << 20, 3, 2 << 20]] * 3

    def test_a_call_ends_with_what_it_raised(self, executor: Executor) -> None:
        error = executor.submit(partial(int, "seven")).exception(timeout=60)
        assert isinstance(error, ValueError)
        assert "seven" in str(error)

    def test_a_call_that_may_begin_once_gives_its_result(self, executor: Executor) -> None:
        assert executor.submit(partial(max, 1, 2), name="pay", once=True).result(timeout=60) == 2

    def test_calls_of_one_name_are_calls_of_their_own(self, executor: Executor) -> None:
        calls = [executor.submit(partial(abs, -number), name="same") for number in range(20)]
        assert [call.result(timeout=60) for call in calls] == list(range(20))

    def test_what_a_call_says_is_heard_in_order_before_it_ends(self, executor: Executor) -> None:
        heard: list[bytes] = []
        call = executor.submit(_talk, [memoryview(b"abc")], name="talk", hear=heard.append)
        assert call.result(timeout=60) == 3
        assert heard == [b"%d" % number for number in range(50)]

    def test_parts_that_are_let_go_can_be_sent_again(self, executor: Executor) -> None:
        big = bytes(2 << 20)
        for _ in range(2):
            assert executor.submit(_sizes, [big]).result(timeout=60) == [2 << 20]
            executor.let_go([executor.key_of(big)])

    def test_a_shutdown_waits_for_what_was_submitted(self, executor: Executor) -> None:
        call = executor.submit(partial(time.sleep, 0.2))
        executor.shutdown()
        assert call.done()


def _talk(line: Line, part: Buffer) -> int:
    for number in range(50):
        line.say(b"%d" % number)
    return memoryview(part).nbytes if line.wanted() else -1


def _sizes(*parts: Buffer) -> list[int]:
    return [memoryview(part).nbytes for part in parts]
