"""Results of `map` and `parallel`, and the rule that says when a batch is over."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar, cast

from durable_nb.exceptions import ChildContextError, DurableOperationError
from durable_nb.sdk._qualify import qualified_name
from durable_nb.sdk.config import (
    BatchItemStatus,
    CompletionConfig,
    CompletionDecision,
    CompletionItemStatus,
    CompletionOutcome,
    CompletionStatus,
)
from durable_nb.sdk.lambda_service import ErrorObject, register_operation_error

logger = logging.getLogger(__name__)

R = TypeVar("R")


class CompletionReason(Enum):
    """Why a batch is over."""

    ALL_COMPLETED = "ALL_COMPLETED"
    MIN_SUCCESSFUL_REACHED = "MIN_SUCCESSFUL_REACHED"
    FAILURE_TOLERANCE_EXCEEDED = "FAILURE_TOLERANCE_EXCEEDED"
    CUSTOM_COMPLETION_SUCCEEDED = "CUSTOM_COMPLETION_SUCCEEDED"
    CUSTOM_COMPLETION_FAILED = "CUSTOM_COMPLETION_FAILED"


class BatchCompletionError(DurableOperationError):
    """Raised by `throw_if_error` when a custom rule called the batch failed although no item did."""

    def __init__(
        self,
        completion_reason: CompletionReason = CompletionReason.CUSTOM_COMPLETION_FAILED,
        message: str | None = None,
        error_type: str | None = None,
        data: str | None = None,
        stack_trace: list[str] | None = None,
    ) -> None:
        super().__init__(
            message or f"should_complete ended the batch as failed ({completion_reason.value})",
            error_type or qualified_name(type(self)),
            data,
            stack_trace,
        )
        self.completion_reason = completion_reason


register_operation_error(BatchCompletionError)


@dataclass(frozen=True)
class BatchItem(Generic[R]):
    """One branch of a batch that was started."""

    index: int
    status: BatchItemStatus
    result: R | None = None
    error: ErrorObject | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "index": self.index,
            "status": self.status.value,
            "result": self.result,
            "error": self.error.to_dict() if self.error else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BatchItem[R]:
        """From `to_dict`."""
        return cls(
            index=data["index"],
            status=BatchItemStatus(data["status"]),
            result=data.get("result"),
            error=ErrorObject.from_dict(data["error"]) if data.get("error") else None,
        )


@dataclass(frozen=True)
class CompletionPolicy:
    """When a batch of `total` branches is over. Pure: counts in, decision out.

    Order of the reasons: a custom rule decides alone; else tolerance exceeded, then all completed, then minimum
    reached. With no criterion at all the first failure exceeds the tolerance.
    """

    total: int
    min_successful: int | None = None
    tolerated_failure_count: int | None = None
    tolerated_failure_percentage: float | None = None
    should_complete: Any = None

    @classmethod
    def from_config(cls, total: int, config: CompletionConfig | None) -> CompletionPolicy:
        """The rule of a config."""
        chosen = config or CompletionConfig()
        return cls(
            total,
            chosen.min_successful,
            chosen.tolerated_failure_count,
            chosen.tolerated_failure_percentage,
            chosen.should_complete,
        )

    @property
    def has_criteria(self) -> bool:
        """Whether anything but the default rule is set."""
        counted = (self.min_successful, self.tolerated_failure_count, self.tolerated_failure_percentage)
        return self.should_complete is not None or any(value is not None for value in counted)

    def is_tolerance_exceeded(self, failed: int) -> bool:
        """Whether so many failures are too many."""
        if self.should_complete is not None:
            return False
        if not self.has_criteria:
            return failed > 0
        if self.tolerated_failure_count is not None and failed > self.tolerated_failure_count:
            return True
        if self.tolerated_failure_percentage is None or not self.total:
            return False
        return failed / self.total * 100 > self.tolerated_failure_percentage

    def evaluate(
        self, succeeded: int, failed: int, items: tuple[CompletionItemStatus, ...] = ()
    ) -> CompletionDecision | None:
        """The custom rule's answer; None when there is no such rule."""
        if self.should_complete is None:
            return None
        status = CompletionStatus(succeeded, failed, succeeded + failed, self.total, items)
        return cast("CompletionDecision", self.should_complete(status))

    def is_complete(
        self,
        succeeded: int,
        failed: int,
        items: tuple[CompletionItemStatus, ...] = (),
        decision: CompletionDecision | None = None,
    ) -> bool:
        """Whether the batch is over."""
        if succeeded + failed >= self.total:
            return True
        if self.should_complete is not None:
            chosen = decision or self.evaluate(succeeded, failed, items)
            return chosen is not None and chosen.complete
        if self.is_tolerance_exceeded(failed):
            return True
        return self.min_successful is not None and succeeded >= self.min_successful

    def reason(
        self,
        succeeded: int,
        failed: int,
        items: tuple[CompletionItemStatus, ...] = (),
        decision: CompletionDecision | None = None,
    ) -> CompletionReason:
        """Why it is over."""
        if self.should_complete is not None:
            chosen = decision or self.evaluate(succeeded, failed, items)
            if chosen is not None and chosen.complete:
                if chosen.outcome is CompletionOutcome.FAILED:
                    return CompletionReason.CUSTOM_COMPLETION_FAILED
                return CompletionReason.CUSTOM_COMPLETION_SUCCEEDED
            return CompletionReason.ALL_COMPLETED
        if self.is_tolerance_exceeded(failed):
            return CompletionReason.FAILURE_TOLERANCE_EXCEEDED
        if succeeded + failed >= self.total:
            return CompletionReason.ALL_COMPLETED
        if self.min_successful is not None and succeeded >= self.min_successful:
            return CompletionReason.MIN_SUCCESSFUL_REACHED
        return CompletionReason.ALL_COMPLETED


