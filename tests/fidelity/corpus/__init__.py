"""The corpus: at least one notebook for each row of the list of hard cases."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fidelity.case import Case
from tests.fidelity.corpus import outputs, process, resources, running, settings, state


def all_cases() -> Iterator[Case]:
    """Every case, in the order of the list."""
    for section in (state, resources, process, settings, outputs, running):
        yield from section.CASES
