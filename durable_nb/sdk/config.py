"""Configuration values of durable operations. Frozen, validated when built; names and order follow the AWS SDK."""

from __future__ import annotations

import datetime as dt
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from durable_nb.exceptions import ValidationError

if TYPE_CHECKING:
    from durable_nb.abc import Executor
    from durable_nb.sdk.context import DurableContext
    from durable_nb.sdk.retries import RetryDecision
    from durable_nb.sdk.serdes import SerDes
    from durable_nb.sdk.types import SummaryGenerator

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Params = ParamSpec("Params")

RetryStrategy = Callable[[Exception, int], "RetryDecision"]

_SUB_TYPE = re.compile(r"[A-Za-z0-9_-]{1,32}")


def _check_sub_type(sub_type: str | None) -> None:
    if sub_type and not _SUB_TYPE.fullmatch(sub_type):
        raise ValidationError(
            f"sub_type {sub_type!r} is not allowed: use at most 32 of A-Z, a-z, 0-9, hyphen and underscore"
        )


def _check_max_concurrency(value: int | None) -> None:
    if value is not None and value < 1:
        raise ValidationError(f"max_concurrency must be at least 1, not {value}")


_PLACE = re.compile(r"[a-z][a-z0-9+.-]*://\S*")


def _check_executor(value: Any) -> None:
    if isinstance(value, str) and not _PLACE.fullmatch(value):
        raise ValidationError(f"executor {value!r} is no place: give it as dask://host:port")
    if value is not None and not isinstance(value, str) and not callable(getattr(value, "submit", None)):
        raise ValidationError(
            f"executor must be a place such as dask://host:port, a distributed.Client or an Executor, "
            f"not {type(value).__name__}"
        )


@dataclass(frozen=True)
class Duration:
    """A span of whole seconds."""

    seconds: int = 0

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise ValidationError(f"Duration seconds must be positive or 0, not {self.seconds}")

    def to_seconds(self) -> int:
        """The span in seconds."""
        return self.seconds

    @classmethod
    def from_seconds(cls, value: float) -> Duration:
        """`value` seconds, cut to whole seconds."""
        return cls(int(value))

    @classmethod
    def from_minutes(cls, value: float) -> Duration:
        """`value` minutes, cut to whole seconds."""
        return cls(int(value * 60))

    @classmethod
    def from_hours(cls, value: float) -> Duration:
        """`value` hours, cut to whole seconds."""
        return cls(int(value * 3600))

    @classmethod
    def from_days(cls, value: float) -> Duration:
        """`value` days, cut to whole seconds."""
        return cls(int(value * 86400))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_duration(value: Duration | dt.timedelta | float, what: str) -> Duration:
    """A `Duration` from any of the spellings that configs accept; fractions round up so that no wait shrinks to 0."""
    if isinstance(value, Duration):
        return value
    if isinstance(value, dt.timedelta):
        return Duration(math.ceil(value.total_seconds()))
    if _is_number(value):
        return Duration(math.ceil(value))
    raise ValidationError(f"{what} must be a Duration, a timedelta or seconds, not {type(value).__name__}")


class JitterStrategy(StrEnum):
    """How a delay is spread so that many clients do not retry at one moment."""

    NONE = "NONE"
    """The exact delay."""
    FULL = "FULL"
    """Anything between 0 and the delay."""
    HALF = "HALF"
    """Anything between half of the delay and the delay."""

    def apply_jitter(self, delay: float) -> float:
        """One draw for `delay` seconds."""
        if self is JitterStrategy.FULL:
            return random.random() * delay  # noqa: S311 - spreading load is no secret
        if self is JitterStrategy.HALF:
            return delay / 2 + random.random() * (delay / 2)  # noqa: S311
        return delay

    def finalize_delay(self, base_delay: float) -> int:
        """Whole seconds, at least 1."""
        return max(1, math.ceil(self.apply_jitter(base_delay)))


class StepSemantics(Enum):
    """What a crash in the body of a step means."""

    AT_MOST_ONCE_PER_RETRY = "AT_MOST_ONCE_PER_RETRY"
    """The start is on disk before the body runs; an attempt that was interrupted is not run again."""
    AT_LEAST_ONCE_PER_RETRY = "AT_LEAST_ONCE_PER_RETRY"
    """An attempt that was interrupted runs again."""


class NestingType(Enum):
    """Whether the branches of `map` and `parallel` are operations of their own."""

    NESTED = "NESTED"
    FLAT = "FLAT"
    """No operation per branch: fewer records, branch results are rebuilt by running the branch over its children."""


