"""What was tried, as numbers: each test of this folder adds a line, and `docs/reliability.md` is made from them.

Lines are kept only when `DURABLE_NB_EVIDENCE` names a file, as `make soak` does.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path


def keep(subject: str, **counts: int) -> None:
    """Add a line of evidence."""
    place = os.environ.get("DURABLE_NB_EVIDENCE")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"subject": subject, **counts}) + "\n")


@dataclass
class Toll:
    """What faults have cost, found by comparing what was promised with what is there."""

    lost: list[str] = field(default_factory=list)
    """What was acknowledged and is not there, or never came to its end."""
    doubled: list[str] = field(default_factory=list)
    """At-most-once bodies that began again, and records that are there twice."""
    wrong: list[str] = field(default_factory=list)
    """What was given back and is not what was written."""

    def require_none(self, subject: str, *, cases: int, seed: int, **more: int) -> None:
        """Keep the counts as evidence, and fail unless all is there once.

        Args:
            subject: the kind of fault.
            cases: faults, or programs with faults, that were gone through.
            seed: they were drawn from.
            more: what else was counted.
        """
        counts = {"lost": len(self.lost) + len(self.wrong), "doubled": len(self.doubled)}
        keep(subject, cases=cases, **counts, seed=seed, **more)
        assert (self.lost, self.doubled, self.wrong) == ([], [], []), f"{subject}, seed {seed}"
