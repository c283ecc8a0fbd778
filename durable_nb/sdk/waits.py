"""Wait strategies: functions of a polled state and the attempts made so far to a decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durable_nb.exceptions import WaitForConditionError
from durable_nb.sdk.config import Duration, JitterStrategy

if TYPE_CHECKING:
    from durable_nb.sdk.serdes import SerDes

T = TypeVar("T")


@dataclass(frozen=True)
class WaitForConditionDecision:
    """Whether to look again, and when."""

    should_continue: bool
    delay: Duration

    @property
    def delay_seconds(self) -> int:
        """The delay in seconds."""
        return self.delay.to_seconds()

    @classmethod
    def continue_waiting(cls, delay: Duration) -> WaitForConditionDecision:
        """Look again after `delay`."""
        return cls(should_continue=True, delay=delay)

    @classmethod
    def stop_polling(cls) -> WaitForConditionDecision:
        """The condition holds."""
        return cls(should_continue=False, delay=Duration())


WaitStrategy = Callable[[Any, int], WaitForConditionDecision]


@dataclass
class WaitStrategyConfig(Generic[T]):
    """Polling with exponential back-off."""

    should_continue_polling: Callable[[T], bool]
    max_attempts: int = 60
    initial_delay: Duration = field(default_factory=lambda: Duration(5))
    max_delay: Duration = field(default_factory=lambda: Duration(300))
    backoff_rate: float = 1.5
    jitter_strategy: JitterStrategy = JitterStrategy.FULL

    @property
    def initial_delay_seconds(self) -> int:
        """`initial_delay` in seconds."""
        return self.initial_delay.to_seconds()

    @property
    def max_delay_seconds(self) -> int:
        """`max_delay` in seconds."""
        return self.max_delay.to_seconds()


@dataclass(frozen=True)
class WaitForConditionConfig(Generic[T]):
    """Options of `context.wait_for_condition`."""

    wait_strategy: Callable[[T, int], WaitForConditionDecision]
    initial_state: T
    serdes: SerDes[Any] | None = None


def create_wait_strategy(config: WaitStrategyConfig[T]) -> Callable[[T, int], WaitForConditionDecision]:
    """A strategy that polls until the condition holds; a condition met on the last attempt counts."""

    def strategy(state: T, attempts_made: int) -> WaitForConditionDecision:
        if not config.should_continue_polling(state):
            return WaitForConditionDecision.stop_polling()
        if attempts_made >= config.max_attempts:
            raise WaitForConditionError(
                f"wait_for_condition looked {attempts_made} times (max_attempts) and the condition does not hold"
            )
        limit = config.max_delay.to_seconds()
        try:
            base = min(config.initial_delay.to_seconds() * config.backoff_rate ** (attempts_made - 1), limit)
        except OverflowError:
            base = limit
        return WaitForConditionDecision.continue_waiting(Duration(config.jitter_strategy.finalize_delay(base)))

    return strategy


__all__ = [
    "WaitForConditionConfig",
    "WaitForConditionDecision",
    "WaitStrategyConfig",
    "create_wait_strategy",
]
