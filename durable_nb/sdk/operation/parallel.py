"""`context.parallel`: several functions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from durable_nb.sdk.concurrency.models import BatchResult
from durable_nb.sdk.config import ParallelBranch, ParallelConfig
from durable_nb.sdk.lambda_service import OperationSubType
from durable_nb.sdk.operation._alone import uses
from durable_nb.sdk.operation._frame import Frame
from durable_nb.sdk.operation.batch import Batch, BatchOptions, Executable

if TYPE_CHECKING:
    from durable_nb.sdk.context import DurableContext


def parallel(
    context: DurableContext,
    frame: Frame,
    functions: Sequence[Callable[[DurableContext], Any] | ParallelBranch[Any]],
    config: ParallelConfig,
) -> BatchResult[Any]:
    """Call every function with a context of its own."""

    def executable(index: int, func: Callable[[DurableContext], Any]) -> Executable:
        name = func.name if isinstance(func, ParallelBranch) and func.name else f"parallel-branch-{index}"
        body: Callable[..., Any] = func.func if isinstance(func, ParallelBranch) else func
        return Executable(index, name, func, None if uses(body, 0) else partial(body, None))

    options = BatchOptions(
        kind="Parallel",
        branch_sub_type=OperationSubType.PARALLEL_BRANCH,
        max_concurrency=config.max_concurrency,
        completion=config.completion_config,
        serdes=config.serdes,
        item_serdes=config.item_serdes,
        summary_generator=config.summary_generator,
        nesting=config.nesting_type,
        executor=config.executor,
    )
    return Batch(context, frame, [executable(index, func) for index, func in enumerate(functions)], options).run()


__all__ = ["parallel"]
