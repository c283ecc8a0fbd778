"""Environment variables and the working directory as inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping

from durable_nb.cells._digest import keyed_digest
from durable_nb.cells._fingerprint import ABSENT, Input
from durable_nb.cells._observe import ALL_VARIABLES, Observed
from durable_nb.cells._places import Places

__all__ = ["Environment", "is_session_variable"]

_SESSION_PREFIXES = (
    *("JPY_", "PYTEST_", "TERM_", "SSH_", "VSCODE_", "TMUX", "DBUS_", "KERNEL_", "DURABLE_NB_", "LC_TERMINAL"),
    *("XDG_SESSION_", "XDG_RUNTIME_", "XDG_SEAT", "XDG_VTNR", "XDG_CURRENT_", "ITERM_", "GNOME_TERMINAL_"),
    *("KDE_", "JUPYTER_", "PYDEVD_", "BASH_"),
)
_SESSION_NAMES = frozenset(
    {"_", "COLUMNS", "LINES", "PWD", "OLDPWD", "PS1", "PS2", "PROMPT", "PAGER", "CLICOLOR", "CLICOLOR_FORCE", "DISPLAY"}
    | {"FORCE_COLOR", "NO_COLOR", "HOSTNAME", "MAIL", "INVOCATION_ID", "JOURNAL_STREAM", "MPLBACKEND", "PYTHONHASHSEED"}
    | {"PYTHONUNBUFFERED", "LS_COLORS", "VIRTUAL_ENV_PROMPT", "WAYLAND_DISPLAY", "HISTFILE", "TERM", "COLORTERM"}
    | {"GIT_PAGER", "WINDOWID", "SHLVL", "LESS", "LESSOPEN", "LESSCLOSE", "SESSION_MANAGER"}
)


def is_session_variable(name: str) -> bool:
    """Variables of the front end and the terminal, which say nothing about the work."""
    return name in _SESSION_NAMES or name.startswith(_SESSION_PREFIXES)


class Environment:
    """Versions of variables are keyed digests, so that a record does not give a secret away to a guess."""

    def __init__(self, key: bytes, places: Places, environ: Mapping[str, str] | None = None) -> None:
        self._key = key
        self._places = places
        self._environ = environ

    def version(self, name: str) -> str:
        """The present version of a variable; `ABSENT` when it is not set; `*` stands for all."""
        # The plain dict behind `os.environ`, so that looking is not observed as reading.
        environ = dict(os.environ) if self._environ is None else self._environ
        if name == ALL_VARIABLES:
            rows = sorted((k, v) for k, v in environ.items() if not is_session_variable(k))
            return keyed_digest(self._key, *(part for row in rows for part in row))
        value = environ.get(name)
        return ABSENT if value is None else self._digest(name, value)

    def _digest(self, name: str, value: str) -> str:
        return keyed_digest(self._key, name, value)

    def cwd(self, path: str | None = None) -> str:
        """The working directory (or `path`), relative to the project."""
        return self._places.key(os.path.abspath(os.getcwd() if path is None else path))

    def inputs(self, observed: Observed) -> list[Input]:
        """The variables that a cell read, as they were when it read them, and the directory if it used it."""
        found: list[Input] = []
        for name, value in observed.env.items():
            if name == ALL_VARIABLES:
                found.append(Input("env", name, self.version(name)))
            elif not is_session_variable(name):
                found.append(Input("env", name, ABSENT if value is None else self._digest(name, value)))
        if observed.used_cwd:
            found.append(Input("cwd", "cwd", self.cwd(observed.cwd)))
        return found
