"""What an iterator, a generator or a file still holds: objects through which a cell may change what it will give.

A stream cannot be stored, so it is made again by running its cell; then it holds what that run made. A name that
shares an object with it must not be given back on its own, or the two would part. The interpreter knows what each
object refers to; definitions, modules and namespaces are left aside, since everything refers to them.
"""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._kinds import ATOMS, Kind, kind_of_type

_MOST = 10_000
"""Objects looked at per stream: a stream over more of them still links by those that come first."""

_ASIDE = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.FrameType)


def held_by(stream: Any, namespace: dict[str, Any]) -> Iterator[Any]:
    """The mutable objects that a stream reaches."""
    seen: set[int] = {ident(stream), ident(namespace)}
    pending: list[Any] = gc.get_referents(stream)
    while pending and len(seen) < _MOST:
        value = pending.pop()
        kind = type(value)
        if kind in ATOMS or ident(value) in seen or isinstance(value, _ASIDE):
            continue
        seen.add(ident(value))
        if kind is types.FunctionType:
            pending.extend(value.__closure__ or ())
            continue
        if kind is dict and "__builtins__" in value:
            continue  # the globals of some module
        if kind_of_type(kind) in (Kind.MUTABLE, Kind.STREAM):
            yield value
        pending.extend(gc.get_referents(value))
