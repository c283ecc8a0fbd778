"""Durable executions: handlers that survive their process, on a local store.

Module names and interfaces follow the AWS Durable Execution SDK for Python, so that porting is a change of import.
"""

from __future__ import annotations

from durable_nb.sdk.__about__ import __version__
from durable_nb.sdk._engine import current_cell_context
from durable_nb.sdk.aio import AsyncDurableContext
from durable_nb.sdk.concurrency.models import BatchCompletionError, BatchResult
from durable_nb.sdk.config import (
    BatchItemStatus,
    CompletionDecision,
    CompletionItemStatus,
    CompletionOutcome,
    CompletionStatus,
    ParallelBranch,
    complete_batch,
    continue_batch,
)
from durable_nb.sdk.context import (
    DurableContext,
    durable_parallel_branch,
    durable_step,
    durable_wait_for_callback,
    durable_with_child_context,
)
from durable_nb.sdk.exceptions import (
    CallbackError,
    CallbackExternalError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    ChildContextError,
    DurableExecutionsError,
    DurableOperationError,
    ExecutionError,
    InvocationError,
    InvokeError,
    PluginLoadError,
    RetryableSerDesError,
    SerDesError,
    StepError,
    ValidationError,
    WaitForConditionError,
)
from durable_nb.sdk.execution import durable_execution
from durable_nb.sdk.lambda_service import InvocationStatus
from durable_nb.sdk.retries import WithRetryConfig, with_retry
from durable_nb.sdk.types import StepContext

__all__ = [
    "AsyncDurableContext",
    "BatchCompletionError",
    "BatchItemStatus",
    "BatchResult",
    "CallbackError",
    "CallbackExternalError",
    "CallbackSubmitterError",
    "CallbackTimeoutError",
    "ChildContextError",
    "CompletionDecision",
    "CompletionItemStatus",
    "CompletionOutcome",
    "CompletionStatus",
    "DurableContext",
    "DurableExecutionsError",
    "DurableOperationError",
    "ExecutionError",
    "InvocationError",
    "InvocationStatus",
    "InvokeError",
    "ParallelBranch",
    "PluginLoadError",
    "RetryableSerDesError",
    "SerDesError",
    "StepContext",
    "StepError",
    "ValidationError",
    "WaitForConditionError",
    "WithRetryConfig",
    "__version__",
    "complete_batch",
    "continue_batch",
    "current_cell_context",
    "durable_execution",
    "durable_parallel_branch",
    "durable_step",
    "durable_wait_for_callback",
    "durable_with_child_context",
    "with_retry",
]
