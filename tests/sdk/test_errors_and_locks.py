"""The error tree, and small things with an order."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from durable_nb.sdk import exceptions as errors
from durable_nb.sdk._errors import ERROR_SIZE_LIMIT_BYTES, build, capture
from durable_nb.sdk.lambda_service import ErrorObject
from durable_nb.sdk.threading import CompletionEvent, OrderedCounter, OrderedLock


class ServiceError(Exception):
    def __init__(self, code: str, status: int, message: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.response = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "r"},
        }


@pytest.mark.parametrize(
    ("code", "status", "message", "retryable"),
    [
        ("ThrottlingException", 429, "", True),
        ("ServiceException", 500, "", True),
        ("ValidationException", 400, "", False),
        ("InvalidParameterValueException", 400, "Invalid Checkpoint Token: old", True),
        ("InvalidParameterValueException", 400, "no such name", False),
        ("KMSDisabledException", 502, "", False),
    ],
)
def test_failed_calls_are_told_apart(code: str, status: int, message: str, retryable: bool) -> None:
    error = errors.CheckpointError.from_exception(ServiceError(code, status, message))
    assert error.is_retryable() is retryable
    assert error.termination_reason is errors.TerminationReason.CHECKPOINT_FAILED
    assert error.build_logger_extras()["Error"]["Code"] == code


@pytest.mark.parametrize(
    "error",
    [
        errors.StepError("m", "T", "d", ["s"]),
        errors.ExecutionError("m"),
        errors.NonDeterministicExecutionError("m", "step"),
        errors.StepInterruptedError("m", "step"),
        errors.SerDesError("m"),
        errors.ExecutionConflictError("name", "another input"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_a_rebuilt_error_survives_pickling() -> None:
    try:
        raise KeyError("k")
    except KeyError as raised:
        error = build(errors.StepError, capture(raised))
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, errors.StepError)
    assert isinstance(back, KeyError)
    assert back.args == ("k",)


def test_only_control_flow_escapes_except_exception() -> None:
    outside = {errors.SuspendExecution, errors.TimedSuspendExecution, errors.BackgroundThreadError}
    outside.add(errors.OrphanedChildException)
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, BaseException):
            assert issubclass(cls, Exception) is (cls not in outside), name


def test_long_messages_are_cut_and_say_so() -> None:
    failure = capture(ValueError("x" * (ERROR_SIZE_LIMIT_BYTES * 2)))
    assert failure.error.message is not None
    assert len(failure.error.message) < ERROR_SIZE_LIMIT_BYTES + 100
    assert "cut" in failure.error.message


def test_arguments_that_cannot_be_kept_become_text() -> None:
    error = build(errors.StepError, capture(ValueError(threading.Lock(), 1)))
    assert isinstance(error, ValueError)
    assert "lock" in error.args[0]
    assert error.args[1] == 1


def test_pickles_of_an_untrusted_record_are_not_loaded() -> None:
    from dataclasses import replace

    failure = replace(capture(ValueError({1, 2})), trusted=False)
    error = build(errors.StepError, failure)
    assert "not loaded" in error.args[0]


def test_a_class_that_is_gone_leaves_the_operation_s_error() -> None:
    failure = capture(ValueError("x"))
    assert failure.raised is not None
    from dataclasses import replace

    gone = replace(failure, raised={**failure.raised, "type": "no_such_module_at_all.Gone"})
    error = build(errors.StepError, gone)
    assert type(error) is errors.StepError
    assert error.original_type == "no_such_module_at_all.Gone"


def test_an_error_object_reads_as_type_and_message() -> None:
    assert str(ErrorObject("m", "a.b.Type", None, None)) == "Type: m"
    assert str(ErrorObject.from_message("only")) == "only"
    assert ErrorObject.from_dict(ErrorObject("m", "t", "d", ["s"]).to_dict()) == ErrorObject("m", "t", "d", ["s"])


def test_a_lock_is_taken_in_the_order_of_asking() -> None:
    lock, order = OrderedLock(), []
    lock.acquire()
    started: list[threading.Event] = []
    threads = []
    for number in range(5):
        ready = threading.Event()
        started.append(ready)

        def work(number: int = number, ready: threading.Event = ready) -> None:
            ready.set()
            with lock:
                order.append(number)

        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()
        ready.wait()
        while len(lock._waiting) < number + 2:
            pass
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(5))


def test_a_lock_whose_holder_failed_is_broken_for_all_later_ones() -> None:
    lock = OrderedLock()
    with pytest.raises(ValueError, match="holder"), lock:
        raise ValueError("holder failed")
    assert lock.is_broken()
    with pytest.raises(errors.OrderedLockError) as caught:
        lock.acquire()
    assert isinstance(caught.value.source_exception, ValueError)
    lock.reset()
    assert not lock.is_broken()
    with lock, pytest.raises(errors.OrderedLockError):
        lock.reset()


def test_a_counter_counts_and_an_event_carries_its_error() -> None:
    counter = OrderedCounter()
    assert (counter.increment(), counter.increment(), counter.decrement(), counter.get_current()) == (1, 2, 1, 1)
    event = CompletionEvent()
    assert not event.wait(0.001)
    event.set(ValueError("failed"))
    assert event.is_set()
    with pytest.raises(ValueError, match="failed"):
        event.wait()


def test_wire_names_are_those_that_users_import() -> None:
    from durable_nb.sdk._qualify import qualified_name

    assert qualified_name(errors.StepError) == "durable_nb.sdk.exceptions.StepError"
    assert qualified_name(ValueError) == "ValueError"
    assert qualified_name(ServiceError) == f"{__name__}.ServiceError"
    found: Any = errors.StepError
    assert found is errors.StepError
