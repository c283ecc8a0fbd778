"""Durable execution for notebooks and handlers: what was done is never done again.

The names below load on first use, so that importing the package costs next to nothing. `durable_nb.context` is the
context of the running durable cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_nb.sdk import (
        AsyncDurableContext,
        BatchResult,
        DurableContext,
        StepContext,
        StepError,
        durable_execution,
        durable_parallel_branch,
        durable_step,
        durable_wait_for_callback,
        durable_with_child_context,
        with_retry,
    )
    from durable_nb.sdk.config import Duration, MapConfig, ParallelConfig, StepConfig, StepSemantics
    from durable_nb.sdk.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy

    context: DurableContext
    """The running cell's context."""

__version__ = "0.1.0"

_HOMES = {
    "AsyncDurableContext": "durable_nb.sdk",
    "BatchResult": "durable_nb.sdk",
    "DurableContext": "durable_nb.sdk",
    "Duration": "durable_nb.sdk.config",
    "MapConfig": "durable_nb.sdk.config",
    "ParallelConfig": "durable_nb.sdk.config",
    "RetryPresets": "durable_nb.sdk.retries",
    "RetryStrategyConfig": "durable_nb.sdk.retries",
    "StepConfig": "durable_nb.sdk.config",
    "StepContext": "durable_nb.sdk",
    "StepError": "durable_nb.sdk",
    "StepSemantics": "durable_nb.sdk.config",
    "create_retry_strategy": "durable_nb.sdk.retries",
    "durable_execution": "durable_nb.sdk",
    "durable_parallel_branch": "durable_nb.sdk",
    "durable_step": "durable_nb.sdk",
    "durable_wait_for_callback": "durable_nb.sdk",
    "durable_with_child_context": "durable_nb.sdk",
    "with_retry": "durable_nb.sdk",
}

__all__ = [
    "AsyncDurableContext",
    "BatchResult",
    "DurableContext",
    "Duration",
    "MapConfig",
    "ParallelConfig",
    "RetryPresets",
    "RetryStrategyConfig",
    "StepConfig",
    "StepContext",
    "StepError",
    "StepSemantics",
    "__version__",
    "context",
    "create_retry_strategy",
    "durable_execution",
    "durable_parallel_branch",
    "durable_step",
    "durable_wait_for_callback",
    "durable_with_child_context",
    "load_ipython_extension",
    "unload_ipython_extension",
    "with_retry",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "context":
        from durable_nb.sdk._engine import cell_context

        return cell_context
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext durable_nb`: durable cells in this notebook."""
    from durable_nb.notebook import load_ipython_extension as load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """`%unload_ext durable_nb`: plain cells again."""
    from durable_nb.notebook import unload_ipython_extension as unload

    unload(ipython)
