"""One pass over the values of a group: the pickler that scans, saves and checks.

Theory. CPython's C pickler visits every object of a graph and asks `persistent_id` about each, also about those it
has met before. That one question does all the looking: it collects the identities of mutable objects (what links names
together), turns definitions and modules into names, and stands in for what cannot be stored, so that one generator in
a dict does not hide the rest of the dict. `reducer_override` then replaces the reducers that lose something: closures
keep their cells, arrays keep their memory, dict views keep their dict, weak references keep their target.

A scan writes to a hash, a save to blobs; the bytes are the same. Within one process, equal bytes of the same group
mean an unchanged group: this, not a comparison of values, is how in-place change is found.

Identities are collected with a reference to the object, for the length of the pass: objects that a reducer makes on
the fly (`__getstate__` returning a new dict) would otherwise leave ids behind that later objects inherit. What only the
pass itself refers to when it ends is dropped.
"""

from __future__ import annotations

import array as arrays
import ctypes
import functools
import gc
import pickle
import sys
import types
import weakref
from collections import ChainMap, Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloudpickle import cloudpickle

from durable_nb.snapshot import _definitions as definitions_module
from durable_nb.snapshot import _memory, _rebuild, _sets
from durable_nb.snapshot._blobs import Map
from durable_nb.snapshot._definitions import Definitions, class_parts, function_state, has_abc_registrations, importable
from durable_nb.snapshot._digest import digest_text
from durable_nb.snapshot._kinds import ATOMS, Kind, find_sentinel, full_name, kind_of_type, module_instances

PROTOCOL = 5

REGISTERED = "\0registered"
"""Key of a class's state under which its virtual subclasses travel."""

_TABLE: ChainMap[Any, Any] = cloudpickle.Pickler.dispatch_table


class Token:
    """Stands for something that the loader knows; pickled as a persistent id."""

    __slots__ = ("pid",)

    def __init__(self, pid: str) -> None:
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Obstacle:
    """An object that cannot be stored, as the pass met it."""

    target: Any
    type_name: str
    why: str
    kind: Kind


class CannotStore(Exception):
    """Raised inside a reducer; the argument says why in words for the user."""


class Interrupted(BaseException):
    """Ends a pass on another thread."""


