"""Fixtures that every kind of test may use."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.notebook.harness import Bench
from tests.servers.postgres import Cluster

# No test asserts a time: an example may take long where the machine is shared.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

SEED = os.environ.get("DURABLE_NB_SEED", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests marked `sampled(n)`, all but one in n, which the seed chooses, are left to `make soak`."""
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled is not None and zlib.crc32(f"{SEED} {item.nodeid}".encode()) % sampled.args[0]:
            item.add_marker(pytest.mark.soak)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A folder of the test's own with a store, and kernels that know no other place."""
    return Bench(tmp_path / "work")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server that the tests of this process share, each with a store of its own."""
    with Cluster.started() as cluster:
        yield cluster
