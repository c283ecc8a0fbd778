"""Coverage-guided fuzzing, in the long run; `test_trust.py` fuzzes the same readers in the short one."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.evidence import keep

INPUTS = 300_000
SECONDS = 240


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (extra: fuzz)")
def test_no_reader_gives_a_stranger_more_than_a_refusal() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.crash.fuzz_readers",
        f"-runs={INPUTS}",
        f"-max_total_time={SECONDS}",
        "-seed=1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = re.search(r"Done (\d+) runs", done.stderr)
    assert found is not None, done.stderr[-4000:]
    assert int(found[1]) > 1000
    keep("fuzz, coverage-guided", inputs=int(found[1]))
