"""Process state that cells change without binding a name: generators, options, paths, the environment.

Each part is one pseudo-name (`<random>`, `<cwd>`…) with a version, a value to store and a way to put it back. A
generator that nobody moved since the process started has the version `unseeded`: its content is different in every
process and means nothing. Options that equal their defaults have the version `default`, whether or not their package
is loaded, so that importing it is no change.
"""

from __future__ import annotations

import copy
import importlib.abc
import importlib.machinery
import importlib.util
import locale
import random
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field
from types import ModuleType
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.snapshot._counters import COUNTERS
from durable_nb.snapshot._process_part import Options, Part, Steady, changes_in_place, equal, packed, unpacked
from durable_nb.snapshot._process_python import (
    Decimal,
    Environment,
    Locale,
    Logging,
    RecursionLimit,
    Signals,
    SysPath,
    Umask,
    Warnings,
    WorkingDirectory,
    looks_secret,
)
from durable_nb.snapshot._process_settings import Backend, Interactive, Registered, Settings
from durable_nb.snapshot._twister import raw_state
from durable_nb.snapshot._warned import Warned

__all__ = ["PARTS", "ProcessState", "looks_secret", "note_starts", "settle_starts", "started_in", "whole_state"]


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The process's state at one moment."""

    versions: Mapping[str, str]
    """Per pseudo-name: `unseeded`, `default` or a digest."""
    values: Mapping[str, Any] = field(repr=False)
    """Per pseudo-name, plain values: what `restore` needs."""

    @classmethod
    def capture(cls) -> ProcessState:
        """Read everything; well under a millisecond."""
        versions: dict[str, str] = {}
        values: dict[str, Any] = {}
        for part in PARTS:
            value = part.read()
            if value is None:
                versions[part.name] = part.absent
                continue
            values[part.name] = value
            versions[part.name] = part.version(value)
        return cls(versions, values)

    @staticmethod
    def diff(before: ProcessState, after: ProcessState) -> dict[str, Any]:
        """What changed, as JSON values, for the manifest.

        Each entry has `version` and, unless the new value cannot be stored, `value`; `unstored` names variables whose
        values look secret: a cell that sets one runs again.
        """
        found: dict[str, Any] = {}
        for part in PARTS:
            if before.versions.get(part.name) == after.versions.get(part.name):
                continue
            entry: dict[str, Any] = {"version": after.versions[part.name], "before": before.versions.get(part.name)}
            if part.name in after.values:
                entry |= part.delta(before.values.get(part.name), after.values[part.name])
            found[part.name] = entry
        return found

    @staticmethod
    def restore(delta: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
        """Put a stored delta back; returns, in words, what could not be."""
        failed: list[str] = []
        for part in PARTS:
            entry = delta.get(part.name)
            if entry is None:
                continue
            failed.extend(f"{part.name}: {name}" for name in entry.get("unstored", ()))
            if "value" in entry or entry.get("version") == part.absent:
                try:
                    if "value" in entry:
                        part.write(entry["value"])
                    else:
                        part.reset()
                except (OSError, ValueError, ImportError, AttributeError, locale.Error) as exc:
                    failed.append(f"{part.name}: {exc}")
        return tuple(failed)


# --- generators ------------------------------------------------------------------------------------------------------


class _Generator(Steady):
    absent = "unseeded"

    def __init__(self) -> None:
        super().__init__()
        self.start: Any = None

    def state(self) -> Any:
        raise NotImplementedError

    def note_start(self) -> None:
        """Remember the state that nobody chose."""
        self.start = self.state()

    def read(self) -> Any:
        now = self.state()
        if now is None:
            return None
        if self.start is None:
            self.start = now
        return None if now == self.start else now

    def reset(self) -> None:
        """Nothing: a generator that is back where it started has the numbers of its process, whatever they are."""


class _Random(_Generator):
    name = "<random>"

    def __init__(self) -> None:
        super().__init__()
        self._raw: tuple[bytes, Any] | None = None
        """The state that `_found` is of."""
        self._found: Any = None

    def state(self) -> Any:
        return random.getstate()

    def note_start(self) -> None:
        super().note_start()
        self._raw = None

    def read(self) -> Any:
        generator: Any = getattr(random.getstate, "__self__", None)
        state = raw_state(generator)
        raw = None if state is None else (state, generator.gauss_next)
        if raw is None or raw != self._raw:
            self._raw, self._found = raw, super().read()
        return self._found

    def write(self, value: Any) -> None:
        random.setstate(unpacked(value))


class _NumpyRandom(_Generator):
    name = "<numpy.random>"

    def state(self) -> Any:
        mtrand: Any = sys.modules.get("numpy.random.mtrand")
        if mtrand is None or not hasattr(mtrand, "_rand"):
            return None
        kind, keys, position, has_gauss, cached = mtrand._rand.get_state()
        return kind, keys.tobytes(), position, has_gauss, cached

    def write(self, value: Any) -> None:
        import numpy as np

        kind, keys, position, has_gauss, cached = unpacked(value)
        self.state()
        np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), position, has_gauss, cached))


