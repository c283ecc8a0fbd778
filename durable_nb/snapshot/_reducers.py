"""Reducers for values whose ordinary pickle loses something: cells of closures, memory of arrays, owners of views.

Each takes the pickler of the pass and the value, and returns what `__reduce__` would. `RULES` is looked up by exact
type, `NAMED_RULES` by the full name of a type or of one of its bases, so that no package is imported for its rule.
"""

from __future__ import annotations

import array as arrays
import ast
import copyreg
import ctypes
import functools
import gc
import itertools
import logging
import pickle
import sys
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durable_nb._ident import ident
from durable_nb.snapshot import _definitions as definitions_module
from durable_nb.snapshot import _memory, _rebuild
from durable_nb.snapshot._blobs import Map
from durable_nb.snapshot._definitions import function_state, importable
from durable_nb.snapshot._digest import digest_text
from durable_nb.snapshot._kinds import full_name

if TYPE_CHECKING:
    from durable_nb.snapshot._pickle import GroupPickler


class CannotStore(Exception):  # noqa: N818 - a fact about a value, which never reaches the user as an exception
    """Raised inside a reducer; the argument says why in words for the user."""


class Token:
    """Stands for something that the loader knows; pickled as a persistent id."""

    __slots__ = ("pid",)

    def __init__(self, pid: str) -> None:
        self.pid = pid


Rule = Callable[["GroupPickler", Any], Any]


def kind_of_reference(value: Any) -> Any:
    """`weakref.ref` for a plain reference without a callback."""
    plain = type(value) is weakref.ref and getattr(value, "__callback__", None) is None
    return weakref.ref if plain else None


# --- code ------------------------------------------------------------------------------------------------------------


def _reduce_function(self: GroupPickler, value: types.FunctionType) -> Any:
    if value is not self.root and self._linked(value, importable):
        return NotImplemented
    arguments = (value.__code__, self._globals(value.__globals__), value.__name__, value.__closure__)
    return _rebuild.function, arguments, function_state(value), None, None, _rebuild.dress_function


def _reduce_cell(self: GroupPickler, value: types.CellType) -> Any:
    try:
        contents: tuple[Any, ...] = (value.cell_contents,)
    except ValueError:
        contents = ()
    return _rebuild.empty_cell, (), contents, None, None, _rebuild.fill_cell


def _reduce_code(self: GroupPickler, value: types.CodeType) -> Any:
    filename: Any = value.co_filename
    source = definitions_module.source_of(filename)
    if source is not None:
        name = digest_text(source)
        self.sources[name] = source
        filename = Token(f"f:{name}")
    head = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_nlocals)
    body = (value.co_stacksize, value.co_flags, value.co_code, value.co_consts, value.co_names, value.co_varnames)
    tail = (value.co_name, value.co_qualname, value.co_firstlineno, value.co_linetable, value.co_exceptiontable)
    return _rebuild.code, (*head, *body, filename, *tail, value.co_freevars, value.co_cellvars)


def _reduce_method(self: GroupPickler, value: types.MethodType) -> Any:
    return _rebuild.method, (value.__func__, value.__self__)


def _reduce_cached(self: GroupPickler, value: Any) -> Any:
    if importable(value):
        return value.__reduce__()
    settings = value.cache_parameters()
    return _rebuild.cached, (value.__wrapped__, settings["maxsize"], settings["typed"], vars(value))


def _reduce_builtin(self: GroupPickler, value: Any) -> Any:
    owner = value.__self__
    if owner is not None and not isinstance(owner, types.ModuleType):
        return getattr, (owner, value.__name__)
    self.modules.add(str(value.__module__).partition(".")[0])
    return NotImplemented


def _reduce_logger(self: GroupPickler, value: Any) -> Any:
    self.references.add(ident(value))
    self.modules.add("logging")
    return (logging.getLogger, (value.name,)) if value.name != "root" else (logging.getLogger, ())


def _reduce_exception(self: GroupPickler, value: BaseException) -> Any:
    if value.__traceback__ is not None:
        raise CannotStore("its traceback holds the frames of a call that is over")
    made = list(self._reduce_generic(value))
    links = (value.__cause__, value.__context__, value.__suppress_context__)
    if links != (None, None, False):
        state = made[2] if len(made) > 2 else None
        return _rebuild.exception, (made[0], made[1]), (state, *links), None, None, _rebuild.chain_exception
    return tuple(made)


def _reduce_dynamic_module(self: GroupPickler, value: types.ModuleType) -> Any:
    raise CannotStore("it is a module made at run time")


