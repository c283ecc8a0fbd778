"""The magics: parsing and talking; what they do is in the session."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class

from durable_nb.exceptions import DurableExecutionsError, ValidationError
from durable_nb.notebook._shell import ShellHooks

HELP = """\
%durable status                the steps of this notebook, this session's first
%durable plan                  what Run All would replay or run, and why (the saved notebook; runs nothing)
%durable why [STEP]            why a cell was replayed or run, as a diff; without STEP the last one
%durable history [STEP]        what was recorded for a step
%durable rerun STEP            run it the next time, whatever is recorded
%durable forget STEP | --all   remove what is recorded for it
%durable resolve NAME --keep | --again | --succeeded | --failed
                               decide about an at-most-once step
%durable use NAME              write to the execution of this name from now on
%durable on | off              make cells durable again | leave them alone
%durable verify                check every stored byte
%durable gc                    remove what no checkpoint needs
%durable help                  this text
STEP is a step's name, the number of its prompt (3 for In[3]), or the start of its source."""


@magics_class
class DurableMagics(Magics):
    """`%%durable_step`, `%durable_step` and `%durable`."""

    def __init__(self, shell: Any, hooks: ShellHooks) -> None:
        super().__init__(shell)
        self._hooks = hooks

    @line_cell_magic
    def durable_step(self, line: str, cell: str | None = None) -> Any:
        """Make this cell, or with one % this statement, a durable step.

        %%durable_step [NAME] [--max-attempts N] [--initial-delay 5s] [--max-delay 5m] [--backoff 2.0]
            [--jitter full|half|none] [--retry PRESET] [--retry-on ERROR[,ERROR…]] [--retry-if-message REGEX]
            [--at-most-once] [--timeout 10m] [--depends-on GLOB…] [--on dask://HOST:PORT] [--force]
            [--no-store-output] [--quiet]
        """
        if cell is not None:
            # Cells that start with the magic never get here: the hooks take its line off. This is a nested call.
            raise UsageError("%%durable_step must be the first line of its cell")
        try:
            return self._hooks.line_step(line)
        except ValidationError as exc:
            raise UsageError(f"durable_nb: {exc}") from exc

    @line_magic
    def durable(self, line: str) -> None:
        """Manage durable steps; `%durable help` lists what it does."""
        # Here: most notebooks never ask, and loading the extension should not wait for it.
        from durable_nb.notebook._manage import Manager

        words = shlex.split(line) or ["status"]
        verb, arguments = words[0].lstrip("-"), words[1:]
        if verb == "help":
            print(HELP)
            return
        action: Callable[[list[str]], None] | None = getattr(Manager(self._hooks.session), f"do_{verb}", None)
        if action is None:
            raise UsageError(f"%durable: there is no {verb!r}; %durable help lists what there is")
        try:
            action(arguments)
        except DurableExecutionsError as exc:
            raise UsageError(f"%durable {verb}: {exc}") from exc
