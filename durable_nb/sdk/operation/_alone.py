"""Whether a function of a batch does anything with what it is given: told from its code, without running it.

A branch whose function never looks at its context asks for no durable operation: all of it can run elsewhere. Where
the code does not tell (a callable without Python code, `*args`, `locals()`), the answer is that it may.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

PASSES = "_durable_passes_to"
"""The attribute of a wrapper of ours that names the function to which it passes its arguments, in their order."""

_LOOKS_AT_ALL = frozenset({"locals", "vars", "eval", "exec", "globals", "_getframe", "currentframe"})


def uses(func: Callable[..., Any], position: int) -> bool:
    """Whether `func` may use its argument number `position`, from 0."""
    inner = getattr(func, PASSES, None)
    if inner is not None:
        return uses(inner, position)
    if isinstance(func, functools.partial):
        return uses(func.func, position + len(func.args))
    if inspect.ismethod(func):
        return uses(func.__func__, position + 1)
    if not inspect.isfunction(func):
        call = vars(type(func)).get("__call__")
        return not inspect.isfunction(call) or uses(call, position + 1)
    code = func.__code__
    return position >= code.co_argcount or _mentions(code, code.co_varnames[position])


def _mentions(code: types.CodeType, name: str) -> bool:
    if name in code.co_cellvars or _LOOKS_AT_ALL & set(code.co_names):
        return True
    for instruction in dis.get_instructions(code):
        # One instruction may load two variables: then its argument is a pair of names.
        named = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        if name in named and "FAST" in instruction.opname:
            return True
    return False


__all__ = ["PASSES", "uses"]
