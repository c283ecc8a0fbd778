"""Code that is not in the notebook: local modules by what was loaded, installed distributions by version.

A local module is whatever lies outside site-packages and the standard library; an editable install is one. Its version
is a hash of its source *as loaded*: the file may have been edited since, and the kernel still runs the old code.
So the hash is taken when a module is first seen, which `notice` does after each cell; a reload gives the module a new
`__spec__`, and is seen by that.

A distribution stands for all it requires, since a cell that calls pandas runs NumPy.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType

from durable_nb.cells._digest import digest
from durable_nb.cells._fingerprint import ABSENT
from durable_nb.cells._places import Places

__all__ = ["Distributions", "LocalModules"]

_NEVER = frozenset({"__main__", "__mp_main__", "builtins", "sys"})
_OURS = "durable_nb"


class LocalModules:
    """Versions of the user's own modules."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._loaded: dict[str, tuple[object, str]] = {}
        """Module to its spec and the hash of its source when it was first seen with that spec."""
        self._seen = 0
        self._names: set[str] = set()
        self._followed: dict[str, tuple[object, int, tuple[str, ...]]] = {}
        """Loaded module to its spec, the size of its dict and the local modules it leads to."""
        self._imports: dict[str, frozenset[str]] = {}
        """Hash of a source to the dotted names it imports, relative ones resolved against `package|`."""

    def notice(self) -> None:
        """Remember the source of local modules that have been imported since the last call; cheap when none were."""
        if len(sys.modules) == self._seen and len(self._names) == self._seen:
            return
        for name in sys.modules.keys() - self._names:
            self._names.add(name)
            module = sys.modules.get(name)
            if module is not None and self._file(module) is not None:
                self._version(name, module)
        self._seen = len(sys.modules)
        self._names &= sys.modules.keys()

    def is_local(self, name: str) -> bool:
        """Whether a module is the user's own; modules that are not loaded are looked for without importing anything."""
        return self._source_file(name) is not None

    def versions(self, reached: Iterable[str]) -> dict[str, str]:
        """Versions of the local modules among `reached`, and of the local modules that those import."""
        found: dict[str, str] = {}
        queue = [name for dotted in reached for name in _with_parents(dotted)]
        visited: set[str] = set()
        while queue:
            name = queue.pop()
            if name in visited or name in _NEVER or name.partition(".")[0] == _OURS:
                continue
            visited.add(name)
            version = self.version(name)
            if version == ABSENT:
                continue
            found[name] = version
            for other in self._leads_to(name, version):
                queue.extend(_with_parents(other))
        return dict(sorted(found.items()))

    def _leads_to(self, name: str, version: str) -> Iterable[str]:
        """The modules that a local module imports; looked for once as long as nothing about the module changes."""
        module = sys.modules.get(name)
        if module is None:
            return self._imported_by(name, version)
        stamp, size = getattr(module, "__spec__", None) or module, len(vars(module))
        known = self._followed.get(name)
        if known is None or known[0] is not stamp or known[1] != size:
            known = self._followed[name] = (stamp, size, tuple(dict.fromkeys(self._imported_by(name, version))))
        return known[2]

    def version(self, name: str) -> str:
        """The version of one local module, as loaded or else as it would be loaded; `ABSENT` when there is none."""
        module = sys.modules.get(name)
        if module is not None:
            return self._version(name, module) if self._file(module) is not None else ABSENT
        path = self._source_file(name)
        return ABSENT if path is None else _hash_source(path)

    # --- sources -----------------------------------------------------------------------------------------------------

    def _version(self, name: str, module: ModuleType) -> str:
        spec = getattr(module, "__spec__", None)
        known = self._loaded.get(name)
        if known is not None and known[0] is (spec or module):
            return known[1]
        path = self._file(module)
        version = ABSENT if path is None else _hash_source(path)
        self._loaded[name] = (spec or module, version)
        return version

    def _file(self, module: object) -> str | None:
        """The file of a local module, or None for anything else; `sys.modules` may hold any object."""
        path = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if not isinstance(path, str) or not self._places.is_local_source(path):
            return None
        name = getattr(module, "__name__", "")
        return None if name in _NEVER or str(name).partition(".")[0] == _OURS else path

    def _source_file(self, name: str) -> str | None:
        module = sys.modules.get(name)
        if module is not None:
            return self._file(module)
        spec = _find_spec(name)
        origin = spec.origin if spec is not None and spec.has_location else None
        return origin if origin is not None and self._places.is_local_source(origin) else None

    def _imported_by(self, name: str, version: str) -> Iterator[str]:
        module = sys.modules.get(name)
        known = self._imports.get(version)
        if known is None:
            path = self._source_file(name)
            known = self._imports[version] = _imports_of(path) if path is not None else frozenset()
        package = name if _is_package(name, module) else name.rpartition(".")[0]
        for dotted in known:
            level = len(dotted) - len(dotted.lstrip("."))
            if level:
                base = package.rsplit(".", level - 1)[0] if level > 1 else package
                dotted = f"{base}.{dotted[level:]}" if base else dotted[level:]
            yield dotted
        # What was brought in by other means than an import statement shows in the module's dict.
        for value in list(vars(module).values()) if module is not None else ():
            other = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(other, str) and other != name and isinstance(value, (ModuleType, FunctionType, type)):
                loaded = sys.modules.get(other)
                if loaded is not None and self._file(loaded) is not None:
                    yield other


