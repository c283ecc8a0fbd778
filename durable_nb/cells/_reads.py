"""Which values a cell may read, through everything it can reach.

The cell's own tree and the bytecode of live functions give names (`_scopes.py`, `_code.py`). A name leads to a value;
a value leads to more code: a notebook function to its globals, its closure, its defaults and what it wraps; a bound
method to its object; a class to its methods and bases; a container to the functions inside it. The walk ends when
no new code is found. It over-approximates: whatever execution may read from before the cell is in `Reads.names`.

Two sets must not be mixed up. A name is *read* when its value from before the cell may be seen; the cell may also use
functions that it defines itself, and those reads count at the place where the function is used (see `_scopes.py`).
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb._ident import ident
from durable_nb.cells._code import code_uses
from durable_nb.cells._scopes import cell_uses
from durable_nb.cells._setters import is_data, is_setter, registers
from durable_nb.cells._uses import FRAME_READERS, NOTHING, Chain, Killed, Uses

__all__ = ["Reads", "analyse", "output_name"]

MAIN = "__main__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """What a cell may read, bind and reach."""

    names: frozenset[str] = frozenset()
    """Names whose value from before the cell may be read; `Out[3]` is the pseudo-name of an output. A built-in is
    in it only while the namespace shadows it."""
    builtins: frozenset[str] = frozenset()
    """Built-in names that are read and not shadowed: were one defined in the notebook, it would be read."""
    binds: frozenset[str] = frozenset()
    """Names the cell may bind, by itself or through notebook functions."""
    certain: frozenset[str] = frozenset()
    """Those of them that it has certainly bound when it ends without an error: whatever they were is gone."""
    deletes: frozenset[str] = frozenset()
    functions: tuple[FunctionType, ...] = ()
    """Notebook functions that can be reached, from before the cell."""
    classes: tuple[type, ...] = ()
    """Notebook classes that can be reached, from before the cell."""
    modules: frozenset[str] = frozenset()
    """Dotted names of modules that can be reached, imported or about to be."""
    everything: str | None = None
    """Why the cell may read any name at all, or None."""
    set_up: tuple[str, ...] = ()
    """Dotted targets, such as `pandas.DataFrame.total`, that the cell assigns on modules and installed classes."""
    paths: frozenset[Chain] = frozenset()
    """Dotted paths that the code follows from modules, the first part `@` and the module's name."""
    literals: frozenset[str] = frozenset()
    """String constants that may name files, or parts of such names."""
    uses: frozenset[str] = frozenset()
    """Hints: `files`, `network`, `process`, `time`, `random`."""
    interactive: frozenset[str] = frozenset()
    """`input` and `getpass`, when they can be reached."""


def analyse(
    tree: ast.Module,
    namespace: Mapping[str, object],
    functions_of: Callable[[str], Iterable[object]] | None = None,
    *,
    roots: Iterable[object] = (),
    main: Mapping[str, object] | None = None,
) -> Reads:
    """What the cell `tree` may read from `namespace`, just before it runs.

    Args:
        tree: as `parse` gives it.
        namespace: the notebook's names.
        functions_of: functions and classes somewhere inside the value of a name; None looks only into plain containers.
        roots: functions and classes that any cell can reach, such as those that a set-up cell put into a module.
        main: the globals of the notebook's functions, where `namespace` is only a view of them.
    """
    walk = _Reach(namespace, functions_of, namespace if main is None else main)
    uses = cell_uses(tree)
    walk.code(uses, NOTHING)
    for root in roots:
        walk.value(root, NOTHING)
    return walk.result(uses.settled)


_ATOMS = (int, float, complex, str, bytes, bool, type(None), range, slice, type(Ellipsis), bytearray)
_IMMUTABLE_TYPE = 1 << 8
"""CPython's flag of a class whose attributes cannot be set, hence that nobody can have patched."""
_WIDE = 10_000
"""Elements of a container that are looked at; `functions_of` knows about larger ones."""

