"""Notebook classes and functions: what they are called in a pickle, and which live object a name means.

Theory. Pickling a notebook class by value makes every load a new class: `isinstance` fails and enums stop being
themselves. So a class, and a plain function that the notebook binds, is a *definition*: pickles hold its id and the
loader binds the live object with that id, or builds one from the copy in the manifest when there is none.

The id is a digest of the code, taken when the object is first seen, plus a *generation*: 0 for the first object with
that code in the kernel's life, 1 for the next (the cell was run again by hand). Instances of a superseded class
therefore never turn into instances of the new one. Functions need none: only the one that is bound under its own name
is a definition, and of two with the same code it does not matter which that is.

A class also has state: attributes that are no code (`count = 0`, a registry). They belong to the group of the name
that is bound to the class (or, for a class no name is bound to, of the value that uses it), travel with that group,
and are set on the live class when the group is restored.
"""

from __future__ import annotations

import abc
import enum
import functools
import importlib
import linecache
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloudpickle import cloudpickle

from durable_nb._ident import ident
from durable_nb.snapshot._digest import Encoder, NotCanonical, digest_text
from durable_nb.snapshot._digest_rules import function_parts
from durable_nb.snapshot._module_objects import ModuleObjects

_PRIVATE = frozenset({"_abc_impl", "_abc_cache", "_abc_registry", "_abc_negative_cache", "_abc_negative_cache_version"})

_UNDIGESTED = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__firstlineno__",
        "__static_attributes__",
        "__annotate_func__",
        "__annotations_cache__",
    }
)

_ABSENT: set[str] = set()
"""Homes that classes name and that cannot be imported."""


def importable(value: Any) -> bool:
    """True when importing a module and looking up a name gives this very class or function in a new process."""
    module = getattr(value, "__module__", None)
    if module is None or module == "__main__":
        return _builtin_name(value)
    if not isinstance(module, str):
        return False  # a class body may set it to anything
    holder: Any = sys.modules.get(module) or _loaded_now(module)
    if holder is None:
        return False
    for part in getattr(value, "__qualname__", "").split("."):
        holder = getattr(holder, part, None)
    return holder is value or _builtin_name(value)


def _loaded_now(module: str) -> Any:
    """A module of a loaded package that a class names as its home before anybody imported it: `numpy.rec`."""
    if module in _ABSENT or module.partition(".")[0] not in sys.modules:
        return None
    try:
        return importlib.import_module(module)
    except Exception:  # noqa: BLE001 - whatever the package raises, the name leads nowhere
        _ABSENT.add(module)
        return None


def _builtin_name(value: Any) -> bool:
    try:
        return value in cloudpickle._BUILTIN_TYPE_NAMES or value in (type(None), type(...), type(NotImplemented))
    except TypeError:
        return False


def is_code(value: Any) -> bool:
    """True for class attributes that are part of the code: methods, descriptors, nested classes."""
    return isinstance(value, (types.FunctionType, staticmethod, classmethod, property, type)) or hasattr(
        type(value), "__get__"
    )


def data_attributes(cls: type) -> dict[str, Any]:
    """The class's own state."""
    if issubclass(cls, enum.Enum):
        return {}
    return {
        name: value
        for name, value in vars(cls).items()
        if not (name.startswith("__") and name.endswith("__")) and name not in _PRIVATE and not is_code(value)
    }


def _code_attributes(cls: type) -> dict[str, int]:
    return {
        name: ident(value)
        for name, value in vars(cls).items()
        if name not in _UNDIGESTED and name not in _PRIVATE and is_code(value)
    }


def _function_facts(value: types.FunctionType) -> tuple[Any, ...]:
    """What of a function can be replaced (`f.__defaults__ = …`): then its id no longer says what it does."""
    keywords = tuple((value.__kwdefaults__ or {}).items())
    return ident(value.__code__), value.__defaults__, keywords, value.__doc__