# --- links -----------------------------------------------------------------------------------------------------------


def _reduce_dict_view(self: GroupPickler, value: Any) -> Any:
    which = type(value).__name__.rpartition("_")[2]
    owners = [owner for owner in gc.get_referents(value) if isinstance(owner, dict)]
    if len(owners) != 1:
        raise CannotStore("its dict cannot be found")
    return _rebuild.dict_view, (which, owners[0])


def _reduce_proxy(self: GroupPickler, value: Any) -> Any:
    owners = gc.get_referents(value)
    if len(owners) != 1:
        raise CannotStore("its mapping cannot be found")
    return _rebuild.proxy, (owners[0],)


def _reduce_weak(self: GroupPickler, value: Any) -> Any:
    target = value()
    if target is None:
        raise CannotStore("what it referred to is gone")
    return _rebuild.reference, (_weakly(self, target),)


def _weakly(self: GroupPickler, target: Any) -> Any:
    """The target of a weak reference; while scanning only a stand-in, to see whether something else holds it."""
    if self.shared is not None:
        return target
    self.weak.append(target)
    return Token(f"w:{ident(target)}")


def _reduce_weak_values(self: GroupPickler, value: Any) -> Any:
    items = list(value.items())
    return _rebuild.weak_values, ([(key, _weakly(self, target)) for key, target in items],)


def _reduce_weak_keys(self: GroupPickler, value: Any) -> Any:
    items = list(value.items())
    return _rebuild.weak_keys, ([(_weakly(self, target), kept) for target, kept in items],)


def _reduce_weak_set(self: GroupPickler, value: Any) -> Any:
    items = list(value)
    return _rebuild.weak_set, ([_weakly(self, target) for target in items],)


# --- memory ----------------------------------------------------------------------------------------------------------


