"""pytest: the marker `durable_execution` and the fixture `durable_runner`; notebooks as tests with `--durable`.

@pytest.mark.durable_execution(handler=my_handler)
def test_it(durable_runner):
    with durable_runner:
        result = durable_runner.run(input={"data": "test"}, timeout=10)
    assert result.status is InvocationStatus.SUCCEEDED
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from durable_nb.testing.runner import DurableFunctionTestRunner

MARKER = "durable_execution"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `--durable`; see `durable_nb.testing.notebooks`."""
    from durable_nb.testing.notebooks import add_options

    add_options(parser)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Notebooks, when they are asked for."""
    from durable_nb.testing.notebooks import collect

    return collect(file_path, parent)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was replayed."""
    from durable_nb.testing.notebooks import summarize

    summarize(terminalreporter)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(handler, lambda_function_name=None, skip_time=True): the handler that `durable_runner` runs",
    )


@pytest.fixture
def durable_runner(request: pytest.FixtureRequest) -> Iterator[DurableFunctionTestRunner]:
    """A runner for the handler of the test's `durable_execution` marker; closed when the test is over."""
    from durable_nb.testing.runner import DurableFunctionTestRunner

    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        pytest.fail(f"the test uses durable_runner and has no @pytest.mark.{MARKER}(handler=...)")
    options = dict(marker.kwargs)
    handler = options.get("handler", marker.args[0] if marker.args else None)
    if handler is None:
        pytest.fail(f"@pytest.mark.{MARKER} needs the handler: @pytest.mark.{MARKER}(handler=my_handler)")
    unknown = options.keys() - {"handler", "lambda_function_name", "skip_time", "skip_callback_timeouts"}
    if unknown:
        pytest.fail(f"@pytest.mark.{MARKER} does not know {', '.join(sorted(unknown))}")
    runner = DurableFunctionTestRunner(
        handler,
        skip_time=options.get("skip_time", True),
        skip_callback_timeouts=options.get("skip_callback_timeouts", False),
    )
    with runner:
        yield runner


__all__ = [
    "durable_runner",
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_configure",
    "pytest_terminal_summary",
]
