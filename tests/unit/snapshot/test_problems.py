"""What cannot be stored is named, by variable, type and place; everything else is stored."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from durable_nb.exceptions import NotStorableError
from durable_nb.snapshot import load
from tests.unit.snapshot.namespace import Namespace


@pytest.mark.parametrize(
    ("source", "path", "type_name"),
    [
        ("g = (i for i in range(3))", "g", "builtins.generator"),
        ("d = {'a': [1, {'b': (i for i in [])}]}", "d['a'][1]['b']", "builtins.generator"),
        ("import threading\nd = {'conn': threading.Lock()}", "d['conn']", "_thread.lock"),
        (
            "class S: pass\ns = S()\nimport io; s.session = [1, 2, 3, io.TextIOWrapper(io.BytesIO())]",
            "s.session[3]",
            "_io.TextIOWrapper",
        ),
        ("import sqlite3\nc = sqlite3.connect(':memory:')", "c", "sqlite3.Connection"),
        ("import itertools\nn = itertools.cycle([1])", "n", "itertools.cycle"),
        ("import socket\ns = socket.socket()", "s", "socket.socket"),
        (
            "def f():\n    import io\n    h = io.TextIOWrapper(io.BytesIO())\n    return lambda: h\nk = f()",
            "k (closure variable h)",
            "_io.TextIOWrapper",
        ),
        ("import types\nm = types.ModuleType('made_up')", "m", "builtins.module"),
        ("try:\n    1 / 0\nexcept Exception as exc:\n    e = exc", "e", "builtins.ZeroDivisionError"),
    ],
)
def test_the_object_in_the_way_is_found(source: str, path: str, type_name: str) -> None:
    notebook = Namespace()
    notebook.run(source)
    found = notebook.last["problems"]
    for value in notebook.names.values():
        if type(value).__name__ in ("socket", "Connection"):
            value.close()
    assert (path, type_name) in [(problem["path"], problem["type"]) for problem in found]


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("class L:\n    def __init__(s, x): s.x = x\n    def __reduce__(s): return (L, (1,))\nv = L(5)", "v.x"),
        ("import collections\nclass D(collections.defaultdict): pass\nv = D(list)\nv.extra = 3", "v"),
        ("class E(Exception):\n    def __init__(s, a, b): super().__init__(a)\nv = E(1, 2)", "v"),
        ("class G:\n    def __init__(s): s.a, s.b = 1, [2]\n    def __getstate__(s): return {'a': s.a}\nv = G()", "v"),
        ("class N:\n    def __reduce__(s): return 'nothing'\nv = N()", "v"),
        ("class T(list):\n    def __reduce__(s): return (list, (list(s),))\nv = T([1])", "v"),
        (
            "class S:\n    def __init__(s): s.a = s.b = []\n    def __getstate__(s): return [s.a[:], s.b[:]]\n    def __setstate__(s, st): s.a, s.b = st\nv = S()",
            "v.b",
        ),
    ],
)
def test_a_pickle_that_lies_is_found_at_save(source: str, path: str) -> None:
    notebook = Namespace()
    notebook.run(source)
    assert notebook.problems() == [path] or notebook.problems()[0].startswith("v.")


def test_user_hooks_run_at_most_once_per_class(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = Namespace()
    notebook.run(
        "class S:\n    def __init__(s): s.x = 1\n    def __setstate__(s, st):\n        print('loaded')\n        s.__dict__ = st"
    )
    for source in ("a = S()", "b = [S(), S()]", "a.x = 2"):
        notebook.run(source)
        assert notebook.problems() == []
    assert capsys.readouterr().out == "loaded\n"


def test_a_check_leaves_live_classes_alone() -> None:
    notebook = Namespace()
    notebook.run(
        "class C:\n    all = []\n    def __init__(s): C.all.append(s)\n    def __getstate__(s): return {}\n    def __setstate__(s, st): pass"
    )
    kept = notebook["C"].all
    notebook.run("c = C()")
    assert notebook["C"].all is kept


def test_a_name_beside_a_problem_is_stored() -> None:
    notebook = Namespace()
    delta = notebook.run("good = [1]\nbad = (i for i in [])")
    assert not delta.storable
    segments = {tuple(group["names"]): "segments" in group for group in notebook.last["groups"]}
    assert segments == {("good",): True, ("bad",): False}


def test_loading_what_was_not_stored_says_what_and_why() -> None:
    notebook = Namespace()
    notebook.run("bad = {'k': (i for i in [])}")
    with pytest.raises(NotStorableError, match=r"bad\['k'\] \(builtins.generator\)"):
        load(notebook.last, Namespace().tracker, notebook.blobs)


def test_a_generator_counts_as_changed_by_any_cell_that_touches_it() -> None:
    notebook = Namespace()
    notebook.run("g = (i for i in range(3))")
    assert "g" in notebook.run("x = next(g)").changed
    assert "g" not in notebook.run("y = 1").changed


def test_a_handle_that_is_only_read_is_unchanged() -> None:
    notebook = Namespace()
    notebook.run("import threading\nlock = threading.Lock()\nbox = {'lock': lock, 'n': 1}")
    assert set(notebook.run("z = box['n']").changed) == {"z"}
    assert "box" in notebook.run("box['n'] = 2").changed


def test_a_forced_run_makes_a_new_lineage_only_for_what_can_be_stored() -> None:
    notebook = Namespace()
    source = "g = (i for i in range(3))"
    names = {"g"}
    texts = []
    for nonce in (None, "again"):
        before = notebook.tracker.before(names)
        exec(source, notebook.names)
        texts.append(notebook.tracker.after(before, names, fingerprint="f", nonce=nonce).changed["g"].text)
    assert texts[0] == texts[1]


def test_an_object_of_a_local_module_stays_the_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our_settings.py").write_text("TABLE = {'a': 1}\nLIST = [1]\n")
    monkeypatch.syspath_prepend(tmp_path)
    notebook = Namespace()
    notebook.run("import our_settings\ntable = our_settings.TABLE\nbox = {'t': table}")
    assert notebook.problems() == []
    new = notebook.reborn()
    import our_settings  # type: ignore[import-not-found]

    assert new["table"] is our_settings.TABLE is new["box"]["t"]
    notebook.run("table['b'] = 2")
    assert "belongs to a module" in notebook.last["problems"][0]["why"]
    notebook.run("z = table['b']")
    assert notebook.problems() == []


@pytest.mark.parametrize(
    "name", ["API_KEY", "db_password", "github_token", "secret_key", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN"]
)
def test_a_secret_is_not_stored_and_not_digested(name: str) -> None:
    notebook = Namespace()
    notebook.run(f"{name} = 'hunter2-hunter2'")
    assert notebook.problems() == [name]
    assert notebook.tracker.version(name).kind == "lineage"
    assert b"hunter2" not in notebook.manifests[-1]


@pytest.mark.parametrize(
    "name", ["token", "key", "monkey", "tokens", "sort_key", "next_token", "keyword", "passed", "author"]
)
def test_ordinary_names_are_no_secrets(name: str) -> None:
    notebook = Namespace()
    notebook.run(f"{name} = 'word'")
    assert notebook.problems() == []


def test_tensors_that_share_a_storage_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor:
        def __init__(self, address: int) -> None:
            self.address = address

        def untyped_storage(self) -> Tensor:
            return self

        def data_ptr(self) -> int:
            return self.address

    module = types.ModuleType("torch")
    Tensor.__module__, Tensor.__qualname__ = "torch", "Tensor"
    module.Tensor = Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", module)
    notebook = Namespace()
    notebook.names["Tensor"] = Tensor
    notebook.run("alone = Tensor(11)")
    assert notebook.problems() == []
    notebook.run("a = Tensor(7)\nb = Tensor(7)")
    assert notebook.problems() == ["a"]