class BatchItemStatus(Enum):
    """State of one branch of a batch."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STARTED = "STARTED"


class CompletionOutcome(Enum):
    """What a custom completion rule calls the batch."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class CompletionItemStatus:
    """One branch as a completion rule sees it; `status` None means that it has not started."""

    index: int
    name: str | None = None
    status: BatchItemStatus | None = None


@dataclass(frozen=True)
class CompletionStatus:
    """What a completion rule decides on."""

    success_count: int
    failure_count: int
    completed_count: int
    total_count: int
    items: tuple[CompletionItemStatus, ...] = ()


@dataclass(frozen=True)
class CompletionDecision:
    """The answer of a completion rule; build it with `complete_batch` or `continue_batch`."""

    complete: bool
    outcome: CompletionOutcome | None = None

    def __post_init__(self) -> None:
        if self.complete and self.outcome is None:
            raise ValidationError("a decision that completes the batch needs an outcome")
        if not self.complete and self.outcome is not None:
            raise ValidationError("a decision that continues the batch has no outcome")


def complete_batch(outcome: CompletionOutcome = CompletionOutcome.SUCCEEDED) -> CompletionDecision:
    """End the batch now, with this outcome."""
    return CompletionDecision(complete=True, outcome=outcome)


def continue_batch() -> CompletionDecision:
    """Go on with the batch."""
    return CompletionDecision(complete=False)


@dataclass(frozen=True)
class CompletionConfig:
    """When a batch is over before all of its branches are. With nothing set, the first failure ends it."""

    min_successful: int | None = None
    tolerated_failure_count: int | None = None
    tolerated_failure_percentage: float | None = None
    should_complete: Callable[[CompletionStatus], CompletionDecision] | None = None

    def __post_init__(self) -> None:
        if self.min_successful is not None and self.min_successful < 1:
            raise ValidationError(f"min_successful must be at least 1, not {self.min_successful}")
        if self.tolerated_failure_count is not None and self.tolerated_failure_count < 0:
            raise ValidationError(f"tolerated_failure_count must be at least 0, not {self.tolerated_failure_count}")
        percentage = self.tolerated_failure_percentage
        if percentage is not None and not 0 <= percentage <= 100:
            raise ValidationError(f"tolerated_failure_percentage must be between 0 and 100, not {percentage}")
        counted = (self.min_successful, self.tolerated_failure_count, self.tolerated_failure_percentage)
        if self.should_complete is not None and any(value is not None for value in counted):
            raise ValidationError("should_complete decides alone: it cannot be combined with the counted criteria")

    def validate_for_total(self, total: int) -> None:
        """Raise when `total` branches can never meet the criteria."""
        if self.min_successful is not None and self.min_successful > total:
            raise ValidationError(f"min_successful is {self.min_successful} but there are only {total} items")

    @staticmethod
    def first_successful() -> CompletionConfig:
        """The first success is enough."""
        return CompletionConfig(min_successful=1)

    @staticmethod
    def all_completed() -> CompletionConfig:
        """Every branch runs, whatever fails."""
        return CompletionConfig(tolerated_failure_percentage=100)

    @staticmethod
    def all_successful() -> CompletionConfig:
        """The first failure ends the batch."""
        return CompletionConfig(tolerated_failure_count=0, tolerated_failure_percentage=0)


@dataclass(frozen=True)
class StepConfig:
    """Options of `context.step`."""

    retry_strategy: RetryStrategy | None = None
    """(error, attempts made) -> decision; None does not retry."""
    step_semantics: StepSemantics = StepSemantics.AT_LEAST_ONCE_PER_RETRY
    serdes: SerDes[Any] | None = None
    """How the result is written; None is the execution's default."""
    sub_type: str | None = field(default=None, kw_only=True)
    timeout: Duration | dt.timedelta | float | None = field(default=None, kw_only=True)
    """How long one attempt may take; above it the attempt fails with `StepTimeoutError`."""

    def __post_init__(self) -> None:
        _check_sub_type(self.sub_type)
        if self.timeout is not None and self.timeout_seconds <= 0:
            raise ValidationError(f"timeout must be above 0, not {self.timeout}")

    @property
    def timeout_seconds(self) -> float:
        """The time-out in seconds; 0 means none. Fractions count, unlike in delays between invocations."""
        if self.timeout is None:
            return 0.0
        if isinstance(self.timeout, Duration):
            return float(self.timeout.to_seconds())
        if isinstance(self.timeout, dt.timedelta):
            return self.timeout.total_seconds()
        if _is_number(self.timeout):
            return float(self.timeout)
        raise ValidationError(f"timeout must be a Duration, a timedelta or seconds, not {self.timeout!r}")


