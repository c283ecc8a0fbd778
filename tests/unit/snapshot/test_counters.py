"""Where packages count, and how their numbers come back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from durable_nb.snapshot._counters import Counters

SOURCE = """
import itertools

LIMIT = 7
_made = 0
_next = itertools.count(10).__next__


class System:
    dimension = 2
    made = 0
    ids = itertools.count()

    def __init__(self):
        System.made += 1
        self.id = next(System.ids)


def more():
    global _made
    _made += 1
    return _next()


class Lazy:
    def __getattr__(self, name):
        raise RuntimeError("touched")

    __class__ = property(lambda self: 1 / 0)


lazy = Lazy()
"""

A_NAME = "counting_package_of_the_tests"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / f"{A_NAME}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module(A_NAME)
    del sys.modules[A_NAME]


def numbers(counters: Counters) -> dict[str, int]:
    found = counters.read() or {}
    return {f"{owner}.{name}".strip("."): number for (module, owner, name), number in found.items() if module == A_NAME}


def test_places_that_code_assigns_to_are_counters_and_constants_and_proxies_are_none(package: ModuleType) -> None:
    assert numbers(Counters()) == {"_made": 0, "_next": 10, "System.made": 0, "System.ids": 0}


def test_what_moved_comes_back_and_the_rest_is_left(package: ModuleType) -> None:
    counters = Counters()
    counters.note_start()
    before = counters.read()
    assert counters.version(before) == "default"
    package.System(), package.System(), package.more()
    after = counters.read()
    delta = counters.delta(before, after)
    assert len(delta["value"]) == 4
    counters.reset()
    assert counters.version(counters.read()) == "default"
    counters.write(delta["value"])
    assert counters.version(counters.read()) == counters.version(after)
    assert (package.System().id, package.more()) == (2, 11)


def test_a_count_that_others_hold_is_moved_in_place(package: ModuleType) -> None:
    counters = Counters()
    held = package.System.ids
    counters.write([[A_NAME, "System", "ids", 5]])
    assert (next(held), package.System().id) == (5, 6)


def test_objects_made_by_loading_are_not_counted(package: ModuleType) -> None:
    counters = Counters()
    package.System()
    with counters.kept():
        package.System(), package.more()
    assert numbers(counters) == {"_made": 0, "_next": 10, "System.made": 1, "System.ids": 1}


def test_what_came_with_a_cell_that_also_used_it_counts_as_moved(package: ModuleType) -> None:
    counters = Counters()
    package.System()
    moved = counters.version(counters.read())
    counters.begin()
    assert counters.version(counters.read()) == moved != "default"
    fresh = Counters()
    fresh.begin()
    assert fresh.version(fresh.read()) == "default"


def test_a_place_that_is_gone_is_named(package: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"does not count in System\.gone any more"):
        Counters().write([[A_NAME, "System", "gone", 5]])
