"""Which names are bound to something else: asked of all names around every cell."""

from __future__ import annotations

from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._groups import Mark, moved
from durable_nb.snapshot._tracker import Tracker


class Thing:
    pass


def marks(bindings: dict[str, Any]) -> dict[str, Mark]:
    return {name: Mark(value) for name, value in bindings.items()}


def test_nothing_moves_by_itself() -> None:
    bindings = {"number": 10**9, "text": "x" * 100_000, "thing": Thing(), "items": [1], "none": None}
    assert moved(marks(bindings), bindings) == []


def test_rebound_new_and_equal_values_have_moved_in_the_order_of_the_bindings() -> None:
    old = {"a": [1], "b": [2], "c": [3]}
    known = marks(old)
    now = {"d": 4, "c": old["c"], "b": [2], "a": old["b"]}
    assert moved(known, now) == ["d", "b", "a"]


def test_another_object_at_the_address_of_a_dead_one_has_moved() -> None:
    for old, new in ((Thing(), Thing()), ("x" * 100_000, "y" * 100_000)):
        known = {"x": Mark(old)}
        known["x"].address = ident(new)  # as if memory had been given out again
        assert moved(known, {"x": new}) == ["x"]


def test_names_of_the_shell_stay_hidden_and_the_users_own_are_found_again() -> None:
    display = object()
    namespace: dict[str, Any] = {"display": display, "_i1": "", "_": "", "In": [""], "__name__": "__main__"}
    tracker = Tracker(namespace, hidden=dict(namespace))
    assert tracker.bindings() == {}
    namespace.update({"x": 1, "_i2": "x = 1", "_x": 2})
    assert tracker.bindings() == {"x": 1, "_x": 2}
    namespace.update({"display": 3, "_": 4, "_i2": "again"})
    assert tracker.bindings() == {"display": 3, "_": 4, "x": 1, "_x": 2}
    namespace.update({"display": display, "_": ""})
    del namespace["x"]
    assert tracker.bindings() == {"_x": 2}
