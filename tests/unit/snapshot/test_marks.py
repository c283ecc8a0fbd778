"""Which names are bound to something else: asked of all names around every cell."""

from __future__ import annotations

import weakref
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durable_nb._ident import ident
from durable_nb.snapshot._addresses import POINTER, _asked, addresses_of
from durable_nb.snapshot._bindings import Bindings
from durable_nb.snapshot._marks import Mark, Marks, moved
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


@given(st.data())
def test_the_picture_tells_what_asking_every_mark_tells(data: st.DataObject) -> None:
    """Whatever was bound, deleted, moved to the end and garbage collected in between."""
    pool: list[Any] = [1, 10**30, "text", "x" * 100_000, [1], {}, Thing(), Thing(), Mark, None, 2.5]
    names = st.sampled_from([f"n{i}" for i in range(8)] + ["Out[1]", "Out[2]"])
    bindings: dict[str, Any] = {}
    known = Marks()
    for _ in range(data.draw(st.integers(1, 5))):
        for name, number in data.draw(st.lists(st.tuples(names, st.integers(-2, 12)), max_size=6)):
            if number == -2:
                bindings.pop(name, None)
            elif number == -1:
                bindings[name] = Thing()  # the old one may be gone, and its address given out again
            else:
                bindings.pop(name, None) if number == 12 else None
                bindings[name] = pool[number % len(pool)]
        plain = moved(dict(known), bindings)
        assert known.moved(bindings) == plain
        if known.show(list(bindings), tuple(bindings.values())):
            assert not plain
            assert known.keys() == bindings.keys()
        if data.draw(st.booleans()) and bindings:
            name = next(iter(bindings))
            known[name] = Mark(bindings[name])
            assert known.moved(bindings) == moved(dict(known), bindings)
        known = known.renewed(bindings, known.moved(bindings)) if data.draw(st.booleans()) else known.copy()
        assert known.moved(bindings) == moved(dict(known), bindings)
        assert not set(known.copy().moved(bindings)) ^ set(known.moved(bindings))
        fresh = known.renewed(bindings, known.moved(bindings))
        assert fresh.show(list(bindings), tuple(bindings.values()))
        assert set(fresh._unsure) == {name for name, mark in fresh.items() if mark.may_be_gone}


def test_a_dead_value_whose_address_is_given_out_again_has_moved() -> None:
    bindings: dict[str, Any] = {"x": Thing(), "y": 1}
    known = Marks().renewed(bindings, bindings)
    for _ in range(100):
        bindings["x"] = None
        bindings["x"] = Thing()
        assert known.moved(bindings) == ["x"]


def test_a_picture_costs_no_reference() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    known = Marks().renewed({"x": thing}, ["x"])
    assert known.moved({"x": thing}) == []
    del thing
    assert gone() is None


def test_addresses_read_from_memory_are_those_that_are_asked_for() -> None:
    values = [object(), [], 1, "x", None]
    again = list(values)
    assert addresses_of(values) == addresses_of(again)
    assert len(addresses_of(values)) == len(values) * POINTER == len(_asked(tuple(values)))
    assert addresses_of([*values[:-1], object()]) != addresses_of(values)
    assert addresses_of([]) == b""


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "_x", "_", "__", "display", "_i1", "exit"]), st.integers(-1, 3))))
def test_what_is_bound_is_found_step_by_step_as_it_is_found_at_once(steps: list[tuple[str, int]]) -> None:
    """Whatever the user and the shell bind and delete, in whatever order."""
    shells: dict[str, Any] = {"display": object(), "_": "", "__": "", "exit": object(), "In": [""], "_oh": {}}
    namespace = dict(shells)
    watched = Bindings(namespace, dict(shells))
    for name, number in steps:
        if number == -1:
            namespace.pop(name, None)
        elif number == 3 and name in shells:
            namespace[name] = shells[name]
        elif number == 2:
            namespace["_oh"][len(namespace["_oh"])] = name
        else:
            namespace[name] = number
        again = Bindings(namespace, dict(shells))
        again._hidden = watched._hidden  # taken before the user had bound anything
        assert list(watched.all().items()) == list(again.all().items())