_PROCESS_STATE = (
    ("@matplotlib", "rcParams"),
    ("@matplotlib.pyplot", "rcParams"),
    ("@pandas", "options"),
    ("@os", "environ"),
    ("@sys", "path"),
    ("@warnings", "filters"),
)
"""Paths that are process state, with versions of their own, so that assigning to them makes no set-up cell."""


class _Reach:
    def __init__(
        self,
        namespace: Mapping[str, object],
        functions_of: Callable[[str], Iterable[object]] | None,
        main: Mapping[str, object],
    ) -> None:
        self._namespace, self._main = namespace, main
        self._functions_of = functions_of
        self._names: dict[str, Killed] = {}
        self._seen: dict[int, tuple[object, Killed]] = {}
        """By id; the object is kept, so that the id stays its own."""
        self._codes: dict[int, tuple[Uses, Killed]] = {}
        self._reads: set[str] = set()
        self._builtins: set[str] = set()
        self._binds: set[str] = set()
        self._deletes: set[str] = set()
        self._functions: dict[int, FunctionType] = {}
        self._classes: dict[int, type] = {}
        self._modules: set[str] = set()
        self._everything: str | None = None
        self._set_up: dict[str, None] = {}
        self._literals: set[str] = set()
        self._uses: set[str] = set()
        self._interactive: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._pending: dict[str, list[Uses]] = {}
        self._own: set[str] = set()
        self._paths: set[Chain] = set()

    # --- code --------------------------------------------------------------------------------------------------------

    def code(self, uses: Uses, killed: Killed) -> None:
        """The code may run where `killed` holds."""
        known = self._codes.get(ident(uses))
        if known is not None:
            if known[1] <= killed:
                return
            killed = killed & known[1]
        self._codes[ident(uses)] = (uses, killed)
        self._binds |= uses.binds
        self._deletes |= uses.deletes
        self._literals |= uses.literals
        self._everything = self._everything or uses.everything
        self._aliases.update(uses.aliases)
        for name, parts in uses.pending.items():
            known_parts = self._pending.setdefault(name, [])
            known_parts += [p for p in parts if not any(p is k for k in known_parts)]
        for module in uses.imports:
            self._import(module)
        if uses.magics:
            self._uses.add("process")
        for module in uses.stars:
            self._star(module)
        for name, more in uses.loads.items():
            self.name(name, killed | more)
        for chain, more in uses.chains.items():
            self._chain(chain, killed | more)
        for chain, more in uses.stores.items():
            self._store(chain, killed | more)
        for chain, given, more in uses.setters:
            self._setter(chain, given, killed | more)
        for method, kind, text, more in uses.texts:
            self._text(method, kind, text, killed | more)

    def name(self, name: str, killed: Killed) -> None:
        """The name is loaded where `killed` holds."""
        known = self._names.get(name)
        if known is not None:
            if known <= killed:
                return
            killed = killed & known
        self._names[name] = killed
        for uses in self._pending.get(name, ()):
            self.code(uses, killed)
        if name in killed:
            return
        if name.startswith("_") or name in ("In", "Out"):
            self._output(name, killed)
        if name in self._namespace:
            self._reads.add(name)
            self._named_value(name, self._namespace[name], killed)
        elif hasattr(builtins, name) or name in ("__name__", "__file__"):
            self._builtins.add(name)
            self._builtin(name)
        else:
            self._reads.add(name)

    def _output(self, name: str, killed: Killed) -> None:
        """`_`, `_3` and `Out` lead to display results, which have pseudo-names."""
        results = _displayed(self._namespace)
        result = output_name(name, self._namespace, results)
        if result != name:
            self._reads.add(result)
            self._named_value(result, results[int(result[4:-1])], killed)
        elif name in ("In", "Out", "_oh", "_ih", "_i", "_ii", "_iii", "_dh"):
            self._everything = self._everything or name

    def _builtin(self, name: str) -> None:
        if name == "input":
            self._interactive.add("input")
        elif name == "open":
            self._uses.add("files")

    # --- values ------------------------------------------------------------------------------------------------------

    def _named_value(self, name: str, value: object, killed: Killed) -> None:
        """The value of a name: what this walk sees of it, and what lies deeper inside."""
        self.value(value, killed)
        if self._functions_of is None or type(value) in _ATOMS or isinstance(value, ModuleType):
            return
        if type(value) is FunctionType and not (value.__closure__ or value.__defaults__ or value.__dict__):
            return
        for found in self._functions_of(name):
            self.value(found, killed)

    def value(self, value: object, killed: Killed) -> None:
        """Code inside a value may run where `killed` holds."""
        kind = type(value)
        if kind in _ATOMS:
            return
        known = self._seen.get(ident(value))
        if known is not None:
            if known[1] <= killed:
                return
            killed = killed & known[1]
        self._seen[ident(value)] = (value, killed)
        if kind is ModuleType or isinstance(value, ModuleType):
            self._module(value)
        elif kind is FunctionType:
            self._function(value, killed)
        elif isinstance(value, type):
            self._class(value, killed)
        elif kind in (list, tuple, set, frozenset, dict, MappingProxyType):
            self._container(value, killed)
        elif not self._wrapper(value, killed):
            self._instance(value, killed)

    def _each(self, values: Iterable[object], killed: Killed) -> None:
        for value in values:
            if type(value) not in _ATOMS:
                self.value(value, killed)

    def _module(self, value: Any) -> None:
        module = str(getattr(value, "__name__", ""))
        if module == MAIN:
            self._everything = self._everything or "the module __main__"
        elif module:
            self._modules.add(module)

    def _function(self, function: Any, killed: Killed) -> None:
        if function.__globals__ is self._main or function.__module__ == MAIN:
            self._functions[ident(function)] = function
            self.code(code_uses(function.__code__), killed)
        elif function.__module__:
            self._modules.add(function.__module__)
        self._each(function.__defaults__ or (), killed)
        self._each((function.__kwdefaults__ or {}).values(), killed)
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # the variable is not bound yet
                continue
            self.value(content, killed)
        self._each(function.__dict__.values(), killed)

    def _container(self, value: Any, killed: Killed) -> None:
        parts = value.values() if isinstance(value, (dict, MappingProxyType)) else value
        if len(value) <= _WIDE:
            self._each(list(parts), killed)
        if isinstance(value, dict) and len(value) <= _WIDE:
            self._each([k for k in value if not isinstance(k, _ATOMS)], killed)

    def _wrapper(self, value: Any, killed: Killed) -> bool:
        """Values that stand for a function; True when it was one."""
        match value:
            case MethodType():
                inner: tuple[object, ...] = (value.__func__, value.__self__)
            case functools.partial():
                inner = (value.func, *value.args, *value.keywords.values())
            case functools.partialmethod():
                inner = (value.func, *value.args, *value.keywords.values())
            case staticmethod() | classmethod():
                inner = (value.__func__,)
            case property():
                inner = (value.fget, value.fset, value.fdel)
            case functools.cached_property():
                inner = (value.func,)
            case BuiltinFunctionType():
                owner = value.__self__
                inner = () if isinstance(owner, ModuleType) else (owner,)
                self._of_module(value.__module__)
            case GenericAlias():
                inner = (value.__origin__, *value.__args__)
            case _:
                return False
        self._each(inner, killed)
        return True

    def _instance(self, value: object, killed: Killed) -> None:
        kind = type(value)
        self.value(kind, killed)
        if isinstance(value, MemberDescriptorType):
            return
        # Library objects around a notebook function: an lru_cache, a numba dispatcher, a task, a vectorised function.
        for attribute in ("__wrapped__", "py_func", "pyfunc", "func", "fn", "run"):
            inner = _plain_attribute(value, attribute)
            if inner is not None:
                self.value(inner, killed)
        # Asking a partial for `__dict__` would make one, and Python treats a partial that has one differently.
        own = value.__reduce__()[2][3] if isinstance(value, functools.partial) else getattr(value, "__dict__", None)
        if isinstance(own, dict) and len(own) <= 200:
            self._each([v for v in own.values() if _may_hold_code(v)], killed)

    def _class(self, kind: type, killed: Killed) -> None:
        declared: object = kind.__module__  # a class body may set it to anything
        module = declared if isinstance(declared, str) else ""
        if module == MAIN:
            self._classes[ident(kind)] = kind
            if self._namespace.get(kind.__qualname__) is kind and kind.__qualname__ not in killed:
                self._reads.add(kind.__qualname__)  # what the class holds, an instance or a subclass may change
            self._each([v for v in vars(kind).values() if _may_hold_code(v)], killed)
            self._each(kind.__bases__, killed)
            if type(kind) is not type:
                self.value(type(kind), killed)
            return
        self._of_module(module)
        for base in kind.__mro__:
            if base.__flags__ & _IMMUTABLE_TYPE:
                continue
            if base.__module__ == MAIN and base is not kind:
                self.value(base, killed)
                continue
            for value in vars(base).values():  # a method that the notebook patched in
                if self._is_ours(value):
                    self.value(value, killed)

    def _is_ours(self, value: Any) -> bool:
        function = value
        if isinstance(value, property):
            function = value.fget
        elif isinstance(value, (staticmethod, classmethod)):
            function = value.__func__
        elif type(value) is not FunctionType:
            # A descriptor around a notebook class, as `register_dataframe_accessor` makes it.
            own = getattr(value, "__dict__", None)
            if not isinstance(own, dict) or len(own) > 8 or isinstance(value, type):
                return False
            return any(getattr(part, "__module__", None) == MAIN for part in own.values())
        return type(function) is FunctionType and function.__globals__ is self._main

    def _of_module(self, module: object) -> None:
        if isinstance(module, str) and module not in ("", MAIN, "builtins"):
            self._modules.add(module)

    # --- modules and paths -------------------------------------------------------------------------------------------

    def _import(self, dotted: str) -> None:
        if dotted.startswith("."):
            return  # a cell is in no package: the import fails when it runs
        parent, _, last = dotted.rpartition(".")
        if parent and dotted not in sys.modules:
            # `from a import b` is a module only if the import system says so; once imported it is known.
            holder = sys.modules.get(parent)
            if holder is not None and last in vars(holder) and not isinstance(vars(holder)[last], ModuleType):
                return
            if holder is not None and not hasattr(holder, "__path__"):
                return
        self._modules.add(dotted)

    def _star(self, module: str) -> None:
        loaded = sys.modules.get(module)
        if loaded is not None:
            public = getattr(loaded, "__all__", None)
            self._binds.update(public if public is not None else [n for n in vars(loaded) if not n.startswith("_")])

    def _root(self, chain: Chain, killed: Killed) -> tuple[object, Chain] | None:
        """The value that a path starts from, and the path with its module's real name; None when there is none."""
        head = chain[0]
        if head.startswith("@"):
            value: object = sys.modules.get(head[1:])
            return (_lookup_dotted(head[1:]) if value is None else value), chain
        if head in self._aliases and (head in killed or head not in self._namespace):
            dotted = self._aliases[head]
            return _lookup_dotted(dotted), (f"@{dotted}", *chain[1:])
        if head in killed or head not in self._namespace:
            return None
        value = self._namespace[head]
        if isinstance(value, ModuleType):
            return value, (f"@{value.__name__}", *chain[1:])
        if isinstance(value, type) and value.__module__ != MAIN:
            return value, (f"@{value.__module__}", *value.__qualname__.split("."), *chain[1:])
        return value, chain

    def _chain(self, chain: Chain, killed: Killed) -> None:
        found = self._root(chain, killed)
        if found is None:
            return
        value, path = found
        if not path[0].startswith("@"):
            return
        self._paths.add(path)
        for length in range(1, min(len(path), 4) + 1):
            reason = FRAME_READERS.get(_flatten(path[:length]))
            if reason is not None:
                self._everything = self._everything or reason
        if value is None:
            return
        for part in chain[1:]:
            if isinstance(value, ModuleType):
                self._module(value)
                value = _module_attribute(value, part)
            elif isinstance(value, type):
                value = _class_attribute(value, part)
            else:
                break
            if value is None:
                return
        if isinstance(value, (ModuleType, FunctionType, type)):
            self.value(value, killed)
        else:
            self._of_module(type(value).__module__)
            self._of_module(getattr(value, "__module__", None))

    def _store(self, chain: Chain, killed: Killed) -> None:
        found = self._root(chain, killed)
        if found is None:
            return
        _, path = found
        if not path[0].startswith("@"):
            return
        if any(path[: len(state)] == state for state in _PROCESS_STATE):
            return
        self._set_up[".".join(path)[1:]] = None

    def _setter(self, chain: Chain, given: Sequence[str], killed: Killed) -> None:
        named = [name for name in given if name not in self._aliases]
        if not registers(chain) and any(name in killed or is_data(self._namespace.get(name)) for name in named):
            return
        found = self._root(chain, killed)
        if found is None:
            return
        value, path = found
        if not path[0].startswith("@") and isinstance(value, FunctionType) and value.__module__ != MAIN:
            path = (f"@{value.__module__}", value.__name__)
        if path[0].startswith("@") and is_setter(path):
            self._set_up[".".join(path)[1:] + "()"] = None

    # --- text that names variables -----------------------------------------------------------------------------------

    def _engine(self, *packages: str) -> bool:
        """Whether one of the packages is loaded, or will be: the cell may be about to import it."""
        return any(package in sys.modules or package in self._modules for package in packages)

    def _looks_up_names(self, method: str) -> bool:
        """Whether a text that nobody can see before it is used may name variables."""
        if method in ("query", "eval"):
            return self._engine("pandas")
        if method == "sql":
            return self._engine("duckdb", "polars")
        if method in ("execute", "from_query", "read_sql"):
            return self._engine("duckdb")
        return method == "evaluate" and self._engine("numexpr")

    def _text(self, method: str, kind: str, text: str | None, killed: Killed) -> None:
        if kind == "name":
            assert text is not None
            self.name(text, killed)
            value = None if text in killed else self._namespace.get(text)
            if isinstance(value, str):
                self._names_in(method, value, killed)
            elif text in killed and text in self._binds and self._looks_up_names(method):
                self._everything = self._everything or f"{method}() of a computed text"
        elif kind == "text":
            assert text is not None
            self._names_in(method, text, killed)
        elif self._looks_up_names(method):
            self._everything = self._everything or f"{method}() of a computed text"

    def _names_in(self, method: str, text: str, killed: Killed) -> None:
        """Names of variables in a text: `@k` for pandas, table names in SQL, any identifier in formulas."""
        words = set(re.findall(r"@([A-Za-z_]\w*)", text)) if method in ("query", "eval") else set()
        if self._engine("duckdb", "polars") and re.search(r"\b(from|join|into|table|describe)\b", text, re.IGNORECASE):
            words |= set(re.findall(r"[A-Za-z_]\w*", text)) & set(self._namespace)
        if method in ("eval", "evaluate", "aes") or ("~" in text and self._engine("patsy", "formulaic", "statsmodels")):
            words |= set(re.findall(r"[A-Za-z_]\w*", text)) & set(self._namespace)
        for word in words:
            self.name(word, killed)

    # --- the result --------------------------------------------------------------------------------------------------

    def result(self, settled: Killed) -> Reads:
        by_name = "__name__" in self._builtins or "__name__" in self._reads or MAIN in self._literals
        if by_name and any(path[:2] == ("@sys", "modules") for path in self._paths):
            self._everything = self._everything or "sys.modules['__main__']"
        self._hint()
        return Reads(
            names=frozenset(self._reads),
            builtins=frozenset(self._builtins),
            binds=frozenset(self._binds),
            certain=settled & self._binds,
            deletes=frozenset(self._deletes),
            functions=tuple(self._functions.values()),
            classes=tuple(self._classes.values()),
            modules=frozenset(self._modules),
            everything=self._everything,
            set_up=tuple(self._set_up),
            paths=frozenset(self._paths),
            literals=frozenset(self._literals),
            uses=frozenset(self._uses),
            interactive=frozenset(self._interactive),
        )

    def _hint(self) -> None:
        tops = {module.partition(".")[0] for module in self._modules}
        self._uses |= {hint for hint, packages in _HINTS.items() if tops & packages}
        for path in self._paths:
            if path[-1].startswith(("read_", "load", "savefig", "to_csv", "to_parquet", "open")):
                self._uses.add("files")
            if path[-1] in ("system", "popen", "run", "Popen", "check_output") and path[0] in ("@os", "@subprocess"):
                self._uses.add("process")
            if path[-1] in ("now", "today", "utcnow", "uuid1"):
                self._uses.add("time")
            if "random" in path[1:]:
                self._uses.add("random")
        if "getpass" in tops:
            self._interactive.add("getpass")