class _TorchRandom(_Generator):
    name = "<torch.rng>"

    def state(self) -> Any:
        torch: Any = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "get_rng_state"):
            return None
        return bytes(torch.get_rng_state().tolist())

    def write(self, value: Any) -> None:
        import torch  # type: ignore[import-not-found,unused-ignore]

        torch.set_rng_state(torch.tensor(list(unpacked(value)), dtype=torch.uint8))


# --- options of packages ---------------------------------------------------------------------------------------------


class _RcParams(Options):
    name = "<rcParams>"

    def __init__(self) -> None:
        super().__init__()
        self._start: dict[str, Any] = {}

    @staticmethod
    def _tables() -> tuple[Any, Any] | None:
        package: Any = sys.modules.get("matplotlib")
        if package is None or not hasattr(package, "rcParamsOrig"):
            return None
        return package.rcParams, package.rcParamsOrig

    def values(self) -> list[Any] | None:
        tables = self._tables()
        return None if tables is None else list(dict.values(tables[0]))

    def note_start(self) -> None:
        """Copy the defaults that can change: the table of originals holds the very lists that are in use."""
        tables = self._tables()
        if tables is not None:
            defaults = dict(dict.items(tables[1]))
            self._start = {key: copy.copy(value) for key, value in defaults.items() if changes_in_place(value)}

    def _defaults(self) -> dict[str, Any]:
        tables = self._tables()
        return {} if tables is None else {**dict(dict.items(tables[1])), **self._start}

    def differing(self) -> dict[str, Any]:
        tables, start = self._tables(), self._defaults()
        # The back end is chosen lazily, by the shell: it is no option of the notebook's.
        skipped = ("backend", "backend_fallback", "interactive", "figure.hooks")
        now = {} if tables is None else dict(dict.items(tables[0]))
        return {key: value for key, value in now.items() if key not in skipped and not equal(start.get(key), value)}

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        return {"value": packed(after)}

    def write(self, value: Any) -> None:
        import matplotlib as mpl

        chosen, defaults = unpacked(value), self._defaults()
        for key in self.read() or {}:
            if key not in chosen:
                dict.__setitem__(mpl.rcParams, key, copy.copy(defaults[key]))
        for key, option in chosen.items():
            dict.__setitem__(mpl.rcParams, key, option)

    def reset(self) -> None:
        self.write(packed({}))


class _PandasOptions(Options):
    name = "<pandas.options>"

    def __init__(self) -> None:
        super().__init__()
        self._places: list[tuple[str, Any, str, Any]] = []
        """Key, the table that holds the option, under which name, and how it was registered."""
        self._registered: tuple[Any, int] = (None, 0)

    def values(self) -> list[Any] | None:
        config: Any = sys.modules.get("pandas._config.config")
        if config is None or "pandas" not in sys.modules:
            return None
        if self._registered != (config, len(config._registered_options)):
            self._places = [
                (key, *config._get_root(key), option)
                for key, option in list(config._registered_options.items())
                if key not in config._deprecated_options
            ]
            self._registered = (config, len(config._registered_options))
        return [table[name] for _, table, name, _ in self._places]

    def differing(self) -> dict[str, Any]:
        return {key: table[name] for key, table, name, option in self._places if not equal(table[name], option.defval)}

    def write(self, value: Any) -> None:
        import pandas as pd

        chosen = unpacked(value)
        for key in self.read() or {}:
            if key not in chosen:
                pd.reset_option(key)
        for key, option in chosen.items():
            pd.set_option(key, option)

    def reset(self) -> None:
        self.write(packed({}))


