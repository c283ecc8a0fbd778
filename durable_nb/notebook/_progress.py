"""The progress bar of `map` and `parallel` in a cell.

One display per batch, updated while branches end and left with a line that depends on the work only: no times, no
rates. A batch that is replayed shows that line at once, so a run that was cut off and one that was not look the same.
"""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_nb.sdk.state import Progress

_PAUSE_SECONDS = 0.1
"""Between two updates: a front end has no use for more."""


class BatchBars:
    """Told of the batches of one cell."""

    def __init__(self) -> None:
        self._shown: dict[str, Any] = {}
        self._last: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        """Show how far a batch is."""
        from IPython.display import display

        key = progress.operation_id
        handle = self._shown.get(key)
        now = time.monotonic()
        if handle is None:
            show: Any = display
            self._shown[key] = show(bundle(progress), raw=True, display_id=True)
        elif progress.over or now - self._last[key] >= _PAUSE_SECONDS:
            handle.update(bundle(progress), raw=True)
        else:
            return
        self._last[key] = now


def bundle(progress: Progress) -> dict[str, str]:
    """A bar for pages, a line for everything else."""
    label = progress.name or progress.sub_type.lower()
    line = f"{label}: {progress.done} of {progress.total}"
    if progress.failed:
        line += f", {progress.failed} failed"
    bar = f'<progress value="{progress.done}" max="{max(progress.total, 1)}" aria-label="{html.escape(label)}">'
    return {"text/plain": line, "text/html": f"<div>{bar}</progress> {html.escape(line)}</div>"}


__all__ = ["BatchBars", "bundle"]
