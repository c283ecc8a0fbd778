"""What sort of thing a value is, decided by its type: the table behind every pass over an object graph.

Only objects that can be told apart after a change link names together. Numbers, text, dates, dtypes, classes and
modules never do: half of a session shares them.
"""

from __future__ import annotations

import contextvars
import datetime as dt
import decimal
import enum
import fractions
import io
import ipaddress
import itertools
import pathlib
import pickle
import re
import sys
import threading
import types
import typing
import uuid
import weakref
import zoneinfo
from enum import IntEnum
from typing import Any

from durable_nb._ident import ident

NoneType, EllipsisType, NotImplementedType = types.NoneType, types.EllipsisType, types.NotImplementedType


class Kind(IntEnum):
    """How a pass treats an object."""

    ATOM = 0
    """No parts that could change, no identity that matters."""
    FROZEN = 1
    """Immutable itself; its parts are visited."""
    MUTABLE = 2
    """Has an identity: names that reach it belong together."""
    CLASS = 3
    FUNCTION = 4
    MODULE = 5
    ENUM_MEMBER = 6
    WEAKREF = 7
    STREAM = 8
    """Consumed by use (iterators, generators, files): cannot be stored, and touching it counts as a change."""
    HANDLE = 9
    """Stands for something outside (connection, lock, client): cannot be stored; reading it is no change."""
    TOKEN = 10
    """One of our own stand-ins inside a pickle."""
    SPARED = 12
    """Stands for itself in a check."""
    LISTED = 11
    """Its type's module holds instances under fixed names (`os.environ`, sentinels): those are references."""


ATOMS: frozenset[type] = frozenset({int, float, complex, bool, str, bytes, NoneType, EllipsisType, NotImplementedType})

_FROZEN: tuple[type, ...] = (
    tuple,
    frozenset,
    range,
    slice,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    re.Pattern,
    zoneinfo.ZoneInfo,
    ipaddress._BaseAddress if hasattr(ipaddress, "_BaseAddress") else ipaddress.IPv4Address,
    pickle.PickleBuffer,
    types.CodeType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.GenericAlias,
    types.UnionType,
    typing.TypeVar,
    property,
    staticmethod,
    classmethod,
)

_STREAMS: tuple[type, ...] = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    io.IOBase,
    *(kind for kind in vars(itertools).values() if isinstance(kind, type)),
    type(iter({}.keys())),
    type(iter({}.values())),
    type(iter({}.items())),
    type(iter(set())),
)

_HANDLES: tuple[type, ...] = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Thread,
    threading.Condition,
    threading.Event,
    threading.Semaphore,
    threading.Barrier,
    types.FrameType,
    types.TracebackType,
    contextvars.Context,
    contextvars.ContextVar,
    contextvars.Token,
)

_HANDLE_NAMES = frozenset(
    {
        "ssl.SSLContext",
        "_ssl._SSLContext",
        "sqlite3.Connection",
        "asyncio.events.AbstractEventLoop",
        "asyncio.futures.Future",
        "_asyncio.Future",
        "_asyncio.Task",
        "concurrent.futures._base.Executor",
        "concurrent.futures._base.Future",
        "h5py._hl.base.HLObject",
        "multiprocessing.process.BaseProcess",
        "multiprocessing.pool.Pool",
        "multiprocessing.managers.BaseManager",
        "tempfile.TemporaryDirectory",
        "traitlets.config.configurable.SingletonConfigurable",
        "IPython.core.interactiveshell.InteractiveShell",
        "ipywidgets.widgets.widget.Widget",
        "comm.base_comm.BaseComm",
        "selectors.BaseSelector",
        "select.epoll",
        "select.poll",
        "numpy.memmap",
        "weakref.finalize",
        "requests.sessions.Session",
        "botocore.client.BaseClient",
        "sqlalchemy.engine.base.Engine",
        "sqlalchemy.engine.base.Connection",
        "sqlalchemy.orm.session.Session",
    }
)

_STREAM_NAMES = frozenset(
    {
        "_csv.reader",
        "_csv.writer",
        "mmap.mmap",
        "socket.socket",
        "sqlite3.Cursor",
        "subprocess.Popen",
        "tarfile.TarFile",
        "tempfile._TemporaryFileWrapper",
        "zipfile.ZipFile",
    }
)

