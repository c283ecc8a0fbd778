"""Fixtures that every kind of test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebook.harness import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A folder of the test's own with a store, and kernels that know no other place."""
    return Bench(tmp_path / "work")
