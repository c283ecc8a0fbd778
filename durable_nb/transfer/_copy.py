"""The shell around the difference: it reads both sides, brings markers, blobs and rows, and tells what was done."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from durable_nb.abc import Lease
from durable_nb.events import CELL, Event, EventKind, ExecutionRecord, OperationType, Status
from durable_nb.exceptions import (
    DamagedBlobError,
    JournalConflictError,
    LeaseHeldError,
    MissingBlobError,
    ValidationError,
)
from durable_nb.runtime import Store
from durable_nb.transfer._blobs import Carrier, is_sealed
from durable_nb.transfer._markers import marker_name, starts_to_copy
from durable_nb.transfer._merge import Item, Left, Missing, Side, is_over, missing_of_handler, missing_of_notebook

__all__ = ["Copied", "Transferred", "transfer"]

_LEASE_SECONDS = 60.0
_PATIENCE = 10.0
"""Seconds that a copy waits for the execution in the target: another copy holds it for a moment, again and again."""

_PAUSES = (0.02, 0.25)
"""Seconds between two tries: drawn anew each time, so that two copies do not keep meeting each other."""

_CHUNK_EVENTS = 200
_CHUNK_BYTES = 64 << 20
"""Rows are written when so much has gathered: what a kill can cost is less than this."""

_SAME_NOTEBOOK = 0.5
"""Share of cells that two notebooks of one name must have in common to be one notebook, as for another checkout."""


@dataclass(slots=True)
class Copied:
    """What was copied of one execution (with `dry_run`: what would be)."""

    name: str
    kind: str
    records: int = 0
    cells: int = 0
    """Completed runs of cells among the records."""
    present: int = 0
    """Records that were there already."""
    blobs: int = 0
    nbytes: int = 0
    """Bytes of blobs and payloads that were written."""
    markers: int = 0
    left: list[Left] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all that could be asked for was copied."""
        return not any(left.problem for left in self.left)