_FROZEN_NAMES = frozenset(
    {
        "numpy.generic",
        "numpy.dtype",
        "numpy.ufunc",
        "numpy._ArrayFunctionDispatcher",
        "pandas._libs.tslibs.nattype._NaT",
        "pandas._libs.missing.NAType",
        "pandas._libs.missing.C_NAType",
        "pandas._libs.interval.IntervalMixin",
        "pandas._libs.tslibs.period._Period",
        "pandas.core.dtypes.base.ExtensionDtype",
        "pandas.api.extensions.ExtensionDtype",
        "pandas._libs.tslibs.offsets.BaseOffset",
        "operator.itemgetter",
        "operator.attrgetter",
        "operator.methodcaller",
        "typing._Final",
        "torch.dtype",
        "torch.device",
    }
)


def full_name(kind: type) -> str:
    """`package.module.Class`, as the tables here spell it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _names(kind: type) -> set[str]:
    return {full_name(base) for base in kind.__mro__}


_KNOWN: weakref.WeakKeyDictionary[type, Kind] = weakref.WeakKeyDictionary()


def kind_of_type(kind: type) -> Kind:
    """How instances of `kind` are treated."""
    found = _KNOWN.get(kind)
    if found is None:
        found = _KNOWN[kind] = _classify(kind)
    return found


def _classify(kind: type) -> Kind:  # noqa: C901 - a table whose rows are conditions
    if kind in ATOMS:
        return Kind.ATOM
    if issubclass(kind, type):
        return Kind.CLASS
    if kind is types.FunctionType:
        return Kind.FUNCTION
    if issubclass(kind, types.ModuleType):
        return Kind.MODULE
    if issubclass(kind, enum.Enum):
        return Kind.ENUM_MEMBER
    if issubclass(kind, weakref.ReferenceType) or kind in weakref.ProxyTypes:
        return Kind.WEAKREF
    if issubclass(kind, (io.BytesIO, io.StringIO)) or kind is itertools.count:
        return Kind.MUTABLE
    names = _names(kind)
    if "durable_nb.snapshot._blobs.Map" in names:
        return Kind.MUTABLE
    if kind.__qualname__ in ("cython_function_or_method", "fused_cython_function"):
        return Kind.FROZEN
    if issubclass(kind, _STREAMS) or not names.isdisjoint(_STREAM_NAMES):
        return Kind.STREAM
    if issubclass(kind, _HANDLES) or not names.isdisjoint(_HANDLE_NAMES):
        return Kind.HANDLE
    # A subclass of an immutable type with room for attributes is as mutable as any instance.
    if (issubclass(kind, _FROZEN) or not names.isdisjoint(_FROZEN_NAMES)) and not _has_own_dict(kind):
        return Kind.FROZEN
    return Kind.LISTED if kind is object or module_instances(kind) else Kind.MUTABLE


def module_instances(kind: type) -> dict[int, tuple[str, Any]]:
    """Instances of `kind` that the module of `kind` holds under a name, by id."""
    module = sys.modules.get(kind.__module__)
    if module is None or is_main(module) or kind.__module__ in ("builtins", "collections"):
        return {}
    return {ident(value): (name, value) for name, value in list(vars(module).items()) if type(value) is kind}


def is_main(module: object) -> bool:
    """Whether a module is the notebook's own, under whatever name: multiprocessing adds `__mp_main__`."""
    return module is sys.modules.get("__main__")


def find_sentinel(value: object) -> tuple[str, str] | None:
    """Module and name of a bare `object()` that some module holds."""
    for module_name, module in list(sys.modules.items()):
        attributes = getattr(module, "__dict__", None)
        if not is_main(module) and isinstance(attributes, dict):
            for name, held in list(attributes.items()):
                if held is value:
                    return module_name, name
    return None


def _has_own_dict(kind: type) -> bool:
    """True when a notebook class added an instance dict to an immutable base."""
    if not kind.__dictoffset__:
        return False
    module = sys.modules.get(kind.__module__)
    return kind.__module__ == "__main__" or module is None


def default_reduce(kind: type) -> bool:
    """True when `object.__reduce_ex__` alone pickles instances: no hook of the class has a say."""
    looked: Any = kind
    if looked.__reduce_ex__ is not object.__reduce_ex__ or looked.__reduce__ is not object.__reduce__:
        return False
    if any(hasattr(kind, hook) for hook in ("__setstate__", "__getnewargs__", "__getnewargs_ex__")):
        return False
    plain: Any = getattr(object, "__getstate__", None)
    return getattr(kind, "__getstate__", None) is plain