@dataclass(frozen=True)
class BatchResult(Generic[R]):
    """The started branches of a batch, in index order, and why it is over."""

    all: list[BatchItem[R]]
    completion_reason: CompletionReason

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], completion_config: CompletionConfig | None = None) -> BatchResult[R]:
        """From `to_dict`; a missing reason is worked out from the items."""
        items: list[BatchItem[R]] = [BatchItem.from_dict(item) for item in data["all"]]
        reason = data.get("completionReason")
        if reason is None:
            result = cls.from_items(items, completion_config)
            logger.warning(
                "a batch result without completionReason: %s was worked out from its items",
                result.completion_reason.value,
            )
            return result
        return cls(items, CompletionReason(reason))

    @classmethod
    def from_items(cls, items: list[BatchItem[R]], completion_config: CompletionConfig | None = None) -> BatchResult[R]:
        """A result whose reason follows from the items and the rule."""
        succeeded = sum(item.status is BatchItemStatus.SUCCEEDED for item in items)
        failed = sum(item.status is BatchItemStatus.FAILED for item in items)
        states = tuple(CompletionItemStatus(item.index, None, item.status) for item in items)
        policy = CompletionPolicy.from_config(len(items), completion_config)
        return cls(items, policy.reason(succeeded, failed, states))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"all": [item.to_dict() for item in self.all], "completionReason": self.completion_reason.value}

    def _with(self, status: BatchItemStatus) -> list[BatchItem[R]]:
        return [item for item in self.all if item.status is status]

    def succeeded(self) -> list[BatchItem[R]]:
        """Branches with a result."""
        return self._with(BatchItemStatus.SUCCEEDED)

    def failed(self) -> list[BatchItem[R]]:
        """Branches that failed."""
        return self._with(BatchItemStatus.FAILED)

    def started(self) -> list[BatchItem[R]]:
        """Branches that were not finished when the batch was over."""
        return self._with(BatchItemStatus.STARTED)

    @property
    def status(self) -> BatchItemStatus:
        """FAILED when an item failed or the rule says so, else SUCCEEDED."""
        failed = self.has_failure or self.completion_reason is CompletionReason.CUSTOM_COMPLETION_FAILED
        return BatchItemStatus.FAILED if failed else BatchItemStatus.SUCCEEDED

    @property
    def has_failure(self) -> bool:
        """Whether an item failed."""
        return any(item.status is BatchItemStatus.FAILED for item in self.all)

    def throw_if_error(self) -> None:
        """Raise the first failed item's error, or what a custom rule decided."""
        for item in self.failed():
            if item.error is None:
                raise ChildContextError(f"batch item {item.index} failed without an error")
            from durable_nb.sdk._errors import raise_recorded

            raise_recorded(ChildContextError, item.error)
        if self.completion_reason is CompletionReason.CUSTOM_COMPLETION_FAILED:
            raise BatchCompletionError(self.completion_reason)

    def get_results(self) -> list[R]:
        """Results of the branches that succeeded, None among them."""
        return [cast("R", item.result) for item in self.succeeded()]

    def get_errors(self) -> list[ErrorObject | None]:
        """Errors of the branches that failed."""
        return [item.error for item in self.failed()]

    @property
    def success_count(self) -> int:
        """How many succeeded."""
        return len(self.succeeded())

    @property
    def failure_count(self) -> int:
        """How many failed."""
        return len(self.failed())

    @property
    def started_count(self) -> int:
        """How many were not finished."""
        return len(self.started())

    @property
    def total_count(self) -> int:
        """How many were started."""
        return len(self.all)


__all__ = [
    "BatchCompletionError",
    "BatchItem",
    "BatchItemStatus",
    "BatchResult",
    "CompletionPolicy",
    "CompletionReason",
]
