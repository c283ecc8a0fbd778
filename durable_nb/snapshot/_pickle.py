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

import builtins
import enum
import pickle
import sys
import types
import weakref
from collections import ChainMap, Counter
from collections.abc import Callable
from typing import Any

from cloudpickle import cloudpickle

from durable_nb._dataclass import dataclass
from durable_nb._ident import ident
from durable_nb.snapshot import _handles, _hooks, _sets, _streams
from durable_nb.snapshot._definitions import Definitions, class_parts, importable, registrations
from durable_nb.snapshot._ended import can_be_over, is_over, reduce_over
from durable_nb.snapshot._kinds import (
    ATOMS,
    Kind,
    default_reduce,
    find_sentinel,
    full_name,
    kind_of_type,
    module_instances,
)
from durable_nb.snapshot._module_objects import Place
from durable_nb.snapshot._reducers import NAMED_RULES, RULES, CannotStore, Rule, Token, kind_of_reference

PROTOCOL = 5

REGISTERED = "\0registered"
"""Key of a class's state under which its virtual subclasses travel."""

_TABLE: ChainMap[Any, Any] = cloudpickle.Pickler.dispatch_table


_BUILTINS = vars(builtins)
"""In the globals of every function: those that pickles have made have a dict of their own around it."""

_module_of: Callable[[Any, str], str] = vars(pickle)["whichmodule"]
"""The name of the module that holds an object under a name, as pickle looks for it."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """An object that cannot be stored, as the pass met it."""

    target: Any
    type_name: str
    why: str
    kind: Kind


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
        modules: False writes objects of local modules by value.
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
        modules: bool = True,
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
        self.frozen: dict[int, Any] = {}
        """Immutable objects that may hold mutable ones. A second name that holds one is not led inside again."""
        self.obstacles: dict[int, Obstacle] = {}
        self.functions: dict[int, Any] = {}
        self.classes: dict[int, type] = {}
        self.definition_ids: dict[str, Any] = {}
        self.modules: set[str] = set()
        self.origins: set[str] = set()
        """Modules of the importable classes and functions that were met, by their full names."""
        self.is_data = True
        """Nothing was met that depends on the session it is restored into: no code of the notebook, no live object."""
        self.sources: dict[str, str] = {}
        self.weak: list[Any] = []
        self.owners: dict[int, set[int]] = {}
        self.foreign: list[tuple[Any, Any]] = []
        self.lent: dict[int, Any] = {}
        """Owners of memory that arrays were found to use."""
        self.tensors: dict[int, Any] = {}
        """One tensor per storage, by the storage's address."""
        self.blocks: dict[int, int] = {}
        self.blocks_written: set[int] = set()
        self.custom: dict[type, None] = {}
        self._sorts: dict[type, Kind] = dict.fromkeys(ATOMS, Kind.ATOM)
        self._sorts.update(dict.fromkeys(spared, Kind.SPARED))
        self.standing: dict[str, Any] = {}
        self._module_objects = definitions.module_objects if modules else None
        self.module_values: dict[str, Any] = {}
        """Objects of local modules that were met, by place."""
        self.beside: list[dict[str, Any]] = []
        """What instances hold whose class writes what it likes."""
        self._hooked: dict[type, bool] = {}
        # Plain functions, not bound methods: a pickler in a reference cycle would hold the user's memory until
        # a collection, and a collection that meets exported buffers in a cycle can crash the interpreter.
        self._rules: dict[type, Rule] = {}
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
        self.tensors.clear()
        self.foreign, self.weak, self.seen, self.shadowed, self.lent, self.frozen = [], [], {}, {}, {}, {}
        self.beside = []

    # --- the question about every object -----------------------------------------------------------------------

    def persistent_id(self, value: Any) -> Any:
        kind = type(value)
        if kind in ATOMS:
            return None
        sort = self._sorts.get(kind)
        if sort is None:
            sort = self._sorts[kind] = Kind.TOKEN if kind is Token else kind_of_type(kind)
        if sort is Kind.FROZEN:
            self.is_data = self.is_data and kind is not types.CodeType
            if self.shared is None and _may_hold(value, kind):
                self.frozen[ident(value)] = value
            return self._set(value) if kind is frozenset else None
        if sort is Kind.MUTABLE:
            if self._expected and self._expected.get(ident(value)):
                return self._shadow(value)
            place = self._module_objects.place_of(value) if self._module_objects else None
            if place is not None:
                return self._module_object(value, place)
            self.seen[ident(value)] = value
            if kind is dict:
                if value is self.namespace:
                    self.is_data = False
                    return "g"
                if value is _BUILTINS:
                    self.is_data = False
                    return "n:builtins"
                return None
            return self._set(value) if kind is set else None
        return self._unusual(value, sort)

    def _shadow(self, value: Any) -> None:
        """Part of a pandas object: shared copy-on-write, so that it links to plain arrays only."""
        self._expected[ident(value)] -= 1
        self._expected_now = ident(value)
        self.shadowed[ident(value)] = value

    def _unusual(self, value: Any, sort: Kind) -> Any:
        if sort is Kind.TOKEN:
            self.is_data = False
            return value.pid
        if sort is Kind.CLASS:
            return self._class(value)
        if sort is Kind.FUNCTION:
            return self._function(value)
        if sort is Kind.MODULE:
            self.is_data = False
            return self._module(value)
        if sort is Kind.ENUM_MEMBER:
            return None
        if sort is Kind.SPARED:
            self.standing[f"y:{ident(value)}"] = value
            return f"y:{ident(value)}"
        if sort is Kind.LISTED:
            return self._listed_instance(value)
        self.seen[ident(value)] = value
        self.is_data = False
        if sort is Kind.WEAKREF:
            if kind_of_reference(value) is not weakref.ref:
                return self.obstruct(value, "only plain weak references can be restored", Kind.HANDLE)
            return None
        return self._resource(value, sort)

    def _resource(self, value: Any, sort: Kind) -> str | None:
        if value is sys.stdout or value is sys.stderr:
            return "o:stdout" if value is sys.stdout else "o:stderr"
        if is_over(value):
            return None
        if sort is not Kind.STREAM:
            return self.obstruct(value, "it stands for something outside", sort)
        return self._stream(value)

    def _stream(self, value: Any) -> str:
        if self.shared is None:
            self.seen.update((ident(held), held) for held in _streams.held_by(value, self.namespace))
        return self.obstruct(value, "using it up is part of the program's state", Kind.STREAM)

    def obstruct(self, value: Any, why: str, kind: Kind) -> str:
        """Note that a value cannot be stored; returns what stands in for it."""
        if self.strict:
            raise CannotStore(f"{full_name(type(value))}: {why}")
        self.obstacles.setdefault(ident(value), Obstacle(value, full_name(type(value)), why, kind))
        state = _handles.state_of(value) if kind is Kind.HANDLE else ""
        return f"x:{full_name(type(value))}:{ident(value)}:{state}"

    def _module_object(self, value: Any, place: Place) -> Any:
        """An object that a local module holds: a reference, whatever its content."""
        self.is_data = False
        self.modules.add(place.module.partition(".")[0])
        self.module_values[str(place)] = value
        if not place.steps:
            return f"q:{place.module}:{place.attribute}"
        return ("q", place.module, place.attribute, *(part for step in place.steps for part in step))

    def _listed_instance(self, value: Any) -> Any:
        kind = type(value)
        if kind is object:
            place = self._linked(value, find_sentinel)
        else:
            if kind not in self._listed:
                self._listed[kind] = module_instances(kind)
            found = self._listed[kind].get(ident(value))
            place = None if found is None else (kind.__module__, found[0])
        if place is None:
            inside = self._module_objects.place_of(value) if self._module_objects else None
            if inside is not None:
                return self._module_object(value, inside)
            self.seen[ident(value)] = value
            return None
        self.is_data = False
        self.modules.add(place[0].partition(".")[0])
        return f"q:{place[0]}:{place[1]}"

    # --- definitions -------------------------------------------------------------------------------------------

    def _linked(self, value: Any, make: Callable[[Any], Any]) -> Any:
        """`make(value)`, once per object and pass."""
        found = self._links.get(ident(value))
        if found is None:
            found = self._links[ident(value)] = (value, make(value))
        return found[1]

    def _class(self, value: type) -> Any:
        if value is self.root:
            return None
        if self._linked(value, importable):
            self._imported(value)
            return None
        self.is_data = False
        self.classes[ident(value)] = value
        name = self._linked_id(value)
        if ident(value) in self.seen_classes:
            return f"d:{name}"
        bound = self.namespace.get(value.__qualname__) is value
        if self.root is not None or (bound and value is not self.current):
            return f"d:{name}"
        self.seen_classes.add(ident(value))
        state, gone = self.definitions.class_state(value)
        registered = registrations(value)
        if registered:
            state[REGISTERED] = sorted(registered, key=full_name)
        return ("c", name, state, gone) if state or gone else f"d:{name}"

    def _imported(self, value: Any) -> None:
        module = str(value.__module__)
        self.origins.add(module)
        self.modules.add(module.partition(".")[0])

    def _linked_id(self, value: Any) -> str:
        name = self.definitions.id_of(value)
        self.definition_ids[name] = value
        return name

    def _function(self, value: types.FunctionType) -> Any:
        if value is self.root:
            return None
        if self._linked(value, importable):
            self._imported(value)
            return None
        self.is_data = False
        self.functions[ident(value)] = value
        if self.definitions.is_plain_function(value):
            return f"d:{self._linked_id(value)}"
        owner = self.definitions.owner_of(value)
        if owner is not None and owner[0] is not self.root and not value.__dict__:
            self.classes[ident(owner[0])] = owner[0]
            return f"a:{self._linked_id(owner[0])}:{owner[1]}"
        self.seen[ident(value)] = value
        return None

    def _module(self, value: types.ModuleType) -> Any:
        name = value.__name__
        if value.__dict__ is self.namespace or name == "__main__":
            return "M"
        if sys.modules.get(name) is value:
            self.modules.add(name.partition(".")[0])
            return f"m:{name}"
        self.seen[ident(value)] = value
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
        found = self._kept_sets.get(ident(value))
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
        self._kept_sets[ident(value)] = (value, key)
        return ("s", key, *plan, isinstance(value, frozenset))

    # --- reducers ----------------------------------------------------------------------------------------------

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        rule = self._rules.get(kind)
        if rule is None:
            rule = self._rules[kind] = self._rule_for(kind)
        try:
            return rule(self, value)
        except (RecursionError, MemoryError):
            raise
        except Exception as exc:
            if self.strict:
                raise
            text = str(exc).split("\n")[0] or type(exc).__name__
            return Token, (self.obstruct(value, text, Kind.MUTABLE),)

    def _rule_for(self, kind: type) -> Rule:
        if issubclass(kind, type):
            return GroupPickler._reduce_class
        if kind in RULES:
            return RULES[kind]
        if can_be_over(kind):
            return reduce_over
        for base in kind.__mro__:
            named = NAMED_RULES.get(full_name(base))
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
            if found is not value and getattr(value, "__module__", None) is None:
                # NumPy's universal functions know only their name.
                module = sys.modules.get(_module_of(value, made))
                found = getattr(module, made, None)
            if found is not value or (module is not None and module.__name__ == "__main__"):
                raise CannotStore(f"it is not {made} of an importable module")
            self.references.add(ident(value))
            name = module.__name__ if module is not None else "builtins"
            self.origins.add(name)
            self.modules.add(name.partition(".")[0])
            return made
        if not isinstance(made, tuple) or not 2 <= len(made) <= 6:
            raise CannotStore("its __reduce__ gives no valid answer")
        self.custom.setdefault(kind)
        if hasattr(kind, "__del__") and self.definitions.owns(kind):
            raise CannotStore("its class has a __del__, which would run once more when a replay puts it away")
        if self.shared is None and self._is_hooked(kind):
            self._look_beside(value, made)
        return made

    def _is_hooked(self, kind: type) -> bool:
        """Whether a notebook class pickles its instances by code of its own."""
        found = self._hooked.get(kind)
        if found is None:
            # An enumeration pickles its members by value, and the class itself makes them again.
            own = not default_reduce(kind) and not issubclass(kind, enum.Enum)
            found = self._hooked[kind] = own and self.definitions.owns(kind)
        return found

    def _look_beside(self, value: Any, made: tuple[Any, ...]) -> None:
        """See also what the user's own pickling does not write."""
        held = dict(_hooks.attributes(value))
        self.beside.append(held)
        for item in held.values():
            if kind_of_type(type(item)) is Kind.MUTABLE:
                self.seen[ident(item)] = item
        if self.definitions.vouched(type(value)):
            name = _hooks.left_out(value, made)
            if name is not None:
                raise CannotStore(f"its own pickling does not write its attribute {name!r}")


_HOLDERS = (frozenset, types.MethodType, types.BuiltinFunctionType, property, staticmethod, classmethod)


def _may_hold(value: Any, kind: type) -> bool:
    """Whether an immutable object may hold a mutable one."""
    if isinstance(value, (tuple, frozenset)):
        return not ATOMS.issuperset(map(type, value))
    return issubclass(kind, _HOLDERS)
