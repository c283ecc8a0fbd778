"""What a restored value still is, by kind of value."""

from __future__ import annotations

import builtins
import inspect
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.snapshot.namespace import Namespace


def restored(*cells: str) -> Namespace:
    """The cells' names in another namespace; every one of them was storable."""
    notebook = Namespace()
    for source in cells:
        notebook.run(source)
        assert notebook.problems() == []
    return notebook.reborn()


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_two_names_of_one_object_stay_two_names_of_one_object() -> None:
    new = restored("a = [1]\nb = a", "c = {'inner': a}")
    assert new["b"] is new["a"]
    assert new["c"]["inner"] is new["a"]


def test_a_second_name_for_a_stored_object_stores_it_only_once() -> None:
    notebook = Namespace()
    notebook.run("import numpy as np\na = [np.arange(200_000.0)]")
    known = set(notebook.blobs.addresses())
    notebook.run("b = a")
    assert set(notebook.blobs.addresses()) == known


def test_a_change_through_an_alias_belongs_to_the_cell_that_made_it() -> None:
    notebook = Namespace()
    notebook.run("a = [1]\nbox = {'deep': [a]}")
    delta = notebook.run("box['deep'][0].append(2)")
    assert set(delta.changed) == {"a", "box"}
    assert notebook.reborn()["a"] == [1, 2]


def test_names_that_nothing_links_stay_apart() -> None:
    notebook = Namespace()
    delta = notebook.run("a = [1]\nb = [1]\nc = (1, 'text', a)\nd = 'text'")
    assert sorted(group.names for group in delta.groups) == [("a", "c"), ("b",), ("d",)]


def test_frames_that_pandas_keeps_apart_are_no_group() -> None:
    notebook = Namespace()
    delta = notebook.run(
        "import pandas as pd\ndf = pd.DataFrame({'x': [1, 2], 'y': ['a', 'b']})\nmore = df.assign(z=1)\ns = df['x']\nh = df.head(1)"
    )
    assert all(len(group.names) == 1 for group in delta.groups)
    assert all(version.kind == "content" for version in delta.changed.values())


def test_a_frame_over_an_array_is_grouped_with_it() -> None:
    new = restored("import numpy as np, pandas as pd\na = np.zeros((3, 2))\ndf = pd.DataFrame(a, copy=False)")
    new["a"][0, 0] = 5
    assert new["df"].iloc[0, 0] == 5


@pytest.mark.parametrize(
    "view", ["a[::2]", "a.T", "a[1]", "a[:, ::-1]", "a.reshape(-1)", "a[..., None]", "a.view('i8')", "a[1:, 1:]"]
)
def test_a_view_still_writes_through(view: str) -> None:
    new = restored(f"import numpy as np\na = np.arange(24.0).reshape(4, 6)\nv = {view}")
    a, v = new["a"], new["v"]
    assert np.shares_memory(a, v)
    a[...] = 7.0
    assert (v.view("f8") == 7.0).all()


def test_a_view_made_by_a_later_cell_writes_through_a_mapped_base(tmp_path: Any) -> None:
    from durable_nb.snapshot import FileBlobStore

    notebook = Namespace(FileBlobStore(tmp_path))
    notebook.run("import numpy as np\na = np.zeros(1_000_000)")
    second = notebook.reborn()
    second.manifests = list(notebook.manifests)
    second.run("import numpy as np\nv = a[10:20]")
    third = second.reborn()
    third["v"][0] = 1
    assert third["a"][10] == 1
    assert third["a"].flags.writeable


def test_views_of_objects_write_through() -> None:
    new = restored("import numpy as np\na = np.array([1, [2], None], dtype=object)\nv = a[1:]")
    new["a"][2] = "new"
    assert new["v"][1] == "new"


def test_small_arrays_own_their_data_and_read_only_ones_stay_read_only() -> None:
    new = restored("import numpy as np\na = np.arange(5)\nr = np.arange(5)\nr.flags.writeable = False")
    assert new["a"].flags.owndata
    assert not new["r"].flags.writeable


def test_a_view_of_foreign_memory_that_is_stored_too_is_named() -> None:
    notebook = Namespace()
    notebook.run("import numpy as np\na = np.arange(4.0)\nm = np.ma.array(a, mask=[0, 1, 0, 0], copy=False)")
    assert notebook.problems() == ["m"]


