"""The versions of what a cell depends on: collected for a run, looked up for a recorded input.

Names are taken before the cell runs, since it may change them. What is observed (files, environment, generators it
moved) and the code it reached is known only afterwards; a recorded input of any kind is looked up by kind and key.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from durable_nb.cells import ABSENT, Input, Inputs, Reads, digest, output_name
from durable_nb.notebook._process_inputs import CHOSEN
from durable_nb.notebook._world import World
from durable_nb.snapshot import COUNTERS, ProcessState, Tracker

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


_PLOTTING = frozenset({"matplotlib", "pylab", "seaborn", "pandas"})
"""Packages that draw on the current figure."""


class InputBook:
    """Looks versions up in the session as it is now."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._process: ProcessState | None = None
        self.world: World | None = None
        self.setups: dict[str, str] = {}
        """Module to the version that the set-up cells so far have given it."""
        self.origins: dict[str, str] = {}
        """Name to the label of the cell that made it."""
        self.chosen: dict[str, str] = {}
        """Versions of the parts of the process's state of which only what cells chose counts."""
        """The version of the warning filters that cells have chosen so far."""

    def look_again(self) -> None:
        """Forget the process's state: something ran since it was read. Modules that are new came with no cell."""
        self._process = None
        COUNTERS.begin()

    def of_source(self, canonical: str) -> Inputs:
        """The inputs that are the cell itself."""
        return Inputs([Input("source", "", digest(canonical)), Input("python", "", PYTHON)])

    def of_names(self, reads: Reads) -> Iterable[Input]:
        """The names that the cell may read, as they are now; built-ins too, since a notebook may define them."""
        for name in sorted(reads.names):
            yield Input("name", name, self._name(name), self.origins.get(name))
        for name in sorted(reads.builtins):
            yield Input("name", name, ABSENT)
        if reads.everything is not None:
            yield Input("everything", reads.everything, self._everything())

    def of_doubtful(self, reads: Reads) -> dict[str, Input]:
        """The names that the cell may bind or leave alone, where they are bound now."""
        doubtful = sorted(reads.binds - reads.certain - reads.names)
        found = [Input("name", name, self._name(name), self.origins.get(name)) for name in doubtful]
        return {item.key: item for item in found if item.version != ABSENT}

    def of_figures(self, reads: Reads) -> Iterable[Input]:
        """The figures that pyplot has open: whoever reaches pyplot may draw on them without naming them."""
        if not any(module.partition(".")[0] in _PLOTTING for module in reads.modules):
            return
        for name in sorted(name for name in self._tracker.bindings() if name.startswith("Figure[")):
            yield Input("name", name, self._name(name), self.origins.get(name))

    def of_setups(self, modules: Iterable[str]) -> Iterable[Input]:
        """What set-up cells have done to the modules that the cell can reach; built-ins every cell can."""
        for module in sorted({"builtins", *(name.partition(".")[0] for name in modules)}):
            yield Input("setup", module, self._setup(module))

    def current(self, item: Input) -> Input:
        """A recorded input with its present version, and where that comes from."""
        origin = self.origins.get(item.key) if item.kind == "name" else None
        return Input(item.kind, item.key, self._version(item.kind, item.key), origin)

    def _version(self, kind: str, key: str) -> str:
        match kind:
            case "name":
                return self._name(key)
            case "everything":
                return self._everything()
            case "python":
                return PYTHON
            case "process":
                return self._process_version(key)
            case "setup":
                return self._setup(key)
            case _:
                assert self.world is not None
                return self.world.version(kind, key)

    def _process_version(self, key: str) -> str:
        if key in CHOSEN:
            return self.chosen.get(key, "default")
        if self._process is None:
            self._process = ProcessState.capture()
        return self._process.versions.get(key, "default")

    def _name(self, name: str) -> str:
        # `_` is whatever result came last, which the cells before decide.
        version = self._tracker.version(output_name(name, self._tracker.namespace, self._tracker.bound.results()))
        return ABSENT if version.kind == "missing" else version.text

    def _everything(self) -> str:
        parts = [text for name in sorted(self._tracker.names()) for text in (name, self._name(name))]
        return digest(*parts)

    def _setup(self, top: str) -> str:
        return self.setups.get(top, ABSENT)
