"""What makes two cells the same cell: canonical source, identity, ordinal.

The canonical source is the text that `ast.unparse` gives back: comments, blank lines, quotes and layout are gone, all
that Python executes is left. One thing that Python does not execute counts all the same: a semicolon after the last
statement, because it hides the output. Text that is no Python stays as it is, so it is only ever equal to itself.

The identity is a digest of the canonical source, or of the step's name. Two identical cells are two steps: the ordinal
tells them apart by their order of appearance in the kernel's life.
"""

from __future__ import annotations

import ast
import io
import tokenize
from functools import lru_cache

from durable_nb.cells._digest import digest
from durable_nb.cells._magics import as_magic, parse_body, python_body
from durable_nb.cells._trees import nodes_of

__all__ = ["Ordinals", "canonical", "identity", "is_declarative", "parse", "session_magic"]

_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


@lru_cache(maxsize=512)
def parse(transformed: str) -> ast.Module | None:
    """The tree of a cell, or None when it is no Python. The same text gives the same tree: do not change it."""
    try:
        return ast.parse(transformed)
    except _UNPARSABLE:
        return None


_MANY = 2048
_canonical: dict[tuple[str, str], str] = {}


def canonical(transformed: str, raw: str, tree: ast.Module | None = None) -> str:
    """The cell without comments, blank lines and layout.

    Args:
        transformed: Python text, as IPython's input transformers give it.
        raw: the cell as it was typed; only asked whether it ends in a semicolon.
        tree: of the transformed text, where somebody has parsed it already.
    """
    found = _canonical.get((transformed, raw))
    if found is None:
        if len(_canonical) >= _MANY:
            _canonical.clear()
        found = _canonical[transformed, raw] = _text_of(transformed, raw, tree)
    return found


def _text_of(transformed: str, raw: str, tree: ast.Module | None) -> str:
    if tree is None:
        tree = parse(transformed)
    if tree is None:
        return transformed
    text = _unparse(tree, magics="get_ipython" in transformed)
    if text is None:
        return transformed
    semicolon = _ends_in_semicolon(transformed)
    if semicolon is None:
        semicolon = _ends_in_semicolon(raw)
    # Where the tokens cannot be read either, the bare text decides; a wrong "yes" only costs a run.
    if semicolon if semicolon is not None else raw.rstrip().endswith(";"):
        text += ";"
    return text


def _unparse(tree: ast.Module, *, magics: bool = True) -> str | None:
    """The source of a tree; None for one that is nested too deeply to be written.

    Args:
        tree: of a cell.
        magics: whether there may be any in it.
    """
    try:
        if magics and any(as_magic(node) for node in nodes_of(tree)):
            tree = _CanonicalMagics().visit(ast.parse(ast.unparse(tree)))
        return ast.unparse(tree)
    except (RecursionError, MemoryError):
        return None
    except (SyntaxError, ValueError):
        return ast.dump(tree)  # Python 3.11 cannot write some nested f-strings back


class _CanonicalMagics(ast.NodeTransformer):
    """Puts canonical text into the magics whose text is Python, so that comments in a `%%time` cell do not count."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        call = as_magic(node)
        if call is None or call.form != "cell" or python_body(call) is None:
            return self.generic_visit(node)
        body = parse_body(call.body)
        if body is None:
            return node
        text = canonical(call.body, call.body) if parse(call.body) is not None else _unparse(body)
        if text is None:
            return node
        if parse(call.body) is None and call.body.rstrip().endswith(";"):
            text += ";"
        node.args[2] = ast.Constant(text)
        return node


def _ends_in_semicolon(text: str) -> bool | None:
    """Whether the last token that counts is a semicolon, as IPython decides it; None when the text has no tokens."""
    if ";" not in text:
        return False
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return None
    empty = {tokenize.ENDMARKER, tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.DEDENT}
    for token in reversed(tokens):
        if token.type not in empty:
            return token.type == tokenize.OP and token.string == ";"
    return False


def identity(canonical_source: str, step_name: str | None) -> str:
    """The key of a cell's history: 32 hex characters."""
    return digest("name", step_name) if step_name else digest("source", canonical_source)


