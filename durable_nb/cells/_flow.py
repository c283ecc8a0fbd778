"""Which names are killed where: scopes and the flow of control of a cell. The theory is in `_scopes.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from durable_nb.cells._trees import children_of, is_docstring, join, keeps_errors, never_empty
from durable_nb.cells._uses import NAMESPACE_READERS, NOTHING, Killed, Uses


class Scope:
    """One scope around the code being walked. The module scope is not represented."""

    def __init__(self, kind: str, names: Iterable[str] = (), outer: Iterable[str] = ()) -> None:
        self.kind = kind
        self.names = set(names)
        self.declared_global = set(outer)
        self.modules: dict[str, str] = {}
        """Local names that an import in this scope binds, to the module."""


class Flow(ast.NodeVisitor):
    """The names and the flow of control; `_scopes.py` adds what binds, defines and calls."""

    def __init__(self) -> None:
        self.uses = Uses()
        self.killed: Killed | None = NOTHING
        self._scopes: list[Scope] = []
        self._loops: list[list[Killed | None]] = []
        self._later = False
        """True inside code that runs at an unknown time: nothing is killed there."""

    # --- names -------------------------------------------------------------------------------------------------------

    def _resolve(self, name: str) -> Scope | None:
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

    def _bind_in(self, scope: Scope | None, name: str) -> None:
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

    # --- flow --------------------------------------------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for position, node in enumerate(body):
            if position == 0 and is_docstring(node):
                continue
            self.visit(node)

    def visit(self, node: ast.AST) -> None:
        method = getattr(self, "visit_" + type(node).__name__, None)
        if method is not None:
            method(node)
        else:
            self.children(node)

    def children(self, node: ast.AST) -> None:
        for child in children_of(node):
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
        self.killed = join(self._branch(start, node.body), self._branch(start, node.orelse))

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        start = self.killed
        self.killed = join(self._branch(start, [node.body]), self._branch(start, [node.orelse]))

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
        if never_empty(node.iter):
            self.killed = join(after, *exits)
        else:
            self.killed = entry
        # `else` is left out by a `break`, so what it kills is not certain.
        self._maybe(node.orelse)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.visit_For(node)

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        entry = self.killed
        _, exits = self._loop_body(node.body)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self.killed = join(*exits) if endless else entry
        self._maybe(node.orelse)

    def _loop_body(self, body: Sequence[ast.stmt]) -> tuple[Killed | None, list[Killed | None]]:
        exits: list[Killed | None] = []
        self._loops.append(exits)
        self.each(body)
        self._loops.pop()
        return self.killed, exits

    def visit_Break(self, _node: ast.Break | ast.Continue) -> None:
        if self._loops:
            self._loops[-1].append(self.killed)
        self.killed = None if not self._later else self.killed

    def visit_Continue(self, node: ast.Continue) -> None:
        self.visit_Break(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.children(node)
        if not self._later:
            self.killed = None

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
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
        after = join(*outcomes)
        if node.finalbody:
            final = self._branch(entry, node.finalbody)
            after = None if final is None or after is None else after | (final - (entry or NOTHING))
        self.killed = after

    def visit_TryStar(self, node: ast.TryStar) -> None:
        self.visit_Try(node)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        swallows = False
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.visit(item.optional_vars)
            swallows = swallows or not keeps_errors(item.context_expr)
        entry = self.killed
        self.each(node.body)
        if swallows:
            self.killed = entry if entry is not None else self.killed

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self.visit_With(node)

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
        self.killed = join(*outcomes)

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
