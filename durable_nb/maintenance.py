"""The care of a store: check it, repair it, trust it, keep it small. The command line and `%durable` call this.

**Check** reads everything back: SQLite's integrity check, the signature of every row, the content of every blob.

**Repair** never deletes. Damaged blobs are moved to `quarantine/`; a damaged database is moved there whole, and what
can be read of it goes into a new one, row by row with its signatures. Markers of at-most-once steps are not touched:
they are what is left when a journal loses its memory. Nobody else may have the store open meanwhile.

**Trust** signs rows as they stand, because a person says so. Blobs need no signature: rows name them by their content.

**Collection** works in two steps, because a writer that finds a blob in place does not write it again and commits
the row that names it a moment later.
1. Records are pruned: never the last word about an at-most-once step, never anything of an execution that a live
   process holds, never an unfinished handler. The oldest superseded records go first, then the oldest completed cells.
   The steps of a finished handler are superseded by its end. Its beginning and its end stay for good, since its name is
   a promise: whoever runs it again gets its result, and nothing runs.
2. Blobs that no row names are purged when no other process has the store open; else they are *condemned*: moved
   aside, where writers do not look and readers do. A condemned blob that a row names after all is spared; one that has
   been condemned for an hour is purged. A map of a blob that is removed stays valid: the system keeps its pages.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from durable_nb.abc import BlobStore, Lease
from durable_nb.encryption import is_encrypted
from durable_nb.events import CELL, EventKind, ExecutionRecord, OperationType, StoredEvent
from durable_nb.exceptions import (
    DamagedBlobError,
    LeaseHeldError,
    MissingBlobError,
    StoreError,
    ValidationError,
)
from durable_nb.runtime import Store, open_store
from durable_nb.settings import Settings, StoreUrl, size_of

__all__ = [
    "Budget",
    "Collected",
    "Finding",
    "Findings",
    "Trusted",
    "budget_of",
    "check",
    "collect",
    "collect_if_due",
    "repair",
    "size_of",
    "store_size",
    "trust",
    "untrusted",
]

_LEASE_SECONDS = 30.0
_GRACE_SECONDS = 3600.0
"""How long a condemned blob or a writer's temporary file is kept while others have the store open."""

_AUTOMATIC_EVERY = 24 * 3600.0
_DATABASE = "journal.db"
_SALVAGED = "salvaged.db"


# --- check ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    """`database`, `damaged record`, `untrusted`, `damaged blob`, `missing blob`."""
    what: str

    def __str__(self) -> str:
        return _SENTENCES[self.kind].format(self.what)