def test_dict_views_follow_their_dict() -> None:
    new = restored("d = {'a': 1}\nk = d.keys()")
    new["d"]["b"] = 2
    assert list(new["k"]) == ["a", "b"]


def test_memory_views_write_to_their_bytearray() -> None:
    new = restored("b = bytearray(b'abcdef')\nm = memoryview(b)[2:4]")
    new["m"][0] = ord("X")
    assert new["b"] == b"abXdef"


# --- code ------------------------------------------------------------------------------------------------------------


def test_a_restored_function_sees_later_values_of_globals() -> None:
    new = restored("x = 1\ndef f():\n    return x")
    new.names["x"] = 2
    assert new["f"]() == 2
    assert new["f"].__globals__ is new.names


def test_a_function_with_globals_of_its_own_keeps_the_builtins_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        builtins, "outside", Path(os.devnull).open(), raising=False
    )  # as the shell is, while a cell runs
    with builtins.outside:  # type: ignore[attr-defined]
        new = restored(
            "import builtins, types\ndef g():\n    return len",
            "f = types.FunctionType(g.__code__, {'__name__': 'elsewhere', '__builtins__': vars(builtins)})",
        )
    assert new["f"].__globals__ is not new.names
    assert new["f"].__globals__["__builtins__"] is vars(builtins)
    assert new["f"]() is len


def test_closures_that_shared_a_variable_still_share_it() -> None:
    new = restored(
        "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n    def see():\n        return n\n    return up, see",
        "up, see = make()",
        "up()",
    )
    new["up"]()
    assert new["see"]() == 2


def test_a_mutable_default_keeps_what_it_gathered() -> None:
    new = restored("def f(x, seen=[]):\n    seen.append(x)\n    return seen", "f(1)", "kept = f(2)")
    assert new["f"](3) == [1, 2, 3]
    assert new["kept"] == [1, 2, 3]


def test_source_and_tracebacks_of_restored_functions_are_there() -> None:
    new = restored("def f():\n    # a remark\n    return 1 / 0")
    assert "# a remark" in inspect.getsource(new["f"])
    try:
        new["f"]()
    except ZeroDivisionError:
        assert "return 1 / 0" in traceback.format_exc()


def test_caches_come_back_cold_and_right() -> None:
    new = restored(
        "import functools\n@functools.lru_cache(maxsize=7)\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(9)"
    )
    assert new["fib"].cache_info().currsize == 0
    assert new["fib"].cache_parameters()["maxsize"] == 7
    assert new["fib"](20) == 6765


def test_decorated_functions_partials_lambdas_and_methods_work() -> None:
    new = restored(
        """
import functools
def twice(f):
    @functools.wraps(f)
    def wrapper(*args):
        return f(*args) * 2
    return wrapper
@twice
def add(a, b):
    return a + b
part = functools.partial(add, 1)
small = lambda x: x + 1
class C:
    def __init__(self, n): self.n = n
    def get(self): return self.n
    @staticmethod
    def plain(): return 's'
    @classmethod
    def made(cls): return cls
    @property
    def p(self): return self.n + 1
c = C(3)
bound, plain, made, inner = c.get, C.plain, C.made, add.__wrapped__
"""
    )
    assert (new["part"](2), new["small"](1), new["bound"](), new["c"].p) == (6, 2, 3, 4)
    assert new["plain"] is new["C"].plain
    assert new["made"]() is new["C"]
    assert new["bound"].__self__ is new["c"]
    assert new["add"].__wrapped__ is new["inner"]


def test_single_dispatch_keeps_its_registry() -> None:
    new = restored(
        "import functools\n@functools.singledispatch\ndef show(x):\n    return 'any'",
        "@show.register\ndef _show_int(x: int):\n    return 'int'",
    )
    assert (new["show"](1), new["show"]("a")) == ("int", "any")


def test_a_replaced_default_is_kept() -> None:
    new = restored("def f(x=1):\n    return x", "f.__defaults__ = (5,)")
    assert new["f"]() == 5


# --- classes ---------------------------------------------------------------------------------------------------------


