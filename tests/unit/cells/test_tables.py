"""Tables of installed packages that a cell changes in place."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from durable_nb.cells import Tables


@pytest.fixture
def package() -> Iterator[Any]:
    """A module without a file, as compiled ones are: it counts as installed."""
    made = types.ModuleType("a_package")
    sys.modules["a_package"] = made
    yield made
    del sys.modules["a_package"]


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ([1], lambda table: table.append(2)),
        ([1, 2], lambda table: table.reverse()),
        ({"a": [1]}, lambda table: table.update(a=[1])),
        (OrderedDict(a=1), lambda table: table.pop("a")),
        ({1}, lambda table: table.add(2)),
        (deque([1]), lambda table: table.appendleft(0)),
        (bytearray(b"a"), lambda table: table.extend(b"b")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_table_that_a_cell_names_is_compared_by_content(package: Any, table: Any, change: Any) -> None:
    package.table = table
    tables = Tables([("@a_package", "table", "anything")])
    assert list(tables.changed()) == []
    change(table)
    assert list(tables.changed()) == ["a_package.table"]


def test_tables_of_classes_and_of_objects_are_found(package: Any) -> None:
    package.Loader = type("Loader", (), {"known": {}})
    package.state = types.SimpleNamespace(paths=[])
    tables = Tables([("@a_package", "Loader", "known"), ("@a_package", "state", "paths", "append")])
    package.Loader.known["x"] = 1
    package.state.paths.append("x")
    assert sorted(tables.changed()) == ["a_package.Loader.known", "a_package.state.paths"]


def test_of_a_module_that_the_cell_imports_the_form_decides() -> None:
    tables = Tables([("@a_package", "table", "append"), ("@a_package", "other")])
    made: Any = types.ModuleType("a_package")
    made.table, made.other = [], []
    sys.modules["a_package"] = made
    try:
        assert list(tables.changed()) == ["a_package.table"]
    finally:
        del sys.modules["a_package"]


def test_looking_runs_no_code_of_the_package(package: Any) -> None:
    def run(*_: Any) -> NoReturn:
        raise RuntimeError("code of the package was run")

    class Proxy:
        __class__ = property(run)  # type: ignore[assignment]
        __dict__ = property(run)  # type: ignore[assignment]
        __getattr__ = run

    class Lazy(dict[str, int]):
        keys = values = __iter__ = __len__ = run  # type: ignore[assignment]

    package.proxy, package.lazy = Proxy(), Lazy(a=1)
    tables = Tables([("@a_package", "proxy", "table", "append"), ("@a_package", "lazy", "get")])
    assert list(tables.changed()) == []
    dict.__setitem__(package.lazy, "b", 2)
    assert list(tables.changed()) == ["a_package.lazy"]
