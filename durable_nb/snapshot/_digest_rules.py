"""How each kind of value is written into a digest: the rules of `_digest`, by type."""

from __future__ import annotations

import array as arrays
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import gc
import itertools
import pathlib
import random
import re
import struct
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Sequence
from typing import Any

import xxhash

from durable_nb._ident import ident
from durable_nb.snapshot import _memory
from durable_nb.snapshot._digest import BULK, EXACT, FALLBACKS, NAMED, Encoder, NotCanonical, Writer
from durable_nb.snapshot._kinds import ATOMS, Kind, default_reduce, full_name, kind_of_type, module_instances

_DOUBLE = struct.Struct("<d").pack

# --- atoms -----------------------------------------------------------------------------------------------------


def _int(self: Encoder, value: int) -> None:
    size = value.bit_length() // 8 + 1
    self.raw(b"i" + size.to_bytes(8, "little") + value.to_bytes(size, "little", signed=True))


def _constant(tag: bytes) -> Callable[[Encoder, Any], None]:
    return lambda self, value: self.raw(tag)


def _bool(self: Encoder, value: bool) -> None:
    self.raw(b"T" if value else b"F")


def _float(self: Encoder, value: float) -> None:
    self.raw(b"f" + _DOUBLE(value))


def _complex(self: Encoder, value: complex) -> None:
    self.raw(b"c" + struct.pack("<dd", value.real, value.imag))


def _str(self: Encoder, value: str) -> None:
    self.text(value)


def _bytes(self: Encoder, value: bytes) -> None:
    self.block(b"b", value)


def _bulk_int(self: Encoder, items: Sequence[int]) -> None:
    try:
        packed = arrays.array("q", items)
    except OverflowError:
        self.count(b"N", len(items))
        for item in items:
            _int(self, item)
        return
    self.block(b"q", memoryview(packed).cast("B"))


def _bulk_float(self: Encoder, items: Sequence[float]) -> None:
    self.block(b"d", memoryview(arrays.array("d", items)).cast("B"))


def _bulk_str(self: Encoder, items: Sequence[str]) -> None:
    self.block(b"l", memoryview(arrays.array("q", map(len, items))).cast("B"))
    self.block(b"t", "".join(items).encode("utf-8", "surrogatepass"))


def _bulk_bool(self: Encoder, items: Sequence[bool]) -> None:
    self.block(b"B", bytes(items))


def _bulk_none(self: Encoder, items: Sequence[None]) -> None:
    self.count(b"0", len(items))


# --- containers ------------------------------------------------------------------------------------------------


def _tuple(self: Encoder, value: tuple[Any, ...]) -> None:
    self.raw(b"(")
    self.sequence(value)


def _list(self: Encoder, value: list[Any]) -> None:
    if not self.met(value):
        self.raw(b"[")
        self.sequence(value)


def _dict(self: Encoder, value: dict[Any, Any]) -> None:
    if not self.met(value):
        self.raw(b"{")
        self.keys(value)
        self.sequence(list(value.values()))


def _ordered(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"O")
        self.sequence(list(value))
        self.sequence(list(value.values()))


def _count(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"\x37")
        self.text(repr(value))


def _defaultdict(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"E")
        self.encode(value.default_factory)
        self.sequence(list(value))
        self.sequence(list(value.values()))


def _counter(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"K")
        self.sequence(list(value))
        self.sequence(list(value.values()))


def _deque(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"Q")
        self.encode(value.maxlen)
        self.sequence(list(value))


def _set(self: Encoder, value: set[Any]) -> None:
    if not self.met(value):
        self.unordered(b"<", value)


def _frozenset(self: Encoder, value: frozenset[Any]) -> None:
    self.unordered(b">", value)


def _bytearray(self: Encoder, value: bytearray) -> None:
    if not self.met(value):
        self.block(b"y", value)


def _array_array(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"A")
        self.text(value.typecode)
        self.block(b"b", memoryview(value).cast("B") if len(value) else b"")


def _namespace(self: Encoder, value: types.SimpleNamespace) -> None:
    if not self.met(value):
        self.raw(b"S")
        _dict(self, vars(value))


def _proxy(self: Encoder, value: Any) -> None:
    self.raw(b"P")
    self.encode(dict(value))


def _memoryview(self: Encoder, value: memoryview) -> None:
    raise NotCanonical("memoryview")


# --- plain library values --------------------------------------------------------------------------------------


def _parts(tag: bytes, *parts: str) -> Callable[[Encoder, Any], None]:
    """A value that a few attributes describe completely."""

    def write(self: Encoder, value: Any) -> None:
        self.raw(tag)
        self.text(full_name(type(value)))
        for part in parts:
            self.encode(getattr(value, part))

    return write


