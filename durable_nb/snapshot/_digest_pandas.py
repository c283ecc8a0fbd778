"""Content of pandas objects, column by column: how columns are packed into blocks is an accident."""

from __future__ import annotations

import sys
from typing import Any

from durable_nb.snapshot._digest import Encoder, NotCanonical, register
from durable_nb.snapshot._digest_rules import array_content, dtype
from durable_nb.snapshot._memory import is_array


def _frame(self: Encoder, value: Any) -> None:
    if self.met(value):
        return
    _plain_class(value, ("pandas.DataFrame", "pandas.core.frame.DataFrame"))
    self.raw(b"\x30")
    self.encode(value.columns)
    self.encode(value.index)
    manager = value._mgr
    self.count(b"n", len(value.columns))
    for position in range(len(value.columns)):
        _column(self, manager.iget_values(position))
    _extras(self, value)


def _series(self: Encoder, value: Any) -> None:
    if self.met(value):
        return
    _plain_class(value, ("pandas.Series", "pandas.core.series.Series"))
    self.raw(b"\x31")
    self.encode(value.name)
    self.encode(value.index)
    _column(self, value._values)
    _extras(self, value)


def _extras(self: Encoder, value: Any) -> None:
    self.encode(dict(value.attrs))
    self.encode(value.flags.allows_duplicate_labels)
    others = {key: item for key, item in vars(value).items() if key not in _KNOWN}
    self.encode(others)


_KNOWN = frozenset({"_mgr", "_item_cache", "_attrs", "_flags", "_name", "_is_copy", "_cacher", "_metadata", "_typ"})


def _plain_class(value: Any, names: tuple[str, ...]) -> None:
    kind = type(value)
    if f"{kind.__module__}.{kind.__qualname__}" not in names:
        raise NotCanonical(kind.__qualname__)


def _index(self: Encoder, value: Any) -> None:
    if self.met(value):
        return
    pandas: Any = sys.modules["pandas"]
    self.raw(b"\x32")
    self.text(type(value).__name__)
    if type(value) is pandas.RangeIndex:
        self.encode((value.start, value.stop, value.step, value.name))
    elif type(value) is pandas.MultiIndex:
        self.encode(tuple(value.names))
        for level, codes in zip(value.levels, value.codes, strict=True):
            self.encode(level)
            _plain_array(self, codes)
    else:
        self.encode(value.name)
        self.encode(getattr(value, "freqstr", None))
        _column(self, value._data)


def _column(self: Encoder, values: Any) -> None:
    if is_array(values):
        _plain_array(self, values)
    else:
        self.encode(values)


def _plain_array(self: Encoder, values: Any) -> None:
    """Values only: pandas hands out arrays read-only, and lays them out as it likes."""
    numpy: Any = sys.modules["numpy"]
    self.raw(b"\x33")
    dtype(self, values.dtype)
    self.encode(tuple(map(int, values.shape)))
    if values.dtype == object:
        self.sequence(values.ravel().tolist())
        return
    array_content(self, values if values.flags.c_contiguous else numpy.ascontiguousarray(values))


def _extension(self: Encoder, value: Any) -> None:
    """The extension arrays that pandas itself defines; others have no known canonical content."""
    if self.met(value):
        return
    name = type(value).__name__
    if type(value).__module__.partition(".")[0] != "pandas":
        raise NotCanonical(name)
    self.raw(b"\x34")
    self.text(name)
    self.text(str(value.dtype))
    if hasattr(value, "_mask") and hasattr(value, "_data"):
        hidden = value._data.copy()
        hidden[value._mask] = 0
        _plain_array(self, hidden)
        _plain_array(self, value._mask)
    elif name == "Categorical":
        self.encode(value.categories)
        self.encode(bool(value.ordered))
        _plain_array(self, value.codes)
    elif is_array(getattr(value, "_ndarray", None)):
        self.encode(getattr(value, "freqstr", None))
        _plain_array(self, value._ndarray)
    elif name == "IntervalArray":
        self.encode(value.closed)
        _column(self, value._left)
        _column(self, value._right)
    else:
        raise NotCanonical(name)


def _timestamp(self: Encoder, value: Any) -> None:
    self.raw(b"\x35")
    self.text(type(value).__name__)
    self.encode(int(value._value if hasattr(value, "_value") else value.value))
    self.encode(value.unit)
    self.encode(getattr(value, "tzinfo", None))
    self.encode(getattr(value, "fold", 0))


def _spelled(self: Encoder, value: Any) -> None:
    self.raw(b"\x36")
    self.text(type(value).__name__)
    self.text(repr(value))


for _name, _writer in {
    "DataFrame": _frame,
    "Series": _series,
    "Index": _index,
    "RangeIndex": _index,
    "MultiIndex": _index,
    "DatetimeIndex": _index,
    "TimedeltaIndex": _index,
    "PeriodIndex": _index,
    "CategoricalIndex": _index,
    "IntervalIndex": _index,
    "Timestamp": _timestamp,
    "Timedelta": _timestamp,
    "Period": _spelled,
    "Categorical": _extension,
    "StringDtype": _spelled,
    "CategoricalDtype": _spelled,
    "api.typing.NaTType": _spelled,
    "api.typing.NAType": _spelled,
    "_libs.missing.NAType": _spelled,
    "_libs.tslibs.nattype.NaTType": _spelled,
    "_libs.tslibs.timestamps.Timestamp": _timestamp,
    "_libs.tslibs.timedeltas.Timedelta": _timestamp,
    "core.frame.DataFrame": _frame,
    "core.series.Series": _series,
    "core.indexes.base.Index": _index,
    "core.indexes.range.RangeIndex": _index,
    "core.indexes.multi.MultiIndex": _index,
    "core.indexes.datetimes.DatetimeIndex": _index,
    "core.indexes.timedeltas.TimedeltaIndex": _index,
    "core.indexes.period.PeriodIndex": _index,
    "core.indexes.category.CategoricalIndex": _index,
    "core.indexes.interval.IntervalIndex": _index,
    **{
        f"{place}.{kind}": _extension
        for place in ("arrays", "core.arrays")
        for kind in (
            "StringArray",
            "IntegerArray",
            "FloatingArray",
            "BooleanArray",
            "DatetimeArray",
            "TimedeltaArray",
            "PeriodArray",
            "IntervalArray",
            "NumpyExtensionArray",
            "Categorical",
        )
    },
}.items():
    register(f"pandas.{_name}", _writer)
