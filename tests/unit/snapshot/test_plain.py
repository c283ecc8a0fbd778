"""Large trees of plain data: what is one, and what their digest tells apart."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_nb._ident import ident
from durable_nb.snapshot import _plain

ROWS = [{"id": i, "name": f"n{i}", "value": i / 2, "tags": ["a", (i, None)], "ok": i % 2 == 0} for i in range(2000)]


def digest(value: Any) -> str:
    found = _plain.digest(value)
    assert found is not None
    return found[0]


def test_rows_are_a_tree_whose_lists_and_dicts_are_known() -> None:
    found = _plain.tree(ROWS)
    assert found is not None
    assert found.mutables == {ident(ROWS), *map(ident, ROWS), *(ident(row["tags"]) for row in ROWS)}


class Text(str):
    pass


@pytest.mark.parametrize(
    "extra",
    [{1, 2}, bytearray(b"x"), Text("x"), object(), ROWS[0], [ROWS], range(3)],
    ids=["set", "bytearray", "subclass", "object", "held twice", "held twice inside", "range"],
)
def test_anything_else_takes_the_general_way(extra: object) -> None:
    assert _plain.tree([*ROWS, extra]) is None


def test_a_cycle_and_a_tuple_that_is_held_twice_take_the_general_way() -> None:
    cycle: list[Any] = list(range(5000))
    cycle.append(cycle)
    assert _plain.tree(cycle) is None
    pair = (1, [2])
    assert _plain.tree([pair, pair, *range(5000)]) is None
    assert _plain.tree([(), (), *range(5000)]) is not None


def test_little_takes_the_general_way() -> None:
    assert _plain.tree(list(range(100))) is None


def test_equal_content_has_equal_digests_however_it_was_made() -> None:
    rebuilt = [{key.upper().lower(): copy.deepcopy(value) for key, value in row.items()} for row in ROWS]
    assert digest(rebuilt) == digest(ROWS) == digest(pickle.loads(pickle.dumps(ROWS)))


def test_a_change_anywhere_changes_the_digest() -> None:
    for where in (0, 1000, 1999):
        other = copy.deepcopy(ROWS)
        other[where]["tags"][1] = (where, 0)  # type: ignore[index]
        assert digest(other) != digest(ROWS)
    assert digest(ROWS[:-1]) != digest(ROWS)
    assert digest(tuple(ROWS)) != digest(ROWS)
    assert digest([{**ROWS[0]}, *ROWS[1:]]) == digest(ROWS)
    assert digest([dict(reversed(ROWS[0].items())), *ROWS[1:]]) != digest(ROWS)


atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=70) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
    ),
)


def shape(value: Any) -> Any:
    """The value such that `==` tells types, order and zeros apart."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    return type(value), repr(value)


@given(values, values)
def test_digests_are_equal_exactly_when_the_content_is(left: Any, right: Any) -> None:
    assert (digest(left) == digest(right)) == (shape(left) == shape(right))
    assert digest(pickle.loads(pickle.dumps(left))) == digest(left)


def test_what_is_nested_too_deeply_has_no_digest() -> None:
    deep: list[Any] = [1]
    for _ in range(3000):
        deep = [deep]
    assert _plain.digest(deep) is None