def _spelled(tag: bytes) -> Callable[[Encoder, Any], None]:
    """A value that its `repr` or `str` describes completely."""

    def write(self: Encoder, value: Any) -> None:
        self.raw(tag)
        self.text(full_name(type(value)))
        self.text(str(value))

    return write


def _datetime(self: Encoder, value: Any) -> None:
    self.raw(b"\x01")
    self.text(full_name(type(value)))
    self.text(value.isoformat())
    self.encode(value.fold)
    self.encode(value.tzinfo)


def _decimal(self: Encoder, value: decimal.Decimal) -> None:
    self.raw(b"\x02")
    self.encode(tuple(value.as_tuple()))


def _pattern(self: Encoder, value: re.Pattern[Any]) -> None:
    self.raw(b"\x03")
    self.encode(value.pattern)
    self.encode(value.flags)


def _random(self: Encoder, value: random.Random) -> None:
    if not self.met(value):
        self.raw(b"\x04")
        self.encode(value.getstate())


def _partial(self: Encoder, value: functools.partial[Any]) -> None:
    if not self.met(value):
        self.raw(b"\x05")
        self.encode(value.func)
        self.encode(value.args)
        self.encode(value.keywords)
        # Asking for `__dict__` would make one, and Python treats a partial that has one differently.
        self.encode(value.__reduce__()[2][3])


def _method(self: Encoder, value: types.MethodType) -> None:
    self.raw(b"\x06")
    self.encode(value.__func__)
    self.encode(value.__self__)


def _builtin(self: Encoder, value: Any) -> None:
    self.raw(b"\x07")
    owner: Any = value.__self__
    if owner is None or isinstance(owner, (type, types.ModuleType)):
        self.text(f"{value.__module__}:{value.__qualname__}")
    else:
        self.text(value.__name__)
        self.encode(owner)


def _module(self: Encoder, value: types.ModuleType) -> None:
    if sys.modules.get(value.__name__) is not value:
        raise NotCanonical("module made at run time")
    self.raw(b"\x08")
    self.text(value.__name__)


def _class(self: Encoder, value: type) -> None:
    self.raw(b"\x0b")
    self.text(self.refer(value))


def _alias(self: Encoder, value: Any) -> None:
    self.raw(b"\x0c")
    self.encode(value.__origin__)
    self.encode(value.__args__)


def _code(self: Encoder, value: types.CodeType) -> None:
    """What the code does; where it stands in a file does not matter."""
    self.raw(b"\x0e")
    numbers = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
    self.encode(numbers)
    self.encode(value.co_code)
    self.encode((value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars))
    self.encode((value.co_name, getattr(value, "co_qualname", "")))
    self.encode(getattr(value, "co_exceptiontable", b""))
    self.encode(value.co_consts)


def _function(self: Encoder, value: types.FunctionType) -> None:
    if self.met(value):
        return
    self.raw(b"\x0f")
    name = self.refer(value)
    self.text(name)
    if not name:
        function_parts(self, value)


def function_parts(self: Encoder, value: types.FunctionType) -> None:
    """Everything that a notebook function does by itself; the globals it names are the caller's concern."""
    _code(self, value.__code__)
    self.text(value.__qualname__)
    self.encode(value.__doc__)
    self.encode(value.__defaults__)
    self.encode(value.__kwdefaults__)
    self.encode(dict(value.__dict__))
    self.text(repr(sorted(value.__annotations__)))
    self.count(b"n", len(value.__closure__ or ()))
    for cell in value.__closure__ or ():
        _cell(self, cell)


def _cell(self: Encoder, value: types.CellType) -> None:
    if self.met(value):
        return
    self.raw(b"\x10")
    try:
        contents = value.cell_contents
    except ValueError:
        self.raw(b"-")
    else:
        self.encode(contents)


def _enum(self: Encoder, value: enum.Enum) -> None:
    self.raw(b"\x11")
    self.text(self.refer(type(value)))
    name: Any = value._name_  # None for unnamed combinations of flags
    self.encode(value._value_ if name is None else name)


def _cached(self: Encoder, value: Any) -> None:
    """An `lru_cache` by its function: what it has cached is no content."""
    if not self.met(value):
        self.raw(b"\x26")
        self.encode(value.__wrapped__)
        self.encode(value.cache_parameters())


def _dict_view(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"\x27")
        self.text(type(value).__name__)
        owners = [owner for owner in gc.get_referents(value) if isinstance(owner, dict)]
        if len(owners) != 1:
            raise NotCanonical("a dict view")
        self.encode(owners[0])