def _with_parents(dotted: str) -> Iterator[str]:
    while dotted:
        yield dotted
        dotted = dotted.rpartition(".")[0]


def _is_package(name: str, module: ModuleType | None) -> bool:
    if module is not None:
        return hasattr(module, "__path__")
    spec = _find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module would come from. Unlike `importlib.util.find_spec` this never imports the parents."""
    path: list[str] | None = None
    spec: importlib.machinery.ModuleSpec | None = None
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        dotted = ".".join(parts[:length])
        loaded = sys.modules.get(dotted)
        if loaded is not None and length < len(parts):
            found = getattr(loaded, "__path__", None)
            if found is None:
                return None
            path = list(found)
            continue
        spec = importlib.machinery.PathFinder.find_spec(dotted, path)
        if spec is None and path is None:
            spec = _find_editable(dotted)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def _find_editable(name: str) -> importlib.machinery.ModuleSpec | None:
    """Editable installs may come through a finder of their own on `sys.meta_path`."""
    for finder in sys.meta_path:
        if (
            "editable"
            in f"{getattr(finder, '__name__', '')}{type(finder).__name__}{getattr(finder, '__module__', '')}".lower()
        ):
            spec: importlib.machinery.ModuleSpec | None = finder.find_spec(name, None)
            if spec is not None:
                return spec
    return None


def _hash_source(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return digest("module", file.read())
    except OSError:
        return ABSENT


def _imports_of(path: str) -> frozenset[str]:
    """The dotted names that a source file imports, with leading dots for relative imports."""
    if not path.endswith(".py"):
        return frozenset()
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                dots = "." * level
                base = module or ""
                if base:
                    found.add(dots + base)
                found |= {f"{dots}{base}.{a.name}" if base else f"{dots}{a.name}" for a in names if a.name != "*"}
            case ast.Call(args=[ast.Constant(value=str() as name), *_]) if _is_import_call(node):
                found.add(name)
            case _:
                pass
    return frozenset(found)


def _is_import_call(node: ast.Call) -> bool:
    function = node.func
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    return name in ("import_module", "__import__")


# --- Distributions ---------------------------------------------------------------------------------------------------

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


class Distributions:
    """Versions of installed distributions, by the packages that cells reach."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, ...]] | None = None
        self._folders: tuple[tuple[str, int], ...] = ()
        self._facts: dict[str, tuple[str, str, tuple[str, ...]] | None] = {}
        """Normalised name to name, version and requirements."""
        self._quick: dict[str, tuple[str, ...]] = {}
        self._closures: dict[frozenset[str], dict[str, str]] = {}

    def versions(self, packages: Iterable[str]) -> dict[str, str]:
        """Versions of the distributions that the packages come from, and of all that these require.

        Args:
            packages: module names, dotted or not; those of the standard library and of no distribution give nothing.
        """
        tops = frozenset(name.partition(".")[0] for name in packages) - sys.stdlib_module_names - {_OURS}
        self._refresh()
        known = self._closures.get(tops)
        if known is None:
            known = self._closures[tops] = self._closure(tops)
            if len(self._closures) > 4096:
                self._closures.clear()
        return dict(known)

    def version(self, distribution: str) -> str:
        """The version of one distribution, `ABSENT` when it is not installed."""
        self._refresh()
        facts = self._fact(_normalise(distribution))
        return ABSENT if facts is None else facts[1]

    def _closure(self, tops: frozenset[str]) -> dict[str, str]:
        queue = [name for top in tops for name in self._owner(top)]
        found: dict[str, str] = {}
        while queue:
            name = _normalise(queue.pop())
            if name in found or name == "durable-nb":
                continue
            facts = self._fact(name)
            if facts is not None:
                found[name] = facts[1]
                queue.extend(facts[2])
        return dict(sorted(found.items()))

    def _fact(self, name: str) -> tuple[str, str, tuple[str, ...]] | None:
        if name not in self._facts:
            try:
                metadata = importlib.metadata.distribution(name)
            except (importlib.metadata.PackageNotFoundError, ValueError):
                self._facts[name] = None
            else:
                self._facts[name] = (name, metadata.version or "unknown", tuple(_requirements(metadata)))
        return self._facts[name]

    def _owner(self, top: str) -> tuple[str, ...]:
        """The distributions that provide a top-level package."""
        known = self._quick.get(top)
        if known is not None:
            return known
        if _is_made_up(top):
            return ()
        facts = self._fact(_normalise(top))
        if facts is not None and self._owners is None and _provides(facts[0], top):
            found: tuple[str, ...] = (facts[0],)
        else:
            if self._owners is None:
                self._owners = _scan_owners(self._folders)
            found = self._owners.get(top, ())
        self._quick[top] = found
        return found

    def _refresh(self) -> None:
        """Forget what an installation in this session has changed, except versions of packages already loaded."""
        folders = tuple((path, _changed_at(path)) for path in sys.path if path.endswith("-packages"))
        if folders == self._folders:
            return
        first, self._folders = not self._folders, folders
        if first:
            return
        importlib.invalidate_caches()
        loaded = {name for top, owners in self._quick.items() if top in sys.modules for name in owners}
        self._facts = {name: facts for name, facts in self._facts.items() if name in loaded}
        self._owners = None
        self._quick = {top: owners for top, owners in self._quick.items() if top in sys.modules and owners}
        self._closures.clear()


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(metadata: importlib.metadata.Distribution) -> Iterator[str]:
    for line in metadata.requires or ():
        if "extra ==" in line or "extra==" in line:
            continue
        match = _REQUIREMENT.match(line)
        if match:
            yield match[1]