def test_instances_dataclasses_enums_and_named_tuples_are_of_the_restored_classes() -> None:
    new = restored(
        """
import dataclasses, enum, typing, collections
@dataclasses.dataclass
class Point:
    x: int
    tags: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass
class Named(Point):
    name: str = 'n'
    def __repr__(self): return super().__repr__() + self.name
class Colour(enum.Enum):
    RED = 1
    BLUE = 'b'
class Flags(enum.Flag):
    A = 1
    B = 2
Pair = collections.namedtuple('Pair', 'a b')
class Typed(typing.NamedTuple):
    q: int
class Spec(typing.TypedDict):
    k: int
T = typing.TypeVar('T')
class Box(typing.Generic[T]):
    def __init__(self, v): self.v = v
""",
        "p, n, c, f, pair, typed, box = Point(1), Named(2), Colour.RED, Flags.A | Flags.B, Pair(1, [2]), Typed(3), Box[int](4)",
    )
    assert new["p"] == new["Point"](1)
    assert isinstance(new["n"], new["Point"])
    assert "n" in repr(new["n"])
    assert new["c"] is new["Colour"].RED is new["Colour"](1)
    assert new["f"] is new["Flags"].A | new["Flags"].B
    assert isinstance(new["pair"], new["Pair"])
    assert (new["pair"].b, new["typed"].q, new["box"].v) == ([2], 3, 4)
    assert list(new["Spec"].__annotations__) == ["k"]


def test_an_instance_is_bound_to_the_live_class_of_the_same_code() -> None:
    notebook = Namespace()
    source = "class C:\n    def get(self):\n        return 1"
    notebook.run(source)
    notebook.run("c = C()")
    other = Namespace(notebook.blobs)
    other.run(source)  # declared anew instead of restored
    from durable_nb.snapshot import decode, load

    load(decode(notebook.manifests[1]), other.tracker, notebook.blobs)
    assert type(other["c"]) is other["C"]


def test_instances_of_a_superseded_class_do_not_turn_into_the_new_one() -> None:
    notebook = Namespace()
    source = "class C:\n    pass"
    notebook.run(source)
    notebook.run("old = C()")
    notebook.run(source)
    notebook.run("new = C()")
    again = notebook.reborn()
    assert type(again["new"]) is again["C"]
    assert type(again["old"]) is not again["C"]
    assert notebook.tracker.version("old").text != notebook.tracker.version("new").text


def test_state_of_a_class_is_restored_and_linked() -> None:
    new = restored(
        "class C:\n    made = 0\n    all = []\n    def __init__(self):\n        C.made += 1\n        C.all.append(self)",
        "first = C()",
        "listed = C.all",
    )
    assert new["C"].made == 1
    assert new["C"].all[0] is new["first"]
    assert new["listed"] is new["C"].all


def test_a_patched_method_is_restored() -> None:
    new = restored(
        "class C:\n    def f(self):\n        return 1", "c = C()", "C.f = lambda self: 2", "C.g = 3", "del C.g"
    )
    assert new["c"].f() == 2
    assert not hasattr(new["C"], "g")


def test_a_changed_class_changes_the_version_of_its_instances() -> None:
    notebook = Namespace()
    notebook.run("class C:\n    rate = 1")
    notebook.run("c = C()")
    old = notebook.tracker.version("c").text
    notebook.run("C.rate = 2")
    assert notebook.tracker.version("c").text != old


def test_virtual_subclasses_stay_registered() -> None:
    new = restored(
        "import abc\nclass Base(abc.ABC):\n    pass\nclass Impl:\n    pass", "Base.register(Impl)", "i = Impl()"
    )
    assert isinstance(new["i"], new["Base"])


# --- containers and other values -------------------------------------------------------------------------------------


def test_sets_iterate_in_the_order_they_had() -> None:
    notebook = Namespace()
    notebook.run("import random\nr = random.Random(3)\ns = {r.randrange(10**6) for _ in range(500)}")
    notebook.run("for x in list(s)[::3]:\n    s.discard(x)")
    notebook.run("f = frozenset(r.randrange(10**6) for _ in range(50))")
    assert notebook.problems() == []
    new = notebook.reborn()
    assert list(new["s"]) == list(notebook["s"])
    assert list(new["f"]) == list(notebook["f"])


