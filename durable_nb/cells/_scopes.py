"""The names a cell reads, from its tree, in the order of its statements.

Theory. At the top of a cell a name is *killed* once the cell has certainly bound or deleted it: from there on a load
cannot see the value from before the cell. The walk carries the set of killed names along the paths that execution may
take. Where paths meet, only what all of them killed stays killed; a loop body may run no time at all; a handler starts
with what was killed at the start of its `try`; a `with` block may end early without an error unless its manager is
known not to swallow any. Every doubt leaves a name alive, hence read: a name too many costs a run, a name too few
would be a stale value.

Code in functions runs later. Its global loads are kept under the function's name as *pending*, and count at the first
place where that name is loaded; code whose time is unknown (lambdas, decorated functions, comprehensions) counts
where it stands.

Invariants: `killed` only grows along a straight path; None means that the place is never reached; a load inside a
function is never judged by the order of statements inside that function.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from durable_nb.cells import _magics
from durable_nb.cells._flow import Flow, Scope
from durable_nb.cells._magics import MagicCall, as_magic, interpolated, parse_body, python_body
from durable_nb.cells._setters import looks_like_setter, registers
from durable_nb.cells._trees import (
    FUNCTIONS,
    arguments_of,
    declared_global,
    is_globals_call,
    last_name,
    local_names,
    output_name,
)
from durable_nb.cells._uses import NOTHING, TEXT_METHODS, Chain, Uses, remember_literal

__all__ = ["cell_uses"]

_LATE_DECORATORS = frozenset(
    {"property", "staticmethod", "classmethod", "cached_property", "setter", "getter", "deleter", "abstractmethod"}
    | {"lru_cache", "cache", "contextmanager", "asynccontextmanager", "wraps", "singledispatch", "dataclass"}
    | {"total_ordering", "final", "override", "overload", "njit", "jit", "vectorize", "delayed", "retry", "fixture"}
)
"""Decorators that do not call the function they get."""


_WHOLE_FORMULAS = frozenset({"aes", "evaluate"})
"""Functions, imported by name, all of whose text arguments are expressions over the caller's names."""


def cell_uses(tree: ast.Module) -> Uses:
    """What the cell uses; remembered with the tree, which must not change."""
    known = getattr(tree, "_durable_uses", None)
    if isinstance(known, Uses):
        return known
    walker = _Walker()
    try:
        walker.statements(tree.body)
        walker.uses.settled = walker.killed or NOTHING
    except RecursionError:
        walker.uses.everything = "code that is nested too deeply to be read"
    tree._durable_uses = walker.uses  # type: ignore[attr-defined]
    return walker.uses