def _top_levels(metadata: importlib.metadata.Distribution) -> set[str]:
    declared = metadata.read_text("top_level.txt")
    if declared:
        return set(declared.split())
    record = metadata.read_text("RECORD") or ""
    tops: set[str] = set()
    for line in record.splitlines():
        path = line.partition(",")[0].strip('"')
        first, slash, _ = path.partition("/")
        if slash:
            tops.add(first)
        elif path.endswith((".py", ".so", ".pyd")):
            tops.add(path.partition(".")[0])
    return tops


def _is_made_up(top: str) -> bool:
    """Whether a module is only a name that compiled code shares its types under (`_cython_3_1_2`): nobody installed it.

    Asked because the answer of the metadata takes a look at every distribution.
    """
    module = sys.modules.get(top)
    facts = vars(module) if isinstance(module, ModuleType) else {"__file__": top}
    return not any(facts.get(fact) for fact in ("__file__", "__path__", "__spec__", "__loader__"))


def _provides(distribution: str, top: str) -> bool:
    tops = _top_levels(importlib.metadata.distribution(distribution))
    return top in tops or not tops


@functools.lru_cache(maxsize=4)
def _scan_owners(folders: tuple[tuple[str, int], ...]) -> dict[str, tuple[str, ...]]:  # noqa: ARG001 - what it depends on
    """Which distributions provide each top-level package. A look at all of them, once as long as no folder changes."""
    owners: dict[str, list[str]] = {}
    for metadata in importlib.metadata.distributions():
        name = metadata.metadata["Name"]
        if name:
            for top in _top_levels(metadata):
                owners.setdefault(top, []).append(_normalise(name))
    return {top: tuple(sorted(set(names))) for top, names in owners.items()}
