"""The version of the interface."""

from __future__ import annotations

__version__ = "3.0.0"
"""The release of the mirrored interface that this one follows where its sources differ."""