def _listed(self: Encoder, value: Any) -> None:
    kind = type(value)
    found = module_instances(kind).get(ident(value))
    if found is not None:
        self.raw(b"\x28")
        self.text(f"{kind.__module__}:{found[0]}")
    elif kind is not object and _plain(kind):
        _instance(self, value)
    else:
        raise NotCanonical(full_name(kind))


def _named_tuple(self: Encoder, value: Any) -> None:
    self.raw(b"\x12")
    self.text(self.refer(type(value)))
    self.sequence(tuple(value))


def _instance(self: Encoder, value: Any) -> None:
    """An instance that only its attributes describe."""
    if self.met(value):
        return
    kind = type(value)
    self.raw(b"\x13")
    self.text(self.refer(kind))
    for base, write in ((dict, _dict_items), (list, _list_items)):
        if isinstance(value, base):
            write(self, value)
    state = vars(value) if hasattr(value, "__dict__") else {}
    self.raw(b"{")
    self.sequence(list(state))
    self.sequence(list(state.values()))
    for name in slots_of(kind):
        if hasattr(value, name):
            self.text(name)
            self.encode(getattr(value, name))
    self.raw(b"}")


def _dict_items(self: Encoder, value: Any) -> None:
    self.sequence(list(dict.keys(value)))
    self.sequence(list(dict.values(value)))


def _list_items(self: Encoder, value: Any) -> None:
    self.sequence(list(list.__iter__(value)))


def slots_of(kind: type) -> list[str]:
    """Attribute names of `__slots__`, of all bases, mangled as they are stored."""
    found: list[str] = []
    for base in reversed(kind.__mro__):
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name in ("__dict__", "__weakref__"):
                continue
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return found


# --- arrays ----------------------------------------------------------------------------------------------------


def _ndarray(self: Encoder, value: Any) -> None:
    if self.met(value):
        return
    self.raw(b"\x14")
    self.text(full_name(type(value)))
    dtype(self, value.dtype)
    self.encode(tuple(map(int, value.shape)))
    self.raw(b"w" if value.flags.writeable else b"r")
    owner = _memory.owner_of(value)
    if ident(owner) in self.shared and not value.dtype.hasobject:
        block = _memory.block_of(owner)
        offset = None if block is None else _memory.offset_in(value, block)
        if block is None or offset is None:
            raise NotCanonical("an array in foreign memory")
        self.raw(b"m")
        self.encode(tuple(map(int, value.strides)))
        self.encode(offset)
        _memory_block(self, block)
        return
    if ident(owner) in self.shared:
        raise NotCanonical("a view of an array of objects")
    array_content(self, value)


def _memory_block(self: Encoder, block: _memory.Block) -> None:
    """The memory behind a view, once.

    Blocks are numbered by themselves: whether their owner is an array that is encoded as well differs between a value
    that was made and the same value restored.
    """
    number = self.blocks.get(ident(block.owner))
    if number is not None:
        self.count(b"N", number)
        return
    self.blocks[ident(block.owner)] = len(self.blocks)
    self.block(b"M", self.memory_hash(_memory.block_bytes(block), block.start))


def array_content(self: Encoder, value: Any) -> None:
    """Values and memory order; strides only where the order is neither C nor Fortran."""
    numpy: Any = sys.modules["numpy"]
    form = _memory.layout(value)
    self.text(form)
    if value.dtype.hasobject:
        if value.dtype != object:
            raise NotCanonical("a record array with objects")
        self.sequence(value.ravel(order="F" if form == "F" else "C").tolist())
        return
    if form in "CF":
        data = _memory.flat_bytes(value)
        self.block(b"h", self.memory_hash(data, value.__array_interface__["data"][0]))
        return
    hasher = xxhash.xxh3_128()
    flags = ["external_loop", "buffered", "zerosize_ok"]
    for piece in numpy.nditer(value, flags=flags, op_flags=[["readonly", "contig"]], order="C", buffersize=1 << 16):
        hasher.update(memoryview(piece.view(numpy.uint8)).cast("B"))
    self.block(b"h", hasher.digest())


def dtype(self: Encoder, value: Any) -> None:
    self.raw(b"\x15")
    if value.metadata:
        raise NotCanonical("a dtype with metadata")
    self.text(str(value.descr if value.names else value.str))
    if value.names:
        self.text(str((value.fields, value.itemsize, value.alignment, value.isalignedstruct)))
    elif value.kind in "Mm" or value.subdtype is not None or (value.kind == "V" and not value.names):
        self.text(str(value))


def _numpy_scalar(self: Encoder, value: Any) -> None:
    if value.dtype.hasobject:
        raise NotCanonical("an object scalar")
    self.raw(b"\x16")
    dtype(self, value.dtype)
    self.block(b"b", value.tobytes())


def _generator(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"\x17")
        self.encode(value.bit_generator)


