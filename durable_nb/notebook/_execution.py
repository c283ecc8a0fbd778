"""Which history is this: the notebook behind a kernel, the store beside it and the execution in that store.

The path of the notebook is told by whoever started the kernel, each client in its own way; a runner that tells nothing
leaves the session *anonymous*. The name of an execution is the notebook's path relative to its project, so that another
working directory or another checkout finds the same history:

- the same name and the same project folder: the same notebook;
- the same name under another project folder: the same notebook (another checkout) when they share cells, else another
  notebook, which gets a name of its own;
- a recorded path that has vanished, with the same cells: the notebook was renamed, and keeps its history.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from durable_nb._dataclass import dataclass
from durable_nb.abc import Journal, Lease
from durable_nb.events import ExecutionRecord
from durable_nb.exceptions import LeaseHeldError, LeaseLostError, StoreError

ANONYMOUS = "(anonymous)"
"""The execution that keeps what sessions without a notebook path ran."""

LEASE_SECONDS = 60.0

_PROJECT_SIGNS = (".git", ".hg", "pyproject.toml", "setup.py", "setup.cfg")
_SAME_NOTEBOOK = 0.5
"""Share of cells that two files must have in common to be the same notebook in another place."""


@dataclass(frozen=True, slots=True)
class Notebook:
    """The file behind a kernel."""

    path: Path
    told_by: str

    @property
    def folder(self) -> Path:
        return self.path.parent


def locate(namespace: Mapping[str, Any], environ: Mapping[str, str]) -> Notebook | None:
    """The notebook this kernel runs, as the client tells it; None when nobody does."""
    session = environ.get("JPY_SESSION_NAME", "")
    if session.endswith(".ipynb"):
        return Notebook(Path(session).absolute(), "the Jupyter server")
    code = namespace.get("__vsc_ipynb_file__")
    if isinstance(code, str):
        return Notebook(Path(code), "VS Code")
    test = environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    if test.endswith(".ipynb"):
        # The path is relative to pytest's root folder; the kernel starts in the notebook's own.
        return Notebook(Path.cwd() / Path(test).name, "pytest")
    return _from_parent()


def _from_parent() -> Notebook | None:
    """The notebook among the arguments of the process that started the kernel (papermill, `jupyter execute`…)."""
    parent = os.getppid()
    try:
        words = Path(f"/proc/{parent}/cmdline").read_bytes().decode(errors="replace").split("\0")
        folder = Path(f"/proc/{parent}/cwd").readlink()
    except OSError:
        return None
    notebooks = [word for word in words[1:] if word.endswith(".ipynb") and not word.startswith("-")]
    if any("papermill" in word for word in words[:4]):
        notebooks = notebooks[:1]  # the second one is its output
    if len(notebooks) != 1:
        return None
    return Notebook((folder / notebooks[0]).absolute(), Path(words[1] if len(words) > 1 else words[0]).name)


def project_of(folder: Path) -> Path:
    """The nearest folder above that looks like a project's, else `folder` itself."""
    for candidate in (folder, *folder.parents):
        if any((candidate / sign).exists() for sign in _PROJECT_SIGNS):
            return candidate
    return folder


def cells_of(path: Path) -> list[str]:
    """A digest of each code cell, white space aside; empty when the file cannot be read as a notebook."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = document["cells"]
        sources = [cell["source"] for cell in cells if cell.get("cell_type") == "code"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    found = []
    for source in sources:
        text = re.sub(r"\s+", "", source if isinstance(source, str) else "".join(source))
        if text:
            found.append(blake2b(text.encode(), digest_size=8).hexdigest())
    return found


def overlap(left: list[str], right: list[str]) -> float:
    """Share of the smaller notebook's cells that the other one has too, 0 to 1."""
    smaller = min(len(set(left)), len(set(right)))
    return len(set(left) & set(right)) / smaller if smaller else 0.0