def _reduce_array(self: GroupPickler, value: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    expected, self._expected_now = self._expected_now == ident(value), 0
    self.modules.add("numpy")
    if type(value) is not numpy.ndarray:
        return _reduce_array_subclass(self, value)
    owner = _memory.owner_of(value)
    self.owners.setdefault(ident(owner), set()).add(ident(value))
    block = None if owner is value else _memory.block_of(owner)
    offset = None if block is None else _memory.offset_in(value, block)
    if owner is not value:
        if block is None or offset is None:
            self.foreign.append((value, owner))
        else:
            (self.lent if not expected else self.shadowed)[ident(owner)] = owner
            if self.shared is None:
                return _look_at_view(self, value, block, offset, expected)
            if _as_view(self, value, block, expected):
                arguments = (owner, value.dtype, value.shape, value.strides, offset, bool(value.flags.writeable))
                return _rebuild.view, arguments
    return _alone(value)


def _as_view(self: GroupPickler, value: Any, block: _memory.Block, expected: bool) -> bool:
    """Whether to write the owner and the place in it, rather than the values."""
    if self.shared is not None and ident(block.owner) in self.shared:
        return True
    contiguous = _memory.layout(value) in "CF"
    return not contiguous and (not expected or 2 * value.nbytes >= block.nbytes)


def _look_at_view(self: GroupPickler, value: Any, block: _memory.Block, offset: int, expected: bool) -> Any:
    """A view as a scan writes it: its place, and its values or, when that is less, the owner's memory once.

    The owner is not visited: that another object of the group *is* the owner is for the group to show.
    """
    number = self.blocks.setdefault(ident(block.owner), len(self.blocks))
    place = (Token(f"b:{number}"), value.dtype, value.shape, value.strides, offset, bool(value.flags.writeable))
    if value.dtype.hasobject or (expected and not _as_view(self, value, block, expected)):
        return _rebuild.view, (*place, _alone(value)[1])
    if number in self.blocks_written:
        return _rebuild.view, place
    spent = self._spent[ident(block.owner)] = self._spent.get(ident(block.owner), 0) + int(value.nbytes)
    if _memory.layout(value) in "CF" and 4 * spent < block.nbytes:
        return _rebuild.view, (*place, pickle.PickleBuffer(_memory.flat_bytes(value)))
    self.blocks_written.add(number)
    return _rebuild.view, (*place, pickle.PickleBuffer(_memory.block_bytes(block)))


def _alone(value: Any) -> Any:
    order = "F" if _memory.layout(value) == "F" else "C"
    writeable = bool(value.flags.writeable)
    if value.dtype.hasobject:
        if value.dtype != object:
            raise CannotStore("a record array that holds Python objects")
        items = value.ravel(order=order).tolist()
        return _rebuild.object_array, (items, value.dtype, value.shape, order, writeable)
    if _memory.layout(value) not in "CF":
        value = value.copy(order="C")
    return _rebuild.array, (pickle.PickleBuffer(_memory.flat_bytes(value)), value.dtype, value.shape, order, writeable)


def _reduce_array_subclass(self: GroupPickler, value: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    if full_name(type(value)) == "numpy.matrix" or _is_plain_subclass(type(value)):
        base = numpy.ndarray.view(value, numpy.ndarray)
        # The value is what uses the memory: the plain view of it is gone when the pass ends.
        self.owners.setdefault(ident(_memory.owner_of(value)), set()).add(ident(value))
        return _rebuild.subclass_array, (base, type(value), dict(getattr(value, "__dict__", {})))
    owner = _memory.owner_of(value)
    if owner is not value:
        self.foreign.append((value, owner))
    return self._reduce_generic(value)


def _is_plain_subclass(kind: type) -> bool:
    numpy: Any = sys.modules["numpy"]
    return kind.__reduce_ex__ is numpy.ndarray.__reduce_ex__ and kind.__reduce__ is numpy.ndarray.__reduce__


def _reduce_map(self: GroupPickler, value: Any) -> Any:
    return _rebuild.memory, (pickle.PickleBuffer(value),)


def _reduce_memoryview(self: GroupPickler, value: memoryview) -> Any:
    owner: Any = value.obj
    plain = isinstance(owner, (bytes, bytearray, arrays.array))
    if not value.c_contiguous or not (plain or (_memory.is_array(owner) and owner.flags.c_contiguous)):
        raise CannotStore("only contiguous views of bytes, bytearrays and arrays can be restored")
    offset = _address(value) - _address(memoryview(owner))
    arguments = (owner, value.format, tuple(value.shape or ()), offset, value.nbytes, value.readonly)
    return _rebuild.memory_view, arguments


def _address(view: memoryview) -> int:
    if view.nbytes == 0:
        return 0
    if view.readonly:
        import numpy as np

        address: int = np.frombuffer(view.cast("B"), dtype=np.uint8).__array_interface__["data"][0]
        return address
    return ctypes.addressof(ctypes.c_char.from_buffer(view.cast("B")))


# --- pandas: parts that are shared copy-on-write ---------------------------------------------------------------------


def _expect(self: GroupPickler, value: Any) -> None:
    if value is not None:
        self._expected[ident(value)] += 1


def _reduce_frame(self: GroupPickler, value: Any) -> Any:
    if copy_on_write():
        manager = value._mgr
        for axis in manager.axes:
            _expect(self, axis)
        for block in manager.blocks:
            _expect(self, block.values)
    made = list(self._reduce_generic(value))
    state = made[2]
    if isinstance(state, dict) and "_metadata" in state:
        # The class's own list, which every frame of the session would be linked by.
        made[2] = {**state, "_metadata": list(state["_metadata"])}
    return tuple(made)


def _reduce_figure(self: GroupPickler, value: Any) -> Any:
    """A figure without its window: whether it is open is what its pseudo-name says (see `_figures`)."""
    made = list(self._reduce_generic(value))
    if isinstance(made[2], dict):
        made[2] = {key: part for key, part in made[2].items() if key != "_restore_to_pylab"}
    return tuple(made)


def _reduce_plotly(self: GroupPickler, value: Any) -> Any:
    """A figure's own pickle writes arrays as text and sorts the keys: here it is made from what it holds."""
    self.custom.setdefault(type(value))
    self.modules.add("plotly")
    noted = {name: part for name, part in vars(value).items() if name.startswith(("_px_", "_grid_"))}
    frames = [frame.to_plotly_json() for frame in value.frames]
    return _rebuild.plotly_figure, (type(value), value._data, value._layout, frames, noted)


def _reduce_image(self: GroupPickler, value: Any) -> Any:
    """Pillow writes the pixels and what belongs to them, and leaves out how a picture was last saved or read."""
    made = self._reduce_generic(value)
    rest = {name: part for name, part in vars(value).items() if name.lstrip("_") not in _PIXELS}
    return *made[:2], (made[2], rest), None, None, _rebuild.dress_image


_PIXELS = frozenset({"im", "mode", "size", "info", "palette", "fp", "map"})


def _reduce_tensor(self: GroupPickler, value: Any) -> Any:
    """Tensors pickle their storage each on its own: two that share one would come back apart."""
    address = value.untyped_storage().data_ptr()
    if address:
        self.owners.setdefault(address, set()).add(ident(value))
        self.lent[address] = value
        self.tensors[address] = value
    return self._reduce_generic(value)


def _reduce_index(self: GroupPickler, value: Any) -> Any:
    self._expected_now = 0
    for part in (getattr(value, "_data", None), *getattr(value, "_levels", ()), *getattr(value, "_codes", ())):
        _expect(self, part)
    return self._reduce_generic(value)


def _reduce_extension_array(self: GroupPickler, value: Any) -> Any:
    expected, self._expected_now = self._expected_now == ident(value), 0
    if expected:
        for part in vars(value).values() if hasattr(value, "__dict__") else ():
            _expect(self, part)
        _expect(self, getattr(value, "_ndarray", None) if "_ndarray" not in getattr(value, "__dict__", {}) else None)
    return self._reduce_generic(value)


def _reduce_categorical_dtype(self: GroupPickler, value: Any) -> Any:
    _expect(self, value.categories)
    return self._reduce_generic(value)


def copy_on_write() -> bool:
    """True when pandas keeps frames apart that share memory (always from version 3 on)."""
    pandas: Any = sys.modules["pandas"]
    if int(pandas.__version__.partition(".")[0]) >= 3:
        return True
    return pandas.get_option("mode.copy_on_write") is True


def _reduce_bunch(self: GroupPickler, value: Any) -> Any:  # noqa: ARG001 - the signature of a rule
    """Its own `__setstate__` drops the attributes, for the sake of pickles older than scikit-learn 0.16."""
    entries = iter(dict.items(value))
    return copyreg.__newobj__, (type(value),), dict(vars(value)), None, entries, _rebuild.dress_instance  # type: ignore[attr-defined]


def _reduce_discrete_results(self: GroupPickler, value: Any) -> Any:
    """Its `__getstate__` sets settings of the live object to None, for pickles that cannot hold functions."""
    if "DiscreteResults" not in getattr(type(value).__getstate__, "__qualname__", ""):
        return self._reduce_generic(value)
    return copyreg.__newobj__, (type(value),), vars(value)  # type: ignore[attr-defined]


def _reduce_count(self: GroupPickler, value: Any) -> Any:  # noqa: ARG001 - the signature of a rule
    """Where a counter stands shows in its repr, without using it."""
    try:
        numbers = ast.literal_eval(repr(value).removeprefix("count"))
    except (ValueError, SyntaxError):
        raise CannotStore("it counts by something else than numbers") from None
    return _rebuild.counter, numbers if isinstance(numbers, tuple) else (numbers,)


RULES: dict[type, Rule] = {
    itertools.count: _reduce_count,
    types.FunctionType: _reduce_function,
    types.CellType: _reduce_cell,
    types.CodeType: _reduce_code,
    types.MethodType: _reduce_method,
    types.BuiltinFunctionType: _reduce_builtin,
    types.ModuleType: _reduce_dynamic_module,
    type(functools.lru_cache(lambda: None)): _reduce_cached,
    type({}.keys()): _reduce_dict_view,
    type({}.values()): _reduce_dict_view,
    type({}.items()): _reduce_dict_view,
    types.MappingProxyType: _reduce_proxy,
    weakref.ref: _reduce_weak,
    weakref.WeakValueDictionary: _reduce_weak_values,
    weakref.WeakKeyDictionary: _reduce_weak_keys,
    weakref.WeakSet: _reduce_weak_set,
    memoryview: _reduce_memoryview,
    Map: _reduce_map,
}

NAMED_RULES: dict[str, Rule] = {
    "numpy.ndarray": _reduce_array,
    "pandas.core.generic.NDFrame": _reduce_frame,
    "pandas.Index": _reduce_index,
    "pandas.core.indexes.base.Index": _reduce_index,
    "pandas.api.extensions.ExtensionArray": _reduce_extension_array,
    "pandas.core.arrays.base.ExtensionArray": _reduce_extension_array,
    "pandas.CategoricalDtype": _reduce_categorical_dtype,
    "pandas.core.dtypes.dtypes.CategoricalDtype": _reduce_categorical_dtype,
    "logging.Logger": _reduce_logger,
    "matplotlib.figure.Figure": _reduce_figure,
    "PIL.Image.Image": _reduce_image,
    "plotly.basedatatypes.BaseFigure": _reduce_plotly,
    "sklearn.utils._bunch.Bunch": _reduce_bunch,
    "statsmodels.discrete.discrete_model.DiscreteResults": _reduce_discrete_results,
    "torch.Tensor": _reduce_tensor,
    "builtins.BaseException": _reduce_exception,
}
