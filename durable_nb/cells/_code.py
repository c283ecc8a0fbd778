"""The global names that a live function's bytecode uses.

The source of a function may be gone; its code never is. The reader is linear: it does not follow jumps, since
everything a function might load counts. It knows three short idioms of the compiler: a global followed by attribute
loads is a dotted path; a path just before a store of an attribute or item is what is stored into; an import stored in
a local makes that local stand for the module.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType

from durable_nb.cells._uses import NAMESPACE_READERS, NOTHING, TEXT_METHODS, Chain, Uses, remember_literal

__all__ = ["code_uses"]

_LOADS_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_LOADS_ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"}
_LOADS_LOCAL = {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF"}
_STORES_LOCAL = {"STORE_FAST", "STORE_DEREF"}
_SILENT = {"CACHE", "EXTENDED_ARG", "PRECALL", "PUSH_NULL", "NOP", "RESUME", "COPY", "SWAP"}


@lru_cache(maxsize=4096)
def code_uses(code: CodeType) -> Uses:
    """What the code and the code nested in it use. The result is shared: do not change it."""
    uses = Uses()
    _Reader(code, uses).read()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            uses.absorb(code_uses(constant), NOTHING)
        elif isinstance(constant, tuple):
            for part in constant:
                if isinstance(part, str):
                    remember_literal(uses, part)
    return uses


def _unfused(operation: str, argument: object) -> tuple[tuple[str, object], ...]:
    """Python 3.13 fuses two instructions on locals: `STORE_FAST_LOAD_FAST` and the like."""
    if not isinstance(argument, tuple) or "_FAST_" not in operation:
        return ((operation, argument),)
    first, _, second = operation.partition("_FAST_")
    return ((f"{first}_FAST", argument[0]), (second, argument[1]))


class _Reader:
    def __init__(self, code: CodeType, uses: Uses) -> None:
        self._code = code
        self._uses = uses
        self._path: Chain | None = None
        """The dotted path on top of the stack, while it is being loaded."""
        self._last: Chain | None = None
        """The path loaded before the value now on top: what an item store may store into."""
        self._modules: dict[str, str] = {}
        self._imported: str | None = None
        self._from: str | None = None
        self._setter = False
        self._method: str | None = None

    def read(self) -> None:
        for step in dis.get_instructions(self._code):
            if step.opname not in _SILENT:
                for operation, argument in _unfused(step.opname, step.argval):
                    self._step(operation, argument)
        self._end_path()

    def _step(self, operation: str, argument: object) -> None:
        if operation in _LOADS_ATTRIBUTE:
            self._attribute(str(argument))
            return
        if operation in ("STORE_ATTR", "DELETE_ATTR"):
            if self._path is not None:
                self._uses.store((*self._path, str(argument)), NOTHING)
        elif operation in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            target = self._path if self._path and len(self._path) > 1 else self._last
            if target is not None and len(target) > 1:
                self._uses.store(target, NOTHING)
        self._end_path()
        if operation in _LOADS_GLOBAL:
            self._global(str(argument))
        elif operation in _LOADS_LOCAL:
            module = self._modules.get(str(argument))
            if module is not None:
                self._start_path((f"@{module}",))
        elif operation == "LOAD_CONST":
            self._constant(argument)
        elif operation in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            self._store_global(operation, str(argument))
        elif operation in ("IMPORT_NAME", "IMPORT_FROM", *_STORES_LOCAL):
            self._import(operation, str(argument))

    # --- paths -------------------------------------------------------------------------------------------------------

    def _start_path(self, path: Chain) -> None:
        self._path = path
        if self._setter and not path[0].startswith("@builtins"):
            self._uses.store((*path, "*"), NOTHING)
            self._setter = False

    def _attribute(self, name: str) -> None:
        if self._path is not None:
            self._path = (*self._path, name)
        if name in TEXT_METHODS:
            self._method = name

    def _end_path(self) -> None:
        if self._path is not None:
            if len(self._path) > 1:
                self._uses.chain(self._path, NOTHING)
            self._last = self._path
        self._path = None

    # --- names -------------------------------------------------------------------------------------------------------

    def _global(self, name: str) -> None:
        self._uses.load(name, NOTHING)
        if name in NAMESPACE_READERS:
            self._uses.everything = self._uses.everything or f"{name}() in {self._code.co_name}"
        if self._method:
            self._uses.texts.append((self._method, "name", name, NOTHING))
            self._method = None
        if name in ("setattr", "delattr"):
            self._setter = True
            return
        self._start_path((name,))

    def _constant(self, value: object) -> None:
        if not isinstance(value, str):
            return
        remember_literal(self._uses, value)
        if self._method or "~" in value:
            self._uses.texts.append((self._method or "", "text", value, NOTHING))
            self._method = None

    def _store_global(self, operation: str, name: str) -> None:
        if operation == "STORE_GLOBAL":
            self._uses.binds.add(name)
            if self._imported is not None:
                self._uses.aliases[name] = self._from or self._imported
        else:
            self._uses.load(name, NOTHING)
            self._uses.deletes.add(name)

    def _import(self, operation: str, name: str) -> None:
        if operation == "IMPORT_NAME":
            self._imported, self._from = name, None
            if name:
                self._uses.import_module(name)
            if name == "__main__":
                self._uses.everything = self._uses.everything or "import __main__"
        elif operation == "IMPORT_FROM" and self._imported is not None:
            self._from = f"{self._imported}.{name}"
            self._uses.imports.add(self._from)
            self._uses.chain((f"@{self._imported}", name), NOTHING)
        elif operation in _STORES_LOCAL and self._imported is not None:
            if self._from is not None:
                self._modules[name] = self._from
                self._from = None
            else:
                # `import a.b` binds `a`; `import a.b as c` stores what IMPORT_FROM gave last.
                self._modules[name] = self._imported if name != self._imported.partition(".")[0] else name
                self._imported = None
