"""Which names a cell changed, and which versions names have."""

from __future__ import annotations

import gc
import weakref

import pytest

from durable_nb.snapshot import Version, decode, load
from tests.unit.snapshot.namespace import Namespace


def test_binding_through_globals_exec_and_functions_is_seen() -> None:
    notebook = Namespace()
    notebook.run("def f():\n    global x\n    x = 2")
    assert "x" in notebook.run("f()").changed
    assert "y" in notebook.run("exec('y = 3')").changed
    assert "z" in notebook.run("globals()['z'] = 4", touched=()).changed


def test_rebinding_a_number_to_another_one_is_seen_even_at_the_same_address() -> None:
    notebook = Namespace()
    notebook.run("x = 1.5")
    for value in range(50):
        assert "x" in notebook.run(f"globals()['x'] = {value}.25", touched=()).changed


def test_a_cell_that_binds_the_same_object_again_still_has_it_in_its_delta() -> None:
    notebook = Namespace()
    notebook.run("x = 5")
    assert set(notebook.run("x = 5").changed) == {"x"}


def test_reading_changes_nothing() -> None:
    notebook = Namespace()
    notebook.run("a = [1, {'x': 2}]\nb = (a, 'text')")
    assert notebook.run("sum(len(str(x)) for x in a); b").changed == {}


def test_what_a_cell_does_not_touch_is_not_looked_at() -> None:
    notebook = Namespace()
    notebook.run(
        "class Loud:\n    seen = 0\n    def __getstate__(self):\n        Loud.seen += 1\n        return {}\n    def __setstate__(self, state): pass"
    )
    notebook.run("loud = Loud()")
    seen = notebook["Loud"].seen
    for _ in range(3):
        notebook.run("x = 1")
    assert notebook["Loud"].seen == seen


def test_deleting_is_part_of_a_delta_and_is_restored() -> None:
    notebook = Namespace()
    notebook.run("a = [1]\nb = a\nc = 2")
    delta = notebook.run("del b, c")
    assert delta.deleted == ("b", "c")
    assert "a" in delta.changed
    assert not {"b", "c"} & notebook.reborn().names.keys()


def test_equal_content_has_equal_versions_however_it_was_made() -> None:
    one, two = Namespace(), Namespace()
    one.run("a = {'k': [1, 2.0, 'x']}\nb = a['k']")
    two.run("b = [1]\nb += [2.0]\nb.append(''.join(['x']))\na = dict(k=b)")
    assert one.tracker.version("a").text == two.tracker.version("a").text
    assert one.tracker.version("a").kind == "content"


def test_an_alias_and_an_equal_copy_have_different_versions() -> None:
    one, two = Namespace(), Namespace()
    one.run("a = [1]\nb = a")
    two.run("a = [1]\nb = list(a)")
    assert one.tracker.version("b").text != two.tracker.version("b").text


def test_values_without_canonical_content_have_lineage() -> None:
    notebook = Namespace()
    notebook.run("from sklearn.linear_model import Ridge\nm = Ridge()")
    assert notebook.tracker.version("m").kind == "lineage"
    assert notebook.tracker.version("m").exact


def test_a_missing_name_has_a_version_too() -> None:
    assert Namespace().tracker.version("nothing").kind == "missing"


def test_dirty_names_are_dirty_with_all_they_are_grouped_with_until_bound_again() -> None:
    notebook = Namespace()
    notebook.run("a = [1]\nb = a\nc = 3")
    notebook.tracker.mark_dirty(["a"])
    assert [notebook.tracker.version(name).kind for name in "abc"] == ["dirty", "dirty", "content"]
    notebook.run("a = [2]")
    assert notebook.tracker.version("a").kind == "content"
    assert notebook.tracker.version("b").kind == "dirty"


def test_changes_outside_of_cells_are_noticed_when_they_are_announced() -> None:
    notebook = Namespace()
    notebook.run("a = [1]\nb = [2]")
    old = {name: notebook.tracker.version(name).text for name in "ab"}
    notebook["a"].append(9)
    notebook.tracker.invalidate(None)
    assert notebook.tracker.version("a").text != old["a"]
    assert notebook.tracker.version("b").text == old["b"]