class Ordinals:
    """Order of appearance of equal cells in the life of one kernel."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._given: dict[tuple[str, str], int] = {}
        self._identities: dict[str, list[str]] = {}

    def next(self, identity: str, cell_id: str | None) -> int:
        """The ordinal, from 0, of the cell that is about to run.

        A cell id that had this identity before is that cell run again by hand, so it keeps its ordinal. Without ids
        each appearance counts.
        """
        if cell_id is not None:
            past = self._identities.setdefault(cell_id, [])
            if not past or past[-1] != identity:
                past.append(identity)
            given = self._given.get((cell_id, identity))
            if given is not None:
                return given
        ordinal = self._count.get(identity, 0)
        self._count[identity] = ordinal + 1
        if cell_id is not None:
            self._given[cell_id, identity] = ordinal
        return ordinal

    def previous(self, cell_id: str | None) -> str | None:
        """The identity that this cell had before its present one, or None; ties an edited cell to its past."""
        past = self._identities.get(cell_id, []) if cell_id is not None else []
        return past[-2] if len(past) > 1 else None


# --- Cells that are simply run ---------------------------------------------------------------------------------------

_PURE_DECORATORS = frozenset(
    {"property", "staticmethod", "classmethod", "dataclass", "total_ordering", "cached_property", "abstractmethod"}
    | {"final", "override", "overload", "unique", "runtime_checkable", "setter", "getter", "deleter"}
)
_PURE_BASES = frozenset(
    {"object", "Exception", "BaseException", "ArithmeticError", "AssertionError", "AttributeError", "KeyError"}
    | {"IndexError", "LookupError", "NotImplementedError", "OSError", "RuntimeError", "TypeError", "ValueError"}
    | {"Warning", "UserWarning", "ConnectionError", "TimeoutError", "StopIteration", "ZeroDivisionError"}
    | {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "NamedTuple", "TypedDict", "Protocol", "ABC", "Generic"}
)
_DECLARATIONS = (ast.Import, ast.ImportFrom, ast.Pass)


def is_declarative(tree: ast.Module) -> bool:
    """True for a cell that only declares, so that running it is cheaper and truer than restoring it.

    Imports, literals, functions, and classes with nothing to call while they are made: no calls, no decorators, bases
    or metaclasses except a few of the standard library that have no effect besides the class itself. A cell
    without any statement counts too.
    """
    try:
        return all(_declares(statement) for statement in tree.body)
    except RecursionError:
        return False


def _declares(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Pass():
            return True
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=targets, value=value):
            return all(isinstance(t, ast.Name) for t in targets) and _is_literal(value)
        case ast.AnnAssign(target=ast.Name(), annotation=annotation, value=value):
            return _is_inert(annotation) and (value is None or _is_literal(value))
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return _declares_function(node)
        case ast.ClassDef(bases=bases, keywords=[], decorator_list=decorators, body=body):
            return (
                all(_is_pure_decorator(d) for d in decorators)
                and all(_is_pure_base(b) for b in bases)
                and all(_declares(s) for s in body)
            )
        case _ if type(node).__name__ == "TypeAlias":
            return True  # `type X = …` is evaluated lazily
        case _:
            return False


def _declares_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotations = [a.annotation for a in every if a is not None and a.annotation is not None]
    if node.returns is not None:
        annotations.append(node.returns)
    defaults = [d for d in (*arguments.defaults, *arguments.kw_defaults) if d is not None]
    return (
        all(_is_pure_decorator(d) for d in node.decorator_list)
        and all(_is_literal(d) for d in defaults)
        and all(_is_inert(a) for a in annotations)
    )


def _is_literal(node: ast.expr) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not() | ast.Invert(), operand=operand):
            return isinstance(operand, ast.Constant)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=ast.Constant(value=complex())):
            return _is_literal(left)
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return all(_is_literal(part) for part in parts)
        case ast.Dict(keys=keys, values=values):
            return all(key is not None and _is_literal(key) for key in keys) and all(_is_literal(v) for v in values)
        case ast.JoinedStr(values=pieces):
            return all(isinstance(piece, ast.Constant) for piece in pieces)
        case _:
            return False


def _is_inert(node: ast.expr) -> bool:
    """An annotation that calls nothing and binds nothing."""
    busy = (ast.Call, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, ast.GeneratorExp, ast.ListComp)
    return not any(isinstance(part, busy) for part in nodes_of(node))


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr if _is_inert(node) else None
    return node.id if isinstance(node, ast.Name) else None


def _is_pure_decorator(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        literal = all(_is_literal(a) for a in node.args) and all(_is_literal(k.value) for k in node.keywords)
        return literal and _last_name(node.func) == "dataclass"
    return _last_name(node) in _PURE_DECORATORS


def _is_pure_base(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        return _is_inert(node.slice) and _last_name(node.value) in {"Generic", "Protocol"}
    return _last_name(node) in _PURE_BASES


def session_magic(tree: ast.Module) -> bool:
    """True when the cell has a magic that sets the session up, and nothing else but such magics and imports."""
    found = False
    for node in tree.body:
        call = as_magic(node.value) if isinstance(node, ast.Expr) else None
        if call is not None and call.is_session:
            found = True
        elif not isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass)):
            return False
    return found
