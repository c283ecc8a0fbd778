"""Which file name IPython gave to a cell's source in this process.

Restored code carries the name of its cell here, so that tracebacks say `Cell In[4], line 2` and show the user's lines,
as they do for code that has just been run.
"""

from __future__ import annotations

import linecache
from typing import Any

from durable_nb.snapshot import default_filename


class CellFiles:
    """Names by source.

    Args:
        compiler: IPython's; it knows the names of the cells that it has compiled.
    """

    def __init__(self, compiler: Any) -> None:
        self._compiler = compiler
        self._names: dict[str, str] = {}
        self._seen = 0

    def name_of(self, source: str) -> str:
        """The file name of a cell with this source; a name of our own when this process has not seen the cell."""
        known = getattr(self._compiler, "_filename_map", {})
        if len(known) != self._seen:
            self._seen = len(known)
            for name in known:
                lines = linecache.cache.get(name)
                if lines is not None and len(lines) == 4:
                    self._names["".join(lines[2])] = name
        return self._names.get(source) or default_filename(source)
