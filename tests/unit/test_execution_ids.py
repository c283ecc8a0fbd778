"""Ids of executions begin with the time, and cannot be guessed from it."""

from __future__ import annotations

import uuid

import pytest

from durable_nb.journal import MemoryJournal, _ids


def test_an_id_that_is_made_later_is_greater(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (0, 1, 1_800_000_000_000, 1_800_000_000_001, (1 << 48) - 1):
        monkeypatch.setattr(_ids.time, "time_ns", lambda at=milliseconds: at * 1_000_000 + 999_999)
        made.append(_ids.new_execution_id())
        assert uuid.UUID(made[-1]).int >> 80 == milliseconds
    assert made == sorted(made)


def test_an_id_is_a_uuid_of_version_7_whose_other_bits_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ids.time, "time_ns", lambda: 1_800_000_000_000_000_000)
    made = [uuid.UUID(_ids.new_execution_id()) for _ in range(500)]
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    assert len(set(made)) == 500
    seen = [0, 0]
    for one in made:
        seen[0] |= one.int
        seen[1] |= ~one.int
    varying = seen[0] & seen[1] & (1 << 128) - 1
    assert varying == ((1 << 12) - 1) << 64 | (1 << 62) - 1


def test_a_journal_gives_such_ids() -> None:
    made = MemoryJournal().create("a", kind="handler", at=1.0, details={})
    assert uuid.UUID(made.execution_id).version == 7