class _Walker(Flow, ast.NodeVisitor):
    # --- statements that bind ----------------------------------------------------------------------------------------

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
        """`global x` at the top of a cell changes nothing; in a function `local_names` has seen it."""

    # --- functions and classes ---------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._decorated(node.decorator_list)
        late = all(last_name(d) in _LATE_DECORATORS for d in node.decorator_list)
        self._define(node.name, node, now=not late)
        self.bind(node.name)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._define(None, node, now=True)

    def _define(self, name: str | None, node: ast.AST, *, now: bool) -> None:
        """Defaults and annotations are evaluated here; the body counts when `name` is used, or `now`."""
        assert isinstance(node, FUNCTIONS)
        self.each([*node.args.defaults, *node.args.kw_defaults])
        if not isinstance(node, ast.Lambda):
            self.each([a.annotation for a in arguments_of(node.args)])
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
        names, outer = local_names(node)
        inner = _Walker()
        inner._later = True
        # Inside, the class scope around a method is invisible, but the functions around it are not.
        inner._scopes = [*self._scopes, Scope("function", names, outer)]
        if isinstance(node, ast.Lambda):
            inner.visit(node.body)
        else:
            inner.statements(node.body)
        return inner.uses

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._decorated(node.decorator_list)
        self.each([*node.bases, *(k.value for k in node.keywords)])
        body = _Walker()
        body.killed = self.killed
        body._later = self._later
        body._scopes = [*self._scopes, Scope("class", (), declared_global(node.body))]
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
        if any(last_name(d) not in _LATE_DECORATORS for d in node.decorator_list):
            return True
        if any(k.arg == "metaclass" and last_name(k.value) != "ABCMeta" for k in node.keywords):
            return True
        return bool(node.bases or node.keywords) and method.startswith("_")

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        before = self.killed
        names = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        self._scopes.append(Scope("comprehension", names))
        self.each([first.target, *first.ifs])
        for generator in others:
            self.each([generator.iter, generator.target, *generator.ifs])
        self.each([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        self._scopes.pop()
        self.killed = before

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    # --- attributes, calls, text -------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load) and self.killed is not None:
            option = _option_of_the_shell(node)
            if option is not None:
                self.uses.store(option, self._now())
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
        name = output_name(node)
        if name is not None and isinstance(node.ctx, ast.Load) and self._resolve("Out") is None:
            self.load(name)
            return
        self.visit(node.value)
        self.visit(node.slice)
        chain = self._chain(node.value) if not isinstance(node.ctx, ast.Load) else None
        if chain is not None and len(chain) > 1 and self.killed is not None:
            self.uses.store(chain, self._now())

    def _globals_item(self, node: ast.Subscript) -> bool:
        """`globals()["x"]` is `x`."""
        if not (is_globals_call(node.value) and self._resolve("globals") is None):
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

    def visit_Expr(self, node: ast.Expr) -> None:
        self.visit(node.value)
        if isinstance(node.value, ast.Call) and self.killed is not None and as_magic(node.value) is None:
            chain = self._chain(node.value.func)
            if chain is not None and looks_like_setter(chain):
                given = [*node.value.args, *(keyword.value for keyword in node.value.keywords)]
                self.uses.setters.append((chain, tuple(filter(None, map(_root_name, given))), self._now()))

    def _decorated(self, decorators: list[ast.expr]) -> None:
        self.each(decorators)
        for decorator in decorators:
            chain = self._chain(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if self.killed is not None and chain is not None and registers(chain):
                self.uses.setters.append((chain, (), self._now()))

    def visit_Call(self, node: ast.Call) -> None:
        magic = as_magic(node)
        if magic is not None:
            self._magic(magic)
            return
        if self._known_call(node):
            return
        self.visit(node.func)
        self.each([*node.args, *(k.value for k in node.keywords)])
        method = last_name(node.func)
        if method == "aes" or (method in _WHOLE_FORMULAS and isinstance(node.func, ast.Name)):
            self._text(method, [*node.args, *(k.value for k in node.keywords)])
        elif method in TEXT_METHODS and isinstance(node.func, ast.Attribute):
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
            ) if is_globals_call(owner):
                self.uses.load(name, self._now())
                self.each(others)
                return True
            case ast.Call(func=ast.Attribute(value=owner, attr="update")) if is_globals_call(owner):
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
            script = call.body if call.form == "cell" else ""
            for word in re.split(r"[\s'\"`(),;|<>&=]+", f"{text}\n{script}"):
                remember_literal(self.uses, word)
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


def _root_name(node: ast.expr) -> str | None:
    """The name at the root of an argument: `a` of `a.b[0]`."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _option_of_the_shell(node: ast.Attribute) -> Chain | None:
    """The path of `get_ipython().a.b` where that is assigned: set-up of the shell."""
    parts: list[str] = []
    place: ast.expr = node
    while isinstance(place, (ast.Attribute, ast.Subscript)):
        if isinstance(place, ast.Attribute):
            parts.append(place.attr)
        place = place.value
    if isinstance(place, ast.Call) and isinstance(place.func, ast.Name) and place.func.id == "get_ipython":
        return ("@IPython", "get_ipython()", *reversed(parts))
    return None
