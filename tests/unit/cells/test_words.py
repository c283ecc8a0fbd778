"""All words by which code could ask for a name."""

from __future__ import annotations

import ast

import pytest

from durable_nb.cells import words_of_code, words_of_tree


def words(source: str) -> set[str]:
    return set(words_of_tree(ast.parse(source)).words)


def test_loads_in_nested_code_and_words_of_texts_count_and_targets_do_not() -> None:
    found = words("def f(p=1):\n    made = data\n    return query('x > @limit', p)\nclass K:\n    field = other")
    assert {"data", "query", "limit", "x", "other"} <= found
    assert not {"made", "f", "K", "field"} & found


def test_attributes_and_keywords_are_no_names() -> None:
    assert words("model.data(size=3)") == {"model"}


def test_the_texts_of_magics_count_and_their_calls_do_not_search() -> None:
    found = words_of_tree(ast.parse("get_ipython().run_cell_magic('timeit', '-n1', 'f(x)')"))
    assert {"f", "x"} <= found.words
    assert not found.searching


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return globals()[k]",
        "import __main__",
        "from __main__ import x",
        "import sys\nm = sys.modules[k]",
        "from sys import modules",
        "import inspect\ninspect.stack()",
        "f = lambda: eval(k)",
        "ip = get_ipython()",
        "g = f.__globals__",
        "frame.f_back",
        "import importlib\nimportlib.import_module('__main__')",
        "from builtins import eval as e",
    ],
)
def test_code_that_looks_at_the_namespace_itself_searches(source: str) -> None:
    assert words_of_tree(ast.parse(source)).searching


@pytest.mark.parametrize("source", ["model.eval()", "x = np.stack(y)", "sys.path", "d.globals", "import sys"])
def test_names_that_only_look_like_it_do_not(source: str) -> None:
    assert not words_of_tree(ast.parse(source)).searching


def test_a_code_object_tells_the_same() -> None:
    code = compile("def f():\n    return [data for _ in q('a @limit')]", "x", "exec")
    assert {"data", "q", "limit"} <= words_of_code(code).words
    assert not words_of_code(code).searching
    assert words_of_code(compile("lambda: globals()", "x", "eval")).searching
    assert words_of_code(compile("def f():\n    import sys\n    return sys.modules", "x", "exec")).searching
