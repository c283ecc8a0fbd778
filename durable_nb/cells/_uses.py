"""What one piece of code uses, before anything is known about the values behind the names.

Two readers fill a `Uses`: `_scopes.py` reads the tree of a cell, where the order of statements matters, and
`_code.py` reads the bytecode of a live function, which is there even when its source is not.
"""

from __future__ import annotations

from dataclasses import field

from durable_nb._dataclass import dataclass

Killed = frozenset[str]
"""Names whose value from before the cell can no longer be seen: the cell has bound or deleted them for certain."""

NOTHING: Killed = frozenset()

Chain = tuple[str, ...]
"""A dotted path: a global name and the attributes behind it. A first part `@a.b` is the module `a.b` itself."""


@dataclass(slots=True)
class Uses:
    """Global names and effects of one piece of code. Only the module-level code of a cell has killed names."""

    loads: dict[str, Killed] = field(default_factory=dict)
    """Name to the names that are killed at every place where it is loaded."""
    binds: set[str] = field(default_factory=set)
    settled: Killed = NOTHING
    """Of a cell: the names that it has certainly bound or deleted when it ends."""
    deletes: set[str] = field(default_factory=set)
    chains: dict[Chain, Killed] = field(default_factory=dict)
    stores: dict[Chain, Killed] = field(default_factory=dict)
    """Attributes (and items of attributes) that are assigned or deleted."""
    imports: set[str] = field(default_factory=set)
    """Dotted modules, and `a.b` for every `from a import b`: whether that is a module is not known here."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Names that an import binds, to what they stand for."""
    stars: set[str] = field(default_factory=set)
    """Modules of `from m import *`."""
    pending: dict[str, list[Uses]] = field(default_factory=dict)
    """Code that runs only when a name is used: functions and classes that the cell defines."""
    everything: str | None = None
    """Why the code may read any name at all."""
    literals: set[str] = field(default_factory=set)
    texts: list[tuple[str, str, str | None, Killed]] = field(default_factory=list)
    """Calls whose text may name variables: method, kind of argument (`text`, `name`, `computed`), the text or name."""
    setters: list[tuple[Chain, tuple[str, ...], Killed]] = field(default_factory=list)
    """Statements that are a call which may set something in a package: the function, and the names it is given."""
    magics: set[str] = field(default_factory=set)
    """Magics that start a program, as hints."""

    def load(self, name: str, killed: Killed) -> None:
        """The code reads a global name."""
        known = self.loads.get(name)
        self.loads[name] = killed if known is None else known & killed

    def chain(self, chain: Chain, killed: Killed) -> None:
        """The code follows a dotted path."""
        known = self.chains.get(chain)
        self.chains[chain] = killed if known is None else known & killed

    def store(self, chain: Chain, killed: Killed) -> None:
        """The code assigns behind a dotted path."""
        known = self.stores.get(chain)
        self.stores[chain] = killed if known is None else known & killed

    def import_module(self, dotted: str) -> None:
        """The code imports a module, hence its parents."""
        while dotted:
            self.imports.add(dotted)
            dotted = dotted.rpartition(".")[0]

    def absorb(self, other: Uses, killed: Killed) -> None:
        """`other` runs here, where `killed` holds."""
        for name, more in other.loads.items():
            self.load(name, killed | more)
        for chain, more in other.chains.items():
            self.chain(chain, killed | more)
        for chain, more in other.stores.items():
            self.store(chain, killed | more)
        for name, uses in other.pending.items():
            self.pending.setdefault(name, []).extend(uses)
        self.texts += [(m, kind, text, killed | more) for m, kind, text, more in other.texts]
        self.setters += [(chain, names, killed | more) for chain, names, more in other.setters]
        self.binds |= other.binds
        self.deletes |= other.deletes
        self.imports |= other.imports
        self.aliases.update(other.aliases)
        self.stars |= other.stars
        self.literals |= other.literals
        self.magics |= other.magics
        self.everything = self.everything or other.everything


FRAME_READERS: dict[Chain, str] = {
    ("@sys", "_getframe"): "sys._getframe()",
    ("@sys", "_current_frames"): "sys._current_frames()",
    ("@inspect", "currentframe"): "inspect.currentframe()",
    ("@inspect", "stack"): "inspect.stack()",
    ("@gc", "get_objects"): "gc.get_objects()",
    ("@builtins", "eval"): "eval()",
    ("@builtins", "exec"): "exec()",
    ("@builtins", "globals"): "globals()",
    ("@unittest", "main"): "unittest.main()",
    ("@doctest", "testmod"): "doctest.testmod()",
    ("@doctest", "run_docstring_examples"): "doctest",
    ("@runpy", "run_path"): "runpy",
    ("@runpy", "run_module"): "runpy",
    ("@code", "interact"): "code.interact()",
    ("@IPython", "get_ipython"): "get_ipython()",
    ("@IPython", "embed"): "IPython.embed()",
    ("@ipytest", "run"): "ipytest.run()",
}
"""Functions that find the notebook's names by themselves."""

NAMESPACE_READERS = {"eval", "exec", "globals", "get_ipython", "breakpoint"}
"""Built-in names whose use may read any name; `locals`, `vars` and `dir` do so at the top of a cell only."""

TEXT_METHODS = {"query", "eval", "evaluate", "sql", "execute", "from_formula", "read_sql", "from_query"}
"""Methods that may look variables up by name inside a text argument."""


def remember_literal(uses: Uses, text: str) -> None:
    """Keep a string constant that could be, or be part of, the name of a file."""
    if text and len(text) <= 1024 and "\n" not in text and "\0" not in text:
        uses.literals.add(text)
