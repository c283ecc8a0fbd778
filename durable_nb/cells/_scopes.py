"""The names a cell reads, from its tree, in the order of its statements.

Theory. At the top of a cell a name is *killed* once the cell has certainly bound or deleted it: from there on a load
cannot see the value from before the cell. The walk carries the set of killed names along the paths that execution may
take. Where paths meet, only what all of them killed stays killed; a loop body may run no time at all; a handler starts
with what was killed at the start of its `try`; a `with` block may end early without an error unless its manager is
known not to swallow any. Every doubt leaves a name alive, hence read: a name too many costs a run, a name too few
would be a stale value.

Code in functions runs later. Its global loads are kept under the function's name as *pending*, and count at the first
place where that name is loaded; code whose time is unknown (lambdas, decorated functions, comprehensions) counts where it stands.

Invariants: `killed` only grows along a straight path; None means that the place is never reached; a load inside a
function is never judged by the order of statements inside that function.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from durable_nb.cells import _magics
from durable_nb.cells._magics import MagicCall, as_magic, interpolated, parse_body, python_body
from durable_nb.cells._uses import NAMESPACE_READERS, NOTHING, TEXT_METHODS, Chain, Killed, Uses, remember_literal

__all__ = ["cell_uses"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

_LATE_DECORATORS = frozenset(
    {"property", "staticmethod", "classmethod", "cached_property", "setter", "getter", "deleter", "abstractmethod"}
    | {"lru_cache", "cache", "contextmanager", "asynccontextmanager", "wraps", "singledispatch", "dataclass"}
    | {"total_ordering", "final", "override", "overload", "njit", "jit", "vectorize", "delayed", "retry", "fixture"}
)
"""Decorators that do not call the function they get."""

_KEEPS_ERRORS = frozenset(
    {"open", "errstate", "no_grad", "inference_mode", "enable_grad", "set_grad_enabled", "autocast", "option_context"}
    | {"catch_warnings", "rc_context", "context", "closing", "nullcontext", "chdir", "redirect_stdout"}
    | {"redirect_stderr", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile", "ZipFile", "ExcelWriter"}
    | {"ExcelFile", "HDFStore", "ThreadPoolExecutor", "ProcessPoolExecutor", "Pool", "Parallel", "GradientTape"}
    | {"device", "localcontext", "profile", "Session", "Client", "urlopen", "Lock", "RLock", "printoptions"}
    | {"config_context", "parallel_backend", "set_options", "begin", "StringIO", "BytesIO", "tqdm", "File", "gzip"}
)
"""Context managers, by the last part of their name, that let every error through."""


class _Scope:
    """One scope around the code being walked. The module scope is not represented."""

    def __init__(self, kind: str, names: Iterable[str] = (), outer: Iterable[str] = ()) -> None:
        self.kind = kind
        self.names = set(names)
        self.declared_global = set(outer)
        self.modules: dict[str, str] = {}
        """Local names that an import in this scope binds, to the module."""


def cell_uses(tree: ast.Module) -> Uses:
    """What the cell uses; remembered with the tree, which must not change."""
    known = getattr(tree, "_durable_uses", None)
    if isinstance(known, Uses):
        return known
    walker = _Walker()
    walker.statements(tree.body)
    tree._durable_uses = walker.uses  # type: ignore[attr-defined]
    return walker.uses


class _Walker(ast.NodeVisitor):
    def __init__(self) -> None:
        self.uses = Uses()
        self.killed: Killed | None = NOTHING
        self._scopes: list[_Scope] = []
        self._loops: list[list[Killed | None]] = []
        self._later = False
        """True inside code that runs at an unknown time: nothing is killed there."""

    # --- names ---------------------------------------------------------------------------------------------------

    def _resolve(self, name: str) -> _Scope | None:
        """The scope that owns a name; None is the module, hence the notebook's namespace."""
        for depth, scope in enumerate(reversed(self._scopes)):
            if scope.kind == "class" and depth > 0:
                continue
            if name in scope.declared_global:
                return None
            if name in scope.names:
                return scope
        return None

    def load(self, name: str) -> None:
        if self.killed is None:
            return
        scope = self._resolve(name)
        if scope is not None and (scope.kind != "class" or self._class_key(name) in self.killed):
            return
        self.uses.load(name, self._now())
        if name in NAMESPACE_READERS and name not in self.killed:
            self.uses.everything = self.uses.everything or f"{name}()"

    def _now(self) -> Killed:
        return NOTHING if self._later or self.killed is None else self.killed

    def _class_key(self, name: str) -> str:
        return f"<class {len(self._scopes)}>{name}"

    def bind(self, name: str) -> None:
        scope = self._scopes[-1] if self._scopes else None
        if scope is not None and scope.kind == "comprehension":
            return  # its own targets; an assignment expression comes through `bind_walrus`
        self._bind_in(scope, name)

    def bind_walrus(self, name: str) -> None:
        inner = [s for s in self._scopes if s.kind != "comprehension"]
        self._bind_in(inner[-1] if inner else None, name)

    def _bind_in(self, scope: _Scope | None, name: str) -> None:
        if scope is None or name in scope.declared_global:
            self.uses.binds.add(name)
            # A function that binds a global may never be called: only the cell's own statements kill.
            if scope is None and not self._scopes:
                self._kill(name)
        elif scope.kind == "class":
            scope.names.add(name)
            self._kill(self._class_key(name))

    def delete(self, name: str) -> None:
        scope = self._scopes[-1] if self._scopes else None
        if scope is None or name in scope.declared_global:
            self.load(name)  # it must be there, or the statement fails
            self.uses.deletes.add(name)
            if scope is None:
                self._kill(name)

    def _kill(self, name: str) -> None:
        if self.killed is not None and not self._later:
            self.killed = self.killed | {name}

    # --- flow ----------------------------------------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for position, node in enumerate(body):
            if position == 0 and _is_docstring(node):
                continue
            self.visit(node)

    def visit(self, node: ast.AST) -> None:
        method = getattr(self, "visit_" + type(node).__name__, None)
        if method is not None:
            method(node)
        else:
            self.children(node)

    def children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self.visit(child)

    def each(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _maybe(self, nodes: Iterable[ast.AST | None]) -> None:
        """Code that may not run: it reads, but kills nothing for what follows."""
        before = self.killed
        self.each(nodes)
        self.killed = before

    def _branch(self, start: Killed | None, body: Sequence[ast.AST]) -> Killed | None:
        self.killed = start
        self.each(body)
        return self.killed

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        start = self.killed
        self.killed = _join(self._branch(start, node.body), self._branch(start, node.orelse))

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        start = self.killed
        self.killed = _join(self._branch(start, [node.body]), self._branch(start, [node.orelse]))

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        self._maybe(node.values[1:])

    def visit_Compare(self, node: ast.Compare) -> None:
        self.each([node.left, node.comparators[0]])
        self._maybe(node.comparators[1:])

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)
        self._maybe([node.msg])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        entry = self.killed
        self.visit(node.target)
        after, exits = self._loop_body(node.body)
        if _never_empty(node.iter):
            self.killed = _join(after, *exits)
        else:
            self.killed = entry
        # `else` is left out by a `break`, so what it kills is not certain.
        self._maybe(node.orelse)

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        entry = self.killed
        _, exits = self._loop_body(node.body)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self.killed = _join(*exits) if endless else entry
        self._maybe(node.orelse)

    def _loop_body(self, body: Sequence[ast.stmt]) -> tuple[Killed | None, list[Killed | None]]:
        exits: list[Killed | None] = []
        self._loops.append(exits)
        self.each(body)
        self._loops.pop()
        return self.killed, exits

    def visit_Break(self, node: ast.Break | ast.Continue) -> None:
        if self._loops:
            self._loops[-1].append(self.killed)
        self.killed = None if not self._later else self.killed

    visit_Continue = visit_Break

    def visit_Raise(self, node: ast.Raise) -> None:
        self.children(node)
        if not self._later:
            self.killed = None

    def visit_Try(self, node: ast.Try) -> None:
        entry = self.killed
        outcomes: list[Killed | None] = []
        self.each(node.body)
        self.each(node.orelse)
        outcomes.append(self.killed)
        for handler in node.handlers:
            self.killed = entry
            self.each([handler.type])
            if handler.name:
                self.bind(handler.name)
            self.each(handler.body)
            outcomes.append(self.killed)
        after = _join(*outcomes)
        if node.finalbody:
            final = self._branch(entry, node.finalbody)
            after = None if final is None or after is None else after | (final - (entry or NOTHING))
        self.killed = after

    visit_TryStar = visit_Try

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        swallows = False
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.visit(item.optional_vars)
            swallows = swallows or not _keeps_errors(item.context_expr)
        entry = self.killed
        self.each(node.body)
        if swallows:
            self.killed = entry if entry is not None else self.killed

    visit_AsyncWith = visit_With

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        start = self.killed
        outcomes: list[Killed | None] = [start]
        for case in node.cases:
            self.killed = start
            self.visit(case.pattern)
            self.each([case.guard])
            self.each(case.body)
            outcomes.append(self.killed)
        self.killed = _join(*outcomes)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.children(node)
        if node.name:
            self.bind(node.name)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self.bind(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.children(node)
        if node.rest:
            self.bind(node.rest)

    # --- statements that bind --------------------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if isinstance(node.value, ast.Lambda) and len(node.targets) == 1 and isinstance(target, ast.Name):
            self._define(target.id, node.value, now=False)
            self.visit(target)
            return
        self.visit(node.value)
        self.each(node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.load(node.target.id)
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.each([node.value])
        if not (isinstance(node.target, ast.Name) and node.value is None):
            self.visit(node.target)
        if not self._scopes or self._scopes[-1].kind == "class":
            self.visit(node.annotation)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.bind_walrus(node.target.id)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.uses.import_module(alias.name)
            self._import_as(alias.asname or alias.name.partition(".")[0], alias.name if alias.asname else None, alias)
            if alias.name == "__main__":
                self.uses.everything = self.uses.everything or "import __main__"

    def _import_as(self, name: str, dotted: str | None, alias: ast.alias) -> None:
        stands_for = dotted or alias.name.partition(".")[0]
        self.bind(name)
        scope = self._scopes[-1] if self._scopes else None
        if scope is None or name in scope.declared_global:
            self.uses.aliases[name] = stands_for
        else:
            scope.modules[name] = stands_for

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        if module == "__future__":
            return
        if not node.level:
            self.uses.import_module(module)
        if module == "__main__":
            self.uses.everything = self.uses.everything or "import __main__"
        for alias in node.names:
            if alias.name == "*":
                self.uses.stars.add(module)
                continue
            dotted = f"{module}.{alias.name}"
            self.uses.imports.add(dotted)
            name = alias.asname or alias.name
            self._import_as(name, dotted, alias)
            self.uses.chain((f"@{module}", alias.name), self._now())

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.load(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        else:
            self.delete(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        """`global x` at the top of a cell changes nothing; in a function `_local_names` has seen it."""

    # --- functions and classes -------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.each(node.decorator_list)
        late = all(_last_name(d) in _LATE_DECORATORS for d in node.decorator_list)
        self._define(node.name, node, now=not late)
        self.bind(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._define(None, node, now=True)

    def _define(self, name: str | None, node: ast.AST, *, now: bool) -> None:
        """Defaults and annotations are evaluated here; the body counts when `name` is used, or `now`."""
        assert isinstance(node, _FUNCTIONS)
        self.each([*node.args.defaults, *node.args.kw_defaults])
        if not isinstance(node, ast.Lambda):
            self.each([a.annotation for a in _arguments(node.args)])
            self.each([node.returns])
        body = self._function_uses(node)
        in_function = any(s.kind == "function" for s in self._scopes)
        in_class = bool(self._scopes) and self._scopes[-1].kind == "class"
        if now or name is None or in_function:
            self.uses.absorb(body, self._now())
        if name is not None and not in_function and not in_class:
            self.uses.pending.setdefault(name, []).append(body)
        elif in_class and not now and not in_function:
            self.uses.pending.setdefault(f"<method>{name}", []).append(body)

    def _function_uses(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Uses:
        names, outer = _local_names(node)
        inner = _Walker()
        inner._later = True
        # Inside, the class scope around a method is invisible, but the functions around it are not.
        inner._scopes = [*self._scopes, _Scope("function", names, outer)]
        if isinstance(node, ast.Lambda):
            inner.visit(node.body)
        else:
            inner.statements(node.body)
        return inner.uses

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.each(node.decorator_list)
        self.each([*node.bases, *(k.value for k in node.keywords)])
        body = _Walker()
        body.killed = self.killed
        body._later = self._later
        body._scopes = [*self._scopes, _Scope("class", (), _declared_global(node.body))]
        body.statements(node.body)
        methods = {k: v for k, v in body.uses.pending.items() if k.startswith("<method>")}
        for key in methods:
            del body.uses.pending[key]
        self.uses.absorb(body.uses, NOTHING)  # its loads carry what is killed already
        in_function = any(s.kind == "function" for s in self._scopes)
        for key, uses in methods.items():
            if in_function or self._called_by_class(node, key.removeprefix("<method>")):
                for one in uses:
                    self.uses.absorb(one, self._now())
            if not in_function:
                self.uses.pending.setdefault(node.name, []).extend(uses)
        self.bind(node.name)

    def _called_by_class(self, node: ast.ClassDef, method: str) -> bool:
        """Whether making the class may call the method: a metaclass or decorator can, a base through its hooks."""
        if any(_last_name(d) not in _LATE_DECORATORS for d in node.decorator_list):
            return True
        if any(k.arg == "metaclass" and _last_name(k.value) != "ABCMeta" for k in node.keywords):
            return True
        return bool(node.bases or node.keywords) and method.startswith("_")

    def _comprehension(self, node: ast.AST) -> None:
        assert isinstance(node, _COMPREHENSIONS)
        first, *others = node.generators
        self.visit(first.iter)
        before = self.killed
        names = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        self._scopes.append(_Scope("comprehension", names))
        self.each([first.target, *first.ifs])
        for generator in others:
            self.each([generator.iter, generator.target, *generator.ifs])
        self.each([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        self._scopes.pop()
        self.killed = before

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    # --- attributes, calls, text -----------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = self._chain(node)
        if chain is None:
            self.visit(node.value)
            return
        if not chain[0].startswith("@"):
            self.load(chain[0])
        if self.killed is None:
            return
        self.uses.chain(chain, self._now())
        if not isinstance(node.ctx, ast.Load):
            self.uses.store(chain, self._now())

    def _chain(self, node: ast.expr) -> Chain | None:
        """The dotted path of an expression whose root is a global name or a module imported in a function."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        scope = self._resolve(node.id)
        if scope is None:
            return (node.id, *reversed(parts))
        module = scope.modules.get(node.id)
        return None if module is None else (f"@{module}", *reversed(parts))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._globals_item(node):
            return
        self.visit(node.value)
        self.visit(node.slice)
        chain = self._chain(node.value) if not isinstance(node.ctx, ast.Load) else None
        if chain is not None and len(chain) > 1 and self.killed is not None:
            self.uses.store(chain, self._now())
        name = _output_name(node)
        if name is not None and self._resolve("Out") is None:
            self.load(name)

    def _globals_item(self, node: ast.Subscript) -> bool:
        """`globals()["x"]` is `x`."""
        if not (_is_globals_call(node.value) and self._resolve("globals") is None):
            return False
        if not (isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)):
            return False
        name = node.slice.value
        if isinstance(node.ctx, ast.Load):
            self.uses.load(name, self._now())
        elif isinstance(node.ctx, ast.Store):
            self.uses.binds.add(name)
            if not self._scopes:
                self._kill(name)
        else:
            self.uses.load(name, self._now())
            self.uses.deletes.add(name)
        return True

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            remember_literal(self.uses, node.value)

    def visit_Call(self, node: ast.Call) -> None:
        magic = as_magic(node)
        if magic is not None:
            self._magic(magic)
            return
        if self._known_call(node):
            return
        self.visit(node.func)
        self.each([*node.args, *(k.value for k in node.keywords)])
        method = _last_name(node.func)
        if method in TEXT_METHODS and isinstance(node.func, ast.Attribute):
            self._text(method, [*node.args[:1], *(k.value for k in node.keywords if k.arg in ("expr", "sql", "query"))])
        elif method in {"setattr", "delattr"} and node.args and isinstance(node.func, ast.Name):
            self._set_attribute(node)
        else:
            self._texts(method or "", [*node.args, *(k.value for k in node.keywords)])

    def _known_call(self, node: ast.Call) -> bool:
        """Calls that read names in a way that can be told exactly."""
        match node:
            case ast.Call(func=ast.Name(id="locals" | "vars" | "dir" as name), args=[], keywords=[]):
                # In a function these see the function's own names.
                if self._resolve(name) is None and not any(s.kind == "function" for s in self._scopes):
                    self.uses.everything = self.uses.everything or f"{name}()"
                return True
            case ast.Call(
                func=ast.Attribute(value=owner, attr="get" | "setdefault"),
                args=[ast.Constant(value=str() as name), *others],
            ) if _is_globals_call(owner):
                self.uses.load(name, self._now())
                self.each(others)
                return True
            case ast.Call(func=ast.Attribute(value=owner, attr="update")) if _is_globals_call(owner):
                self.each([*node.args, *(k.value for k in node.keywords)])
                self.uses.binds |= {k.arg for k in node.keywords if k.arg}
                return True
            case ast.Call(
                func=ast.Name(id="eval" | "exec" as name), args=[ast.Constant(value=str() as text)], keywords=[]
            ):
                tree = parse_body(text.strip()) if self._resolve(name) is None else None
                if tree is None:
                    return False
                self.each(tree.body)
                return True
            case _:
                return False

    def _set_attribute(self, node: ast.Call) -> None:
        chain = self._chain(node.args[0])
        if chain is None or self.killed is None:
            return
        key = node.args[1] if len(node.args) > 1 else None
        attribute = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else "*"
        self.uses.store((*chain, attribute), self._now())

    def _text(self, method: str, arguments: Sequence[ast.expr]) -> None:
        for argument in arguments:
            if isinstance(argument, ast.Constant):
                if isinstance(argument.value, str):
                    self.uses.texts.append((method, "text", argument.value, self._now()))
            elif isinstance(argument, ast.JoinedStr):
                pieces = [p.value for p in argument.values if isinstance(p, ast.Constant)]
                self.uses.texts.append((method, "text", " ".join(map(str, pieces)), self._now()))
            elif isinstance(argument, ast.Name) and self._resolve(argument.id) is None:
                self.uses.texts.append((method, "name", argument.id, self._now()))
            elif not isinstance(argument, (ast.Lambda, ast.List, ast.Tuple, ast.Dict, ast.Compare)):
                self.uses.texts.append((method, "computed", None, self._now()))

    def _texts(self, method: str, arguments: Sequence[ast.expr]) -> None:
        for argument in arguments:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and "~" in argument.value:
                self.uses.texts.append((method, "text", argument.value, self._now()))

    def _magic(self, call: MagicCall) -> None:
        body = python_body(call)
        if body is not None:
            self._python_magic(call, body)
            return
        text = call.line
        if call.form in ("system", "getoutput") or call.name in _magics.PROCESS:
            self.uses.magics.add(call.name)
            for name in _magics.bound_by_script(call):
                self.bind(name)
            for word in text.split():
                remember_literal(self.uses, word.strip("'\""))
        elif call.name in _magics.SHOWN_BY_NAME:
            tree = parse_body(call.line.rstrip("?"))
            self.each(tree.body if tree else [])
            return
        elif call.name not in _magics.INERT and call.name not in _magics.SESSION:
            sign = "%%" if call.form == "cell" else "%"
            self.uses.everything = self.uses.everything or f"{sign}{call.name}"
            remember_literal(self.uses, text.strip())
        if call.name in ("load_ext", "reload_ext", "aimport") and text.strip().replace(".", "").isidentifier():
            self.uses.import_module(text.strip())
        elif call.name in ("matplotlib", "pylab"):
            self.uses.import_module("matplotlib")
        expressions, unreadable = interpolated(text)
        for expression in expressions:
            self.visit(expression)
        if unreadable:
            self.uses.everything = self.uses.everything or f"%{call.name} with {{…}}"

    def _python_magic(self, call: MagicCall, body: str) -> None:
        tree = parse_body(body)
        if tree is None:
            self.uses.everything = self.uses.everything or f"%{call.name}"
            return
        if call.name in ("timeit", "memit"):  # its code runs in a function of its own
            before, binds = self.killed, set(self.uses.binds)
            self.each(tree.body)
            self.killed, self.uses.binds = before, binds
        else:
            self.each(tree.body)
        target = _magics.capture_target(call)
        if target:
            self.bind(target)
        for option in ("-o", "-r"):
            if call.name in ("timeit", "prun") and option in call.line.split():
                self.bind("_")


# --- Questions about trees -----------------------------------------------------------------------------------------


def _join(*paths: Killed | None) -> Killed | None:
    reached = [path for path in paths if path is not None]
    return frozenset.intersection(*reached) if reached else None


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _keeps_errors(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and _last_name(node) in _KEEPS_ERRORS


def _is_globals_call(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "globals" and not node.args
    )


def _output_name(node: ast.Subscript) -> str | None:
    """`Out[3]` as the pseudo-name of that output."""
    if isinstance(node.value, ast.Name) and node.value.id in ("Out", "_oh"):
        key = node.slice
        if isinstance(key, ast.Constant) and isinstance(key.value, int):
            return f"Out[{key.value}]"
    return None


def _never_empty(node: ast.expr) -> bool:
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
            return _never_empty(first)
        case _:
            return False


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    extra = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def _declared_global(body: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in _own_nodes(body):
        if isinstance(node, ast.Global):
            found.update(node.names)
    return found


def _own_nodes(body: Iterable[ast.AST]) -> Iterable[ast.AST]:
    """The nodes of one scope: nested functions, classes and comprehensions are given, but not entered."""
    stack = list(body)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            continue
        stack.extend(ast.iter_child_nodes(node))


def _local_names(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> tuple[set[str], set[str]]:
    """The local names of a function, and those it declares global."""
    names = {a.arg for a in _arguments(node.args)}
    body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    outer, nonlocal_names = _declared_global(body), set[str]()
    comprehension_targets: set[int] = set()
    for part in _own_nodes(body):
        match part:
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                for generator in part.generators:
                    comprehension_targets |= {id(n) for n in ast.walk(generator.target)}
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
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if id(part) not in comprehension_targets:
                names.add(name)
    return names - outer - nonlocal_names, outer
