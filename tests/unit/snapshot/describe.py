"""A description of an object graph that is equal exactly for graphs that behave alike."""

from __future__ import annotations

import collections
import functools
import struct
import types
from typing import Any

import numpy as np
import pandas as pd


def describe(values: dict[str, Any]) -> Any:
    """Types, content, order, sharing (also of memory) of everything that the values reach."""
    teller = _Teller()
    told = {name: teller.tell(value) for name, value in sorted(values.items())}
    return told, teller.memory()


class _Teller:
    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.keep: list[Any] = []
        self.arrays: list[Any] = []

    def tell(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (int, str, bytes, bool):
            return kind.__name__, value
        if kind is float:
            return "float", struct.pack("<d", value)
        if kind in (tuple, frozenset):
            # Whether two equal immutable objects are one is no part of the promise.
            return kind.__name__, tuple(map(self.tell, value))
        if isinstance(value, type):
            return "class", value.__qualname__
        if isinstance(value, types.ModuleType):
            return "module", value.__name__
        if id(value) in self.seen:
            return "again", self.seen[id(value)]
        self.seen[id(value)] = len(self.seen)
        self.keep.append(value)
        return kind.__qualname__, self.parts(value)

    def parts(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            self.arrays.append(value)
            if value.dtype == object:
                return value.shape, [self.tell(item) for item in value.ravel().tolist()]
            return value.shape, value.strides, value.dtype.str, value.flags.writeable, value.tobytes()
        if isinstance(value, (pd.DataFrame, pd.Series)):
            return value.to_json(), str(value.dtypes), list(map(str, value.index))
        if isinstance(value, dict):
            items = [(self.tell(key), self.tell(item)) for key, item in value.items()]
            return items, self.rest(value)
        if isinstance(value, (list, set, frozenset, collections.deque)):
            return [self.tell(item) for item in value], self.rest(value)
        if isinstance(value, types.FunctionType):
            cells = [self.tell(cell) for cell in value.__closure__ or ()]
            return value.__qualname__, value.__code__.co_code, cells, self.tell(value.__defaults__), self.rest(value)
        if isinstance(value, types.CellType):
            return self.tell(value.cell_contents)
        if isinstance(value, types.MethodType):
            return self.tell(value.__func__), self.tell(value.__self__)
        if isinstance(value, functools.partial):
            return self.tell(value.func), self.tell(value.args), self.tell(value.keywords)
        return self.rest(value)

    def rest(self, value: Any) -> Any:
        return [(name, self.tell(item)) for name, item in getattr(value, "__dict__", {}).items()]

    def memory(self) -> Any:
        """Which arrays overlap, and by how much they are apart."""
        found = []
        for i, left in enumerate(self.arrays):
            for j, right in enumerate(self.arrays[:i]):
                if np.may_share_memory(left, right):
                    apart = left.__array_interface__["data"][0] - right.__array_interface__["data"][0]
                    found.append((i, j, apart))
        return found
