"""The crash matrix: whatever happens at whichever point, nothing committed is lost and no at-most-once body begins twice.

A seeded sample runs with the other tests, every case in `make soak`. `DURABLE_NB_SEED` chooses another sample,
`DURABLE_NB_MATRIX` its size.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_nb.testing.faults_store import Fault
from tests.crash import handler_story
from tests.crash.evidence import keep
from tests.crash.story import broken_by, every_fault, sampled
from tests.fidelity.nursery import Nursery

SEED = int(os.environ.get("DURABLE_NB_SEED", "1"))
SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
SAMPLE = int(os.environ.get("DURABLE_NB_MATRIX", "12"))

pytestmark = pytest.mark.timeout(3600 if SOAK else 300)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def root() -> Iterator[Path]:
    """In memory, where a synced write costs little: what is lost is decided by the layer, not by the disk."""
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="dnb-crash-", dir=fast, ignore_cleanup_errors=True) as name:
        yield Path(name)


PARTS = range(24 if SOAK else 1)
"""The whole matrix in parts, so that workers share it and none takes longer than a few minutes."""


def part_of(faults: list[tuple[str, Fault]], part: int) -> list[tuple[str, Fault]]:
    return faults[part :: len(PARTS)] if SOAK else sampled(faults, SAMPLE, SEED)


@pytest.mark.parametrize("part", PARTS)
def test_a_notebook_survives_every_fault_at_every_point_of_its_checkpoints(
    nursery: Nursery, root: Path, part: int
) -> None:
    faults = list(every_fault(nursery, root / "count"))
    assert {name for name, _ in faults} >= {
        "blob fsync",
        "blob rename",
        "marker fsync",
        "journal COMMIT",
        "message reply",
    }
    chosen = part_of(faults, part)
    broken = [line for name, fault in chosen for line in broken_by(nursery, root, name, fault)]
    keep("matrix of a notebook", cases=len(chosen), points=max(fault.point for _, fault in faults), broken=len(broken))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("part", PARTS)
def test_a_handler_survives_every_fault_at_every_point_of_its_checkpoints(root: Path, part: int) -> None:
    context = handler_story.server()
    faults = list(handler_story.every_fault(context, root / "count"))
    assert {name for name, _ in faults} >= {"key open", "key link", "journal COMMIT", "store mkdir"}
    chosen = part_of(faults, part)
    broken = [line for name, fault in chosen for line in handler_story.broken_by(context, root, name, fault)]
    keep("matrix of a handler", cases=len(chosen), points=max(fault.point for _, fault in faults), broken=len(broken))
    assert not broken, "\n".join(broken)
