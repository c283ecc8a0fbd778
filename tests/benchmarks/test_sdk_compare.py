"""The comparison script runs; its figures are for who asks."""

from __future__ import annotations

import argparse
from pathlib import Path

from .sdk_compare import disk, ours, table


def test_our_sides_of_the_comparison_run(tmp_path: Path) -> None:
    options = argparse.Namespace(steps=20, replay=30, items=20)
    text = table({"disk": disk(tmp_path, options), "ours": ours(tmp_path, options)})
    assert "of the journal's own commit rate" in text