class Definitions:
    """The definitions of one namespace, live and known by id.

    Args:
        namespace: the notebook's globals.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self._ids: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._live: dict[str, weakref.ref[Any]] = {}
        self._generations: dict[str, int] = {}
        self._digests: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._code_seen: dict[int, dict[str, int]] = {}
        self._busy: dict[int, int] = {}
        self._function_seen: dict[int, tuple[weakref.ref[Any], tuple[Any, ...]]] = {}
        self.module_objects = ModuleObjects()
        self._held: list[Any] = []
        self._vouched: dict[int, tuple[weakref.ref[type], str]] = {}
        self.copies: dict[str, Any] = {}
        """Copies by value, by id."""
        self.building: set[str] = set()
        """Ids of definitions that are being restored right now."""

    # --- classes whose pickles were proved --------------------------------------------------------------------

    def vouched(self, kind: type) -> bool:
        """True when instances of this class were loaded for checking before."""
        known = self._vouched.get(ident(kind))
        return known is not None and known[0]() is kind

    def vouch(self, kind: type, problem: str = "") -> None:
        """Remember how the check ended: `problem` says what was lost."""
        self._vouched[ident(kind)] = (weakref.ref(kind), problem)

    def refuted(self, kind: type) -> str:
        """What the check found wrong with instances of this class; empty when it found nothing."""
        known = self._vouched.get(ident(kind))
        return known[1] if known is not None and known[0]() is kind else ""

    # --- what is a definition --------------------------------------------------------------------------------

    def owns(self, value: Any) -> bool:
        """True for a class or function that this notebook made."""
        return not importable(value)

    def is_plain_function(self, value: types.FunctionType) -> bool:
        """True for a function that is nothing but code, bound under its own name or in its own class."""
        if value.__closure__ or value.__dict__ or value.__globals__ is not self.namespace:
            return False
        if not all(map(_is_constant, value.__defaults__ or ())):
            return False
        if not all(map(_is_constant, (value.__kwdefaults__ or {}).values())):
            return False
        if self.namespace.get(value.__qualname__) is not value:
            return False
        known = self._function_seen.get(ident(value))
        return known is None or known[0]() is not value or known[1] == _function_facts(value)

    def owner_of(self, value: types.FunctionType) -> tuple[type, str] | None:
        """The bound notebook class whose method this is, and where in it: `name` or `name.fget`."""
        path, _, name = value.__qualname__.rpartition(".")
        if not path or "<" in path:
            return None
        first, *rest = path.split(".")
        owner = self.namespace.get(first)
        for part in rest:
            owner = getattr(owner, part, None)
        if not isinstance(owner, type):
            return None
        held = vars(owner).get(name)
        if held is value:
            return owner, name
        for part in ("__func__", "fget", "fset", "fdel", "func"):
            if getattr(held, part, None) is value:
                return owner, f"{name}.{part}"
        return None

    # --- ids -------------------------------------------------------------------------------------------------

    def id_of(self, value: Any) -> str:
        """The id of a definition; the first sight of an object decides its generation."""
        known = self._ids.get(ident(value))
        if known is not None and known[0]() is value:
            return known[1]
        digest = self.digest_of(value)
        generation = self._generations.get(digest, 0) if isinstance(value, type) else 0
        self._generations[digest] = generation + 1
        name = f"{digest}.{generation}"
        self.adopt(name, value)
        return name

    def adopt(self, name: str, value: Any) -> None:
        """Make `value` the live object of an id (a restored definition)."""
        reference = weakref.ref(value)
        self._ids[ident(value)] = (reference, name)
        self._live[name] = reference
        digest, _, generation = name.rpartition(".")
        self._digests[ident(value)] = (reference, digest)
        self._generations[digest] = max(self._generations.get(digest, 0), int(generation) + 1)
        if isinstance(value, type):
            self._code_seen[ident(value)] = _code_attributes(value)
        else:
            self._function_seen[ident(value)] = (reference, _function_facts(value))

    def live(self, name: str) -> Any:
        """The live object of an id, or None."""
        reference = self._live.get(name)
        return None if reference is None else reference()

    def hold(self, value: Any) -> None:
        """Keep a restored definition alive: more of its instances may be restored later."""
        self._held.append(value)

    def note(self, values: Iterable[Any]) -> None:
        """First sight of whatever among `values` is a definition, in the order given."""
        self.module_objects.refresh()
        for value in values:
            kind = type(value)
            if kind is not types.FunctionType and not issubclass(kind, type):
                continue
            known = self._ids.get(ident(value))
            if known is not None and known[0]() is value:
                continue
            if isinstance(value, type):
                if self.owns(value):
                    self.id_of(value)
            elif type(value) is types.FunctionType and self.owns(value) and self.is_plain_function(value):
                self.id_of(value)

    # --- digests ---------------------------------------------------------------------------------------------

    def digest_of(self, value: Any) -> str:
        """The digest of the code of a notebook class or function, without its generation."""
        known = self._digests.get(ident(value))
        if known is not None and known[0]() is value:
            return known[1]
        if ident(value) in self._busy:
            return f"self:{self._busy[ident(value)]}"
        self._busy[ident(value)] = len(self._busy)
        try:
            encoder = Encoder(self.refer)
            if isinstance(value, type):
                self._class(encoder, value)
            else:
                self._lenient(encoder, "function", lambda: function_parts(encoder, value))
            digest = encoder.hexdigest()
        finally:
            del self._busy[ident(value)]
        if isinstance(value, type):
            # A function's parts can change (its defaults, its closure); the code of a class is fixed at first sight.
            self._digests[ident(value)] = (weakref.ref(value), digest)
        return digest

    def refer(self, value: Any) -> str:
        """How digests of values speak of a class or function: notebook classes by id, so with their generation.

        A notebook function is written out (the empty name): its closure is part of the alias structure.
        """
        if not self.owns(value):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, type):
            if ident(value) in self._busy:
                return self.digest_of(value)
            return self.id_of(value)
        return ""

    def refer_with_state(self, value: Any) -> str:
        """Like `refer`, and a class counts with the state it has now."""
        name = self.refer(value)
        if not isinstance(value, type) or not self.owns(value) or ident(value) in self._busy:
            return name
        state, gone = self.class_state(value)
        registered = [self.refer(cls) for cls in registrations(value)]
        if not state and not gone and not registered:
            return name
        self._busy[ident(value)] = len(self._busy)
        try:
            encoder = Encoder(self.refer)
            encoder.text(name)
            for attribute, content in state.items():
                encoder.text(attribute)
                encoder.encode(content)
            encoder.encode(gone)
            encoder.encode(sorted(registered))
        finally:
            del self._busy[ident(value)]
        return encoder.hexdigest()

    def _class(self, encoder: Encoder, cls: type) -> None:
        encoder.text(cls.__qualname__)
        encoder.text(str(cls.__module__))
        encoder.text(self.refer(type(cls)))
        for base in cls.__bases__:
            encoder.text(self.refer(base))
        if issubclass(cls, enum.Enum):
            for name, member in cls.__members__.items():
                encoder.text(name)
                self._lenient(encoder, name, lambda member=member: encoder.encode(member.value))  # type: ignore[misc]
        for name, value in vars(cls).items():
            if name in _UNDIGESTED or name in _PRIVATE:
                continue
            if issubclass(cls, enum.Enum) and (name in _ENUM_INTERNALS or isinstance(value, cls)):
                continue
            encoder.text(name)
            self._lenient(encoder, name, lambda value=value: self._attribute(encoder, value))  # type: ignore[misc]

    def _attribute(self, encoder: Encoder, value: Any) -> None:
        if isinstance(value, types.FunctionType) and self.owns(value):
            encoder.text(self.digest_of(value))
        elif isinstance(value, (staticmethod, classmethod)):
            encoder.text(type(value).__name__)
            self._attribute(encoder, value.__func__)
        elif isinstance(value, property):
            for part in (value.fget, value.fset, value.fdel):
                self._attribute(encoder, part)
        elif isinstance(value, functools.cached_property):
            self._attribute(encoder, value.func)
        elif isinstance(value, types.MemberDescriptorType):
            encoder.text(value.__name__)
        else:
            encoder.encode(value)

    def _lenient(self, encoder: Encoder, name: str, write: Callable[[], None]) -> None:
        """A part of a definition that has no canonical content counts by its place only."""
        try:
            write()
        except NotCanonical as exc:
            encoder.text(f"{name}: {exc}")

    # --- state -----------------------------------------------------------------------------------------------

    def class_state(self, cls: type) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Attributes to set on the class its definition gives, and code attributes that are gone since."""
        self.id_of(cls)
        seen = self._code_seen.get(ident(cls), {})
        state = data_attributes(cls)
        current = _code_attributes(cls)
        for name, identity in current.items():
            if seen.get(name) != identity:
                state[name] = vars(cls)[name]
        return state, tuple(name for name in seen if name not in current)

    def apply_state(self, cls: type, state: Mapping[str, Any], gone: Iterable[str]) -> None:
        """Give the live class the state that a group stored."""
        for name in [*gone, *(name for name in data_attributes(cls) if name not in state)]:
            if name in vars(cls):
                delattr(cls, name)
        for name, value in state.items():
            if name not in vars(cls) or vars(cls)[name] is not value:
                setattr(cls, name, value)