@dataclass(slots=True)
class Transferred:
    """What a transfer has done."""

    executions: list[Copied] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all that could be asked for was copied."""
        return all(each.good for each in self.executions)


def transfer(
    source: Store,
    target: Store,
    names: Sequence[str] | None = None,
    *,
    rename: str | None = None,
    in_the_open: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[Copied], None] = lambda _: None,
    on_wait: Callable[[Copied, str], None] = lambda _, __: None,
) -> Transferred:
    """Copy what the target lacks.

    Args:
        source: open store.
        target: open store.
        names: of executions; the handlers that a notebook has called under its own name belong to it. None: all.
        rename: what the one notebook that is named is called in the target.
        in_the_open: copy what is encrypted into a store that is not.
        dry_run: only find out; the numbers of blobs and bytes are not known then.
        on_progress: told of an execution each time more of it was copied.
        on_wait: told once of an execution that somebody holds in the target, and who; it is waited for.

    Raises:
        ValidationError: there is no such execution; the stores are one; or what is encrypted would become readable.
        StoreError: a store failed. What was copied until then is whole, and the same call goes on from there.
    """
    if os.path.realpath(source.place) == os.path.realpath(target.place):
        raise ValidationError(f"{source.label} is both the source and the target: name another store")
    if is_sealed(source) and not is_sealed(target) and not in_the_open:
        raise ValidationError(
            f"the store {source.label} is encrypted and {target.label} is not: what is copied could be read by whoever "
            "can read its files; use an encrypted store, or say --in-the-open"
        )
    chosen = _chosen(source, names)
    if rename is not None and ([record.kind for record in chosen] != ["notebook"] or names is None):
        raise ValidationError("a copy gets another name only when one notebook is named")
    done = Transferred()
    carrier = Carrier(source, target)
    for record in chosen:
        copied = Copied(rename or record.name, record.kind)
        copy = _Copy(source, target, record, copied, carrier, dry_run=dry_run, on_progress=on_progress, on_wait=on_wait)
        copy.run()
        if copied.records or copied.markers or copied.left or copied.present:
            done.executions.append(copied)
    return done


def _chosen(source: Store, names: Sequence[str] | None) -> list[ExecutionRecord]:
    everything = source.journal.executions()
    if names is None:
        return everything
    known = {record.name for record in everything}
    for name in names:
        if name not in known:
            raise ValidationError(f"there is no execution {name!r} in {source.label}")
    below = tuple(f"{name}/" for name in names)
    return [
        record
        for record in everything
        if record.name in names or (record.kind != "notebook" and record.name.startswith(below))
    ]


class _Copy:
    """The copy of one execution."""

    def __init__(
        self,
        source: Store,
        target: Store,
        record: ExecutionRecord,
        copied: Copied,
        carrier: Carrier,
        *,
        dry_run: bool,
        on_progress: Callable[[Copied], None],
        on_wait: Callable[[Copied, str], None],
    ) -> None:
        self._source, self._target, self._record, self._copied = source, target, record, copied
        self._carrier, self._dry_run, self._on_progress, self._on_wait = carrier, dry_run, on_progress, on_wait
        self._has_waited = False
        self._theirs = target.journal.find(copied.name)
        self._mine = Side(source.journal, record.execution_id)
        self._there = Side(target.journal, None if self._theirs is None else self._theirs.execution_id)
        self._carried: dict[int, tuple[Event, tuple[str, ...]]] = {}
        self._damaged: set[int] = set()
        self._began: set[str] = set()
        """At-most-once bodies that the target has begun by itself."""

    def run(self) -> None:
        self._mine.refresh()
        self._there.refresh()
        refusal = self._refusal()
        if refusal is not None:
            self._copied.left.append(refusal)
            return
        self._copy_markers()
        try:
            self._copy_rows()
        except LeaseHeldError as exc:
            why = f"is in use by {exc.holder} in the target: stop that kernel or worker, and do this again"
            self._copied.left.append(Left(self._copied.name, why))

    def _refusal(self) -> Left | None:
        """Why the execution of this name in the target is not the same."""
        mine, theirs, name = self._record, self._theirs, self._copied.name
        if theirs is None:
            return None
        if mine.kind != theirs.kind:
            return Left(name, f"is a {mine.kind} here and a {theirs.kind} in the target")
        if mine.kind == "notebook":
            here, there = _cells_of(mine), _cells_of(theirs)
            if here and there and len(here & there) < _SAME_NOTEBOOK * min(len(here), len(there)):
                return Left(name, "is another notebook in the target: give the copy another name with --as NAME")
        elif any(mine.details.get(key) != theirs.details.get(key) for key in ("handler", "input_digest")):
            return Left(name, "is of another handler, or has another input, in the target")
        return None

    # --- markers ---------------------------------------------------------------------------------------------------

    def _copy_markers(self) -> None:
        markers, name = self._target.markers, self._marker_name()
        starts = starts_to_copy(
            self._source.markers,
            markers,
            source_name=marker_name(self._record),
            target_name=name,
            items=self._mine.items,
        )
        began = set(starts.own)
        self._copied.markers = len(starts.new)
        if starts.new and not self._dry_run:
            self._record_there()  # so that they are found from there: another copy asks the executions
            began.update(each for each, facts in starts.new.items() if not markers.claim(name, each, facts))
        if not self._dry_run:
            for each, facts in starts.torn.items():
                markers.claim(name, each, facts)
        self._began = began

    def _marker_name(self) -> str:
        """A copy keeps the name that its markers carry in the source, under whatever name it is known."""
        return marker_name(self._record if self._theirs is None else self._theirs)

    # --- rows ------------------------------------------------------------------------------------------------------

    def _missing(self) -> Missing:
        if self._record.kind != "notebook":
            return missing_of_handler(
                self._mine.items, self._there.items, name=self._copied.name, damaged=self._damaged
            )
        return missing_of_notebook(
            self._mine.items,
            self._there.items,
            name=self._copied.name,
            damaged=self._damaged,
            began=self._began,
            once=self._marker_name() == marker_name(self._record),
        )

    def _copy_rows(self) -> None:
        missing = self._missing()
        self._copied.present = missing.present
        if self._dry_run:
            self._count(item for group in missing.groups for item in group)
        else:
            if missing.groups:
                with self._free():
                    pass  # a kernel at work is told before anything large is carried
            while missing.groups:
                groups = self._carry(missing.groups)
                if groups:
                    self._write(groups)
                missing = self._missing()
            self._mend()
        self._copied.left += missing.left

    def _carry(self, groups: Sequence[list[Item]]) -> list[list[Item]]:
        """Bring the blobs of the next groups; none when a group turns out not to be whole."""
        ready: list[list[Item]] = []
        start = self._copied.nbytes
        for group in groups:
            for item in group:
                if item.sequence in self._carried:
                    continue
                try:
                    with self._counted():
                        self._carried[item.sequence] = self._carrier.carry(item.event)
                except (DamagedBlobError, MissingBlobError):
                    self._damaged.add(item.sequence)
                    return []
            ready.append(group)
            if sum(map(len, ready)) >= _CHUNK_EVENTS or self._copied.nbytes - start >= _CHUNK_BYTES:
                break
        return ready

    def _write(self, groups: list[list[Item]]) -> None:
        """Append the groups, unless somebody else has written to the target since it was read."""
        record, journal = self._record_there(), self._target.journal
        end = is_over(self._mine.items) if record.kind != "notebook" else None
        more: dict[str, Any] = {} if end is None else {"status": Status(end.event.kind.value), "due": None}
        with self._owned(record.execution_id) as lease, contextlib.suppress(JournalConflictError):
            # An append of nothing tells the last number, also where its event is gone.
            last = journal.append(record.execution_id, [], lease=lease, durable=False)
            if self._there.refresh():
                return
            self._know_cells(record, lease)
            for number, group in enumerate(groups, start=1):
                events = [self._placed(self._carried[item.sequence][0], record) for item in group]
                last = journal.append(
                    record.execution_id,
                    events,
                    lease=lease,
                    after=last,
                    durable=number == len(groups),  # the last commit takes those before it along
                    payload_refs=dict.fromkeys(ref for item in group for ref in self._carried[item.sequence][1]),
                    **more,
                )
                self._count(group)
                self._copied.nbytes += sum(len(event.payload or b"") for event in events)
        self._there.refresh()
        self._on_progress(self._copied)

    def _placed(self, event: Event, record: ExecutionRecord) -> Event:
        """The event under the id that the execution has in the target."""
        if event.type is OperationType.EXECUTION and event.operation_id == self._record.execution_id:
            return replace(event, operation_id=record.execution_id)
        if event.parent_id == self._record.execution_id:
            return replace(event, parent_id=record.execution_id)
        return event

    def _record_there(self) -> ExecutionRecord:
        """The execution in the target, made when there is none."""
        mine = self._record
        if self._theirs is None:
            details = dict(mine.details)
            if mine.kind == "notebook":
                details["markers"] = marker_name(mine)
            made = self._target.journal.create(self._copied.name, kind=mine.kind, at=mine.created_at, details=details)
            self._theirs, self._there.execution_id = made, made.execution_id
        return self._theirs

    def _know_cells(self, record: ExecutionRecord, lease: Lease) -> None:
        """Let the target know the source's cells, so that it is the same notebook after both have gone on changing."""
        if record.kind == "notebook" and not _cells_of(self._record) <= _cells_of(record):
            cells = dict.fromkeys([*_listed(record), *_listed(self._record)])
            details = {**record.details, "cells": list(cells)}
            self._target.journal.update(record.execution_id, details=details, lease=lease)
            self._theirs = replace(record, details=details)

    def _mend(self) -> None:
        """Bring the blobs of rows that are in the target and whose blobs are not."""
        there = {item.identity for item in self._there.items if item.trusted}
        for item in self._mine.items:
            if item.trusted and item.identity in there:
                with self._counted(), contextlib.suppress(DamagedBlobError, MissingBlobError):  # of neither side then
                    self._carrier.mend(item.event)

    # --- leases and counts -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _owned(self, execution_id: str) -> Iterator[Lease]:
        lease = self._lease(execution_id)
        try:
            yield lease
        finally:
            self._target.journal.release(lease)

    def _lease(self, execution_id: str) -> Lease:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._target.journal.acquire(execution_id, ttl=_LEASE_SECONDS)
            except LeaseHeldError as exc:
                if time.monotonic() > deadline:
                    raise
                if not self._has_waited:
                    self._has_waited = True
                    self._on_wait(self._copied, exc.holder)
            time.sleep(random.uniform(*_PAUSES))

    def _free(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._theirs is None else self._owned(self._theirs.execution_id)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        blobs, nbytes = self._carrier.blobs, self._carrier.nbytes
        yield
        self._copied.blobs += self._carrier.blobs - blobs
        self._copied.nbytes += self._carrier.nbytes - nbytes
        self._on_progress(self._copied)

    def _count(self, items: Iterable[Item]) -> None:
        for item in items:
            self._copied.records += 1
            self._copied.cells += item.event.sub_type == CELL and item.event.kind is EventKind.SUCCEEDED


def _listed(record: ExecutionRecord) -> list[str]:
    found = record.details.get("cells")
    return [str(each) for each in found] if isinstance(found, list) else []


def _cells_of(record: ExecutionRecord) -> set[str]:
    return set(_listed(record))