def test_names_bound_outside_of_cells_are_noticed() -> None:
    notebook = Namespace()
    notebook.run("a = 1")
    notebook.names["a"] = 2
    other = Namespace()
    other.run("a = 2")
    assert notebook.tracker.version("a").text == other.tracker.version("a").text


def test_versions_of_restored_names_are_taken_as_they_are() -> None:
    notebook = Namespace()
    notebook.run("a = [object()]")
    new = notebook.reborn()
    assert new.tracker.version("a") == notebook.tracker.version("a")


def test_a_restored_name_leaves_its_old_group() -> None:
    notebook = Namespace()
    notebook.run("x = [1]")
    other = Namespace(notebook.blobs)
    other.run("x = [0]\nc = x")
    old = other.tracker.version("c").text
    load(decode(notebook.manifests[0]), other.tracker, notebook.blobs)
    assert other["c"] == [0]
    assert other.tracker.version("c").text != old


def test_the_shells_own_names_are_no_bindings() -> None:
    notebook = Namespace()
    notebook.names.update(_=1, __=2, _i="x", _i3="y", In=[""], Out={}, _dh=[], _7=1, quit=print)
    assert set(notebook.tracker.bindings()) == {"quit"}
    notebook.names["_mine"] = 1
    assert "_mine" in notebook.tracker.bindings()


@pytest.mark.parametrize("make", ["lambda: [1]", "C", "lambda: __import__('numpy').zeros(9)"])
def test_tracking_keeps_nothing_alive(make: str) -> None:
    notebook = Namespace()
    notebook.run(f"class C: pass\nmake = {make}\na = make()")
    value = notebook["a"]
    watched = weakref.ref(value) if not isinstance(value, list) else None
    del value
    notebook.run("del a")
    gc.collect()
    assert watched is None or watched() is None


def test_functions_and_packages_of_a_value_are_known() -> None:
    notebook = Namespace()
    notebook.run("import pandas as pd\ndef f(): pass\nclass C: pass\nbox = [f, C(), pd.DataFrame()]")
    assert notebook["f"] in notebook.tracker.functions_of("box")
    assert notebook["C"] in notebook.tracker.functions_of("box")
    assert "pandas" in notebook.tracker.modules_of("box")
    assert notebook.tracker.functions_of("missing") == ()


def test_loading_some_names_binds_their_whole_groups_and_no_others() -> None:
    notebook = Namespace()
    notebook.run("a = [1]\nb = a\nc = 2")
    other = Namespace(notebook.blobs)
    load(decode(notebook.manifests[0]), other.tracker, notebook.blobs, names=["b"])
    assert other["a"] is other["b"]
    assert "c" not in other.names


def test_a_version_survives_as_it_is_stored() -> None:
    version = Version("abc", True, "lineage", "cell")
    assert Version(*["abc", True, "lineage", "cell"]) == version


def test_a_restored_value_without_canonical_content_stays_known_when_something_else_ran() -> None:
    notebook = Namespace()
    notebook.run("from sklearn.linear_model import Ridge\nm = Ridge()\nn = [1]")
    new = notebook.reborn()
    new.run("x = 1")
    new.tracker.invalidate(None)
    assert new.tracker.version("m").text == notebook.tracker.version("m").text
    assert new.tracker.version("n").text == notebook.tracker.version("n").text
    new["m"].alpha = 9
    new.tracker.invalidate(None)
    assert new.tracker.version("m").kind == "dirty"


def test_a_function_cell_that_ran_twice_leaves_one_function() -> None:
    notebook = Namespace()
    source = "def f():\n    return 1"
    notebook.run(source)
    notebook.run(source)
    notebook.run("box = [f]")
    new = notebook.reborn()
    assert new["box"][0] is new["f"]


def test_long_texts_are_not_kept_alive_and_rebinding_them_is_seen() -> None:
    notebook = Namespace()
    notebook.run("s = 'x' * 100_000")
    for letter in "abc":
        assert "s" in notebook.run(f"globals()['s'] = '{letter}' * 100_000", touched=()).changed
