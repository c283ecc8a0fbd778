"""Names of arrays that a cell only computes from: what it does with them cannot change them.

Theory. Whether a cell changed an array is told by comparing its content before and after, which takes a pass over its
memory. For the most common use of a large array, a number computed from it, the cell's text alone answers: `a.mean()`,
`float(a[0:1000].std(axis=0).max())`, `a.shape`. An array is *only read* where each mention of it is such a use.

The list is short on purpose. A use counts only if it neither writes, nor hands out a view that others may write
through, whatever the other values are. The array's type, and that nothing else in the cell can reach its memory, are
for the caller to check (`notebook/_spared.py`). A mention in any other form makes the name an ordinary one.
"""

from __future__ import annotations

import ast
import builtins

from durable_nb._ident import ident
from durable_nb.cells._trees import nodes_of

__all__ = ["only_read"]

_FUNCTIONS = frozenset({"len", "float", "int", "bool", "complex"})
"""Built-ins that make a number of an array or of a part of it."""

_METHODS = frozenset(
    {
        "all",
        "any",
        "argmax",
        "argmin",
        "item",
        "max",
        "mean",
        "min",
        "prod",
        "std",
        "sum",
        "tobytes",
        "tolist",
        "var",
    }
)
"""Methods of arrays that return numbers, or memory of their own."""

_KEYWORDS = frozenset({"axis", "ddof", "dtype", "keepdims"})
"""Keywords that these may have; `out` would be written to, and `where` is an array of its own."""

_FACTS = frozenset({"dtype", "itemsize", "nbytes", "ndim", "shape", "size", "strides"})
"""Attributes of arrays that cannot change."""

_OPAQUE = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.Await,
    ast.Delete,
    ast.Global,
    ast.Import,
    ast.ImportFrom,
)
"""Code that runs later, elsewhere or not in order: nothing is said of a cell with such a part."""

_DOORS = frozenset(dir(builtins)) - _FUNCTIONS - _METHODS - {"abs", "print", "range", "round"}
"""Other built-ins, as names or as attributes: `exec`, `getattr` and their like come to any name by another way."""


def only_read(tree: ast.Module) -> frozenset[str]:
    """Names that, if they are arrays of numbers, the cell only computes from."""
    nodes = nodes_of(tree)
    if any(isinstance(node, _OPAQUE) or _is_door(node) for node in nodes):
        return frozenset()
    harmless: set[int] = set()
    for node in nodes:
        inner = _used_up(node)
        name = _array_of(inner) if inner is not None else None
        if name is not None:
            harmless.add(ident(name))
    read: set[str] = set()
    other: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            (read if ident(node) in harmless else other).add(node.id)
        else:  # an import, an `except … as`, a pattern: a name that is bound in any other way
            other.update(word for word in vars(node).values() if isinstance(word, str))
            other.update(_words(node))
    return frozenset(read - other)


def _is_door(node: ast.AST) -> bool:
    word = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return word in _DOORS or (isinstance(node, ast.Attribute) and word.startswith("_"))


def _words(node: ast.AST) -> list[str]:
    """Names in lists of plain text (`nonlocal`, patterns with keywords)."""
    return [word for value in vars(node).values() if isinstance(value, list) for word in value if isinstance(word, str)]


def _used_up(node: ast.AST) -> ast.expr | None:
    """What a harmless use is made of; None for any other node."""
    match node:
        case ast.Attribute(value=inner, attr=attr, ctx=ast.Load()) if attr in _FACTS:
            return inner
        case ast.Call(func=ast.Attribute(value=inner, attr=attr), args=args, keywords=keywords) if attr in _METHODS:
            plain = len(args) <= 1 and not any(isinstance(arg, ast.Starred) for arg in args)
            return inner if plain and all(keyword.arg in _KEYWORDS for keyword in keywords) else None
        case ast.Call(func=ast.Name(id=function), args=[inner], keywords=[]) if function in _FUNCTIONS:
            return None if isinstance(inner, ast.Starred) else inner
        case _:
            return None


def _array_of(node: ast.expr) -> ast.Name | None:
    """The name of which this is a part: `a`, `a[1:]`, `a[1:].T[i]`."""
    while True:
        match node:
            case ast.Name(ctx=ast.Load()):
                return node
            case ast.Subscript(value=inner, ctx=ast.Load()) | ast.Attribute(value=inner, attr="T", ctx=ast.Load()):
                node = inner
            case _:
                return None
