"""`context.map`: one function over many items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from durable_nb.sdk.concurrency.models import BatchResult
from durable_nb.sdk.config import MapConfig
from durable_nb.sdk.lambda_service import OperationSubType
from durable_nb.sdk.operation._alone import uses
from durable_nb.sdk.operation._frame import Frame
from durable_nb.sdk.operation.batch import Batch, BatchOptions, Executable

if TYPE_CHECKING:
    from durable_nb.sdk.context import DurableContext


def map_items(
    context: DurableContext,
    frame: Frame,
    items: Sequence[Any],
    func: Callable[[DurableContext, Any, int, Sequence[Any]], Any],
    config: MapConfig[Any],
) -> BatchResult[Any]:
    """Call `func(context, item, index, items)` for every item."""
    # A function that does not use its context can leave this process as it is; then what it does not use stays here.
    body: Callable[..., Any] = func
    leaves = not uses(func, 0)
    every = items if uses(func, 3) else ()

    def executable(index: int, item: Any) -> Executable:
        name = config.item_namer(item, index) if config.item_namer else f"map-item-{index}"
        alone = partial(body, None, item, index, every) if leaves else None
        return Executable(index, name, lambda inner: func(inner, item, index, items), alone)

    options = BatchOptions(
        kind="Map",
        branch_sub_type=OperationSubType.MAP_ITERATION,
        max_concurrency=config.max_concurrency,
        completion=config.completion_config,
        serdes=config.serdes,
        item_serdes=config.item_serdes,
        summary_generator=config.summary_generator,
        nesting=config.nesting_type,
        executor=config.executor,
    )
    return Batch(context, frame, [executable(index, item) for index, item in enumerate(items)], options).run()


__all__ = ["map_items"]