_LAST = frozenset({"_", "__", "___"})
_NUMBERED = re.compile(r"_(\d+)")


def _displayed(namespace: Mapping[str, object]) -> Mapping[int, object]:
    results = namespace.get("_oh")
    return results if isinstance(results, dict) else {}


def output_name(name: str, namespace: Mapping[str, object], results: Mapping[int, object]) -> str:
    """The pseudo-name `Out[n]` of the display result that `_`, `__`, `___` or `_n` is now; any other name as it is.

    Which result `_` is depends on the cells that ran before, so a version of `_` must be looked up through this.

    Args:
        name: any name.
        namespace: where `_` is looked up.
        results: by number; negative ones are those that no `Out[n]` holds.
    """
    if name in _LAST and name in namespace:
        value = namespace[name]
        number = next((n for n in sorted(results, reverse=True) if results[n] is value), None)
        return name if number is None else f"Out[{number}]"
    numbered = _NUMBERED.fullmatch(name)
    return f"Out[{numbered[1]}]" if numbered and int(numbered[1]) in results else name


_HINTS: dict[str, set[str]] = {
    "network": {"requests", "httpx", "urllib", "urllib3", "aiohttp", "socket", "boto3", "botocore", "openai", "http"}
    | {"anthropic", "websockets", "paramiko", "ftplib", "smtplib", "psycopg", "psycopg2", "pymongo", "redis"},
    "process": {"subprocess", "multiprocessing"},
    "time": {"time"},
    "random": {"random", "secrets", "uuid"},
    "files": {"pathlib", "shutil", "glob", "h5py", "zarr", "pyarrow", "sqlite3", "joblib", "netCDF4", "zipfile"},
}


