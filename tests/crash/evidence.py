"""What was tried, as numbers: each test of this folder adds a line, and `docs/reliability.md` is made from them.

Lines are kept only when `DURABLE_NB_EVIDENCE` names a file, as `make soak` does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def keep(subject: str, **counts: int) -> None:
    """Add a line of evidence."""
    place = os.environ.get("DURABLE_NB_EVIDENCE")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"subject": subject, **counts}) + "\n")
