"""`durable_nb.context` of a cell, made when the cell first uses it: most never do, and the SDK takes time to load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durable_nb.abc import Lease

if TYPE_CHECKING:
    from durable_nb.runtime import Store
    from durable_nb.sdk.cell import CellContext


class LazyContext:
    """Stands for the cell's context.

    Args:
        store: of the notebook.
        execution_id: the notebook's execution.
        lease: that this kernel holds on it.
        parent: gives the id of the operation that the cell's durable calls are recorded under.
        on_use: called when the cell uses it for the first time.
        on_wait: told of calls that wait, from any thread.
        on_event: told of whatever is recorded, from any thread.
    """

    def __init__(
        self,
        store: Store,
        execution_id: str,
        lease: Lease | None,
        parent: Callable[[], str],
        *,
        on_use: Callable[[], None] | None = None,
        on_wait: Callable[[Any], None] | None = None,
        on_event: Callable[[Any], None] | None = None,
    ) -> None:
        self._store, self._execution_id, self._lease, self._parent = store, execution_id, lease, parent
        self._on_use, self._on_wait, self._on_event = on_use, on_wait, on_event
        self._made: CellContext | None = None

    def _context(self) -> CellContext:
        if self._made is None:
            from durable_nb.notebook._progress import BatchBars
            from durable_nb.sdk.cell import CellContext

            if self._on_use is not None:
                self._on_use()
            self._made = CellContext.for_cell(
                self._store.journal,
                self._execution_id,
                self._lease,
                self._parent(),
                blobs=self._store.blobs,
                markers=self._store.markers,
                on_progress=BatchBars(),
                on_wait=self._on_wait,
                on_event=self._on_event,
            )
        return self._made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._context(), name)

    def close(self) -> None:
        """The cell has ended."""
        if self._made is not None:
            self._made.close()
