"""Shadow audit: a share of replays is run as well, in a process of its own, and compared (`DURABLE_NB_AUDIT=0.05`).

The session is never waited for and never changed by it: the answer is a note in the journal and, when the cell gave
something else, a line on stderr that says that it is not deterministic. Its replays keep the first result.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from durable_nb.events import EventKind
from durable_nb.exceptions import StoreError
from durable_nb.notebook._cell import Cell
from durable_nb.notebook._records import cell_event

if TYPE_CHECKING:
    from durable_nb.notebook._home import Home
    from durable_nb.notebook._session import Session

_LIMIT = 3600.0
"""Seconds after which an audit is given up."""


def share_from(environ: Mapping[str, str]) -> float:
    """The share of replays that `DURABLE_NB_AUDIT` asks for, 0 to 1; 0 for what is no number."""
    try:
        return min(max(float(environ.get("DURABLE_NB_AUDIT") or 0.0), 0.0), 1.0)
    except ValueError:
        return 0.0


class Audits:
    """Chooses replays of one session, and has them run again elsewhere."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._share = share_from(os.environ)
        self._folder = os.path.realpath(os.curdir)
        self._choice = random.SystemRandom()  # the user's generator is an input of cells
        self._threads: list[threading.Thread] = []

    def consider(self, cell: Cell) -> None:
        """A cell was replayed: audit it, or not."""
        session, home = self._session, self._session.home
        if not self._share or home is None or not session.every_cell or cell.options.at_most_once:
            return
        if cell.options.on is not None:  # it would run here, which is not what was asked for
            return
        if self._choice.random() >= self._share or not session.owned(home):
            return
        sources = [each.request.raw for each in session.done] + [cell.request.raw]
        thread = threading.Thread(
            target=self._audit, args=(home, cell.operation, cell.label, sources), name="durable_nb audit", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _audit(self, home: Home, operation: str, label: str, sources: list[str]) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": "0", "DURABLE_NB_AUDIT": "0"}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "durable_nb.notebook._shadow"],
                input=json.dumps({"cells": sources}).encode(),
                capture_output=True,
                cwd=self._folder,
                env=environment,
                timeout=_LIMIT,
                check=True,
            )
            found: dict[str, Any] = json.loads(done.stdout.decode())
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            found = {"verdict": "none", "reason": f"the audit's process failed: {type(exc).__name__}"}
        self._note(home, operation, found)
        if found["verdict"] == "different":
            what = ", ".join(found["differs"][:5])
            self._session.warn(
                f"audit: cell {label!r} is not deterministic: run again it gives another {what}; "
                "replays keep its first result"
            )

    def _note(self, home: Home, operation: str, found: Mapping[str, Any]) -> None:
        event = cell_event(operation, EventKind.NOTE, time.time(), name=None, details={"audit": dict(found)})
        try:
            self._session.write(home, [event], durable=False)
        except StoreError as exc:
            self._session.warn(f"an audit was not recorded: {exc}")