class GroupPickler(pickle.Pickler):
    """Pickles the values of one group, one `dump` per name, with a shared memo.

    Args:
        file: what the bytes are written to.
        definitions: the classes and functions of the notebook.
        buffer_callback: receives each out-of-band buffer.
        shared: ids of memory owners that several arrays use, as a scan counted them; None while scanning.
        root: the class or function to write by value (for the table of definitions).
        strict: raise at the first obstacle instead of standing in for it.
        spared: types whose instances are left out and stand for themselves (`standing`).
    """

    dispatch_table = _TABLE

    def __init__(
        self,
        file: Any,
        definitions: Definitions,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None,
        shared: frozenset[int] | None = None,
        root: Any = None,
        strict: bool = False,
        spared: frozenset[type] = frozenset(),
    ) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=buffer_callback)
        self.definitions = definitions
        self.namespace = definitions.namespace
        self.shared = shared
        self.root = root
        self.strict = strict
        self.current: Any = None
        self.seen: dict[int, Any] = {}
        self.shadowed: dict[int, Any] = {}
        self.obstacles: dict[int, Obstacle] = {}
        self.functions: dict[int, Any] = {}
        self.classes: dict[int, type] = {}
        self.definition_ids: dict[str, Any] = {}
        self.modules: set[str] = set()
        self.sources: dict[str, str] = {}
        self.weak: list[Any] = []
        self.owners: dict[int, set[int]] = {}
        self.foreign: list[tuple[Any, Any]] = []
        self.custom: dict[type, None] = {}
        self._sorts: dict[type, Kind] = dict.fromkeys(ATOMS, Kind.ATOM)
        self._sorts.update(dict.fromkeys(spared, Kind.SPARED))
        self.standing: dict[str, Any] = {}
        # Plain functions, not bound methods: a pickler in a reference cycle would hold the user's memory until
        # a collection, and a collection that meets exported buffers in a cycle can crash the interpreter.
        self._rules: dict[type, Callable[[GroupPickler, Any], Any]] = {}
        self._links: dict[int, tuple[Any, Any]] = {}
        self._expected: Counter[int] = Counter()
        self._expected_now = 0
        self._kept_sets: dict[int, Any] = {}
        self._spent: dict[int, int] = {}
        self.seen_classes: set[int] = set()
        """Classes whose state this pass has written."""
        self.references: set[int] = set()
        """Ids of objects written as names of importable things: they link nothing."""
        self._listed: dict[type, dict[int, tuple[str, Any]]] = {}

    def close(self) -> None:
        """Let go of everything the pass held, but for what it found."""
        self.clear_memo()
        for held in (self._links, self._kept_sets, self._listed, self.obstacles, self.standing):
            held.clear()
        self.current = self.root = None
        self.foreign, self.weak, self.seen, self.shadowed = [], [], {}, {}

    # --- the question about every object -----------------------------------------------------------------------

    def persistent_id(self, value: Any) -> Any:
        kind = type(value)
        if kind in ATOMS:
            return None
        sort = self._sorts.get(kind)
        if sort is None:
            sort = self._sorts[kind] = Kind.TOKEN if kind is Token else kind_of_type(kind)
        if sort is Kind.FROZEN:
            return self._set(value) if kind is frozenset else None
        if sort is Kind.MUTABLE:
            if self._expected and self._expected.get(id(value)):
                return self._shadow(value)
            self.seen[id(value)] = value
            if kind is dict:
                return "g" if value is self.namespace else None
            return self._set(value) if kind is set else None
        return self._unusual(value, sort)

    def _shadow(self, value: Any) -> None:
        """Part of a pandas object: shared copy-on-write, so that it links to plain arrays only."""
        self._expected[id(value)] -= 1
        self._expected_now = id(value)
        self.shadowed[id(value)] = value

    def _unusual(self, value: Any, sort: Kind) -> Any:
        if sort is Kind.TOKEN:
            return value.pid
        if sort is Kind.CLASS:
            return self._class(value)
        if sort is Kind.FUNCTION:
            return self._function(value)
        if sort is Kind.MODULE:
            return self._module(value)
        if sort is Kind.ENUM_MEMBER:
            return None
        if sort is Kind.SPARED:
            self.standing[f"y:{id(value)}"] = value
            return f"y:{id(value)}"
        if sort is Kind.LISTED:
            return self._listed_instance(value)
        self.seen[id(value)] = value
        if sort is Kind.WEAKREF:
            if kind_of_reference(value) is not weakref.ref:
                return self.obstruct(value, "only plain weak references can be restored", Kind.HANDLE)
            return None
        if value is sys.stdout or value is sys.stderr:
            return "o:stdout" if value is sys.stdout else "o:stderr"
        why = "using it up is part of the program's state" if sort is Kind.STREAM else "it stands for something outside"
        return self.obstruct(value, why, sort)

    def obstruct(self, value: Any, why: str, kind: Kind) -> str:
        """Note that a value cannot be stored; returns what stands in for it."""
        if self.strict:
            raise CannotStore(f"{full_name(type(value))}: {why}")
        self.obstacles.setdefault(id(value), Obstacle(value, full_name(type(value)), why, kind))
        return f"x:{full_name(type(value))}:{id(value)}"

    def _listed_instance(self, value: Any) -> Any:
        kind = type(value)
        if kind is object:
            place = self._linked(value, find_sentinel)
        else:
            if kind not in self._listed:
                self._listed[kind] = module_instances(kind)
            found = self._listed[kind].get(id(value))
            place = None if found is None else (kind.__module__, found[0])
        if place is None:
            self.seen[id(value)] = value
            return None
        self.modules.add(place[0].partition(".")[0])
        return f"q:{place[0]}:{place[1]}"

    # --- definitions -------------------------------------------------------------------------------------------

    def _linked(self, value: Any, make: Callable[[Any], Any]) -> Any:
        """`make(value)`, once per object and pass."""
        found = self._links.get(id(value))
        if found is None:
            found = self._links[id(value)] = (value, make(value))
        return found[1]

    def _class(self, value: type) -> Any:
        if value is self.root:
            return None
        if self._linked(value, importable):
            self.modules.add(str(value.__module__).partition(".")[0])
            return None
        self.classes[id(value)] = value
        name = self._linked_id(value)
        if id(value) in self.seen_classes:
            return f"d:{name}"
        bound = self.namespace.get(value.__qualname__) is value
        if self.root is not None or (bound and value is not self.current):
            return f"d:{name}"
        self.seen_classes.add(id(value))
        state, gone = self.definitions.class_state(value)
        if has_abc_registrations(value):
            import abc

            registered = [reference() for reference in abc._get_dump(value)[0]]  # type: ignore[attr-defined]
            state[REGISTERED] = sorted((cls for cls in registered if cls is not None), key=full_name)
        return ("c", name, state, gone) if state or gone else f"d:{name}"

    def _linked_id(self, value: Any) -> str:
        name = self.definitions.id_of(value)
        self.definition_ids[name] = value
        return name

    def _function(self, value: types.FunctionType) -> Any:
        if value is self.root:
            return None
        if self._linked(value, importable):
            self.modules.add(str(value.__module__).partition(".")[0])
            return None
        self.functions[id(value)] = value
        if self.definitions.is_plain_function(value):
            return f"d:{self._linked_id(value)}"
        owner = self.definitions.owner_of(value)
        if owner is not None and owner[0] is not self.root and not value.__dict__:
            self.classes[id(owner[0])] = owner[0]
            return f"a:{self._linked_id(owner[0])}:{owner[1]}"
        self.seen[id(value)] = value
        return None

    def _module(self, value: types.ModuleType) -> Any:
        name = value.__name__
        if value.__dict__ is self.namespace or name == "__main__":
            return "M"
        if sys.modules.get(name) is value:
            self.modules.add(name.partition(".")[0])
            return f"m:{name}"
        self.seen[id(value)] = value
        return None

    def _globals(self, namespace: dict[str, Any]) -> Any:
        """The globals of a function: the notebook's, a module's, or a dict of their own."""
        main = sys.modules.get("__main__")
        if namespace is self.namespace or (main is not None and namespace is main.__dict__):
            return Token("g")
        name = namespace.get("__name__")
        module: Any = sys.modules.get(name) if isinstance(name, str) else None
        if module is not None and module.__dict__ is namespace:
            return Token(f"n:{name}")
        return namespace

    # --- sets --------------------------------------------------------------------------------------------------

    def _set(self, value: Any) -> Any:
        found = self._kept_sets.get(id(value))
        if found is not None:
            return f"s:{found[1]}"
        if _sets.survives(value):
            return None
        plan = _sets.plan_for(value)
        if plan is None:
            if not _sets.ordered(value):
                return None
            return self.obstruct(value, "its iteration order cannot be reproduced", Kind.MUTABLE)
        if self.shared is None:
            return None  # a scan looks at the members in their present order
        key = len(self._kept_sets)
        self._kept_sets[id(value)] = (value, key)
        return ("s", key, *plan, isinstance(value, frozenset))

    # --- reducers ----------------------------------------------------------------------------------------------

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        rule = self._rules.get(kind)
        if rule is None:
            rule = self._rules[kind] = self._rule_for(kind)
        try:
            return rule(self, value)
        except (RecursionError, MemoryError, Interrupted):
            raise
        except Exception as exc:
            if self.strict:
                raise
            text = str(exc).split("\n")[0] or type(exc).__name__
            return Token, (self.obstruct(value, text, Kind.MUTABLE),)

    def _rule_for(self, kind: type) -> Callable[[GroupPickler, Any], Any]:
        if issubclass(kind, type):
            return GroupPickler._reduce_class
        if kind in _RULES:
            return _RULES[kind]
        for base in kind.__mro__:
            named = _NAMED_RULES.get(full_name(base))
            if named is not None:
                return named
        return GroupPickler._reduce_generic

    def _reduce_class(self, value: type) -> Any:
        if value is self.root or not self._linked(value, importable):
            return class_parts(value)
        return cloudpickle._class_reduce(value)

    def _reduce_generic(self, value: Any) -> Any:
        kind = type(value)
        reduce = _TABLE.get(kind)
        made = value.__reduce_ex__(PROTOCOL) if reduce is None else reduce(value)
        if isinstance(made, str):
            module = sys.modules.get(getattr(value, "__module__", None) or "builtins")
            found: Any = module
            for part in made.split("."):
                found = getattr(found, part, None)
            if found is not value or (module is not None and module.__name__ == "__main__"):
                raise CannotStore(f"it is not {made} of an importable module")
            self.references.add(id(value))
            self.modules.add(module.__name__.partition(".")[0] if module is not None else "builtins")
            return made
        if not isinstance(made, tuple) or not 2 <= len(made) <= 6:
            raise CannotStore("its __reduce__ gives no valid answer")
        self.custom.setdefault(kind)
        return made


