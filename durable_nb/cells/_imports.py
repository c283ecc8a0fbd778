"""Seeing a local module right after its own code has run, before the cell that imports it does anything with it.

`import cfg; cfg.setup()` in one cell: what `setup` changes can only be told from what the module itself defines when
the moment between the two is seen. And what a module reads while its code runs (a settings file, a variable) is an
input of every cell that uses the module, whichever cell imported it. A finder in front of the others lets them find
the module and wraps its loader.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

__all__ = ["watch_imports"]

IsLocal = Callable[[str], bool]
Notice = Callable[[str, ModuleType], None]
Around = Callable[[str], AbstractContextManager[None]]


def _alone(_name: str) -> AbstractContextManager[None]:
    return nullcontext()


def watch_imports(is_local: IsLocal, notice: Notice, around: Around = _alone) -> None:
    """Watch each local module that is imported from now on. The last call of this function counts.

    Args:
        is_local: tells of a source file whether it is the user's own.
        notice: called with a module right after its code has run.
        around: makes the context in which its code runs; `Observer.importing`.
    """
    for finder in sys.meta_path:
        if isinstance(finder, _Watch):
            finder.is_local, finder.notice, finder.around = is_local, notice, around
            return
    sys.meta_path.insert(0, _Watch(is_local, notice, around))


class _Watch(importlib.abc.MetaPathFinder):
    def __init__(self, is_local: IsLocal, notice: Notice, around: Around) -> None:
        self.is_local, self.notice, self.around = is_local, notice, around

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in sys.stdlib_module_names:
            return None
        after = sys.meta_path[sys.meta_path.index(self) + 1 :]
        for finder in after:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._wrap(name, spec)
                return spec
        return None

    def _wrap(self, name: str, spec: importlib.machinery.ModuleSpec) -> None:
        loader = spec.loader
        if loader is None or spec.origin is None or not spec.has_location or not self.is_local(spec.origin):
            return
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with self.around(name):
                run(module)
            self.notice(name, module)

        # On the instance: each import has a loader of its own.
        loader.exec_module = exec_module  # type: ignore[method-assign]
