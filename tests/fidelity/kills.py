"""SIGKILL at named points of a Run All: the process is gone before the next instruction.

`after cell k`, `inside cell k` (after its s-th statement; 0 is before the first), and at the n-th store write: just
before or just after a journal append, a blob write, a rename of a blob or a marker. Points are counted from 1 in the
order in which the run passes them; `count_only` passes all and says how many there are.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from durable_nb.journal import FileMarkers, SqliteJournal
from durable_nb.snapshot import FileBlobStore


@dataclass(frozen=True, slots=True)
class Kill:
    """Where a process dies."""

    where: Literal["after", "inside", "write", "count"]
    cell: int = 0
    point: int = 0

    def __str__(self) -> str:
        return (
            f"{self.where} {self.cell}.{self.point}"
            if self.where == "inside"
            else (f"{self.where} {self.point if self.where == 'write' else self.cell}")
        )


def die() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Counts the points of one run, and dies at the chosen one."""

    def __init__(self, kill: Kill | None) -> None:
        self._kill = kill
        self.passed = 0
        self.names: list[str] = []
        self.statements: dict[int, int] = {}
        self._cell = 0

    def install(self, shell: Any) -> None:
        """Wrap the statements of this shell and the writes of every store of this process."""
        run_code = shell.run_code
        parent = os.getpid()

        @functools.wraps(run_code)
        async def counted(*args: Any, **keywords: Any) -> Any:
            self._statement()
            try:
                return await run_code(*args, **keywords)
            finally:
                self._statement()

        if self._kill is not None and self._kill.where in ("inside", "count"):
            shell.run_code = counted
        if self._kill is None or self._kill.where not in ("write", "count"):
            return
        for owner, name in (
            (SqliteJournal, "append"),
            (SqliteJournal, "create"),
            (SqliteJournal, "update"),
            (SqliteJournal, "acquire"),
            (FileBlobStore, "put"),
            (FileMarkers, "claim"),
            (os, "replace"),
            (os, "link"),
            (os, "rename"),
        ):
            setattr(owner, name, self._wrapped(getattr(owner, name), f"{owner.__name__}.{name}", parent))

    def _wrapped(self, original: Callable[..., Any], name: str, parent: int) -> Callable[..., Any]:
        @functools.wraps(original)
        def write(*args: Any, **keywords: Any) -> Any:
            if os.getpid() != parent:
                return original(*args, **keywords)
            self._write(f"before {name}")
            found = original(*args, **keywords)
            self._write(f"after {name}")
            return found

        return write

    def _write(self, name: str) -> None:
        self.passed += 1
        self.names.append(name)
        if self._kill is not None and self._kill.where == "write" and self._kill.point == self.passed:
            die()

    def _statement(self) -> None:
        point = self.statements.get(self._cell, 0)
        self.statements[self._cell] = point + 1
        kill = self._kill
        if kill is not None and kill.where == "inside" and (kill.cell, kill.point) == (self._cell, point):
            die()

    def begin(self, cell: int) -> None:
        """The next cell starts."""
        self._cell = cell

    def end(self, cell: int) -> None:
        """A cell's reply has gone out."""
        if self._kill is not None and self._kill.where == "after" and self._kill.cell == cell:
            die()
