"""What a cell was before it was edited: only for the words in `why`, never for what is replayed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from durable_nb.notebook._records import Record

_ALIKE = 0.5
"""Two sources at the same place of the notebook that share this much are one cell before and after an edit."""


class Past:
    """The sources of the cells that a notebook had when it was last run.

    Args:
        records: completed runs, oldest first.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._by_id: dict[str, str] = {}
        self._by_position: dict[int, str] = {}
        for record in records:
            details = record.event.details
            if "cell_id" in details:
                self._by_id[str(details["cell_id"])] = record.source
            if isinstance(details.get("position"), int):
                self._by_position[details["position"]] = record.source

    def source(self, cell_id: str | None, position: int, now: str) -> str | None:
        """The source that the cell with this id, or at this position, had; None when it seems to be a new cell."""
        if cell_id is not None and cell_id in self._by_id:
            return self._by_id[cell_id]
        before = self._by_position.get(position)
        if before is None or difflib.SequenceMatcher(None, before, now, autojunk=False).ratio() < _ALIKE:
            return None
        return before
