"""Rows and events are made by short cuts: what comes out is what the long way gives."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from durable_nb.events import ErrorInfo, Event, EventKind, OperationType, StoredEvent, new_event, new_stored
from durable_nb.journal._rows import event_of, mac_of, row_of

_EVENT = Event(
    operation_id="a" * 64,
    kind=EventKind.FAILED,
    type=OperationType.STEP,
    at=1764496000.25,
    sub_type="Step",
    name="größer 'als'",
    parent_id="b" * 64,
    attempt=3,
    payload=b"\0\1",
    error=ErrorInfo(type="ValueError", message="no"),
    due=2.0,
    details={"started": 1.5, "ä": [1, None]},
)


def _values(event: Any) -> list[Any]:
    return [getattr(event, field.name) for field in dataclasses.fields(event)]


def test_an_event_made_quickly_is_an_event() -> None:
    made = new_event(*_values(_EVENT))
    assert type(made) is Event
    assert made == _EVENT
    assert repr(made) == repr(_EVENT)
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == _EVENT
    assert dataclasses.replace(made, attempt=4).attempt == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.attempt = 4  # type: ignore[misc]


def test_a_stored_event_made_quickly_is_one() -> None:
    made = new_stored("x", 7, _EVENT, False)
    assert made == StoredEvent(execution_id="x", sequence=7, event=_EVENT, trusted=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.trusted = True  # type: ignore[misc]


def _sign(data: bytes) -> bytes:
    return data


def _signature(row: tuple[Any, ...]) -> bytes:
    """As the format says: of each column its length in eight bytes, then the mark of its kind and its value."""
    text = b""
    for value in row:
        data = b"" if value is None else b"\1" + value if isinstance(value, bytes) else b"\2" + repr(value).encode()
        text += len(data).to_bytes(8, "big") + data
    return text


@pytest.mark.parametrize(
    "column",
    ["STEP", "", "with \"two\" kinds of 'quotes' and ü\n", None, 1, 1.0, 0.0, -0.0, b"STEP", b"", 2**62, float("inf")],
)
def test_a_signature_is_of_every_column_as_it_is(column: Any) -> None:
    row = row_of("e" * 32, 5, _EVENT, None)[:14]
    for place in range(14):
        changed = (*row[:place], column, *row[place + 1 :])
        for one in (changed, row, changed):  # what was seen before changes nothing
            assert mac_of(one, _sign) == _signature(one)


def test_events_are_read_as_they_were_written() -> None:
    bare = dataclasses.replace(_EVENT, error=None, due=None, parent_id=None, details={})
    for number, event in enumerate([_EVENT, bare, dataclasses.replace(bare, payload=None, details={"a": {}})], 1):
        stored = event_of(row_of("e", number, event, _sign), (_sign,))
        assert stored == StoredEvent(execution_id="e", sequence=number, event=event)


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, "5"), (2, 5), (3, "BEGUN"), (3, 1), (4, b"STEP"), (5, 1), (8, "now"), (9, 1.0), (10, "text"), (11, "[]"),
     (12, "soon"), (13, "[1]"), (13, "{} {}"), (13, "{"), (13, b"{}"), (13, "[" * 100_000)],
)  # fmt: skip
def test_a_row_that_is_no_event_is_an_untrusted_note(place: int, value: Any) -> None:
    row = row_of("e", 1, _EVENT, None)
    found = event_of((*row[:place], value, *row[place + 1 :]), ())
    assert not found.trusted
    assert found.event.kind is EventKind.NOTE
    assert "damaged" in found.event.details


def test_blanks_around_details_change_nothing() -> None:
    row = row_of("e", 1, _EVENT, None)
    assert event_of((*row[:13], ' {"a": 1} ', None), ()).event.details == {"a": 1}
