"""Where inside a value an object is: `x['conn'].session[3]`, for people who have to change it."""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Iterator
from typing import Any

from durable_nb._ident import ident
from durable_nb.snapshot._memory import is_array

_LIMIT = 200_000
"""Objects looked at before the search gives up and names only the variable."""


def find_path(name: str, value: Any, target: Any) -> str:
    """The shortest way from the variable to the target object; the variable's name when there is none to see."""
    if value is target:
        return name
    seen = {ident(value)}
    queue: collections.deque[tuple[str, Any]] = collections.deque([(name, value)])
    while queue and len(seen) < _LIMIT:
        path, holder = queue.popleft()
        try:
            for step, part in _parts(holder):
                if part is target:
                    return path + step
                if ident(part) not in seen and not isinstance(part, (str, bytes, int, float, type, types.ModuleType)):
                    seen.add(ident(part))
                    queue.append((path + step, part))
        except Exception:  # noqa: BLE001,S112 - a hostile container only costs detail in a message
            continue
    return name


def _parts(holder: Any) -> Iterator[tuple[str, Any]]:  # noqa: C901 - one row per type
    if isinstance(holder, dict):
        for key, part in list(holder.items()):
            yield f"[{_short(key)}]", part
            yield f".keys() at {_short(key)}", key
    elif isinstance(holder, (list, tuple, collections.deque)):
        for index, part in enumerate(list(holder)):
            yield f"[{index}]", part
    elif isinstance(holder, (set, frozenset)):
        for part in list(holder):
            yield f" (member {_short(part)})", part
    elif isinstance(holder, functools.partial):
        yield ".func", holder.func
        yield ".args", holder.args
        yield ".keywords", holder.keywords
    elif isinstance(holder, types.MethodType):
        yield ".__self__", holder.__self__
        yield ".__func__", holder.__func__
    elif isinstance(holder, types.FunctionType):
        for variable, cell in zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=False):
            if cell_filled(cell):
                yield f" (closure variable {variable})", cell.cell_contents
        yield ".__defaults__", holder.__defaults__
        yield ".__kwdefaults__", holder.__kwdefaults__
    elif is_array(holder) and holder.dtype == object:
        for index, part in enumerate(holder.reshape(-1).tolist()):
            yield f".flat[{index}]", part
    yield from _attributes(holder)


def cell_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _attributes(holder: Any) -> Iterator[tuple[str, Any]]:
    attributes = getattr(holder, "__dict__", None)
    if isinstance(attributes, dict):
        for key, part in list(attributes.items()):
            yield f".{key}", part
    for base in type(holder).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for key in (slots,) if isinstance(slots, str) else slots:
            if isinstance(key, str) and hasattr(holder, key):
                yield f".{key}", getattr(holder, key)


def _short(key: Any) -> str:
    plain = isinstance(key, (str, bytes, int, float, bool, tuple, type(None)))
    text = repr(key) if plain else f"<{type(key).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."
