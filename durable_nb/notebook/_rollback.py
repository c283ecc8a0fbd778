"""Undoing a failed attempt: the names and the process are as they were before the first one.

What the attempt rebound is bound to the old objects again; what it changed in place is loaded from a copy that was made
before the first attempt. The copy goes to the store where there is one: what a checkpoint holds already costs nothing.
A changed value that cannot be copied forbids a further attempt, and is named. Files and services are not undone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from durable_nb._ident import ident
from durable_nb.abc import BlobStore
from durable_nb.exceptions import NotStorableError
from durable_nb.snapshot import Before, Delta, Group, MemoryBlobStore, ProcessState, Tracker, load, save


class Rollback:
    """Takes the copy; `undo` goes back to it, as often as needed.

    Args:
        tracker: the namespace's tracker.
        touched: names that the cell may change.
        before: the picture before the first attempt.
        blobs: where large copies go; None keeps them in memory.
    """

    def __init__(self, tracker: Tracker, touched: Iterable[str], before: Before, blobs: BlobStore | None) -> None:
        self._tracker, self._before = tracker, before
        self._bindings = tracker.bindings()
        self._touched = frozenset(touched)
        self._groups = self._touched_groups()
        self._versions = {name: tracker.version(name) for group in self._groups for name in group.names}
        self._blobs = blobs if blobs is not None else MemoryBlobStore()
        copied = Delta(self._versions, (), self._groups, (), {}, tracker)
        self._copy = save(copied, self._blobs)

    def _touched_groups(self) -> list[Group]:
        found: dict[int, Group] = {}
        for name in self._touched:
            group = self._tracker.group_of(name)
            if group is not None:
                found[ident(group)] = group
        return list(found.values())

    def undo(self) -> str | None:
        """Go back; returns why it cannot, naming the value that stands in the way."""
        tracker = self._tracker
        delta = tracker.after(self._before, self._touched, fingerprint="rollback", nonce=uuid.uuid4().hex)
        changed = {*delta.changed, *delta.deleted}
        for name in changed:
            if name in self._bindings:
                tracker.bind(name, self._bindings[name])
            else:
                tracker.unbind(name)
        for group in self._groups:
            if changed.isdisjoint(group.names):
                continue
            problem = self._restore(group)
            if problem is not None:
                return problem
        ProcessState.restore(ProcessState.diff(ProcessState.capture(), self._before.process))
        return None

    def _restore(self, group: Group) -> str | None:
        """Old objects are bound again; when they were changed in place, the copy is loaded over them."""
        tracker, names = self._tracker, group.names
        now: Any = tracker.before(names).states
        if any(now[name] != self._before.states.get(name) for name in names if name in self._before.states):
            try:
                load(self._copy, tracker, self._blobs, names=names)
            except NotStorableError as exc:
                return f"the failed attempt changed {exc.path} ({exc.type_name}), which cannot be copied: {exc.why}"
        tracker.replaced(names, {name: self._versions[name] for name in names}, ())
        return None
