"""Small questions about syntax trees that the walk over a cell asks."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from durable_nb._ident import ident
from durable_nb.cells._uses import Killed

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

_KEEPS_ERRORS = frozenset(
    {"open", "errstate", "no_grad", "inference_mode", "enable_grad", "set_grad_enabled", "autocast", "option_context"}
    | {"catch_warnings", "rc_context", "context", "closing", "nullcontext", "chdir", "redirect_stdout"}
    | {"redirect_stderr", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile", "ZipFile", "ExcelWriter"}
    | {"ExcelFile", "HDFStore", "ThreadPoolExecutor", "ProcessPoolExecutor", "Pool", "Parallel", "GradientTape"}
    | {"device", "localcontext", "profile", "Session", "Client", "urlopen", "Lock", "RLock", "printoptions"}
    | {"config_context", "parallel_backend", "set_options", "begin", "StringIO", "BytesIO", "tqdm", "File", "gzip"}
)
"""Context managers, by the last part of their name, that let every error through."""


def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """All nodes, as `ast.walk` gives them, in half its time: every cell is walked several times."""
    found = [tree]
    for node in found:  # which grows meanwhile
        found += children_of(node)
    return found


def children_of(node: ast.AST) -> list[ast.AST]:
    """As `ast.iter_child_nodes`."""
    found: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, ast.AST):
            found.append(value)
        elif type(value) is list:
            found += [item for item in value if isinstance(item, ast.AST)]
    return found


def join(*paths: Killed | None) -> Killed | None:
    reached = [path for path in paths if path is not None]
    return frozenset.intersection(*reached) if reached else None


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def keeps_errors(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and last_name(node) in _KEEPS_ERRORS


def is_globals_call(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "globals" and not node.args
    )


def output_name(node: ast.Subscript) -> str | None:
    """`Out[3]` as the pseudo-name of that output."""
    if isinstance(node.value, ast.Name) and node.value.id in ("Out", "_oh"):
        key = node.slice
        if isinstance(key, ast.Constant) and isinstance(key.value, int):
            return f"Out[{key.value}]"
    return None


def never_empty(node: ast.expr) -> bool:
    """Iterables that have at least one element for certain."""
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return any(not isinstance(p, ast.Starred) for p in parts)
        case ast.Constant(value=str() | bytes() as text):
            return bool(text)
        case ast.Call(func=ast.Name(id="range" | "trange"), args=arguments):
            values = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, int)]
            return (
                len(values) == len(arguments) and 0 < len(values) <= 3 and 0 not in values[2:] and bool(range(*values))
            )
        case ast.Call(func=ast.Name(id="enumerate" | "tqdm" | "reversed" | "sorted" | "list"), args=[first, *_]):
            return never_empty(first)
        case _:
            return False


def arguments_of(arguments: ast.arguments) -> list[ast.arg]:
    extra = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def declared_global(body: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in own_nodes(body):
        if isinstance(node, ast.Global):
            found.update(node.names)
    return found


def own_nodes(body: Iterable[ast.AST]) -> Iterable[ast.AST]:
    """The nodes of one scope: nested functions, classes and comprehensions are given, but not entered."""
    stack = list(body)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        stack += children_of(node)


def local_names(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> tuple[set[str], set[str]]:
    """The local names of a function, and those it declares global."""
    names = {a.arg for a in arguments_of(node.args)}
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    outer, nonlocal_names = declared_global(body), set[str]()
    comprehension_targets: set[int] = set()
    for part in own_nodes(body):
        match part:
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                for generator in part.generators:
                    comprehension_targets |= {ident(n) for n in nodes_of(generator.target)}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import() | ast.ImportFrom():
                names |= {a.asname or a.name.partition(".")[0] for a in part.names if a.name != "*"}
            case ast.ExceptHandler(name=str() as name):
                names.add(name)
            case ast.MatchAs(name=str() as name) | ast.MatchStar(name=str() as name):
                names.add(name)
            case ast.MatchMapping(rest=str() as name):
                names.add(name)
            case ast.Nonlocal(names=found):
                nonlocal_names.update(found)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if ident(part) not in comprehension_targets:
                names.add(name)
    return names - outer - nonlocal_names, outer
