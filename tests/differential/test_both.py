"""The same handlers through the AWS SDK and its test runner, and through ours: status, result, error type and tree agree.

Where section 0 of the interface decides otherwise, the case is listed with what differs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .compare import AWS, OURS, outcome
from .handlers import NAMES

pytest.importorskip("aws_durable_execution_sdk_python_testing")
pytestmark = pytest.mark.xdist_group("differential")

DECIDED = {
    "nested_step": "steps are leaves: context.step inside a step is refused",
    "step_without_strategy": "no strategy means no retry: the step fails at its first attempt",
}


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """Every case over the AWS packages."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "tests.differential.compare", AWS]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DECIDED])
def test_both_implementations_agree(name: str, theirs: dict[str, Any]) -> None:
    expected, ours = theirs[name], json.loads(json.dumps(outcome(OURS, name)))
    if name == "other_operation_at_a_replay":
        # With which words the difference is named is each implementation's own.
        expected["error"], ours["error"] = expected["error"][1:], ours["error"][1:]
    if name == "invoke_unknown":
        for one in (*expected["operations"], *ours["operations"]):
            one["error"] = one["error"][1:]
    assert ours == expected


@pytest.mark.parametrize("name", sorted(DECIDED))
def test_a_decided_difference_is_one(name: str, theirs: dict[str, Any]) -> None:
    assert json.loads(json.dumps(outcome(OURS, name))) != theirs[name], DECIDED[name]


def test_there_are_more_than_forty_handlers() -> None:
    assert len(NAMES) > 40