def kind_of_reference(value: Any) -> Any:
    """`weakref.ref` for a plain reference without a callback."""
    return weakref.ref if type(value) is weakref.ref and value.__callback__ is None else None


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
    import logging

    self.references.add(id(value))
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
    return Token(f"w:{id(target)}")


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
    expected, self._expected_now = self._expected_now == id(value), 0
    self.modules.add("numpy")
    if type(value) is not numpy.ndarray:
        return _reduce_array_subclass(self, value)
    owner = _memory.owner_of(value)
    users = self.owners.setdefault(id(owner), set())
    users.add(id(value))
    block = None if owner is value else _memory.block_of(owner)
    offset = None if block is None else _memory.offset_in(value, block)
    if owner is not value and offset is None:
        self.foreign.append((value, owner))
    elif owner is not value:
        (self.shadowed if expected else self.seen)[id(owner)] = owner
    if block is not None and offset is not None and _as_view(self, value, block, expected):
        arguments = (owner, value.dtype, value.shape, value.strides, offset, bool(value.flags.writeable))
        return _rebuild.view, arguments
    return _alone(value)


def _as_view(self: GroupPickler, value: Any, block: _memory.Block, expected: bool) -> bool:
    """Whether to write the owner and the place in it, rather than the values."""
    contiguous = _memory.layout(value) in "CF"
    if self.shared is not None and id(block.owner) in self.shared:
        return True
    if expected:
        return not contiguous and 2 * value.nbytes >= block.nbytes
    if not contiguous:
        return True
    if self.shared is not None:
        return False
    # While scanning nobody knows yet how many views there are: many small ones cost more than their owner once.
    spent = self._spent[id(block.owner)] = self._spent.get(id(block.owner), 0) + int(value.nbytes)
    return 4 * spent >= block.nbytes


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
        base = value.view(numpy.ndarray)
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
        self._expected[id(value)] += 1


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


def _reduce_index(self: GroupPickler, value: Any) -> Any:
    self._expected_now = 0
    for part in (getattr(value, "_data", None), *getattr(value, "_levels", ()), *getattr(value, "_codes", ())):
        _expect(self, part)
    return self._reduce_generic(value)


def _reduce_extension_array(self: GroupPickler, value: Any) -> Any:
    expected, self._expected_now = self._expected_now == id(value), 0
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


_RULES: dict[type, Callable[[GroupPickler, Any], Any]] = {
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

_NAMED_RULES: dict[str, Callable[[GroupPickler, Any], Any]] = {
    "numpy.ndarray": _reduce_array,
    "pandas.core.generic.NDFrame": _reduce_frame,
    "pandas.Index": _reduce_index,
    "pandas.core.indexes.base.Index": _reduce_index,
    "pandas.api.extensions.ExtensionArray": _reduce_extension_array,
    "pandas.core.arrays.base.ExtensionArray": _reduce_extension_array,
    "pandas.CategoricalDtype": _reduce_categorical_dtype,
    "pandas.core.dtypes.dtypes.CategoricalDtype": _reduce_categorical_dtype,
    "logging.Logger": _reduce_logger,
    "builtins.BaseException": _reduce_exception,
}
