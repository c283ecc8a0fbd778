"""The composition root: settings in; journal, blobs and markers out, wired together."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from durable_nb.abc import BlobStore, Executor, Journal, Markers
from durable_nb.events import ExecutionRecord
from durable_nb.exceptions import DurableExecutionsError, LeaseHeldError, StoreUnreadableError, ValidationError
from durable_nb.settings import STORE_DIRECTORY, Settings

if TYPE_CHECKING:
    from durable_nb.journal import Pin
    from durable_nb.sdk._driver import Driver

__all__ = [
    "Store",
    "Worker",
    "default_store",
    "driver_for",
    "executor_for",
    "find_store",
    "open_store",
    "shared_store",
]


logger = logging.getLogger(__name__)

HANDLER_KIND = "handler"
"""The kind of executions that handlers make, as the SDK writes it."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open store: where executions, bytes and at-most-once markers are kept."""

    place: Path
    """The store's own directory, usually `.durable/`."""
    journal: Journal
    blobs: BlobStore
    markers: Markers
    pin: Pin | None = None
    """This process's share in the store; what others use is not collected."""

    def hold(self, addresses: Iterable[str]) -> None:
        """Keep blobs that this process has still to read from being collected, until the store is closed."""
        if self.pin is not None:
            self.pin.hold(addresses)

    @property
    def project(self) -> Path:
        """The folder that paths are relative to: the one that holds the store."""
        return self.place.parent

    def close(self) -> None:
        """Close the journal and let the share in the store go."""
        try:
            self.journal.close()
        finally:
            if self.pin is not None:
                self.pin.close()


def find_store(settings: Settings, folder: Path) -> Path:
    """The directory of the store for a notebook or a program in `folder`.

    Raises:
        ValidationError: the setting is a URL of a kind that this installation has no backend for.
    """
    text = settings.store_for(folder)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme == "file":
            return Path(rest).absolute()
        raise ValidationError(f"the store {text!r} is of a kind that is not known: give a directory or file:///path")
    return Path(text).expanduser().absolute()


def open_store(place: str | os.PathLike[str], *, settings: Settings | None = None, create: bool = True) -> Store:
    """Open the store in a directory.

    Args:
        place: the store's directory.
        settings: gives the key that rows are signed with.
        create: make it when there is none.

    Raises:
        StoreUnreadableError: there is none and `create` is False, or it cannot be read.
        StoreVersionError: a newer durable_nb wrote it.
    """
    from durable_nb.encryption import cipher_of
    from durable_nb.journal import EncryptedJournal, FileMarkers, Pin, SqliteJournal
    from durable_nb.journal._filesystem import is_network
    from durable_nb.snapshot import EncryptedBlobStore, FileBlobStore

    chosen = settings or Settings.from_environment()
    directory = Path(place).expanduser().absolute()
    database = directory / "journal.db"
    if not create and not database.exists():
        raise StoreUnreadableError(str(directory), f"there is no store here (no {database.name})")
    try:
        _make_directory(directory)
        if create:
            _ignore_in_git(directory)
    except OSError as exc:
        raise StoreUnreadableError(str(directory), str(exc)) from exc
    signer, *trusts = _signers(chosen)
    cipher = cipher_of(directory, chosen.encryption_key, new=not database.exists())
    try:
        pin = Pin(directory)
    except OSError as exc:
        raise StoreUnreadableError(str(directory), str(exc)) from exc
    try:
        journal: Journal
        blobs: BlobStore
        journal = rows = SqliteJournal(database, signer=signer, trusts=trusts, encrypted=cipher is not None)
        blobs = files = FileBlobStore(directory / "blobs", use_maps=not is_network(directory))
        if cipher is not None:
            journal, blobs = EncryptedJournal(rows, cipher), EncryptedBlobStore(files, cipher)
    except BaseException:
        pin.close()
        raise
    return Store(directory, journal, blobs, FileMarkers(directory / "started"), pin)


def _signers(settings: Settings) -> list[Callable[[bytes], bytes]]:
    """What signs the rows of a journal, and after it what else is trusted."""
    from durable_nb.snapshot import Keyring, signature

    return [partial(_sign_row, signature, key) for key in Keyring(settings.key).trusted]


def _sign_row(sign: Callable[[bytes, bytes, str], bytes], key: bytes, row: bytes) -> bytes:
    return sign(key, row, "journal")


def _make_directory(directory: Path) -> None:
    """Make a folder, mode 0700, and what is missing above it; synced, so that a loss of power keeps the names."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    handle = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _ignore_in_git(directory: Path) -> None:
    """A store inside a repository is nobody's source: it ignores itself."""
    note = directory / ".gitignore"
    if directory.name == STORE_DIRECTORY and not note.exists():
        note.write_text("*\n", encoding="utf-8")


