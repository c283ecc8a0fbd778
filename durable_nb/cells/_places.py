"""Which files and frames are the user's: the one place that decides what counts as installed, system or cache.

A path belongs to the longest known directory above it. So a project inside a system directory still counts, and a
virtual environment inside a project does not.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Places"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Places:
    """Directories by what they mean for a notebook's inputs."""

    def __init__(self, project: str | os.PathLike[str], *, ignored: Iterable[str | os.PathLike[str]] = ()) -> None:
        """
        Args:
            project: the directory that file keys are relative to.
            ignored: more directories whose files are no inputs: the store.
        """
        self.project = os.path.realpath(project)
        self._stdlib = _stdlib_directories()
        self._installed = _installed_directories()
        self._rules: dict[str, bool] = dict.fromkeys(
            [*self._stdlib, *self._installed, *_system_directories(), *_cache_directories()], False
        )
        self._rules[self.project] = True
        self._rules[_PACKAGE] = False
        for folder in ignored:
            self._rules[os.path.realpath(folder)] = False
        self._temporary = os.path.abspath(tempfile.gettempdir())
        self._verdicts: dict[str, bool] = {}
        self._frames: dict[str, str] = {}
        self._real: dict[str, str] = {}

    def counts(self, path: str) -> bool:
        """Whether the file or directory at this absolute path can be an input."""
        folder, name = os.path.split(path)
        if name.startswith("ipykernel_") and folder == tempfile.gettempdir():
            return False
        known = self._verdicts.get(folder)
        if known is None:
            known = self._verdicts[folder] = self._decide(folder)
            if len(self._verdicts) > 50_000:
                self._verdicts.clear()
        if path in self._rules:
            return self._rules[path]
        return known and name != "__pycache__" and not name.endswith(".pyc")

    def _decide(self, folder: str) -> bool:
        if "__pycache__" in folder or os.sep + ".ipynb_checkpoints" in folder:
            return False
        if folder.startswith(os.path.join(tempfile.gettempdir(), "ipykernel_")):
            return False
        here = folder
        while True:
            if here in self._rules:
                return self._rules[here]
            parent = os.path.dirname(here)
            if parent == here:
                return True
            here = parent

    def is_temporary(self, path: str) -> bool:
        """Whether a path is in the system's folder for temporary files, and not in the project."""
        return _below(path, (self._temporary,)) and not _below(path, (self.project,))

    def frame(self, filename: str) -> str:
        """What the code in a file is: `user` (a cell), `local`, `installed` or `stdlib`."""
        known = self._frames.get(filename)
        if known is None:
            known = self._frames[filename] = self._frame(filename)
            if len(self._frames) > 50_000:
                self._frames.clear()
        return known

    def _frame(self, filename: str) -> str:
        if filename.startswith(_GENERATED):
            return "stdlib"
        if filename.startswith("<") or "ipykernel_" in filename:
            return "user"
        path = os.path.abspath(filename)
        if _below(path, self._installed) or _below(path, (_PACKAGE,)):
            return "installed"
        if _below(path, self._stdlib):
            return "stdlib"
        return "local"

    def is_local_source(self, path: str) -> bool:
        """Whether a module's file is the user's own: neither installed nor of the standard library."""
        return self.frame(path) == "local"

    def key(self, path: str) -> str:
        """The name of a path in records: relative to the project where that is shorter, with forward slashes."""
        if path == self.project:
            return "."
        # A neighbour of the project moves with it; anything further away does not.
        parent = os.path.dirname(self.project).rstrip(os.sep) + os.sep
        for root, start in ((self.project.rstrip(os.sep) + os.sep, ""), (parent, "../")):
            # The project's own path has no links in it; the path that a cell used may have.
            for form in (path, self._without_links(path)):
                if len(root) > 1 and form.startswith(root):
                    return start + form[len(root) :].replace(os.sep, "/")
        return path.replace(os.sep, "/")

    def _without_links(self, path: str) -> str:
        """The path with its folder resolved; a link to a file stays a name of its own."""
        folder, name = os.path.split(path)
        real = self._real.get(folder)
        if real is None:
            real = self._real[folder] = os.path.realpath(folder)
        return os.path.join(real, name)

    def path(self, key: str) -> str:
        """The absolute path of a key, in this checkout."""
        return os.path.normpath(os.path.join(self.project, key))


_GENERATED = ("<frozen ", "<string>", "<__array_function__", "<decorator-gen", "<attrs generated", "<lambdifygenerated")
"""Code that libraries make at run time: transparent, as the standard library is."""


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(folder + os.sep) or path == folder for folder in folders)


def _stdlib_directories() -> tuple[str, ...]:
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)]
    return tuple(
        dict.fromkeys(form for path in paths if path for form in (os.path.abspath(path), os.path.realpath(path)))
    )


def _installed_directories() -> tuple[str, ...]:
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    paths.append(site.getusersitepackages())
    paths += [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]
    return tuple(
        dict.fromkeys(form for path in paths if path for form in (os.path.abspath(path), os.path.realpath(path)))
    )


def _system_directories() -> list[str]:
    fixed = ["/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/run", "/snap", "/boot"]
    return [
        *fixed,
        "/var/lib",
        "/var/cache",
        "/System",
        "/Library",
        *(form(prefix) for prefix in (sys.prefix, sys.base_prefix) for form in (os.path.abspath, os.path.realpath)),
    ]


def _cache_directories() -> list[str]:
    home = str(Path.home())
    found = [
        os.path.join(home, name) for name in (".cache", ".config", ".ipython", ".jupyter", ".local", ".matplotlib")
    ]
    found += [os.path.join(home, "Library", "Caches"), os.path.join(home, "Library", "Jupyter")]
    variables: tuple[str, ...] = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "JUPYTER_DATA_DIR")
    variables += ("JUPYTER_RUNTIME_DIR",)
    variables += ("JUPYTER_CONFIG_DIR", "IPYTHONDIR", "HF_HOME", "TORCH_HOME", "NUMBA_CACHE_DIR")
    found += [os.path.abspath(os.environ[v]) for v in variables if os.environ.get(v)]
    return found
