"""Process state that cells change without binding a name: generators, options, paths, the environment.

Each part is one pseudo-name (`<random>`, `<cwd>`…) with a version, a value to store and a way to put it back. A
generator that nobody moved since the process started has the version `unseeded`: its content is different in every
process and means nothing. Options that equal their defaults have the version `default`, whether or not their package
is loaded, so that importing it is no change.
"""

from __future__ import annotations

import base64
import decimal
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import locale
import logging
import os
import pickle
import random
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from durable_nb.snapshot._digest import content_digest

_SECRET = re.compile(
    r"key|token|secret|passw|credential|auth|private|cookie|session|dsn|conn(ection)?_?str", re.IGNORECASE
)

_IGNORED_VARIABLES = re.compile(r"JPY_.*|PYTEST_.*|COLUMNS|LINES|_|OLDPWD|PWD|SHLVL|TERM.*")


def looks_secret(name: str) -> bool:
    """True for names of variables whose values are never written."""
    return _SECRET.search(name) is not None


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
            if "value" in entry:
                try:
                    part.write(entry["value"])
                except (OSError, ValueError, ImportError, AttributeError, locale.Error) as exc:
                    failed.append(f"{part.name}: {exc}")
        return tuple(failed)


class Part:
    """One pseudo-name."""

    name: str
    absent = "default"

    def read(self) -> Any:
        """The value now, or None when it is at its default."""
        raise NotImplementedError

    def version(self, value: Any) -> str:
        return content_digest([(self.name, value)]) or _pickled_digest(value)

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        return {"value": _packed(after)}

    def write(self, value: Any) -> None:
        raise NotImplementedError


def _packed(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value, 5)).decode()


def _unpacked(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))  # noqa: S301 - part of a manifest whose signature was checked


def _pickled_digest(value: Any) -> str:
    return hashlib.blake2b(pickle.dumps(value, 5), digest_size=16).hexdigest()


# --- generators ------------------------------------------------------------------------------------------------------


class _Generator(Part):
    absent = "unseeded"

    def __init__(self) -> None:
        self.start: Any = None
        self.last: tuple[Any, str] | None = None

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

    def version(self, value: Any) -> str:
        # Most cells draw nothing: comparing states is quicker than digesting one.
        if self.last is None or self.last[0] != value:
            self.last = (value, super().version(value))
        return self.last[1]


class _Random(_Generator):
    name = "<random>"

    def state(self) -> Any:
        return random.getstate()

    def write(self, value: Any) -> None:
        random.setstate(_unpacked(value))


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

        kind, keys, position, has_gauss, cached = _unpacked(value)
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

        torch.set_rng_state(torch.tensor(list(_unpacked(value)), dtype=torch.uint8))


# --- options of packages ---------------------------------------------------------------------------------------------


class _RcParams(Part):
    name = "<rcParams>"

    @staticmethod
    def _tables() -> tuple[Any, Any] | None:
        package: Any = sys.modules.get("matplotlib")
        if package is None or not hasattr(package, "rcParamsOrig"):
            return None
        return package.rcParams, package.rcParamsOrig

    def read(self) -> Any:
        tables = self._tables()
        if tables is None:
            return None
        now, start = (dict.items(table) for table in tables)
        original = dict(start)
        # The back end is chosen lazily, by the shell: it is no option of the notebook's.
        skipped = ("backend", "backend_fallback", "interactive", "figure.hooks")
        found = {key: value for key, value in now if key not in skipped and not _equal(original.get(key), value)}
        return dict(sorted(found.items())) or None

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        return {"value": _packed(after)}

    def write(self, value: Any) -> None:
        import matplotlib as mpl

        chosen = _unpacked(value)
        for key in self.read() or {}:
            if key not in chosen:
                dict.__setitem__(mpl.rcParams, key, dict.__getitem__(mpl.rcParamsOrig, key))
        for key, option in chosen.items():
            dict.__setitem__(mpl.rcParams, key, option)


