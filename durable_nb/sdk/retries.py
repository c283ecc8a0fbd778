"""Retry strategies: functions of an error and the attempts made so far to a decision."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durable_nb.exceptions import DurableOperationError, UnrecoverableError, ValidationError
from durable_nb.sdk.config import ChildConfig, Duration, JitterStrategy, as_duration

if TYPE_CHECKING:
    from durable_nb.sdk.context import DurableContext

T = TypeVar("T")

Delay = Duration | dt.timedelta | float


@dataclass
class RetryDecision:
    """Whether to try again, and when."""

    should_retry: bool
    delay: Duration

    @property
    def delay_seconds(self) -> int:
        """The delay in seconds."""
        return self.delay.to_seconds()

    @classmethod
    def retry(cls, delay: Duration) -> RetryDecision:
        """Try again after `delay`."""
        return cls(should_retry=True, delay=delay)

    @classmethod
    def no_retry(cls) -> RetryDecision:
        """Fail now."""
        return cls(should_retry=False, delay=Duration())


RetryStrategy = Callable[[Exception, int], RetryDecision]


def _choose(spelled: Delay | None, seconds: float | None, default: int, what: str) -> Duration:
    if spelled is not None and seconds is not None:
        raise ValidationError(f"give {what} or {what}_seconds, not both")
    chosen = seconds if spelled is None else spelled
    return Duration(default) if chosen is None else as_duration(chosen, what)


@dataclass
class RetryStrategyConfig:
    """Exponential back-off. A delay is a `Duration`, a `timedelta`, or given as `…_seconds`."""

    max_attempts: int = 3
    initial_delay: Duration = None  # type: ignore[assignment]  # None until __post_init__ has chosen the spelling
    """Default 5 seconds."""
    max_delay: Duration = None  # type: ignore[assignment]
    """Default 5 minutes."""
    backoff_rate: float = 2.0
    jitter_strategy: JitterStrategy = JitterStrategy.FULL
    retryable_errors: list[str | re.Pattern[str]] | None = None
    """Substrings or patterns of messages."""
    retryable_error_types: list[type[Exception]] | None = None
    initial_delay_seconds: InitVar[float | None] = field(default=None, kw_only=True)
    max_delay_seconds: InitVar[float | None] = field(default=None, kw_only=True)

    def __post_init__(self, initial_delay_seconds: float | None, max_delay_seconds: float | None) -> None:
        self.initial_delay = _choose(self.initial_delay, initial_delay_seconds, 5, "initial_delay")
        self.max_delay = _choose(self.max_delay, max_delay_seconds, 300, "max_delay")


@dataclass
class LinearRetryStrategyConfig:
    """Back-off that grows by a constant. Delays are spelled as in `RetryStrategyConfig`."""

    max_attempts: int = 6
    initial_delay: Duration = None  # type: ignore[assignment]
    """Default 1 second."""
    increment: Duration = None  # type: ignore[assignment]
    """Default 1 second."""
    max_delay: Duration = None  # type: ignore[assignment]
    """Default 5 minutes."""
    jitter_strategy: JitterStrategy = JitterStrategy.FULL
    retryable_errors: list[str | re.Pattern[str]] | None = None
    retryable_error_types: list[type[Exception]] | None = None
    initial_delay_seconds: InitVar[float | None] = field(default=None, kw_only=True)
    increment_seconds: InitVar[float | None] = field(default=None, kw_only=True)
    max_delay_seconds: InitVar[float | None] = field(default=None, kw_only=True)

    def __post_init__(
        self,
        initial_delay_seconds: float | None,
        increment_seconds: float | None,
        max_delay_seconds: float | None,
    ) -> None:
        self.initial_delay = _choose(self.initial_delay, initial_delay_seconds, 1, "initial_delay")
        self.increment = _choose(self.increment, increment_seconds, 1, "increment")
        self.max_delay = _choose(self.max_delay, max_delay_seconds, 300, "max_delay")


def _seconds_of(name: str) -> property:
    def read(self: Any) -> int:
        delay: Duration = getattr(self, name)
        return delay.to_seconds()

    read.__doc__ = f"`{name}` in seconds."
    return property(read)


# Constructor arguments and read-only properties of one name cannot both be written in a dataclass body.
for _cls, _names in (
    (RetryStrategyConfig, ("initial_delay", "max_delay")),
    (LinearRetryStrategyConfig, ("initial_delay", "increment", "max_delay")),
):
    for _name in _names:
        setattr(_cls, f"{_name}_seconds", _seconds_of(_name))


def _retryable(
    error: Exception,
    patterns: list[str | re.Pattern[str]] | None,
    types: list[type[Exception]] | None,
) -> bool:
    if patterns is None and types is None:
        return True
    message = str(error)
    if any((p in message) if isinstance(p, str) else bool(p.search(message)) for p in patterns or ()):
        return True
    return isinstance(error, tuple(types or ()))


def create_retry_strategy(config: RetryStrategyConfig | None = None) -> RetryStrategy:
    """A strategy whose delay grows by a factor: min(initial * rate ** (n - 1), max), then jitter, at least 1 s."""
    chosen = config or RetryStrategyConfig()

    def strategy(error: Exception, attempts_made: int) -> RetryDecision:
        if attempts_made >= chosen.max_attempts:
            return RetryDecision.no_retry()
        if not _retryable(error, chosen.retryable_errors, chosen.retryable_error_types):
            return RetryDecision.no_retry()
        limit = chosen.max_delay.to_seconds()
        try:
            base = min(chosen.initial_delay.to_seconds() * chosen.backoff_rate ** (attempts_made - 1), limit)
        except OverflowError:
            base = limit
        return RetryDecision.retry(Duration(chosen.jitter_strategy.finalize_delay(base)))

    return strategy


def create_linear_retry_strategy(config: LinearRetryStrategyConfig | None = None) -> RetryStrategy:
    """A strategy whose delay grows by an increment: min(initial + increment * (n - 1), max)."""
    chosen = config or LinearRetryStrategyConfig()

    def strategy(error: Exception, attempts_made: int) -> RetryDecision:
        if attempts_made >= chosen.max_attempts:
            return RetryDecision.no_retry()
        if not _retryable(error, chosen.retryable_errors, chosen.retryable_error_types):
            return RetryDecision.no_retry()
        base = chosen.initial_delay.to_seconds() + chosen.increment.to_seconds() * (attempts_made - 1)
        base = min(base, chosen.max_delay.to_seconds())
        return RetryDecision.retry(Duration(chosen.jitter_strategy.finalize_delay(base)))

    return strategy


class RetryPresets:
    """Ready strategies."""

    @classmethod
    def none(cls) -> RetryStrategy:
        """One attempt."""
        return create_retry_strategy(RetryStrategyConfig(max_attempts=1))

    @classmethod
    def default(cls) -> RetryStrategy:
        """6 attempts, from 5 s to 1 min, doubling, full jitter."""
        return create_retry_strategy(
            RetryStrategyConfig(max_attempts=6, initial_delay=Duration(5), max_delay=Duration(60), backoff_rate=2.0)
        )

    @classmethod
    def transient(cls) -> RetryStrategy:
        """3 attempts, doubling from 5 s, half jitter."""
        return create_retry_strategy(
            RetryStrategyConfig(max_attempts=3, backoff_rate=2.0, jitter_strategy=JitterStrategy.HALF)
        )

    @classmethod
    def resource_availability(cls) -> RetryStrategy:
        """5 attempts, from 5 s to 5 min, doubling."""
        return create_retry_strategy(
            RetryStrategyConfig(max_attempts=5, initial_delay=Duration(5), max_delay=Duration(300), backoff_rate=2.0)
        )

    @classmethod
    def critical(cls) -> RetryStrategy:
        """10 attempts, from 1 s to 1 min, times 1.5, exact delays."""
        return create_retry_strategy(
            RetryStrategyConfig(
                max_attempts=10,
                initial_delay=Duration(1),
                max_delay=Duration(60),
                backoff_rate=1.5,
                jitter_strategy=JitterStrategy.NONE,
            )
        )

    @classmethod
    def linear(cls) -> RetryStrategy:
        """6 attempts after 1, 2, 3… seconds."""
        return create_linear_retry_strategy(LinearRetryStrategyConfig(jitter_strategy=JitterStrategy.NONE))

    @classmethod
    def fixed(cls, interval: Duration | None = None) -> RetryStrategy:
        """5 attempts at equal intervals (5 s)."""
        chosen = interval or Duration(5)
        return create_retry_strategy(
            RetryStrategyConfig(
                max_attempts=5,
                initial_delay=chosen,
                max_delay=chosen,
                backoff_rate=1.0,
                jitter_strategy=JitterStrategy.NONE,
            )
        )


@dataclass(frozen=True)
class WithRetryConfig(Generic[T]):
    """Options of `with_retry`."""

    retry_strategy: RetryStrategy | None = None
    """None is `RetryPresets.default()`: who calls `with_retry` asks for retries."""
    wrap_with_run_in_child_context: bool = True
    child_context_config: ChildConfig[T] | None = None


def with_retry(
    context: DurableContext,
    func: Callable[[DurableContext, int], T],
    config: WithRetryConfig[T],
    name: str | None = None,
) -> T:
    """Run a group of durable operations until it succeeds or the strategy gives up.

    Args:
        context: where to run.
        func: (context, attempt from 1) -> result; its operations are recorded attempt by attempt.
        config: strategy and wrapping.
        name: of the child context; the waits between attempts are called `NAME-backoff-N`.
    """
    strategy = config.retry_strategy or RetryPresets.default()

    def attempts(inner: DurableContext) -> T:
        attempt = 1
        while True:
            try:
                return func(inner, attempt)
            except Exception as error:
                # Not `_errors.is_unrecoverable`, which would turn the imports of this package in a circle.
                if isinstance(error, UnrecoverableError) and not isinstance(error, DurableOperationError):
                    raise
                decision = strategy(error, attempt)
                if not decision.should_retry:
                    raise
            delay = Duration(max(1, decision.delay_seconds))
            inner.wait(delay, name=f"{name}-backoff-{attempt}" if name else None)
            attempt += 1

    if not config.wrap_with_run_in_child_context:
        return attempts(context)
    return context.run_in_child_context(attempts, name=name, config=config.child_context_config)


__all__ = [
    "LinearRetryStrategyConfig",
    "RetryDecision",
    "RetryPresets",
    "RetryStrategyConfig",
    "WithRetryConfig",
    "create_linear_retry_strategy",
    "create_retry_strategy",
    "with_retry",
]