def resolve(journal: Journal, notebook: Notebook, project: Path) -> ExecutionRecord:
    """The execution of `notebook`, found again, renamed after it, or new."""
    name = os.path.relpath(notebook.path, project)
    cells = cells_of(notebook.path)
    facts = {
        "path": str(notebook.path),
        "project": str(project),
        "cells": cells,
        "markers": name,
        "machine": _machine(),
    }
    found = journal.find(name)
    if found is None:
        renamed = _renamed(journal, notebook, cells)
        if renamed is not None:
            journal.update(
                renamed.execution_id, name=name, details={**renamed.details, **facts, "markers": marker_name(renamed)}
            )
            return journal.get(renamed.execution_id) or renamed
        return journal.create(name, kind="notebook", at=time.time(), details=facts)
    if found.details.get("project") == str(project) or _same_notebook(found, cells):
        kept = {**found.details, **facts, "markers": marker_name(found)}
        if kept != dict(found.details):
            journal.update(found.execution_id, details=kept)
        return journal.get(found.execution_id) or found
    other = f"{name} ({blake2b(str(project).encode(), digest_size=4).hexdigest()})"
    return journal.create(other, kind="notebook", at=time.time(), details={**facts, "markers": other})


def _machine() -> str:
    """Where the path of a notebook means something: this host, and this user's home on it."""
    return f"{socket.gethostname()}:{os.path.expanduser('~')}"  # noqa: PTH111 - `Path` fails without a home


def marker_name(record: ExecutionRecord) -> str:
    """The name that an execution's at-most-once markers carry: its first one; a rename leaves them in place."""
    return str(record.details.get("markers") or record.name)


def _same_notebook(record: ExecutionRecord, cells: list[str]) -> bool:
    known = list(record.details.get("cells") or [])
    return not known or not cells or overlap(known, cells) >= _SAME_NOTEBOOK


def _renamed(journal: Journal, notebook: Notebook, cells: list[str]) -> ExecutionRecord | None:
    """An execution whose notebook has gone from its path and had these cells."""
    best: tuple[float, ExecutionRecord] | None = None
    for record in journal.executions():
        path, known = record.details.get("path"), list(record.details.get("cells") or [])
        if record.kind != "notebook" or not path or not known or not cells:
            continue
        if record.details.get("machine", _machine()) != _machine():
            continue  # in a store of several machines: whether its path is still there only that one can tell
        if Path(path) == notebook.path or Path(path).exists():
            continue
        share = overlap(known, cells)
        if share >= 0.8 and len(set(known) & set(cells)) * 2 > len(set(known)) and (best is None or share > best[0]):
            best = (share, record)
    return best[1] if best else None


class Ownership:
    """The lease on one execution: held, or held by somebody else and asked for again before each cell.

    While it is held a thread renews it, so that a long cell on another host's clock does not lose it. A lease that was
    lost stays in `lease`: whoever still writes with it is refused by its token, and never writes without one.
    """

    def __init__(self, journal: Journal, record: ExecutionRecord) -> None:
        self._journal, self._record = journal, record
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.lease: Lease | None = None
        self._held = False
        self.holder: str | None = None

    def ensure(self) -> bool:
        """Hold the lease if it can be had; `holder` says who has it otherwise."""
        if self._record.name == ANONYMOUS or self._held:
            return True  # what anonymous sessions write is independent of each other: nothing to own
        try:
            self.lease = self._journal.acquire(self._record.execution_id, ttl=LEASE_SECONDS)
        except LeaseHeldError as held:
            self.holder = held.holder
            return False
        self.holder, self._held = None, True
        self._thread = threading.Thread(target=self._keep, args=(self.lease,), name="durable_nb lease", daemon=True)
        self._thread.start()
        return True

    def lost(self) -> None:
        """Somebody has taken the execution: what we write is refused from now on."""
        self._held = False

    def _keep(self, lease: Lease) -> None:
        while not self._ended.wait(LEASE_SECONDS / 4) and self._held and self.lease is lease:
            try:
                self._journal.renew(lease, ttl=LEASE_SECONDS)
            except LeaseLostError:
                if self.lease is lease:
                    self._held = False
                return
            except StoreError:
                continue  # a busy or full disk: the lease still has three quarters of its time

    def close(self) -> None:
        """Stop renewing and give the lease back."""
        self._ended.set()
        held, self._held = self._held, False
        if held and self.lease is not None:
            self._journal.release(self.lease)