def _equal(left: Any, right: Any) -> bool:
    try:
        return bool(left is right or (type(left) is type(right) and left == right))
    except (ValueError, TypeError):
        return False


class _PandasOptions(Part):
    name = "<pandas.options>"

    def read(self) -> Any:
        config: Any = sys.modules.get("pandas._config.config")
        if config is None or "pandas" not in sys.modules:
            return None
        found = {}
        for key, option in config._registered_options.items():
            if key in config._deprecated_options:
                continue
            value = config._get_root(key)[0][config._get_root(key)[1]]
            if not _equal(value, option.defval):
                found[key] = value
        return dict(sorted(found.items())) or None

    def write(self, value: Any) -> None:
        import pandas as pd

        chosen = _unpacked(value)
        for key in self.read() or {}:
            if key not in chosen:
                pd.reset_option(key)
        for key, option in chosen.items():
            pd.set_option(key, option)


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

        printing, errors = _unpacked(value)
        np.set_printoptions(**{key: option for key, option in printing.items() if key != "override_repr"})
        np.seterr(**errors)


# --- Python itself ---------------------------------------------------------------------------------------------------


class _Warnings(Part):
    name = "<warnings>"

    def read(self) -> Any:
        found = []
        for action, message, category, module, line in warnings.filters:
            if category.__module__ == "__main__":
                continue  # a notebook's own class: the cell that defines it runs or restores before it matters
            found.append((action, _pattern(message), category, _pattern(module), line))
        return found

    def version(self, value: Any) -> str:
        plain = [
            (action, message, f"{kind.__module__}.{kind.__qualname__}", module, line)
            for action, message, kind, module, line in value
        ]
        return content_digest([(self.name, plain)]) or ""

    def write(self, value: Any) -> None:
        filters: list[Any] = [
            (action, _compiled(message), category, _compiled(module), line)
            for action, message, category, module, line in _unpacked(value)
        ]
        mine = [entry for entry in warnings.filters if entry[2].__module__ == "__main__"]
        warnings.filters[:] = [*mine, *filters]  # type: ignore[index]
        warnings._filters_mutated() if hasattr(warnings, "_filters_mutated") else warnings._filters_mutated_lock_held()  # type: ignore[attr-defined]


def _pattern(value: Any) -> Any:
    return (value.pattern, value.flags) if isinstance(value, re.Pattern) else value


def _compiled(value: Any) -> Any:
    return re.compile(*value) if isinstance(value, tuple) else value


class _SysPath(Part):
    name = "<sys.path>"

    def read(self) -> Any:
        return list(map(str, sys.path))

    def write(self, value: Any) -> None:
        sys.path[:] = _unpacked(value)


class _WorkingDirectory(Part):
    """Kept relative to where the process started, so that a moved project replays."""

    name = "<cwd>"

    def __init__(self) -> None:
        self.start = _cwd()

    def note_start(self) -> None:
        self.start = _cwd()

    def read(self) -> Any:
        now = _cwd()
        return None if now == self.start else os.path.relpath(now, self.start) if _inside(now, self.start) else now

    def write(self, value: Any) -> None:
        os.chdir(Path(self.start) / _unpacked(value))


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _inside(path: str, folder: str) -> bool:
    return os.path.splitdrive(path)[0] == os.path.splitdrive(folder)[0]