_ENUM_INTERNALS = frozenset(
    {
        "_member_names_",
        "_member_map_",
        "_value2member_map_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_hashable_values_",
        "_member_type_",
        "_value_repr_",
        "_use_args_",
        "_new_member_",
        "_generate_next_value_",
        "_flag_mask_",
        "_singles_mask_",
        "_all_bits_",
        "_inverted_",
        "__new__",
        "__reduce_ex__",
    }
)


def _is_constant(value: Any) -> bool:
    if value is None or type(value) in (int, float, complex, bool, str, bytes, type(...)):
        return True
    if type(value) in (tuple, frozenset):
        return all(map(_is_constant, value))
    return isinstance(value, (types.BuiltinFunctionType, enum.Enum)) or (isinstance(value, type) and importable(value))


# --- copies by value -----------------------------------------------------------------------------------------------


def class_parts(cls: type) -> tuple[Any, ...]:
    """The reduce value of a class by value: a skeleton first, so that methods may refer to it."""
    from durable_nb.snapshot import _rebuild

    if issubclass(cls, enum.Enum):
        bases, name, qualname, members, module, _tracker, extra = cloudpickle._enum_getnewargs(cls)
        made = (bases, name, qualname, members, module, None, extra)
        state = cloudpickle._enum_getstate(cls)
        return cloudpickle._make_skeleton_enum, made, state, None, None, cloudpickle._class_setstate
    attributes, _ = cloudpickle._class_getstate(cls)
    attributes = dict(attributes)
    registered = tuple(attributes.pop("_abc_impl", ()) or ())
    data = data_attributes(cls)
    for name, value in data.items():
        if not _is_constant(value):
            attributes.pop(name, None)
    for name in ("__firstlineno__", "__static_attributes__"):
        attributes.pop(name, None)
    metaclass, name, bases, keywords, _tracker, _extra = cloudpickle._class_getnewargs(cls)
    keywords = dict(keywords)
    if metaclass.__name__ != "_TypedDictMeta" and "__orig_bases__" in vars(cls):
        # The real bases: those that were written may be stand-ins that make another class (typing.NamedTuple).
        bases = cls.__bases__
        keywords["__orig_bases__"] = attributes.pop("__orig_bases__")
    if "__slots__" in vars(cls):
        keywords["__slots__"] = vars(cls)["__slots__"]
        attributes.pop("__slots__", None)
    keywords["__qualname__"] = cls.__qualname__
    return (
        _rebuild.class_skeleton,
        (metaclass, name, bases, keywords),
        (attributes, registered),
        None,
        None,
        _rebuild.class_body,
    )


def function_state(value: types.FunctionType) -> dict[str, Any]:
    """What `_rebuild.dress_function` puts on the bare function."""
    return {
        "defaults": value.__defaults__,
        "kwdefaults": value.__kwdefaults__,
        "qualname": value.__qualname__,
        "module": value.__module__,
        "doc": value.__doc__,
        "annotations": value.__annotations__,
        "dict": value.__dict__,
        "type_params": getattr(value, "__type_params__", ()),
    }


def source_of(filename: str) -> str | None:
    """The text of a cell whose code carries this file name, or None for a real file."""
    entry = linecache.cache.get(filename)
    if entry is None or len(entry) != 4 or entry[1] is not None:
        return None
    return "".join(entry[2])


def default_filename(source: str) -> str:
    """Where a restored function says it comes from when no kernel knows better; `inspect` finds the source there."""
    filename = f"<durable {digest_text(source)[:16]}>"
    if filename not in linecache.cache:
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return filename


def registrations(cls: type) -> list[type]:
    """The virtual subclasses that somebody registered."""
    if not isinstance(cls, abc.ABCMeta):
        return []
    references = abc._get_dump(cls)[0]  # type: ignore[attr-defined]
    return [found for reference in references if (found := reference()) is not None]
