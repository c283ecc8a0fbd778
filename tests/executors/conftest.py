"""One cluster for all tests of this folder: their modules are one group of xdist, so that one process runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.executors.cluster import Cluster

WORKERS = 2


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="Dask is not installed (the extra `dask`)")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), WORKERS)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    """The cluster, with all its workers."""
    started.at_least(WORKERS)
    return started


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder in which bodies leave word that they have begun."""
    folder = tmp_path / "begun"
    folder.mkdir()
    return folder