class _NumpyPrinting(Part):
    name = "<numpy.printoptions>"

    def __init__(self) -> None:
        self.start: Any = None

    def note_start(self) -> None:
        self.start = self._now()

    @staticmethod
    def _now() -> Any:
        numpy: Any = sys.modules.get("numpy")
        if numpy is None or not hasattr(numpy, "get_printoptions") or not hasattr(numpy, "geterr"):
            return None
        return numpy.get_printoptions(), numpy.geterr()

    def read(self) -> Any:
        now = self._now()
        if now is None:
            return None
        if self.start is None:
            self.start = now
        return None if now == self.start else now

    def write(self, value: Any) -> None:
        import numpy as np

        printing, errors = unpacked(value)
        np.set_printoptions(**{key: option for key, option in printing.items() if key != "override_repr"})
        np.seterr(**errors)

    def reset(self) -> None:
        if self.start is not None:
            self.write(packed(self.start))


PARTS: Sequence[Part] = (
    _Random(),
    _NumpyRandom(),
    _TorchRandom(),
    _RcParams(),
    _PandasOptions(),
    _NumpyPrinting(),
    Warnings(),
    SysPath(),
    WorkingDirectory(),
    Environment(),
    Decimal(),
    Locale(),
    Umask(),
    Logging(),
    RecursionLimit(),
    Signals(),
    Settings(),
    Registered(),
    Backend(),
    Interactive(),
    COUNTERS,
    Warned(),
)


def whole_state(packages: Collection[str]) -> tuple[ProcessState, dict[str, Any]]:
    """The state now, and the delta that makes a new process what this one is: what is at its default there already is
    left out, since putting it back would import the package that it belongs to.

    Args:
        packages: those that count there.
    """
    now = ProcessState.capture()
    counted = now.values.get(COUNTERS.name) or {}
    starts = {place: COUNTERS.start_of(place, number) for place, number in counted.items()}
    others = {place: number for place, number in counted.items() if place[0].partition(".")[0] not in packages}
    delta = ProcessState.diff(ProcessState({}, {COUNTERS.name: {**starts, **others}}), now)
    return now, {name: part for name, part in delta.items() if "value" in part or "again" in part}


def started_in() -> str:
    """The folder in which the process was when its state was nobody's choice."""
    return next(part.start for part in PARTS if isinstance(part, WorkingDirectory))


def settle_starts(before: ProcessState) -> None:
    """What imports did is where generators and counters start: imports are run in every process.

    Generators that were unseeded before still are.
    """
    COUNTERS.note_start()
    for part in PARTS:
        if isinstance(part, _Generator) and before.versions.get(part.name) == "unseeded":
            part.note_start()


# --- what a package looks like before anybody used it ----------------------------------------------------------------


def note_starts() -> None:
    """Remember now's state as the one that nobody chose, and that of packages when they are imported later."""
    for part in PARTS:
        note: Callable[[], None] | None = getattr(part, "note_start", None)
        if note is not None:
            note()
    if not any(isinstance(finder, _ImportWatch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ImportWatch())


_WATCHED = {
    "matplotlib": "<rcParams>",
    "numpy": "<numpy.printoptions>",
    "numpy.random.mtrand": "<numpy.random>",
    "torch": "<torch.rng>",
}


class _ImportWatch(importlib.abc.MetaPathFinder):
    """Notes a package's state right after its module ran: `import numpy; numpy.random.seed(0)` may be one cell."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _WATCHED:
            return None
        # Only those after us: another watcher that does the same would ask us again, for ever.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            if not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    _notice(spec.loader, name)
                return spec
        return None


def _notice(loader: Any, name: str) -> None:
    original = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        original(module)
        for part in PARTS:
            if part.name == _WATCHED[name]:
                part.note_start()  # type: ignore[attr-defined]

    loader.exec_module = exec_module
