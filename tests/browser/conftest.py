"""One server and one browser for each application, shared by the tests of a module: starting them takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.lab import Lab
from tests.notebook.harness import Bench


@pytest.fixture(scope="module", params=["lab", "notebook"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab or Notebook 7 with a browser; tests use `lab`."""
    bench = Bench(tmp_path_factory.mktemp(request.param) / "work")
    with Lab(bench, app=request.param, width=1000, height=760) as opened:
        yield opened


@pytest.fixture
def lab(server: Lab) -> Iterator[Lab]:
    """The server with a folder of the test's own (`lab.bench`), no kernel, and a new page."""
    server.begin()
    yield server
    server.end()
