"""Probes: code that looks at what a notebook left. Standard library only, so that a real kernel runs it from its file."""

from __future__ import annotations

import ast
from typing import Any


def probe_in(namespace: dict[str, Any], code: str) -> str:
    """Run probe code in the namespace of a notebook: the `repr` of its last expression, or its error."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    try:
        if tree.body:
            exec(compile(tree, "<probe>", "exec"), namespace)
        if last is None:
            return "done"
        return repr(eval(compile(ast.Expression(last.value), "<probe>", "eval"), namespace))
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