def _flatten(path: Chain) -> Chain:
    """`("@IPython.core", "getipython")` and the like as a module and one name."""
    module, *rest = path
    return (module if len(rest) < 2 else ".".join((module, *rest[:-1])), *rest[-1:])


def _lookup_dotted(dotted: str) -> object:
    """A module, or an attribute of one, that is loaded already; None otherwise."""
    module = sys.modules.get(dotted)
    if module is not None:
        return module
    parent, _, last = dotted.rpartition(".")
    holder = sys.modules.get(parent) if parent else None
    return None if holder is None else _module_attribute(holder, last)


def _module_attribute(module: ModuleType, name: str) -> object:
    # Never `getattr`: a lazy module would import.
    return vars(module).get(name) or sys.modules.get(f"{module.__name__}.{name}")


def _class_attribute(kind: type, name: str) -> object:
    for base in kind.__mro__:
        if name in vars(base):
            value = vars(base)[name]
            return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    return None


def _plain_attribute(value: object, name: str) -> object:
    """An attribute that is simply there: no property of a stranger's class is run for it."""
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict) and name in own:
        return own[name]
    found = _class_attribute(type(value), name)
    if isinstance(found, MemberDescriptorType) or (name == "pyfunc" and found is not None):
        return getattr(value, name, None)
    return None


def _may_hold_code(value: object) -> bool:
    return callable(value) or isinstance(
        value,
        (property, staticmethod, classmethod, functools.cached_property, functools.partialmethod, dict, list, tuple),
    )