# --- Handlers ---------------------------------------------------------------------------------------------------------

_shared: dict[tuple[int, Path], Store] = {}
_shared_lock = threading.Lock()


def default_store(settings: Settings | None = None) -> Store:
    """The store that handlers use: `DURABLE_NB_STORE`, else `.durable/` in the working directory."""
    chosen = settings or Settings.from_environment()
    return shared_store(find_store(chosen, Path.cwd()))


def shared_store(place: str | os.PathLike[str]) -> Store:
    """The open store of a directory, one per process: its users share commits. It is closed when the process ends."""
    directory = Path(place).expanduser().absolute()
    # A forked child must not use its parent's connection.
    key = (os.getpid(), directory)
    with _shared_lock:
        store = _shared.get(key)
        if store is None:
            store = _shared[key] = open_store(directory)
            atexit.register(store.close)
        return store


def driver_for(store: Any = None, **options: Any) -> Driver:
    """What drives handlers on a store: a directory or URL, an open `Store`, a `Journal`, a `Driver`, or None."""
    from durable_nb.sdk._driver import Driver

    if isinstance(store, Driver):
        return store
    if isinstance(store, Journal):
        return Driver(store, **options)
    if store is None:
        store = default_store()
    elif not isinstance(store, Store):
        store = shared_store(find_store(Settings(store=os.fspath(store)), Path.cwd()))
    return Driver(store.journal, markers=store.markers, **options)


def executor_for(place: Any) -> Executor:
    """Where the bodies of a batch run: an `Executor`, `dask://host:port`, or a `distributed.Client`.

    Nothing is connected before something is submitted, so a batch that is replayed needs no cluster.

    Raises:
        ValidationError: it is nothing that bodies can run on.
    """
    if isinstance(place, Executor):
        return place
    # By name: clusters stand below this module, and are loaded where one is used.
    made: Executor = importlib.import_module("durable_nb.distributed").executor_for(place)
    return made


class Worker:
    """Drives whatever is due in a store: waits that are over, retries, callbacks that came, executions whose process
    died.

    Args:
        driver: of the store.
        threads: how many executions are driven at once.
    """

    def __init__(self, driver: Driver, *, threads: int = 4) -> None:
        self.driver = driver
        self.threads = threads
        self._stop = threading.Event()
        self._slots = threading.Semaphore(threads)
        self._running: dict[str, threading.Thread] = {}
        self._failed: dict[str, int] = {}
        """Executions that this worker cannot drive (an unknown handler, a decision that is missing): said once and left
        alone until something is recorded after this number."""
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let `run_forever` return when what it drives has suspended or ended."""
        self._stop.set()

    def run_forever(self, *, poll_seconds: float = 0.5) -> None:
        """Drive until `stop` is called."""
        while not self._stop.is_set():
            self.start_due()
            self._stop.wait(poll_seconds)
        self._join()

    def run_until_idle(self) -> int:
        """Drive what is due now, and what becomes due by that; returns how many invocations were made."""
        count = 0
        while started := self.start_due():
            count += started
            self._join()
        return count

    def start_due(self) -> int:
        """Start a thread for each due execution that nobody drives; returns how many."""
        started = 0
        for record in self.driver.journal.due(self.driver.clock.now()):
            with self._lock:
                if record.kind != HANDLER_KIND or record.execution_id in self._running:
                    continue
                if self._is_hopeless(record):
                    continue
            if self._stop.is_set() or not self._slots.acquire(blocking=False):
                break
            thread = threading.Thread(target=self._drive, args=(record,), name=f"durable_nb worker {record.name}")
            with self._lock:
                self._running[record.execution_id] = thread
            thread.start()
            started += 1
        return started

    def _drive(self, record: ExecutionRecord) -> None:
        try:
            self.driver.drive(record, self.driver.handler_of(record), wait=False)
        except LeaseHeldError:
            pass  # another process is on it
        except DurableExecutionsError as error:
            logger.error("execution %s cannot be driven: %s", record.name, error)  # noqa: TRY400 - expected: one line
            self._failed[record.execution_id] = self._last(record)
        finally:
            with self._lock:
                self._running.pop(record.execution_id, None)
            self._slots.release()

    def _is_hopeless(self, record: ExecutionRecord) -> bool:
        last = self._failed.get(record.execution_id)
        if last is None:
            return False
        if next(iter(self.driver.journal.read(record.execution_id, after=last)), None) is None:
            return True
        del self._failed[record.execution_id]
        return False

    def _last(self, record: ExecutionRecord) -> int:
        return max((stored.sequence for stored in self.driver.journal.read(record.execution_id)), default=0)

    def _join(self) -> None:
        with self._lock:
            threads = list(self._running.values())
        for thread in threads:
            thread.join()
