"""Limits that the checkpoint format has."""

from __future__ import annotations

CHECKPOINT_SIZE_LIMIT_BYTES = 256 * 1024
"""Serialized results of contexts above this are replaced by a summary; replay rebuilds them from the children."""

ERROR_SIZE_LIMIT_BYTES = 32 * 1024
"""Longer error messages and data are cut, with a mark that says so."""

MAX_WAIT_SECONDS = 31_622_400
"""One leap year: the longest wait."""


__all__ = [
    "CHECKPOINT_SIZE_LIMIT_BYTES",
    "ERROR_SIZE_LIMIT_BYTES",
    "MAX_WAIT_SECONDS",
]
