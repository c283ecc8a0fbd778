"""The test kit: run handlers with time skipped, look at their operations, crash and resume them, check their replay."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_nb.sdk.__about__ import __version__
    from durable_nb.sdk.lambda_service import InvocationStatus
    from durable_nb.testing.clock import VirtualClock
    from durable_nb.testing.faults import SimulatedCrash, crash_after
    from durable_nb.testing.replay import ReplayDifference, check_replay
    from durable_nb.testing.runner import (
        DurableChildContextTestRunner,
        DurableFunctionCloudTestRunner,
        DurableFunctionTestResult,
        DurableFunctionTestRunner,
    )

_WHERE = {
    "DurableChildContextTestRunner": "durable_nb.testing.runner",
    "DurableFunctionCloudTestRunner": "durable_nb.testing.runner",
    "DurableFunctionTestResult": "durable_nb.testing.runner",
    "DurableFunctionTestRunner": "durable_nb.testing.runner",
    "InvocationStatus": "durable_nb.sdk.lambda_service",
    "ReplayDifference": "durable_nb.testing.replay",
    "SimulatedCrash": "durable_nb.testing.faults",
    "VirtualClock": "durable_nb.testing.clock",
    "__version__": "durable_nb.sdk.__about__",
    "check_replay": "durable_nb.testing.replay",
    "crash_after": "durable_nb.testing.faults",
}
"""Loaded on first use: the pytest plugin is imported in every run of pytest, and must cost nothing there."""

__all__ = [
    "DurableChildContextTestRunner",
    "DurableFunctionCloudTestRunner",
    "DurableFunctionTestResult",
    "DurableFunctionTestRunner",
    "InvocationStatus",
    "ReplayDifference",
    "SimulatedCrash",
    "VirtualClock",
    "__version__",
    "check_replay",
    "crash_after",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
