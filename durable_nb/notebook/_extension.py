"""Putting durable_nb into a shell and taking it out again."""

from __future__ import annotations

import atexit
from typing import Any

from durable_nb.exceptions import InvalidStateError
from durable_nb.notebook._magics import DurableMagics
from durable_nb.notebook._session import Session
from durable_nb.notebook._shell import ShellHooks
from durable_nb.settings import Settings

_ATTRIBUTE = "_durable_nb_hooks"


def load(shell: Any, *, every_cell: bool = False) -> None:
    """Install the session, its hooks and its magics; a second time changes nothing.

    Raises:
        InvalidStateError: the shell has no kernel around it (a terminal IPython): there is nothing to replay into.
    """
    if getattr(shell, _ATTRIBUTE, None) is not None:
        return
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        raise InvalidStateError("durable_nb works in Jupyter kernels; a terminal session has no notebook to replay")
    session = Session(shell, kernel, every_cell=every_cell, settings=Settings.from_environment())
    hooks = ShellHooks(session)
    hooks.install()
    shell.register_magics(DurableMagics(shell, hooks))
    setattr(shell, _ATTRIBUTE, hooks)
    atexit.register(session.close)


def unload(shell: Any) -> None:
    """Remove hooks and session; the durable kernel keeps them, since its cells would lose what they are for."""
    hooks: ShellHooks | None = getattr(shell, _ATTRIBUTE, None)
    if hooks is None or hooks.session.every_cell:
        return
    hooks.remove()
    hooks.session.remove()
    atexit.unregister(hooks.session.close)
    for kind, name in (("line", "durable"), ("line", "durable_step"), ("cell", "durable_step")):
        shell.magics_manager.magics[kind].pop(name, None)
    setattr(shell, _ATTRIBUTE, None)
