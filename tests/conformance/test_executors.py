"""The engine's own threads keep the promises of the port; what runs on a cluster does so in `tests/executors`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from durable_nb.abc import Executor
from durable_nb.sdk._local import ThreadPool
from durable_nb.testing.conformance_executors import ExecutorTests


class TestThreadPool(ExecutorTests):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        pool = ThreadPool("conformance")
        yield pool
        pool.shutdown()
