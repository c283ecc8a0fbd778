"""The page on reliability says what the evidence says, and no more."""

from __future__ import annotations

import json
from typing import Any

from tests.crash.report import page


def _page(*lines: dict[str, Any]) -> str:
    return page([json.dumps(line) for line in lines])


def test_counts_are_added_up_and_what_was_lost_is_not_hidden() -> None:
    killed = {"subject": "Dask workers killed", "cases": 2, "lost": 0, "doubled": 0, "steps": 1200}
    found = _page(
        {"subject": "fuzz", "cases": 1000},
        {"subject": "fuzz", "cases": 500},
        *({**killed, "seed": seed} for seed in (1, 2, 3, 7)),
        {**killed, "lost": 1, "seed": 9},
        {"subject": "a new kind", "cases": 5, "lost": 0, "doubled": 3, "seed": 1},
    )
    assert "| fuzz | 1,500 cases |" in found
    assert "| 10 | 1 | 0 | 1–3, 7, 9 | 6,000 steps |" in found
    assert "| a new kind |  | 5 | 0 | 3 | 1 |  |" in found
    assert "| **all** | | **15** | **1** | **3** | | |" in found


def test_a_kind_of_fault_that_was_not_tried_is_said_to_be_so() -> None:
    assert "is full, filling or free, of bytes or of names | not tried |" in _page()