def test_deep_structures_need_no_deep_stack() -> None:
    new = restored(
        "deep = []\nfor _ in range(20_000):\n    deep = [deep]\ndel _",
        "import types\nnode = None\nfor _ in range(3000):\n    node = types.SimpleNamespace(next=node)",
    )
    depth, level = 0, new["deep"]
    while level:
        depth, level = depth + 1, level[0]
    assert depth == 20_000


def test_weak_references_point_at_restored_objects() -> None:
    new = restored(
        "import weakref\nclass W: pass\nw = W()\nr = weakref.ref(w)\nd = weakref.WeakValueDictionary(k=w)\ns = weakref.WeakSet([w])"
    )
    assert new["r"]() is new["w"] is new["d"]["k"]
    assert new["w"] in new["s"]


def test_a_weak_reference_to_something_else_is_named() -> None:
    notebook = Namespace()
    notebook.run("import weakref\nclass W: pass\nhold = (x for x in [W()])\nr = weakref.ref(W)")
    notebook.run("import threading\nt = threading.current_thread()\nr2 = weakref.ref(t)\ndel t")
    assert "r2" in notebook.problems()


def test_plain_iterators_keep_their_place() -> None:
    new = restored("items = [1, 2, 3]\nit = iter(items)\nnext(it)")
    assert list(new["it"]) == [2, 3]


def test_modules_and_their_objects_are_references() -> None:
    import os

    new = restored("import os, sys, numpy as np\nenv = os.environ\nout = sys.stdout\nsum_ = np.sum")
    assert new["os"] is os
    assert new["env"] is os.environ
    assert new["out"] is sys.stdout
    assert new["sum_"] is np.sum


def test_sentinels_of_modules_stay_themselves() -> None:
    import dataclasses

    new = restored("import dataclasses\nm = dataclasses.MISSING\nbox = [m]")
    assert new["m"] is dataclasses.MISSING is new["box"][0]


def test_exceptions_keep_cause_and_notes() -> None:
    new = restored("e = ValueError('x')\ne.__cause__ = KeyError('k')\ne.add_note('n')")
    assert new["e"].args == ("x",)
    assert isinstance(new["e"].__cause__, KeyError)
    assert new["e"].__notes__ == ["n"]


def test_display_results_are_names_too() -> None:
    notebook = Namespace()
    notebook.run("a = [1]\n_oh[3] = a")
    new = notebook.reborn()
    assert new["_oh"][3] is new["a"]
    assert new["_3"] is new["a"]


def test_display_results_do_not_change_the_versions_of_names() -> None:
    one, two = Namespace(), Namespace()
    one.run("a = [1]\n_oh[3] = a")
    two.run("a = [1]\n_oh[7] = a")
    assert one.tracker.version("a").text == two.tracker.version("a").text


def test_scikit_learn_models_predict_the_same() -> None:
    new = restored(
        "import numpy as np\nX = np.random.default_rng(0).normal(size=(60, 3))\ny = (X[:, 0] > 0).astype(int)",
        "from sklearn.ensemble import RandomForestClassifier\nrf = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, y)\np = rf.predict_proba(X)",
    )
    assert (new["rf"].predict_proba(new["X"]) == new["p"]).all()


def test_frames_of_every_column_type_come_back() -> None:
    notebook = Namespace()
    notebook.run(
        """
import pandas as pd, numpy as np
df = pd.DataFrame({
    'i': [1, 2, 3], 'f': [1.0, np.nan, 3.0], 's': ['a', None, 'c'], 'c': pd.Categorical(list('xyx')),
    'd': pd.date_range('2020', periods=3), 'z': pd.date_range('2020', periods=3, tz='Europe/Paris'),
    'n': pd.array([1, None, 3]), 'o': [[1], {}, None],
})
idx = df.set_index(['i', 's'])
g = df.groupby('c', observed=True)['i'].sum()
"""
    )
    assert notebook.problems() == []
    new = notebook.reborn()
    for name in ("df", "idx", "g"):
        equal = pd.testing.assert_series_equal if name == "g" else pd.testing.assert_frame_equal
        equal(new[name], notebook[name])


