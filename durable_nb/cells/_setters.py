"""Statements that set something inside a package, told by their form: `torch.set_default_dtype(torch.float64)`.

Theory. What such a call sets lies in C, in classes or in objects deep inside the package, where no comparison of
modules finds it. So a statement that is nothing but a call of a package's own function, named as setters are and given
nothing of the notebook's data, is taken for a set-up: its cell runs every time, as one that assigns to the package
does. Being wrong costs such a cell its checkpoint, and says so; to overlook one would leave the package as nobody set
it.
`nx.set_node_attributes(graph, values)` is none: it is about the graph.
"""

from __future__ import annotations

import re
from types import BuiltinFunctionType, FunctionType, ModuleType

from durable_nb.cells._module_state import is_installed
from durable_nb.cells._uses import Chain

_SETTER = re.compile(r"(set|enable|disable|install|init|initialize|use|add|configure)(_\w+|[A-Z]\w*)?")
_PATCH = re.compile(r"_*(un)?(monkey_?)?patch(_\w+)?")
"""Functions that replace parts of packages, other ones as well: no package keeps that among its settings."""

_REGISTER = re.compile(r"(un|de)?register(_\w+|[A-Z]\w*)?")
"""Functions that add to a table of the package, whatever they are given."""

_OF_SETTINGS = frozenset({"config", "options", "settings", "renderers", "data_transformers", "themes"})
"""Parts of packages that hold nothing else, whatever their functions are called (`jax.config.update`)."""

_PATCHES = frozenset(
    {("nest_asyncio", "apply"), ("tqdm", "pandas"), ("holoviews", "extension"), ("panel", "extension")}
    | {("calendar", "setfirstweekday"), ("os", "nice"), ("tracemalloc", "start"), ("tracemalloc", "stop")}
    | {("logging", "addLevelName"), ("logging", "setLogRecordFactory"), ("logging", "setLoggerClass")}
)
"""First and last parts of calls with other names that are known to patch or set up packages."""

_COME_BACK = frozenset(
    {
        "IPython",
        "csv",
        "decimal",
        "durable_nb",
        "gc",
        "locale",
        "logging",
        "matplotlib",
        "numpy",
        "os",
        "pandas",
        "pylab",
    }
    | {"random", "resource", "seaborn", "signal", "sklearn", "socket", "sys", "time", "warnings"}
)
"""Packages whose settings are state of the process, which checkpoints hold, or are seen by comparison."""

_TABLES_COME_BACK = frozenset({"IPython", "csv", "durable_nb"})
"""Those of them whose tables are state of the process too."""

_ATOMS = (int, float, complex, str, bytes, type(None))


def looks_like_setter(chain: Chain) -> bool:
    """Whether a dotted path, from its root to the function, may be one that sets something."""
    last = chain[-1]
    return (
        bool(_SETTER.fullmatch(last) or _PATCH.fullmatch(last) or registers(chain))
        or any(last == end for _, end in _PATCHES)
        or not _OF_SETTINGS.isdisjoint(chain)
    )


def is_setter(path: Chain) -> bool:
    """The same of a path that starts with a module, `("@torch", "set_default_dtype")`."""
    top = path[0].removeprefix("@").partition(".")[0]
    if (top, path[-1]) in _PATCHES:
        return True
    adds = registers(path) and top not in _TABLES_COME_BACK
    if len(path) > 1 and is_installed(top) and (adds or _PATCH.fullmatch(path[-1])):
        return True
    if len(path) < 2 or top in _COME_BACK or not is_installed(top):
        return False
    return bool(_SETTER.fullmatch(path[-1])) or not _OF_SETTINGS.isdisjoint(path[:-1])


def registers(chain: Chain) -> bool:
    """Whether a dotted path may lead to a function that adds to a table of its package."""
    return bool(_REGISTER.fullmatch(chain[-1]))


def is_data(value: object) -> bool:
    """Whether an argument is what the call is about, not what it sets."""
    return not isinstance(value, (*_ATOMS, type, ModuleType, FunctionType, BuiltinFunctionType))