@dataclass(frozen=True)
class ChildConfig(Generic[T]):
    """Options of `context.run_in_child_context`."""

    serdes: SerDes[Any] | None = None
    sub_type: str | None = None
    summary_generator: SummaryGenerator[Any] | None = None
    """Text kept in place of a result above 256 KiB."""
    is_virtual: bool = False
    """True writes no operation for the context itself."""

    def __post_init__(self) -> None:
        _check_sub_type(self.sub_type)


@dataclass(frozen=True)
class MapConfig(Generic[T]):
    """Options of `context.map`."""

    max_concurrency: int | None = None
    completion_config: CompletionConfig = field(default_factory=CompletionConfig)
    serdes: SerDes[Any] | None = None
    item_serdes: SerDes[Any] | None = None
    summary_generator: SummaryGenerator[Any] | None = None
    nesting_type: NestingType = NestingType.NESTED
    item_namer: Callable[[T, int], str] | None = None
    executor: Executor | str | Any = field(default=None, kw_only=True)
    """Where the bodies of the branches' operations run: `dask://host:port`, a `distributed.Client`, or an `Executor`;
    None runs them in this process."""

    def __post_init__(self) -> None:
        _check_max_concurrency(self.max_concurrency)
        _check_executor(self.executor)


@dataclass(frozen=True)
class ParallelConfig:
    """Options of `context.parallel`."""

    max_concurrency: int | None = None
    completion_config: CompletionConfig = field(default_factory=CompletionConfig.all_successful)
    serdes: SerDes[Any] | None = None
    item_serdes: SerDes[Any] | None = None
    summary_generator: SummaryGenerator[Any] | None = None
    nesting_type: NestingType = NestingType.NESTED
    executor: Executor | str | Any = field(default=None, kw_only=True)
    """Where the bodies of the branches' operations run: `dask://host:port`, a `distributed.Client`, or an `Executor`;
    None runs them in this process."""

    def __post_init__(self) -> None:
        _check_max_concurrency(self.max_concurrency)
        _check_executor(self.executor)


@dataclass(frozen=True)
class ParallelBranch(Generic[T_co]):
    """A function of `parallel` with a name of its own."""

    func: Callable[[DurableContext], T_co]
    name: str | None = None

    def __call__(self, context: DurableContext) -> T_co:
        """Run the branch."""
        return self.func(context)


@dataclass(frozen=True)
class InvokeConfig(Generic[P, R]):
    """Options of `context.invoke`."""

    serdes_payload: SerDes[Any] | None = None
    serdes_result: SerDes[Any] | None = None
    tenant_id: str | None = None


@dataclass(frozen=True)
class CallbackConfig:
    """Options of `context.create_callback`; a time of 0 means no limit."""

    timeout: Duration = field(default_factory=Duration)
    heartbeat_timeout: Duration = field(default_factory=Duration)
    serdes: SerDes[Any] | None = None
    sub_type: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_sub_type(self.sub_type)

    @property
    def timeout_seconds(self) -> int:
        """Seconds until the callback times out."""
        return as_duration(self.timeout, "timeout").to_seconds()

    @property
    def heartbeat_timeout_seconds(self) -> int:
        """Seconds that may pass between two heartbeats."""
        return as_duration(self.heartbeat_timeout, "heartbeat_timeout").to_seconds()


@dataclass(frozen=True)
class WaitForCallbackConfig(CallbackConfig):
    """Options of `context.wait_for_callback`."""

    retry_strategy: RetryStrategy | None = None
    """For the submitter."""


__all__ = [
    "BatchItemStatus",
    "CallbackConfig",
    "ChildConfig",
    "CompletionConfig",
    "CompletionDecision",
    "CompletionItemStatus",
    "CompletionOutcome",
    "CompletionStatus",
    "Duration",
    "InvokeConfig",
    "JitterStrategy",
    "MapConfig",
    "NestingType",
    "ParallelBranch",
    "ParallelConfig",
    "StepConfig",
    "StepSemantics",
    "WaitForCallbackConfig",
    "as_duration",
    "complete_batch",
    "continue_batch",
]
