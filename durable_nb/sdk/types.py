"""Types that user functions see, and the protocols behind them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from durable_nb.sdk.config import (
        CallbackConfig,
        ChildConfig,
        Duration,
        MapConfig,
        ParallelBranch,
        ParallelConfig,
        StepConfig,
    )

T = TypeVar("T")
U = TypeVar("U")
C_co = TypeVar("C_co", covariant=True)
C_contra = TypeVar("C_contra", contravariant=True)


class LoggerInterface(Protocol):
    """What a logger must offer to be used with `context.set_logger`."""

    def debug(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None: ...

    def info(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None: ...

    def warning(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None: ...

    def error(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None: ...

    def exception(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None: ...


@dataclass(frozen=True)
class OperationContext:
    """What every function of an operation gets."""

    logger: LoggerInterface


@dataclass(frozen=True)
class StepContext(OperationContext):
    """The first argument of a step function."""

    attempt: int
    """1 on the first try."""


def step_context(logger: LoggerInterface, attempt: int) -> StepContext:
    """A `StepContext`, without the calls that a frozen class needs for each field: every step makes one."""
    made = object.__new__(StepContext)
    facts = made.__dict__
    facts["logger"] = logger
    facts["attempt"] = attempt
    return made


@dataclass(frozen=True)
class WaitForConditionCheckContext(OperationContext):
    """The second argument of a check function."""

    attempt: int


@dataclass(frozen=True)
class WaitForCallbackContext(OperationContext):
    """The second argument of a submitter."""


class Callback(Protocol[C_co]):
    """A result that comes from outside."""

    callback_id: str

    def result(self) -> C_co | None:
        """The result; suspends until it is there."""


class BatchResult(Protocol[T]):
    """The result of `map` and `parallel`."""

    def get_results(self) -> list[T]: ...


class SummaryGenerator(Protocol[C_contra]):
    """Text kept in place of a result that is too large for a checkpoint."""

    def __call__(self, result: C_contra) -> str: ...


class LambdaContext(Protocol):
    """What a hosting platform gives to a handler."""

    aws_request_id: str
    log_group_name: str | None
    log_stream_name: str | None
    function_name: str | None
    memory_limit_in_mb: str | None
    function_version: str | None
    invoked_function_arn: str | None
    tenant_id: str | None
    client_context: dict[str, Any] | None
    identity: Any

    def get_remaining_time_in_millis(self) -> int: ...

    def log(self, msg: str) -> None: ...


class DurableContext(Protocol):
    """What handlers and child functions get; `durable_nb.sdk.context.DurableContext` is the implementation."""

    def step(
        self, func: Callable[[StepContext], T], name: str | None = None, config: StepConfig | None = None
    ) -> T: ...

    def run_in_child_context(
        self, func: Callable[[Any], T], name: str | None = None, config: ChildConfig[T] | None = None
    ) -> T: ...

    def map(
        self,
        inputs: Sequence[U],
        func: Callable[[Any, U, int, Sequence[U]], T],
        name: str | None = None,
        config: MapConfig[Any] | None = None,
    ) -> BatchResult[T]: ...

    def parallel(
        self,
        functions: Sequence[Callable[[Any], T] | ParallelBranch[T]],
        name: str | None = None,
        config: ParallelConfig | None = None,
    ) -> BatchResult[T]: ...

    def wait(self, duration: Duration, name: str | None = None) -> None: ...

    def create_callback(self, name: str | None = None, config: CallbackConfig | None = None) -> Callback[Any]: ...


_ARN = re.compile(r"arn:[^:]*:[^:]*:[^:]*:[^:]*:function:([^:/]+):[^/]+/durable-execution/([^/]+)/([^/]+)")


@dataclass(frozen=True)
class DurableExecutionArn:
    """The readable parts of an execution's id on the hosted service."""

    function_name: str
    execution_name: str
    invocation_id: str

    @classmethod
    def from_arn(cls, arn: str) -> DurableExecutionArn | None:
        """The parts, or None when `arn` is none of that form."""
        found = _ARN.fullmatch(arn)
        return cls(*found.groups()) if found else None


__all__ = [
    "BatchResult",
    "Callback",
    "DurableContext",
    "DurableExecutionArn",
    "LambdaContext",
    "LoggerInterface",
    "OperationContext",
    "StepContext",
    "SummaryGenerator",
    "WaitForCallbackContext",
    "WaitForConditionCheckContext",
    "step_context",
]
