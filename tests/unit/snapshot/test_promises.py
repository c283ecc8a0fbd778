"""Promised names: they have versions and no values, and come back whole when one of them is wanted."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import pytest

from durable_nb.exceptions import DamagedBlobError
from durable_nb.snapshot import MemoryBlobStore, decode, load, save
from tests.unit.snapshot.namespace import Namespace


class Counted(MemoryBlobStore):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.lost = self.warns = False

    def get(self, address: str) -> bytes:
        self.reads += 1
        if self.warns:
            warnings.warn("loading is old-fashioned", FutureWarning, stacklevel=2)
        if self.lost:
            raise DamagedBlobError(address)
        return super().get(address)


def reborn(notebook: Namespace, **options: Any) -> Namespace:
    """The same notebook in a new kernel, with every group that may wait promised."""
    other = Namespace(notebook.blobs)
    for manifest in notebook.manifests:
        load(decode(manifest), other.tracker, other.blobs, may_wait=lambda group: True, **options)
    return other


def written(*cells: str, blobs: MemoryBlobStore | None = None) -> Namespace:
    notebook = Namespace(blobs)
    for cell in cells:
        notebook.run(cell)
    return notebook


def there(notebook: Namespace, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in notebook.names]


def test_restoring_many_cells_reads_nothing_and_keeps_every_version() -> None:
    blobs = Counted()
    notebook = written(*(f"x{n} = [{n}] * 20_000" for n in range(150)), blobs=blobs)
    blobs.reads = 0
    other = reborn(notebook)
    assert blobs.reads == 0
    assert other.tracker.bindings() == {}
    assert other.tracker.names() == [f"x{n}" for n in range(150)]
    assert all(other.tracker.version(f"x{n}") == notebook.tracker.version(f"x{n}") for n in range(150))
    assert blobs.reads == 0


def test_a_group_comes_back_whole_and_once_and_no_other() -> None:
    blobs = Counted()
    notebook = written("a = [0] * 20_000\nb = {'inner': a}", "c = [1] * 20_000", blobs=blobs)
    blobs.reads = 0
    other = reborn(notebook)
    assert other.tracker.materialise(["b"]) == ("a", "b")
    reads = blobs.reads
    assert other["b"]["inner"] is other["a"]
    assert there(other, "abc") == ["a", "b"]
    assert other.tracker.materialise(["a", "b"]) == ()
    assert blobs.reads == reads


def test_a_materialised_name_is_no_change_of_the_next_cell() -> None:
    other = reborn(written("a = [1]", "b = [2]"))
    other.tracker.materialise(["a"])
    assert other.run("c = len(a)", touched=["a"]).changed.keys() == {"c"}
    assert "b" in other.tracker.promised


def test_what_arrives_while_a_cell_runs_is_not_its_doing() -> None:
    other = reborn(written("a = [1]"))
    other.names["fetch"] = other.tracker.materialise
    assert set(other.run("fetch(['a'])\nc = 1", touched=()).changed) == {"c"}
    assert other.tracker.version("a").kind == "content"


def test_a_change_in_place_of_what_was_promised_is_seen() -> None:
    other = reborn(written("a = [1]\nb = [a]"))
    other.tracker.materialise(["a"])
    assert set(other.run("a.append(2)").changed) == {"a", "b"}


def test_a_later_checkpoint_replaces_a_promise() -> None:
    notebook = written("a = [1]\nb = [a]\nc = 1", "a = [2]", "del c")
    other = reborn(notebook)
    assert set(other.tracker.names()) == {"a", "b"}
    for name in "ab":
        assert other.tracker.version(name) == notebook.tracker.version(name)
    other.tracker.materialise("abc")
    assert (other["a"], other["b"]) == ([2], [[1]])
    assert "c" not in other.names


def test_a_promise_takes_the_old_value_away() -> None:
    notebook = written("a = [1]", "a = [2]")
    other = Namespace(notebook.blobs)
    first, second = map(decode, notebook.manifests)
    load(first, other.tracker, other.blobs)
    load(second, other.tracker, other.blobs, may_wait=lambda group: True)
    assert "a" not in other.names
    other.tracker.materialise(["a"])
    assert other["a"] == [2]


def test_what_is_bound_behind_our_back_wins_and_the_rest_of_its_group_comes_back() -> None:
    other = reborn(written("a = [1]\nb = [a]"))
    other.names["a"] = "newer"
    assert other.tracker.version("a").text != "missing"
    assert other["a"] == "newer"
    assert other["b"] == [[1]]
    assert not other.tracker.promised


def test_an_eager_restore_over_a_promise_binds() -> None:
    notebook = written("a = [1]", "a = [2]")
    other = Namespace(notebook.blobs)
    first, second = map(decode, notebook.manifests)
    load(first, other.tracker, other.blobs, may_wait=lambda group: True)
    load(second, other.tracker, other.blobs)
    assert other["a"] == [2]
    assert not other.tracker.promised


def test_the_order_of_the_namespace_is_that_of_a_full_restore() -> None:
    notebook = written(*(f"{name} = [{number}]" for number, name in enumerate("abcdef")), "b = [9]")
    other = reborn(notebook)
    other.run("z = 1")
    other.tracker.materialise(["e"])
    other.tracker.materialise(other.tracker.promised)
    other.tracker.put_in_order()
    assert [name for name in other.names if len(name) == 1] == [*"abcdef", "z"]


def test_dirt_and_doubt_do_not_reach_what_is_not_loaded() -> None:
    notebook = written("a = [1]", "b = [a]")
    other = reborn(notebook)
    version = other.tracker.version("a")
    other.tracker.invalidate(None)
    other.tracker.mark_dirty(["z"])
    assert other.tracker.version("a") == version
    other.tracker.materialise(["a"])
    assert other.tracker.version("a") == version


def test_a_load_that_fails_says_so_each_time_and_binds_nothing() -> None:
    blobs = Counted()
    other = reborn(
        written("a = [0] * 20_000\nb = [a]", blobs=blobs),
        on_failure=lambda name, error: LookupError(f"{name}: {type(error).__name__}"),
    )
    blobs.lost = True
    for _ in range(2):
        with pytest.raises(LookupError, match="a: DamagedBlobError"):
            other.tracker.materialise(["b"])
    assert there(other, "ab") == []
    other.tracker.give_up(["a"])
    assert other.tracker.version("a").kind == "missing"
    blobs.lost = False
    assert other.tracker.materialise(["b"]) == ("b",)


def test_warnings_that_a_later_cell_has_made_errors_do_not_keep_a_value_away() -> None:
    blobs = Counted()
    other = reborn(written("v = [0] * 20_000", blobs=blobs))
    blobs.warns = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.tracker.materialise(["v"])
    assert blobs.reads == 2
    assert len(other["v"]) == 20_000


@pytest.mark.parametrize(
    "cell",
    [
        "class K: pass\nv = K()",
        "def f(): return 1\nv = [f]",
        "v = [lambda: 1]",
        "v = [compile('x + 1', 'c', 'eval')]",
        "import json\nv = json",
        "import sys\nv = [sys.stdout]",
        "import weakref, collections\nw = collections.OrderedDict()\nv = [weakref.ref(w), w]",
    ],
)
def test_what_depends_on_the_session_does_not_wait(cell: str) -> None:
    groups = {name: group for group in written(cell).last["groups"] for name in group["names"]}
    assert "data" not in groups["v"]


@pytest.mark.parametrize(
    ("value", "module"),
    [
        ("[1, 'x', (2.5, None)]", None),
        ("__import__('datetime').datetime(2020, 1, 2)", "datetime"),
        ("__import__('numpy').arange(3)", "numpy"),
        ("__import__('pandas').DataFrame({'x': [1]})", "pandas"),
        ("__import__('sklearn.linear_model').linear_model.Ridge()", "sklearn"),
    ],
)
def test_data_names_the_packages_that_it_needs(value: str, module: str | None) -> None:
    [group] = written(f"v = {value}").last["groups"]
    tops = {name.partition(".")[0] for name in group["data"]} - {"builtins", "durable_nb", "copyreg"}
    assert tops <= {"numpy", "pandas", "datetime", "sklearn"}
    assert module is None or module in tops


def test_a_rollback_restores_only_what_it_copied() -> None:
    other = reborn(written("a = [1]", "b = [2]"))
    other.tracker.materialise(["a"])
    delta = other.run("a.append(3)", touched=["a"])
    assert set(save(delta, other.blobs)["groups"][0]["names"]) == {"a"}
    assert "b" in other.tracker.promised
