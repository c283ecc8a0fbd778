"""What a cell may read: exact where the order of statements tells, generous where it does not."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

import pytest

from durable_nb.cells import Reads, analyse, output_name, parse

PRELUDE = """
import functools, os, math as m
k = 1
z = 2
def f(x): return x + k
def g(x): return f(x) * z
@functools.lru_cache
def cached(x): return g(x)
class Base:
    def hello(self): return k
class Child(Base):
    limit = 3
    @property
    def size(self): return z
    @staticmethod
    def stat(): return f(1)
    @classmethod
    def make(cls): return cls()
child = Child()
handlers = {"a": [g]}
part = functools.partial(f, 1)
bound = child.hello
def outer():
    captured = f
    def inner(): return captured(1)
    return inner
closure = outer()
def default(x=f): return x(1)
def wrapping(fn):
    @functools.wraps(fn)
    def wrapper(*a): return fn(*a)
    return wrapper
@wrapping
def decorated(): return z
def sets():
    global fresh
    fresh = k
def recursive(n): return recursive(n - 1) + k if n else 0
data = [1, 2]
out = 5
"""


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(PRELUDE, "<cell>", "exec"), names)
    return names


def read(source: str, namespace: dict[str, Any], **options: Any) -> Reads:
    tree = parse(source)
    assert tree is not None
    return analyse(tree, namespace, **options)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("k", "k"),
        ("x = k", "k"),
        ("k = 5; print(k)", ""),
        ("print(k); k = 5", "k"),
        ("k += 1", "k"),
        ("del k", "k"),
        ("k = 1; del k", ""),
        ("k: int = 3; k", ""),
        ("k: int; k", "k"),
        ("(k := 2) + k", ""),
        ("k, *z = data; k, z", "data"),
        ("if f:\n  k = 1\nk", "f k"),
        ("if f:\n  k = 1\nelse:\n  k = 2\nk", "f k"),  # f itself reads k
        ("if data:\n  k = 1\nelse:\n  k = 2\nk", "data"),
        ("if data:\n  k = 1\nelse:\n  raise ValueError\nk", "data"),
        ("for k in data: pass\nk", "data k"),
        ("for k in [1, 2]: pass\nk", ""),
        ("for k in range(3): z = k\nz", ""),
        ("for k in range(3):\n  if data: break\n  z = k\nz", "data z"),
        ("for i in range(data):\n  z = i\nz", "data z"),
        ("while data:\n  k = 1\nk", "data k"),
        ("while True:\n  k = 1\n  break\nk", ""),
        ("while True:\n  if data: break\n  k = 1\nk", "data k"),
        ("try:\n  k = 1\nexcept ValueError:\n  pass\nk", "k"),
        ("try:\n  k = 1\nexcept ValueError:\n  raise\nk", ""),
        ("try:\n  k = 1\nfinally:\n  z = 1\nk, z", ""),
        ("try:\n  k = 1\nexcept ValueError as z:\n  print(k)\n", "k"),
        ("with open('p') as z:\n  k = z.read()\nk", ""),
        ("import contextlib\nwith contextlib.suppress(ValueError):\n  k = 1\nk", "k"),
        ("match data:\n  case [k, *z]: print(k)\n  case _: pass\nk", "data k"),
        ("[k for k in data]", "data"),
        ("[k for k in data if z]", "data z"),
        ("[k for i in data]", "data k"),
        ("[i for i in data if (k := i)]; k", "data k"),
        ("{k: z for k, z in data}", "data"),
        ("list(k for _ in data)", "data k"),
        ("True or (k := 1)\nk", "k"),
        ("(k := 1) or z\nk", "z"),
        ("lambda: k", "k"),
        ("lambda k: k", ""),
        ("h = lambda: k\nk = 1\nh()", ""),
        ("def h(): return k", ""),
        ("def h(): return k\nk = 1\nh()", ""),
        ("def h(): return k\nh()\nk = 1", "k"),
        ("def h(a=k): return z", "k"),
        ("def h():\n  k = 1\n  def i(): return k\n  return i\nh()", ""),
        ("def h():\n  def i():\n    nonlocal q\n    q = k\n  q = 1\n  return i\nh()", "k"),
        ("def h():\n  global k\n  return k\nh()", "k"),
        ("def h():\n  import math as k\n  return k.pi\nh()", ""),
        ("def h(): return i()\ndef i(): return k\nh()", "k"),
        ("def h(): return i()\ndef i(): return k\nk = 1\nh()", ""),
        ("async def h():\n  async with data as k: return k\nawait h()", "data"),
        ("class A:\n  k = 1\n  z = k", ""),
        ("class A:\n  z = k", "k"),
        ("class A:\n  k = 1\n  def m(self): return k", ""),
        ("class A:\n  k = 1\n  def m(self): return k\nA().m()", "k"),
        ("class A:\n  if data:\n    k = 1\n  z = k", "data k"),
        ("@wrapping\ndef h(): return k", "wrapping k functools"),
        ("@functools.lru_cache\ndef h(): return k", "functools"),
        ("global k\nk", "k"),
        ("unknown_name", "unknown_name"),
        ("print(len(data))", "data"),
        ("f'{k!r:>{z}}'", "k z"),
        ("out.x = k", "out k"),
        ("data[k] = z", "data k z"),
        ("assert k, z", "k z"),
        ("import os\nos.getcwd()", ""),
        ("globals()['k']", "k"),
        ("globals()['k'] = 1; k", ""),
        ("globals().get('k', z)", "k z"),
        ("eval('k + 1')", "k"),
        ("exec('k = z')", "z"),
        ("'k'", ""),
    ],
)
def test_the_order_of_statements_decides_what_is_read(source: str, names: str, namespace: dict[str, Any]) -> None:
    assert set(read(source, namespace).names) == set(names.split())


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("f(1)", "f k"),
        ("g(1)", "g f k z"),
        ("k = 3; g(1)", "g f z"),
        ("g(1); k = 3", "g f z k"),
        ("cached(1)", "cached g f k z"),
        ("child.hello()", "child k z f Base Child"),
        ("Child.stat()", "Child k z f Base"),
        ("bound()", "bound k z f Base Child"),
        ("part()", "part k"),
        ("handlers['a'][0](1)", "handlers f k z"),
        ("closure()", "closure k"),
        ("default()", "default k"),
        ("decorated()", "decorated z"),
        ("sets()", "sets k"),
        ("recursive(3)", "recursive k"),
        ("map(f, data)", "f k data"),
        ("class C(Base): pass", "Base k"),
        ("def f(x): return x\nf(1)", ""),
        ("f = 3; g(1)", "g z"),
        ("from functools import partial\npartial(g, 1)()", "g f k z"),
    ],
)
def test_functions_lead_to_the_names_they_read(source: str, names: str, namespace: dict[str, Any]) -> None:
    assert set(read(source, namespace).names) == set(names.split())


def test_a_called_function_that_binds_a_global_is_among_the_binds(namespace: dict[str, Any]) -> None:
    assert "fresh" in read("sets()", namespace).binds


def test_reached_functions_and_classes_are_the_objects_themselves(namespace: dict[str, Any]) -> None:
    reads = read("g(1); child", namespace)
    assert {f.__name__ for f in reads.functions} >= {"f", "g", "hello", "stat", "make"}
    assert set(reads.classes) == {namespace["Child"], namespace["Base"]}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("globals()", "globals"),
        ("locals()", "locals"),
        ("vars()", "vars"),
        ("dir()", "dir"),
        ("globals()[key]", "globals"),
        ("get_ipython().user_ns", "get_ipython"),
        ("get_ipython().run_line_magic('run', 'script.py')", "%run"),
        ("get_ipython().run_cell_magic('unheard', '', 'text')", "%%unheard"),
        ("import sys\nsys._getframe()", "_getframe"),
        ("import inspect\ninspect.currentframe()", "currentframe"),
        ("from inspect import stack", "stack"),
        ("import __main__", "__main__"),
        ("import sys\nsys.modules[__name__]", "__main__"),
        ("import builtins\nbuiltins.eval(text)", "eval"),
        ("def h(): return eval(text)\nh()", "eval"),
    ],
)
def test_code_that_finds_names_by_itself_may_read_everything(
    source: str, reason: str, namespace: dict[str, Any]
) -> None:
    assert reason in (read(source, namespace).everything or "")


@pytest.mark.parametrize(
    "source",
    [
        "def h(): return locals()\nh()",
        "def h(): return vars()\nh()",
        "vars(data)",
        "dir(data)",
        "def h(): return eval(text)",
        "get_ipython().run_line_magic('matplotlib', 'inline')",
        "get_ipython().run_line_magic('env', 'A=1')",
        "get_ipython().run_line_magic('timeit', '-n 10 k + 1')",
        "get_ipython().run_cell_magic('capture', 'cap', 'print(k)')",
        "get_ipython().system('ls')",
        "get_ipython().run_cell_magic('bash', '', 'ls $HOME')",
        "import sys\n'numpy' in sys.modules",
        "print(list(map(str, data)))",
    ],
)
def test_ordinary_code_and_session_magics_do_not_read_everything(source: str, namespace: dict[str, Any]) -> None:
    assert read(source, namespace).everything is None


@pytest.mark.parametrize(
    ("source", "names", "binds"),
    [
        ("get_ipython().run_cell_magic('time', '', 'x = k\\nprint(x)')", "k", "x"),
        ("get_ipython().run_line_magic('time', 'x = f(z)')", "f k z", "x"),
        ("get_ipython().run_line_magic('timeit', '-n 3 -r 2 f(z)')", "f k z", ""),
        ("get_ipython().run_cell_magic('timeit', 'x = k', 'x + z')", "k z", ""),
        ("get_ipython().run_cell_magic('capture', 'cap', 'print(k)')", "k", "cap"),
        ("get_ipython().run_cell_magic('capture', '--no-stderr cap', '%time y = k\\n!ls $z')", "k z", "cap y"),
        ("get_ipython().system('echo {k + 1} $z $$HOME')", "k z", ""),
        ("files = get_ipython().getoutput('ls {out}')", "out", "files"),
        ("get_ipython().run_cell_magic('bash', '--out res', 'echo $k')", "", "res"),
        ("get_ipython().run_line_magic('pinfo', 'data')", "data", ""),
        ("get_ipython().run_line_magic('cd', '{out}')", "out", ""),
    ],
)
def test_magics_read_what_their_text_names(source: str, names: str, binds: str, namespace: dict[str, Any]) -> None:
    reads = read(source, namespace)
    assert (set(reads.names), set(reads.binds)) == (set(names.split()), set(binds.split()))


def test_text_that_pandas_evaluates_names_variables(namespace: dict[str, Any]) -> None:
    import pandas as pd

    names = {**namespace, "df": pd.DataFrame({"a": [1]}), "pd": pd, "q": "a > @z"}
    assert "k" in read("df.query('a > @k')", names).names
    assert "k" in read("df.eval('b = a + @k')", names).names
    assert "k" in read("pd.eval('k + 1')", names).names
    assert "z" in read("df.query(q)", names).names
    assert "k" in read("df.query(f'a > @k and b == {z}')", names).names
    assert read("df.query(make())", names).everything
    assert read("df.query('a > 1')", names).everything is None


def test_display_results_are_read_by_their_number(namespace: dict[str, Any]) -> None:
    results = {1: object(), 3: [1], 4: "x"}
    names = {
        **namespace,
        "Out": results,
        "_oh": results,
        "_": "x",
        "__": results[3],
        "_3": results[3],
        "_1": results[1],
    }
    assert read("Out[3] + 1", names).names == {"Out[3]"}
    assert read("_ + 1", names).names == {"_", "Out[4]"}
    assert read("__.append(1)", names).names == {"__", "Out[3]"}
    assert read("_3", names).names == {"_3", "Out[3]"}
    assert read("for _ in data: print(_)", names).names == {"data"}
    assert read("len(Out)", names).everything == "Out"
    assert read("In[2]", names).everything == "In"
    assert output_name("_", names, names["_oh"]) == "Out[4]"
    assert output_name("_", {"_": 5}, {}) == "_"
    assert output_name("_x", names, names["_oh"]) == "_x"


def test_built_ins_are_told_apart_until_the_notebook_shadows_them(namespace: dict[str, Any]) -> None:
    reads = read("len(data)", namespace)
    assert "len" in reads.builtins
    assert "len" not in reads.names
    assert "len" in read("len(data)", {**namespace, "len": lambda x: 0}).names


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("import math\nmath.foo = 1", "math.foo"),
        ("m.foo = 1", "math.foo"),
        ("setattr(m, 'foo', 1)", "math.foo"),
        ("setattr(m, out, 1)", "math.*"),
        ("del m.pi", "math.pi"),
        ("m.table['x'] = 1", "math.table"),
        ("from decimal import Decimal\nDecimal.total = f", "decimal.Decimal.total"),
        ("def h(): m.foo = 1\nh()", "math.foo"),
        ("import os.path\nos.path.sep = '/'", "os.path.sep"),
        ("m.foo += 1", "math.foo"),
    ],
)
def test_setting_an_attribute_of_a_module_or_installed_class_is_set_up(
    source: str, target: str, namespace: dict[str, Any]
) -> None:
    assert target in read(source, namespace).set_up


@pytest.mark.parametrize(
    "source",
    [
        "child.x = 1",
        "Child.x = 1",
        "import os\nos.environ['A'] = 'b'",
        "import sys\nsys.path.append('x')",
        "import matplotlib.pyplot as plt\nplt.rcParams['a'] = 1",
        "import pandas as pd\npd.options.display.max_rows = 3",
        "m = child\nm.x = 1",
    ],
)
def test_own_objects_and_process_state_are_no_set_up(source: str, namespace: dict[str, Any]) -> None:
    assert read(source, namespace).set_up == ()


def test_live_functions_without_source_show_what_they_store_into() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("import math\ndef h():\n  math.x = 1\n  setattr(math, 'y', 2)\n  math.t['a'] = 1", names)
    assert {"math.x", "math.*", "math.t"} <= set(read("h()", names).set_up)


def test_modules_are_followed_through_attributes() -> None:
    import os.path

    import numpy as np

    names = {"__name__": "__main__", "np": np, "a": np.zeros(2)}
    assert "numpy.random" in read("np.random.rand(3)", names).modules
    assert "numpy" in read("a + 1", names).modules
    assert {"xml", "xml.dom", "xml.dom.minidom"} <= read("import xml.dom.minidom", names).modules
    assert "json.decoder" in read("from json import decoder", {"json": 1}).modules
    assert "math" in read("def h():\n  import math\n  return math.pi\nh()", names).modules
    assert os.path.__name__ in read("import os\nos.path.join('a')", names).modules


def test_a_method_that_the_notebook_patched_into_a_class_is_followed() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("import fractions\nk = 1\ndef f(self): return k\nfractions.Fraction.f = f\nx = fractions.Fraction(1)", names)
    try:
        assert "k" in read("x.f()", names).names
    finally:
        del names["fractions"].Fraction.f


def test_an_accessor_that_the_notebook_registers_is_followed() -> None:
    import pandas as pd

    names: dict[str, Any] = {"__name__": "__main__", "pd": pd}
    exec(
        "k = 1\n@pd.api.extensions.register_dataframe_accessor('dn_test')\nclass Accessor:\n"
        "  def __init__(self, df): pass\n  def total(self): return k\ndf = pd.DataFrame()",
        names,
    )
    try:
        assert "k" in read("df.dn_test.total()", names).names
    finally:
        del pd.DataFrame.dn_test


def test_functions_found_inside_values_are_asked_for_by_name(namespace: dict[str, Any]) -> None:
    class Holder:
        __slots__ = ("inner",)

    holder = Holder()
    asked: list[str] = []

    def functions_of(name: str) -> list[object]:
        asked.append(name)
        return [namespace["g"]] if name == "holder" else []

    reads = read("holder", {**namespace, "holder": holder}, functions_of=functions_of)
    assert set(reads.names) == {"holder", "f", "k", "z"}
    assert "holder" in asked


def test_functions_deep_inside_a_value_are_asked_for_even_when_the_value_was_met_before(
    namespace: dict[str, Any],
) -> None:
    class Holder:
        pass

    holder = Holder()
    names = {**namespace, "holder": holder}
    exec("def uses(h=holder): return h", names)

    def functions_of(name: str) -> list[object]:
        return [namespace["g"]] if name == "holder" else []

    assert "z" in read("uses(); holder", names, functions_of=functions_of).names


def test_formulas_that_a_plotting_library_evaluates_name_variables(namespace: dict[str, Any]) -> None:
    assert {"k", "z"} <= read("from plotnine import aes\naes('x + k', color='f(z)')", namespace).names


def test_roots_can_be_reached_by_any_cell(namespace: dict[str, Any]) -> None:
    assert {"k", "z"} <= read("1 + 1", namespace, roots=[namespace["g"]]).names


def test_strings_that_may_be_paths_are_kept(namespace: dict[str, Any]) -> None:
    reads = read("'''doc'''\nload('data/a.csv'); load(f'{k}/b.csv'); 'two\\nlines'", namespace)
    assert {"data/a.csv", "/b.csv"} <= reads.literals
    assert not {"doc", "two\nlines"} & reads.literals


def test_hints_and_questions_are_noticed(namespace: dict[str, Any]) -> None:
    assert read("name = input('?')", namespace).interactive == {"input"}
    assert "getpass" in read("import getpass\ngetpass.getpass()", namespace).interactive
    assert "network" in read("import urllib.request", namespace).uses
    assert "process" in read("get_ipython().system('ls')", namespace).uses
    assert "time" in read("import time\ntime.time()", namespace).uses


def test_a_cyclic_value_is_walked_once(namespace: dict[str, Any]) -> None:
    loop: list[Any] = [namespace["f"]]
    loop.append(loop)
    assert read("loop", {**namespace, "loop": loop}).names == {"loop", "k"}


def test_an_object_with_hostile_attributes_does_not_break_the_walk(namespace: dict[str, Any]) -> None:
    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        @property
        def func(self) -> Any:
            raise RuntimeError

    assert read("h", {**namespace, "h": Hostile()}).names >= {"h"}


def test_a_lazy_module_is_not_imported_by_looking(namespace: dict[str, Any]) -> None:
    module = types.ModuleType("lazy_thing")

    def lazy(name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    module.__getattr__ = lazy  # type: ignore[method-assign]
    sys.modules["lazy_thing"] = module
    try:
        assert "lazy_thing" in read("lz.sub.value", {**namespace, "lz": module}).modules
    finally:
        del sys.modules["lazy_thing"]


def test_partial_methods_and_cached_properties_are_followed() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "functools": functools}
    exec(
        "k = z = 1\ndef helper(): return z\nclass A:\n"
        "  @functools.cached_property\n  def p(self): return k\n"
        "  def m(self, n): return helper()\n  q = functools.partialmethod(m, 1)\na = A()",
        names,
    )
    assert {"a", "k", "helper", "z"} <= read("a.p", names).names


def test_what_a_cell_may_bind_or_leave_alone_is_not_certain() -> None:
    source = "a = 1\nif f:\n    b = 2\nfor c in r:\n    d = 1\ntry:\n    e = g()\nexcept OSError:\n    pass\nelse:\n    a = 2"
    found = read(source, {})
    assert found.binds == {"a", "b", "c", "d", "e"}
    assert found.certain == {"a"}
    both = read("if f:\n    a = 1\nelse:\n    a, b = 1, 2\nfor c in [1]:\n    d = c", {})
    assert both.certain == {"a", "c", "d"}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("import mimetypes\nmimetypes.add_type('text/x', '.x')", "mimetypes.add_type()"),
        ("import multiprocessing as mp\nmp.set_start_method('spawn')", "multiprocessing.set_start_method()"),
        ("import atexit\natexit.register(print)", "atexit.register()"),
        ("import torch\ntorch.set_default_dtype(torch.float64)", "torch.set_default_dtype()"),
        ("import jax\njax.config.update('jax_enable_x64', True)", "jax.config.update()"),
        ("import tqdm\ntqdm.pandas()", "tqdm.pandas()"),
        ("import nest_asyncio\nif True:\n    nest_asyncio.apply()", "nest_asyncio.apply()"),
        ("import seaborn as sns\nsns.palettes._patch_colormap_display()", "seaborn.palettes._patch_colormap_display()"),
        ("import sklearnex\nsklearnex.patch_sklearn()", "sklearnex.patch_sklearn()"),
        (
            "from collections.abc import Sequence\nclass C: ...\nSequence.register(C)",
            "collections.abc.Sequence.register()",
        ),
        ("import matplotlib as mpl\nc = made()\nmpl.colormaps.register(c)", "matplotlib.colormaps.register()"),
        ("import xarray as xr\n@xr.register_dataset_accessor('g')\nclass G: ...", "xarray.register_dataset_accessor()"),
        ("get_ipython().config.InteractiveShell.x = 3", "IPython.get_ipython().config.InteractiveShell.x"),
    ],
)
def test_a_call_that_sets_something_in_a_package_is_a_set_up(source: str, target: str) -> None:
    assert read(source, {}).set_up == (target,)


@pytest.mark.parametrize(
    "source",
    [
        "import networkx as nx\nnx.set_node_attributes(graph, {1: 2}, 'w')",
        "import networkx as nx\nnx.add_path(holder.graph, [1, 2])",
        "import pandas as pd\npd.set_option('display.max_rows', 3)",
        "import torch\nwith torch.set_grad_enabled(False):\n    y = 1",
        "import csv\ncsv.register_dialect('semicolons', delimiter=';')",
        "rows.add('x')",
        "axes.set_title('x')",
        "set('abc')",
        "get_ipython().run_line_magic('time', 'pass')",
    ],
)
def test_a_call_about_data_is_none(source: str) -> None:
    names = {"graph": object(), "holder": object(), "rows": set(), "axes": object()}
    assert read(source, names).set_up == ()


def test_a_setter_that_was_imported_by_name_is_known_by_its_module() -> None:
    import mimetypes

    names = {"add_type": mimetypes.add_type}
    assert read("add_type('text/x', '.x')", names).set_up == ("mimetypes.add_type()",)