_SENTENCES = {
    "database": "the database is damaged: {}; durable-nb verify --repair keeps what can be read of it",
    "damaged record": "damaged record: {}; it is ignored, and its cell runs again",
    "untrusted": "not signed with your key: {}; it will run again (see durable-nb trust)",
    "damaged blob": "damaged blob {}; the cells that need it will run again",
    "missing blob": "missing blob {}; the cells that need it will run again",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check has read, and what was wrong."""

    findings: tuple[Finding, ...] = ()
    executions: int = 0
    records: int = 0
    blobs: int = 0
    nbytes: int = 0
    unused: int = 0
    """Blobs that no record names: `durable-nb gc` removes them."""

    @property
    def good(self) -> bool:
        """Whether all is as it should be."""
        return not self.findings

    def of(self, kind: str) -> list[str]:
        """What was found of one kind."""
        return [finding.what for finding in self.findings if finding.kind == kind]


def check(store: Store) -> Findings:
    """Read everything back."""
    found = [Finding("database", line) for line in store.journal.complaints()]
    records = executions = 0
    with contextlib.suppress(StoreError):  # told already, as damage of the database
        for record in store.journal.executions():
            executions += 1
            doubted: dict[str, Finding] = {}
            for stored in store.journal.read(record.execution_id):
                records += 1
                finding = _finding(record, stored)
                if finding is not None:  # an operation is told once, however many records it has
                    key = stored.event.operation_id if finding.kind == "untrusted" else str(stored.sequence)
                    doubted[key] = finding
            found += doubted.values()
    needed: set[str] = set()
    with contextlib.suppress(StoreError):
        needed = store.journal.blob_refs()
    present = set(store.blobs.addresses())
    total = 0
    for address in sorted(present | needed):
        try:
            total += store.blobs.check(address)  # one blob at a time is in memory
        except DamagedBlobError:
            found.append(Finding("damaged blob", address))
        except MissingBlobError:
            found.append(Finding("missing blob", address))
    return Findings(tuple(found), executions, records, len(present), total, len(present - needed))


def _finding(record: ExecutionRecord, stored: StoredEvent) -> Finding | None:
    event = stored.event
    if stored.trusted:
        return None
    if "damaged" in event.details and event.kind is EventKind.NOTE:
        return Finding("damaged record", f"{record.name}: number {stored.sequence} ({event.details['damaged']})")
    label = event.name or event.details.get("label") or event.kind.value.lower()
    return Finding("untrusted", f"{record.name}: {label}")


# --- repair -----------------------------------------------------------------------------------------------------------


def repair(place: Path | StoreUrl, *, settings: Settings | None = None) -> Iterator[str]:
    """Move what is damaged out of the way, and keep the rest; one line for each thing done.

    Raises:
        StoreError: another process has the store open; or it is on a server.
    """
    if isinstance(place, StoreUrl):
        raise StoreError(f"the store {place} is on a server: put a backup of the database back with the server's tools")
    from durable_nb.journal import Pin

    pin = Pin(place)
    try:
        with pin.alone() as alone:
            if not alone:
                raise StoreError(f"the store {place} is open in another process: stop that kernel or worker first")
            yield from _repair_database(place)
    finally:
        pin.close()
    yield from _repair_blobs(place, settings)


def _repair_database(place: Path) -> Iterator[str]:
    """Put what can be read into a new database, which takes the old one's name in one step.

    The old files get a second name in the quarantine first, so that a crash anywhere leaves the old database or the new
    one under the name, and the next repair goes on.
    """
    from durable_nb.journal import complaints, counts, salvage

    database, log = place / _DATABASE, place / f"{_DATABASE}-wal"
    wrong = complaints(database) if database.exists() else []
    if not wrong:
        return
    folder = _unfinished(place)
    if folder is None:
        folder = _quarantine(place)
        for path in (database, log):
            if path.exists():
                os.link(path, folder / path.name)
        salvage(database, folder / "reading.db", encrypted=is_encrypted(place))
        os.rename(folder / "reading.db", folder / _SALVAGED)
        _sync(folder)
    kept = counts(folder / _SALVAGED)
    # A log belongs to one database only: it goes before the new one comes.
    for path in (log, place / f"{_DATABASE}-shm"):
        path.unlink(missing_ok=True)
    _sync(place)
    os.rename(folder / _SALVAGED, database)
    _sync(place)
    yield f"the database was damaged ({wrong[0]}): it is in {folder} now"
    yield f"{kept.events} records of {kept.executions} executions could be kept; cells without one run again"


def _unfinished(place: Path) -> Path | None:
    """The folder of a repair that was killed after it had read everything."""
    for found in sorted((place / "quarantine").glob(f"*/{_SALVAGED}")):
        if os.path.samefile(found.parent / _DATABASE, place / _DATABASE):
            return found.parent
    return None


def _repair_blobs(place: Path, settings: Settings | None) -> Iterator[str]:
    store = open_store(place, settings=settings, create=False)
    try:
        blobs = cast("_Files", store.blobs)
        damaged = check(store).of("damaged blob")
        if not damaged:
            return
        folder = _quarantine(place)
        for address in damaged:
            for path in blobs.places(address):
                os.rename(path, folder / path.name)
            yield f"damaged blob {address[:16]}… is in {folder} now; the cells that need it run again"
        _sync(place)
    finally:
        store.close()


class _Files(Protocol):
    def places(self, address: str) -> Iterator[Path]: ...


def _quarantine(place: Path) -> Path:
    """A new folder for what is damaged."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    parent = place / "quarantine"
    parent.mkdir(mode=0o700, exist_ok=True)
    for number in range(1000):
        folder = parent / (stamp if number == 0 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            _sync(parent)
            return folder
    raise StoreError(f"there are too many folders in {parent}")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- trust ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trusted:
    """Records that are not signed with a key of this user, by execution."""

    by_execution: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    """Execution id to its name and the numbers of the records."""

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(len(numbers) for _, numbers in self.by_execution.values())


def untrusted(store: Store) -> Trusted:
    """What would be trusted: records that are whole and not signed with a key of this user or team."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for record in store.journal.executions():
        numbers = tuple(
            stored.sequence
            for stored in store.journal.read(record.execution_id)
            if not stored.trusted and "damaged" not in stored.event.details
        )
        if numbers:
            found[record.execution_id] = (record.name, numbers)
    return Trusted(found)


def trust(store: Store, chosen: Trusted) -> int:
    """Sign these records with the user's key. From then on their values are loaded, which can run any code in them."""
    return sum(store.journal.resign(execution, numbers) for execution, (_, numbers) in chosen.by_execution.items())


# --- collection -------------------------------------------------------------------------------------------------------


class _Collectable(Protocol):
    """What collection asks of blobs."""

    def addresses(self) -> Iterator[str]: ...
    def size(self, address: str) -> int: ...
    def temporaries(self) -> Iterator[Path]: ...
    def condemn(self, *addresses: str) -> None: ...
    def condemned(self) -> Iterator[tuple[str, float]]: ...
    def spare(self, address: str) -> None: ...
    def purge(self, address: str) -> int: ...


def _collectable(blobs: BlobStore) -> _Collectable:
    if not hasattr(blobs, "condemn"):
        raise StoreError("this store keeps its blobs elsewhere: it is collected there")
    return cast("_Collectable", blobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is kept."""

    max_bytes: int | None = None
    """Bytes of the whole store; None: no limit."""
    max_days: float | None = None
    """Days after which a record that is not the newest of its cell goes; None: they are kept."""
    keep: int = 20
    """Completed runs kept of one cell, so that editing back and forth still replays."""


def budget_of(settings: Settings) -> Budget:
    """The budget that the environment sets.

    Raises:
        ValidationError: a limit is no size, or no number.
    """
    days = settings.store_days
    try:
        max_days = None if days is None else float(days)
    except ValueError:
        raise ValidationError(f"DURABLE_NB_STORE_DAYS is no number: {days!r}") from None
    limit = settings.store_limit
    return Budget(max_bytes=None if limit is None else size_of(limit), max_days=max_days)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection has done."""

    records: int = 0
    blobs: int = 0
    nbytes: int = 0
    """Bytes that were given back."""
    waiting: int = 0
    """Blobs that go when no other process has the store open."""
    held: tuple[str, ...] = ()
    """Executions that a live process holds, and that were left alone."""
    copies: int = 0
    """Bytes of this machine's copies of a store on a server that were given back."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A record that may go."""

    newer: int
    """How many completed runs of the same cell came after it."""
    at: float
    execution: str
    sequence: int
    nbytes: int


def store_size(store: Store) -> int:
    """Bytes on disk of everything in a store."""
    return store.share.nbytes()


def collect(store: Store, budget: Budget | None = None, *, dry_run: bool = False) -> Collected:
    """Bring a store into its budget, and remove what nothing names."""
    budget = budget or Budget()
    going, held = _going(store, budget)
    if dry_run:
        return _foreseen(store, going, held)
    before = store_size(store)
    pruned = sum(_prune(store, execution, numbers) for execution, numbers in going.items())
    blobs, waiting = _sweep(store, pruned > 0)
    copies = store.blobs.trim()
    return Collected(pruned, blobs, max(before - store_size(store), 0), waiting, held, copies)


def collect_if_due(store: Store, budget: Budget) -> Collected | None:
    """The automatic collection: at most once a day, and only where a budget is set and passed."""
    if budget.max_bytes is None and budget.max_days is None:
        return None
    stamp = store.place / "collected"
    with contextlib.suppress(FileNotFoundError):
        if time.time() - stamp.lstat().st_mtime < _AUTOMATIC_EVERY:
            return None
    stamp.touch(mode=0o600)
    if budget.max_days is None and store_size(store) <= (budget.max_bytes or 0):
        return None
    return collect(store, budget)


def _going(store: Store, budget: Budget) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Records to prune by execution, and the executions that are held."""
    candidates: list[_Candidate] = []
    held: list[str] = []
    for record in store.journal.executions():
        if record.kind == "notebook":
            found = _candidates(record, list(store.journal.read(record.execution_id)))
        elif record.status.is_terminal:
            found = _steps_of_finished(store, record)
        else:
            continue
        if found and not _free(store, record):
            held.append(record.name)
        else:
            candidates += found
    chosen = _surplus(candidates, budget)
    by_execution: dict[str, list[int]] = {}
    for candidate in chosen:
        by_execution.setdefault(candidate.execution, []).append(candidate.sequence)
    if budget.max_bytes is not None:
        _add_oldest(store, budget.max_bytes, candidates, set(chosen), by_execution)
    return by_execution, tuple(held)


def _surplus(candidates: list[_Candidate], budget: Budget) -> list[_Candidate]:
    """Superseded records that are too old, or more than are kept of one cell."""
    oldest = time.time() - budget.max_days * 86400 if budget.max_days is not None else None
    return [
        candidate
        for candidate in candidates
        if candidate.newer >= budget.keep or (candidate.newer and oldest is not None and candidate.at < oldest)
    ]


def _add_oldest(
    store: Store, limit: int, candidates: list[_Candidate], chosen: set[_Candidate], by_execution: dict[str, list[int]]
) -> None:
    """Let further records go until what stays should fit: superseded ones first, then the oldest."""
    excess = store_size(store) - limit - sum(candidate.nbytes for candidate in chosen)
    for candidate in sorted(candidates, key=lambda each: (not each.newer, each.at)):
        if excess <= 0:
            return
        if candidate not in chosen:
            by_execution.setdefault(candidate.execution, []).append(candidate.sequence)
            excess -= candidate.nbytes


def _candidates(record: ExecutionRecord, events: list[StoredEvent]) -> list[_Candidate]:
    """Completed runs of ordinary cells, newest first; the starts and failures around them weigh nothing and stay."""
    newer: Counter[str] = Counter()
    found = []
    for stored in reversed(events):
        event = stored.event
        if event.kind is not EventKind.SUCCEEDED or event.sub_type != CELL or event.details.get("at_most_once"):
            continue
        nbytes = event.details.get("bytes")
        weight = nbytes if isinstance(nbytes, int) else len(event.payload or b"")
        found.append(_Candidate(newer[event.operation_id], event.at, record.execution_id, stored.sequence, weight))
        newer[event.operation_id] += 1
    return found


_ADDRESS = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ROW_BYTES = 300
"""What an event without a payload takes in the database, about."""


def _steps_of_finished(store: Store, record: ExecutionRecord) -> list[_Candidate]:
    """What a finished handler no longer needs: everything but its beginning, its end, and at-most-once steps."""
    events = list(store.journal.read(record.execution_id))
    once = {stored.event.operation_id for stored in events if stored.event.details.get("at_most_once")}
    ends = [s for s in events if s.event.type is OperationType.EXECUTION and s.event.kind is not EventKind.STARTED]
    if not any(stored.trusted for stored in ends):
        return []  # the row says that it has ended, and rows are not signed
    at = ends[-1].event.at
    return [
        _Candidate(1, at, record.execution_id, stored.sequence, _weight(store, stored))
        for stored in events
        if stored.event.type is not OperationType.EXECUTION and stored.event.operation_id not in once
    ]


def _weight(store: Store, stored: StoredEvent) -> int:
    """Bytes of an event with the blobs that it names; a payload names them as they are called."""
    payload = stored.event.payload or b""
    total = _ROW_BYTES + len(payload)
    for address in set(_ADDRESS.findall(payload)):
        with contextlib.suppress(MissingBlobError):
            total += store.blobs.size(address.decode("ascii"))
    return total


@contextlib.contextmanager
def _owned(store: Store, execution_id: str) -> Iterator[Lease]:
    lease = store.journal.acquire(execution_id, ttl=_LEASE_SECONDS)
    try:
        yield lease
    finally:
        store.journal.release(lease)


def _free(store: Store, record: ExecutionRecord) -> bool:
    try:
        with _owned(store, record.execution_id):
            return True
    except LeaseHeldError:
        return False


def _prune(store: Store, execution: str, numbers: list[int]) -> int:
    try:
        with _owned(store, execution):
            return store.journal.prune(execution, numbers)
    except LeaseHeldError:  # a kernel has come since we looked
        return 0


def _foreseen(store: Store, going: dict[str, list[int]], held: tuple[str, ...]) -> Collected:
    blobs = _collectable(store.blobs)
    needed = store.journal.blob_refs()
    unused = [address for address in blobs.addresses() if address not in needed]
    nbytes = sum(blobs.size(address) for address in unused)
    for execution, numbers in going.items():
        chosen = set(numbers)
        for stored in store.journal.read(execution):
            if stored.sequence in chosen:
                found = stored.event.details.get("bytes")
                nbytes += found if isinstance(found, int) else 0
    return Collected(sum(map(len, going.values())), len(unused), nbytes, 0, held)


def _sweep(store: Store, pruned: bool) -> tuple[int, int]:
    """Remove blobs that no row names; returns how many went, and how many have to wait."""
    blobs = _collectable(store.blobs)
    with store.share.alone() as alone:
        found = _sweep_blobs(store, blobs, alone=alone)
        if alone and pruned:
            store.journal.shrink()
        return found


def _sweep_blobs(store: Store, blobs: _Collectable, *, alone: bool) -> tuple[int, int]:
    needed = store.journal.blob_refs() | store.share.held()
    blobs.condemn(*[address for address in blobs.addresses() if address not in needed])
    # Asked again: a row that names a condemned blob may have been committed while we moved it.
    needed = store.journal.blob_refs() | store.share.held()
    latest = time.time() - _GRACE_SECONDS
    gone = waiting = 0
    for address, since in list(blobs.condemned()):
        if address in needed:
            blobs.spare(address)
        elif alone or since < latest:
            blobs.purge(address)  # a shared store may have heard of it in this moment, and keep it
            gone += 1
        else:
            waiting += 1
    for path in blobs.temporaries():
        with contextlib.suppress(FileNotFoundError):
            if alone or path.lstat().st_mtime < latest:
                path.unlink()
    return gone, waiting