class _Environment(Part):
    """Variables that the notebook changed; those that look secret leave only the fact that they were set."""

    name = "<environ>"

    def __init__(self) -> None:
        self.start: dict[str, str] = dict(os.environ)
        self.salt = os.urandom(16)

    def note_start(self) -> None:
        self.start = dict(os.environ)

    def read(self) -> Any:
        now = dict(os.environ)
        if now == self.start:
            return None
        changed: dict[str, Any] = {}
        for name in sorted({*now, *self.start}):
            if now.get(name) != self.start.get(name) and not _IGNORED_VARIABLES.fullmatch(name):
                changed[name] = now.get(name)
        return changed or None

    def version(self, value: Any) -> str:
        # A secret counts by its name only: a digest of a short value could be turned back.
        told = {name: "set" if looks_secret(name) else text for name, text in value.items()}
        return content_digest([(self.name, told)]) or ""

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        secret = sorted(name for name in after if looks_secret(name) and after[name] is not None)
        return {
            "value": {name: text for name, text in after.items() if name not in secret},
            "unstored": [name for name in secret if (before or {}).get(name) != after[name]],
        }

    def write(self, value: Any) -> None:
        for name in self.read() or {}:
            if name not in value and not looks_secret(name):
                if name in self.start:
                    os.environ[name] = self.start[name]
                else:
                    os.environ.pop(name, None)
        for name, text in value.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


class _Decimal(Part):
    name = "<decimal>"

    def read(self) -> Any:
        now = decimal.getcontext()
        kept = (now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp)
        traps = tuple(sorted(signal.__name__ for signal, on in now.traps.items() if on))
        standard = decimal.DefaultContext
        default = (standard.prec, standard.rounding, standard.Emin, standard.Emax, standard.capitals, standard.clamp)
        usual = tuple(sorted(signal.__name__ for signal, on in standard.traps.items() if on))
        return None if (kept, traps) == (default, usual) else (kept, traps)

    def write(self, value: Any) -> None:
        (prec, rounding, low, high, capitals, clamp), traps = _unpacked(value)
        context = decimal.getcontext()
        context.prec, context.rounding, context.Emin, context.Emax = prec, rounding, low, high
        context.capitals, context.clamp = capitals, clamp
        for signal in context.traps:
            context.traps[signal] = signal.__name__ in traps


class _Locale(Part):
    name = "<locale>"

    def __init__(self) -> None:
        self.start = locale.setlocale(locale.LC_ALL)

    def read(self) -> Any:
        now = locale.setlocale(locale.LC_ALL)
        return None if now == self.start else now

    def write(self, value: Any) -> None:
        locale.setlocale(locale.LC_ALL, _unpacked(value))


class _Umask(Part):
    name = "<umask>"

    def __init__(self) -> None:
        self.start = self._now()

    @staticmethod
    def _now() -> int | None:
        """Without setting it for a moment, which other threads would see."""
        try:
            with open("/proc/self/status", "rb") as lines:
                for line in lines:
                    if line.startswith(b"Umask:"):
                        return int(line.split()[1], 8)
        except OSError:
            return None
        return None

    def read(self) -> Any:
        now = self._now()
        return None if now == self.start else now

    def write(self, value: Any) -> None:
        os.umask(_unpacked(value))


class _Logging(Part):
    name = "<logging>"

    def read(self) -> Any:
        now = (logging.root.level, logging.root.manager.disable)
        return None if now == (logging.WARNING, 0) else now

    def write(self, value: Any) -> None:
        level, disabled = _unpacked(value)
        logging.root.setLevel(level)
        logging.disable(disabled)


class _RecursionLimit(Part):
    name = "<recursionlimit>"

    def __init__(self) -> None:
        self.start = sys.getrecursionlimit()

    def read(self) -> Any:
        now = sys.getrecursionlimit()
        return None if now == self.start else now

    def write(self, value: Any) -> None:
        sys.setrecursionlimit(_unpacked(value))


PARTS: Sequence[Part] = (
    _Random(),
    _NumpyRandom(),
    _TorchRandom(),
    _RcParams(),
    _PandasOptions(),
    _NumpyPrinting(),
    _Warnings(),
    _SysPath(),
    _WorkingDirectory(),
    _Environment(),
    _Decimal(),
    _Locale(),
    _Umask(),
    _Logging(),
    _RecursionLimit(),
)


def settle_generators(before: ProcessState) -> None:
    """Generators that were unseeded before still are: what moved them was an import, which is run in every process."""
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


_WATCHED = {"numpy.random.mtrand": "<numpy.random>", "numpy": "<numpy.printoptions>", "torch": "<torch.rng>"}


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
