"""Arrays that a cell only computes from: the text of the cell tells, and it never tells too much."""

from __future__ import annotations

import ast
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_nb.cells import analyse, only_read
from durable_nb.notebook._spared import spared
from durable_nb.snapshot import Tracker

ONLY_READ = (
    "m = a.mean()",
    "print(a[0:1000].std(axis=0, ddof=1).max())",
    "x = float(a[-1]) + len(a) * a.shape[0]",
    "a.T[1:].sum(0)",
    "if a.any():\n    x = [a[i].item() for i in range(3)]",
    "f'{a.min():.2f}'",
    "x = a.size if (n := a.ndim) else a.tolist()",
)

TOUCHED = (
    "a[0] = 1",
    "a += 1",
    "b = a",
    "b = a[1:]",
    "b = a.T",
    "a.sort()",
    "a.fill(0)",
    "a.mean(out=b)",
    "a.sum(0, None, b)",
    "a.mean(*b)",
    "a.mean(**b)",
    "f(a)",
    "float(a, b)",
    "len(*a)",
    "x = a.sum() + (lambda: a)()[0]",
    "def f():\n    return a.mean()",
    "a.shape = (2, 2)",
    "del a",
    "a = a.mean()",
    "for a in a.tolist(): pass",
    "x = [a for a in a.tolist()]",
    "with f() as a: a.mean()",
    "import numpy as a; a.mean()",
    "try: a.mean()\nexcept E as a: pass",
    "match a.item():\n    case {**a}: pass",
    "global a; a.mean()",
    "a.mean(); a",
    "print(a)",
    "a[a > 0].mean()",
    "a.flat[0] = a.mean()",
    "a.astype(float, copy=False).fill(0)",
    "a.max(a.real)",
)


@pytest.mark.parametrize("source", ONLY_READ)
def test_numbers_computed_from_an_array_are_no_touch(source: str) -> None:
    assert "a" in only_read(ast.parse(source))


@pytest.mark.parametrize("source", TOUCHED)
def test_every_other_mention_is_one(source: str) -> None:
    assert "a" not in only_read(ast.parse(source))


def spared_in(source: str, **names: Any) -> frozenset[str]:
    """What would be spared in a notebook with these names beside a large array `a`."""
    namespace = {"a": np.arange(400_000.0), "np": np, **names}
    tracker = Tracker(namespace)
    tree = ast.parse(source)
    reads = analyse(tree, namespace, tracker.functions_of)
    for name in reads.names:
        tracker.version(name)
    return spared(tree, reads, tracker)


def test_an_array_is_spared_beside_numbers_and_numpy() -> None:
    assert spared_in("m = a.mean() + np.pi * k", k=2) == {"a"}
    assert spared_in("print(a.std())") == {"a"}


@pytest.mark.parametrize("kind", [object, "U5", [("x", "f8")]], ids=["objects", "text", "records"])
def test_only_arrays_of_numbers_are(kind: Any) -> None:
    assert spared_in("m = b.item(0)", b=np.zeros(10, dtype=kind)) == frozenset()


def test_a_subclass_is_not() -> None:
    class Mine(np.ndarray):
        pass

    assert spared_in("m = b.mean()", b=np.zeros(400_000).view(Mine)) == frozenset()


def test_nothing_is_spared_beside_what_may_hold_its_memory() -> None:
    array = np.arange(400_000.0)
    for holder in (memoryview(array), array.flat, array.fill, [array], {"x": 1}, array.ctypes, iter(array)):
        assert spared_in("m = a.mean(); h", a=array, h=holder) == frozenset()


def test_nothing_is_spared_where_its_memory_is_touched_by_another_name() -> None:
    array = np.arange(400_000.0)
    assert spared_in("m = a.mean(); b[0] = 1", a=array, b=array[1:]) == frozenset()
    assert spared_in("m = a.mean() + b.mean()", a=array, b=array[1:]) == {"a", "b"}
    assert spared_in("m = a.mean()", a=array, b=array[1:]) == {"a"}


def test_nothing_is_spared_where_code_of_the_notebook_runs() -> None:
    namespace: dict[str, Any] = {}
    exec("def f():\n    a[0] = 1", namespace)
    assert spared_in("m = a.mean(); f()", f=namespace["f"]) == frozenset()
    for other in (
        "exec('a[0] = 1')",
        "np.sys.modules['builtins'].exec('a[0] = 1')",
        "np.__dict__['x'](0)",
        "getattr(k, 'x')",
    ):
        assert spared_in(f"m = a.mean(); {other}", k=1) == frozenset()
    assert spared_in("m = len(a)", len=namespace["f"]) == frozenset()


METHODS = sorted(name for name in dir(np.ndarray) if not name.startswith("__"))
PARTS = ("a", "a[1:]", "a[0]", "a[:, 1]", "a.T", "a.real", "a.flat", "a[[0, 1]]", "a[...]", "a[None]")
ARGUMENTS = ("", "0", "None", "0, None", "axis=0", "axis=()", "keepdims=True", "dtype=float", "out=a[0]", "a", "1.5")
FORMS = ("x = {0}", "x = {0}\nx[...] = 7", "float({0})", "x = [{0}]\nx[0] += 1", "{0}[0] = 1", "print({0})")


@given(
    part=st.sampled_from(PARTS),
    method=st.sampled_from(METHODS),
    arguments=st.sampled_from(ARGUMENTS),
    call=st.booleans(),
    form=st.sampled_from(FORMS),
    kind=st.sampled_from(["f8", "i4", "?", "c16"]),
)
@settings(max_examples=400, deadline=None)
def test_what_is_called_only_read_is_as_it_was(
    part: str, method: str, arguments: str, call: bool, form: str, kind: str
) -> None:
    source = form.format(f"{part}.{method}({arguments})" if call else f"{part}.{method}")
    harmless = "a" in only_read(ast.parse(source))
    array = np.arange(12).reshape(3, 4).astype(kind)
    before = array.tobytes()
    namespace = {"a": array, "print": lambda *_: None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(source, namespace)
        except Exception:  # most combinations are nonsense: what counts is what they did
            pass
    if harmless:
        assert array.tobytes() == before
        assert namespace["a"] is array
        assert array.shape == (3, 4)
        assert not any(
            isinstance(value, np.ndarray) and value is not array and np.shares_memory(value, array)
            for value in namespace.values()
        )