def _bit_generator(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"\x18")
        self.text(full_name(type(value)))
        self.encode(value.state)


def _random_state(self: Encoder, value: Any) -> None:
    if not self.met(value):
        self.raw(b"\x19")
        self.encode(value.get_state(legacy=False))


# --- tables ----------------------------------------------------------------------------------------------------

_RULES: dict[type, Writer] = {
    int: _int,
    float: _float,
    complex: _complex,
    bool: _bool,
    str: _str,
    bytes: _bytes,
    type(None): _constant(b"0"),
    type(...): _constant(b"1"),
    type(NotImplemented): _constant(b"2"),
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    bytearray: _bytearray,
    memoryview: _memoryview,
    arrays.array: _array_array,
    collections.OrderedDict: _ordered,
    collections.defaultdict: _defaultdict,
    collections.Counter: _counter,
    collections.deque: _deque,
    itertools.count: _count,
    types.SimpleNamespace: _namespace,
    types.MappingProxyType: _proxy,
    dt.datetime: _datetime,
    dt.time: _datetime,
    dt.date: _spelled(b"\x1a"),
    dt.timedelta: _parts(b"\x1b", "days", "seconds", "microseconds"),
    dt.timezone: _spelled(b"\x1c"),
    zoneinfo.ZoneInfo: _parts(b"\x1d", "key"),
    decimal.Decimal: _decimal,
    fractions.Fraction: _parts(b"\x1e", "numerator", "denominator"),
    uuid.UUID: _parts(b"\x1f", "int"),
    range: _parts(b"\x20", "start", "stop", "step"),
    slice: _parts(b"\x21", "start", "stop", "step"),
    re.Pattern: _pattern,
    random.Random: _random,
    functools.partial: _partial,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    types.CodeType: _code,
    types.FunctionType: _function,
    types.CellType: _cell,
    types.ModuleType: _module,
    types.GenericAlias: _alias,
    type({}.keys()): _dict_view,
    type({}.values()): _dict_view,
    type({}.items()): _dict_view,
    type(functools.lru_cache(lambda: None)): _cached,
    property: _parts(b"\x22", "fget", "fset", "fdel", "__doc__"),
    staticmethod: _parts(b"\x23", "__func__"),
    classmethod: _parts(b"\x24", "__func__"),
}
for _path in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath):
    _RULES[_path] = _spelled(b"\x25")

_IN_BULK: dict[type, Callable[[Encoder, Any], None]] = {
    int: _bulk_int,
    float: _bulk_float,
    str: _bulk_str,
    bool: _bulk_bool,
    type(None): _bulk_none,
}

_BY_NAME: dict[str, Writer] = {
    "numpy.ndarray": _ndarray,
    "numpy.matrix": _ndarray,
    "numpy.random._generator.Generator": _generator,
    "numpy.random.mtrand.RandomState": _random_state,
    "logging.Logger": _parts(b"\x38", "name"),
    "logging.RootLogger": _parts(b"\x38", "name"),
}


def _by_base(kind: type) -> Writer | None:
    sort = kind_of_type(kind)
    if sort is Kind.CLASS:
        return _class
    if sort is Kind.ENUM_MEMBER:
        return _enum
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        if issubclass(kind, numpy.generic):
            return _numpy_scalar
        if issubclass(kind, numpy.dtype):
            return dtype
        if issubclass(kind, numpy.random.BitGenerator) and default_modules(kind, "numpy"):
            return _bit_generator
    if issubclass(kind, tuple) and default_reduce_tuple(kind):
        return _named_tuple
    if sort is Kind.LISTED:
        return _listed
    if sort is Kind.MUTABLE and _plain(kind):
        return _instance
    return None


def default_modules(kind: type, package: str) -> bool:
    return kind.__module__.partition(".")[0] == package


def default_reduce_tuple(kind: type) -> bool:
    """True for named tuples and such: nothing but the members, no instance dict."""
    looked: Any = kind
    plain = looked.__reduce_ex__ is object.__reduce_ex__ and looked.__iter__ is tuple.__iter__
    return plain and not kind.__dictoffset__


def _plain(kind: type) -> bool:
    """True when attributes (and list or dict items) are all there is to an instance."""
    if not default_reduce(kind) or not kind.__flags__ & (1 << 9):  # Py_TPFLAGS_HEAPTYPE: written in Python
        return False
    for base in kind.__mro__[1:]:
        if base in (object, dict, list) or base.__flags__ & (1 << 9):
            continue
        if base.__basicsize__ != object.__basicsize__:
            return False
    return not issubclass(kind, BaseException) and kind not in ATOMS


EXACT.update(_RULES)
BULK.update(_IN_BULK)
NAMED.update(_BY_NAME)
FALLBACKS.append(_by_base)
