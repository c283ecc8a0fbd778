"""Which cells are the same cell."""

from __future__ import annotations

import pytest

from durable_nb.cells import Ordinals, analyse, canonical, identity, is_declarative, parse, session_magic


def same(a: str, b: str) -> bool:
    return canonical(a, a) == canonical(b, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("x = 1", "x   =   1  # one"),
        ("x = 1", "\n\n# title\nx = (1)\n"),
        ("f(1,\n  2)", "f(1, 2,)"),
        ("'a'", '"a"'),
        ("x = 1_000", "x = 1000"),
        ("if a:\n    b", "if a:\n  b\n"),
        ("x = 1; y = 2", "x = 1\ny = 2"),
        ("await f()", "await  f()"),
        (
            "get_ipython().run_cell_magic('time', '', '# c\\nx = 1\\n')",
            "get_ipython().run_cell_magic('time', '', 'x  =  1\\n')",
        ),
        (
            "get_ipython().run_cell_magic('time', '', '%cd x\\ny=1')",
            "get_ipython().run_cell_magic('time', '', '%cd x\\ny = 1')",
        ),
    ],
)
def test_layout_and_comments_do_not_matter(a: str, b: str) -> None:
    assert same(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("x = 1", "x = 2"),
        ("df", "df;"),
        ("df", "df ;  # hidden"),
        ("1", "1.0"),
        ("'a'", "b'a'"),
        ("x = '# no comment'", "x = '# none'"),
        ("get_ipython().run_cell_magic('bash', '', '# a')", "get_ipython().run_cell_magic('bash', '', '# b')"),
        ("get_ipython().run_cell_magic('time', '', 'x')", "get_ipython().run_cell_magic('time', '', 'x;')"),
        ("get_ipython().run_line_magic('time', 'x')", "get_ipython().run_line_magic('timeit', 'x')"),
        ("this is no Python", "this is no  Python"),
        ("'\\ud800'", "'\\ud801'"),
    ],
)
def test_what_python_or_the_display_sees_matters(a: str, b: str) -> None:
    assert not same(a, b)
    assert identity(canonical(a, a), None) != identity(canonical(b, b), None)


@pytest.mark.parametrize(("a", "b"), [("x = 'a;'", "x = 'a;' # ;"), ("f(';')", "f( ';' )")])
def test_a_semicolon_inside_a_string_or_comment_hides_nothing(a: str, b: str) -> None:
    assert same(a, b)


def test_a_nested_f_string_that_cannot_be_written_back_still_has_a_form() -> None:
    a, b = 'f"{x!r:{\'\\n\'.join(y)}}" if 0 else f"{chr(10)}"', "z"
    assert canonical(a, a) != canonical(b, b)


def test_text_of_any_depth_has_an_identity() -> None:
    deep = "(" * 150 + "1" + ")" * 150 + "+1" * 5000
    assert len(identity(canonical(deep, deep), None)) == 32
    tree = parse("x = " + "[" * 90 + "]" * 90 + "\ny = " + "-" * 900 + "k")
    assert tree is not None
    assert not is_declarative(tree)
    assert "k" in analyse(tree, {}).names or analyse(tree, {}).everything


def test_a_step_name_replaces_the_source() -> None:
    assert identity("x = 1", "pay") == identity("x = 2", "pay") != identity("x = 1", None)


def test_equal_cells_are_counted_in_order_of_appearance() -> None:
    ordinals = Ordinals()
    assert [ordinals.next("a", None) for _ in range(3)] == [0, 1, 2]
    assert ordinals.next("b", None) == 0


def test_a_cell_id_tells_a_cell_run_again_from_a_second_equal_cell() -> None:
    ordinals = Ordinals()
    assert ordinals.next("a", "one") == 0
    assert ordinals.next("a", "two") == 1
    assert ordinals.next("a", "one") == 0
    assert ordinals.next("a", "two") == 1
    assert ordinals.next("a", None) == 2


def test_an_edited_cell_remembers_its_past_and_finds_its_ordinal_again() -> None:
    ordinals = Ordinals()
    assert ordinals.previous("one") is None
    ordinals.next("a", "one")
    assert ordinals.previous("one") is None
    ordinals.next("b", "one")
    assert ordinals.previous("one") == "a"
    assert ordinals.next("a", "one") == 0
    assert ordinals.previous("one") == "b"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "# only a comment",
        "'''Title'''",
        "import numpy as np\nfrom os import path\nfrom x import *",
        "from __future__ import annotations",
        "x = 1\ny = -2.5\nz = [1, 'a', {'b': (None, True)}]\nw = 1 - 2j",
        "a = b = 3",
        "def f(x: int, *, y: str = 'a') -> list[int]:\n    return g(x)",
        "async def f(): await g()",
        "class A:\n    '''Doc'''\n    x: int = 1\n    def m(self): return f()\n    @property\n    def p(self): return 1",
        "class E(ValueError): pass",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n    x: int = 1",
        "from enum import Enum\nclass Color(Enum):\n    RED = 1",
        "x: 'int' = 1",
        "pass",
    ],
)
def test_cells_that_only_declare_are_declarative(source: str) -> None:
    assert is_declarative(parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "x = y",
        "x = [y]",
        "x = f'{y}'",
        "x = 1 + 2",
        "x.y = 1",
        "x[0] = 1",
        "def f(x=g()): pass",
        "def f(x=y): pass",
        "def f(x: g()): pass",
        "@decorator\ndef f(): pass",
        "@decorator(1)\nclass A: pass",
        "class A(metaclass=M): pass",
        "class A(Base): pass",
        "class A(f()): pass",
        "class A:\n    x = f()",
        "class A:\n    print(1)",
        "if x:\n    import y",
        "get_ipython().run_line_magic('time', 'x')",
        "del x",
        "x += 1",
        "x",
    ],
)
def test_cells_that_do_something_are_not_declarative(source: str) -> None:
    assert not is_declarative(parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "get_ipython().run_line_magic('matplotlib', 'inline')",
        "get_ipython().run_line_magic('load_ext', 'autoreload')\nget_ipython().run_line_magic('autoreload', '2')\nimport x",
        "get_ipython().run_line_magic('cd', 'data')",
        "get_ipython().run_line_magic('env', 'A=1')",
    ],
)
def test_cells_of_session_magics_are_always_applied(source: str) -> None:
    assert session_magic(parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "import x",
        "get_ipython().run_line_magic('matplotlib', 'inline')\nx = 1",
        "get_ipython().run_line_magic('time', 'x')",
        "get_ipython().run_cell_magic('env', '', '')",
        "x = get_ipython().run_line_magic('cd', '.')",
    ],
)
def test_other_cells_are_no_session_magics(source: str) -> None:
    assert not session_magic(parse(source))