ARRAYS = [
    "np.array(3.5)", "np.zeros((0, 3))", "np.arange(6, dtype='>i4').reshape(2, 3)", "np.arange(4) > 1", "np.array(['a', 'bcd'])",
    "np.array([1, 2], dtype='M8[ns]')", "np.asfortranarray(np.arange(6.0).reshape(2, 3))", "np.zeros(3, dtype=[('a', 'i4'), ('b', 'f8', (2,))])",
    "np.rec.fromarrays([[1, 2], [3.0, 4.0]], names='a,b')", "np.ma.array([1, 2, 3], mask=[0, 1, 0])",
    "np.broadcast_to(np.arange(3), (4, 3))", "np.lib.stride_tricks.sliding_window_view(np.arange(9), 3)", "np.frombuffer(b'abcdefgh', dtype='i4')",
    "np.frombuffer(bytearray(16), dtype='f8')", "np.arange(12)[::-1]", "np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0)", "np.array([1 + 2j, 0])",
    "np.float32(1.5)", "np.str_('x')", "np.datetime64('2020-01-01')", "np.array([None, 'x', [1]], dtype=object)", "np.random.default_rng(4)",
    "np.random.RandomState(4)", "np.zeros(300_000)[10:]", "np.zeros((600, 600))[:, 5]", "np.polynomial.Polynomial([1, 2])",
]  # fmt: skip


@pytest.mark.parametrize("expression", ARRAYS)
def test_arrays_of_every_sort_come_back_with_the_same_version(expression: str) -> None:
    notebook = Namespace()
    notebook.run(f"import numpy as np\nv = {expression}")
    assert notebook.problems() == []
    new = notebook.reborn()
    old, restored = notebook["v"], new["v"]
    assert type(old) is type(restored)
    if isinstance(old, np.ndarray):
        assert (old.dtype, old.shape, old.flags.writeable) == (restored.dtype, restored.shape, restored.flags.writeable)
        assert repr(old) == repr(restored)
    version = new.tracker.version("v")
    if version.kind == "content":
        new.tracker._versions.pop("v")
        assert new.tracker.version("v").text == version.text


def test_an_array_over_a_bytearray_that_has_a_name_writes_to_it() -> None:
    new = restored("import numpy as np\nb = bytearray(8)\na = np.frombuffer(b, dtype='u1')", "c = a[2:4]")
    new["a"][3] = 7
    assert new["b"][3] == new["c"][1] == 7


def test_a_part_of_an_array_is_stored_without_the_rest_when_nothing_else_uses_that() -> None:
    notebook = Namespace()
    notebook.run("import numpy as np\nv = np.arange(1_000_000)[:10]")
    assert notebook.last["nbytes"] < 1000
    assert notebook.reborn()["v"].tolist() == list(range(10))


def test_open_figures_are_names_and_are_opened_again() -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    plt.close("all")
    notebook = Namespace()
    notebook.run("import matplotlib.pyplot as plt\nfig, ax = plt.subplots()")
    delta = notebook.run("plt.plot([1, 2, 5])", touched=("fig", "ax", "Figure[1]"))
    assert ("fig", "ax", "Figure[1]") in [group.names for group in delta.groups]
    assert notebook.problems() == []
    plt.close("all")
    new = notebook.reborn()
    assert plt.gcf() is new["fig"]
    assert len(new["ax"].lines) == 1
    plt.close("all")


def test_closing_a_figure_is_restored() -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    plt.close("all")
    notebook = Namespace()
    notebook.run("import matplotlib.pyplot as plt\nplt.plot([1])", touched=())
    assert notebook.run("plt.close('all')", touched=()).deleted == ("Figure[1]",)
    notebook.reborn()
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "source",
    [
        "frozenset(range(0, 200, 7)) | frozenset(range(5, 190, 11))",
        "frozenset({0, 4, 5, 6, 10, 11, 16}).union([19])",
        "frozenset([16, 32, 0, 48]).union([64, 3], [80, 19], [35, 1])",
    ],
)
def test_frozen_sets_that_grew_by_unions_keep_their_order(source: str) -> None:
    new = restored(f"v = {source}\norder = list(v)")
    assert list(new["v"]) == new["order"]


def test_what_an_installed_class_leaves_out_of_its_pickle_is_no_loss() -> None:
    """Pillow does not write the settings of the last save: the picture comes back all the same."""
    new = restored("from PIL import Image\nv = Image.new('RGB', (3, 2), 'red')\nv.info['note'] = 'kept'")
    assert new["v"].size == (3, 2)
    assert new["v"].getpixel((1, 1)) == (255, 0, 0)
    assert new["v"].info == {"note": "kept"}
