"""What is known not to be right yet, and rows of the list whose proof is elsewhere."""

from __future__ import annotations

KNOWN: dict[str, str] = {}
"""Case to the reason it is wrong. A case in here that has become right is no failure; one that is missing is."""

ELSEWHERE: dict[str, str] = {}
"""Row to the test that proves it."""
