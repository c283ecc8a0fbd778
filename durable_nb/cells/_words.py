"""Every word by which code could ever ask for a name of the notebook.

Coarser than `_reads.py`, and for another question. What a cell reads while it runs follows from what it can reach;
but code that a cell leaves behind (a callback, a thread, an observer) runs later, when nobody analyses anything.
Whatever it does, its instructions can only load names that stand in it, and a text that it hands to a library (a query,
a formula) can only speak of words that stand in some text. So the words of all code that a session has met bound what
may be asked for, except where code looks at the namespace itself: such code is `searching`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from types import CodeType

from durable_nb._dataclass import dataclass
from durable_nb.cells._magics import as_magic
from durable_nb.cells._trees import children_of

__all__ = ["Words", "words_in", "words_of_code", "words_of_tree"]

_WORD = re.compile(r"[^\W\d]\w*")

_BUILTINS = frozenset({"globals", "eval", "exec", "breakpoint", "get_ipython", "__import__"})
"""Built-in names that lead to the namespace. As attributes (`model.eval()`) they mean something else."""

_ATTRIBUTES = frozenset(
    {
        "__globals__",
        "__main__",
        "_current_frames",
        "_getframe",
        "currentframe",
        "f_back",
        "f_globals",
        "f_locals",
        "get_objects",
        "get_referrers",
        "user_global_ns",
        "user_module",
        "user_ns",
    }
)
_PATHS = frozenset({("sys", "modules"), ("inspect", "stack"), ("inspect", "trace")})


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a piece of code, and whether it may search the namespace for more."""

    words: frozenset[str] = frozenset()
    searching: bool = False

    def __or__(self, other: Words) -> Words:
        return Words(self.words | other.words, self.searching or other.searching)


def words_in(text: str) -> Iterator[str]:
    """The words of a text that could be names."""
    return (match[0] for match in _WORD.finditer(text))


def words_of_tree(tree: ast.AST) -> Words:
    """The names that a cell loads anywhere, and the words of its texts (magics and docstrings among them)."""
    words: set[str] = set()
    searching = False
    queue: list[ast.AST] = [tree]
    while queue:
        node = queue.pop()
        magic = as_magic(node)
        if magic is not None:  # what it does is told by the analysis; here only its texts count
            words.update(words_in(magic.line), words_in(magic.body))
            continue
        match node:
            case ast.Name(id=name, ctx=ast.Load() | ast.Del()):
                words.add(name)
                searching = searching or name in _BUILTINS or name in _ATTRIBUTES
            case ast.Constant(value=str() as text):
                words.update(words_in(text))
                searching = searching or text == "__main__"
            case ast.Attribute(value=value, attr=attribute):
                path = (value.id if isinstance(value, ast.Name) else "", attribute)
                searching = searching or attribute in _ATTRIBUTES or path in _PATHS
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                module = getattr(node, "module", None) or ""
                searching = searching or _imports_searcher(module, (alias.name for alias in names))
        queue += children_of(node)
    return Words(frozenset(words), searching)


def _imports_searcher(module: str, names: Iterable[str]) -> bool:
    found = set(names)
    if "__main__" in found or module == "__main__" or found & _ATTRIBUTES:
        return True
    return any((module, name) in _PATHS for name in found) or (module == "builtins" and bool(found & _BUILTINS))


def words_of_code(code: CodeType) -> Words:
    """The same of a code object, whose names are not told apart from its attributes."""
    words: set[str] = set(code.co_names)
    searching = bool(words & (_BUILTINS | _ATTRIBUTES)) or any(set(path) <= words for path in _PATHS)
    found = Words(frozenset(words), searching)
    queue: list[object] = list(code.co_consts)
    texts: set[str] = set()
    while queue:
        constant = queue.pop()
        if isinstance(constant, CodeType):
            found = found | words_of_code(constant)
        elif isinstance(constant, (tuple, frozenset)):
            queue.extend(constant)
        elif isinstance(constant, str):
            texts.update(words_in(constant))
            searching = searching or constant == "__main__"
    return found | Words(frozenset(texts), searching)
